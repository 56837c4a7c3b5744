"""Pruning of n-grams and quantisation of probabilities. Probabilities still sum to one afterwards.

An n-gram is dropped if it occurs seldom, or if dropping it raises the perplexity little (Stolcke
1998, "Entropy-based Pruning of Backoff Language Models"). It is kept if a longer n-gram needs it as
its context or as its suffix.

New back-off weights make the probabilities after each context h sum to one:

    bow[h] = (1 - sum of p(w | h)) / (sum of p(v | h without its first token))

The first sum is over the tokens w that are kept after h, the second over all other tokens v.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

from reviewgen.compiled import compiled
from reviewgen.errors import TrainingError
from reviewgen.protocols import CountGroup
from reviewgen_ngram.estimate import Estimate
from reviewgen_ngram.nodes import NodeRange, Nodes

CODES = 256  # number of values of a quantised probability, which is stored in a byte
ROUNDING = 2e-7  # max error of a probability in single precision
MIN_UNSEEN = 1e-6  # min total probability of the unseen tokens after a quantised context


def frequent(local: NodeRange, min_count: int, group: CountGroup) -> Bool[np.ndarray, " M"]:
    """Return for each n-gram whether it occurs at least ``min_count`` times and in enough texts.

    1-grams always count as frequent. Only rank 0 gets the values of all n-grams.
    """
    keep = np.ones(len(local.nodes.tokens), bool)
    for level in range(2, local.nodes.order + 1):
        span = local.own_level(level)
        np.greater_equal(local.counts[span], min_count, out=keep[span])
        keep[span] &= local.in_texts[span]
        local.gather(keep, level, group)
    return keep


def prune(
    nodes: Nodes,
    estimated: Estimate,
    root: Float64[np.ndarray, " V"],
    bos: int,
    keep: Bool[np.ndarray, " M"],
    max_loss: float,
) -> tuple[Nodes, Estimate]:
    """Drop n-grams of two or more tokens that are rare, or whose loss is less than ``max_loss``.

    The loss of an n-gram is the relative rise in perplexity when it alone is dropped: Stolcke's
    exp(D) - 1.

    Args:
        nodes: The n-grams.
        estimated: Their probabilities.
        root: The probability of every id after the empty context.
        bos: The node of the id that begins every text.
        keep: Whether each n-gram is frequent; the others are dropped.
        max_loss: N-grams whose loss is lower are dropped, too; 0 keeps n-grams of any loss.
    """
    if max_loss > 0:
        losses = np.full(len(nodes.links), np.inf)  # 1-grams are never dropped
        _losses(
            nodes.first,
            nodes.links,
            estimated.probabilities,
            estimated.backoffs,
            bos,
            estimated.texts_per_token,
            losses,
        )
        keep = keep & (losses >= max_loss)
    keep[: nodes.starts[2]] = True
    _close(nodes.first, nodes.links, keep)
    if keep.all():
        return nodes, estimated
    # number of kept nodes before each node, which is the new number of a kept one
    kept_before = np.concatenate([[0], np.cumsum(keep)])
    keep_context = keep[: nodes.starts[-2]]
    kept_children = np.diff(kept_before[nodes.first])  # number of kept children of each context
    # whether each kept context has lost a child
    changed = (kept_children < np.diff(nodes.first))[keep_context]
    changed[0] = False  # 1-grams are never dropped
    first = np.concatenate([[1], 1 + np.cumsum(kept_children[keep_context])]).astype(np.int32)
    links = kept_before[nodes.links[keep]].astype(np.int32)
    smaller = Nodes(kept_before[nodes.starts], nodes.tokens[keep], first, links)
    probabilities = estimated.probabilities[keep]
    backoffs = estimated.backoffs[keep_context]
    _balance(first, links, smaller.tokens, root, changed, probabilities, backoffs)
    return smaller, replace(estimated, probabilities=probabilities, backoffs=backoffs)


def quantize(
    nodes: Nodes, estimated: Estimate, root: Float64[np.ndarray, " V"]
) -> tuple[UInt8[np.ndarray, " M"], Float32[np.ndarray, " 256"], Float32[np.ndarray, " I"]]:
    """Round each probability to one of 256 values, so that it takes one byte.

    The values are zero and the means of 255 bins, which have equal width in the logarithm of the
    probability. The most probable token of a context compensates for the rounding of the others, so
    that the unseen tokens keep their probability.

    Returns:
        The code of each probability, the probability of each code, and new back-off weights.

    Raises:
        TrainingError: After some context every token was seen.
    """
    probabilities = estimated.probabilities
    positive = probabilities[probabilities > 0]
    edges = np.geomspace(positive.min(), positive.max(), CODES)
    bins = np.clip(np.searchsorted(edges, positive, side="right") - 1, 0, CODES - 2)
    bin_sizes = np.bincount(bins, minlength=CODES - 1)
    bin_sums = np.bincount(bins, positive, minlength=CODES - 1)
    # the value of a bin is the mean of its numbers; if it is empty, the geometric mean of its edges
    means = np.where(
        bin_sizes, bin_sums / np.maximum(bin_sizes, 1), np.sqrt(edges[1:] * edges[:-1])
    )
    book = np.zeros(CODES, np.float32)
    book[1:] = np.minimum(means, 1 - MIN_UNSEEN)
    codes = np.empty(len(probabilities), np.uint8)
    _quantize_all(probabilities, book, codes)
    _adjust_sums(nodes.starts[1], nodes.first, probabilities, book, codes)
    values = book[codes]
    backoffs = estimated.backoffs.copy()
    # ``root`` keeps the exact probabilities of 1-grams
    values[: nodes.starts[2]] = probabilities[: nodes.starts[2]]
    changed = np.ones(len(backoffs), bool)
    changed[0] = False
    if not _balance(nodes.first, nodes.links, nodes.tokens, root, changed, values, backoffs):
        raise TrainingError(
            "After some context every id was seen, so there is no unseen id to absorb rounding: set"
            " model.quantized=false."
        )
    return codes, book, backoffs


@compiled
def _close(first, links, keep):
    """Mark the context and the suffix of each kept n-gram as kept.

    Longer n-grams come first, so that what they need is kept when its own needs are marked.
    """
    for parent in range(len(first) - 2, -1, -1):
        for child in range(first[parent], first[parent + 1]):
            if keep[child]:
                keep[parent] = True
                keep[links[child]] = True


@compiled
def _balance(first, links, tokens, root, changed, probabilities, backoffs):
    """Set the back-off weights of changed contexts so that the probabilities after them sum to one.

    The probabilities of the unseen tokens are added up. To subtract those of the seen tokens from
    one would be less exact, since the difference may be smaller than a rounding error. If the seen
    tokens leave less than a rounding error, the context keeps its weight, which is nearly right and
    above zero.

    Returns:
        False if the seen tokens of some context leave probability to unseen tokens, but no token is
        unseen after this context.
    """
    rest = np.zeros(len(backoffs))  # total probability of the tokens not seen after each context
    for parent in range(1, len(backoffs)):
        seen = 0.0  # total probability of the tokens seen after the context
        unseen = 0.0  # total probability of all others after the next shorter context
        child = first[parent]
        stop = first[parent + 1]
        shorter = links[parent]
        if shorter == 0:
            for token in range(len(root)):
                if child < stop and tokens[child] == token:
                    child += 1
                else:
                    unseen += root[token]
        else:
            unseen = rest[shorter]
            for other in range(first[shorter], first[shorter + 1]):
                if child < stop and tokens[child] == tokens[other]:
                    child += 1
                else:
                    unseen += probabilities[other]
        for node in range(first[parent], stop):
            seen += probabilities[node]
        if changed[parent] and 1 - seen > ROUNDING:
            if unseen <= 0:
                return False
            backoffs[parent] = (1 - seen) / unseen
        rest[parent] = backoffs[parent] * unseen
    return True


@compiled
def _losses(first, links, probabilities, backoffs, bos, texts_per_token, losses):
    """Compute the pruning loss of each n-gram (Stolcke 1998, equations 3 to 6)."""
    marginal = np.zeros(len(links))  # probability of each n-gram at any position of a text
    marginal[0] = 1.0
    for parent in range(len(backoffs)):
        seen = 0.0  # total probability of the tokens seen after the context
        lower = 0.0  # total probability of the same tokens after the next shorter context
        for child in range(first[parent], first[parent + 1]):
            marginal[child] = (
                marginal[parent] * probabilities[child] if child != bos else texts_per_token
            )
            seen += probabilities[child]
            lower += probabilities[links[child]]
        if parent == 0:
            continue
        for child in range(first[parent], first[parent + 1]):
            p = probabilities[child]
            shorter = probabilities[links[child]]  # of the token after the next shorter context
            # log of the back-off weight that the context gets if this child is dropped
            log_backoff = np.log((1 - seen + p) / (1 - lower + shorter))
            # by how much the mean log probability of a token after the context changes
            change = p * (np.log(shorter) + log_backoff - np.log(p))
            if seen < 1:
                change += (log_backoff - np.log(backoffs[parent])) * (1 - seen)
            losses[child] = np.expm1(-marginal[parent] * change)


@compiled
def _code_of(value, book):
    """Return the code of the nearest value in the ascending codebook. Only zero has code 0."""
    if value <= 0:
        return 0
    low = 1
    high = len(book) - 1
    while low < high:
        middle = (low + high) // 2
        if book[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low - 1 if low > 1 and value - book[low - 1] < book[low] - value else low


@compiled
def _quantize_all(probabilities, book, codes):
    """Write the code of each probability."""
    for node in range(len(probabilities)):
        codes[node] = _code_of(probabilities[node], book)


@compiled
def _adjust_sums(start, first, probabilities, book, codes):
    """Change codes so that the rounded probabilities of each context have about their exact sum.

    The most probable child of a context compensates for the rounding of the others. Codes are
    lowered further until the unseen tokens have at least half of their exact probability.
    """
    for parent in range(start, len(first) - 1):
        exact = 0.0  # sum of the exact probabilities
        rounded = 0.0  # sum of the rounded ones
        largest = first[parent]
        for child in range(first[parent], first[parent + 1]):
            exact += probabilities[child]
            rounded += book[codes[child]]
            if probabilities[child] > probabilities[largest]:  # the most probable child so far
                largest = child
        if first[parent] == first[parent + 1]:
            continue
        rounded -= book[codes[largest]]
        codes[largest] = max(1, _code_of(exact - rounded, book))
        limit = min((1 + exact) / 2, 1 - MIN_UNSEEN)
        while codes[largest] > 1 and rounded + book[codes[largest]] > limit:
            codes[largest] -= 1
        child = first[parent]
        rounded += book[codes[largest]]
        # still too large: many small probabilities were rounded up
        while rounded > limit and child < first[parent + 1]:
            if codes[child] > 1:
                rounded -= book[codes[child]] - book[codes[child] - 1]
                codes[child] -= 1
            else:
                child += 1
