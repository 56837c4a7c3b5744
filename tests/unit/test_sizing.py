"""The choice of a size: what the time is enough for, by what steps cost here; a size that the user has set is kept."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from reviewgen import TrainingRun
from reviewgen.config import Preset, to_dict
from reviewgen.training import TrainingConfig, choose_size, sizing
from tests.support.fakes import TEXTS

PRESET = Preset(
    model="any",
    tokenizer="any",
    sizes=({"width": 10}, {"width": 100}, {"width": 1000}),
    by_epochs=((2.0, {"dropout": 0.1}), (8.0, {"dropout": 0.4})),
)
CONFIG = TrainingConfig(batch_size=4, bptt=16)


class Sized(nn.Module):
    """A model of so many parameters."""

    def __init__(self, width):
        super().__init__()
        self.config, self.weights = SimpleNamespace(vocab_size=5), nn.Parameter(torch.zeros(width))


def chosen(monkeypatch, seconds, corpus_tokens=1_000, characters=1, rate=lambda width: 1_000.0, optimizer=0.0, **options):
    """Return what is chosen where steps cost what is planted."""
    monkeypatch.setattr(sizing, "time", SimpleNamespace(monotonic=lambda: 0.0))
    monkeypatch.setattr(sizing, "_time_steps", lambda model, config: sizing._StepCost(rate(len(model.weights)), optimizer))
    return choose_size(PRESET, lambda size: Sized(size["width"]), CONFIG, seconds, corpus_tokens, characters, **options)


@pytest.mark.parametrize(("seconds", "width"), [(0.001, 10), (0.2, 10), (0.4, 100), (2.0, 100), (4.0, 1000), (1e5, 1000)])
def test_the_largest_that_sees_some_tokens_for_each_parameter_is_taken(monkeypatch, seconds, width):
    found = chosen(monkeypatch, seconds)
    assert found.model["width"] == found.parameters == width
    assert found.epochs == pytest.approx(0.9 * seconds)


def test_a_slow_size_is_too_large(monkeypatch):
    assert chosen(monkeypatch, 4.0, rate=lambda width: 1_000.0 if width < 1000 else 500.0).model["width"] == 100


def test_tables_of_ngrams_are_looked_up_and_do_not_count(monkeypatch):
    class Tabled(Sized):
        def __init__(self, width):
            super().__init__(width)
            self.table, self.other = nn.EmbeddingBag(10**6, 1), nn.Embedding(7, 1)

    monkeypatch.setitem(globals(), "Sized", Tabled)
    found = chosen(monkeypatch, 0.4)
    assert found.model["width"] == 100 and found.parameters == 1_000_107


def test_no_model_learns_a_small_corpus_by_heart(monkeypatch):
    assert [chosen(monkeypatch, 1e5, corpus_tokens=tokens).model["width"] for tokens in (2, 9, 11, 100)] == [10, 10, 100, 1000]


def test_the_dropout_is_that_of_the_epochs(monkeypatch):
    found = [chosen(monkeypatch, seconds).model.get("dropout") for seconds in (1.0, 2.3, 8.5, 9.0, 100.0)]
    assert found == [None, 0.1, 0.1, 0.4, 0.4]


def test_the_epochs_of_a_small_model_count_less(monkeypatch):
    shares = [chosen(monkeypatch, 100.0, characters=size).model.get("dropout") for size in (1_000, 2_000, 10_000, 100_000)]
    assert shares == [0.4] * 4  # 90 epochs, of which 36 count at least
    assert [chosen(monkeypatch, 20.0, characters=size).model.get("dropout") for size in (1_000, 2_200, 10**6)] == [0.4, 0.4, 0.1]


def test_a_slow_optimizer_gets_longer_and_wider_batches(monkeypatch):
    def batch(seconds, optimizer):
        return chosen(monkeypatch, seconds, rate=lambda width: 1e5, optimizer=optimizer).training

    assert batch(1e4, optimizer=0.0) == {"batch_size": 4, "bptt": 16}
    assert batch(1e4, optimizer=2e-4) == {"batch_size": 4, "bptt": 32}  # 64 tokens take 0.64 ms
    assert batch(1e4, optimizer=1.0) == {"batch_size": 64, "bptt": 128}
    assert batch(1.0, optimizer=1.0) == {"batch_size": 4, "bptt": 16}  # few steps are left
    assert chosen(monkeypatch, 1e4, optimizer=1.0, may_grow=False).training == {}


def test_what_was_chosen_is_said(monkeypatch):
    words = chosen(monkeypatch, 10.0).describe(10.0)
    assert words.startswith(
        "Chosen for the 10 s that are left: width=1000, dropout=0.4, batch_size=4, bptt=16 (1,000 parameters)"
    )
    assert "about 9.0 epochs at 1,000 tokens per second" in words


def test_a_preset_without_sizes_has_no_choice():
    assert choose_size(Preset(model="a", tokenizer="b"), Sized, CONFIG, 1.0, 10, 10) is None


def prepared(preset="lstm-char", **options):
    run = TrainingRun(preset, TEXTS, **options)
    run.read()
    run.tokenize()
    return run


def test_a_budget_without_a_size_gets_one():
    run = prepared(budget="3s")
    (note,) = [note for note in run.notes if note.startswith("Chosen for")]
    size = run.model.config.hidden_size
    assert f"hidden_size={size}, " in note and f"batch_size={run.config.batch_size}, " in note
    assert size in {128, 256, 384, 512, 768, 1024}
    assert sum(1 for _ in run) > 0
    assert run.finish().training["config"]["bptt"] == run.config.bptt


@pytest.mark.parametrize("options", [{"budget": "3s", "model": {"hidden_size": 20}}, {"steps": 2}, {"epochs": 1}])
def test_a_size_that_was_named_stays(options):
    run = prepared(**options)
    assert not [note for note in run.notes if note.startswith("Chosen for")]
    assert run.model.config.hidden_size == options.get("model", {}).get("hidden_size", 320)
    assert (run.config.batch_size, run.config.bptt) == (32, 64)


def test_a_batch_that_was_named_stays():
    run = prepared(budget="3s", training={"batch_size": 5})
    assert [note for note in run.notes if note.startswith("Chosen for")]
    assert (run.config.batch_size, run.config.bptt) == (5, 64)


def test_real_steps_are_timed_and_leave_no_trace():
    before = torch.get_rng_state()
    run = prepared(budget="5s", seed=3)
    settings = {name: value for name, value in to_dict(run.model.config).items() if name != "vocab_size"}
    named = prepared(budget="5s", seed=3, model=settings)
    assert torch.equal(before, torch.get_rng_state())
    for name, tensor in named.model.state_dict().items():
        assert torch.equal(tensor, run.model.state_dict()[name])
