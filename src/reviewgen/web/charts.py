"""Line, scatter and bar charts as plain data, and how they are drawn: as SVG that follows the light
or dark mode, as a figure of a page, as PNG or PDF.

The SVG is written here: that of matplotlib has fixed colours and text as outlines, and the
libraries whose charts follow a page need JavaScript. Matplotlib, an optional dependency, draws the
same data as PNG and PDF. Runs differ in colour and in the shape of their marks, so that nothing
depends on colour alone.
"""

import math
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import accumulate, chain, product
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from markupsafe import Markup

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
    moved,
    number,
    shorten,
    tag,
    text_width,
    tooltip,
    wrap,
)

_Value = TypeVar("_Value")
Point = tuple[float, float]

# width of a chart on a page; small, so that text stays readable when a phone shrinks the chart
_WIDTH = 420.0
_ALONE = 620.0  # width of a chart in a file of its own
_MAP_WIDTH = 840.0  # width of a map of words, in pixels
_MAP_HEIGHT = 640.0
# a map of this size has room for words whose half widths sum to this, in pixels
_MAP_HALF_WIDTHS = 7_500.0
_WORD_HEIGHT = 1.3 * NOTE  # height of a word on a map, in pixels
_GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))  # in radians
_CELL = 24.0  # minimum width of a column of a heat map, in pixels
_ROW = 17.0  # height of a row of a heat map
_SIDE = 14.0  # width and height of the coloured square in a cell of a heat map
_BELOW = 10.0  # font size of the texts below the columns of a heat map
_LEFT = 46.0  # space on the left of a panel's area, for the labels of its axis
_TOP = 26.0  # space above a panel's area
_BETWEEN = 14.0  # space below a panel's area, before the next panel
_BAR = 0.6  # width of a bar, as a share of the distance between the centres of two bars
_MAX_POINTS = 60  # maximum number of points of a line that are drawn
_MAX_LISTED = 8  # maximum number of points of a line that the table lists
_SHAPES = (  # SVG paths of the marks, around (0, 0): circle, square, triangle, diamond
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
        style: A number that chooses the colour and the shape of marks. A model has the same number
            in each chart.
        is_dashed: Whether the line is dashed and has no marks.
        interval: The low and high end of the interval of a single point, drawn as a vertical line;
            None if there is no interval.
        level: The height of a dotted line across the panel; None if there is no such line.
        is_ring: Whether the marks are rings around the marks of another series.
        is_bar: Whether the points are drawn as bars that start at zero.
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
    """A part of a chart with a y axis of its own: the label of this axis, the series, the height in
    pixels, and values that the axis always includes (``ends``).
    """

    label: str
    series: Sequence[Series]
    height: float = 220.0
    ends: tuple[float, ...] = ()


@dataclass(frozen=True)
class Chart:
    """A chart of one or more panels below one another, with one x axis.

    Attributes:
        title: The caption.
        x: The label of the x axis.
        panels: The panels, from top to bottom.
        summary: A sentence on its content.
        log_x: Whether the x axis is logarithmic; points that are not above zero are then left out.
        from_zero: Whether a linear x axis starts at zero.
        labels: The labels at x = 0, 1, 2 and so on; empty if the axis has numbers.
    """

    title: str
    x: str
    panels: Sequence[Panel]
    summary: str = ""
    log_x: bool = False
    from_zero: bool = False
    labels: Sequence[str] = ()

    @property
    def series(self) -> list[Series]:
        """The series of all panels."""
        return list(chain.from_iterable(panel.series for panel in self.panels))


def draw_figure(chart: Chart) -> Markup:
    """Return a chart as a figure of a page, with a table of its values."""
    shown = _without_undrawable(chart)
    return Markup(  # the template escapes all texts
        render(
            "web/chart.html",
            chart=chart,
            svg=Markup(_draw(shown, _WIDTH, [])),
            drawn=[
                (series.name, thin(series.points, _MAX_LISTED))
                for series in shown.series
                if series.points
            ],
            missing=[
                series.name for series in shown.series if not series.points and series.level is None
            ],
        )
    )


def refuse_chart(file: str | Path, overwrite: bool = False) -> Path:
    """Check, before any work, that a chart can be saved as ``file``, and return its path.

    Raises:
        ConfigError: The suffix is not .png, .svg or .pdf, or matplotlib is not installed (all but
            .svg need it).
        StorageError, OutputExists: See ``refuse_file``.
    """
    file = refuse_file(file, (".png", ".svg", ".pdf"), overwrite)
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
    shown = _without_undrawable(chart)
    if file.suffix.lower() == ".svg":
        caption = _caption(shorten(chart.title, 70), chart.summary, _ALONE)
        save_text(_draw(shown, _ALONE, caption), file)
        return
    figure = _matplotlib(shown)
    with storage_errors(file), atomic_file(file) as new:
        figure.savefig(new, dpi=150, format=file.suffix[1:].lower())


def _caption(title: str, summary: str, width: float) -> Lines:
    """Return the lines of text above a picture: the title, and the summary in lines of ``width``
    pixels.
    """
    lines: Lines = [(title, LABEL + 2, "title")]
    return lines + [(line, DETAIL, "note") for line in wrap(summary, DETAIL, width)]


def draw_words(words: Sequence[str], points: Sequence[Point], title: str, summary: str) -> str:
    """Draw words in a plane as SVG. Each word stands at its point, or at the nearest free point if
    another word stands there.
    """
    shown = [shorten(word, 20) for word in words]
    half_widths = [text_width(word, NOTE) / 2 + 1 for word in shown]
    scale = max(1.0, math.sqrt(sum(half_widths) / _MAP_HALF_WIDTHS))
    width = _MAP_WIDTH * scale
    height = _MAP_HEIGHT * scale
    xs, ys = zip(*points, strict=True)
    cell_width = 2 * max(half_widths)
    # For each cell of a grid (column, row): the centre and half width of the words that may reach
    # into the cell.
    near: dict[tuple[int, int], list[tuple[float, float, float]]] = defaultdict(list)
    content = list[str]()
    for word, half_width, (x, y) in zip(shown, half_widths, points, strict=True):
        start_x = (x - min(xs)) / (max(xs) - min(xs) or 1.0) * width
        start_y = (max(ys) - y) / (max(ys) - min(ys) or 1.0) * height
        # the loop ends at the spot that the word takes: the first free one, or else the last one
        for spot_x, spot_y in _spiral_points(start_x, start_y, half_width, width, height):
            column = int(spot_x / cell_width)
            row = int(spot_y / _WORD_HEIGHT)
            if all(
                abs(spot_x - other_x) > half_width + other_half
                or abs(spot_y - other_y) > _WORD_HEIGHT
                for other_x, other_y, other_half in near[column, row]
            ):
                break
        for cell in product(range(column - 1, column + 2), range(row - 1, row + 2)):
            near[cell].append((spot_x, spot_y, half_width))
        content.append(label(word, spot_x, spot_y, NOTE, "word", "middle"))
    return document(content, width, height, title, summary, margin=8.0)


def draw_heat_map(
    columns: Sequence[str],
    rows: Sequence[str],
    values: Sequence[Sequence[float]],
    below: Sequence[str],
    title: str,
    summary: str,
) -> str:
    """Draw a table of numbers as SVG. A positive number is a square, a negative one a disc of
    another colour; the larger the number, the stronger the colour. NaN has no cell.

    Args:
        columns: The labels above the columns.
        rows: The labels of the rows.
        values: The numbers, row by row.
        below: Short texts below the columns.
        title: The title.
        summary: A sentence on its content.
    """
    labels = list(map(shorten, columns))
    widths = [max(_CELL, text_width(text, DETAIL) + 4) for text in labels]
    left = max(text_width(name, NOTE) for name in rows) + 8
    xs = list(accumulate(widths, initial=left))  # left edges of the columns
    full_width = max(xs[-1], _WIDTH)
    caption = _caption(title, summary, full_width)
    content = block(caption, 0.0, 0.0)
    top = block_size(caption)[1] + _TOP
    bottom = top + _ROW * len(rows)
    for x, width, text, note in zip(xs, widths, labels, below, strict=False):
        content.append(label(text, x + width / 2, top - 10, DETAIL, "detail", "middle"))
        content.append(label(note, x + width / 2, bottom + 10, _BELOW, "note", "middle"))
    largest = max((abs(value) for value in chain(*values) if math.isfinite(value)), default=0.0)
    for y, (name, numbers) in enumerate(zip(rows, values, strict=True)):
        middle = top + _ROW * (y + 0.5)
        line = f"M0 {number(middle + _ROW / 2)}H{number(xs[-1])}"
        content.append(tag("path", class_="grid", d=line))
        content.append(label(name, left - 8, middle, NOTE, "note", "end"))
        for x, width, text, value in zip(xs, widths, labels, numbers, strict=False):
            if math.isfinite(value):
                share = math.sqrt(abs(value) / (largest or 1.0))  # shows small numbers, too
                content.append(
                    tag(
                        "rect",
                        tooltip(f"{name}, {text}: {value:+.2f}"),
                        class_="cell series-0" if value >= 0 else "cell series-1",
                        x=x + (width - _SIDE) / 2,
                        y=middle - _SIDE / 2,
                        width=_SIDE,
                        height=_SIDE,
                        rx=2 if value >= 0 else _SIDE / 2,
                        fill_opacity=f"{0.1 + 0.9 * share:.2f}",
                    )
                )
    return document(content, full_width, bottom + 20, title, summary, margin=8.0)


def draw_heads(
    tokens: Sequence[str],
    heads: Sequence[str],
    weights: Sequence[Sequence[Sequence[float]]],
    title: str,
    summary: str,
) -> str:
    """Draw what heads of attention read as SVG: a triangle for each head, up to four side by side.
    A token stands at the end of its row, which is the top of its column.

    Args:
        tokens: The tokens; further weights are not drawn.
        heads: The names of the heads.
        weights: For each head and each token, the weights of the last tokens up to this one.
        title: The title.
        summary: A sentence on its content.
    """
    labels = list(map(shorten, tokens))
    ends = [_ROW * row + text_width(text, DETAIL) for row, text in enumerate(labels, 1)]
    triangle_width = max(*ends, *(text_width(name, LABEL) for name in heads)) + _CELL
    triangle_height = _ROW * len(labels) + _LEFT
    # the triangles side by side: the most that give full lines, or else four
    columns = next((n for n in (4, 3, 2) if len(heads) % n == 0), min(4, len(heads)))
    full_width = max(columns * triangle_width, _WIDTH)
    caption = _caption(title, summary, full_width)
    top = block_size(caption)[1] + _TOP
    content = block(caption, 0.0, 0.0)
    for place, (name, rows) in enumerate(zip(heads, weights, strict=True)):
        triangle = [label(name, 0.0, 0.0, LABEL, "label")]
        for row, (text, numbers) in enumerate(zip(labels, rows, strict=False)):
            y = _TOP + _ROW * row
            triangle.append(label(text, _ROW * (row + 1), y, DETAIL, "detail"))
            # the last number is the weight of the token itself, on the diagonal
            for column, value in enumerate(numbers, row + 1 - len(numbers)):
                if value >= 0.01:
                    triangle.append(
                        tag(
                            "rect",
                            tooltip(f"{text} reads {labels[column]}: {100 * value:.0f} %"),
                            class_="cell series-0",
                            x=_ROW * column,
                            y=y - _SIDE / 2,
                            width=_SIDE,
                            height=_SIDE,
                            rx=2,
                            fill_opacity=f"{0.1 + 0.9 * math.sqrt(value):.2f}",
                        )
                    )
        grid_row, grid_column = divmod(place, columns)
        x = grid_column * triangle_width
        content.append(moved(triangle, x, top + grid_row * triangle_height))
    full_height = top + triangle_height * math.ceil(len(heads) / columns) - _TOP
    return document(content, full_width, full_height, title, summary, margin=8.0)


def _spiral_points(
    x: float, y: float, half_width: float, width: float, height: float
) -> Iterator[Point]:
    """Yield the points of a sunflower spiral (Vogel 1979) around (x, y), from the centre outwards.
    Points at which a word of this half width would leave the map are skipped.
    """
    half_height = _WORD_HEIGHT / 2
    for step in range(int(width * height / 4)):
        radius = 3 * math.sqrt(step)
        spot_x = x + radius * math.cos(step * _GOLDEN_ANGLE)
        spot_y = y + radius * math.sin(step * _GOLDEN_ANGLE)
        if (
            half_width <= spot_x <= width - half_width
            and half_height <= spot_y <= height - half_height
        ):
            yield spot_x, spot_y


def _matplotlib(chart: Chart) -> Any:
    """Return a chart as a figure of matplotlib. Pyplot is not used, since it has global state."""
    from matplotlib.figure import Figure  # takes half a second to import

    heights = [panel.height for panel in chart.panels]
    figure = Figure(figsize=(8, 1.7 + sum(heights) / 50), layout="constrained")
    axes = figure.subplots(len(heights), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    legend = dict[str, Any]()  # the first artist of each series, by name
    for panel, ax in zip(chart.panels, axes, strict=True):
        for series in panel.series:
            for artist in _plot(series, ax):
                legend.setdefault(series.name, artist)
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
    summary = "\n".join(wrap(chart.summary, DETAIL, _ALONE))
    axes[0].set_title(_escaped(summary), fontsize=9, color="0.35")
    handles = [legend[series.name] for series in _legend_series(chart)]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    return figure


def _plot(series: Series, ax: Any) -> Iterator[Any]:
    """Draw a series on axes of matplotlib, and yield the artists that the legend may show."""
    # matplotlib has ten colours, C0 to C9
    look: dict[str, Any] = {"color": f"C{series.style % 10}", "label": _escaped(series.name)}
    xs = [x for x, _ in series.points]
    ys = [y for _, y in series.points]
    if series.is_bar:
        yield ax.bar(xs, ys, _BAR, alpha=0.5, **look)
    elif series.is_ring:
        yield from ax.plot(xs, ys, "o", markersize=11, fillstyle="none", **look)
    elif series.is_dashed:
        yield from ax.plot(xs, ys, "--", linewidth=1, **look)
    elif series.points:
        yield from ax.plot(xs, ys, "o-", markersize=3.5, **look)
    if series.interval is not None:
        ax.vlines(xs[0], *series.interval, color=look["color"])
    if series.level is not None:
        yield ax.axhline(series.level, linestyle=":", linewidth=1.2, **look)


def _escaped(text: str) -> str:
    """Escape a text for matplotlib, so that a dollar sign does not start a formula, and a leading
    underscore does not hide an entry of the legend.
    """
    text = text.encode("utf-8", "replace").decode("utf-8")  # matplotlib draws no lone surrogates
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def _without_undrawable(chart: Chart) -> Chart:
    """Return a chart without the points that cannot be drawn, and with at most ``_MAX_POINTS``
    points in each series.
    """

    def keep(series: Series) -> Series:
        """Return a series with the points that are drawn."""
        points = [
            (x, y)
            for x, y in series.points
            if math.isfinite(x) and math.isfinite(y) and (x > 0 or not chart.log_x)
        ]
        return replace(series, points=thin(points, _MAX_POINTS))

    panels = [panel._replace(series=list(map(keep, panel.series))) for panel in chart.panels]
    return replace(chart, panels=panels)


def thin(values: Sequence[_Value], count: int) -> list[_Value]:
    """Return at most ``count`` values at even distances, including the first and the last."""
    if len(values) <= count:
        return list(values)
    return [values[round(n * (len(values) - 1) / (count - 1))] for n in range(count)]


class _Axis(NamedTuple):
    """An axis: the values at its ends (their decimal logarithms if ``is_log``), the positions of
    its ends in pixels, and its ticks as pairs of label and value.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: list[tuple[str, float]]
    is_log: bool = False

    def position(self, value: float) -> float:
        """Return the position of a value in pixels."""
        scaled = math.log10(value) if self.is_log else value
        share = (scaled - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def _draw(chart: Chart, width: float, head: Lines) -> str:
    """Return a chart as SVG, below the lines of text in ``head``. All its points can be drawn; see
    ``_without_undrawable``.
    """
    points = chain.from_iterable(series.points for series in chart.series)
    x_axis = _make_axis([x for x, _ in points], _LEFT, width, chart.log_x, chart.from_zero)
    if chart.labels:
        ticks = [(shorten(name, 12), float(n)) for n, name in enumerate(chart.labels)]
        x_axis = x_axis._replace(ticks=ticks)
    if any(series.is_bar for series in chart.series):
        # room for half a bar, and some space, beside the first and the last label
        x_axis = x_axis._replace(low=-_BAR, high=len(chart.labels) - 1 + _BAR)
    content = block(head, 0.0, 0.0)
    y = block_size(head)[1]
    for panel in chart.panels:
        content += _draw_panel(panel, x_axis, width, y + _TOP)
        y += _TOP + panel.height
    y -= _BETWEEN  # now at the bottom of the area of the last panel
    for text, value in x_axis.ticks:
        x = x_axis.position(value)
        content.append(tag("path", class_="grid", d=f"M{x} {number(y)}v5"))
        content.append(label(text, x, y + 14, NOTE, "note", "middle"))
    content.append(label(chart.x, width, y + 31, DETAIL, "detail", "end"))
    legend, height = _draw_legend(_legend_series(chart), width, y + 46)
    content += legend
    return document(content, width, y + 46 + height, chart.title, chart.summary, margin=8.0)


def _legend_series(chart: Chart) -> list[Series]:
    """Return the series that the legend names: the series with points in the first panel, and the
    series with a level in any panel. Each name occurs once.
    """
    named = dict[str, Series]()
    for n, panel in enumerate(chart.panels):
        for series in panel.series:
            if series.level is not None or (series.points and n == 0):
                named.setdefault(series.name, series)
    return list(named.values())


def _draw_panel(panel: Panel, x_axis: _Axis, width: float, top: float) -> list[str]:
    """Return the elements of a panel whose area begins at the height ``top``."""
    bottom = top + panel.height - _BETWEEN
    values = list(panel.ends)  # values that the y axis must include
    for series in panel.series:
        values += [y for _, y in series.points]
        if series.level is not None:
            values.append(series.level)
        if series.points:
            values += series.interval or ()
    y_axis = _make_axis(values, bottom, top, count=5 if panel.height > 150 else 3)
    content = [label(panel.label, 0.0, top - 14, DETAIL, "detail")]
    for text, value in y_axis.ticks:
        y = y_axis.position(value)
        content.append(tag("path", class_="grid", d=f"M{_LEFT} {y}H{number(width)}"))
        content.append(label(text, _LEFT - 6, y, NOTE, "note", "end"))
    frame = f"M{_LEFT} {number(top)}V{number(bottom)}H{number(width)}"
    content.append(tag("path", class_="axis", d=frame))
    for series in panel.series:
        elements = "".join(_draw_series(series, x_axis, y_axis))
        if elements:
            content.append(tag("g", elements, class_=f"series-{series.style % 8}"))
    return content


def _draw_series(series: Series, x_axis: _Axis, y_axis: _Axis) -> Iterator[str]:
    """Yield the elements of a series; later elements cover earlier ones."""
    titles = [f"{series.name}: {x:,.4g}, {y:.4g}" for x, y in series.points]
    spots = [(x_axis.position(x), y_axis.position(y)) for x, y in series.points]  # in pixels
    if series.is_bar:
        for (x, y), title in zip(series.points, titles, strict=True):
            left = x_axis.position(x - _BAR / 2)
            right = x_axis.position(x + _BAR / 2)
            zero = y_axis.position(0.0)
            outline = f"M{left} {zero}V{y_axis.position(y)}H{right}V{zero}z"
            yield tag("path", tooltip(title), class_="mark filled", d=outline)
    if series.level is not None:
        line = f"M{_LEFT} {y_axis.position(series.level)}H{number(x_axis.end)}"
        yield tag("path", class_="line dotted", d=line)
    if len(spots) > 1 and not series.is_ring:
        line = "M" + "L".join(f"{x} {y}" for x, y in spots)
        yield tag("path", class_="line dashed" if series.is_dashed else "line", d=line)
    if series.interval is not None and spots:
        low, high = map(y_axis.position, series.interval)
        yield tag("path", class_="line bar", d=f"M{spots[0][0]} {low}V{high}")
    # a dashed line has no marks, but a single point would not be seen without one
    if not series.is_bar and (not series.is_dashed or len(spots) == 1):
        for (x, y), title in zip(spots, titles, strict=True):
            yield _mark(series, x, y, tooltip(title))


def _mark(series: Series, x: float, y: float, content: str = "") -> str:
    """Return a mark of a series, as the chart and the legend show it, at a position in pixels."""
    kind = "mark"
    if series.is_ring or series.is_dashed:
        kind = "mark hollow"
    elif series.is_bar:
        kind = "mark filled"
    # the eight colours repeat; each time, a colour gets another shape
    shape = _RING if series.is_ring else _SHAPES[(series.style + series.style // 8) % len(_SHAPES)]
    where = f"translate({number(x)} {number(y)})"
    return tag("path", content, class_=kind, transform=where, d=shape)


def _draw_legend(series: Sequence[Series], width: float, top: float) -> tuple[list[str], float]:
    """Return the elements of the legend, and its height."""
    content = []
    x = 0.0
    y = top + 8
    for entry in series:
        name = shorten(entry.name, 44)
        entry_width = 30 + text_width(name, DETAIL) + 16  # the symbol, the name, and space
        # an entry that does not fit begins a new line; the space after its name need not fit
        if x and x + entry_width > width + 16:
            x = 0.0
            y += 18
        kind = "line"
        if entry.level is not None:
            kind = "line dotted"
        elif entry.is_dashed:
            kind = "line dashed"
        is_solid = kind == "line"
        is_joined = len(entry.points) > 1 and not entry.is_ring
        symbol = ""
        if is_joined or not is_solid:  # the series has a line
            symbol += tag("path", class_=kind, d=f"M{number(x)} {number(y)}h24")
        if is_solid:  # the series has marks
            symbol += _mark(entry, x + 12, y)
        content.append(tag("g", symbol, class_=f"series-{entry.style % 8}"))
        content.append(label(name, x + 30, y, DETAIL, "detail"))
        x += entry_width
    return content, y + 10 - top


def _make_axis(
    values: Sequence[float],
    start: float,
    end: float,
    is_log: bool = False,
    from_zero: bool = False,
    count: int = 5,
) -> _Axis:
    """Return an axis from the position ``start`` to ``end`` that includes all values, which must be
    finite. Without values, it goes from 0 to 1; a logarithmic axis from 1 to 10.
    """
    scaled = [math.log10(value) if is_log else value for value in values] or [0.0, 1.0]
    low = min(scaled)
    high = max(scaled)
    if from_zero and not is_log:
        low = min(0.0, low)
    # an axis of a single value would have no length
    if math.isclose(low, high, rel_tol=1e-9, abs_tol=1e-12):
        low -= 0.5 * (abs(low) or 1.0)
        high += 0.5 * (abs(high) or 1.0)
    margin = (high - low) * 0.06
    if not from_zero or low != 0:  # no margin below a zero at which the axis starts
        low -= margin
    high += margin
    ticks = _log_ticks(low, high, count) if is_log else _linear_ticks(low, high, count)
    return _Axis(low, high, start, end, [(short(tick), tick) for tick in ticks], is_log)


def _linear_ticks(low: float, high: float, count: int) -> list[float]:
    """Return multiples of 1, 2 or 5 times a power of ten, about ``count`` of them."""
    rough = (high - low) / count  # the distance of exactly ``count`` ticks
    power = 10.0 ** math.floor(math.log10(rough))
    # the smallest round distance that is not below; 0.999 is for rounding errors
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float, count: int) -> list[float]:
    """Return powers of ten, thinned if there are many. ``low`` and ``high`` are the logarithms at
    the ends of the axis.

    If fewer than three powers are on the axis, each one times 4 is added, or each one times 2 and
    times 5. If there are still fewer than three ticks, return linear ones.
    """
    powers = range(math.floor(low), math.ceil(high) + 1)
    for steps in (1,), (1, 4), (1, 2, 5):
        ticks = [step * 10.0**power for power, step in product(powers, steps)]
        inside = [tick for tick in ticks if low <= math.log10(tick) <= high]
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
