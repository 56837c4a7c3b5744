"""Real texts for the tests of reports."""

import functools
import random
from collections.abc import Sequence

import reviewgen
from reviewgen.assessment.texts import Texts

_WORDS = 100  # of a text


@functools.cache
def real_texts() -> list[str]:
    """Return the first words of each review, in random order."""
    texts = [" ".join(text.split()[:_WORDS]) for text in reviewgen.corpus("reviews")["text"]]
    random.Random(1).shuffle(texts)
    return list(dict.fromkeys(texts))


def table(texts: Sequence[str]) -> Texts:
    """Return texts as a table without labels."""
    return Texts("texts", texts, {}, len(texts))
