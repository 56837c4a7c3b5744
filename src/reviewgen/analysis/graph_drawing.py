"""From a graph to SVG: boxes with their texts, frames around what is inside a box, lines, loops and
shapes. Units are pixels.

What is inside a box is laid out first, by the same functions; around it the box is as large as
that. A delayed edge is a loop on the right of its node; a window of tokens is one line. Must not
know models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter
from itertools import pairwise
from typing import NamedTuple

from reviewgen.analysis.graph_layout import LayoutEdge, Route, compute_layout
from reviewgen.protocols.graph import GraphEdge, GraphNode, ModelGraph, axis_size
from reviewgen.web.svg import (
    DETAIL,
    LABEL,
    NOTE,
    Lines,
    block,
    block_size,
    moved,
    number,
    shorten,
    tag,
    text_width,
    wrap,
)

_PAD_X = 11.0  # inside a box, on its left and right
_PAD_Y = 6.0  # inside a box, above and below its text
_FRAME = 10.0  # inside a frame, around its boxes
_TITLE = 22.0  # height of the title of a frame
_LANE = 13.0  # between loops that are side by side
_TURN = 9.0  # between loops that are above one another
_ARROW = 7.0
_BETWEEN = 30.0  # columns of tokens, at least
_DETAIL_WIDTH = 118.0  # of a detail in a column, before it is wrapped
_STATE_WIDTH = 84.0  # of the shape of a state between columns, before it is wrapped
_ABOVE = 26.0  # what is inside, below the columns


@dataclass(frozen=True)
class Style:
    """How a graph is drawn.

    Attributes:
        sizes: The size of each letter.
        counts: The number of values of each parameter.
        has_sizes: Whether shapes are shown with sizes, too.
        widest: The width at which details are wrapped.
    """

    sizes: Mapping[str, int]
    counts: Mapping[str, int]
    has_sizes: bool = True
    widest: float = 230.0


class Box(NamedTuple):
    """The edges of a box."""

    left: float
    right: float
    top: float
    bottom: float

    @property
    def x(self) -> float:
        """Its middle, where lines enter and leave it."""
        return (self.left + self.right) / 2

    def moved(self, x: float, y: float) -> "Box":
        """Return it further to the right and further down."""
        return Box(self.left + x, self.right + x, self.top + y, self.bottom + y)


class DrawnNode(NamedTuple):
    """A part of a picture: its elements, its size with its loops, its box, and the boxes of what is
    inside by name.
    """

    content: list[str]
    width: float
    height: float
    box: Box
    inside: dict[str, Box]


def draw_graph(graph: ModelGraph, style: Style, order: Sequence[LayoutEdge] = ()) -> DrawnNode:
    """Draw a graph; ``order`` has constraints (upper, lower)."""
    style = replace(style, sizes={**style.sizes, **graph.sizes})
    edges, loops = _split_edges(graph)
    parts = {node.id: _draw_node(node, loops.get(node.id, []), style) for node in graph.nodes}
    sources = {_node_of(edge.source) for edge in edges}
    last = [
        node.id
        for node in graph.nodes
        if node.kind == "value" and node.id not in sources and len(graph.nodes) > 1
    ]
    labels = [_label(edge, style) for edge in edges]
    links = [_link(edge, parts, lines) for edge, lines in zip(edges, labels, strict=True)]
    layout = compute_layout(
        {name: (part.width, part.height) for name, part in parts.items()}, [*links, *order], last
    )
    content = [moved(part.content, *layout.corners[name]) for name, part in parts.items()]
    for edge, route, lines in zip(edges, layout.routes, labels, strict=False):
        ends = [
            _end(end, parts).moved(*layout.corners[_node_of(end)])
            for end in (edge.source, edge.target)
        ]
        content.append(_line(route, ends[0].bottom, ends[1].top))
        content += [] if route.label is None else block(lines, *route.label)
    boxes = {name: part.box.moved(*layout.corners[name]) for name, part in parts.items()}
    return DrawnNode(
        content, layout.width, layout.height, Box(0.0, layout.width, 0.0, layout.height), boxes
    )


def _split_edges(graph: ModelGraph) -> tuple[list[GraphEdge], dict[str, list[GraphEdge]]]:
    """Return the edges that are lines, one for all tokens of a window, and those that are loops, by
    their node.
    """
    loops: dict[str, list[GraphEdge]] = {}
    windows: dict[tuple[str, str], list[GraphEdge]] = {}
    for edge in graph.edges:
        if edge.delay and _node_of(edge.source) == _node_of(edge.target):
            loops.setdefault(_node_of(edge.source), []).append(edge)
        else:
            windows.setdefault((edge.source, edge.target), []).append(edge)
    lines = [
        (
            replace(edges[-1], delay=0, label=f"of {len(edges)} tokens")
            if any(edge.delay for edge in edges)
            else edges[0]
        )
        for edges in windows.values()
    ]
    return lines, loops


def _node_of(end: str) -> str:
    """Return the node of an edge's end."""
    return end.partition("/")[0]


