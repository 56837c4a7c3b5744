"""From a graph to a scene: boxes with their texts, frames around what is inside a box, lines, loops and shapes.

What is inside a box is laid out first, by the same functions; around it the box is as large as that. A delayed edge is a loop on
the right of its node. Must not know models; units are pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from reviewgen.graphs.layered import Item, Link, Route, place
from reviewgen.graphs.scene import DETAIL, LABEL, NOTE, Box, Frame, Line, Scene, block_size, stack
from reviewgen.graphs.text import shorten, text_width, wrap
from reviewgen.protocols.graph import GraphEdge, GraphNode, ModelGraph, axis_size

PAD_X, PAD_Y = 11.0, 6.0  # inside a box
FRAME = 10.0  # inside a frame
TITLE = 22.0  # of a frame
LANE = 13.0  # between loops side by side
TURN = 9.0  # between loops above one another
WIDEST = 230.0  # of a detail, before it is wrapped

Lines = list[tuple[str, float, str]]


@dataclass(frozen=True)
class Style:
    """How a graph is drawn.

    Attributes:
        sizes: The size of each letter.
        counts: The number of values of each parameter.
        has_sizes: Whether shapes are shown with sizes, too.
        widest: The width at which details are wrapped.
        rooms: The least height of the room between two nodes, by the ends of an edge.
        order: Pairs of nodes of which the first stands above the second.
    """

    sizes: Mapping[str, int]
    counts: Mapping[str, int]
    has_sizes: bool = True
    widest: float = WIDEST
    rooms: Mapping[tuple[str, str], float] = field(default_factory=dict)
    order: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class _Part:
    """The scene of a node with its loops.

    Attributes:
        scene: The scene; its size has room for the loops.
        centre: Where lines without a port leave and enter it.
        top, bottom: Where such lines end.
        ports: The place of each input and output of its inside: x, upper and lower edge.
    """

    scene: Scene
    centre: float
    top: float
    bottom: float
    ports: Mapping[str, tuple[float, float, float]]


def compose(graph: ModelGraph, style: Style) -> tuple[Scene, dict[str, tuple[float, float, float]]]:
    """Return the scene of a graph, and the place of each node: the x of its centre, its upper and its lower edge."""
    style = replace(style, sizes={**style.sizes, **graph.sizes})
    own = [edge for edge in graph.edges if not edge.delay]
    delayed = [edge for edge in graph.edges if edge.delay]
    parts = {node.id: _part(node, [each for each in delayed if _ends(each)[0][0] == node.id], style) for node in graph.nodes}
    sources = {_ends(edge)[0][0] for edge in own}
    results = {node.id for node in graph.nodes if node.kind == "value" and node.id not in sources and len(graph.nodes) > 1}
    items = {name: Item(part.scene.width, part.scene.height, name in results) for name, part in parts.items()}
    labels = [label_lines(edge, style) for edge in own]
    links = [_link(edge, parts, lines, style) for edge, lines in zip(own, labels, strict=True)]
    places = place(items, [*links, *(Link(upper, lower) for upper, lower in style.order)])
    scene = Scene(places.width, places.height)
    for name, part in parts.items():
        scene.add(part.scene, *places.corners[name])
    for edge, route, lines in zip(own, places.routes, labels, strict=False):
        _draw(scene, edge, route, lines, parts, places.corners)
    where = {
        name: (places.corners[name][0] + part.centre, places.corners[name][1] + part.top, places.corners[name][1] + part.bottom)
        for name, part in parts.items()
    }
    return scene, where


def compose_inside(node: GraphNode, inside: ModelGraph, style: Style) -> Scene:
    """Return the frame of a node with what is inside."""
    return _frame(node, inside, style).scene


def shape_text(edge: GraphEdge) -> str:
    """Return the letters of an edge's shape, as in "(B, T, 4H)"; empty if it has none."""
    return f"({', '.join(map(str, edge.axes))})" if edge.axes else ""


