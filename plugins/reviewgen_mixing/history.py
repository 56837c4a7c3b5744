"""What the model remembers of a text: its last symbols, words and lines, as a vector of integers;
and the hashes of the contexts that are made from it.

All hashes have 32 bits, so that JavaScript computes the same ones. Needs no torch.

Shapes: V symbols, C contexts, K numbers of the state of a text.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from reviewgen.compiled import unmanaged

# the places of the state
RECENT = 16  # the last symbols, the newest first, at places 0 to 15
WORD = 16  # hash of the letters of the current word so far, in lower case; 0 between words
LETTERS = 17  # number of these letters
GAP = 18  # hash of the symbols since the last word
PREVIOUS = 19  # hashes of the previous word and the two before it
SECOND = 20
THIRD = 21
ENDING = 22  # the last three letters of the current word
SUFFIX = 23  # the ending and the length of the previous word
PUNCTUATION = 24  # the last punctuation mark
SINCE = 25  # words since then
FIRST = 26  # hash of the first word of the line
COLUMN = 27
GIVEN = 28  # hash of the conditions
READ = 29  # number of symbols that were read
MATCH = 30  # where the text goes on that the last symbols repeat, within this text
MATCHED = 31  # length of this match
SOURCE = 32  # the same within the training text
COPIED = 33
REGISTERS = 34  # the number of these places
SUCCESSORS = 512  # number of pairs of symbols whose last successors are remembered

LETTER = 1
PUNCTUATION_MARK = 2
NEWLINE = 3

ORDERS = (1, 2, 3, 4, 5, 6, 8, 11)
# names of the contexts, for people
NAMES = (
    "no context",
    "1 symbol",
    "2 symbols",
    "3 symbols",
    "4 symbols",
    "5 symbols",
    "6 symbols",
    "8 symbols",
    "11 symbols",
    "word",
    "2 words",
    "3 words",
    "word, skipping one",
    "ending of the previous word",
    "word, skipping two",
    "first word of the line",
    "words since punctuation",
    "2 to 4 symbols back",
    "last successors",
    "column and 1 symbol",
    "conditions and word",
    "conditions and 3 symbols",
)
ORDER_CONTEXTS = 9  # the first contexts: 0 symbols and ``ORDERS``
WORD_CONTEXTS = (9, 10, 11, 12, 13, 14, 15, 16)
SPARSE_CONTEXTS = (17, 18, 19)
GIVEN_CONTEXTS = (20, 21)
LOCAL_CONTEXTS = (2, 3, 4, 6, 9, 10)  # those whose counts a text has of its own

MASK = 0xFFFFFFFF
FACTOR_A = 0x9E3779B1  # odd numbers with well mixed bits
FACTOR_B = 0x85EBCA6B
FACTOR_C = 0xC2B2AE35


class Alphabet(NamedTuple):
    """What kind of symbol each id is."""

    kinds: Int64[np.ndarray, " V"]  # LETTER, PUNCTUATION_MARK, NEWLINE, or 0
    folded: Int64[np.ndarray, " V"]  # the id of the same letter in lower case


def read_alphabet(alphabet: str, vocab_size: int) -> Alphabet:
    """Return the kinds of the symbols; without an alphabet, all are letters."""
    kinds = np.full(vocab_size, LETTER if not alphabet else 0)
    folded = np.arange(vocab_size)
    ids = {character: symbol for symbol, character in enumerate(alphabet) if character != "\0"}
    for character, symbol in ids.items():
        if character.isalpha():
            kinds[symbol] = LETTER
            folded[symbol] = ids.get(character.lower(), symbol)
        elif character == "\n":
            kinds[symbol] = NEWLINE
        elif character in '.,;:!?()"':
            kinds[symbol] = PUNCTUATION_MARK
    return Alphabet(kinds, folded)


@unmanaged
def mixed(hashed, value):
    """Return a hash of a hash and another number."""
    product = ((hashed ^ ((value * FACTOR_A) & MASK)) * FACTOR_B) & MASK
    return product ^ (product >> 15)


@unmanaged
def read_symbol(alphabet, symbol, state):
    """Update the registers of a state with the next symbol."""
    pair = mixed(state[1] + 1, state[0] + 1) % SUCCESSORS
    state[REGISTERS + pair] = ((state[REGISTERS + pair] << 16) | (symbol + 1)) & MASK
    for place in range(RECENT - 1, 0, -1):
        state[place] = state[place - 1]
    state[0] = symbol
    state[READ] += 1
    state[COLUMN] += 1
    kind = alphabet.kinds[symbol]
    if kind == LETTER:
        state[WORD] = mixed(state[WORD], alphabet.folded[symbol] + 1)
        state[LETTERS] += 1
        state[ENDING] = ((state[ENDING] << 10) ^ alphabet.folded[symbol]) & 0x3FFFFFFF
        return
    if state[LETTERS] > 0:
        if state[FIRST] == 0:
            state[FIRST] = state[WORD]
        state[THIRD] = state[SECOND]
        state[SECOND] = state[PREVIOUS]
        state[PREVIOUS] = state[WORD]
        state[SUFFIX] = mixed(state[ENDING], min(state[LETTERS], 15))
        state[SINCE] = min(state[SINCE] + 1, 255)
        state[WORD] = 0
        state[LETTERS] = 0
        state[ENDING] = 0
        state[GAP] = 0
    state[GAP] = mixed(state[GAP], symbol + 1)
    if kind == PUNCTUATION_MARK:
        state[PUNCTUATION] = symbol
        state[SINCE] = 0
    elif kind == NEWLINE:
        state[COLUMN] = 0
        state[FIRST] = 0


@unmanaged
def write_contexts(state, contexts):
    """Write the hash of each of the contexts that ``NAMES`` lists, (C,)."""
    contexts[0] = 0
    hashed = 0
    number = 1
    for place in range(11):
        hashed = mixed(hashed, state[place] + 1)
        if place < 6 or place == 7 or place == 10:
            contexts[number] = mixed(hashed, number)
            number += 1
    word = mixed(state[WORD], state[GAP])
    contexts[9] = mixed(word, 9)
    contexts[10] = mixed(mixed(word, state[PREVIOUS]), 10)
    contexts[11] = mixed(mixed(mixed(word, state[PREVIOUS]), state[SECOND]), 11)
    contexts[12] = mixed(mixed(word, state[SECOND]), 12)
    contexts[13] = mixed(mixed(word, state[SUFFIX]), 13)
    contexts[14] = mixed(mixed(mixed(word, state[PREVIOUS]), state[THIRD]), 14)
    contexts[15] = mixed(mixed(word, state[FIRST]), 15)
    contexts[16] = mixed(mixed(word, state[PUNCTUATION]), 256 * 16 + state[SINCE])
    skipped = mixed(mixed(state[1] + 1, state[2] + 1), state[3] + 1)
    contexts[17] = mixed(skipped, 17)
    pair = mixed(state[1] + 1, state[0] + 1) % SUCCESSORS
    contexts[18] = mixed(mixed(state[REGISTERS + pair], state[0] + 1), 18)
    contexts[19] = mixed(mixed(state[COLUMN], state[0] + 1), 19)
    contexts[20] = mixed(mixed(word, state[GIVEN]), 20)
    contexts[21] = mixed(mixed(contexts[3], state[GIVEN]), 21)
