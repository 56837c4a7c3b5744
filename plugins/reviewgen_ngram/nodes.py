"""The nodes of a trie, built from sorted distinct n-grams and numbered level by level.

Node 0 is the empty context. A node of level k is a distinct k-gram that occurs in a text, its
parent the k-gram without the last token; the nodes of a level are sorted, so the children of a node
are neighbours, and a running sum of their numbers locates them. The *link* of a node is the n-gram
without its first token (the suffix link of Weiner 1973, the back-off of an n-gram). Every suffix of
an n-gram in a text occurs in that text, so a link is never missing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, Int64, Integer

from reviewgen.compiled import compiled
from reviewgen.errors import DataError
from reviewgen.protocols import CountGroup
from reviewgen_ngram.counts import Arena, Rows, token_dtype

PIECE_ROWS = 1 << 22  # rows that are read before the pages of files are released
MAX_NODES = (1 << 31) - 1  # node numbers and counts have 32 bits


@dataclass(frozen=True)
class Nodes:
    """M nodes, of which the first I, all but those of the last level, can have children.

    The nodes of level k are starts[k]:starts[k + 1], the children of node i are first[i]:first[i +
    1].
    """

    starts: Int64[np.ndarray, " L"]
    tokens: Integer[np.ndarray, " M"]
    first: Int32[np.ndarray, " J"]  # J = I + 1
    links: Int32[np.ndarray, " M"]

    @property
    def order(self) -> int:
        """The length of the longest n-grams."""
        return len(self.starts) - 2

    def level(self, level: int) -> slice:
        """Return the nodes of a level."""
        return slice(int(self.starts[level]), int(self.starts[level + 1]))


@dataclass(frozen=True)
class NodeRange:
    """The nodes that one of P processes has grown from its range of the n-grams, among the nodes of
    all.

    Every process has the tokens of all nodes that can have children, and their ``first`` but for
    the last of these levels. Of the last level it has its own nodes only, numbered as if there were
    no others; rank 0, whose nodes are first, has room for all.

    Attributes:
        nodes: The nodes; ``link`` and ``gather`` fill ``links`` and the entries of ``first`` that
            are not its own.
        counts: Occurrences in the corpus, of its own nodes and those of level 1.
        own: The first of its own nodes of each level, and the one after the last. The empty context
            belongs to all.
        sizes: The number of nodes of each process, by level.
    """

    nodes: Nodes
    counts: Int32[np.ndarray, " C"]
    own: Int64[np.ndarray, "K 2"]  # K = order + 1
    sizes: Int64[np.ndarray, "P K"]

    def own_level(self, level: int) -> slice:
        """Return its own nodes of a level."""
        return slice(*self.own[level].tolist())

    def all_gather(self, array: np.ndarray, level: int, group: CountGroup) -> None:
        """Write the values of all nodes of a level but the last to ``array``, where its own are."""
        group.all_gather_into(array[self.nodes.level(level)], array[self.own_level(level)])

    def gather(self, array: np.ndarray, level: int, group: CountGroup) -> None:
        """Do the same in rank 0 only, for any level."""
        group.gather_into(array[self.nodes.level(level)], array[self.own_level(level)])


def grow(rows: Rows, vocab_size: int, arena: Arena, group: CountGroup) -> NodeRange:
    """Return the nodes of n-grams, not linked yet; at least one process must have an n-gram.

    Raises:
        DataError: There are more than 2**31 - 1 nodes or tokens; raised in all processes.
    """
    packing = rows.packing
    order = packing.order
    tally = np.zeros(order + 2, np.int64)  # nodes by level, and tokens
    for start, stop in _pieces(rows, arena):
        _measure(rows.packed, start, stop, packing, tally)
        tally[-1] += rows.counts[start:stop].sum()
    table = group.all_gather(tally)
    sizes = table[:, :-1]
    observed = int(table[:, -1].sum())
    totals = sizes.sum(0)
    totals[0] = 1
    starts = np.concatenate([[0], np.cumsum(totals)])
    if starts[-1] > MAX_NODES:
        raise DataError(
            f"The corpus has {starts[-1]:,} distinct n-grams of 1 to {order} tokens; the limit is"
            f" {MAX_NODES:,}. Lower the order."
        )
    if observed > MAX_NODES:
        raise DataError(
            f"The corpus has {observed:,} tokens; the limit is {MAX_NODES:,}. Train on a part of"
            " it."
        )
    ranges = _own_nodes(starts, sizes, group.rank)
    inner = int(starts[-2])
    room = inner + int(totals[-1] if group.rank == 0 else sizes[group.rank, -1])
    tokens = arena.zeros(room, token_dtype(vocab_size))
    first = arena.zeros(inner + 1, np.int32)
    counts = arena.zeros(inner + int(sizes[group.rank, -1]), np.int32)
    links = arena.zeros(room, np.int32)
    newest = ranges[:, 0] - 1  # node of each level
    newest[0] = 0
    for start, stop in _pieces(rows, arena):
        _fill(rows.packed, rows.counts, start, stop, packing, newest, tokens, counts, first)
    _start_children(ranges, first)
    first[0] = 1
    first[1] = starts[2]
    local = NodeRange(Nodes(starts, tokens, first, links), counts, ranges, sizes)
    for level in range(1, order):
        local.all_gather(tokens, level, group)
        if level < order - 1:
            local.all_gather(first, level, group)
            # where the children of the level's last node end
            first[starts[level + 1]] = starts[level + 2]
    if order > 1:
        local.all_gather(counts, 1, group)
    return local


def link(local: NodeRange) -> None:
    """Write the links of its own nodes."""
    nodes = local.nodes
    for level in range(1, nodes.order):
        _link(*local.own[level], nodes.tokens, nodes.first, nodes.links)


def gather(local: NodeRange, group: CountGroup) -> Nodes:
    """Return all nodes in rank 0, with their links, without copying its own."""
    nodes = local.nodes
    last = nodes.order
    local.gather(nodes.tokens, last, group)
    for level in range(2, last + 1):
        local.gather(nodes.links, level, group)
    if last > 1:
        parents = local.own_level(last - 1)
        shift = int(local.sizes[: group.rank, last].sum())
        group.gather_into(
            nodes.first[nodes.level(last - 1)], nodes.first[parents] + np.int32(shift)
        )
        nodes.first[-1] = nodes.starts[-1]
    return nodes


def _pieces(rows: Rows, arena: Arena) -> Iterator[tuple[int, int]]:
    """Yield ranges of rows, and release their pages from memory when they have been read."""
    for start in range(0, len(rows.counts), PIECE_ROWS):
        yield start, min(start + PIECE_ROWS, len(rows.counts))
        arena.release(rows.packed, rows.counts)


def _own_nodes(
    starts: Int64[np.ndarray, " L"], sizes: Int64[np.ndarray, "P K"], rank: int
) -> Int64[np.ndarray, "K 2"]:
    """Return the range of a process's own nodes, by level."""
    begin = starts[:-1] + sizes[:rank].sum(0)
    begin[-1] = starts[-2]  # its nodes of the last level have numbers of its own
    ranges = np.stack((begin, begin + sizes[rank]), axis=1)
    ranges[0] = 0, 1 if len(ranges) > 2 or rank == 0 else 0
    return ranges


