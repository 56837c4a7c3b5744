"""Weight several corpora that one model is trained on. The weight of a corpus is its share of the
characters that are read in an epoch.

A corpus with fewer characters than its share is read several times in an epoch; no texts of the
other corpora are left out. The texts are not copied: shards of the token store are read again (see
``prepare``).
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from reviewgen.data.cleaning import CleaningReport, add_reports, hash_text
from reviewgen.data.columns import SourceInfo
from reviewgen.errors import ConfigError, DataError
from reviewgen.lexicon.words import words_of

if TYPE_CHECKING:
    from reviewgen.data.sources import Source

_MAX_TIMES = 1000  # max number of times that a corpus is read in an epoch
# A corpus seems to be in another language than the first one if few of its most frequent words are
# among those of the first.
_FREQUENT_WORDS = 30  # words of the corpus that are looked up
_USUAL_WORDS = 200  # words of the first corpus that they are looked up in
_SHARED_WORDS = 0.25  # min share of words found, for the same language
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


def refuse_same(sources: Sequence["Source"]) -> None:
    """Raise if two sources are the same files.

    Raises:
        DataError: Two sources have the same content.
    """
    for first, second in itertools.combinations(sources, 2):
        if first.facts is not None and first.facts == second.facts:
            names = dict.fromkeys(source.info.name for source in (first, second))
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
    if empty := [name for name, count in zip(names, characters, strict=True) if not count]:
        raise DataError(
            f"All training texts of {empty[0]} are empty, or in the other corpora, too."
        )
    rates = [weight / count for weight, count in zip(weights, characters, strict=True)]
    times = [rate / min(rates) for rate in rates]
    if max(times) > _MAX_TIMES:
        name = names[times.index(max(times))]
        raise DataError(
            f"{name} would be read {max(times):,.0f} times with this weight; at most {_MAX_TIMES:,}"
            " are possible: give it a smaller weight, or more texts."
        )
    return times


def describe_times(
    names: Sequence[str], characters: Sequence[int], times: Sequence[float]
) -> list[str]:
    """Return a sentence for each corpus that is read more than once.

    >>> describe_times(["a.csv", "b.csv"], [900, 300], [1.0, 3.0])
    ['b.csv is read 3 times: 25 % of the characters, weighted to 50 %.']
    """
    read = np.multiply(characters, times)
    counts = [f"{count:,.1f}".removesuffix(".0") for count in times]
    shares = zip(
        names, counts, np.array(characters) / sum(characters), read / read.sum(), strict=True
    )
    return [
        f"{name} is read {count} times: {_percent(before)} of the characters, weighted to"
        f" {_percent(after)}."
        for name, count, before, after in shares
        if count != "1"
    ]


def compare_languages(names: Sequence[str], texts: Sequence[Iterable[str]]) -> list[str]:
    """Return a note for each corpus that seems to be in another language than the first one.

    Few of its most frequent words are frequent in the first corpus.

    >>> german = ["der Film und die Schauspieler " * 10]
    >>> english = ["the film and the actors are good " * 10]
    >>> [note] = compare_languages(["a.csv", "b.csv"], [english, german])
    >>> note.partition(":")[0]
    'b.csv seems to be in another language than a.csv'
    """
    counts = [Counter(itertools.chain.from_iterable(_some_words(corpus))) for corpus in texts]
    usual = {word for word, _ in counts[0].most_common(_USUAL_WORDS)}
    notes = []
    for name, words in zip(names[1:], counts[1:], strict=True):
        frequent = [word for word, _ in words.most_common(_FREQUENT_WORDS)]
        if (known := len(usual.intersection(frequent))) < _SHARED_WORDS * len(frequent):
            what = (
                f"of its {len(frequent)} most frequent words, {known}"
                f" {'is' if known == 1 else 'are'} frequent there"
            )
            notes.append(f"{name} seems to be in another language than {names[0]}: {what}.")
    return notes


def _some_words(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yield the words of the first texts."""
    characters = 0
    for text in texts:
        if characters > _LANGUAGE_CHARACTERS:
            return
        characters += len(text)
        yield words_of(text.casefold())


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else f"{100 * share:.1g} %"


def count_copies(texts: Sequence[str], times: float) -> np.ndarray:
    """Return how many times to read each text in an epoch, (T,).

    Each text is read ``int(times)`` times. Texts with the smallest hashes are read once more: as
    many as bring the number of characters read closest to ``times`` times the characters of all
    texts.
    """
    lengths = np.array(list(map(len, texts)), np.int64)
    order = np.argsort(np.array(list(map(hash_text, texts)), np.uint64), kind="stable")
    middles = np.cumsum(lengths[order]) - lengths[order] / 2
    copies = np.full(len(texts), int(times))
    copies[order[middles < times % 1 * lengths.sum()]] += 1
    return copies


def join_sources(
    sources: Sequence[SourceInfo], reports: Sequence[CleaningReport]
) -> tuple[SourceInfo, CleaningReport]:
    """Join the facts and the cleaning reports of several sources into one of each."""
    columns = {source.text_column for source in sources}
    chain = itertools.chain.from_iterable
    info = SourceInfo(
        " and ".join(PurePath(source.name).name for source in sources),
        text_column=columns.pop() if len(columns) == 1 else None,
        notes=list(chain(source.notes for source in sources)),
        repeated_lines=list(dict.fromkeys(chain(source.repeated_lines for source in sources))),
        decode_errors=sum(source.decode_errors for source in sources),
        is_one_text=all(source.is_one_text for source in sources),
    )
    return info, add_reports(reports)
