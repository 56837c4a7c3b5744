"""Three processes count: they make the model of one; a process that ends ends all, and the same command works again."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from reviewgen import TrainingRun
from tests.support.fakes import TEXTS
from tests.support.forked import run_group, run_python
from tests.support.launches import CPU, made_once

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "small memory": {"memory_mb": 1},
    "pruned": {"smoothing": "witten-bell", "min_count": 2, "prune_entropy": 1e-6, "quantized": True},
    "maximum likelihood": {"smoothing": "none", "order": 3},
    "unigrams": {"order": 1},
}
"""Model settings; a file holds any array of "small memory"."""

COMMAND = """
import hashlib, json, os, signal, sys, time
from pathlib import Path
import reviewgen_ngram.memory
from accelerate import PartialState
from reviewgen.cli import main
from reviewgen.data import TokenStore
from reviewgen.training.counting import train_by_counting
from reviewgen_ngram.model import Ngram, NgramConfig
from tests.unit.test_counting import NoEvaluator

rank = int(os.environ.get("RANK", "0"))
reviewgen_ngram.memory.LARGEST_SHARE = 1 << 20

def train(out, *settings):
    sys.argv = ["reviewgen", "train", "ngram-char", "--data", "reviews.txt", "--out", out, "--json", *settings]
    try:
        main()
    except SystemExit as end:
        return end.code or 0
"""

SCRIPT = (
    COMMAND
    + """
class Merging:
    '''A model of a third party that merges counts in the main process.'''

    def __init__(self, config):
        self.config, self._inner = config, Ngram(config)
        for name in ("observe", "finish", "take_counts", "add_counts", "state_dict", "load_state_dict"):
            setattr(self, name, getattr(self._inner, name))

def digest(model):
    bytes_of = {name: tensor.numpy().tobytes().hex() for name, tensor in model.state_dict().items()}
    return hashlib.sha256(json.dumps(bytes_of, sort_keys=True).encode()).hexdigest()

class Few(TokenStore):
    '''The first two texts of a store.'''

    def __init__(self, store):
        self.__dict__ = dict(store.__dict__)
        self.offsets = store.offsets[:3]

if "RANK" in os.environ:
    PartialState(cpu=True)
store, facts = TokenStore(Path("."), "train"), {}
vocab_size, settings = json.load(open("settings.json"))
for name, more in settings.items():
    model = Ngram(NgramConfig(vocab_size=vocab_size, **more))
    *_, last = train_by_counting(model, store, None, NoEvaluator())
    facts[name] = [digest(model), last.step, last.tokens, last.notes]
model = Merging(NgramConfig(vocab_size=vocab_size))
list(train_by_counting(model, store, None, NoEvaluator()))
facts["merging"] = digest(model)
model = Ngram(NgramConfig(vocab_size=vocab_size))
list(train_by_counting(model, Few(store), None, NoEvaluator()))
facts["few"] = digest(model)
with open("facts.{}.json".format(os.environ.get("RANK", "alone")), "w") as file:
    json.dump(facts, file)

observe, seen = Ngram.observe, []

def counted(self, ids):
    seen.append(0)
    if rank == 1 and len(seen) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    observe(self, ids)
    if rank != 1:
        time.sleep(4)
    with open(f"seen.{rank}", "w") as file:
        file.write(str(len(seen)))

if "RANK" in os.environ:
    Ngram.observe = counted
    sys.exit(train("killed"))
"""
)

FULL_DISK = (
    COMMAND
    + """
def full(*arguments):
    raise OSError(28, "No space left on device")

if rank == 1:
    os.posix_fallocate = full
sys.exit(train("full", "--set", "model.memory_mb=1"))
"""
)


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run both scripts in three processes, once for all workers of pytest-xdist."""
    folder = made_once(tmp_path_factory, "counting", _launch)
    return SimpleNamespace(folder=folder, **json.loads((folder / "printed.json").read_text()))


def _launch(folder: Path) -> None:
    (folder / "reviews.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    run = TrainingRun("ngram-char", str(folder / "reviews.txt"))
    run.read()
    run.tokenize()
    store, vocab_size = run.stores["train"], run.tokenizer.vocab_size
    (folder / "train.uint16").write_bytes(store.ids.tobytes())
    index = [store.offsets.tolist(), [*store.characters.tolist(), 0]]
    np.save(folder / "train.index.npy", index)
    (folder / "settings.json").write_text(json.dumps([vocab_size, SETTINGS]))
    env = os.environ | CPU | {"PYTHONPATH": str(Path(__file__).parents[2])}
    printed = {}
    for name, script in (("killed", SCRIPT), ("full", FULL_DISK)):
        printed[name] = [vars(done) | {"args": None} for done in run_group(["-c", script], 3, env=env, cwd=folder)]
    printed["alone"] = vars(run_python(["-c", SCRIPT], env=env, cwd=folder)) | {"args": None}
    (folder / "printed.json").write_text(json.dumps(printed))


def test_three_processes_make_the_model_of_one(launched: Any) -> None:
    assert launched.alone["returncode"] == 0, launched.alone["stderr"]
    one, *ranks = (json.loads((launched.folder / f"facts.{who}.json").read_text()) for who in ("alone", 0, 1, 2))
    assert set(SETTINGS) < set(one) and len({str(one[name]) for name in SETTINGS}) == len(SETTINGS) - 1  # memory changes nothing
    for facts in ranks:
        for name in SETTINGS:
            digest, texts, tokens, notes = facts[name]
            assert [digest, texts, tokens] == one[name][:3], name
            assert notes == (one[name][3] if facts is ranks[0] else []), name
        assert facts["merging"] == one["merging"] == one["plain"][0]
        assert facts["few"] == one["few"] != one["plain"][0]


def test_a_process_that_is_killed_while_counting_ends_all_with_a_sentence(launched: Any) -> None:
    first, killed, third = launched.killed
    assert killed["returncode"] == -9
    for rank, done in ((0, first), (2, third)):
        assert done["returncode"] == 1, done["stderr"]
        assert int((launched.folder / f"seen.{rank}").read_text()) < len(TEXTS) / 3 - 5  # not at the end of its own work
    assert first["stderr"].count("Another process has ended") == 1 and "Traceback" not in first["stderr"]
    assert third["stderr"] == ""  # the main process speaks for all
    assert not (launched.folder / "killed").exists()


def test_a_disk_that_is_full_in_one_process_ends_all_with_a_sentence(launched: Any) -> None:
    first, full, third = launched.full
    assert [done["returncode"] for done in launched.full] == [1, 1, 1], launched.full
    assert "No room to write the scratch folder: No space left on device" in full["stderr"]
    assert "error: " not in first["stderr"] and third["stderr"] == ""
    assert "Traceback" not in "".join(done["stderr"] for done in launched.full)


def test_the_same_command_works_again(launched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(launched.folder)
    run = TrainingRun("ngram-char", "reviews.txt", out="killed")
    run.read()
    run.tokenize()
    list(run)
    run.finish()
    assert (launched.folder / "killed/model.safetensors").exists()
