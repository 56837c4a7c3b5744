"""The n-gram plugin: against the brute-force reference, and on corpora that leave it nothing to work with."""

import itertools
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reviewgen_ngram.counts import NgramCounter, Packing
from reviewgen_ngram.estimate import absolute_discount, discounts_from, estimate
from reviewgen_ngram.memory import Arena
from reviewgen_ngram.model import Ngram, NgramConfig
from reviewgen_ngram.nodes import Nodes, grow, link
from reviewgen_ngram.presets import NGRAM_CHAR, NGRAM_WORD
from reviewgen_ngram.prune import entropy_losses, texts_per_token
from reviewgen_ngram.ranges import Alone

from reviewgen.compiled.sampling import Constraints, apply_temperature, sample_from
from reviewgen.compiled.spelling import no_places
from reviewgen.compiled.windows import build_windows
from reviewgen.config import GenerationConfig
from reviewgen.errors import BundleError, ConfigError, DataError, NotADistribution, TrainingError
from reviewgen.generation.decode import make_sampling_params
from reviewgen.protocols import DEAD_END, CountTrained, LanguageModel, SupportsCountMerge, SupportsScore, SupportsStep
from tests.support.brute_ngram import BruteNgram
from tests.support.fakes import LetterTokenizer

BOS, EOS = 0, 1
FOUR_LINES = ("the band plays on", "the band is loud", "a quiet song", "loud and quiet")


def trained(texts: Sequence[Sequence[int]], vocab_size: int, order: int, smoothing: str = "kneser-ney", **more: Any) -> Ngram:
    model = Ngram(NgramConfig(vocab_size=vocab_size, order=order, smoothing=smoothing, **more))
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


