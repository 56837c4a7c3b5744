"""The learning rate of each step, when a run is evaluated, and how it ends early, with planted
held-out scores.
"""

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from reviewgen.training.report import Report
from tests.support.trainings import Planted, fitted


def follow(
    nats: Callable[[int], float], **training: object
) -> tuple[list[Report], list[float], list[int]]:
    """Return the reports of a run, its learning rates and the steps of its evaluations; a few steps
    are an epoch.
    """
    reports = list(
        fitted(Planted(nats), learning_rate=0.1, **{"batch_size": 32, "bptt": 64} | training)
    )
    rates = [report.learning_rate or 0.0 for report in reports]
    return reports, rates, [report.step for report in reports if report.evaluation]


def test_a_run_that_gains_to_the_end_decays_in_a_straight_line():
    reports, rates, evaluated = follow(
        lambda step: 9 - step / 100, steps=400, warmup=0.1, evaluations=10
    )
    assert len(rates) == 400 and max(rates) == pytest.approx(0.1) == rates[40]
    assert rates[0] == pytest.approx(0.004) and np.diff(rates[:41]) == pytest.approx(0.096 / 40)
    assert np.diff(rates[40:]) == pytest.approx(-0.1 / 360, rel=1e-6)
    assert evaluated == [4, 16, 36, 64, 100, 144, 196, 256, 324, 400]
    assert all(report.is_best for report in reports if report.evaluation)
    assert reports[-1].stopped == "all steps taken" and not any(report.notes for report in reports)


def test_a_run_that_stops_gaining_goes_back_to_its_best_rate_and_decays_to_zero():
    reports, rates, evaluated = follow(
        lambda step: 1 + abs(step - 64) / 64, steps=400, warmup=0.0, evaluations=20, patience=3
    )
    (turn,) = [report for report in reports if report.notes]
    assert (
        turn.step == 121 and "since step 64" in turn.notes[0] and "within 32 steps" in turn.notes[0]
    )
    assert len(rates) == 121 + 32 == evaluated[-1]  # half of the steps to the best weights
    assert rates[121] == pytest.approx(0.1 * (1 - 64 / 400))  # as at the best step
    assert np.diff(rates[121:]) == pytest.approx(-rates[121] / 32)
    assert [step for step in evaluated if step > 121] == [129, 137, 145, 153]
    assert reports[-1].stopped == "early: no more gain on held-out text"


def test_a_run_that_stops_gaining_in_its_first_epoch_goes_on():
    reports, _, _ = follow(lambda step: 1 + step / 64, steps=64, patience=1, batch_size=2, bptt=8)
    assert (
        reports[-1].epoch == 0
        and reports[-1].stopped == "all steps taken"
        and not any(report.notes for report in reports)
    )


def test_an_annealing_ends_with_the_run():
    reports, rates, _ = follow(
        lambda step: 1 + abs(step - 196) / 200, steps=400, warmup=0.0, evaluations=10, patience=2
    )
    (turn,) = [report for report in reports if report.notes]
    assert turn.step == 324 and len(rates) == 400 and 0 < rates[-1] < 2e-3
    assert reports[-1].stopped == "early: no more gain on held-out text"


@pytest.mark.parametrize("warmup, ends_early", [(0.25, True), (0.26, False)])
def test_evaluations_within_the_warm_up_do_not_count(warmup, ends_early):
    """Evaluations after 1, 4, 9 and 16 of 16 steps, of which the first is the best, and the third
    worse than the second.
    """
    scores = {1: 0.0, 4: 2.0, 9: 3.0, 16: 1.0}
    reports, _, evaluated = follow(
        lambda step: scores.get(step, 5.0), steps=16, warmup=warmup, evaluations=4, patience=1
    )
    assert evaluated[:3] == [1, 4, 9]
    notes = "\n".join(itertools.chain.from_iterable(report.notes for report in reports))
    assert ("have not improved since step 1" in notes) == ends_early
    assert reports[-1].stopped.startswith("early" if ends_early else "all steps")


def test_the_trained_weights_are_the_best_ones_once_the_annealing_starts():
    """And their moving average starts from them, too."""
    for averaging in (0.0, 0.5):
        model = Planted(lambda step: 1 + abs(step - 4))
        held = {}
        settings = {"batch_size": 32, "bptt": 64, "averaging": averaging, "weight_decay": 0.0}
        for report in fitted(model, steps=100, warmup=0.0, evaluations=20, patience=3, **settings):
            held[report.step] = model.logits.detach().clone()
            if any("its weights are restored" in note for note in report.notes):
                turn = report.step
                best = next(
                    int(word.rstrip(":")) for word in report.notes[0].split() if word[0].isdigit()
                )
        assert turn > best
        assert averaging or (held[turn] == held[best]).all()
        assert not (held[turn] == held[turn - 1]).all()
