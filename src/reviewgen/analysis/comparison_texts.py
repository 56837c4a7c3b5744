"""The held-out texts of a comparison, which are the same for all models; and intervals of the
results by a bootstrap over these texts.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, islice
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from reviewgen.data.columns import DataConfig
from reviewgen.data.split import Corpus, CorpusSpec, read_corpus
from reviewgen.data.texts import read_examples
from reviewgen.errors import DataError, counted
from reviewgen.evaluation.evaluate import spread_indices

Interval = tuple[float, float]
"""The low and high end of a 95 % interval."""

# maximum number of characters that each model is evaluated on, without a time budget
_CHARACTERS = 150_000
# With a time budget, each model is evaluated on this many characters for each second of the budget,
# between the two limits below. An LSTM needs about a tenth of the budget to score them.
_PER_SECOND = 2500
_MIN_CHARACTERS = 20_000
_MAX_CHARACTERS = 400_000
_MAX_TEXTS = 2000  # maximum number of texts that each model is evaluated on
_MAX_READ = 200_000  # maximum number of texts that are read from a separate source
_RESAMPLES = 4000  # number of resamples of the bootstrap
_LEVEL = (2.5, 97.5)  # the percentiles at the ends of an interval


@dataclass(frozen=True)
class HeldOut:
    """The texts that all models are evaluated on.

    Attributes:
        texts: The texts.
        values: For each text, the values of its conditions by name.
        total: The number of texts from which these were chosen at even distances.
        split: The part of the data that the texts come from: "test" or "validation"; "all" for a
            separate source.
        source: The name of the source.
        corpus: The fingerprint of the corpus that the texts come from; None for a separate source.
    """

    texts: Sequence[str]
    values: Sequence[Mapping[str, Any]]
    total: int
    split: str
    source: str
    corpus: str | None

    @property
    def characters(self) -> Int64[np.ndarray, " N"]:
        """The number of characters of each text."""
        return np.array([len(text) for text in self.texts], np.int64)

    @property
    def digest(self) -> str:
        """A hash of the texts."""
        return hashlib.blake2b(
            "\0".join(self.texts).encode("utf-8", "surrogatepass"), digest_size=16
        ).hexdigest()


class HeldOutReading(NamedTuple):
    """Reads the training texts and the held-out texts. Presets are trained on ``data``. The
    held-out texts may be in a separate source, ``held_out``, or in a split of their own.
    """

    data: Any
    held_out: Any
    held_out_split: str | None
    config: DataConfig
    budget: float | None

    def corpus(self) -> Corpus:
        """Return the corpus that presets are trained on. Once it has been read, it comes from the
        cache.
        """
        return read_corpus(CorpusSpec(self.data, self.config, allow_missing=True))

    def training_texts(self) -> Iterator[str]:
        """Yield the texts that presets are trained on."""
        return (text for text, _ in self.corpus().examples("train"))

    def read_held_out(self) -> HeldOut:
        """Read the held-out texts: from the separate source or split if one is given, otherwise
        from the test split of the data, or from its validation split if the test split is empty.

        Raises:
            DataError: A source cannot be read, or there is no held-out text.
        """
        if self.held_out is not None or self.held_out_split is not None:
            separate = self.data if self.held_out is None else self.held_out
            read = read_examples(separate, replace(self.config, split=self.held_out_split))
            return self._choose(islice(read, _MAX_READ), "all", _source_name(separate), None)
        corpus = self.corpus()
        split = "test" if corpus.counts["test"] else "validation"
        return self._choose(corpus.examples(split), split, corpus.source.name, corpus.fingerprint)

    def _choose(
        self,
        examples: Iterable[tuple[str, Sequence[Any]]],
        split: str,
        source: str,
        corpus: str | None,
    ) -> HeldOut:
        """Choose texts at even distances. Together they have about as many characters as the budget
        allows; see ``_PER_SECOND``.
        """
        max_characters = float(_CHARACTERS)
        if self.budget is not None:
            max_characters = min(max(_MIN_CHARACTERS, _PER_SECOND * self.budget), _MAX_CHARACTERS)
        texts = [(text, values) for text, values in examples if text]
        if not texts:
            raise DataError(
                f"There are no held-out texts in {source}: its {split} part has no text. Give"
                " held-out texts."
            )
        mean_characters = sum(len(text) for text, _ in texts) / len(texts)
        count = max(1, min(len(texts), _MAX_TEXTS, math.ceil(max_characters / mean_characters)))
        chosen = [texts[index] for index in spread_indices(len(texts), count)]
        values = [dict(zip(self.config.columns, cells, strict=True)) for _, cells in chosen]
        return HeldOut([text for text, _ in chosen], values, len(texts), split, source, corpus)


def _source_name(source: Any) -> str:
    """Return the name of a source for the user: its path, its number of texts, or its type."""
    if isinstance(source, str) or hasattr(source, "__fspath__"):
        return str(source)
    if hasattr(source, "__len__"):
        return counted(len(source), "given text")
    return type(source).__name__


@dataclass(frozen=True)
class Pair:
    """The difference of two models on the same texts.

    Attributes:
        first, second: The names of their rows.
        difference: Bits per character of the first model minus those of the second. If it is below
            zero, the first model is better.
        interval: The 95 % interval of the difference, from a bootstrap over the texts; None if the
            bits of a model are infinite, or if there is only one text.
    """

    first: str
    second: str
    difference: float
    interval: Interval | None

    @property
    def is_significant(self) -> bool:
        """Whether the interval excludes zero."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]

    def describe(self) -> str:
        """Return a sentence on which model is better, and by how much."""
        both = f"{self.first} and {self.second}"
        if self.interval is None:
            return f"{both}: no interval, because one is infinite or there is a single text."
        low, high = self.interval
        if not self.is_significant:
            return (
                f"{both} do not differ significantly: {self.difference:+.3f} ({low:+.3f} to"
                f" {high:+.3f})."
            )
        better = self.first
        other = self.second
        if self.difference > 0:
            better, other = other, better
        smallest, largest = sorted(map(abs, self.interval))
        return (
            f"{better} is better than {other} by {abs(self.difference):.3f} bits per character"
            f" ({smallest:.3f} to {largest:.3f})."
        )


