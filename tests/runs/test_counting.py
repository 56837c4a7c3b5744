"""Counting in a time, and in several processes: they make the model of one, end together, and keep what is counted so far."""

import hashlib
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from reviewgen import TrainingRun
from reviewgen.data import TokenStore
from reviewgen.registry import find_model
from reviewgen.training import Budget, TrainingConfig, fit
from tests.support.fakes import LETTERS, TEXTS, TableModel, table
from tests.support.forked import run_group, run_python
from tests.support.launches import CPU, made_once

# In a time.


class Texts(TokenStore):
    """A hundred thousand texts of ten tokens each: their number, from 0 to 9 999 and again."""

    conditions, characters, tokens = None, np.ones(100_000, np.int64), 1_000_000

    def __init__(self) -> None:
        self.offsets = np.arange(0, 1_000_001, 10)

    def document(self, number: int) -> np.ndarray:
        return np.full(10, number)

    def release_pages(self) -> None:
        pass


class SlowCounter(TableModel):
    """Counts texts; making its model takes 0.1 ms of a clock of its own for each token."""

    clock = 100.0

    def __init__(self, config: Any = None) -> None:
        super().__init__(table(LETTERS.vocab_size, eos=9.0))
        self.texts: list[int] = []

    def observe(self, ids: Any) -> None:
        self.texts.append(int(ids[0]))

    def finish(self) -> dict[str, Any]:
        SlowCounter.clock += 0.0001 * 10 * len(self.texts)
        return {}


@pytest.mark.parametrize(("seconds", "texts"), [(600, 100_000), (60, (20_000, 35_000)), (20, (4_500, 5_500)), (-1, (1, 1))])
def test_the_texts_counted_in_a_time_leave_room_for_making_the_model(
    monkeypatch: pytest.MonkeyPatch, seconds: float, texts: int | tuple[int, int]
) -> None:
    monkeypatch.setattr("time.monotonic", lambda: SlowCounter.clock)
    model, start = SlowCounter(), SlowCounter.clock
    empty = TrainingConfig(evaluation_tokens=10, copy_tokens=0)
    validation = Texts()
    monkeypatch.setattr(validation, "document", lambda number: np.array([0, 2, 1]))
    *_, last = fit(model, LETTERS, Texts(), validation, empty, Budget(deadline=start + seconds), 0)
    assert len(model.texts) == last.step and last.tokens == 10 * last.step
    if isinstance(texts, int):
        assert last.step == texts and last.stopped == "all texts counted"
        return
    assert texts[0] <= last.step <= texts[1] and last.stopped == "budget spent"
    if seconds > 0:
        assert min(model.texts) < 100 and max(model.texts) > 99_900  # from all of the corpus
        assert SlowCounter.clock - start <= seconds


# In several processes.

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "small memory": {"memory_mb": 1},
    "pruned": {"smoothing": "witten-bell", "min_count": 2, "prune_entropy": 1e-6, "quantized": True},
    "maximum likelihood": {"smoothing": "none", "order": 3},
    "unigrams": {"order": 1},
}

