"""Hashed sets of token windows: which runs of k tokens stand in a corpus, in some bits each.

A Bloom filter (Bloom 1970) whose bits for one window lie in one block of 512 (Putze, Sanders & Singler 2007): one visit to
memory a question. It never misses a window of the corpus; it takes a share of all others for one, the *false-positive rate*.
Only windows whose hash is a multiple of ``stride`` are held; of any other it can say nothing, and says *maybe*.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Integer, UInt64

from reviewgen.compiled import compiled

__all__ = [
    "NO_WINDOWS",
    "Tokens",
    "WindowSet",
    "build_windows",
    "copies",
    "count_windows",
    "cut",
    "false_positive_rate",
    "forbid",
    "hash_window",
    "holds",
]

BLOCK = 8  # words of 64 bits
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd: 2**64 over the golden ratio, Knuth's multiplicative hashing
PART = 1 << 14  # tokens hashed at a time
REGIONS, REGION_SHIFT, QUEUE = 64, np.uint64(58), 1 << 14  # of a set being built: a hash's first six bits say which
TRIALS = 200_000  # random hashes asked for the false-positive rate


Tokens: TypeAlias = Integer[np.ndarray, " N"] | Iterable[np.ndarray]
"""A stream of tokens, whole or in blocks that each end with a separator; what yields the blocks can do so again."""


class WindowSet(NamedTuple):
    """The windows of ``length`` tokens of a corpus. A numba-compiled function takes it as it is."""

    bits: UInt64[np.ndarray, " W"]
    length: int
    probes: int  # bits a window
    stride: int  # a power of two


NO_WINDOWS = WindowSet(np.zeros(BLOCK, np.uint64), 1, 1, 1)
"""An empty set, for compiled code that takes one either way."""


def build_windows(
    ids: Tokens,
    separators: tuple[int, int],
    length: int,
    bits_per_window: float,
    stride: int = 1,
    expected: int | None = None,
) -> WindowSet:
    """Return the set of all windows of a stream of tokens that contain no separator (bos, eos).

    Args:
        ids: The stream.
        separators: The ids of bos and eos.
        length: Tokens a window.
        bits_per_window: More bits, fewer false positives: 10 give about 1 %, 16 about 0.1 %.
        stride: A power of two; only one window in so many is held.
        expected: How many windows the set will hold, where the caller has counted them.

    >>> windows = build_windows(np.array([0, 5, 6, 7, 1]), (0, 1), length=2, bits_per_window=16)
    >>> copies(windows, np.array([9, 6, 7]), 2, 1), copies(windows, np.array([9, 6, 8]), 2, 1)
    (True, False)
    """
    windows = count_windows(ids, separators, length, stride) if expected is None else expected
    blocks = max(1, math.ceil(windows * bits_per_window / (64 * BLOCK)))
    probes = min(7, max(1, round(bits_per_window * math.log(2))))
    found = WindowSet(np.zeros(blocks * BLOCK, np.uint64), length, probes, stride)
    for block in cut(ids):
        _insert_all(found, block, *separators)
    return found


def count_windows(ids: Tokens, separators: tuple[int, int], length: int, stride: int = 1) -> int:
    """Return about how many distinct windows a set of the stream would hold; exact below 65,536 tokens."""
    tokens = sum(len(block) for block in cut(ids))
    thinner = max(stride, 1 << (tokens >> 16).bit_length())
    hashes = [_sample(block, *separators, length, thinner) for block in cut(ids)]
    return len(np.unique(np.concatenate(hashes))) * (thinner // stride) if hashes else 0


def cut(ids: Tokens) -> Iterable[np.ndarray]:
    """Return the blocks of a stream of tokens."""
    return [ids] if isinstance(ids, np.ndarray) else ids


def false_positive_rate(windows: WindowSet) -> float:
    """Return the share of windows outside the corpus that the set takes for one of its own, of those that it can judge."""
    random = np.random.default_rng(0).integers(0, 1 << 64, TRIALS, dtype=np.uint64)
    share: float = _share_held(windows, random * np.uint64(windows.stride))
    return share


@compiled
def hash_window(tokens, end, length):
    """Return the 64-bit hash of the ``length`` tokens that end at index ``end``, that one included."""
    value = np.uint64(0)
    for place in range(end - length + 1, end + 1):
        value = value * MULTIPLIER + np.uint64(tokens[place] + 1)
    return _mix(value)


@compiled
def holds(windows, value):
    """Return whether the window with this hash may stand in the corpus; true where the set can say nothing."""
    if value & np.uint64(windows.stride - 1):
        return True
    blocks = np.uint64(len(windows.bits) // BLOCK)
    start = np.int64(((value >> np.uint64(32)) * blocks) >> np.uint64(32)) * BLOCK
    fields = _mix(value ^ MULTIPLIER)
    for _ in range(windows.probes):
        place = np.int64(fields & np.uint64(511))
        if not (windows.bits[start + (place >> 6)] >> np.uint64(place & 63)) & np.uint64(1):
            return False
        fields >>= np.uint64(9)
    return True


@compiled
def copies(windows, tokens, end, run):
    """Return whether the last ``run`` windows that end at index ``end`` may all stand in the corpus.

    A span of length + run - 1 tokens can only be copied if so. Tokens before index 0 are in no window.
    """
    if end + 2 < windows.length + run:
        return False
    back = 0
    while back < run and holds(windows, hash_window(tokens, end - back, windows.length)):
        back += 1
    return back == run


@compiled
def forbid(windows, tokens, end, run, weights):
    """Set the weight (V,) of every token to zero that, at index ``end``, would make ``copies`` true."""
    length = windows.length
    if end + 2 < length + run:
        return
    for back in range(1, run):
        if not holds(windows, hash_window(tokens, end - back, length)):
            return
    begun = np.uint64(0)
    for place in range(end - length + 1, end):
        begun = begun * MULTIPLIER + np.uint64(tokens[place] + 1)
    for token in range(len(weights)):
        if weights[token] > 0 and holds(windows, _mix(begun * MULTIPLIER + np.uint64(token + 1))):
            weights[token] = 0.0


@compiled
def _mix(value):
    """Return the bits of a word well mixed: the finaliser of splitmix64 (Steele, Lea & Flood 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@compiled
def _hash_part(ids, first, last, bos, eos, length, stride, found):
    """Write to ``found`` the hashes of the windows that end in [first, last), and return how many they are.

    Windows with a separator are left out, and those whose hash is no multiple of ``stride``.
    """
    count, inside = 0, 0
    value, oldest = np.uint64(0), np.uint64(1)
    for _ in range(length):
        oldest *= MULTIPLIER
    for place in range(max(0, first - length + 1), last):
        if ids[place] == bos or ids[place] == eos:
            value, inside = np.uint64(0), 0
            continue
        value = value * MULTIPLIER + np.uint64(ids[place] + 1)
        if inside >= length:
            value -= oldest * np.uint64(ids[place - length] + 1)
        inside += 1
        if inside >= length:
            mixed = _mix(value)
            if not mixed & np.uint64(stride - 1):
                found[count] = mixed
                count += 1
    return count


@compiled
def _sample(ids, bos, eos, length, stride):
    """Return the hashes of all windows without a separator whose hash is a multiple of ``stride``."""
    found, part, total = np.empty(PART, np.uint64), np.empty(PART, np.uint64), 0
    for first in range(0, len(ids), PART):
        count = _hash_part(ids, first, min(first + PART, len(ids)), bos, eos, length, stride, part)
        if total + count > len(found):
            found = np.concatenate((found, np.empty(len(found), np.uint64)))
        found[total : total + count] = part[:count]
        total += count
    return found[:total]


@compiled
def _insert_all(windows, ids, bos, eos):
    """Insert every window of a stream; those for one region of memory wait until many are there, so that it stays in cache."""
    part, waiting, sizes = np.empty(PART, np.uint64), np.empty((REGIONS, QUEUE), np.uint64), np.zeros(REGIONS, np.int64)
    for first in range(0, len(ids), PART):
        count = _hash_part(ids, first, min(first + PART, len(ids)), bos, eos, windows.length, windows.stride, part)
        for value in part[:count]:
            region = np.int64(value >> REGION_SHIFT)
            waiting[region, sizes[region]] = value
            sizes[region] += 1
            if sizes[region] == QUEUE:
                _insert(windows, waiting[region])
                sizes[region] = 0
    for queue in range(REGIONS):
        _insert(windows, waiting[queue, : sizes[queue]])


@compiled
def _insert(windows, hashes):
    blocks = np.uint64(len(windows.bits) // BLOCK)
    for value in hashes:
        start = np.int64(((value >> np.uint64(32)) * blocks) >> np.uint64(32)) * BLOCK
        fields = _mix(value ^ MULTIPLIER)
        for _ in range(windows.probes):
            place = np.int64(fields & np.uint64(511))
            windows.bits[start + (place >> 6)] |= np.uint64(1) << np.uint64(place & 63)
            fields >>= np.uint64(9)


@compiled
def _share_held(windows, hashes):
    count = 0
    for value in hashes:
        count += holds(windows, value)
    return count / len(hashes)