def label_lines(edge: GraphEdge, style: Style) -> Lines:
    """Return what stands beside an edge: its name, and its shape in letters and sizes."""
    lines: Lines = []
    shape = shape_text(edge)
    name = f"{edge.label} {shape}" if edge.label and len(edge.label) < 4 else shape
    if edge.label and name == shape:
        lines.append((edge.label, DETAIL, "shape"))
    if name:
        lines.append((name, DETAIL, "shape"))
    sizes = [axis_size(axis, style.sizes) for axis in edge.axes]
    if style.has_sizes and sizes and any(isinstance(axis, str) for axis in edge.axes) and None not in sizes:
        lines.append((" × ".join(f"{size:,}" for size in sizes), NOTE, "note"))
    return lines


def _node_lines(node: GraphNode, style: Style) -> Lines:
    """Return what stands in a box: the label, the detail, and the number of parameters."""
    is_small = node.kind == "operation" and not node.detail
    lines: Lines = [(shorten(node.label), LABEL, "label")] if node.label else []
    lines += [(shorten(line), DETAIL, "detail") for line in wrap(node.detail, DETAIL, style.widest)]
    if node.parameters and not is_small:
        lines.append((f"{sum(style.counts[name] for name in node.parameters):,} parameters", NOTE, "note"))
    return lines


def _ends(edge: GraphEdge) -> tuple[tuple[str, str], tuple[str, str]]:
    """Return the node and the port of both ends of an edge."""
    (source, _, output), (target, _, taken) = edge.source.partition("/"), edge.target.partition("/")
    return (source, output), (target, taken)


def _link(edge: GraphEdge, parts: Mapping[str, _Part], lines: Lines, style: Style) -> Link:
    (source, output), (target, taken) = _ends(edge)
    one, other = parts[source], parts[target]
    leaves = (one.ports[output][0] if output in one.ports else one.centre) - one.scene.width / 2
    enters = other.ports[taken][0] - other.scene.width / 2 if taken in other.ports else None
    if enters is None and other.centre != other.scene.width / 2:
        enters = other.centre - other.scene.width / 2
    width, height = block_size(lines)
    return Link(source, target, leaves, enters, (width, max(height, style.rooms.get((source, target), 0.0))))


def _draw(
    scene: Scene,
    edge: GraphEdge,
    route: Route,
    lines: Lines,
    parts: Mapping[str, _Part],
    corners: Mapping[str, tuple[float, float]],
) -> None:
    """Add the line of an edge, from the box or port where it starts to that where it ends, and its label."""
    (source, output), (target, taken) = _ends(edge)
    one, other = parts[source], parts[target]
    start = corners[source][1] + (one.ports[output][2] if output in one.ports else one.bottom)
    end = corners[target][1] + (other.ports[taken][1] if taken in other.ports else other.top)
    points = [point for x, top, bottom in route.pieces for point in ((x, top), (x, bottom))]
    points[0] = points[0][0], start
    points[-1] = points[-1][0], end
    scene.lines.append(Line(tuple(points)))
    if route.label is not None and lines:
        scene.texts += stack(lines, *route.label, is_centred=False)


def _part(node: GraphNode, loops: Sequence[GraphEdge], style: Style) -> _Part:
    """Return the scene of a node: a box, or a frame around its inside; and its loops."""
    part = _box(node, style) if node.inside is None else _frame(node, node.inside, style)
    return _with_loops(part, node, loops, style) if loops else part


def _box(node: GraphNode, style: Style) -> _Part:
    lines = _node_lines(node, style)
    width, height = block_size(lines)
    pad_x, pad_y = (8.0, 3.0) if node.kind == "value" else (PAD_X, PAD_Y)
    width, height = max(30.0, width + 2 * pad_x), max(26.0, height + 2 * pad_y)
    scene = Scene(width, height)
    kind = "gap" if node.kind == "operation" and node.label == "…" else node.kind
    scene.boxes.append(Box(0.0, 0.0, width, height, kind, node.id))
    scene.texts += stack(lines, width / 2, (height - block_size(lines)[1]) / 2, is_centred=True)
    return _Part(scene, width / 2, 0.0, height, {})


