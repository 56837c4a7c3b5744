"""Counting in several processes: together they make the model of one process, print once, and wait for nobody in vain."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import reviewgen
from reviewgen import TrainingRun
from reviewgen.data import TokenStore
from reviewgen.errors import TrainingError
from reviewgen.evaluation.metrics import Metrics
from reviewgen.training import counting
from reviewgen.training.evaluator import EvaluationResult, Evaluator
from tests.support.fakes import TEXTS, TableModel
from tests.support.forked import run_group

SCRIPT = """
import dataclasses, hashlib, json, os, sys, time
from reviewgen.cli import main

corpus, out = sys.argv[1:]
sys.argv = ["reviewgen", "train", "ngram-char", "--data", corpus, "--out", out, "--json"]
try:
    main()
except SystemExit as end:
    assert not end.code

# Again, and the second process is slow: time is up when it has seen a part of its texts. And a network, by two clocks.
from reviewgen import TrainingRun
from reviewgen.runs.plan import RunLength
from reviewgen_ngram.model import Ngram

def shorten(run, seconds):
    plan = dataclasses.replace(run._fit.plan, length=RunLength(seconds=seconds))
    run._fit = dataclasses.replace(run._fit, plan=plan, started=time.monotonic())

run = TrainingRun("ngram-char", corpus, budget=600)
run.read()
run.tokenize()
observe = Ngram.observe
if os.environ["RANK"] == "1":
    Ngram.observe = lambda self, ids: (time.sleep(0.05), observe(self, ids))[1]
shorten(run, 0.5)
(*_, last) = run
small = {"model": {"hidden_size": 8, "embedding_size": 4}, "training": {"batch_size": 4, "patience": 1000}}
network = TrainingRun("rnn-char", corpus, budget=600, **small)
network.read()
network.tokenize()
shorten(network, 1.0 + float(os.environ["RANK"]))
(*_, end) = network

def digest(model):
    weights = {name: tensor.tolist() for name, tensor in model.state_dict().items()}
    return hashlib.sha256(json.dumps(weights, sort_keys=True).encode()).hexdigest()

facts = {"rank": os.environ["RANK"], "steps": last.step, "tokens": last.tokens, "stopped": last.stopped}
facts |= {"weights": digest(run.model), "network": digest(network.model), "network steps": end.step}
with open(f"{out}.{os.environ['RANK']}.json", "w") as file:
    json.dump(facts, file)