SCRIPT = """
import hashlib, json, os, signal, sys, time
import reviewgen
from reviewgen import TrainingRun
from reviewgen.cli import main
from reviewgen.errors import TrainingError
from reviewgen.registry import find_model

Ngram = find_model("ngram")[0]
rank, facts = int(os.environ.get("RANK", "0")), {}

class Merging:
    '''A model of a third party that merges counts in the main process.'''
    Config = Ngram.Config
    def __init__(self, config):
        self.config, self.inner = config, Ngram(config)
        for name in ("observe", "finish", "take_counts", "add_counts", "state_dict", "load_state_dict", "initial_state"):
            setattr(self, name, getattr(self.inner, name))
    def __call__(self, ids, state):
        return self.inner(ids, state)

class Alone(Merging):
    take_counts = add_counts = None
    def __init__(self, config):
        super().__init__(config)
        del self.take_counts, self.add_counts
    def __getattribute__(self, name):
        if name in ("take_counts", "add_counts"):
            raise AttributeError(name)
        return super().__getattribute__(name)

def digest(model):
    bytes_of = {name: tensor.numpy().tobytes().hex() for name, tensor in model.state_dict().items()}
    return hashlib.sha256(json.dumps(bytes_of, sort_keys=True).encode()).hexdigest()

def count(name, preset="ngram-char", source="reviews.txt", **options):
    run = TrainingRun(preset, source, **({"training": {"novelty": "none", "copy_tokens": 0}} | options))
    error = last = None
    try:
        run.read()
        run.tokenize()
        for last in run:
            pass
    except (KeyboardInterrupt, TrainingError) as problem:
        error = f"{type(problem).__name__}: {problem}"
    if last is None:
        facts[name] = {"error": error}
    else:
        notes = [note for note in last.notes if "held-out" not in note]
        facts[name] = {"error": error, "weights": digest(run.model), "texts": last.step, "tokens": last.tokens}
        facts[name] |= {"stopped": last.stopped, "notes": notes}

for name, settings in json.load(open("settings.json")).items():
    count(name, model=settings)
reviewgen.register_model("merging", Merging)
reviewgen.register_model("alone", Alone)
count("merging", "merging-char")
count("few", source=json.load(open("texts.json"))[:2], validation=json.load(open("texts.json"))[2:6])

if "RANK" in os.environ:
    count("alone", "alone-char")
    observe, seen = Ngram.observe, []

    def slow(self, ids):
        observe(self, ids)
        seen.append(ids.tolist())
        if rank == 1:
            time.sleep(0.7)

    def interrupted(self, ids):
        observe(self, ids)
        seen.append(ids.tolist())
        if rank == 1 and len(seen) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.4)

    Ngram.observe = slow
    count("slow", budget=6)
    seen.clear()
    Ngram.observe = interrupted
    count("interrupted", seed=1)
    facts["seen"] = seen[:]

with open("facts.{}.json".format(os.environ.get("RANK", "alone")), "w") as file:
    json.dump(facts, file)

if "RANK" in os.environ:
    seen.clear()

    def killed(self, ids):
        seen.append(ids)
        if rank == 1 and len(seen) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        observe(self, ids)
        time.sleep(0 if rank == 1 else 4)
        with open(f"seen.{rank}", "w") as file:
            file.write(str(len(seen)))

    Ngram.observe = killed
    sys.argv = ["reviewgen", "train", "ngram-char", "--data", "reviews.txt", "--out", "killed", "--json"]
    main()
"""


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run the script in three processes, and alone; return what each of them has written and printed."""
    folder = made_once(tmp_path_factory, "counting", _launch)
    read = [json.loads((folder / f"facts.{who}.json").read_text()) for who in ("alone", 0, 1, 2)]
    return SimpleNamespace(folder=folder, one=read[0], ranks=read[1:], printed=json.loads((folder / "printed.json").read_text()))


def _launch(folder: Path) -> None:
    (folder / "reviews.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    (folder / "texts.json").write_text(json.dumps(TEXTS))
    (folder / "settings.json").write_text(json.dumps(SETTINGS))
    alone = run_python(["-c", SCRIPT], env=os.environ | CPU, cwd=folder)
    assert alone.returncode == 0, alone.stderr
    group = run_group(["-c", SCRIPT], 3, env=os.environ | CPU, cwd=folder)
    (folder / "printed.json").write_text(json.dumps([[each.returncode, each.stderr] for each in group]))
    assert (folder / "facts.2.json").exists(), group


@pytest.mark.launch
def test_three_processes_make_the_model_of_one(counted: Any) -> None:
    one = counted.one
    assert len({one[name]["weights"] for name in SETTINGS}) == len(SETTINGS) - 1, "memory changes nothing"
    for rank, facts in enumerate(counted.ranks):
        for name in (*SETTINGS, "merging", "few"):
            for key in ("weights", "texts", "tokens", "stopped", "error"):
                assert facts[name][key] == one[name][key], (name, key)
            assert facts[name]["notes"] == ([] if rank else one[name]["notes"]), name
    assert one["merging"]["weights"] == one["plain"]["weights"] != one["few"]["weights"]
    assert one["plain"]["stopped"] == "all texts counted"


@pytest.mark.launch
def test_counts_that_cannot_be_merged_are_refused(counted: Any) -> None:
    for facts in counted.ranks:
        assert facts["alone"]["error"].startswith("TrainingError: Alone cannot merge counts")


@pytest.mark.launch
def test_a_slow_process_has_counted_a_part_when_the_time_is_over(counted: Any) -> None:
    first, *others = (facts["slow"] for facts in counted.ranks)
    assert all(facts | {"notes": []} == first | {"notes": []} for facts in others)
    whole = counted.one["plain"]["texts"]
    assert first["stopped"] == "budget spent" and whole * 2 / 3 < first["texts"] < whole


@pytest.mark.launch
def test_all_processes_are_interrupted_with_the_model_of_the_texts_so_far(counted: Any) -> None:
    seen = [ids for facts in counted.ranks for ids in facts["seen"]]
    for facts in counted.ranks:
        assert facts["interrupted"]["error"].startswith("KeyboardInterrupt")
        assert facts["interrupted"]["texts"] == len(seen) < counted.one["plain"]["texts"] - 5
        assert facts["interrupted"]["tokens"] == sum(map(len, seen))
    run = TrainingRun("ngram-char", str(counted.folder / "reviews.txt"))
    run.read()
    run.tokenize()
    model = find_model("ngram")[0](run.model.config)
    for ids in seen:
        model.observe(np.array(ids, np.uint16))
    model.finish()
    content = {name: tensor.numpy().tobytes().hex() for name, tensor in model.state_dict().items()}
    expected = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    assert [facts["interrupted"]["weights"] for facts in counted.ranks] == [expected] * 3


@pytest.mark.launch
def test_a_process_that_is_killed_while_counting_ends_all_with_one_sentence(counted: Any) -> None:
    (first, said), (killed, _), (third, nothing) = counted.printed
    assert (first, killed, third) == (1, -9, 1), counted.printed
    assert said.count("Another process has ended") == 1 and "Traceback" not in said
    assert nothing == "", "the main process speaks for all"
    for rank in (0, 2):
        assert int((counted.folder / f"seen.{rank}").read_text()) < len(TEXTS) / 3 - 5, "not at the end of its own work"
    assert not (counted.folder / "killed").exists()
