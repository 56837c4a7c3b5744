"""Recovers the counts behind a prediction of a trained model, and draws its trie. Must not import
torch.

A trained model stores probabilities, not counts. But the counts can be computed from them.

Let c_i be the counts of the tokens seen after a context, and T their total. A smoothing of
``estimate`` stores, in float32,

    gamma = sum_i D(c_i) / T
    p_i = (c_i - D(c_i)) / T + gamma p_i'

where D are the discounts and p_i' is the probability after the next shorter context. The discounts
are stored, too. They are D(1), D(2), and one value for all larger counts. So if it is known which
tokens have count 1 and which have count 2, then

    T = sum_i D(c_i) / gamma
    c_i = (p_i - gamma p_i') T + D(c_i)

Which tokens these are is found by trying. Tokens of equal count have equal (p_i - gamma p_i'), and
the counts 1 and 2 can only be among the four lowest of these values, so there are few cases. Counts
are returned only if they reproduce every stored number bit for bit, and no other counts do.

For Witten-Bell, D is 0 and T + K takes the place of T, where K is the number of tokens seen. In two
cases the counts stay unknown: relative frequencies (``none``, ``stupid-backoff``) do not determine
T, and pruning and quantisation change the stored numbers.

Shapes: B batch, T time (tokens), K tokens seen after a context, V ids.
"""

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int64, Shaped

from reviewgen.protocols import CountedContext
from reviewgen.protocols.graph import GraphEdge, GraphNode, ModelGraph
from reviewgen_ngram.config import NgramConfig
from reviewgen_ngram.trie import Trained, family, probability

# max total of the counts of a context; float32 does not distinguish larger counts
MAX_TOTAL = 1 << 22
# max error of a difference of two float32 numbers, relative to the larger number
ROUNDING = 2.0**-22
CHILDREN_DRAWN = 3  # max tokens drawn after a context, the most probable ones
LEVELS_DRAWN = 4  # max levels of the trie that are drawn
NOTE = (
    "A token that was not seen after a context is looked up after the context without its first"
    " token (back-off)."
)


class Followers(NamedTuple):
    """The tokens seen after a context, and the numbers that a model stores about them.

    Attributes:
        length: The number of tokens of the context.
        tokens: The tokens seen after the context.
        probabilities: The probabilities of these tokens after the context.
        lower: The probabilities of these tokens after the next shorter context.
        gamma: The back-off weight of the context.
    """

    length: int
    tokens: Int64[np.ndarray, " K"]
    probabilities: Float32[np.ndarray, " K"]
    lower: Float64[np.ndarray, " K"]
    gamma: float


def explain(
    trained: Trained, config: NgramConfig, context: int, ids: Int64[np.ndarray, " T"]
) -> list[CountedContext]:
    """Return the contexts behind a prediction, with their counts.

    The first is the longest context after which a token was seen; the last is the empty context.

    Args:
        trained: The model.
        config: The model's settings.
        context: The node of the text's context.
        ids: The text; it begins with bos.
    """
    all_followers = [
        followers for followers in _list_followers(trained, context) if len(followers.tokens)
    ]
    smoothing = config.smoothing
    is_pruned = config.min_count > 1 or config.min_texts > 1 or config.prune_entropy > 0
    # a model from an ARPA file has no discounts
    is_estimated = smoothing not in ("kneser-ney", "absolute") or any(map(any, trained.discounts))
    # whether the stored numbers are those that ``estimate`` computed
    is_exact = is_estimated and not (config.quantized or is_pruned)
    contributions: list[Any] = [None] * len(all_followers)
    if is_exact:
        contributions = _contributions(all_followers, config)
    contexts = []
    for followers, contribution in zip(all_followers, contributions, strict=True):
        length = followers.length
        dense = partial(_to_dense, followers.tokens, vocab_size=config.vocab_size)
        discounts = trained.discounts[length]
        counts = recover(followers, discounts, smoothing) if is_exact else None
        divisor = None
        if counts is not None:
            # T, or T + K for Witten-Bell
            divisor = float(counts.sum())
            if smoothing == "witten-bell":
                divisor += len(counts)
        # Kneser-Ney counts some n-grams by their occurrences, the others by the tokens before them
        is_highest = length + 1 == config.order
        begins_with_bos = length > 0 and ids[-length] == trained.bos_id
        by_occurrences = smoothing != "kneser-ney" or is_highest or begins_with_bos
        contexts.append(
            CountedContext(
                tokens=length,
                seen=dense(np.ones(len(followers.tokens), np.bool_)),
                counts=None if counts is None else dense(counts),
                unit="occurrences" if by_occurrences else "predecessors",
                parts=contribution,
                discounts=discounts if any(discounts) else None,
                divisor=divisor,
                backoff=followers.gamma,
                probabilities=dense(followers.probabilities.astype(np.float64)),
            )
        )
    return contexts


