"""Smoothing: computes the probability of each seen n-gram and the back-off weight of each context
from the counts.

Every smoothing has the back-off form of an ARPA file. For a token w after a context h:

    p(w | h) = p[h w]                                       if h w was seen
               bow[h] p(w | h without its first token)      otherwise

The recursion ends with the uniform distribution over every id but bos; for the last two smoothings
below, it ends with zero.

``kneser-ney``      Interpolated and modified: Chen & Goodman 1998, section 4, as lmplz estimates it
                    (Heafield, Pouzyrevsky, Clark & Koehn 2013). In the highest order, an n-gram
                    counts as often as it occurs. In lower orders, it counts once for each different
                    token that was seen before it. If it begins with bos, nothing can precede it,
                    and it counts as often as it occurs. bos itself is not a 1-gram.
``absolute``        Interpolated; one discount for each order, from the occurrences: Ney, Essen &
                    Kneser 1994.
``witten-bell``     Interpolated: Witten & Bell 1991, method C.
``stupid-backoff``  Relative frequencies, with a back-off weight of 0.4: Brants et al. 2007. Not a
                    distribution.
``none``            Relative frequencies. A token that was not seen after a seen context has
                    probability zero.

An n-gram that occurs in fewer than ``min_texts`` texts counts for lower orders only: its discount
is its whole count. So it has the probability of an unseen token after its context, and can be
dropped. As in lmplz, whose pruning by count does the same, the discounts and the adjusted counts
are those of all n-grams.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from reviewgen.compiled import compiled
from reviewgen.protocols import CountGroup
from reviewgen_ngram.counts import Arena
from reviewgen_ngram.nodes import NodeRange, Nodes

# discounts of an order whose formula fails
FALLBACK = (0.5, 1.0, 1.5)  # for kneser-ney, as with lmplz --discount_fallback
ABSOLUTE_FALLBACK = 0.5  # for absolute

STUPID_BACKOFF = 0.4  # the back-off weight of each context after which any token was seen

Discounts = tuple[float, float, float]


@dataclass(frozen=True)
class Estimate:
    """Estimated probabilities and back-off weights.

    Attributes:
        probabilities: For each of M nodes, the probability of its token after its parent.
        backoffs: The back-off weight of each of I contexts.
        floor: The probability of an id that was never seen.
        texts_per_token: Number of texts divided by the number of predicted tokens.
        discounts: The discounts of each order.
        fell_back: For each order, whether the formula of the discounts failed, so that the
            fall-back is used.
    """

    probabilities: Float32[np.ndarray, " M"]
    backoffs: Float32[np.ndarray, " I"]
    floor: float
    texts_per_token: float
    discounts: list[Discounts]
    fell_back: list[bool]


def estimate(
    local: NodeRange, vocab_size: int, bos_id: int, smoothing: str, arena: Arena, group: CountGroup
) -> Estimate:
    """Estimate the smoothed probabilities of all n-grams; only rank 0 gets the whole result.

    Each process computes the probabilities of its own nodes. Levels are computed one after another,
    since a level needs the probabilities of the level before. There must be at least one n-gram.
    """
    nodes = local.nodes
    order = nodes.order
    bos = first_node(nodes, bos_id)
    counts = _adjusted(local, bos, arena, group) if smoothing == "kneser-ney" else local.counts
    counts_of_counts = _counts_of_counts(local, counts, bos, group)
    chosen = [_discounts(smoothing, row) for row in counts_of_counts]
    discounts, fell_back = map(list, zip(*chosen, strict=True))
    probabilities = arena.empty(len(nodes.tokens), np.float32)
    backoffs = arena.empty(len(nodes.first) - 1, np.float32)
    uniform = 0.0 if smoothing in ("none", "stupid-backoff") else 1 / max(vocab_size - 1, 1)
    probabilities[0] = uniform  # every 1-gram is interpolated with this
    for level, by_count in enumerate(discounts, 1):
        _smooth(
            *local.own[level - 1],
            nodes.first,
            nodes.links,
            counts,
            local.in_texts,
            bos,
            np.array([0.0, *by_count]),
            smoothing == "witten-bell",
            STUPID_BACKOFF if smoothing == "stupid-backoff" else -1.0,
            probabilities,
            backoffs,
        )
        if 1 < level < order:
            local.all_gather(probabilities, level, group)
    if order > 1:
        local.gather(probabilities, order, group)
    for level in range(1, order):
        local.gather(backoffs, level, group)
    floor = float(backoffs[0]) * uniform
    # a slice of one count, or of none: with order 1, only rank 0 has the count of bos
    texts = local.counts[bos : bos + 1].sum(dtype=np.int64)
    tokens = local.counts[nodes.level(1)].sum(dtype=np.int64)
    texts_per_token = float(texts / max(1, tokens - texts))
    return Estimate(probabilities, backoffs, floor, texts_per_token, discounts, fell_back)


def root_row(
    nodes: Nodes, estimated: Estimate, vocab_size: int, bos_id: int
) -> Float64[np.ndarray, " V"]:
    """Return the probability of every id after the empty context; bos has zero."""
    level = nodes.level(1)
    row = np.full(vocab_size, estimated.floor)
    row[nodes.tokens[level]] = estimated.probabilities[level]
    row[bos_id] = 0.0
    return row


def discounts_from(n: tuple[int, ...]) -> Discounts | None:
    """Compute the discounts D1, D2 and D3+ of one order (Chen & Goodman 1998, equation 26).

    The formula fails, as in lmplz, if a divisor is zero or a D_k lies outside [0, k]. Unlike in
    lmplz, it also fails if a D_k is zero: a context whose tokens all have count k would leave no
    probability for unseen tokens.

    Args:
        n: The numbers of n-grams whose adjusted count is 1, 2, 3 and 4.

    Returns:
        The three discounts, or None if the formula fails.

    >>> discounts_from((10, 5, 2, 1))
    (0.5, 1.4, 2.0)
    >>> discounts_from((10, 0, 2, 1)) is None
    True
    """
    if 0 in n[:3]:
        return None
    y = Fraction(n[0], n[0] + 2 * n[1])
    exact = [k - (k + 1) * y * n[k] / n[k - 1] for k in (1, 2, 3)]
    if not all(0 < d <= k for k, d in enumerate(exact, 1)):
        return None
    return float(exact[0]), float(exact[1]), float(exact[2])


def absolute_discount(once: int, twice: int) -> float | None:
    """Compute the discount n1 / (n1 + 2 n2) of absolute discounting (Ney, Essen & Kneser 1994).

    Returns None if the discount is 0 or 1: a discount of 0 would smooth nothing, a discount of 1
    would drop all n-grams that occur once. ``once`` and ``twice`` are the numbers of n-grams that
    occur once and twice.

    >>> absolute_discount(6, 2)
    0.6
    """
    return once / (once + 2 * twice) if once and twice else None


def first_node(nodes: Nodes, token: int) -> int:
    """Return the node of a token's 1-gram. The token must occur in a text; bos always does."""
    level = nodes.level(1)
    return level.start + int(np.searchsorted(nodes.tokens[level], token))


