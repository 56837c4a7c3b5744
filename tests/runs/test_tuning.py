"""The search for settings: what is searched, that it finds the optimum of a known function, that it
resumes, the command.

Most searches train ``Peak``, a counted model whose bits per character depend on its settings in a
known way.
"""

import functools
import json
import math
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import reviewgen
from reviewgen import best_trial
from reviewgen.errors import CheckpointError, ConfigError, TrainingError
from reviewgen.registry.plugins import find_preset
from reviewgen.runs.tune import TuneTrial
from tests.support.fakes import TEXTS, TableModel, raising
from tests.support.trainings import ready

NETWORK = {
    "model": {"hidden_size": 8, "embedding_size": 4, "layer": "fused"},
    "training": {
        "batch_size": 4,
        "bptt": 16,
        "threads": 1,
        "precision": "no",
        "evaluations": 2,
        "evaluation_tokens": 400,
    },
}
SHARPNESS = {"model.sharpness": "1e-6:1"}
RATE = "training.learning_rate"


@dataclass(frozen=True, kw_only=True)
class PeakConfig:
    """The settings of ``Peak``."""

    vocab_size: int
    sharpness: float = 0.5
    size: int = 80
    steps: tuple[int, ...] = ()


class Peak(TableModel):
    """The frequencies of tokens, flatter the further the sharpness is from 0.01 and the size from
    64.
    """

    Config = PeakConfig
    on_finish = staticmethod(lambda config: None)  # a test may raise an error here

    def __init__(self, config: PeakConfig) -> None:
        super().__init__(torch.ones(config.vocab_size, config.vocab_size))
        self.config: Any = config

    def observe(self, ids: np.ndarray) -> None:
        self.table += torch.bincount(
            torch.from_numpy(ids.astype(np.int64)), minlength=len(self.table)
        )

    def finish(self) -> dict[str, Any]:
        type(self).on_finish(self.config)
        distance = (math.log10(self.config.sharpness) + 2) ** 2 + (
            (self.config.size - 64) / 128
        ) ** 2
        self.table = self.table.log() * math.exp(-distance)
        return {}


@pytest.fixture(autouse=True)
def registered(untouched_registry: None) -> None:
    reviewgen.register_model("peak", Peak)


def search(trials: int, **options: Any) -> list[TuneTrial]:
    given = {"start": "peak-char", "source": TEXTS, "trials": trials, "search": SHARPNESS}
    return list(reviewgen.tune(**(given | options)))


def timeless(tried: list[TuneTrial]) -> list[TuneTrial]:
    return [replace(trial, seconds=0) for trial in tried]


def searched(start: Any, folder: Path, **options: Any) -> dict[str, Any]:
    """Return the distribution of each setting, as optuna reads it from the file of a search whose
    trial fails before it trains.
    """
    from optuna.distributions import json_to_distribution

    file = folder / f"{len(list(folder.iterdir()))}.jsonl"
    settings = options.pop("settings", {}) | {"training": {"precision": "fp16", "device": "cpu"}}
    next(
        reviewgen.tune(start, TEXTS, trials=1, storage=file, settings=settings, steps=1, **options)
    )
    facts = json.loads(file.read_text(encoding="utf-8").splitlines()[0])
    return {
        name: json_to_distribution(json.dumps(distribution))
        for name, distribution in facts["search"].items()
    }


def test_the_default_space_lies_around_the_settings_of_the_preset(tmp_path, micro):
    from optuna.distributions import FloatDistribution, IntDistribution

    rate = find_preset("lstm-char").training_settings["learning_rate"]
    assert searched("lstm-char", tmp_path) == {
        "training.learning_rate": FloatDistribution(rate / 8, rate * 4, log=True),
        "model.hidden_size": IntDistribution(160, 640, step=80),
        "model.output_dropout": FloatDistribution(0.0, 0.5),
    }
    order = find_preset("ngram-char").model_settings.get("order", 6)
    space = searched("ngram-char", tmp_path)
    assert space == {"model.order": IntDistribution(max(1, order - 2), order + 4)}
    fixed = searched("gru-char", tmp_path, settings={"model": {"hidden_size": 8}})
    assert set(fixed) == {"training.learning_rate", "model.output_dropout"}
    assert set(searched(micro("rnn-char"), tmp_path)) == {
        "training.learning_rate",
        "model.output_dropout",
    }, "it keeps its size"
    with pytest.raises(ConfigError, match="Nothing is left"):
        reviewgen.tune("ngram-char", TEXTS, settings={"model": {"order": 3}})


