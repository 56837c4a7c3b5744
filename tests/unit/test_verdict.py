"""The verdict on a run: from made-up curves, and from real small runs that overfit, copy, or have only just begun."""

import json
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import reviewgen
from reviewgen.card import CardFacts, write_card
from reviewgen.evaluation import evaluate_documents
from reviewgen.training import RunVerdict, find_verdict


def curve(
    bits: list[float | None], train: list[float | None] | None = None, copies: list[float | None] | None = None
) -> list[Any]:
    """Return evaluations as training.json holds them, one each hundred steps."""
    best, found = math.inf, []
    for number, value in enumerate(bits):
        is_best = number == 0 or (value is not None and value < best)
        best = min(best, math.inf if value is None else value)
        found.append(
            {
                "step": 100 * (number + 1),
                "bits_per_character": value,
                "train_nats_per_token": train[number] if train else 2.0 - 0.1 * number,
                "token_copy_rate": copies[number] if copies else None,
                "is_best": is_best,
            }
        )
    return found


FALLING = [4.0, 3.0, 2.6, 2.4, 2.3, 2.25, 2.2, 2.15, 2.1, 2.05]
FLAT = [4.0, 3.0, 2.5, 2.2, 2.1, 2.05, 2.03, 2.025, 2.021, 2.02]
NOISY = [4.0, 3.0, 2.5, 2.2, 2.1, 2.05, 2.02, 2.03, 2.025, 2.031]  # no gain, no loss to speak of
RISING = [4.0, 3.0, 2.5, 2.3, 2.2, 2.3, 2.4, 2.5, 2.6, 2.7]
OUTLIER = [4.0, 3.0, 2.5, 2.2, 2.1, 2.05, 2.03, 2.025, 2.02, 2.4]  # one bad evaluation at the very end
RECOVERED = [4.0, 3.0, 2.2, 2.9, 2.7, 2.5, 2.4, 2.3, 2.25, 2.21]  # a peak of the learning rate, and back
WORSE = [2.0 + 0.1 * number for number in range(10)]


@pytest.mark.parametrize(
    ("evaluations", "stopped", "name", "since"),
    [
        (curve(FALLING), "all steps taken", "still improving", None),
        (curve(FALLING), "interrupted", "still improving", None),
        (curve(FALLING[:4]), "interrupted", "still improving", None),
        (curve(FALLING[:2]), "interrupted", "unknown", None),
        (curve([2.0, 2.3, 2.6]), "interrupted", "unknown", None),
        (curve(FLAT), "budget spent", "converged", None),
        (curve(NOISY), "early: no more gain on held-out text", "converged", None),
        (curve(RECOVERED), "all steps taken", "converged", None),
        (curve(RISING), "all steps taken", "overfitting", 500),
        (curve([*RISING[:8], 2.2, 2.1]), "early: no more gain on held-out text", "converged", None),
        (curve([*FLAT[:8], 2.06]), "interrupted", "overfitting", 800),
        (curve(OUTLIER), "all steps taken", "overfitting", 900),
        (curve([*OUTLIER, 2.02]), "all steps taken", "converged", None),
        (curve(RISING, WORSE), "all steps taken", "diverged", 500),
        (curve(FALLING), "diverged", "diverged", 1000),
        (curve(FALLING[:1]), "diverged", "diverged", 100),
        (curve([2.0, None, None], [2.0, 9.0, 20.0]), "all steps taken", "diverged", 100),  # None: infinite bits
        (curve([None, None]), "all steps taken", "unknown", None),
        (curve([2.0]), "all steps taken", "unknown", None),
        ([], "interrupted", "unknown", None),
        ([], None, "unknown", None),
        (curve([2.0], [None]), "all texts counted", "converged", None),
        (curve([None], [None]), "all texts counted", "converged", None),
        (curve([2.0], [None]), "budget spent", "still improving", None),
        (curve([5.0], [None]), "nothing to train", "converged", None),
        (curve([1e-9, 2e-9, 3e-9, 4e-9]), "all steps taken", "converged", None),  # nothing is left to lose
    ],
)
def test_made_up_curves(evaluations: list[Any], stopped: str | None, name: str, since: int | None) -> None:
    verdict = find_verdict(evaluations, stopped, 0.1)
    assert (verdict.name, verdict.since_step) == (name, since), verdict.words
    assert since is None or f"step {since:,}" in verdict.words


