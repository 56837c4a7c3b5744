"""Counts: a slot for each pair of a context and a decision.

A slot holds how often the decision was 0 and 1 in its context, and an adaptive probability. Slots
lie in lines of 16. A context has a line for each block of three levels of the tree; a decision is
looked for in four slots of the line, and replaces the one with the fewest counts. A check of 16
bits tells contexts apart. (Mahoney 2005, "Adaptive Weighing of Context Models for Lossless Data
Compression": PAQ's hash tables.)

While a model is trained, a slot has a check and a value of 32 bits::

    bits   0 .. 4    count of the decision 0, at most 31
           5 .. 9    count of the decision 1, at most 31
          10 .. 11   the last two decisions
          12 .. 25   the adaptive probability of the decision 1
          26 .. 31   number of its updates, at most 63

A trained model keeps 24 bits: 11 bits of the check, the *state* (each count in one of 11 levels,
and the last decision: 242 states), and the probability in 32 levels of its logit. The levels are
what the mixer sees in training, too.

Needs no torch. Shapes: M slots.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8, UInt16, UInt32

from reviewgen.compiled import compiled, unmanaged
from reviewgen_mixing.history import FACTOR_C, MASK, mixed

LINE = 16
PROBES = 4
MAX_COUNT = 31
MAX_UPDATES = 63
STATES = 242
_LEVEL_OF_COUNT = [0, 1, 2, 3, 4, 5, 5, 6, 6, 6, 7, 7, 7, 7, 8, 8, 8, 8, 8, *[9] * 7, *[10] * 6]
LEVELS = np.array(_LEVEL_OF_COUNT)  # of each count from 0 to 31
# logits of the adaptive probability: 32 levels, evenly spaced between -LIMIT and LIMIT
LIMIT = 7.5
STRETCHED = np.linspace(-LIMIT, LIMIT, 32).astype(np.float32)
_HALF = 1 << 13
NEW = np.int64(_HALF << 12)  # the value of a slot without counts


def _codes() -> UInt8[np.ndarray, " P"]:
    """Return the level of each probability, which is given in 12 bits."""
    p = (np.arange(4096) + 0.5) / 4096
    return np.abs(np.log(p / (1 - p))[:, None] - STRETCHED).argmin(axis=1).astype(np.uint8)


CODES = _codes()


class Slots(NamedTuple):
    """The slots of a model: while it is trained, with checks; afterwards packed into 24 bits."""

    checks: UInt16[np.ndarray, " M"]  # empty if packed
    values: UInt32[np.ndarray, " M"]


@unmanaged
def find_line(context, root, lines):
    """Return the first slot of a context's line for a block of the tree, and the hash that the
    checks of the line are made from.
    """
    hashed = mixed(context, root + 1)
    return ((hashed * lines) >> 32) * LINE, (hashed * FACTOR_C) & MASK


@unmanaged
def check_of(hashed, place):
    """Return the check of a decision, 16 bits, whose lowest three are its place in the block."""
    return ((hashed >> 8) & 0xFFF8) | place


@unmanaged
def slot_in(line, hashed, place, probe):
    """Return the slot where a decision is looked for at a probe from 0 to 3."""
    return line + ((((hashed >> 3) & 15) ^ (2 * place)) ^ probe)


@unmanaged
def find(slots, line, hashed, place):
    """Return the slot of a decision; -1 if it has none."""
    check = check_of(hashed, place)
    if len(slots.checks) == 0:
        wanted = check & 0x7FF
        for probe in range(PROBES):
            slot = slot_in(line, hashed, place, probe)
            if np.int64(slots.values[slot]) >> 13 == wanted:
                return slot
        return -1
    for probe in range(PROBES):
        slot = slot_in(line, hashed, place, probe)
        if np.int64(slots.checks[slot]) == check:
            return slot
    return -1


@unmanaged
def claim(slots, line, hashed, place):
    """Return a slot for a decision that has none: the one with the fewest counts, emptied."""
    best = slot_in(line, hashed, place, 0)
    fewest = 1 << 30
    for probe in range(PROBES):
        slot = slot_in(line, hashed, place, probe)
        count = counted(np.int64(slots.values[slot])) if slots.checks[slot] != 0 else -1
        if count < fewest:
            best = slot
            fewest = count
    slots.checks[best] = check_of(hashed, place)
    slots.values[best] = NEW
    return best


@unmanaged
def counted(value):
    """Return the number of decisions that a value has counted."""
    return (value & 31) + ((value >> 5) & 31)


@unmanaged
def state_of(value):
    """Return the state of a value, from 0 to 241."""
    return (LEVELS[value & 31] * 11 + LEVELS[(value >> 5) & 31]) * 2 + ((value >> 10) & 1)


@unmanaged
def code_of(value):
    """Return the level of the adaptive probability of a value, from 0 to 31."""
    return np.int64(CODES[(value >> 14) & 4095])


@unmanaged
def updated(value, bit, rates, is_local):
    """Return a value after one more decision. Many counts of the other decision are forgotten if
    the counts are those of a text of its own, which change (PAQ's nonstationary states).
    """
    shift = 5 * bit
    own = (value >> shift) & 31
    other = (value >> (5 - shift)) & 31
    own = min(own + 1, MAX_COUNT)
    if is_local and other > 2:
        other = (other + 3) // 2
    last = ((value >> 9) & 2) | bit
    p = (value >> 12) & 0x3FFF
    updates = value >> 26
    target = 0x3FFF if bit else 0
    p += np.int64(np.round((target - p) * rates[updates]))
    updates = min(updates + 1, MAX_UPDATES)
    return (own << shift) | (other << (5 - shift)) | (last << 10) | (p << 12) | (updates << 26)


RATES = (1 / (np.arange(MAX_UPDATES + 1) + 1.5)).astype(np.float64)


@compiled
def pack(checks, values, min_count):
    """Pack the slots of a trained model in place: ``values`` become 24 bits. Return how many are
    in use. Slots with fewer counts than ``min_count`` are emptied.
    """
    used = 0
    for slot in range(len(values)):
        value = np.int64(values[slot])
        if checks[slot] == 0 or counted(value) < min_count:
            values[slot] = 0
            continue
        check = np.int64(checks[slot]) & 0x7FF
        values[slot] = (check << 13) | (state_of(value) << 5) | code_of(value)
        used += 1
    return used


def write_slots(values: UInt32[np.ndarray, " M"]) -> dict[str, np.ndarray]:
    """Return the packed slots as arrays to be saved: which are in use, a bit each, and three bytes
    for each of these.
    """
    is_used = values > 0
    used = values[is_used]
    octets = np.ascontiguousarray(used).view(np.uint8).reshape(-1, 4)[:, :3]
    return {"used": np.packbits(is_used), "slots": np.ascontiguousarray(octets)}


def read_slots(used: UInt8[np.ndarray, " U"], slots: UInt8[np.ndarray, "N 3"]) -> np.ndarray:
    """Return the packed slots that ``write_slots`` has saved."""
    values = np.zeros(8 * len(used), np.uint32)
    places = np.flatnonzero(np.unpackbits(used))
    octets = np.zeros((len(slots), 4), np.uint8)
    octets[:, :3] = slots
    values[places] = octets.view(np.uint32)[:, 0]
    return values


def lines_for(symbols: int) -> int:
    """Return the number of lines for a training text of some symbols: 64 slots for each symbol, at
    most 805 MB while the model is trained.
    """
    return min(4 * symbols + 64, 1 << 23)
