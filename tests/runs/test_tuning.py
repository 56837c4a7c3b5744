"""The search for settings: what is searched, that it finds the optimum of a known function, that it resumes, the command.

Most searches train ``Peak``, a counted model whose bits per character depend on its settings in a known way.
"""

import json
import math
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import reviewgen
from reviewgen import TrainingRun
from reviewgen.errors import ConfigError, DataError, NotADistribution, TrainingError
from reviewgen.registry import find_preset, unregister_all
from reviewgen.search import TuneTrial, best_trial
from tests.support.fakes import TEXTS, run_command

NETWORK = {
    "model": {"hidden_size": 8, "embedding_size": 4, "layer": "fused"},
    "training": {"batch_size": 4, "bptt": 16, "threads": 1, "precision": "no", "evaluations": 2, "evaluation_tokens": 400},
}
SHARPNESS = {"model.sharpness": "1e-6:1"}


@dataclass(frozen=True, kw_only=True)
class PeakConfig:
    """The settings of ``Peak``."""

    vocab_size: int
    sharpness: float = 0.5
    size: int = 80


class Peak:
    """The frequencies of tokens, flatter the further the sharpness is from 0.01 and the size from 64."""

    Config = PeakConfig

    def __init__(self, config: PeakConfig) -> None:
        self.config, self.counts = config, torch.ones(config.vocab_size)

    @staticmethod
    def on_finish(config: PeakConfig) -> None:
        """A test may raise an error here."""

    def observe(self, ids: np.ndarray) -> None:
        self.counts += torch.bincount(torch.from_numpy(ids.astype(np.int64)), minlength=self.config.vocab_size)

    def finish(self) -> dict[str, Any]:
        type(self).on_finish(self.config)
        return {}

    def initial_state(self, batch_size: int) -> Tensor:
        return torch.zeros(batch_size, 1)

    def __call__(self, ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        distance = (math.log10(self.config.sharpness) + 2) ** 2 + ((self.config.size - 64) / 128) ** 2
        return (self.counts.log() * math.exp(-distance)).expand(*ids.shape, -1), state

    def state_dict(self) -> dict[str, Tensor]:
        return {"counts": self.counts}

    def load_state_dict(self, tensors: Any) -> None:
        self.counts = tensors["counts"]


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    reviewgen.register_model("peak", Peak)
    yield
    unregister_all()


def search(trials: int, **options: Any) -> list[TuneTrial]:
    given = {"start": "peak-char", "source": TEXTS, "trials": trials, "search": SHARPNESS}
    return list(reviewgen.tune(**(given | options)))


def timeless(tried: list[TuneTrial]) -> list[TuneTrial]:
    return [replace(trial, seconds=0) for trial in tried]


def searched(start: Any, folder: Path, **options: Any) -> dict[str, Any]:
    """Return the distribution of each setting, as optuna's own journal has it of a search whose trial fails before it trains."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    file = folder / f"{len(list(folder.iterdir()))}.jsonl"
    settings = options.pop("settings", {}) | {"training": {"precision": "fp16", "device": "cpu"}}
    next(reviewgen.tune(start, TEXTS, trials=1, storage=file, settings=settings, steps=1, **options))
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(file)))
    return dict(optuna.load_study(study_name="reviewgen", storage=storage).trials[0].distributions)


# What is searched.


def test_the_default_space_lies_around_the_settings_of_the_preset(tmp_path: Path, micro: Any) -> None:
    from optuna.distributions import FloatDistribution, IntDistribution

    rate = find_preset("lstm-char").training_settings["learning_rate"]
    assert searched("lstm-char", tmp_path) == {
        "training.learning_rate": FloatDistribution(rate / 8, rate * 4, log=True),
        "model.hidden_size": IntDistribution(160, 640, step=80),
        "model.output_dropout": FloatDistribution(0.0, 0.5),
    }
    assert set(searched("nnlm-char", tmp_path)) == {"training.learning_rate", "model.hidden_size", "model.dropout"}
    order = find_preset("ngram-char").model_settings.get("order", 6)
    space = searched("ngram-char", tmp_path)
    assert space == {"model.order": IntDistribution(max(1, order - 2), order + 4)}
    fixed = searched("gru-char", tmp_path, settings={"model": {"hidden_size": 8}})
    assert set(fixed) == {"training.learning_rate", "model.output_dropout"}
    assert set(searched(micro("rnn-char"), tmp_path)) == {"training.learning_rate", "model.output_dropout"}, "it keeps its size"
    with pytest.raises(ConfigError, match="hidden_size"):
        reviewgen.tune(micro("rnn-char"), TEXTS, search={"model.hidden_size": "4:16"})
    with pytest.raises(ConfigError, match="Nothing is left"):
        reviewgen.tune("ngram-char", TEXTS, settings={"model": {"order": 3}})


def test_ranges_and_lists_as_a_user_types_them(tmp_path: Path) -> None:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    typed = {"training.learning_rate": "1e-4:1e-2", "model.hidden_size": "4:12", "model.layers": "1, 2"}
    typed |= {"model.tied": ["true", False], "training.evaluations": (1, 40), "model.layer": "fused,reference"}
    typed |= {"training.warmup": "0.1:0.2"}
    assert searched("gru-char", tmp_path, search=typed) == {
        "training.learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
        "model.hidden_size": IntDistribution(4, 12),
        "model.layers": CategoricalDistribution((1, 2)),
        "model.tied": CategoricalDistribution((True, False)),
        "training.evaluations": IntDistribution(1, 40, log=True),
        "model.layer": CategoricalDistribution(("fused", "reference")),
        "training.warmup": FloatDistribution(0.1, 0.2),
    }


RATE = "training.learning_rate"
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"trials": 0}, "trials must be"),
    ({"trials": True}, "trials must be"),
    ({"search": {RATE: "1:0.1"}}, "reversed"),
    ({"search": {RATE: "1:1"}}, "reversed"),
    ({"search": {RATE: "0:0.1"}}, "above 0"),
    ({"search": {RATE: "0.1:99"}}, "at most 10"),
    ({"search": {RATE: "nan:1"}}, "reversed|finite"),
    ({"search": {RATE: "a:b"}}, "number"),
    ({"search": {RATE: "1:2:3"}}, "two numbers"),
    ({"search": {RATE: []}}, "in a range"),
    ({"search": {RATE: 3}}, "in a range"),
    ({"search": {"model.hidden_size": "1.5:3"}}, "whole number"),
    ({"search": {"model.layer": "fused:reference"}}, "two numbers"),
    ({"search": {"model.hiden_size": "1:3"}}, "'hidden_size'"),
    ({"search": {"hidden_size": "1:3"}}, "not a setting"),
    ({"search": {"model.vocab_size": "10:30"}}, "tokenizer"),
    ({"search": {"model.hidden_size": "8:16"}, "settings": {"model": {"hidden_size": 8}}}, "both set and searched"),
    ({"settings": {"modle": {"hidden_size": 8}}}, "'model'"),
    ({"settings": {"model": {"hiden_size": 8}}}, "'hidden_size'"),
    ({"out": "somewhere"}, "no model is saved"),
    ({"budget": "0s"}, "duration"),
    ({"budget": "1s", "steps": 3}, "one of budget"),
    ({"steps": 0}, "steps must be"),
    ({"seed": -1}, "seed"),
    ({"start": "lstm-chra"}, "'lstm-char'"),
]


@pytest.mark.parametrize(("options", "word"), REFUSED, ids=str)
def test_a_wrong_search_is_refused_before_any_work(options: dict[str, Any], word: str) -> None:
    with pytest.raises(reviewgen.ReviewgenError, match=word):
        reviewgen.tune(**({"start": "gru-char", "source": "no such file.csv"} | options))


# The search.


def test_suggestions_learn_from_earlier_trials() -> None:
    """Random values of the sharpness are 1.67 orders of magnitude from the best one, on average."""
    tried = search(36, search=SHARPNESS | {"model.size": "16:144"})
    off = [abs(math.log10(trial.settings["model.sharpness"]) + 2) for trial in tried]
    assert np.mean(off[:6]) > 1.0 and np.mean(off[-15:]) < 0.95 and min(off) < 0.3
    assert off[best_trial(tried).number] < 0.4
    assert tried[0].settings == {"model.sharpness": 0.5, "model.size": 80}, "first, the model's own settings"
    assert [trial.number for trial in tried] == list(range(36))
    for trial in tried:
        sharpness, size = trial.settings.values()
        assert 1e-6 <= sharpness <= 1 and sharpness == float(f"{sharpness:.3g}")
        assert isinstance(size, int) and 16 <= size <= 144


@pytest.mark.parametrize(
    ("preset", "fixed", "options"),
    [
        ("rnn-char", NETWORK | {"model": {"embedding_size": 4}}, {"search": {RATE: "1e-3:3e-2", "model.hidden_size": "4:12"}}),
        ("ngram-char", {}, {"budget": "60s", "search": None}),
        ("ngram-word", {"model": {"order": 2}}, {"search": {"tokenizer.vocab_size": [270], "model.smoothing": "absolute"}}),
    ],
)
def test_a_trial_is_the_training_with_its_settings(preset: str, fixed: Any, options: dict[str, Any]) -> None:
    length = {"steps": 12, "seed": 5} if preset == "rnn-char" else {"seed": 5}
    tried = search(
        1 if "word" in preset else 2, start=preset, settings=fixed, **(options | (length if "budget" not in options else {}))
    )
    for trial in tried:
        groups: dict[str, Any] = {group: dict(fixed.get(group, {})) for group in ("model", "tokenizer", "training")}
        for name, value in trial.settings.items():
            groups[name.partition(".")[0]][name.partition(".")[2]] = value
        run = TrainingRun(preset, TEXTS, **groups, **length)
        run.read()
        run.tokenize()
        reports = list(run)
        bits = min(report.evaluation.bits_per_character for report in reports if report.evaluation)
        assert (trial.bits, trial.steps) == (pytest.approx(bits), reports[-1].step)
        assert trial.outcome == "done" and trial.problem is None and trial.seconds > 0


def test_equal_seeds_give_equal_searches() -> None:
    first, again, other = (search(8, seed=seed) for seed in (1, 1, 2))
    assert timeless(first) == timeless(again)
    assert [trial.settings for trial in first[1:]] != [trial.settings for trial in other[1:]]


def test_hopeless_trials_are_stopped_early() -> None:
    settings = NETWORK | {"training": NETWORK["training"] | {"evaluations": 10, "patience": 99}}
    options = {"settings": settings, "steps": 30, "search": {RATE: [1e-6, 2e-6, 2e-2]}}
    tried = search(12, start="rnn-char", **options)
    stopped = [trial for trial in tried if trial.outcome == "pruned"]
    assert stopped and all(trial.settings[RATE] < 1e-3 and trial.steps < 30 for trial in stopped)
    assert all(trial.number >= 6 and trial.steps >= 12 for trial in stopped), "not before there is something to compare with"
    assert best_trial(tried).settings[RATE] == 2e-2
    assert max(trial.bits or 0 for trial in tried) > (best_trial(tried).bits or 9) + 1


# What goes wrong.


def test_trials_that_diverge_have_failed_and_the_search_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(config: PeakConfig) -> None:
        if config.sharpness > 0.1:
            raise TrainingError("The loss is nan at step 3.")

    monkeypatch.setattr(Peak, "on_finish", staticmethod(diverge))
    tried = search(5, search={"model.sharpness": [1e-4, 1.0]})
    outcomes = {(trial.settings["model.sharpness"], trial.outcome, trial.problem) for trial in tried}
    assert outcomes == {(1e-4, "done", None), (1.0, "failed", "The loss is nan at step 3.")}
    assert best_trial(tried).settings["model.sharpness"] == 1e-4
    with pytest.raises(TrainingError, match="None of 2 trials gave a model: The loss is nan"):
        best_trial(search(2, search={"model.sharpness": [1.0]}))
    with pytest.raises(TrainingError, match="None of 0 trials"):
        best_trial([])


def test_what_cannot_be_tuned_ends_the_search() -> None:
    with pytest.raises(TrainingError, match=r"A budget of 0\.001 s for a trial is too short"):
        search(3, start="rnn-char", settings=NETWORK, search={RATE: "1e-6:1"}, budget=0.001)
    with pytest.raises(NotADistribution, match="nothing to tune by"):
        search(2, start="ngram-char", search=None, settings={"model": {"smoothing": "stupid-backoff"}})
    none = {"model": {"smoothing": "none"}}
    tried = search(2, start="ngram-char", search=None, settings=none, validation=["Quite another text!"])
    assert {trial.outcome for trial in tried} == {"failed"} and "probability zero" in str(tried[0].problem)
    with pytest.raises(DataError, match="no such file"):
        search(1, source="no such file.csv")


def test_optuna_prints_nothing_and_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    search(1)
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "")
    for name in [name for name in sys.modules if name.partition(".")[0] == "optuna"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"pip install 'reviewgen\[tune\]'"):
        reviewgen.tune("gru-char", "no such file.csv")


# A file of trials.


def test_an_interrupted_search_resumes_as_if_nothing_had_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, file = search(9), tmp_path / "trials.jsonl"
    running = reviewgen.tune("peak-char", TEXTS, trials=9, search=SHARPNESS, storage=file)
    first = [next(running) for _ in range(7)]

    def interrupt(_: PeakConfig) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Peak, "on_finish", staticmethod(interrupt))
        next(running)
    with file.open("a", encoding="utf-8") as lines:
        lines.write('{"op_code": 4, "wor')  # of a process that was killed while it wrote
    again = search(9, storage=file)
    assert timeless(again) == timeless(whole) and again[:7] == first
    assert search(3, storage=file) == again[:3]


def test_a_trial_that_a_killed_process_has_left_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file as it is while the fourth trial trains."""
    whole, file, copy = search(5), tmp_path / "trials.jsonl", tmp_path / "copy.jsonl"
    finished: list[PeakConfig] = []

    def copied(config: PeakConfig) -> None:
        finished.append(config)
        if len(finished) == 4:
            copy.write_bytes(file.read_bytes())

    monkeypatch.setattr(Peak, "on_finish", staticmethod(copied))
    search(5, storage=file)
    assert timeless(search(5, storage=copy)) == timeless(whole)
    assert len(finished) == 7


def test_two_searches_in_one_file_at_a_time_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "trials.jsonl"
    with monkeypatch.context() as patched:

        def search_inside(_: PeakConfig) -> None:
            patched.undo()
            assert len(search(2, storage=file)) == 2

        patched.setattr(Peak, "on_finish", staticmethod(search_inside))
        with pytest.raises(TrainingError, match="Another search uses"):
            search(3, storage=file)
    assert len(search(3, storage=file)) == 3


def test_a_file_of_another_search_is_refused_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "trials.jsonl"
    before = search(1, storage=file, steps=4)
    changes: dict[str, Any] = {
        "seed 0, not 3": {"seed": 3},
        "steps 4, not 5": {"steps": 5},
        "search": {"search": {"model.sharpness": "1e-5:1"}},
        "settings": {"settings": {"model": {"size": 4}}},
        "corpus": {"source": TEXTS[1:]},
    }
    for difference, change in changes.items():
        with pytest.raises(ConfigError, match=f"holds another search, of {difference}"):
            search(1, **({"steps": 4, "storage": file} | change))
    assert search(1, storage=file, steps=4) == before


@pytest.mark.parametrize("content", [b"text,stars\nGood,5\n", b"\xff\xfe\x00", b'{"op_code": 99}\n', b"[]\n"], ids=str)
def test_a_file_of_something_else_is_left_alone(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "reviews.csv"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="no search that can be read"):
        search(1, storage=file)
    assert file.read_bytes() == content
    for path in (tmp_path, tmp_path / "nowhere" / "trials.jsonl"):
        with pytest.raises(OSError, match=str(tmp_path)):
            search(1, storage=path)


# The command.


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    Path("my reviews.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    rates = ["--search", "model.sharpness=1e-6:1", "--set", "model.size=64"]
    return ["tune", "peak-char", "--data", "my reviews.txt", "--trials", "3", *rates]


def test_the_command_prints_a_table_and_the_command_that_trains(words: list[str], monkeypatch: Any, capsys: Any) -> None:
    status, out, err = run_command(monkeypatch, capsys, *words, "--lowercase")
    assert status == 0, err
    lines = out.splitlines()
    assert lines[0].split() == ["trial", "sharpness", "bits/char", "steps", "seconds", "outcome"]
    assert [line.split()[0] for line in lines[1:4]] == ["0", "1", "2"]
    best = best_trial(search(3, settings={"model": {"size": 64}}, lowercase=True))
    assert f"trial {best.number}, {best.bits:.4f} bits" in lines[4]
    command = shlex.split(lines[5])
    assert command[:3] == ["reviewgen", "train", "peak-char"] and command[-2:] == ["--out", "my-model"]
    status, out, err = run_command(monkeypatch, capsys, *command[1:], "--json")
    assert status == 0, err
    trained = json.loads(out)
    assert trained["evaluations"][-1]["bits_per_character"] == pytest.approx(best.bits)
    assert trained["data"]["lowercase"] is True


def test_the_command_starts_from_a_model_and_prints_json(
    words: list[str], model_folder: Any, monkeypatch: Any, capsys: Any
) -> None:
    base = model_folder("rnn-char")
    further = ["tune", "--from", base, *words[2:6], "--steps", "2", "--set", "training.batch_size=4", "--json"]
    status, out, err = run_command(monkeypatch, capsys, *further)
    assert status == 0, err
    facts = json.loads(out)
    assert len(facts["trials"]) == 3 and set(facts["best"]["settings"]) == {"training.learning_rate", "model.output_dropout"}
    assert facts["command"].startswith(f"reviewgen train --from {base} --data 'my reviews.txt' --steps 2 --set training.batch")


def test_an_interrupt_prints_the_best_so_far(words: list[str], monkeypatch: Any, capsys: Any) -> None:
    trials = iter([False, False, True, True])  # whether to interrupt it

    def interrupt(_: PeakConfig) -> None:
        if next(trials):
            raise KeyboardInterrupt

    monkeypatch.setattr(Peak, "on_finish", staticmethod(interrupt))
    status, out, err = run_command(monkeypatch, capsys, *words)
    assert status == 130 and "Interrupted; the finished trials are kept." in err
    assert len(out.splitlines()) == 5 and out.splitlines()[-1].startswith("reviewgen train")
    status, out, err = run_command(monkeypatch, capsys, *words)
    assert (status, out) == (130, "") and "before the first trial" in err


def test_the_command_refuses_in_one_sentence(words: list[str], monkeypatch: Any, capsys: Any) -> None:
    refused = {
        "trials must be": ["--trials", "0"],
        "reversed": ["--search", "model.sharpness=1:0.1"],
        "group.name=value": ["--search", "sharpness=1:2"],
        "both set and searched": ["--search", "model.size=4:8"],
        "one of budget": ["--budget", "3s", "--steps", "3"],
        "no search that can be read": ["--storage", "my reviews.txt"],
        "'base'": ["--from", "base"],
    }
    for word, more in refused.items():
        status, out, err = run_command(monkeypatch, capsys, *words, *more)
        assert (status, out) == (2, "") and err.startswith("error: ") and word in err and len(err.splitlines()) == 1, (word, err)
    Path("strange.txt").write_text("\n".join(chr(0x4E00 + number) * 3 for number in range(60)), encoding="utf-8")
    none = ["tune", "ngram-char", "--data", "strange.txt", "--trials", "2", "--set", "model.smoothing=none"]
    status, out, err = run_command(monkeypatch, capsys, *none)
    assert status == 1 and "None of 2 trials gave a model" in err and len(out.splitlines()) == 3
