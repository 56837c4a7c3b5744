"""Bits per character against a loop over single tokens, for a dense, a scoring, a recurrent and a
count model.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from reviewgen import ReviewModel
from reviewgen.data.tokens import Tokens
from reviewgen.errors import DataError
from reviewgen.evaluation.evaluate import (
    evaluate_documents,
    log_probabilities,
    sample_documents,
    score_text,
    score_tokens,
    spread_documents,
)
from reviewgen.evaluation.scoring import Document, batches, token_losses
from tests.support.fakes import LETTERS, ScoringTable, TableModel, brute_bits, review_model, table

V = LETTERS.vocab_size
UNEQUAL = [
    "the movie was good",
    "é",
    "the " * 40,
    "the acting was très bon and I liked the theme.",
    "ส👍",
    " ",
    "a b",
]


def framed(tokenizer: Any, texts: Sequence[str], conditions: Sequence[int] = ()) -> list[Document]:
    frames = [
        np.array([tokenizer.bos_id, *conditions, *tokenizer.encode(text), tokenizer.eos_id])
        for text in texts
    ]
    return list(zip(frames, map(len, texts), strict=True))


@pytest.mark.parametrize("name", ["gru-char", "ngram-char"])
def test_evaluations_equal_the_loop(name, micro):
    trained = micro(name)
    bits = [brute_bits(trained, text) for text in UNEQUAL]
    nats = math.log(2) * sum(map(sum, bits))
    tokens = sum(map(len, bits))
    characters = sum(map(len, UNEQUAL))
    found = trained.evaluate(UNEQUAL, clean=False)
    assert (found.reviews, found.tokens, found.characters) == (len(UNEQUAL), tokens, characters)
    assert found.nats_per_character == pytest.approx(nats / characters, rel=1e-5)
    assert found.bits_per_character == pytest.approx(nats / characters / math.log(2), rel=1e-5)
    assert found.perplexity_per_token == pytest.approx(math.exp(nats / tokens), rel=1e-4)
    assert found.zero_probability_tokens == 0


@pytest.mark.parametrize("name", ["gru-char", "ngram-char"])
def test_a_score_equals_the_loop(name, micro):
    trained = micro(name)
    bits = brute_bits(trained, UNEQUAL[3])
    score = trained.score(UNEQUAL[3])
    assert [token.bits for token in score.tokens] == pytest.approx(bits, rel=1e-4)
    assert score.bits == pytest.approx(sum(bits), rel=1e-5)
    assert score.bits_per_character == pytest.approx(score.bits / len(UNEQUAL[3]))
    assert (
        "".join(token.text for token in score.tokens) == UNEQUAL[3] and score.tokens[-1].text == ""
    )


def documents_of_many_lengths() -> Any:
    """More texts than rows and than a batch, and one that is longer than a call."""
    draw = np.random.default_rng(0)
    lengths = [*np.exp(draw.normal(2.0, 1.0, 1100)).astype(int).clip(1, 300), 1500, 513, 512, 511]
    return framed(LETTERS, ["".join(draw.choice(list("abcdefgh"), length)) for length in lengths])


@pytest.mark.parametrize(
    "vocab_size, count", [(V, 0), (1 << 17, -60)], ids=["few tokens", "many tokens"]
)
def test_losses_do_not_depend_on_rows_and_chunks(vocab_size, count):
    """A call has few tokens where the vocabulary is large."""
    documents = documents_of_many_lengths()[count:]
    logits = table(V, 4)
    model = TableModel(logits)
    steps = logits.log_softmax(-1).numpy()
    losses = token_losses(model, [ids for ids, _ in documents], vocab_size)
    for (ids, _), found in zip(documents, losses, strict=True):
        np.testing.assert_allclose(found, -steps[ids[:-1], ids[1:]], rtol=1e-5, atol=1e-6)
    assert max(rows for rows, _ in model.calls) <= 64
    assert max(length for _, length in model.calls) <= 512
    assert max(rows * length for rows, length in model.calls) * vocab_size <= 1 << 23


def test_an_evaluation_does_not_depend_on_batches_and_computes_little_for_nothing():
    documents = documents_of_many_lengths()
    logits = table(V, 4)
    model = TableModel(logits)
    steps = logits.log_softmax(-1).numpy()
    assert (
        [len(batch) for batch in batches(iter(documents))]
        == [1024, len(documents) - 1024]
        == [1024, 80]
    )
    nats = sum(-steps[ids[:-1], ids[1:]].sum() for ids, _ in documents)
    found = evaluate_documents(model, iter(documents), V)
    assert found.tokens <= sum(rows * length for rows, length in model.calls) <= 1.15 * found.tokens
    assert found.bits_per_character == pytest.approx(
        nats / sum(length for _, length in documents) / math.log(2), rel=1e-5
    )


def test_an_evaluation_does_not_depend_on_the_type_of_ids():
    documents = documents_of_many_lengths()
    model = TableModel(table(V, 4))
    small = [(ids.astype(np.uint16), length) for ids, length in documents[:50]]
    assert evaluate_documents(model, small, V) == evaluate_documents(model, documents[:50], V)


def test_the_score_path_and_double_precision_equal_the_dense_path():
    logits = table(V, 4)
    texts = ["bad cafe", "a", "gh " * 30]
    dense = TableModel(logits)
    scoring = ScoringTable(logits)
    one, other, wide = (
        evaluate_documents(m, framed(LETTERS, texts), V)
        for m in (dense, scoring, TableModel(logits.double()))
    )
    assert dense.calls and not scoring.calls
    assert other.bits_per_character == pytest.approx(one.bits_per_character, rel=1e-6)
    assert wide.bits_per_character == pytest.approx(one.bits_per_character, rel=1e-6)
    with pytest.raises(IndexError, match="Target 11"):
        evaluate_documents(dense, [(np.array([0, 2, 11]), 1)], V)


def without_f(kind: type[TableModel]) -> ReviewModel:
    """Return a model that never writes an f, nor the id that pads."""
    logits = table(V)
    logits[:, LETTERS.encode("f")[0]] = -math.inf
    logits[:, 0] = -math.inf
    return review_model(kind(logits), LETTERS)


@pytest.mark.parametrize("kind", [TableModel, ScoringTable])
def test_an_evaluation_with_zero_probability_is_infinite(kind):
    trained = without_f(kind)
    found = trained.evaluate(["bad", "face off", "fffe", "cab"], clean=False)
    assert (found.zero_probability_tokens, found.reviews) == (6, 4)
    assert (
        found.bits_per_character
        == found.nats_per_character
        == found.perplexity_per_token
        == math.inf
    )
    finite = trained.evaluate(["a", "bad cab"], clean=False)
    assert finite.zero_probability_tokens == 0 and math.isfinite(finite.bits_per_character)


@pytest.mark.parametrize("kind", [TableModel, ScoringTable])
def test_a_perplexity_beyond_floats_is_infinite(kind):
    steep = torch.zeros(V, V)
    steep[:, 2] = 5000.0
    found = evaluate_documents(kind(steep), framed(LETTERS, ["bbb"]), V)
    assert (found.perplexity_per_token, found.zero_probability_tokens) == (math.inf, 0)
    assert found.nats_per_character == pytest.approx(5000 * 4 / 3)


@pytest.mark.parametrize("kind", [TableModel, ScoringTable])
def test_a_score_with_zero_probability_is_infinite(kind):
    score = without_f(kind).score("cafe")
    assert score.bits == math.inf
    assert [math.isinf(token.bits) for token in score.tokens] == [False, False, True, False, False]


def test_conditions_are_given_and_not_scored():
    logits = table(V + 3, 2)
    model = TableModel(logits)
    steps = logits.log_softmax(-1)
    texts = ["bad cafe", "a"]
    documents = framed(LETTERS, texts, conditions=(V, V + 2))
    wanted = [-steps[ids[:-1], ids[1:]].double()[2:] for ids, _ in documents]
    score = score_text(model, LETTERS, "bad cafe", prefix=(V, V + 2))
    assert [token.bits * math.log(2) for token in score.tokens] == pytest.approx(
        wanted[0].tolist(), rel=1e-5
    )
    ids = documents[0][0].tolist()
    assert log_probabilities(model, ids, 3) == pytest.approx((-wanted[0]).tolist(), rel=1e-5)
    assert log_probabilities(model, ids[:5], 4) == pytest.approx(
        [float(steps[ids[3], ids[4]])], rel=1e-5
    )
    assert log_probabilities(model, ids[:3], 3) == []


def test_the_text_before_is_given_and_not_scored():
    trained = review_model(TableModel(table(V)), LETTERS)
    whole = trained.score("bad cafe")
    first = trained.score("bad")
    after = trained.score(" cafe", "bad")
    assert [token.bits for token in after.tokens] == [token.bits for token in whole.tokens[3:]]
    assert first.bits - first.tokens[-1].bits + after.bits == pytest.approx(whole.bits)


def test_tokens_are_scored_under_several_models_at_once():
    models = [TableModel(table(V + 1, seed)) for seed in (0, 1)]
    documents = framed(LETTERS, ["bad cafe", "", "gab"], (V,))
    scores, characters = score_tokens(models, iter(documents), V)
    assert scores.shape == (9 + 1 + 4, 2) and characters == 11 and scores.dtype == np.float64
    for column, model in enumerate(models):
        losses = np.concatenate(token_losses(model, [ids for ids, _ in documents], V))
        np.testing.assert_array_equal(scores[:, column], -losses.astype(np.float64))
    for texts, message in (([], "no text"), (["", ""], "no characters")):
        with pytest.raises(DataError, match=message):
            score_tokens(models, framed(LETTERS, texts), V)


class Store(Tokens):
    """A token store of ten texts whose lengths rise."""

    count = 65

    def __init__(self) -> None:
        self.characters = np.arange(10)

    def __len__(self) -> int:
        return 10

    def document(self, index: int) -> np.ndarray:
        return np.array([0, *[2] * index, 1])


def sizes(documents: list[Document]) -> list[int]:
    return [length for ids, length in documents if len(ids) == length + 2]


def test_samples_of_documents_are_evenly_spaced():
    store: Any = Store()
    assert (
        sizes(sample_documents(store, 1000))
        == list(range(10))
        == sizes(sample_documents(store, 65))
    )
    assert sizes(sample_documents(store, 33)) == [1, 3, 5, 7, 9]
    assert sizes(sample_documents(store, 20)) == [1, 5, 8]
    assert sizes(sample_documents(store, 0)) == [5]  # one, in the middle


def test_documents_of_a_list_are_evenly_spread():
    store: Any = Store()
    pairs = [(store.document(length), length) for length in range(10)]
    assert (
        sizes(spread_documents(pairs, 10)) == list(range(10)) == sizes(spread_documents(pairs, 99))
    )
    assert sizes(spread_documents(pairs, 3)) == [2, 5, 8]  # of the nine that have characters
    assert sizes(spread_documents(pairs[:1] * 4, 2)) == [0, 0]


@pytest.mark.wrong_types
def test_what_cannot_be_scored_is_an_error():
    trained = review_model(TableModel(table(V)), LETTERS)
    for call, message in (
        (lambda: trained.score(""), "at least one character"),
        (lambda: evaluate_documents(trained.model, [], V), "no text to evaluate"),
        (lambda: evaluate_documents(trained.model, framed(LETTERS, ["", ""]), V), "no characters"),
        (lambda: score_text(trained.model, LETTERS, 3), "string; got 3"),  # type: ignore[arg-type]
        (lambda: score_text(trained.model, LETTERS, "a", given=None), "string; got None"),  # type: ignore[arg-type]
    ):
        with pytest.raises(DataError, match=message):
            call()
