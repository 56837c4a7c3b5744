"""What both forms of an index share: the facts about the training text, and what is found in a text."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, TypeAlias

import numpy as np
from jaxtyping import Int64, Integer

from reviewgen.compiled.windows import WindowSet
from reviewgen.errors import ConfigError, DataError, quoted
from reviewgen.novelty.matching import NEW, SEEN
from reviewgen.novelty.report import MIN_SPAN, WINDOWS, Decode, Novelty, Span, decode_with_offsets

_LARGEST_MAX_COPY = 1 << 31  # tokens; a larger limit has the same effect
_MIN_SAMPLE = 20  # windows that a thinned index must be able to look up for a copy rate to mean anything

CopyGuard: TypeAlias = tuple[WindowSet, int]
"""The copied spans that must not be completed: the windows and the run of ``reviewgen.compiled.windows.copies``."""

Match: TypeAlias = tuple[int, int, int]
"""The index of the first token of a copied span, the index after its last, and where it starts in the training text, if known."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Index(ABC):
    """An index of the training text, a sequence of token ids in which each text is enclosed in bos and eos.

    Attributes:
        bos_id: The id before each text.
        eos_id: The id after each text.
        vocab_size: The number of ids.
        characters_per_token: The average over the training text, without bos and eos.
        fingerprint: Identifies the model that the index belongs to.
    """

    form: ClassVar[str]
    bos_id: int
    eos_id: int
    vocab_size: int
    characters_per_token: float
    fingerprint: str

    @property
    def stride(self) -> int:
        """On average one window in ``stride`` can be looked up."""
        return 1

    @property
    def smallest_max_copy(self) -> int:
        """The smallest limit that ``guard`` accepts, in tokens."""
        return 0

    @cached_property
    def false_positive_rates(self) -> Mapping[int, float]:
        """By window length, the measured share of new windows that are taken for copied ones, of those that can be looked up."""
        return dict.fromkeys(WINDOWS, 0.0)

    @abstractmethod
    def guard(self, max_copy: int) -> CopyGuard:
        """Return the set and the run length with which ``compiled.windows.copies`` detects spans over ``max_copy`` tokens.

        Raises:
            ConfigError: max_copy is not a whole number, negative, or too small for this form.
        """

    @abstractmethod
    def look_up(self, text: Int64[np.ndarray, " T"]) -> tuple[Integer[np.ndarray, "K T"], Iterator[Match]]:
        """Return the status of the window of each length of WINDOWS that starts at each position of a checked text.

        With it come the copied spans, found as they are asked for: first the longest span, then all others of 8 tokens or more.
        """

    def find_source(self, match: Match, decode: Decode) -> tuple[int | None, str | None]:
        """Return the training review that a span is from, and an excerpt of it; None for an index that does not know."""
        return None, None

    def examine(self, ids: Sequence[int] | np.ndarray, decode: Decode) -> Novelty:
        """Return which parts of a text occur in the training text; upper bounds in the compact form.

        Args:
            ids: The text's ids, without bos and eos; a span or window never extends across one.
            decode: Decodes ids to text; also called with ids of training reviews.

        Raises:
            DataError: Some ids are not in the vocabulary.
        """
        text = self.check_text(ids)
        statuses, matches = self.look_up(text)
        decoded, offsets = decode_with_offsets(text.tolist(), decode)
        spans = []
        for match in matches:
            start, end, tokens = offsets[match[0]], offsets[match[1]], match[1] - match[0]
            source = self.find_source(match, decode) if tokens >= MIN_SPAN else (None, None)
            spans.append(Span(start, end, decoded[start:end], tokens, *source))
        return Novelty(
            form=self.form,
            characters=len(decoded),
            tokens=len(text),
            longest_characters=len(spans[0].text),
            longest_tokens=spans[0].tokens,
            longest_text=spans[0].text,
            windows={length: _share_seen(each) for length, each in zip(WINDOWS, statuses, strict=True)},
            spans=tuple(span for span in spans if span.tokens >= MIN_SPAN),
            false_positive_rate=max(self.false_positive_rates.values()),
        )

    def token_copy_rate(self, texts: Iterable[Integer[np.ndarray, " _"]]) -> float | None:
        """Return the share of the 20-token windows of all texts that occur in the training text, false positives included.

        None if the texts have no such window, or if a thinned index can look up fewer than 20 of them.

        Raises:
            DataError: Some ids are not in the vocabulary.
        """
        parts = [self.look_up(self.check_text(ids))[0][-1] for ids in texts]
        statuses = np.concatenate(parts) if parts else np.zeros(0, np.uint8)
        is_sure = self.stride == 1 or (statuses >= SEEN).sum() >= _MIN_SAMPLE
        return _share_seen(statuses) if is_sure else None

    def check_text(self, ids: Sequence[int] | np.ndarray) -> Int64[np.ndarray, " T"]:
        """Return a text's ids as an array for compiled code, which does not check bounds.

        Raises:
            DataError: The ids are not whole numbers, or not in the vocabulary.
        """
        values = np.asarray(ids)
        if not values.size:
            return np.zeros(0, np.int64)
        if values.ndim != 1 or values.dtype.kind not in "iu":
            raise DataError(
                f"The ids of a text must be one list of whole numbers; got an array of {values.dtype} with {values.ndim} axes."
            )
        wrong = values[(values < 0) | (values >= self.vocab_size)]
        if wrong.size:
            raise DataError(f"{wrong[0]} is not an id of this model: its ids are 0 to {self.vocab_size - 1}.")
        return np.ascontiguousarray(values, np.int64)

    def span_limits(self, ids: Int64[np.ndarray, " T"]) -> Int64[np.ndarray, " T"]:
        """Return, for each position of a text, the index at which a span that starts there must end at the latest.

        It is the index of the next bos or eos, or the length of the text.
        """
        stops = np.append(np.flatnonzero((ids == self.bos_id) | (ids == self.eos_id)), len(ids))
        limits: np.ndarray = stops[np.searchsorted(stops, np.arange(len(ids)))]
        return limits


def check_max_copy(max_copy: object) -> int:
    """Return the maximum length of a copied span in tokens, reduced to a number that compiled code can hold.

    Raises:
        ConfigError: It is not a whole number, or negative.
    """
    if isinstance(max_copy, bool) or not isinstance(max_copy, int) or max_copy < 0:
        raise ConfigError(f"max_copy must be a whole number of tokens, 0 or more; got {quoted(max_copy)}.")
    return min(max_copy, _LARGEST_MAX_COPY)


def _share_seen(statuses: Integer[np.ndarray, " T"]) -> float | None:
    """Return the share of copied windows among those whose status is known."""
    seen, new = int((statuses == SEEN).sum()), int((statuses == NEW).sum())
    return seen / (seen + new) if seen + new else None
