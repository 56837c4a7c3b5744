"""The page of a comparison: escaping, size, and what a real browser says about it; rows are made up, none is trained."""

import math
import random
import re
from base64 import b64encode
from dataclasses import replace
from html.parser import HTMLParser

import pytest

import reviewgen
from reviewgen.comparison import Comparison, CurvePoint, OrderPoint, Row, Sample
from reviewgen.comparison.held_out import HeldOut
from reviewgen.comparison.measuring import Measured
from reviewgen.comparison.page import cut_sample, describe_best, render_fragment, render_page
from reviewgen.errors import ConfigError, OutputExists, StorageError
from tests.support.browser import SCHEMES, WIDTHS, problems

HOSTILE = "</p><script>document.title = 'owned'</script><img src=x onerror=alert(1)>\"' {{ 7 * 19101 }} & \u202eabc"
TEXTS = ["x" * (50 + 13 * number % 400) for number in range(60)]


def make(names, hostile=""):
    """Return a comparison of made-up models, the last of which has failed."""
    noise = random.Random(0)
    held_out = HeldOut(TEXTS, [{} for _ in TEXTS], 900, "test", f"reviews.csv{hostile}", "abc")
    comparison = Comparison(held_out, f"the {hostile}", 0)
    shared = [noise.gauss(0, 0.2) for _ in TEXTS]
    for number, name in enumerate(names):
        bits = [len(text) * (2 + number / 50 + each + noise.gauss(0, 0.1)) for text, each in zip(TEXTS, shared, strict=True)]
        comparison.add(Measured(make_row(name + hostile, number, sum(bits) / sum(map(len, TEXTS)), hostile), tuple(bits)))
    comparison.add(Measured(Row(name=f"failed{hostile}", source="x", failed=f"The loss is NaN.{hostile}"), None))
    return comparison


def make_row(name, number, bits, hostile):
    text = "the film was good and " * 14 + hostile
    return Row(
        name=name,
        source=f"hf://ana/{name}" if number % 2 else name,
        tokenizer="word" if number % 3 else "char",
        parameters=10 ** (3 + number % 5),
        bytes_on_disk=10 ** (4 + number % 4),
        training_seconds=20.0 * number,
        bits_per_character=bits,
        bits_interval=(bits - 0.1, bits + 0.1),
        perplexity_per_token=2**bits,
        copy_rate=0.123,
        characters_per_second=12345.0,
        distinct={"1": 0.5, "2": 0.9, "3": None},
        samples=tuple(Sample(temperature, text, ((4, 90), (100, 160))) for temperature in (0.5, 0.8, 1.2)),
        curve=tuple(CurvePoint(3.0 * n, 10_000 * n, bits + 3 / n) for n in range(1, 30)),
        orders=tuple(OrderPoint(n, 4 / n, 2 + 1 / n) for n in range(1, 9)) if number == 0 else (),
        seen=0.5 if number == 2 else 0.0,
        notes=(f"A note.{hostile}",),
    )


