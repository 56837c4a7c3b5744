"""A loss or a gradient that is NaN or infinite: seen at once, named with its place, and the last good weights are kept."""

import itertools
import math

import pytest
import torch
from reviewgen_recurrent.gru import Gru
from torch import nn

import reviewgen
from reviewgen import TrainingRun
from reviewgen.errors import TrainingError
from reviewgen.training.divergence import DivergenceGuard
from reviewgen.training.loop import Loop
from tests.support.fakes import TEXTS

SMALL = {
    "model": {"hidden_size": 8, "embedding_size": 4, "layer": "fused"},
    "training": {"batch_size": 4, "bptt": 8, "threads": 1, "precision": "no", "evaluations": 2, "evaluation_tokens": 500},
}


@pytest.fixture
def spoil(monkeypatch):
    """Return a function that has the logits, or the gradient alone, turn into a value at a step of the training."""

    def apply(step, value, what="logits"):
        plain, calls = Gru.forward, itertools.count(1)

        def forward(self, ids, state):
            logits, state = plain(self, ids, state)
            if self.training and next(calls) >= step:
                if what == "logits":
                    logits = logits * value
                else:
                    logits.register_hook(lambda gradient: gradient * value)
            return logits, state

        monkeypatch.setattr(Gru, "forward", forward)

    return apply


def train(steps=40):
    """Return a run, its reports and the weights that came with each of them."""
    run = TrainingRun("gru-char", TEXTS, steps=steps, **SMALL)
    run.read()
    run.tokenize()
    reports, weights = [], {0: weights_of(run)}
    for report in run:
        reports.append(report)
        weights[report.step] = weights_of(run)
    return run, reports, weights


def weights_of(run):
    return {name: tensor.clone() for name, tensor in run.model.state_dict().items()}


