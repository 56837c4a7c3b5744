"""Metrics of generated texts: distinct-n, self-repetition, and the share of words that are new."""

from dataclasses import dataclass
from typing import ClassVar

from reviewgen.protocols import TextSample


@dataclass(frozen=True)
class Distinct:
    """distinct-n: the share of different n-grams of words among all n-grams of all texts (Li et al. 2016)."""

    n: int
    unit: ClassVar[str] = "share"
    lower_is_better: ClassVar[None] = None

    def __call__(self, sample: TextSample) -> float:
        """Return distinct-n of some texts."""
        return sample.distinct(self.n)


@dataclass(frozen=True)
class SelfRepetition:
    """The share of n-grams of words that occurred before in the same text (Welleck et al. 2020)."""

    n: int
    unit: ClassVar[str] = "share"
    lower_is_better: ClassVar[None] = None

    def __call__(self, sample: TextSample) -> float:
        """Return the share of repeated n-grams of some texts."""
        return sample.repetition(self.n)


@dataclass(frozen=True)
class NewWords:
    """The share of words that do not occur in the training text: most are misspelt, a few are names and rare words."""

    unit: ClassVar[str] = "share"
    lower_is_better: ClassVar[None] = None

    def __call__(self, sample: TextSample) -> float:
        """Return the share of new words of some texts."""
        words = [word.casefold() for row in sample.words for word in row]
        return sum(word not in sample.training_words for word in words) / max(1, len(words))


DISTINCT_1, DISTINCT_2, DISTINCT_3, DISTINCT_4 = (Distinct(n) for n in (1, 2, 3, 4))
SELF_REPETITION = SelfRepetition(4)
NEW_WORDS = NewWords()
