"""Words and runs of words of many texts as numbers: the nearest texts by the runs that they share,
and the runs that only one text has.

Shapes by letter: W words of all texts, P pairs of a text and a run in it, N texts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from reviewgen.assessment.texts import split_words

_MAX_TEXTS = 300  # a run that is in more texts than this is ignored when texts are compared
LONGEST = 3  # maximum number of words of a run


class Runs(NamedTuple):
    """Runs of words in texts.

    Attributes:
        codes: A number for the words of each run; equal runs have equal codes.
        texts: The index of the text of each run; it never falls.
        firsts: The index of the first word of each run, among the words of all texts.
    """

    codes: Int64[np.ndarray, " P"]
    texts: Int64[np.ndarray, " P"]
    firsts: Int64[np.ndarray, " P"]


@dataclass(frozen=True)
class Encoded:
    """The words of some texts as numbers.

    Attributes:
        ids: The number of each word of all texts; -1 for a word that the vocabulary lacks.
        texts: The index of the text of each word.
        count: The number of texts.
        vocabulary: The words of the vocabulary, with the number of each.
    """

    ids: Int64[np.ndarray, " W"]
    texts: Int64[np.ndarray, " W"]
    count: int
    vocabulary: Mapping[str, int]

    @cached_property
    def words(self) -> list[str]:
        """The words of the vocabulary, by number."""
        return list(self.vocabulary)

    def runs(self, length: int) -> Runs:
        """Return all runs of ``length`` words within a text whose words the vocabulary has."""
        firsts = np.arange(max(0, len(self.ids) - length + 1))
        # whether all words of a run are of the same text and in the vocabulary
        is_whole = self.texts[firsts] == self.texts[firsts + length - 1]
        codes = np.zeros(len(firsts), np.int64)
        for offset in range(length):
            ids = self.ids[firsts + offset]
            is_whole &= ids >= 0
            codes = codes * len(self.vocabulary) + ids  # the ids are the digits of the code
        kept = firsts[is_whole]
        return Runs(codes[is_whole], self.texts[kept], kept)

    def spell(self, first: int, length: int) -> str:
        """Return a run as text."""
        return " ".join(self.words[number] for number in self.ids[first : first + length])


def encode(texts: Sequence[str], vocabulary: Mapping[str, int] | None = None) -> Encoded:
    """Return the words of some texts as numbers. Without a vocabulary, make one of these words."""
    words = list(map(split_words, texts))
    sizes = list(map(len, words))
    if vocabulary is None:
        different = dict.fromkeys(chain.from_iterable(words))
        vocabulary = {word: number for number, word in enumerate(different)}
    numbers = (vocabulary.get(word, -1) for word in chain.from_iterable(words))
    ids = np.fromiter(numbers, np.int64, sum(sizes))
    return Encoded(ids, np.repeat(np.arange(len(texts)), sizes), len(texts), vocabulary)


def count_texts(runs: Runs) -> tuple[Int64[np.ndarray, " _"], Int64[np.ndarray, " _"]]:
    """Return the codes of the different runs, and for each the number of texts that have it."""
    return np.unique(_different_pairs(runs)[0], return_counts=True)


def _different_pairs(runs: Runs) -> tuple[Int64[np.ndarray, " P"], Int64[np.ndarray, " P"]]:
    """Return the codes and the texts of all different pairs of a run and its text, sorted by code
    and then by text.
    """
    order = np.argsort(runs.codes, kind="stable")  # the texts of a run stay sorted
    codes = runs.codes[order]
    texts = runs.texts[order]
    is_new = np.ones(len(codes), np.bool_)
    is_new[1:] = (codes[1:] != codes[:-1]) | (texts[1:] != texts[:-1])
    return codes[is_new], texts[is_new]


class Neighbours:
    """Finds how near a text is to each of N texts: the cosine of their vectors, in which each pair
    of adjacent words is weighted by how rare it is (tf-idf; Spärck Jones 1972).

    Args:
        texts: The texts to search.
    """

    def __init__(self, texts: Encoded) -> None:
        self.count = texts.count
        # the texts that have a pair of words are neighbours in ``_owners``, from ``_starts`` to
        # ``_ends`` of the pair
        codes, self._owners = _different_pairs(texts.runs(2))
        self._codes, self._starts, counts = np.unique(codes, return_index=True, return_counts=True)
        self._weights = np.where(counts <= _MAX_TEXTS, np.log(texts.count / counts), 0.0)
        # for each text, the sum of the squared weights of its pairs
        squares = np.bincount(
            self._owners, np.repeat(self._weights**2, counts), minlength=texts.count
        )
        self._norms = np.sqrt(squares)
        self._ends = self._starts + counts

    def nearness(self, codes: Int64[np.ndarray, " P"]) -> Float64[np.ndarray, " N"]:
        """Return how near each of the texts is to a text whose pairs of words have these codes. The
        cosines are not divided by the norm of the latter, which is the same for all.
        """
        places = np.searchsorted(self._codes, codes)
        places = places[places < len(self._codes)]
        # the places of the given codes that a text of the index has
        found = np.unique(places[np.isin(self._codes[places], codes)])
        found = found[self._weights[found] > 0]
        if not len(found):
            return np.zeros(self.count)
        owners = np.concatenate(
            [self._owners[self._starts[each] : self._ends[each]] for each in found]
        )
        weights = np.repeat(self._weights[found] ** 2, self._ends[found] - self._starts[found])
        shared = np.bincount(owners, weights, minlength=self.count)
        return np.divide(shared, self._norms, out=shared, where=self._norms > 0)
