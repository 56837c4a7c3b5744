"""Which words and characters a training text has.

A word is a run of letters and the marks on them, apostrophes between letters included, as in "don't". All other characters are
separators.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain

import numpy as np

from reviewgen.compiled.spelling import HALF
from reviewgen.lexicon.symbols import Symbols

__all__ = ["WordCounts", "count_words", "unknown_word_share", "words_of"]

APOSTROPHES = "'\u2019"
_WITHOUT_APOSTROPHES = str.maketrans("", "", APOSTROPHES)
_JOINERS = "\u200c\u200d"  # the zero-width ones, inside words of Persian and of Indian languages
_PART_TOKENS = 1 << 17  # about, at a time
_MAX_CHARACTERS = 200_000_000  # after which no new words are looked for


@dataclass
class WordCounts:
    """How often each word occurs in a text, and its separators.

    Attributes:
        words: The words, as written.
        separators: The characters that are not in words, and apostrophes.
    """

    words: Counter[str] = field(default_factory=Counter)
    separators: set[str] = field(default_factory=set)

    def add(self, text: str) -> None:
        """Count the words of a text."""
        characters, words = set(text), words_of(text)
        self.words.update(words)
        self.separators |= characters - set("".join(set(words)).translate(_WITHOUT_APOSTROPHES))


def words_of(text: str) -> list[str]:
    """Return the words of a text, in order.

    >>> words_of("Don't say 'no', say na\u00efve.")
    ["Don't", 'say', 'no', 'say', 'naïve']
    """
    marks = sorted(c for c in set(text) if c in _JOINERS or unicodedata.category(c)[0] == "M")
    return _pattern("".join(marks)).findall(text)


def unknown_word_share(texts: Iterable[str], known: Container[str]) -> float:
    """Return the share of the words of some texts that are not known, upper or lower case; 0 if there are no words."""
    words = list(chain.from_iterable(map(words_of, texts)))
    return sum(word.casefold() not in known for word in words) / max(1, len(words))


def count_words(blocks: Iterable[np.ndarray], symbols: Symbols) -> WordCounts:
    """Count the words of encoded texts.

    Args:
        blocks: The token ids of the texts, one after another, each between bos and eos; in blocks of whole texts.
        symbols: The bytes of each token.
    """
    counts, seen = WordCounts(), 0
    for part in _parts(blocks, symbols):
        counts.add(part)
        seen += len(part)
        if seen > _MAX_CHARACTERS:
            break
    return counts


def _parts(blocks: Iterable[np.ndarray], symbols: Symbols) -> Iterator[str]:
    """Yield the texts of blocks in parts that do not end inside a word; each text ends with a line end."""
    rest = b""
    for block in blocks:
        for ids in np.array_split(block, max(1, len(block) // _PART_TOKENS)):
            data = rest + _bytes_of(ids, symbols)
            end = max(data.rfind(b"\n"), data.rfind(b" ")) + 1 or len(data)
            yield data[:end].decode("utf-8", "replace")
            rest = data[end:]
    yield rest.decode("utf-8", "replace")


def _bytes_of(ids: np.ndarray, symbols: Symbols) -> bytes:
    """Return the bytes of token ids, with a line end for each token that has none: bos and eos."""
    lengths = np.diff(symbols.offsets)
    is_frame = lengths == 0
    lengths = np.where(is_frame, 1, lengths)[ids]
    starts = np.where(is_frame, len(symbols.values), symbols.offsets[:-1])[ids]
    values = np.append(symbols.values, ord("\n")).astype(np.uint16)
    ends = np.cumsum(lengths)
    places = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths) + np.repeat(starts, lengths)
    found = values[places]
    halves = np.flatnonzero(found >= HALF)
    if len(halves):
        first, second = halves[::2], halves[1::2]
        found[first[: len(second)]] = 16 * (found[first[: len(second)]] - HALF) + found[second] - HALF
        found = np.delete(found, np.concatenate((second, first[len(second) :])))
    encoded: bytes = found.astype(np.uint8).tobytes()
    return encoded


@lru_cache(maxsize=16)
def _pattern(marks: str) -> re.Pattern[str]:
    """Return the pattern of words, which may contain these marks."""
    letter = rf"(?:[^\W\d_]|[{re.escape(marks)}])" if marks else r"[^\W\d_]"
    return re.compile(rf"{letter}+(?:[{APOSTROPHES}]{letter}+)*")
