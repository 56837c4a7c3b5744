"""Sets of the windows of a corpus: which sequences of k tokens occur in it, in a few bits each.

A set is a Bloom filter (Bloom 1970). All bits of one window are in one block of 512 bits (Putze,
Sanders & Singler 2007), so a lookup is one memory access. The filter has no false negatives. Its
*false-positive rate* is the share of windows outside the corpus that it reports as present. Only
windows whose hash is a multiple of ``stride`` are stored; all others are reported as present.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Integer, UInt64

from reviewgen.compiled.jit import compiled, inner

BLOCK = 8  # number of words of 64 bits in a block
# factor of Knuth's multiplicative hashing: 2**64 divided by the golden ratio, rounded to odd
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
PART = 1 << 14  # number of tokens hashed at a time
REGIONS = 64  # number of memory regions of a set; while it is built, hashes are queued by region
REGION_SHIFT = np.uint64(58)  # leaves the highest six bits of a hash, the number of its region
QUEUE = 1 << 14  # max hashes in the queue of one region
TRIALS = 200_000  # number of random hashes looked up to measure the false-positive rate

Tokens: TypeAlias = Integer[np.ndarray, " N"] | Iterable[np.ndarray]
"""A stream of tokens: one array, or an iterable of blocks.

Each block ends with a separator. The iterable can be iterated more than once.
"""


class WindowSet(NamedTuple):
    """The set of the windows of ``length`` tokens of a corpus; compiled functions accept it."""

    bits: UInt64[np.ndarray, " W"]
    length: int
    probes: int  # number of bits that a window sets
    stride: int  # a power of two; only windows whose hash is a multiple of it are stored


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
        bits_per_window: More bits give fewer false positives: 10 bits about 1 %, 16 about 0.1 %.
        stride: A power of two; about one window in ``stride`` is stored.
        expected: Number of windows that the set will hold; None: they are counted first.

    >>> windows = build_windows(np.array([0, 5, 6, 7, 1]), (0, 1), length=2, bits_per_window=16)
    >>> copies(windows, np.array([9, 6, 7]), 2, 1), copies(windows, np.array([9, 6, 8]), 2, 1)
    (True, False)
    """
    if expected is None:
        expected = count_windows(ids, separators, length, stride)
    window_set = empty_set(expected, length, bits_per_window, stride)
    for block in cut(ids):
        _insert_all(window_set, block, *separators)
    return window_set


def empty_set(windows: int, length: int, bits_per_window: float, stride: int = 1) -> WindowSet:
    """Return an empty set that is large enough for ``windows`` windows; see ``build_windows``."""
    blocks = count_blocks(windows, bits_per_window)
    # the number that is best for a Bloom filter, but at most 7, since each probe takes nine of the
    # 64 bits of a hash
    probes = min(7, max(1, round(bits_per_window * math.log(2))))
    return WindowSet(np.zeros(blocks * BLOCK, np.uint64), length, probes, stride)


def count_blocks(windows: int, bits_per_window: float) -> int:
    """Return the number of blocks of 512 bits that a set for ``windows`` windows needs."""
    return max(1, math.ceil(windows * bits_per_window / (64 * BLOCK)))