def are_equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("value", "what"), [(math.nan, "logits"), (math.inf, "logits"), (math.nan, "gradient"), (math.inf, "gradient")]
)
def test_before_an_evaluation_the_weights_before_the_bad_step_are_kept(spoil, value, what):
    spoil(6, value, what)
    run, reports, weights = train()
    batches = -(-len(run.stores["train"].ids) // (4 * 8)) - 1
    assert [report.step for report in reports] == list(range(1, 7))
    assert reports[-1].stopped == "diverged"
    (said,) = reports[-1].notes
    named = "The loss is nan" if what == "logits" else "The gradient is NaN or infinite"
    assert said.startswith(f"{named} at step 6 (epoch 1, batch 6 of {batches}")
    assert "lower training.learning_rate" in said
    assert said.endswith("Kept: there was no evaluation yet, so the weights after step 5.")
    assert are_equal(weights_of(run), weights[5])
    assert not are_equal(weights[5], weights[4])
    model = run.finish()
    assert math.isfinite(model.training["held_out"]["bits_per_character"])
    assert model.training["stopped"] == "diverged"
    assert said in model.training["notes"]


def test_after_an_evaluation_the_best_weights_are_kept(spoil):
    spoil(19, math.nan)
    run, reports, weights = train()
    best = [report.step for report in reports if report.is_best][-1]
    assert best == 10
    assert reports[-1].step == 19
    assert reports[-1].notes[0].endswith("Kept: the best weights so far.")
    assert are_equal(run.finish().model.state_dict(), weights[best])


def test_the_place_is_counted_on_over_the_epochs(spoil):
    run = TrainingRun("gru-char", TEXTS, epochs=3, **SMALL)
    run.read()
    run.tokenize()
    epoch = max(report.step for report in run if report.epoch == 0)
    spoil(epoch + 2, math.nan)
    _, reports, _ = train(steps=3 * epoch)
    assert f"step {epoch + 2} (epoch 2, batch 2 of {epoch})" in reports[-1].notes[0]


def test_without_a_good_step_there_is_nothing_to_keep(spoil, tmp_path):
    spoil(1, math.nan)
    run = TrainingRun("gru-char", TEXTS, steps=10, out=tmp_path / "m", **SMALL)
    run.read()
    run.tokenize()
    with pytest.raises(
        TrainingError, match=r"^The loss is nan at step 1 \(epoch 1, batch 1 of \d+\): lower training.learning_rate"
    ):
        list(run)
    del run
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


@pytest.mark.parametrize(("bad", "good"), [(6, 3), (4, 3), (8, 7), (2, 0)])
def test_an_accelerator_is_looked_at_now_and_then(spoil, monkeypatch, bad, good):
    """The way of an accelerator, taken on the CPU: a look every four steps and at evaluations."""
    monkeypatch.setattr(Loop, "_make_guard", lambda self: DivergenceGuard(self.model, self.steps, check_every=4))
    spoil(bad, math.nan)
    if not good:
        with pytest.raises(TrainingError, match="at step 2"):
            train()
        return
    run, reports, weights = train()
    assert reports[-1].step == -(-bad // 4) * 4
    assert f"at step {bad} (epoch 1, batch {bad} of" in reports[-1].notes[0]
    assert reports[-1].notes[0].endswith(f"the weights after step {good}.")
    assert are_equal(weights_of(run), weights[good])


def test_an_evaluation_looks_first(spoil, monkeypatch):
    monkeypatch.setattr(Loop, "_make_guard", lambda self: DivergenceGuard(self.model, self.steps, check_every=1000))
    spoil(15, math.nan)
    run, reports, weights = train()
    assert [report.step for report in reports if report.sample is not None] == [10]
    assert reports[-1].step == 40
    assert "at step 15 " in reports[-1].notes[0]
    assert are_equal(weights_of(run), weights[10])


def test_a_guard_that_need_not_look_reads_nothing_from_the_device(monkeypatch):
    guard = DivergenceGuard(nn.Linear(2, 2), 0, check_every=50)
    loss, norm = torch.tensor(math.inf, requires_grad=True), torch.tensor(1.0)

    def refuse(self):
        raise AssertionError("Read.")

    with monkeypatch.context() as patch:
        for name in ("__bool__", "__int__", "__float__", "item", "tolist", "numpy"):
            patch.setattr(torch.Tensor, name, refuse)
        assert all(guard.allows_step(step, loss if step == 20 else norm, norm) for step in range(1, 50))
    assert guard.bad_step == 0
    assert not guard.allows_step(50, norm, norm)
    assert (guard.bad_step, guard.good_steps) == (20, 0)


def test_a_guard_gives_back_the_weights_of_its_last_look():
    model = nn.Linear(2, 2)
    guard, good, bad = DivergenceGuard(model, 0, check_every=3), torch.tensor(1.0), torch.tensor(math.nan)
    before = []
    for step in range(1, 7):
        before.append(model.weight.detach().clone())
        is_admitted = guard.allows_step(step, bad if step == 5 else good, good)
        assert is_admitted == (step < 6)
        with torch.no_grad():
            model.weight.add_(step)
    guard.restore()
    assert (guard.bad_step, guard.good_steps) == (5, 2)
    assert torch.equal(model.weight, before[2])


def test_an_infinite_norm_that_does_not_count_is_no_fault():
    guard = DivergenceGuard(nn.Linear(2, 2), 0, check_every=1)
    assert guard.allows_step(1, torch.tensor(1.0), None)
    assert not guard.allows_step(2, torch.tensor(1.0), torch.tensor(math.inf))
    assert (guard.bad_step, guard.good_steps) == (2, 1)


def test_a_first_step_that_ruins_the_weights_ends_with_an_error() -> None:
    relu = {"hidden_size": 64, "activation": "relu"}
    bare = {"learning_rate": 10.0, "warmup": 0.0, "clip_norm": 1e9, "batch_size": 4, "bptt": 64, "threads": 1, "precision": "no"}
    said = r"^The (loss|gradient) is \w+.* at step \d .*: lower training\.learning_rate \(now [\d.]+\)\.$"
    with pytest.raises(TrainingError, match=said):
        reviewgen.train("rnn-char", TEXTS * 3, steps=60, model=relu, training=bare)