@pytest.mark.parametrize(
    ("own", "real", "is_copying"),
    [(0.9, 0.02, True), (0.2, 0.02, True), (0.16, 0.02, False), (0.05, 0.0, False), (0.6, 0.5, False), (0.8, 0.5, True),
     (1.0, 0.8, False), (0.9, None, False), (None, 0.0, False)],
)  # fmt: skip
def test_copying_is_told_beside_held_out_reviews(own: float | None, real: float | None, is_copying: bool) -> None:
    verdict = find_verdict(curve(RISING, copies=[0.0] * 4 + [own] + [1.0] * 5), "all steps taken", real)
    assert verdict.name == ("copying" if is_copying else "overfitting")  # by the weights that are kept
    assert "Overfitting since step 500" in verdict.words
    assert verdict.since_step == 500
    if is_copying:
        assert f"{own:.1%}" in verdict.words and f"{real:.1%}" in verdict.words


def test_the_weights_it_names_are_those_that_are_kept() -> None:
    """With keep=best-under-copy these need not be those of the fewest bits."""
    evaluations = curve(RISING)
    for each in evaluations:
        each["is_best"] = each["step"] <= 300
    words = find_verdict(evaluations, "all steps taken").words
    assert "Overfitting since step 500" in words and "weights of step 300 are kept" in words


numbers = st.none() | st.floats(0, 1e6)
cases = st.lists(st.tuples(numbers, numbers, st.none() | st.floats(0, 1), st.booleans()), max_size=12)


@given(cases, st.sampled_from([None, "diverged", "interrupted", "budget spent"]), st.none() | st.floats(0, 1))
def test_any_curve_has_a_verdict(rows: list[Any], stopped: str | None, held_out: float | None) -> None:
    evaluations = [
        {"step": 1 + place, "bits_per_character": bits, "train_nats_per_token": train, "token_copy_rate": rate, "is_best": best}
        for place, (bits, train, rate, best) in enumerate(rows)
    ]
    verdict = find_verdict(evaluations, stopped, held_out)
    assert isinstance(verdict, RunVerdict) and verdict.words.endswith(".") and "nan" not in verdict.words
    assert verdict == find_verdict(evaluations, stopped, held_out)


# Real runs.


def words(count: int, seed: int) -> list[str]:
    """Return texts of random letters: there is nothing to learn from them but the texts themselves."""
    source = random.Random(seed)
    return [" ".join("".join(source.choices("abcdefgh", k=5)) for _ in range(8)) for _ in range(count)]


def test_a_big_model_on_a_tiny_corpus_overfits() -> None:
    settings = {"batch_size": 4, "bptt": 24, "evaluations": 12, "patience": 100, "learning_rate": 0.02, "copy_tokens": 0}
    run = reviewgen.TrainingRun(
        "gru-char",
        words(12, 1),
        validation=words(12, 2),
        steps=200,
        model={"hidden_size": 96, "embedding_size": 16},
        training=settings | {"precision": "no", "threads": 1},  # else autotuning selects them by how busy the machine is
    )
    run.read()
    run.tokenize()
    found = [(report.step, report.evaluation.bits_per_character) for report in run if report.evaluation]
    model = run.finish()
    verdict = model.training["verdict"]
    best = min(found, key=lambda each: each[1])
    assert "Overfitting" in verdict["words"], verdict
    assert verdict["since_step"] == best[0] < found[-1][0] / 2
    documents = list(run.stores["validation"].documents())
    kept = evaluate_documents(model.model, documents, model.tokenizer.vocab_size).bits_per_character
    assert kept == pytest.approx(best[1], rel=1e-4)  # the best weights, of that step, are kept
    assert found[-1][1] > 1.2 * kept


def test_a_short_run_has_no_verdict_and_says_so_in_the_card(tmp_path: Any) -> None:
    model = reviewgen.train("gru-char", words(60, 1), steps=20, out=tmp_path / "m", model={"hidden_size": 16})
    verdict = json.loads((tmp_path / "m" / "training.json").read_text())["verdict"]
    assert verdict == model.training["verdict"]
    assert verdict["name"] == "unknown" and "s of training would show it" in verdict["words"]
    assert f"- Verdict: {verdict['words']}\n" in (tmp_path / "m" / "README.md").read_text()


def test_an_n_gram_that_has_learnt_by_heart_is_copying() -> None:
    verdicts = {
        order: reviewgen.train("ngram-char", words(60, 1), model={"order": order}, training={"novelty": "exact"}).training[
            "verdict"
        ]
        for order in (2, 16)
    }
    assert verdicts[2]["name"] == "converged"
    assert verdicts[16]["name"] == "copying" and "(0.0% of those of held-out reviews do)" in verdicts[16]["words"]


def test_an_interrupt_before_the_first_evaluation_is_told() -> None:
    run = reviewgen.TrainingRun("gru-char", words(30, 1), steps=1000, model={"hidden_size": 8})
    run.read()
    run.tokenize()
    next(iter(run))
    run.interrupt()
    assert run.finish().training["verdict"]["name"] == "unknown"


def test_a_card_without_a_verdict() -> None:
    assert "Verdict" not in write_card(
        CardFacts(preset="blend", model="blend", tokenizer="char", version="0", training={"parts": []})
    )
