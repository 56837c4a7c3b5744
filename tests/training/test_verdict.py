"""The verdict on a run: from made-up curves, and from real small runs that overfit, copy, or have
only just started.
"""

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reviewgen.training.report import RunVerdict, find_verdict
from tests.support.trainings import trained

Values = list[float | None]


def curve(bits: Values, train: Values | None = None) -> list[Any]:
    """Return evaluations as training.json holds them, one each hundred steps."""
    best = math.inf
    evaluations = []
    for number, value in enumerate(bits):
        is_best = number == 0 or (value is not None and value < best)
        best = min(best, math.inf if value is None else value)
        loss = train[number] if train else 2.0 - 0.1 * number
        facts = {"bits_per_character": value, "train_nats_per_token": loss, "is_best": is_best}
        evaluations.append({"step": 100 * (number + 1), **facts})
    return evaluations


def copy_rates(
    own: float | None, held_out: float | None, characters: int = 20_000
) -> dict[str, Any]:
    """Return the copy rates as training.json holds them."""
    return {"copy_rate": own, "held_out_copy_rate": held_out, "copy_rate_characters": characters}


FALLING: Values = [4.0, 3.0, 2.6, 2.4, 2.3, 2.25, 2.2, 2.15, 2.1, 2.05]
FLAT: Values = [4.0, 3.0, 2.5, 2.2, 2.1, 2.05, 2.03, 2.025, 2.021, 2.02]
NOISY: Values = [4.0, 3.0, 2.5, 2.2, 2.1, 2.05, 2.02, 2.03, 2.025, 2.031]  # neither gain nor loss
RISING: Values = [4.0, 3.0, 2.5, 2.3, 2.2, 2.3, 2.4, 2.5, 2.6, 2.7]
# one bad evaluation at the very end
OUTLIER: Values = [4.0, 3.0, 2.5, 2.2, 2.1, 2.05, 2.03, 2.025, 2.02, 2.4]
# a peak of the learning rate, and back
RECOVERED: Values = [4.0, 3.0, 2.2, 2.9, 2.7, 2.5, 2.4, 2.3, 2.25, 2.21]
WORSE: Values = [2.0 + 0.1 * number for number in range(10)]
EARLY = "early: no more gain on held-out text"


@pytest.mark.parametrize(
    "evaluations, stopped, name, since",
    [
        (curve(FALLING), "all steps taken", "still improving", None),
        (curve(FALLING[:3]), "interrupted", "unknown", None),
        (curve([None, None]), "all steps taken", "unknown", None),
        (curve(FLAT), "budget spent", "converged", None),
        (curve(NOISY), EARLY, "converged", None),
        (curve(RECOVERED), "all steps taken", "converged", None),
        (curve(RISING), "all steps taken", "overfitting", 500),
        (curve(OUTLIER), "all steps taken", "overfitting", 900),
        (curve(RISING, WORSE), "all steps taken", "diverged", 500),
        (curve(RISING, WORSE), "interrupted", "unknown", None),  # its learning rate was still high
        (curve(FALLING), "diverged", "diverged", 1000),
        # None: infinite bits
        (curve([2.0, None, None], [2.0, 9.0, 20.0]), "all steps taken", "diverged", 100),
        ([], None, "unknown", None),
        (curve([2.0], [None]), "budget spent", "still improving", None),
        # nothing is left to lose
        (curve([1e-9, 2e-9, 3e-9, 4e-9]), "all steps taken", "converged", None),
    ],
)
def test_made_up_curves(evaluations, stopped, name, since):
    verdict = find_verdict(evaluations, stopped, copy_rates(0.1, 0.1))
    assert (verdict.name, verdict.since_step) == (name, since), verdict.words
    assert since is None or f"step {since:,}" in verdict.words


@pytest.mark.parametrize(
    "own, real, is_copying",
    [
        (0.9, 0.02, True),
        (0.2, 0.02, True),
        (0.16, 0.02, False),
        (0.05, 0.0, False),
        (0.6, 0.5, False),
        (0.8, 0.5, True),
        (1.0, 0.8, False),
        (0.9, None, False),
        (None, 0.0, False),
    ],
)
def test_copying_is_judged_beside_held_out_reviews(own, real, is_copying):
    verdict = find_verdict(curve(RISING), "all steps taken", copy_rates(own, real))
    assert verdict.name == ("copying" if is_copying else "overfitting")
    assert "Overfitting since step 500" in verdict.words and verdict.since_step == 500


def test_a_copy_rate_that_is_not_known_yet_is_no_reason_for_the_verdict():
    verdict = find_verdict(
        curve(RISING), "all steps taken", copy_rates(0.9, 0.0, characters=19_999)
    )
    assert verdict.name == "overfitting"


numbers = st.none() | st.floats(0, 1e6)


@given(
    st.lists(st.tuples(numbers, numbers, st.none() | st.floats(0, 1), st.booleans()), max_size=12),
    st.sampled_from([None, "diverged", "interrupted", "budget spent"]),
    st.none() | st.floats(0, 1),
)
def test_any_curve_has_a_verdict(rows, stopped, held_out):
    names = ("step", "bits_per_character", "train_nats_per_token", "copy_rate", "is_best")
    evaluations = [
        dict(zip(names, (number, *row), strict=True)) for number, row in enumerate(rows, 1)
    ]
    verdict = find_verdict(
        evaluations, stopped, copy_rates(rows[-1][2] if rows else None, held_out)
    )
    assert (
        isinstance(verdict, RunVerdict)
        and verdict.words.endswith(".")
        and "nan" not in verdict.words
    )


# Real runs.


def words(count: int, seed: int, length: int = 8) -> list[str]:
    """Return texts of random letters: there is nothing to learn from them but the texts
    themselves.
    """
    source = random.Random(seed)
    return [
        " ".join("".join(source.choices("abcdefgh", k=5)) for _ in range(length))
        for _ in range(count)
    ]


@pytest.mark.slow
def test_a_big_model_on_a_tiny_corpus_overfits():
    settings = {
        "bptt": 24,
        "evaluations": 12,
        "patience": 100,
        "learning_rate": 0.02,
        "evaluation_tokens": 50_000,
    }
    size = {"hidden_size": 96, "embedding_size": 16}
    _, reports, model = trained(
        "gru-char", words(12, 1), validation=words(12, 2), steps=200, model=size, training=settings
    )
    judged = [
        (report.step, report.evaluation.bits_per_character)
        for report in reports
        if report.evaluation
    ]
    verdict = model.training["verdict"]
    best = min(judged, key=lambda each: each[1])
    assert "Overfitting" in verdict["words"], verdict
    assert verdict["since_step"] == best[0] < judged[-1][0] / 2
    assert judged[-1][1] > 1.2 * best[1]


def test_an_n_gram_that_has_learned_by_heart_is_copying():
    exact = {"novelty": "exact", "copy_tokens": 1600}
    for order, name in ((2, "converged"), (16, "copying")):
        training = trained(
            "ngram-char", words(60, 1, length=20), model={"order": order}, training=exact
        )[2].training
        assert training["verdict"]["name"] == name, order
    rate = training["novelty"]["copy_rate"]
    assert (
        f"the copy rate is {rate:.1%}, that of held-out reviews 0.0%"
        in training["verdict"]["words"]
    )
