"""Draws a window: where a node takes values of several tokens, what computes them is drawn once for each of them."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from reviewgen.protocols.graph import GraphEdge, GraphNode, ModelGraph

MOST_TOKENS = 5  # of a window; the middle of a longer one is an ellipsis


def is_loop(edge: GraphEdge) -> bool:
    """Return whether a delayed edge is a recurrent state, which leads from a node to itself."""
    return edge.delay > 0 and edge.source.partition("/")[0] == edge.target.partition("/")[0]


def find_windows(graph: ModelGraph) -> dict[tuple[str, str], list[GraphEdge]]:
    """Return the edges of each window, the oldest first, by source and target."""
    windows: dict[tuple[str, str], list[GraphEdge]] = {}
    for edge in sorted(graph.edges, key=lambda edge: -edge.delay):
        windows.setdefault((edge.source, edge.target), []).append(edge)
    return {ends: edges for ends, edges in windows.items() if any(edge.delay and not is_loop(edge) for edge in edges)}


def upstream(graph: ModelGraph, name: str) -> set[str]:
    """Return a node and all that its value depends on, by edges without a delay."""
    found = {name}
    while more := {_node(e.source) for e in graph.edges if not e.delay and _node(e.target) in found} - found:
        found |= more
    return found


def expand_windows(graph: ModelGraph) -> ModelGraph:
    """Return the graph with what each window takes drawn for each of its tokens, and the tokens as subscripts."""
    for (source, target), edges in find_windows(graph).items():
        graph = _expand(graph, source, target, edges)
    return graph


def _expand(graph: ModelGraph, source: str, target: str, edges: list[GraphEdge]) -> ModelGraph:
    copied = upstream(graph, _node(source))
    nodes: list[GraphNode] = []
    links: list[GraphEdge] = []
    for place, edge in _shown(edges):
        names = {name: f"{name}@{place}" if edge is None or edge.delay else name for name in copied}
        nodes += [_copy(node, names[node.id], edge) for node in graph.nodes if node.id in copied]
        own = [
            each for each in graph.edges if _node(each.source) in copied and _node(each.target) in copied and not is_loop(each)
        ]
        links += [_between(each, names, with_axes=edge is not None and edge.delay == 0) for each in own]
        taken = replace(edges[0], delay=0, axes=() if edge is None else edges[0].axes)
        links.append(_between(taken, names, with_axes=True))
    kept = [node for node in graph.nodes if node.id not in copied]
    others = [
        edge
        for edge in graph.edges
        if (_node(edge.target) not in copied or is_loop(edge)) and (edge.source, edge.target) != (source, target)
    ]
    return replace(graph, nodes=(*nodes, *kept), edges=(*links, *others))


def _shown(edges: list[GraphEdge]) -> Iterable[tuple[str, GraphEdge | None]]:
    """Return the edges of a window that are drawn, with a name for each; None is the ellipsis."""
    if len(edges) <= MOST_TOKENS:
        return [(str(edge.delay), edge) for edge in edges]
    first, last = edges[:1], edges[2 - MOST_TOKENS :]
    return [*((str(edge.delay), edge) for edge in first), ("more", None), *((str(edge.delay), edge) for edge in last)]


def _copy(node: GraphNode, name: str, edge: GraphEdge | None) -> GraphNode:
    """Return the copy of a node for one token of a window."""
    if edge is None:
        return GraphNode(id=name, label="…", kind="operation")
    if node.kind == "value":
        return replace(node, id=name, label=f"{node.label}_{{{'t' if not edge.delay else f't-{edge.delay}'}}}")
    return (
        node if not edge.delay else replace(node, id=name, parameters=(), detail="the same" if node.parameters else node.detail)
    )


def _between(edge: GraphEdge, names: Mapping[str, str], with_axes: bool) -> GraphEdge:
    """Return an edge between copies; its shape is shown at one of them."""
    source, target = _renamed(edge.source, names), _renamed(edge.target, names)
    return replace(edge, source=source, target=target, axes=edge.axes if with_axes else ())


def _renamed(end: str, names: Mapping[str, str]) -> str:
    node, slash, port = end.partition("/")
    return names.get(node, node) + slash + port


def _node(end: str) -> str:
    return end.partition("/")[0]
