"""The binary tree of the symbols: a symbol is predicted as the decisions on the way to its leaf.

Characters of ASCII are ordered by the bits of their code, since the codes group letters, capitals,
digits and punctuation. A bit that divides no characters of the vocabulary is left out, so an
English text needs six to seven decisions a character. All other symbols are clustered: symbols with
similar neighbours are close in the tree (the idea of Brown et al. 1992, "Class-Based n-gram Models
of Natural Language"), by the principal direction of their neighbour counts.

Needs no torch. Shapes: V symbols, D the maximum number of decisions.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int32, Int64

BLOCK = 3  # levels of the tree whose slots lie in one line of memory
_ASCII_BITS = 7
_OTHERS = -1  # stands for all symbols that are not characters of ASCII
_NEIGHBOURS = 256  # the most frequent symbols, which the others are clustered by


class Tree(NamedTuple):
    """A binary tree over V symbols; symbols that are never predicted have no leaf.

    The V' - 1 decision nodes are numbered from the root, 0, a parent before its children.
    """

    children: Int64[np.ndarray, "N 2"]  # a node, or -1 - symbol for a leaf
    levels: Int64[np.ndarray, " N"]  # decisions before each node
    roots: Int64[np.ndarray, " N"]  # the first node of each node's block
    places: Int64[np.ndarray, " N"]  # 1 to 7, the node within its block
    paths: Int64[np.ndarray, "V D"]  # the nodes on the way to each symbol
    bits: Int64[np.ndarray, "V D"]  # the decisions at these nodes
    lengths: Int64[np.ndarray, " V"]  # the number of decisions; 0 without a leaf
    leaves: Int64[np.ndarray, " L"]  # the symbols, from left to right
    # the symbols below each node, in ``leaves``: the first, the first after the decision 1, the end
    spans: Int64[np.ndarray, "N 3"]


def build_tree(structure: Int64[np.ndarray, "N 2"], vocab_size: int) -> Tree:
    """Return the tree with these children; see ``Tree.children``."""
    count = len(structure)
    levels = np.zeros(count, np.int64)
    roots = np.zeros(count, np.int64)
    places = np.ones(count, np.int64)
    trails: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    found: dict[int, list[tuple[int, int]]] = {}
    for node in range(count):
        for bit in range(2):
            child = int(structure[node, bit])
            trail = [*trails[node], (node, bit)]
            if child < 0:
                found[-1 - child] = trail
                continue
            trails[child] = trail
            levels[child] = len(trail)
            starts_block = len(trail) % BLOCK == 0
            roots[child] = child if starts_block else roots[node]
            places[child] = 1 if starts_block else 2 * places[node] + bit
    depth = max(map(len, found.values()), default=1)
    paths = np.zeros((vocab_size, depth), np.int64)
    bits = np.zeros((vocab_size, depth), np.int64)
    lengths = np.zeros(vocab_size, np.int64)
    for symbol, trail in found.items():
        lengths[symbol] = len(trail)
        paths[symbol, : len(trail)] = [node for node, _ in trail]
        bits[symbol, : len(trail)] = [bit for _, bit in trail]
    leaves, spans = _order_leaves(structure)
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
    codes = {symbol: ord(alphabet[symbol]) for symbol in ids if symbol < len(alphabet)}
    # of several symbols with the same character, as in a word tokenizer, the first has its code
    first = {code: symbol for symbol, code in reversed(codes.items())}
    by_code = [first[code] for code in range(1, 1 << _ASCII_BITS) if code in first]
    others = sorted(set(ids) - set(by_code))
    counts = np.bincount(texts, minlength=vocab_size).astype(np.float64)
    clusters = _clustered(others, _neighbours(others, texts, vocab_size), counts)
    if not by_code:
        root = clusters
    elif counts[others].sum() > counts[by_code].sum():
        root = (_by_bits(by_code, codes, _ASCII_BITS - 1), clusters)
    else:  # the others take the place of the character with the code 0
        codes[_OTHERS] = 0
        placed = [_OTHERS, *by_code] if others else by_code
        root = _by_bits(placed, codes, _ASCII_BITS - 1)
    structure: list[list[int]] = []
    pending = [(root, -1, 0)]
    while pending:  # a parent is numbered before its children
        part, parent, bit = pending.pop()
        part = clusters if part == _OTHERS else part
        child = -1 - part if isinstance(part, int) else len(structure)
        if parent >= 0:
            structure[parent][bit] = child
        if not isinstance(part, int):
            structure.append([0, 0])
            pending += [(part[1], child, 1), (part[0], child, 0)]
    return np.array(structure, np.int64).reshape(-1, 2)


def _by_bits(symbols: list[int], codes: dict[int, int], bit: int) -> object:
    """Return the symbols as nested pairs, divided by the bits of their codes, the highest first."""
    if len(symbols) <= 1:
        return symbols[0] if symbols else None
    halves = [[s for s in symbols if codes[s] >> bit & 1 == value] for value in range(2)]
    parts = [_by_bits(half, codes, bit - 1) for half in halves if half]
    return parts[0] if len(parts) == 1 else tuple(parts)


def _clustered(
    symbols: list[int], neighbours: Float64[np.ndarray, "V F"], counts: Float64[np.ndarray, " V"]
) -> object:
    """Return the symbols as nested pairs, each divided by the principal direction of their
    neighbours into halves of about equal frequency.
    """
    if len(symbols) <= 1:
        return symbols[0] if symbols else None
    rows = neighbours[symbols]
    weights = counts[symbols] + 1
    centred = rows - np.average(rows, axis=0, weights=weights)
    direction = np.ones(rows.shape[1])
    for _ in range(8):  # power iteration
        direction = (centred @ direction * weights) @ centred
        direction /= np.linalg.norm(direction) or 1.0
    order = np.argsort(centred @ direction, kind="stable")
    passed = np.cumsum(weights[order])
    cut = int(np.searchsorted(passed, passed[-1] / 2)) + 1
    cut = min(cut, len(symbols) - 1)
    ordered = [symbols[place] for place in order]
    return (
        _clustered(ordered[:cut], neighbours, counts),
        _clustered(ordered[cut:], neighbours, counts),
    )


def _neighbours(
    symbols: list[int], texts: Int32[np.ndarray, " T"], vocab_size: int
) -> Float64[np.ndarray, "V F"]:
    """Return how often each symbol follows and precedes each of the most frequent symbols, as
    square roots of shares, which make frequent and rare symbols comparable.
    """
    width = min(vocab_size, _NEIGHBOURS)
    if len(symbols) < 3:
        return np.zeros((vocab_size, 2 * width))
    frequent = np.argsort(-np.bincount(texts, minlength=vocab_size), kind="stable")[:width]
    column = np.full(vocab_size, -1)
    column[frequent] = np.arange(width)
    table = np.zeros((2, vocab_size, width))
    before = texts[:-1]
    after = texts[1:]
    known = column[before] >= 0
    np.add.at(table[0], (after[known], column[before[known]]), 1)
    known = column[after] >= 0
    np.add.at(table[1], (before[known], column[after[known]]), 1)
    totals = table.sum(axis=2, keepdims=True) + 1
    return np.sqrt(table / totals).transpose(1, 0, 2).reshape(vocab_size, -1)


def _order_leaves(
    structure: Int64[np.ndarray, "N 2"],
) -> tuple[Int64[np.ndarray, " L"], Int64[np.ndarray, "N 3"]]:
    """Return the symbols from left to right, and those below each node; see ``Tree.spans``."""
    leaves: list[int] = []
    spans = np.zeros((len(structure), 3), np.int64)
    # nodes, and how many of their spans are known
    pending = [(0, 0)] if len(structure) else []
    while pending:
        node, known = pending.pop()
        if node < 0:
            leaves.append(-1 - node)
            continue
        spans[node, known] = len(leaves)
        if known < 2:
            pending += [(node, known + 1), (int(structure[node, known]), 0)]
    return np.array(leaves, np.int64), spans
