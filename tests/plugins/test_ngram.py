"""The n-gram model: against a slow one in dictionaries, the numbers of KenLM, and formulas of the
papers.
"""

import itertools
import json
import math
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reviewgen.errors import ConfigError, DataError, NotADistribution, TrainingError
from reviewgen.protocols import SupportsExplain
from reviewgen.registry.plugins import find_model
from tests.support.brute_ngram import BruteNgram
from tests.support.plugin_models import (
    BOS,
    EOS,
    LINES,
    count_ngram,
    ids_of,
    log_probabilities,
    random_texts,
    spell,
)

SMOOTHED = ("kneser-ney", "absolute", "witten-bell")
DISTRIBUTIONS = (*SMOOTHED, "none")
KENLM = json.loads((Path(__file__).parent / "kenlm_alice.json").read_text(encoding="utf-8"))
texts_of_ids = st.lists(st.lists(st.integers(2, 5), max_size=9), min_size=1, max_size=12).map(
    lambda rows: [[BOS, *row, EOS] for row in rows]
)


def zipf_texts(count: int, tokens: int, vocab_size: int = 40, seed: int = 3) -> list[list[int]]:
    """Return texts whose tokens are as skewed as those of a language, so that the formulas for
    discounts apply.
    """
    rng = np.random.default_rng(seed)
    return [
        [BOS, *(2 + rng.zipf(1.3, tokens) % (vocab_size - 2)).tolist(), EOS] for _ in range(count)
    ]


def assert_sums_to_one(log_probs: torch.Tensor) -> None:
    total = log_probs.exp().sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-6, rtol=0)


def assert_textbook(
    texts: Any, vocab_size: int, order: int, smoothing: str, queries: Any
) -> tuple[BruteNgram, Any]:
    """Compare the probabilities of all tokens after each position of the queries, and the
    discounts, with the slow model's.
    """
    model, facts = count_ngram(texts, vocab_size, order, smoothing)
    brute = BruteNgram(texts, vocab_size, order, smoothing)
    for query in queries:
        expected = np.array(
            [
                [brute.probability(w, list(query[: t + 1])) for w in range(vocab_size)]
                for t in range(len(query))
            ]
        )
        if smoothing == "stupid-backoff":
            expected /= expected.sum(-1, keepdims=True)
        np.testing.assert_allclose(
            log_probabilities(model, query)[0].exp().numpy(), expected, atol=1e-6, rtol=1e-6
        )
    if smoothing in ("kneser-ney", "absolute"):
        np.testing.assert_allclose(
            facts["discounts"], [values[1:] for values in brute.discounts[1:]], rtol=1e-9
        )
    assert facts["ngrams"] == [len(counts) for counts in brute.counts[1:]]
    return brute, facts


@settings(max_examples=60)
@given(
    texts=texts_of_ids,
    order=st.integers(1, 5),
    smoothing=st.sampled_from([*DISTRIBUTIONS, "stupid-backoff"]),
    query=st.lists(st.integers(0, 6), min_size=1, max_size=9),
    bos=st.sampled_from([0, 3]),
)
def test_every_probability_is_that_of_the_textbook(texts, order, smoothing, query, bos):
    """Id 6 never occurs; bos is the smallest id, or, all ids moved along, one in the middle."""
    texts = [[(token + bos) % 7 for token in text] for text in texts]
    query = [(token + bos) % 7 for token in query]
    assert_textbook(texts, 7, order, smoothing, [*texts, query])


