"""What notebooks show: of a training one figure that is updated, in a real Jupyter kernel; of values, tables and shaded texts."""

import math
import re
from pathlib import Path
from typing import Any, ClassVar

import pytest
from selectolax.lexbor import LexborHTMLParser

import reviewgen
from reviewgen.evaluation import Evaluation, Score, TokenScore
from reviewgen.generation.next_tokens import Alternative, Context, NextTokens, Support
from reviewgen.novelty import Novelty, Span
from reviewgen.runs.curves import Curves
from reviewgen.runs.notebook import NotebookView
from reviewgen.training import Report
from tests.support.browser import SCHEMES, problems
from tests.support.fakes import GRU, NGRAM, TEXTS, train_tiny

MARKUP = "<script>alert(1)</script><b onclick='x'>&amp;"


def parsed(value: Any) -> LexborHTMLParser:
    """Return the fragment of a value, which must not have an element that its text spells."""
    return tree_of(value._repr_html_())


def tree_of(html: str) -> LexborHTMLParser:
    tree = LexborHTMLParser(html)
    assert tree.css("script, b, [onclick]") == []
    for style in tree.css("style"):
        style.decompose()
    return tree


def cells(tree: LexborHTMLParser) -> list[list[str]]:
    return [[cell.text().strip() for cell in row.css("th, td")] for row in tree.css("tr")]


def test_a_score_shades_each_token_by_its_bits() -> None:
    tokens = [
        TokenScore("a", 0.0),
        TokenScore(MARKUP, 5.0),
        TokenScore("\n", 25.0),
        TokenScore("b", math.inf),
        TokenScore("", 0.4),
        TokenScore("", 0.4),
    ]
    tree = parsed(Score(math.inf, math.inf, tokens))
    spans = tree.css(".score span")
    assert [span.text() for span in spans] == ["a", MARKUP, "⏎\n", "b", "(part of a character)", "(end)"]
    assert [span.attributes["class"] for span in spans] == ["b0", "b5", "b10", "zero", "b0", "b0"]
    assert [span.attributes["title"] for span in spans] == [
        "0.00 bits", "5.00 bits", "25.00 bits", "probability zero", "0.40 bits", "0.40 bits"]  # fmt: skip
    assert "∞ bits per character" in tree.text()


def test_a_long_text_is_cut_where_it_would_fill_the_notebook() -> None:
    tree = parsed(Score(5000.0, 1.0, [TokenScore("x", 1.0)] * 5000))
    assert len(tree.css(".score span")) == 2000
    assert "and 3,000 more tokens" in tree.text()


def test_the_score_of_a_model_shows_its_text(tmp_path: Path) -> None:
    model = train_tiny("ngram-char", tmp_path, **NGRAM)
    text = f"the movie was {MARKUP} good"
    tree = parsed(model.score(text))
    shown = tree.css_first(".score").text().removesuffix("(end)")
    assert shown.startswith("the movie was ") and shown.endswith(" good")


def test_an_evaluation_is_a_table_of_its_figures() -> None:
    rows = dict(cells(parsed(Evaluation(1.23456, 0.85573, 12.5, 1_234_567, 45_678, 12, 3))))
    assert rows == {
        "bits per character": "1.2346",
        "nats per character": "0.8557",
        "perplexity per token": "12.50",
        "texts": "12",
        "characters": "1,234,567",
        "tokens, with end tokens": "45,678",
        "tokens with probability zero": "3",
    }
    assert "∞" in parsed(Evaluation(math.inf, math.inf, math.inf, 1, 1, 1, 1)).text()


def novelty(*spans: Span, form: str = "exact") -> Novelty:
    return Novelty(form, 100, 50, 40, 20, "x" * 40, {8: 0.25, 12: 0.125, 20: None}, spans, 0.01)


def test_novelty_underlines_the_copied_part_of_the_training_review() -> None:
    excerpt = f"before {MARKUP}copied{MARKUP} after"
    tree = parsed(novelty(Span(3, 9, "copied", 8, 7, excerpt)))
    (sample,) = tree.css(".sample .text")
    assert sample.text() == excerpt
    assert [span.text() for span in tree.css(".copied")] == ["copied"]
    assert cells(tree)[1] == ["25.0 %", "12.5 %", "–"]
    assert "in training review 7" in tree.text() and "at most" not in tree.text()


def test_novelty_of_the_compact_form_are_upper_bounds_and_many_spans_are_cut() -> None:
    tree = parsed(novelty(*[Span(0, 9, MARKUP, 9, None, None)] * 13, form="compact"))
    assert [span.text() for span in tree.css(".copied")] == [MARKUP] * 5
    assert "8 more, not longer than these" in tree.text()
    assert cells(tree)[1] == ["at most 25.0 %", "at most 12.5 %", "–"]
    empty = Novelty("exact", 0, 0, 0, 0, "", {8: None, 12: None, 20: None}, (), 0.0)
    assert "The text is empty" in parsed(empty).text()


