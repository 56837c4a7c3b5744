"""The compiled loops of the index: search in a suffix array, and lookup in sets of windows. They
work on ids only.

A matching statistic (Chang & Lawler 1994) is the length of the longest match from one position of a
text, anywhere in the corpus.
"""

import numpy as np

from reviewgen.compiled.jit import compiled, inner
from reviewgen.compiled.windows import MULTIPLIER, hash_window, holds

UNKNOWN = 0  # the status of a window that is not looked up, as where the text is too short
SEEN = 1  # the status of a window that is found
NEW = 2  # the status of a window that is not found


@compiled
def count_buckets(ids, base, depth):
    """Return 0 and the size of each bucket of the suffix array, int64 (base ** depth + 1,):
    suffixes that share ``depth`` ids.

    The bucket of a suffix is the number in base V + 1 whose digits are its ids plus one; digits
    after the last id are 0.
    """
    counts = np.zeros(base**depth + 1, np.int64)
    for start in range(len(ids)):
        key = 0
        for position in range(start, start + depth):
            key = key * base + (ids[position] + 1 if position < len(ids) else 0)
        counts[key + 1] += 1
    return counts


@compiled
def match(ids, suffixes, starts, base, depth, text, limits, lengths, positions):
    """Fill in the longest match from each position of a text: its length in tokens, and its index
    in the corpus.

    A binary search for each position (Manber & Myers 1993).

    Args:
        ids: The corpus (N,).
        suffixes: Its suffix array (N,).
        starts: The start of each bucket, the sums of ``count_buckets``.
        base: V + 1.
        depth: The number of ids that suffixes of one bucket share.
        text: int64 (T,), ids of the vocabulary.
        limits: int64 (T,), the index at which a match must end at the latest; no separator comes
            before it.
        lengths: int64 (T,), filled in.
        positions: int64 (T,), filled in.
    """
    for start in range(len(text)):
        end = limits[start]
        low, high, shared = _find_bucket(starts, base, depth, text, start, end)
        lengths[start] = shared
        positions[start] = suffixes[low] if shared else 0
        if shared < depth:
            continue
        below = shared  # tokens shared with the suffix below the range that is still to search
        above = shared  # tokens shared with the suffix above it
        while low < high and start + lengths[start] < end:
            middle = (low + high) >> 1
            position = suffixes[middle]
            shared = min(below, above)
            while (
                start + shared < end
                and position + shared < len(ids)
                and ids[position + shared] == text[start + shared]
            ):
                shared += 1
            if shared > lengths[start]:
                lengths[start] = shared
                positions[start] = position
            if start + shared == end:
                break
            is_below = (
                position + shared == len(ids) or ids[position + shared] < text[start + shared]
            )
            if is_below:
                low = middle + 1
                below = shared
            else:
                high = middle
                above = shared


@inner
def _find_bucket(starts, base, depth, text, start, end):
    """Return the range of the suffixes that share the longest prefix with the text from ``start``
    on, and its length, at most ``depth``.
    """
    low = 0
    high = 0
    key = 0
    width = base**depth
    shared = 0
    while shared < depth and start + shared < end:
        width //= base
        key += (text[start + shared] + 1) * width
        if starts[key] == starts[key + width]:
            break
        low = starts[key]
        high = starts[key + width]
        shared += 1
    return low, high, shared


@compiled
def look_up_windows(windows, text, limits, statuses):
    """Fill in the status of the window that starts at each position of a text, uint8 (T,), where it
    is known.
    """
    for start in range(len(text)):
        if start + windows.length <= limits[start]:
            value = hash_window(text, start + windows.length - 1, windows.length)
            if not value & np.uint64(windows.stride - 1):
                statuses[start] = SEEN if holds(windows, value) else NEW


@compiled
def find_longest(statuses, lengths, limits):
    """Return the start and the end index of the longest span in which no window of any length is
    new.

    Every copied span is such a span, so none is longer.

    Args:
        statuses: uint8 (K, T), one row per window length.
        lengths: int64 (K,), tokens.
        limits: int64 (T,), as in ``match``.
    """
    best_start = 0
    best_end = 0
    start = 0
    for end in range(1, len(limits) + 1):
        if limits[end - 1] == end - 1:  # a separator
            start = end
        for row in range(len(lengths)):
            first = end - lengths[row]
            if first >= start and statuses[row, first] == NEW:
                start = first + 1
        if end - start > best_end - best_start:
            best_start = start
            best_end = end
    return best_start, best_end


@compiled
def find_windows(codes, ends, length, anchor, anchors, hashes, windows, found):
    """Mark the windows of characters that some texts contain.

    Each window has one of the anchors inside that start at a multiple of length - anchor + 1
    characters of a text. Around those that may occur, all windows are hashed, with a rolling hash
    (Karp & Rabin 1987).

    Args:
        codes: uint32 (N,), the characters of the texts, one text after another.
        ends: int64, where each text ends.
        length: The number of characters of a window.
        anchor: The number of characters of an anchor, at most ``length``.
        anchors: A ``WindowSet`` of all anchors of the windows to find.
        hashes: uint64 (H,), the hashes of these windows, sorted.
        windows: A ``WindowSet`` of ``hashes``.
        found: bool (H,), filled in.
    """
    powers = np.ones(length + 1, np.uint64)
    for place in range(1, length + 1):
        powers[place] = powers[place - 1] * MULTIPLIER
    oldest = powers[length]
    # of the characters of an anchor: a sum of products takes SIMD instructions
    weights = powers[anchor - 1 :: -1].copy()
    start = 0
    for end in ends:
        for first in range(start, end - anchor + 1, length - anchor + 1):
            value = np.uint64(0)
            for place in range(anchor):
                value += np.uint64(codes[first + place]) * weights[place]
            if holds(anchors, value):
                low = max(start, first + anchor - length)
                high = min(end, first + length)
                _mark_windows(codes, low, high, length, oldest, hashes, windows, found)
        start = end


@inner
def _mark_windows(codes, low, high, length, oldest, hashes, windows, found):
    """Mark the windows between two positions in one text."""
    value = np.uint64(0)
    for position in range(low, high):
        value = value * MULTIPLIER + np.uint64(codes[position])
        if position >= low + length:
            value -= oldest * np.uint64(codes[position - length])
        if position >= low + length - 1 and holds(windows, value):
            index = np.searchsorted(hashes, value)
            if index < len(hashes) and hashes[index] == value:
                found[index] = True
