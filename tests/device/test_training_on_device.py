"""A training on the accelerator: losses as on the CPU, the layers of cuDNN, no step that waits, checkpoints for elsewhere."""

import itertools
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import reviewgen
from reviewgen import TrainingRun
from reviewgen.data import Lanes
from reviewgen.errors import TrainingError
from reviewgen.training import Budget, Processes, TrainingConfig, checkpoints
from reviewgen.training.evaluator import Evaluator
from reviewgen.training.loop import Loop
from tests.device.places import EACH_PLACE, HERE, no_waiting, used_memory
from tests.support.fakes import TEXTS
from tests.support.launches import launcher

MODEL = {"hidden_size": 32, "embedding_size": 16, "layers": 2, "layer": "fused"}
TRAINING = {"batch_size": 4, "bptt": 16, "threads": 1, "copy_tokens": 0, "evaluations": 2, "evaluation_tokens": 500}
TOLERANCES = {"no": 2e-3, "bf16": 3e-2, "fp16": 1e-2}  # in nats: a CUDA device multiplies in TF32 where precision is no


def start(place: str, precision: str = "no", **options: Any) -> TrainingRun:
    """Return a run of 6 steps on a device, ready to train."""
    training = TRAINING | {"device": place, "precision": precision} | options.pop("training", {})
    run = TrainingRun(options.pop("preset", "lstm-char"), TEXTS, model=MODEL, training=training, **{"steps": 6} | options)
    run.read()
    run.tokenize()
    return run


def losses_of(run: TrainingRun) -> list[float]:
    """Train, and return the loss of each step."""
    return [report.nats_per_token for report in run]


def made_loop(place: str, precision: str) -> tuple[Loop, Any]:
    """Return a gradient loop on a device, and its batches."""
    run = start(place, precision)
    config = TrainingConfig(**TRAINING, device=place, precision=precision)
    lanes = Lanes(run.stores["train"], bos_id=0, vocab_size=1 << 16, lanes=4, bptt=16, seed=0)
    evaluator = Evaluator(run.tokenizer, [], config, processes=Processes())
    return Loop(run.model, config, lanes, Budget(steps=99), 0, evaluator), ([batch] for batch in lanes)


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
@pytest.mark.parametrize("place", EACH_PLACE)
@pytest.mark.parametrize("preset", ["rnn-char", "gru-char", "lstm-char"])
def test_losses_are_those_of_the_cpu_in_32_bits(preset: str, place: str, precision: str) -> None:
    if place in ("cpu", "mps") and precision == "fp16":
        with pytest.raises(TrainingError, match=f"fp16 is not available on {place}"):
            losses_of(start(place, precision, preset=preset))
        return
    expected = losses_of(start("cpu", preset=preset))
    run = start(place, precision, preset=preset)
    assert losses_of(run) == pytest.approx(expected, abs=TOLERANCES[precision])
    assert run.curves[preset] and used_memory(run.model.parameters()) == {"cpu"}  # where it ends


@pytest.mark.parametrize("place", EACH_PLACE)
def test_the_layers_are_those_of_the_vendor(place: str) -> None:
    loop, batches = made_loop(place, "no")
    assert used_memory(loop.parameters) == {place}
    loop.train_step(next(batches))
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        loop.train_step(next(batches))
    names = {event.key for event in profiled.key_averages()}
    wanted = {"cpu": {"aten::lstm"}, "cuda": {"aten::_cudnn_rnn", "aten::_cudnn_rnn_backward"}}
    assert wanted.get(place, {"aten::lstm"}) <= names
    assert ("aten::_cudnn_rnn" in names) == (place == "cuda")


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("place", EACH_PLACE)
def test_no_step_waits_for_the_device(place: str, precision: str) -> None:
    """In fp16 the scaler has to: whether a step is taken depends on its gradients."""
    loop, batches = made_loop(place, precision)
    for batch in itertools.islice(batches, 3):  # memory, and the plans of cuDNN
        loop.train_step(batch)
    with no_waiting(place):
        for batch in itertools.islice(batches, 5):
            report = loop.make_report(batch[-1], loop.train_step(batch), ())
            assert not loop.has_diverged(wait=False)
    assert report.step == 8 and report.nats_per_token > 0