def test_next_tokens_are_a_table_with_bars() -> None:
    alternatives = (
        Alternative(5, MARKUP, MARKUP, False, 0.625, 0.678, Support(3, 12, None)),
        Alternative(1, "", "(end)", True, 0.0004, 11.3, Support(0, None, None)),
    )
    context = Context(2, MARKUP, False, 20, "occurrences")
    tree = parsed(NextTokens(MARKUP, 4, 0.7, alternatives, 1.5, 9, (context,)))
    head, *rows = cells(tree)
    assert head == ["token", "probability", "", "bits", "longest n-gram", "its count"]
    assert rows == [[MARKUP, "62.5 %", "", "0.68", "3", "12"], ["(end)", "0.0 %", "", "11.30", "0", "–"]]
    assert [bar.attributes["style"] for bar in tree.css(".share span")] == ["width: 62.5%", "width: 0.0%"]
    assert f"After {MARKUP}" in tree.text() and "at temperature 0.70" in tree.text()
    without_counts = parsed(NextTokens("", 0, 1.0, alternatives, 1.5, 9, ()))
    assert cells(without_counts)[0] == ["token", "probability", "", "bits"] and "(the beginning)" in without_counts.text()


def test_of_long_tokens_and_texts_the_part_that_matters_is_shown() -> None:
    alternatives = (Alternative(5, "a" * 500, "a" * 500, False, 1.0, 0.0, None),)
    tree = parsed(NextTokens("start" + "x" * 50_000 + "end", 50_000, 1.0, alternatives, 0.0, 1, ()))
    assert tree.css_first("tbody code").text() == "a" * 59 + "…"
    text = tree.css_first("p code").text()
    assert text.startswith("…x") and text.endswith("xend") and len(text) == 201


def test_a_model_shows_what_was_recorded_and_its_curve(tmp_path: Path) -> None:
    model = train_tiny("gru-char", tmp_path, **GRU)
    rows = dict(row for row in cells(parsed(model)) if len(row) == 2)
    held_out = model.training["held_out"]["bits_per_character"]
    assert rows["ReviewModel"] == "gru-char"
    assert rows["held-out text"] == f"{held_out:.3f} bits per character"
    assert rows["trained on"] == "list of texts"
    assert parsed(model).css("figure svg")


@pytest.mark.parametrize(
    "training",
    [{}, {"held_out": None, "data": 3}, {"evaluations": "x"}, {"held_out": {"bits_per_character": None}, "verdict": []}],
)
def test_a_model_whose_record_is_damaged_is_shown_without_it(tmp_path: Path, training: dict[str, Any]) -> None:
    model = train_tiny("ngram-char", tmp_path, **NGRAM)
    model.bundle.training = training | {"preset": MARKUP}
    rows = dict(cells(parsed(model)))
    assert rows["ReviewModel"] == "ngram-char" and "held-out text" not in rows


class HalfTrained(reviewgen.TrainingRun):
    """A run in the middle of its training, as the figure asks for it."""

    preset, is_interrupted, evaluation = "gru-char", False, None  # type: ignore[assignment]
    curves: ClassVar[dict[str, Curves]] = {  # type: ignore[assignment]
        "gru-char": Curves(
            1.0,
            evaluations=[{"seconds": 2.0 * step, "bits_per_character": 4 / step} for step in range(1, 5)],
            points=[{"seconds": 0.5 * step, "train_bits_per_character": 8 / step} for step in range(1, 20)],
        )
    }

    def __init__(self) -> None:
        """Make no plan."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of everything that a notebook shows."""
    folder = tmp_path_factory.mktemp("page")
    view = NotebookView(HalfTrained())
    view._has_curves, view._last = True, Report(40, 0.4, 8.0, 4000, learning_rate=0.1, device="cpu, bf16")
    alternatives = tuple(Alternative(n, MARKUP * n, MARKUP * n, False, 0.5**n, n, Support(n, 10**n, None)) for n in range(1, 9))
    shown = [
        train_tiny("gru-char", folder, **GRU),
        Evaluation(1.2, 0.8, 12.5, 1_234_567, 45_678, 12, 3),
        Score(9.0, 1.0, [TokenScore("word " * (n % 3), 0.3 * n) for n in range(60)] + [TokenScore("x" * 200, math.inf)]),
        novelty(Span(3, 9, "copied" * 30, 8, 7, "before " + "copied" * 30), form="compact"),
        NextTokens(MARKUP * 3, 4, 0.7, alternatives, 1.5, 9, (Context(2, "a", False, 20, "occurrences"),)),
        NextTokens("x" * 5000, 4, 0.7, (Alternative(5, "", "W" * 80, False, 1, 0, Support(9, 10**9, None)),), 1.5, 9, ()),
    ]
    fragments = [view._draw("Training ...", False), *(value._repr_html_() for value in shown)]
    head = '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>A notebook</title>'
    head += '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark"></head>'
    file = folder / "page.html"
    file.write_text(f"{head}<body><main><h1>A notebook</h1>{''.join(fragments)}</main></body></html>", encoding="utf-8")
    return file


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [400, 1000])
def test_a_browser_finds_no_fault(browser: Any, page: Path, width: int, scheme: str) -> None:
    assert problems(browser, page, width, scheme) == []


