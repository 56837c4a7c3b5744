"""The held-out texts of a comparison, which are the same for all models."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from reviewgen.data.columns import DataConfig
from reviewgen.data.split import Corpus, CorpusSpec, read_corpus
from reviewgen.data.texts import read_examples
from reviewgen.errors import DataError, counted
from reviewgen.evaluation.evaluate import spread_indices

# maximum number of characters that each model is evaluated on, without a time budget
_CHARACTERS = 150_000
# With a time budget, each model is evaluated on this many characters for each second of the budget,
# between the two limits below. An LSTM needs about a tenth of the budget to score them.
_PER_SECOND = 2500
_MIN_CHARACTERS = 20_000
_MAX_CHARACTERS = 400_000
_MAX_TEXTS = 2000  # maximum number of texts that each model is evaluated on
_MAX_READ = 200_000  # maximum number of texts that are read from a separate source


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
    """Reads the training texts and the held-out texts.

    Attributes:
        data: The data that presets are trained on.
        held_out: A separate source of the held-out texts; None if they are a part of ``data``.
        held_out_split: The name of the split with the held-out texts; None if it is not given.
        config: How the data is read.
        budget: The time budget of each training in seconds; None without one.
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