def _end(end: str, parts: Mapping[str, DrawnNode]) -> Box:
    """Return the box at which an edge ends: that of a node, or of what it names inside."""
    node, _, port = end.partition("/")
    return parts[node].inside.get(port, parts[node].box)


def _link(edge: GraphEdge, parts: Mapping[str, DrawnNode], lines: Lines) -> LayoutEdge:
    source = parts[_node_of(edge.source)]
    target = parts[_node_of(edge.target)]
    enters: float | None = _end(edge.target, parts).x - target.width / 2
    is_free = _end(edge.target, parts) is target.box and not enters
    leaves = _end(edge.source, parts).x - source.width / 2
    return LayoutEdge(
        _node_of(edge.source),
        _node_of(edge.target),
        leaves,
        None if is_free else enters,
        *block_size(lines),
    )


def shape_text(edge: GraphEdge) -> str:
    """Return the letters of an edge's shape, as in "(B, T, 4H)"; empty if it has none."""
    return f"({', '.join(map(str, edge.axes))})" if edge.axes else ""


def _label(edge: GraphEdge, style: Style) -> Lines:
    """Return what stands beside an edge: its name, and its shape in letters and sizes."""
    shape = shape_text(edge)
    is_short = 0 < len(edge.label) < 4
    lines = [edge.label] if edge.label and not (is_short and shape) else []
    lines += [f"{edge.label} {shape}" if is_short else shape] if shape else []
    sizes = [axis_size(axis, style.sizes) for axis in edge.axes]
    is_known = (
        style.has_sizes and any(isinstance(axis, str) for axis in edge.axes) and None not in sizes
    )
    notes = [(" × ".join(f"{size:,}" for size in sizes), NOTE, "note")] if is_known else []
    return [*((line, DETAIL, "shape") for line in lines), *notes]


def _loop_label(loops: Sequence[GraphEdge], style: Style) -> Lines:
    """Return the names of a node's states, then each of their shapes."""
    names = ", ".join(loop.label for loop in loops if loop.label)
    shapes = [
        GraphEdge(source="", target="", axes=axes)
        for axes in dict.fromkeys(loop.axes for loop in loops)
    ]
    return [(names, DETAIL, "shape"), *(line for shape in shapes for line in _label(shape, style))]


def _line(route: Route, start: float, end: float) -> str:
    """Return a line from one box down to another, and its arrow."""
    path = ""
    before_x, before_y = (0.0, 0.0)
    for n, (x, top, bottom) in enumerate(route.pieces):
        is_last = n == len(route.pieces) - 1
        top = top if n else start
        bottom = end - 0.7 * _ARROW if is_last else bottom
        middle = number((before_y + top) / 2)
        path += f"C{number(before_x)} {middle} {number(x)} {middle} " if n else "M"
        path += f"{number(x)} {number(top)}V{number(bottom)}"
        before_x = x
        before_y = bottom
    return tag("path", class_="edge", d=path) + _arrow(before_x, end, 0.0, 1.0, "head")


