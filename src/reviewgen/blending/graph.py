"""The computational graph of a blend, for pictures: its models side by side, and what mixes them. Must not import torch."""

from collections.abc import Sequence
from typing import Any

from reviewgen.blending.config import BlendConfig
from reviewgen.protocols.graph import GraphEdge, GraphNode, ModelGraph, SupportsGraph

SCORES = ("B", "T", "V")


def describe_blend(config: BlendConfig, parts: Sequence[Any], tensors: Sequence[str]) -> ModelGraph:
    """Return the graph of a blend.

    Args:
        config: Its settings.
        parts: Its models.
        tensors: The names of its tensors.
    """
    boxes = [_part(number, config, part, tensors) for number, part in enumerate(parts)]
    mixture = _gated_mixture(config) if config.gate else _fixed_mixture(config)
    ends = [f"mixture/p{number}" if config.gate else "mixture" for number in range(len(boxes))]
    edges = [GraphEdge(source="mixture/logits" if config.gate else "mixture", target="logits", axes=SCORES)]
    for number, (box, end) in enumerate(zip(boxes, ends, strict=True)):
        edges.append(GraphEdge(source="ids", target=box.id, axes=("B", "T")))
        edges.append(GraphEdge(source=box.id, target=box.id, label="state", delay=1))
        edges.append(GraphEdge(source=box.id, target=end, axes=SCORES, label=f"p_{{{number}}}"))
    ids, logits = GraphNode(id="ids", label="ids", kind="value"), GraphNode(id="logits", label="logits", kind="value")
    return ModelGraph(nodes=(ids, *boxes, mixture, logits), edges=tuple(edges), sizes={"V": config.vocab_size})


def _fixed_mixture(config: BlendConfig) -> GraphNode:
    terms = " + ".join(f"{weight:.2f} p_{{{number}}}" for number, weight in enumerate(config.weights))
    return GraphNode(id="mixture", label="mixture", detail=f"log ({terms})", kind="operation")


def _gated_mixture(config: BlendConfig) -> GraphNode:
    """Return the mixture of a blend whose weights depend on how certain each model is of the next token."""
    count = len(config.weights)
    weights = " and ".join(f"{weight:.2f}" for weight in config.weights)
    nodes = [GraphNode(id=f"p{number}", label=f"p_{{{number}}}", kind="value") for number in range(count)]
    entropies = [GraphNode(id=f"entropy{number}", label="entropy", kind="operation") for number in range(count)]
    gate = GraphNode(id="gate", label="gate", detail=f"softmax, from the weights {weights}", kind="operation")
    mix = GraphNode(id="mix", label="log Σ w_{i} p_{i}", kind="operation")
    out = GraphNode(id="logits", label="log p", kind="value")
    edges = [GraphEdge(source="gate", target="mix", axes=("B", "T", count), label="w"), GraphEdge(source="mix", target="logits")]
    for number in range(count):
        edges.append(GraphEdge(source=f"p{number}", target=f"entropy{number}"))
        edges.append(GraphEdge(source=f"p{number}", target="mix"))
        edges.append(GraphEdge(source=f"entropy{number}", target="gate", axes=("B", "T")))
    inside = ModelGraph(nodes=(*nodes, *entropies, gate, mix, out), edges=tuple(edges))
    return GraphNode(id="mixture", label="mixture", inside=inside)


def _part(number: int, config: BlendConfig, part: Any, tensors: Sequence[str]) -> GraphNode:
    """Return the box of a model, with its sizes and tensors."""
    sizes = {name: size for name, size in part.describe_graph().sizes.items() if name != "V"} if _can(part) else {}
    detail = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
    order = config.models[number]["config"].get("order")
    return GraphNode(
        id=f"part{number}",
        label=str(config.models[number]["name"]),
        detail=detail or (f"up to {order} tokens" if order else ""),
        parameters=tuple(name for name in tensors if name.startswith(f"{number}.")),
    )


def _can(part: Any) -> bool:
    return isinstance(part, SupportsGraph)