class Reader(HTMLParser):
    """Collects the tags of a page, and its text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("render", [render_page, render_fragment])
def test_everything_from_models_files_and_users_is_escaped(render):
    html = render(make(["gru-char", "lstm-char"], HOSTILE))
    page = Reader(html)
    assert not {"script", "img", "iframe", "object", "link", "a"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("href", "src")]
    assert "133707" not in html
    for text in (
        f"gru-char{HOSTILE}",
        f"the {HOSTILE}",
        f"The loss is NaN.{HOSTILE}",
        f"A note.{HOSTILE}",
        f"reviews.csv{HOSTILE}",
    ):
        assert text in page.text


def test_samples_are_whole_and_their_copied_spans_are_marked():
    html = render_page(make(["gru-char"]))
    marked = re.findall(r'<mark class="copied">(.*?)</mark>', html)
    sample = make(["gru-char"]).rows[0].samples[0]
    assert marked[:2] == [sample.text[4:90], sample.text[100:160]]
    assert "".join(piece for piece, _ in cut_sample(sample)) == sample.text
    assert cut_sample(Sample(1.0, "", None)) == [] and cut_sample(Sample(1.0, "abc", None)) == [("abc", False)]


def test_a_model_that_has_seen_the_texts_is_neither_the_best_nor_in_a_pair():
    comparison = make(["a", "b", "c"])
    assert {name for pair in comparison.pairs for name in (pair.first, pair.second)} == {"a", "b"}
    assert describe_best(comparison).startswith("a has the fewest") and "(seen)" in render_page(comparison)


def test_the_page_of_thirty_models_is_small_and_names_them_all():
    comparison = make([f"model-{number}" for number in range(30)], HOSTILE)
    html = render_page(comparison)
    assert len(html.encode()) < 1_000_000 and len(comparison.pairs) == 29 * 28 / 2
    assert all(f"model-{number}" in html for number in range(30))


@pytest.mark.parametrize(
    "only",
    [
        Row(name="failed", source="x", failed="Why."),
        Row(name="empty", source="x"),
        Row(
            name="infinite",
            source="x",
            bits_per_character=math.inf,
            perplexity_per_token=math.inf,
            parameters=0,
            tokenizer="char",
        ),
        Row(name="huge", source="x", bits_per_character=1e300, parameters=10**15, samples=(Sample(0.5, "z" * 10**6, None),)),
    ],
    ids=lambda only: only.name,
)
def test_a_row_of_few_or_odd_values_has_a_page(only):
    comparison = Comparison(HeldOut(["ab"], [{}], 1, "all", "x", None), "", 0)
    comparison.add(Measured(only, None))
    html = render_page(comparison)
    assert only.name in html and len(html) < 60_000


def test_no_rows_at_all_have_a_page_too():
    assert "0 language models" in render_page(Comparison(HeldOut(["ab"], [{}], 1, "all", "x", None), "", 0))


def test_a_picture_is_shown_where_a_row_has_one():
    comparison = Comparison(HeldOut(["ab"], [{}], 1, "all", "x", None), "", 0)
    svg = "<svg><script>alert(1)</script></svg>"  # inert inside an image
    comparison.add(Measured(Row(name="x", source="x", picture=svg), None))
    page = render_page(comparison)
    assert f"data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}" in page
    assert "Graphs" in page and "alert" not in page


def test_a_picture_is_named_as_its_row():
    comparison = Comparison(HeldOut(["ab"], [{}], 1, "all", "x", None), "", 0)
    for name in ("gru-char", "mine"):
        comparison.add(Measured(Row(name=name, source="gru-char", picture="<svg/>"), None))
    assert re.findall("<figcaption>(.*?)</figcaption>", render_page(comparison)) == ["mine"]


def test_without_a_finished_row_no_model_was_evaluated():
    comparison = Comparison(HeldOut(["ab"], [{}], 1, "all", "x", None), "", 0)
    assert describe_best(comparison) == "No model was evaluated."
    comparison.add(Measured(Row(name="x", source="x", failed="Why."), None))
    assert describe_best(comparison) == "No model was evaluated." and "No model was evaluated." in render_page(comparison)


def test_a_page_is_saved_once_and_only_as_html(tmp_path):
    comparison, file = make(["a"]), tmp_path / "page.html"
    comparison.save_html(file)
    with pytest.raises(OutputExists):
        comparison.save_html(str(file))
    comparison.save_html(file, overwrite=True)
    with pytest.raises(ConfigError):
        comparison.save_html(tmp_path / "page.png")
    with pytest.raises(StorageError):
        comparison.save_html(tmp_path / "no" / "page.html")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    pictured = Comparison(HeldOut(["ab"], [{}], 1, "all", "x", None), "", 0)
    for name in ("ngram-char", "lstm-char"):  # two rows of a preset have two names
        made = replace(make_row(name, 0, 2.0, ""), source="preset", picture=reviewgen.graph(name).svg)
        pictured.add(Measured(made, (4.0,)))
    for name, comparison in {
        "pictured": pictured,
        "few": make(["ngram-char", "gru-char", "c"]),
        "hostile": make([f"m{n}" for n in range(9)], HOSTILE),
    }.items():
        comparison.save_html(folder / f"{name}.html")
    return folder


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", ["few", "hostile", "pictured"])
def test_a_browser_finds_no_fault(browser, pages, name, scheme, width):
    assert problems(browser, pages / f"{name}.html", width, scheme) == []


def test_the_page_is_whole_without_scripts_and_dark_is_dark(browser, pages):
    shades = {}
    for scheme in SCHEMES:
        context = browser.new_context(java_script_enabled=False, color_scheme=scheme, viewport={"width": 800, "height": 900})
        page = context.new_page()
        page.goto((pages / "few.html").as_uri())
        assert page.locator("figure.chart svg[role=img]").count() == 4 and "ngram-char" in page.inner_text("main")
        shades[scheme] = page.screenshot(clip={"x": 0, "y": 0, "width": 2, "height": 2})
        context.close()
    assert shades["light"] != shades["dark"]


def test_a_script_in_a_sample_does_not_run(browser, pages):
    context = browser.new_context(bypass_csp=True)
    page = context.new_page()
    page.goto((pages / "hostile.html").as_uri())
    assert page.title() == "10 language models compared"
    context.close()


def test_it_prints_on_paper(browser, pages):
    page = browser.new_page()
    page.goto((pages / "few.html").as_uri())
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).colorScheme") == "light"
    page.close()