def _state_line(*points: tuple[float, float]) -> str:
    """Return a dashed line through corners, horizontal or vertical between each two, and its
    arrow.
    """
    path = "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points)
    (before_x, before_y), (x, y) = points[-2:]
    dx = float(x > before_x) - float(x < before_x)
    dy = float(y > before_y) - float(y < before_y)
    return tag("path", class_="edge loop", d=path) + _arrow(x, y, dx, dy, "head loop-head")


def _arrow(x: float, y: float, dx: float, dy: float, role: str) -> str:
    back_x = x - _ARROW * dx
    back_y = y - _ARROW * dy
    half = _ARROW / 2
    one = (back_x + half * dy, back_y + half * dx)
    other = (back_x - half * dy, back_y - half * dx)
    return tag(
        "path",
        class_=role,
        d="M" + "L".join(f"{number(a)} {number(b)}" for a, b in ((x, y), one, other)) + "Z",
    )


def _draw_node(node: GraphNode, loops: Sequence[GraphEdge], style: Style) -> DrawnNode:
    """Draw a node: a box, or a frame around its inside; and its loops."""
    drawn = _draw_box(node, style) if node.inside is None else _draw_frame(node, node.inside, style)
    return _draw_loops(drawn, loops, style) if loops else drawn


def _draw_box(node: GraphNode, style: Style) -> DrawnNode:
    lines: Lines = [(shorten(node.label), LABEL, "label")] if node.label else []
    lines += [(shorten(line), DETAIL, "detail") for line in wrap(node.detail, DETAIL, style.widest)]
    if node.parameters and style.counts and (node.kind != "operation" or node.detail):
        lines.append(
            (f"{sum(style.counts[name] for name in node.parameters):,} parameters", NOTE, "note")
        )
    pad_x, pad_y = (8.0, 3.0) if node.kind == "value" else (_PAD_X, _PAD_Y)
    text_height = block_size(lines)[1]
    width = max(30.0, block_size(lines)[0] + 2 * pad_x)
    height = max(26.0, text_height + 2 * pad_y)
    kind = "gap" if node.kind == "operation" and node.label == "…" else node.kind
    radius = min(height / 2, 14.0) if node.kind == "value" else 6.0
    box = tag("rect", class_=f"box {kind}", x=0, y=0, width=width, height=height, rx=radius)
    content = [box, *block(lines, width / 2, (height - text_height) / 2, "middle")]
    return DrawnNode(content, width, height, Box(0.0, width, 0.0, height), {})


def _draw_frame(node: GraphNode, inside: ModelGraph, style: Style) -> DrawnNode:
    """Draw a frame around the inside of a node."""
    inner = draw_graph(inside, replace(style, has_sizes=False))
    title = shorten(f"{node.label}, {node.detail}" if node.detail else node.label)
    needed = text_width(title, DETAIL)
    width = max(inner.width + 2 * _FRAME, needed + 3 * _FRAME)
    height = inner.height + _TITLE + _FRAME
    left = (width - inner.width) / 2
    boxes = {name: box.moved(left, _TITLE) for name, box in inner.inside.items()}
    first = min((box.top for box in boxes.values()), default=0.0)
    at = _FRAME
    # of lines that may not cross the title
    for x in sorted(box.x for box in boxes.values() if box.top <= first + 14.0):
        at = x + 8.0 if at - 4.0 < x < at + needed + 4.0 else at
    at = at if at + needed + _FRAME <= width else _FRAME
    frame = tag("rect", class_="frame", x=0, y=0, width=width, height=height, rx=10)
    content = [
        frame,
        moved(inner.content, left, _TITLE),
        *block([(title, DETAIL, "label")], at, 4.0),
    ]
    return DrawnNode(content, width, height, Box(0.0, width, 0.0, height), boxes)


