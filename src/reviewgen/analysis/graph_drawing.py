"""Draws a graph as SVG: boxes with texts, frames, lines with the shapes of tensors, and loops. All
lengths are in pixels.

A node that has an inside is drawn as a frame. Its inside is laid out first, by the same functions,
and determines the size of the frame. A delayed edge from a node to itself is a loop on the right of
the node. The edges of a window of tokens are drawn as one line. Must not know models.
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

_PAD_X = 11.0  # padding of a box on its left and right
_PAD_Y = 6.0  # padding of a box above and below its text
_FRAME = 10.0  # padding of a frame around its boxes
_TITLE = 22.0  # height of the title of a frame
_LANE = 13.0  # distance between the vertical lines of two loops
_TURN = 9.0  # distance between the horizontal lines of two loops
_ARROW = 7.0  # length and width of an arrowhead
_BETWEEN = 30.0  # minimum distance between the columns of two tokens
_DETAIL_WIDTH = 118.0  # width at which a detail in the column of a token is wrapped
_STATE_WIDTH = 84.0  # width at which the shape of a state between columns is wrapped
_ABOVE = 26.0  # space between the columns and the inside of a node, which is drawn below them


@dataclass(frozen=True)
class Style:
    """How a graph is drawn.

    Attributes:
        sizes: The size of each letter.
        counts: The number of values of each parameter.
        has_sizes: Whether a shape is shown in sizes, too, and not only in letters.
        widest: The width at which details are wrapped.
    """

    sizes: Mapping[str, int]
    counts: Mapping[str, int]
    has_sizes: bool = True
    widest: float = 230.0


class Box(NamedTuple):
    """The positions of the edges of a box."""

    left: float
    right: float
    top: float
    bottom: float

    @property
    def x(self) -> float:
        """The horizontal centre, where lines enter and leave the box."""
        return (self.left + self.right) / 2

    def moved(self, x: float, y: float) -> "Box":
        """Return the box moved to the right by ``x`` and down by ``y``."""
        return Box(self.left + x, self.right + x, self.top + y, self.bottom + y)


class DrawnNode(NamedTuple):
    """A drawn node: its SVG elements, its size including loops, its box without loops, and the
    boxes of the nodes inside it, by name.
    """

    content: list[str]
    width: float
    height: float
    box: Box
    inside: dict[str, Box]

    @classmethod
    def of(
        cls, content: list[str], width: float, height: float, inside: dict[str, Box]
    ) -> "DrawnNode":
        """Return a node without loops; its box is as large as the node."""
        return cls(content, width, height, Box(0.0, width, 0.0, height), inside)


def draw_graph(graph: ModelGraph, style: Style, order: Sequence[LayoutEdge] = ()) -> DrawnNode:
    """Draw a graph.

    Args:
        graph: The graph.
        style: How it is drawn.
        order: Constraints on the layout, as edges that are not drawn: the source of each edge
            stands above its target.
    """
    style = replace(style, sizes={**style.sizes, **graph.sizes})
    edges, loops = _split_edges(graph)
    drawn = {node.id: _draw_node(node, loops.get(node.id, []), style) for node in graph.nodes}
    sources = {_node_of(edge.source) for edge in edges}
    values = [node.id for node in graph.nodes if node.kind == "value"]
    # results stand at the bottom
    last = [name for name in values if name not in sources] if len(drawn) > 1 else []
    labels = [_label(edge, style) for edge in edges]
    links = [_layout_edge(edge, drawn, lines) for edge, lines in zip(edges, labels, strict=True)]
    sizes = {name: (node.width, node.height) for name, node in drawn.items()}
    layout = compute_layout(sizes, [*links, *order], last)
    corners = layout.corners
    content = [moved(node.content, *corners[name]) for name, node in drawn.items()]
    # the routes of ``order`` come last, and zip leaves them out
    for edge, route, lines in zip(edges, layout.routes, labels, strict=False):
        start = _end(edge.source, drawn).moved(*corners[_node_of(edge.source)])
        end = _end(edge.target, drawn).moved(*corners[_node_of(edge.target)])
        content.append(_edge_line(route, start.bottom, end.top))
        if route.label is not None:
            content += block(lines, *route.label)
    boxes = {name: node.box.moved(*corners[name]) for name, node in drawn.items()}
    return DrawnNode.of(content, layout.width, layout.height, boxes)


def _split_edges(graph: ModelGraph) -> tuple[list[GraphEdge], dict[str, list[GraphEdge]]]:
    """Return the edges to draw as lines, and the edges to draw as loops, by node. A loop is a
    delayed edge from a node to itself. The edges of a window of tokens become one line.
    """
    loops = dict[str, list[GraphEdge]]()
    windows = dict[tuple[str, str], list[GraphEdge]]()
    for edge in graph.edges:
        if edge.delay and _node_of(edge.source) == _node_of(edge.target):
            loops.setdefault(_node_of(edge.source), []).append(edge)
        else:
            windows.setdefault((edge.source, edge.target), []).append(edge)
    lines = []
    for edges in windows.values():
        line = edges[0]
        if any(edge.delay for edge in edges):
            line = replace(edges[-1], delay=0, label=f"of {len(edges)} tokens")
        lines.append(line)
    return lines, loops


def _node_of(end: str) -> str:
    """Return the node in ``node`` or ``node/port``, the end of an edge."""
    return end.partition("/")[0]


def _end(end: str, drawn: Mapping[str, DrawnNode]) -> Box:
    """Return the box at which an edge ends: the box of a node, or of the port inside it."""
    name, _, port = end.partition("/")
    return drawn[name].inside.get(port, drawn[name].box)


def _layout_edge(edge: GraphEdge, drawn: Mapping[str, DrawnNode], lines: Lines) -> LayoutEdge:
    """Return an edge for the layout, with room for its label. It may enter a node anywhere, unless
    it leads to a port or the node has loops.
    """
    source = _node_of(edge.source)
    target = _node_of(edge.target)
    leaves_at = _end(edge.source, drawn).x - drawn[source].width / 2
    box = _end(edge.target, drawn)
    enters_at: float | None = box.x - drawn[target].width / 2
    # with loops on its right, the box is not in the middle of the drawn node
    if box is drawn[target].box and enters_at == 0:
        enters_at = None
    return LayoutEdge(source, target, leaves_at, enters_at, *block_size(lines))


def shape_text(edge: GraphEdge) -> str:
    """Return the letters of an edge's shape, as in "(B, T, 4H)"; empty if it has none."""
    return f"({', '.join(map(str, edge.axes))})" if edge.axes else ""


