"""The computational graph of a blend, for pictures: its models side by side, and what mixes them. Must not import torch."""

from collections.abc import Sequence
from typing import Any

from reviewgen.blending.config import BlendConfig
from reviewgen.protocols.graph import GraphEdge, GraphNode, ModelGraph, SupportsGraph

__all__ = ["describe_blend"]

SCORES = ("B", "T", "V")


def describe_blend(config: BlendConfig, parts: Sequence[Any], tensors: Sequence[str]) -> ModelGraph:
    """Return the graph of a blend.

    Args:
        config: Its settings.
        parts: Its models.
        tensors: The names of its tensors.
    """
    boxes = [_part(number, config, part, tensors) for number, part in enumerate(parts)]
    mix = "log Σ w_{i} p_{i}" if config.gate else " + ".join(f"{w:.2f} p_{{{n}}}" for n, w in enumerate(config.weights))
    nodes = [
        GraphNode(id="ids", label="ids", kind="value"),
        *boxes,
        *_gate(config),
        GraphNode(id="mix", label="mixture", detail=mix if config.gate else f"log ({mix})", kind="operation"),
        GraphNode(id="logits", label="logits", kind="value"),
    ]
    edges = [GraphEdge(source="mix", target="logits", axes=SCORES)]
    for number, box in enumerate(boxes):
        edges.append(GraphEdge(source="ids", target=box.id, axes=("B", "T")))
        edges.append(GraphEdge(source=box.id, target=box.id, label="state", delay=1))
        edges.append(GraphEdge(source=box.id, target="mix", axes=SCORES, label=f"p_{{{number}}}"))
        if config.gate:
            edges.append(GraphEdge(source=box.id, target="gate", axes=("B", "T"), label="entropy"))
    if config.gate:
        edges.append(GraphEdge(source="gate", target="mix", axes=("B", "T", len(boxes)), label="w"))
    return ModelGraph(nodes=tuple(nodes), edges=tuple(edges), sizes={"V": config.vocab_size})


def _gate(config: BlendConfig) -> list[GraphNode]:
    """Return the gate, which weighs the models by how certain each is of the next token."""
    weights = ", ".join(f"{weight:.2f}" for weight in config.weights)
    detail = f"softmax of a quadratic function of the entropies; weights {weights} without it"
    return [GraphNode(id="gate", label="gate", detail=detail, kind="operation")] if config.gate else []


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