def _draw_loops(drawn: DrawnNode, loops: Sequence[GraphEdge], style: Style) -> DrawnNode:
    """Add loops on the right, nested so that they do not cross, and one label for all that have one
    shape.
    """
    ports = [(loop.source.partition("/")[2], loop.target.partition("/")[2]) for loop in loops]
    by_input = {target: (source, target) for source, target in ports if target in drawn.inside}
    lanes = sorted(by_input.values(), key=lambda pair: drawn.inside[pair[1]].x) or ports[:1]
    lines = [*_loop_label(loops, style), ("to the next", NOTE, "note"), ("token", NOTE, "note")]
    lines = lines[1:] if not lines[0][0] else lines
    label_width, label_height = block_size(lines)
    above, below = (
        _TURN * (len(lanes) + 1) if any(lane[side] in drawn.inside for lane in lanes) else 0.0
        for side in (1, 0)
    )
    right = drawn.width + 6.0 + _LANE * len(lanes)
    height = max(drawn.height + above + below, label_height)
    top = above + (height - drawn.height - above - below) / 2
    box = drawn.box.moved(0.0, top)
    inside = {name: area.moved(0.0, top) for name, area in drawn.inside.items()}
    content = [moved(drawn.content, 0.0, top)]
    for n, (source, target) in enumerate(lanes):  # the first is the outermost
        depth = len(lanes) - n
        lane = drawn.width + 6.0 + _LANE * (depth - 0.5)
        turn = _TURN * depth
        low = box.top + 0.75 * drawn.box.bottom
        high = box.top + 0.25 * drawn.box.bottom
        start = [(box.right, low), (lane, low)]
        end = [(lane, high), (box.right, high)]
        if source in inside:
            x = inside[source].x
            y = box.bottom + turn
            start = [(x, inside[source].bottom), (x, y), (lane, y)]
        if target in inside:
            x = inside[target].x
            y = box.top - turn
            end = [(lane, y), (x, y), (x, inside[target].top)]
        content.append(_state_line(*start, *end))
    content += block(
        lines, right + 5.0, max(0.0, box.top + drawn.box.bottom / 2 - label_height / 2)
    )
    return DrawnNode(content, right + 5.0 + label_width, height, box, inside)


def draw_tokens(graph: ModelGraph, steps: int, style: Style) -> DrawnNode:
    """Draw a graph over a number of tokens: a column for each, states as arrows between columns,
    and insides once, below.
    """
    _, loops = _split_edges(graph)
    flat = replace(style, has_sizes=False, widest=_DETAIL_WIDTH, counts={})
    order = _order(graph, list(loops))
    columns = [draw_graph(_column(graph, step + 1), flat, order) for step in range(steps)]
    labels = {name: _state_lines(edges, flat) for name, edges in loops.items()}
    columns = [_draw_starts(loops, columns[0], flat), *columns] if loops else columns
    between = _BETWEEN
    for left, right in pairwise(columns):  # each arrow has room for its label
        for name, lines in labels.items():
            arrow = left.width - left.inside[name].right + right.inside[name].left
            between = max(between, block_size(lines)[0] + 22.0 - arrow)
    content = list[str]()
    rows = {name: list[Box]() for name in loops}
    x = 0.0
    for column in columns:
        content.append(moved(column.content, x, 0.0))
        for name, row in rows.items():
            row.append(column.inside[name].moved(x, 0.0))
        x += column.width + between
    width = x - between + (0.8 * _BETWEEN if loops else 0.0)
    height = max(column.height for column in columns)
    for name, row in rows.items():
        for box, other in pairwise(row):
            content += _state(box, other.left, labels[name])
        content += _state(row[-1], width, [])
    for node in graph.nodes:
        if node.inside is not None:
            panel = _draw_frame(
                replace(node, label=f"inside each {node.label}"), node.inside, style
            )
            wider = max(width, panel.width)
            content = [
                moved(content, (wider - width) / 2, 0.0),
                moved(panel.content, (wider - panel.width) / 2, height + _ABOVE),
            ]
            width = wider
            height = height + _ABOVE + panel.height
    return DrawnNode(content, width, height, Box(0.0, width, 0.0, height), {})


