"""Which words and characters a training text has.

A word is a run of letters and the marks on them, apostrophes between letters included, as in "don't". All other characters are
separators.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

APOSTROPHES = "'\u2019"
_WITHOUT_APOSTROPHES = str.maketrans("", "", APOSTROPHES)
_JOINERS = "\u200c\u200d"  # the zero-width ones, inside words of Persian and of Indian languages
_SPACES = [character for character in map(chr, range(0x3001)) if character.isspace()]


@dataclass
class WordCounts:
    """How often each word occurs in a text, and its separators.

    Attributes:
        words: The words, as written.
        separators: The characters that are not in words, and apostrophes.
    """

    words: Counter[str] = field(default_factory=Counter)
    separators: set[str] = field(default_factory=set)

    def add(self, text: str, times: int = 1) -> None:
        """Count the words of a text that occurs a number of times."""
        words = [text] if text.isalpha() else words_of(text)
        for word in words:
            self.words[word] += times
        self.separators |= set(text) - set("".join(set(words)).translate(_WITHOUT_APOSTROPHES))

    def update(self, other: "WordCounts") -> None:
        """Add what was counted elsewhere."""
        self.words.update(other.words)
        self.separators |= other.separators

    def split(self) -> "WordCounts":
        """Return the words in these words, which may be any runs of characters."""
        counts = WordCounts(separators=set(self.separators))
        for run, times in self.words.items():
            counts.add(run, times)
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
    """Count the runs of characters that are not white space in texts, after each of which comes a line end.

    ``split`` gives their words; most runs come again and again, so this takes a tenth of the time of counting the words.
    """
    import pyarrow.compute  # slow to import

    whole = "\n".join([*texts, ""])
    split = pyarrow.compute.utf8_split_whitespace(pyarrow.array(texts, pyarrow.string()))
    counts = pyarrow.compute.value_counts(pyarrow.compute.list_flatten(split))
    pairs = zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True)
    return WordCounts(Counter(dict(pairs)), {space for space in _SPACES if space in whole})


@lru_cache(maxsize=16)
def _pattern(marks: str) -> re.Pattern[str]:
    """Return the pattern of words, which may contain these marks."""
    letter = rf"(?:[^\W\d_]|[{re.escape(marks)}])" if marks else r"[^\W\d_]"
    return re.compile(rf"{letter}+(?:[{APOSTROPHES}]{letter}+)*")
