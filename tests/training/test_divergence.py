"""A loss or a gradient that is NaN or infinite: seen at once, named with its place, and the last
good weights are kept.
"""

import itertools
import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reviewgen.errors import TrainingError
from reviewgen.training.optimizing import DivergenceGuard
from reviewgen.training.report import Report
from tests.support.fakes import TEXTS
from tests.support.trainings import Planted, fitted, prepared, weights_of


def spoilt(
    step: int, value: float, what: str = "logits", **options: Any
) -> tuple[Any, list[Report], dict[int, Any]]:
    """Train; from a step on the logits, or the gradient alone, turn into a value. Return the
    weights of each step, too.
    """
    run = prepared(
        "gru-char", TEXTS, **(options if "epochs" in options else {"steps": 40} | options)
    )
    forward = type(run.model).forward
    calls = itertools.count(1)
    weights = {0: weights_of(run.model)}
    reports = []
    accumulated = run.record.training.gradient_accumulation_steps

    def spoiling(self: Any, ids: Tensor, state: Any) -> Any:
        logits, state = forward(self, ids, state)
        if self.training and next(calls) > accumulated * (step - 1):
            if what == "logits":
                logits = logits * value
            else:
                logits.register_hook(lambda gradient: gradient * value)
        return logits, state

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(run.model), "forward", spoiling)
        for report in run:
            reports.append(report)
            weights[report.step] = weights_of(run.model)
    return run, reports, weights


def are_equal(one: Any, other: Any) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "value, what, accumulated", [(math.nan, "logits", 2), (math.inf, "gradient", 1)]
)
def test_before_an_evaluation_the_weights_before_the_bad_step_are_kept(value, what, accumulated):
    training = {"gradient_accumulation_steps": accumulated}
    run, reports, weights = spoilt(7, value, what, training=training)
    assert [report.step for report in reports] == list(range(1, 8))
    (said,) = reports[-1].notes
    named = "The loss is nan" if what == "logits" else "The gradient is NaN or infinite"
    assert said.startswith(f"{named} at step 7 (epoch 1, batch {6 * accumulated + 1} of ")
    assert "lower training.learning_rate" in said
    assert said.endswith("Kept: there was no evaluation yet, so the weights after step 6.")
    assert are_equal(run.model.state_dict(), weights[6]) and not are_equal(weights[6], weights[5])


@pytest.mark.parametrize("value, what", [(math.nan, "logits"), (math.inf, "gradient")])
def test_the_record_of_a_training_that_diverged_holds_no_nan(value, what, tmp_path):
    run, reports, _ = spoilt(7, value, what, out=tmp_path / "m")
    (said,) = reports[-1].notes
    model = run.finish()
    assert math.isfinite(model.training["held_out"]["bits_per_character"])
    record = json.loads(
        (tmp_path / "m" / "training.json").read_text(encoding="utf-8"), parse_constant=pytest.fail
    )
    assert record["stopped"] == model.training["stopped"] == "diverged" and said in record["notes"]
    for name in ("train_nats_per_token", "train_bits_per_character"):
        assert (record["curve"][name][-1] is None) == (what == "logits")


def test_after_an_evaluation_the_best_weights_are_kept():
    run, reports, weights = spoilt(19, math.nan)
    best = [report.step for report in reports if report.is_best][-1]
    assert (
        best == 10
        and reports[-1].step == 19
        and not reports[-1].is_best
        and reports[-1].evaluation is None
    )
    assert reports[-1].notes[0].endswith("Kept: the best weights so far.")
    assert are_equal(run.finish().model.state_dict(), weights[best])


@pytest.mark.parametrize("what", ["logits", "gradient"])
def test_without_a_good_step_there_is_nothing_to_keep(what, tmp_path):
    named = "loss is nan" if what == "logits" else "gradient is NaN or infinite"
    with pytest.raises(
        TrainingError,
        match=rf"^The {named} at step 1 \(epoch 1, batch 1 of \d+\): lower training.learning_rate",
    ):
        spoilt(1, math.nan, what, out=tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_weights_whose_last_evaluation_is_nan_are_not_kept():
    """After 1 and 3 steps; the loss of step 6 is NaN, too."""

    class Broken(Planted):
        def forward(self, ids: Tensor, state: Any) -> Any:
            logits, state = super().forward(ids, state)
            return logits * (math.nan if self.training and self.steps == 6 else 1), state

    with pytest.raises(TrainingError, match="loss is nan at step 6"):
        list(fitted(Broken(lambda steps: math.nan), steps=10, evaluations=4))


# Where each look would wait for an accelerator, it looks now and then.


@pytest.mark.parametrize("bad, looked, good", [(5, 6, 2), (3, 3, 2), (7, 9, 5), (2, 3, 0)])
def test_a_guard_gives_back_the_weights_of_its_last_look(bad, looked, good):
    model = nn.Linear(2, 2)
    fine = torch.tensor(1.0)
    before = []
    guard = DivergenceGuard(model, 0, check_every=3)
    for step in range(1, looked + 1):
        before.append(weights_of(model))
        assert guard.allows_step(step, fine, torch.tensor(math.nan if step == bad else 1.0)) == (
            step < looked
        )
        with torch.no_grad():
            model.weight.add_(step)
    guard.restore()
    assert (guard.bad_step, guard.good_steps) == (bad, good)
    assert are_equal(before[good], model.state_dict())
