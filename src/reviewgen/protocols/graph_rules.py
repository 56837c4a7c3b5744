"""Reads and checks the graph that a model describes; see ``SupportsGraph``. Needs torch only if the model does."""

from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

from reviewgen.errors import BrokenPlugin
from reviewgen.protocols.graph import GraphEdge, GraphNode, ModelGraph, axis_size

MAX_NODES = 2000  # of a graph with its insides; a picture of more cannot be read
_DEPTH = 8  # of insides


def read_graph(model: Any) -> ModelGraph:
    """Return the graph that a model with the ability describes, after it was checked.

    Raises:
        BrokenPlugin: It is not as ``SupportsGraph`` says.
    """
    name = type(model).__name__
    try:
        graph = model.describe_graph()
    except Exception as error:  # a plugin may raise anything
        raise BrokenPlugin(f"{name}.describe_graph() raises {type(error).__name__}: {error!s:.200}") from error
    problem = _find_problem(graph, {"B": 1, "T": 1}, 0) or _find_problem_of_model(graph, model)
    if problem:
        raise BrokenPlugin(f"{name}.describe_graph(): {problem}.")
    checked: ModelGraph = graph
    return checked


def all_nodes(graph: ModelGraph) -> Iterator[GraphNode]:
    """Yield every node of a graph and of the insides of its nodes."""
    for node in graph.nodes:
        yield node
        if node.inside is not None:
            yield from all_nodes(node.inside)


def parameter_sizes(model: Any) -> dict[str, int]:
    """Return the number of values of each parameter of a module, or of each tensor of another model, by name."""
    named = model.named_parameters() if hasattr(model, "named_parameters") else model.state_dict().items()
    return {name: tensor.numel() for name, tensor in named}


def _find_problem(graph: Any, sizes: Mapping[str, int], depth: int) -> str | None:
    """Return what is wrong with a graph or an inside, by itself."""
    if not isinstance(graph, ModelGraph):
        return f"it must be a ModelGraph; got a {type(graph).__name__}"
    if depth > _DEPTH:
        return f"its insides are nested more than {_DEPTH} times"
    sizes = {**sizes, **graph.sizes}
    names = [node.id for node in graph.nodes]
    if wrong := [name for name in names if not name or "/" in name or names.count(name) > 1]:
        return f"{wrong[0]!r} must name one node, without a slash"
    ends = _ends(graph)
    for edge in graph.edges:
        if problem := _find_problem_of_edge(edge, ends, sizes) or _find_problem_of_port(edge, graph):
            return f"the edge from {edge.source!r} to {edge.target!r} {problem}"
    if circle := _find_circle(graph):
        return f"edges without a delay form a circle: {', '.join(circle)}"
    for node in graph.nodes:
        if node.inside is not None and (problem := _find_problem(node.inside, sizes, depth + 1)):
            return f"inside {node.id!r}, {problem}"
    return None


def _ends(graph: ModelGraph) -> set[str]:
    """Return what an edge may lead from or to."""
    inner = {f"{node.id}/{each.id}" for node in graph.nodes if node.inside is not None for each in node.inside.nodes}
    return {node.id for node in graph.nodes} | inner


def _find_problem_of_port(edge: GraphEdge, graph: ModelGraph) -> str | None:
    """Return what is wrong with an edge's ends inside nodes: one that it leads to is computed from others, or the reverse."""
    for end, taken, side in (edge.target, "target", "an input"), (edge.source, "source", "an output"):
        name, slash, port = end.partition("/")
        inside = next(node.inside for node in graph.nodes if node.id == name)
        if slash and inside is not None and any(getattr(each, taken) == port for each in inside.edges):
            return f"needs {side} of {name!r}; {port!r} is none"
    return None


def _find_problem_of_edge(edge: GraphEdge, ends: set[str], sizes: Mapping[str, int]) -> str | None:
    for end in edge.source, edge.target:
        if end not in ends:
            return f"needs nodes of the graph; {end!r} is none"
    if edge.delay < 0:
        return f"has the delay {edge.delay}; it must be 0 or more"
    for axis in edge.axes:
        if axis_size(axis, sizes) is None:
            return f"has the axis {axis!r}; it must be a number or one of the letters {', '.join(sorted(sizes))}, as H or 4H"
    return None


def _find_circle(graph: ModelGraph) -> list[str]:
    """Return the nodes of a circle; a delayed edge from a node to itself is the only one allowed."""
    before: dict[str, set[str]] = {node.id: set() for node in graph.nodes}
    for edge in graph.edges:
        source, target = edge.source.partition("/")[0], edge.target.partition("/")[0]
        if not (edge.delay and source == target):
            before[target].add(source)
    try:
        TopologicalSorter(before).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return circle
    return []


def _find_problem_of_model(graph: ModelGraph, model: Any) -> str | None:
    """Return what is wrong with a graph that is sound by itself, as one of this model."""
    nodes = list(all_nodes(graph))
    if len(nodes) > MAX_NODES:
        return f"it has {len(nodes)} nodes; a picture has at most {MAX_NODES}"
    if missing := [name for name in ("ids", "logits") if name not in {node.id for node in graph.nodes}]:
        return f"it has no node {missing[0]!r}"
    if graph.sizes.get("V") != model.config.vocab_size:
        return f"the size of V must be {model.config.vocab_size}, the vocabulary's; got {graph.sizes.get('V')}"
    used = [name for node in nodes for name in node.parameters]
    known = parameter_sizes(model)
    if unknown := [name for name in used if name not in known]:
        return f"the model has no parameter {unknown[0]!r}"
    if twice := [name for name in used if used.count(name) > 1]:
        return f"the parameter {twice[0]!r} belongs to two nodes"
    if hasattr(model, "named_parameters") and (unused := known.keys() - set(used)):
        return f"the parameter {min(unused)!r} belongs to no node"
    return None
