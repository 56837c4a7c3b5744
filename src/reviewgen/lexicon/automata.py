"""Automata over bytes: sets of strings, and valid UTF-8.

An automaton is one array of 32-bit words. A node is a word ``2 * edges + is_end``, followed by a
word ``256 * target + byte`` for each of its edges, sorted by byte. A node's number, which is also
the target of the edges that lead to it, is its offset in the array. Node 0 has no edges; it means
that no string is possible.

The minimal automaton of a set of strings is built by adding the sorted strings one by one (Daciuk,
Mihov, Watson & Watson 2000, "Incremental construction of minimal acyclic finite-state automata",
algorithm 1).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Int32, UInt32

# An automaton from a file must have fewer words of 32 bits than this. So a few automata fit in one
# array: a target has 24 bits of its word.
_MAX_WORDS = 1 << 22

_Edges: TypeAlias = Sequence[tuple[int, int]]
"""The edges of a node: pairs of a byte and the node that the byte leads to."""


@dataclass(frozen=True)
class Automaton:
    """An automaton over bytes.

    Attributes:
        nodes: The nodes and their edges.
        root: The start node.
    """

    nodes: UInt32[np.ndarray, " N"]
    root: int

    def edges(self, node: int) -> list[tuple[int, int]]:
        """Return the edges of a node: pairs of a byte and the node that the byte leads to."""
        count = int(self.nodes[node]) >> 1
        words = self.nodes[node + 1 : node + 1 + count].tolist()
        return [(word & 255, word >> 8) for word in words]

    def targets(self) -> Int32[np.ndarray, "256"]:
        """Return, for each byte, the node that it leads to from the root; 0 if the byte may not
        follow.
        """
        targets = np.zeros(256, np.int32)
        for byte, target in self.edges(self.root):
            targets[byte] = target
        return targets

    def strings(self) -> Iterator[bytes]:
        """Yield all strings that the automaton accepts, sorted. It must not have cycles."""
        waiting = [(b"", self.root)]
        while waiting:
            string, node = waiting.pop()
            if self.nodes[node] & 1:
                yield string
            waiting += [
                (string + bytes([byte]), target) for byte, target in reversed(self.edges(node))
            ]


def minimal_automaton(strings: Iterable[bytes]) -> Automaton:
    """Return the smallest automaton that accepts some strings and no others.

    >>> list(minimal_automaton([b"gas", b"mad", b"glad"]).strings())
    [b'gas', b'glad', b'mad']
    """
    # the number of each complete node, by its content; so equal nodes are stored once
    nodes: dict[tuple[bool, _Edges], int] = {(False, ()): 0}
    last = b""  # the string that was added last
    # The nodes on the path of this string, from the root: whether a string ends there, and the
    # edges so far. The next string decides which of them are complete.
    open_ends = [False]
    open_edges: list[list[tuple[int, int]]] = [[]]

    def complete(depth: int) -> None:
        """Complete the nodes on the path that are deeper than ``depth``, and add an edge from each
        node's parent to it.
        """
        while len(open_ends) > depth + 1:
            node = nodes.setdefault((open_ends.pop(), tuple(open_edges.pop())), len(nodes))
            byte = last[len(open_ends) - 1]
            open_edges[-1].append((byte, node))

    for string in sorted(set(strings)):
        complete(common_length(last, string))
        while len(open_ends) <= len(string):
            open_ends.append(False)
            open_edges.append([])
        open_ends[-1] = True
        last = string
    complete(0)
    root = nodes.setdefault((open_ends[0], tuple(open_edges[0])), len(nodes))
    return _pack(list(nodes), root)


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Return the length of the longest common prefix of two sequences."""
    for length, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return length
    return min(len(first), len(second))


