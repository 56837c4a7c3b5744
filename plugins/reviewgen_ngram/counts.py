"""Counts the distinct n-grams of a corpus, block by block, in sorted arrays.

An n-gram is written as the digits t1 t2 ... word to the base V: t1 is the token before the word, t2 the one before that, and
so on, so that sorted rows are a trie of contexts read backwards. As many digits as fit go into one int64 column; long
n-grams take several. Before the start of a text every digit is bos, the padding of lmplz (Heafield et al. 2013, section 3.1).
Knows nothing of probabilities.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Int64, Integer

__all__ = ["NgramCounter", "Rows", "group_sorted", "token_dtype"]

_Block: TypeAlias = tuple[list[Int64[np.ndarray, " _"]], Int64[np.ndarray, " _"]]  # columns and counts of distinct rows
BLOCK_CELLS = 1 << 22  # int64 cells of one block's columns: 32 MiB, before sorting


@dataclass(frozen=True)
class Rows:
    """Distinct n-grams in sorted order, as columns of digits, and how often each occurs."""

    vocab_size: int
    order: int
    columns: list[Int64[np.ndarray, " N"]]
    counts: Int64[np.ndarray, " N"]

    def digit(self, index: int) -> Int64[np.ndarray, " N"]:
        """Return digit ``index`` of every row: 0 is the token before the word, ``order - 1`` the word."""
        digits = digits_per_column(self.vocab_size, self.order)
        column, place = divmod(index, digits)
        width = min(digits, self.order - column * digits)
        digit: np.ndarray = self.columns[column] // self.vocab_size ** (width - 1 - place) % self.vocab_size
        return digit


def digits_per_column(vocab_size: int, order: int) -> int:
    """Return how many digits to the base V fit into an int64, at most ``order``."""
    digits = 1
    while digits < order and vocab_size ** (digits + 1) < 1 << 63:
        digits += 1
    return digits


def token_dtype(vocab_size: int) -> np.dtype:
    """Return the smallest type that holds every id and that torch and safetensors know."""
    if vocab_size <= 1 << 8:
        return np.dtype(np.uint8)
    return np.dtype(np.int16 if vocab_size <= 1 << 15 else np.int32)


def group_sorted(columns: list[Int64[np.ndarray, " N"]]) -> Int64[np.ndarray, " G"]:
    """Return where each run of equal rows starts."""
    new = np.ones(len(columns[0]), dtype=bool)
    new[1:] = False
    for column in columns:
        new[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(new)


class NgramCounter:
    """Takes texts one by one and keeps what it has seen as distinct n-grams; memory follows their number, not the corpus."""

    def __init__(self, vocab_size: int, order: int, block_cells: int = BLOCK_CELLS) -> None:
        self.vocab_size, self.order = vocab_size, order
        self._digits = digits_per_column(vocab_size, order)
        columns = -(-order // self._digits)
        self._block_tokens = max(1, block_cells // columns)
        self._pending: list[Integer[np.ndarray, " T"]] = []
        self._pending_tokens = 0
        self._blocks: list[_Block] = []

    def add(self, ids: Integer[np.ndarray, " T"]) -> None:
        """Count one text that begins with bos; a bos inside it begins another text."""
        self._pending.append(ids.astype(token_dtype(self.vocab_size)))
        self._pending_tokens += len(ids)
        if self._pending_tokens >= self._block_tokens:
            self._flush()

    def take(self) -> Rows:
        """Return everything counted so far and forget it."""
        self._flush()
        columns, counts = _merge(self._blocks) if self._blocks else ([np.empty(0, np.int64)], np.empty(0, np.int64))
        self._blocks = []
        return Rows(self.vocab_size, self.order, columns, counts)

    def _flush(self) -> None:
        if not self._pending:
            return
        ids = np.concatenate(self._pending)
        self._pending, self._pending_tokens = [], 0
        columns = self._pack(ids)
        if not len(columns[0]):
            return
        self._blocks.append(_distinct(columns, None))
        if sum(len(counts) for _, counts in self._blocks[1:]) > len(self._blocks[0][1]):
            self._blocks = [_merge(self._blocks)]

    def _pack(self, ids: Integer[np.ndarray, " T"]) -> list[Int64[np.ndarray, " N"]]:
        """Return the n-gram that ends at each predicted token, all but bos, as columns of digits."""
        bos = ids[0]
        at = np.flatnonzero(ids != bos)  # (N,)
        columns: list[Int64[np.ndarray, " N"]] = []
        token = None
        for index in range(self.order):
            if index == self.order - 1:
                token = ids[at]
            else:
                back = ids[np.maximum(at - (index + 1), 0)]
                token = back if token is None else np.where(token == bos, bos, back)
            if index % self._digits == 0:
                columns.append(np.zeros(len(at), np.int64))
            columns[-1] *= self.vocab_size
            columns[-1] += token
        return columns


def _distinct(columns: list[Int64[np.ndarray, " N"]], counts: Int64[np.ndarray, " N"] | None) -> _Block:
    """Sort rows and add up the counts of equal ones; without counts each row counts once."""
    if len(columns) == 1 and counts is None:
        keys, numbers = np.unique(columns[0], return_counts=True)
        return [keys], numbers.astype(np.int64)
    order = np.argsort(columns[0]) if len(columns) == 1 else np.lexsort(columns[::-1])
    columns = [column[order] for column in columns]
    starts = group_sorted(columns)
    numbers = np.diff(starts, append=len(order)) if counts is None else np.add.reduceat(counts[order], starts)
    return [column[starts] for column in columns], numbers


def _merge(blocks: list[_Block]) -> _Block:
    if len(blocks) == 1:
        return blocks[0]
    columns = [np.concatenate(parts) for parts in zip(*(block for block, _ in blocks), strict=True)]
    return _distinct(columns, np.concatenate([counts for _, counts in blocks]))
