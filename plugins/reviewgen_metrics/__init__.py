"""Metrics of generated texts: distinct-n, self-repetition, repeated sentences, and the share of new
words.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import ClassVar

from reviewgen.protocols import TextSample


@dataclass(frozen=True)
class ShareMetric:
    """A metric that is a share, measured in a sample of texts.

    If ``lower_is_better`` is None, the best value is the share in human texts.
    """

    measure: Callable[[TextSample], float]
    lower_is_better: bool | None = None
    unit: ClassVar[str] = "share"

    def __call__(self, sample: TextSample) -> float:
        """Return the share."""
        return self.measure(sample)


def new_words(sample: TextSample) -> float:
    """Return the share of words that do not occur in the training text.

    Most of these words are misspelt; a few are names or rare words.
    """
    words = list(map(str.casefold, chain.from_iterable(sample.words)))
    return sum(word not in sample.training_words for word in words) / max(1, len(words))


DISTINCT_1, DISTINCT_2, DISTINCT_3, DISTINCT_4 = (
    ShareMetric(partial(TextSample.distinct, n=n)) for n in range(1, 5)
)
"""distinct-n: the number of different n-grams of words, divided by the number of all n-grams, over
all texts (Li et al. 2016).
"""

SELF_REPETITION = ShareMetric(partial(TextSample.repetition, n=4), lower_is_better=True)
"""The share of 4-grams of words that occur earlier in the same text (Welleck et al. 2020)."""

NEW_WORDS = ShareMetric(new_words)
REPEATED_SENTENCES = ShareMetric(TextSample.repeated_sentences, lower_is_better=True)
