"""Which words and characters a training text has.

A word is a run of letters and the marks on them, apostrophes between letters included, as in "don't". All other characters are
separators.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice

import numpy as np

from reviewgen.lexicon.decoding import decode_bytes, in_parts
from reviewgen.lexicon.symbols import Symbols

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


def count_runs(blocks: Iterable[np.ndarray], symbols: Symbols) -> WordCounts:
    """Count the runs of characters that are not white space in encoded texts; ``split`` gives their words.

    Args:
        blocks: The token ids of the texts, one after another, each between bos and eos; in blocks of whole texts.
        symbols: The bytes of each token.
    """
    runs, parts = WordCounts(), _parts(blocks, symbols)
    while some := list(islice(parts, 64)):
        counts = count_runs_in_texts(some)  # most of these come again
        runs.words.update(counts.words)
        runs.separators |= counts.separators
    return runs


def count_runs_in_texts(texts: Sequence[str]) -> WordCounts:
    """Count the runs of characters that are not white space in texts, each of which ends with a line end."""
    import pyarrow.compute  # slow to import

    whole = "\n".join([*texts, ""])
    split = pyarrow.compute.utf8_split_whitespace(pyarrow.array(texts, pyarrow.string()))
    counts = pyarrow.compute.value_counts(pyarrow.compute.list_flatten(split))
    pairs = zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True)
    return WordCounts(Counter(dict(pairs)), {space for space in _SPACES if space in whole})


def _parts(blocks: Iterable[np.ndarray], symbols: Symbols) -> Iterator[str]:
    """Yield the texts of blocks in parts that do not end inside a word; each text ends with a line end."""
    rest = b""
    for ids in in_parts(blocks, symbols):
        data = rest + decode_bytes(ids, symbols, b"\n")
        end = max(data.rfind(b"\n"), data.rfind(b" ")) + 1 or len(data)
        yield data[:end].decode("utf-8", "replace")
        rest = data[end:]
    yield rest.decode("utf-8", "replace")


@lru_cache(maxsize=16)
def _pattern(marks: str) -> re.Pattern[str]:
    """Return the pattern of words, which may contain these marks."""
    letter = rf"(?:[^\W\d_]|[{re.escape(marks)}])" if marks else r"[^\W\d_]"
    return re.compile(rf"{letter}+(?:[{APOSTROPHES}]{letter}+)*")
