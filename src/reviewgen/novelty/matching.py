"""The compiled loops that find copied text: search in a suffix array, and lookup in sets of
windows.

A matching statistic (Chang & Lawler 1994) belongs to a position of a text. It is the length of the
longest match that starts there and occurs anywhere in the corpus.
"""

import numpy as np

from reviewgen.compiled.jit import compiled, inner
from reviewgen.compiled.windows import MULTIPLIER, hash_window, holds

# The status of a window.
UNKNOWN = 0  # the window cannot be looked up, for example because it extends beyond the text
SEEN = 1  # the window occurs in the corpus, or is a false positive
NEW = 2  # the window does not occur in the corpus


@compiled
def count_buckets(ids, base, depth):
    """Count the suffixes in each bucket of a suffix array. All suffixes of a bucket have the same
    first ``depth`` ids.

    The number of a suffix's bucket is written in base V + 1. It has ``depth`` digits: each is an id
    plus one, or 0 after the end of the corpus.

    Returns:
        0, then the size of each bucket: int64 (base ** depth + 1,).
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
    """Find the longest match from each position of a text in the corpus.

    There is a binary search for each position (Manber & Myers 1993).

    Args:
        ids: The corpus (N,).
        suffixes: The suffix array of the corpus (N,).
        starts: The index in ``suffixes`` where each bucket starts, the cumulative sum of
            ``count_buckets``.
        base: V + 1.
        depth: The number of first ids that are the same in all suffixes of a bucket.
        text: int64 (T,), ids of the vocabulary.
        limits: int64 (T,), for each position the largest index at which a match may end; there is
            no separator from the position up to this index.
        lengths: int64 (T,), filled in: the length of each match in tokens.
        positions: int64 (T,), filled in: where each match starts in the corpus.
    """
    for start in range(len(text)):
        end = limits[start]
        low, high, shared = _find_bucket(starts, base, depth, text, start, end)
        lengths[start] = shared
        positions[start] = suffixes[low] if shared else 0
        if shared < depth:  # no suffix has a longer match
            continue
        # how many first tokens the text shares with the suffixes just below and just above the
        # range that remains to be searched, from ``low`` to ``high``
        below = shared
        above = shared
        while low < high and start + lengths[start] < end:
            middle = (low + high) >> 1
            position = suffixes[middle]
            shared = min(below, above)  # all suffixes of the range share at least these tokens
            while (
                start + shared < end
                and position + shared < len(ids)
                and ids[position + shared] == text[start + shared]
            ):
                shared += 1
            if shared > lengths[start]:
                lengths[start] = shared
                positions[start] = position
            if start + shared == end:  # no longer match is allowed
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
    """Find the suffixes that share the longest prefix, of at most ``depth`` ids, with the text from
    ``start`` on.

    Return where their range starts and ends in the suffix array, and the length of the prefix.
    """
    low = 0
    high = 0
    key = 0
    width = base**depth
    shared = 0
    while shared < depth and start + shared < end:
        # the suffixes that share one more id are in ``width`` buckets, of which ``key`` is first
        width //= base
        key += (text[start + shared] + 1) * width
        if starts[key] == starts[key + width]:  # there are none
            break
        low = starts[key]
        high = starts[key + width]
        shared += 1
    return low, high, shared


@compiled
def look_up_windows(windows, text, limits, statuses):
    """Look up the window that starts at each position of a text.

    Its status, SEEN or NEW, is written to ``statuses``, uint8 (T,). The statuses of windows that
    cannot be looked up are left as they are.
    """
    for start in range(len(text)):
        if start + windows.length <= limits[start]:
            value = hash_window(text, start + windows.length - 1, windows.length)
            # only if the hash is a multiple of the stride, which is a power of two
            if not value & np.uint64(windows.stride - 1):
                statuses[start] = SEEN if holds(windows, value) else NEW


@compiled
def find_longest(statuses, lengths, limits):
    """Return the start and end index of the longest span that contains no new window of any length.

    No copied span contains a new window, so no copied span is longer.

    Args:
        statuses: uint8 (K, T), the status of each window, with one row for each window length.
        lengths: int64 (K,), the window lengths in tokens.
        limits: int64 (T,), as in ``match``.
    """
    best_start = 0
    best_end = 0
    start = 0
    for end in range(1, len(limits) + 1):
        if limits[end - 1] == end - 1:  # the last token is a separator
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
    """Mark which of the wanted windows of characters occur in some texts.

    An anchor is a shorter window. Only anchors that start at a multiple of length - anchor + 1
    characters of a text are looked up; each window contains one of them. Around an anchor that may
    occur in a wanted window, all windows are looked up, with a rolling hash (Karp & Rabin 1987).

    Args:
        codes: uint32 (N,), the code points of the texts, one text after another.
        ends: int64, the index where each text ends.
        length: The number of characters of a window.
        anchor: The number of characters of an anchor, at most ``length``.
        anchors: A ``WindowSet`` of all anchors in the wanted windows.
        hashes: uint64 (H,), the hashes of the wanted windows, sorted.
        windows: A ``WindowSet`` of ``hashes``.
        found: bool (H,); set to True for each wanted window that occurs.
    """
    powers = np.ones(length + 1, np.uint64)
    for exponent in range(1, length + 1):
        powers[exponent] = powers[exponent - 1] * MULTIPLIER
    oldest = powers[length]  # the factor of the character that leaves a window
    # Weights of the characters of an anchor. Its hash is a sum of products, not a rolling hash, so
    # that the compiler can use SIMD instructions.
    weights = powers[anchor - 1 :: -1].copy()
    start = 0
    for end in ends:
        for first in range(start, end - anchor + 1, length - anchor + 1):
            value = np.uint64(0)
            for offset in range(anchor):
                value += np.uint64(codes[first + offset]) * weights[offset]
            if holds(anchors, value):
                # the windows that contain the anchor lie between these positions
                low = max(start, first + anchor - length)
                high = min(end, first + length)
                _mark_windows(codes, low, high, length, oldest, hashes, windows, found)
        start = end


@inner
def _mark_windows(codes, low, high, length, oldest, hashes, windows, found):
    """Mark the wanted windows between two positions of one text, by a rolling hash."""
    value = np.uint64(0)
    for position in range(low, high):
        value = value * MULTIPLIER + np.uint64(codes[position])
        if position >= low + length:
            value -= oldest * np.uint64(codes[position - length])
        if position >= low + length - 1 and holds(windows, value):
            index = np.searchsorted(hashes, value)
            if index < len(hashes) and hashes[index] == value:
                found[index] = True
