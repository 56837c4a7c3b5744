"""The index of a training text, in two forms with the same methods; see the room.

The exact form is for local use only, since it contains the whole text; the compact one stores no
text, so it may be published.
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

_LARGEST_MAX_COPY = 1 << 31  # tokens; a larger limit has the same effect
# windows that a thinned index must be able to look up for a copy rate to mean anything
_MIN_SAMPLE = 20
_FIRST_TOKENS = 200  # of a text that is looked up as a whole
_BITS_PER_WINDOW = 10.0  # of the compact form: about 1 % false positives
_MAX_BUCKETS = 1 << 20  # exceeded only if the vocabulary is larger
_CONTEXT = 60  # characters of an excerpt on each side of the span
_MAX_GUARDS = 4
_GUARD_BITS = 16.0  # per window: about one token in a thousand is rejected by mistake

MapFunction: TypeAlias = Callable[[Callable[..., Any], Sequence[tuple[Any, ...]]], Sequence[Any]]

Match: TypeAlias = tuple[int, int, int]
"""The index of the first token of a copied span, the number of its tokens, and where it starts in
the training text, if known.
"""


class CopyGuard(NamedTuple):
    """The copied spans that must not be completed.

    Attributes:
        windows, run: Those of ``reviewgen.compiled.windows.copies``.
    """

    windows: WindowSet
    run: int

    @property
    def tokens(self) -> int:
        """The length of the shortest span that is detected."""
        return self.windows.length + self.run - 1


@dataclass(frozen=True, eq=False, kw_only=True)
class Index(ABC):
    """An index of the training text, a sequence of token ids in which each text is enclosed in bos
    and eos.

    Attributes:
        bos_id: The id before each text.
        eos_id: The id after each text.
        vocab_size: The number of ids.
        characters_per_token: The average over the training text, without bos and eos.
        fingerprint: Identifies the model that the index belongs to.
        stride: On average one window in ``stride`` can be looked up.
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
        """By window length, the measured share of new windows that are taken for copied ones, of
        those that can be looked up.
        """
        return dict.fromkeys(WINDOWS, 0.0)

    @abstractmethod
    def guard(self, max_copy: int) -> CopyGuard:
        """Return the guard that detects copied spans of more than ``max_copy`` tokens.

        Raises:
            ConfigError: max_copy is not a whole number, negative, or too small for this form.
        """

    @abstractmethod
    def look_up(
        self, text: Int64[np.ndarray, " T"]
    ) -> tuple[Integer[np.ndarray, "K T"], Iterator[Match]]:
        """Return the status of the window of each length of WINDOWS that starts at each position of
        a checked text.

        With it come the copied spans, found as they are asked for: first the longest span, then all
        others of 8 tokens or more.
        """

    def find_source(
        self, position: int, tokens: int, decode: Decode
    ) -> tuple[int | None, str | None]:
        """Return the training review that a span is from, and an excerpt of it; None for an index
        that does not know.
        """
        return None, None

    def examine(self, ids: Sequence[int] | np.ndarray, decode: Decode) -> Novelty:
        """Return which parts of a text occur in the training text; upper bounds in the compact
        form.

        Args:
            ids: The text's ids, without bos and eos; a span or window never extends across one.
            decode: Decodes ids to text; also called with ids of training reviews.

        Raises:
            DataError: Some ids are not in the vocabulary.
        """
        text = self.check_text(ids)
        statuses, matches = self.look_up(text)
        decoded, offsets = decode_with_offsets(text.tolist(), decode)
        spans = list[Span]()
        is_known = self.stride == 1
        for first, tokens, position in matches:
            is_known |= tokens > self.smallest_max_copy or bool(
                (statuses[:, first : first + tokens] == SEEN).any()
            )
            start = offsets[first]
            end = offsets[first + tokens]
            source = (
                self.find_source(position, tokens, decode) if tokens >= MIN_SPAN else (None, None)
            )
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
        """Return the share of the 20-token windows of all texts that occur in the training text,
        false positives included.

        None if the texts have no such window, or if a thinned index can look up fewer than 20 of
        them.

        Raises:
            DataError: Some ids are not in the vocabulary.
        """
        parts = [self.look_up(self.check_text(ids))[0][-1] for ids in texts]
        statuses = np.concatenate(parts) if parts else np.zeros(0, np.uint8)
        is_sure = self.stride == 1 or (statuses >= SEEN).sum() >= _MIN_SAMPLE
        return _share_seen(statuses) if is_sure else None

    def share_trained_on(self, texts: Iterable[Sequence[int]]) -> float:
        """Return the share of texts that are training texts, or begin as one, without those that
        are too short to know.

        A text counts if none of the windows of its first tokens is new. By chance, this holds for a
        few short texts.
        """
        statuses = [self.look_up(self.check_text(ids[:_FIRST_TOKENS]))[0] for ids in texts]
        are_known = [NEW not in rows for rows in statuses if rows.any()]
        return fmean(are_known or [False])

    def check_text(self, ids: Sequence[int] | np.ndarray) -> Int64[np.ndarray, " T"]:
        """Return a text's ids as an array for compiled code, which does not check bounds.

        Raises:
            DataError: Some ids are not in the vocabulary.
        """
        text = np.ascontiguousarray(ids, np.int64)
        if len(wrong := text[(text < 0) | (text >= self.vocab_size)]):
            raise DataError(
                f"{wrong[0]} is not an id of this model: its ids are 0 to {self.vocab_size - 1}."
            )
        return text

    def span_limits(self, ids: Int64[np.ndarray, " T"]) -> Int64[np.ndarray, " T"]:
        """Return, for each position of a text, the index at which a span that starts there must end
        at the latest.

        It is the index of the next bos or eos, or the length of the text.
        """
        stops = np.append(np.flatnonzero((ids == self.bos_id) | (ids == self.eos_id)), len(ids))
        limits: np.ndarray = stops[np.searchsorted(stops, np.arange(len(ids)))]
        return limits


