"""What all pages share: charts, escaping, and files."""

import math
import re
from xml.etree import ElementTree

import pytest
from jinja2 import UndefinedError

from reviewgen.errors import ConfigError, OutputExists, StorageError
from reviewgen.pages import Series, draw_chart, render, save_page

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;{{ 7 * 19101 }}"
CHART = {"title": "Bits", "x": "seconds", "y": "bits per character", "summary": "Falls."}


def marks(*series, **options):
    """Return where the marks of a chart are, in its units."""
    figure = draw_chart(list(series), **CHART, **options)
    places = re.findall(r'class="mark[^"]*" transform="translate\(([\d.]+) ([\d.]+)\)"', figure)
    return [(float(x), float(y)) for x, y in places]


def test_marks_are_where_a_rule_of_three_puts_them_or_decades_of_one_length():
    (x0, y0), (x1, y1), (x2, y2) = marks(Series("a", [(0.0, 1.0), (5.0, 2.0), (10.0, 4.0)]))
    assert (x1 - x0) / (x2 - x0) == pytest.approx(0.5, abs=0.01) and y2 < y0  # more is higher
    assert (y1 - y0) / (y2 - y0) == pytest.approx(1 / 3, abs=0.01)
    (x0, _), (x1, _), (x2, _) = marks(Series("a", [(1, 1), (10, 1), (100, 1)]), log_x=True)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)
    for values in ([3.0], [0.0, 0.0], [1e-12, 1e12], [1.999, 2.0], [-5, 5], [1e9]):
        for is_log in (False, True):
            found = marks(Series("a", [(x, x) for x in values]), log_x=is_log)
            assert len(found) == sum(x > 0 or not is_log for x in values), values
            assert all(0 < x < 480 and 0 < y < 290 for x, y in found), (values, found)


def test_what_cannot_be_drawn_is_named_long_curves_are_thinned_and_series_look_different():
    points = [(1, math.nan), (2, math.inf), (0, 1), (-1, 1)]
    figure = draw_chart([Series("lost", points), Series("kept", [(1, 1)])], **CHART, log_x=True)
    assert "unknown or infinite: lost." in figure
    assert "<svg" not in draw_chart([Series("lost", points)], **CHART, log_x=True) + draw_chart([], **CHART)
    long = marks(Series("a", [(n, math.exp(-n / 1e4)) for n in range(100_001)]))
    ends = marks(Series("a", [(0, 1.0), (100_000, math.exp(-10))]))
    assert len(long) == 60 and [long[0], long[-1]] == ends
    figure = draw_chart([Series("a", [(1, 5)], intervals=[(1, 9)])], **CHART)
    low, high = map(float, re.search(r'class="bar" d="M[\d.]+ ([\d.]+)V([\d.]+)"', figure).groups())
    assert 26 <= high < marks(Series("a", [(1, 5)], intervals=[(1, 9)]))[0][1] < low <= 258
    figure = draw_chart([Series(f"m{n}", [(n, n)], style=n) for n in range(30)], **CHART)
    looks = re.findall(r'<li class="(series-\d)">.*? d="([^"]+)"/></svg>', figure)
    assert len(set(looks)) == len(looks) == 30


def test_texts_are_escaped_and_a_missing_value_is_an_error():
    figure = draw_chart([Series(HOSTILE, [(1, 2), (2, 1)]), Series(HOSTILE + "!", [])], **dict.fromkeys(CHART, HOSTILE))
    assert "<script" not in figure and "<img" not in figure and "133707" not in figure
    svg = ElementTree.fromstring(re.search(r"<svg.*?</svg>", figure, re.DOTALL).group())
    assert svg.get("aria-label") == f"{HOSTILE}. {HOSTILE}"
    with pytest.raises(UndefinedError):
        render("pages/chart.html", title="t")


def test_a_page_is_written_whole_and_others_are_left_alone(tmp_path):
    file = tmp_path / "page.html"
    save_page("old", file)
    with pytest.raises(OutputExists):
        save_page("new", file)
    save_page("n\ud800w", file, overwrite=True)
    assert file.read_text(encoding="utf-8") == "n?w" and list(tmp_path.iterdir()) == [file]
    (tmp_path / "folder.html").mkdir()
    for name in ("page", "page.pdf", "missing/page.html", "folder.html", "x" * 300 + ".html"):
        with pytest.raises((ConfigError, StorageError), match="cannot be"):
            save_page("html", tmp_path / name)
