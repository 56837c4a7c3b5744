"""Counts the distinct n-grams of a corpus, block by block, in sorted arrays.

One n-gram starts at every token of a text. It consists of that token and the n - 1 tokens after it,
or fewer at the end of the text.

Each n-gram is packed into a row of one or more machine words, of which 63 bits are used. A token id
plus one takes as many bits as the vocabulary needs. The first token has the highest bits, and zeros
follow the end of the text. Sorted rows are therefore in the order of the nodes of a trie. If a row
has several words, all but the first hold as many tokens as fit; the first holds the rest.

The corpus is counted in blocks. Each block is sorted, and blocks of similar size are merged in
pairs, as in a log-structured merge (O'Neil et al. 1996). So the memory depends on the number of
distinct n-grams, not on the size of the corpus.

Several processes exchange their counts. Then each process has all n-grams whose first token lies in
its range of ids. The ranges ascend with the ranks. All n-grams with the same first token are in the
same process, so no prefix is counted in two processes. Rows are sent in small pieces, so a process
holds at most the rows that it has counted and those of its range.

To drop n-grams that occur in fewer than K texts, each row also has the numbers of up to K of its
texts. If a set of texts is not full, it is complete. So it is known of any union of such sets
whether it has K texts. Must not know probabilities.
"""

import mmap
import os
import tempfile
from bisect import bisect_left
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import IO, Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Int64, Integer

from reviewgen.compiled import compiled
from reviewgen.errors import storage_errors
from reviewgen.protocols import CountGroup

# max bytes of rows that one sort in memory takes; a lower memory limit lowers it
BLOCK_BYTES = 1 << 27
MIN_BLOCK_BYTES = 1 << 20  # min bytes of these rows, however low the memory limit is
MERGED_ROWS = 1 << 22  # number of rows merged before the memory pages of files are released
DIGIT = 8  # number of bits that one pass of the radix sort orders by
# rows of two words are sorted in groups if there are this many or more for each possible first word
GROUP_ROWS = 32
PIECE_BYTES = 1 << 25  # size of the rows that a process sends at a time
MAX_SHARE = 1 / 8  # an array larger than this share of the memory limit goes to disk
CHUNK_BYTES = 1 << 20  # number of bytes written at a time to reserve a file

# packed rows (N, W) and their counts (N, C), as in ``Rows``
Block: TypeAlias = tuple[np.ndarray, np.ndarray]


class Arena:
    """Allocates arrays. Under a memory limit, large arrays are memory-mapped temporary files.

    The operating system loads and evicts the pages of such a file as needed. The file is removed
    together with the array, however the process ends.
    """

    def __init__(self, limit_bytes: int | None = None) -> None:
        self.limit_bytes = limit_bytes

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return an uninitialised array. Under a memory limit, a large array is a file.

        Raises:
            StorageError: The disk has no room for it.
        """
        dtype = np.dtype(dtype)
        size = int(np.prod(shape)) * dtype.itemsize
        if self.limit_bytes is None or size <= self.limit_bytes * MAX_SHARE:
            return np.empty(shape, dtype)
        with (
            storage_errors("the scratch folder"),
            tempfile.TemporaryFile(prefix="reviewgen-") as file,
        ):
            _reserve(file, size)
            return np.memmap(file, dtype, "r+", shape=shape)

    def zeros(self, shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return an array of zeros. Under a memory limit, a large array is a file.

        Parts that are never written take no memory.

        Raises:
            StorageError: The disk has no room for it.
        """
        array = self.empty(shape, dtype)
        return array if isinstance(array, np.memmap) else np.zeros(shape, dtype)

    def release(self, *arrays: np.ndarray) -> None:
        """Release the memory pages of those arrays that are files. The pages are read again when
        needed.
        """
        for array in arrays:
            while isinstance(array, np.ndarray) and array.base is not None:
                array = array.base  # the array that this one is a part of
            if isinstance(array, mmap.mmap) and hasattr(array, "madvise"):  # not on Windows
                array.madvise(mmap.MADV_DONTNEED)


