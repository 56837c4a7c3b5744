"""A trie of contexts read backwards, in flat sorted arrays: what a trained n-gram model is, and how it is asked.

Depth 0 is the empty context; a node at depth k is a context of k tokens, its key ``parent * V + token``, where the parent is
the context without its oldest token. Each node holds the words seen after it with their discounted probability, its *mass*,
and the weight that its shorter context gets, *gamma*. Both smoothings are one recursion from the uniform distribution up,

    p(w | h) = mass(h, w) + gamma(h) p(w | h without its oldest token)      (Chen & Goodman 1998, equation 25)

and a context that was never seen keeps the probability of its longest seen suffix. Knows nothing of counting and of torch.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64, Integer

__all__ = ["Level", "Trie"]


@dataclass(frozen=True)
class Level:
    """All contexts of one length: N nodes, and the E words that follow them, those of node i at offsets[i]:offsets[i + 1]."""

    keys: Int64[np.ndarray, " N"]  # sorted
    offsets: Int64[np.ndarray, " N+1"]
    words: Integer[np.ndarray, " E"]  # sorted within a node
    mass: Float32[np.ndarray, " E"]
    gamma: Float32[np.ndarray, " N"]

    def find(self, keys: Int64[np.ndarray, " R"]) -> Int64[np.ndarray, " R"]:
        """Return the nodes with these keys, -1 where there is none."""
        at = np.searchsorted(self.keys, keys)
        at[at == len(self.keys)] = 0
        return np.where(self.keys[at] == keys, at, -1) if len(self.keys) else np.full_like(keys, -1)

    def mass_of(self, nodes: Int64[np.ndarray, " R"], words: Int64[np.ndarray, " R"]) -> Float64[np.ndarray, " R"]:
        """Return the mass of one word at each node, 0 where it was not seen there: a binary search in all rows at once."""
        low, end = self.offsets[nodes], self.offsets[nodes + 1]
        high = end.copy()
        for _ in range(int((end - low).max(initial=0)).bit_length()):
            middle = (low + high) >> 1
            smaller = (low < high) & (self.words[np.minimum(middle, len(self.words) - 1)] < words)
            high = np.where(smaller, high, middle)
            low = np.where(smaller, middle + 1, low)
        at = np.minimum(low, len(self.words) - 1)
        return np.where((low < end) & (self.words[at] == words), self.mass[at].astype(np.float64), 0.0)

    def followers(self, nodes: Int64[np.ndarray, " R"]) -> tuple[Int64[np.ndarray, " F"], Int64[np.ndarray, " F"]]:
        """Return for every word of every given node the row 0..R-1 that asked for it, and its place in ``words``."""
        starts = self.offsets[nodes]
        sizes = self.offsets[nodes + 1] - starts
        rows = np.repeat(np.arange(len(nodes)), sizes)
        before = np.cumsum(sizes) - sizes
        return rows, np.arange(len(rows)) + np.repeat(starts - before, sizes)


class Trie:
    """The levels of a model, depth 0 first, over V token ids of which bos is never predicted."""

    def __init__(self, levels: list[Level], vocab_size: int, bos_id: int) -> None:
        self.levels, self.vocab_size, self.bos_id = levels, vocab_size, bos_id
        floor = np.full(vocab_size, 1 / max(vocab_size - 1, 1))  # lmplz: uniform over all that can be predicted
        floor[bos_id] = 0
        root = levels[0]
        self.unigrams = floor * np.float64(root.gamma[0])  # (V,)
        self.unigrams[root.words] += root.mass

    def distributions(self, history: Int64[np.ndarray, "K R"]) -> Float64[np.ndarray, "R V"]:
        """Return the probability of every token after each history, nearest token first, -1 where there is none."""
        p: np.ndarray = np.tile(self.unigrams, (history.shape[1], 1))  # (R, V)
        for level, rows, nodes in self._walk(history):
            p[rows] *= level.gamma[nodes, None]
            row, at = level.followers(nodes)
            p[rows[row], level.words[at]] += level.mass[at]
        return p

    def probabilities(self, history: Int64[np.ndarray, "K R"], words: Int64[np.ndarray, " R"]) -> Float64[np.ndarray, " R"]:
        """Return the probability of one token after each history; the same sums as ``distributions``, term by term."""
        p: np.ndarray = self.unigrams[words]  # (R,)
        for level, rows, nodes in self._walk(history):
            p[rows] = p[rows] * level.gamma[nodes] + level.mass_of(nodes, words[rows])
        return p

    def _walk(
        self, history: Int64[np.ndarray, "K R"]
    ) -> Iterator[tuple[Level, Int64[np.ndarray, " S"], Int64[np.ndarray, " S"]]]:
        """Yield per depth from 1 on the rows whose context of that length was seen, and their nodes."""
        rows = np.arange(history.shape[1])
        nodes = np.zeros_like(rows)
        for level, tokens in zip(self.levels[1:], history, strict=True):
            token = tokens[rows]
            found = level.find(nodes * self.vocab_size + token)
            seen = (found >= 0) & (token >= 0)
            rows, nodes = rows[seen], found[seen]
            if not len(rows):
                return
            yield level, rows, nodes