def recover(
    followers: Followers, discounts: tuple[float, float, float], smoothing: str
) -> Int64[np.ndarray, " K"] | None:
    """Recover the counts of a context from the numbers that an unpruned model stores.

    Returns:
        The count of each token of ``followers``, or None if the counts cannot be determined.
    """
    if smoothing in ("none", "stupid-backoff") or not len(followers.tokens):
        return None
    is_witten_bell = smoothing == "witten-bell"
    discount_of_count = np.array([0.0, *discounts])  # of the counts 0, 1, 2, and 3 or more
    masses = followers.probabilities - followers.gamma * followers.lower
    fitting: dict[bytes, np.ndarray] = {}  # several guesses may give the same counts
    for guessed_discounts in _guess_discounts(followers, masses, discount_of_count):
        total = (len(masses) if is_witten_bell else guessed_discounts.sum()) / followers.gamma
        counts: np.ndarray = np.rint(masses * total + guessed_discounts).astype(np.int64)
        if counts.min() < 1 or counts.sum() > MAX_TOTAL:
            continue
        actual_discounts = discount_of_count[np.minimum(counts, 3)]
        if _reproduces(followers, counts, actual_discounts, is_witten_bell):
            fitting[counts.tobytes()] = counts
    return fitting.popitem()[1] if len(fitting) == 1 else None


def _guess_discounts(
    followers: Followers,
    masses: Float64[np.ndarray, " K"],
    discount_of_count: Float64[np.ndarray, "4"],
) -> Iterator[Float64[np.ndarray, " K"]]:
    """Yield the discount of each token, for each guess which tokens have count 1 and count 2.

    Tokens of equal mass form a group. A guess gives count 1 to one of the four lowest groups or to
    none, and count 2 to a different one of them or to none.
    """
    one, two, more = discount_of_count[1:]
    if one == two == more:
        yield np.full(len(masses), more)
        return
    ascending = np.argsort(masses, kind="stable")
    error = ROUNDING * followers.probabilities[ascending]
    # where a mass is larger than the one before, by more than rounding
    is_larger = np.diff(masses[ascending]) > error[1:] + error[:-1]
    # the group of each token; group 0 has the lowest mass
    groups = np.empty(len(masses), np.int64)
    groups[ascending] = np.concatenate([[0], np.cumsum(is_larger)])
    choices = [-1, *range(min(4, int(groups.max()) + 1))]  # -1: no group has this count
    for once, twice in product(choices, choices):
        if once != twice or once == -1:  # one group cannot have both counts
            discounts = np.where(groups == twice, two, more)
            yield np.where(groups == once, one, discounts)


def _reproduces(
    followers: Followers,
    counts: Int64[np.ndarray, " K"],
    discounts: Float64[np.ndarray, " K"],
    is_witten_bell: bool,
) -> bool:
    """Return whether ``counts`` give exactly the stored numbers.

    The sums are computed in the same order as in ``estimate``, so that rounding is the same.
    """
    total = float(counts.sum())
    kept_back = float(np.cumsum(discounts)[-1])
    if is_witten_bell:
        kept_back = float(len(counts))
        total += kept_back
    gamma = kept_back / total
    if np.float32(gamma) != followers.gamma:
        return False
    probabilities = ((counts - discounts) / total + gamma * followers.lower).astype(np.float32)
    return np.array_equal(probabilities, followers.probabilities)


def _list_followers(trained: Trained, context: int) -> list[Followers]:
    """Return the followers of a context and of all its shorter contexts, the empty one last."""
    trie = trained.trie
    nodes = [context]
    while nodes[-1]:
        nodes.append(int(trie.links[nodes[-1]]))
    # The probability of each id after the context that is one token shorter. Only the ids seen
    # after that context are up to date. This is enough, since the ids seen after a longer context
    # are among them. At first, all have the uniform probability, which is stored for node 0.
    lower = np.full(len(trie.root), probability(trie.probabilities, trie.book, 0))
    all_followers = []
    for node in reversed(nodes):
        children = _children(trained, node)
        tokens = trie.tokens[children].astype(np.int64)
        stored = _probabilities(trained, children)
        length = int(np.searchsorted(trained.starts, node, side="right")) - 1
        gamma = float(trie.backoffs[node])
        all_followers.append(Followers(length, tokens, stored, lower[tokens], gamma))
        lower[tokens] = stored
    return all_followers[::-1]


def _children(trained: Trained, context: int) -> Int64[np.ndarray, " K"]:
    """Return the nodes of the tokens seen after a context, without bos."""
    trie = trained.trie
    low, high = trained.starts[1:3].tolist()
    if context:
        low, high = family(trie.bases, trie.children, context)
    return np.arange(low, high)[trie.tokens[low:high] != trained.bos_id]


def _probabilities(trained: Trained, nodes: Int64[np.ndarray, " K"]) -> Float32[np.ndarray, " K"]:
    """Return the stored probability of each node's token after its parent."""
    trie = trained.trie
    return trie.probabilities[nodes] if trie.book is None else trie.book[trie.probabilities[nodes]]