def _order(graph: ModelGraph, stateful: list[str]) -> list[LayoutEdge]:
    """Return which nodes stand below those with a state, so that each of these has a row for its
    arrows.
    """
    before: dict[str, set[str]] = {node.id: set() for node in graph.nodes}
    for edge in graph.edges:
        if not edge.delay:
            before[_node_of(edge.target)].add(_node_of(edge.source))
    above: dict[str, set[str]] = {}  # all that a node depends on
    for name in TopologicalSorter(before).static_order():
        above[name] = {name}.union(*(above[source] for source in before[name]))
    rows = sorted(stateful, key=lambda name: len(above[name]))
    upper = set[str]()
    order = list[LayoutEdge]()
    for row in rows:
        upper |= above[row]
        order += [
            LayoutEdge(row, name) for name in above if name not in upper and row not in above[name]
        ]
    return order


def _column(graph: ModelGraph, step: int) -> ModelGraph:
    """Return the graph of one token: no insides, no states, no axis of time."""
    labels = {
        node.id: f"{node.label}_{{{step}}}" if node.kind == "value" else node.label
        for node in graph.nodes
    }
    nodes = tuple(
        replace(node, label=labels[node.id], parameters=(), inside=None) for node in graph.nodes
    )
    edges = [
        replace(edge, source=_node_of(edge.source), target=_node_of(edge.target))
        for edge in graph.edges
    ]
    kept = [
        replace(edge, axes=tuple(axis for axis in edge.axes if axis != "T"))
        for edge in edges
        if edge.source != edge.target
    ]
    return replace(graph, nodes=nodes, edges=tuple(kept))


def _draw_starts(
    loops: Mapping[str, Sequence[GraphEdge]], first: DrawnNode, style: Style
) -> DrawnNode:
    """Draw the states before the first token, beside the nodes of the first column that take
    them.
    """
    content = list[str]()
    inside = dict[str, Box]()
    for name, edges in loops.items():
        short = [f"{loop.label}_{{0}}" for loop in edges if 0 < len(loop.label) < 4]
        label = ", ".join(short) if len(short) == len(edges) else "start"
        start = _draw_box(GraphNode(id=name, label=label, kind="value"), style)
        node = first.inside[name]
        y = (node.top + node.bottom - start.height) / 2
        content.append(moved(start.content, 0.0, y))
        inside[name] = start.box.moved(0.0, y)
    width = max(box.right for box in inside.values())
    return DrawnNode(content, width, first.height, Box(0.0, width, 0.0, first.height), inside)


def _state_lines(loops: Sequence[GraphEdge], style: Style) -> Lines:
    """Return the names above a state's arrow, and the lines of its shapes below it."""
    name, *shapes = _loop_label(loops, style)
    return [
        name,
        *(
            (part, size, role)
            for text, size, role in shapes
            for part in wrap(text, size, _STATE_WIDTH)
        ),
    ]


def _state(box: Box, end: float, lines: Lines) -> list[str]:
    """Return the arrow of a state from the right of a box, with its name above and its shapes below
    it.
    """
    y = (box.top + box.bottom) / 2
    middle = (box.right + end) / 2 - 2.0
    above = block(lines[:1], middle, y - 1.5 * DETAIL, "middle")
    return [
        _state_line((box.right, y), (end, y)),
        *above,
        *block(lines[1:], middle, y + 3.0, "middle"),
    ]
