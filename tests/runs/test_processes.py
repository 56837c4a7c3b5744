"""Several processes train one model: as one process with all their lanes; they stop together, and
one reports an error.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import reviewgen
from reviewgen.errors import OutputExists, ProcessLost, TrainingError
from reviewgen.registry.plugins import find_model
from tests.runs.test_abilities import Gate, Smoothed, ZLoss
from tests.support.fakes import TEXTS
from tests.support.forked import run_group
from tests.support.launches import CPU, launch, made_once
from tests.support.trainings import ready

ROOT = str(Path(__file__).parents[2])
METRICS = ["distinct-1", "new-words"]
GRU = {"hidden_size": 12, "embedding_size": 6, "layer": "fused"}
TRAINING = {
    "bptt": 16,
    "precision": "no",
    "threads": 1,
    "evaluations": 4,
    "evaluation_tokens": 500,
    "learning_rate": 0.005,
}

ALIKE: dict[str, dict[str, Any]] = {
    "accumulated": {"steps": 5, "training": {"gradient_accumulation_steps": 2}},
    "tables": {"model": GRU | {"ngrams": 3}, "steps": 12, "training": {"optimizer": "adamw"}},
    "random lengths": {"steps": 12, "training": {"bptt_random": True}},
    "few texts": {
        "source": TEXTS[:3],
        "validation": TEXTS[3:9],
        "steps": 6,
        "training": {"batch_size": 6},
    },
    "own term": {
        "preset": "zloss-char",
        "model": {},
        "steps": 12,
        "training": {"metrics": METRICS, "copy_tokens": 200},
    },
    "own loss": {"preset": "smoothed-char", "model": {}, "steps": 12},
}
"""Trainings in which two processes do what one does with all their lanes."""


class Spy(find_model("gru")[0]):  # type: ignore[misc]
    """A GRU that keeps the ids that it is trained on; a test may change what it does in a training
    step.
    """

    ids: list[list[list[int]]] = []  # noqa: RUF012  of the class: runs are watched from outside

    @staticmethod
    def on_step(logits: Tensor) -> Tensor:
        return logits

    def forward(self, ids: Tensor, state: Any) -> tuple[Tensor, Any]:
        logits, new_state = super().forward(ids, state)
        if not self.training:
            return logits, new_state
        Spy.ids.append(ids.tolist())
        return Spy.on_step(logits), new_state


def register() -> None:
    for name, kind in {"spy": Spy, "gate": Gate, "zloss": ZLoss, "smoothed": Smoothed}.items():
        reviewgen.register_model(name, kind)


@pytest.fixture(autouse=True)
def registered(untouched_registry: None) -> None:
    register()


def train(
    preset: str = "spy-char",
    source: Any = TEXTS,
    watch: Callable[[Any], object] = id,
    lanes: int = 3,
    **options: Any,
) -> dict[str, Any]:
    """Train, and return the reports and the final weights as JSON values."""
    training = TRAINING | {"batch_size": lanes} | options.pop("training", {})
    Spy.ids.clear()
    options = {"model": GRU, "training": training} | options
    facts: dict[str, Any] = {
        "losses": [],
        "terms": [],
        "bits": [],
        "metrics": [],
        "error": None,
        "weights": {},
    }
    try:
        run = ready(preset, source, **options)
        for report in run:
            facts["losses"].append(report.nats_per_token)
            facts["terms"].append({name: float(value) for name, value in report.losses.items()})
            if report.evaluation is not None:
                facts["bits"].append(report.evaluation.bits_per_character)
                facts["metrics"].append(dict(report.metrics))
            facts |= {"stopped": report.stopped, "notes": report.notes, "tokens": report.tokens}
            watch(report)
        facts["weights"] = {
            name: tensor.tolist() for name, tensor in run.model.state_dict().items()
        }
        facts["config"] = str(run.model.config)  # of a blend, also the weights of its models
        if "out" in options:
            run.finish()
    except (KeyboardInterrupt, TrainingError, ZeroDivisionError) as problem:
        facts["error"] = f"{type(problem).__name__}: {problem}"
        if facts["losses"]:
            facts["weights"] = {
                name: tensor.tolist() for name, tensor in run.model.state_dict().items()
            }
    facts["ids"] = Spy.ids[:]
    return facts


def assert_alike(ranks: list[dict[str, Any]], one: dict[str, Any]) -> None:
    """Check that two processes have done what one does."""
    first, second = ranks
    assert (
        first["weights"] == second["weights"]
        and first["losses"] == second["losses"]
        and first["terms"] == second["terms"]
    )
    assert (
        first["losses"] == pytest.approx(one["losses"], abs=1e-4)
        and first["tokens"] == one["tokens"]
    )
    assert first["bits"] == second["bits"] == pytest.approx(one["bits"], abs=1e-4)
    for terms, expected in zip(first["terms"], one["terms"], strict=True):
        assert terms == pytest.approx(expected, abs=1e-4)
    for name, weights in one["weights"].items():
        torch.testing.assert_close(
            torch.tensor(first["weights"][name]), torch.tensor(weights), rtol=0, atol=1e-4
        )


SMOKE = """
import json, os
from tests.runs.test_processes import register, train
register()
with open(f"{os.environ['RANK']}.json", "w") as file:
    json.dump(train(epochs=1, out="both"), file)
