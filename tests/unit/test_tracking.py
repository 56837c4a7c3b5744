"""Logging: TensorBoard's own reader finds what was recorded; a tracker that fails, prints or is missing costs nothing."""

import contextvars
import errno
import importlib.machinery
import json
import math
import os
import sys
import threading
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, TensorBoardTracker
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.summary.writer.record_writer import RecordWriter

import reviewgen
from reviewgen import TrainingRun
from reviewgen.errors import ConfigError, StorageError
from reviewgen.runs.tracking import flatten
from tests.support.fakes import GRU, NGRAM, TEXTS, run_command


def watched(preset: str, **options: Any) -> tuple[list[str], Any]:
    """Return the notes of a run's reports, and its model."""
    run = TrainingRun(preset, TEXTS, **options)
    run.read()
    run.tokenize()
    notes = [note for report in run for note in report.notes]
    return notes, run.finish()


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder)).Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def hyperparameters(folder: Path) -> dict[str, Any]:
    """Return the hyperparameters that TensorBoard shows of a run."""
    (file,) = folder.glob("*/events*")
    summary = EventAccumulator(str(file.parent)).Reload().SummaryMetadata("_hparams_/session_start_info")
    found = HParamsPluginData.FromString(summary.plugin_data.content).session_start_info.hparams
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in found.items()}


def test_tensorboard_shows_what_training_json_records(tmp_path: Path) -> None:
    _, model = watched("gru-char", steps=24, out=tmp_path / "m", log="tensorboard", seed=7, **GRU)
    facts, folder = model.training, tmp_path / "runs" / "m"
    for name in ("bits_per_character", "token_copy_rate"):
        wanted = [(each["step"], each[name]) for each in facts["evaluations"] if each[name] is not None]
        assert scalars(folder, name) == [(step, pytest.approx(value, rel=1e-6)) for step, value in wanted]
    for name in ("train_bits_per_character", "learning_rate"):
        wanted = list(zip(facts["curve"]["step"], facts["curve"][name], strict=True))
        assert scalars(folder, name) == [(step, pytest.approx(value, rel=1e-6)) for step, value in wanted]
    settings = hyperparameters(folder)
    assert settings["model.hidden_size"] == 8 and settings["training.batch_size"] == 4
    assert settings["preset"] == "gru-char" and settings["seed"] == 7 and settings["data.text_column"] == "null"
    (sample, *_) = EventAccumulator(str(folder), {"tensors": 0}).Reload().Tensors("sample/text_summary")  # 0: all
    assert sample.step == facts["evaluations"][0]["step"]
    assert reviewgen.load(tmp_path / "m").generate_one(seed=1) is not None  # the log is not in the model's folder