@dataclass(frozen=True, eq=False, kw_only=True)
class ExactIndex(Index):
    """Finds every copied span of a text and the review it comes from, by matching statistics on a
    suffix array.

    Attributes:
        ids: The training text (N,), each text enclosed in bos and eos; the smallest of uint8, int16
            and int32 that fits.
        suffixes: Its suffix array (N,), int32, or int64 from 2**31 tokens on.
    """

    form: ClassVar[str] = "exact"
    ids: Integer[np.ndarray, " N"]
    suffixes: Integer[np.ndarray, " N"]

    def look_up(
        self, text: Int64[np.ndarray, " T"]
    ) -> tuple[Integer[np.ndarray, "K T"], Iterator[Match]]:
        """Return the status of each window, and the maximal spans: a span that starts one token
        earlier does not include them.
        """
        lengths, positions = self.match(text)
        remaining = self.span_limits(text) - np.arange(len(text))
        statuses = np.array(
            [np.where(lengths >= k, SEEN, np.where(remaining >= k, NEW, UNKNOWN)) for k in WINDOWS]
        )
        return statuses, self._matches(lengths, positions)

    def match(
        self, text: Int64[np.ndarray, " T"]
    ) -> tuple[Int64[np.ndarray, " T"], Int64[np.ndarray, " T"]]:
        """Return the longest match from each position of a checked text: its length in tokens, its
        index in the training text.
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

        The set holds the windows of max_copy + 1 tokens, about 2 bytes each. About one other token
        in a thousand is rejected as well. The sets of the last four limits are cached.
        """
        # no span is longer than the training text
        length = min(_check_max_copy(max_copy), len(self.ids)) + 1
        return CopyGuard(self._windows(length), 1)

    @cached_property
    def _windows(self) -> Callable[[int], WindowSet]:
        """Returns the windows of a length."""
        separators = self.bos_id, self.eos_id
        return lru_cache(_MAX_GUARDS)(
            lambda length: build_windows(self.ids, separators, length, _GUARD_BITS)
        )

    @cached_property
    def _buckets(self) -> tuple[int, int, Int64[np.ndarray, " _"]]:
        base = self.vocab_size + 1
        depth = max(1, int(math.log(min(_MAX_BUCKETS, 4 * len(self.ids)), base)))
        return base, depth, count_buckets(self.ids, base, depth).cumsum()

    @cached_property
    def _starts(self) -> Int64[np.ndarray, " R1"]:
        """The index at which each review starts, then the end; text before the first bos counts as
        a review.
        """
        return np.unique(
            np.concatenate(([0], np.flatnonzero(self.ids == self.bos_id), [len(self.ids)]))
        )

    def _matches(
        self, lengths: Int64[np.ndarray, " T"], positions: Int64[np.ndarray, " T"]
    ) -> Iterator[Match]:
        lengths = np.append(lengths, 0)
        positions = np.append(positions, 0)
        firsts = np.flatnonzero((lengths >= MIN_SPAN) & (lengths >= np.append(0, lengths[:-1])))
        firsts = firsts if len(firsts) else lengths.argmax(axis=0, keepdims=True)
        for first in firsts[np.argsort(-lengths[firsts], kind="stable")].tolist():
            yield first, int(lengths[first]), int(positions[first])

    def find_source(self, position: int, tokens: int, decode: Decode) -> tuple[int, str]:
        """Return the training review that a span is from, and the span with up to 60 characters of
        the review on each side.
        """
        review = int(np.searchsorted(self._starts, position, "right")) - 1
        first, last = self._starts[review : review + 2].tolist()
        first = first + (self.ids[first] == self.bos_id)
        last = last - (self.ids[last - 1] == self.eos_id)
        context = math.ceil(_CONTEXT / self.characters_per_token) + MIN_SPAN  # tokens
        first = max(first, position - context)
        ids = self.ids[first : min(last, position + tokens + context)].tolist()
        start = len(decode(ids[: position - first]))
        end = len(decode(ids[: position - first + tokens]))
        return review, decode(ids)[max(0, start - _CONTEXT) : end + _CONTEXT]


