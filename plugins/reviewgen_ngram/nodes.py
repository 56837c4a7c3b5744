"""The nodes of a trie, built from sorted distinct n-grams and numbered level by level.

Node 0 is the empty context. Each node of level k is a distinct k-gram that occurs in a text. Its
parent is the same n-gram without the last token. The nodes of a level are sorted, so the children
of a node have consecutive numbers, and a running sum of the numbers of children locates them.

The *link* of a node leads to the same n-gram without the first token: the suffix link of Weiner
1973, and the n-gram to back off to. Every suffix of an n-gram of a text occurs in this text too, so
a link is never missing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32, Int64, Integer

from reviewgen.compiled import compiled
from reviewgen.errors import DataError
from reviewgen.protocols import CountGroup
from reviewgen_ngram.counts import Arena, Rows, add_counts, clear_counts, token_dtype

PIECE_ROWS = 1 << 22  # number of rows read before the memory pages of files are released
MAX_NODES = (1 << 31) - 1  # node numbers and counts have 32 bits


@dataclass(frozen=True)
class Nodes:
    """The M nodes of a trie. The first I of them, those before the last level, can have children.

    Attributes:
        starts: The nodes of level k are starts[k]:starts[k + 1].
        tokens: The last token of each node's n-gram.
        first: The children of node i are first[i]:first[i + 1].
        links: The link of each node.
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
        """Return the range of the nodes of a level."""
        return slice(int(self.starts[level]), int(self.starts[level + 1]))


@dataclass(frozen=True)
class NodeRange:
    """The nodes as one of P processes knows them.

    Each process grows its *own* nodes from its range of n-grams. On the levels before the last,
    nodes have the same numbers in all processes, and each process knows the tokens of all nodes. It
    also knows their entries of ``first``, except on the level before the last, where it knows its
    own only.

    On the last level, a process knows its own nodes only, and numbers them as if there were no
    others. The own nodes of rank 0 come first, and the arrays of rank 0 have room for all nodes.

    Attributes:
        nodes: The nodes. ``link`` writes the links of own nodes. ``gather`` writes the missing
            entries of ``links`` and ``first`` in rank 0.
        counts: Number of occurrences in the corpus; known for own nodes and all nodes of level 1.
        in_texts: Whether each own node occurs in at least ``min_texts`` texts; 1-grams always do.
        own: The range of own nodes on each level: the first, and the one after the last. The empty
            context belongs to every process; with order 1, to rank 0 only.
        sizes: The number of nodes of each process on each level.
    """

    nodes: Nodes
    counts: Int32[np.ndarray, " C"]
    in_texts: Bool[np.ndarray, " C"]
    own: Int64[np.ndarray, "K 2"]  # K = order + 1
    sizes: Int64[np.ndarray, "P K"]

    def own_level(self, level: int) -> slice:
        """Return the range of this process's own nodes on a level."""
        return slice(*self.own[level].tolist())

    def all_gather(self, array: np.ndarray, level: int, group: CountGroup) -> None:
        """Complete ``array`` on one level: fill in the values of nodes of other processes.

        The process has written the values of its own nodes. The last level is not allowed.
        """
        group.all_gather_into(array[self.nodes.level(level)], array[self.own_level(level)])

    def gather(self, array: np.ndarray, level: int, group: CountGroup) -> None:
        """Complete ``array`` like ``all_gather``, but in rank 0 only and for any level."""
        group.gather_into(array[self.nodes.level(level)], array[self.own_level(level)])


