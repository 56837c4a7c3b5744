"""Compute the softmax over a sample of the vocabulary: with thousands of words, the output layer is
most of the work of a training step.

A step computes the logits of its targets and of tokens that are drawn at random, the same tokens
for all positions. In the sum over the vocabulary, each token is weighted by one over its
probability of being in this set, computed as if the targets were independent. A position's own
target has the weight one. So the sum, and with it the loss, estimates that of the full softmax
(Bengio & Senécal 2003; Jean et al. 2015, "On Using Very Large Target Vocabulary for Neural Machine
Translation"); on film reviews, the loss is 0.01 to 0.02 nats too low.
"""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Real
from torch import Tensor

from reviewgen.data.lanes import IGNORED
from reviewgen.data.tokens import Tokens
from reviewgen.protocols.abilities import SupportsLoss, SupportsOutputLayer, SupportsPointer
from reviewgen.protocols.model import State

# Tokens are drawn with probabilities proportional to their frequencies to this power, so that rare
# tokens are drawn more often than they occur (Mikolov et al. 2013).
POWER = 0.75
SPANS = 4000  # tokens are counted in about this many spans of the training texts
SPAN_TOKENS = 1000  # max tokens of a span
MIN_OTHERS = 1e-6  # min probability of all tokens but the target, so that gradients are finite
MIN_GAIN = 4  # the vocabulary must be this many times as large as the sample


class SampledSoftmax:
    """Computes the logits of a step's targets and of some other tokens.

    Args:
        size: About how many tokens to draw in a step; some may be targets. Fewer are drawn if the
            probability of frequent tokens is limited to 1.
        counts: How often each token occurs in a sample of the training texts.
    """

    def __init__(self, size: int, counts: Real[np.ndarray, " V"]) -> None:
        frequencies = (counts + 1) / (counts + 1).sum()
        weights = frequencies**POWER
        # (V,) probability that each token is drawn
        self.draw_probs: np.ndarray = np.minimum(1, size * weights / weights.sum())
        # one token is always drawn, so that a step without targets has a logit
        self.draw_probs[self.draw_probs.argmax()] = 1
        # (V,) for each token, the log probability that a target is another one
        self.log_not_target: np.ndarray = np.log1p(-frequencies)

    def draw(
        self, targets: Int[np.ndarray, " N"]
    ) -> tuple[Int[np.ndarray, " C"], Float[np.ndarray, " C"]]:
        """Draw tokens with torch's random numbers.

        Returns:
            The ids of the targets and of the drawn tokens, sorted, without duplicates; and for each
            the log probability that it is in this set.
        """
        is_in_set = torch.rand(len(self.draw_probs)).numpy() < self.draw_probs
        is_in_set[targets] = True
        tokens = np.flatnonzero(is_in_set)
        not_target = np.exp(len(targets) * self.log_not_target[tokens])  # none of the N targets
        # (C,) probability that a token is neither drawn nor one of the targets
        absent = (1 - self.draw_probs[tokens]) * not_target
        return tokens, np.log1p(-absent).astype(np.float32)

    def logits(
        self,
        model: SupportsOutputLayer,
        ids: Int[Tensor, "B T"],
        state: State,
        targets: Int[Tensor, "B T"],
    ) -> tuple[Float[Tensor, "B T C"], Int[Tensor, "B T"], State]:
        """Compute the logits of C tokens at every position.

        Returns:
            The logits, the targets as indexes of the C tokens, and the state after the last
            position. For a model that copies tokens, C is 2: the target, and all other tokens.
        """
        features, new_state = model.features(ids, state)
        copies = model.copies(features, ids, state) if isinstance(model, SupportsPointer) else None
        is_target = targets >= 0
        tokens, log_in_set = self.draw(targets[is_target].numpy())
        # (V,) the index of each id among the C tokens
        index_of = torch.zeros(len(self.draw_probs), dtype=torch.long)
        index_of[tokens] = torch.arange(len(tokens))
        indexes = index_of[targets.clamp(min=0)]  # (B, T) of the targets
        columns = indexes.unsqueeze(-1)
        # torch's recurrent layers return features that are time-first in memory; this order is
        # kept, to avoid a copy
        is_time_first = not features.is_contiguous()
        if is_time_first:
            features = features.transpose(0, 1)
            columns = columns.transpose(0, 1)
        weight, bias = model.output_layer()
        # subtracted from a logit, the shift divides the weight of its token by the probability that
        # the token is in the set
        shift = torch.from_numpy(log_in_set)
        shifted_bias = -shift if bias is None else bias[tokens] - shift
        logits = F.linear(features.flatten(0, 1), weight[tokens], shifted_bias)
        # at its own position, a target is certainly in the set: undo the shift
        target_shift = shift[columns].to(logits.dtype).flatten(0, 1)
        logits = logits.scatter_add_(1, columns.flatten(0, 1), target_shift)
        logits = logits.view(*features.shape[:2], -1)
        if is_time_first:
            logits = logits.transpose(0, 1)
        if copies is None:
            return logits, indexes.masked_fill(~is_target, IGNORED), new_state
        # (B, T) the log probability of each target
        log_probs = logits.float().log_softmax(-1).gather(-1, indexes[..., None])[..., 0]
        log_probs = copies.mix_targets(log_probs, targets)
        others = (1 - log_probs.exp()).clamp(min=MIN_OTHERS).log()
        # the target is the first of the two "tokens", which has the index 0
        first_or_ignored = torch.where(is_target, 0, IGNORED)
        return torch.stack([log_probs, others], dim=-1), first_or_ignored, new_state


