"""What a trained model shows of itself: the counts behind a prediction, and a picture of its trie.
Must not import torch.

The counts are recovered from the arrays, which contain probabilities instead.

For a context with counts c_i and total T, a smoothing of ``estimate`` stores in float32

    gamma = sum_i D(c_i) / T
    p_i = (c_i - D(c_i)) / T + gamma p_i'

with p_i' of the shorter context; so the discounts D, which are stored too, give T = sum_i D(c_i) /
gamma and c_i = (p_i - gamma p_i') T + D(c_i), once it is known which tokens have count 1, which 2
and which more. Tokens of equal count have equal (p_i - gamma p_i'), and a count of 1 or 2 can only
be among the four lowest of these values, so there are few cases to try. Counts are returned only if
they reproduce every stored number bit for bit and no other counts do. Witten-Bell is the same with
D = 0 and T + K for T, where K tokens were seen. Relative frequencies (``none``, ``stupid-backoff``)
do not determine T, and pruning and quantisation change the numbers: then counts are unknown.
Shapes: B batch, T time (tokens), K tokens seen after a context, V ids.
"""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int64, Shaped

from reviewgen.protocols import CountedContext
from reviewgen.protocols.graph import GraphEdge, GraphNode, ModelGraph
from reviewgen_ngram.config import NgramConfig
from reviewgen_ngram.trie import Trained, family, probability

MAX_TOTAL = 1 << 22  # of the counts of a context; float32 does not distinguish larger ones
ROUNDING = 2.0**-22  # of a difference of two float32, relative to the larger
CHILDREN = 3  # of a context that are drawn, the most probable ones
LEVELS = 4  # of the trie that are drawn
NOTE = (
    "A token that was not seen after a context is looked up after the context without its first"
    " token (back-off)."
)


class Followers(NamedTuple):
    """What a model stores about a context.

    Attributes:
        tokens: The tokens seen after it.
        probabilities: Their probabilities after it.
        lower: Their probabilities after the shorter context.
        gamma: Its back-off weight.
    """

    tokens: Int64[np.ndarray, " K"]
    probabilities: Float32[np.ndarray, " K"]
    lower: Float64[np.ndarray, " K"]
    gamma: float


def explain(
    trained: Trained, config: NgramConfig, context: int, ids: Int64[np.ndarray, " T"]
) -> list[CountedContext]:
    """Return the contexts behind a prediction, from the longest after which a token was seen to the
    empty one.

    Args:
        trained: The model.
        config: Its settings.
        context: The node of the text's context.
        ids: The text; it begins with bos.
    """
    chain = [
        (length, followers)
        for length, followers in _chain(trained, context)
        if len(followers.tokens)
    ]
    # stored as ``estimate`` made it
    is_exact = not (config.quantized or config.min_count > 1 or config.prune_entropy)
    parts = (
        _parts([followers for _, followers in chain], config) if is_exact else [None] * len(chain)
    )
    contexts = []
    for (length, followers), part in zip(chain, parts, strict=True):
        counts = (
            recover(followers, trained.discounts[length], config.smoothing) if is_exact else None
        )
        begins = length > 0 and int(ids[len(ids) - length]) == trained.bos_id
        is_continuation = (
            config.smoothing == "kneser-ney" and length + 1 < config.order and not begins
        )
        contexts.append(
            CountedContext(
                tokens=length,
                seen=_to_dense(
                    followers.tokens, np.ones(len(followers.tokens), np.bool_), config.vocab_size
                ),
                counts=(
                    None
                    if counts is None
                    else _to_dense(followers.tokens, counts, config.vocab_size)
                ),
                unit="predecessors" if is_continuation else "occurrences",
                parts=part,
                discounts=(
                    trained.discounts[length]
                    if config.smoothing in ("kneser-ney", "absolute")
                    else None
                ),
                divisor=(
                    None
                    if counts is None
                    else float(counts.sum() + len(counts) * (config.smoothing == "witten-bell"))
                ),
                backoff=followers.gamma,
                probabilities=_to_dense(
                    followers.tokens, followers.probabilities.astype(np.float64), config.vocab_size
                ),
            )
        )
    return contexts


def recover(
    followers: Followers, discounts: tuple[float, float, float], smoothing: str
) -> Int64[np.ndarray, " K"] | None:
    """Return the counts from which an unpruned model's numbers were computed; None if they are
    ambiguous or unknown.
    """
    if smoothing in ("none", "stupid-backoff") or not len(followers.tokens):
        return None
    table = np.array([0.0, *discounts])
    masses = followers.probabilities - followers.gamma * followers.lower
    fitting: list[np.ndarray] = []
    for deductions in _cases(followers, masses, table, smoothing):
        is_witten_bell = smoothing == "witten-bell"
        total = (len(masses) if is_witten_bell else deductions.sum()) / followers.gamma
        counts: np.ndarray = np.rint(masses * total + deductions).astype(np.int64)
        if (
            counts.min() < 1
            or counts.sum() > MAX_TOTAL
            or any(np.array_equal(counts, other) for other in fitting)
        ):
            continue
        if _reproduces(followers, counts, table[np.minimum(counts, 3)], is_witten_bell):
            fitting.append(counts)
    return fitting[0] if len(fitting) == 1 else None


def _cases(
    followers: Followers,
    masses: Float64[np.ndarray, " K"],
    table: Float64[np.ndarray, "4"],
    smoothing: str,
) -> Iterator[Float64[np.ndarray, " K"]]:
    """Yield candidate discounts of the tokens, trying each group of equal masses as those of count
    1 and of count 2.
    """
    if table[1] == table[2] == table[3]:
        yield np.full(len(masses), table[3])
        return
    ascending = np.argsort(masses, kind="stable")
    error = ROUNDING * followers.probabilities[ascending]
    steps = np.diff(masses[ascending]) > error[1:] + error[:-1]
    groups = np.empty(len(masses), np.int64)
    groups[ascending] = np.concatenate([[0], np.cumsum(steps)])
    choices = [-1, *range(min(4, int(groups.max()) + 1))]  # -1: no token has this count
    for once, twice in product(choices, choices):
        if once != twice or once == -1:
            yield np.where(groups == once, table[1], np.where(groups == twice, table[2], table[3]))


