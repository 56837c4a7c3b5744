"""Hashed sets of token windows: which runs of k tokens occur in a corpus, in a few bits each.

A Bloom filter (Bloom 1970) whose bits for one window are in one block of 512 (Putze, Sanders &
Singler 2007), so that a lookup is one memory access. It has no false negatives; the share of other
windows that it reports is the *false-positive rate*. Only windows whose hash is a multiple of
``stride`` are stored; any other window is reported as if it occurred.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Integer, UInt64

from reviewgen.compiled.jit import compiled, inner

BLOCK = 8  # words of 64 bits
# odd: 2**64 over the golden ratio, Knuth's multiplicative hashing
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
PART = 1 << 14  # tokens hashed at a time
REGIONS = 64  # of memory, by which hashes are queued while building
REGION_SHIFT = np.uint64(58)  # leaves the first six bits of a hash, which select its region
QUEUE = 1 << 14  # hashes that wait for one region, at most
TRIALS = 200_000  # random hashes looked up to measure the false-positive rate

Tokens: TypeAlias = Integer[np.ndarray, " N"] | Iterable[np.ndarray]
"""A stream of tokens, whole or in blocks that each end with a separator; the blocks can be iterated
more than once.
"""


class WindowSet(NamedTuple):
    """The windows of ``length`` tokens of a corpus. Compiled functions take it as it is."""

    bits: UInt64[np.ndarray, " W"]
    length: int
    probes: int  # bits set by a window
    stride: int  # a power of two; windows whose hash is a multiple of it are stored


NO_WINDOWS = WindowSet(np.zeros(BLOCK, np.uint64), 1, 1, 1)
"""An empty set, for compiled code that needs an argument of this type."""


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
        length: Number of tokens of a window.
        bits_per_window: More bits give fewer false positives: 10 about 1 %, 16 about 0.1 %.
        stride: A power of two; one window in ``stride`` is stored.
        expected: Number of windows that the set will have, if the caller has counted them.

    >>> windows = build_windows(np.array([0, 5, 6, 7, 1]), (0, 1), length=2, bits_per_window=16)
    >>> copies(windows, np.array([9, 6, 7]), 2, 1), copies(windows, np.array([9, 6, 8]), 2, 1)
    (True, False)
    """
    windows = count_windows(ids, separators, length, stride) if expected is None else expected
    window_set = empty_set(windows, length, bits_per_window, stride)
    for block in cut(ids):
        _insert_all(window_set, block, *separators)
    return window_set


def empty_set(windows: int, length: int, bits_per_window: float, stride: int = 1) -> WindowSet:
    """Return a set with room for a number of windows; see ``build_windows``."""
    blocks = count_blocks(windows, bits_per_window)
    probes = min(7, max(1, round(bits_per_window * math.log(2))))
    return WindowSet(np.zeros(blocks * BLOCK, np.uint64), length, probes, stride)


def count_blocks(windows: int, bits_per_window: float) -> int:
    """Return the number of blocks of 512 bits of a set with room for a number of windows."""
    return max(1, math.ceil(windows * bits_per_window / (64 * BLOCK)))