class Bootstrap:
    """The percentile bootstrap: it draws texts with replacement, and takes percentiles of the
    results as the ends of intervals (Efron 1979, "Bootstrap Methods: Another Look at the
    Jackknife").

    A text is drawn with all its bits and characters, because the characters of one text are not
    independent. All models use the same draws, so the interval of a difference is that of paired
    texts.
    """

    def __init__(self, characters: Int64[np.ndarray, " N"], seed: int) -> None:
        count = len(characters)
        self._total_characters = int(characters.sum())
        # how often each resample has each text, (_RESAMPLES, N)
        self._drawn: np.ndarray = np.random.default_rng(seed).multinomial(
            count, np.full(count, 1 / count), size=_RESAMPLES
        )
        self._drawn_characters = np.maximum(1, self._drawn @ characters)

    def interval(self, bits: Float64[np.ndarray, " N"]) -> Interval | None:
        """Return the 95 % interval of the bits per character. Return None for a single text, or if
        the bits of a text are not finite.
        """
        if len(bits) < 2 or not np.isfinite(bits).all():
            return None
        # the percentiles of the results of all resamples
        low, high = np.percentile((self._drawn @ bits) / self._drawn_characters, _LEVEL)
        return float(low), float(high)

    def pairs(self, bits: Mapping[str, Sequence[float]]) -> list[Pair]:
        """Return the difference of each pair of models, with its interval.

        Args:
            bits: The bits of each text, by the name of the model.
        """
        pairs = []
        for first, second in combinations(bits, 2):
            first_bits = np.array(bits[first])
            second_bits = np.array(bits[second])
            is_finite = np.isfinite(first_bits).all() and np.isfinite(second_bits).all()
            interval = self.interval(first_bits - second_bits) if is_finite else None
            first_sum = float(first_bits.sum())
            second_sum = float(second_bits.sum())
            # two infinite sums do not differ; infinity minus infinity would be NaN
            difference = 0.0 if first_sum == second_sum else first_sum - second_sum
            pairs.append(Pair(first, second, difference / self._total_characters, interval))
        return pairs
