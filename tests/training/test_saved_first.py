"""A model is saved as soon as its training is over: before it is evaluated, and before its copy
rate and metrics are measured.
"""

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import reviewgen
from reviewgen import TrainingRun
from reviewgen.errors import DataError, OutputExists
from reviewgen.runs.tracking import RunLog
from tests.support.fakes import TEXTS, raising
from tests.support.trainings import ready

OPTIONS: dict[str, Any] = {
    "steps": 5,
    "model": {"hidden_size": 8, "embedding_size": 4},
    "training": {"batch_size": 4, "threads": 1, "precision": "no"},
}
PRESETS = {"gru-char": OPTIONS, "blend-char": OPTIONS, "ngram-char": {"model": {"order": 4}}}


def when_measured(monkeypatch: Any, preset: str, out: Path, action: Callable[[], object]) -> None:
    """Have an action done when a model of a preset, or the network of a blend, is used while the
    output folder exists.
    """
    network = type(ready(preset.replace("blend", "lstm"), TEXTS).model)
    plain = network.initial_state

    def initial_state(self: Any, batch_size: int) -> Any:
        if out.exists():
            action()
        return plain(self, batch_size)

    monkeypatch.setattr(network, "initial_state", initial_state)


def finished(preset: str, out: Path) -> TrainingRun:
    """Return a run whose training is over."""
    run = ready(preset, TEXTS, out=out, **PRESETS[preset])
    assert list(run)
    return run


@pytest.mark.parametrize("preset", PRESETS)
def test_the_model_is_whole_before_it_is_measured_and_has_results_after(
    preset, tmp_path, monkeypatch
):
    first: list[tuple[Any, str, bool]] = []

    def look() -> None:
        if not first:
            model = reviewgen.load(tmp_path / "m")
            first.append(
                (model, str(model.generate_model_card()), (tmp_path / "m.partial").exists())
            )

    with monkeypatch.context() as patch:
        when_measured(patch, preset, tmp_path / "m", look)
        trained = reviewgen.train(preset, TEXTS, out=tmp_path / "m", **PRESETS[preset])
    ((early, card, has_run_folder),) = first
    assert early.training["held_out"] is None and early.training["novelty"]["copy_rate"] is None
    assert "Not evaluated on held-out text." in card and not has_run_folder
    model = reviewgen.load(tmp_path / "m")
    novelty = model.training["novelty"]
    held_out = model.training["held_out"]
    assert model.training == trained.training and held_out["bits_per_character"] > 0
    assert early.generate_one(seed=1) == model.generate_one(seed=1) == trained.generate_one(seed=1)
    assert (
        novelty["copy_rate"] is not None
        and novelty["copy_rate_texts"] % 100 == 0
        and novelty["copy_rate_interval"]
    )
    assert f"with {novelty['copy_rate_characters']:,} characters" in (
        tmp_path / "m" / "README.md"
    ).read_text(encoding="utf-8")
    assert {path.name for path in tmp_path.iterdir()} == {"m"}


def test_after_an_error_in_the_measuring_the_model_is_saved_and_can_be_measured_again(
    tmp_path, monkeypatch, caplog
):
    run = finished("gru-char", tmp_path / "m")
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "reviewgen"):
        when_measured(patch, "gru-char", tmp_path / "m", raising(MemoryError("no room")))
        with pytest.raises(MemoryError, match="no room"):
            run.finish()
    assert f"saved in {tmp_path / 'm'}" in caplog.text
    assert reviewgen.load(tmp_path / "m").training["held_out"] is None
    with pytest.raises(OutputExists):
        reviewgen.train("gru-char", TEXTS, out=tmp_path / "m", **OPTIONS)
    run.finish()
    assert reviewgen.load(tmp_path / "m").training["held_out"] is not None


def test_evaluate_says_that_the_final_measurement_is_missing(tmp_path, monkeypatch, run_command):
    run = finished("ngram-char", tmp_path / "m")
    with monkeypatch.context() as patch:
        # as of a process that was killed
        when_measured(patch, "ngram-char", tmp_path / "m", raising(MemoryError("no room")))
        with pytest.raises(MemoryError):
            run.finish()
    (tmp_path / "reviews.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    words = "evaluate", tmp_path / "m", "--data", tmp_path / "reviews.txt", "--split", "test"
    said = run_command(*words)[2]
    assert "ended before its final measurement" in said and "--split test" in said
    run.finish()
    status, out, said = run_command(*words)
    assert (status, "final measurement" in said) == (0, False) and "bits per character" in out


@pytest.mark.parametrize("preset", ["gru-char", "ngram-char"])
def test_an_interrupt_of_the_measuring_says_that_the_model_is_saved(preset, tmp_path, monkeypatch):
    run = finished(preset, tmp_path / "m")
    with monkeypatch.context() as patch:
        when_measured(patch, preset, tmp_path / "m", raising(KeyboardInterrupt()))
        run.finish()
    training = reviewgen.load(tmp_path / "m").training
    assert (
        run.record.is_interrupted
        and f"saved in {tmp_path / 'm'}" in run.record.notes[-1] == training["notes"][-1]
    )
    assert training["stopped"].startswith("all ") and training["held_out"] is None
    # the launcher starts it again: nothing is left to do
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "1")
    again = reviewgen.train(preset, TEXTS, out=tmp_path / "m", **PRESETS[preset])
    assert again.training == training