"""


def test_two_processes_make_the_model_of_one(tmp_path: Path) -> None:
    (tmp_path / "reviews.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    env = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    group = run_group(["-c", SCRIPT, "reviews.txt", "both"], 2, cwd=tmp_path, env=env)
    said = "".join(done.stderr for done in group)
    assert [done.returncode for done in group] == [0, 0], said
    assert said.count("Read 60 reviews") == 1 and said.count("(best)") == 1
    facts = json.loads("".join(done.stdout for done in group))  # one object
    one = TrainingRun("ngram-char", str(tmp_path / "reviews.txt"), out=tmp_path / "one")
    one.read()
    one.tokenize()
    *_, last = one
    one.finish()
    assert (tmp_path / "both/model.safetensors").read_bytes() == (tmp_path / "one/model.safetensors").read_bytes()
    assert (tmp_path / "both/novelty.safetensors").read_bytes() == (tmp_path / "one/novelty.safetensors").read_bytes()
    assert facts["steps"] == last.step == len(one.stores["train"])
    assert facts["tokens_seen"] == last.tokens == one.stores["train"].tokens
    assert facts["stopped"] == "all texts counted"
    assert facts["notes"] == one.facts()["notes"] and facts["held_out"] == one.held_out
    assert reviewgen.load(tmp_path / "both").generate_one(seed=1) == reviewgen.load(tmp_path / "one").generate_one(seed=1)
    first, second = (json.loads((tmp_path / f"both.{rank}.json").read_text()) for rank in "01")
    assert first == second | {"rank": "0"}
    assert first["stopped"] == "budget spent" and len(one.stores["train"]) / 2 < first["steps"] < len(one.stores["train"])


class SlowCounter:
    """Counts texts; making its model takes a millisecond of a clock of its own for each token."""

    config = None
    clock = 100.0

    def __init__(self, config: None) -> None:
        self.tokens, self.first = 0, []

    def observe(self, ids: Any) -> None:
        self.tokens += len(ids)
        self.first.append(int(ids[1]))

    def finish(self) -> dict[str, Any]:
        SlowCounter.clock += 0.001 * self.tokens
        return {}


class Store(TokenStore):
    """A thousand texts of ten tokens each, their number."""

    def __init__(self) -> None:
        self._shards, self.offsets = [np.repeat(np.arange(1000), 10)], np.arange(0, 10_001, 10)
        self.conditions, self._maps = None, []


class NoEvaluator(Evaluator):
    """Evaluates nothing."""

    def __init__(self) -> None:
        self.metrics = Metrics()

    def evaluate(self, model: Any, device: str = "cpu") -> EvaluationResult:
        return EvaluationResult(None, None, "", True)

    def notes(self) -> tuple[str, ...]:
        return ()


@pytest.mark.parametrize(("seconds", "texts"), [(60.0, 1000), (6.0, (250, 300)), (2.0, (45, 55)), (-1.0, (1, 1))])
def test_the_texts_counted_in_a_time_leave_room_for_making_the_model(
    monkeypatch: pytest.MonkeyPatch, seconds: float, texts: int | tuple[int, int]
) -> None:
    monkeypatch.setattr(counting, "_WARM_UP_TOKENS", 10)
    monkeypatch.setattr(counting, "_SAMPLE_TOKENS", 500)
    monkeypatch.setattr(counting, "_MIN_SPEED", 10)
    monkeypatch.setattr(counting.time, "monotonic", lambda: SlowCounter.clock)
    model = SlowCounter(None)
    start = SlowCounter.clock
    *_, last = counting.train_by_counting(model, Store(), start + seconds, NoEvaluator())
    assert len(model.first) == last.step and model.tokens == last.tokens
    if isinstance(texts, int):
        assert last.step == texts and last.stopped == "all texts counted"
        return
    assert texts[0] <= last.step <= texts[1] and last.stopped == "budget spent"
    if seconds == 6:
        assert min(model.first) < 50 and max(model.first) > 950  # from all of the corpus
        assert SlowCounter.clock - start <= seconds


def test_counts_that_cannot_be_merged_are_refused_in_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counter(TableModel):
        def observe(self, ids: Any) -> None:
            raise AssertionError

        def finish(self) -> dict[str, Any]:
            return {}

    monkeypatch.setattr(
        counting, "process_state", lambda: SimpleNamespace(num_processes=2, process_index=0, is_main_process=True)
    )
    run = TrainingRun("ngram-char", TEXTS)
    run.read()
    run.tokenize()
    run._fit.model = Counter(torch.zeros(3, 3))
    with pytest.raises(TrainingError, match="Counter cannot merge counts"):
        list(run)


def test_what_is_sent_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    fake = SimpleNamespace(
        send_object_list=lambda objects, *_: sent.append(objects[0]),
        recv_object_list=lambda objects, *_: objects.__setitem__(0, sent.pop(0)),
        send=lambda tensor, *_: sent.append(tensor.clone()),
        recv=lambda tensor, *_: tensor.copy_(sent.pop(0)),
    )
    monkeypatch.setattr(counting, "distributed", fake)
    tensors = {
        "counts": torch.arange(12).view(3, 4).t(),  # not contiguous
        "empty": torch.empty(0, 3, dtype=torch.float32),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "codes": torch.tensor([1, 200], dtype=torch.uint8),
    }
    counting._send(tensors, 1, None)
    found = counting._receive(1, None)
    assert found.keys() == tensors.keys() and sent == []
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype
