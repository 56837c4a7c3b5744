"""Metrics of generated texts: distinct-n, self-repetition, repeated sentences, and the share of
words that are new.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import ClassVar

from reviewgen.protocols import TextSample


@dataclass(frozen=True)
class ShareMetric:
    """A share that is measured of some texts; the share in human texts is the best one, unless
    lower is better.
    """

    measure: Callable[[TextSample], float]
    lower_is_better: bool | None = None
    unit: ClassVar[str] = "share"

    def __call__(self, sample: TextSample) -> float:
        """Return the share."""
        return self.measure(sample)


def new_words(sample: TextSample) -> float:
    """Return the share of words that do not occur in the training text: most are misspelt, a few
    are names and rare words.
    """
    words = list(map(str.casefold, chain.from_iterable(sample.words)))
    return sum(word not in sample.training_words for word in words) / max(1, len(words))


DISTINCT_1, DISTINCT_2, DISTINCT_3, DISTINCT_4 = (
    ShareMetric(partial(TextSample.distinct, n=n)) for n in range(1, 5)
)
"""distinct-n: the share of different n-grams of words among all n-grams of all texts (Li et al.
2016).
"""

SELF_REPETITION = ShareMetric(partial(TextSample.repetition, n=4), lower_is_better=True)
"""The share of n-grams of words that occurred before in the same text (Welleck et al. 2020)."""

NEW_WORDS = ShareMetric(new_words)
REPEATED_SENTENCES = ShareMetric(TextSample.repeated_sentences, lower_is_better=True)