def _contributions(
    all_followers: list[Followers], config: NgramConfig
) -> list[Float64[np.ndarray, " V"]]:
    """Return the part of each id's probability that comes from the counts of each context.

    The longest context is first. The parts of all contexts sum to the probability of the id.
    """
    interpolates = config.smoothing not in ("none", "stupid-backoff")
    # for each id, the weight of this context's probability in the result
    weight = np.ones(config.vocab_size)
    contributions = []
    for followers in all_followers:
        inherited = followers.gamma * followers.lower if interpolates else 0.0
        masses = np.maximum(followers.probabilities - inherited, 0.0)
        contributions.append(weight * _to_dense(followers.tokens, masses, config.vocab_size))
        weight = weight * followers.gamma
        # without interpolation, shorter contexts add nothing for these tokens
        if not interpolates:
            weight[followers.tokens] = 0.0
    if not config.is_distribution:
        total = sum(contribution.sum() for contribution in contributions)
        contributions = [contribution / total for contribution in contributions]
    return contributions


def _to_dense(
    tokens: Int64[np.ndarray, " K"], values: Shaped[np.ndarray, " K"], vocab_size: int
) -> Shaped[np.ndarray, " V"]:
    """Return a vector over the vocabulary with the values at ``tokens``, and zeros elsewhere."""
    row = np.zeros(vocab_size, values.dtype)
    row[tokens] = values
    return row


def describe_ngram(config: NgramConfig, trained: Trained | None) -> ModelGraph:
    """Return the computational graph of a model, for pictures.

    Args:
        config: The settings.
        trained: The trained model, or None before training. Its most probable n-grams are drawn.
    """
    inside = None
    detail = "not trained yet"
    if trained is not None:
        inside = _draw_trie(trained, config)
        grams = int(trained.starts[-1] - trained.starts[1]) - 1
        detail = f"{grams:,} n-grams of up to {config.order} tokens"
    look_back = (
        f"the longest known suffix of the last {config.order - 1} tokens"
        if config.order > 1
        else "the empty one"
    )
    nodes = (
        GraphNode(id="ids", label="ids", kind="value"),
        GraphNode(id="context", label="context", detail=look_back, kind="operation"),
        GraphNode(id="trie", label="trie", detail=detail, inside=inside),
        GraphNode(
            id="smoothing", label="log p", detail=f"smoothing: {config.smoothing}", kind="operation"
        ),
        GraphNode(id="logits", label="logits", kind="value"),
    )
    edges = (
        GraphEdge(source="ids", target="context", axes=("B", "T")),
        GraphEdge(source="context", target="context", axes=("B",), label="context", delay=1),
        GraphEdge(source="context", target="trie", axes=("B", "T")),
        GraphEdge(source="trie", target="smoothing", axes=("B", "T", "V"), label="p"),
        GraphEdge(source="smoothing", target="logits", axes=("B", "T", "V")),
    )
    return ModelGraph(nodes=nodes, edges=edges, sizes={"V": config.vocab_size}, note=NOTE)


def _draw_trie(trained: Trained, config: NgramConfig) -> ModelGraph:
    """Return a graph of the most probable n-grams of a trie.

    The first level holds the most probable tokens after the empty context. Each further level holds
    the most probable tokens after one token of the level before: the best that has children.
    """
    tokens = trained.trie.tokens
    nodes = [GraphNode(id="root", label="any context")]
    edges = []
    node = 0
    path = ()
    name = "root"
    for _ in range(min(LEVELS_DRAWN, config.order)):
        children = _children(trained, node)
        probs = _probabilities(trained, children)
        best = np.lexsort((children, -probs))[:CHILDREN_DRAWN].tolist()
        # the first context of the list is the node itself
        counted = explain(trained, config, node, np.array(path, np.int64))[0]
        unit = "times" if counted.unit == "occurrences" else counted.unit
        drawn = []
        # the most probable of three is drawn in the middle
        for index in (*best[1:2], *best[:1], *best[2:]):
            ids = (*path, int(tokens[children[index]]))
            detail = f"p = {probs[index]:.2g}"
            if counted.counts is not None:
                detail += f", {counted.counts[ids[-1]]:,} {unit}"
            drawn.append(GraphNode(id=_name(ids), label="", detail=detail, tokens=ids))
        if len(children) > len(best):
            detail = f"{len(children) - len(best):,} more"
            drawn.append(GraphNode(id=f"{name} more", label="…", detail=detail, kind="operation"))
        nodes += drawn
        edges += [GraphEdge(source=name, target=drawn_node.id) for drawn_node in drawn]
        # the next level is drawn below the most probable token after which another was seen
        context_count = len(trained.trie.children)
        inner = [child for child in children[best].tolist() if child < context_count]
        node = next((child for child in inner if len(_children(trained, child))), 0)
        if not node:
            break
        path = (*path, int(tokens[node]))
        name = _name(path)
    return ModelGraph(nodes=tuple(nodes), edges=tuple(edges))


def _name(path: tuple[int, ...]) -> str:
    """Return the name of an n-gram's node in the graph."""
    return " ".join(map(str, path))