@dataclass(frozen=True, eq=False, kw_only=True)
class CompactIndex(Index):
    """Gives upper bounds on what was copied, by sets of the training text's windows of 8, 12 and 20
    tokens.

    A window of the training text that can be looked up is always recognised; about 1 % of new
    windows are taken for copied ones. For a large training text the index is thinned: it stores
    only the windows whose hash is a multiple of ``stride``, and only such windows can be looked up.
    Whether any other window was copied is unknown.

    The longest span is the longest in which no window of any of the three lengths is known to be
    new. Every copied span is such a span. A span of fewer than 8 tokens contains no window, so the
    bound of a text of 7 tokens or more is at least 7. It gets looser as the stride grows.

    Attributes:
        sets: One set for each length of WINDOWS, all with the same stride.
    """

    form: ClassVar[str] = "compact"
    sets: tuple[WindowSet, ...]

    @property
    def smallest_max_copy(self) -> int:
        """The smallest limit that ``guard`` accepts, in tokens: 7; of a thinned index, 20 + 2 *
        stride.

        A span that long has two windows that can be looked up, on average.
        """
        return MIN_SPAN - 1 if self.stride == 1 else WINDOWS[-1] + 2 * self.stride

    @cached_property
    def false_positive_rates(self) -> Mapping[int, float]:
        """By window length, the measured share of new windows that are taken for copied ones, of
        those that can be looked up.
        """
        return {windows.length: false_positive_rate(windows) for windows in self.sets}

    def guard(self, max_copy: int) -> CopyGuard:
        """Return the guard that detects copied spans of more than ``max_copy`` tokens.

        It also rejects some new text: with a stride of s, a new span of n windows passes for a copy
        with a probability of (1 - 1 / s) ** n, where n = max_copy - 18 for a limit of 19 or more.
        Below ``smallest_max_copy`` it would reject most text.
        """
        longest = _check_max_copy(max_copy) + 1
        if max_copy < self.smallest_max_copy:
            raise ConfigError(
                f"max_copy is {max_copy} tokens, but the compact index of this model supports"
                f" {self.smallest_max_copy} or more. Give at least {self.smallest_max_copy}, or"
                " train with training.novelty=exact."
            )
        windows = [windows for windows in self.sets if windows.length <= longest][-1]
        return CopyGuard(windows, longest - windows.length + 1)

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
        start, end = find_longest(statuses, np.array(WINDOWS), limits)
        yield start, end - start, -1


