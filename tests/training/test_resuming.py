"""Runs that were cut short and resume: the same losses bit for bit, the same model, and an error
for whatever does not fit.
"""

import errno
import gc
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

import reviewgen
from reviewgen import TrainingRun
from reviewgen.errors import CheckpointError, ConfigError, OutputExists
from reviewgen.training.checkpoints import Checkpoints
from reviewgen.training.device import native_precision
from reviewgen.training.report import Report
from tests.support.disks import interrupt, listing
from tests.support.fakes import TEXTS
from tests.support.trainings import MODEL, TRAINING, prepared

DROPOUT = {
    "hidden_size": 12,
    "embedding_size": 6,
    "layers": 2,
    "dropout": 0.3,
    "output_dropout": 0.2,
}


@pytest.fixture(autouse=True)
def after_each_step(monkeypatch) -> None:
    """Save a checkpoint after each step, however long the last one took."""
    monkeypatch.setattr(Checkpoints, "is_due", lambda self: True)


def start(
    out: Path | None, preset: str = "lstm-char", source: Any = TEXTS, **given: Any
) -> TrainingRun:
    model = DROPOUT if preset == "lstm-char" else {}
    training = {"evaluations": 8} | given.pop("training", {})
    return prepared(preset, source, out=out, **({"model": model, "training": training} | given))


def numbers(reports: Iterable[Report]) -> dict[int, Any]:
    """Return what a step has come to, exactly."""
    return {
        report.step: (
            (report.nats_per_token or 0.0).hex(),
            report.evaluation and report.evaluation.bits_per_character,
            report.tokens,
            report.bptt,
            report.learning_rate,
            report.epoch,
            report.is_best,
            report.sample,
            report.stopped,
        )
        for report in reports
    }


def cut_short(out: Path, step: int, **given: Any) -> list[Report]:
    """Train until a step, without its checkpoint, and leave everything as a dead process would."""
    reports = list(itertools.takewhile(lambda report: report.step < step, start(out, **given)))
    gc.collect()  # the lock is given back
    return reports


def files_of(folder: Path) -> dict[str, Any]:
    """Return what is in a saved model, but for how long it took."""
    files = {
        file.name: file.read_bytes()
        for file in folder.iterdir()
        if file.suffix not in (".json", ".md") or "config" in file.name
    }
    record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    evaluations = [
        {name: value for name, value in at.items() if name != "seconds"}
        for at in record["evaluations"]
    ]
    curve = {name: column for name, column in record["curve"].items() if name != "seconds"}
    return files | {
        "evaluations": evaluations,
        "curve": curve,
        "stopped": record["stopped"],
        "steps": record["steps"],
    }