def compute_logits(
    sampled: SampledSoftmax | None,
    model: Any,
    ids: Int[Tensor, "B T"],
    state: State,
    targets: Int[Tensor, "B T"],
) -> tuple[Float[Tensor, "B T C"], Int[Tensor, "B T"], State]:
    """Compute the logits of a sampled softmax, or of all tokens if ``sampled`` is None.

    Returns:
        The logits of C tokens, the targets as indexes of these tokens, and the new state.
    """
    if sampled is not None:
        return sampled.logits(model, ids, state, targets)
    logits, state = model(ids, state)
    return logits, targets, state


def sampled_softmax(
    model: Any, size: int, device: str, train: Tokens | None = None
) -> SampledSoftmax | None:
    """Return the sampled softmax of a model; None if the model needs all logits, or would gain
    little from computing fewer.

    Args:
        model: The model.
        size: The number of tokens to draw; 0 for no sampled softmax.
        device: The type of the device. The result is None except on a CPU, where the output layer
            is most of the work.
        train: The training texts, to count tokens in. Without them, the frequencies of tokens are
            assumed to follow Zipf's law.
    """
    vocab_size = model.config.vocab_size
    is_possible = isinstance(model, SupportsOutputLayer) and not isinstance(model, SupportsLoss)
    if not size or device != "cpu" or not is_possible or vocab_size < MIN_GAIN * size:
        return None
    if train is None:
        return SampledSoftmax(size, 1e6 / np.arange(1, vocab_size + 1))
    return SampledSoftmax(size, _count_tokens(train, vocab_size))


def _count_tokens(train: Tokens, vocab_size: int) -> Int[np.ndarray, " V"]:
    """Return how often each token occurs in evenly spaced spans of the training texts; in a short
    corpus, these cover all texts.
    """
    total = int(train.offsets[-1])
    length = min(SPAN_TOKENS, math.ceil(total / SPANS))  # tokens of a span
    starts = range(0, total, max(length, total // SPANS))
    spans = [
        train.ids_between(start, min(start + length, train.shard_end(start))) for start in starts
    ]
    return np.bincount(np.concatenate(spans), minlength=vocab_size)