def test_ranges_and_lists_as_a_user_types_them(tmp_path):
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    typed: dict[str, tuple[Any, Any]] = {
        "training.learning_rate": ("1e-4:1e-2", FloatDistribution(1e-4, 1e-2, log=True)),
        "training.warmup": ("0.1:0.2", FloatDistribution(0.1, 0.2)),
        "training.evaluations": ((1, 40), IntDistribution(1, 40, log=True)),
        "model.hidden_size": ("4:12", IntDistribution(4, 12)),
        "model.tied": (["true", False], CategoricalDistribution((True, False))),
        "model.layer": ("fused,reference", CategoricalDistribution(("fused", "reference"))),
    }
    space = searched(
        "gru-char", tmp_path, search={name: value for name, (value, _) in typed.items()}
    )
    assert space == {name: distribution for name, (_, distribution) in typed.items()}


def test_a_wrong_search_is_refused_before_any_work():
    fixed = {"model": {"hidden_size": 8}}
    refused: list[tuple[dict[str, Any], str]] = [
        ({"trials": 0}, "trials must be"),
        ({"search": {"model.hidden_size": "8:16"}, "settings": fixed}, "both set and varied"),
        ({"out": "somewhere"}, "not an argument of tune"),
    ]
    for options, word in refused:
        with pytest.raises(reviewgen.ReviewgenError, match=word):
            reviewgen.tune(**({"start": "gru-char", "source": "no such file.csv"} | options))


@functools.cache
def tried_once() -> list[Any]:
    return search(36, search=SHARPNESS | {"model.size": "16:144"})


def test_suggestions_learn_from_earlier_trials():
    """Random values of the sharpness are 1.67 orders of magnitude from the best one, on average."""
    tried = tried_once()
    off = [abs(math.log10(trial.settings["model.sharpness"]) + 2) for trial in tried]
    assert np.mean(off[:6]) > 1.0 and np.mean(off[-15:]) < 0.95 and min(off) < 0.3
    assert off[best_trial(tried).number] < 0.4


def test_the_first_trial_has_the_settings_of_the_model():
    tried = tried_once()
    assert tried[0].settings == {"model.sharpness": 0.5, "model.size": 80}


def test_suggestions_are_within_their_ranges():
    tried = tried_once()
    assert [trial.number for trial in tried] == list(range(36))
    for trial in tried:
        sharpness, size = trial.settings.values()
        assert 1e-6 <= sharpness <= 1 and sharpness == float(f"{sharpness:.3g}")
        assert isinstance(size, int) and 16 <= size <= 144


def test_a_trial_is_the_training_with_its_settings():
    training = NETWORK["training"] | {"calibration": False}
    fixed = {"model": {"embedding_size": 4}, "training": training}
    space = {"model.hidden_size": "4:12", RATE: "1e-3:3e-2"}
    for trial in search(2, start="rnn-char", settings=fixed, search=space, seed=5, steps=12):
        groups = {group: dict(values) for group, values in fixed.items()}
        for name, value in trial.settings.items():
            groups[name.partition(".")[0]][name.partition(".")[2]] = value
        reports = list(ready("rnn-char", TEXTS, **groups, seed=5, steps=12))
        bits = min(report.evaluation.bits_per_character for report in reports if report.evaluation)
        assert (trial.bits, trial.steps) == (pytest.approx(bits), reports[-1].step)
        assert trial.outcome == "done" and trial.problem is None and trial.seconds > 0


def test_hopeless_trials_are_stopped_early():
    settings = NETWORK | {"training": NETWORK["training"] | {"evaluations": 10, "patience": 99}}
    options = {"settings": settings, "steps": 30, "search": {RATE: [1e-6, 2e-6, 2e-2]}}
    tried = search(12, start="rnn-char", **options)
    stopped = [trial for trial in tried if trial.outcome == "pruned"]
    assert stopped and all(trial.settings[RATE] < 1e-3 and trial.steps < 30 for trial in stopped)
    assert all(trial.number >= 6 and trial.steps >= 12 for trial in stopped), (
        "not before there is something to compare with"
    )
    assert best_trial(tried).settings[RATE] == 2e-2
    assert max(trial.bits or 0 for trial in tried) > (best_trial(tried).bits or 9) + 1


