"""A training on the accelerator: losses as on the CPU, the layers of cuDNN, no step that waits,
checkpoints for elsewhere.
"""

import gc
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

import reviewgen
from reviewgen import TrainingRun
from reviewgen.config.training import TrainingConfig
from reviewgen.errors import TrainingError
from reviewgen.training.checkpoints import Checkpoints
from reviewgen.training.loop import fit
from reviewgen.training.report import Budget, Report
from tests.support.fakes import TEXTS
from tests.support.launches import launch
from tests.support.places import EACH_PLACE
from tests.support.trainings import ready

pytestmark = pytest.mark.device

MODEL = {"hidden_size": 32, "embedding_size": 16, "layers": 2, "layer": "fused"}
TRAINING: dict[str, Any] = {
    "batch_size": 4,
    "bptt": 16,
    "threads": 1,
    "copy_tokens": 0,
    "evaluations": 2,
    "evaluation_tokens": 500,
}
# in nats: a CUDA device multiplies in TF32 where precision is no
TOLERANCES = {"no": 2e-3, "bf16": 3e-2, "fp16": 1e-2}


def start(place: str, precision: str = "no", **options: Any) -> TrainingRun:
    """Return a run of 6 steps on a device, ready to train."""
    training = TRAINING | {"device": place, "precision": precision} | options.pop("training", {})
    return ready(
        options.pop("preset", "lstm-char"),
        TEXTS,
        model=MODEL,
        training=training,
        **{"steps": 6} | options,
    )


def losses_of(run: TrainingRun) -> list[float]:
    """Train, and return the loss of each step."""
    return [report.nats_per_token for report in run]


def steps_of(place: str, precision: str) -> tuple[TrainingRun, Iterator[Report]]:
    """Return a run, and the reports of a training of its model that is evaluated at its end
    only.
    """
    run = start(place, precision)
    config = TrainingConfig(**TRAINING | {"evaluations": 1}, device=place, precision=precision)
    return run, fit(
        run.model,
        run.corpus.tokenizer,
        run.corpus.stores["train"],
        run.corpus.stores["validation"],
        config,
        Budget(steps=99),
        0,
    )


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
@pytest.mark.parametrize("place", EACH_PLACE)
@pytest.mark.parametrize("preset", ["rnn-char", "gru-char", "lstm-char"])
def test_losses_are_those_of_the_cpu_in_32_bits(preset, place, precision):
    if place in ("cpu", "mps") and precision == "fp16":
        with pytest.raises(TrainingError, match=f"fp16 is not available on {place}"):
            losses_of(start(place, precision, preset=preset))
        return
    expected = losses_of(start("cpu", preset=preset))
    run = start(place, precision, preset=preset)
    assert losses_of(run) == pytest.approx(expected, abs=TOLERANCES[precision])
    # where it ends
    assert run.record.evaluations and {each.device.type for each in run.model.parameters()} == {
        "cpu"
    }


@contextmanager
def no_waiting(place: str) -> Iterator[None]:
    """Let whatever waits for a CUDA device raise."""
    if place != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("place", EACH_PLACE)
def test_a_sampled_softmax_is_a_technique_of_trainings_on_a_cpu(place):
    words = [
        "".join(letters)
        for letters in itertools.product("bdfgklmnprst", "aeiou", "bdfgklmnprst", "aeiou")
    ]
    texts = [" ".join(words[60 * n : 60 * n + 60]) for n in range(60)]
    texts += [" ".join(words[n::60]) for n in range(60)]
    training = TRAINING | {"device": place, "precision": "no", "calibration": False}
    fixed = {"model": MODEL, "tokenizer": {"min_frequency": 1}, "training": training}
    rows = {row.name: row for row in reviewgen.ablate("gru-word", texts, steps=1, settings=fixed)}
    assert (rows["sampled softmax"].bits is None) == (place != "cpu") and rows[
        "Muon"
    ].bits is not None


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("place", EACH_PLACE)
def test_no_step_waits_for_the_device(place, precision):
    """In fp16 the scaler has to: whether a step is taken depends on its gradients."""
    _, reports = steps_of(place, precision)
    for _ in range(3):  # memory, and the plans of cuDNN
        next(reports)
    with no_waiting(place):
        *_, report = itertools.islice(reports, 5)
    assert report.step == 8 and (report.nats_per_token or 0) > 0


@pytest.mark.parametrize("second", EACH_PLACE)
@pytest.mark.parametrize("first", EACH_PLACE)
def test_a_run_goes_on_on_another_device(first, second, tmp_path, monkeypatch):
    monkeypatch.setattr(Checkpoints, "is_due", lambda self: True)
    expected = losses_of(start(first))
    run = start(first, out=tmp_path / "model")
    losses = [
        report.nats_per_token for report in itertools.takewhile(lambda report: report.step < 4, run)
    ]
    del run
    gc.collect()  # the lock is given back
    losses += losses_of(start(second, resume=True, out=tmp_path / "model"))
    assert losses == pytest.approx(expected, abs=1e-6 if first == second else TOLERANCES["no"])


@pytest.mark.parametrize("place", EACH_PLACE)
def test_two_processes_train_as_one(place, tmp_path):
    """By NCCL on two CUDA devices; NCCL refuses two processes on one."""
    if place != "cpu" and torch.accelerator.device_count() < 2:
        pytest.skip("needs two devices: NCCL refuses two processes on one")
    (tmp_path / "reviews.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    training = TRAINING | {"precision": "no", "device": place, "learning_rate": 0.002}
    # Muon of torch rounds gradients to bfloat16, which magnifies differences
    training["optimizer"] = "adamw"
    settings = [("model", MODEL), ("training", training | {"batch_size": 2})]
    words = []
    for group, values in settings:
        for name, value in values.items():
            words += ["--set", f"{group}.{name}={value}"]
    command = [
        "-m",
        "reviewgen",
        "train",
        "lstm-char",
        "--data",
        "reviews.txt",
        "--steps",
        "6",
        "--out",
        "two",
        *words,
    ]
    done = launch(
        2,
        tmp_path,
        *command,
        env={} if place == "cpu" else {"CUDA_VISIBLE_DEVICES": "0,1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    both = json.loads((tmp_path / "two/training.json").read_text())["evaluations"]
    run = ready("lstm-char", str(tmp_path / "reviews.txt"), steps=6, model=MODEL, training=training)
    list(run)
    evaluations = run.finish().training["evaluations"]
    for name in ("train_nats_per_token", "bits_per_character"):
        expected = [at[name] for at in evaluations]
        assert [at[name] for at in both] == pytest.approx(
            expected, abs=1e-5 if place == "cpu" else TOLERANCES["no"]
        )
