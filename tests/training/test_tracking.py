"""Logging: TensorBoard's own reader finds what was recorded; a tracker that fails or prints costs
nothing.
"""

import contextvars
import errno
import importlib.machinery
import itertools
import json
import os
import sys
import threading
import types
from pathlib import Path
from typing import Any

import pytest
from accelerate.tracking import TensorBoardTracker
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter

from tests.support.fakes import TEXTS, raising
from tests.support.trainings import trained

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    return [
        (event.step, event.value) for event in EventAccumulator(str(folder)).Reload().Scalars(name)
    ]


def test_tensorboard_shows_what_training_json_records(tmp_path):
    _, _, model = trained(
        out=tmp_path / "m",
        log="tensorboard",
        seed=7,
        training={"copy_tokens": 200, "evaluations": 4},
    )
    facts = model.training
    folder = tmp_path / "runs" / "m"
    for name in ("bits_per_character", "token_copy_rate"):
        wanted = [
            (each["step"], each[name]) for each in facts["evaluations"] if each[name] is not None
        ]
        assert wanted and scalars(folder, name) == [
            (step, pytest.approx(value, rel=1e-6)) for step, value in wanted
        ]
    for name in ("train_bits_per_character", "learning_rate"):
        wanted = list(zip(facts["curve"]["step"], facts["curve"][name], strict=True))
        assert scalars(folder, name) == [
            (step, pytest.approx(value, rel=1e-6)) for step, value in wanted
        ]
    # 0: all
    sample, *_ = (
        EventAccumulator(str(folder), {"tensors": 0}).Reload().Tensors("sample/text_summary")
    )
    assert sample.step == facts["evaluations"][0]["step"]


# What fails in the middle.


@pytest.mark.parametrize(
    "method, error, said",
    [
        ("start", FULL, "No space left on device"),
        ("log", RuntimeError("The server\nis gone"), "The server"),
        ("finish", FULL, "No space left on device"),
    ],
)
def test_a_tracker_that_fails_does_not_cost_the_training(
    method, error, said, tmp_path, monkeypatch
):
    monkeypatch.setattr(TensorBoardTracker, method, raising(error))
    _, reports, model = trained(steps=4, out=tmp_path / "m", log="tensorboard")
    sentence = f"Logging to tensorboard failed, and the training continues without it: {said}"
    # once
    notes = list(itertools.chain.from_iterable(report.notes for report in reports))
    assert notes == ([] if method == "finish" else [sentence])
    assert model.training["notes"] == [sentence]
    assert (
        model.training["stopped"] == "all steps taken"
        and (tmp_path / "m" / "model.safetensors").exists()
    )


def test_a_disk_that_fills_up_under_tensorboard_s_own_thread(tmp_path, monkeypatch, capfd):
    plain = RecordWriter.write
    calls = iter(range(1, 10_000))

    def write(self: Any, data: bytes) -> None:
        if next(calls) >= 9:
            raise FULL
        plain(self, data)

    monkeypatch.setattr(RecordWriter, "write", write)
    before = set(threading.enumerate())
    _, _, model = trained(out=tmp_path / "m", log="tensorboard")
    assert model.training["notes"] == [
        "Logging to tensorboard failed, and the training continues without it: No space left on"
        " device"
    ]
    assert (
        model.training["stopped"] == "all steps taken" and "Traceback" not in capfd.readouterr().err
    )
    assert not [
        thread
        for thread in set(threading.enumerate()) - before
        if type(thread).__module__.startswith("tensorboard")
    ]


# trackio and wandb, by a stand-in of the calls that accelerate makes: it keeps its current run in a
# context variable, and prints.


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_a_service_gets_the_curves_under_the_name_of_the_folder(
    name, tmp_path, monkeypatch, run_command
):
    module: Any = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None, origin="a test")
    module.current = contextvars.ContextVar("run", default=None)
    module.config = {}
    logged = []
    started = []

    def init(**options: Any) -> Any:
        sys.stdout.write("* Project initialized\n")
        run = types.SimpleNamespace(log=log, finish=lambda: sys.stdout.write("* Run finished\n"))
        module.current.set(run)
        started.append(options)
        return run

    def log(values: Any, step: int) -> None:
        assert module.current.get() is not None
        logged.append((step, values))

    module.init = init
    monkeypatch.setitem(sys.modules, name, module)
    (tmp_path / "reviews.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    words = (
        "train",
        "gru-char",
        "--data",
        tmp_path / "reviews.txt",
        "--steps",
        4,
        "--set",
        "model.hidden_size=8",
        "--set",
        "training.evaluations=2",
        "--out",
        tmp_path / "m",
        "--log",
        name,
        "--json",
    )
    status, out, err = run_command(*words)
    assert status == 0, err
    facts = json.loads(out)  # the words of the tracker do not spoil it
    # what it asks at its start is seen
    assert "* Project initialized" in err and "* Run finished" not in err
    (options,) = started
    assert (options["project"], options["name"], module.config["model.hidden_size"]) == (
        "reviewgen",
        "m",
        8,
    )
    bits = [
        (step, values["bits_per_character"])
        for step, values in logged
        if "bits_per_character" in values
    ]
    assert bits == [(each["step"], each["bits_per_character"]) for each in facts["evaluations"]]
    assert [step for step, _ in logged] == facts["curve"]["step"]
    assert name == "trackio" or isinstance(logged[0][1]["sample"], str)
    assert name == "wandb" or module.current.get() is None  # its current run is not the caller's
