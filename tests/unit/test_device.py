"""Where a run computes: what is chosen and refused, and a loop that never waits for its device."""

import itertools
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import PartialState

from reviewgen import TrainingRun
from reviewgen.data import Lanes
from reviewgen.errors import TrainingError
from reviewgen.registry import find_model
from reviewgen.training import Budget, Processes, TrainingConfig, device
from reviewgen.training import loop as loop_module
from reviewgen.training.device import IsolatedRng, choose_device, choose_precision, to_device
from reviewgen.training.evaluator import Evaluator
from reviewgen.training.loop import Loop
from tests.support.fakes import TEXTS

TINY = {"model": {"hidden_size": 8, "embedding_size": 4}, "training": {"batch_size": 4, "bptt": 8, "precision": "no"}}


def at(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """Let accelerate find a device that is not there."""
    monkeypatch.setattr(device, "process_state", lambda: SimpleNamespace(device=torch.device(place), num_processes=1))


def small(name: str) -> Any:
    kind, _ = find_model(name)
    return kind(kind.Config(vocab_size=9, hidden_size=8, embedding_size=4))


@pytest.mark.parametrize(
    ("here", "wanted", "model", "found"),
    [
        ("mps", "auto", "gru", "cpu"),  # never without being asked
        ("mps", "mps", "gru", "mps"),
        ("mps", "auto", "lstm", "mps"),
        ("mps", "cpu", "lstm", "cpu"),
        ("cuda:1", "auto", "gru", "cuda:1"),
        ("cuda:1", "cuda", "gru", "cuda:1"),
        ("cpu", "auto", "gru", "cpu"),
    ],
)
def test_the_device(here: str, wanted: str, model: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, here)
    place, notes = choose_device(wanted, small(model))
    assert str(place) == found
    assert bool(notes) == (wanted == "auto" and here != found)
    assert not notes or "Gru is unsuited for mps, so it is trained on the CPU; set training.device=mps" in notes[0]


@pytest.mark.parametrize(("here", "wanted"), [("cpu", "mps"), ("cpu", "cuda"), ("mps", "cuda"), ("cuda:0", "mps")])
def test_a_device_that_is_not_there_is_refused(here: str, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, here)
    with pytest.raises(
        TrainingError, match=f"training.device={wanted} is not available here: this process computes on {here[:3]}"
    ):
        choose_device(wanted, small("lstm"))


@pytest.mark.skipif(torch.version.cuda is not None, reason="this build of torch has CUDA, which it asks in place of mps")
def test_a_gru_on_a_mac_is_trained_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What accelerate asks torch for says that there is mps."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: True)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(PartialState, "_shared_state", {})
    assert device.process_state().device.type == "mps"
    run = TrainingRun("gru-char", TEXTS, steps=2, **TINY)
    run.read()
    run.tokenize()
    first, last = run
    assert "unsuited for mps" in first.notes[0] and not any("unsuited" in note for note in last.notes)
    assert first.device.startswith("cpu, no mixed precision")


def test_the_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert [choose_precision("auto", place) for place in ("cuda", "cpu", "mps")] == ["fp16", "bf16", "no"]
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")  # the launcher's word
    chosen = [choose_precision(*given) for given in (("auto", "cuda"), ("no", "cuda"), ("bf16", "cpu"))]
    assert chosen == ["fp16", "no", "bf16"]
    for wanted, place in ("auto", "cpu"), ("fp16", "mps"), ("fp16", "cpu"):
        with pytest.raises(TrainingError, match=f"fp16 is not available on {place}"):
            choose_precision(wanted, place)


def test_ids_go_to_a_gpu_through_pinned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[Any] = []

    class Pinned:
        def pin_memory(self) -> "Pinned":
            steps.append("pinned")
            return self

        def to(self, place: torch.device, non_blocking: bool) -> "Pinned":
            steps.append((str(place), non_blocking))
            return self

    wide = np.arange(12).reshape(3, 4)[:, :2]
    assert to_device(wide, torch.device("cpu")).tolist() == wide.tolist()
    monkeypatch.setattr(torch, "from_numpy", lambda array: (steps.append(array.flags.c_contiguous), Pinned())[1])
    to_device.__wrapped__(wide, torch.device("cuda:1"))
    assert steps == [True, "pinned", ("cuda:1", True)]


def made_loop(rank: int = 0, dropout: float = 0.0, **training: Any) -> tuple[Any, Any]:
    """Return a gradient loop and its batches."""
    run = TrainingRun("gru-char", TEXTS, **(TINY | {"model": TINY["model"] | {"output_dropout": dropout}}))
    run.read()
    run.tokenize()
    config = TrainingConfig(**(TINY["training"] | training))
    lanes = Lanes(run.stores["train"], bos_id=0, vocab_size=1 << 16, lanes=4, bptt=8, seed=0)
    loop = Loop(run.model, config, lanes, Budget(steps=9), 0, Evaluator(run.tokenizer, [], config, processes=Processes(rank)))
    return loop, zip(*[iter(lanes)] * config.gradient_accumulation_steps, strict=False)


def test_nothing_in_the_loop_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor on ``meta`` has no values: whatever reads one, as ``float`` and ``item`` and ``if`` do, raises."""
    monkeypatch.setattr(loop_module, "choose_device", lambda *_: (torch.device("meta"), ()))
    monkeypatch.setattr(loop_module, "IsolatedRng", lambda *_: nullcontext())
    loop, batches = made_loop(gradient_accumulation_steps=2)
    for several in itertools.islice(batches, 4):
        loss = loop.train_step(several)
        report = loop.make_report(several[-1], loss, ())
        assert not loop.has_diverged(wait=False)
    assert loss.is_meta and report.tokens == 4 * 2 * 4 * 8
    with pytest.raises(RuntimeError, match="meta"):
        _ = report.nats_per_token  # the check can fail


def test_scaled_gradients_train_as_plain_ones_and_infinite_ones_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """fp16's scaler, on the CPU: gradients are clipped and stepped with as they are without, and a step of inf is skipped."""
    plain, batches = made_loop(gradient_accumulation_steps=2, clip_norm=0.1)
    expected = [float(plain.train_step(several)) for several in itertools.islice(batches, 5)]
    monkeypatch.setattr(loop_module, "choose_precision", lambda *_: "fp16")
    monkeypatch.setattr(torch, "autocast", lambda *_: nullcontext())
    loop, batches = made_loop(gradient_accumulation_steps=2, clip_norm=0.1)
    assert loop.scaler.is_enabled()
    assert [float(loop.train_step(several)) for several in itertools.islice(batches, 5)] == pytest.approx(expected, abs=1e-5)
    for one, other in zip(plain.parameters, loop.parameters, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)

    def spoil(parameters: list[Any], loss: Any, _: int) -> Any:
        parameters[0].grad.fill_(torch.inf)
        return loss

    before = [parameter.detach().clone() for parameter in loop.parameters]
    scale = loop.scaler.get_scale()
    with monkeypatch.context() as patch:
        patch.setattr(loop.processes, "average_gradients", spoil)
        loop.train_step(next(batches))
    assert all(torch.equal(one, other) for one, other in zip(before, loop.parameters, strict=True))
    assert loop.scaler.get_scale() == scale / 2
    loop.train_step(next(batches))
    assert not torch.equal(before[0], loop.parameters[0])


def test_each_process_draws_dropout_of_its_own_and_the_same_weights() -> None:
    def first(rank: int, dropout: float) -> float:
        loop, batches = made_loop(rank, dropout)
        return float(loop.train_step(next(batches)))

    close = pytest.approx(first(0, 0.5), abs=1e-5)  # sums may be rounded otherwise where memory lies otherwise
    assert first(0, 0.5) == close and first(1, 0.5) != close
    assert first(0, 0.0) == pytest.approx(first(1, 0.0), abs=1e-5)


def test_a_device_has_a_random_stream_of_the_run_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in of a GPU's generator is one on the CPU."""
    outside = torch.Generator().manual_seed(7)
    fake = SimpleNamespace(get_rng_state=outside.get_state, set_rng_state=outside.set_state)
    plain = torch.Generator
    monkeypatch.setattr(torch, "get_device_module", lambda name: fake)
    monkeypatch.setattr(torch, "Generator", lambda name: plain())
    before = outside.get_state()

    def draw(own: IsolatedRng) -> list[float]:
        with own:
            return [float(torch.rand(1, generator=outside)), float(torch.rand(1))]

    first, same, other = IsolatedRng(1, "cuda"), IsolatedRng(1, "cuda"), IsolatedRng(2, "cuda")
    drawn = draw(first)
    assert drawn == draw(same) and drawn[0] != draw(other)[0] and draw(first)[0] != drawn[0]
    assert torch.equal(outside.get_state(), before)


def test_a_stream_is_resumed_with_the_states_of_its_own_devices() -> None:
    """CUDA's and MPS's generators have states of different lengths; earlier versions saved them as a list."""
    cpu, cuda, mps = IsolatedRng(5).states["cpu"], torch.ones(16, dtype=torch.uint8), torch.ones(44, dtype=torch.uint8)

    def resumed(states: Any) -> dict[str, torch.Tensor]:
        rng = IsolatedRng(0)
        rng.states["cuda"] = torch.zeros_like(cuda)
        rng.resume(states)
        return rng.states

    for states, drawn in (
        ({"cpu": cpu, "mps": mps}, torch.zeros_like(cuda)),
        ({"cpu": cpu, "cuda": cuda}, cuda),
        ([cpu, mps], torch.zeros_like(cuda)),
        ([cpu, cuda], cuda),
        ([cpu], torch.zeros_like(cuda)),
    ):
        now = resumed(states)
        assert list(now) == ["cpu", "cuda"] and now["cpu"].equal(cpu) and now["cuda"].equal(drawn)
