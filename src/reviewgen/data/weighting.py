"""Weight several corpora that one model is trained on. The weight of a corpus is its share of the
characters that are read in an epoch.

A corpus with fewer characters than its share is read several times in an epoch; no texts of the
other corpora are left out. The texts are not copied: shards of the token store are read again (see
``encode``).
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from reviewgen.data.cleaning import CleaningReport, add_reports, hash_text
from reviewgen.data.columns import SourceInfo
from reviewgen.data.open import Source
from reviewgen.errors import ConfigError, DataError
from reviewgen.lexicon.words import words_of

_MAX_TIMES = 1000  # max number of times that a corpus is read in an epoch
# A corpus seems to be in another language than the first one if few of its most frequent words are
# among those of the first.
_FREQUENT_WORDS = 30  # words of the corpus that are looked up
_USUAL_WORDS = 200  # most frequent words of the first corpus, among which they are looked up
_SHARED_WORDS = 0.25  # min share of the words looked up that are found, in the same language
_LANGUAGE_CHARACTERS = 200_000  # characters of each corpus whose words are counted


def check_corpora(source: Any, weights: Sequence[float]) -> None:
    """Raise unless a source is a list of corpora with one weight each.

    Raises:
        ConfigError: The source is not a list of at least two, or the number of weights differs.
    """
    if not isinstance(source, list | tuple) or len(source) < 2:
        raise ConfigError(
            "weights are the shares of several corpora: give --data for each (in Python a list), or"
            " no weights."
        )
    if len(weights) != len(source):
        raise ConfigError(
            f"{len(source)} corpora need {len(source)} weights, as in 1,1; there are"
            f" {len(weights)}."
        )


def refuse_same(sources: Sequence[Source]) -> None:
    """Raise if two sources are the same files.

    Raises:
        DataError: Two sources have the same content.
    """
    for first, second in itertools.combinations(sources, 2):
        if first.facts is not None and first.facts == second.facts:
            names = dict.fromkeys([first.info.name, second.info.name])
            raise DataError(
                f"{' and '.join(names)} have the same texts: give each corpus once, with its"
                " weight."
            )


def find_times(
    names: Sequence[str], characters: Sequence[int], weights: Sequence[float]
) -> list[float]:
    """Return how many times to read each corpus in an epoch, so that its share of all characters
    read is proportional to its weight.

    The corpus that is read least often is read once.

    >>> find_times(["a.csv", "b.csv"], [900, 300], [1, 1])
    [1.0, 3.0]

    Args:
        names: The corpora.
        characters: The number of characters of the training texts of each.
        weights: The weights; their sum is arbitrary.

    Raises:
        DataError: A corpus has no characters to train on, since its texts are empty or duplicates
            of those of other corpora; or it would be read too often.
    """
    if 0 in characters:
        raise DataError(
            f"All training texts of {names[characters.index(0)]} are empty, or in the other"
            " corpora, too."
        )
    rates = np.divide(weights, characters)
    times: list[float] = (rates / rates.min()).tolist()
    highest = max(times)
    if highest > _MAX_TIMES:
        raise DataError(
            f"{names[times.index(highest)]} would be read {highest:,.0f} times with this weight; at"
            f" most {_MAX_TIMES:,} are possible: give it a smaller weight, or more texts."
        )
    return times


def describe_times(
    names: Sequence[str], characters: Sequence[int], times: Sequence[float]
) -> list[str]:
    """Return a sentence for each corpus that is read more than once.

    >>> describe_times(["a.csv", "b.csv"], [900, 300], [1.0, 3.0])
    ['b.csv is read 3 times: 25 % of the characters, weighted to 50 %.']
    """
    total = sum(characters)
    read = np.dot(characters, times)  # number of characters that an epoch reads
    notes = []
    for name, size, passes in zip(names, characters, times, strict=True):
        count = f"{passes:,.1f}".removesuffix(".0")
        if count != "1":
            notes.append(
                f"{name} is read {count} times: {_percent(size / total)} of the characters,"
                f" weighted to {_percent(size * passes / read)}."
            )
    return notes


def compare_languages(names: Sequence[str], texts: Sequence[Iterable[str]]) -> list[str]:
    """Return a note for each corpus that seems to be in another language than the first one.

    Of the most frequent words of such a corpus, few are frequent in the first corpus.

    >>> german = ["der Film und die Schauspieler " * 10]
    >>> english = ["the film and the actors are good " * 10]
    >>> [note] = compare_languages(["a.csv", "b.csv"], [english, german])
    >>> note.partition(":")[0]
    'b.csv seems to be in another language than a.csv'
    """
    first_counts, *other_counts = map(_count_words, texts)
    usual = dict(first_counts.most_common(_USUAL_WORDS))
    notes = []
    for name, counts in zip(names[1:], other_counts, strict=True):
        frequent = dict(counts.most_common(_FREQUENT_WORDS))
        known = len(usual.keys() & frequent)
        if known < _SHARED_WORDS * len(frequent):
            notes.append(
                f"{name} seems to be in another language than {names[0]}: of its {len(frequent)}"
                f" most frequent words, {known} {'is' if known == 1 else 'are'} frequent there."
            )
    return notes


def _count_words(texts: Iterable[str]) -> Counter[str]:
    """Return the words of the first texts, with their counts."""
    counts = Counter[str]()
    characters = 0
    for text in texts:
        counts.update(words_of(text.casefold()))
        characters += len(text)
        if characters > _LANGUAGE_CHARACTERS:
            break
    return counts


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else f"{100 * share:.1g} %"


def count_copies(texts: Sequence[str], times: float) -> np.ndarray:
    """Return how many times to read each text in an epoch, (texts,).

    Each text is read ``int(times)`` times. The texts with the smallest hashes are read once more,
    until the number of characters read is closest to ``times`` times the characters of all texts.
    """
    # the numbers of the texts, by their hashes
    order = sorted(range(len(texts)), key=lambda number: hash_text(texts[number]))
    lengths = np.array([len(texts[number]) for number in order], np.int64)
    # the position of the middle of each text, if the texts are joined in this order
    middles = lengths.cumsum() - lengths / 2
    copies = np.full(len(texts), int(times))
    # times % 1 is the share of the characters that are read once more; a text is among them if its
    # middle comes before the position at which this share ends
    copies[order] += middles < times % 1 * lengths.sum()
    return copies


def join_sources(
    sources: Sequence[SourceInfo], reports: Sequence[CleaningReport]
) -> tuple[SourceInfo, CleaningReport]:
    """Join the facts and the cleaning reports of several sources into one of each."""
    columns = {source.text_column for source in sources}
    info = SourceInfo(
        " and ".join(PurePath(source.name).name for source in sources),
        text_column=columns.pop() if len(columns) == 1 else None,
        is_one_text=all(source.is_one_text for source in sources),
    )
    for source in sources:
        info.notes += source.notes
        info.repeated_lines += source.repeated_lines
        info.decode_errors += source.decode_errors
    info.repeated_lines = list(dict.fromkeys(info.repeated_lines))
    return info, add_reports(reports)
