"""Formats of plugins: automata over tokens, which installed packages provide by name."""

from typing import Any

import pytest

import reviewgen
from reviewgen.config import from_dict
from reviewgen.errors import BrokenPlugin, ConfigError
from reviewgen.tables.receipts import Receipt, make_receipt, replay
from tests.support.fakes import LETTERS, TableModel, review_model, table

V = LETTERS.vocab_size
CODE = """
import numpy as np
from reviewgen.protocols import TokenAutomaton

def pairs(tokenizer):
    a, b = tokenizer.encode("ab")
    table = np.zeros((8, tokenizer.vocab_size), np.int32)  # "abab" or "abababab"...
    for state in range(2, 8):
        table[state, b if state % 2 else a] = 4 if state == 7 else state + 1
    return TokenAutomaton(table, is_end=np.arange(8) == 6)

def empty(tokenizer):
    return TokenAutomaton(np.zeros((3, tokenizer.vocab_size), np.int32), np.zeros(3, bool))

def wide(tokenizer):
    return TokenAutomaton(np.zeros((3, 2), np.int32), np.ones(3, bool))
"""


@pytest.fixture
def model(install) -> reviewgen.ReviewModel:
    """A model, with a package of automata installed."""
    points = {
        "logits_processors": {each: f"fake_pairs:{each}" for each in ("pairs", "empty", "wide")}
    }
    install("reviewgen-pairs", points, {"fake_pairs": CODE})
    return review_model(TableModel(table(V, 2, eos=-1.0)), LETTERS)


OPTIONS: dict[str, Any] = {"num_return_sequences": 20, "seed": 3, "logits_processor": "pairs"}


def test_every_text_fits_the_automaton_of_a_plugin(model):
    texts = model.generate(**OPTIONS)
    assert all(len(text) % 4 == 0 and text.replace("ab", "") == "" for text in texts)
    assert "".join(model.stream(seed=3, logits_processor="pairs")) == texts[0]
    limited = model.generate(**OPTIONS, max_new_tokens=10)
    assert {len(text) for text in limited} <= {4, 8}


def test_it_is_combined_with_other_formats_and_the_prompt(model):
    assert set(model.generate("aba", **OPTIONS, max_new_tokens=3)) == {"abab"}
    texts = model.generate(**OPTIONS, include=["abababab"])
    assert min(map(len, texts)) >= 8


def test_a_text_can_be_replayed(model):
    (made,) = model.generate(seed=1, logits_processor="pairs", return_dict_in_generate=True)
    receipt = make_receipt(model, made)
    assert receipt["versions"]["reviewgen-pairs"] == "1.2.3"
    assert replay(from_dict(Receipt, receipt), model).is_equal


def test_what_does_not_fit_is_refused_in_a_sentence(model):
    for options, error, problem in (
        ({"prompt": "b"}, ConfigError, "The prompt does not fit the logits processor 'pairs'"),
        ({"max_new_tokens": 3}, ConfigError, "need at least 4 tokens"),
        ({"num_beams": 2}, ConfigError, "num_beams cannot be combined with a format"),
        ({"logits_processor": "empty"}, ConfigError, "No text of this model's tokens fits"),
        ({"logits_processor": "wide"}, BrokenPlugin, r"shape \(3, 2\)"),
    ):
        with pytest.raises(error, match=problem):
            model.generate(**{"logits_processor": "pairs", **options})