"""


def test_two_processes_train_as_one_with_all_their_lanes(tmp_path):
    group = run_group(["-c", SMOKE], 2, cwd=tmp_path, env=os.environ | CPU | {"PYTHONPATH": ROOT})
    assert [done.returncode for done in group] == [0, 0], [done.stderr for done in group]
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    one = train(epochs=1, lanes=6, out=tmp_path / "one")
    assert_alike(ranks, one)
    both = [
        one_batch + other for one_batch, other in zip(ranks[0]["ids"], ranks[1]["ids"], strict=True)
    ]
    assert both == one["ids"] and ranks[0]["ids"][0] != ranks[1]["ids"][0]
    model, alone = (reviewgen.load(tmp_path / name) for name in ("both", "one"))
    greedy: dict[str, Any] = {"do_sample": False, "max_new_tokens": 30, "words": "any"}
    assert model.generate_one(**greedy) == alone.generate_one(**greedy)
    assert model.score(TEXTS[0]).bits == pytest.approx(alone.score(TEXTS[0]).bits, rel=1e-3)
    assert {file.name for file in (tmp_path / "both").iterdir()} == {
        file.name for file in (tmp_path / "one").iterdir()
    }
    assert model.training["steps"] == alone.training["steps"] == len(one["losses"])


SCRIPT = """
import itertools, json, os, signal, sys
from reviewgen.cli import main
from tests.runs.test_processes import ALIKE, GRU, TEXTS, TRAINING, Spy, ready, register, train

