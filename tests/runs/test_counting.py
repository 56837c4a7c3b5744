"""Counting in a time, and in several processes: they make the model of one, end together, and keep what is counted so far."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import reviewgen
from reviewgen import TrainingRun
from reviewgen.data import TokenStore
from reviewgen.errors import TrainingError
from reviewgen.registry import find_model, unregister_all
from reviewgen.training import Budget, TrainingConfig, fit
from tests.runs.test_processes import ROOT
from tests.support.fakes import LETTERS, TEXTS, TableModel, table
from tests.support.forked import run_group
from tests.support.launches import CPU, made_once


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


Ngram: Any = find_model("ngram")[0]


class Alone:
    """An n-gram model of a third party that cannot merge counts."""

    Config = Ngram.Config

    def __init__(self, config: Any) -> None:
        self.config, self.inner = config, Ngram(config)
        for name in ("observe", "finish", "state_dict", "load_state_dict", "initial_state"):
            setattr(self, name, getattr(self.inner, name))

    def __call__(self, ids: Any, state: Any) -> Any:
        return self.inner(ids, state)


class Merging(Alone):
    """One that merges them in the main process."""

    def take_counts(self) -> Any:
        return self.inner.take_counts()

    def add_counts(self, counts: Any) -> None:
        self.inner.add_counts(counts)


ALIKE: dict[str, dict[str, Any]] = {
    "plain": {},
    "small memory": {"model": {"memory_mb": 1}},
    "pruned": {"model": {"smoothing": "witten-bell", "min_count": 2, "prune_entropy": 1e-6, "quantized": True}},
    "merging": {"preset": "merging-char"},
    "few texts": {"source": TEXTS[:2], "validation": TEXTS[2:6]},
}


def digest(model: Any) -> str:
    content = {name: tensor.numpy().tobytes().hex() for name, tensor in model.state_dict().items()}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def register() -> None:
    reviewgen.register_model("merging", Merging)
    reviewgen.register_model("alone", Alone)


def count(preset: str = "ngram-char", source: Any = TEXTS, **options: Any) -> dict[str, Any]:
    """Train by counting, and return the facts as JSON values."""
    run = TrainingRun(preset, source, training={"novelty": "none", "copy_tokens": 0}, **options)
    facts: dict[str, Any] = {"error": None}
    try:
        run.read()
        run.tokenize()
        for report in run:
            facts |= {"texts": report.step, "tokens": report.tokens, "stopped": report.stopped}
    except (KeyboardInterrupt, TrainingError) as problem:
        facts["error"] = f"{type(problem).__name__}: {problem}"
    return facts | {"weights": digest(run.model) if "texts" in facts else None}


SCRIPT = """
import json, os, signal, sys, time
from reviewgen.cli import main
from tests.runs.test_counting import ALIKE, Ngram, count, register

register()
rank, observe, seen = int(os.environ["RANK"]), Ngram.observe, []
facts = {name: count(**options) for name, options in ALIKE.items()} | {"alone": count("alone-char")}

def watch(pause, signal_number=None):
    def counted(self, ids):
        seen.append(ids.tolist())
        if signal_number == signal.SIGKILL and rank == 1 and len(seen) == 3:
            os.kill(os.getpid(), signal_number)
        observe(self, ids)
        if signal_number and rank == 1 and len(seen) == 3:
            os.kill(os.getpid(), signal_number)
        time.sleep(pause)
        with open(f"seen.{rank}", "w") as file:
            file.write(str(len(seen)))
    seen.clear()
    Ngram.observe = counted

watch(0.7 * rank)
facts["slow"] = count(budget=6)
watch(0.4, signal.SIGINT)
facts["interrupted"] = count()
facts["seen"] = seen[:]
with open(f"facts.{rank}.json", "w") as file:
    json.dump(facts, file)
watch(4 * (rank != 1), signal.SIGKILL)
sys.argv = ["reviewgen", "train", "ngram-char", "--data", "reviews.txt", "--out", "killed", "--json"]
main()
"""


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run the script in three processes; return what each of them has written and printed."""

    def work(folder: Path) -> None:
        (folder / "reviews.txt").write_text("\n".join(TEXTS), encoding="utf-8")
        env = os.environ | CPU | {"PYTHONPATH": ROOT, "REVIEWGEN_CACHE": str(folder / "cache")}
        group = run_group(["-c", SCRIPT], 3, env=env, cwd=folder)
        (folder / "printed.json").write_text(json.dumps([[each.returncode, each.stderr] for each in group]))

    folder = made_once(tmp_path_factory, "counting", work)
    printed = json.loads((folder / "printed.json").read_text())
    assert (folder / "facts.2.json").exists(), printed
    ranks = [json.loads((folder / f"facts.{rank}.json").read_text()) for rank in range(3)]
    return SimpleNamespace(folder=folder, ranks=ranks, printed=printed)


@pytest.fixture
def one() -> Iterator[dict[str, Any]]:
    """The facts of one process."""
    register()
    yield {name: count(**options) for name, options in ALIKE.items()}
    unregister_all()


@pytest.mark.launch
def test_three_processes_make_the_model_of_one(counted: Any, one: dict[str, Any]) -> None:
    assert len({facts["weights"] for facts in one.values()}) == len(ALIKE) - 1, "the memory changes nothing"
    assert one["plain"]["stopped"] == "all texts counted"
    for facts in counted.ranks:
        for name, expected in one.items():
            assert facts[name] == expected, name
        assert facts["alone"]["error"].startswith("TrainingError: Alone cannot merge counts")
        assert facts["slow"] == counted.ranks[0]["slow"]
        assert facts["slow"]["stopped"] == "budget spent"
        assert 3 < facts["slow"]["texts"] < one["plain"]["texts"]


@pytest.mark.launch
def test_all_processes_are_interrupted_with_the_model_of_the_texts_so_far(counted: Any) -> None:
    seen = [ids for facts in counted.ranks for ids in facts["seen"]]
    run = TrainingRun("ngram-char", TEXTS)
    run.read()
    run.tokenize()
    model = Ngram(run.model.config)
    for ids in seen:
        model.observe(np.array(ids, np.uint16))
    model.finish()
    for facts in (each["interrupted"] for each in counted.ranks):
        assert facts["error"].startswith("KeyboardInterrupt") and facts["weights"] == digest(model)
        assert facts["texts"] == len(seen) < len(run.stores["train"]) - 5 and facts["tokens"] == sum(map(len, seen))


@pytest.mark.launch
def test_a_process_that_is_killed_while_counting_ends_all_with_one_sentence(counted: Any) -> None:
    (first, said), (killed, _), (third, nothing) = counted.printed
    assert (first, killed, third) == (1, -9, 1), counted.printed
    assert said.count("Another process has ended") == 1 and "Traceback" not in said
    assert nothing == "", "the main process speaks for all"
    for rank in (0, 2):
        assert int((counted.folder / f"seen.{rank}").read_text()) < len(TEXTS) / 3 - 5, "not at the end of its own work"
    assert not (counted.folder / "killed").exists()
