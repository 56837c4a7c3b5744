"""What notebooks show: of a training one figure that is updated, in a real Jupyter kernel; shaded
texts.
"""

import math
import re
from typing import Any

import pytest
from selectolax.lexbor import LexborHTMLParser

from reviewgen.evaluation.evaluate import Score, TokenScore
from reviewgen.novelty import Novelty, Span
from tests.support.fakes import TEXTS

MARKUP = "<script>alert(1)</script><b onclick='x'>&amp;"


def parsed(value: Any) -> LexborHTMLParser:
    """Return the fragment of a value, which must not have an element that its text spells."""
    tree = LexborHTMLParser(value if isinstance(value, str) else value._repr_html_())
    assert tree.css("script, b, [onclick]") == []
    for style in tree.css("style"):
        style.decompose()
    return tree


def cells(tree: LexborHTMLParser) -> list[list[str]]:
    return [[cell.text().strip() for cell in row.css("th, td")] for row in tree.css("tr")]


def test_a_score_shades_each_token_by_its_bits():
    tokens = [("a", 0.0), (MARKUP, 5.0), ("\n", 25.0), ("b", math.inf), ("", 0.4), ("", 0.4)]
    tree = parsed(Score(math.inf, math.inf, [TokenScore(*token) for token in tokens]))
    spans = tree.css(".score span")
    assert [span.text() for span in spans] == [
        "a",
        MARKUP,
        "⏎\n",
        "b",
        "(part of a character)",
        "(end)",
    ]
    assert [span.attributes["class"] for span in spans] == ["b0", "b5", "b10", "zero", "b0", "b0"]
    titles = [span.attributes["title"] for span in spans]
    assert titles == [
        "0.00 bits",
        "5.00 bits",
        "25.00 bits",
        "probability zero",
        "0.40 bits",
        "0.40 bits",
    ]
    assert "∞ bits per character" in tree.text()
    long = parsed(Score(5000.0, 1.0, [TokenScore("x", 1.0)] * 5000))
    assert len(long.css(".score span")) == 2000 and "and 3,000 more tokens" in long.text()


def novelty(*spans: Span, form: str = "exact") -> Novelty:
    return Novelty(form, 100, 50, 40, 20, "x" * 40, {8: 0.25, 12: 0.125, 20: None}, spans, 0.01)


def test_novelty_underlines_the_copied_part_of_the_training_review():
    excerpt = f"before {MARKUP}copied{MARKUP} after"
    tree = parsed(novelty(Span(3, 9, "copied", 8, 7, excerpt)))
    (sample,) = tree.css(".sample .text")
    assert sample.text() == excerpt and [span.text() for span in tree.css(".copied")] == ["copied"]
    assert cells(tree)[1] == ["25.0 %", "12.5 %", "–"]
    assert "in training review 7" in tree.text() and "at most" not in tree.text()


def test_novelty_of_a_compact_index_underlines_five_copied_parts():
    tree = parsed(novelty(*[Span(0, 9, MARKUP, 9, None, None)] * 13, form="compact"))
    assert [span.text() for span in tree.css(".copied")] == [MARKUP] * 5
    assert "8 more, not longer than these" in tree.text() and cells(tree)[1] == [
        "at most 25.0 %",
        "at most 12.5 %",
        "–",
    ]


def test_the_novelty_of_an_empty_text_says_so():
    empty = Novelty("exact", 0, 0, 0, 0, "", {8: None, 12: None, 20: None}, (), 0.0)
    assert "The text is empty" in parsed(empty).text()


# In a Jupyter kernel.

TRAIN = f"""
import reviewgen
settings = {{"batch_size": 4, "evaluations": 5, "threads": 1}}
options = {{"model": {{"hidden_size": 8}}, "training": settings}}
model = reviewgen.train("gru-char", {TEXTS!r}, budget="8s", **options)
"""


def run_cells(*sources: str) -> tuple[list[Any], list[str]]:
    """Execute the cells of a notebook; return their outputs, and the HTML of every update of a
    display.
    """
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


@pytest.mark.slow
def test_a_training_in_a_notebook_is_one_figure_that_is_updated():
    (outputs, shown, silent), updates = run_cells(
        TRAIN,
        "model.score('the movie')",
        "quiet = reviewgen.train('ngram-char', ['a b', 'b c', 'c a'] * 9, progress=False)",
    )
    figures = [output for output in outputs if output.output_type == "display_data"]
    assert len(figures) == 1 and len(updates) >= 5
    assert not any(output.output_type == "display_data" for output in silent)
    shares = [
        float(share) for share in re.findall(r'<progress value="([0-9.]+)"', "".join(updates))
    ]
    assert shares == sorted(shares) and 0 <= shares[0] < shares[-1] <= 1
    last = figures[0].data["text/html"]
    assert last == updates[-1] and re.search(
        r"Trained: \d\.\d{3} bits per character of held-out text", last
    )
    assert "<progress" not in last and 'class="line"' in last
    assert 'class="score"' in shown[0].data["text/html"]
