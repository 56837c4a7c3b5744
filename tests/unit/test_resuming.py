"""Runs that were cut short and go on: the same losses bit for bit, the same model, and a sentence for whatever does not fit."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.unit.fakes import TEXTS, run_command

import reviewgen
from reviewgen import TrainingRun
from reviewgen.errors import CheckpointError, ConfigError, OutputExists
from reviewgen.training import checkpoints

SMALL = {
    "model": {"hidden_size": 12, "embedding_size": 6, "layers": 2, "dropout": 0.3, "output_dropout": 0.2},
    "training": {"batch_size": 4, "bptt": 8, "threads": 1, "evaluations": 8, "copy_tokens": 100, "evaluation_tokens": 500},
}

ALONE = """if True:
    import json, os, signal, sys
    from tests.unit.fakes import TEXTS
    from reviewgen import TrainingRun
    from reviewgen.training import checkpoints
    checkpoints._SHARE = 1.0  # a checkpoint every few steps of a small model
    out, kill_at, resume, options = json.loads(sys.argv[1])
    run = TrainingRun("lstm-char", TEXTS, out=out, resume=resume, **options)
    run.read()
    run.tokenize()
    for report in run:
        bits = report.evaluation and report.evaluation.bits_per_character.hex()
        print(json.dumps([report.step, report.nats_per_token.hex(), bits]), flush=True)
        if report.step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
    run.finish()
"""


@pytest.fixture(autouse=True)
def frequent(monkeypatch):
    """Let small models have checkpoints every few steps."""
    monkeypatch.setattr(checkpoints, "_SHARE", 1e9)


def options(**training):
    return SMALL | {"training": SMALL["training"] | {"checkpoint_seconds": 1e-9} | training}


def start(out, resume=False, preset="lstm-char", source=TEXTS, **given):
    run = TrainingRun(preset, source, out=out, resume=resume, **(options() | {"steps": 40} | given))
    run.read()
    run.tokenize()
    return run


def losses(reports):
    """Return the loss of each step, exactly, and the held-out figure where there is one."""
    return {
        report.step: (report.nats_per_token.hex(), report.evaluation and report.evaluation.bits_per_character) for report in reports
    }


def cut_short(out, step, **given):
    """Train to a step and leave everything as a dead process would; return the reports so far."""
    run = start(out, **given)
    reports = list(itertools.takewhile(lambda report: report.step < step, run))
    run._run_folder.checkpoints.close()
    return reports


def files_of(folder):
    """Return what is in a saved model, but for the time that it took."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name not in ("training.json", "README.md")}


def evaluations_of(folder):
    facts = json.loads((folder / "training.json").read_text())["evaluations"]
    return [{name: value for name, value in evaluation.items() if name != "seconds"} for evaluation in facts]


def alone(out, kill_at=None, resume=False, **given):
    """Train in a process of its own, which may kill itself after a step; return what it printed of each."""
    words = json.dumps([str(out), kill_at, resume, options() | given])
    paths = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", ALONE, words], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths}, check=False
    )
    assert done.returncode == (0 if kill_at is None else -signal.SIGKILL), done.stderr
    return {step: rest for step, *rest in map(json.loads, done.stdout.splitlines())}


def test_a_run_killed_twice_is_the_run_that_was_never_killed(tmp_path):
    given = {"steps": 64, **options(precision="auto")}  # an evaluation every eight steps
    whole = alone(tmp_path / "whole", **given)
    assert list(whole) == list(range(1, 65))
    before = alone(tmp_path / "m", kill_at=26, **given)  # shortly after an evaluation
    between = alone(tmp_path / "m", kill_at=45, resume=True, **given)
    after = alone(tmp_path / "m", resume=True, **given)
    for part, kill_at in ((before, 26), (between, 45), (after, 64)):
        assert part == {step: whole[step] for step in range(min(part), kill_at + 1)}
    assert 1 < min(between) <= 27
    assert 27 < min(after) <= 46
    assert files_of(tmp_path / "m") == files_of(tmp_path / "whole")
    assert evaluations_of(tmp_path / "m") == evaluations_of(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "m", "whole"]


@pytest.mark.parametrize("preset", ["rnn-char", "gru-char", "lstm-char", "nnlm-char"])
def test_any_step_is_one_to_go_on_from(tmp_path, preset):
    given = {"preset": preset, "steps": 40}
    if preset == "nnlm-char":
        given["model"] = {"hidden_size": 8, "embedding_size": 4}
    run = start(tmp_path / "whole", **given)
    whole = losses(run)
    run.finish()
    for step in (2, 6, 7, 33, 40):
        cut_short(tmp_path / "m", step, **given)
        run = start(tmp_path / "m", resume=True, **given)
        reports = list(run)
        assert reports[0].step == step - 1 or step == 2
        assert losses(reports) == {number: whole[number] for number in range(reports[0].step, 41)}
        run.finish()
        assert files_of(tmp_path / "m") == files_of(tmp_path / "whole")
        shutil.rmtree(tmp_path / "m")
