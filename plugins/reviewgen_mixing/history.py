"""What the model remembers of a text: its last symbols, words and lines, as a vector of integers;
the hashes of the contexts that are made from it; and the matches: where the last symbols occurred
before, and what followed them there.

A text finds repetitions of its own last symbols; a ring in its state has as many of them as fit. A
model that keeps its training text also finds them there.

All hashes have 32 bits, so that JavaScript computes the same ones. Needs no torch.

Shapes: V symbols, C contexts, K numbers of the state of a text, T symbols, H hashes.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from reviewgen.compiled import compiled, unmanaged

# the places of the state
RECENT = 16  # the last symbols, the newest first, at places 0 to 15
WORD = 16  # hash of the letters of the current word so far, in lower case; 0 between words
LETTERS = 17  # number of these letters
GAP = 18  # hash of the symbols since the last word
PREVIOUS = 19  # hash of the previous word
PREVIOUS_2 = 20  # hash of the word before ``PREVIOUS``
PREVIOUS_3 = 21  # hash of the word before ``PREVIOUS_2``
ENDING = 22  # the last three letters of the current word
SUFFIX = 23  # hash of the ending and the length of the previous word
PUNCTUATION = 24  # the last punctuation mark
SINCE = 25  # number of words since the last punctuation mark
FIRST_OF_LINE = 26  # hash of the first word of the line
COLUMN = 27
GIVEN = 28  # hash of the conditions
READ = 29  # number of symbols that were read
# within this text, the position after the passage that the last symbols repeat
MATCH = 30
MATCHED = 31  # length of this match
SOURCE = 32  # in the training text, the position after the passage that the last symbols repeat
COPIED = 33  # length of this match
REGISTERS = 34  # number of these places
SUCCESSORS = 512  # number of pairs of symbols whose last successors are remembered
OWN_SLOTS = REGISTERS + SUCCESSORS  # where a text's own slots begin

MATCHES = 2  # the match within the text, and the one with the training text
MIN_MATCH = 5  # min symbols of a repetition within a text
MIN_COPY = 7  # min symbols of a repetition of the training text
MAX_MATCH = 31  # longer matches count as this long
CLASSES = 8  # number of classes of the lengths of matches; class 0 stands for no match

# kinds of symbols
LETTER = 1
PUNCTUATION_MARK = 2
NEWLINE = 3

ORDERS = (1, 2, 3, 4, 5, 6, 8, 11)  # the numbers of last symbols that make a context
# the names of the contexts, which are shown to people; the index is the number of the context
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
ORDER_CONTEXTS = range(9)  # the context of no symbol, and those of ``ORDERS``
WORD_CONTEXTS = range(9, 17)
SPARSE_CONTEXTS = range(17, 20)
GIVEN_CONTEXTS = range(20, 22)
LOCAL_CONTEXTS = (2, 3, 4, 6, 9, 10)  # the contexts for which a text has counts of its own

MASK = 0xFFFFFFFF
# odd numbers with well mixed bits
FACTOR_A = 0x9E3779B1
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
def hash_symbols(symbols, count):
    """Return a hash of the first ``count`` of some symbols."""
    hashed = 0
    for place in range(count):
        hashed = mixed(hashed, symbols[place] + 1)
    return hashed


@unmanaged
def place_of_pair(state):
    """Return the place of the state that has the last successors of the text's last two symbols."""
    return REGISTERS + mixed(state[1] + 1, state[0] + 1) % SUCCESSORS


@unmanaged
def read_symbol(alphabet, symbol, state):
    """Update the registers of a state with the next symbol."""
    pair = place_of_pair(state)
    # the last two successors of the pair, in 16 bits each
    state[pair] = ((state[pair] << 16) | (symbol + 1)) & MASK
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
    if state[LETTERS] > 0:  # the symbol ends a word
        if state[FIRST_OF_LINE] == 0:
            state[FIRST_OF_LINE] = state[WORD]
        state[PREVIOUS_3] = state[PREVIOUS_2]
        state[PREVIOUS_2] = state[PREVIOUS]
        state[PREVIOUS] = state[WORD]
        state[SUFFIX] = mixed(state[ENDING], min(state[LETTERS], 15))
        state[SINCE] = min(state[SINCE] + 1, 255)
        for place in (WORD, LETTERS, ENDING, GAP):
            state[place] = 0
    state[GAP] = mixed(state[GAP], symbol + 1)
    if kind == PUNCTUATION_MARK:
        state[PUNCTUATION] = symbol
        state[SINCE] = 0
    elif kind == NEWLINE:
        state[COLUMN] = 0
        state[FIRST_OF_LINE] = 0