def count_windows(ids: Tokens, separators: tuple[int, int], length: int, stride: int = 1) -> int:
    """Return the number of distinct windows that a set of the stream would store; an estimate from
    65,536 tokens on.
    """
    thinner = max(stride, thin_for_counting(sum(len(block) for block in cut(ids))))
    return len(np.unique(sample_windows(ids, separators, length, thinner))) * (thinner // stride)


def thin_for_counting(tokens: int) -> int:
    """Return the stride of a sample that is large enough to estimate the number of windows of a
    stream.
    """
    return 1 << (tokens >> 16).bit_length()


def sample_windows(
    ids: Tokens, separators: tuple[int, int], length: int, stride: int
) -> UInt64[np.ndarray, " W"]:
    """Return the hashes of the windows of a stream that a set of this stride stores."""
    sampled = [np.empty(0, np.uint64)]
    hashes = np.empty(PART, np.uint64)
    for block in cut(ids):
        for first in range(0, len(block), PART):
            count = _hash_part(
                block, first, min(first + PART, len(block)), *separators, length, stride, hashes
            )
            sampled.append(hashes[:count].copy())
    return np.concatenate(sampled)


def cut(ids: Tokens) -> Iterable[np.ndarray]:
    """Return the blocks of a stream of tokens."""
    return [ids] if isinstance(ids, np.ndarray) else ids


def false_positive_rate(windows: WindowSet) -> float:
    """Return the share of random windows whose hash is a multiple of the stride that the set
    wrongly contains.
    """
    random = np.random.default_rng(0).integers(0, 1 << 64, TRIALS, dtype=np.uint64)
    share: float = _share_contained(windows, random * np.uint64(windows.stride))
    return share


@compiled
def hash_window(tokens, end, length):
    """Return the 64-bit hash of the ``length`` tokens up to index ``end``, inclusive."""
    value = np.uint64(0)
    for position in range(end - length + 1, end + 1):
        value = value * MULTIPLIER + np.uint64(tokens[position] + 1)
    return _mix(value)


@compiled
def holds(windows, value):
    """Return whether the window with this hash may occur in the corpus; true if its hash is not a
    multiple of the stride.
    """
    if value & np.uint64(windows.stride - 1):
        return True
    blocks = np.uint64(len(windows.bits) // BLOCK)
    start = np.int64(((value >> np.uint64(32)) * blocks) >> np.uint64(32)) * BLOCK
    fields = _mix(value ^ MULTIPLIER)
    for _ in range(windows.probes):
        bit = np.int64(fields & np.uint64(511))
        if not (windows.bits[start + (bit >> 6)] >> np.uint64(bit & 63)) & np.uint64(1):
            return False
        fields >>= np.uint64(9)
    return True


@compiled
def copies(windows, tokens, end, run):
    """Return whether the last ``run`` windows up to index ``end`` may all occur in the corpus.

    Only then can the last length + run - 1 tokens be copied. Windows do not extend before index 0.
    """
    if end + 2 < windows.length + run:
        return False
    back = 0
    while back < run and holds(windows, hash_window(tokens, end - back, windows.length)):
        back += 1
    return back == run


@compiled
def forbid(windows, tokens, end, run, probs):
    """Set the probability, in ``probs`` (V,), of each token that at index ``end`` would make
    ``copies`` true to zero.
    """
    length = windows.length
    if end + 2 < length + run:
        return
    for back in range(1, run):
        if not holds(windows, hash_window(tokens, end - back, length)):
            return
    prefix = np.uint64(0)
    for position in range(end - length + 1, end):
        prefix = prefix * MULTIPLIER + np.uint64(tokens[position] + 1)
    for token in range(len(probs)):
        if probs[token] > 0 and holds(windows, _mix(prefix * MULTIPLIER + np.uint64(token + 1))):
            probs[token] = 0.0


@inner
def _mix(value):
    """Return a 64-bit hash of a word: the finaliser of splitmix64 (Steele, Lea & Flood 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@compiled
def _hash_part(ids, first, last, bos, eos, length, stride, hashes):
    """Write the hashes of the windows that end in [first, last) to ``hashes``, and return their
    number.

    Windows with a separator, and those whose hash is not a multiple of ``stride``, are left out.
    """
    count = 0
    inside = 0
    value = np.uint64(0)
    oldest = np.uint64(1)
    for _ in range(length):
        oldest *= MULTIPLIER
    for position in range(max(0, first - length + 1), last):
        if ids[position] == bos or ids[position] == eos:
            value = np.uint64(0)
            inside = 0
            continue
        value = value * MULTIPLIER + np.uint64(ids[position] + 1)
        if inside >= length:
            value -= oldest * np.uint64(ids[position - length] + 1)
        inside += 1
        if inside >= length:
            mixed = _mix(value)
            if not mixed & np.uint64(stride - 1):
                hashes[count] = mixed
                count += 1
    return count


@compiled
def _insert_all(windows, ids, bos, eos):
    """Insert every window of a stream; hashes are queued by region of memory and inserted together,
    so that it stays in cache.
    """
    part = np.empty(PART, np.uint64)
    waiting = np.empty((REGIONS, QUEUE), np.uint64)
    sizes = np.zeros(REGIONS, np.int64)
    for first in range(0, len(ids), PART):
        count = _hash_part(
            ids, first, min(first + PART, len(ids)), bos, eos, windows.length, windows.stride, part
        )
        for value in part[:count]:
            region = np.int64(value >> REGION_SHIFT)
            waiting[region, sizes[region]] = value
            sizes[region] += 1
            if sizes[region] == QUEUE:
                insert(windows, waiting[region])
                sizes[region] = 0
    for queue in range(REGIONS):
        insert(windows, waiting[queue, : sizes[queue]])


@compiled
def insert(windows, hashes):
    """Insert windows, given their hashes."""
    blocks = np.uint64(len(windows.bits) // BLOCK)
    for value in hashes:
        start = np.int64(((value >> np.uint64(32)) * blocks) >> np.uint64(32)) * BLOCK
        fields = _mix(value ^ MULTIPLIER)
        for _ in range(windows.probes):
            bit = np.int64(fields & np.uint64(511))
            windows.bits[start + (bit >> 6)] |= np.uint64(1) << np.uint64(bit & 63)
            fields >>= np.uint64(9)


@compiled
def _share_contained(windows, hashes):
    count = 0
    for value in hashes:
        count += holds(windows, value)
    return count / len(hashes)
