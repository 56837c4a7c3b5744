"""The probe: it finds the fastest of the forms that are left open, in time, and leaves everything as it was."""

import time

import pytest
import torch
from torch import nn

from reviewgen.sampling.threads import using_threads
from reviewgen.training import TrainingConfig
from reviewgen.training.config import Budget
from reviewgen.training.probe import Form, describe_timings, find_form, plain_form, probe_seconds


class Planted(nn.Module):
    """A model whose seconds a call are planted: by threads, precision and implementation."""

    class config:
        vocab_size = 7

    def __init__(self, seconds):
        super().__init__()
        self.table = nn.Embedding(7, 7)
        self.seconds, self.way, self.calls = seconds, "plain", []

    def implementations(self):
        return ("plain", "other")

    def use_implementation(self, name):
        self.way = name

    def initial_state(self, batch_size):
        return torch.zeros(batch_size, 1)

    def forward(self, ids, state):
        precision = "bf16" if torch.is_autocast_enabled("cpu") else "no"
        time.sleep(self.seconds(torch.get_num_threads(), precision, self.way))
        return self.table(ids), state


@pytest.fixture(autouse=True)
def two_threads():
    with using_threads(2):
        yield


def probed(seconds, **settings):
    model, config = Planted(seconds), TrainingConfig(batch_size=2, bptt=8, **settings)
    return [timing.form for timing in find_form(model, plain_form(model, config, "bf16"), config)]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("way", ["plain", "other"])
def test_the_fastest_form_is_found(threads, precision, way):
    def seconds(*form):
        return 0.004 * (1 + sum(a != b for a, b in zip(form, (threads, precision, way), strict=True)))

    assert probed(seconds)[0] == Form(threads, precision, way)


def test_what_is_settled_is_not_tried():
    forms = probed(lambda *form: 0.001, threads=1, precision="bf16")
    assert {form.threads for form in forms} == {1}
    assert {form.precision for form in forms} == {"bf16"}
    assert {form.implementation for form in forms} == {"plain", "other"}


def test_a_form_that_gains_nothing_is_not_taken():
    assert probed(lambda *form: 0.005)[0] == Form(2, "bf16", "plain")


def test_nothing_is_touched_and_the_time_is_kept():
    model, config = Planted(lambda *form: 0.05), TrainingConfig(batch_size=2, bptt=8)
    before, state = torch.get_rng_state(), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    start = time.monotonic()
    timings = find_form(model, plain_form(model, config, "bf16"), config, seconds=0.1)
    assert time.monotonic() - start < 1.0
    assert len(timings) < 4
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert (torch.get_num_threads(), model.way) == (2, "plain")


def test_a_small_budget_is_not_spent_on_looking():
    assert probe_seconds(Budget()) == probe_seconds(Budget(steps=3)) == 0.5
    assert probe_seconds(Budget(deadline=time.monotonic() + 2)) == pytest.approx(0.1, abs=0.01)
    assert probe_seconds(Budget(deadline=time.monotonic() - 2)) == 0


def test_what_was_found_is_said_in_words():
    model, config = Planted(lambda *form: 0.005), TrainingConfig(batch_size=2, bptt=8)
    words = describe_timings(find_form(model, plain_form(model, config, "bf16"), config))
    assert words.startswith("Fastest of 4 forms, in tokens a second forward and backward: 2 threads, bf16, plain: ")
    assert "1 thread, bf16, plain: " in words
    assert "2 threads, 32 bits, plain: " in words