def _frame(node: GraphNode, inside: ModelGraph, style: Style) -> _Part:
    inner, where = compose(inside, replace(style, has_sizes=False))
    text = shorten(f"{node.label}, {node.detail}" if node.detail else node.label)
    title = text_width(text, DETAIL) + 3 * FRAME
    width = max(inner.width + 2 * FRAME, title)
    height = inner.height + TITLE + FRAME
    left = (width - inner.width) / 2
    scene = Scene(width, height)
    scene.frames.append(Frame(0.0, 0.0, width, height, node.id))
    scene.add(inner, left, TITLE)
    clear = _title_place(text, where, left, width)
    scene.texts += stack([(text, DETAIL, "label")], clear, 4.0, is_centred=False)
    ports = {name: (left + x, TITLE + top, TITLE + bottom) for name, (x, top, bottom) in where.items()}
    return _Part(scene, width / 2, 0.0, height, ports)


def _title_place(text: str, where: Mapping[str, tuple[float, float, float]], left: float, width: float) -> float:
    """Return the left end of a frame's title: the first place where no line crosses it on the way to an input."""
    first = min((top for _, top, _ in where.values()), default=0.0)
    lines = sorted(left + x for x, top, _ in where.values() if top <= first + 14.0)
    needed = text_width(text, DETAIL)
    at = FRAME
    for x in lines:
        if at - 4.0 < x < at + needed + 4.0:
            at = x + 8.0
    return at if at + needed + FRAME <= width else FRAME


def _with_loops(part: _Part, node: GraphNode, loops: Sequence[GraphEdge], style: Style) -> _Part:
    """Return a part with its loops on the right, nested so that they do not cross, and one label for all that have one shape."""
    ported = list({_ends(loop): loop for loop in loops if _ends(loop)[1][1] in part.ports}.values())
    drawn = sorted(ported, key=lambda loop: part.ports[_ends(loop)[1][1]][0]) or list(loops[:1])
    lanes = len(drawn)
    lines = _loop_label(loops, style)
    label_width, label_height = block_size(lines)
    above = TURN * (lanes + 1) if ported else 0.0
    below = TURN * (lanes + 1) if any(_ends(loop)[0][1] in part.ports for loop in loops) else 0.0
    right = part.scene.width + 6.0 + LANE * lanes
    height = max(part.scene.height + above + below, label_height)
    scene = Scene(right + 5.0 + label_width, height)
    top = above + max(0.0, (label_height - part.scene.height - above - below) / 2)
    scene.add(part.scene, 0.0, top)
    for number, loop in enumerate(drawn):  # the first is the outermost
        depth = lanes - number
        scene.lines.append(_loop(loop, part, top, part.scene.width + 6.0 + LANE * depth - LANE / 2, TURN * depth))
    middle = top + (part.bottom + part.top) / 2
    scene.texts += stack(lines, right + 5.0, max(0.0, middle - label_height / 2), is_centred=False)
    ports = {name: (x, top + upper, top + lower) for name, (x, upper, lower) in part.ports.items()}
    return _Part(scene, part.centre, top + part.top, top + part.bottom, ports)


def _loop(loop: GraphEdge, part: _Part, top: float, lane: float, turn: float) -> Line:
    """Return the line of a loop: around the right side of its node, from an output to an input or from side to side."""
    (_, output), (_, taken) = _ends(loop)
    upper, lower, side = top + part.top, top + part.bottom, part.scene.width
    if output in part.ports:
        x, _, y = part.ports[output]
        points = [(x, top + y), (x, lower + turn), (lane, lower + turn)]
    else:
        y = upper + 0.75 * (lower - upper)
        points = [(side, y), (lane, y)]
    if taken in part.ports:
        x, y, _ = part.ports[taken]
        points += [(lane, upper - turn), (x, upper - turn), (x, top + y)]
    else:
        y = upper + 0.25 * (lower - upper)
        points += [(lane, y), (side, y)]
    return Line(tuple(points), is_delayed=True, is_curve=False)


def _loop_label(loops: Sequence[GraphEdge], style: Style) -> Lines:
    """Return the label of a node's loops."""
    lines: Lines = []
    for axes in dict.fromkeys(loop.axes for loop in loops):
        same = [loop for loop in loops if loop.axes == axes]
        names = ", ".join(loop.label for loop in same if loop.label)
        together = GraphEdge(source="", target="", axes=axes)
        lines += [(names, DETAIL, "shape")] if names else []
        lines += label_lines(together, style)
    return [*lines, ("to the next", NOTE, "note"), ("token", NOTE, "note")]
