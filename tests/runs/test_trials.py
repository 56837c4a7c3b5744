"""What sweeps, ablations and searches have in common: the spread over seeds, resuming after ``kill
-9``, and rows that are not comparable.
"""

import json
import math
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import reviewgen
from reviewgen.errors import (
    CheckpointError,
    ConfigError,
    OutputExists,
    StorageError,
    TrainingError,
)
from reviewgen.runs.trial_store import TrialStore
from reviewgen.runs.trials import describe_unequal
from tests.support.disks import largest_file
from tests.support.fakes import TEXTS, TableModel
from tests.support.trainings import MODEL, TRAINING

NETWORK: Any = {"model": MODEL, "training": TRAINING}
SIZES: Any = {"model": {"embedding_size": 4, "layer": "fused"}, "training": TRAINING}


@dataclass(frozen=True, kw_only=True)
class FragileConfig:
    """The settings of ``Fragile``."""

    vocab_size: int
    size: int = 1


def timeless(rows: list[Any]) -> list[dict[str, Any]]:
    """Return rows as JSON values, without what depends on a clock."""
    return [row.to_dict() | {"seconds": 0, "characters_per_second": 0} for row in rows]


@pytest.fixture
def words(tmp_path) -> list[Any]:
    """A command that trains three networks from two seeds each."""
    corpus = tmp_path / "reviews.txt"
    corpus.write_text("\n".join(TEXTS), encoding="utf-8")
    settings = ["model.hidden_size=4,6,8", "model.embedding_size=4", "model.layer=fused"]
    settings += ["training.threads=1", "training.precision=no", "training.evaluations=2"]
    settings += ["training.copy_tokens=0", "training.batch_size=4", "training.bptt=8"]
    given = chain.from_iterable(("--set", setting) for setting in settings)
    options = ["--steps", "60", "--seeds", "2", "--json"]
    return ["sweep", "rnn-char", "--data", corpus, *given, *options]


def lines_of(folder: Path) -> list[str]:
    """Return the complete lines of the file of a sweep; none if there is no file yet."""
    file = folder / "trials.jsonl"
    content = file.read_text(encoding="utf-8") if file.exists() else ""
    return content[: content.rfind("\n") + 1].splitlines()


