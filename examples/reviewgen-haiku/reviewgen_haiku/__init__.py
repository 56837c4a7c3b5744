"""Haiku: texts of three lines with 5, 7 and 5 syllables, as a format for reviewgen.

The format is an automaton over tokens. Its state is the number of syllables and of line breaks so
far, and whether a punctuation mark precedes. So a word is possible only if its syllables fit into
the rest of the line. Words that consist of several tokens, or that the dictionary of syllapy does
not know, are left out.

V vocabulary.
"""

import re
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import syllapy

from reviewgen.protocols import TokenAutomaton

__all__ = ["LINES", "count_syllables", "haiku"]

LINES = (5, 7, 5)  # syllables of each line
FIRST = 2  # the state of an empty text; 0 is the state of a text that cannot become a haiku
WORD = re.compile(r" ?([A-Za-z]+(?:'[a-z]+)?)")
PUNCTUATION = (",", ".", "!", "?", ";", ":")


def count_syllables(line: str) -> int:
    """Return the number of syllables of a line.

    >>> count_syllables("An old silent pond.")
    5
    """
    return sum(map(syllapy.count, line.split()))


def haiku(tokenizer: Any) -> TokenAutomaton:
    """Return the automaton of haiku.

    Raises:
        ValueError: The tokens are not words, or there is no token for a line break.
    """
    texts = [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)]
    matches = [WORD.fullmatch(text) for text in texts]
    words = ["" if match is None else match[1].lower() for match in matches]
    syllables = np.array([syllapy.WORD_DICT.get(word, 0) for word in words])  # (V,)
    if "\n" not in texts or not (syllables == 1).any():
        raise ValueError("haiku need tokens that are words, and one that is a line break")
    has_space = np.array([text.startswith(" ") for text in texts])
    punctuation = np.array([text in PUNCTUATION for text in texts])
    ends = [0, *accumulate(LINES)]
    size = FIRST + 2 * (ends[-1] + len(LINES))
    table = np.zeros((size, tokenizer.vocab_size), np.int32)
    for line, (start, end) in enumerate(pairwise(ends)):
        for count in range(start, end + 1):
            state = FIRST + 2 * (count + line)  # the next one is the same after a punctuation mark
            fits = (syllables > 0) & (count + syllables <= end) & (has_space == (count > start))
            table[state : state + 2, fits] = state + 2 * syllables[fits]
            if count > start:
                table[state, punctuation] = state + 1
        if end < ends[-1]:
            table[state : state + 2, texts.index("\n")] = state + 2
    return TokenAutomaton(table, is_end=np.arange(size) >= size - 2)
