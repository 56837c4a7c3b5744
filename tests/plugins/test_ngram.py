"""The n-gram plugin: against the brute-force reference, and on corpora that leave it nothing to work with."""

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reviewgen_ngram.counts import NgramCounter
from reviewgen_ngram.estimate import discounts_from
from reviewgen_ngram.model import Ngram, NgramConfig
from reviewgen_ngram.presets import NGRAM_CHAR, NGRAM_WORD

from reviewgen.errors import BundleError, ConfigError, DataError, TrainingError
from reviewgen.protocols import CountTrained, LanguageModel, SupportsScore

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode adds no folder of its own

from brute_ngram import BruteNgram

BOS, EOS = 0, 1
FOUR_LINES = ("the band plays on", "the band is loud", "a quiet song", "loud and quiet")


def trained(texts: Sequence[Sequence[int]], vocab_size: int, order: int, smoothing: str = "kneser-ney") -> Ngram:
    model = Ngram(NgramConfig(vocab_size=vocab_size, order=order, smoothing=smoothing))
    for text in texts:
        model.observe(np.array(text, dtype=np.int64))
    model.finish()
    return model


def spelled(lines: Sequence[str]) -> list[list[int]]:
    return [[BOS, *(ord(c) for c in line), EOS] for line in lines]


