"""What all pages share: escaping, charts, and files; opened in a real browser."""

import errno
import math
import re
from xml.etree import ElementTree

import pytest
from jinja2 import UndefinedError

from reviewgen.errors import ConfigError, OutputExists, StorageError
from reviewgen.pages import Series, draw_chart, render, save_page
from reviewgen.pages.charts import thin
from reviewgen.pages.scales import make_scale
from tests.support.browser import SCHEMES, WIDTHS, problems

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;{{ 7 * 19101 }}"
CHART = {"title": "Bits", "x": "seconds", "y": "bits per character", "summary": "Falls."}


def svg_of(figure: str) -> ElementTree.Element:
    """Return the chart of a figure, parsed strictly."""
    return ElementTree.fromstring(re.search(r"<svg.*?</svg>", figure, re.DOTALL).group())


def marks(figure: str) -> list[tuple[float, float]]:
    """Return where the marks of a chart are, in its units."""
    places = re.findall(r'class="mark[^"]*" transform="translate\(([\d.]+) ([\d.]+)\)"', figure)
    return [(float(x), float(y)) for x, y in places]


def page(tmp_path, *charts):
    """Save a page of charts, in the base template."""
    source = '{% extends "pages/page.html" %}{% block title %}Try {{ name }}{% endblock %}{% block content %}<p>{{ name }}</p>'
    source += '<h2>Charts</h2><div class="charts">{% for c in charts %}{{ c }}{% endfor %}</div>{% endblock %}'
    from reviewgen.pages.rendering import _environment

    html = _environment().from_string(source).render(name=HOSTILE, charts=charts)
    save_page(html, tmp_path / "page.html")
    return tmp_path / "page.html"


def test_every_text_of_a_chart_is_escaped():
    hostile = dict.fromkeys(CHART, HOSTILE)
    figure = draw_chart([Series(HOSTILE, [(1, 2), (2, 1)]), Series(HOSTILE + "!", [])], **hostile)
    assert "<script" not in figure and "<img" not in figure and "133707" not in figure
    assert svg_of(figure).get("aria-label") == f"{HOSTILE}. {HOSTILE}"


def test_marks_are_where_a_rule_of_three_puts_them():
    points = [(0.0, 1.0), (5.0, 2.0), (10.0, 4.0)]
    (x0, y0), (x1, y1), (x2, y2) = marks(draw_chart([Series("a", points)], **CHART))
    assert (x1 - x0) / (x2 - x0) == pytest.approx(0.5, abs=0.01)
    assert (y1 - y0) / (y2 - y0) == pytest.approx(1 / 3, abs=0.01)
    assert y2 < y0  # more is higher


def test_a_logarithmic_axis_has_decades_of_one_length():
    (x0, _), (x1, _), (x2, _) = marks(draw_chart([Series("a", [(1, 1), (10, 1), (100, 1)])], **CHART, log_x=True))
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)


def test_what_cannot_be_drawn_is_left_out_and_named():
    points = [(1, math.nan), (2, math.inf), (0, 1), (-1, 1)]
    figure = draw_chart([Series("lost", points), Series("kept", [(1, 1)])], **CHART, log_x=True)
    assert len(marks(figure)) == 1
    assert "unknown or infinite: lost." in figure
    assert "<svg" not in draw_chart([Series("lost", points)], **CHART, log_x=True)
    assert "<svg" not in draw_chart([], **CHART)


def test_a_long_curve_is_thinned_and_keeps_its_ends():
    figure = draw_chart([Series("a", [(n, math.exp(-n / 1e4)) for n in range(100_000)])], **CHART)
    assert len(marks(figure)) == 60 and len(figure) < 20_000
    assert thin(range(100), 5) == [0, 25, 50, 74, 99]


def test_intervals_are_bars_and_have_room():
    figure = draw_chart([Series("a", [(1, 5)], intervals=[(1, 9)])], **CHART)
    low, high = map(float, re.search(r'class="bar" d="M[\d.]+ ([\d.]+)V([\d.]+)"', figure).groups())
    assert 26 <= high < marks(figure)[0][1] < low <= 258


def test_thirty_series_differ_in_colour_or_shape():
    figure = draw_chart([Series(f"m{n}", [(n, n)], style=n) for n in range(30)], **CHART)
    looks = re.findall(r'<li class="(series-\d)">.*? d="([^"]+)"/></svg>', figure)
    assert len(set(looks)) == len(looks) == 30


@pytest.mark.parametrize("values", [[], [3.0], [0.0, 0.0], [1e-12, 1e12], [1.999, 2.0], [-5, 5], [1e9]])
@pytest.mark.parametrize("is_log", [False, True])
def test_every_axis_holds_its_values_and_has_ticks(values, is_log):
    known = [value for value in values if value > 0 or not is_log]
    scale = make_scale(known, is_log)
    assert all(0 <= scale.place(value) <= 1 for value in known)
    places = [scale.place(tick) for tick in scale.ticks.values()]
    assert 1 <= len(places) <= 9 and all(-1e-9 <= place <= 1 + 1e-9 for place in places)


def test_a_missing_value_is_an_error():
    with pytest.raises(UndefinedError):
        render("pages/chart.html", title="t")


def test_a_page_is_written_whole_and_others_are_left_alone(tmp_path):
    file = tmp_path / "page.html"
    save_page("old", file)
    with pytest.raises(OutputExists):
        save_page("new", file)
    save_page("n\ud800w", file, overwrite=True)
    assert file.read_text(encoding="utf-8") == "n?w" and list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("name", ["page", "page.pdf", "missing/page.html", "folder.html", "x" * 300 + ".html"])
def test_a_page_that_cannot_be_written_is_refused_before_any_work(tmp_path, name):
    (tmp_path / "folder.html").mkdir()
    with pytest.raises((ConfigError, StorageError), match=r"cannot be"):
        save_page("html", tmp_path / name)


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("reviewgen.pages.rendering.write_file", full)
    with pytest.raises(StorageError, match="No room"):
        save_page("html", tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_browser_finds_no_fault(browser, tmp_path, width, scheme):
    lines = Series("gru-char", [(n, 3 - n / 50) for n in range(60)], intervals=[(2, 3)] * 60)
    many = [Series(f"{HOSTILE}{n}", [(10.0**n, n)], style=n, is_dashed=n % 2 == 0) for n in range(30)]
    charts = [draw_chart([lines], **CHART, is_open=True), draw_chart(many, **CHART, log_x=True)]
    assert problems(browser, page(tmp_path, *charts), width, scheme) == []


def test_a_browser_does_find_faults(browser, tmp_path):
    file = tmp_path / "page.html"
    file.write_text(
        "<!DOCTYPE html><title>t</title><body style='background:#fff'><p style='width:2000px;color:#eee'>low contrast</p>"
        "<script>console.log('heard')</script><img src='http://127.0.0.1:9/a.png'>"
    )
    heard = " ".join(problems(browser, file, 800, "light"))
    assert all(word in heard for word in ("pixels wide", "console: heard", "request: http", "color-contrast", "image-alt"))