RISING = {"learning_rate": 8.0, "warmup": 0.3, "patience": 2, "evaluations": 20, "batch_size": 16}
BF16 = {"precision": native_precision("cpu")}
CASES: dict[str, tuple[dict[str, Any], Callable[[dict[int, Any]], Iterable[int]]]] = {
    "lstm, dropout, averaged": (
        {"steps": 16, "training": {"averaging": 0.8}},
        lambda whole: (9, 16),
    ),
    "gru, words, tied": (
        {
            "preset": "gru-word",
            "steps": 9,
            "training": BF16 | {"gradient_accumulation_steps": 2, "sampled_softmax": 50},
        },
        lambda _: [5],
    ),
    "random lengths over epochs": (
        {"epochs": 1.5, "training": {"bptt_random": True, "bptt": 64}},
        lambda whole: (len(whole) // 2, len(whole) - 1),
    ),
    "annealed to the best weights": (
        {"preset": "rnn-char", "steps": 80, "training": RISING},
        lambda whole: (max(whole) // 2, max(whole) - 3),
    ),
}


LONG = pytest.param("random lengths over epochs", marks=pytest.mark.slow)


@pytest.mark.slow
@pytest.mark.parametrize("case", [*(case for case in CASES if case not in LONG.values), LONG])
def test_a_resumed_run_is_the_run_that_was_never_cut_short(case, tmp_path):
    given, choose = CASES[case]
    run = start(tmp_path / "whole", **given)
    whole = numbers(run)
    run.finish()
    assert case != "annealed to the best weights" or max(whole) < 80
    assert case != "random lengths over epochs" or whole[max(whole)][5] == 1
    for step in choose(whole):
        before = numbers(cut_short(tmp_path / "m", step, **given))
        run = start(tmp_path / "m", resume=True, **given)
        reports = list(run)
        assert reports[0].notes[0] == f"The run resumes from step {step - 1:,}."
        assert before | numbers(reports) == whole and reports[0].step == step
        run.finish()
        assert files_of(tmp_path / "m") == files_of(tmp_path / "whole")
        shutil.rmtree(tmp_path / "m")


def test_a_run_with_a_budget_resumes_with_the_time_that_was_left(tmp_path, monkeypatch):
    now = time.monotonic
    later = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now() + later)
    before = cut_short(tmp_path / "m", 9, budget="600s")
    # in which nothing trains
    later = 1000.0
    after = []
    run = start(tmp_path / "m", resume=True, budget="600s")
    for report in run:
        after.append(report)
        later += 600 * (report.step == 12)
    assert [report.step for report in after] == [9, 10, 11, 12, 13]
    assert before[-1].seconds < after[0].seconds < 300
    assert before[-1].progress < after[0].progress < after[3].progress < 0.5
    assert (after[4].progress, after[4].stopped) == (1, "budget spent")
    assert 600 < run.finish().training["seconds"] < 900


# The folder of a run.


def test_a_folder_of_another_kind_is_left_as_it_is(tmp_path):
    for number, name in enumerate(("job.json", "diary.txt", "step-00000100/weights.bin")):
        out = tmp_path / str(number)
        file = tmp_path / f"{number}.partial" / name
        if name == "job.json":  # damaged
            (file.parent / "step-00000100").mkdir(parents=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("thesis")
        for resume in (False, True):
            with pytest.raises((CheckpointError, OutputExists)):
                TrainingRun("gru-char", TEXTS, out=out, resume=resume).read()
            assert file.read_text() == "thesis"


def test_two_runs_do_not_share_a_folder(tmp_path):
    first = start(tmp_path / "m")
    next(iter(first))
    for resume in (False, True):
        with pytest.raises(CheckpointError, match=r"Another process is working in .*m\.partial"):
            start(tmp_path / "m", resume=resume)
    list(first)
    first.finish()
    with pytest.raises(OutputExists):
        start(tmp_path / "m", resume=True)


# What does not fit.


@pytest.fixture(scope="module")
def left(tmp_path_factory, shared_cache: None) -> Path:
    """What a run that was cut short has left; to be copied."""
    root: Path = tmp_path_factory.mktemp("left")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "is_due", lambda self: True)
        cut_short(root / "m", 9)
    return root / "m.partial"


def test_another_run_does_not_go_on(left, tmp_path):
    shutil.copytree(left, tmp_path / "m.partial")
    others: list[tuple[dict[str, Any], str]] = [
        ({"preset": "gru-char"}, "other .* and preset"),
        ({"model": DROPOUT | {"hidden_size": 16}}, "other model.hidden_size and"),
        ({"seed": 1}, "other seed and"),
        ({"budget": "5s"}, "other budget.seconds and budget.steps and"),
        ({"lowercase": True}, "other data.lowercase and"),
        ({"source": TEXTS[1:]}, "other corpus"),
        ({"validation": ["another one"]}, "other corpus"),
    ]
    before = {path: path.read_bytes() for path in tmp_path.rglob("step-*")}
    for given, words in others:
        with pytest.raises(CheckpointError, match=words):
            start(tmp_path / "m", resume=True, **given)
    assert {path: path.read_bytes() for path in tmp_path.rglob("step-*")} == before
    # that may change
    assert (
        next(iter(start(tmp_path / "m", resume=True, training={"checkpoints_kept": 5}))).step == 9
    )


OTHERS = {
    "prepare": ["reviews.txt", "--preset", "gru-char"],
    "generate": ["./model", "-n", 3],
    "score": ["./model", "--data", "reviews.txt"],
    "novelty": ["./model", "--data", "reviews.txt"],
}
"""Commands that work in the folder OUT.partial, too, and their words but for ``--out``."""


@pytest.fixture
def place(model_folder, tmp_path, monkeypatch) -> Path:
    """The working directory, which has a corpus and a saved model."""
    (tmp_path / "reviews.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    shutil.copytree(model_folder("ngram-char"), tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("verb", OTHERS)
@pytest.mark.parametrize("version", ["0.1.0", "now"])
def test_another_command_with_the_same_out_leaves_the_checkpoints(
    verb, version, left, place, run_command
):
    shutil.copytree(left, place / "m.partial")
    if version == "0.1.0":
        forget_kind(place / "m.partial")
    before = listing(place)
    status, out, said = run_command(verb, *OTHERS[verb], "--out", "m")
    assert (status, out) == (1, "") and listing(place) == before
    assert (
        "m.partial exists and is not the folder of an unfinished" in said
        and "Rerun the command that it belongs to" in said
    )
    assert version == "0.1.0" or "but of an unfinished training" in said


BACKUP = '{"name": "backup", "seed": 0}'
FOLDERS = [("generate", content, ["job.json"]) for content in ("{}", "[1]", "thesis")]
FOLDERS += [(verb, BACKUP, ["job.json"]) for verb in ("train", *OTHERS)]
FOLDERS += [(verb, BACKUP, ["job.json", ".notes.2024"]) for verb in ("train", *OTHERS)]


@pytest.mark.parametrize("verb, content, files", FOLDERS, ids=str)
def test_a_folder_of_the_user_with_a_job_json_is_left_as_it_is(
    verb, content, files, place, run_command
):
    (place / "m.partial").mkdir()
    for name in files:
        (place / "m.partial" / name).write_text(content)
    before = listing(place)
    words = OTHERS.get(verb, ["gru-char", "--data", "reviews.txt", "--steps", 5])
    status, _, said = run_command(verb, *words, "--out", "m")
    assert status in (1, 2) and listing(place) == before
    assert "m.partial" in said and "choose another name" in said and "Traceback" not in said


def test_training_where_a_model_is_leaves_a_folder_of_the_user(place, run_command):
    words = ["train", "ngram-char", "--data", "reviews.txt", "--out", "m"]
    assert run_command(*words)[0] == 0
    (place / "m.partial").mkdir()
    for name in ("job.json", "notes.txt"):
        (place / "m.partial" / name).write_text('{"name": "backup"}')
    before = listing(place)
    status, _, said = run_command(*words)
    assert status == 1 and "m already exists" in said and listing(place) == before


def test_training_leaves_what_an_interrupted_table_has_written(place, monkeypatch, run_command):
    interrupt(
        monkeypatch,
        lambda: reviewgen.generate_dataset(place / "model", 30, out=place / "m", shard_texts=10),
        8,
    )
    before = listing(place)
    assert any(name.startswith("m.partial/shards/") for name in before)
    status, _, said = run_command(
        "train",
        "gru-char",
        "--data",
        "reviews.txt",
        "--steps",
        5,
        "--out",
        "m",
    )
    assert (
        status == 1
        and "of an unfinished training, but of an unfinished table" in said
        and listing(place) == before
    )


def test_a_run_that_version_0_1_0_has_left_resumes(left, tmp_path):
    shutil.copytree(left, tmp_path / "m.partial")
    forget_kind(tmp_path / "m.partial")
    assert next(iter(start(tmp_path / "m", resume=True))).step == 9


def forget_kind(folder: Path) -> None:
    """Leave out what version 0.1.0 did not write."""
    facts = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    del facts["kind"]
    (folder / "job.json").write_text(json.dumps(facts), encoding="utf-8")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("harm", [cut, flip, empty])
def test_a_damaged_checkpoint_is_passed_over(harm, left, tmp_path):
    folder = shutil.copytree(left, tmp_path / "m.partial")
    (folder / ".step-00000009.pt.12").touch()  # what was being written when the power went
    harm(folder / "step-00000008.pt")
    report = next(iter(start(tmp_path / "m", resume=True)))
    assert report.step == 8 and not (folder / ".step-00000009.pt.12").exists()
    assert report.notes == (
        "The checkpoint of step 8 is damaged; that of step 7 is used.",
        "The run resumes from step 7.",
    )
    gc.collect()
    for step in folder.glob("step-*"):
        harm(step)
    with pytest.raises(CheckpointError, match=r"Every checkpoint in .* is damaged. Remove"):
        start(tmp_path / "m", resume=True)


def test_a_full_disk_does_not_end_the_run(tmp_path, monkeypatch):
    plain = Path.write_bytes
    is_full = False

    def write(file: Path, content: bytes) -> int:
        size = plain(file, content[:10] if is_full else content)
        if is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return size

    monkeypatch.setattr(Path, "write_bytes", write)
    run = start(tmp_path / "m")
    said = {}
    for report in run:
        is_full = 5 <= report.step < 9
        if 6 < report.step <= 9:
            assert (
                len(list((tmp_path / "m.partial").iterdir())) == 4
                and (tmp_path / "m.partial" / "step-00000004.pt").is_file()
            )
        said |= {report.step: report.notes} if report.notes else {}
    assert list(said) == [6]
    assert said[6][0].startswith("No checkpoint at step 5: No room to write")
    assert said[6][0].endswith("Training continues; the last checkpoint is of step 4.")
    assert said[6][0] in run.finish().training["notes"]


def test_a_command_resumes(tmp_path, run_command):
    file = tmp_path / "reviews.txt"
    file.write_text("\n".join(TEXTS), encoding="utf-8")
    words = ["train", "gru-char", "--data", file, "--out", tmp_path / "m", "--steps", 10]
    for group, values in (("model", MODEL), ("training", {**TRAINING, "metrics": "distinct-1"})):
        words += itertools.chain.from_iterable(
            ("--set", f"{group}.{name}={value}") for name, value in values.items()
        )
    cut_short(
        tmp_path / "m",
        9,
        preset="gru-char",
        source=file,
        training={"metrics": ["distinct-1"], "evaluations": 2},
    )
    status, out, said = run_command(*words)
    assert (status, out) == (1, "") and "--resume" in said and "step 8" in said
    status, out, said = run_command(*words, "--resume")
    assert status == 0, said
    assert (
        "The run resumes from step 8." in said
        and f"Saved in {tmp_path / 'm'}" in out
        and not (tmp_path / "m.partial").exists()
    )


def test_there_must_be_something_to_resume_and_what_a_run_left_is_not_started_over(left, tmp_path):
    with pytest.raises(CheckpointError, match=r"no run to resume.*m\.partial does not exist"):
        start(tmp_path / "m", resume=True)
    with pytest.raises(ConfigError, match="give out"):
        start(None, resume=True)
    with pytest.raises(CheckpointError, match=r"ngram-char is trained by counting.*starts over"):
        TrainingRun("ngram-char", TEXTS, out=tmp_path / "n", resume=True)
    assert not list(tmp_path.iterdir())
    shutil.copytree(left, tmp_path / "m.partial")
    with pytest.raises(
        CheckpointError, match=r"m\.partial holds a run that was .* step 8\b.*--resume.*remove"
    ):
        start(tmp_path / "m")
    assert (tmp_path / "m.partial" / "step-00000008.pt").is_file()