def test_trials_that_diverge_have_failed_and_the_search_goes_on(monkeypatch):
    def diverge(config: PeakConfig) -> None:
        if config.sharpness > 0.1:
            raise TrainingError("The loss is nan at step 3.")

    monkeypatch.setattr(Peak, "on_finish", staticmethod(diverge))
    tried = search(5, search={"model.sharpness": [1e-4, 1.0]})
    outcomes = {
        (trial.settings["model.sharpness"], trial.outcome, trial.problem) for trial in tried
    }
    assert outcomes == {(1e-4, "done", None), (1.0, "failed", "The loss is nan at step 3.")}
    assert best_trial(tried).settings["model.sharpness"] == 1e-4
    with pytest.raises(TrainingError, match="None of 2 trials gave a model: The loss is nan"):
        best_trial(search(2, search={"model.sharpness": [1.0]}))


def test_an_interrupted_search_resumes_as_if_nothing_had_happened(tmp_path, monkeypatch):
    whole = search(9)
    file = tmp_path / "trials.jsonl"
    assert [trial.settings for trial in whole[1:]] != [
        trial.settings for trial in search(9, seed=1)[1:]
    ]
    running = reviewgen.tune("peak-char", TEXTS, trials=9, search=SHARPNESS, storage=file)
    first = [next(running) for _ in range(7)]

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Peak, "on_finish", staticmethod(raising(KeyboardInterrupt())))
        next(running)
    with file.open("a", encoding="utf-8") as lines:
        lines.write('{"trial": "tri')  # of a process that was killed while it wrote
    again = search(9, storage=file)
    assert timeless(again) == timeless(whole) and again[:7] == first
    assert search(3, storage=file) == again[:3]


def test_a_file_of_another_search_is_refused_and_kept(tmp_path):
    file = tmp_path / "trials.jsonl"
    before = search(1, storage=file, steps=4)
    changes: dict[str, Any] = {
        r"seed \(0, not 3\)": {"seed": 3},
        r"budget.steps \(4, not 5\)": {"steps": 5},
        "search ": {"search": {"model.sharpness": "1e-6:2"}},
    }
    for difference, change in changes.items():
        with pytest.raises(CheckpointError, match=f"holds trials with another {difference}"):
            search(1, **({"steps": 4, "storage": file} | change))
    assert search(1, storage=file, steps=4) == before


def test_a_file_of_an_older_version_is_refused_and_kept(tmp_path):
    file = tmp_path / "trials.jsonl"
    line = '{"op_code": 0, "worker_id": "1", "study_name": "reviewgen", "directions": [1]}\n'
    file.write_text(line, encoding="utf-8")
    with pytest.raises(CheckpointError, match="holds no search that can be resumed"):
        reviewgen.tune("peak-char", TEXTS, search=SHARPNESS, storage=file)
    assert file.read_text(encoding="utf-8") == line


@pytest.fixture
def words(tmp_path, monkeypatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    Path("my reviews.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    rates = ["--search", "model.sharpness=1e-6:1", "--set", "model.size=64"]
    return ["tune", "peak-char", "--data", "my reviews.txt", "--trials", "3", *rates]


@pytest.mark.slow
def test_a_setting_that_is_a_list_is_not_swept(words, run_command):
    swept = [
        "sweep",
        *words[1:4],
        "--set",
        "model.steps=1,2",
        "--set",
        "model.size=64,80",
        "--json",
    ]
    status, out, err = run_command(*swept, "--set", "training.copy_tokens=0")
    assert status == 0, err
    assert json.loads(out)["setting"] == "model.size"
    status, _, err = run_command(*swept[:6], "--json")
    assert status == 0, "a list that is the only setting is swept, as each other one is"


@pytest.mark.slow
def test_the_command_prints_a_table_and_the_command_that_trains(words, run_command):
    status, out, err = run_command(*words, "--lowercase")
    assert status == 0, err
    lines = out.splitlines()
    assert lines[0].split() == ["trial", "sharpness", "bits/char", "steps", "seconds", "outcome"]
    assert [line.split()[0] for line in lines[1:4]] == ["0", "1", "2"]
    best = best_trial(search(3, settings={"model": {"size": 64}}, lowercase=True))
    assert f"trial {best.number}, {best.bits:.4f} bits" in lines[4]
    command = shlex.split(lines[5])
    assert command[:3] == ["reviewgen", "train", "peak-char"] and command[-2:] == [
        "--out",
        "my-model",
    ]
    trained = json.loads(run_command(*command[1:], "--json")[1])
    assert trained["evaluations"][-1]["bits_per_character"] == pytest.approx(best.bits)
    assert trained["data"]["lowercase"] is True