def _counts_of_counts(
    local: NodeRange, counts: Int32[np.ndarray, " C"], bos: int, group: CountGroup
) -> Int64[np.ndarray, "N 6"]:
    """Count, for each order and over all processes, the n-grams with a count of 0, 1, 2, 3, 4, and
    5 or more. bos is left out.
    """
    counts_of_counts = np.zeros((local.nodes.order, 6), np.int64)
    for level in range(1, local.nodes.order + 1):
        span = local.own_level(level)
        _tally(counts, span.start, span.stop, counts_of_counts[level - 1])
        if level == 1 and span.start <= bos < span.stop:
            counts_of_counts[0, min(int(counts[bos]), 5)] -= 1
    # processes exchange flat arrays
    gathered = group.all_gather(counts_of_counts.reshape(-1))
    return gathered.sum(0).reshape(counts_of_counts.shape)


def _discounts(smoothing: str, counts_of_counts: Int64[np.ndarray, " 6"]) -> tuple[Discounts, bool]:
    """Return the discounts of one order, and whether they are the fall-back."""
    if smoothing == "kneser-ney":
        discounts = discounts_from(tuple(counts_of_counts[1:5].tolist()))
        return discounts or FALLBACK, discounts is None
    if smoothing == "absolute":
        discount = absolute_discount(int(counts_of_counts[1]), int(counts_of_counts[2]))
        value = discount or ABSOLUTE_FALLBACK
        return (value, value, value), discount is None
    return (0.0, 0.0, 0.0), False


