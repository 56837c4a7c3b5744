"""Turns distinct n-grams into a trie: interpolated modified Kneser-Ney as lmplz estimates it, or maximum likelihood.

Kneser-Ney (Chen & Goodman 1998, section 4; Heafield, Pouzyrevsky, Clark & Koehn 2013, "Scalable Modified Kneser-Ney Language
Model Estimation"): the highest order keeps its counts; below it an n-gram's *adjusted* count is the number of distinct tokens
that stand before it, but its plain count where it begins with bos, since nothing stands before that. Three discounts an
order come from how many n-grams have adjusted counts 1 to 4; bos itself is no 1-gram, for it is never predicted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Bool, Int64

from reviewgen_ngram.counts import Rows, group_sorted, token_dtype
from reviewgen_ngram.trie import Level

__all__ = ["FALLBACK", "Estimate", "discounts_from", "estimate"]

FALLBACK = (0.5, 1.0, 1.5)  # lmplz --discount_fallback


@dataclass(frozen=True)
class Estimate:
    """A trained model's levels, and per order its discounts, its number of n-grams, and whether it fell back."""

    levels: list[Level]
    discounts: list[tuple[float, float, float]]
    ngrams: list[int]
    fell_back: list[bool]


@dataclass(frozen=True)
class _Contexts:
    """All contexts of one length k in the padded corpus; ``closed`` ones contain bos, ``kept`` ones have none before it."""

    keys: Int64[np.ndarray, " N"]
    closed: Bool[np.ndarray, " N"]
    kept: Bool[np.ndarray, " N"]


@dataclass(frozen=True)
class _Events:
    """Distinct (context, word) pairs of one context length, sorted, and their adjusted counts."""

    nodes: Int64[np.ndarray, " E"]
    words: Int64[np.ndarray, " E"]
    counts: Int64[np.ndarray, " E"]


def estimate(rows: Rows, bos_id: int, smoothing: str) -> Estimate:
    """Return the model of at least one n-gram."""
    contexts, events = _read(rows, bos_id)
    levels, discounts, ngrams, fell_back = [], [], [], []
    for level_events, below, here in _descend(contexts, events, rows.vocab_size, raw=smoothing == "none"):
        found = _discounts(level_events.counts) if smoothing == "kneser-ney" else (0.0, 0.0, 0.0)
        levels.append(_level(level_events, below, here, found or FALLBACK, rows.vocab_size))
        discounts.append(found or FALLBACK)
        ngrams.append(len(level_events.counts))
        fell_back.append(found is None)
    return Estimate(levels[::-1], discounts[::-1], ngrams[::-1], fell_back[::-1])


def discounts_from(n: tuple[int, int, int, int]) -> tuple[float, float, float] | None:
    """Return D1, D2, D3+ from the number of n-grams with adjusted counts 1, 2, 3 and 4, or None where the formula fails.

    Chen & Goodman 1998, equation 26; as in lmplz it fails where a number it divides by is zero or a D_k leaves [0, k]. Beyond
    lmplz a D_k of exactly zero fails too: a context whose words all have count k would leave nothing for an unseen word.

    >>> discounts_from((10, 5, 2, 1))
    (0.5, 1.4, 2.0)
    >>> discounts_from((10, 0, 2, 1)) is None
    True
    """
    if 0 in n[:3]:
        return None
    y = Fraction(n[0], n[0] + 2 * n[1])
    exact = [k - (k + 1) * y * n[k] / n[k - 1] for k in (1, 2, 3)]
    if not all(0 < d <= k for k, d in enumerate(exact, 1)):
        return None
    return float(exact[0]), float(exact[1]), float(exact[2])


def _discounts(counts: Int64[np.ndarray, " E"]) -> tuple[float, float, float] | None:
    numbers = np.bincount(np.minimum(counts, 5), minlength=6)
    return discounts_from((int(numbers[1]), int(numbers[2]), int(numbers[3]), int(numbers[4])))


def _read(rows: Rows, bos_id: int) -> tuple[list[_Contexts], _Events]:
    """Return the contexts of every length 0..order-1, and the events of the longest: rows are sorted, so runs are nodes."""
    size, vocab_size = len(rows.counts), rows.vocab_size
    contexts = [_Contexts(np.zeros(1, np.int64), np.zeros(1, bool), np.ones(1, bool))]
    nodes = np.zeros(size, np.int64)  # each row's context, one token longer at every step
    for depth in range(1, rows.order):
        row_keys = nodes * vocab_size + rows.digit(depth - 1)
        starts = group_sorted([row_keys])
        keys = row_keys[starts]
        before = contexts[-1].closed[keys // vocab_size]
        contexts.append(_Contexts(keys, before | (keys % vocab_size == bos_id), ~before))
        nodes = np.repeat(np.arange(len(starts)), np.diff(starts, append=size))
    return contexts, _Events(nodes, rows.digit(rows.order - 1), rows.counts)


def _descend(
    contexts: list[_Contexts], events: _Events, vocab_size: int, raw: bool
) -> Iterator[tuple[_Events, _Contexts | None, _Contexts]]:
    """Yield from the longest contexts to the empty one the kept events, the contexts one shorter, and the contexts."""
    while contexts:
        here = contexts.pop()
        below = contexts[-1] if contexts else None
        kept = here.kept[events.nodes]
        yield _Events(events.nodes[kept], events.words[kept], events.counts[kept]), below, here
        if below is not None:
            events = _shorten(events, here.keys // vocab_size, below.closed, vocab_size, raw)


def _shorten(
    events: _Events, parents: Int64[np.ndarray, " N"], closed: Bool[np.ndarray, " M"], vocab_size: int, raw: bool
) -> _Events:
    """Return the events of contexts one token shorter; each longer event counts once, or its count after bos (or all raw)."""
    keys = parents[events.nodes] * vocab_size + events.words
    order = np.argsort(keys)
    keys = keys[order]
    starts = group_sorted([keys])
    counted = events.counts[order]
    weights = counted if raw else np.where(closed[keys // vocab_size], counted, 1)
    counts = np.add.reduceat(weights, starts)
    keys = keys[starts]
    return _Events(keys // vocab_size, keys % vocab_size, counts)


def _level(
    events: _Events, below: _Contexts | None, here: _Contexts, discounts: tuple[float, float, float], vocab_size: int
) -> Level:
    """Return the discounted probabilities of one context length, its kept contexts renumbered."""
    starts = group_sorted([events.nodes])
    sizes = np.diff(starts, append=len(events.nodes))
    discount = np.array([0.0, *discounts])[np.minimum(events.counts, 3)]  # (E,)
    totals = np.add.reduceat(events.counts, starts).astype(np.float64)  # (N,)
    mass = (events.counts - discount) / np.repeat(totals, sizes)
    gamma = np.add.reduceat(discount, starts) / totals  # (N,), Chen & Goodman 1998, equation 27
    return Level(
        keys=_renumber(below, here, vocab_size),
        offsets=np.append(starts, len(events.nodes)),
        words=events.words.astype(token_dtype(vocab_size)),
        mass=mass.astype(np.float32),
        gamma=gamma.astype(np.float32),
    )


def _renumber(below: _Contexts | None, here: _Contexts, vocab_size: int) -> Int64[np.ndarray, " N"]:
    """Return the keys of the kept contexts, their parents numbered among the kept ones."""
    if below is None:
        return here.keys
    numbers = np.cumsum(below.kept) - 1
    keys = here.keys[here.kept]
    renumbered: np.ndarray = numbers[keys // vocab_size] * vocab_size + keys % vocab_size
    return renumbered
