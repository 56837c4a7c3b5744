"""The lengths of the batches of an epoch, as the positions in a lane at which they begin and end: all equal, or drawn at random.

Random lengths are those of AWD-LSTM (Merity et al. 2018, "Regularizing and Optimizing LSTM Language Models", arXiv 1708.02182,
section 5). With equal lengths over equal lanes, some tokens would always be the last of a batch, and some never be far from its
end. A length is drawn in two steps: its mean is ``bptt`` with probability 0.95 and half of it otherwise, and the length is normal
around that mean, with a deviation of 5 tokens for the 70 of the paper; here in proportion to ``bptt``. What differs: a length is
limited to two deviations above ``bptt``, which bounds the memory of a step, and the last batch of an epoch has what is left.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

__all__ = ["draw_edges", "equal_edges", "longest"]

_FULL = 0.95  # probability of the full mean; otherwise it is halved
_DEVIATION = 5 / 70  # of a length, as a share of bptt
_LIMIT = 2  # deviations above bptt


def equal_edges(tokens: int, bptt: int) -> Sequence[int]:
    """Return the edges of batches of one length; tokens that do not fill a batch are left out."""
    return range(0, tokens // bptt * bptt + 1, bptt)


def draw_edges(tokens: int, bptt: int, random: np.random.Generator) -> Int[np.ndarray, " edges"]:
    """Return the edges of batches of random lengths, from 0 to ``tokens``."""
    edges = np.zeros(1, np.int64)
    while edges[-1] < tokens:
        lengths = _draw_lengths(1 + int(tokens - edges[-1]) // bptt, bptt, random)
        edges = np.concatenate([edges, edges[-1] + np.cumsum(lengths)])
    return np.append(edges[edges < tokens], tokens)


def longest(bptt: int) -> int:
    """Return the largest length that is drawn."""
    return max(1, int(bptt * (1 + _LIMIT * _DEVIATION)))


def _draw_lengths(count: int, bptt: int, random: np.random.Generator) -> Int[np.ndarray, " count"]:
    means = np.where(random.random(count) < _FULL, bptt, bptt / 2)
    return np.clip(np.rint(random.normal(means, _DEVIATION * bptt)), 1, longest(bptt)).astype(np.int64)
