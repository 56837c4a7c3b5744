"""The compact form: hashed sets of the windows of the training text, small enough to publish; stores no text."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from jaxtyping import Int64, UInt8

from reviewgen.compiled.windows import BLOCK, Tokens, WindowSet, build_windows, count_windows, false_positive_rate
from reviewgen.errors import ConfigError
from reviewgen.novelty.index import CopyGuard, Index, Match, check_max_copy
from reviewgen.novelty.matching import find_longest, look_up_windows
from reviewgen.novelty.report import MIN_SPAN, WINDOWS

_BITS_PER_WINDOW = 10.0  # about 1 % false positives
_BLOCK_BYTES = 8 * BLOCK


@dataclass(frozen=True, eq=False, kw_only=True)
class CompactIndex(Index):
    """Gives upper bounds on what was copied, by sets of the training text's windows of 8, 12 and 20 tokens.

    A window of the training text that can be looked up is always recognised; about 1 % of new windows are taken for copied ones.
    For a large training text the index is thinned: it stores only the windows whose hash is a multiple of ``stride``, and only
    such windows can be looked up. Whether any other window was copied is unknown.

    The longest span is the longest in which no window of any of the three lengths is known to be new. Every copied span is such a
    span. A span of fewer than 8 tokens contains no window, so the bound of a text of 7 tokens or more is at least 7. It gets
    looser as the stride grows.

    Attributes:
        sets: One set for each length of WINDOWS, all with the same stride.
    """

    form: ClassVar[str] = "compact"
    sets: tuple[WindowSet, ...]

    @property
    def stride(self) -> int:
        """On average one window in ``stride`` can be looked up."""
        return self.sets[0].stride

    @property
    def smallest_max_copy(self) -> int:
        """The smallest limit that ``guard`` accepts, in tokens: 7; of a thinned index, 20 + 2 * stride.

        A span that long has two windows that can be looked up, on average.
        """
        return MIN_SPAN - 1 if self.stride == 1 else WINDOWS[-1] + 2 * self.stride

    @cached_property
    def false_positive_rates(self) -> Mapping[int, float]:
        """By window length, the measured share of new windows that are taken for copied ones, of those that can be looked up."""
        return {windows.length: false_positive_rate(windows) for windows in self.sets}

    def guard(self, max_copy: int) -> CopyGuard:
        """Return the set and the run length with which ``compiled.windows.copies`` detects spans over ``max_copy``.

        It also rejects some new text: with a stride of s, a new span of n windows passes for a copy with a probability of
        (1 - 1 / s) ** n, where n = max_copy - 18 for a limit of 19 or more. Below ``smallest_max_copy`` it would reject
        most text.
        """
        longest = check_max_copy(max_copy) + 1
        if max_copy < self.smallest_max_copy:
            raise ConfigError(
                f"max_copy is {max_copy} tokens, but the compact index of this model supports {self.smallest_max_copy} or more. "
                f"Give at least {self.smallest_max_copy}, or train with training.novelty=exact."
            )
        windows = [windows for windows in self.sets if windows.length <= longest][-1]
        return windows, longest - windows.length + 1

    def look_up(self, text: Int64[np.ndarray, " T"]) -> tuple[UInt8[np.ndarray, "K T"], Iterator[Match]]:
        """Return the status of each window, and the longest span in which no window is new."""
        statuses, limits = np.zeros((len(self.sets), len(text)), np.uint8), self.span_limits(text)
        for windows, each in zip(self.sets, statuses, strict=True):
            look_up_windows(windows, text, limits, each)
        return statuses, self._matches(statuses, limits)

    def _matches(self, statuses: UInt8[np.ndarray, "K T"], limits: Int64[np.ndarray, " T"]) -> Iterator[Match]:
        yield (*find_longest(statuses, np.array(WINDOWS), limits), -1)


def build_sets(ids: Tokens, separators: tuple[int, int], max_bytes: int) -> tuple[WindowSet, ...]:
    """Return a set for each length of WINDOWS, with the smallest stride at which together they take at most ``max_bytes``.

    Raises:
        ConfigError: ``max_bytes`` is too small for any stride.
    """
    smallest = len(WINDOWS) * _BLOCK_BYTES
    if max_bytes < smallest:
        raise ConfigError(f"max_bytes is {max_bytes}, but the smallest index takes {smallest} bytes. Give at least that many.")
    counts = [count_windows(ids, separators, length) for length in WINDOWS]
    stride = _choose_stride(counts, max_bytes)
    return tuple(
        build_windows(ids, separators, length, _BITS_PER_WINDOW, stride, expected=-(-count // stride))
        for length, count in zip(WINDOWS, counts, strict=True)
    )


def _choose_stride(counts: Sequence[int], max_bytes: int) -> int:
    """Return the smallest stride at which sets of these numbers of different windows take at most ``max_bytes`` together."""
    stride = 1
    while sum(_bytes(-(-count // stride)) for count in counts) > max_bytes:
        stride *= 2
    return stride


def _bytes(windows: int) -> int:
    return _BLOCK_BYTES * max(1, math.ceil(windows * _BITS_PER_WINDOW / (8 * _BLOCK_BYTES)))