# Replacing a saved model.

COUNT: dict[str, Any] = {"training": {"copy_tokens": 0}}


def test_a_training_replaces_a_saved_model_on_request(tmp_path):
    for order in (2, 3):
        reviewgen.train(
            "ngram-char", TEXTS, out=tmp_path / "m", model={"order": order}, overwrite=True, **COUNT
        )
        assert reviewgen.load(tmp_path / "m").model.config.order == order
    assert {path.name for path in tmp_path.iterdir()} == {"m"}


def test_a_training_that_fails_keeps_the_saved_model(tmp_path):
    reviewgen.train("ngram-char", TEXTS, out=tmp_path / "m", **COUNT)
    digest = reviewgen.load(tmp_path / "m").digest
    with pytest.raises(DataError):
        reviewgen.train("ngram-char", ["alone"], out=tmp_path / "m", overwrite=True, **COUNT)
    assert reviewgen.load(tmp_path / "m").digest == digest


def test_an_interrupted_training_replaces_a_saved_model_on_request(
    tmp_path, monkeypatch, run_command
):
    reviewgen.train("ngram-char", TEXTS, out=tmp_path / "m", **COUNT)
    (tmp_path / "reviews.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    record = RunLog.record
    before = []

    def interrupt(log: RunLog, report: Any, kept: Any) -> Any:
        if report.step == 3:
            before.append(reviewgen.load(tmp_path / "m").preset)
            raise KeyboardInterrupt
        return record(log, report, kept)

    monkeypatch.setattr(RunLog, "record", interrupt)
    settings = ["--set", "model.hidden_size=8", "--set", "training.batch_size=4"]
    words = (
        "train",
        "gru-char",
        "--data",
        tmp_path / "reviews.txt",
        "--out",
        tmp_path / "m",
        "--steps",
        "99",
        *settings,
    )
    status, _, said = run_command(*words, "--overwrite")
    assert (
        status == 130
        and "Interrupted; saving the best weights so far." in said
        and "already exists" not in said
    )
    model = reviewgen.load(tmp_path / "m")
    assert (
        before == ["ngram-char"]
        and model.preset == "gru-char"
        and model.training["stopped"] == "interrupted"
    )
    assert {path.name for path in tmp_path.iterdir()} == {"m", "reviews.txt"}


def test_a_restarted_job_that_has_replaced_the_model_does_not_train_again(
    tmp_path, monkeypatch, run_command
):
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "2")
    (tmp_path / "reviews.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    words = (
        "train",
        "ngram-char",
        "--data",
        tmp_path / "reviews.txt",
        "--out",
        tmp_path / "m",
        "--overwrite",
    )

    def start(launch: str, attempt: int) -> tuple[str, str]:
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(attempt))
        monkeypatch.setenv(
            "TORCHELASTIC_ERROR_FILE",
            str(tmp_path / "logs" / launch / f"attempt_{attempt}" / "0" / "error.json"),
        )
        status, _, said = run_command(*words, "--set", "training.copy_tokens=0")
        assert status == 0
        return (
            # the number of a folder's inode may be used again
            str((tmp_path / "m" / "training.json").stat().st_mtime_ns),
            said,
        )

    first, _ = start("none_1", 0)
    again, said = start("none_1", 1)
    assert again == first and "m was saved before" in said
    second, said = start("none_2", 0)
    assert second != first and "saved before" not in said
    third, said = start("none_3", 1)  # whose first attempt has failed before it saved a model
    assert third != second and "saved before" not in said


def test_other_files_are_not_replaced(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "thesis.txt").write_text("thesis")
    with pytest.raises(OutputExists, match="is not a saved model"):
        TrainingRun("ngram-char", TEXTS, out=tmp_path / "m", overwrite=True)


def test_an_existing_folder_is_refused_before_torch_is_imported(tmp_path):
    code = """
import sys
import tempfile
from reviewgen.cli import main
try:
    main()
finally:
    print(sorted({"torch", "numba", "datasets"} & set(sys.modules)))
"""
    command = [
        sys.executable,
        "-c",
        code,
        "train",
        "ngram-char",
        "--data",
        "missing.csv",
        "--out",
        str(tmp_path),
    ]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 1 and said.stdout.strip() == "[]"
    assert "already exists" in said.stderr and "--overwrite" in said.stderr
