"""Two processes count and one of them, or both, are interrupted: all end with the model of the texts so far."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from reviewgen_ngram.model import Ngram, NgramConfig
from safetensors.torch import load_file

from tests.support.fakes import TEXTS
from tests.support.forked import run_group
from tests.support.launches import CPU, made_once

SCRIPT = """
import json, os, signal, sys, time
from reviewgen.cli import main
from reviewgen.training import count_group
from reviewgen_ngram.model import Ngram

interrupted, after = json.loads(sys.argv[1])
name, rank = sys.argv[2], int(os.environ["RANK"])
count_group._CALL_SECONDS = 0.2
observe, seen = Ngram.observe, []

def counted(self, ids):
    observe(self, ids)
    seen.append(ids.tolist())
    if len(seen) == after and rank in interrupted:
        os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.05)

Ngram.observe = counted
sys.argv = ["reviewgen", "train", "ngram-char", "--data", "reviews.txt", "--out", name, "--set", "training.novelty=none"]
try:
    main()
finally:
    with open(f"{name}.{rank}.json", "w") as file:
        json.dump(seen, file)
"""

INTERRUPTED = {"one": [[1], 5], "main": [[0], 9], "both": [[0, 1], 7], "late": [[1], 10_000]}
"""Which processes are interrupted, after this many texts of their own."""


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run the script in two processes, once for all workers of pytest-xdist."""
    folder = made_once(tmp_path_factory, "interrupted", _launch)
    return SimpleNamespace(folder=folder, printed=json.loads((folder / "printed.json").read_text()))


def _launch(folder: Path) -> None:
    texts = [f"{text} number {number}" for number in range(8) for text in TEXTS]
    (folder / "reviews.txt").write_text("\n".join(texts), encoding="utf-8")
    env = os.environ | CPU | {"REVIEWGEN_CACHE": str(folder / "cache")}
    printed = {}
    for name, settings in INTERRUPTED.items():
        done = run_group(["-c", SCRIPT, json.dumps(settings), name], 2, env=env, cwd=folder)
        printed[name] = [vars(one) | {"args": None} for one in done]
    (folder / "printed.json").write_text(json.dumps(printed))


@pytest.mark.parametrize("name", INTERRUPTED)
def test_all_processes_end_with_the_model_of_the_texts_so_far(name: str, launched: Any) -> None:
    folder, is_late = launched.folder, name == "late"
    first, second = launched.printed[name]
    assert [first["returncode"], second["returncode"]] == ([0, 0] if is_late else [130, 130]), (first, second)
    assert first["stderr"].count("Interrupted; saving") == int(not is_late) and second["stderr"] == ""
    seen = [json.loads((folder / f"{name}.{rank}.json").read_text()) for rank in range(2)]
    training = json.loads((folder / name / "training.json").read_text())
    whole = training["data"]["reviews"]["train"]
    assert training["steps"] == sum(map(len, seen)) and training["tokens_seen"] == sum(map(len, [*seen[0], *seen[1]]))
    assert sum(map(len, seen)) == whole if is_late else sum(map(len, seen)) < whole - 20
    config = json.loads((folder / name / "config.json").read_text())["model"]["config"]
    model = Ngram(NgramConfig(**config))
    for ids in [*seen[0], *seen[1]]:
        model.observe(np.array(ids, np.uint16))
    model.finish()
    saved, expected = load_file(folder / name / "model.safetensors"), model.state_dict()
    assert saved.keys() == expected.keys() and all(saved[key].equal(expected[key]) for key in saved)