@compiled
def _token(packed, row, position, packing):
    """Return the token at a position of a packed row, plus one; zero after the end of its text."""
    bits, per_word, in_first, _, _ = packing
    if position < in_first:
        return (packed[row, 0] >> (bits * (in_first - 1 - position))) & ((1 << bits) - 1)
    word = (position - in_first) // per_word + 1
    position = (position - in_first) % per_word
    return (packed[row, word] >> (bits * (per_word - 1 - position))) & ((1 << bits) - 1)


@compiled
def _shared(packed, row, packing):
    """Return the length of the prefix that a row shares with the row before it, in tokens."""
    if row == 0:
        return 0
    same = packing.in_first
    for word in range(packed.shape[1]):
        a = packed[row - 1, word]
        b = packed[row, word]
        if a != b:
            while a != b:
                a >>= packing.bits
                b >>= packing.bits
                same -= 1
            return same
        same += packing.per_word
    return same - packing.per_word


@compiled
def _length(packed, row, packing):
    """Return the number of tokens of a row before the end of its text."""
    length = packing.order
    while _token(packed, row, length - 1, packing) == 0:
        length -= 1
    return length


@compiled
def _measure(packed, start, stop, packing, sizes):
    """Count the nodes of each level that the rows start:stop begin."""
    for row in range(start, stop):
        for level in range(_shared(packed, row, packing), _length(packed, row, packing)):
            sizes[level + 1] += 1


@compiled
def _fill(packed, row_counts, start, stop, packing, newest, tokens, counts, first):
    """Write the tokens, counts and numbers of children of the nodes of the rows start:stop."""
    for row in range(start, stop):
        shared = _shared(packed, row, packing)
        length = _length(packed, row, packing)
        for level in range(1, length + 1):
            if level > shared:
                newest[level] += 1
                tokens[newest[level]] = _token(packed, row, level - 1, packing) - 1
                first[newest[level - 1]] += 1
            counts[newest[level]] += row_counts[row]


@compiled
def _start_children(ranges, first):
    """Replace the numbers of children of each own node by where they start."""
    for level in range(len(ranges) - 2, 0, -1):
        start = ranges[level + 1, 0]
        for parent in range(ranges[level, 0], ranges[level, 1]):
            children = first[parent]
            first[parent] = start
            start += children
        first[ranges[level, 1]] = start


@compiled
def _link(start, stop, tokens, first, links):
    """Link the children of start:stop to the child of their parent's link that has the same token;
    both are sorted.
    """
    for parent in range(start, stop):
        other = first[links[parent]]
        end = first[links[parent] + 1]
        for child in range(first[parent], first[parent + 1]):
            while other < end and tokens[other] != tokens[child]:
                other += 1
            links[child] = other
