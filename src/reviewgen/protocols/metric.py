"""Metric, the contract of a number that is measured on generated texts at each evaluation. No torch."""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from statistics import fmean
from typing import Protocol, runtime_checkable

from reviewgen.sentences import sentence_ends


@dataclass(frozen=True)
class TextSample:
    """Some texts and their words, with the counts that metrics share. Words are compared in lower case (``str.casefold``).

    Sources: Li et al. 2016, "A diversity-promoting objective function for neural conversation models" (distinct-n); Welleck et
    al. 2020, "Neural text generation with unlikelihood training" (repetition within a text).

    Attributes:
        texts: The texts.
        words: The words of each text, as they are written: runs of letters, apostrophes between letters included.
        training_words: The different words of the training text in lower case, those of its first 200 million characters; for a
            model that is trained further, also its known words.
    """

    texts: Sequence[str]
    words: Sequence[Sequence[str]]
    training_words: Set[str] = frozenset()

    def ngrams(self, n: int) -> list[list[tuple[str, ...]]]:
        """Return the n-grams of the words of each text, in lower case and in order."""
        return [[tuple(row[start : start + n]) for start in range(len(row) - n + 1)] for row in self._folded]

    def distinct(self, n: int) -> float:
        """Return the share of different n-grams among all; 0 if there are none. It falls as the number of words grows."""
        listed = [ngram for row in self.ngrams(n) for ngram in row]
        return len(set(listed)) / max(1, len(listed))

    def repetition(self, n: int) -> float:
        """Return the share of a text's n-grams that occurred earlier in it, averaged over texts that have any, else 0."""
        shares = [1 - len(set(row)) / len(row) for row in self.ngrams(n) if row]
        return fmean(shares) if shares else 0.0

    def repeated_sentences(self) -> float:
        """Return the share of texts in which a sentence of three words or more occurs twice, ignoring case."""
        count = 0
        for text in self.texts:
            pieces = [text[start:end].strip().casefold() for start, end in pairwise([0, *sentence_ends(text), len(text)])]
            sentences = [piece for piece in pieces if len(piece.split()) > 2]
            count += len(set(sentences)) < len(sentences)
        return count / max(1, len(self.texts))

    @cached_property
    def _folded(self) -> list[list[str]]:
        return [[word.casefold() for word in row] for row in self.words]


@runtime_checkable
class Metric(Protocol):
    """A number measured on texts; an entry point in ``reviewgen.metrics`` is an object of this kind, not a class.

    It is called at each evaluation of a training with the texts that the model has generated, and once more after the training,
    then also with as many held-out texts for comparison. The result depends on the sample only, not on the order of the texts. A
    metric that raises, or returns something other than a finite number, is shown as missing and does not end the training::

        class WordLength:
            unit = "characters"
            lower_is_better = None

            def __call__(self, sample):
                words = [word for row in sample.words for word in row]
                return sum(map(len, words)) / max(1, len(words))

        WORD_LENGTH = WordLength()  # the entry point: word-length = "my_package:WORD_LENGTH"
    """

    @property
    def unit(self) -> str:
        """What it counts, as a plot shows it: "share", "characters", "words per text"."""
        ...

    @property
    def lower_is_better(self) -> bool | None:
        """Whether a lower number is better; None if neither is, and the value measured on human texts is best."""
        ...

    def __call__(self, sample: TextSample) -> float:
        """Return the number."""
        ...
