"""A scene as one self-contained SVG: text as text, light and dark, a title and a description for screen readers.

The picture has no ids and its styles name its own class only, so that a page may contain any number of them. Every string of a
model is escaped.
"""

from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

from reviewgen.graphs.scene import Box, Frame, Line, Scene, Text
from reviewgen.graphs.text import SUBSCRIPT, shorten, split_subscripts

CLASS = "reviewgen-graph"
MARGIN = 12.0
RADIUS = 8.0  # of a line's corners
ARROW = 7.0
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"

_LIGHT = {
    "paper": "#ffffff",
    "ink": "#1b1f24",
    "soft": "#57606a",
    "line": "#57606a",
    "shape": "#0a5a8f",
    "layer": "#dbeafe",
    "layer-edge": "#2f6fb0",
    "operation": "#fdf0d0",
    "operation-edge": "#9a6700",
    "value": "#dff3e4",
    "value-edge": "#2b7a43",
    "frame": "#f5f7fa",
    "frame-edge": "#8c959f",
    "loop": "#a3305c",
}
_DARK = {
    "paper": "#14181d",
    "ink": "#e8edf2",
    "soft": "#a4b0bc",
    "line": "#a4b0bc",
    "shape": "#8ecbff",
    "layer": "#1d3a5c",
    "layer-edge": "#6aa9e9",
    "operation": "#463712",
    "operation-edge": "#d8a93a",
    "value": "#1c4028",
    "value-edge": "#63bd7f",
    "frame": "#1b2128",
    "frame-edge": "#66717d",
    "loop": "#ff8fb8",
}
_DARK_THEMES = ('[data-jp-theme-light="false"]', ".vscode-dark", ".vscode-high-contrast", '[theme="dark"]')
_LIGHT_THEMES = ('[data-jp-theme-light="true"]', ".vscode-light", ".vscode-high-contrast-light")
_RULES = """
.{c} { color-scheme: light dark; color: var(--rg-ink); max-width: 100%; height: auto; font-family: {font}; }
.{c} text { fill: currentColor; stroke: none; dominant-baseline: central; }
.{c} .label { font-weight: 600; }
.{c} .title { font-weight: 700; }
.{c} .note { fill: var(--rg-soft); }
.{c} .shape { fill: var(--rg-shape); }
.{c} .paper { fill: var(--rg-paper); }
.{c} .box { stroke-width: 1.3; }
.{c} .layer { fill: var(--rg-layer); stroke: var(--rg-layer-edge); }
.{c} .operation { fill: var(--rg-operation); stroke: var(--rg-operation-edge); }
.{c} .value { fill: var(--rg-value); stroke: var(--rg-value-edge); }
.{c} .gap { fill: none; stroke: none; }
.{c} .frame { fill: var(--rg-frame); stroke: var(--rg-frame-edge); stroke-width: 1.2; }
.{c} .line { fill: none; stroke: var(--rg-line); stroke-width: 1.4; }
.{c} .head { fill: var(--rg-line); stroke: none; }
.{c} .loop { stroke: var(--rg-loop); stroke-dasharray: 5 3; }
.{c} .loop-head { fill: var(--rg-loop); }
"""


def write_svg(scene: Scene, title: str, description: str) -> str:
    """Return the picture of a scene.

    Args:
        scene: What to draw.
        title: Its name.
        description: What it shows, in words.
    """
    width, height = scene.width + 2 * MARGIN, scene.height + 2 * MARGIN
    shapes = [
        *map(_frame, scene.frames),
        *map(_line, (line for line in scene.lines if not line.is_delayed)),
        *map(_line, (line for line in scene.lines if line.is_delayed)),
        *map(_box, scene.boxes),
        *map(_text, scene.texts),
    ]
    named = quoteattr(shorten(title, 200))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="{CLASS}" role="img" aria-label={named} '
            f'viewBox="0 0 {_n(width)} {_n(height)}" width="{_n(width)}" height="{_n(height)}">',
            f"<title>{escape(shorten(title, 200))}</title>",
            f"<desc>{escape(shorten(description, 20_000))}</desc>",
            f"<style>{_style()}</style>",
            f'<rect class="paper" width="{_n(width)}" height="{_n(height)}" rx="6"/>',
            f'<g transform="translate({_n(MARGIN)} {_n(MARGIN)})">',
            *shapes,
            "</g>",
            "</svg>",
            "",
        ]
    )


def _style() -> str:
    """Return the styles; the dark colours apply where the reader prefers them, or the theme of a notebook around the picture."""
    light, dark = (" ".join(f"--rg-{name}: {value};" for name, value in colours.items()) for colours in (_LIGHT, _DARK))
    rules = _RULES.replace("{c}", CLASS).replace("{font}", FONT)
    in_notebook = "\n".join(
        f"{', '.join(f'{theme} .{CLASS}' for theme in themes)} {{ {colours} }}"
        for themes, colours in ((_DARK_THEMES, dark), (_LIGHT_THEMES, light))
    )
    return f"\n.{CLASS} {{ {light} }}\n@media (prefers-color-scheme: dark) {{ .{CLASS} {{ {dark} }} }}\n{in_notebook}{rules}"