def texts_of(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    return [[BOS, *row, EOS] for row in rows]


def ids_of(*texts: Sequence[int]) -> torch.Tensor:
    return torch.tensor(texts, dtype=torch.int64)


def dense(model: Ngram, ids: torch.Tensor) -> torch.Tensor:
    return model(ids, model.initial_state(len(ids)))[0]


corpora = st.lists(st.lists(st.integers(2, 5), max_size=9), min_size=1, max_size=12).map(texts_of)


@settings(max_examples=60, deadline=None)
@given(
    corpus=corpora,
    order=st.integers(1, 5),
    smoothing=st.sampled_from(["kneser-ney", "none"]),
    query=st.lists(st.integers(0, 6), min_size=1, max_size=9),
)
def test_every_probability_is_that_of_the_textbook(corpus: list[list[int]], order: int, smoothing: str, query: list[int]) -> None:
    vocab_size = 7  # id 6 never occurs
    model, brute = trained(corpus, vocab_size, order, smoothing), BruteNgram(corpus, vocab_size, order, smoothing)
    for text in (*corpus, query):
        found = dense(model, ids_of(text))[0].double().exp()
        expected = [[brute.probability(w, text[: t + 1]) for w in range(vocab_size)] for t in range(len(text))]
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("smoothing", ["kneser-ney", "none"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_all_contexts_seen_and_unseen_match_and_sum_to_one(order: int, smoothing: str) -> None:
    rng = np.random.default_rng(0)
    corpus = texts_of([rng.choice([2, 3, 4, 5], rng.integers(0, 30), p=[0.6, 0.25, 0.1, 0.05]).tolist() for _ in range(40)])
    model, brute = trained(corpus, 7, order, smoothing), BruteNgram(corpus, 7, order, smoothing)
    contexts = list(itertools.product(range(7), repeat=3))
    found = dense(model, ids_of(*contexts))[:, -1].double().exp()
    expected = [[brute.probability(w, list(context)) for w in range(7)] for context in contexts]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(found.sum(-1), torch.ones(len(contexts), dtype=torch.float64), atol=1e-6, rtol=0)


def test_the_discounts_are_used_where_there_are_some() -> None:
    rng = np.random.default_rng(3)
    model = Ngram(NgramConfig(vocab_size=40, order=3))
    corpus = texts_of([(2 + rng.zipf(1.3, 25) % 38).tolist() for _ in range(60)])
    for text in corpus:
        model.observe(np.array(text))
    facts, brute = model.finish(), BruteNgram(corpus, 40, 3, "kneser-ney")
    np.testing.assert_allclose(facts["discounts"], [values[1:] for values in brute.discounts[1:]], rtol=1e-9)
    assert facts["ngrams"] == [len(counts) for counts in brute.counts[1:]]
    assert 3 not in facts["fallback_orders"] and facts["discounts"][2] != [0.5, 1.0, 1.5]


def test_the_fall_back_is_reported() -> None:
    model = Ngram(NgramConfig(vocab_size=128, order=2))
    model.observe(np.array(spelled(["abc"])[0]))
    facts = model.finish()
    assert facts["fallback_orders"] == [1, 2]
    assert facts["notes"] == ["Orders 1 and 2 have no usable discounts; KenLM's fall-back 0.5, 1, 1.5 is used there."]


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((10, 5, 2, 1), (0.5, 1.4, 2.0)),
        ((10, 5, 2, 0), (0.5, 1.4, 3.0)),  # a zero n4 is no obstacle
        ((0, 5, 2, 1), None),
        ((10, 0, 2, 1), None),
        ((10, 5, 0, 1), None),
        ((1, 1, 9, 1), None),  # D2 below zero
        ((4, 1, 1, 0), None),  # D2 exactly zero: nothing left for an unseen word
    ],
)
def test_discounts(numbers: tuple[int, int, int, int], expected: tuple[float, float, float] | None) -> None:
    assert discounts_from(numbers) == expected


@pytest.mark.parametrize("smoothing", ["kneser-ney", "none"])
@pytest.mark.parametrize("order", [1, 3, 16])
def test_a_score_is_the_gathered_dense_value(order: int, smoothing: str) -> None:
    model = trained(spelled(FOUR_LINES), 128, order, smoothing)
    ids = torch.randint(0, 128, (3, 40), generator=torch.Generator().manual_seed(0))
    ids[0, :18] = ids_of(spelled(FOUR_LINES)[0])[0, :18]
    scores, after = model.score(ids[:, :-1], ids[:, 1:], model.initial_state(3))
    logits, dense_after = model(ids[:, :-1], model.initial_state(3))
    assert torch.equal(scores, logits.gather(-1, ids[:, 1:, None]).squeeze(-1))
    assert torch.equal(after, dense_after)


@pytest.mark.parametrize("order", [1, 2, 6])
def test_pieces_with_the_state_passed_along_equal_the_whole(order: int) -> None:
    model = trained(spelled(FOUR_LINES), 128, order)
    ids = ids_of(*(text[:12] for text in spelled(FOUR_LINES)))
    whole, end = model(ids, model.initial_state(4))
    for cuts in ([1] * 12, [5, 0, 7], [11, 1]):
        state, parts = model.initial_state(4), []
        for piece in ids.split(cuts, dim=1):
            given, before = state, state.clone()
            part, state = model(piece, given)
            assert torch.equal(given, before)
            parts.append(part)
        assert torch.equal(torch.cat(parts, dim=1), whole)
        assert torch.equal(state, end)


def test_the_inner_block_sizes_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained(spelled(FOUR_LINES), 128, 4)
    ids = ids_of(*(text[:12] for text in spelled(FOUR_LINES)))
    whole, (scores, _) = dense(model, ids), model.score(ids[:, :-1], ids[:, 1:], model.initial_state(4))
    monkeypatch.setattr("reviewgen_ngram.model.DENSE_CELLS", 300)
    monkeypatch.setattr("reviewgen_ngram.model.SCORE_ROWS", 5)
    assert torch.equal(dense(model, ids), whole)
    assert torch.equal(model.score(ids[:, :-1], ids[:, 1:], model.initial_state(4))[0], scores)


@pytest.mark.parametrize("order", [3, 16])
def test_counting_in_blocks_counts_the_same(order: int) -> None:
    small, big = NgramCounter(1000, order, block_cells=20), NgramCounter(1000, order)
    rng = np.random.default_rng(1)
    for _ in range(50):
        text = np.concatenate([[0], rng.integers(1, 4, rng.integers(0, 30))])
        small.add(text)
        big.add(text)
    left, right = small.take(), big.take()
    assert np.array_equal(left.columns, right.columns) and np.array_equal(left.counts, right.counts)
    assert len(left.columns) == (1 if order == 3 else 3)


def test_a_bos_inside_begins_another_text() -> None:
    together = trained([[0, 2, 3, 1, 0, 2, 4, 1]], 5, 3)
    apart = trained([[0, 2, 3, 1], [0, 2, 4, 1]], 5, 3)
    for name, tensor in together.state_dict().items():
        assert torch.equal(tensor, apart.state_dict()[name]), name


CORPORA = {
    "four lines": spelled(FOUR_LINES),
    "one token": [[BOS, 97, EOS]],
    "empty text": [[BOS, EOS]],
    "all equal": spelled(["aaaaaaaaaaaaaaaaaaaaaaaaa"] * 5),
    "no repeats": spelled(["abcdefghijklmnopqrstuvwxyz"]),
    "one text twice": spelled(["abc abd"] * 2),
}


@pytest.mark.parametrize("order", [1, 2, 5, 16, 64])
@pytest.mark.parametrize("name", CORPORA)
def test_any_corpus_gives_finite_scores_that_sum_to_one(name: str, order: int) -> None:
    model = trained(CORPORA[name], 128, order)
    for text in (*CORPORA[name], *spelled(["zebra", "the band the band the band"])):
        logits = dense(model, ids_of(text))
        assert logits.dtype == torch.float32
        assert torch.isinf(logits[..., BOS]).all() and torch.isfinite(logits[..., 1:]).all()
        total = logits.double().exp().sum(-1)
        torch.testing.assert_close(total, torch.ones_like(total), atol=1e-6, rtol=0)


def test_without_smoothing_an_unseen_event_is_impossible_and_stays_so() -> None:
    model = trained(spelled(["abab", "abc"]), 128, 3, "none")
    text = ids_of(spelled(["abzab"])[0])
    scores, _ = model.score(text[:, :-1], text[:, 1:], model.initial_state(1))
    a, b, z = scores[0, :3].tolist()
    assert (a, b) == (0.0, 0.0) and z == -float("inf") and scores.sum() == -float("inf")


def test_two_ids_leave_one_to_predict() -> None:
    assert dense(trained([[BOS, EOS]], 2, 3), ids_of([BOS])).tolist() == [[[-float("inf"), 0.0]]]


def test_order_one_has_an_empty_state() -> None:
    model = trained(spelled(FOUR_LINES), 128, 1)
    assert model.initial_state(3).shape == (3, 0)
    assert model(ids_of([5, 6]), model.initial_state(1))[1].shape == (1, 0)


@pytest.mark.parametrize("vocab_size", [200, 300, 40_000])
@pytest.mark.parametrize("order", [1, 4])
def test_round_trip(vocab_size: int, order: int) -> None:
    model = trained(spelled(FOUR_LINES), vocab_size, order)
    empty = Ngram(model.config)
    form = {name: (tensor.dtype, tensor.ndim) for name, tensor in empty.state_dict().items()}
    assert form == {name: (tensor.dtype, tensor.ndim) for name, tensor in model.state_dict().items()}
    again = Ngram(model.config)
    again.load_state_dict({name: tensor.clone() for name, tensor in model.state_dict().items()})
    ids = ids_of(spelled(FOUR_LINES)[0])
    assert torch.equal(dense(again, ids), dense(model, ids))


def damage(tensors: dict[str, torch.Tensor], name: str, place: int, value: float) -> None:
    tensors[name][place] = value


DAMAGES = {
    "missing": lambda t: t.pop("depth1.keys"),
    "extra": lambda t: t.update(other=torch.zeros(1)),
    "dtype": lambda t: t.update({"depth1.mass": t["depth1.mass"].double()}),
    "axes": lambda t: t.update({"depth1.mass": t["depth1.mass"][None]}),
    "mass cut": lambda t: t.update({"depth1.mass": t["depth1.mass"][:-1]}),
    "gamma cut": lambda t: t.update({"depth1.gamma": t["depth1.gamma"][:-1]}),
    "offsets cut": lambda t: t.update({"depth1.offsets": t["depth1.offsets"][:-1]}),
    "offsets fall": lambda t: damage(t, "depth1.offsets", 2, 0),
    "offsets begin late": lambda t: damage(t, "depth1.offsets", 0, 1),
    "offsets end early": lambda t: damage(t, "depth1.offsets", -1, 1),
    "keys negative": lambda t: damage(t, "depth2.keys", 0, -1),
    "keys too large": lambda t: damage(t, "depth2.keys", -1, 1 << 40),
    "keys unsorted": lambda t: t.update({"depth2.keys": t["depth2.keys"].flip(0)}),
    "word outside": lambda t: damage(t, "depth0.words", -1, 127),
    "word is bos": lambda t: damage(t, "depth0.words", 0, BOS),
    "words unsorted": lambda t: t.update({"depth0.words": t["depth0.words"].flip(0)}),
    "mass not a number": lambda t: damage(t, "depth1.mass", 0, float("nan")),
    "mass negative": lambda t: damage(t, "depth1.mass", 0, -0.5),
    "gamma above one": lambda t: damage(t, "depth1.gamma", 0, 2),
    "sum": lambda t: damage(t, "depth0.mass", 0, 0.9),
    "two roots": lambda t: damage(t, "depth0.keys", 0, 1),
    "bos outside": lambda t: damage(t, "bos_id", 0, 500),
    "two bos": lambda t: t.update(bos_id=torch.tensor([0, 0])),
    "discounts": lambda t: t.update(discounts=t["discounts"][:1]),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_tensors_are_an_error_and_change_nothing(name: str) -> None:
    model = trained(spelled(FOUR_LINES), 125, 3)
    tensors = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    DAMAGES[name](tensors)
    ids = ids_of(spelled(FOUR_LINES)[0])
    before = dense(model, ids)
    with pytest.raises(BundleError, match=r"^The n-gram tensors .*\.$"):
        model.load_state_dict(tensors)
    assert torch.equal(dense(model, ids), before)


def test_tensors_of_other_settings_or_of_no_model_are_errors() -> None:
    tensors = trained(spelled(FOUR_LINES), 128, 3).state_dict()
    for config in (
        NgramConfig(vocab_size=128, order=2),
        NgramConfig(vocab_size=128, order=4),
        NgramConfig(vocab_size=100, order=3),
    ):
        with pytest.raises(BundleError):
            Ngram(config).load_state_dict(tensors)
    empty = Ngram(NgramConfig(vocab_size=128, order=3))
    with pytest.raises(BundleError):
        empty.load_state_dict(empty.state_dict())


def test_misuse_is_explained() -> None:
    model = Ngram(NgramConfig(vocab_size=5, order=2))
    with pytest.raises(TrainingError, match="no counts yet"):
        dense(model, ids_of([0]))
    with pytest.raises(TrainingError, match="No text was observed"):
        model.finish()
    for bad, reason in (([], "without any id"), ([0, 5], r"knows 0\.\.4"), ([0, -1], r"knows 0\.\.4")):
        with pytest.raises(TrainingError, match=reason):
            model.observe(np.array(bad, dtype=np.int64))
    model.observe(np.array([0, 2, 1], dtype=np.uint16))
    with pytest.raises(TrainingError, match="all must begin alike"):
        model.observe(np.array([2, 0, 1]))
    model.finish()
    with pytest.raises(TrainingError, match="finished"):
        model.observe(np.array([0, 2, 1]))
    for call in (lambda: dense(model, ids_of([5])), lambda: model.score(ids_of([0]), ids_of([-1]), model.initial_state(1))):
        with pytest.raises(DataError, match=r"knows 0\.\.4"):
            call()
    alone = Ngram(NgramConfig(vocab_size=1, order=2))
    alone.observe(np.array([0, 0]))
    with pytest.raises(TrainingError, match="nothing to predict"):
        alone.finish()
    for wrong in ({"order": 0}, {"order": 65}, {"vocab_size": 0}):
        with pytest.raises(ConfigError):
            NgramConfig(**{"vocab_size": 5, **wrong})


def test_it_keeps_the_protocols_and_its_presets_fit_it() -> None:
    model = Ngram(NgramConfig(vocab_size=5))
    assert isinstance(model, LanguageModel) and isinstance(model, CountTrained) and isinstance(model, SupportsScore)
    for preset in (NGRAM_CHAR, NGRAM_WORD):
        NgramConfig(vocab_size=5, **preset.model_settings)
