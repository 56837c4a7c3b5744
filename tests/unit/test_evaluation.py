"""Bits per character against a loop over single tokens, for a dense, a scoring, a recurrent and a count model."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reviewgen import ReviewModel
from reviewgen.compiled.entropy import target_losses
from reviewgen.errors import DataError
from reviewgen.evaluation import Document, evaluate_documents, losses
from tests.support.fakes import GRU, LETTERS, NGRAM, ScoringTable, TableModel, review_model, table, train_tiny

UNEQUAL = ["the movie was good", "é", "the " * 40, "the acting was très bon and I liked the theme.", "ส👍", " ", "a b"]


@pytest.fixture(scope="module")
def gru(tmp_path_factory: pytest.TempPathFactory) -> ReviewModel:
    return train_tiny("gru-char", tmp_path_factory.mktemp("cache"), **GRU)


@pytest.fixture(scope="module")
def ngram(tmp_path_factory: pytest.TempPathFactory) -> ReviewModel:
    return train_tiny("ngram-char", tmp_path_factory.mktemp("cache"), **NGRAM)


def framed(tokenizer: Any, texts: list[str]) -> list[Document]:
    return [(np.array([tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]), len(text)) for text in texts]


@torch.inference_mode()
def brute_nats(model: Any, tokenizer: Any, text: str) -> list[float]:
    """The loss of each token, one call a token, in plain Python."""
    ids = [tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]
    state, losses = model.initial_state(1), []
    for before, after in pairwise(ids):
        logits, state = model(torch.tensor([[before]]), state)
        scores = logits[0, 0].double().tolist()
        highest = max(scores)
        losses.append(highest + math.log(sum(math.exp(s - highest) for s in scores)) - scores[after])
    return losses


@pytest.mark.parametrize("name", ["gru", "ngram"])
def test_evaluation_equals_the_loop(name: str, request: pytest.FixtureRequest) -> None:
    trained: ReviewModel = request.getfixturevalue(name)
    losses = [brute_nats(trained.model, trained.tokenizer, text) for text in UNEQUAL]
    nats, tokens, characters = sum(map(sum, losses)), sum(map(len, losses)), sum(map(len, UNEQUAL))
    found = trained.evaluate(UNEQUAL, clean=False)
    assert (found.reviews, found.tokens, found.characters) == (len(UNEQUAL), tokens, characters)
    assert found.nats_per_character == pytest.approx(nats / characters, rel=1e-5)
    assert found.bits_per_character == pytest.approx(nats / characters / math.log(2), rel=1e-5)
    assert found.perplexity_per_token == pytest.approx(math.exp(nats / tokens), rel=1e-4)
    assert found.zero_probability_tokens == 0


@pytest.mark.parametrize("name", ["gru", "ngram"])
def test_scores_equal_the_loop(name: str, request: pytest.FixtureRequest) -> None:
    trained: ReviewModel = request.getfixturevalue(name)
    text = "the movie was great"
    score = trained.score(text)
    losses = brute_nats(trained.model, trained.tokenizer, text)
    assert [token.bits for token in score.tokens] == pytest.approx([nats / math.log(2) for nats in losses], rel=1e-4)
    assert score.bits == pytest.approx(sum(losses) / math.log(2), rel=1e-5)
    assert score.bits_per_character == pytest.approx(score.bits / len(text))
    assert "".join(token.text for token in score.tokens) == text
    assert score.tokens[-1].text == ""


@pytest.mark.parametrize("name", ["gru", "ngram"])
@pytest.mark.parametrize(
    ("rows", "logits", "longest", "buffer"), [(1, 1 << 23, 512, 1024), (3, 1, 512, 2), (64, 1 << 23, 7, 1024)]
)
def test_batching_padding_and_chunks_change_nothing(
    name: str, rows: int, logits: int, longest: int, buffer: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: ReviewModel = request.getfixturevalue(name)
    documents = framed(trained.tokenizer, UNEQUAL)
    whole = evaluate_documents(trained.model, documents, trained.tokenizer.vocab_size)
    constants = {"_ROWS": rows, "_MAX_LOGITS": logits, "_MAX_TOKENS": longest, "_BATCH_TEXTS": buffer}
    for constant, value in constants.items():
        monkeypatch.setattr(losses, constant, value)
    found = evaluate_documents(trained.model, iter(documents[::-1]), trained.tokenizer.vocab_size)
    assert found.bits_per_character == pytest.approx(whole.bits_per_character, rel=1e-6)
    assert (found.tokens, found.reviews, found.characters) == (whole.tokens, whole.reviews, whole.characters)


class CountingModel(TableModel):
    """A table model that counts the tokens of its calls."""

    computed = 0

    def __call__(self, ids: Any, state: Any) -> Any:
        self.computed += ids.numel()
        return super().__call__(ids, state)


@pytest.mark.parametrize("seed", range(4))
def test_few_tokens_are_computed_for_nothing(seed: int) -> None:
    """Lengths as of reviews, log-normal, and one text that is longer than many others together."""
    draw = np.random.default_rng(seed)
    lengths = [*np.exp(draw.normal(4.5, 1.0, 300)).astype(int).clip(1, 3000), 5000]
    documents = framed(LETTERS, ["".join(draw.choice(list("abcdefgh"), length)) for length in lengths])
    model = CountingModel(table(LETTERS.vocab_size, 4))
    found = evaluate_documents(model, documents, LETTERS.vocab_size)
    assert found.tokens <= model.computed <= 1.15 * found.tokens
    one_by_one = [losses.token_losses(model, [ids], LETTERS.vocab_size)[0] for ids, _ in documents]
    together = losses.token_losses(model, [ids for ids, _ in documents], LETTERS.vocab_size)
    for one, other in zip(one_by_one, together, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4])
@pytest.mark.parametrize("is_time_first", [False, True])
def test_the_compiled_cross_entropy_equals_torchs(dtype: torch.dtype, scale: float, is_time_first: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (scale * torch.randn(3, 5, 101, generator=generator)).to(dtype)
    targets = torch.randint(0, 101, (3, 5), generator=generator)
    expected = torch.nn.functional.cross_entropy(logits.double().flatten(0, 1), targets.flatten(), reduction="none").view(3, 5)
    given = logits.transpose(0, 1).contiguous().transpose(0, 1) if is_time_first else logits
    np.testing.assert_allclose(losses.cross_entropies(given, targets), expected, rtol=1e-5, atol=1e-5)


def test_a_target_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(IndexError, match=r"Target 101 .* ids 0 to 100"):
        losses.cross_entropies(torch.zeros(1, 2, 101), torch.tensor([[0, 101]]))


def test_logits_without_a_number_or_a_probability() -> None:
    logits = np.array([[0.0, -np.inf, 1.0], [np.nan, 0.0, 0.0], [-np.inf, -np.inf, 0.0]], np.float32)
    found = np.empty(3, np.float32)
    target_losses(logits, np.array([1, 0, 2]), found)
    assert found[0] == np.inf and np.isnan(found[1]) and found[2] == pytest.approx(0, abs=1e-6)


def test_the_score_path_equals_the_dense_path() -> None:
    logits = table(LETTERS.vocab_size, 4)
    texts = ["bad cafe", "a", "gh " * 30]
    dense, scoring = TableModel(logits), ScoringTable(logits)
    one = evaluate_documents(dense, framed(LETTERS, texts), LETTERS.vocab_size)
    other = evaluate_documents(scoring, framed(LETTERS, texts), LETTERS.vocab_size)
    assert dense.calls
    assert not scoring.calls
    assert other.bits_per_character == pytest.approx(one.bits_per_character, rel=1e-6)
    assert review_model(scoring, LETTERS).score("bad").bits == pytest.approx(
        review_model(dense, LETTERS).score("bad").bits, rel=1e-5
    )


def test_ids_as_the_cache_stores_them() -> None:
    model = TableModel(table(LETTERS.vocab_size))
    documents = framed(LETTERS, ["bad cafe", "a"])
    small = [(ids.astype(np.uint16), length) for ids, length in documents]
    assert evaluate_documents(model, small, LETTERS.vocab_size) == evaluate_documents(model, documents, LETTERS.vocab_size)


@pytest.mark.parametrize("kind", [TableModel, ScoringTable])
def test_zero_probability_is_infinite_and_counted(kind: type[TableModel]) -> None:
    logits = table(LETTERS.vocab_size)
    logits[:, LETTERS.encode("f")[0]] = -math.inf
    trained = review_model(kind(logits), LETTERS)
    found = trained.evaluate(["bad", "face off", "fffe", "cab"], clean=False)
    assert found.zero_probability_tokens == 6
    assert found.bits_per_character == found.nats_per_character == found.perplexity_per_token == math.inf
    assert found.reviews == 4
    score = trained.score("cafe")
    assert score.bits == math.inf
    assert [math.isinf(token.bits) for token in score.tokens] == [False, False, True, False, False]


def test_an_impossible_id_in_the_padding_counts_for_nothing() -> None:
    logits = table(LETTERS.vocab_size)
    logits[:, 0] = -math.inf  # the id that pads
    found = evaluate_documents(TableModel(logits), framed(LETTERS, ["a", "bad cafe"]), LETTERS.vocab_size)
    assert found.zero_probability_tokens == 0
    assert math.isfinite(found.bits_per_character)


def test_an_unsmoothed_ngram_scores_infinity_on_unseen_text(tmp_path: Path) -> None:
    trained = train_tiny("ngram-char", tmp_path, model={"order": 4, "smoothing": "none"}, steps=1)
    seen = trained.evaluate(["the movie was good and I liked the theme."], clean=False)
    assert math.isfinite(seen.bits_per_character) or seen.zero_probability_tokens  # it may be in the hold-out
    unseen = trained.evaluate(["zzz", "the moose"], clean=False)
    assert unseen.bits_per_character == math.inf
    assert unseen.zero_probability_tokens >= 2


def test_perplexity_beyond_what_a_float_holds_is_infinite() -> None:
    logits = torch.zeros(LETTERS.vocab_size, LETTERS.vocab_size)
    logits[:, 2] = 5000.0
    found = evaluate_documents(TableModel(logits), framed(LETTERS, ["bbb"]), LETTERS.vocab_size)
    assert found.perplexity_per_token == math.inf
    assert found.nats_per_character == pytest.approx(5000 * 4 / 3)
    assert found.zero_probability_tokens == 0


def test_a_text_is_scored_given_another() -> None:
    """The bits of a text, and of what follows it, add up."""
    trained = review_model(TableModel(table(LETTERS.vocab_size)), LETTERS)
    whole, first, after = trained.score("bad cafe"), trained.score("bad"), trained.score(" cafe", "bad")
    assert [token.bits for token in after.tokens] == [token.bits for token in whole.tokens[3:]]
    assert first.bits - first.tokens[-1].bits + after.bits == pytest.approx(whole.bits)
    assert after.bits_per_character == pytest.approx(after.bits / 5)


def test_empty_text_is_an_error() -> None:
    trained = review_model(TableModel(table(LETTERS.vocab_size)), LETTERS)
    with pytest.raises(DataError, match="at least one character"):
        trained.score("")
    with pytest.raises(DataError, match="no text to evaluate"):
        evaluate_documents(trained.model, [], LETTERS.vocab_size)
    with pytest.raises(DataError, match="no characters"):
        evaluate_documents(trained.model, framed(LETTERS, ["", ""]), LETTERS.vocab_size)
