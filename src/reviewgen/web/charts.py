"""Line and scatter charts as plain data, and drawn: as SVG that follows light and dark, as a figure
of a page, as PNG or PDF.

The SVG is our own, since matplotlib's has fixed colours and outlined text, and the libraries whose
charts follow a page draw them with JavaScript. Matplotlib, an extra, draws the same data where no
browser does. Runs differ in colour and in the shape of their marks, so that nothing depends on
colour alone.
"""

import math
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from markupsafe import Markup, escape

from reviewgen.errors import ConfigError, storage_errors
from reviewgen.storage import atomic_file
from reviewgen.web.rendering import refuse_file, render, save_text
from reviewgen.web.svg import (
    DETAIL,
    LABEL,
    NOTE,
    Lines,
    block,
    block_size,
    document,
    label,
    number,
    shorten,
    tag,
    text_width,
    wrap,
)

_Value = TypeVar("_Value")
Point = tuple[float, float]

_CHARTS = (".png", ".svg", ".pdf")
_WIDTH = 420.0  # of a chart in a page: small, so that text is readable where a phone shrinks it
_ALONE = 620.0  # of a chart in a file of its own
_MAP = (840.0, 640.0)  # the width and height of a map of words
_MAP_HALVES = 7_500.0  # of the widths of the words on it, in pixels: for more, the map is enlarged
_GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))  # in radians
_LEFT = 46.0  # left of the area of a panel, for the labels of its axis
_TOP = 26.0  # above the area of a panel
_BETWEEN = 14.0  # below the area of a panel, before the next one
_BAR = 0.6  # width of a bar, of the distance between two
_MOST_POINTS = 60  # of a line, as it is drawn
_MOST_LISTED = 8  # of the points of a line, in the table
_SHAPES = (  # around (0, 0): circle, square, triangle, diamond
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "M-3.6-3.6h7.2v7.2h-7.2z",
    "M0-4.8l4.6 8.2h-9.2z",
    "M0-5l4.4 5l-4.4 5l-4.4-5z",
)
_RING = "M-7 0a7 7 0 1 0 14 0a7 7 0 1 0-14 0z"


@dataclass(frozen=True)
class Series:
    """The points of one line, or of one mark.

    Attributes:
        name: Its name in the legend.
        points: Pairs of x and y; pairs with a value that is NaN or infinite are left out.
        style: A number that chooses colour and shape: the same model has the same in each chart.
        is_dashed: Whether its line is dashed, without marks.
        interval: The low and high end of the y of a single point, drawn as a bar; None for none.
        level: A height that is drawn as a dotted line from side to side; None for none.
        is_ring: Whether its marks are rings around those of another.
        is_bar: Whether its points are bars that start at zero.
    """

    name: str
    points: Sequence[Point] = ()
    style: int = 0
    is_dashed: bool = False
    interval: Point | None = None
    level: float | None = None
    is_ring: bool = False
    is_bar: bool = False


