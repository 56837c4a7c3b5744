"""A model card, rendered as Markdown with HTML: names and values from data are text, whatever they
are.
"""

import csv
import itertools

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

import reviewgen
from tests.support.fakes import TEXTS
from tests.support.models import NGRAM

COLUMN = "<img src=x onerror=1>"
VALUES = (
    "a|b",
    "`c`",
    "two\nlines",
    "<script>alert(1)</script>",
    "[d](http://e.example)",
    r"\*f*",
    "&lt;g&gt;",
)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory) -> list[Token]:
    """The parsed card of a model that was trained on a CSV file whose name, column and values are
    Markdown and HTML.
    """
    file = tmp_path_factory.mktemp("data") / "<b>*reviews*.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["text", COLUMN])
        pairs = itertools.product(VALUES, TEXTS)
        rows.writerows([f"{text} {value}", value] for value, text in pairs)
    model = reviewgen.train("ngram-char", file, text_column="text", conditions=[COLUMN], **NGRAM)
    card = str(model.generate_model_card())
    parsed = (
        MarkdownIt("commonmark", {"html": True}).enable("table").parse(card.split("\n---\n", 1)[1])
    )
    return list(itertools.chain.from_iterable((token, *(token.children or ())) for token in parsed))


def text_of(tokens: list[Token]) -> str:
    return "".join(
        token.content for token in tokens if token.type in ("text", "text_special", "code_inline")
    )


def test_a_column_and_values_are_no_html_elements(tokens):
    html = [token.content for token in tokens if token.type in ("html_inline", "html_block")]
    assert [
        content for content in html if not content.startswith("<!-- written by reviewgen")
    ] == []


def test_values_are_no_links_and_no_emphasis(tokens):
    assert {token.type for token in tokens}.isdisjoint({"link_open", "em_open", "strong_open"})


@pytest.mark.parametrize("value", [COLUMN, *VALUES])
def test_a_name_or_value_is_shown_as_it_is(tokens, value):
    assert value.replace("\n", " ") in text_of(tokens)


def test_the_name_of_the_file_is_shown_as_it_is(tokens):
    assert "<b>*reviews*.csv" in text_of(tokens)


def test_a_table_of_settings_has_a_row_for_each_group(tokens):
    assert sum(token.type == "tr_open" for token in tokens) >= 3


def test_only_settings_that_had_an_effect_are_in_the_table(tokens):
    # an n-gram is trained by counting
    text = text_of(tokens)
    assert "copy_tokens=" in text and "order=" in text
    assert not any(name in text for name in ("optimizer=", "learning_rate=", "bptt="))