@pytest.mark.skipif(HERE != "cuda", reason="needs a CUDA device")
def test_a_wait_would_be_seen() -> None:
    with pytest.raises(RuntimeError, match="synchroniz"), no_waiting("cuda"):
        float(torch.ones(1, device="cuda") * 2)


@pytest.mark.parametrize("second", EACH_PLACE)
@pytest.mark.parametrize("first", EACH_PLACE)
def test_a_run_goes_on_on_another_device(first: str, second: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "_SHARE", 1e9)
    saved: dict[str, Any] = {"out": tmp_path / "model", "training": {"checkpoint_seconds": 1e-9}}
    expected = losses_of(start(first))
    run = start(first, **saved)
    begun = [report.nats_per_token for report in itertools.takewhile(lambda report: report.step < 4, run)]
    run._run_folder.checkpoints.close()
    rest = losses_of(start(second, resume=True, **saved))
    exact = {"abs": 1e-6} if first == second else {"abs": TOLERANCES["no"]}
    assert [*begun, *rest] == pytest.approx(expected, **exact)


def test_a_checkpoint_of_a_device_that_is_not_here_goes_on(tmp_path: Path) -> None:
    """Two states of generators, the CPU's and a GPU's: only the first is used on a CPU."""
    loop, batches = made_loop("cpu", "no")
    loop.train_step(next(batches))
    state = loop.state()
    (own,) = state["own"]
    state["own"] = [own | {"random": own["random"] | {"cuda": torch.zeros(16, dtype=torch.uint8)}}]
    resumed, _ = made_loop("cpu", "no")
    resumed._restore(state)
    batch = next(batches)
    assert float(resumed.train_step(batch)) == float(loop.train_step(batch))


@pytest.mark.parametrize("place", EACH_PLACE)
def test_two_processes_train_as_one(place: str, tmp_path: Path) -> None:
    """By NCCL on two CUDA devices; NCCL refuses two processes on one."""
    if place != "cpu" and torch.accelerator.device_count() < 2:
        pytest.skip("needs two devices: NCCL refuses two processes on one")
    (tmp_path / "reviews.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    training = TRAINING | {"precision": "no", "device": place, "learning_rate": 0.002}
    training["optimizer"] = "adamw"  # Muon of torch rounds gradients to bfloat16, which magnifies differences
    settings = [("model", MODEL), ("training", training | {"batch_size": 2})]
    pairs = [f"{group}.{name}={value}" for group, values in settings for name, value in values.items()]
    words = [word for pair in pairs for word in ("--set", pair)]
    command = ["-m", "reviewgen", "train", "lstm-char", "--data", "reviews.txt", "--steps", "6", "--out", "two", *words]
    own = {"OMP_NUM_THREADS": "1", "REVIEWGEN_CACHE": str(tmp_path / "cache")} | (
        {"CUDA_VISIBLE_DEVICES": ""} if place == "cpu" else {}
    )
    done = subprocess.run(
        [*launcher(2), *command], cwd=tmp_path, env=os.environ | own, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    both = json.loads((tmp_path / "two/training.json").read_text())["evaluations"]
    model = reviewgen.train(
        "lstm-char",
        str(tmp_path / "reviews.txt"),
        steps=6,
        model=MODEL,
        training=training,
        progress=False,
    )
    for name in ("train_nats_per_token", "bits_per_character"):
        expected = [at[name] for at in model.training["evaluations"]]
        assert [at[name] for at in both] == pytest.approx(expected, abs=1e-5 if place == "cpu" else TOLERANCES["no"])
