"""The exact index: the training text and its suffix array. For local use only, since it contains the whole text."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np
from jaxtyping import Int64, Integer, Shaped

from reviewgen.compiled.windows import WindowSet, build_windows
from reviewgen.novelty.base import IndexBase, check_max_copy
from reviewgen.novelty.matching import count_buckets, match
from reviewgen.novelty.report import MIN_SPAN, WINDOWS, Decode, Novelty, Span, decode_with_offsets

_MAX_BUCKETS = 1 << 20  # exceeded only if the vocabulary is larger
_CONTEXT = 60  # characters of an excerpt on each side of the span
_MAX_GUARDS = 4
_GUARD_BITS = 16.0  # per window: about one token in a thousand is rejected by mistake


@dataclass(frozen=True, eq=False, kw_only=True)
class ExactIndex(IndexBase):
    """Finds every copied span of a text and the review it comes from, by matching statistics on a suffix array.

    Attributes:
        ids: The training text (N,), each text enclosed in bos and eos; the smallest of uint8, int16 and int32 that fits.
        suffixes: Its suffix array (N,), int32, or int64 from 2**31 tokens on.
    """

    form: ClassVar[str] = "exact"
    stride: ClassVar[int] = 1  # every window can be looked up
    ids: Integer[np.ndarray, " N"]
    suffixes: Integer[np.ndarray, " N"]
    _guards: dict[int, WindowSet] = field(default_factory=dict, init=False, repr=False)

    def examine(self, ids: Sequence[int] | np.ndarray, decode: Decode) -> Novelty:
        """Return which parts of a text occur in the training text.

        Args:
            ids: The text's ids, without bos and eos; a span or window never extends across one.
            decode: Decodes ids to text; also called with ids of training reviews.

        Raises:
            DataError: Some ids are not in the vocabulary.
        """
        text = self.check_text(ids)
        lengths, positions = self.match(text)
        decoded, offsets = decode_with_offsets(text.tolist(), decode)
        remaining = self.span_limits(text) - np.arange(len(text))
        start = int(lengths.argmax()) if len(text) else 0
        tokens = int(lengths[start]) if len(text) else 0
        longest = decoded[offsets[start] : offsets[start + tokens]]
        return Novelty(
            form=self.form,
            characters=len(decoded),
            tokens=len(text),
            longest_characters=len(longest),
            longest_tokens=tokens,
            longest_text=longest,
            windows={length: _share(lengths >= length, remaining >= length) for length in WINDOWS},
            spans=self._maximal_spans(lengths, positions, decoded, offsets, decode),
            false_positive_rate=0.0,
        )

    def match(self, text: Int64[np.ndarray, " T"]) -> tuple[Int64[np.ndarray, " T"], Int64[np.ndarray, " T"]]:
        """Return the longest match from each position of a checked text: its length in tokens, its index in the training text."""
        lengths, positions = np.zeros(len(text), np.int64), np.zeros(len(text), np.int64)
        base, depth, starts = self._buckets
        match(self.ids, self.suffixes, starts, base, depth, text, self.span_limits(text), lengths, positions)
        return lengths, positions

    def token_copy_rate(self, texts: Iterable[Integer[np.ndarray, " _"]]) -> float | None:
        """Return the share of the 20-token windows of all texts that occur in the training text; None if they have none.

        Raises:
            DataError: Some ids are not in the vocabulary.
        """
        copied, windows = 0, 0
        for ids in texts:
            text = self.check_text(ids)
            copied += int((self.match(text)[0] >= WINDOWS[-1]).sum())
            windows += int((self.span_limits(text) - np.arange(len(text)) >= WINDOWS[-1]).sum())
        return copied / windows if windows else None

    @property
    def smallest_max_copy(self) -> int:
        """The smallest limit that ``guard`` accepts, in tokens."""
        return 0

    def guard(self, max_copy: int) -> tuple[WindowSet, int]:
        """Return the set and the run length with which ``compiled.windows.copies`` detects spans over ``max_copy``.

        The set holds the windows of max_copy + 1 tokens, about 2 bytes each. About one other token in a thousand is rejected as
        well. The sets of the last four limits are cached.

        Raises:
            ConfigError: max_copy is not a whole number, or negative.
        """
        length = min(check_max_copy(max_copy), len(self.ids)) + 1  # no span is longer than the training text
        windows = self._guards.pop(length, None)
        if windows is None:
            windows = build_windows(self.ids, (self.bos_id, self.eos_id), length, _GUARD_BITS)
        self._guards[length] = windows  # the newest comes last
        if len(self._guards) > _MAX_GUARDS:
            del self._guards[next(iter(self._guards))]
        return windows, 1

    @cached_property
    def _buckets(self) -> tuple[int, int, Int64[np.ndarray, " _"]]:
        base = self.vocab_size + 1
        depth = max(1, int(math.log(min(_MAX_BUCKETS, 4 * len(self.ids)), base)))
        return base, depth, count_buckets(self.ids, base, depth)

    @cached_property
    def _starts(self) -> Int64[np.ndarray, " R"]:
        """The index at which each review starts; text before the first bos counts as a review."""
        starts = np.flatnonzero(self.ids == self.bos_id)
        return starts if len(starts) and not starts[0] else np.concatenate(([0], starts))

    def _maximal_spans(
        self,
        lengths: Int64[np.ndarray, " T"],
        positions: Int64[np.ndarray, " T"],
        decoded: str,
        offsets: list[int],
        decode: Decode,
    ) -> tuple[Span, ...]:
        """Return the maximal spans, the longest first: a span that starts one token earlier does not include them."""
        before = np.concatenate((np.zeros(min(1, len(lengths)), np.int64), lengths[:-1]))
        firsts = np.flatnonzero((lengths >= MIN_SPAN) & (lengths >= before))
        spans = []
        for first in sorted(firsts.tolist(), key=lambda first: (-lengths[first], first)):
            tokens, position = int(lengths[first]), int(positions[first])
            start, end = offsets[first], offsets[first + tokens]
            review = int(np.searchsorted(self._starts, position, "right")) - 1
            excerpt = self._excerpt(review, position, tokens, decode)
            spans.append(Span(start, end, decoded[start:end], tokens, review, excerpt))
        return tuple(spans)

    def _excerpt(self, review: int, position: int, tokens: int, decode: Decode) -> str:
        """Return a span of the training text with up to 60 characters of its review on each side."""
        first = int(self._starts[review])
        last = int(self._starts[review + 1]) if review + 1 < len(self._starts) else len(self.ids)
        first, last = first + (self.ids[first] == self.bos_id), last - (self.ids[last - 1] == self.eos_id)
        context = math.ceil(_CONTEXT / self.characters_per_token) + MIN_SPAN  # tokens
        first = max(first, position - context)
        ids = self.ids[first : min(last, position + tokens + context)].tolist()
        start, end = len(decode(ids[: position - first])), len(decode(ids[: position - first + tokens]))
        return decode(ids)[max(0, start - _CONTEXT) : end + _CONTEXT]


def id_dtype(vocab_size: int) -> type[np.integer]:
    """Return the smallest dtype for the ids that both safetensors and torch support."""
    return np.uint8 if vocab_size <= 1 << 8 else np.int16 if vocab_size <= 1 << 15 else np.int32


def sort_suffixes(ids: Integer[np.ndarray, " N"]) -> Integer[np.ndarray, " N"]:
    """Return the suffix array of a sequence of ids, by libdivsufsort (Mori 2006), which sorts wider ids as byte strings."""
    from pydivsufsort import divsufsort  # imported here: only training needs it

    suffixes: np.ndarray = divsufsort(np.ascontiguousarray(ids))
    return suffixes.astype(np.int32 if len(ids) < 1 << 31 else np.int64, copy=False)


def _share(copied: Shaped[np.ndarray, " T"], windows: Shaped[np.ndarray, " T"]) -> float | None:
    return int(copied.sum()) / int(windows.sum()) if windows.any() else None
