"""One of two processes is stopped for nine tenths of the time: the other waits for it, and the results are the same."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.launches import launch, made_once
from tests.unit.test_prepare import SMALL as TRAINING
from tests.unit.test_prepare import files_of, texts

SLOW = "while [ ! -e usual.speed ] && kill -STOP $1; do sleep 0.09; kill -CONT $1; sleep 0.01; echo stopped; done > stops"

SCRIPT = """
import json, os, subprocess
import reviewgen
from reviewgen.preparation import reading
from reviewgen.training import rounds

slow, training = json.load(open("settings.json"))
reading._PART_BYTES, rounds.SECONDS = 1 << 12, 0.5

def work(folder):
    reviewgen.prepare("reviews.txt", preset="gru-char", out=f"{folder}/store")
    model = reviewgen.train("gru-char", f"{folder}/store", progress=False, **training)
    counted = reviewgen.train("ngram-char", "reviews.txt", progress=False, steps=1, model={"order": 4})
    if os.environ["RANK"] == "0":
        model.save_pretrained(f"{folder}/model")
        counted.save_pretrained(f"{folder}/counted")
    reviewgen.generate_dataset("./first/counted", out=f"{folder}/texts", n=200, seed=1)

work("first")
slowed = os.environ["RANK"] == "1"
if slowed:
    stopper = subprocess.Popen(["sh", "-c", slow, "sh", str(os.getpid())])
work("slow")
if slowed:
    open("usual.speed", "w").close()
    stopper.wait()
"""


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "slow", _launch)


def _launch(folder: Path) -> None:
    (folder / "reviews.txt").write_text("\n".join(texts(900)), encoding="utf-8")
    (folder / "settings.json").write_text(json.dumps([SLOW, TRAINING]), encoding="utf-8")
    (folder / "script.py").write_text(SCRIPT, encoding="utf-8")
    done = launch(2, folder, "script.py")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["store", "texts"])
def test_files_are_the_same(name: str, launched: Path) -> None:
    assert files_of(launched / "slow" / name) == files_of(launched / "first" / name)


@pytest.mark.parametrize("name", ["model", "counted"])
def test_weights_are_the_same(name: str, launched: Path) -> None:
    def weights(folder: str) -> dict[str, Any]:
        return {file.name: file.read_bytes() for file in (launched / folder / name).glob("*.safetensors")}

    assert weights("slow") == weights("first") != {}


def test_the_process_was_stopped_all_the_time(launched: Path) -> None:
    assert len((launched / "stops").read_text().splitlines()) > 20