@unmanaged
def write_contexts(state, contexts):
    """Write the hash of each of the contexts that ``NAMES`` lists, (C,)."""
    hashed = 0
    number = 0
    contexts[0] = 0
    for place in range(ORDERS[-1]):
        hashed = mixed(hashed, state[place] + 1)
        if place + 1 in ORDERS:
            number += 1
            contexts[number] = hashed
    word = mixed(state[WORD], state[GAP])
    two_words = mixed(word, state[PREVIOUS])
    contexts[9] = word
    contexts[10] = two_words
    contexts[11] = mixed(two_words, state[PREVIOUS_2])
    contexts[12] = mixed(word, state[PREVIOUS_2])
    contexts[13] = mixed(word, state[SUFFIX])
    contexts[14] = mixed(two_words, state[PREVIOUS_3])
    contexts[15] = mixed(word, state[FIRST_OF_LINE])
    contexts[17] = mixed(mixed(state[1] + 1, state[2] + 1), state[3] + 1)
    contexts[18] = mixed(state[place_of_pair(state)], state[0] + 1)
    contexts[19] = mixed(state[COLUMN], state[0] + 1)
    contexts[20] = mixed(word, state[GIVEN])
    # with the hash of three symbols that contexts[3] gets in the loop below
    contexts[21] = mixed(mixed(contexts[3], 3), state[GIVEN])
    for number in range(len(contexts)):
        contexts[number] = mixed(contexts[number], number)
    # one number for the context, 16, and the words since punctuation, at most 255
    contexts[16] = mixed(mixed(word, state[PUNCTUATION]), 256 * 16 + state[SINCE])


def state_size(local_slots: int) -> int:
    """Return K, the number of integers of a text's state: registers, successors, own slots, the
    ring with four symbols in each integer, and the last position of each hash in the ring.
    """
    return OWN_SLOTS + local_slots + local_slots // 4 + local_slots // 8


def is_state(
    ints: Int64[np.ndarray, "B K"], vocab_size: int, local_slots: int, text_length: int
) -> bool:
    """Return whether the symbols and positions of states are within the vocabulary and the training
    text, which compiled functions do not check.
    """
    ring = ints[:, OWN_SLOTS + local_slots :][:, : local_slots // 4]
    # arrays whose numbers must be at least 0 and below a limit
    limits = [
        (ints[:, :2], vocab_size),
        (np.ascontiguousarray(ring).view(np.uint16), vocab_size),  # four symbols in each integer
        (ints[:, LETTERS], np.inf),
        (ints[ints[:, COPIED] > 0, SOURCE], text_length),
    ]
    return all(bool(((part >= 0) & (part < limit)).all()) for part, limit in limits)


@compiled
def index_text(text, first, starts):
    """Index ``text``, int32 (T,), by the hashes of ``MIN_COPY`` symbols: write to ``starts``, int64
    (H,), the position after the last occurrence of each. Positions before ``first`` are left out.
    """
    for position in range(max(first, MIN_COPY), len(text)):
        # the newest symbol first, as in a state
        starts[hash_symbols(text[:position][::-1], MIN_COPY) % len(starts)] = position


@unmanaged
def length_class(length):
    """Return the class of the length of a match, one of ``CLASSES``."""
    if length == 0:
        return 0
    if length < 8:
        return 1 + (length - MIN_MATCH) // 2
    return min(CLASSES - 1, 3 + (length - 8) // 5)


@unmanaged
def symbol_at(state, local_slots, text, which, position):
    """Return the symbol at a position of the text that a match refers to. If ``which`` is 0, this
    is the text itself, whose last symbols are in the ring; if 1, the training text.
    """
    if which == 1:
        return np.int64(text[position])
    place = position % local_slots
    return (state[OWN_SLOTS + local_slots + (place >> 2)] >> (16 * (place & 3))) & 0xFFFF


@unmanaged
def follow_own(state, local_slots, text, symbol):
    """Add a symbol to the ring, and update the match within the text. The registers have the symbol
    already.
    """
    read = state[READ]
    place = (read - 1) % local_slots
    ring_entry = OWN_SLOTS + local_slots + (place >> 2)
    shift = 16 * (place & 3)
    state[ring_entry] = (state[ring_entry] & ~(0xFFFF << shift)) | (symbol << shift)
    hashed = hash_symbols(state, MIN_MATCH) % (local_slots // 8)
    index_entry = OWN_SLOTS + local_slots + local_slots // 4 + hashed
    # a candidate needs the symbols before it in the ring, too: ``follow`` compares up to RECENT
    is_in_ring = read - state[index_entry] < local_slots - RECENT
    candidate = state[index_entry] if is_in_ring else 0
    follow(state, local_slots, text, 0, candidate, MIN_MATCH)
    state[index_entry] = read


@unmanaged
def follow_source(state, local_slots, text, starts):
    """Update the match with the training text. The registers have the symbol already."""
    candidate = 0
    if state[READ] >= MIN_COPY:
        candidate = starts[hash_symbols(state, MIN_COPY) % len(starts)]
    follow(state, local_slots, text, 1, candidate, MIN_COPY)
    if state[SOURCE] >= len(text):  # the training text has no next symbol
        state[COPIED] = 0


@unmanaged
def follow(state, local_slots, text, which, candidate, min_length):
    """Update a match with the last symbol, or begin one.

    Args:
        state, local_slots, text, which: As in ``symbol_at``.
        candidate: The position after a passage that the last symbols may repeat; 0 for none.
        min_length: The min length of a match that begins.
    """
    place = MATCH + 2 * which  # of the position of the match; its length is at the next place
    length = state[place + 1]
    if length > 0 and symbol_at(state, local_slots, text, which, state[place]) == state[0]:
        state[place] += 1
        state[place + 1] = min(length + 1, MAX_MATCH)
        return
    length = 0
    while length < min(RECENT, candidate):
        if symbol_at(state, local_slots, text, which, candidate - 1 - length) != state[length]:
            break
        length += 1
    state[place + 1] = 0
    if length >= min_length:
        state[place] = candidate
        state[place + 1] = length
