"""The index of a training text, in two forms with the same methods; see ``reviewgen.novelty``.

The exact form contains the whole training text, so it is for local use only. The compact form
stores no text, so it may be published.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain
from statistics import fmean
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Int64, Integer, UInt8

from reviewgen.compiled.windows import (
    BLOCK,
    Tokens,
    WindowSet,
    build_windows,
    count_blocks,
    cut,
    false_positive_rate,
    sample_windows,
    thin_for_counting,
)
from reviewgen.errors import ConfigError, DataError, quoted
from reviewgen.novelty.matching import (
    NEW,
    SEEN,
    UNKNOWN,
    count_buckets,
    find_longest,
    look_up_windows,
    match,
)
from reviewgen.novelty.report import MIN_SPAN, WINDOWS, Decode, Novelty, Span, decode_with_offsets

_LARGEST_MAX_COPY = 1 << 31  # tokens; a larger value of ``max_copy`` has the same effect
# A thinned index gives a copy rate only if it can look up this many windows of the texts.
_MIN_SAMPLE = 20
_FIRST_TOKENS = 200  # a training text is recognised by at most this many of its first tokens
_BITS_PER_WINDOW = 10.0  # bits per window in the compact form; gives about 1 % false positives
_MAX_BUCKETS = 1 << 20  # max buckets of a suffix array, unless the vocabulary is larger
_CONTEXT = 60  # max characters of an excerpt on each side of the span
_MAX_GUARDS = 4  # the sets of windows for this many values of ``max_copy`` are cached
_GUARD_BITS = 16.0  # bits per window in a guard; about one token in 1,000 is rejected by mistake

MapFunction: TypeAlias = Callable[[Callable[..., Any], Sequence[tuple[Any, ...]]], Sequence[Any]]

Match: TypeAlias = tuple[int, int, int]
"""A copied span: the index of its first token in the text, the number of its tokens, and the index
where it starts in the training text, -1 if this is not known.
"""


class CopyGuard(NamedTuple):
    """Detects the copied spans that a text must not complete.

    A span is detected if ``run`` consecutive windows of it are in the set ``windows``; see
    ``reviewgen.compiled.windows.copies``.

    Attributes:
        windows: The windows of the training text.
        run: The number of consecutive windows.
    """

    windows: WindowSet
    run: int

    @property
    def tokens(self) -> int:
        """The length of the shortest span that is detected, in tokens."""
        return self.windows.length + self.run - 1


@dataclass(frozen=True, eq=False, kw_only=True)
class Index(ABC):
    """An index of the training text, which is a sequence of token ids: each text is enclosed in bos
    and eos.

    Attributes:
        bos_id: The id before each text.
        eos_id: The id after each text.
        vocab_size: The number of ids.
        characters_per_token: The average number of characters per token in the training text,
            without bos and eos.
        fingerprint: Identifies the model that the index belongs to.
        stride: On average, one window in ``stride`` can be looked up. The index is *thinned* if
            this is more than 1.
    """

    form: ClassVar[str]
    bos_id: int
    eos_id: int
    vocab_size: int
    characters_per_token: float
    fingerprint: str
    stride: int = 1

    @property
    def smallest_max_copy(self) -> int:
        """The smallest limit that ``guard`` accepts, in tokens."""
        return 0

    @cached_property
    def false_positive_rates(self) -> Mapping[int, float]:
        """The share of new windows that the index takes for copied ones, by window length.

        Windows that cannot be looked up do not count.
        """
        return dict.fromkeys(WINDOWS, 0.0)

    @abstractmethod
    def guard(self, max_copy: int) -> CopyGuard:
        """Return the guard that detects copied spans of more than ``max_copy`` tokens.

        Raises:
            ConfigError: max_copy is not a whole number, is negative, or is too small for this form
                of the index.
        """

    @abstractmethod
    def look_up(
        self, text: Int64[np.ndarray, " T"]
    ) -> tuple[Integer[np.ndarray, "K T"], Iterator[Match]]:
        """Look up all windows of a text, and find its copied spans.

        Args:
            text: The ids of a text, as ``check_text`` returns them.

        Returns:
            The status (SEEN, NEW or UNKNOWN) of each window, with a row for each length of WINDOWS
            and a column for each position where a window starts. Then an iterator over the copied
            spans, which finds them one by one: first the longest span of any length, then all
            others of 8 tokens or more. The compact form finds the longest only.
        """

    def find_source(
        self, position: int, tokens: int, decode: Decode
    ) -> tuple[int | None, str | None]:
        """Return the index of the training review that a copied span comes from, and an excerpt of
        this review; None for both in the compact form.

        Args:
            position: Where the span starts in the training text.
            tokens: The number of tokens of the span.
            decode: Decodes ids to text.
        """
        return None, None

    def examine(self, ids: Sequence[int] | np.ndarray, decode: Decode) -> Novelty:
        """Return which parts of a text occur in the training text. The compact form gives upper
        bounds.

        Args:
            ids: The text's ids, without bos and eos. If the ids include these nevertheless, no span
                or window extends across them.
            decode: Decodes ids to text; it is also called with ids of training reviews.

        Raises:
            DataError: Some ids are not in the vocabulary.
        """
        text = self.check_text(ids)
        statuses, matches = self.look_up(text)
        decoded, offsets = decode_with_offsets(text.tolist(), decode)
        spans = list[Span]()
        # a thinned index recognises a short span only if it has looked up one of its windows
        is_known = self.stride == 1
        for first, tokens, position in matches:
            was_seen = (statuses[:, first : first + tokens] == SEEN).any()
            is_known |= tokens > self.smallest_max_copy or bool(was_seen)
            is_long = tokens >= MIN_SPAN
            source = self.find_source(position, tokens, decode) if is_long else (None, None)
            start = offsets[first]
            end = offsets[first + tokens]
            spans.append(Span(start, end, decoded[start:end], tokens, *source))
        return Novelty(
            form=self.form,
            characters=len(decoded),
            tokens=len(text),
            longest_characters=len(spans[0].text),
            longest_tokens=spans[0].tokens,
            longest_text=spans[0].text if is_known else "",
            windows={
                length: _share_seen(row) for length, row in zip(WINDOWS, statuses, strict=True)
            },
            spans=tuple(span for span in spans if is_known and span.tokens >= MIN_SPAN),
            false_positive_rate=max(self.false_positive_rates.values()),
        )

    def token_copy_rate(self, texts: Iterable[Integer[np.ndarray, " _"]]) -> float | None:
        """Return the token copy rate: the share of the texts' windows of 20 tokens that occur in
        the training text. It includes false positives.

        It is None if the texts have no such window, or if a thinned index can look up fewer than 20
        of their windows.

        Raises:
            DataError: Some ids are not in the vocabulary.
        """
        # the last row of the statuses is that of windows of 20 tokens
        parts = [self.look_up(self.check_text(ids))[0][-1] for ids in texts]
        statuses = np.concatenate([np.zeros(0, np.uint8), *parts])
        # the status of a window that can be looked up is SEEN or NEW
        is_sure = self.stride == 1 or (statuses >= SEEN).sum() >= _MIN_SAMPLE
        return _share_seen(statuses) if is_sure else None

    def share_trained_on(self, texts: Iterable[Sequence[int]]) -> float:
        """Return the share of texts that are training texts, or begin like one.

        A text counts as such if no window of its first 200 tokens is new. By chance, this holds for
        a few other short texts. Texts without a window that can be looked up are left out.
        """
        statuses = [self.look_up(self.check_text(ids[:_FIRST_TOKENS]))[0] for ids in texts]
        # any() is false if all windows are UNKNOWN, which is 0
        are_known = [NEW not in rows for rows in statuses if rows.any()]
        return fmean(are_known or [False])

    def check_text(self, ids: Sequence[int] | np.ndarray) -> Int64[np.ndarray, " T"]:
        """Check a text's ids, and return them as an array for compiled code, which does not check
        bounds.

        Raises:
            DataError: Some ids are not in the vocabulary.
        """
        text = np.ascontiguousarray(ids, np.int64)
        wrong = text[(text < 0) | (text >= self.vocab_size)]
        if len(wrong):
            raise DataError(
                f"{wrong[0]} is not an id of this model: its ids are 0 to {self.vocab_size - 1}."
            )
        return text

    def span_limits(self, ids: Int64[np.ndarray, " T"]) -> Int64[np.ndarray, " T"]:
        """Return for each position of a text the largest index at which a span that starts there
        may end.

        This is the index of the next bos or eos, or the length of the text.
        """
        stops = np.append(np.flatnonzero((ids == self.bos_id) | (ids == self.eos_id)), len(ids))
        limits: np.ndarray = stops[np.searchsorted(stops, np.arange(len(ids)))]
        return limits


@dataclass(frozen=True, eq=False, kw_only=True)
class ExactIndex(Index):
    """The exact form. It finds every copied span of a text and the review that the span comes from,
    by matching statistics on a suffix array.

    Attributes:
        ids: The training text (N,), each text enclosed in bos and eos. The dtype is the smallest of
            uint8, int16 and int32 that fits.
        suffixes: The suffix array of ``ids`` (N,): int32, or int64 from 2**31 tokens on.
    """

    form: ClassVar[str] = "exact"
    ids: Integer[np.ndarray, " N"]
    suffixes: Integer[np.ndarray, " N"]

    def look_up(
        self, text: Int64[np.ndarray, " T"]
    ) -> tuple[Integer[np.ndarray, "K T"], Iterator[Match]]:
        """Return the status of each window, and the maximal copied spans.

        A copied span is maximal if no longer copied span contains it.
        """
        lengths, positions = self.match(text)
        remaining = self.span_limits(text) - np.arange(len(text))
        statuses = np.array(
            [np.select([lengths >= k, remaining >= k], [SEEN, NEW], UNKNOWN) for k in WINDOWS]
        )
        return statuses, self._matches(lengths, positions)

    def match(
        self, text: Int64[np.ndarray, " T"]
    ) -> tuple[Int64[np.ndarray, " T"], Int64[np.ndarray, " T"]]:
        """Find the longest match from each position of a text in the training text.

        Return the length of each match in tokens, and the index where it starts in the training
        text.
        """
        lengths = np.zeros(len(text), np.int64)
        positions = np.zeros(len(text), np.int64)
        base, depth, starts = self._buckets
        match(
            self.ids,
            self.suffixes,
            starts,
            base,
            depth,
            text,
            self.span_limits(text),
            lengths,
            positions,
        )
        return lengths, positions

    def guard(self, max_copy: int) -> CopyGuard:
        """Return the guard that detects copied spans of more than ``max_copy`` tokens.

        The guard has a set of all windows of max_copy + 1 tokens of the training text, about 2
        bytes each. It also rejects about one in a thousand tokens that complete no such window. The
        sets of the last four values of ``max_copy`` are cached.
        """
        # no span is longer than the training text
        length = min(_check_max_copy(max_copy), len(self.ids)) + 1
        return CopyGuard(self._windows_of_length(length), 1)

    @cached_property
    def _windows_of_length(self) -> Callable[[int], WindowSet]:
        """A function that returns the set of all windows of a given number of tokens in the
        training text. Its last ``_MAX_GUARDS`` results are cached.
        """
        separators = self.bos_id, self.eos_id
        return lru_cache(_MAX_GUARDS)(
            lambda length: build_windows(self.ids, separators, length, _GUARD_BITS)
        )

    @cached_property
    def _buckets(self) -> tuple[int, int, Int64[np.ndarray, " _"]]:
        """The arguments ``base``, ``depth`` and ``starts`` of ``match``."""
        base = self.vocab_size + 1
        # the largest depth, at least 1, with at most 4 buckets per token and _MAX_BUCKETS in all
        depth = max(1, int(math.log(min(_MAX_BUCKETS, 4 * len(self.ids)), base)))
        return base, depth, count_buckets(self.ids, base, depth).cumsum()

    @cached_property
    def _starts(self) -> Int64[np.ndarray, " R1"]:
        """The indices where the reviews start, and the length of the training text.

        Ids before the first bos count as a review.
        """
        return np.unique(np.r_[0, np.flatnonzero(self.ids == self.bos_id), len(self.ids)])

    def _matches(
        self, lengths: Int64[np.ndarray, " T"], positions: Int64[np.ndarray, " T"]
    ) -> Iterator[Match]:
        """Yield the maximal spans of 8 tokens or more, the longest first. If there are none, yield
        the longest match.

        Args:
            lengths: The length of the longest match from each position.
            positions: Where each match starts in the training text.
        """
        # an empty text has one match, of length 0
        lengths = np.append(lengths, 0)
        positions = np.append(positions, 0)
        # a match that is shorter than the one from the position before lies inside that one
        is_maximal = lengths >= np.append(0, lengths[:-1])
        firsts = np.flatnonzero((lengths >= MIN_SPAN) & is_maximal)
        if not len(firsts):
            firsts = lengths.argmax(axis=0, keepdims=True)
        for first in firsts[np.argsort(-lengths[firsts], kind="stable")].tolist():
            yield first, int(lengths[first]), int(positions[first])

    def find_source(self, position: int, tokens: int, decode: Decode) -> tuple[int, str]:
        """Return the index of the training review that a copied span comes from, and the span with
        up to 60 characters of the review on each side.
        """
        review = int(np.searchsorted(self._starts, position, "right")) - 1
        first, last = self._starts[review : review + 2].tolist()
        # leave out bos and eos
        if self.ids[first] == self.bos_id:
            first += 1
        if self.ids[last - 1] == self.eos_id:
            last -= 1
        # how many tokens to decode on each side: a few more than _CONTEXT characters usually have
        context = math.ceil(_CONTEXT / self.characters_per_token) + MIN_SPAN
        first = max(first, position - context)
        last = min(last, position + tokens + context)
        ids = self.ids[first:last].tolist()
        # where the span starts and ends in the decoded ids, in characters
        start = len(decode(ids[: position - first]))
        end = len(decode(ids[: position - first + tokens]))
        return review, decode(ids)[max(0, start - _CONTEXT) : end + _CONTEXT]


@dataclass(frozen=True, eq=False, kw_only=True)
class CompactIndex(Index):
    """The compact form. It gives upper bounds on what was copied, by sets of the training text's
    windows of 8, 12 and 20 tokens.

    A window of the training text that can be looked up is always recognised. About 1 % of new
    windows are taken for copied ones. The index of a large training text is thinned: it stores only
    the windows whose hash is a multiple of ``stride``, and only windows with such a hash can be
    looked up. Whether any other window was copied is unknown.

    The longest span that this form reports is the longest one without a window that is known to be
    new. No copied span has such a window, so no copied span is longer. The bound is looser for a
    larger stride. A span of fewer than 8 tokens contains no window; so for a text of 7 tokens or
    more, the bound is at least 7.

    Attributes:
        sets: One set for each length of WINDOWS, all with the same stride.
    """

    form: ClassVar[str] = "compact"
    sets: tuple[WindowSet, ...]

    @property
    def smallest_max_copy(self) -> int:
        """The smallest limit that ``guard`` accepts, in tokens: 7, or 20 + 2 * stride for a thinned
        index.

        A span of 20 + 2 * stride tokens has, on average, two windows that can be looked up.
        """
        return MIN_SPAN - 1 if self.stride == 1 else WINDOWS[-1] + 2 * self.stride

    @cached_property
    def false_positive_rates(self) -> Mapping[int, float]:
        """The measured share of new windows that the index takes for copied ones, by window length.

        Windows that cannot be looked up are left out.
        """
        return {windows.length: false_positive_rate(windows) for windows in self.sets}

    def guard(self, max_copy: int) -> CopyGuard:
        """Return the guard that detects copied spans of more than ``max_copy`` tokens.

        The guard also rejects some new text. With a stride of s, it takes a new span of n windows
        for a copy with probability (1 - 1 / s) ** n, where n = max_copy - 18 if max_copy is at
        least 19. With a limit below ``smallest_max_copy`` it would reject most text.

        Raises:
            ConfigError: max_copy is not a whole number, or is below ``smallest_max_copy``.
        """
        shortest_copy = _check_max_copy(max_copy) + 1
        if max_copy < self.smallest_max_copy:
            raise ConfigError(
                f"max_copy is {max_copy} tokens, but the compact index of this model supports"
                f" {self.smallest_max_copy} or more. Give at least {self.smallest_max_copy}, or"
                " train with training.novelty=exact."
            )
        # the longest windows that fit into the shortest span to be detected
        windows = [each for each in self.sets if each.length <= shortest_copy][-1]
        return CopyGuard(windows, shortest_copy - windows.length + 1)

    def look_up(
        self, text: Int64[np.ndarray, " T"]
    ) -> tuple[UInt8[np.ndarray, "K T"], Iterator[Match]]:
        """Return the status of each window, and the longest span in which no window is new."""
        statuses = np.zeros((len(self.sets), len(text)), np.uint8)
        limits = self.span_limits(text)
        for windows, row in zip(self.sets, statuses, strict=True):
            look_up_windows(windows, text, limits, row)
        return statuses, self._matches(statuses, limits)

    def _matches(
        self, statuses: UInt8[np.ndarray, "K T"], limits: Int64[np.ndarray, " T"]
    ) -> Iterator[Match]:
        """Yield the longest span in which no window is new."""
        start, end = find_longest(statuses, np.array(WINDOWS), limits)
        yield start, end - start, -1


def build_sets(
    parts: Sequence[Iterable[Any]],
    separators: tuple[int, int],
    max_bytes: int,
    share: MapFunction | None = None,
) -> tuple[WindowSet, ...]:
    """Build the sets of a compact index: one set of windows for each length of WINDOWS.

    Their stride is the smallest one at which all sets together take at most ``max_bytes``. The
    smallest sets take 192 bytes. How the training text is divided into parts makes no difference to
    the sets.

    Args:
        parts: The training text in parts, each as ``Tokens`` that end with a separator.
        separators: The ids of bos and eos.
        max_bytes: The maximum size of all sets together.
        share: ``share(function, tasks)`` calls the function with the arguments of each task,
            possibly in other processes, and returns the results in order. By default the calls are
            made one after another.
    """
    call = share or (lambda function, tasks: [function(*task) for task in tasks])
    blocks = chain.from_iterable(map(cut, parts))
    sample_stride = thin_for_counting(sum(map(len, blocks)))
    sampled = call(_sample_part, [(part, separators, sample_stride) for part in parts])
    # the estimated number of distinct windows of each length in the training text
    counts = [
        len(np.unique(np.concatenate(hashes))) * sample_stride
        for hashes in zip(*sampled, strict=True)
    ]
    stride = 1
    sizes = counts  # the number of windows in each set, given the stride
    max_blocks = max_bytes // (8 * BLOCK)  # a block has BLOCK words of 8 bytes
    while sum(count_blocks(size, _BITS_PER_WINDOW) for size in sizes) > max_blocks:
        stride *= 2
        sizes = [math.ceil(count / stride) for count in counts]
    built = call(_build_part, [(part, separators, sizes, stride) for part in parts])
    # for each window length, join the sets of all parts
    return tuple(
        sets[0]._replace(bits=np.bitwise_or.reduce([each.bits for each in sets]))
        for sets in zip(*built, strict=True)
    )


def _sample_part(part: Tokens, separators: tuple[int, int], stride: int) -> list[np.ndarray]:
    """Return, for each length of WINDOWS, the distinct hashes that are multiples of ``stride``."""
    return [np.unique(sample_windows(part, separators, length, stride)) for length in WINDOWS]


def _build_part(
    part: Tokens, separators: tuple[int, int], sizes: Sequence[int], stride: int
) -> list[WindowSet]:
    """Return the sets of a part, with room for the windows of all parts."""
    return [
        build_windows(part, separators, length, _BITS_PER_WINDOW, stride, expected=size)
        for length, size in zip(WINDOWS, sizes, strict=True)
    ]


def id_dtype(vocab_size: int) -> type[np.integer]:
    """Return the smallest dtype that the ids fit into, among those that both safetensors and torch
    support.
    """
    if vocab_size <= 1 << 8:
        return np.uint8
    return np.int16 if vocab_size <= 1 << 15 else np.int32


def _check_max_copy(max_copy: object) -> int:
    """Check the maximum length of a copied span, in tokens, and return it. If compiled code cannot
    represent the number, return a smaller one with the same effect.

    Raises:
        ConfigError: ``max_copy`` is not a whole number, or is negative.
    """
    if isinstance(max_copy, bool) or not isinstance(max_copy, int) or max_copy < 0:
        raise ConfigError(
            f"max_copy must be a whole number of tokens, 0 or more; got {quoted(max_copy)}."
        )
    return min(max_copy, _LARGEST_MAX_COPY)


def _share_seen(statuses: Integer[np.ndarray, " T"]) -> float | None:
    """Return the share of copied windows among the windows whose status is known; None if there are
    no such windows.
    """
    seen = int((statuses == SEEN).sum())
    new = int((statuses == NEW).sum())
    return seen / (seen + new) if seen + new else None
