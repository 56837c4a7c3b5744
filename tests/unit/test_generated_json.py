"""``generate --json``: the object that it writes text by text equals what ``json.dumps`` prints of the whole."""

import io
import json
import sys
import tracemalloc
from dataclasses import asdict, replace

import pytest

from reviewgen.cli.generated_json import print_generated
from tests.support.fakes import train_tiny

FACTS = {"model": "m", "prompt": ["a\u2028\x85", 'b"\n'], "seed": 3}  # some programs end lines at the first two


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An n-gram with an index of its training text."""
    return train_tiny("ngram-char", tmp_path_factory.mktemp("cache"), training={"novelty": "exact"})


def whole(texts, with_novelty):
    """The object, put together from all texts at once."""
    facts = FACTS | {
        "texts": [text.text for text in texts],
        "finish_reasons": [text.finish_reason for text in texts],
        "new_tokens": [text.new_tokens for text in texts],
    }
    if with_novelty:
        facts["novelty"] = [asdict(text.novelty) | {"exceeds_max_copy": text.exceeds_max_copy} for text in texts]
    return json.dumps(facts, indent=2, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("with_novelty", [False, True])
@pytest.mark.parametrize("number", [1, 5])
def test_it_is_what_json_dumps_prints(model, capsys, number, with_novelty):
    novelty = "report" if with_novelty else None
    texts = list(model.generate_each("a", num_return_sequences=number, seed=3, max_new_tokens=200, novelty=novelty))
    print_generated(FACTS, iter(texts), number, with_novelty=with_novelty)
    assert capsys.readouterr().out == whole(texts, with_novelty)


def test_no_texts_are_an_empty_list(capsys):
    print_generated(FACTS, iter([]), 0, with_novelty=True)
    assert json.loads(capsys.readouterr().out) == FACTS | {"texts": [], "finish_reasons": [], "new_tokens": [], "novelty": []}


def test_nothing_is_printed_if_the_first_text_fails(capsys):
    def failing():
        raise ValueError("no text")
        yield

    with pytest.raises(ValueError, match="no text"):
        print_generated(FACTS, failing(), 1, with_novelty=False)
    assert capsys.readouterr().out == ""


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_it_is_printed_when_whole(model, monkeypatch):
    shown = Terminal()
    monkeypatch.setattr(sys, "stdout", shown)

    def texts():
        for text in model.generate_each("a", num_return_sequences=3, seed=3):
            assert shown.getvalue() == ""
            yield text

    print_generated(FACTS, texts(), 3, with_novelty=False)
    assert len(json.loads(shown.getvalue())["texts"]) == 3


def test_memory_does_not_grow_with_the_texts(model, monkeypatch):
    class Nowhere(io.StringIO):
        def write(self, text):
            return len(text)

    (one,) = model.generate_each("a", seed=3, max_new_tokens=300, novelty="report")

    def peak(number):
        texts = (replace(one, text=f"{count} {one.text}") for count in range(number))
        print_generated(FACTS, texts, number, with_novelty=False)
        return tracemalloc.get_traced_memory()[1]

    monkeypatch.setattr(sys, "stdout", Nowhere())
    tracemalloc.start()
    try:
        few, many = peak(100), peak(2_000)
    finally:
        tracemalloc.stop()
    assert many - few < 100 * 2_000  # a text takes more: it has some 200 characters, a prompt, ids and what it is made of