def _reserve(file: IO[bytes], size: int) -> None:
    """Reserve ``size`` bytes on the disk for a file.

    So a full disk is an error here. Otherwise it would kill the process when a page is written.
    """
    if hasattr(os, "posix_fallocate"):  # neither on Windows nor on macOS
        os.posix_fallocate(file.fileno(), 0, size)
        return
    for start in range(0, size, CHUNK_BYTES):
        file.write(bytes(min(CHUNK_BYTES, size - start)))
    file.flush()


class Packing(NamedTuple):
    """How n-grams of ``order`` tokens are packed into rows of W words (``words``).

    Each token has ``bits`` bits. The first word holds ``in_first`` tokens, every other word
    ``per_word``.
    """

    bits: int
    per_word: int
    in_first: int
    words: int
    order: int


@dataclass(frozen=True)
class Rows:
    """The distinct n-grams as packed rows in sorted order.

    ``counts`` holds how often each occurs, and then, with ``min_texts`` K > 1, the numbers of up to
    K texts that it occurs in; -1 for those that are missing.
    """

    packing: Packing
    packed: Int64[np.ndarray, "N W"]
    counts: Int64[np.ndarray, "N C"]  # C = 1 + K, or 1


def pack_for(vocab_size: int, order: int) -> Packing:
    """Return the packing of n-grams over V ids.

    A token has one of V + 1 values: its id plus one, or zero after the end of the text.
    """
    bits = vocab_size.bit_length()
    per_word = min(63 // bits, order)
    words = -(-order // per_word)  # rounded up
    in_first = order - (words - 1) * per_word  # all words but the first are full
    return Packing(bits, per_word, in_first, words, order)


def token_dtype(vocab_size: int) -> np.dtype:
    """Return the smallest dtype for token ids that torch and safetensors support."""
    if vocab_size <= 1 << 8:
        return np.dtype(np.uint8)
    return np.dtype(np.int16 if vocab_size <= 1 << 15 else np.int32)


class NgramCounter:
    """Counts distinct n-grams of texts that are added one by one."""

    def __init__(self, vocab_size: int, order: int, arena: Arena, min_texts: int = 1) -> None:
        self.packing = pack_for(vocab_size, order)
        self._dtype = token_dtype(vocab_size)
        self._arena = arena
        block_bytes = BLOCK_BYTES
        if arena.limit_bytes is not None:
            block_bytes = max(MIN_BLOCK_BYTES, arena.limit_bytes // 16)
        self._columns = 1 + min_texts if min_texts > 1 else 1  # number of columns of the counts
        # with one more word for the number of the text, if texts are counted
        self._row_words = self.packing.words + (min_texts > 1)
        self._block_tokens = max(1, block_bytes // (8 * self._row_words))
        self._texts = 0  # number of texts that are counted in blocks
        self._pending: list[Integer[np.ndarray, " T"]] = []
        self._pending_tokens = 0
        self._blocks: list[Block] = []  # the largest block first

    def add(self, ids: Integer[np.ndarray, " T"]) -> None:
        """Count the n-grams of a text, which begins with bos. A further bos starts another text."""
        self._pending.append(ids.astype(self._dtype))
        self._pending_tokens += len(ids)
        if self._pending_tokens >= self._block_tokens:
            self._flush()

    def add_rows(self, packed: Int64[np.ndarray, "N W"], counts: Int64[np.ndarray, "N C"]) -> None:
        """Add the counts of another counter with the same vocabulary and order."""
        self._blocks.append((packed, counts))
        self._merge()

    def take(self) -> Rows:
        """Return all counts so far, and clear the counter."""
        self._flush()
        self._merge(merge_all=True)
        if not self._blocks:
            packed = np.empty((0, self.packing.words), np.int64)
            return Rows(self.packing, packed, np.empty((0, self._columns), np.int64))
        return Rows(self.packing, *self._blocks.pop())

    def _flush(self) -> None:
        """Count the pending texts as blocks.

        A text that is longer than a block is split among several, but its n-grams stay whole.
        """
        if not self._pending:
            return
        ids = np.concatenate(self._pending)
        self._pending = []
        self._pending_tokens = 0
        texts = self._texts + np.cumsum(ids == ids[0])  # the number of the text of each id
        self._texts = int(texts[-1])
        words = self.packing.words
        for start in range(0, len(ids), self._block_tokens):
            stop = min(start + self._block_tokens, len(ids))
            rows = np.empty((stop - start, self._row_words), np.int64)
            _pack(ids, start, stop, self.packing, rows)
            rows[:, words:] = texts[start:stop, None]
            rows = _sorted(rows, self.packing)
            counts = np.full((len(rows), self._columns), -1)  # -1: no text yet
            size = _distinct(rows, words, counts)
            self._blocks.append((rows[:size, :words].copy(), counts[:size].copy()))
            self._merge()

    def _merge(self, merge_all: bool = False) -> None:
        """Merge the last two blocks while the older is less than twice as large as the newer.

        With ``merge_all``, merge until one block is left.
        """
        while len(self._blocks) > 1:
            older, newer = self._blocks[-2:]
            if len(older[1]) >= 2 * len(newer[1]) and not merge_all:
                return
            del self._blocks[-2:]
            # rows that are never written take no memory; in a file they take space on the disk
            max_rows = len(older[1]) + len(newer[1])
            packed = self._arena.empty((max_rows, self.packing.words), np.int64)
            counts = self._arena.empty((max_rows, self._columns), np.int64)
            arrays = (*older, *newer, packed, counts)
            # numbers of rows: read of the older block, read of the newer one, and written
            done = np.zeros(3, np.int64)
            while done[0] < len(older[1]) or done[1] < len(newer[1]):
                _merge_rows(*arrays, done, done[2] + MERGED_ROWS)
                self._arena.release(*arrays)
            self._blocks.append((packed[: done[2]], counts[: done[2]]))


def _sorted(rows: Int64[np.ndarray, "N W"], packing: Packing) -> Int64[np.ndarray, "N W"]:
    """Return sorted rows. They are sorted in the fastest way for their number of words.

    Rows of one word are sorted by numpy, rows of several words by a radix sort. If there are many
    rows of two words, the radix sort only sorts by the first word; then numpy sorts each group of
    rows with the same first word. Rows that end with the number of their text are always sorted by
    the radix sort, which moves whole rows.
    """
    has_texts = rows.shape[1] > packing.words
    if packing.words == 1 and not has_texts:
        rows[:, 0].sort()
        return rows
    first_bits = packing.bits * packing.in_first
    has_groups = packing.words == 2 and len(rows) >> first_bits >= GROUP_ROWS
    is_grouped = has_groups and not has_texts
    words = 1 if is_grouped else packing.words
    bits = packing.bits * packing.per_word
    rows = _radix_sort(rows, np.empty_like(rows), words, first_bits, bits)
    if is_grouped:
        for group in np.split(rows[:, 1], np.flatnonzero(np.diff(rows[:, 0])) + 1):
            group.sort()
    return rows


@compiled
def _pack(ids, start, stop, packing, rows):
    """Pack the n-gram that starts at each of ids[start:stop] into a row of ``rows``.

    The rows are made from right to left: each is the row of the next token, shifted by one token.
    ``ids[0]`` is bos.
    """
    bits, per_word, in_first, words, order = packing
    mask = (1 << bits) - 1
    first_shift = bits * (in_first - 1)
    later_shift = bits * (per_word - 1)
    row = np.zeros(words, np.int64)  # the n-gram that starts at ``position``
    for position in range(min(len(ids), stop + order) - 1, start - 1, -1):
        if position + 1 == len(ids) or ids[position + 1] == ids[0]:
            row[:] = 0
        carried = np.int64(ids[position]) + 1  # the token that enters the next word
        for word in range(words):
            out = row[word] & mask  # the last token, which leaves the word
            row[word] = (row[word] >> bits) | (
                carried << (first_shift if word == 0 else later_shift)
            )
            carried = out
        # the n-grams from ``stop`` on belong to the next block; they were needed for those before
        if position < stop:
            for word in range(words):
                rows[position - start, word] = row[word]


@compiled
def _radix_sort(rows, other, words, first_bits, bits):
    """Sort rows by their first ``words`` words, from the least significant digit on.

    The first word has ``first_bits`` bits, each later word ``bits``. ``other`` is scratch memory of
    the same shape as ``rows``. The result is in one of the two arrays, which is returned.
    """
    buckets = 1 << DIGIT
    for word in range(words - 1, -1, -1):
        for shift in range(0, bits if word > 0 else first_bits, DIGIT):
            # first the number of rows with each digit, then where the next row with it goes
            starts = np.zeros(buckets + 1, np.int64)
            for i in range(len(rows)):
                starts[((rows[i, word] >> shift) & (buckets - 1)) + 1] += 1
            largest = 0
            for digit in range(buckets):
                largest = max(largest, starts[digit + 1])
                starts[digit + 1] += starts[digit]
            if largest == len(rows):
                continue  # all rows have the same digit
            for i in range(len(rows)):
                digit = (rows[i, word] >> shift) & (buckets - 1)
                target = starts[digit]
                starts[digit] += 1
                for column in range(rows.shape[1]):
                    other[target, column] = rows[i, column]
            rows, other = other, rows
    return rows


@compiled
def _distinct(rows, words, counts):
    """Remove duplicates from sorted rows of ``words`` words, and count how often each row occurs.

    The distinct rows are moved to the front. How often each occurred, and in which texts, is
    written to ``counts``, as in ``Rows``. The number of distinct rows is returned.
    """
    size = 0
    for i in range(len(rows)):
        if size > 0 and _compare(rows, size - 1, rows, i, words) == 0:
            counts[size - 1, 0] += 1
        else:
            for word in range(words):  # assigning a whole row takes seconds to compile
                rows[size, word] = rows[i, word]
            counts[size, 0] = 1
            size += 1
        if rows.shape[1] > words:
            _add_text(counts, size - 1, rows[i, words])
    return size


@compiled
def _add_text(counts, row, text):
    """Add the number of a text to those of a row, unless it is there or the row is full."""
    for column in range(1, counts.shape[1]):
        if counts[row, column] == text:
            return
        if counts[row, column] < 0:
            counts[row, column] = text
            return


@compiled
def add_counts(counts, row, others, other):
    """Add the count and the texts of a row of ``others`` to those of a row of ``counts``."""
    counts[row, 0] += others[other, 0]
    for column in range(1, counts.shape[1]):
        if others[other, column] >= 0:
            _add_text(counts, row, others[other, column])


@compiled
def clear_counts(counts, row):
    """Set the count of a row to zero, and remove its texts."""
    counts[row, 0] = 0
    for column in range(1, counts.shape[1]):
        counts[row, column] = -1


@compiled
def _merge_rows(a, a_counts, b, b_counts, rows, counts, done, stop):
    """Continue the merge of two sorted blocks, until ``stop`` rows are written or both are read.

    ``done`` holds the number of rows read of a and of b, and the number of rows written. It is
    updated. The counts of rows that are in both blocks are added.
    """
    i, j, size = done
    # ``order`` is -1 if the next row is in a, 1 if it is in b, 0 if it is in both
    while size < stop and (i < len(a) or j < len(b)):
        if i == len(a):
            order = 1
        elif j == len(b):
            order = -1
        else:
            order = _compare(a, i, b, j, a.shape[1])
        for word in range(a.shape[1]):
            rows[size, word] = a[i, word] if order <= 0 else b[j, word]
        clear_counts(counts, size)
        if order <= 0:
            add_counts(counts, size, a_counts, i)
            i += 1
        if order >= 0:
            add_counts(counts, size, b_counts, j)
            j += 1
        size += 1
    done[0] = i
    done[1] = j
    done[2] = size


@compiled
def _compare(a, i, b, j, words):
    """Return -1, 0 or 1 if row i of ``a`` comes before, equals or comes after row j of ``b``."""
    for word in range(words):
        if a[i, word] != b[j, word]:
            return -1 if a[i, word] < b[j, word] else 1
    return 0


def exchange(counter: NgramCounter, vocab_size: int, arena: Arena, group: CountGroup) -> Rows:
    """Exchange counts with all processes, and return all counts of this process's range.

    ``counter`` holds the counts of this process before the exchange, and is empty afterwards.
    """
    rows = counter.take()
    if group.world_size == 1:
        return rows
    # texts of different processes get different numbers; -1, for no text, stays negative
    rows.counts[:, 1:] *= group.world_size
    rows.counts[:, 1:] += group.rank
    edges = _cut(rows, vocab_size, group)
    words = rows.packing.words
    columns = rows.counts.shape[1]
    # (P, P): the number of rows that each rank sends to each rank
    sizes = group.all_gather(np.diff(edges))
    received = [
        (arena.empty((size, words), np.int64), arena.empty((size, columns), np.int64))
        for size in sizes[:, group.rank].tolist()
    ]
    # max number of rows that are sent to each rank at a time, with their counts
    at_a_time = max(1, PIECE_BYTES // (8 * (words + columns) * group.world_size))
    for start in range(0, int(sizes.max()), at_a_time):
        pieces = [
            _piece(rows, low + start, min(high, low + start + at_a_time))
            for low, high in pairwise(edges)
        ]
        for (packed, counts), piece in zip(received, group.all_to_all(pieces), strict=True):
            packed[start : start + len(piece)] = piece[:, :words]
            counts[start : start + len(piece)] = piece[:, words:]
        arena.release(rows.packed, rows.counts, *chain.from_iterable(received))
    del rows
    while received:  # the memory of each block is released once it is merged
        counter.add_rows(*received.pop())
    return counter.take()


def _cut(rows: Rows, vocab_size: int, group: CountGroup) -> list[int]:
    """Divide the first tokens into one range for each rank, with about equally many rows.

    Returns:
        For each rank, the index of this process's first row in the range of that rank; then the
        number of this process's rows.
    """
    # each 1-gram's probability depends on all others, so all go to rank 0
    if rows.packing.order == 1:
        return [0, *[len(rows.counts)] * group.world_size]
    shift = rows.packing.bits * (rows.packing.in_first - 1)
    column = rows.packed[:, 0]
    # (V + 1,): the index of the first row of each first token, then the number of rows
    first_rows = np.array(
        [bisect_left(column, (token + 1) << shift) for token in range(vocab_size)] + [len(column)]
    )
    # (V,): the number of rows with each first token, in all processes
    sizes = group.all_gather(np.diff(first_rows)).sum(0)
    # twice the middle row of each first token, and twice the ideal edges of the ranges, as integers
    middles = 2 * sizes.cumsum() - sizes
    ideal = 2 * sizes.sum() * np.arange(1, group.world_size) // group.world_size
    # the first token of each range but that of rank 0
    tokens = np.searchsorted(middles, ideal, side="right")
    return [0, *first_rows[tokens].tolist(), len(rows.counts)]


def _piece(rows: Rows, low: int, high: int) -> Int64[np.ndarray, "N C"]:
    """Return the rows low:high with their counts as the last columns; none if high < low."""
    piece = slice(low, max(low, high))
    return np.concatenate((rows.packed[piece], rows.counts[piece]), axis=1)
