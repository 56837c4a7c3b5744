"""Lexicon: the known words of a model, and the separators between them."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from reviewgen.lexicon.automaton import Automaton, minimal_automaton
from reviewgen.lexicon.words import APOSTROPHES, WordCounts

MAX_WORDS = 100_000
_MIN_COUNT = 2
_MIN_KNOWN = 0.85  # of the words of the training text; in a language without spaces, few runs of letters occur twice


@dataclass(frozen=True)
class Lexicon:
    """The words that occur at least twice in a training text, and the characters between them.

    Attributes:
        words: An automaton of the words, in UTF-8; a closing apostrophe may follow each of them.
        separators: An automaton of the separators.
    """

    words: Automaton
    separators: Automaton

    @classmethod
    def of(cls, words: Iterable[str], separators: Iterable[str]) -> "Lexicon":
        """Return the lexicon of some words and separators."""
        known = {word.encode() for word in words}
        quotes = [quote.encode() for quote in APOSTROPHES]
        return cls(
            minimal_automaton([b"", *known, *(word + quote for word in known for quote in quotes)]),
            minimal_automaton(separator.encode() for separator in separators),
        )

    def __contains__(self, word: str) -> bool:
        """Return whether a word is known, as it is written or in lower case."""
        return word in self._known or word.lower() in self._known

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __or__(self, other: "Lexicon") -> "Lexicon":
        """Return the lexicon of the words of both."""
        if all(np.array_equal(getattr(self, part).nodes, getattr(other, part).nodes) for part in ("words", "separators")):
            return self
        return Lexicon.of({*self, *other}, self.between | other.between)

    @property
    def between(self) -> set[str]:
        """The separators."""
        return {separator.decode("utf-8", "replace") for separator in self.separators.strings()}

    @cached_property
    def _known(self) -> frozenset[str]:
        quotes = tuple(APOSTROPHES)
        words = (word.decode("utf-8", "replace") for word in self.words.strings())
        return frozenset(word for word in words if word and not word.endswith(quotes))


def build_lexicon(counts: WordCounts, before: Lexicon | None = None) -> Lexicon | None:
    """Return the lexicon of a training text; None if few of its words are known, as in a language without spaces.

    Args:
        counts: The words of the text.
        before: The lexicon of a model that is trained further, whose words stay known.
    """
    known = known_words(counts)
    known |= set(before or ())
    total = counts.words.total()
    if not total or sum(counts.words[word] for word in known) < _MIN_KNOWN * total:
        return None
    return Lexicon.of(known, counts.separators | (set() if before is None else before.between))


def known_words(counts: WordCounts) -> set[str]:
    """Return the words that occur at least twice, each as it is written, and with a capital at the beginning of a sentence.

    Upper and lower case count together. Of too many, the most frequent ones.
    """
    folded: Counter[str] = Counter()
    for word, count in counts.words.items():
        folded[word.casefold()] += count
    frequent = {word for word, count in folded.most_common(MAX_WORDS) if count >= _MIN_COUNT}
    known = {word for word in counts.words if word.casefold() in frequent}
    return known | {word[0].upper() + word[1:] for word in known if word.islower()}
