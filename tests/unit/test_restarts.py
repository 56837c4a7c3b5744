"""``accelerate launch --max_restarts``: a process that is killed restarts the job, which goes on without a hand."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import reviewgen
from reviewgen import TrainingRun
from reviewgen.errors import AlreadyTrained, BundleError, CheckpointError, OutputExists, ProcessLost
from reviewgen.preparation.prepare import prepare_store
from reviewgen.training import checkpoints
from reviewgen.training.loop import Loop
from reviewgen.training.restarts import can_restart, resumes_by_itself
from tests.support.fakes import TEXTS
from tests.support.launches import launch, made_once
from tests.unit.test_prepare import files_of, texts

SMALL = {"reviewgen.data.spans._MIN_BYTES": 1, "reviewgen.preparation.reading._PART_BYTES": 1 << 12}
NGRAM = {"order": 4}

SCRIPT = """
import importlib, json, os, signal, sys
from pathlib import Path
from reviewgen.cli import main
from reviewgen.preparation import run
from reviewgen.training import checkpoints, count_group, loop
from reviewgen_ngram.model import Ngram

rank, restarts = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
for name, value in json.load(open("small.json")).items():
    module, _, attribute = name.rpartition(".")
    setattr(importlib.import_module(module), attribute, value)
checkpoints._SHARE = 1e9  # a checkpoint after every step

def killed_at(function, nth, is_wanted):
    calls = []
    def called(*args, **options):
        calls.append(None)
        if rank == 1 and is_wanted and len(calls) == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **options)
    return called

def command(*words):
    if words[0] == "prepare" and Path(words[-1]).exists():  # of an earlier try
        return
    sys.argv[1:] = words
    try:
        main()
    except SystemExit as end:
        if end.code:
            sys.exit(end.code)

def setting(group, **values):
    return [word for name, value in values.items() for word in ("--set", f"{group}.{name}={value}")]

own = [
    *setting("model", hidden_size=12, embedding_size=6, layer="fused"),
    *setting("training", batch_size=3, bptt=16, precision="no", threads=1, evaluations=4, copy_tokens=0, evaluation_tokens=500),
]
gru = ["train", "gru-char", "--data", "store", "--steps", "30", *own]
run._clean = killed_at(run._clean, 3, restarts == 0)
command("prepare", "reviews.txt", "--preset", "gru-char", "--out", "store")
plain = loop.Loop.train_step
loop.Loop.train_step = killed_at(plain, 5, restarts == 1)  # before the first checkpoint
command(*gru, "--out", "whole")
loop.Loop.train_step = killed_at(plain, 12, restarts == 2)
command(*gru, "--out", "gru", *setting("training", checkpoint_seconds=1e-9))
loop.Loop.train_step = plain
Ngram.observe = killed_at(Ngram.observe, 100, restarts == 3)
count_group._pieces = killed_at(count_group._pieces, 2, restarts == 4)  # it is sending, and the other one as well
ngram = ["train", "ngram-char", "--data", "reviews.txt", *setting("model", order=4), *setting("training", novelty="none")]
command(*ngram, "--out", "ngram")
"""


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run the script in two processes of which one is killed five times, once for all workers of pytest-xdist."""
    folder = made_once(tmp_path_factory, "restarted", _launch)
    status, said = json.loads((folder / "done.json").read_text())
    return SimpleNamespace(folder=folder, status=status, said=said)


def _launch(folder: Path) -> None:
    (folder / "reviews.txt").write_text("\n".join(texts(600)), encoding="utf-8")
    (folder / "script.py").write_text(SCRIPT, encoding="utf-8")
    (folder / "small.json").write_text(json.dumps(SMALL))
    own = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}  # else a restarted process finds addresses of the ended ones
    done = launch(2, folder, "--max_restarts", "5", "--rdzv_backend", "c10d", "script.py", env=own, timeout=400)
    (folder / "done.json").write_text(json.dumps([done.returncode, done.stderr]))


def test_the_job_ends_well(launched: Any) -> None:
    assert launched.status == 0, launched.said
    assert not list(launched.folder.glob("*.run")) and not list(launched.folder.glob("*.partial"))


def test_a_training_that_was_saved_before_a_restart_is_over(launched: Any) -> None:
    said = "whole was saved before: it was trained with the same settings, on the same texts."
    assert launched.said.count(said) == 3  # after the third restart and the later ones
    assert launched.said.count("gru was saved before") == 2


def test_a_training_without_a_checkpoint_starts_again(launched: Any) -> None:
    assert "No checkpoint was saved yet, so the same command starts from the beginning." in launched.said


