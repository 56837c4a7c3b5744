"""The binary tree of the symbols: a symbol is predicted as the decisions on the way to its leaf.

Characters of ASCII are ordered by the bits of their code, since the codes group letters, capitals,
digits and punctuation. A bit that divides no characters of the vocabulary is left out, so an
English text needs six to seven decisions a character. All other symbols are clustered: symbols with
similar neighbours are close in the tree (the idea of Brown et al. 1992, "Class-Based n-gram Models
of Natural Language"), by the principal direction of their neighbour counts.

Needs no torch. Shapes: V symbols, D the maximum number of decisions.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int32, Int64

from reviewgen.errors import BundleError

BLOCK = 3  # number of levels of the tree whose slots lie in one line of memory
# max decisions of a symbol; a tree that ``make_structure`` makes of 65,536 symbols needs fewer
MAX_DEPTH = 128
_ASCII_BITS = 7
# symbols are clustered by how often they stand beside each of this many most frequent symbols
_NEIGHBOURS = 256


class Tree(NamedTuple):
    """A binary tree over V symbols; symbols that are never predicted have no leaf.

    Of L leaves and N = L - 1 decision nodes, the nodes are numbered depth first: the root, 0, then
    all nodes after its decision 0, then those after its decision 1.
    """

    children: Int64[np.ndarray, "N 2"]  # a node, or -1 - symbol for a leaf
    levels: Int64[np.ndarray, " N"]  # number of decisions before each node
    roots: Int64[np.ndarray, " N"]  # the first node of each node's block of ``BLOCK`` levels
    # the number of each node within its block: 1 at the first level, 2 and 3 at the second, 4 to 7
    # at the third
    places: Int64[np.ndarray, " N"]
    paths: Int64[np.ndarray, "V D"]  # the nodes on the way to each symbol
    bits: Int64[np.ndarray, "V D"]  # the decisions at these nodes
    lengths: Int64[np.ndarray, " V"]  # the number of decisions; 0 for a symbol without a leaf
    leaves: Int64[np.ndarray, " L"]  # the symbols of the leaves, from left to right
    # where the symbols below each node are in ``leaves``: the index of the first one, that of the
    # first one after the decision 1, and the index after the last one
    spans: Int64[np.ndarray, "N 3"]


def build_tree(structure: Int64[np.ndarray, "N 2"], vocab_size: int) -> Tree:
    """Return the tree with these children; see ``Tree.children``.

    Raises:
        BundleError: The array is not a tree of symbols whose nodes are numbered depth first, or it
            is too deep.
    """
    children = structure.tolist()
    levels = np.zeros(len(children), np.int64)
    roots = np.arange(len(children))
    places = np.ones(len(children), np.int64)
    spans = np.zeros((len(children), 3), np.int64)
    trails: dict[int, list[tuple[int, int]]] = {}  # nodes and decisions on the way to each symbol
    # a stack of the children to visit, each with the way to it
    pending: list[tuple[int, list[tuple[int, int]]]] = [(0, [])]
    visited = 0  # number of nodes
    while pending:
        child, trail = pending.pop()
        symbol = -1 - child
        is_node = child == visited < len(children)  # nodes come in the order of their numbers
        is_leaf = 0 <= symbol < vocab_size and symbol not in trails
        if not (is_node or is_leaf) or len(trail) > MAX_DEPTH:
            raise BundleError("The tensor 'tree' of the mixing model is not a tree of its symbols.")
        if is_leaf:
            trails[symbol] = trail
            # of the leaves visited so far, those below these decisions end here
            for node, bit in trail:
                spans[node, bit + 1] = len(trails)
            continue
        visited += 1
        levels[child] = len(trail)
        spans[child, 0] = len(trails)
        if len(trail) % BLOCK:
            parent, bit = trail[-1]
            roots[child] = roots[parent]
            places[child] = 2 * places[parent] + bit
        # the decision 0 is visited first, since it is on top of the stack
        pending += [(children[child][bit], [*trail, (child, bit)]) for bit in (1, 0)]
    paths = np.zeros((vocab_size, max(map(len, trails.values()))), np.int64)
    bits = np.zeros_like(paths)
    lengths = np.zeros(vocab_size, np.int64)
    for symbol, trail in trails.items():
        lengths[symbol] = len(trail)
        paths[symbol, : len(trail)], bits[symbol, : len(trail)] = zip(*trail, strict=True)
    leaves = np.array(list(trails))
    return Tree(structure, levels, roots, places, paths, bits, lengths, leaves, spans)


def make_structure(
    alphabet: str, ids: Sequence[int], texts: Int32[np.ndarray, " T"], vocab_size: int
) -> Int64[np.ndarray, "N 2"]:
    """Return the children of each node of a tree over some symbols.

    Args:
        alphabet: The character of each id; "\\0" or nothing for ids that are not characters.
        ids: The symbols that are predicted.
        texts: Training texts, one after another, whose neighbours cluster the symbols.
        vocab_size: V.
    """
    # the first of several symbols with the same character, as in a word tokenizer, gets the code;
    # it is the last in reversed order, so it replaces the others
    symbol_of_code = {
        ord(alphabet[symbol]): symbol for symbol in reversed(ids) if symbol < len(alphabet)
    }
    # only codes of ASCII, without NUL
    by_code: dict[int, Any] = {
        code: symbol_of_code[code] for code in range(1, 1 << _ASCII_BITS) if code in symbol_of_code
    }
    others = sorted(set(ids) - set(by_code.values()))
    counts = np.bincount(texts, minlength=vocab_size).astype(np.float64)
    root = clusters = _clustered(others, _neighbours(others, texts, vocab_size), counts)
    # if the other symbols are more frequent, the first decision is between them and ASCII
    if by_code and counts[others].sum() > counts[list(by_code.values())].sum():
        root = (_by_bits(by_code, _ASCII_BITS - 1), clusters)
    elif by_code:  # the other symbols take the place of NUL, the character with the code 0
        root = _by_bits(({0: clusters} if others else {}) | by_code, _ASCII_BITS - 1)
    structure: list[list[int]] = []
    _number(root, structure)
    return np.array(structure, np.int64)


def _number(part: Any, structure: list[list[int]]) -> int:
    """Append the children of each node of nested pairs, a parent before its children. Return the
    number of the first node; if ``part`` is a single symbol, -1 - symbol.
    """
    if isinstance(part, int):
        return -1 - part
    node = len(structure)
    structure.append([])
    structure[node] = [_number(half, structure) for half in part]
    return node


def _by_bits(parts: Mapping[int, Any], bit: int) -> Any:
    """Return the parts as nested pairs, divided by the bits of their codes from ``bit`` down to 0.
    A bit that is the same in all codes divides nothing, and is left out.
    """
    if len(parts) == 1:
        return next(iter(parts.values()))
    halves = [
        {code: part for code, part in parts.items() if code >> bit & 1 == value}
        for value in range(2)
    ]
    filled = [_by_bits(half, bit - 1) for half in halves if half]
    return filled[0] if len(filled) == 1 else tuple(filled)


def _clustered(
    symbols: list[int], neighbours: Float64[np.ndarray, "V F"], counts: Float64[np.ndarray, " V"]
) -> Any:
    """Return the symbols as nested pairs. The two parts of a pair have about equal frequency; they
    are divided along the principal direction of the symbols' neighbours.
    """
    if len(symbols) <= 1:
        return symbols[0] if symbols else None
    rows = neighbours[symbols]
    weights = counts[symbols] + 1
    centred = rows - np.average(rows, axis=0, weights=weights)
    direction = np.ones(rows.shape[1])
    for _ in range(8):  # power iteration for the first principal component
        direction = (centred @ direction * weights) @ centred
        direction /= np.linalg.norm(direction) or 1.0
    ordered = np.array(symbols)[np.argsort(centred @ direction, kind="stable")].tolist()
    cumulative = np.cumsum(counts[ordered] + 1)
    cut = min(int(np.searchsorted(cumulative, cumulative[-1] / 2)) + 1, len(symbols) - 1)
    halves = ordered[:cut], ordered[cut:]
    return tuple(_clustered(half, neighbours, counts) for half in halves)


def _neighbours(
    symbols: list[int], texts: Int32[np.ndarray, " T"], vocab_size: int
) -> Float64[np.ndarray, "V F"]:
    """Return how often each symbol follows and precedes each of the most frequent symbols, as
    square roots of shares, which make frequent and rare symbols comparable.
    """
    width = min(vocab_size, _NEIGHBOURS)
    if len(symbols) < 3:  # too few for the neighbours to matter
        return np.zeros((vocab_size, 2 * width))
    frequent = np.argsort(-np.bincount(texts, minlength=vocab_size), kind="stable")[:width]
    # all symbols that are not frequent share one more column, which is removed below
    column = np.full(vocab_size, width)
    column[frequent] = np.arange(width)
    table = np.zeros((2, vocab_size, width + 1))
    np.add.at(table[0], (texts[1:], column[texts[:-1]]), 1)
    np.add.at(table[1], (texts[:-1], column[texts[1:]]), 1)
    table = table[:, :, :width]
    totals = table.sum(axis=2, keepdims=True) + 1
    return np.sqrt(table / totals).transpose(1, 0, 2).reshape(vocab_size, -1)