LIGHT, DARK = "rgb(255, 255, 255)", "rgb(20, 23, 26)"  # of a fragment
THEMES = {
    'data-jp-theme-light="true"': False,
    'data-jp-theme-light="false"': True,
    'class="vscode-light"': False,
    'class="vscode-dark"': True,
    'class="vscode-high-contrast"': True,
    'class="vscode-high-contrast-light vscode-high-contrast"': False,
    'theme="dark"': True,
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("theme", "is_dark"), THEMES.items())
def test_values_and_graphs_have_the_theme_of_the_notebook(browser: Any, theme: str, is_dark: bool, scheme: str) -> None:
    """Of the notebook and not of the system, where they differ."""
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    values = Evaluation(1.2, 0.8, 12.5, 1, 1, 1, 0)._repr_html_() + reviewgen.graph("nnlm-char")._repr_html_()
    page.set_content(f"<!DOCTYPE html><html><body {theme}>{values}</body></html>")
    style = "getComputedStyle(document.querySelector({!r})).{}"
    assert page.evaluate(style.format(".reviewgen", "backgroundColor")) == (DARK if is_dark else LIGHT)
    assert page.evaluate(style.format(".reviewgen-graph .paper", "fill")) == ("rgb(20, 24, 29)" if is_dark else LIGHT)
    context.close()


# In a Jupyter kernel.

TRAIN = f"""
import reviewgen
from reviewgen.runs import notebook
notebook._SECONDS, notebook._SHARE = 0.0, 1e9  # an update at every step
model = reviewgen.train({{preset!r}}, {TEXTS!r}, steps=12, training={{{{"batch_size": 4, "evaluations": 3, "threads": 1}}}})
"""


def run_cells(*sources: str) -> tuple[list[Any], list[str]]:
    """Execute the cells of a notebook; return their outputs, and the HTML of every update of a display."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    updates: list[str] = []

    class Client(nbclient.NotebookClient):
        """Keeps the updates."""

        def process_message(self, message: Any, cell: Any, index: int) -> Any:
            if message["msg_type"] in ("display_data", "update_display_data"):
                updates.append(message["content"]["data"].get("text/html", ""))
            return super().process_message(message, cell, index)

    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    Client(book, timeout=600, kernel_name="python3").execute()
    return [cell.outputs for cell in book.cells], updates


def test_a_training_in_a_notebook_is_one_figure_that_is_updated() -> None:
    (outputs, shown, silent), updates = run_cells(
        TRAIN.format(preset="gru-char"),
        "model.score('the movie')",
        "quiet = reviewgen.train('ngram-char', ['a b', 'b c', 'c a'] * 9, progress=False)",
    )
    figures = [output for output in outputs if output.output_type == "display_data"]
    assert len(figures) == 1 and len(updates) >= 10
    assert not any(output.output_type == "display_data" for output in silent)
    assert "Reading ..." in updates[0] and "<svg" not in updates[0]
    shares = [float(share) for update in updates for share in re.findall(r'<progress value="([0-9.]+)"', update)]
    assert shares == sorted(shares) and shares[0] < 0.2 and shares[-1] == 1
    middle = updates[len(updates) // 2]
    assert "bits per character of held-out text" in middle and "step " in middle and 'aria-label="Bits per character.' in middle
    last = figures[0].data["text/html"]
    assert last == updates[-1] and re.search(r"Trained: \d\.\d{3} bits per character of held-out text", last)
    assert "<progress" not in last and 'class="line"' in last
    assert 'class="score"' in shown[0].data["text/html"]


def test_a_blend_has_a_curve_for_each_of_its_models() -> None:
    _, updates = run_cells(TRAIN.format(preset="blend-char").replace("steps=12", "epochs=1"))
    legend = [entry.text() for entry in tree_of(updates[-1]).css(".legend li")]
    assert legend == ["ngram-char, held-out text", "lstm-char, held-out text", "lstm-char, training text"]
    middle = tree_of(updates[-3]).text()
    assert "bits per character of held-out text (ngram-char)" in middle
