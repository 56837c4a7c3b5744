"""The exact form: the training text and its suffix array. For local use only, since it contains the whole text."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np
from jaxtyping import Int64, Integer

from reviewgen.compiled.windows import WindowSet, build_windows
from reviewgen.novelty.index import CopyGuard, Index, Match, check_max_copy
from reviewgen.novelty.matching import NEW, NO_WINDOW, SEEN, count_buckets, match
from reviewgen.novelty.report import MIN_SPAN, WINDOWS, Decode

_MAX_BUCKETS = 1 << 20  # exceeded only if the vocabulary is larger
_CONTEXT = 60  # characters of an excerpt on each side of the span
_MAX_GUARDS = 4
_GUARD_BITS = 16.0  # per window: about one token in a thousand is rejected by mistake


@dataclass(frozen=True, eq=False, kw_only=True)
class ExactIndex(Index):
    """Finds every copied span of a text and the review it comes from, by matching statistics on a suffix array.

    Attributes:
        ids: The training text (N,), each text enclosed in bos and eos; the smallest of uint8, int16 and int32 that fits.
        suffixes: Its suffix array (N,), int32, or int64 from 2**31 tokens on.
    """

    form: ClassVar[str] = "exact"
    ids: Integer[np.ndarray, " N"]
    suffixes: Integer[np.ndarray, " N"]
    _guards: dict[int, WindowSet] = field(default_factory=dict, init=False, repr=False)

    def look_up(self, text: Int64[np.ndarray, " T"]) -> tuple[Integer[np.ndarray, "K T"], Iterator[Match]]:
        """Return the status of each window, and the maximal spans: a span that starts one token earlier does not include them."""
        lengths, positions = self.match(text)
        remaining = self.span_limits(text) - np.arange(len(text))
        statuses = np.array([np.where(lengths >= k, SEEN, np.where(remaining >= k, NEW, NO_WINDOW)) for k in WINDOWS])
        return statuses, self._matches(lengths, positions)

    def match(self, text: Int64[np.ndarray, " T"]) -> tuple[Int64[np.ndarray, " T"], Int64[np.ndarray, " T"]]:
        """Return the longest match from each position of a checked text: its length in tokens, its index in the training text."""
        lengths, positions = np.zeros(len(text), np.int64), np.zeros(len(text), np.int64)
        base, depth, starts = self._buckets
        match(self.ids, self.suffixes, starts, base, depth, text, self.span_limits(text), lengths, positions)
        return lengths, positions

    def guard(self, max_copy: int) -> CopyGuard:
        """Return the set and the run length with which ``compiled.windows.copies`` detects spans over ``max_copy``.

        The set holds the windows of max_copy + 1 tokens, about 2 bytes each. About one other token in a thousand is rejected as
        well. The sets of the last four limits are cached.
        """
        length = min(check_max_copy(max_copy), len(self.ids)) + 1  # no span is longer than the training text
        windows = self._guards.pop(length, None) or build_windows(self.ids, (self.bos_id, self.eos_id), length, _GUARD_BITS)
        self._guards[length] = windows  # the newest comes last
        if len(self._guards) > _MAX_GUARDS:
            del self._guards[next(iter(self._guards))]
        return windows, 1

    @cached_property
    def _buckets(self) -> tuple[int, int, Int64[np.ndarray, " _"]]:
        base = self.vocab_size + 1
        depth = max(1, int(math.log(min(_MAX_BUCKETS, 4 * len(self.ids)), base)))
        return base, depth, count_buckets(self.ids, base, depth).cumsum()

    @cached_property
    def _starts(self) -> Int64[np.ndarray, " R1"]:
        """The index at which each review starts, then the end; text before the first bos counts as a review."""
        return np.unique(np.concatenate(([0], np.flatnonzero(self.ids == self.bos_id), [len(self.ids)])))

    def _matches(self, lengths: Int64[np.ndarray, " T"], positions: Int64[np.ndarray, " T"]) -> Iterator[Match]:
        lengths, positions = np.append(lengths, 0), np.append(positions, 0)
        firsts = np.flatnonzero((lengths >= MIN_SPAN) & (lengths >= np.append(0, lengths[:-1])))
        firsts = firsts if len(firsts) else lengths.argmax(keepdims=True)
        for first in firsts[np.argsort(-lengths[firsts], kind="stable")].tolist():
            yield first, first + int(lengths[first]), int(positions[first])

    def find_source(self, match: Match, decode: Decode) -> tuple[int, str]:
        """Return the training review that a span is from, and the span with up to 60 characters of the review on each side."""
        position, tokens = match[2], match[1] - match[0]
        review = int(np.searchsorted(self._starts, position, "right")) - 1
        first, last = self._starts[review : review + 2].tolist()
        first, last = first + (self.ids[first] == self.bos_id), last - (self.ids[last - 1] == self.eos_id)
        context = math.ceil(_CONTEXT / self.characters_per_token) + MIN_SPAN  # tokens
        first = max(first, position - context)
        ids = self.ids[first : min(last, position + tokens + context)].tolist()
        start, end = len(decode(ids[: position - first])), len(decode(ids[: position - first + tokens]))
        return review, decode(ids)[max(0, start - _CONTEXT) : end + _CONTEXT]


def id_dtype(vocab_size: int) -> type[np.integer]:
    """Return the smallest dtype for the ids that both safetensors and torch support."""
    return np.uint8 if vocab_size <= 1 << 8 else np.int16 if vocab_size <= 1 << 15 else np.int32


def sort_suffixes(ids: Integer[np.ndarray, " N"]) -> Integer[np.ndarray, " N"]:
    """Return the suffix array of a sequence of ids, by libdivsufsort (Mori 2006), which sorts wider ids as byte strings."""
    from pydivsufsort import divsufsort  # imported here: only training needs it

    suffixes: np.ndarray = divsufsort(np.ascontiguousarray(ids))
    return suffixes.astype(np.int32 if len(ids) < 1 << 31 else np.int64, copy=False)
