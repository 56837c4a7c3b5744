"""Counts the distinct n-grams of a corpus, block by block, in sorted arrays.

From every token of a text starts one n-gram: the token and the n - 1 after it, fewer at the end. It is packed into words of
63 bits, each token + 1 in as many bits as the vocabulary needs, the first token highest, zeros after the end: sorted rows are
a trie read forwards. Where one word is too short, the first takes what the others leave. Blocks are sorted one by one and
merged in pairs of like size, as in a log-structured merge (O'Neil et al. 1996), so memory follows the number of distinct
n-grams, not the corpus. Knows nothing of probabilities.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, Integer

from reviewgen.compiled import compiled
from reviewgen_ngram.memory import Arena

__all__ = ["NgramCounter", "Packing", "Rows", "token_dtype"]

BLOCK_BYTES = 1 << 26  # of one block's rows, before sorting
DIGIT = 8  # bits that a radix sort looks at in one pass
MOST_PILES_BITS = 16  # of a first word that is short enough for one pile a value


@dataclass(frozen=True)
class Packing:
    """How an n-gram becomes W words: ``per_word`` tokens in each but the first, which has ``in_first``, in ``bits`` bits each."""

    bits: int
    per_word: int
    in_first: int
    words: int


@dataclass(frozen=True)
class Rows:
    """Distinct n-grams in sorted order, packed, and how often each occurs."""

    order: int
    packing: Packing
    packed: Int64[np.ndarray, "N W"]
    counts: Int64[np.ndarray, " N"]


def pack_for(vocab_size: int, order: int) -> Packing:
    """Return the packing of n-grams over V ids: V + 1 values a place, for zero says that the text has ended."""
    bits = vocab_size.bit_length()
    per_word = min(63 // bits, order)
    words = -(-order // per_word)
    return Packing(bits, per_word, order - (words - 1) * per_word, words)


def token_dtype(vocab_size: int) -> np.dtype:
    """Return the smallest type that holds every id and that torch and safetensors know."""
    if vocab_size <= 1 << 8:
        return np.dtype(np.uint8)
    return np.dtype(np.int16 if vocab_size <= 1 << 15 else np.int32)


class NgramCounter:
    """Takes texts one by one and keeps what it has seen as distinct n-grams."""

    def __init__(self, vocab_size: int, order: int, arena: Arena | None = None, block_bytes: int = BLOCK_BYTES) -> None:
        self.order, self.packing = order, pack_for(vocab_size, order)
        self._dtype = token_dtype(vocab_size)
        self._arena = arena or Arena()
        self._block_tokens = max(1, block_bytes // (8 * self.packing.words))
        self._pending: list[Integer[np.ndarray, " T"]] = []
        self._pending_tokens = 0
        self._blocks: list[tuple[np.ndarray, np.ndarray]] = []  # packed, counts; the largest first

    def add(self, ids: Integer[np.ndarray, " T"]) -> None:
        """Count one text that begins with bos; a bos inside it begins another text."""
        self._pending.append(ids.astype(self._dtype))
        self._pending_tokens += len(ids)
        if self._pending_tokens >= self._block_tokens:
            self._flush()

    def add_rows(self, packed: Int64[np.ndarray, "N W"], counts: Int64[np.ndarray, " N"]) -> None:
        """Count what another counter of the same vocabulary and order has taken."""
        self._blocks.append((packed, counts))
        self._merge(below=len(counts))

    def take(self) -> Rows:
        """Return everything counted so far and forget it."""
        self._flush()
        self._merge(below=None)
        empty = np.empty((0, self.packing.words), np.int64), np.empty(0, np.int64)
        packed, counts = self._blocks.pop() if self._blocks else empty
        return Rows(self.order, self.packing, packed, counts)

    def _flush(self) -> None:
        """Turn the pending texts into blocks; a text longer than a block is cut into several, none of its n-grams is."""
        if not self._pending:
            return
        ids = np.concatenate(self._pending)
        self._pending, self._pending_tokens = [], 0
        for start in range(0, len(ids), self._block_tokens):
            stop = min(start + self._block_tokens, len(ids))
            rows = np.empty((stop - start, self.packing.words), np.int64)
            _pack(ids, ids[0], start, stop, self.packing.bits, self.packing.per_word, self.packing.in_first, rows)
            packed = _sorted(rows, self.packing)
            counts = np.empty(len(packed), np.int64)
            kept = _distinct(packed, counts)
            self._blocks.append((packed[:kept].copy(), counts[:kept].copy()))
            self._merge(below=kept)

    def _merge(self, below: int | None) -> None:
        """Merge the newest block with the one before it while that is less than twice as large, or all of them."""
        while len(self._blocks) > 1 and (below is None or len(self._blocks[-2][1]) < 2 * len(self._blocks[-1][1])):
            (a, a_counts), (b, b_counts) = self._blocks[-2:]
            del self._blocks[-2:]
            size = _merge_rows(a, a_counts, b, b_counts, a[:0], a_counts[:0])
            packed, counts = self._arena.empty((size, self.packing.words), np.int64), self._arena.empty(size, np.int64)
            _merge_rows(a, a_counts, b, b_counts, packed, counts)
            self._blocks.append((packed, counts))


def _sorted(rows: Int64[np.ndarray, "N W"], packing: Packing) -> Int64[np.ndarray, "N W"]:
    """Return the rows in order: one word by numpy's vectorised sort, a second after a short first one so, others by radix."""
    short = packing.bits * packing.in_first
    if packing.words == 1:
        rows[:, 0].sort()
        return rows
    if packing.words > 2 or short > MOST_PILES_BITS:
        return _radix_sort(rows, np.empty_like(rows), packing.bits * packing.per_word)
    ends, seconds = np.zeros((1 << short) + 1, np.int64), np.empty(len(rows), np.int64)
    _deal(rows, ends, seconds)
    for pile in np.flatnonzero(np.diff(ends, prepend=0)).tolist():
        seconds[ends[pile - 1] if pile else 0 : ends[pile]].sort()
    _collect(ends, seconds, rows)
    return rows