def _label(edge: GraphEdge, style: Style) -> Lines:
    """Return the lines of text beside an edge: its name, its shape in letters, and its shape in
    sizes.
    """
    texts = [edge.label, shape_text(edge)]
    if len(edge.label) < 4:  # a short name stands on one line with the shape
        texts = [" ".join(filter(None, texts))]
    lines = [(text, DETAIL, "shape") for text in texts if text]
    sizes = [axis_size(axis, style.sizes) for axis in edge.axes]
    has_letters = any(isinstance(axis, str) for axis in edge.axes)
    if style.has_sizes and has_letters and None not in sizes:
        lines.append((" × ".join(f"{size:,}" for size in sizes), NOTE, "note"))
    return lines


def _loop_label(loops: Sequence[GraphEdge], style: Style) -> Lines:
    """Return the lines of text beside the loops of a node: the names of its states, then each
    different shape.
    """
    names = ", ".join(loop.label for loop in loops if loop.label)
    lines: Lines = [(names, DETAIL, "shape")]
    for axes in dict.fromkeys(loop.axes for loop in loops):
        lines += _label(GraphEdge(source="", target="", axes=axes), style)
    return lines


def _edge_line(route: Route, start: float, end: float) -> str:
    """Return a line from one box down to another, with an arrow at its end. ``start`` is the y of
    the lower edge of the upper box, ``end`` the y of the upper edge of the lower box.
    """
    last_x, last_top, _ = route.pieces[-1]
    # the line ends inside the arrowhead
    pieces = [*route.pieces[:-1], (last_x, last_top, end - 0.7 * _ARROW)]
    path = f"M{number(pieces[0][0])} {number(start)}V{number(pieces[0][2])}"
    # between two vertical pieces: a curve that begins and ends vertically
    for (before_x, _, before_y), (x, top, bottom) in pairwise(pieces):
        middle = number((before_y + top) / 2)
        path += f"C{number(before_x)} {middle} {number(x)} {middle} {number(x)} {number(top)}"
        path += f"V{number(bottom)}"
    return tag("path", class_="edge", d=path) + _arrow(last_x, end, 0.0, 1.0, "head")


