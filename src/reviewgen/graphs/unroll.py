"""A graph over several tokens: a column for each token, states as arrows from column to column, and insides once, below.

Must not know models; units are pixels.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from reviewgen.graphs.compose import Style, compose, compose_inside, label_lines
from reviewgen.graphs.scene import DETAIL, LABEL, Box, Line, Scene, Text, block_size, stack
from reviewgen.graphs.text import text_width, wrap
from reviewgen.graphs.windows import find_windows, is_loop, upstream
from reviewgen.protocols.graph import GraphEdge, GraphNode, ModelGraph

BETWEEN = 34.0  # columns, at least
BUS = 10.0  # between lines of a window
DETAIL_WIDTH = 118.0
STATE_WIDTH = 84.0  # of the shape of a state, before it is wrapped
PANELS = 26.0  # above what is inside

Where = dict[str, tuple[float, float, float, float]]  # left, right, upper and lower edge of the box of each node


def unroll(graph: ModelGraph, steps: int, style: Style) -> Scene:
    """Return the scene of a graph over a number of tokens.

    Args:
        graph: The graph, with its windows as delayed edges.
        steps: The number of tokens.
        style: How it is drawn.
    """
    loops: dict[str, list[GraphEdge]] = {}
    for edge in filter(is_loop, graph.edges):
        loops.setdefault(edge.source.partition("/")[0], []).append(edge)
    windows = {(_node(a), _node(b)): edges for (a, b), edges in find_windows(graph).items()}
    rooms = dict.fromkeys(windows, BUS * (steps + 2))
    stateful = [node.id for node in graph.nodes if node.id in loops]  # each in a row of its own, for its arrows
    order = tuple((one, other) for one, other in pairwise(stateful) if one not in upstream(graph, other))
    flat = replace(style, has_sizes=False, widest=DETAIL_WIDTH, counts={}, rooms=rooms, order=order)
    columns = [compose(_column(graph, windows, step + 1), flat)[0] for step in range(steps)]
    between = max([BETWEEN, *(block_size(_loop_lines(edges, flat))[0] + 22.0 for edges in loops.values())])
    starts = {name: _start(edges) for name, edges in loops.items()} | {source: "padding" for source, _ in windows}
    x = max((text_width(text, LABEL) + 20.0 for text in starts.values()), default=0.0) + (between if starts else 0.0)
    scene = Scene(0.0, max(column.height for column in columns))
    places: list[Where] = []
    for column in columns:
        scene.add(column, x, 0.0)
        places.append({box.name: (box.x + x, box.x + x + box.width, box.y, box.y + box.height) for box in column.boxes})
        x += column.width + between
    scene.width = x - between + (BETWEEN * 0.8 if loops else 0.0)
    before = {name: _add_start(scene, text, places[0][name], name) for name, text in starts.items()}
    places = [before, *places]
    for name, edges in loops.items():
        _add_states(scene, [each[name] for each in places], _loop_lines(edges, flat))
    for source, target in windows:
        _add_window(scene, places, source, target, max(edge.delay for edge in windows[source, target]))
    return _with_panels(scene, graph, style)


def _column(graph: ModelGraph, windows: dict[tuple[str, str], list[GraphEdge]], step: int) -> ModelGraph:
    """Return the graph of one token: no insides, no delayed edges, no axis of time."""
    nodes = tuple(_collapse(node, step) for node in graph.nodes)
    edges = tuple(
        replace(
            edge,
            source=_node(edge.source),
            target=_node(edge.target),
            axes=() if (_node(edge.source), _node(edge.target)) in windows else tuple(a for a in edge.axes if a != "T"),
        )
        for edge in graph.edges
        if not edge.delay
    )
    return replace(graph, nodes=nodes, edges=edges)


def _collapse(node: GraphNode, step: int) -> GraphNode:
    label = f"{node.label}_{{{step}}}" if node.kind == "value" else node.label
    return replace(node, label=label, parameters=(), inside=None)


def _node(end: str) -> str:
    return end.partition("/")[0]


def _start(loops: Sequence[GraphEdge]) -> str:
    """Return the name of a state before the first token."""
    short = [f"{loop.label}_{{0}}" for loop in loops if 0 < len(loop.label) < 4]
    return ", ".join(short) if len(short) == len(loops) else "start"


def _loop_lines(loops: Sequence[GraphEdge], style: Style) -> list[tuple[str, float, str]]:
    """Return the names above a state's arrow, and the shape below it."""
    names = ", ".join(loop.label for loop in loops if loop.label)
    shapes = [GraphEdge(source="", target="", axes=axes) for axes in dict.fromkeys(loop.axes for loop in loops)]
    lines = [line for shape in shapes for line in label_lines(shape, style)]
    return [
        (names, DETAIL, "shape"),
        *((part, size, role) for text, size, role in lines for part in wrap(text, size, STATE_WIDTH)),
    ]


def _add_start(scene: Scene, text: str, first: tuple[float, float, float, float], name: str) -> tuple[float, float, float, float]:
    """Add the box of what there is before the first token, left of the first column; return its place."""
    width, height = text_width(text, LABEL) + 16.0, 26.0
    y = (first[2] + first[3] - height) / 2
    scene.boxes.append(Box(0.0, y, width, height, "value", f"{name} before the text"))
    scene.texts.append(Text(width / 2, y + height / 2, text, LABEL, "label"))
    return 0.0, width, y, y + height


def _add_states(scene: Scene, row: Sequence[tuple[float, float, float, float]], lines: list[tuple[str, float, str]]) -> None:
    """Add the arrows of a state from each token to the next, and out of the picture."""
    for place, (_, right, top, bottom) in enumerate(row):
        y = (top + bottom) / 2
        end = row[place + 1][0] if place + 1 < len(row) else scene.width
        scene.lines.append(Line(((right, y), (end, y)), is_delayed=True, is_curve=False))
        if place + 1 < len(row):
            (name, size, role), *shapes = lines
            middle = (right + end) / 2 - 2.0
            scene.texts.append(Text(middle, y - size * 0.8, name, size, role))
            scene.texts += stack(shapes, middle, y + 3.0, is_centred=True)


def _add_window(scene: Scene, places: Sequence[Where], source: str, target: str, longest: int) -> None:
    """Add the lines of a window from earlier tokens: one along the columns for each of them, from which arrows go down."""
    steps = len(places) - 1
    for start in range(steps):
        left, right, _, lower = places[start][source]
        last = min(steps, start + longest) if start else steps
        if last <= start:
            continue
        x, y = (left + right) / 2, places[1][source][3] + BUS * (start + 1)
        for step in range(start + 1, last + 1):
            inner, outer, top, _ = places[step][target]
            x_end = (inner + outer) / 2 - min(BUS, (outer - inner) / 2 / (steps + 1)) * (step - start)
            scene.lines.append(Line(((x, lower), (x, y), (x_end, y), (x_end, top)), is_delayed=True, is_curve=False))


def _with_panels(scene: Scene, graph: ModelGraph, style: Style) -> Scene:
    """Return the scene with what is inside of its nodes below it."""
    for node in graph.nodes:
        if node.inside is None:
            continue
        panel = compose_inside(replace(node, label=f"inside each {node.label}"), node.inside, style)
        width = max(scene.width, panel.width)
        wider = Scene(width, scene.height + PANELS + panel.height)
        wider.add(scene, (width - scene.width) / 2, 0.0)
        wider.add(panel, (width - panel.width) / 2, scene.height + PANELS)
        scene = wider
    return scene
