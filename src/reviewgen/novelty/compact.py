"""The compact form of the index: hashed sets of the windows of the training text, small enough to publish; holds no text."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from jaxtyping import Int64, Integer, UInt8

from reviewgen.compiled.windows import BLOCK, Tokens, WindowSet, build_windows, count_windows, false_positive_rate
from reviewgen.errors import ConfigError
from reviewgen.novelty.matching import NEW, SEEN, find_longest, judge
from reviewgen.novelty.report import SHORTEST, WINDOWS, Novelty, Span, Spell, spell_places
from reviewgen.novelty.stream import Stream, check_max_copy

__all__ = ["BITS_PER_WINDOW", "CompactIndex", "build_sets"]

BITS_PER_WINDOW = 10.0  # about 1 % false positives
_BLOCK_BYTES = 8 * BLOCK
_LEAST = 20  # windows that a thinned index must judge before a share of them says anything


@dataclass(frozen=True, eq=False, kw_only=True)
class CompactIndex(Stream):
    """Knows at most how much of a text was copied, by sets of its windows of 8, 12 and 20 tokens.

    It never misses a window that it can judge, and takes about 1 % of new ones for copied. Of a large training text it holds only
    the windows whose hash is a multiple of ``stride``, and can judge only those; all others may be copied or not.

    Attributes:
        sets: One for each length of WINDOWS, all of one stride.
    """

    form: ClassVar[str] = "compact"
    sets: tuple[WindowSet, ...]

    @property
    def stride(self) -> int:
        """Of the windows, one in so many can be judged."""
        return self.sets[0].stride

    @property
    def least_max_copy(self) -> int:
        """The least that ``guard`` takes, in tokens: 7, or where the index is thinned, enough for two judged windows in a run."""
        return SHORTEST - 1 if self.stride == 1 else WINDOWS[-1] + 2 * self.stride

    @cached_property
    def false_positive_rates(self) -> dict[int, float]:
        """The measured share of new windows of each length that are taken for copied, of those that can be judged."""
        return {windows.length: false_positive_rate(windows) for windows in self.sets}

    def examine(self, ids: Sequence[int] | np.ndarray, spell: Spell) -> Novelty:
        """Return how much of a text may stand in the training text.

        ``longest_tokens`` is an upper bound: the longest span without a window, of any of the three lengths, that is known to be
        new. Every copied span is such a span. Spans below 8 tokens hold no window, so 7 is the least that it says of a text of
        7 tokens or more; the greater the stride, the looser it is.

        Args:
            ids: The text's ids, without bos and eos; where one stands all the same, no span or window goes across it.
            spell: Decodes ids.

        Raises:
            DataError: They are no ids of the vocabulary.
        """
        text = self.check_text(ids)
        verdicts = self._judge(text)
        first, last = find_longest(verdicts, np.array(WINDOWS), self.reach(text))
        spelled, borders = spell_places(text.tolist(), spell)
        longest = spelled[borders[first] : borders[last]]
        span = Span(borders[first], borders[last], longest, last - first, None, None)
        return Novelty(
            form=self.form,
            characters=len(spelled),
            tokens=len(text),
            longest_characters=len(longest),
            longest_tokens=last - first,
            longest_text=longest,
            windows={length: _share(row) for length, row in zip(WINDOWS, verdicts, strict=True)},
            spans=(span,) if span.tokens >= SHORTEST else (),
            false_positive_rate=max(self.false_positive_rates.values()),
        )

    def copy_rate(self, texts: Iterable[Integer[np.ndarray, " _"]]) -> float | None:
        """Return the share of the 20-token windows of all texts that may stand in the training text.

        None where there is none, or a thinned index can judge too few of them to tell.

        Raises:
            DataError: A text's ids are none of the vocabulary.
        """
        rows = [self._judge(self.check_text(ids))[-1] for ids in texts]
        verdicts = np.concatenate(rows) if rows else np.zeros(0, np.uint8)
        judged = int(((verdicts == SEEN) | (verdicts == NEW)).sum())
        return _share(verdicts) if self.stride == 1 or judged >= _LEAST else None

    def guard(self, max_copy: int) -> tuple[WindowSet, int]:
        """Return a set and a run for ``compiled.windows.copies``: it is true of each token that may end a longer copied span.

        So it forbids too much: with a stride of s, a new span of n windows passes for copied with a chance of (1 - 1 / s) ** n,
        where n = max_copy - 18 from a limit of 19 on. Below ``least_max_copy`` that would be most of what can be written.

        Raises:
            ConfigError: max_copy is no whole number, negative, or too small for this form.
        """
        longest = check_max_copy(max_copy) + 1
        if max_copy < self.least_max_copy:
            raise ConfigError(
                f"max_copy is {max_copy} tokens, but this model's compact index can hold copies to {self.least_max_copy} at the "
                "least; give that or more, or train with training.novelty=exact."
            )
        windows = [windows for windows in self.sets if windows.length <= longest][-1]
        return windows, longest - windows.length + 1

    def _judge(self, text: Int64[np.ndarray, " T"]) -> UInt8[np.ndarray, "K T"]:
        verdicts = np.zeros((len(self.sets), len(text)), np.uint8)
        reach = self.reach(text)
        for windows, row in zip(self.sets, verdicts, strict=True):
            judge(windows, text, reach, row)
        return verdicts


def build_sets(ids: Tokens, separators: tuple[int, int], max_bytes: int) -> tuple[WindowSet, ...]:
    """Return a set for each length of WINDOWS, of the smallest stride with which they take at most ``max_bytes``.

    Raises:
        ConfigError: No stride is great enough.
    """
    least = len(WINDOWS) * _BLOCK_BYTES
    if max_bytes < least:
        raise ConfigError(f"max_bytes is {max_bytes}; the smallest index takes {least}.")
    counts = [count_windows(ids, separators, length) for length in WINDOWS]
    stride = 1
    while sum(_bytes(-(-count // stride)) for count in counts) > max_bytes:
        stride *= 2
    return tuple(
        build_windows(ids, separators, length, BITS_PER_WINDOW, stride, expected=-(-count // stride))
        for length, count in zip(WINDOWS, counts, strict=True)
    )


def _bytes(windows: int) -> int:
    return _BLOCK_BYTES * max(1, math.ceil(windows * BITS_PER_WINDOW / (8 * _BLOCK_BYTES)))


def _share(verdicts: UInt8[np.ndarray, " T"]) -> float | None:
    seen, new = int((verdicts == SEEN).sum()), int((verdicts == NEW).sum())
    return seen / (seen + new) if seen + new else None
