"""Counting in several processes: they make the model of one, and keep what is counted so far."""

import hashlib
import json
import os
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import reviewgen
from reviewgen.errors import TrainingError
from reviewgen.registry.plugins import find_model
from tests.runs.test_processes import ROOT
from tests.support.fakes import TEXTS
from tests.support.forked import run_group
from tests.support.launches import CPU, made_once
from tests.support.trainings import ready

Ngram: Any = find_model("ngram")[0]


class Alone:
    """An n-gram model of a third party that cannot merge counts."""

    Config = Ngram.Config

    def __init__(self, config: Any) -> None:
        self.config = config
        self.inner = Ngram(config)
        for name in ("observe", "finish", "state_dict", "load_state_dict", "initial_state"):
            setattr(self, name, getattr(self.inner, name))

    def __call__(self, ids: Any, state: Any) -> Any:
        return self.inner(ids, state)


class Merging(Alone):
    """One that merges them in the main process: its counts are the texts."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.texts: list[np.ndarray] = []
        self.observe = lambda ids: (
            self.texts.append(ids.astype(np.int64)) or self.inner.observe(ids)
        )

    def take_counts(self) -> Any:
        return {"texts": torch.from_numpy(np.concatenate([np.empty(0, np.int64), *self.texts]))}

    def add_counts(self, counts: Any) -> None:
        if len(counts["texts"]):
            self.inner.observe(counts["texts"].numpy())


ALIKE: dict[str, dict[str, Any]] = {
    "plain": {},
    "small memory": {"model": {"memory_mb": 1}},
    "pruned": {
        "model": {
            "smoothing": "witten-bell",
            "min_count": 2,
            "prune_entropy": 1e-6,
            "quantized": True,
        }
    },
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
    facts: dict[str, Any] = {"error": None}
    try:
        run = ready(preset, source, training={"novelty": "none", "copy_tokens": 0}, **options)
        for report in run:
            facts |= {"texts": report.step, "tokens": report.tokens, "stopped": report.stopped}
    except (KeyboardInterrupt, TrainingError) as problem:
        facts["error"] = f"{type(problem).__name__}: {problem}"
    return facts | {"weights": digest(run.model) if "texts" in facts else None}


SCRIPT = """
import json, os, signal, time
from tests.runs.test_counting import ALIKE, Ngram, count, register

register()
rank, observe, seen = int(os.environ["RANK"]), Ngram.observe, []
facts = {name: count(**options) for name, options in ALIKE.items()} | {"alone": count("alone-char")}

def watch(pause, signal_number=None):
    def counted(self, ids):
        seen.append(ids.tolist())
        observe(self, ids)
        if signal_number and rank == 1 and len(seen) == 3:
            os.kill(os.getpid(), signal_number)
        time.sleep(pause)
    seen.clear()
    Ngram.observe = counted

watch(0.7 * rank)
facts["slow"] = count(budget=6)
watch(0.4, signal.SIGINT)
facts["interrupted"] = count()
facts["seen"] = seen[:]
with open(f"facts.{rank}.json", "w") as file:
    json.dump(facts, file)
"""


@pytest.fixture(scope="module")
def counted(tmp_path_factory) -> Any:
    """Run the script in three processes; return what each of them has written and printed."""

    def work(folder: Path) -> None:
        env = os.environ | CPU | {"PYTHONPATH": ROOT, "REVIEWGEN_CACHE": str(folder / "cache")}
        group = run_group(["-c", SCRIPT], 3, env=env, cwd=folder)
        (folder / "printed.json").write_text(
            json.dumps([[each.returncode, each.stderr] for each in group])
        )

    folder = made_once(tmp_path_factory, "counting", work)
    printed = json.loads((folder / "printed.json").read_text())
    assert (folder / "facts.2.json").exists(), printed
    ranks = [json.loads((folder / f"facts.{rank}.json").read_text()) for rank in range(3)]
    return SimpleNamespace(folder=folder, ranks=ranks, printed=printed)


@pytest.fixture
def one(untouched_registry: None) -> dict[str, Any]:
    """The facts of one process."""
    register()
    return {name: count(**options) for name, options in ALIKE.items()}


@pytest.mark.launch
def test_three_processes_make_the_model_of_one(counted, one):
    assert len({facts["weights"] for facts in one.values()}) == len(ALIKE) - 1, (
        "the memory changes nothing"
    )
    assert one["plain"]["stopped"] == "all texts counted"
    for facts in counted.ranks:
        for name, expected in one.items():
            assert facts[name] == expected, name
        assert facts["alone"]["error"].startswith("TrainingError: Alone cannot merge counts")


@pytest.mark.launch
def test_three_processes_spend_a_budget_together(counted, one):
    for facts in counted.ranks:
        assert facts["slow"] == counted.ranks[0]["slow"]
        assert facts["slow"]["stopped"] == "budget spent"
        assert 3 < facts["slow"]["texts"] < one["plain"]["texts"]


@pytest.mark.launch
def test_all_processes_are_interrupted_with_the_model_of_the_texts_so_far(counted):
    seen = list(chain.from_iterable(facts["seen"] for facts in counted.ranks))
    run = ready("ngram-char", TEXTS)
    model = Ngram(run.model.config)
    for ids in seen:
        model.observe(np.array(ids, np.uint16))
    model.finish()
    for facts in (each["interrupted"] for each in counted.ranks):
        assert facts["error"].startswith("KeyboardInterrupt") and facts["weights"] == digest(model)
        assert facts["texts"] == len(seen) < len(run.corpus.stores["train"]) - 5 and facts[
            "tokens"
        ] == sum(map(len, seen))
