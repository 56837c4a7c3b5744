"""Calibrate a trained model: scale its logits by one factor, so that its probabilities match
observed frequencies.

A network that has seen its training texts many times becomes overconfident on other texts, long
before its ranking of tokens gets worse. The factor is fitted on held-out text. The weights of the
output layer are multiplied by it, so nothing else changes in the use or the files of the model.

Source: Guo et al. 2017, "On Calibration of Modern Neural Networks" (temperature scaling; the factor
is one over the temperature).
"""

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from reviewgen.data.tokens import count_given
from reviewgen.evaluation.evaluate import spread_documents
from reviewgen.evaluation.scoring import Document
from reviewgen.protocols.abilities import SupportsScaledLogits

ScoredChunk: TypeAlias = tuple[Tensor, Tensor]
"""Logits (N, V), and the target tokens (N,)."""

_TOKENS = 4_096  # number of tokens that the factor is fitted on
_ROWS = 8  # texts in a batch
_STEPS = 64  # tokens of each text in one forward call
_ROUNDS = 20  # max iterations of Newton's method
_TOLERANCE = 1e-4  # a smaller change of the factor ends the iterations
_MIN_SCALE = 0.2
_MAX_SCALE = 5.0


@torch.no_grad()
def calibrate(model: Any, documents: Sequence[Document], vocab_size: int) -> str | None:
    """Scale the logits of a model so that the cross entropy of held-out texts is minimal.

    Args:
        model: The model, on the CPU and in evaluation mode. It is changed only if it is a
            ``SupportsScaledLogits``.
        documents: The held-out texts; a sample of them is used.
        vocab_size: The tokenizer's vocabulary; other ids are not scored.

    Returns:
        A note for the user, or None if the logits were not changed.
    """
    if not isinstance(model, SupportsScaledLogits):
        return None
    tokens = sum(len(ids) for ids, _ in documents)
    count = round(len(documents) * _TOKENS / max(1, tokens))
    sample = spread_documents(documents, max(1, count))
    chunks = _score(model, [ids.astype(np.int64) for ids, _ in sample], vocab_size)
    if not chunks or not all(bool(logits.isfinite().all()) for logits, _ in chunks):
        return None
    scale = fit_scale(chunks)
    saved = _cross_entropy(chunks, 1.0) - _cross_entropy(chunks, scale)
    # scale_logits returns whether the model could be scaled
    if saved > 0 and model.scale_logits(scale):
        return (
            f"Calibrated on held-out text: a temperature of {1 / scale:.2f} saves {saved:.3f}"
            " nats per token."
        )
    return None


def fit_scale(chunks: Sequence[ScoredChunk]) -> float:
    """Use Newton's method to find the factor of the logits that minimises the cross entropy.

    The cross entropy is a convex function of the factor. Its first derivative is the mean logit
    under the model minus the logit of the target. Its second derivative is the variance of the
    logits under the model.
    """
    scale = 1.0
    for _ in range(_ROUNDS):
        slope, curvature = np.sum([_derivatives(*chunk, scale) for chunk in chunks], axis=0)
        previous = scale
        scale -= slope / max(curvature, 1e-9)
        scale = min(max(scale, _MIN_SCALE), _MAX_SCALE)
        if abs(scale - previous) < _TOLERANCE:
            break
    return scale


def _derivatives(
    logits: Float[Tensor, "N V"], targets: Int[Tensor, " N"], scale: float
) -> tuple[float, float]:
    """Return the first and second derivative of the summed cross entropy by the factor
    ``scale``.
    """
    probs = (logits * scale).softmax(-1)
    mean = (probs * logits).sum(-1)  # (N,)
    target_logits = logits.gather(1, targets.unsqueeze(1)).squeeze(1)
    variance = (probs * logits.square()).sum(-1) - mean.square()
    return float((mean - target_logits).sum()), float(variance.sum())


def _cross_entropy(chunks: Sequence[ScoredChunk], scale: float) -> float:
    """Return the mean negative log likelihood of scaled logits, in nats per token."""
    total = sum(
        float(F.cross_entropy(logits * scale, targets, reduction="sum"))
        for logits, targets in chunks
    )
    return total / sum(len(targets) for _, targets in chunks)


def _score(model: Any, texts: Sequence[np.ndarray], vocab_size: int) -> list[ScoredChunk]:
    """Return the logits and target tokens of texts, at most ``_TOKENS`` tokens in all, in chunks.

    The ids of conditions and fields are read, but not scored.
    """
    rows = list[tuple[np.ndarray, int]]()
    tokens_left = _TOKENS
    for text in texts:
        given = count_given(text, vocab_size)
        scored = min(len(text) - 1 - given, tokens_left)
        if scored > 0:
            rows.append((text[: given + scored + 1], given))
            tokens_left -= scored
    # texts of similar lengths share a batch
    rows.sort(key=lambda row: len(row[0]))
    chunks = list[ScoredChunk]()
    for start in range(0, len(rows), _ROWS):
        chunks += _score_rows(model, rows[start : start + _ROWS])
    return chunks


def _score_rows(model: Any, rows: Sequence[tuple[np.ndarray, int]]) -> Iterator[ScoredChunk]:
    """Run texts through the model as one batch; yield the logits and target tokens after each
    text's conditions.

    Each row is a text and the number of its condition and field ids.
    """
    ids = pad_sequence([torch.from_numpy(text) for text, _ in rows], batch_first=True)
    positions = torch.arange(ids.shape[1] - 1)
    is_scored = torch.stack(
        [(positions >= given) & (positions < len(text) - 1) for text, given in rows]
    )
    state = model.initial_state(len(rows))
    for start in range(0, len(positions), _STEPS):
        mask = is_scored[:, start : start + _STEPS]
        # one id more than the mask, since targets are one position further than inputs
        window = ids[:, start : start + mask.shape[1] + 1]
        logits, state = model(window[:, :-1], state)
        if mask.any():
            yield logits[mask].float(), window[:, 1:][mask]