def random_corpus(texts: int, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return texts_of([rng.choice([2, 3, 4, 5], rng.integers(0, 30), p=[0.6, 0.25, 0.1, 0.05]).tolist() for _ in range(texts)])


def dense(model: Ngram, ids: torch.Tensor) -> torch.Tensor:
    return model(ids, model.initial_state(len(ids)))[0]


corpora = st.lists(st.lists(st.integers(2, 5), max_size=9), min_size=1, max_size=12).map(texts_of)
SMOOTHED = ("kneser-ney", "absolute", "witten-bell")
DISTRIBUTIONS = (*SMOOTHED, "none")


@settings(max_examples=100)
@given(
    corpus=corpora,
    order=st.integers(1, 5),
    smoothing=st.sampled_from([*DISTRIBUTIONS, "stupid-backoff"]),
    query=st.lists(st.integers(0, 6), min_size=1, max_size=9),
)
def test_every_probability_is_that_of_the_textbook(corpus: list[list[int]], order: int, smoothing: str, query: list[int]) -> None:
    vocab_size = 7  # id 6 never occurs
    model, brute = trained(corpus, vocab_size, order, smoothing), BruteNgram(corpus, vocab_size, order, smoothing)
    for text in (*corpus, query):
        found = dense(model, ids_of(text))[0].double().exp()
        expected = torch.tensor(
            [[brute.probability(w, text[: t + 1]) for w in range(vocab_size)] for t in range(len(text))], dtype=torch.float64
        )
        if smoothing == "stupid-backoff":
            expected /= expected.sum(-1, keepdim=True)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("smoothing", DISTRIBUTIONS)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_all_contexts_seen_and_unseen_match_and_sum_to_one(order: int, smoothing: str) -> None:
    corpus = random_corpus(40)
    model, brute = trained(corpus, 7, order, smoothing), BruteNgram(corpus, 7, order, smoothing)
    contexts = list(itertools.product(range(7), repeat=3))
    found = dense(model, ids_of(*contexts))[:, -1].double().exp()
    expected = [[brute.probability(w, list(context)) for w in range(7)] for context in contexts]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(found.sum(-1), torch.ones(len(contexts), dtype=torch.float64), atol=1e-6, rtol=0)


KENLM = json.loads((Path(__file__).parent / "kenlm_alice.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("stored", KENLM["models"], ids=lambda m: f"{m['tokens']}-{m['order']}")
def test_perplexity_is_kenlm_s(stored: dict[str, Any]) -> None:
    """Against values stored from lmplz and query; the file says how they were made."""
    lines = [line.split() if stored["tokens"] == "word" else list(line) for line in KENLM["lines"]]
    train, held_out = lines[: KENLM["train_lines"]], lines[KENLM["train_lines"] :]
    ids = {token: number for number, token in enumerate(sorted({token for line in train for token in line}), 3)}
    unknown = 2  # KenLM's <unk>, one of the ids that the uniform distribution counts
    model = Ngram(NgramConfig(vocab_size=len(ids) + 3, order=stored["order"]))
    for line in train:
        model.observe(np.array([BOS, *(ids[token] for token in line), EOS]))
    facts = model.finish()
    np.testing.assert_allclose(facts["discounts"], stored["discounts"], rtol=1e-6)
    assert facts["fallback_orders"] == stored["fallback_orders"]
    assert facts["ngrams"][1:] == stored["ngrams"][1:]
    for part, name in ((train, "train"), (held_out, "held_out")):
        nats, tokens = 0.0, 0
        for line in part:
            text = ids_of([BOS, *(ids.get(token, unknown) for token in line), EOS])
            scores, _ = model.score(text[:, :-1], text[:, 1:], model.initial_state(1))
            nats, tokens = nats - float(scores.double().sum()), tokens + scores.numel()
        assert round(math.exp(nats / tokens), 4) == pytest.approx(round(stored[name], 4), abs=1.01e-4)


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
    assert facts["notes"][1:] == ["Orders 1 and 2 have no usable discounts; KenLM's fall-back 0.5, 1, 1.5 is used instead."]
    assert facts["bytes"] == sum(tensor.nbytes for tensor in model.state_dict().values())
    assert facts["notes"][0] == f"{sum(facts['ngrams'])} n-grams of 1 to 2 tokens in 0.0 MB."


@pytest.mark.parametrize(("numbers", "expected"), [((6, 2), 0.6), ((0, 2), None), ((3, 0), None)])
def test_the_absolute_discount(numbers: tuple[int, int], expected: float | None) -> None:
    assert absolute_discount(*numbers) == expected


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


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("smoothing", DISTRIBUTIONS)
@pytest.mark.parametrize("order", [1, 3, 16])
def test_a_score_is_the_gathered_dense_value(order: int, smoothing: str, quantized: bool) -> None:
    model = trained(spelled(FOUR_LINES), 128, order, smoothing, quantized=quantized and smoothing != "none")
    ids = torch.randint(0, 128, (3, 40), generator=torch.Generator().manual_seed(0))
    ids[0, :18] = ids_of(spelled(FOUR_LINES)[0])[0, :18]
    for targets in (ids[:, 1:], ids[:, :-1]):  # those that come next, and others
        scores, after = model.score(ids[:, :-1], targets, model.initial_state(3))
        logits, dense_after = model(ids[:, :-1], model.initial_state(3))
        torch.testing.assert_close(scores, logits.gather(-1, targets[..., None]).squeeze(-1), atol=1e-6, rtol=1e-6)
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


def test_the_inner_block_size_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained(spelled(FOUR_LINES), 128, 4)
    ids = ids_of(*(text[:12] for text in spelled(FOUR_LINES)))
    whole = dense(model, ids)
    monkeypatch.setattr("reviewgen_ngram.model.DENSE_CELLS", 300)
    assert torch.equal(dense(model, ids), whole)


@pytest.mark.parametrize("order", [3, 7, 8, 16, 40])
def test_counting_in_blocks_on_disk_and_in_parts_counts_the_same(order: int) -> None:
    """Words of 63 bits hold six ids of 1,000: one word, a short word and another, two long ones, many."""
    rng = np.random.default_rng(1)
    texts = [np.concatenate([[0], rng.integers(1, 4, rng.integers(0, 30))]) for _ in range(50)]
    reference = Counter(tuple(t[i : i + order].tolist()) for t in texts for i in range(len(t)))
    one, small, disk = (
        NgramCounter(1000, order),
        NgramCounter(1000, order, block_bytes=160),
        NgramCounter(1000, order, Arena(64), block_bytes=800),
    )
    parts = NgramCounter(1000, order), NgramCounter(1000, order)
    for number, text in enumerate(texts):
        for counter in (one, small, disk, parts[number % 2]):
            counter.add(text)
    rows = parts[1].take()
    parts[0].add_rows(rows.packed, rows.counts)
    whole = one.take()
    found = {
        tuple(t for t in unpack(row, whole.packing) if t >= 0): count
        for row, count in zip(whole.packed, whole.counts.tolist(), strict=True)
    }
    assert found == reference and [*found] == sorted(found)
    for counter in (small, disk, parts[0]):
        rows = counter.take()
        assert np.array_equal(rows.packed, whole.packed) and np.array_equal(rows.counts, whole.counts)
    assert isinstance(rows.packed, np.ndarray)


def unpack(row: np.ndarray, packing: Packing) -> list[int]:
    """Return the tokens of a packed n-gram, -1 after its end."""
    tokens = []
    for word, value in enumerate(row.tolist()):
        width = packing.per_word if word else packing.in_first
        tokens += [(value >> packing.bits * (width - 1 - place)) % (1 << packing.bits) - 1 for place in range(width)]
    return tokens


def test_a_memory_limit_changes_no_bit_and_uses_files(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    corpus = texts_of([rng.integers(2, 30, 60).tolist() for _ in range(400)])
    mapped = []

    class Recorded(np.memmap):
        def __new__(cls, *arguments: Any, **options: Any) -> "Recorded":
            mapped.append(arguments)
            return super().__new__(cls, *arguments, **options)

    monkeypatch.setattr("reviewgen_ngram.memory.np.memmap", Recorded)
    free, bound = trained(corpus, 30, 9), trained(corpus, 30, 9, memory_mb=1)
    assert mapped
    for name, tensor in free.state_dict().items():
        assert torch.equal(tensor, bound.state_dict()[name]), name


def test_counts_of_several_models_make_the_model_of_all_texts() -> None:
    texts, config = spelled(FOUR_LINES), NgramConfig(vocab_size=128, order=5)
    parts = [Ngram(config) for _ in range(3)]  # the third sees nothing
    for number, text in enumerate(texts):
        parts[number % 2].observe(np.array(text))
    assert isinstance(parts[0], SupportsCountMerge)
    for part in parts[1:]:
        parts[0].add_counts(part.take_counts())
    parts[0].finish()
    for name, tensor in trained(texts, 128, 5).state_dict().items():
        assert torch.equal(tensor, parts[0].state_dict()[name]), name
    with pytest.raises(TrainingError, match="No text was observed"):
        parts[1].finish()


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
@pytest.mark.parametrize("more", [{"smoothing": s} for s in SMOOTHED] + [{"quantized": True}, {"min_count": 2}], ids=str)
def test_any_corpus_gives_finite_scores_that_sum_to_one(name: str, order: int, more: dict[str, Any]) -> None:
    model = trained(CORPORA[name], 128, order, **more)
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


def test_order_one_knows_one_context() -> None:
    model = trained(spelled(FOUR_LINES), 128, 1)
    assert model(ids_of([5, 6]), model.initial_state(1))[1].tolist() == [0]


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("vocab_size", [200, 300, 40_000])
@pytest.mark.parametrize("order", [1, 2, 4])
def test_round_trip(vocab_size: int, order: int, quantized: bool) -> None:
    model = trained(spelled(FOUR_LINES), vocab_size, order, quantized=quantized)
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
    "missing": lambda t: t.pop("links"),
    "extra": lambda t: t.update(other=torch.zeros(1)),
    "dtype": lambda t: t.update(backoffs=t["backoffs"].double()),
    "axes": lambda t: t.update(backoffs=t["backoffs"][None]),
    "probabilities cut": lambda t: t.update(probabilities=t["probabilities"][:-1]),
    "backoffs cut": lambda t: t.update(backoffs=t["backoffs"][:-1]),
    "links cut": lambda t: t.update(links=t["links"][:-1]),
    "ends cut": lambda t: t.update(ends=t["ends"][:-1]),
    "bases cut": lambda t: t.update(bases=t["bases"][:-1]),
    "root cut": lambda t: t.update(root=t["root"][:-1]),
    "starts cut": lambda t: t.update(starts=t["starts"][:-1]),
    "starts fall": lambda t: damage(t, "starts", 2, 1),
    "starts shifted": lambda t: damage(t, "starts", 3, int(t["starts"][3]) - 1),
    "a base": lambda t: damage(t, "bases", 1, 5),
    "the first base": lambda t: damage(t, "bases", 0, 5),
    "a base far out": lambda t: damage(t, "bases", 1, 1 << 30),
    "children": lambda t: damage(t, "children", 3, int(t["children"][3]) + 1),
    "children of the root": lambda t: damage(t, "children", 0, 1),
    "many children": lambda t: t["children"].fill_(100),
    "token outside": lambda t: damage(t, "tokens", -1, 126),
    "first token outside": lambda t: damage(t, "tokens", int(t["starts"][2]) - 1, 126),
    "token is bos": lambda t: t["tokens"][int(t["starts"][2]) :].fill_(BOS),
    "tokens unsorted": lambda t: t.update(tokens=t["tokens"].flip(0)),
    "a link": lambda t: damage(t, "links", -1, 1),
    "an end": lambda t: damage(t, "ends", -1, 1),
    "an end far out": lambda t: damage(t, "ends", -1, 1 << 30),
    "an end below zero": lambda t: damage(t, "ends", -1, -5),
    "a link far out": lambda t: damage(t, "links", -1, 1 << 30),
    "a link below zero": lambda t: damage(t, "links", -1, -5),
    "a link of a single token": lambda t: damage(t, "links", 1, 1),
    "probability not a number": lambda t: damage(t, "probabilities", -1, float("nan")),
    "probability negative": lambda t: damage(t, "probabilities", -1, -0.5),
    "backoff negative": lambda t: damage(t, "backoffs", -1, -0.5),
    "backoff infinite": lambda t: damage(t, "backoffs", -1, float("inf")),
    "sum": lambda t: damage(t, "probabilities", -1, float(t["probabilities"][-1]) / 2),
    "root": lambda t: damage(t, "root", 5, 0.9),
    "root of bos": lambda t: t["root"].copy_(t["root"].flip(0)),
    "root negative": lambda t: damage(t, "root", 5, -0.1),
    "bos outside": lambda t: damage(t, "bos_id", 0, 500),
    "another bos": lambda t: damage(t, "bos_id", 0, 1),
    "two bos": lambda t: t.update(bos_id=torch.tensor([0, 0])),
    "discounts": lambda t: t.update(discounts=t["discounts"][:1]),
}
QUANTIZED_DAMAGES = {
    "the book cut": lambda t: t.update(book=t["book"][:-1]),
    "the book": lambda t: t["book"].mul_(0.5),
    "the book out of range": lambda t: damage(t, "book", 7, 2.0),
    "ends": lambda t: t.update(ends=torch.zeros(5, dtype=torch.int32)),
    "codes": lambda t: t["probabilities"].fill_(0),
}


@pytest.mark.parametrize("name", QUANTIZED_DAMAGES)
def test_damaged_tensors_of_a_quantized_model_are_an_error(name: str) -> None:
    model = trained(spelled(FOUR_LINES), 125, 3, quantized=True)
    tensors = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    QUANTIZED_DAMAGES[name](tensors)
    with pytest.raises(BundleError, match=r"^The n-gram tensors .*\.$"):
        model.load_state_dict(tensors)


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
        NgramConfig(vocab_size=128, order=3, quantized=True),
    ):
        with pytest.raises(BundleError):
            Ngram(config).load_state_dict(tensors)
    empty = Ngram(NgramConfig(vocab_size=128, order=3))
    with pytest.raises(BundleError):
        empty.load_state_dict(empty.state_dict())


def test_misuse_is_explained() -> None:
    model = Ngram(NgramConfig(vocab_size=5, order=2))
    with pytest.raises(TrainingError, match="not trained yet"):
        dense(model, ids_of([0]))
    with pytest.raises(TrainingError, match="No text was observed"):
        model.finish()
    for bad, reason in (([], "has no ids"), ([0, 5], r"accepts 0\.\.4"), ([0, -1], r"accepts 0\.\.4")):
        with pytest.raises(TrainingError, match=reason):
            model.observe(np.array(bad, dtype=np.int64))
    model.observe(np.array([0, 2, 1], dtype=np.uint16))
    with pytest.raises(TrainingError, match="all must begin with the same id"):
        model.observe(np.array([2, 0, 1]))
    model.finish()
    with pytest.raises(TrainingError, match="finished"):
        model.observe(np.array([0, 2, 1]))
    for call in (lambda: dense(model, ids_of([5])), lambda: model.score(ids_of([0]), ids_of([-1]), model.initial_state(1))):
        with pytest.raises(DataError, match=r"accepts 0\.\.4"):
            call()
    alone = Ngram(NgramConfig(vocab_size=1, order=2))
    alone.observe(np.array([0, 0]))
    with pytest.raises(TrainingError, match="nothing to predict"):
        alone.finish()
    with pytest.raises(DataError, match=r"contexts 0\.\."):
        model(ids_of([2]), torch.tensor([1000]))
    for wrong in (
        {"order": 0},
        {"order": 65},
        {"vocab_size": 0},
        {"min_count": 0},
        {"prune_entropy": 1.0},
        {"smoothing": "none", "quantized": True},
        {"smoothing": "stupid-backoff", "prune_entropy": 1e-6},
    ):
        with pytest.raises(ConfigError):
            NgramConfig(**{"vocab_size": 5, **wrong})


@pytest.mark.parametrize("smoothing", SMOOTHED)
@pytest.mark.parametrize("min_count", [2, 4])
def test_pruning_by_count_keeps_what_is_frequent_or_needed_and_sums_to_one(smoothing: str, min_count: int) -> None:
    corpus, order = random_corpus(40), 4
    full, pruned = trained(corpus, 7, order, smoothing), trained(corpus, 7, order, smoothing, min_count=min_count)
    counts = Counter(tuple(t[i : i + n]) for t in corpus for n in range(1, order + 1) for i in range(len(t) - n + 1))
    frequent = {gram for gram, count in counts.items() if count >= min_count or len(gram) == 1}
    needed = {gram[i:j] for gram in frequent for i in range(len(gram)) for j in range(i + 1, len(gram) + 1)}
    sizes = [sum(len(gram) == n for gram in needed) for n in range(1, order + 1)]
    assert np.diff(pruned.state_dict()["starts"].numpy())[1:].tolist() == sizes
    assert sum(sizes) < len(counts)
    contexts = list(itertools.product(range(7), repeat=3))
    before, after = (dense(model, ids_of(*contexts))[:, -1].double().exp() for model in (full, pruned))
    torch.testing.assert_close(after.sum(-1), torch.ones(len(contexts), dtype=torch.float64), atol=1e-6, rtol=0)
    for number, context in enumerate(contexts):
        for word in range(7):
            if (*context, word) in needed:
                assert float(after[number, word]) == pytest.approx(float(before[number, word]), rel=1e-6)


def test_the_entropy_loss_of_an_ngram_is_what_its_absence_costs() -> None:
    """Stolcke 1998: the rise in perplexity, from both models' distributions over all contexts that end alike."""
    corpus, vocab_size, order = random_corpus(40), 7, 3
    arena, counter = Arena(), NgramCounter(vocab_size, order)
    for text in corpus:
        counter.add(np.array(text))
    share = grow(counter.take(), vocab_size, arena, Alone())
    link(share)
    nodes = share.nodes
    found = estimate(share, vocab_size, BOS, "kneser-ney", arena, Alone())
    bos_share = len(corpus) / sum(len(text) - 1 for text in corpus)
    assert texts_per_token(share, BOS) == bos_share
    losses = entropy_losses(nodes, bos_share, found, BOS)
    runs = runs_of(nodes)
    whole = trained(corpus, vocab_size, order)
    checked = 0
    for number in range(int(nodes.starts[2]), len(runs)):
        *history, word = runs[number]
        p = dense(whole, ids_of(history))[0, -1].double().exp()
        shorter = dense(whole, ids_of(history[1:]))[0, -1].double().exp() if len(history) > 1 else unigrams(whole)
        seen = torch.zeros(vocab_size, dtype=torch.bool)
        seen[[run[-1] for run in runs if run[:-1] == (*history,) and run[-1] != word]] = True
        q = torch.where(seen, p, shorter * (1 - p[seen].sum()) / (1 - shorter[seen].sum()))  # without it
        marginal = bos_share if history[0] == BOS else float(unigrams(whole)[history[0]])
        for place in range(1, len(history)):
            marginal *= float(dense(whole, ids_of(history[:place]))[0, -1].double().exp()[history[place]])
        divergence = marginal * float((p[1:] * (p[1:] / q[1:]).log()).sum())
        assert losses[number] == pytest.approx(math.expm1(divergence), rel=1e-3, abs=1e-7), runs[number]
        checked += 1
    assert checked > 50


def unigrams(model: Ngram) -> torch.Tensor:
    return model.state_dict()["root"]


def runs_of(nodes: Nodes) -> list[tuple[int, ...]]:
    """Return the tokens of every node."""
    runs: list[tuple[int, ...]] = [()]
    for parent in range(len(nodes.first) - 1):
        runs += [(*runs[parent], int(nodes.tokens[child])) for child in range(nodes.first[parent], nodes.first[parent + 1])]
    return runs


def test_pruning_by_entropy_drops_the_cheap_ones_first() -> None:
    """With Witten-Bell: the shorter contexts of Kneser-Ney are made for backing off, and suffer (Chelba et al. 2010)."""
    corpus, held_out = random_corpus(200), random_corpus(100, seed=9)
    sizes, nats = [], []
    for threshold in (0.0, 1e-5, 1e-3, 0.1):
        model = trained(corpus, 7, 5, "witten-bell", prune_entropy=threshold)
        sizes.append(len(model.state_dict()["tokens"]))
        nats.append(nats_of(model, held_out))
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 4
    assert abs(nats[1] - nats[0]) < 0.02 * nats[0] and abs(nats[3] - nats[0]) > abs(nats[1] - nats[0])


def nats_of(model: Ngram, texts: list[list[int]]) -> float:
    total = 0.0
    for text in texts:
        ids = ids_of(text)
        total -= float(model.score(ids[:, :-1], ids[:, 1:], model.initial_state(1))[0].double().sum())
    return total / sum(len(text) - 1 for text in texts)


@pytest.mark.parametrize("order", [1, 2, 3, 6])
def test_quantized_probabilities_are_near_and_sum_to_one(order: int) -> None:
    lines = KENLM["lines"]
    corpus, held_out = spelled(lines[:139]), spelled(lines[139:])
    full, small = trained(corpus, 128, order), trained(corpus, 128, order, quantized=True)
    ids = ids_of(*(text[:20] for text in held_out if len(text) >= 20))
    found = dense(small, ids).double().exp()
    torch.testing.assert_close(found.sum(-1), torch.ones(ids.shape, dtype=torch.float64), atol=1e-6, rtol=0)
    assert abs(nats_of(small, held_out) - nats_of(full, held_out)) < 0.01
    bytes_of = [sum(tensor.nbytes for tensor in model.state_dict().values()) for model in (full, small)]
    assert order == 1 or bytes_of[1] < bytes_of[0] * (0.75 if order == 2 else 0.66)


def test_a_context_that_leaves_no_unseen_token_cannot_be_quantized() -> None:
    with pytest.raises(TrainingError, match=r"leave model\.quantized off"):
        trained([[BOS, 2, EOS], [BOS, 2, 2, EOS], [BOS, EOS]], 3, 2, quantized=True)


@pytest.mark.parametrize("smoothing", SMOOTHED)
def test_one_token_all_but_alone_sums_to_one_when_quantized(smoothing: str) -> None:
    """What a context leaves for the unseen is smaller here than rounding in single precision."""
    model = trained([[BOS, *[2] * 3_000_000, EOS]], 20, 3, smoothing, quantized=True)
    total = dense(model, ids_of([BOS, 2, 2, 2], [BOS, 3, 2, 2])).double().exp().sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-6, rtol=0)
    again = Ngram(model.config)
    again.load_state_dict(model.state_dict())


def test_stupid_backoff_generates_and_is_never_scored() -> None:
    model = trained(spelled(FOUR_LINES), 128, 4, "stupid-backoff")
    ids = ids_of(spelled(FOUR_LINES)[0])
    total = dense(model, ids).double().exp().sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-6, rtol=0)
    with pytest.raises(NotADistribution, match="bits per character"):
        model.score(ids[:, :-1], ids[:, 1:], model.initial_state(1))
    assert drawn(model, 500, GenerationConfig(temperature=1.0)).shape == (500, 1)


