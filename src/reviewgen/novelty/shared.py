"""The sets of the compact index from the hashes of windows that several processes have collected, each in a part of the text.

The sets are those of ``build_sets``, bit for bit. The windows are collected once at a stride that is probably as fine as that of
the sets, or finer, and only otherwise again.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import UInt64

from reviewgen.compiled.windows import WindowSet, empty_set, insert_windows, sample_stride
from reviewgen.novelty.compact import BITS_PER_WINDOW, choose_stride
from reviewgen.novelty.report import WINDOWS

_FINER = 2  # of the windows of a text, at least half are usually distinct


def first_stride(tokens: int, max_bytes: int) -> int:
    """Return the stride at which to collect the windows of a text first.

    Args:
        tokens: The length of the text, with bos and eos.
        max_bytes: The maximum size of the sets.
    """
    return max(1, min(sample_stride(tokens), choose_stride([tokens] * len(WINDOWS), max_bytes) // _FINER))


def count_collected(parts: Iterable[UInt64[np.ndarray, " _"]], tokens: int) -> int:
    """Return the number of distinct windows of a text, as ``count_windows`` does, from those of its parts.

    Args:
        parts: The hashes of the windows of one length of each part, at ``first_stride`` or a finer one.
        tokens: The length of the text, with bos and eos.
    """
    stride = sample_stride(tokens)
    samples = [part[part & np.uint64(stride - 1) == 0] for part in parts]
    return len(np.unique(np.concatenate([np.empty(0, np.uint64), *samples]))) * stride


def fill_sets(counts: Sequence[int], stride: int, parts: Iterable[Sequence[UInt64[np.ndarray, " _"]]]) -> tuple[WindowSet, ...]:
    """Return a set for each length of WINDOWS.

    Args:
        counts: The number of distinct windows of each length.
        stride: The stride of the sets.
        parts: The hashes of the windows of each part, one array for each length, at this stride or a finer one.
    """
    pairs = zip(WINDOWS, counts, strict=True)
    sets = tuple(empty_set(-(-count // stride), length, BITS_PER_WINDOW, stride) for length, count in pairs)
    for part in parts:
        for window_set, hashes in zip(sets, part, strict=True):
            insert_windows(window_set, hashes)
    return sets