def utf8_automaton() -> Automaton:
    """Return the automaton of all valid UTF-8 (Unicode 16, table 3-7)."""
    # The nodes are named for what the character still lacks: nothing, one, two or three bytes, or
    # the second byte after one of the four first bytes that allow only some second bytes.
    whole, one, two, three, after_e0, after_ed, after_f0, after_f4 = range(1, 9)
    # For node 0 and then each node in the order of the names, the ranges of the bytes that may
    # follow: first byte of the range, last byte, and the node that they lead to.
    ranges = [
        [],
        [
            (0x00, 0x7F, whole),
            (0xC2, 0xDF, one),
            (0xE0, 0xE0, after_e0),
            (0xE1, 0xEC, two),
            (0xED, 0xED, after_ed),
            (0xEE, 0xEF, two),
            (0xF0, 0xF0, after_f0),
            (0xF1, 0xF3, three),
            (0xF4, 0xF4, after_f4),
        ],
        [(0x80, 0xBF, whole)],
        [(0x80, 0xBF, one)],
        [(0x80, 0xBF, two)],
        [(0xA0, 0xBF, one)],
        [(0x80, 0x9F, one)],
        [(0x90, 0xBF, two)],
        [(0x80, 0x8F, two)],
    ]
    nodes = []
    for node, node_ranges in enumerate(ranges):
        edges = list[tuple[int, int]]()
        for low, high, target in node_ranges:
            edges += [(byte, target) for byte in range(low, high + 1)]
        nodes.append((node == whole, edges))
    return _pack(nodes, whole)


def _pack(nodes: Sequence[tuple[bool, _Edges]], root: int) -> Automaton:
    """Return an automaton in the form of this module.

    Args:
        nodes: For each node, whether a string may end there, and its edges. The edges lead to
            indexes in ``nodes``.
        root: The index of the root.
    """
    # the offset of each node in the array of words
    offsets = np.cumsum([0, *(1 + len(edges) for _, edges in nodes)]).tolist()
    words = list[int]()
    for is_end, edges in nodes:
        words.append(2 * len(edges) + is_end)
        words += [256 * offsets[target] + byte for byte, target in edges]
    return Automaton(np.array(words, np.uint32), offsets[root])


def join(automata: Sequence[Automaton]) -> tuple[UInt32[np.ndarray, " N"], list[int]]:
    """Put the nodes of several automata into one array. Return the array, and the root of each
    automaton in it.
    """
    arrays = []
    roots = []
    start = 0
    for automaton in automata:
        # add ``start`` to the targets of the edges; the words that begin a node stay as they are
        moved = automaton.nodes + np.uint32(256 * start)
        offsets = _node_offsets(automaton.nodes)
        moved[offsets] = automaton.nodes[offsets]
        arrays.append(moved)
        roots.append(automaton.root + start)
        start += len(moved)
    return np.concatenate(arrays), roots


def checked_automaton(nodes: UInt32[np.ndarray, " N"]) -> Automaton | None:
    """Check nodes that were read from a file. Return their automaton, or None if compiled code
    could fail on them.

    The root is the last node. Each node must come after the nodes that its edges lead to, so there
    are no cycles. The edges of a node must be sorted by byte.
    """
    if not 2 <= len(nodes) < _MAX_WORDS or nodes[0]:
        return None
    offsets = np.array(_node_offsets(nodes))
    counts = (nodes[offsets] >> 1).astype(np.int64)  # number of edges of each node
    if offsets[-1] + 1 + counts[-1] != len(nodes):
        return None
    edges = np.delete(nodes, offsets).astype(np.int64)  # the edges of all nodes
    targets = edges >> 8
    owners = np.repeat(np.arange(len(offsets)), counts)  # index of the node of each edge
    leads_back = np.isin(targets, offsets[1:]) & (targets < offsets[owners])
    # each edge has a higher byte than the edge before it, or belongs to another node
    is_sorted = (np.diff(edges & 255) > 0) | (np.diff(owners) > 0)
    if not leads_back.all() or not is_sorted.all():
        return None
    return Automaton(nodes, int(offsets[-1]))


def _node_offsets(nodes: UInt32[np.ndarray, " N"]) -> list[int]:
    """Return where each node of an array begins. If the array is damaged, the last node may extend
    beyond its end.
    """
    words = nodes.tolist()
    offsets = []
    offset = 0
    while offset < len(words):
        offsets.append(offset)
        offset += 1 + (words[offset] >> 1)
    return offsets