def sample(
    model: Ngram, state: Any, uniform: np.ndarray, config: GenerationConfig, guard: Any = None, tails: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Let the model's stepper draw; return tokens, numbers used and states."""
    tokenizer = LetterTokenizer("x" * (model.config.vocab_size - 2))
    params = make_sampling_params(replace(config, max_new_tokens=10**6), tokenizer)
    texts = np.zeros((len(uniform), 0), np.int64) if tails is None else tails
    constraints = guard and Constraints(*guard, None, no_places(len(uniform)))
    return model.stepper().sample(np.asarray(state), uniform, params, texts, np.zeros(len(uniform), np.int64), constraints)


def drawn(model: Ngram, rows: int, config: GenerationConfig, start: Sequence[int] = (BOS,), **more: Any) -> np.ndarray:
    """Return the first token that each of many rows draws after a text."""
    _, state = model(ids_of(start).expand(rows, -1), model.initial_state(rows))
    uniform = np.random.default_rng(5).random((rows, 32))
    return sample(model, state, uniform, config, **more)[0][:, :1]


SHAPES = {
    "plain": GenerationConfig(temperature=1.0),
    "cold": GenerationConfig(temperature=0.5),
    "freezing": GenerationConfig(temperature=0.1),
    "hot": GenerationConfig(temperature=1.7),
    "top_k": GenerationConfig(temperature=1.0, top_k=3),
    "top_p": GenerationConfig(temperature=0.8, top_p=0.7),
    "min_p": GenerationConfig(temperature=1.2, min_p=0.2),
}


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("start", [(BOS,), (2, 3), (6, 6)], ids=["bos", "seen", "unseen"])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_draws_from_the_distribution_of_the_plain_call(shape: str, start: tuple[int, ...], quantized: bool) -> None:
    model = trained(random_corpus(40), 7, 3, quantized=quantized)
    config, rows = SHAPES[shape], 20_000
    logits, weights = dense(model, ids_of(start))[0, -1].double().numpy(), np.empty(7)
    apply_temperature(logits, logits.max(), float(config.temperature), weights)
    sample_from(weights, config.top_k, config.top_p, config.min_p, 0.5)
    expected = weights / weights.sum() * rows
    found = np.bincount(drawn(model, rows, config, start).ravel(), minlength=7)
    possible = expected > 0
    assert (found[~possible] == 0).all()
    chi_square = float(((found - expected)[possible] ** 2 / expected[possible]).sum())
    assert chi_square < scipy.stats.chi2.ppf(1 - 1e-4, max(1, possible.sum() - 1))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_row_is_drawn_alike_alone_and_among_others_in_one_piece_and_in_several(shape: str) -> None:
    model, config = trained(random_corpus(40), 7, 4), SHAPES[shape]
    uniform = np.random.default_rng(1).random((5, 64))
    tokens, _, after = sample(model, np.zeros(5, np.int64), uniform, config)
    for row in range(5):
        alone, used, state = sample(model, np.zeros(1, np.int64), uniform[row : row + 1], config)
        half, first, between = sample(model, np.zeros(1, np.int64), uniform[row : row + 1, :40], config)
        if EOS not in half[0]:
            rest, second, end = sample(model, between, uniform[row : row + 1, first[0] :], config)
            joined = [token for part in (half, rest) for token in part[0].tolist() if token >= 0]
            assert (joined, first + second, end) == ([t for t in alone[0].tolist() if t >= 0], used, state)
        assert np.array_equal(alone[0], tokens[row]) and state.tolist() == after[row : row + 1].tolist()
        text = [token for token in tokens[row].tolist() if token >= 0]
        ends = text.index(EOS) if EOS in text else len(text) - 1
        assert ends == len(text) - 1  # nothing after the end
        _, expected = model(ids_of(text), model.initial_state(1))
        assert state.tolist() == expected.tolist()


def test_a_guard_lets_no_copied_span_through() -> None:
    lines = KENLM["lines"]
    model = trained(spelled(lines), 128, 8)
    stream = np.concatenate([np.array(text) for text in spelled(lines)])
    corpus = "\n".join(lines)
    for limit, shape in itertools.product((4, 7, 12), ("plain", "cold", "top_p")):
        windows = build_windows(stream, (BOS, EOS), limit + 1, 16)
        _, state = model(ids_of(*[[BOS]] * 8), model.initial_state(8))
        uniform = np.random.default_rng(limit).random((8, 600))
        tokens, _, _ = sample(model, state, uniform, SHAPES[shape], (windows, 1))
        free, _, _ = sample(model, state, uniform, SHAPES[shape])
        texts, unguarded = ("".join(chr(t) for t in row if t > EOS) for rows in (tokens, free) for row in rows), []
        for text in texts:
            spans = [text[i : i + limit + 1] in corpus for i in range(len(text) - limit)]
            unguarded.append(any(spans))
        assert not any(unguarded[:8]) and any(unguarded[8:])


def test_where_all_but_the_end_is_forbidden_the_row_meets_a_dead_end() -> None:
    model = trained(spelled(["abcabcabc"] * 2), 128, 3, "none")
    windows = build_windows(np.array(spelled(["abcabcabc"])[0]), (BOS, EOS), 3, 32)
    _, state = model(ids_of([BOS]), model.initial_state(1))
    tails = np.array([[ord("x"), ord("y")]])
    tokens, _, after = sample(model, state, np.full((1, 64), 0.1), SHAPES["plain"], (windows, 1), tails)
    assert tokens[0, :4].tolist() == [ord("a"), ord("b"), DEAD_END, -1]
    assert after.tolist() == model(ids_of([BOS, ord("a"), ord("b")]), model.initial_state(1))[1].tolist()


def test_it_keeps_the_protocols_and_its_presets_fit_it() -> None:
    model = Ngram(NgramConfig(vocab_size=5))
    assert isinstance(model, LanguageModel) and isinstance(model, CountTrained)
    assert isinstance(model, SupportsScore) and isinstance(model, SupportsStep)
    for preset in (NGRAM_CHAR, NGRAM_WORD):
        NgramConfig(vocab_size=5, **preset.model_settings)