def _state_line(*points: tuple[float, float]) -> str:
    """Return a dashed line with an arrow at its end. ``points`` are its corners; it is horizontal
    or vertical between two of them.
    """
    (before_x, before_y), (x, y) = points[-2:]
    # the direction of the last piece: -1, 0 or 1 along each axis
    dx = float(x > before_x) - float(x < before_x)
    dy = float(y > before_y) - float(y < before_y)
    line = tag("path", class_="edge loop", d=_through(*points))
    return line + _arrow(x, y, dx, dy, "head loop-head")


def _through(*points: tuple[float, float]) -> str:
    """Return the SVG path of straight lines through some points."""
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points)


def _arrow(x: float, y: float, dx: float, dy: float, role: str) -> str:
    """Return an arrowhead with its tip at (x, y), in the direction (dx, dy), which is horizontal or
    vertical.
    """
    back_x = x - _ARROW * dx  # the middle of the side opposite the tip
    back_y = y - _ARROW * dy
    half = _ARROW / 2
    corner = (back_x + half * dy, back_y + half * dx)
    other_corner = (back_x - half * dy, back_y - half * dx)
    return tag("path", class_=role, d=_through((x, y), corner, other_corner) + "Z")


def _draw_node(node: GraphNode, loops: Sequence[GraphEdge], style: Style) -> DrawnNode:
    """Draw a node with its loops. It is a box, or a frame if it has an inside."""
    drawn = _draw_box(node, style) if node.inside is None else _draw_frame(node, node.inside, style)
    return _draw_loops(drawn, loops, style) if loops else drawn


def _draw_box(node: GraphNode, style: Style) -> DrawnNode:
    """Draw a node as a box with its label, its detail and its number of parameters."""
    lines: Lines = [(shorten(node.label), LABEL, "label")] if node.label else []
    lines += [(shorten(line), DETAIL, "detail") for line in wrap(node.detail, DETAIL, style.widest)]
    # an operation without a detail, such as a sum, shows no number of parameters
    if node.parameters and style.counts and (node.kind != "operation" or node.detail):
        count = sum(style.counts[name] for name in node.parameters)
        lines.append((f"{count:,} parameters", NOTE, "note"))
    is_value = node.kind == "value"
    pad_x, pad_y = (8.0, 3.0) if is_value else (_PAD_X, _PAD_Y)
    lines_width, lines_height = block_size(lines)
    width = max(30.0, lines_width + 2 * pad_x)
    height = max(26.0, lines_height + 2 * pad_y)
    radius = min(height / 2, 14.0) if is_value else 6.0
    # the label "…" stands for nodes that are left out
    kind = "gap" if node.kind == "operation" and node.label == "…" else node.kind
    box = tag("rect", class_=f"box {kind}", x=0, y=0, width=width, height=height, rx=radius)
    content = [box, *block(lines, width / 2, (height - lines_height) / 2, "middle")]
    return DrawnNode.of(content, width, height, {})


def _draw_frame(node: GraphNode, inside: ModelGraph, style: Style) -> DrawnNode:
    """Draw a frame around the inside of a node."""
    inner = draw_graph(inside, replace(style, has_sizes=False))
    title = shorten(f"{node.label}, {node.detail}" if node.detail else node.label)
    title_width = text_width(title, DETAIL)
    width = max(inner.width + 2 * _FRAME, title_width + 3 * _FRAME)
    height = inner.height + _TITLE + _FRAME
    left = (width - inner.width) / 2
    boxes = {name: box.moved(left, _TITLE) for name, box in inner.inside.items()}
    highest = min((box.top for box in boxes.values()), default=0.0)
    title_x = _FRAME
    # move the title to the right of the lines that would cross it, on their way to the upper boxes
    for x in sorted(box.x for box in boxes.values() if box.top <= highest + 14.0):
        if title_x - 4.0 < x < title_x + title_width + 4.0:
            title_x = x + 8.0
    if title_x + title_width + _FRAME > width:
        title_x = _FRAME  # there is no room on the right
    frame = tag("rect", class_="frame", x=0, y=0, width=width, height=height, rx=10)
    content = [
        frame,
        moved(inner.content, left, _TITLE),
        *block([(title, DETAIL, "label")], title_x, 4.0),
    ]
    return DrawnNode.of(content, width, height, boxes)


