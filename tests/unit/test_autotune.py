"""Autotuning: it selects the fastest of the configurations that are left open, in time, and leaves everything as it was."""

import math
import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from reviewgen.training import TrainingConfig
from reviewgen.training import autotune as autotune_module
from reviewgen.training.autotune import (
    ExecutionConfig,
    autotune,
    autotune_seconds,
    default_execution,
    describe_timings,
    measure_throughput,
)
from reviewgen.training.config import Budget
from reviewgen.training.device import using_threads


class Planted(nn.Module):
    """A model that writes down in which execution it is called."""

    def __init__(self):
        super().__init__()
        self.config, self.table = SimpleNamespace(vocab_size=7), nn.Embedding(7, 7)
        self.way, self.calls = "plain", []

    def implementations(self):
        return ("plain", "other")

    def use_implementation(self, name):
        self.way = name

    def initial_state(self, batch_size):
        return torch.zeros(batch_size, 1)

    def forward(self, ids, state):
        precision = "bf16" if torch.is_autocast_enabled("cpu") else "no"
        self.calls.append((ExecutionConfig(torch.get_num_threads(), precision, self.way), tuple(ids.shape)))
        return self.table(ids), state


@pytest.fixture(autouse=True)
def two_threads():
    with using_threads(2):
        yield


@pytest.fixture
def planted(monkeypatch):
    """Return a function that plants the seconds of a step in each execution, and returns what is found."""

    def find(seconds, left=0.5, tokens=math.inf, **settings):
        def rate(model, execution, batch, steps=3):
            time.sleep(seconds(execution) / 100)
            return batch[0] * batch[1] / seconds(execution)

        monkeypatch.setattr(autotune_module, "measure_throughput", rate)
        config = TrainingConfig(batch_size=2, bptt=8, **settings)
        return autotune(Planted(), default_execution(Planted(), config, "bf16"), config, left, tokens)

    return find


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("way", ["plain", "other"])
def test_the_fastest_configuration_is_found(planted, threads, precision, way):
    best = ExecutionConfig(threads, precision, way)

    def seconds(execution):
        return 0.001 * (
            1 + sum(getattr(execution, name) != getattr(best, name) for name in ("threads", "precision", "implementation"))
        )

    assert planted(seconds)[0].execution == best


def test_what_is_settled_is_not_tried(planted):
    executions = [timing.execution for timing in planted(lambda execution: 0.001, threads=1, precision="bf16")]
    assert {execution.threads for execution in executions} == {1}
    assert {execution.precision for execution in executions} == {"bf16"}
    assert {execution.implementation for execution in executions} == {"plain", "other"}


def test_a_configuration_that_gains_little_is_not_taken(planted):
    first = ExecutionConfig(1, "no", "plain")
    assert planted(lambda execution: 0.001 if execution == first else 0.00098)[0].execution == first


def test_when_the_time_is_over_the_fastest_so_far_is_taken(planted):
    executions = [timing.execution for timing in planted(lambda execution: 1.0 / execution.threads, left=0.0)]
    assert executions == [ExecutionConfig(1, "no", "plain")]


def test_a_long_run_takes_the_time_that_a_large_model_needs(planted):
    def tokens(seconds):  # of a run in which a step of 16 tokens takes 30 s, and timing it takes 0.3 s
        return 16 * seconds / 30

    assert len(planted(lambda execution: 30.0, tokens=tokens(40))) < 4
    assert len(planted(lambda execution: 30.0, tokens=tokens(1000))) == 4


def test_throughput_is_measured_with_the_configuration():
    for execution in (
        ExecutionConfig(1, "bf16", "plain"),
        ExecutionConfig(2, "no", "other"),
        ExecutionConfig(2, "bf16", "other"),
    ):
        model = Planted()
        assert measure_throughput(model, execution, (3, 5), steps=2) > 0
        assert model.calls == [(execution, (3, 5))] * 3


def test_nothing_is_touched():
    model, config = Planted(), TrainingConfig(batch_size=2, bptt=8)
    before, state = torch.get_rng_state(), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert len(autotune(model, default_execution(model, config, "bf16"), config, 60.0)) == 4
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert (torch.get_num_threads(), model.way, model.calls) == (2, "plain", [])


def test_a_small_budget_is_not_spent_on_looking():
    assert autotune_seconds(Budget()) == autotune_seconds(Budget(steps=3)) == 0.5
    assert autotune_seconds(Budget(deadline=time.monotonic() + 2)) == pytest.approx(0.1, abs=0.05)
    assert autotune_seconds(Budget(deadline=time.monotonic() + 20)) == pytest.approx(0.5, abs=0.05)
    assert autotune_seconds(Budget(deadline=time.monotonic() + 3600)) == pytest.approx(36, abs=0.05)
    assert autotune_seconds(Budget(deadline=time.monotonic() - 2)) == 0


def test_what_was_found_is_said_in_words(planted):
    words = describe_timings(planted(lambda execution: 0.016))
    assert words.startswith(
        "Fastest of 4 configurations, in tokens per second forward and backward: 1 thread, 32 bits, plain: 1,000"
    )
    assert "1 thread, bf16, plain: 1,000; " in words
    assert "2 threads, 32 bits, plain: 1,000" in words