register()
is_other, facts = os.environ["RANK"] == "1", {}
for name, options in ALIKE.items():
    if "batch_size" in options.get("training", {}):
        options = options | {"training": {"batch_size": options["training"]["batch_size"] // 2}}
    facts[name] = train(**options, **({"out": "own"} if name == "own term" else {}))

blend = {"model": GRU | {"order": 3}, "training": {"copy_tokens": 0}, "steps": 20}
facts["blend"] = train("blend-word", **blend)
run = ready("lstm-char", TEXTS, budget=60.0, training={"evaluations": 1, "copy_tokens": 0})
steps = [report.step for report in itertools.takewhile(lambda report: report.step < 3, run)]
config = run.record.training
facts["sized"] = [run.model.config.hidden_size, config.batch_size, config.bptt, steps]
del run
early = {"learning_rate": 10.0, "patience": 2, "evaluations": 200}
facts["early"] = train(steps=200, training=early)
facts["different"] = train(steps=5, seed=int(is_other))
Spy.on_step = lambda logits: logits * (float("nan") if is_other and len(Spy.ids) > 8 else 1)
facts["nan"] = train(steps=40, training={"evaluations": 10})
Spy.on_step = lambda logits: logits
signal.signal(signal.SIGTERM, signal.default_int_handler)
def interrupt(report):
    if is_other and report.step == 9:
        os.kill(os.getpid(), signal.SIGTERM)


def fail(report):
    if is_other and report.step >= 9:
        raise ZeroDivisionError


facts["interrupted"] = train(steps=40, watch=interrupt, training={"evaluations": 10})
facts["failed"] = train(steps=40, watch=fail, training={"evaluations": 10})
with open(f"{os.environ['RANK']}.json", "w") as file:
    json.dump(facts, file)

def kill(logits):
    if is_other and len(Spy.ids) > 20:
        os.kill(os.getpid(), signal.SIGKILL)
    return logits

Spy.on_step = kill
Spy.ids.clear()
settings = {f"training.{name}": value for name, value in TRAINING.items()}
settings["training.evaluations"] = 20
settings |= {f"model.{name}": value for name, value in GRU.items()}
sys.argv = "reviewgen train spy-char --data reviews.txt --out killed --steps 40".split()
sys.argv += [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
main()
"""


@pytest.fixture(scope="module")
def launched(tmp_path_factory) -> Any:
    """Run the script in two processes; return what each of them has written."""
    folder = made_once(tmp_path_factory, "processes", _launch)
    ranks = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]
    return SimpleNamespace(folder=folder, ranks=ranks, status=int((folder / "status").read_text()))


def _launch(folder: Path) -> None:
    (folder / "reviews.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    (folder / "script.py").write_text(SCRIPT, encoding="utf-8")
    done = launch(2, folder, "script.py", env={"PYTHONPATH": ROOT})
    assert (folder / "1.json").exists(), done.stderr
    (folder / "status").write_text(str(done.returncode))


@pytest.mark.launch
@pytest.mark.parametrize("name", ALIKE)
def test_processes_train_as_one(name, launched):
    options = ALIKE[name] | {"lanes": 6}
    ranks = [facts[name] for facts in launched.ranks]
    one = train(**options)
    assert_alike(ranks, one)
    if name == "own term":
        other = train(**(options | {"preset": "gate-char"}))
        differences = torch.tensor(other["weights"]["output.weight"]) - torch.tensor(
            ranks[0]["weights"]["output.weight"]
        )
        assert differences.abs().max() > 1e-3, "without its term the model becomes another"
        metrics = [facts["own term"]["metrics"] for facts in launched.ranks]
        assert metrics[0] == metrics[1] and len(metrics[0]) >= 4
        assert all(each.keys() == set(METRICS) and None not in each.values() for each in metrics[0])
        training = json.loads((launched.folder / "own" / "training.json").read_text())
        assert [at["metrics"] for at in training["evaluations"]] == metrics[0]


@pytest.mark.launch
def test_the_main_process_chooses_for_all(launched):
    first, second = launched.ranks
    assert first["sized"] == second["sized"] and first["sized"][-1] == [1, 2]
    assert all(
        first["blend"][key] == second["blend"][key]
        for key in ("weights", "config", "bits", "error")
    )
    assert first["blend"]["error"] is None


@pytest.mark.launch
@pytest.mark.parametrize(
    "name, stopped, most",
    [
        ("early", "early: no more gain on held-out text", 200),
        ("nan", "diverged", 40),
        ("interrupted", None, 40),
    ],
)
def test_all_stop_at_the_same_step(launched, name, stopped, most):
    first, second = (facts[name] for facts in launched.ranks)
    assert first["stopped"] == second["stopped"] == stopped
    assert str(first["losses"]) == str(second["losses"]) and first["bits"] == second["bits"]
    assert first["weights"] == second["weights"] and first["error"] == second["error"]
    assert len(first["losses"]) < most


@pytest.mark.launch
def test_a_divergence_names_the_step(launched):
    assert "step 9" in launched.ranks[0]["nan"]["notes"][0]


@pytest.mark.launch
def test_an_interrupt_ends_the_step_of_all(launched):
    facts = launched.ranks[0]["interrupted"]
    assert facts["error"].startswith("KeyboardInterrupt") and len(facts["losses"]) == 9


@pytest.mark.launch
def test_a_process_that_fails_ends_the_training_of_all_with_the_best_weights(launched):
    first, second = (facts["failed"] for facts in launched.ranks)
    assert second["error"].startswith("ZeroDivisionError") and second["stopped"] is None
    assert first["error"] is None and first["stopped"] == "another process ended"
    assert (
        "Another process has ended" in first["notes"][0]
        and "Kept: the best weights so far" in first["notes"][0]
    )
    assert len(first["losses"]) == 10 and first["weights"] == second["weights"], (
        "nine steps, and the report of the end"
    )


@pytest.mark.launch
def test_processes_of_different_settings_are_refused(launched):
    first, second = (facts["different"] for facts in launched.ranks)
    assert first["error"].startswith(
        "TrainingError: The processes have different settings: the seed."
    )
    assert second["error"].startswith("ProcessLost: ") and first["losses"] == second["losses"] == []
    assert launched.status != 0


@pytest.mark.launch
def test_a_model_is_saved_when_another_process_is_killed(launched):
    model = reviewgen.load(launched.folder / "killed")
    # or the launcher was faster
    assert model.training["stopped"] in ("another process ended", "interrupted")
    assert 0 < len(model.training["evaluations"]) < 20 and model.generate_one(seed=1)


# ``accelerate launch --max_restarts``: a process that is killed restarts the job, which resumes by
# itself.

RESTARTED = """
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
    sys.argv[1:] = ["train", preset, "--data", "reviews.txt", "--out", out]
    if preset == "spy-char":
        sys.argv += ["--steps", "30"]
    if out == "whole":
        sys.argv.append("--overwrite")
    for name, value in settings.items():
        group = "model" if name in GRU or name == "order" else "training"
        sys.argv += ["--set", f"{group}.{name}={value}"]
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
def kill_later():
    time.sleep(0.05)
    kill_at(12, Spy.ids, 1)


command("spy-char", "resumed", kill_later, checkpoint_seconds=1e-9, **own)
Ngram.observe = counted
command("ngram-char", "ngram", int, order=4, novelty="none")
"""


@pytest.fixture(scope="module")
def restarted(tmp_path_factory) -> Path:
    """The folder of a job of two processes, one of which was killed three times."""
    return made_once(tmp_path_factory, "restarted", restart)


def restart(tmp_path: Path) -> None:
    (tmp_path / "reviews.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    (tmp_path / "script.py").write_text(RESTARTED, encoding="utf-8")
    # which is replaced
    reviewgen.train("ngram-char", TEXTS, training={"copy_tokens": 0}, out=tmp_path / "whole")
    # else it finds addresses of the ended ones
    own = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "PYTHONPATH": ROOT}
    done = launch(
        2,
        tmp_path,
        "--max_restarts",
        "3",
        "--rdzv_backend",
        "c10d",
        "script.py",
        env=own,
        timeout=400,
    )
    (tmp_path / "said.txt").write_text(done.stderr, encoding="utf-8")
    assert done.returncode == 0, done.stderr


@pytest.mark.launch
def test_a_job_with_a_killed_process_is_restarted_and_resumes(restarted):
    said = (restarted / "said.txt").read_text(encoding="utf-8")
    assert not list(restarted.glob("*.partial"))
    assert "No checkpoint was saved yet, so the same command starts from the beginning." in said
    assert said.count("whole was saved before") == 2, "after the second restart and the third"
    assert said.count("resumed was saved before") == 1
    assert said.count("The run resumes from step") == 1


@pytest.mark.launch
def test_a_resumed_job_makes_the_model_of_one_that_was_not_killed(restarted):
    one = restarted / "whole"
    two = restarted / "resumed"
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
    curves = [
        json.loads((each / "training.json").read_text())["evaluations"] for each in (one, two)
    ]
    bits = [[at["bits_per_character"] for at in curve] for curve in curves]
    assert bits[0] == bits[1] and len(bits[0]) > 2


@pytest.mark.launch
def test_a_restarted_count_is_that_of_one_process(restarted, tmp_path):
    options = {"model": {"order": 4}, "training": {"novelty": "none"}, "out": tmp_path / "counted"}
    reviewgen.train("ngram-char", TEXTS, **options)
    counted, ngram = (
        (folder / "model.safetensors").read_bytes()
        for folder in (tmp_path / "counted", restarted / "ngram")
    )
    assert ngram == counted


def test_a_saved_model_of_the_same_run_is_used_and_another_is_in_the_way(tmp_path, monkeypatch):
    options: dict[str, Any] = {
        "out": tmp_path / "model",
        "training": {"novelty": "none", "copy_tokens": 0},
    }

    def count(texts: Any = TEXTS, order: int = 3) -> Any:
        return reviewgen.train("ngram-char", texts, model={"order": order}, **options)

    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "1")
    trained = count().score(TEXTS[0])
    assert count().score(TEXTS[0]) == trained
    for texts, order in (TEXTS, 2), ([*TEXTS, "Another text."], 3):
        with pytest.raises(OutputExists, match="already exists"):
            count(texts, order)
    run = ready("ngram-char", TEXTS, out=tmp_path / "other")
    with pytest.raises(ProcessLost, match="termination signal"):  # wherever the interrupt has come
        run.interrupt()
    monkeypatch.delenv("TORCHELASTIC_MAX_RESTARTS")
    with pytest.raises(OutputExists, match="already exists"):
        count()
