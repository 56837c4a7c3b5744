"""What an n-gram model says of the counts behind a prediction: against dictionaries, and the probabilities themselves."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reviewgen.protocols import SupportsExplain
from tests.support.brute_ngram import BruteNgram
from tests.support.plugin_models import BOS, EOS, count_ngram

VOCAB = 7
SMOOTHED = ("kneser-ney", "absolute", "witten-bell")
texts_of_ids = st.lists(st.lists(st.integers(2, 5), max_size=9), min_size=1, max_size=12).map(
    lambda rows: [[BOS, *row, EOS] for row in rows]
)
histories = st.lists(st.integers(2, 6), max_size=6).map(lambda row: [BOS, *row])


def explain(model: Any, history: list[int]) -> Any:
    stepper = model.stepper()
    assert isinstance(stepper, SupportsExplain)
    return stepper.explain(np.array(history, np.int64))


def check(model: Any, brute: BruteNgram, history: list[int]) -> int:
    """Compare the contexts of a history with those of dictionaries; return how many of them have no counts."""
    stepper, smoothing, order = model.stepper(), brute.smoothing, brute.order
    probabilities = np.exp(stepper.forward(np.array([history]), stepper.initial_state(1))[0][0].astype(np.float64))
    contexts = explain(model, history)
    suffixes = [tuple(history[len(history) - n :]) for n in range(min(order - 1, len(history)), -1, -1)]
    assert [tuple(history[len(history) - c.tokens :]) for c in contexts] == [s for s in suffixes if s in brute.after]
    weight, total = 1.0, 0.0
    for context in contexts:
        suffix = tuple(history[len(history) - context.tokens :])
        after, table = brute.after[suffix], brute.discounts[len(suffix) + 1]
        assert set(np.flatnonzero(context.seen).tolist()) == set(after)
        by_predecessors = smoothing == "kneser-ney" and len(suffix) + 1 < order and BOS not in suffix
        assert context.unit == ("predecessors" if by_predecessors else "occurrences")
        if smoothing in SMOOTHED:
            kinds, occurrences = len(after), sum(after.values())
            divisor = occurrences + kinds if smoothing == "witten-bell" else occurrences
            kept_back = kinds if smoothing == "witten-bell" else sum(table[min(c, 3)] for c in after.values())
            assert context.backoff == pytest.approx(kept_back / divisor)
            if context.counts is not None:
                assert {token: int(context.counts[token]) for token in np.flatnonzero(context.counts).tolist()} == after
                assert context.divisor == divisor
                assert context.discounts == (None if smoothing == "witten-bell" else pytest.approx(table[1:]))
                own = [
                    after.get(w, 0) - (0 if smoothing == "witten-bell" else table[min(after.get(w, 0), 3)]) for w in range(VOCAB)
                ]
                if model.config.vocab_size == VOCAB:
                    assert context.parts == pytest.approx(weight * np.array(own) / divisor, abs=1e-6)
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
    smoothing=st.sampled_from([*SMOOTHED, "stupid-backoff", "none"]),
    history=histories,
)
def test_counts_are_exact_or_left_out(texts: Any, order: int, smoothing: str, history: list[int]) -> None:
    model, _ = count_ngram(texts, VOCAB, order, smoothing)
    unknown = check(model, BruteNgram(texts, VOCAB, order, smoothing), history)
    assert unknown == 0 or smoothing not in ("absolute", "witten-bell")
