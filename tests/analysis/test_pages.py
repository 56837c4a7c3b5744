"""What all pages share: charts, escaping, and files."""

import math
import re
from xml.etree import ElementTree

import pytest
from jinja2 import UndefinedError

from reviewgen.errors import ConfigError, OutputExists, StorageError
from reviewgen.web.charts import Chart, Panel, Series, draw_figure, save_chart
from reviewgen.web.rendering import refuse_file, render, save_text

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;{{ 7 * 19101 }}"


def draw(*series, text="Bits", **options):
    return draw_figure(Chart(text, text, [Panel(text, series)], text, **options))


def marks(*series, **options):
    """Return where the marks of a chart are, in its units, without those of the legend."""
    places = re.findall(
        r'class="mark[^"]*" transform="translate\(([\d.]+) ([\d.]+)\)" d="[^"]+"><title',
        draw(*series, **options),
    )
    return [(float(x), float(y)) for x, y in places]


def test_marks_are_where_a_rule_of_three_puts_them():
    (x0, y0), (x1, y1), (x2, y2) = marks(Series("a", [(0.0, 1.0), (5.0, 2.0), (10.0, 4.0)]))
    assert (x1 - x0) / (x2 - x0) == pytest.approx(0.5, abs=0.01) and y2 < y0  # more is higher
    assert (y1 - y0) / (y2 - y0) == pytest.approx(1 / 3, abs=0.01)


def test_marks_of_a_logarithmic_axis_are_evenly_spaced_by_decade():
    (x0, _), (x1, _), (x2, _) = marks(Series("a", [(1, 1), (10, 1), (100, 1)]), log_x=True)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)


@pytest.mark.parametrize("is_log", [False, True])
@pytest.mark.parametrize(
    "values", [[3.0], [0.0, 0.0], [1e-12, 1e12], [1.999, 2.0], [-5, 5], [1e9]], ids=str
)
def test_each_value_that_can_be_drawn_has_a_mark_in_the_picture(values, is_log):
    found = marks(Series("a", [(x, x) for x in values]), log_x=is_log)
    assert len(found) == sum(x > 0 or not is_log for x in values)
    assert all(0 < x < 480 and 0 < y < 290 for x, y in found), found


def test_what_cannot_be_drawn_is_named():
    points = [(1, math.nan), (2, math.inf), (0, 1), (-1, 1)]
    figure = draw(Series("lost", points), Series("kept", [(1, 1)]), log_x=True)
    assert "unknown or infinite: lost." in figure
    assert "<svg" not in draw(Series("lost", points), log_x=True) + draw()


def test_a_long_curve_is_thinned_between_its_ends():
    long = marks(Series("a", [(n, math.exp(-n / 1e4)) for n in range(100_001)]))
    ends = marks(Series("a", [(0, 1.0), (100_000, math.exp(-10))]))
    assert len(long) == 60 and [long[0], long[-1]] == ends


def test_an_interval_is_a_bar_around_its_mark():
    figure = draw(Series("a", [(1, 5)], interval=(1, 9)))
    low, high = map(
        float, re.search(r'class="line bar" d="M[\d.]+ ([\d.]+)V([\d.]+)"', figure).groups()
    )
    assert 26 <= high < marks(Series("a", [(1, 5)], interval=(1, 9)))[0][1] < low <= 258


def test_thirty_series_look_different():
    figure = draw(*(Series(f"m{n}", [(n, n)], style=n) for n in range(30)))
    looks = re.findall(r'class="(series-\d)"><path class="mark" [^>]*? d="([^"]+)"/></g>', figure)
    assert len(set(looks)) == len(looks) == 30


def test_texts_are_escaped_and_a_missing_value_is_an_error():
    figure = draw(Series(HOSTILE, [(1, 2), (2, 1)]), Series(HOSTILE + "!", []), text=HOSTILE)
    assert "<script" not in figure and "<img" not in figure and "133707" not in figure
    svg = ElementTree.fromstring(re.search(r"<svg.*?</svg>", figure, re.DOTALL).group())
    assert svg.get("aria-label") == svg[0].text == svg[1].text == HOSTILE
    with pytest.raises(UndefinedError):
        render("web/chart.html", chart=None)


def test_a_chart_is_a_file_of_its_own_in_light_and_dark_with_its_levels_rings_and_panels(tmp_path):
    first = [
        Series(HOSTILE, [(0, 2), (1, 1)]),
        Series("kept", [(1, 1)], is_ring=True),
        Series("counted", style=1, level=1.5),
    ]
    chart = Chart(
        HOSTILE,
        "steps",
        [
            Panel("bits", first),
            Panel("rate", [Series("r", [(0, 1), (1, 2)], is_dashed=True)], 90.0),
        ],
    )
    save_chart(chart, tmp_path / "chart.svg")
    root = ElementTree.parse(tmp_path / "chart.svg").getroot()
    classes = [each.get("class") for each in root.iter()]
    assert (
        classes.count("axis") == 2
        and classes.count("mark hollow") == 2
        and {"line dotted", "line dashed"} <= set(classes)
    )
    assert "prefers-color-scheme: dark" in (tmp_path / "chart.svg").read_text()
    texts = ["".join(each.itertext()) for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"steps", "bits", "rate", "kept", "counted"} <= set(texts)


def test_a_page_is_written_whole_and_others_are_left_alone(tmp_path):
    file = tmp_path / "page.html"
    save_text("old", file)
    with pytest.raises(OutputExists):
        refuse_file(file)
    refuse_file(file, overwrite=True)
    save_text("n\ud800w", file)
    assert file.read_text(encoding="utf-8") == "n?w" and list(tmp_path.iterdir()) == [file]
    (tmp_path / "folder.html").mkdir()
    for name in ("page", "page.pdf", "missing/page.html", "folder.html", "x" * 300 + ".html"):
        with pytest.raises((ConfigError, StorageError), match="cannot be"):
            refuse_file(tmp_path / name)
