"""Counts: a slot for each pair of a context and a decision.

A slot holds how often the decision was 0 and 1 in its context, and an adaptive probability. Slots
lie in lines of 16. A context has a line for each block of three levels of the tree; a decision is
looked for in four slots of the line, and if it is in none, it replaces the one with the fewest
counts. A check of 16 bits tells contexts apart. (Mahoney 2005, "Adaptive Weighing of Context Models
for Lossless Data Compression": PAQ's hash tables.)

While a model is trained, a slot has a check and a value of 32 bits::

    bits   0 .. 4    count of the decision 0, at most 31
           5 .. 9    count of the decision 1, at most 31
          10 .. 11   the last two decisions
          12 .. 25   the adaptive probability of the decision 1
          26 .. 31   number of its updates, at most 63

A slot of a text's own is one integer: the same value, and the check in the bits from 32 on.

A trained model keeps 24 bits of a slot: 11 bits of the check, and 13 bits of *counts*. The counts
are all that the mixer sees, also in training. They consist of the *state*, one of 242 (each count
in one of 11 levels, and the last decision), and of the probability, in 32 levels of its logit.

Needs no torch. Shapes: M slots.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8, UInt16, UInt32

from reviewgen.compiled import compiled, unmanaged
from reviewgen_mixing.history import MASK

LINE = 16  # number of slots in a line
PROBES = 4  # number of slots of a line in which a decision is looked for
MAX_COUNT = 31
MAX_UPDATES = 63
STATES = 242  # number of states: 11 levels of each of two counts, and two decisions
_LEVEL_OF_COUNT = [0, 1, 2, 3, 4, 5, 5, 6, 6, 6, 7, 7, 7, 7, 8, 8, 8, 8, 8, *[9] * 7, *[10] * 6]
LEVELS = np.array(_LEVEL_OF_COUNT)  # the level of each count from 0 to 31
# logits of the adaptive probability: 32 levels, evenly spaced between -LIMIT and LIMIT
LIMIT = 7.5
STRETCHED = np.linspace(-LIMIT, LIMIT, 32).astype(np.float32)
CHUNK = 1 << 22  # number of slots that are written or read at once
NEW = np.int64(1 << 25)  # the value of a slot without counts: a probability of one half
# the rate at which a probability changes, by the number of its updates so far
RATES = 1 / (np.arange(MAX_UPDATES + 1) + 1.5)
# the bit where the check of a slot begins, for each kind of slots; in training, the checks have an
# array of their own
IN_TRAINING = 0
PACKED = 13
OWN = 32


def _codes() -> UInt8[np.ndarray, " P"]:
    """Return for each probability of 12 bits the index of the nearest logit in ``STRETCHED``."""
    p = (np.arange(4096) + 0.5) / 4096
    return np.abs(np.log(p / (1 - p))[:, None] - STRETCHED).argmin(axis=1).astype(np.uint8)


CODES = _codes()


class Slots(NamedTuple):
    """The slots of a model: while it is trained, with checks; afterwards packed into 24 bits."""

    checks: UInt16[np.ndarray, " M"]  # empty if packed
    values: UInt32[np.ndarray, " M"]


@unmanaged
def line_of(hashed, slots):
    """Return the first slot of the line of a hash."""
    return ((hashed * (slots // LINE)) >> 32) * LINE


@unmanaged
def check_of(hashed, place):
    """Return the check of a decision, 16 bits, whose lowest three are its place in the block."""
    return ((hashed >> 8) & 0xFFF8) | place


@unmanaged
def slot_in(line, hashed, place, probe):
    """Return the slot where a decision is looked for at a probe from 0 to 3."""
    # exclusive or, so that the result is one of the 16 slots of the line
    return line + ((((hashed >> 3) & 15) ^ (2 * place)) ^ probe)


@unmanaged
def find(numbers, kind, line, hashed, place):
    """Return the slot of a decision; -1 if it has none. ``numbers``, (M,), hold the checks of the
    slots, each from the bit ``kind`` on: IN_TRAINING, PACKED or OWN. ``hashed`` is the hash that
    the check is made from, ``place`` the node's number within its block, from 1 to 7.
    """
    check = check_of(hashed, place)
    if kind == PACKED:
        check &= 0x7FF
    for probe in range(PROBES):
        slot = slot_in(line, hashed, place, probe)
        if np.int64(numbers[slot]) >> kind == check:
            return slot
    return -1


@unmanaged
def find_to_count(numbers, kind, values, line, hashed, place):
    """Return the slot in which a decision is to be counted, and its value. If the decision has no
    slot, it gets the one with the fewest counts of those where it is looked for, and a new value.
    """
    slot = find(numbers, kind, line, hashed, place)
    if slot >= 0:
        return slot, np.int64(values[slot]) & MASK
    slot = slot_in(line, hashed, place, 0)
    for probe in range(1, PROBES):
        other = slot_in(line, hashed, place, probe)
        if counted(np.int64(values[other])) < counted(np.int64(values[slot])):
            slot = other
    return slot, NEW


@unmanaged
def counted(value):
    """Return the number of decisions that a value has counted."""
    return (value & 31) + ((value >> 5) & 31)


@unmanaged
def counts_of(value):
    """Return the 13 bits of counts, the state and the level of the probability, of a value."""
    state = (LEVELS[value & 31] * 11 + LEVELS[(value >> 5) & 31]) * 2 + ((value >> 10) & 1)
    return (state << 5) | np.int64(CODES[(value >> 14) & 4095])


@unmanaged
def updated(value, bit, is_local):
    """Return a value after one more decision.

    In a text's own slot (``is_local``), about half of the counts of the other decision are
    forgotten if there are more than two, since a text changes (PAQ's nonstationary states).
    """
    shift = 5 * bit
    same = min(((value >> shift) & 31) + 1, MAX_COUNT)
    other = (value >> (5 - shift)) & 31
    if is_local and other > 2:
        other = (other + 3) // 2
    last_two = ((value >> 9) & 2) | bit  # the last two decisions
    p = (value >> 12) & 0x3FFF
    updates = value >> 26
    p += np.int64(np.round((0x3FFF * bit - p) * RATES[updates]))
    updates = min(updates + 1, MAX_UPDATES)
    counts = (same << shift) | (other << (5 - shift))
    return counts | (last_two << 10) | (p << 12) | (updates << 26)


@compiled
def pack(checks, values, min_count):
    """Pack the slots of a trained model in place: ``values`` become 24 bits. Slots with fewer
    counts than ``min_count`` are emptied.
    """
    for slot in range(len(values)):
        value = np.int64(values[slot])
        values[slot] = 0
        if counted(value) >= min_count:
            values[slot] = ((np.int64(checks[slot]) & 0x7FF) << PACKED) | counts_of(value)


def write_slots(values: UInt32[np.ndarray, " M"]) -> dict[str, np.ndarray]:
    """Return the packed slots as arrays to be saved: a bit for each slot, which is 1 if it is in
    use, and three bytes for each slot in use.
    """
    # in parts, to save memory: the slots in use are copied
    parts = [values[start : start + CHUNK] for start in range(0, len(values), CHUNK)]
    octets = np.empty((np.count_nonzero(values), 3), np.uint8)
    done = 0
    for part in parts:
        used = part[part > 0]
        octets[done : done + len(used)] = used.view(np.uint8).reshape(-1, 4)[:, :3]
        done += len(used)
    return {"used": np.concatenate([np.packbits(part > 0) for part in parts]), "slots": octets}


def states_of(slots: UInt8[np.ndarray, "N 3"]) -> UInt8[np.ndarray, " N"]:
    """Return the state of each saved slot, bits 5 to 12 of its 24."""
    return (slots[:, 0] >> 5) | (slots[:, 1] << 3)


def read_slots(
    used: UInt8[np.ndarray, " U"], slots: UInt8[np.ndarray, "N 3"]
) -> UInt32[np.ndarray, " M"]:
    """Return the packed slots that ``write_slots`` has saved."""
    values = np.zeros(8 * len(used), np.uint32)
    done = 0
    for start in range(0, len(values), CHUNK):
        is_used = np.unpackbits(used[start // 8 : (start + CHUNK) // 8]).astype(bool)
        octets = np.zeros((np.count_nonzero(is_used), 4), np.uint8)
        octets[:, :3] = slots[done : done + len(octets)]
        values[start : start + CHUNK][is_used] = octets.view(np.uint32)[:, 0]
        done += len(octets)
    return values
