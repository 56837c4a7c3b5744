"""Which words and characters a training text has.

A word is a run of letters and the marks on them, apostrophes between letters included, as in "don't". All other characters are
separators.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

APOSTROPHES = "'\u2019"
_WITHOUT_APOSTROPHES = str.maketrans("", "", APOSTROPHES)
_JOINERS = "\u200c\u200d"  # the zero-width ones, inside words of Persian and of Indian languages
_ASCII = "".join(character for character in map(chr, range(128)) if not character.isalpha() and character not in APOSTROPHES)
_SEPARATORS = {*_ASCII, *(character for character in map(chr, range(0x3001)) if character.isspace())}
_AS_SPACES = bytes.maketrans(_ASCII.encode(), b" " * len(_ASCII))
_FREQUENT = (" " + string.ascii_letters).encode()


@dataclass
class WordCounts:
    """How often each word occurs in a text, and its separators.

    Attributes:
        words: The words, as written.
        separators: The characters that are not in words, and apostrophes.
    """

    words: Counter[str] = field(default_factory=Counter)
    separators: set[str] = field(default_factory=set)

    def update(self, other: "WordCounts") -> None:
        """Add what was counted elsewhere."""
        self.words.update(other.words)
        self.separators |= other.separators

    def split(self) -> "WordCounts":
        """Return the words in these words, which may be any runs of characters."""
        characters = set[str]().union(*self.words)
        letters = "".join(words_of(" ".join(characters))).translate(_WITHOUT_APOSTROPHES)
        counts = WordCounts(separators=self.separators | characters.difference(letters))
        for run, times in self.words.items():
            for word in [run] if run.isalpha() else words_of(run):
                counts.words[word] += times
        return counts


def words_of(text: str) -> list[str]:
    """Return the words of a text, in order.

    >>> words_of("Don't say 'no', say na\u00efve.")
    ["Don't", 'say', 'no', 'say', 'naïve']
    """
    signs = () if text.isascii() else set(text)
    marks = sorted(c for c in signs if c in _JOINERS or unicodedata.category(c)[0] == "M")
    return _pattern("".join(marks)).findall(text)


def count_runs(texts: Sequence[str]) -> WordCounts:
    """Count the runs between white space and ASCII separators in texts, after each of which comes a line end.

    ``split`` gives their words; most runs are words that come again and again, so this is faster than counting the words.
    """
    import pyarrow.compute  # slow to import

    whole = "\n".join([*texts, ""]).encode()
    plain = pyarrow.array([whole.translate(_AS_SPACES)], pyarrow.string())
    counts = pyarrow.compute.value_counts(pyarrow.compute.list_flatten(pyarrow.compute.utf8_split_whitespace(plain)))
    runs = zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True)
    separators = {*whole.translate(None, _FREQUENT).decode(), *(" " if b" " in whole else "")} & _SEPARATORS
    return WordCounts(Counter(dict(runs)), separators)


@lru_cache(maxsize=16)
def _pattern(marks: str) -> re.Pattern[str]:
    """Return the pattern of words, which may contain these marks."""
    letter = rf"(?:[^\W\d_]|[{re.escape(marks)}])" if marks else r"[^\W\d_]"
    return re.compile(rf"{letter}+(?:[{APOSTROPHES}]{letter}+)*")