@pytest.mark.slow
def test_a_sweep_that_was_killed_resumes_and_trains_only_what_is_missing(
    words, tmp_path, run_command
):
    whole = json.loads(run_command(*words)[1])["trials"]
    folder = tmp_path / "swept"
    command = [sys.executable, "-m", "reviewgen", *map(str, words), "--out", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while len(lines_of(folder)) < 4 and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    before = lines_of(folder)
    assert 4 <= len(before) < 7, "it was not killed between the first trial and the last one"
    with (folder / "trials.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"trial": "0123')  # as if it had been killed while it wrote
    status, out, said = run_command(*words, "--out", folder, "--resume")
    assert status == 0, said
    rows = json.loads(out)["trials"]
    clocks = {"seconds": 0, "characters_per_second": 0}
    assert [row | clocks for row in rows] == [row | clocks for row in whole]
    assert lines_of(folder)[: len(before)] == before and len(lines_of(folder)) == 7
    seconds = [json.loads(line)["results"]["seconds"] for line in before[1:3]]
    assert rows[0]["seconds"] == pytest.approx(sum(seconds)), "it was not trained again"
    again = json.loads(run_command(*words, "--out", folder, "--resume")[1])["trials"]
    assert again == rows and len(lines_of(folder)) == 7


def test_a_sweep_is_resumed_only_with_the_same_settings(tmp_path):
    def sweep(values: list[int], texts: Any = TEXTS, **options: Any) -> list[Any]:
        given: Any = {"out": tmp_path / "swept", "resume": True} | options
        return list(reviewgen.sweep("ngram-char", texts, "model.order", values, **given))

    first = sweep([2])
    before = lines_of(tmp_path / "swept")
    changed: list[tuple[dict[str, Any], str]] = [
        ({"settings": {"model": {"smoothing": "none"}}}, r"model.smoothing \('kneser-ney', not"),
        ({"seed": 1}, r"another seed \(0, not 1\)"),
        ({"texts": TEXTS[1:]}, "another corpus"),
        ({"steps": 3}, "another budget.seconds"),
    ]
    for options, difference in changed:
        with pytest.raises(CheckpointError, match=difference) as refused:
            sweep([2], **options)
        assert str(refused.value).count(". ") == 0
    with pytest.raises(OutputExists, match="already has finished trials"):
        sweep([2], resume=False)
    with pytest.raises(CheckpointError, match="holds no ablation that can be resumed"):
        reviewgen.ablate("ngram-char", TEXTS, out=tmp_path / "swept", resume=True)
    with pytest.raises(ConfigError, match="give out"):
        sweep([2], out=None)
    assert lines_of(tmp_path / "swept") == before
    assert sweep([2, 4])[:1] == first, "it can have more values"
    assert lines_of(tmp_path / "swept")[: len(before)] == before


def test_an_ablation_resumes(tmp_path):
    options: Any = {"steps": 2, "seeds": 2, "settings": NETWORK, "out": tmp_path / "ablated"}
    running = reviewgen.ablate("rnn-char", TEXTS, **options)
    first = [next(running), next(running)]
    running.close()
    rows = list(reviewgen.ablate("rnn-char", TEXTS, **options, resume=True))
    assert rows[:2] == first
    del options["out"]
    assert timeless(rows) == timeless(list(reviewgen.ablate("rnn-char", TEXTS, **options)))


@pytest.mark.slow
def test_a_resumed_ablation_has_the_model_size_that_was_chosen_before(tmp_path):
    options: Any = {"budget": "1s", "out": tmp_path / "ablated"}
    options["settings"] = {"training": TRAINING | {"evaluation_tokens": 200}}
    running = reviewgen.ablate("gru-char", TEXTS, **options)
    next(running)
    running.close()
    file = tmp_path / "ablated" / "trials.jsonl"
    facts, line = file.read_text(encoding="utf-8").splitlines()
    first = json.loads(line)
    # as if another machine had chosen it
    first["results"]["size"]["model"] |= {"hidden_size": 12, "embedding_size": 12, "ngrams": 1}
    file.write_text(f"{facts}\n{json.dumps(first)}\n", encoding="utf-8")
    resumed = reviewgen.ablate("gru-char", TEXTS, **options, resume=True)
    second = [next(resumed), next(resumed)][-1]
    while second.outcome == "unused":
        second = next(resumed)
    size: Any = {"hidden_size": 12, "embedding_size": 12, "ngrams": 1}
    model = reviewgen.train("gru-char", TEXTS, steps=1, progress=False, model=size)
    kind = "recurrent layers"
    assert second.parameters[kind] == model.training["parameters"][kind]


def test_the_spread_is_that_of_single_trainings():
    def sweep(**options: Any) -> Any:
        given: Any = {"settings": SIZES, "steps": 6} | options
        [row] = reviewgen.sweep("rnn-char", TEXTS, "model.hidden_size", [8], **given)
        return row

    row = sweep(seeds=3)
    singles = [sweep(seed=seed) for seed in range(3)]
    bits = [single.bits for single in singles]
    assert row.seeds == 3 and singles[0].seeds == 1 and singles[0].spread is None
    assert row.spread == pytest.approx(np.std(bits, ddof=1)) and row.spread > 0
    assert row.bits == pytest.approx(np.mean(bits))
    assert row.train_bits == pytest.approx(np.mean([single.train_bits for single in singles]))
    low, high = row.interval
    assert low < row.bits < high


class Fragile(TableModel):
    """Counts nothing; fails with some sizes."""

    Config = FragileConfig

    def __init__(self, config: FragileConfig) -> None:
        super().__init__(torch.ones(config.vocab_size, config.vocab_size))
        self.config: Any = config

    def observe(self, ids: np.ndarray) -> None:
        pass

    def finish(self) -> dict[str, Any]:
        if self.config.size == 2:
            raise TrainingError("It does not fit into memory.")
        return {}


@pytest.mark.slow
def test_a_trial_that_fails_has_a_row_and_the_others_go_on(untouched_registry):
    reviewgen.register_model("fragile", Fragile)
    good, bad, other = reviewgen.sweep("fragile-char", TEXTS, "model.size", [1, 2, 3])
    assert (good.outcome, bad.outcome, other.outcome) == ("done", "failed", "done")
    assert bad.bits is None and bad.problem == "It does not fit into memory." and other.bits
    with pytest.raises(TrainingError, match="does not fit"):
        list(reviewgen.sweep("fragile-char", TEXTS, "model.size", [2, 1]))


@pytest.mark.slow
def test_rows_with_less_processor_time_are_not_comparable(words, monkeypatch, run_command):
    """The first training has a processor all the time, the other ones have none at all."""
    times = iter([0.0, 1e9, *[0.0] * 4])
    monkeypatch.setattr(time, "thread_time", lambda: next(times))
    budget = [word if word != "--steps" else "--budget" for word in words[:-1]]
    budget[budget.index("60")] = "1s"
    budget[budget.index("--seeds") + 1] = "1"
    status, out, said = run_command(*budget)
    assert status == 0, said
    last = out.splitlines()[-1]
    assert last.startswith("Not comparable") and "hidden_size=4" not in last
    assert "hidden_size=6 (0% of" in last and "hidden_size=8 (0% of" in last


def test_rows_with_about_the_same_processor_time_are_comparable():
    assert describe_unequal({"a": 0.99, "b": 0.8, "c": None}) is None
    assert describe_unequal({}) is None and describe_unequal({"a": 0.0}) is None
    assert "b (78%" in str(describe_unequal({"a": 0.99, "b": 0.78, "c": None}))


@pytest.mark.slow
def test_the_interval_of_a_difference_is_that_of_a_bootstrap_over_texts():
    texts = [f"{n} times {n} is {n * n}, and {n * 7919 % 1000} more" for n in range(500)]
    whole, row, _ = reviewgen.ablate("ngram-char", texts, settings={"model": {"order": 4}})
    nats = []
    for smoothing in ("kneser-ney", "witten-bell"):
        settings = {"order": 4, "smoothing": smoothing}
        model = reviewgen.train("ngram-char", texts, model=settings, progress=False)
        held_out = [
            each["text"]
            for each in reviewgen.corpus(texts)
            if each["split"] == 2  # the test texts
        ]
        nats.append([model.score(text).bits * math.log(2) for text in held_out])
    characters = np.array([len(text) for text in held_out])
    differences = (np.array(nats[1]) - np.array(nats[0])) / math.log(2)
    assert row.gain == pytest.approx(differences.sum() / characters.sum(), rel=1e-5)
    draws = np.random.default_rng(0).integers(len(held_out), size=(20_000, len(held_out)))
    resampled = differences[draws].sum(axis=1) / characters[draws].sum(axis=1)
    low, high = np.percentile(resampled, [2.5, 97.5])
    assert row.gain_interval == pytest.approx((low, high), abs=0.12 * (high - low))
    assert row.is_better is (None if low < 0 < high else bool(high < 0))
    assert whole.gain is None and whole.is_better is None


def test_what_a_full_disk_has_left_of_a_trial_is_no_part_of_the_file(tmp_path):
    def opened(**how: bool) -> TrialStore:
        store = TrialStore("sweep", tmp_path / "swept", **how)
        store.identify({"seed": 0})
        return store

    store = opened()
    store.add("first", {"bits": math.inf})
    complete = len(json.dumps({"kind": "sweep", "seed": 0})) + 60
    with largest_file(complete), pytest.raises(StorageError, match=r"No (room|space)|too large"):
        store.add("second", {"bits": 2.0, "name": "x" * 100})
    assert "second" not in store.results
    store.add("third", {"bits": 3.0})
    assert opened(resume=True).results == {"first": {"bits": math.inf}, "third": {"bits": 3.0}}


def test_trials_of_the_same_settings_have_names_and_settings_of_their_own(tmp_path):
    given: Any = {"out": tmp_path / "swept", "resume": True, "steps": 1}
    list(reviewgen.sweep("ngram-char", TEXTS, "model.order", [2, 3], **given))
    rows = reviewgen.sweep("ngram-char", TEXTS, "model.smoothing", ["kneser-ney"], **given)
    [row] = rows
    assert row.settings == {"model.smoothing": "kneser-ney"} and row.name == "smoothing=kneser-ney"