@compiled
def _pack(ids, bos, start, stop, bits, per_word, in_first, rows):
    """Write the n-gram that starts at each of ids[start:stop] into its row, from right to left."""
    words = rows.shape[1]
    order = in_first + (words - 1) * per_word
    mask, first, later = (1 << bits) - 1, bits * (in_first - 1), bits * (per_word - 1)
    row = np.zeros(words, np.int64)
    for place in range(min(len(ids), stop + order) - 1, start - 1, -1):
        if place + 1 == len(ids) or ids[place + 1] == bos:
            row[:] = 0
        carried = np.int64(ids[place]) + 1
        for word in range(words):
            out = row[word] & mask
            row[word] = (row[word] >> bits) | (carried << (first if word == 0 else later))
            carried = out
        if place < stop:
            for word in range(words):
                rows[place - start, word] = row[word]


@compiled
def _deal(rows, ends, seconds):
    """Deal the second words into piles, one for each first word; ``ends`` becomes where each pile ends."""
    for i in range(len(rows)):
        ends[rows[i, 0] + 1] += 1
    for pile in range(1, len(ends)):
        ends[pile] += ends[pile - 1]
    for i in range(len(rows)):
        pile = rows[i, 0]
        seconds[ends[pile]] = rows[i, 1]
        ends[pile] += 1


@compiled
def _collect(ends, seconds, rows):
    """Write the piles back as rows."""
    place = 0
    for pile in range(len(ends)):
        while place < ends[pile]:
            rows[place, 0] = pile
            rows[place, 1] = seconds[place]
            place += 1


@compiled
def _radix_sort(rows, other, bits):
    """Sort rows of words of so many bits, the least significant digit first; ``other`` is room of the same size."""
    buckets = 1 << DIGIT
    for word in range(rows.shape[1] - 1, -1, -1):
        for shift in range(0, bits, DIGIT):
            starts = np.zeros(buckets + 1, np.int64)
            for i in range(len(rows)):
                starts[((rows[i, word] >> shift) & (buckets - 1)) + 1] += 1
            if starts.max() == len(rows):
                continue  # the digit is the same everywhere
            starts = np.cumsum(starts)
            for i in range(len(rows)):
                digit = (rows[i, word] >> shift) & (buckets - 1)
                at = starts[digit]
                starts[digit] += 1
                for column in range(rows.shape[1]):
                    other[at, column] = rows[i, column]
            rows, other = other, rows
    return rows


@compiled
def _distinct(rows, counts):
    """Keep one of each run of equal rows, at the front and in place, count the runs and return their number."""
    kept = 0
    for i in range(len(rows)):
        if kept > 0 and _order_of(rows, kept - 1, rows, i) == 0:
            counts[kept - 1] += 1
        else:
            rows[kept] = rows[i]
            counts[kept] = 1
            kept += 1
    return kept


@compiled
def _merge_rows(a, a_counts, b, b_counts, rows, counts):
    """Merge two sorted blocks of distinct rows, and return how many rows there are; without room it only counts them."""
    i, j, size, writes = 0, 0, 0, len(rows) > 0
    while i < len(a) or j < len(b):
        order = 1 if i == len(a) else -1 if j == len(b) else _order_of(a, i, b, j)
        if writes:
            counts[size] = (a_counts[i] if order <= 0 else 0) + (b_counts[j] if order >= 0 else 0)
            for word in range(a.shape[1]):
                rows[size, word] = a[i, word] if order <= 0 else b[j, word]
        i += order <= 0
        j += order >= 0
        size += 1
    return size


@compiled
def _order_of(a, i, b, j):
    for word in range(a.shape[1]):
        if a[i, word] != b[j, word]:
            return -1 if a[i, word] < b[j, word] else 1
    return 0