def _reproduces(
    followers: Followers,
    counts: Int64[np.ndarray, " K"],
    deductions: Float64[np.ndarray, " K"],
    is_witten_bell: bool,
) -> bool:
    """Return whether counts give the stored numbers, computed in the same order as in
    ``estimate``.
    """
    total = float(counts.sum())
    kept_back = float(np.cumsum(deductions)[-1])
    if is_witten_bell:
        kept_back = float(len(counts))
        total += kept_back
    gamma = kept_back / total
    probabilities = ((counts - deductions) / total + gamma * followers.lower).astype(np.float32)
    return bool(np.float32(gamma) == followers.gamma) and np.array_equal(
        probabilities, followers.probabilities
    )


def _chain(trained: Trained, context: int) -> list[tuple[int, Followers]]:
    """Return the length of each context, from the given one to the empty one, and what is stored
    about it.
    """
    trie = trained.trie
    nodes = [context]
    while nodes[-1]:
        nodes.append(int(trie.links[nodes[-1]]))
    # after the next shorter context
    row = np.full(len(trie.root), probability(trie.probabilities, trie.book, 0))
    chain = []
    for node in reversed(nodes):
        children = _children(trained, node)
        tokens = trie.tokens[children].astype(np.int64)
        stored = _probabilities(trained, children)
        length = int(np.searchsorted(trained.starts, node, side="right")) - 1
        chain.append((length, Followers(tokens, stored, row[tokens], float(trie.backoffs[node]))))
        row[tokens] = stored
    return chain[::-1]


def _children(trained: Trained, context: int) -> Int64[np.ndarray, " K"]:
    """Return the nodes of the tokens that were seen after a context."""
    trie = trained.trie
    low, high = (
        family(trie.bases, trie.children, context) if context else trained.starts[1:3].tolist()
    )
    return np.arange(low, high)[trie.tokens[low:high] != trained.bos_id]


def _probabilities(trained: Trained, nodes: Int64[np.ndarray, " K"]) -> Float32[np.ndarray, " K"]:
    trie = trained.trie
    return trie.probabilities[nodes] if trie.book is None else trie.book[trie.probabilities[nodes]]


def _parts(chain: list[Followers], config: NgramConfig) -> list[Float64[np.ndarray, " V"]]:
    """Return the part of each id's probability that each context's own counts contribute, from the
    longest context on.
    """
    interpolates = config.smoothing not in ("none", "stupid-backoff")
    weight = np.ones(config.vocab_size)  # of this context's probabilities in the result
    parts = []
    for followers in chain:
        masses = followers.probabilities - (
            followers.gamma * followers.lower if interpolates else 0.0
        )
        parts.append(
            weight * _to_dense(followers.tokens, np.maximum(masses, 0.0), config.vocab_size)
        )
        weight = weight * followers.gamma
        if not interpolates:
            weight[followers.tokens] = 0.0
    if not config.is_distribution:
        total = sum(part.sum() for part in parts)
        parts = [part / total for part in parts]
    return parts


def _to_dense(
    tokens: Int64[np.ndarray, " K"], values: Shaped[np.ndarray, " K"], vocab_size: int
) -> Shaped[np.ndarray, " V"]:
    """Scatter the values into a vector over the vocabulary, zero elsewhere."""
    row = np.zeros(vocab_size, values.dtype)
    row[tokens] = values
    return row


def describe_ngram(config: NgramConfig, trained: Trained | None) -> ModelGraph:
    """Return the graph.

    Args:
        config: The settings.
        trained: The trained model, whose most probable contexts are drawn; None before a training.
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
    """Return the most probable tokens of the empty context, those after the first of them, and so
    on.
    """
    tokens = trained.trie.tokens
    nodes = [GraphNode(id="root", label="any context")]
    edges = []
    node = 0
    path = ()
    name = "root"
    for _ in range(min(LEVELS, config.order)):
        children = _children(trained, node)
        chances = _probabilities(trained, children)
        best = np.lexsort((children, -chances))[:CHILDREN].tolist()
        counted = explain(trained, config, node, np.array(path, np.int64))[0]
        for number in (*best[1:2], *best[:1], *best[2:]):  # the first, which goes on, in the middle
            token = int(tokens[children[number]])
            detail = f"p = {chances[number]:.2g}"
            if counted.counts is not None:
                detail += (
                    f", {counted.counts[token]:,}"
                    f" {'times' if counted.unit == 'occurrences' else counted.unit}"
                )
            nodes.append(
                GraphNode(id=_name((*path, token)), label="", detail=detail, tokens=(*path, token))
            )
            edges.append(GraphEdge(source=name, target=nodes[-1].id))
        if more := len(children) - len(best):
            nodes.append(
                GraphNode(id=f"{name} more", label="…", detail=f"{more:,} more", kind="operation")
            )
            edges.append(GraphEdge(source=name, target=nodes[-1].id))
        shown = children[best].tolist()
        inner = [
            child
            for child in shown
            if child < len(trained.trie.children) and len(_children(trained, child))
        ]
        if not inner:
            break
        node = inner[0]
        path = (*path, int(tokens[node]))
        name = _name(path)
    return ModelGraph(nodes=tuple(nodes), edges=tuple(edges))


def _name(path: tuple[int, ...]) -> str:
    return " ".join(map(str, path))
