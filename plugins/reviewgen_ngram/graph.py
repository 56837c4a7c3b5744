"""The computational graph of an n-gram, for pictures: a search in a trie, with a few of its contexts. Must not import torch.

Shapes: B batch, T time (tokens), V vocabulary.
"""

import numpy as np

from reviewgen.protocols.graph import GraphEdge, GraphNode, ModelGraph
from reviewgen_ngram.config import NgramConfig
from reviewgen_ngram.explain import explain
from reviewgen_ngram.tensors import Trained
from reviewgen_ngram.trie import family, probability

CHILDREN = 3  # of a context that are shown, the most probable ones
LEVELS = 4  # of the trie that are shown
NOTE = "A token that was not seen after a context is looked up after the context without its first token (back-off)."


def describe_ngram(config: NgramConfig, trained: Trained | None) -> ModelGraph:
    """Return the graph.

    Args:
        config: The settings.
        trained: The trained model, of which the most probable contexts are drawn; None if there is none yet.
    """
    inside, detail = None, "not trained yet"
    if trained is not None:
        inside, grams = _draw_trie(trained, config), int(trained.starts[-1] - trained.starts[1]) - 1
        detail = f"{grams:,} n-grams of up to {config.order} tokens"
    look_back = f"the longest known suffix of the last {config.order - 1} tokens" if config.order > 1 else "the empty one"
    nodes = (
        GraphNode(id="ids", label="ids", kind="value"),
        GraphNode(id="context", label="context", detail=look_back, kind="operation"),
        GraphNode(id="trie", label="trie", detail=detail, inside=inside),
        GraphNode(id="smoothing", label="log p", detail=f"smoothing: {config.smoothing}", kind="operation"),
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
    """Return the most probable tokens of the empty context, those after the first of them, and so on."""
    nodes = [GraphNode(id="root", label="any context")]
    edges: list[GraphEdge] = []
    node, path, name = 0, (), "root"
    for _ in range(min(LEVELS, config.order)):
        children = _most_probable(trained, node)
        counts = _counts(trained, config, node, path)
        for child in (*children[1:2], *children[:1], *children[2:]):  # the first, which goes on, in the middle
            token = int(trained.trie.tokens[child])
            nodes.append(_context(trained, (*path, token), child, counts))
            edges.append(GraphEdge(source=name, target=nodes[-1].id))
        if more := _family_size(trained, node) - len(children):
            nodes.append(GraphNode(id=f"{name} more", label="…", detail=f"{more:,} more", kind="operation"))
            edges.append(GraphEdge(source=name, target=nodes[-1].id))
        inner = [child for child in children if child < len(trained.trie.children) and _family_size(trained, child)]
        if not inner:
            break
        node = inner[0]
        path = (*path, int(trained.trie.tokens[node]))
        name = _name(path)
    return ModelGraph(nodes=tuple(nodes), edges=tuple(edges))


def _children(trained: Trained, node: int) -> range:
    """Return the nodes of the tokens that were seen after a context."""
    low, high = family(trained.trie.bases, trained.trie.children, node) if node else trained.starts[1:3].tolist()
    return range(int(low), int(high))


def _family_size(trained: Trained, node: int) -> int:
    return sum(int(trained.trie.tokens[child]) != trained.bos_id for child in _children(trained, node))


def _most_probable(trained: Trained, node: int) -> list[int]:
    """Return the most probable of the tokens that were seen after a context, the most probable first."""
    trie = trained.trie
    children = [child for child in _children(trained, node) if int(trie.tokens[child]) != trained.bos_id]
    return sorted(children, key=lambda child: (-float(probability(trie.probabilities, trie.book, child)), child))[:CHILDREN]


def _counts(trained: Trained, config: NgramConfig, node: int, path: tuple[int, ...]) -> tuple[np.ndarray, str] | None:
    """Return how often each token followed a context, and what is counted; None if the model does not determine it."""
    contexts = explain(trained, config, node, np.array(path, np.int64))
    if not contexts or contexts[0].tokens != len(path) or contexts[0].counts is None:
        return None
    return contexts[0].counts, contexts[0].unit


def _context(trained: Trained, path: tuple[int, ...], node: int, counts: tuple[np.ndarray, str] | None) -> GraphNode:
    """Return the box of a context: its text, the probability of its last token after the others, and its count."""
    chance = float(probability(trained.trie.probabilities, trained.trie.book, node))
    detail = f"p = {chance:.2g}"
    if counts is not None:
        detail += f", {int(counts[0][path[-1]]):,} {'times' if counts[1] == 'occurrences' else counts[1]}"
    return GraphNode(id=_name(path), label="", detail=detail, tokens=path)


def _name(path: tuple[int, ...]) -> str:
    return " ".join(map(str, path))
