"""The match model: where the last symbols occurred before, and what followed them there.

A text finds repetitions of its own last symbols; a ring in its state has as many of them as fit. A
model that keeps its training text also finds them there.

Needs no torch. Shapes: K numbers of the state of a text, T symbols, H hashes.
"""

import numpy as np
from jaxtyping import Int32, Int64

from reviewgen.compiled import compiled, unmanaged
from reviewgen_mixing.history import (
    COPIED,
    LETTERS,
    MATCH,
    MATCHED,
    READ,
    RECENT,
    REGISTERS,
    SOURCE,
    SUCCESSORS,
    mixed,
)

MIN_MATCH = 5  # symbols of a repetition within a text
MIN_COPY = 7  # symbols of a repetition of the training text
MAX_MATCH = 31  # longer matches count as this long
CLASSES = 8  # of lengths; 0 stands for no match
OWN = REGISTERS + SUCCESSORS  # where a text's own slots begin in its state


def state_size(local_slots: int) -> int:
    """Return the number of integers of a text's state, K: registers, successors, own slots, the
    ring with four symbols in each integer, and where the ring has each hash.
    """
    return OWN + local_slots + local_slots // 4 + local_slots // 8


def is_state(
    ints: Int64[np.ndarray, "B K"], vocab_size: int, local_slots: int, text_length: int
) -> bool:
    """Return whether the symbols and positions of states are within the vocabulary and the training
    text, which compiled functions do not check.
    """
    ring = OWN + local_slots
    recent = ints[:, :2]
    symbols = np.ascontiguousarray(ints[:, ring : ring + local_slots // 4]).view(np.uint16)
    positions = ints[ints[:, COPIED] > 0, SOURCE]
    smallest = min(part.min(initial=0) for part in (recent, ints[:, LETTERS], positions))
    largest = max(recent.max(initial=0), symbols.max(initial=0))
    return bool(smallest >= 0 and largest < vocab_size and positions.max(initial=-1) < text_length)


def index_text(text: Int32[np.ndarray, " T"], first: int, starts: Int64[np.ndarray, " H"]) -> None:
    """Write where a text goes on after each hash, from the position ``first`` on."""
    _index_text(text, first, starts)


@compiled
def _index_text(text, first, starts):
    for position in range(max(first, MIN_COPY), len(text)):
        hashed = 0
        for back in range(MIN_COPY):
            hashed = mixed(hashed, text[position - 1 - back] + 1)
        starts[hashed % len(starts)] = position


@unmanaged
def length_class(length):
    """Return one of the ``CLASSES`` of a length."""
    if length == 0:
        return 0
    if length < 8:
        return 1 + (length - MIN_MATCH) // 2
    return min(CLASSES - 1, 3 + (length - 8) // 5)


@unmanaged
def symbol_at(state, local_slots, position):
    """Return the symbol of a text at a position that the ring has."""
    place = position % local_slots
    return (state[OWN + local_slots + (place >> 2)] >> (16 * (place & 3))) & 0xFFFF


@unmanaged
def follow_own(state, local_slots, symbol):
    """Add a symbol to the ring, and update the match within the text. The registers have the symbol
    already.
    """
    read = state[READ]
    ring = OWN + local_slots
    place = (read - 1) % local_slots
    shift = 16 * (place & 3)
    kept = state[ring + (place >> 2)] & ~(0xFFFF << shift)
    state[ring + (place >> 2)] = kept | (symbol << shift)
    if state[MATCHED] > 0 and symbol_at(state, local_slots, state[MATCH]) == symbol:
        state[MATCHED] = min(state[MATCHED] + 1, MAX_MATCH)
        state[MATCH] += 1
    else:
        state[MATCHED] = 0
    hashed = 0
    for back in range(MIN_MATCH):
        hashed = mixed(hashed, state[back] + 1)
    entry = ring + local_slots // 4 + hashed % (local_slots // 8)
    candidate = state[entry]
    is_in_ring = candidate > 0 and read - candidate < local_slots - RECENT
    if state[MATCHED] == 0 and is_in_ring:
        length = 0
        while length < min(RECENT, candidate):
            if symbol_at(state, local_slots, candidate - 1 - length) != state[length]:
                break
            length += 1
        if length >= MIN_MATCH:
            state[MATCHED] = length
            state[MATCH] = candidate
    state[entry] = read


@unmanaged
def follow_source(state, text, starts, symbol):
    """Update the match with the training text. The registers have the symbol already."""
    if state[COPIED] > 0 and text[state[SOURCE]] == symbol:
        state[COPIED] = min(state[COPIED] + 1, MAX_MATCH)
        state[SOURCE] += 1
    else:
        state[COPIED] = 0
    if state[COPIED] == 0 and state[READ] >= MIN_COPY:
        hashed = 0
        for back in range(MIN_COPY):
            hashed = mixed(hashed, state[back] + 1)
        candidate = starts[hashed % len(starts)]
        length = 0
        while length < min(RECENT, candidate):
            if text[candidate - 1 - length] != state[length]:
                break
            length += 1
        if length >= MIN_COPY:
            state[COPIED] = length
            state[SOURCE] = candidate
    if state[SOURCE] >= len(text):
        state[COPIED] = 0