def count_windows(ids: Tokens, separators: tuple[int, int], length: int, stride: int = 1) -> int:
    """Return the number of distinct windows that a set of the stream would store.

    For a stream of 65,536 or more tokens it is an estimate from a sample.
    """
    tokens = sum(map(len, cut(ids)))
    sample_stride = max(stride, thin_for_counting(tokens))
    sampled = sample_windows(ids, separators, length, sample_stride)
    # with ``stride``, a set stores this many times as many windows as with ``sample_stride``
    return len(np.unique(sampled)) * (sample_stride // stride)


def thin_for_counting(tokens: int) -> int:
    """Return the stride with which a stream of ``tokens`` tokens is sampled to estimate its number
    of windows.
    """
    return 1 << (tokens >> 16).bit_length()


def sample_windows(
    ids: Tokens, separators: tuple[int, int], length: int, stride: int
) -> UInt64[np.ndarray, " W"]:
    """Return the hashes of those windows of a stream that a set with this stride stores. A window
    that occurs several times has as many hashes.
    """
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
    """Return the blocks of a stream of tokens; a stream that is one array is one block."""
    return [ids] if isinstance(ids, np.ndarray) else ids


def false_positive_rate(windows: WindowSet) -> float:
    """Measure the false-positive rate of a set, by looking up random hashes.

    Only hashes that are multiples of the stride are tried, since all others count as present.
    """
    random = np.random.default_rng(0).integers(0, 1 << 64, TRIALS, dtype=np.uint64)
    share: float = _share_contained(windows, random * np.uint64(windows.stride))
    return share


@compiled
def hash_window(tokens, end, length):
    """Return the 64-bit hash of the ``length`` tokens that end at index ``end``, inclusive."""
    value = np.uint64(0)
    for position in range(end - length + 1, end + 1):
        value = value * MULTIPLIER + np.uint64(tokens[position] + 1)
    return _mix(value)


@compiled
def holds(windows, value):
    """Return whether the window with this hash may occur in the corpus.

    The result is always true for a hash that is not a multiple of the stride.
    """
    if value & np.uint64(windows.stride - 1):
        return True
    blocks = np.uint64(len(windows.bits) // BLOCK)
    # the higher half of the hash selects the block; a second hash selects the bits of the block,
    # nine of its own bits for each
    start = np.int64(((value >> np.uint64(32)) * blocks) >> np.uint64(32)) * BLOCK
    bit_numbers = _mix(value ^ MULTIPLIER)
    for _ in range(windows.probes):
        bit = np.int64(bit_numbers & np.uint64(511))
        if not (windows.bits[start + (bit >> 6)] >> np.uint64(bit & 63)) & np.uint64(1):
            return False
        bit_numbers >>= np.uint64(9)
    return True


@compiled
def copies(windows, tokens, end, run):
    """Return whether the ``run`` consecutive windows that end at index ``end`` may all be in the
    corpus.

    If one of them is not, the last length + run - 1 tokens are not copied from the corpus. If there
    are fewer tokens than that, the result is false.
    """
    if end + 2 < windows.length + run:  # there are end + 1 tokens, fewer than length + run - 1
        return False
    back = 0  # number of last windows that may be in the corpus
    while back < run and holds(windows, hash_window(tokens, end - back, windows.length)):
        back += 1
    return back == run


@compiled
def forbid(windows, tokens, end, run, probs):
    """Set the probability of each token that would complete a copied span at ``end`` to zero.

    ``copies`` would be true with such a token at index ``end``. ``probs`` (V,) is updated.
    """
    length = windows.length
    if end + 2 < length + run:  # too few tokens, as in ``copies``
        return
    # the run - 1 windows that end before ``end`` must be in the corpus, too
    for back in range(1, run):
        if not holds(windows, hash_window(tokens, end - back, length)):
            return
    prefix = np.uint64(0)  # hash of the window that ends at ``end``, without its last token
    for position in range(end - length + 1, end):
        prefix = prefix * MULTIPLIER + np.uint64(tokens[position] + 1)
    for token in range(len(probs)):
        if probs[token] > 0 and holds(windows, _mix(prefix * MULTIPLIER + np.uint64(token + 1))):
            probs[token] = 0.0


@inner
def _mix(value):
    """Return the hash of a 64-bit word: the finaliser of splitmix64 (Steele, Lea & Flood 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@compiled
def _hash_part(ids, first, last, bos, eos, length, stride, hashes):
    """Write to ``hashes`` the hashes of the windows whose last token is in [first, last), and
    return their number.

    Windows that contain a separator are left out, and so are hashes that are not multiples of
    ``stride``.
    """
    count = 0
    inside = 0  # number of tokens since the last separator
    value = np.uint64(0)  # hash of these tokens, at most the last ``length``
    # the factor that the token before the window has in ``value``; it is subtracted
    oldest_factor = np.uint64(1)
    for _ in range(length):
        oldest_factor *= MULTIPLIER
    # the first of these windows may begin before ``first``
    for position in range(max(0, first - length + 1), last):
        if ids[position] == bos or ids[position] == eos:
            value = np.uint64(0)
            inside = 0
            continue
        value = value * MULTIPLIER + np.uint64(ids[position] + 1)
        if inside >= length:
            value -= oldest_factor * np.uint64(ids[position - length] + 1)
        inside += 1
        if inside >= length:
            mixed = _mix(value)
            if not mixed & np.uint64(stride - 1):
                hashes[count] = mixed
                count += 1
    return count


@compiled
def _insert_all(windows, ids, bos, eos):
    """Insert every window of a stream.

    Hashes are queued by the region of memory that they fall into. A full queue is inserted at once,
    so that its region stays in the processor's cache.
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
    """Insert the windows with these hashes; ``holds`` finds the same bits."""
    blocks = np.uint64(len(windows.bits) // BLOCK)
    for value in hashes:
        start = np.int64(((value >> np.uint64(32)) * blocks) >> np.uint64(32)) * BLOCK
        bit_numbers = _mix(value ^ MULTIPLIER)
        for _ in range(windows.probes):
            bit = np.int64(bit_numbers & np.uint64(511))
            windows.bits[start + (bit >> 6)] |= np.uint64(1) << np.uint64(bit & 63)
            bit_numbers >>= np.uint64(9)


@compiled
def _share_contained(windows, hashes):
    """Return the share of these hashes that a set reports as present."""
    count = 0
    for value in hashes:
        if holds(windows, value):
            count += 1
    return count / len(hashes)