def _draw_loops(drawn: DrawnNode, loops: Sequence[GraphEdge], style: Style) -> DrawnNode:
    """Add the loops on the right of a node, nested so that they do not cross, and one label for all
    of them.
    """
    ports = [(loop.source.partition("/")[2], loop.target.partition("/")[2]) for loop in loops]
    # One lane for each port at which loops end, the leftmost port first. Without such ports, one
    # lane for all loops.
    by_target = {target: (source, target) for source, target in ports if target in drawn.inside}
    lanes = sorted(by_target.values(), key=lambda pair: drawn.inside[pair[1]].x) or ports[:1]
    lines = [*_loop_label(loops, style), ("to the next", NOTE, "note"), ("token", NOTE, "note")]
    if not lines[0][0]:  # the states have no names
        lines = lines[1:]
    label_width, label_height = block_size(lines)
    room = _TURN * (len(lanes) + 1)
    above = room if any(target in drawn.inside for _, target in lanes) else 0.0
    below = room if any(source in drawn.inside for source, _ in lanes) else 0.0
    height = max(drawn.height + above + below, label_height)
    top = above + (height - drawn.height - above - below) / 2
    box = drawn.box.moved(0.0, top)
    inside = {name: area.moved(0.0, top) for name, area in drawn.inside.items()}
    content = [moved(drawn.content, 0.0, top)]
    side = drawn.width + 6.0
    # rings are counted from the node outwards; the first lane is the outermost
    for (source, target), ring in zip(lanes, range(len(lanes), 0, -1), strict=True):
        lane = side + _LANE * (ring - 0.5)
        content.append(_loop(box, inside.get(source), inside.get(target), lane, _TURN * ring))
    left = side + _LANE * len(lanes) + 5.0
    middle = box.top + drawn.box.bottom / 2
    content += block(lines, left, max(0.0, middle - label_height / 2))
    return DrawnNode(content, left + label_width, height, box, inside)


def _loop(box: Box, source: Box | None, target: Box | None, lane: float, turn: float) -> str:
    """Return a loop on the right of a box.

    Args:
        box: The box.
        source: The inner box where the loop starts; None if it starts at the right edge of ``box``.
        target: The inner box where the loop ends; None if it ends at the right edge of ``box``.
        lane: The x of the vertical line of the loop.
        turn: The distance of its horizontal lines from the top and the bottom of ``box``.
    """
    low = box.top + 0.75 * (box.bottom - box.top)
    high = box.top + 0.25 * (box.bottom - box.top)
    start = [(box.right, low), (lane, low)]
    end = [(lane, high), (box.right, high)]
    if source is not None:
        y = box.bottom + turn
        start = [(source.x, source.bottom), (source.x, y), (lane, y)]
    if target is not None:
        y = box.top - turn
        end = [(lane, y), (target.x, y), (target.x, target.top)]
    return _state_line(*start, *end)


def draw_tokens(graph: ModelGraph, steps: int, style: Style) -> DrawnNode:
    """Draw a graph unrolled over ``steps`` tokens: a column for each token, and arrows between
    columns for the states. The inside of each node is drawn once, below the columns.
    """
    _, loops = _split_edges(graph)
    flat = replace(style, has_sizes=False, widest=_DETAIL_WIDTH, counts={})
    order = _keep_rows_free(graph, list(loops))
    columns = [draw_graph(_column(graph, step + 1), flat, order) for step in range(steps)]
    drawn = _join_columns(columns, loops, flat)
    for node in graph.nodes:
        if node.inside is not None:
            titled = replace(node, label=f"inside each {node.label}")
            panel = _draw_frame(titled, node.inside, style)
            width = max(drawn.width, panel.width)
            top = drawn.height + _ABOVE
            content = [
                moved(drawn.content, (width - drawn.width) / 2, 0.0),
                moved(panel.content, (width - panel.width) / 2, top),
            ]
            drawn = DrawnNode.of(content, width, top + panel.height, {})
    return drawn


def _join_columns(
    columns: Sequence[DrawnNode], loops: Mapping[str, Sequence[GraphEdge]], style: Style
) -> DrawnNode:
    """Put the columns of the tokens side by side, with the arrows of the states between them. The
    initial states stand on the left.
    """
    labels = {name: _state_lines(edges, style) for name, edges in loops.items()}
    if loops:
        columns = [_draw_starts(loops, columns[0], style), *columns]
    between = _BETWEEN
    for left, right in pairwise(columns):  # each arrow has room for its label
        for name, lines in labels.items():
            # the length of the arrow inside the two columns
            inner = left.width - left.inside[name].right + right.inside[name].left
            between = max(between, block_size(lines)[0] + 22.0 - inner)
    content = list[str]()
    rows = {name: list[Box]() for name in loops}  # the boxes of a node, from left to right
    x = 0.0
    for column in columns:
        content.append(moved(column.content, x, 0.0))
        for name, row in rows.items():
            row.append(column.inside[name].moved(x, 0.0))
        x += column.width + between
    width = x - between
    if loops:
        width += 0.8 * _BETWEEN  # for the arrows of the last states
    for name, row in rows.items():
        for box, next_box in pairwise(row):
            content += _state_arrow(box, next_box.left, labels[name])
        content += _state_arrow(row[-1], width, [])
    return DrawnNode.of(content, width, max(column.height for column in columns), {})


