"""Calibration: a trained model's logits are scaled by one number, so that probabilities match
observed frequencies.

A network that has read its texts many times is more certain of the next token than it should be on
other texts, long before its choices get worse. The number is fitted on held-out text, and the
weights of the output layer are scaled by it, so that a model is used and saved as before.

Source: Guo et al. 2017, "On Calibration of Modern Neural Networks" (temperature scaling; the number
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

from reviewgen.data.store import count_given
from reviewgen.evaluation.evaluate import spread_documents
from reviewgen.evaluation.scoring import Document
from reviewgen.protocols.abilities import SupportsScaledLogits

ScoredChunk: TypeAlias = tuple[Tensor, Tensor]
"""Logits (N, V) of some tokens, and the tokens (N,)."""

_TOKENS = 4_096  # that the number is fitted on
_ROWS = 8  # texts that are scored side by side
_STEPS = 64  # tokens of each of them in one forward call
_ROUNDS = 20
_TOLERANCE = 1e-4
_MIN_SCALE = 0.2
_MAX_SCALE = 5.0


@torch.no_grad()
def calibrate(model: Any, documents: Sequence[Document], vocab_size: int) -> str | None:
    """Scale the logits of a model so that the cross entropy of held-out texts is the smallest.

    Returns:
        A note, or None if the logits are as before.

    Args:
        model: The model, on the CPU and in evaluation mode. Without ``SupportsScaledLogits`` it is
            left as it is.
        documents: The held-out texts, of which some are used.
        vocab_size: The tokenizer's vocabulary; other ids are not scored.
    """
    if not isinstance(model, SupportsScaledLogits):
        return None
    tokens = sum(len(ids) for ids, _ in documents)
    chosen = spread_documents(documents, max(1, round(len(documents) * _TOKENS / max(1, tokens))))
    pieces = _score(model, [ids.astype(np.int64) for ids, _ in chosen], vocab_size)
    if not pieces or not all(bool(logits.isfinite().all()) for logits, _ in pieces):
        return None
    scale = fit_scale(pieces)
    before, after = (_cross_entropy(pieces, number) for number in (1.0, scale))
    if not after < before or not model.scale_logits(scale):
        return None
    return (
        f"Calibrated on held-out text: a temperature of {1 / scale:.2f} saves {before - after:.3f}"
        " nats per token."
    )


def fit_scale(pieces: Sequence[ScoredChunk]) -> float:
    """Return the factor of the logits that minimises the cross entropy, which is convex in it, by
    Newton's method.

    Its derivatives are the mean logit under the model less that of the target, and the variance of
    the logits under the model.
    """
    scale = 1.0
    for _ in range(_ROUNDS):
        slope, curvature = np.sum([_derivatives(*piece, scale) for piece in pieces], axis=0)
        before = scale
        scale = min(max(scale - slope / max(curvature, 1e-9), _MIN_SCALE), _MAX_SCALE)
        if abs(scale - before) < _TOLERANCE:
            break
    return scale


def _derivatives(
    logits: Float[Tensor, "N V"], targets: Int[Tensor, " N"], scale: float
) -> tuple[float, float]:
    """Return the first and second derivative of the summed cross entropy."""
    probs = (logits * scale).softmax(-1)
    mean = (probs * logits).sum(-1)
    chosen = logits.gather(1, targets.unsqueeze(1)).squeeze(1)
    return float((mean - chosen).sum()), float(
        ((probs * logits.square()).sum(-1) - mean.square()).sum()
    )


def _cross_entropy(pieces: Sequence[ScoredChunk], scale: float) -> float:
    """Return the mean negative log likelihood (nats per token)."""
    total = sum(
        float(F.cross_entropy(logits * scale, targets, reduction="sum"))
        for logits, targets in pieces
    )
    return total / sum(len(targets) for _, targets in pieces)


def _score(model: Any, texts: Sequence[np.ndarray], vocab_size: int) -> list[ScoredChunk]:
    """Return the first tokens of texts after their conditions, at most ``_TOKENS`` in all, and
    their logits.
    """
    rows = list[tuple[np.ndarray, int]]()
    budget = _TOKENS
    for text in texts:
        offset = count_given(text, vocab_size)
        if len(text) - 1 > offset and budget > 0:
            rows.append((text[: offset + budget + 1], offset))
            budget -= len(rows[-1][0]) - 1 - offset
    rows.sort(key=lambda row: len(row[0]))
    scored = list[ScoredChunk]()
    for first in range(0, len(rows), _ROWS):
        scored += _score_rows(model, rows[first : first + _ROWS])
    return scored


def _score_rows(model: Any, rows: Sequence[tuple[np.ndarray, int]]) -> Iterator[ScoredChunk]:
    """Yield the logits and tokens of texts side by side, each without its conditions."""
    ids = pad_sequence([torch.from_numpy(text) for text, _ in rows], batch_first=True)
    positions = torch.arange(ids.shape[1] - 1)
    is_scored = torch.stack(
        [(positions >= offset) & (positions < len(text) - 1) for text, offset in rows]
    )
    state = model.initial_state(len(rows))
    for start in range(0, is_scored.shape[1], _STEPS):
        steps = is_scored[:, start : start + _STEPS]
        part = ids[:, start : start + steps.shape[1] + 1]
        logits, state = model(part[:, :-1], state)
        if steps.any():
            yield logits[steps].float(), part[:, 1:][steps]