def grow(rows: Rows, vocab_size: int, arena: Arena, group: CountGroup) -> NodeRange:
    """Build the nodes of the trie from the n-grams. Their links are written later, by ``link``.

    At least one process must have an n-gram.

    Raises:
        DataError: There are more than 2**31 - 1 nodes or tokens. All processes raise it.
    """
    order = rows.packing.order
    starts, sizes = _count_nodes(rows, arena, group)
    own = _own_nodes(starts, sizes, group.rank)
    inner = int(starts[-2])  # number of nodes before the last level
    known = inner + int(sizes[group.rank, -1])  # number of nodes that this process knows
    # ``gather`` collects the last level of all processes in rank 0
    room = int(starts[-1]) if group.rank == 0 else known
    tokens = arena.zeros(room, token_dtype(vocab_size))
    first = arena.zeros(inner + 1, np.int32)
    counts = arena.zeros(known, np.int32)
    links = arena.zeros(room, np.int32)
    in_texts = arena.zeros(known, bool)
    newest = own[:, 0] - 1  # the last node written on each level
    newest[0] = 0
    newest_counts = np.zeros((order + 1, rows.counts.shape[1]), np.int64)
    for start, stop in _pieces(rows, arena):
        _fill(
            rows.packed,
            rows.counts,
            start,
            stop,
            rows.packing,
            newest,
            newest_counts,
            tokens,
            counts,
            in_texts,
            first,
        )
    in_texts[: starts[2]] = True
    _start_children(own, first)
    # the children of the empty context are the nodes of level 1
    first[0] = 1
    first[1] = starts[2]
    local = NodeRange(Nodes(starts, tokens, first, links), counts, in_texts, own, sizes)
    for level in range(1, order):
        local.all_gather(tokens, level, group)
        if level < order - 1:
            local.all_gather(first, level, group)
            # where the children of the level's last node end
            first[starts[level + 1]] = starts[level + 2]
    # with order 1, level 1 is the last level, of which rank 0 has all nodes
    if order > 1:
        local.all_gather(counts, 1, group)
    return local


def link(local: NodeRange) -> None:
    """Write the links of this process's own nodes."""
    nodes = local.nodes
    for level in range(1, nodes.order):
        _link(*local.own[level], nodes.tokens, nodes.first, nodes.links)


def gather(local: NodeRange, group: CountGroup) -> Nodes:
    """Collect all nodes and their links in rank 0, in the arrays of its own nodes.

    The other ranks must not use what is returned to them.
    """
    nodes = local.nodes
    last = nodes.order
    local.gather(nodes.tokens, last, group)
    for level in range(2, last + 1):
        local.gather(nodes.links, level, group)
    if last > 1:
        # each process has numbered its nodes of the last level as if there were no others
        shift = int(local.sizes[: group.rank, last].sum())
        first = nodes.first[local.own_level(last - 1)] + np.int32(shift)
        group.gather_into(nodes.first[nodes.level(last - 1)], first)
        nodes.first[-1] = nodes.starts[-1]
    return nodes


def _pieces(rows: Rows, arena: Arena) -> Iterator[tuple[int, int]]:
    """Yield ranges of rows. Release the memory pages of each range once it has been read."""
    for start in range(0, len(rows.counts), PIECE_ROWS):
        yield start, min(start + PIECE_ROWS, len(rows.counts))
        arena.release(rows.packed, rows.counts)


def _count_nodes(
    rows: Rows, arena: Arena, group: CountGroup
) -> tuple[Int64[np.ndarray, " L"], Int64[np.ndarray, "P K"]]:
    """Return two arrays: ``starts`` of ``Nodes``, and ``sizes`` of ``NodeRange``.

    In ``sizes``, the empty context does not count.

    Raises:
        DataError: There are more than 2**31 - 1 nodes or tokens.
    """
    order = rows.packing.order
    tally = np.zeros(order + 2, np.int64)  # number of nodes of each level, then number of tokens
    for start, stop in _pieces(rows, arena):
        _measure(rows.packed, start, stop, rows.packing, tally)
        tally[-1] += rows.counts[start:stop, 0].sum()
    tallies = group.all_gather(tally)
    sizes = tallies[:, :-1]
    observed = int(tallies[:, -1].sum())
    totals = sizes.sum(0)
    totals[0] = 1  # the empty context
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
    return starts, sizes