def _keep_rows_free(graph: ModelGraph, stateful: list[str]) -> list[LayoutEdge]:
    """Return constraints that keep other nodes out of the row of a node with a state, since the
    arrows of the state need this row. Each is a pair of an upper and a lower node.
    """
    sources_of: dict[str, set[str]] = {node.id: set() for node in graph.nodes}
    for edge in graph.edges:
        if not edge.delay:
            sources_of[_node_of(edge.target)].add(_node_of(edge.source))
    above = dict[str, set[str]]()  # for each node: itself and all nodes that it depends on
    for name in TopologicalSorter(sources_of).static_order():
        above[name] = {name}.union(*(above[source] for source in sources_of[name]))
    # Nodes are put below a stateful node, unless it or an earlier stateful node depends on them.
    # Nodes that depend on the stateful node are below it without a constraint.
    upper = set[str]()
    constraints = list[LayoutEdge]()
    for stateful_id in sorted(stateful, key=lambda name: len(above[name])):
        upper |= above[stateful_id]
        lower = [name for name in above if name not in upper and stateful_id not in above[name]]
        constraints += [LayoutEdge(stateful_id, name) for name in lower]
    return constraints


def _column(graph: ModelGraph, step: int) -> ModelGraph:
    """Return the graph of one token, without insides, states and the time axis."""
    nodes = []
    for node in graph.nodes:
        label = f"{node.label}_{{{step}}}" if node.kind == "value" else node.label
        nodes.append(replace(node, label=label, parameters=(), inside=None))
    edges = []
    for edge in graph.edges:
        source = _node_of(edge.source)
        target = _node_of(edge.target)
        if source != target:
            axes = tuple(axis for axis in edge.axes if axis != "T")
            edges.append(replace(edge, source=source, target=target, axes=axes))
    return replace(graph, nodes=tuple(nodes), edges=tuple(edges))


def _draw_starts(
    loops: Mapping[str, Sequence[GraphEdge]], first: DrawnNode, style: Style
) -> DrawnNode:
    """Draw the initial state of each recurrent node, on the left of its node in the first column.
    Its label is h_0, c_0 if the names of all states are short, otherwise "start".
    """
    content = list[str]()
    inside = dict[str, Box]()
    for name, edges in loops.items():
        label = "start"
        if all(0 < len(loop.label) < 4 for loop in edges):
            label = ", ".join(f"{loop.label}_{{0}}" for loop in edges)
        start = _draw_box(GraphNode(id=name, label=label, kind="value"), style)
        node = first.inside[name]
        y = (node.top + node.bottom - start.height) / 2
        content.append(moved(start.content, 0.0, y))
        inside[name] = start.box.moved(0.0, y)
    width = max(box.right for box in inside.values())
    return DrawnNode.of(content, width, first.height, inside)


def _state_lines(loops: Sequence[GraphEdge], style: Style) -> Lines:
    """Return the lines of text at the arrow of a state: the names, which stand above the arrow, and
    the wrapped shapes, which stand below it.
    """
    name, *shapes = _loop_label(loops, style)
    lines: Lines = [name]
    for text, size, role in shapes:
        lines += [(part, size, role) for part in wrap(text, size, _STATE_WIDTH)]
    return lines


def _state_arrow(box: Box, end: float, lines: Lines) -> list[str]:
    """Return the arrow of a state from the right edge of a box to the x ``end``, with the name
    above the arrow and the shapes below it.
    """
    y = (box.top + box.bottom) / 2
    middle = (box.right + end) / 2 - 2.0
    above = block(lines[:1], middle, y - 1.5 * DETAIL, "middle")
    below = block(lines[1:], middle, y + 3.0, "middle")
    return [_state_line((box.right, y), (end, y)), *above, *below]
