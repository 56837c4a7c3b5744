"""What an n-gram says of the counts behind a prediction: against counts made by hand, and the probabilities themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reviewgen_ngram.model import Ngram, NgramConfig

from reviewgen.conditions import Conditions
from reviewgen.explanation.batch import Labels
from reviewgen.explanation.counts import explain_counts
from reviewgen.protocols import SupportsExplain
from tests.support.brute_ngram import BruteNgram
from tests.support.fakes import LetterTokenizer

BOS, EOS, VOCAB = 0, 1, 7
LABELS = Labels(LetterTokenizer("abcde"), Conditions())
SMOOTHINGS = ("kneser-ney", "absolute", "witten-bell", "stupid-backoff", "none")
corpora = st.lists(st.lists(st.integers(2, 5), max_size=9), min_size=1, max_size=12).map(
    lambda rows: [[BOS, *row, EOS] for row in rows]
)
histories = st.lists(st.integers(2, 6), max_size=6).map(lambda row: [BOS, *row])


def trained(texts, order, smoothing="kneser-ney", vocab_size=VOCAB, **more):
    model = Ngram(NgramConfig(vocab_size=vocab_size, order=order, smoothing=smoothing, **more))
    for text in texts:
        model.observe(np.array(text, np.int64))
    model.finish()
    return model


def explain(model, history):
    stepper = model.stepper()
    assert isinstance(stepper, SupportsExplain)
    return stepper.explain(np.array(history, np.int64))


def probabilities(model, history):
    stepper = model.stepper()
    return np.exp(stepper.forward(np.array([history], np.int64), stepper.initial_state(1))[0][0].astype(np.float64))


def check_against_brute_force(corpus, order, smoothing, history, model):
    """Compare the contexts of a history with those of dictionaries; return how many have counts, of how many."""
    brute = BruteNgram(corpus, model.config.vocab_size, order, smoothing)
    contexts = explain(model, history)
    suffixes = [tuple(history[len(history) - n :]) for n in range(min(order - 1, len(history)), -1, -1)]
    assert [tuple(history[len(history) - c.tokens :]) for c in contexts] == [s for s in suffixes if s in brute.after]
    for context in contexts:
        suffix = tuple(history[len(history) - context.tokens :])
        after = brute.after[suffix]
        assert set(np.flatnonzero(context.seen).tolist()) == set(after)
        if context.counts is not None:
            assert {token: int(context.counts[token]) for token in np.flatnonzero(context.counts).tolist()} == after
        counted_by_predecessors = smoothing == "kneser-ney" and len(suffix) + 1 < order and BOS not in suffix
        assert context.unit == ("predecessors" if counted_by_predecessors else "occurrences")
    parts = sum(context.parts for context in contexts)
    assert (parts <= probabilities(model, history) + 1e-6).all()
    uniform = 0.0 if smoothing in ("none", "stupid-backoff") else 1.0
    assert uniform or parts == pytest.approx(probabilities(model, history), abs=1e-6)
    return sum(context.counts is not None for context in contexts), len(contexts)


@settings(max_examples=60)
@given(corpus=corpora, order=st.integers(1, 5), smoothing=st.sampled_from(SMOOTHINGS), history=histories)
def test_counts_are_exact_or_not_told(corpus, order, smoothing, history):
    known, number = check_against_brute_force(corpus, order, smoothing, history, trained(corpus, order, smoothing))
    assert known == {"witten-bell": number, "absolute": number}.get(smoothing, known)
    assert not (known and smoothing in ("none", "stupid-backoff"))


@pytest.mark.parametrize("smoothing", ["kneser-ney", "absolute", "witten-bell"])
def test_in_a_corpus_of_some_size_all_counts_are_told(smoothing):
    random = np.random.default_rng(0)
    letters = np.arange(2, 22)
    share = 1.0 / letters / (1.0 / letters).sum()
    corpus = [[BOS, *random.choice(letters, random.integers(1, 60), p=share).tolist(), EOS] for _ in range(300)]
    model = trained(corpus, 4, smoothing, vocab_size=24)
    for text in corpus[:8]:
        for size in range(1, len(text), 7):
            known, number = check_against_brute_force(corpus, 4, smoothing, text[:size], model)
            assert known == number


@settings(max_examples=60)
@given(corpus=corpora, order=st.integers(1, 5), smoothing=st.sampled_from(SMOOTHINGS), history=histories)
def test_each_step_of_a_probability_is_that_of_dictionaries(corpus, order, smoothing, history):
    """Counts, discounts, divisors and back-off weights; and parts that add up to the probability of the textbook."""
    model, brute = trained(corpus, order, smoothing), BruteNgram(corpus, VOCAB, order, smoothing)
    for token in range(1, VOCAB):
        (counted,) = explain_counts(model.stepper(), [history], [(0, len(history) - 1, token, 0.0)], LABELS)
        expected = [step_by_hand(brute, tuple(history[len(history) - s.order + 1 :]), token) for s in counted.steps]
        weight = 1.0
        for step, (count, discount, divisor, backoff) in zip(counted.steps, expected, strict=True):
            assert step.weight == pytest.approx(weight)
            if smoothing not in ("none", "stupid-backoff"):
                assert step.backoff == pytest.approx(backoff)
            if step.count is not None:
                assert (step.count, step.divisor) == (count, divisor)
                assert step.discount == pytest.approx(discount)
                assert step.part == pytest.approx(weight * (count - discount) / divisor, abs=1e-6)
            weight *= step.backoff
        p = brute.probability(token, history)
        if smoothing not in ("none", "stupid-backoff"):
            assert sum(step.part for step in counted.steps) + weight / (VOCAB - 1) == pytest.approx(p, abs=1e-6)
        if smoothing != "none":
            first = next((step for step in counted.steps if step.probability is not None), None)
            if first is not None:
                assert first.weight * first.probability == pytest.approx(p, abs=1e-6)


def step_by_hand(brute, context, token):
    """Return a token's count after a context, its discount, what the difference is divided by, and the back-off weight."""
    after = brute.after[context]
    total, count = sum(after.values()), after.get(token, 0)
    if brute.smoothing == "witten-bell":
        return count, 0.0, total + len(after), len(after) / (total + len(after))
    table = brute.discounts[len(context) + 1]
    return count, table[min(count, 3)], total, sum(table[min(c, 3)] for c in after.values()) / total


@pytest.mark.parametrize("more", [{"quantized": True}, {"min_count": 2}, {"prune_entropy": 1e-3}])
def test_what_pruning_and_rounding_changed_is_not_told(more):
    corpus = [[BOS, *np.random.default_rng(seed).integers(2, 6, 12).tolist(), EOS] for seed in range(40)]
    contexts = explain(trained(corpus, 3, **more), [BOS, 2, 3])
    assert contexts[-1].tokens == 0 and contexts[-1].seen.sum() == 5
    assert all(context.counts is None and context.parts is None for context in contexts)
