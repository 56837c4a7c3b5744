"""The page that counts: in Node, its figures are those of the n-gram of Python; in Chromium, it is
readable in light and in dark.
"""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from reviewgen.registry.plugins import find_model, find_tokenizer
from tests.support.browser import problems
from tests.support.node import run_node, why_no_node

PAGE = Path(__file__).parents[2] / "docs" / "count.html"
HTML = PAGE.read_text(encoding="utf-8")
SCRIPTS = dict(re.findall(r'<script id="(\w+)">\n(.*?)</script>', HTML, re.DOTALL))
ORDERS = 10  # as the page
TEXTS = {
    "the page's own": re.findall(r"<textarea[^>]*>(.*?)</textarea>", HTML, re.DOTALL)[0],
    "characters that the training part lacks": "ab abc abd " * 12 + "é 👍 zab日",
    "ten characters": "aaaaabbbbc",
    "one character": "x" * 50,
}
CALLS = """
const [text, order, contexts] = JSON.parse(process.argv[2]);
const learned = learn(text, order);
const { bits, ids, model } = learned;
const tokens = [...Array(model.vocabSize).keys()];
const rows = contexts.map((context) => {
  const before = encode(ids, context).slice(0, -1);
  const nodes = before.reduce((nodes, token) => follow(model, nodes, token), [0]);
  return tokens.map((token) => (token === BEGIN ? 0 : predict(model, nodes, token).at(-1)));
});
const samples = [2, order].map((n) => {
  let seed = 1;
  return write(learned, n, 120, () => (seed = (seed * 48271) % 2147483647) / 2147483647);
});
const copied = samples.map((sample) => markCopies(sample, learned.training, 10));
console.log(JSON.stringify({ bits, rows, samples, copied, training: learned.training.join("") }));
"""
"""What the test asks the page's script."""


def ask(text: str, contexts: list[str], folder: Path) -> dict[str, Any]:
    """Return what the page's script computes for a text, and the probabilities after contexts."""
    script = folder / "count.cjs"
    script.write_text(SCRIPTS["model"] + CALLS, encoding="utf-8")
    answer: dict[str, Any] = json.loads(run_node(script, json.dumps([text, ORDERS, contexts])))
    return answer


def count(text: str, order: int) -> tuple[Any, Any]:
    """Return the n-gram of a text, and its tokenizer."""
    tokenizer_class, _ = find_tokenizer("char")
    tokenizer: Any = tokenizer_class.train([text], tokenizer_class.Config())
    cls: Any = find_model("ngram")[0]
    config = cls.Config(vocab_size=tokenizer.vocab_size, order=order, smoothing="witten-bell")
    model = cls(config)
    model.observe(encode(tokenizer, text)[0].numpy())
    model.finish()
    return model, tokenizer


def encode(tokenizer: Any, text: str) -> torch.Tensor:
    """Return the ids of a text (1, T)."""
    return torch.tensor([[tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]])


def bits_per_character(model: Any, tokenizer: Any, text: str) -> float:
    """Return the bits of a text, its end included, by its characters."""
    ids = encode(tokenizer, text)
    scores, _ = model.score(ids[:, :-1], ids[:, 1:], model.initial_state(1))
    return -float(scores.double().sum()) / math.log(2) / len(text)


@pytest.mark.node
@pytest.mark.skipif(why_no_node() is not None, reason=str(why_no_node()))
@pytest.mark.parametrize("name", TEXTS)
def test_the_figures_are_those_of_python(name, tmp_path):
    text = TEXTS[name]
    cut = len(text) - len(text) // 10
    contexts = ["", text[:1], text[5:17], text[cut - 3 : cut], f"{text[:4]}é{text[3:5]}"]
    answer = ask(text, contexts, tmp_path)
    assert answer["training"] == text[:cut]
    for order in range(1, ORDERS + 1):
        model, tokenizer = count(text[:cut], order)
        for part, of in (("training", text[:cut]), ("heldOut", text[cut:])):
            expected = bits_per_character(model, tokenizer, of)
            assert answer["bits"][part][order - 1] == pytest.approx(expected, abs=1e-6)
    for context, row in zip(contexts, answer["rows"], strict=True):  # of the highest order
        logits, _ = model(encode(tokenizer, context)[:, :-1], model.initial_state(1))
        assert row == pytest.approx(logits[0, -1].double().exp().tolist(), abs=1e-6)
        assert sum(row) == pytest.approx(1)


@pytest.mark.node
@pytest.mark.skipif(why_no_node() is not None, reason=str(why_no_node()))
def test_copies_are_marked_where_they_are(tmp_path):
    answer = ask(TEXTS["the page's own"], [], tmp_path)
    few, many = (sum(copied) for copied in answer["copied"])
    assert few < many
    for characters, copied in zip(answer["samples"], answer["copied"], strict=True):
        sample = "".join(characters)
        expected = [False] * len(sample)
        for start in range(len(sample) - 9):
            if sample[start : start + 10] in answer["training"]:
                expected[start : start + 10] = [True] * 10
        assert copied == expected and len(sample) == 120


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_readable(scheme, browser):
    for width in (360, 1280):
        assert problems(browser, PAGE, width, scheme) == []


@pytest.mark.browser
def test_a_pasted_text_is_counted_and_n_is_chosen(browser):
    page = browser.new_page()
    page.goto(PAGE.as_uri())
    page.fill("#text", "<b>so good</b>\n" * 40)
    page.click("#count")
    assert "540 characters counted, 60 held out" in page.text_content("#sizes")
    page.fill("#order", "10")
    assert page.text_content("#bits [aria-current] th") == "10"
    assert page.locator("#samples .sample").count() == 3
    assert "so good" in page.locator("#samples mark").first.text_content()
    assert "<b>" in page.locator("#samples .written").first.text_content()
    page.fill("#text", "short")
    page.click("#count")
    assert "fewer than 10 characters" in page.text_content("#sizes")
    page.close()


def test_the_page_is_one_small_file():
    """At most 200 lines of JavaScript; its policy lets it load nothing."""
    assert sum(len(script.splitlines()) for script in SCRIPTS.values()) <= 200
    assert HTML.count("<script") == len(SCRIPTS) + 1  # and the mark of synthetic texts
    assert "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'" in HTML