def build_sets(
    parts: Sequence[Iterable[Any]],
    separators: tuple[int, int],
    max_bytes: int,
    share: MapFunction | None = None,
) -> tuple[WindowSet, ...]:
    """Return a set for each length of WINDOWS, with the smallest stride at which together they take
    at most ``max_bytes``.

    The smallest sets take 192 bytes. The sets are the same for any parts.

    Args:
        parts: The training text, in parts that each end with a separator; each as ``Tokens``.
        separators: The ids of bos and eos.
        max_bytes: The maximum size.
        share: Calls a function with each of some arguments, possibly in other processes, and
            returns the results in order.
    """
    call = share or (lambda function, tasks: [function(*task) for task in tasks])
    blocks = chain.from_iterable(map(cut, parts))
    thinner = thin_for_counting(sum(map(len, blocks)))
    sampled = call(_sample_part, [(part, separators, thinner) for part in parts])
    counts = [
        len(np.unique(np.concatenate(hashes))) * thinner for hashes in zip(*sampled, strict=True)
    ]
    stride = 1
    sizes = counts
    max_blocks = max_bytes // (8 * BLOCK)
    while sum(count_blocks(size, _BITS_PER_WINDOW) for size in sizes) > max_blocks:
        stride *= 2
        sizes = [-(-count // stride) for count in counts]
    built = call(_build_part, [(part, separators, sizes, stride) for part in parts])
    return tuple(
        sets[0]._replace(bits=np.bitwise_or.reduce([each.bits for each in sets]))
        for sets in zip(*built, strict=True)
    )


def _sample_part(part: Tokens, separators: tuple[int, int], stride: int) -> list[np.ndarray]:
    return [np.unique(sample_windows(part, separators, length, stride)) for length in WINDOWS]


def _build_part(
    part: Tokens, separators: tuple[int, int], sizes: Sequence[int], stride: int
) -> list[WindowSet]:
    return [
        build_windows(part, separators, length, _BITS_PER_WINDOW, stride, expected=size)
        for length, size in zip(WINDOWS, sizes, strict=True)
    ]


def id_dtype(vocab_size: int) -> type[np.integer]:
    """Return the smallest dtype for the ids that both safetensors and torch support."""
    if vocab_size <= 1 << 8:
        return np.uint8
    return np.int16 if vocab_size <= 1 << 15 else np.int32


def _check_max_copy(max_copy: object) -> int:
    """Return the maximum length of a copied span in tokens, reduced to a number that compiled code
    can hold.

    Raises:
        ConfigError: It is not a whole number, or negative.
    """
    if isinstance(max_copy, bool) or not isinstance(max_copy, int) or max_copy < 0:
        raise ConfigError(
            f"max_copy must be a whole number of tokens, 0 or more; got {quoted(max_copy)}."
        )
    return min(max_copy, _LARGEST_MAX_COPY)


def _share_seen(statuses: Integer[np.ndarray, " T"]) -> float | None:
    """Return the share of copied windows among those whose status is known."""
    seen = int((statuses == SEEN).sum())
    new = int((statuses == NEW).sum())
    return seen / (seen + new) if seen + new else None
