"""``accelerate launch --max_restarts``: a process that is killed restarts the job, which resumes by itself."""

import json
from pathlib import Path
from typing import Any

import pytest

import reviewgen
from reviewgen.errors import OutputExists, ProcessLost
from tests.runs.test_processes import ROOT
from tests.runs.test_processes import registered as registered
from tests.support.fakes import TEXTS
from tests.support.launches import launch
from tests.support.trainings import ready

SCRIPT = """
import os, signal, sys, time
from reviewgen.cli import main
from reviewgen.registry import find_model
from tests.runs.test_processes import GRU, TRAINING, Spy, register

register()
rank, restarts = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
Ngram = find_model("ngram")[0]
observe, seen = Ngram.observe, []

def kill_at(number, calls, restart):
    if rank == 1 and restarts == restart and len(calls) == number:
        time.sleep(2)  # the other process waits by then
        os.kill(os.getpid(), signal.SIGKILL)

def command(preset, out, step, **settings):
    Spy.ids.clear()
    Spy.on_step = lambda logits: (step(), logits)[1]
    sys.argv[1:] = ["train", preset, "--data", "reviews.txt", "--out", out, *(["--steps", "30"] if preset == "spy-char" else [])]
    for name, value in settings.items():
        sys.argv += ["--set", ("model." if name in GRU or name == "order" else "training.") + f"{name}={value}"]
    try:
        main()
    except SystemExit as end:
        if end.code:
            sys.exit(end.code)

def counted(self, ids):
    seen.append(0)
    kill_at(9, seen, 2)
    observe(self, ids)

own = GRU | TRAINING | {"batch_size": 3, "copy_tokens": 0}
command("spy-char", "whole", lambda: kill_at(5, Spy.ids, 0), **own)  # before the first checkpoint
command("spy-char", "resumed", lambda: (time.sleep(0.05), kill_at(12, Spy.ids, 1)), checkpoint_seconds=1e-9, **own)
Ngram.observe = counted
command("ngram-char", "ngram", int, order=4, novelty="none")
"""


@pytest.mark.launch
def test_a_killed_process_restarts_the_job_which_resumes(tmp_path: Path) -> None:
    """Of two processes one is killed three times."""
    (tmp_path / "reviews.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    own = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "PYTHONPATH": ROOT}  # else it finds addresses of the ended ones
    done = launch(2, tmp_path, "--max_restarts", "3", "--rdzv_backend", "c10d", "script.py", env=own, timeout=400)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.glob("*.partial"))
    assert "No checkpoint was saved yet, so the same command starts from the beginning." in done.stderr
    assert done.stderr.count("whole was saved before") == 2, "after the second restart and the third"
    assert done.stderr.count("resumed was saved before") == 1
    assert done.stderr.count("The run resumes from step") == 1
    one, two, ngram, counted = (tmp_path / name for name in ("whole", "resumed", "ngram", "counted"))
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
    curves = [json.loads((each / "training.json").read_text())["evaluations"] for each in (one, two)]
    bits = [[at["bits_per_character"] for at in curve] for curve in curves]
    assert bits[0] == bits[1] and len(bits[0]) > 2
    reviewgen.train("ngram-char", TEXTS, model={"order": 4}, training={"novelty": "none"}, out=counted)
    assert (ngram / "model.safetensors").read_bytes() == (counted / "model.safetensors").read_bytes()


def test_a_saved_model_of_the_same_run_is_used_and_another_is_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"out": tmp_path / "model", "training": {"novelty": "none", "copy_tokens": 0}}

    def train(texts: Any = TEXTS, order: int = 3) -> Any:
        return reviewgen.train("ngram-char", texts, model={"order": order}, **options)

    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "1")
    trained = train().score(TEXTS[0])
    assert train().score(TEXTS[0]) == trained
    for texts, order in (TEXTS, 2), ([*TEXTS, "Another text."], 3):
        with pytest.raises(OutputExists, match="already exists"):
            train(texts, order)
    run = ready("ngram-char", TEXTS, out=tmp_path / "other")
    with pytest.raises(ProcessLost, match="termination signal"):  # wherever the interrupt has come
        run.interrupt()
    monkeypatch.delenv("TORCHELASTIC_MAX_RESTARTS")
    with pytest.raises(OutputExists, match="already exists"):
        train()
