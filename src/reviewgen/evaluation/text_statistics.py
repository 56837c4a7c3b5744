"""How some texts read, in numbers that can be compared between generated and human texts of the same size."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from reviewgen.evaluation.metrics import make_sample
from reviewgen.lexicon import words_of

NGRAMS = (1, 2, 3, 4)  # words
_REPEATED = 4  # words of a repeated n-gram


@dataclass(frozen=True)
class TextStatistics:
    """Figures of some texts. Words are compared in lower case.

    Attributes:
        words: The number of words of all texts.
        words_per_text: The mean length of a text in words.
        unknown_words: The share of words that are not known to the model; None for a model without known words.
        distinct: For n from 1 to 4, the share of different n-grams of words among all; it falls as the number of words grows.
        repetition: The share of 4-grams of words that occurred before in the same text.
        bits_per_character: Bits per character under another model, the judge; None without a judge.
    """

    words: int
    words_per_text: float
    unknown_words: float | None
    distinct: tuple[float, float, float, float]
    repetition: float
    bits_per_character: float | None = None


def measure_texts(
    texts: Sequence[str],
    is_known: Callable[[str], bool] | None = None,
    score: Callable[[Sequence[str]], float] | None = None,
) -> TextStatistics:
    """Return the figures of some texts.

    Args:
        texts: The texts.
        is_known: Returns whether a word is known.
        score: Returns the bits per character of some texts.
    """
    sample = make_sample(texts)
    written = [word for row in sample.words for word in row]
    one, two, three, four = map(sample.distinct, NGRAMS)
    return TextStatistics(
        words=len(written),
        words_per_text=len(written) / max(1, len(texts)),
        unknown_words=None if is_known is None else sum(not is_known(word) for word in written) / max(1, len(written)),
        distinct=(one, two, three, four),
        repetition=sample.repetition(_REPEATED),
        bits_per_character=None if score is None or not any(texts) else score(texts),
    )


def take_words(texts: Iterable[str], words: int) -> list[str]:
    """Return the first texts that have at least this many words together, or all if there are fewer."""
    taken: list[str] = []
    count = 0
    for text in texts:
        if count >= words:
            break
        taken.append(text)
        count += len(words_of(text))
    return taken
