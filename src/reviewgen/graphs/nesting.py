"""From the flow between modules to nested frames, one for each module that calls others and each item of a list of modules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter

from reviewgen.protocols.graph import Axis, GraphEdge, GraphNode, ModelGraph, all_nodes


@dataclass
class Flow:
    """What flows between boxes.

    Attributes:
        nodes: The boxes.
        paths: The frames around each box, from the outermost.
        edges: The axes of the value of each edge, by its source and target.
    """

    nodes: list[GraphNode] = field(default_factory=list)
    paths: dict[str, tuple[str, ...]] = field(default_factory=dict)
    edges: dict[tuple[str, str], tuple[Axis, ...]] = field(default_factory=dict)

    def add(self, node: GraphNode, path: tuple[str, ...]) -> None:
        """Add a box within frames."""
        self.nodes.append(node)
        self.paths[node.id] = path

    def add_once(self, node: GraphNode, path: tuple[str, ...]) -> None:
        """Add a box unless it is there."""
        if node.id not in self.paths:
            self.add(node, path)

    def add_parameter(self, name: str, label: str, parameter: str) -> None:
        """Add a parameter to the box of the module that has it, which is added if it is not there."""
        self.add_once(GraphNode(id=name, label=label), ())
        at = next(number for number, node in enumerate(self.nodes) if node.id == name)
        self.nodes[at] = replace(self.nodes[at], parameters=(*self.nodes[at].parameters, parameter))

    def connect(self, source: str, target: str, axes: tuple[Axis, ...]) -> None:
        """Add an edge unless it is there."""
        if source != target:
            self.edges[source, target] = self.edges.get((source, target)) or axes


def nest(flow: Flow) -> ModelGraph:
    """Return the graph with its frames; without them, if what is in a frame depends on what depends on it."""
    graph = _level(flow, [node.id for node in flow.nodes], 0)
    if not _has_circle(graph):
        return graph
    return _level(replace(flow, paths=dict.fromkeys(flow.paths, ())), [node.id for node in flow.nodes], 0)


def _level(flow: Flow, names: Sequence[str], depth: int) -> ModelGraph:
    """Return the graph of the boxes within a frame; names of boxes and frames inside are those of modules, without slashes."""
    by_name = {node.id: node for node in flow.nodes}
    groups: dict[str, list[str]] = {}
    for name in names:
        path = flow.paths[name]
        groups.setdefault(path[depth] + "/" if len(path) > depth else name, []).append(name)
    owner = {name: group for group, members in groups.items() for name in members}
    inner = {edge: axes for edge, axes in flow.edges.items() if edge[0] in owner and edge[1] in owner}
    nodes, seen = [], dict[tuple[str, ...], str]()
    for group, members in groups.items():
        if group.endswith("/"):
            nodes.append(_frame(flow, group, members, depth, seen))
        else:
            nodes.append(by_name[group])
    framed = {node.id for node in nodes if node.inside is not None}
    edges: dict[tuple[str, str], tuple[Axis, ...]] = {}
    for (source, target), axes in inner.items():
        one, other = owner[source].rstrip("/"), owner[target].rstrip("/")
        if one == other:
            continue
        ends = f"{one}/from {source}" if one in framed else one, f"{other}/to {source}" if other in framed else other
        edges[ends] = edges.get(ends) or axes
    return ModelGraph(nodes=tuple(nodes), edges=tuple(GraphEdge(source=s, target=t, axes=a) for (s, t), a in edges.items()))


def _frame(
    flow: Flow,
    group: str,
    members: Sequence[str],
    depth: int,
    seen: dict[tuple[str, ...], str],
) -> GraphNode:
    """Return a frame with its inputs and outputs; or a box, if a frame beside it has the same inside."""
    name, around = group.rstrip("/"), flow.edges  # also those that enter or leave the frames around this one
    inside = _level(flow, members, depth + 1)
    kinds = tuple(f"{node.label} {node.detail}" for node in all_nodes(inside))
    if kinds in seen:
        parameters = tuple(each for node in all_nodes(inside) for each in node.parameters)
        return GraphNode(id=name, label=name, detail=f"as {seen[kinds]}", parameters=parameters)
    seen[kinds] = name
    taken = list(dict.fromkeys(source for source, target in around if target in members and source not in members))
    given = list(dict.fromkeys(source for source, target in around if source in members and target not in members))
    inputs = [_port("to", source, "x", number, len(taken)) for number, source in enumerate(taken)]
    outputs = [_port("from", source, "y", number, len(given)) for number, source in enumerate(given)]
    ends = {node: f"{node}/" for node in (each.id for each in inside.nodes if each.inside is not None)}
    edges = list(inside.edges)
    for (source, target), axes in around.items():
        if target in members and source in taken:
            edges.append(_join(f"to {source}", _inner(flow, target, source, depth + 1, "to", ends), axes))
    for source in given:
        axes = next(axes for (one, other), axes in around.items() if one == source and other not in members)
        edges.append(_join(_inner(flow, source, source, depth + 1, "from", ends), f"from {source}", axes))
    once = {(edge.source, edge.target): edge for edge in reversed(edges)}
    whole = replace(inside, nodes=(*inputs, *inside.nodes, *outputs), edges=tuple(reversed(once.values())))
    return GraphNode(id=name, label=name.rstrip("."), inside=whole)


def _inner(flow: Flow, box: str, source: str, depth: int, side: str, ends: Mapping[str, str]) -> str:
    """Return the end of an edge within a frame: a box, or the input or output of a frame in it."""
    path = flow.paths[box]
    if len(path) <= depth:
        return box
    return f"{path[depth]}/{side} {source}" if path[depth] in ends else path[depth]


def _port(side: str, source: str, letter: str, number: int, count: int) -> GraphNode:
    return GraphNode(id=f"{side} {source}", label=letter if count == 1 else f"{letter}_{{{number + 1}}}", kind="value")


def _join(source: str, target: str, axes: tuple[Axis, ...]) -> GraphEdge:
    return GraphEdge(source=source, target=target, axes=axes)


def _has_circle(graph: ModelGraph) -> bool:
    before: dict[str, set[str]] = {node.id: set() for node in graph.nodes}
    for edge in graph.edges:
        before[edge.target.partition("/")[0]].add(edge.source.partition("/")[0])
    try:
        TopologicalSorter(before).prepare()
    except CycleError:
        return True
    return any(_has_circle(node.inside) for node in graph.nodes if node.inside is not None)