def test_two_runs_of_one_name_have_two_logs(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(3):
        watched("ngram-char", log="tensorboard", **NGRAM)
    assert sorted(folder.name for folder in Path("runs").iterdir()) == ["ngram-char", "ngram-char-2", "ngram-char-3"]
    (bits,) = scalars(Path("runs/ngram-char-3"), "bits_per_character")
    assert bits == (scalars(Path("runs/ngram-char"), "bits_per_character")[0])


def test_nothing_is_logged_unless_asked_for(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    run = TrainingRun("ngram-char", TEXTS)
    assert run.log.describe() is None
    watched("ngram-char", **NGRAM)
    assert not Path("runs").exists()


def test_settings_are_laid_side_by_side() -> None:
    found = flatten({"model": {"order": 3, "pruned": False, "of": {"a": 1.5}}, "conditions": ["stars"], "column": None, "x": "y"})
    assert found == {
        "model.order": 3,
        "model.pruned": False,
        "model.of.a": 1.5,
        "conditions": '["stars"]',
        "column": "null",
        "x": "y",
    }


# What cannot be logged to.


def test_an_unknown_tracker_is_refused_before_any_work() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'tensorboard'"):
        TrainingRun("gru-char", "no such file.csv", log="tensorbord")
    with pytest.raises(ConfigError, match=r"'' is not a tracker to log to\. Known: aim, .*tensorboard, trackio, wandb\."):
        reviewgen.train("gru-char", "no such file.csv", log="")


NAMES = ["aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "tensorboard", "trackio", "wandb"]


@pytest.mark.parametrize("name", NAMES)
def test_a_tracker_that_is_not_installed_says_what_to_install(name: str, monkeypatch: Any, capsys: Any, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    words = ("train", "gru-char", "--data", "no such file.csv", "--out", tmp_path / "m", "--log", name)
    status, out, err = run_command(monkeypatch, capsys, *words)
    assert (status, out) == (2, "") and f"pip install {name}" in err and err.count("\n") == 1


def test_a_place_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(StorageError, match="runs"):
        TrainingRun("gru-char", "no such file.csv", out=tmp_path / "m", log="tensorboard")


# What fails in the middle.


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
FAILURES = [
    ("start", FULL, "No space left on device"),
    ("store_init_configuration", ValueError(), "ValueError"),
    ("log", RuntimeError("The server\nis gone"), "The server"),
    ("finish", FULL, "No space left on device"),
]


@pytest.mark.parametrize(("method", "error", "said"), FAILURES, ids=[method for method, *_ in FAILURES])
def test_a_tracker_that_fails_does_not_cost_the_training(
    method: str, error: Exception, said: str, tmp_path: Path, monkeypatch: Any
) -> None:
    def fail(self: Any, *arguments: Any, **options: Any) -> None:
        raise error

    settings = GRU["training"] | {"threads": 1, "precision": "no", "copy_tokens": 0}
    options: dict[str, Any] = {"steps": 6, "model": GRU["model"], "training": settings}
    monkeypatch.setattr(TensorBoardTracker, method, fail)
    notes, model = watched("gru-char", out=tmp_path / "m", log="tensorboard", **options)
    _, plain = watched("gru-char", **options)
    sentence = f"Logging to tensorboard failed, and the training continues without it: {said}"
    assert notes == ([] if method == "finish" else [sentence])  # once
    assert model.training["notes"] == [sentence]
    assert model.training["stopped"] == "all steps taken" and (tmp_path / "m" / "model.safetensors").exists()
    weights, wanted = model.model.state_dict(), plain.model.state_dict()
    assert all(torch.equal(weights[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("at", [1, 9])
def test_a_disk_that_fills_up_under_tensorboard_s_own_thread(at: int, tmp_path: Path, monkeypatch: Any, capfd: Any) -> None:
    plain, calls = RecordWriter.write, iter(range(1, 10_000))

    def write(self: Any, data: bytes) -> None:
        if next(calls) >= at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        plain(self, data)

    reported: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", reported.append)
    monkeypatch.setattr(RecordWriter, "write", write)
    notes, model = watched("gru-char", steps=12, out=tmp_path / "m", log="tensorboard", **GRU)
    failed = [note for note in notes if not note.startswith("Fastest of")]
    assert failed == ["Logging to tensorboard failed, and the training continues without it: No space left on device"]
    assert model.training["stopped"] == "all steps taken"
    assert reported == [] and "Traceback" not in capfd.readouterr().err
    assert threading.excepthook == reported.append


def test_other_threads_are_not_silenced(tmp_path: Path, monkeypatch: Any) -> None:
    reported: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", reported.append)
    run = TrainingRun("gru-char", TEXTS, steps=2, out=tmp_path / "m", log="tensorboard", **GRU)
    run.read()
    run.tokenize()
    for _ in run:
        thread = threading.Thread(target=lambda: math.sqrt(-1))
        thread.start()
        thread.join()
    assert len(reported) == 2


def test_an_interrupt_closes_the_log(tmp_path: Path) -> None:
    run = TrainingRun("gru-char", TEXTS, steps=1000, out=tmp_path / "m", log="tensorboard", **GRU)
    run.read()
    run.tokenize()
    before = set(threading.enumerate())
    for report in run:
        if report.step == 7:
            break
    run.interrupt()
    run.finish()
    assert not [thread for thread in set(threading.enumerate()) - before if type(thread).__module__.startswith("tensorboard")]
    assert scalars(tmp_path / "runs" / "m", "learning_rate")[-1][0] >= 5


def test_a_folder_with_the_name_of_a_tracker_is_not_the_tracker(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "wandb").mkdir()  # as wandb leaves one
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(ConfigError, match="pip install wandb"):
        TrainingRun("gru-char", "no such file.csv", log="wandb")


# trackio and wandb, by a stand-in of the calls that accelerate makes: it keeps its current run in a context variable, and prints.


def stand_in(monkeypatch: Any, name: str = "trackio") -> types.ModuleType:
    module: Any = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None, origin="a test")
    module.current, module.config, module.logged, module.started = contextvars.ContextVar("run", default=None), {}, [], []

    def init(**options: Any) -> Any:
        print("* Project initialized")
        run = types.SimpleNamespace(log=log, finish=lambda: print("* Run finished"))
        module.current.set(run)
        module.started.append(options)
        return run

    def log(values: Any, step: int) -> None:
        assert module.current.get() is not None
        module.logged.append((step, values))

    module.init = init
    monkeypatch.setitem(sys.modules, name, module)
    return module


@pytest.fixture
def words(tmp_path: Path) -> tuple[Any, ...]:
    (tmp_path / "reviews.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    return "train", "gru-char", "--data", tmp_path / "reviews.txt", "--steps", 12, "--set", "model.hidden_size=8"


def test_wandb_gets_the_curves_under_the_name_of_the_folder(
    words: tuple[Any, ...], tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    wandb: Any = stand_in(monkeypatch, "wandb")
    status, out, err = run_command(monkeypatch, capsys, *words, "--out", tmp_path / "m", "--log", "wandb", "--json")
    assert status == 0, err
    assert "Logging to wandb as m." in err and "* Project initialized" in err  # what it asks at its start is seen
    assert "* Run finished" not in err
    assert wandb.started == [{"project": "reviewgen", "name": "m", "settings": {"console": "off"}}]
    assert wandb.config["model.hidden_size"] == 8
    assert [step for step, _ in wandb.logged] == json.loads(out)["curve"]["step"]
    assert isinstance(wandb.logged[0][1]["sample"], str)


def test_a_tracker_that_was_registered_with_accelerate(tmp_path: Path, monkeypatch: Any) -> None:
    logged: list[Any] = []

    class OwnTracker(GeneralTracker):
        name, requires_logging_directory, tracker = "own", True, None

        def __init__(self, run_name: str, folder: Path) -> None:
            super().__init__()
            logged.append((run_name, folder))

        def log(self, values: dict[str, Any], step: int | None = None, **options: Any) -> None:
            logged.append((step, values))

    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "own", OwnTracker)
    _, model = watched("gru-char", steps=4, out=tmp_path / "m", log="own", **GRU)
    assert logged[0] == ("reviewgen", tmp_path / "runs") and model.training["notes"] == []
    assert len(logged) > 1 and not any("sample" in values for _, values in logged[1:])  # not every tracker takes text


def test_trackio_is_told_the_same_and_its_words_do_not_spoil_json(
    words: tuple[Any, ...], tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    trackio: Any = stand_in(monkeypatch)
    status, out, err = run_command(monkeypatch, capsys, *words, "--out", tmp_path / "m", "--log", "trackio", "--json")
    assert status == 0, err
    facts = json.loads(out)
    assert "trackio show --project reviewgen" in err
    assert trackio.started == [{"project": "reviewgen", "name": "m", "embed": False}]
    assert trackio.config["model.hidden_size"] == 8
    bits = [(step, values["bits_per_character"]) for step, values in trackio.logged if "bits_per_character" in values]
    assert bits == [(each["step"], each["bits_per_character"]) for each in facts["evaluations"]]
    assert [step for step, _ in trackio.logged] == facts["curve"]["step"]
    assert trackio.current.get() is None  # its current run is not the caller's
    assert not (tmp_path / "runs").exists()