def _adjusted(
    local: NodeRange, bos: int, arena: Arena, group: CountGroup
) -> Int32[np.ndarray, " C"]:
    """Return the adjusted counts of Kneser-Ney.

    An n-gram counts once for each distinct token that was seen before it. N-grams of the highest
    order, and those that begin with bos, keep their number of occurrences.
    """
    nodes = local.nodes
    order = nodes.order
    counts = arena.zeros(len(local.counts), np.int32)
    for level in range(2, order + 1):
        _count_predecessors(*local.own[level], nodes.links, counts)
    # nodes of other processes may link to own nodes, so what all processes have counted is added up
    for level in range(1, order):
        group.reduce_scatter(counts[nodes.level(level)], local.sizes[:, level])
    last = local.own_level(order)
    first_level = local.own_level(1)
    counts[last] = local.counts[last]
    if first_level.start <= bos < first_level.stop:
        _keep_occurrences(last.start, nodes.first, local.counts, bos, counts)
    if order > 1:
        local.all_gather(counts, 1, group)
    return counts


@compiled
def _tally(counts, start, stop, counts_of_counts):
    """Add to ``counts_of_counts``, (6,), the numbers of nodes with the counts 0 to 4, and with a
    count of 5 or more.
    """
    for node in range(start, stop):
        counts_of_counts[min(counts[node], 5)] += 1


@compiled
def _count_predecessors(start, stop, links, counts):
    """Add one to the count of the link of each node in start:stop. A node's first token is a token
    that was seen before the n-gram of its link.
    """
    for node in range(start, stop):
        counts[links[node]] += 1


@compiled
def _keep_occurrences(last, first, occurrences, bos, counts):
    """Set the counts of n-grams that begin with bos to their occurrences, except on the last level.

    ``bos`` is the node of bos; ``last`` is the first node of the last level. On each level, these
    n-grams are the nodes low:high, whose children are neighbours, too.
    """
    low = bos
    high = bos + 1
    while low < last and low < high:
        for node in range(low, high):
            counts[node] = occurrences[node]
        low = first[low]
        high = first[high]


@compiled
def _smooth(
    start,
    stop,
    first,
    links,
    counts,
    in_texts,
    bos,
    discounts,
    is_witten_bell,
    fixed_backoff,
    probabilities,
    backoffs,
):
    """Write the probabilities of the children of the contexts start:stop, and the back-off weights
    of these contexts.

    ``discounts`` has one for each of the counts 0, 1, 2, and 3 or more. ``fixed_backoff`` is the
    back-off weight of every context after which any token was seen; if negative, the weight follows
    from the discounts. An n-gram that is not ``in_texts`` is discounted by its whole count.
    """
    for parent in range(start, stop):
        total = 0.0  # sum of the counts after the context
        kept_back = 0.0  # sum of the discounts, which goes to the next shorter context
        seen = 0  # number of tokens seen after the context
        for child in range(first[parent], first[parent + 1]):
            if child != bos:
                total += counts[child]
                is_kept = in_texts[child]  # else the discount is the whole count
                kept_back += discounts[min(counts[child], 3)] if is_kept else counts[child]
                seen += 1
        if seen == 0:
            backoffs[parent] = 1.0
            continue
        if is_witten_bell:
            kept_back += seen
            total += seen
        gamma = kept_back / total
        for child in range(first[parent], first[parent + 1]):
            mass = 0.0
            if in_texts[child]:
                mass = (counts[child] - discounts[min(counts[child], 3)]) / total
            probabilities[child] = (
                0.0 if child == bos else mass + gamma * probabilities[links[child]]
            )
        backoffs[parent] = gamma if fixed_backoff < 0 else fixed_backoff
