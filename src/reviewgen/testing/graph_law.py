"""The law of ``SupportsGraph``: a sound graph of the model's own parameters, whose shapes are those of a forward pass."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from reviewgen.errors import BrokenPlugin
from reviewgen.protocols import SupportsGraph
from reviewgen.protocols.graph import GraphEdge, GraphNode, ModelGraph, axis_size
from reviewgen.protocols.graph_rules import all_nodes, read_graph
from reviewgen.testing.models import call, can, some_ids

__all__ = ["described_graph"]

BATCH, TIME = 3, 5


def described_graph(make: Callable[[], Any]) -> None:
    """SupportsGraph: the graph is sound, the same at each call, and has the widths that the model's modules return."""
    model = make()
    if not can(model, SupportsGraph):
        return
    try:
        graph, again = read_graph(model), read_graph(model)
    except BrokenPlugin as error:
        raise AssertionError(str(error)) from error
    assert graph == again, "describe_graph() must return the same graph at each call."
    sizes = {"B": BATCH, "T": TIME, **graph.sizes}
    shapes = _shapes_of_modules(model) if isinstance(model, nn.Module) else {}
    for node, edges, letters in _nodes_with_edges(graph, sizes):
        _compare(node, edges, letters, shapes)
    assert _first_axes(graph, "ids", is_source=True) == ("B", "T"), "The edges from ids must have the axes (B, T)."
    assert _first_axes(graph, "logits", is_source=False) == ("B", "T", "V"), "The edge into logits must have the axes (B, T, V)."


def _shapes_of_modules(model: nn.Module) -> dict[frozenset[str], tuple[int, ...]]:
    """Return the shape that each called module returns, by the names of its parameters; of those with parameters."""
    shapes: dict[frozenset[str], tuple[int, ...]] = {}

    def note(names: frozenset[str], output: Any) -> None:
        if isinstance(output, Tensor):
            shapes[names] = tuple(output.shape)

    hooks = []
    for path, module in model.named_modules():
        own = frozenset(f"{path}.{name}" if path else name for name, _ in module.named_parameters())
        if own:
            hooks.append(module.register_forward_hook(lambda _, __, output, own=own: note(own, output)))
    with torch.no_grad():
        call(model, some_ids(model, BATCH, TIME))
    for hook in hooks:
        hook.remove()
    return shapes


def _nodes_with_edges(graph: ModelGraph, sizes: Mapping[str, int]) -> list[tuple[GraphNode, list[GraphEdge], Mapping[str, int]]]:
    """Return each node with the edges that leave it, and the sizes of their letters."""
    letters = {**sizes, **graph.sizes}
    rows = [(node, [each for each in graph.edges if each.source == node.id], letters) for node in graph.nodes]
    return rows + [row for node in graph.nodes if node.inside for row in _nodes_with_edges(node.inside, letters)]


def _compare(
    node: GraphNode, edges: list[GraphEdge], sizes: Mapping[str, int], shapes: Mapping[frozenset[str], tuple[int, ...]]
) -> None:
    """Raise if a node that is one module has edges with another last axis than what the module returns, or more or fewer."""
    expected = shapes.get(frozenset(name for each in all_nodes(ModelGraph(nodes=(node,), edges=())) for name in each.parameters))
    for edge in edges:
        if expected is None or not edge.axes:
            continue
        actual = [axis_size(axis, sizes) for axis in edge.axes]
        assert actual[-1] == expected[-1] and len(actual) == len(expected), (
            f"The edge from {edge.source!r} to {edge.target!r} has the sizes {actual}; its module returns {list(expected)}."
        )


def _first_axes(graph: ModelGraph, name: str, is_source: bool) -> tuple[int | str, ...] | None:
    edges = [each for each in graph.edges if (each.source if is_source else each.target).partition("/")[0] == name]
    return edges[0].axes if edges else None