def test_a_saved_model_of_another_run_is_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "1")

    def train(texts: Any = TEXTS, **model: Any) -> Any:
        settings = {"novelty": "none", "copy_tokens": 0}
        options: Any = {"out": tmp_path / "model", "model": model, "training": settings, "progress": False}
        return reviewgen.train("ngram-char", texts, **options)

    trained = train(order=3).score(TEXTS[0])
    assert train(order=3).score(TEXTS[0]) == trained
    with pytest.raises(OutputExists, match=r"model already exists\. Give another folder, or remove it first\."):
        train(order=2)
    with pytest.raises(OutputExists, match="was trained on other texts"):
        train([*TEXTS, "Another text."], order=3)
    monkeypatch.delenv("TORCHELASTIC_MAX_RESTARTS")
    with pytest.raises(OutputExists, match="already exists"):
        train(order=3)


def test_a_damaged_model_is_not_a_finished_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "1")
    options: Any = {"out": tmp_path / "model", "model": NGRAM, "training": {"novelty": "none", "copy_tokens": 0}}
    reviewgen.train("ngram-char", TEXTS, progress=False, **options)
    with pytest.raises(AlreadyTrained):
        TrainingRun("ngram-char", TEXTS, **options).read()
    (tmp_path / "model/model.safetensors").unlink()
    with pytest.raises(BundleError, match=r"is incomplete: model\.safetensors is missing"):
        TrainingRun("ngram-char", TEXTS, **options).read()


def test_a_training_goes_on_from_its_last_checkpoint(launched: Any) -> None:
    step = launched.said.index("The run resumes from step 11.")
    assert launched.said.count("The run resumes from") == 1 and "Traceback" not in launched.said[step:]
    one, two = (launched.folder / name for name in ("whole", "gru"))
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
    curves = [json.loads((each / "training.json").read_text())["evaluations"] for each in (one, two)]
    bits = [[at["bits_per_character"] for at in curve] for curve in curves]
    assert bits[0] == bits[1] and len(bits[0]) > 2


def test_a_store_and_a_count_are_those_of_one_process(launched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(launched.folder)
    for name, value in SMALL.items():
        monkeypatch.setattr(name, value)
    assert files_of(prepare_store("reviews.txt", "gru-char", "alone").folder) == files_of(Path("store"))
    reviewgen.train("ngram-char", "reviews.txt", model=NGRAM, training={"novelty": "none"}, out="counted", progress=False)
    name = "model.safetensors"
    assert Path("counted", name).read_bytes() == Path("ngram", name).read_bytes()


def test_what_the_launcher_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for count, most, said in (None, None, (False, False)), ("0", "2", (True, True)), ("2", "2", (False, True)):
        for name, value in (("RESTART_COUNT", count), ("MAX_RESTARTS", most)):
            if value is None:
                monkeypatch.delenv(f"TORCHELASTIC_{name}", raising=False)
            else:
                monkeypatch.setenv(f"TORCHELASTIC_{name}", value)
        assert (can_restart(), resumes_by_itself()) == said


def test_an_interrupt_leaves_the_checkpoints_to_the_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "_SHARE", 1e9)
    settings = {"batch_size": 4, "bptt": 8, "threads": 1, "precision": "no", "copy_tokens": 0, "checkpoint_seconds": 1e-9}
    plain = Loop.train_step

    def start() -> TrainingRun:
        model = {"hidden_size": 8, "embedding_size": 4, "layer": "fused"}
        run = TrainingRun("gru-char", TEXTS, steps=9, out=tmp_path / "model", model=model, training=settings)
        run.read()
        run.tokenize()
        return run

    def interrupted(self: Any, batches: Any) -> Any:
        if self.steps == 5:
            raise KeyboardInterrupt
        return plain(self, batches)

    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "1")
    monkeypatch.setattr(Loop, "train_step", interrupted)
    run = start()
    with pytest.raises(ProcessLost, match=r"asked to end\. Started again, the same command goes on from the last checkpoint\."):
        list(run)
    del run
    monkeypatch.setattr(Loop, "train_step", plain)
    with monkeypatch.context() as without:
        without.delenv("TORCHELASTIC_MAX_RESTARTS")
        with pytest.raises(CheckpointError, match="interrupted after step 5"):
            start()
    reports = list(run := start())
    assert "The run resumes from step 5." in reports[0].notes and reports[0].step == 6
    run.finish()
    assert (tmp_path / "model").is_dir() and not (tmp_path / "model.run").exists()