class Panel(NamedTuple):
    """One of several charts that share an x axis: the label of its y axis, its series, its height
    in pixels, and values that its y axis has in any case."""

    label: str
    series: Sequence[Series]
    height: float = 220.0
    ends: tuple[float, ...] = ()


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        title: The caption.
        x: The label of the x axis.
        panels: From top to bottom.
        summary: What it shows, in a sentence.
        log_x: Whether the x axis is logarithmic; points that are not above zero are then left out.
        from_zero: Whether a linear x axis starts at zero.
        labels: The labels of x = 0, 1, 2 ...; empty for numbers.
    """

    title: str
    x: str
    panels: Sequence[Panel]
    summary: str = ""
    log_x: bool = False
    from_zero: bool = False
    labels: Sequence[str] = ()


def draw_figure(chart: Chart) -> Markup:
    """Return a chart as a figure of a page, with a table of its values."""
    shown = _keep(chart)
    drawn = [line for panel in shown.panels for line in panel.series if line.points]
    missing = [
        line.name
        for panel in shown.panels
        for line in panel.series
        if not line.points and line.level is None
    ]
    values = {
        "svg": Markup(_draw(shown, _WIDTH, [])),
        "drawn": [(line.name, thin(line.points, _MOST_LISTED)) for line in drawn],
    }
    # all is escaped
    return Markup(render("web/chart.html", chart=chart, missing=missing, **values))


def refuse_chart(file: str | Path, overwrite: bool = False) -> Path:
    """Return the file that a chart is saved as; raise, before any work, if it cannot be.

    Raises:
        ConfigError: The suffix is not .png, .svg or .pdf, or matplotlib, which all but .svg need,
            is not installed.
        StorageError, OutputExists: See ``refuse_file``.
    """
    file = refuse_file(file, _CHARTS, overwrite)
    if file.suffix.lower() != ".svg" and find_spec("matplotlib") is None:
        raise ConfigError(
            "PNG and PDF need matplotlib: pip install 'reviewgen[plot]'. A .svg file does not."
        )
    return file


def save_chart(chart: Chart, file: Path) -> None:
    """Write a chart with its title and summary as PNG, SVG or PDF, by the file's suffix.

    Raises:
        StorageError: The file cannot be written.
    """
    shown = _keep(chart)
    if file.suffix.lower() == ".svg":
        lines = [(line, DETAIL, "note") for line in wrap(chart.summary, DETAIL, _ALONE)]
        save_text(
            _draw(shown, _ALONE, [(shorten(chart.title, 70), LABEL + 2, "title"), *lines]), file
        )
        return
    figure = _matplotlib(shown)
    with storage_errors(file), atomic_file(file) as new:
        figure.savefig(new, dpi=150, format=file.suffix[1:].lower())


def draw_words(words: Sequence[str], points: Sequence[Point], title: str, summary: str) -> str:
    """Return words in a plane as SVG: each at its point or, where another word stands, at the
    nearest free point.
    """
    height = NOTE * 1.3
    shown = [shorten(word, 20) for word in words]
    halves = [text_width(word, NOTE) / 2 + 1 for word in shown]
    width = 2 * max(halves)
    scale = max(1.0, math.sqrt(sum(halves) / _MAP_HALVES))
    across, up = (side * scale for side in _MAP)
    (left, bottom), (right, top) = (map(choose, zip(*points, strict=True)) for choose in (min, max))
    content = list[str]()
    # the words that may reach into a cell: their middles and half widths
    near: Any = defaultdict(list)
    for word, half, (x, y) in zip(shown, halves, points, strict=True):
        start_x = (x - left) / (right - left or 1.0) * across
        start_y = (top - y) / (top - bottom or 1.0) * up
        for step in range(int(across * up / 4)):  # along the spiral of a sunflower
            radius = 3 * math.sqrt(step)
            angle = step * _GOLDEN_ANGLE
            spot = start_x + radius * math.cos(angle), start_y + radius * math.sin(angle)
            if half <= spot[0] <= across - half and height / 2 <= spot[1] <= up - height / 2:
                position = spot
                column = int(spot[0] / width)
                row = int(spot[1] / height)
                if all(
                    abs(spot[0] - a) > half + b or abs(spot[1] - c) > height
                    for a, c, b in near[column, row]
                ):
                    break
        for cell in product(range(column - 1, column + 2), range(row - 1, row + 2)):
            near[cell].append((*position, half))
        content.append(label(word, *position, NOTE, "word", "middle"))
    return document(content, across, up, title, summary, margin=8.0)


def _matplotlib(chart: Chart) -> Any:
    """Return a chart as a figure of matplotlib. No pyplot, so no global state."""
    from matplotlib.figure import Figure  # takes half a second to import

    heights = [panel.height for panel in chart.panels]
    figure = Figure(figsize=(8, 1.7 + sum(heights) / 50), layout="constrained")
    axes = figure.subplots(len(heights), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    shown: dict[str, Any] = {}
    for panel, ax in zip(chart.panels, axes, strict=True):
        for series in panel.series:
            line = (
                {"linestyle": "--", "linewidth": 1}
                if series.is_dashed
                else {"marker": "o", "markersize": 3.5}
            )
            ring = {"marker": "o", "linestyle": "", "markersize": 11, "fillstyle": "none"}
            look: dict[str, Any] = {
                "color": f"C{series.style % 10}",
                "label": _escaped(series.name),
            }
            if series.is_bar:
                shown.setdefault(
                    series.name, ax.bar(*zip(*series.points, strict=True), _BAR, **look, alpha=0.5)
                )
            elif series.points:
                drawn = ax.plot(
                    *zip(*series.points, strict=True), **look, **(ring if series.is_ring else line)
                )[0]
                shown.setdefault(series.name, drawn)
            if series.interval is not None:
                ax.vlines(series.points[0][0], *series.interval, color=look["color"])
            if series.level is not None:
                shown.setdefault(
                    series.name, ax.axhline(series.level, **look, linestyle=":", linewidth=1.2)
                )
        ax.set_ylabel(_escaped(textwrap.fill(panel.label, 20)))
        ax.grid(alpha=0.25)
        if panel.ends:
            ax.set_ylim(min(panel.ends) - 0.03, max(panel.ends) + 0.03)
        ax.spines[["top", "right"]].set_visible(False)
    if chart.log_x:
        axes[-1].set_xscale("log")
    elif chart.labels:
        axes[-1].set_xticks(range(len(chart.labels)), [_escaped(name) for name in chart.labels])
    elif chart.from_zero:
        axes[-1].set_xlim(left=0)
    axes[-1].set_xlabel(_escaped(chart.x))
    figure.suptitle(_escaped(chart.title))
    axes[0].set_title(
        _escaped("\n".join(wrap(chart.summary, DETAIL, _ALONE))), fontsize=9, color="0.35"
    )
    figure.legend(
        handles=[shown[series.name] for series in _named(chart)],
        loc="outside lower center",
        ncols=2,
        frameon=False,
    )
    return figure


def _escaped(text: str) -> str:
    """Escape a text for matplotlib: dollar signs do not start a formula, a leading underscore does
    not hide a legend entry.
    """
    text = text.encode("utf-8", "replace").decode("utf-8")  # it draws no lone surrogates
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def _keep(chart: Chart) -> Chart:
    """Return a chart without the points that cannot be drawn, its lines thinned."""

    def keep(series: Series) -> Series:
        points = [
            point
            for point in series.points
            if all(map(math.isfinite, point)) and (point[0] > 0 or not chart.log_x)
        ]
        return replace(series, points=thin(points, _MOST_POINTS))

    return replace(
        chart,
        panels=[
            panel._replace(series=[keep(series) for series in panel.series])
            for panel in chart.panels
        ],
    )


def thin(values: Sequence[_Value], count: int) -> list[_Value]:
    """Return at most ``count`` values at even distances, the first and the last among them."""
    if len(values) <= count:
        return list(values)
    return [values[round(n * (len(values) - 1) / (count - 1))] for n in range(count)]


class _Axis(NamedTuple):
    """The values at its ends, or their decimal logarithms, and its ticks by their labels."""

    low: float
    high: float
    ticks: list[tuple[str, float]]
    is_log: bool = False

    def position(self, value: float, start: float, end: float) -> float:
        """Return where a value is, between the positions of both ends."""
        share = ((math.log10(value) if self.is_log else value) - self.low) / (self.high - self.low)
        return round(start + share * (end - start), 1)


def _draw(chart: Chart, width: float, head: Lines) -> str:
    """Return a chart of points that can be drawn as SVG, below the lines of its head."""
    series = [line for panel in chart.panels for line in panel.series]
    across = _make_axis(
        [x for line in series for x, _ in line.points], chart.log_x, chart.from_zero
    )
    if chart.labels:
        across = across._replace(
            ticks=[(shorten(name, 12), float(n)) for n, name in enumerate(chart.labels)]
        )
    if any(line.is_bar for line in series):
        across = across._replace(low=-_BAR, high=len(chart.labels) - 1 + _BAR)
    content = block(head, 0.0, 0.0)
    y = block_size(head)[1]
    for panel in chart.panels:
        content += _draw_panel(panel, across, width, y + _TOP)
        y += _TOP + panel.height
    y -= _BETWEEN
    for text, value in across.ticks:
        x = across.position(value, _LEFT, width)
        content += [
            tag("path", class_="grid", d=f"M{x} {number(y)}v5"),
            label(text, x, y + 14, NOTE, "note", "middle"),
        ]
    content.append(label(chart.x, width, y + 31, DETAIL, "detail", "end"))
    legend, height = _draw_legend(_named(chart), width, y + 46)
    return document(
        [*content, *legend], width, y + 46 + height, chart.title, chart.summary, margin=8.0
    )


def _named(chart: Chart) -> list[Series]:
    """Return the series that the legend names: those of the first panel, and the levels of others,
    each name once.
    """
    levels = [
        series for panel in chart.panels[1:] for series in panel.series if series.level is not None
    ]
    drawn = [
        series
        for series in (*chart.panels[0].series, *levels)
        if series.points or series.level is not None
    ]
    return [
        series
        for n, series in enumerate(drawn)
        if series.name not in [other.name for other in drawn[:n]]
    ]


def _draw_panel(panel: Panel, across: _Axis, width: float, top: float) -> list[str]:
    """Return the elements of a panel, whose box of lines begins at a height."""
    bottom = top + panel.height - _BETWEEN
    drawn = [series for series in panel.series if series.points]
    ends = [end for series in drawn for end in series.interval or ()]
    levels = [series.level for series in panel.series if series.level is not None]
    heights = [y for series in drawn for _, y in series.points]
    up = _make_axis([*heights, *ends, *levels, *panel.ends], count=5 if panel.height > 150 else 3)
    content = [label(panel.label, 0.0, top - 14, DETAIL, "detail")]
    for text, value in up.ticks:
        y = up.position(value, bottom, top)
        content += [
            tag("path", class_="grid", d=f"M{_LEFT} {y}H{number(width)}"),
            label(text, _LEFT - 6, y, NOTE, "note", "end"),
        ]
    content.append(
        tag("path", class_="axis", d=f"M{_LEFT} {number(top)}V{number(bottom)}H{number(width)}")
    )
    for series in panel.series:
        positions = [
            (across.position(x, _LEFT, width), up.position(y, bottom, top))
            for x, y in series.points
        ]
        tags = []
        if series.level is not None:
            tags.append(
                tag(
                    "path",
                    class_="line dotted",
                    d=f"M{_LEFT} {up.position(series.level, bottom, top)}H{number(width)}",
                )
            )
        if len(positions) > 1 and not series.is_ring:
            path = "M" + "L".join(f"{x} {y}" for x, y in positions)
            tags.append(tag("path", class_="line dashed" if series.is_dashed else "line", d=path))
        if series.interval is not None and positions:
            low, high = (up.position(end, bottom, top) for end in series.interval)
            tags.append(tag("path", class_="line bar", d=f"M{positions[0][0]} {low}V{high}"))
        if not series.is_dashed or len(positions) == 1:
            for position, (x, y) in zip(positions, series.points, strict=True):
                title = f"{series.name}: {x:,.4g}, {y:.4g}"
                if series.is_bar:
                    left, right = (
                        across.position(side, _LEFT, width) for side in (x - _BAR / 2, x + _BAR / 2)
                    )
                    tags.insert(
                        0, _bar(left, right, position[1], up.position(0.0, bottom, top), title)
                    )
                else:
                    tags.append(_mark(series, *position, title))
        content.append(tag("g", "".join(tags), class_=f"series-{series.style % 8}") if tags else "")
    return content


def _mark(series: Series, x: float, y: float, title: str = "") -> str:
    shape = _RING if series.is_ring else _SHAPES[(series.style + series.style // 8) % len(_SHAPES)]
    kind = (
        "mark hollow"
        if series.is_ring or series.is_dashed
        else "mark filled"
        if series.is_bar
        else "mark"
    )
    content = tag("title", escape(shorten(title, 200))) if title else ""
    return tag(
        "path", content, class_=kind, transform=f"translate({number(x)} {number(y)})", d=shape
    )


def _bar(left: float, right: float, high: float, zero: float, title: str) -> str:
    outline = f"M{number(left)} {number(zero)}V{number(high)}H{number(right)}V{number(zero)}z"
    return tag("path", tag("title", escape(shorten(title, 200))), class_="mark filled", d=outline)


def _draw_legend(series: Sequence[Series], width: float, top: float) -> tuple[list[str], float]:
    """Return the elements of the legend, and its height."""
    content = []
    x = 0.0
    y = top + 8
    for entry in series:
        name = shorten(entry.name, 44)
        needed = 30 + text_width(name, DETAIL) + 16
        if x and x + needed > width + 16:
            x = 0.0
            y = y + 18
        kind = "dotted" if entry.level is not None else "dashed" if entry.is_dashed else ""
        is_line = kind or (len(entry.points) > 1 and not entry.is_ring)
        symbol = (
            tag("path", class_=f"line {kind}".strip(), d=f"M{number(x)} {number(y)}h24")
            if is_line
            else ""
        )
        symbol += "" if kind else _mark(entry, x + 12, y)
        content += [
            tag("g", symbol, class_=f"series-{entry.style % 8}"),
            label(name, x + 30, y, DETAIL, "detail"),
        ]
        x += needed
    return content, y + 10 - top


def _make_axis(
    values: Sequence[float], is_log: bool = False, from_zero: bool = False, count: int = 5
) -> _Axis:
    """Return an axis on which all of some finite values are; without values, from 0 to 1, or from 1
    to 10.
    """
    known = [math.log10(value) if is_log else value for value in values] or [0.0, 1.0]
    low = min(known)
    high = max(known)
    if from_zero and not is_log:
        low = min(0.0, low)
    if math.isclose(low, high, rel_tol=1e-9, abs_tol=1e-12):
        low = low - 0.5 * (abs(low) or 1.0)
        high = high + 0.5 * (abs(high) or 1.0)
    margin = (high - low) * 0.06
    low = low if from_zero and low == 0 else low - margin
    high = high + margin
    ticks = _log_ticks(low, high, count) if is_log else _linear_ticks(low, high, count)
    return _Axis(low, high, [(short(tick), tick) for tick in ticks], is_log)


def _linear_ticks(low: float, high: float, count: int) -> list[float]:
    """Return multiples of 1, 2 or 5 times a power of ten, about ``count`` of them."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(step for step in (1, 2, 5, 10) if step * power >= rough * 0.999)
    return [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float, count: int) -> list[float]:
    """Return powers of ten, thinned if there are many; with 2 and 5 times them if there are few."""
    powers = range(math.floor(low), math.ceil(high) + 1)
    for steps in (1,), (1, 4), (1, 2, 5):
        inside = [
            step * 10.0**power
            for power in powers
            for step in steps
            if low <= math.log10(step * 10.0**power) <= high
        ]
        if len(inside) >= 3:
            return inside[:: math.ceil(len(inside) / (count + 1))]
    return _linear_ticks(10**low, 10**high, 3)


def short(value: float) -> str:
    """Return a number as a short label.

    >>> [short(value) for value in (0, 0.25, 2.0, 1500, 20_000, 3e6, 5e9, 1e-4)]
    ['0', '0.25', '2', '1.5k', '20k', '3M', '5G', '0.0001']
    """
    for factor, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.4g}{sign}"
    return f"{value:.4g}" if abs(value) > 1e-9 else "0"