def _own_nodes(
    starts: Int64[np.ndarray, " L"], sizes: Int64[np.ndarray, "P K"], rank: int
) -> Int64[np.ndarray, "K 2"]:
    """Return the range of a process's own nodes on each level."""
    begin = starts[:-1] + sizes[:rank].sum(0)
    begin[-1] = starts[-2]  # each process numbers its nodes of the last level from here on
    ranges = np.stack((begin, begin + sizes[rank]), axis=1)
    # with order 1, only rank 0 has nodes, and with them the empty context
    has_root = rank == 0 or len(ranges) > 2
    ranges[0] = 0, has_root  # 0:1, or 0:0 without it
    return ranges


@compiled
def _shifted_token(packed, row, position, packing):
    """Return the token at a position of a packed row, plus one; zero after the end of the text."""
    bits, per_word, in_first, _, _ = packing
    if position < in_first:
        return (packed[row, 0] >> (bits * (in_first - 1 - position))) & ((1 << bits) - 1)
    word = (position - in_first) // per_word + 1
    position = (position - in_first) % per_word
    return (packed[row, word] >> (bits * (per_word - 1 - position))) & ((1 << bits) - 1)


@compiled
def _shared(packed, row, packing):
    """Return the number of first tokens that a row has in common with the row before it."""
    if row == 0:
        return 0
    same = packing.in_first
    for word in range(packed.shape[1]):
        a = packed[row - 1, word]
        b = packed[row, word]
        if a != b:
            # remove last tokens until the words are equal
            while a != b:
                a >>= packing.bits
                b >>= packing.bits
                same -= 1
            return same
        same += packing.per_word
    return same - packing.per_word  # never reached: two rows always differ


@compiled
def _length(packed, row, packing):
    """Return the number of tokens in a row; it is smaller than the order at the end of a text."""
    length = packing.order
    while _shifted_token(packed, row, length - 1, packing) == 0:  # after the end of the text
        length -= 1
    return length


@compiled
def _measure(packed, start, stop, packing, sizes):
    """Count for each level the nodes that occur first in the rows start:stop, and add their number
    to ``sizes``. A node is new if the row does not share it with the row before.
    """
    for row in range(start, stop):
        for level in range(_shared(packed, row, packing), _length(packed, row, packing)):
            sizes[level + 1] += 1


@compiled
def _fill(
    packed,
    row_counts,
    start,
    stop,
    packing,
    newest,
    newest_counts,
    tokens,
    counts,
    in_texts,
    first,
):
    """Write the nodes of the rows start:stop: tokens, counts, and numbers of children.

    The numbers of children are written to ``first``. ``newest``, the last node written on each
    level, and ``newest_counts``, its counts and texts as in ``Rows``, are updated.
    """
    for row in range(start, stop):
        shared = _shared(packed, row, packing)
        length = _length(packed, row, packing)
        for level in range(1, length + 1):
            if level > shared:
                newest[level] += 1
                tokens[newest[level]] = _shifted_token(packed, row, level - 1, packing) - 1
                first[newest[level - 1]] += 1
                clear_counts(newest_counts, level)
            add_counts(newest_counts, level, row_counts, row)
            counts[newest[level]] = newest_counts[level, 0]
            # The last column is -1 until the node has ``min_texts`` texts. If texts are not
            # counted, it is the count, which is never negative.
            in_texts[newest[level]] = newest_counts[level, -1] >= 0


@compiled
def _start_children(ranges, first):
    """Replace in ``first`` each own node's number of children by its first child.

    The entry after a level's own nodes is also written. It may be the first entry of the next
    level, so the levels are processed from the last to the first.
    """
    for level in range(len(ranges) - 2, 0, -1):
        start = ranges[level + 1, 0]
        for parent in range(ranges[level, 0], ranges[level, 1]):
            children = first[parent]
            first[parent] = start
            start += children
        first[ranges[level, 1]] = start


@compiled
def _link(start, stop, tokens, first, links):
    """Write the links of the children of the nodes start:stop.

    A child links to the node with the same token among the children of its parent's link. Both
    lists of children are sorted, so they are searched in parallel.
    """
    for parent in range(start, stop):
        target = first[links[parent]]
        end = first[links[parent] + 1]
        for child in range(first[parent], first[parent + 1]):
            while target < end and tokens[target] != tokens[child]:
                target += 1
            links[child] = target
