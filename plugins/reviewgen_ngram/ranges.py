"""The exchange of counts between processes: each ends with all counts of a range of first tokens, and of no others.

A range consists of whole first tokens, so no n-gram has a prefix in two ranges. The ranges follow one another in the order of the
ranks. Each process sends its sorted rows in pieces, so it holds its own rows and those of its range at most.
"""

from itertools import pairwise

import numpy as np
from jaxtyping import Int64, Shaped

from reviewgen.compiled import compiled
from reviewgen.protocols import CountGroup
from reviewgen_ngram.counts import NgramCounter, Rows
from reviewgen_ngram.memory import Arena

PIECE_BYTES = 1 << 25  # of the rows that a process sends at a time


class Alone:
    """The group of one process, which has nothing to exchange."""

    rank, world_size = 0, 1

    def all_gather(self, numbers: Int64[np.ndarray, " N"]) -> Int64[np.ndarray, "P N"]:
        """Return the numbers."""
        return numbers[None]

    def all_to_all(self, parts: list[Shaped[np.ndarray, "..."]]) -> list[Shaped[np.ndarray, "..."]]:
        """Return the parts."""
        return list(parts)

    def all_gather_into(self, whole: Shaped[np.ndarray, " N"], part: Shaped[np.ndarray, " M"]) -> None:
        """Copy the part, unless it is in its place."""
        if not np.may_share_memory(whole, part):
            whole[:] = part

    def gather_into(self, whole: Shaped[np.ndarray, " N"], part: Shaped[np.ndarray, " M"]) -> None:
        """Copy the part, unless it is in its place."""
        self.all_gather_into(whole, part)

    def reduce_scatter(self, array: Shaped[np.ndarray, " N"], sizes: Int64[np.ndarray, " P"]) -> None:
        """Leave the only summand as it is."""


def exchange(counter: NgramCounter, vocab_size: int, arena: Arena, group: CountGroup) -> Rows:
    """Return the counts of this process's range, from all processes; ``counter`` is empty afterwards."""
    rows = counter.take()
    if group.world_size == 1:
        return rows
    edges = _cut(rows, vocab_size, group)
    sizes = group.all_gather(np.diff(edges))  # (P, P): the rows from each rank to each
    received = [
        (arena.empty((size, rows.packing.words), np.int64), arena.empty(size, np.int64)) for size in sizes[:, group.rank].tolist()
    ]
    step = max(1, PIECE_BYTES // (8 * (rows.packing.words + 1) * group.world_size))
    for start in range(0, int(sizes.max()), step):
        pieces = [_piece(rows, low + start, min(high, low + start + step)) for low, high in pairwise(edges)]
        for (packed, counts), piece in zip(received, group.all_to_all(pieces), strict=True):
            packed[start : start + len(piece)] = piece[:, :-1]
            counts[start : start + len(piece)] = piece[:, -1]
        arena.release(rows.packed, rows.counts, *(array for pair in received for array in pair))
    del rows
    while received:
        counter.add_rows(*received.pop())
    return counter.take()


def _cut(rows: Rows, vocab_size: int, group: CountGroup) -> list[int]:
    """Return the first row of each rank's range, and the number of rows; the ranges have about equally many in all processes."""
    if rows.order == 1:  # the first token is the whole n-gram, whose probability depends on all others
        return [0, *[len(rows.counts)] * group.world_size]
    first = np.full(vocab_size + 1, len(rows.counts))
    _first_rows(rows.packed, rows.packing.bits * (rows.packing.in_first - 1), first)
    sizes = group.all_gather(np.diff(first)).sum(0)  # (V,), of all processes
    middles = 2 * sizes.cumsum() - sizes  # twice the rows before the middle of each first token's
    tokens = np.searchsorted(middles, 2 * sizes.sum() * np.arange(1, group.world_size) // group.world_size, side="right")
    return [0, *first[tokens].tolist(), len(rows.counts)]


@compiled
def _first_rows(packed, shift, first):
    """Write the first row of each first token; a token that does not occur has that of the next one."""
    low = 0
    for token in range(len(first) - 1):
        high = len(packed)
        while low < high:
            middle = (low + high) >> 1
            if packed[middle, 0] >> shift <= token:
                low = middle + 1
            else:
                high = middle
        first[token] = low


def _piece(rows: Rows, low: int, high: int) -> Int64[np.ndarray, "N C"]:
    """Return some rows and their counts, the last column, as one array."""
    return np.concatenate((rows.packed[low : max(low, high)], rows.counts[low : max(low, high), None]), axis=1)
