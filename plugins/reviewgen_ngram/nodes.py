"""The nodes of a trie, built from sorted distinct n-grams and numbered level by level.

Node 0 is the empty context. A node of level k is a distinct k-gram that occurs in a text, its parent the k-gram without the last
token; the nodes of a level are sorted, so the children of a node are neighbours, and a running sum of their numbers locates
them. The *link* of a node is the n-gram without its first token (the suffix link of Weiner 1973, the back-off of an n-gram).
Every suffix of an n-gram in a text occurs in that text, so a link is never missing.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, Int64, Integer

from reviewgen.compiled import compiled
from reviewgen.errors import DataError
from reviewgen_ngram.counts import Rows, token_dtype
from reviewgen_ngram.memory import Arena

__all__ = ["Nodes", "grow"]

MAX_NODES = (1 << 31) - 1  # node numbers and counts have 32 bits


@dataclass(frozen=True)
class Nodes:
    """M nodes, of which the first I, all but those of the last level, can have children.

    The nodes of level k are starts[k]:starts[k + 1], the children of node i are first[i]:first[i + 1].
    """

    starts: Int64[np.ndarray, " L"]
    tokens: Integer[np.ndarray, " M"]
    first: Int32[np.ndarray, " J"]  # J = I + 1
    links: Int32[np.ndarray, " M"]
    counts: Int32[np.ndarray, " M"]  # occurrences in the corpus

    @property
    def order(self) -> int:
        """The length of the longest n-grams."""
        return len(self.starts) - 2


def grow(rows: Rows, vocab_size: int, arena: Arena) -> Nodes:
    """Return the nodes of n-grams; there must be at least one.

    Raises:
        DataError: There are more than 2**31 - 1 nodes or tokens.
    """
    packing, order = rows.packing, rows.order
    sizes = np.zeros(order + 1, np.int64)
    _measure(rows.packed, packing.bits, packing.per_word, packing.in_first, sizes)
    sizes[0] = 1
    starts = np.concatenate([[0], np.cumsum(sizes)])
    total, inner = int(starts[-1]), int(starts[-2])
    if total > MAX_NODES:
        raise DataError(
            f"The corpus has {total:,} distinct n-grams up to order {order}; the limit is {MAX_NODES:,}. Lower the order."
        )
    if rows.counts.sum() > MAX_NODES:
        raise DataError(f"The corpus has {rows.counts.sum():,} tokens; the limit is {MAX_NODES:,}. Train on a part of it.")
    tokens = arena.empty(total, token_dtype(vocab_size))
    tokens[0] = 0  # the empty context has no token
    counts, links, first = arena.zeros(total, np.int32), arena.zeros(total, np.int32), arena.zeros(inner + 1, np.int32)
    _fill(rows.packed, rows.counts, packing.bits, packing.per_word, packing.in_first, starts, tokens, counts, first)
    _link(starts, tokens, first, links)
    return Nodes(starts, tokens, first, links, counts)


@compiled
def _token(packed, row, position, bits, per_word, in_first):
    """Return the token at a position of a packed row, plus one; zero after the end of its text."""
    if position < in_first:
        return (packed[row, 0] >> (bits * (in_first - 1 - position))) & ((1 << bits) - 1)
    word, position = (position - in_first) // per_word + 1, (position - in_first) % per_word
    return (packed[row, word] >> (bits * (per_word - 1 - position))) & ((1 << bits) - 1)


@compiled
def _shared(packed, row, bits, per_word, in_first):
    """Return the length of the prefix that a row shares with the row before it, in tokens."""
    if row == 0:
        return 0
    same = in_first
    for word in range(packed.shape[1]):
        a, b = packed[row - 1, word], packed[row, word]
        if a != b:
            while a != b:
                a >>= bits
                b >>= bits
                same -= 1
            return same
        same += per_word
    return same - per_word


@compiled
def _length(packed, row, bits, per_word, in_first):
    """Return the number of tokens of a row before the end of its text."""
    length = in_first + (packed.shape[1] - 1) * per_word
    while _token(packed, row, length - 1, bits, per_word, in_first) == 0:
        length -= 1
    return length


@compiled
def _measure(packed, bits, per_word, in_first, sizes):
    """Count the nodes of each level."""
    for row in range(len(packed)):
        for level in range(_shared(packed, row, bits, per_word, in_first), _length(packed, row, bits, per_word, in_first)):
            sizes[level + 1] += 1


@compiled
def _fill(packed, row_counts, bits, per_word, in_first, starts, tokens, counts, first):
    """Write the token and count of every node, and the running sums of the numbers of children."""
    last = starts[:-1] - 1  # the newest node of each level
    last[0] = 0
    for row in range(len(packed)):
        shared, length = _shared(packed, row, bits, per_word, in_first), _length(packed, row, bits, per_word, in_first)
        for level in range(1, length + 1):
            if level > shared:
                last[level] += 1
                tokens[last[level]] = _token(packed, row, level - 1, bits, per_word, in_first) - 1
                first[last[level - 1] + 1] += 1
            counts[last[level]] += row_counts[row]
    first[0] = 1
    for node in range(1, len(first)):
        first[node] += first[node - 1]


@compiled
def _link(starts, tokens, first, links):
    """Link each node to the child of its parent's link that has the same token; the children of both are sorted."""
    for parent in range(1, len(first) - 1):
        other, end = first[links[parent]], first[links[parent] + 1]
        for child in range(first[parent], first[parent + 1]):
            while other < end and tokens[other] != tokens[child]:
                other += 1
            links[child] = other