def _n(number: float) -> str:
    """Return a number with at most one decimal, the same on all machines."""
    return f"{number:.1f}".removesuffix(".0").replace("-0", "0") if abs(number) < 0.05 else f"{number:.1f}".removesuffix(".0")


def _box(box: Box) -> str:
    radius = box.height / 2 if box.kind == "value" else 6.0
    return (
        f'<rect class="box {box.kind}" x="{_n(box.x)}" y="{_n(box.y)}" width="{_n(box.width)}" height="{_n(box.height)}" '
        f'rx="{_n(min(radius, 14.0))}"/>'
    )


def _frame(frame: Frame) -> str:
    return (
        f'<rect class="frame" x="{_n(frame.x)}" y="{_n(frame.y)}" width="{_n(frame.width)}" height="{_n(frame.height)}" rx="10"/>'
    )


def _text(text: Text) -> str:
    anchor = ' text-anchor="middle"' if text.is_centred else ""
    parts, below = [], False
    for part, is_below in split_subscripts(shorten(text.text, 200)):
        lowered = 0.28 * text.size * (is_below - below)
        move = f' dy="{_n(lowered)}"' if is_below != below else ""
        small = f' font-size="{_n(text.size * SUBSCRIPT)}"' if is_below else ""
        parts.append(f"<tspan{move}{small}>{escape(part)}</tspan>" if move or small else escape(part))
        below = is_below
    return (
        f'<text class="{text.role}" x="{_n(text.x)}" y="{_n(text.y)}" font-size="{_n(text.size)}"{anchor} '
        f'xml:space="preserve">{"".join(parts)}</text>'
    )


def _line(line: Line) -> str:
    loop, head = (" loop", " loop-head") if line.is_delayed else ("", "")
    points = _shortened(line.points) if line.has_arrow else line.points
    path = _curve(points) if line.is_curve else _corners(points)
    drawn = f'<path class="line{loop}" d="{path}"/>'
    return drawn + _arrow(line, head) if line.has_arrow else drawn


def _shortened(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return a line that ends in the middle of its arrow."""
    (x0, y0), (x1, y1) = points[-2:]
    length = max(abs(x1 - x0) + abs(y1 - y0), 1e-9)
    back = min(ARROW * 0.7, length)
    return [*points[:-1], (x1 - (x1 - x0) / length * back, y1 - (y1 - y0) / length * back)]


def _curve(points: Sequence[tuple[float, float]]) -> str:
    """Return a path of vertical pieces, and bends between them."""
    path = f"M{_n(points[0][0])} {_n(points[0][1])}"
    for number, (x, y) in enumerate(points[1:], 1):
        before_x, before_y = points[number - 1]
        if number % 2 == 1 or abs(x - before_x) < 0.05:
            path += f"L{_n(x)} {_n(y)}"
        else:
            middle = (before_y + y) / 2
            path += f"C{_n(before_x)} {_n(middle)} {_n(x)} {_n(middle)} {_n(x)} {_n(y)}"
    return path


def _corners(points: Sequence[tuple[float, float]]) -> str:
    """Return a path of straight pieces with rounded corners."""
    path = f"M{_n(points[0][0])} {_n(points[0][1])}"
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        (x0, y0), (x, y), (x1, y1) = before, corner, after
        one, other = abs(x - x0) + abs(y - y0), abs(x1 - x) + abs(y1 - y)
        radius = min(RADIUS, one / 2, other / 2)
        if radius < 0.05:
            continue
        ax, ay = x - (x - x0) / one * radius, y - (y - y0) / one * radius
        bx, by = x + (x1 - x) / other * radius, y + (y1 - y) / other * radius
        path += f"L{_n(ax)} {_n(ay)}Q{_n(x)} {_n(y)} {_n(bx)} {_n(by)}"
    return path + f"L{_n(points[-1][0])} {_n(points[-1][1])}"


def _arrow(line: Line, role: str) -> str:
    """Return the arrow at a line's end: downwards for a curve, else as its last piece goes, which is horizontal or vertical."""
    (x0, y0), (x, y) = line.points[-2:]
    if line.is_curve:
        dx, dy = 0.0, 1.0
    else:
        dx, dy = (0.0, 1.0 if y >= y0 else -1.0) if abs(y - y0) >= abs(x - x0) else (1.0 if x >= x0 else -1.0, 0.0)
    back_x, back_y, half = x - ARROW * dx, y - ARROW * dy, ARROW / 2
    one = f"{_n(back_x + half * dy)} {_n(back_y + half * dx)}"
    other = f"{_n(back_x - half * dy)} {_n(back_y - half * dx)}"
    return f'<path class="head{role}" d="M{_n(x)} {_n(y)}L{one}L{other}Z"/>'
