"""The compiled loops of the index: search in a suffix array, and the verdicts of sets of windows. Neither knows a text.

A matching statistic (Chang & Lawler 1994) is the length of the longest match, at one place of a text, anywhere in the corpus.
"""

import numpy as np

from reviewgen.compiled import compiled
from reviewgen.compiled.windows import hash_window, holds

__all__ = ["NEW", "NONE", "SEEN", "UNKNOWN", "count_buckets", "find_longest", "judge", "match"]

NONE, UNKNOWN, SEEN, NEW = 0, 1, 2, 3  # what a set says of the window that starts at a place


@compiled
def count_buckets(ids, base, depth):
    """Return where in the suffix array the suffixes begin that share their first ``depth`` ids, int64 (base ** depth + 1,).

    The bucket of a suffix is the number in base V + 1 whose digits are its ids plus one; 0 stands behind the last id.
    """
    top = base ** (depth - 1)
    starts = np.zeros(base**depth + 1, np.int64)
    key = 0
    for end in range(len(ids) + depth - 1):
        if end >= depth:
            key -= (ids[end - depth] + 1) * top
        key *= base
        if end < len(ids):
            key += ids[end] + 1
        if end >= depth - 1:
            starts[key + 1] += 1
    for bucket in range(base**depth):
        starts[bucket + 1] += starts[bucket]
    return starts


@compiled
def match(ids, suffixes, starts, base, depth, text, reach, lengths, places):
    """Write the longest match of each place of a text: its length in tokens, and where in the corpus it stands.

    All binary searches (Manber & Myers 1993) go one step at a time, side by side: memory answers many questions at once.

    Args:
        ids: The corpus (N,).
        suffixes: Its suffix array (N,).
        starts: Its buckets, of ``count_buckets``.
        text: int64 (T,), ids of the vocabulary.
        reach: int64 (T,), where a match must end at the latest. No separator stands before it.
        lengths: int64 (T,), to write to.
        places: int64 (T,), to write to.
    """
    low, high = np.zeros(len(text), np.int64), np.zeros(len(text), np.int64)  # the range of the suffix array left to search
    below, above = np.zeros(len(text), np.int64), np.zeros(len(text), np.int64)  # tokens that the text shares with its ends
    open_places, middles = np.empty(len(text), np.int64), np.empty(len(text), np.int64)
    heads = np.empty(len(text), np.int64)  # the first id of the corpus to compare, -1 behind its end
    count = 0
    for i in range(len(text)):
        shared = _find_bucket(suffixes, starts, base, depth, text, reach, i, low, high)
        lengths[i], below[i], above[i] = shared, shared, shared
        places[i] = suffixes[low[i]] if shared else 0
        if shared == depth and shared < reach[i] - i:
            open_places[count] = i
            count += 1
    while count:
        for k in range(count):
            middles[k] = suffixes[(low[open_places[k]] + high[open_places[k]]) >> 1]
        for k in range(count):
            place = middles[k] + min(below[open_places[k]], above[open_places[k]])
            heads[k] = ids[place] if place < len(ids) else -1
        left = 0
        for k in range(count):
            i, place, head, end = open_places[k], middles[k], heads[k], reach[open_places[k]]
            shared = min(below[i], above[i])
            while i + shared < end and head == text[i + shared]:
                shared += 1
                head = ids[place + shared] if place + shared < len(ids) else -1
            if shared > lengths[i]:
                lengths[i], places[i] = shared, place
            if i + shared == end:
                continue
            middle = (low[i] + high[i]) >> 1
            if head < text[i + shared]:
                low[i], below[i] = middle + 1, shared
            else:
                high[i], above[i] = middle, shared
            if low[i] < high[i]:
                open_places[left] = i
                left += 1
        count = left


@compiled
def _find_bucket(suffixes, starts, base, depth, text, reach, i, low, high):
    """Write the suffixes that share most tokens with a place of a text, up to ``depth``, and return how many they share."""
    key, width, shared = 0, base**depth, 0
    while shared < depth and i + shared < reach[i]:
        width //= base
        key += (text[i + shared] + 1) * width
        if starts[key] == starts[key + width]:
            break
        low[i], high[i] = starts[key], starts[key + width]
        shared += 1
    return shared


@compiled
def judge(windows, text, reach, verdicts):
    """Write what a set says of the window that starts at each place of a text, uint8 (T,)."""
    for start in range(len(text)):
        end = start + windows.length
        if end > reach[start]:
            verdicts[start] = NONE
            continue
        value = hash_window(text, end - 1, windows.length)
        if value & np.uint64(windows.stride - 1):
            verdicts[start] = UNKNOWN
        else:
            verdicts[start] = SEEN if holds(windows, value) else NEW


@compiled
def find_longest(verdicts, lengths, reach):
    """Return the first and the end place of the longest span in which no window of any length is new.

    A copied span is such a span, so none is longer.

    Args:
        verdicts: uint8 (K, T), a row for each window length.
        lengths: int64 (K,), tokens.
        reach: int64 (T,), as in ``match``.
    """
    best_start, best_end, start = 0, 0, 0
    for end in range(1, len(reach) + 1):
        if reach[end - 1] == end - 1:  # a separator
            start = end
        for row in range(len(lengths)):
            first = end - lengths[row]
            if first >= start and verdicts[row, first] == NEW:
                start = first + 1
        if end - start > best_end - best_start:
            best_start, best_end = start, end
    return best_start, best_end
