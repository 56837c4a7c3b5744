"""Line and scatter charts as inline SVG that follows light and dark, with a legend and a table of the values.

A chart is laid out here as plain numbers, and written by the template ``chart.html``, which escapes every text. Runs differ in
colour and in the shape of their marks, so that nothing depends on colour alone.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from markupsafe import Markup

from reviewgen.pages.rendering import render
from reviewgen.pages.scales import Scale, make_scale

_Value = TypeVar("_Value")

COLORS = 8  # the variables --series-0 to --series-7 of page.css
_WIDTH, _HEIGHT = 420, 300  # small, so that text is readable where a phone shrinks it
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 26, 42
_MAX_POINTS = 60  # of a line; a curve of more is thinned
_MAX_LISTED = 8  # values of a line in the table
_SHAPES = (  # around (0, 0): circle, square, triangle, diamond
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "M-3.6-3.6h7.2v7.2h-7.2z",
    "M0-4.8l4.6 8.2h-9.2z",
    "M0-5l4.4 5l-4.4 5l-4.4-5z",
)


@dataclass(frozen=True)
class Series:
    """The points of one line, or of one mark.

    Attributes:
        name: Its name in the legend.
        points: Pairs of x and y; pairs with a value that is NaN or infinite are left out.
        style: A number that chooses colour and shape: the same model has the same in each chart.
        is_dashed: Whether its line is dashed.
        intervals: The low and high end of each y, drawn as bars; empty for none.
    """

    name: str
    points: Sequence[tuple[float, float]]
    style: int = 0
    is_dashed: bool = False
    intervals: Sequence[tuple[float, float]] = ()


class _Mark(NamedTuple):
    x: float
    y: float
    title: str
    bar: tuple[float, float] | None


class _Drawn(NamedTuple):
    series: Series
    color: int
    shape: str
    path: str
    marks: list[_Mark]
    listed: list[tuple[float, float]]


def draw_chart(
    series: Sequence[Series],
    *,
    title: str,
    x: str,
    y: str,
    summary: str,
    log_x: bool = False,
    from_zero: bool = False,
    is_open: bool = False,
) -> Markup:
    """Return a chart as an HTML figure.

    Args:
        series: What is drawn; a series of one point is a mark.
        title: The caption.
        x, y: The labels of the axes.
        summary: What the chart shows, in a sentence, for those who do not see it.
        log_x: Whether the x axis is logarithmic; points that are not above zero are then left out.
        from_zero: Whether a linear x axis starts at zero.
        is_open: Whether the table of the values is unfolded.
    """
    kept = [_keep(each, log_x) for each in series]
    across = make_scale([x for each in kept for x, _ in each.points], log_x, from_zero)
    ends = [end for each in kept for interval in each.intervals for end in interval]
    up = make_scale([y for each in kept for _, y in each.points] + ends)
    drawn = [_draw(each, across, up) for each in kept if each.points]
    chart = {
        "width": _WIDTH,
        "height": _HEIGHT,
        "left": _LEFT,
        "right": _WIDTH - _RIGHT,
        "top": _TOP,
        "bottom": _HEIGHT - _BOTTOM,
        "x_ticks": [(label, _x(across, value)) for label, value in across.ticks.items()],
        "y_ticks": [(label, _y(up, value)) for label, value in up.ticks.items()],
    }
    missing = [each.name for each in kept if not each.points]
    values = {"title": title, "x": x, "y": y, "summary": summary, "is_open": is_open, "missing": missing}
    return Markup(render("pages/chart.html", chart=chart, drawn=drawn, **values))  # the template has escaped all


def _keep(series: Series, log_x: bool) -> Series:
    """Return a series without the points that cannot be drawn, thinned."""
    bars: Iterable[tuple[float, float] | None] = series.intervals or [None] * len(series.points)
    pairs = [
        (point, bar)
        for point, bar in zip(series.points, bars, strict=True)
        if all(map(math.isfinite, point)) and (point[0] > 0 or not log_x)
    ]
    thinned = thin(pairs, _MAX_POINTS)
    intervals = [bar for _, bar in thinned if bar is not None and all(map(math.isfinite, bar))]
    complete = intervals if len(intervals) == len(thinned) else []
    return Series(series.name, [point for point, _ in thinned], series.style, series.is_dashed, complete)


def thin(values: Sequence[_Value], count: int) -> list[_Value]:
    """Return at most ``count`` values at even distances, the first and the last among them."""
    if len(values) <= count:
        return list(values)
    return [values[round(number * (len(values) - 1) / (count - 1))] for number in range(count)]


def _draw(series: Series, across: Scale, up: Scale) -> _Drawn:
    bars: Sequence[tuple[float, float] | None] = series.intervals or [None] * len(series.points)
    marks = [
        _Mark(_x(across, x), _y(up, y), f"{series.name}: {x:,.4g}, {y:.4g}", bar and (_y(up, bar[0]), _y(up, bar[1])))
        for (x, y), bar in zip(series.points, bars, strict=True)
    ]
    path = "M" + "L".join(f"{mark.x} {mark.y}" for mark in marks) if len(marks) > 1 else ""
    shape = _SHAPES[(series.style + series.style // COLORS) % len(_SHAPES)]
    return _Drawn(series, series.style % COLORS, shape, path, marks, thin(series.points, _MAX_LISTED))


def _x(scale: Scale, value: float) -> float:
    return round(_LEFT + scale.place(value) * (_WIDTH - _LEFT - _RIGHT), 1)


def _y(scale: Scale, value: float) -> float:
    return round(_HEIGHT - _BOTTOM - scale.place(value) * (_HEIGHT - _TOP - _BOTTOM), 1)
