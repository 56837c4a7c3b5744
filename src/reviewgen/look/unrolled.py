"""A graph over several tokens: a column for each token, states as arrows from column to column, and insides once, below."""

from collections.abc import Sequence
from dataclasses import replace
from graphlib import TopologicalSorter
from itertools import pairwise

from reviewgen.look.drawing import Area, Drawn, Style, draw_frame, draw_graph, draw_value, loop_label, node_of, state_line
from reviewgen.protocols.graph import GraphEdge, GraphNode, ModelGraph
from reviewgen.web.svg import DETAIL, Lines, block, block_size, moved, wrap

_BETWEEN = 34.0  # columns, at least
_DETAIL_WIDTH, _STATE_WIDTH = 118.0, 84.0  # of a detail, and of the shape of a state, before they are wrapped
_ABOVE = 26.0  # what is inside


def unroll(graph: ModelGraph, steps: int, style: Style) -> Drawn:
    """Draw a graph over a number of tokens."""
    loops: dict[str, list[GraphEdge]] = {}
    for edge in graph.edges:
        if edge.delay and node_of(edge.source) == node_of(edge.target):
            loops.setdefault(node_of(edge.source), []).append(edge)
    flat = replace(style, has_sizes=False, widest=_DETAIL_WIDTH, counts={}, order=_order(graph, list(loops)))
    columns = [draw_graph(_column(graph, step + 1), flat) for step in range(steps)]
    labels = {name: _state_lines(edges, flat) for name, edges in loops.items()}
    starts = {name: draw_value(_start(edges), name) for name, edges in loops.items()}
    between = max([_BETWEEN, *(block_size(lines)[0] + 22.0 for lines in labels.values())])
    x = max((start.width for start in starts.values()), default=0.0) + (between if starts else 0.0)
    content, rows = list[str](), {name: list[Area]() for name in loops}
    for name, start in starts.items():
        first = columns[0].inside[name]
        y = (first.top + first.bottom - start.height) / 2
        content.append(moved(start.content, 0.0, y))
        rows[name].append(start.box.moved(0.0, y))
    for column in columns:
        content.append(moved(column.content, x, 0.0))
        for name, row in rows.items():
            row.append(column.inside[name].moved(x, 0.0))
        x += column.width + between
    width, height = x - between + (0.8 * _BETWEEN if loops else 0.0), max(column.height for column in columns)
    for name, row in rows.items():
        for place, other in pairwise(row):
            content += _state(place, other.left, labels[name])
        content += _state(row[-1], width, [])
    for node in graph.nodes:
        if node.inside is not None:
            panel = draw_frame(replace(node, label=f"inside each {node.label}"), node.inside, style)
            wider = max(width, panel.width)
            content = [moved(content, (wider - width) / 2, 0.0), moved(panel.content, (wider - panel.width) / 2, height + _ABOVE)]
            width, height = wider, height + _ABOVE + panel.height
    return Drawn(content, width, height, Area(0.0, width, 0.0, height), {})


def _order(graph: ModelGraph, stateful: list[str]) -> tuple[tuple[str, str], ...]:
    """Return which nodes with a state stand above which, so that each has a row for its arrows."""
    before: dict[str, set[str]] = {node.id: set() for node in graph.nodes}
    for edge in graph.edges:
        if not edge.delay:
            before[node_of(edge.target)].add(node_of(edge.source))
    above: dict[str, set[str]] = {}  # all that a node depends on
    for name in TopologicalSorter(before).static_order():
        above[name] = {name}.union(*(above[each] for each in before[name]))
    rows = sorted(stateful, key=lambda name: len(above[name]))
    return tuple((one, other) for one, other in pairwise(rows) if one not in above[other])


def _column(graph: ModelGraph, step: int) -> ModelGraph:
    """Return the graph of one token: no insides, no states, no axis of time."""
    nodes = tuple(_collapse(node, step) for node in graph.nodes)
    edges = [replace(each, source=node_of(each.source), target=node_of(each.target)) for each in graph.edges]
    kept = [replace(edge, axes=tuple(axis for axis in edge.axes if axis != "T")) for edge in edges if edge.source != edge.target]
    return replace(graph, nodes=nodes, edges=tuple(kept))


def _collapse(node: GraphNode, step: int) -> GraphNode:
    label = f"{node.label}_{{{step}}}" if node.kind == "value" else node.label
    return replace(node, label=label, parameters=(), inside=None)


def _start(loops: Sequence[GraphEdge]) -> str:
    """Return the name of a state before the first token."""
    short = [f"{loop.label}_{{0}}" for loop in loops if 0 < len(loop.label) < 4]
    return ", ".join(short) if len(short) == len(loops) else "start"


def _state_lines(loops: Sequence[GraphEdge], style: Style) -> Lines:
    """Return the names above a state's arrow, and the lines of its shapes below it."""
    name, *shapes = loop_label(loops, style)
    return [name, *((part, size, role) for text, size, role in shapes for part in wrap(text, size, _STATE_WIDTH))]


def _state(place: Area, end: float, lines: Lines) -> list[str]:
    """Return the arrow of a state from the right of a box, with its name above and its shapes below it."""
    y, middle = (place.top + place.bottom) / 2, (place.right + end) / 2 - 2.0
    above = block(lines[:1], middle, y - 1.5 * DETAIL, "middle")
    return [state_line((place.right, y), (end, y)), *above, *block(lines[1:], middle, y + 3.0, "middle")]
