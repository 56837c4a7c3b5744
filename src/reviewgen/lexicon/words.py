"""Splits texts into words, and counts them.

A word is a run of letters and the marks on them, including apostrophes between letters, as in
"don't". All other characters are separators.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from string import ascii_letters

import numpy as np

from reviewgen.compiled.jit import compiled

APOSTROPHES = "'\u2019"
_JOINERS = "\u200c\u200d"  # zero-width characters inside words of Persian and Indian languages
_ASCII_SEPARATORS = "".join(
    character
    for character in map(chr, range(128))
    if not character.isalpha() and character not in APOSTROPHES
)
_SPACES = {character for character in map(chr, range(0x3001)) if character.isspace()}
_FREQUENT = (" " + ascii_letters).encode()  # most bytes of a text
_AS_SPACES = bytes.maketrans(_ASCII_SEPARATORS.encode(), b" " * len(_ASCII_SEPARATORS))


@dataclass
class WordCounts:
    """The words of some texts, and the characters between them.

    Attributes:
        words: How often each word occurs, as it is written.
        texts: In how many texts each word occurs. Here the words are in lower case.
        separators: The characters that occur and are not letters of words: those between words, the
            line end, and apostrophes.
    """

    words: Counter[str] = field(default_factory=Counter)
    texts: Counter[str] = field(default_factory=Counter)
    separators: set[str] = field(default_factory=set)

    def update(self, other: "WordCounts") -> None:
        """Add the counts of other texts."""
        self.words.update(other.words)
        self.texts.update(other.texts)
        self.separators |= other.separators


def words_of(text: str) -> list[str]:
    """Return the words of a text, in order.

    >>> words_of("Don't say 'no', say na\u00efve.")
    ["Don't", 'say', 'no', 'say', 'naïve']
    """
    marks = ""
    if not text.isascii():
        marks = "".join(sorted(filter(_is_mark, set(text))))
    return _pattern(marks).findall(text)


def _is_mark(character: str) -> bool:
    """Return whether a character is a mark or a joiner, which words may contain."""
    return character in _JOINERS or unicodedata.category(character).startswith("M")


@lru_cache(maxsize=16)
def _pattern(marks: str) -> re.Pattern[str]:
    """Return the regular expression of a word. ``marks`` has the marks that count as letters."""
    letter = rf"(?:[^\W\d_]|[{re.escape(marks)}])" if marks else r"[^\W\d_]"
    return re.compile(rf"{letter}+(?:[{APOSTROPHES}]{letter}+)*")


def count_words(texts: Sequence[str]) -> WordCounts:
    """Count the words of texts. Each text counts as followed by a line end.

    First, the texts are split at white space and ASCII separators. Most of the resulting runs are
    words that occur again and again, so each distinct run is split into words and lowercased only
    once.
    """
    import pyarrow.compute  # slow to import

    array = pyarrow.array(texts, pyarrow.large_string())
    _, offsets, values = array.buffers()
    encoded = b"" if values is None else values.to_pybytes()  # all texts, one after another
    # each ASCII separator becomes one space, so the offsets of the texts stay the same
    with_spaces = pyarrow.py_buffer(encoded.translate(_AS_SPACES))
    plain = pyarrow.LargeStringArray.from_buffers(len(texts), offsets, with_spaces)
    pieces = pyarrow.compute.utf8_split_whitespace(plain)
    runs = pyarrow.compute.list_flatten(pieces).dictionary_encode()
    # for each run, its index in ``distinct``, and the index of its text
    codes = runs.indices.to_numpy()
    owners = pyarrow.compute.list_parent_indices(pieces).to_numpy()
    distinct = runs.dictionary.to_pylist()
    times = np.bincount(codes, minlength=len(distinct)).tolist()

    words = Counter[str]()
    numbers: dict[str, int] = {}  # a number for each distinct word in lower case, from 0 on
    run_words: list[int] = []  # these numbers for the words of all distinct runs, run by run
    starts = [0]  # where the words of each run begin in run_words, and where the last ones end
    for run, occurrences in zip(distinct, times, strict=True):
        for word in [run] if run.isalpha() else words_of(run):
            words[word] += occurrences
            run_words.append(numbers.setdefault(word.casefold(), len(numbers)))
        starts.append(len(run_words))
    text_counts = _count_texts(
        codes, owners, np.array(starts), np.array(run_words, np.int64), len(numbers)
    )
    in_texts = Counter(dict(zip(numbers, text_counts.tolist(), strict=True)))
    return WordCounts(words, in_texts, _separators(encoded))


@compiled
def _count_texts(
    codes: np.ndarray, owners: np.ndarray, starts: np.ndarray, words: np.ndarray, count: int
) -> np.ndarray:
    """Return the number of texts in which each of ``count`` words occurs.

    Args:
        codes: The index of each run among the distinct runs.
        owners: The index of the text of each run, ascending.
        starts: The index in ``words`` at which those of each distinct run begin, and at the end the
            length of ``words``.
        words: The numbers of the words of all distinct runs.
        count: The number of distinct words.
    """
    text_counts = np.zeros(count, np.int64)
    last_text = np.full(count, -1, np.int64)  # the last text in which each word was found
    for position in range(len(codes)):
        for index in range(starts[codes[position]], starts[codes[position] + 1]):
            word = words[index]
            if last_text[word] != owners[position]:
                last_text[word] = owners[position]
                text_counts[word] += 1
    return text_counts


def _separators(encoded: bytes) -> set[str]:
    """Return the characters of an encoded text that are not in words, including the line end and
    apostrophes.
    """
    characters = {*encoded.translate(None, _FREQUENT).decode(), "\n"}
    if b" " in encoded:
        characters.add(" ")
    # which of the remaining characters are letters and marks: those that form words
    others = characters - _SPACES - set(_ASCII_SEPARATORS)
    letters = set("".join(words_of(" ".join(others)))) - set(APOSTROPHES)
    return characters - letters