@pytest.mark.parametrize("smoothing", ["kneser-ney", "absolute"])
def test_discounts_are_those_of_the_counts_for_any_number_of_texts(smoothing):
    """bos, which occurs once in each text, is not a 1-gram: neither for the discounts nor for the
    number of n-grams.
    """
    for count, order in [(1, 2), (2, 2), (3, 3), (4, 2), (5, 2), (6, 3), (60, 3)]:
        texts = zipf_texts(count, 400 // count)
        _, facts = assert_textbook(texts, 40, order, smoothing, [texts[0][:40]])
        assert set(facts["fallback_orders"]) < set(range(1, order + 1))


@pytest.mark.wrong_types
def test_the_loops_compute_the_same_as_plain_python(monkeypatch):
    """Where numba is turned off, which also checks every index."""
    texts = zipf_texts(6, 25)
    queries = [text[:4] for text in texts]
    compiled = [
        (log_probabilities(model, *queries), facts)
        for model, facts in (count_ngram(texts, 40, 3, s) for s in SMOOTHED)
    ]
    monkeypatch.setattr(numba.config, "DISABLE_JIT", True)
    for name in [name for name in sys.modules if name.partition(".")[0] == "reviewgen_ngram"]:
        monkeypatch.delitem(sys.modules, name)
    for smoothing, (expected, facts) in zip(SMOOTHED, compiled, strict=True):
        model, again = count_ngram(texts, 40, 3, smoothing)
        torch.testing.assert_close(
            log_probabilities(model, *queries), expected, atol=1e-6, rtol=1e-6
        )
        assert again == facts


@pytest.mark.parametrize("stored", KENLM["models"], ids=lambda m: f"{m['tokens']}-{m['order']}")
def test_perplexity_is_kenlm_s(stored):
    """Against values stored from lmplz and query; the file says how they were made."""
    lines = [line.split() if stored["tokens"] == "word" else list(line) for line in KENLM["lines"]]
    train = lines[: KENLM["train_lines"]]
    held_out = lines[KENLM["train_lines"] :]
    vocabulary = sorted(set(itertools.chain.from_iterable(train)))
    ids = {token: number for number, token in enumerate(vocabulary, 3)}
    unknown = 2  # KenLM's <unk>, one of the ids that the uniform distribution counts
    texts = [[BOS, *(ids[token] for token in line), EOS] for line in train]
    model, facts = count_ngram(texts, len(ids) + 3, stored["order"])
    np.testing.assert_allclose(facts["discounts"], stored["discounts"], rtol=1e-6)
    assert facts["fallback_orders"] == stored["fallback_orders"]
    assert facts["ngrams"][1:] == stored["ngrams"][1:]
    for part, name in ((train, "train"), (held_out, "held_out")):
        nats = nats_of(
            model, [[BOS, *(ids.get(token, unknown) for token in line), EOS] for line in part]
        )
        assert round(math.exp(nats), 4) == pytest.approx(round(stored[name], 4), abs=1.01e-4)


def nats_of(model: Any, texts: Any) -> float:
    """Return the nats per token of texts."""
    total = 0.0
    for text in texts:
        ids = ids_of(text)
        total -= float(
            model.score(ids[:, :-1], ids[:, 1:], model.initial_state(1))[0].double().sum()
        )
    return total / sum(len(text) - 1 for text in texts)


@pytest.mark.parametrize(
    "smoothing, numbers, expected",
    [
        ("kneser-ney", (10, 5, 2, 1), (0.5, 1.4, 2.0)),
        ("kneser-ney", (10, 5, 2, 0), (0.5, 1.4, 3.0)),  # no 1-gram has count 4
        ("kneser-ney", (10, 5, 0, 1), None),
        ("kneser-ney", (1, 1, 9, 1), None),  # D2 below zero
        ("kneser-ney", (4, 1, 1, 0), None),  # D2 exactly zero: nothing left for an unseen token
        ("absolute", (6, 2, 1, 1), (0.6, 0.6, 0.6)),
        ("absolute", (3, 0, 1, 1), None),
    ],
)
def test_discounts_follow_from_how_many_ngrams_occur_once_to_four_times(
    smoothing, numbers, expected
):
    """Chen & Goodman 1998, equation 26, with the fall-back of lmplz; Ney, Essen & Kneser 1994, n1 /
    (n1 + 2 n2).
    """
    tokens = itertools.count(2)
    text = []
    for count, number in enumerate(numbers, 1):
        for token in itertools.islice(tokens, number):
            text += [token] * count
    # eos and bos occur five times
    _, facts = count_ngram([[BOS, *text, EOS], *[[BOS, EOS]] * 4], 40, 1, smoothing)
    fallback = (0.5, 1.0, 1.5) if smoothing == "kneser-ney" else (0.5, 0.5, 0.5)
    assert facts["discounts"] == [pytest.approx(expected or fallback)]
    assert facts["fallback_orders"] == ([] if expected else [1])


def test_the_report_names_sizes_and_fallbacks():
    model, facts = count_ngram(spell("abc"), 128, 2)
    assert facts["fallback_orders"] == [1, 2] and facts["notes"][0].startswith(
        f"{sum(facts['ngrams'])} n-grams of 1 to 2 tokens"
    )
    assert facts["notes"][1:] == [
        "Orders 1 and 2 have no usable discounts; KenLM's fall-back 0.5, 1, 1.5 is used instead."
    ]
    assert facts["bytes"] == sum(tensor.nbytes for tensor in model.state_dict().values())
    pruned = count_ngram(spell(*LINES), 128, 3, min_count=2)[1]["ngrams"]
    whole = count_ngram(spell(*LINES), 128, 3)[1]["ngrams"]
    notes = count_ngram(spell(*LINES), 128, 3, "absolute", min_count=2)[1]["notes"]
    assert f"dropped {sum(whole) - sum(pruned)} others" in notes[0]
    assert (
        "not a distribution" in count_ngram(spell("abc"), 128, 2, "stupid-backoff")[1]["notes"][-1]
    )


@pytest.mark.parametrize("smoothing", DISTRIBUTIONS)
def test_a_score_is_the_probability_of_the_whole_distribution(smoothing):
    ids = torch.randint(0, 128, (3, 40), generator=torch.Generator().manual_seed(0))
    ids[0, :18] = ids_of(spell(LINES[0])[0][:18])
    for order, quantized in [(1, False), (3, False), (16, False), (3, smoothing != "none")]:
        model, _ = count_ngram(spell(*LINES), 128, order, smoothing, quantized=quantized)
        logits, after = model(ids[:, :-1], model.initial_state(3))
        for targets in (ids[:, 1:], ids[:, :-1]):  # those that come next, and others
            scores, state = model.score(ids[:, :-1], targets, model.initial_state(3))
            torch.testing.assert_close(
                scores, logits.gather(-1, targets[..., None]).squeeze(-1), atol=1e-6, rtol=1e-6
            )
            assert torch.equal(state, after)


@pytest.mark.parametrize("vocab_size", [128, 45_000])
def test_pieces_with_the_state_passed_along_equal_the_whole(vocab_size):
    """With 45,000 ids, the distributions of a call are computed a few positions at a time."""
    model, _ = count_ngram(spell(*LINES), vocab_size, 3)
    ids = ids_of(*(text[:12] for text in spell(*LINES)))
    whole, end = model(ids, model.initial_state(4))
    first, state = model(ids[:, :11], model.initial_state(4))
    last, state = model(ids[:, 11:], state)
    assert torch.equal(torch.cat([first, last], dim=1), whole) and torch.equal(state, end)


CORPORA = {
    "four lines": spell(*LINES),
    "one token": [[BOS, 97, EOS]],
    "empty text": [[BOS, EOS]],
    "all equal": spell("aaaaaaaaaaaaaaaaaaaaaaaaa") * 5,
    "no repeats": spell("abcdefghijklmnopqrstuvwxyz"),
    "one text twice": spell("abc abd") * 2,
}


@pytest.mark.parametrize(
    "more", [*({"smoothing": s} for s in SMOOTHED), {"quantized": True}, {"min_count": 2}], ids=str
)
def test_any_corpus_gives_finite_scores_that_sum_to_one(more):
    for texts, order in itertools.product(CORPORA.values(), (1, 2, 5, 64)):
        model, _ = count_ngram(texts, 128, order, **more)
        for text in (*texts, *spell("zebra", "the band the band the band")):
            logits = log_probabilities(model, text)
            assert torch.isinf(logits[..., BOS]).all() and torch.isfinite(logits[..., 1:]).all()
            assert_sums_to_one(logits)


def test_small_models():
    # eos alone is left
    assert log_probabilities(count_ngram([[BOS, EOS]], 2, 3)[0], [BOS]).tolist() == [
        [[-math.inf, 0.0]]
    ]
    model, _ = count_ngram(spell("abab", "abc"), 128, 3, "none")
    text = ids_of(spell("abzab")[0])
    scores = model.score(text[:, :-1], text[:, 1:], model.initial_state(1))[0][0]
    # what was not seen is impossible
    assert scores[:3].tolist() == [0.0, 0.0, -math.inf] and scores.sum() == -math.inf
    together, _ = count_ngram([[BOS, 2, 3, EOS, BOS, 2, 4, EOS]], 5, 3)
    apart, _ = count_ngram([[BOS, 2, 3, EOS], [BOS, 2, 4, EOS]], 5, 3)
    for name, tensor in together.state_dict().items():  # a bos inside begins another text
        assert torch.equal(tensor, apart.state_dict()[name]), name


def test_stupid_backoff_generates_and_is_never_scored():
    model, _ = count_ngram(spell(*LINES), 128, 4, "stupid-backoff")
    assert_sums_to_one(log_probabilities(model, spell(LINES[0])[0]))
    with pytest.raises(NotADistribution, match="bits per character"):
        nats_of(model, spell(LINES[0]))


def closed(grams: Any) -> set[tuple[int, ...]]:
    """Return n-grams, and those that they need: all that is inside them."""
    inside = set()
    for gram in grams:
        for start, end in itertools.combinations(range(len(gram) + 1), 2):
            inside.add(gram[start:end])
    return inside


def sizes_of(grams: Any, order: int) -> list[int]:
    return [sum(len(gram) == n and gram != (BOS,) for gram in grams) for n in range(1, order + 1)]


def ngrams_of(texts: Any, order: int) -> Counter[tuple[int, ...]]:
    counts: Counter[tuple[int, ...]] = Counter()
    for text in texts:
        for n in range(1, order + 1):
            counts.update(tuple(text[at : at + n]) for at in range(len(text) - n + 1))
    return counts


@pytest.mark.parametrize("smoothing", SMOOTHED)
def test_pruning_by_count_keeps_what_is_frequent_or_needed_and_sums_to_one(smoothing):
    texts = random_texts(40)
    order = 4
    contexts = list(itertools.product(range(7), repeat=3))
    before = log_probabilities(count_ngram(texts, 7, order, smoothing)[0], *contexts)[:, -1].exp()
    for min_count in (2, 3, 4):
        pruned, facts = count_ngram(texts, 7, order, smoothing, min_count=min_count)
        counts = ngrams_of(texts, order)
        needed = closed(
            gram for gram, count in counts.items() if count >= min_count or len(gram) == 1
        )
        assert facts["ngrams"] == sizes_of(needed, order) and len(needed) < len(counts)
        logits = log_probabilities(pruned, *contexts)[:, -1]
        assert_sums_to_one(logits)
        for number, context in enumerate(contexts):
            kept = [word for word in range(7) if (*context, word) in needed]
            torch.testing.assert_close(
                logits[number, kept].exp(), before[number, kept], rtol=1e-6, atol=0
            )


@settings(max_examples=60)
@given(
    texts=texts_of_ids,
    order=st.integers(1, 5),
    smoothing=st.sampled_from(SMOOTHED),
    min_texts=st.integers(2, 4),
)
def test_ngrams_of_few_texts_count_for_lower_orders_only(texts, order, smoothing, min_texts):
    model, facts = count_ngram(texts, 7, order, smoothing, min_texts=min_texts)
    brute = BruteNgram(texts, 7, order, smoothing, min_texts)
    for query in texts:
        expected = [
            [brute.probability(w, query[: t + 1]) for w in range(7)] for t in range(len(query))
        ]
        found = log_probabilities(model, query)[0]
        assert_sums_to_one(found)
        np.testing.assert_allclose(found.exp().numpy(), expected, atol=1e-6, rtol=1e-5)
    assert facts["ngrams"] == [
        len(counts.keys() - brute.dropped) for counts in map(dict, brute.counts[1:])
    ]


def test_ngrams_of_one_text_are_dropped_however_often_they_occur_in_it():
    """Two texts in one array are two texts."""
    shared = [BOS, 2, 3, EOS]
    secret = [BOS, 5, 5, 5, 5, 5, EOS]
    model, _ = count_ngram([shared, shared, secret], 7, 3, min_texts=2)
    assert model.parameter_kinds() == {"1-grams": 4, "2-grams": 3, "3-grams": 2}
    log_probs = log_probabilities(model, [BOS, 5, 5])[0]
    torch.testing.assert_close(log_probs[-1], log_probs[-2])
    together, _ = count_ngram([[*secret, *secret]], 7, 3, min_texts=2)
    assert together.parameter_kinds() == {"1-grams": 2, "2-grams": 3, "3-grams": 3}


def test_pruning_by_entropy_drops_ngrams_whose_absence_costs_little():
    """Stolcke 1998: the rise in perplexity, from both models' distributions over all contexts that
    end alike.
    """
    texts = random_texts(40)
    vocab_size = 7
    order = 3
    counts = ngrams_of(texts, order)
    model, _ = count_ngram(texts, vocab_size, order)
    unigrams = model.state_dict()["root"]

    def after(history: tuple[int, ...]) -> torch.Tensor:
        return log_probabilities(model, history)[0, -1].exp() if history else unigrams

    losses = {}
    for *history, word in (gram for gram in counts if len(gram) > 1):
        context = tuple(history)
        p = after(context)
        shorter = after(context[1:])
        seen = torch.zeros(vocab_size, dtype=torch.bool)
        seen[[gram[-1] for gram in counts if gram[:-1] == context and gram[-1] != word]] = True
        # without the n-gram
        q = torch.where(seen, p, shorter * (1 - p[seen].sum()) / (1 - shorter[seen].sum()))
        marginal = (
            len(texts) / sum(len(text) - 1 for text in texts)
            if context[0] == BOS
            else float(unigrams[context[0]])
        )
        marginal *= math.prod(float(after(context[:n])[context[n]]) for n in range(1, len(context)))
        losses[*context, word] = math.expm1(marginal * float((p[1:] * (p[1:] / q[1:]).log()).sum()))
    ordered = sorted(loss for loss in losses.values() if loss > 1e-7)
    assert len(ordered) > 50
    for lower, higher in itertools.pairwise(ordered[::7]):
        threshold = math.sqrt(lower * higher)
        if min(abs(loss / threshold - 1) for loss in ordered) < 1e-3:
            continue  # too near to one of them to decide
        needed = closed(
            [
                *(gram for gram, loss in losses.items() if loss >= threshold),
                *((token,) for token in (0, 1, 2, 3, 4, 5)),
            ]
        )
        pruned, facts = count_ngram(texts, vocab_size, order, prune_entropy=threshold)
        assert facts["ngrams"] == sizes_of(needed, order)
        assert_sums_to_one(log_probabilities(pruned, *itertools.product(range(7), repeat=2)))


@pytest.mark.parametrize("order", [1, 2, 6])
def test_quantized_probabilities_are_near_and_sum_to_one(order):
    texts = spell(*KENLM["lines"][:139])
    held_out = spell(*KENLM["lines"][139:])
    full, whole = count_ngram(texts, 128, order)
    small, facts = count_ngram(texts, 128, order, quantized=True)
    assert_sums_to_one(
        log_probabilities(small, *(text[:20] for text in held_out if len(text) >= 20))
    )
    assert abs(nats_of(small, held_out) - nats_of(full, held_out)) < 0.01
    assert order == 1 or facts["bytes"] < whole["bytes"] * (0.75 if order == 2 else 0.66)


def test_one_token_all_but_alone_sums_to_one_when_quantized():
    """What a context leaves for the unseen is smaller here than rounding in single precision."""
    for smoothing in SMOOTHED:
        model, _ = count_ngram([[BOS, *[2] * 3_000_000, EOS]], 20, 3, smoothing, quantized=True)
        assert_sums_to_one(log_probabilities(model, [BOS, 2, 2, 2], [BOS, 3, 2, 2]))
    # no unseen token is left to compensate rounding
    with pytest.raises(TrainingError, match=r"model\.quantized=false"):
        count_ngram([[BOS, 2, EOS], [BOS, 2, 2, EOS], [BOS, EOS]], 3, 2, quantized=True)


def test_misuse_is_explained():
    cls: Any = find_model("ngram")[0]
    model = cls(cls.Config(vocab_size=5, order=2))
    alone = cls(cls.Config(vocab_size=1, order=2))
    alone.observe(np.array([0, 0]))
    calls: list[tuple[Any, type[Exception], str]] = [
        (lambda: log_probabilities(model, [0]), TrainingError, "not trained yet"),
        (model.finish, TrainingError, "No text"),
        (alone.finish, TrainingError, "nothing to predict"),
        (lambda: model.observe(np.array([], np.int64)), TrainingError, "no ids"),
        (lambda: model.observe(np.array([0, 5])), TrainingError, r"0\.\.4"),
        (lambda: model.observe(np.array([0, -1])), TrainingError, r"0\.\.4"),
        (
            lambda: (
                model.observe(np.array([0, 2, 1], np.uint16)) or model.observe(np.array([2, 0, 1]))
            ),
            TrainingError,
            "same id",
        ),
        (lambda: model.finish() and model.observe(np.array([0, 2, 1])), TrainingError, "finished"),
        (lambda: log_probabilities(model, [5]), DataError, r"0\.\.4"),
        (
            lambda: model.score(ids_of([0]), ids_of([-1]), model.initial_state(1)),
            DataError,
            r"0\.\.4",
        ),
        (lambda: model(ids_of([2]), torch.tensor([1000])), DataError, r"contexts 0\.\."),
    ]
    for call, error, word in calls:
        with pytest.raises(error, match=word):
            call()
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
            cls.Config(**{"vocab_size": 5, **wrong})


# The counts behind a prediction.

histories = st.lists(st.integers(2, 6), max_size=6).map(lambda row: [BOS, *row])


def explain(model: Any, history: list[int]) -> Any:
    stepper = model.stepper()
    assert isinstance(stepper, SupportsExplain)
    return stepper.explain(np.array(history, np.int64))


def compare_smoothed(context: Any, after: Any, table: Any, smoothing: str, weight: float) -> None:
    """Compare a context with the counts and the discounts of dictionaries."""
    is_witten_bell = smoothing == "witten-bell"
    divisor = sum(after.values())
    if is_witten_bell:
        kept_back = len(after)
        divisor += kept_back
    else:
        kept_back = sum(table[min(c, 3)] for c in after.values())
    assert context.backoff == pytest.approx(kept_back / divisor)
    if context.counts is None:
        return
    seen = np.flatnonzero(context.counts).tolist()
    assert {token: int(context.counts[token]) for token in seen} == after
    assert context.divisor == divisor
    assert context.discounts == (None if is_witten_bell else pytest.approx(table[1:]))
    if len(context.counts) == 7:
        counts = [after.get(w, 0) for w in range(7)]
        own = counts if is_witten_bell else [c - table[min(c, 3)] for c in counts]
        assert context.parts == pytest.approx(weight * np.array(own) / divisor, abs=1e-6)


def compare_contexts(model: Any, brute: BruteNgram, history: list[int]) -> int:
    """Compare the contexts of a history with those of dictionaries; return how many of them have no
    counts.
    """
    stepper = model.stepper()
    smoothing = brute.smoothing
    order = brute.order
    probabilities = np.exp(
        stepper.forward(np.array([history]), stepper.initial_state(1))[0][0].astype(np.float64)
    )
    contexts = explain(model, history)
    suffixes = [
        tuple(history[len(history) - n :]) for n in range(min(order - 1, len(history)), -1, -1)
    ]
    assert [tuple(history[len(history) - c.tokens :]) for c in contexts] == [
        s for s in suffixes if s in brute.after
    ]
    weight = 1.0
    total = 0.0
    for context in contexts:
        suffix = tuple(history[len(history) - context.tokens :])
        after = brute.after[suffix]
        table = brute.discounts[len(suffix) + 1]
        assert set(np.flatnonzero(context.seen).tolist()) == set(after)
        by_predecessors = (
            smoothing == "kneser-ney" and len(suffix) + 1 < order and BOS not in suffix
        )
        assert context.unit == ("predecessors" if by_predecessors else "occurrences")
        if smoothing in SMOOTHED:
            compare_smoothed(context, after, table, smoothing, weight)
            weight *= context.backoff
        else:
            assert context.counts is None
        total = total + context.parts
    assert (total <= probabilities + 1e-6).all()
    if smoothing in SMOOTHED:  # the rest is the uniform distribution's
        rest = np.full(len(probabilities), weight / (len(probabilities) - 1))
        rest[BOS] = 0.0
        assert total + rest == pytest.approx(probabilities, abs=1e-6)
    return sum(context.counts is None for context in contexts)


@settings(max_examples=60)
@given(
    texts=texts_of_ids,
    order=st.integers(1, 5),
    smoothing=st.sampled_from([*DISTRIBUTIONS, "stupid-backoff"]),
    history=histories,
)
def test_counts_are_exact_or_left_out(texts, order, smoothing, history):
    model, _ = count_ngram(texts, 7, order, smoothing)
    unknown = compare_contexts(model, BruteNgram(texts, 7, order, smoothing), history)
    assert unknown == 0 or smoothing not in ("absolute", "witten-bell")
