"""Automata over bytes: the minimal one of a set of strings, and that of all valid UTF-8.

The minimal automaton is built string by string, in order (Daciuk, Mihov, Watson & Watson 2000, "Incremental construction of
minimal acyclic finite-state automata", algorithm 1).

An automaton is one array of 32-bit words. A node is a word ``2 * edges + is_end``, followed by a word ``256 * target + byte`` for
each of its edges, sorted by byte; its number, and the target of an edge, is its place in the array. Node 0 has no edges and is
where no string can be.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import UInt32

from reviewgen.lexicon.symbols import common_length

Edges: TypeAlias = Sequence[tuple[int, int]]
"""Pairs of a byte and the node that it leads to."""

MAX_WORDS = 1 << 24  # of an array


@dataclass(frozen=True)
class Automaton:
    """An automaton over bytes.

    Attributes:
        nodes: The nodes and their edges.
        root: The node of the empty string.
    """

    nodes: UInt32[np.ndarray, " N"]
    root: int

    def edges(self, node: int) -> list[tuple[int, int]]:
        """Return pairs of a byte that may follow at a node, and the node that it leads to."""
        words = self.nodes[node + 1 : node + 1 + (int(self.nodes[node]) >> 1)].tolist()
        return [(word & 255, word >> 8) for word in words]

    def strings(self) -> Iterator[bytes]:
        """Yield the strings of an automaton without circles, sorted."""
        waiting = [(b"", self.root)]
        while waiting:
            string, node = waiting.pop()
            if self.nodes[node] & 1:
                yield string
            waiting += [(string + bytes([byte]), target) for byte, target in reversed(self.edges(node))]


def minimal_automaton(strings: Iterable[bytes]) -> Automaton:
    """Return the smallest automaton that accepts some strings and no others.

    >>> list(minimal_automaton([b"gas", b"mad", b"glad"]).strings())
    [b'gas', b'glad', b'mad']
    """
    nodes: dict[tuple[bool, Edges], int] = {(False, ()): 0}
    open_ends, last = [False], b""  # along the last string; a node is complete once its last string is known
    open_edges: list[list[tuple[int, int]]] = [[]]

    def complete(depth: int) -> None:
        """Complete the nodes below a depth."""
        while len(open_ends) > depth + 1:
            node = nodes.setdefault((open_ends.pop(), tuple(open_edges.pop())), len(nodes))
            open_edges[-1].append((last[len(open_ends) - 1], node))

    for string in sorted(set(strings)):
        complete(common_length(last, string))
        while len(open_ends) <= len(string):
            open_ends.append(False)
            open_edges.append([])
        open_ends[-1], last = True, string
    complete(0)
    root = nodes.setdefault((open_ends[0], tuple(open_edges[0])), len(nodes))
    return _pack(list(nodes), root)


def utf8_automaton() -> Automaton:
    """Return the automaton of all valid UTF-8 (Unicode 16, table 3-7)."""
    whole, one, two, three, after_e0, after_ed, after_f0, after_f4 = range(1, 9)
    ranges = [
        [],
        [
            *((0x00, 0x7F, whole), (0xC2, 0xDF, one), (0xE0, 0xE0, after_e0), (0xE1, 0xEC, two), (0xED, 0xED, after_ed)),
            *((0xEE, 0xEF, two), (0xF0, 0xF0, after_f0), (0xF1, 0xF3, three), (0xF4, 0xF4, after_f4)),
        ],
        [(0x80, 0xBF, whole)],
        [(0x80, 0xBF, one)],
        [(0x80, 0xBF, two)],
        [(0xA0, 0xBF, one)],
        [(0x80, 0x9F, one)],
        [(0x90, 0xBF, two)],
        [(0x80, 0x8F, two)],
    ]
    edges = [[(byte, target) for low, high, target in node for byte in range(low, high + 1)] for node in ranges]
    return _pack([(number == whole, node) for number, node in enumerate(edges)], whole)


def join(automata: Sequence[Automaton]) -> tuple[UInt32[np.ndarray, " N"], list[int]]:
    """Return the nodes of several automata in one array, and the root of each."""
    starts = np.cumsum([0, *(len(one.nodes) for one in automata)])
    if starts[-1] >= MAX_WORDS:
        raise ValueError(f"An automaton of {starts[-1]:,} words is too large.")
    return np.concatenate([_shift(one.nodes, int(start)) for one, start in zip(automata, starts, strict=False)]), [
        one.root + int(start) for one, start in zip(automata, starts, strict=False)
    ]


def node_places(nodes: UInt32[np.ndarray, " N"]) -> list[int]:
    """Return where the nodes of an array begin; the last one may end behind the array."""
    words, places, place = nodes.tolist(), [], 0
    while place < len(words):
        places.append(place)
        place += 1 + (words[place] >> 1)
    return places


def _shift(nodes: UInt32[np.ndarray, " N"], start: int) -> UInt32[np.ndarray, " N"]:
    """Return nodes that are moved by ``start`` places."""
    moved = nodes + np.uint32(256 * start)
    heads = node_places(nodes)
    moved[heads] = nodes[heads]
    return moved


def _pack(nodes: Sequence[tuple[bool, Edges]], root: int) -> Automaton:
    """Return an automaton of nodes, each whether a string may end there, and its edges."""
    places = np.cumsum([0, *(1 + len(edges) for _, edges in nodes)]).tolist()
    if places[-1] >= MAX_WORDS:
        raise ValueError(f"An automaton of {places[-1]:,} words is too large.")
    words = [
        word
        for is_end, edges in nodes
        for word in (2 * len(edges) + is_end, *(256 * places[target] + byte for byte, target in edges))
    ]
    return Automaton(np.array(words, np.uint32), places[root])
