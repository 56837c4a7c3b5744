"""The exact form of the index: the training text itself, and its suffix array. For local use, since it holds the text."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np
from jaxtyping import Int64, Integer, Shaped

from reviewgen.compiled.windows import WindowSet, build_windows
from reviewgen.novelty.matching import count_buckets, match
from reviewgen.novelty.report import SHORTEST, WINDOWS, Novelty, Span, Spell, spell_places
from reviewgen.novelty.stream import Stream, check_max_copy

__all__ = ["ExactIndex", "id_dtype", "sort_suffixes"]

_BUCKETS = 1 << 20  # at most, unless the vocabulary alone asks for more
_AROUND = 60  # characters of an excerpt on each side of the span
_GUARD_BITS = 16.0  # a window: one token in a thousand is forbidden without need


@dataclass(frozen=True, eq=False, kw_only=True)
class ExactIndex(Stream):
    """Knows every copied span of a text, and where it comes from, by matching statistics on a suffix array.

    Attributes:
        ids: The training text (N,): texts, each between bos and eos; the smallest of uint8, int16 and int32.
        suffixes: Its suffix array (N,), int32, or int64 beyond 2**31 tokens.
    """

    form: ClassVar[str] = "exact"
    stride: ClassVar[int] = 1  # it can judge every window
    ids: Integer[np.ndarray, " N"]
    suffixes: Integer[np.ndarray, " N"]
    _guards: dict[int, WindowSet] = field(default_factory=dict, init=False, repr=False)

    def examine(self, ids: Sequence[int] | np.ndarray, spell: Spell) -> Novelty:
        """Return what of a text stands in the training text.

        Args:
            ids: The text's ids, without bos and eos; where one stands all the same, no span or window goes across it.
            spell: Decodes ids, of the text and of training reviews.

        Raises:
            DataError: They are no ids of the vocabulary.
        """
        text = self.check_text(ids)
        lengths, places = self.match(text)
        spelled, borders = spell_places(text.tolist(), spell)
        room = self.reach(text) - np.arange(len(text))
        start = int(lengths.argmax()) if len(text) else 0
        tokens = int(lengths[start]) if len(text) else 0
        longest = spelled[borders[start] : borders[start + tokens]]
        return Novelty(
            form=self.form,
            characters=len(spelled),
            tokens=len(text),
            longest_characters=len(longest),
            longest_tokens=tokens,
            longest_text=longest,
            windows={length: _share(lengths >= length, room >= length) for length in WINDOWS},
            spans=self._spans(lengths, places, spelled, borders, spell),
            false_positive_rate=0.0,
        )

    def match(self, text: Int64[np.ndarray, " T"]) -> tuple[Int64[np.ndarray, " T"], Int64[np.ndarray, " T"]]:
        """Return the longest match at each place of a checked text: its tokens, and where it stands in the training text."""
        lengths, places = np.zeros(len(text), np.int64), np.zeros(len(text), np.int64)
        base, depth, starts = self._buckets
        match(self.ids, self.suffixes, starts, base, depth, text, self.reach(text), lengths, places)
        return lengths, places

    def copy_rate(self, texts: Iterable[Integer[np.ndarray, " _"]]) -> float | None:
        """Return the share of the 20-token windows of all texts that stand in the training text; None where there is none.

        Raises:
            DataError: A text's ids are none of the vocabulary.
        """
        held, windows = 0, 0
        for ids in texts:
            text = self.check_text(ids)
            held += int((self.match(text)[0] >= WINDOWS[-1]).sum())
            windows += int((self.reach(text) - np.arange(len(text)) >= WINDOWS[-1]).sum())
        return held / windows if windows else None

    @property
    def least_max_copy(self) -> int:
        """The least that ``guard`` takes, in tokens."""
        return 0

    def guard(self, max_copy: int) -> tuple[WindowSet, int]:
        """Return a set and a run for ``compiled.windows.copies``: it is true of each token that ends a longer copied span.

        The set holds the windows of max_copy + 1 tokens, about 2 bytes each; of other tokens it is true of one in a thousand.
        The set of the last limit is kept.

        Raises:
            ConfigError: max_copy is no whole number or negative.
        """
        length = min(check_max_copy(max_copy), len(self.ids)) + 1  # no span is longer than the training text
        if length not in self._guards:
            self._guards.clear()
            self._guards[length] = build_windows(self.ids, (self.bos_id, self.eos_id), length, _GUARD_BITS)
        return self._guards[length], 1

    @cached_property
    def _buckets(self) -> tuple[int, int, Int64[np.ndarray, " _"]]:
        base = self.vocab_size + 1
        depth = max(1, int(math.log(min(_BUCKETS, 4 * len(self.ids)), base)))
        return base, depth, count_buckets(self.ids, base, depth)

    @cached_property
    def _starts(self) -> Int64[np.ndarray, " R"]:
        """Where each review starts; whatever stands before the first bos is a review too."""
        starts = np.flatnonzero(self.ids == self.bos_id)
        return starts if len(starts) and not starts[0] else np.concatenate(([0], starts))

    def _spans(
        self,
        lengths: Int64[np.ndarray, " T"],
        places: Int64[np.ndarray, " T"],
        spelled: str,
        borders: list[int],
        spell: Spell,
    ) -> tuple[Span, ...]:
        """Return the maximal spans: those of which no other starts one token earlier and ends where they do."""
        before = np.concatenate((np.zeros(min(1, len(lengths)), np.int64), lengths[:-1]))
        firsts = np.flatnonzero((lengths >= SHORTEST) & (lengths >= before))
        spans = []
        for first in sorted(firsts.tolist(), key=lambda first: (-lengths[first], first)):
            tokens, place = int(lengths[first]), int(places[first])
            start, end = borders[first], borders[first + tokens]
            review = int(np.searchsorted(self._starts, place, "right")) - 1
            excerpt = self._excerpt(review, place, tokens, spell)
            spans.append(Span(start, end, spelled[start:end], tokens, review, excerpt))
        return tuple(spans)

    def _excerpt(self, review: int, place: int, tokens: int, spell: Spell) -> str:
        first = int(self._starts[review])
        last = int(self._starts[review + 1]) if review + 1 < len(self._starts) else len(self.ids)
        first, last = first + (self.ids[first] == self.bos_id), last - (self.ids[last - 1] == self.eos_id)
        around = math.ceil(_AROUND / self.characters_per_token) + SHORTEST
        first = max(first, place - around)
        ids = self.ids[first : min(last, place + tokens + around)].tolist()
        start, end = len(spell(ids[: place - first])), len(spell(ids[: place - first + tokens]))
        return spell(ids)[max(0, start - _AROUND) : end + _AROUND]


def id_dtype(vocab_size: int) -> type[np.integer]:
    """Return the smallest type of ids that both safetensors and torch know well."""
    return np.uint8 if vocab_size <= 1 << 8 else np.int16 if vocab_size <= 1 << 15 else np.int32


def sort_suffixes(ids: Integer[np.ndarray, " N"]) -> Integer[np.ndarray, " N"]:
    """Return the suffix array of a stream, by libdivsufsort (Mori 2006), which sorts wider ids as strings of bytes."""
    from pydivsufsort import divsufsort  # here, since only this needs it

    suffixes: np.ndarray = divsufsort(np.ascontiguousarray(ids))
    return suffixes.astype(np.int32 if len(ids) < 1 << 31 else np.int64, copy=False)


def _share(held: Shaped[np.ndarray, " T"], windows: Shaped[np.ndarray, " T"]) -> float | None:
    return int(held.sum()) / int(windows.sum()) if windows.any() else None
