"""The search for settings: what is searched, that it finds what is planted, that it goes on after an interrupt, the command."""

import importlib
import json
import math
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reviewgen
from reviewgen import TrainingRun
from reviewgen.errors import ConfigError, DataError, NotADistribution, TrainingError
from reviewgen.runs.fit import Fit
from reviewgen.runs.parts import resolve_parts
from reviewgen.search import TuneTrial, best_trial
from reviewgen.search.space import Choice, Range, current, parse_space, usual_space
from reviewgen.search.study import Study
from tests.support.fakes import TEXTS, run_command

SMALL = {
    "model": {"hidden_size": 8, "embedding_size": 4, "layer": "fused"},
    "training": {"batch_size": 4, "bptt": 16, "threads": 1, "precision": "no", "evaluations": 2, "evaluation_tokens": 400},
}
RATES = "1e-6:1"

tuning = importlib.import_module("reviewgen.search.tune")


def start_of(name: str, **settings: Any) -> Any:
    return resolve_parts(name, settings.get("model"), settings.get("tokenizer"), settings.get("training"))


def by_hand(preset: str, found: TuneTrial, settings: dict[str, Any], **options: Any) -> tuple[float, int]:
    """Return the bits and steps that a run of its own has with a trial's settings."""
    groups: dict[str, Any] = {group: dict(settings.get(group, {})) for group in ("model", "tokenizer", "training")}
    for name, value in found.settings.items():
        groups[name.partition(".")[0]][name.partition(".")[2]] = value
    run = TrainingRun(preset, TEXTS, **groups, **options)
    run.read()
    run.tokenize()
    reports = list(run)
    return min(report.evaluation.bits_per_character for report in reports if report.evaluation), reports[-1].step


# What is searched.


def test_the_usual_space_is_made_of_the_model_s_own_settings() -> None:
    lstm = usual_space(start_of("lstm-char"), [])
    rate, size = resolve_parts("lstm-char").training.learning_rate, 320
    assert lstm == {
        "training.learning_rate": Range(rate / 8, rate * 4),
        "model.hidden_size": Range(160, 640, 80),
        "model.output_dropout": Range(0.0, 0.5),
    }
    assert lstm["model.hidden_size"].holds(size)
    assert set(usual_space(start_of("nnlm-char"), [])) == {"training.learning_rate", "model.hidden_size", "model.dropout"}
    assert set(usual_space(start_of("ngram-char"), [])) == {"model.order"}
    assert usual_space(start_of("ngram-char", model={"order": 1}), [])["model.order"] == Range(1, 5, 1)
    assert usual_space(start_of("ngram-char", model={"order": 63}), [])["model.order"] == Range(61, 64, 1)
    assert set(usual_space(start_of("gru-char"), ["model.hidden_size"])) == {"training.learning_rate", "model.output_dropout"}
    high = usual_space(start_of("gru-char", training={"learning_rate": 5.0}), [])["training.learning_rate"]
    assert high.ends == (5.0 / 8, 10)
    with pytest.raises(ConfigError, match="Nothing is left"):
        usual_space(start_of("ngram-char"), ["model.order"])


@pytest.mark.parametrize("size", range(1, 40))
def test_sizes_lie_around_the_preset_s(size: int) -> None:
    found = usual_space(start_of("gru-char", model={"hidden_size": size}), [])["model.hidden_size"]
    assert isinstance(found, Range) and 1 <= found.low <= size <= found.high and found.holds(size)
    assert (found.high - found.low) % (found.step or 1) == 0


def test_what_a_person_types() -> None:
    space = parse_space(
        start_of("gru-char"),
        {
            "training.learning_rate": "1e-4:1e-2",
            "model.hidden_size": "16:64",
            "model.layers": "1, 2",
            "model.tied": ["true", False],
            "training.bptt": (8, 16),
            "model.layer": "fused,reference",
        },
    )
    assert space["training.learning_rate"] == Range(1e-4, 1e-2) and space["training.learning_rate"].is_logarithmic
    assert space["model.hidden_size"] == Range(16, 64) and not space["model.hidden_size"].is_logarithmic
    assert space["model.hidden_size"].is_whole and not space["training.learning_rate"].is_whole
    assert space["model.layers"] == Choice((1, 2)) and space["model.tied"] == Choice((True, False))
    assert space["training.bptt"] == Range(8, 16) and space["model.layer"] == Choice(("fused", "reference"))
    assert current(start_of("gru-char", training={"bptt": 9}), "training.bptt") == 9


REFUSED = [
    ({"trials": 0}, "trials must be"),
    ({"trials": True}, "trials must be"),
    ({"search": {"training.learning_rate": "1:0.1"}}, "reversed"),
    ({"search": {"training.learning_rate": "1:1"}}, "reversed or empty"),
    ({"search": {"training.learning_rate": "0:0.1"}}, "learning_rate must be above 0"),
    ({"search": {"training.learning_rate": "0.1:99"}}, "at most 10"),
    ({"search": {"training.learning_rate": "nan:1"}}, "reversed|finite"),
    ({"search": {"training.learning_rate": "a:b"}}, "learning_rate must be a number"),
    ({"search": {"training.learning_rate": "1:2:3"}}, "is two numbers"),
    ({"search": {"training.learning_rate": []}}, "in a range"),
    ({"search": {"training.learning_rate": 3}}, "in a range"),
    ({"search": {"training.learning_rate": ""}}, "learning_rate"),
    ({"search": {"model.hidden_size": "1.5:3"}}, "whole number"),
    ({"search": {"model.layer": "fused:reference"}}, "is two numbers"),
    ({"search": {"model.hiden_size": "1:3"}}, "Did you mean 'hidden_size'"),
    ({"search": {"modle.hidden_size": "1:3"}}, "not a setting"),
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
    ({"start": "lstm-chra"}, "Did you mean 'lstm-char'"),
]


@pytest.mark.parametrize(("options", "said"), REFUSED, ids=str)
def test_a_bad_search_is_refused_before_any_work(options: dict[str, Any], said: str) -> None:
    with pytest.raises(reviewgen.ReviewgenError, match=said):
        reviewgen.tune(**({"start": "gru-char", "source": "no such file.csv"} | options))


# The search.


def search(trials: int, **options: Any) -> list[TuneTrial]:
    given = {"settings": SMALL, "steps": 30, "search": {"training.learning_rate": RATES}} | options
    return list(reviewgen.tune("rnn-char", TEXTS, trials=trials, **given))


def test_it_finds_the_learning_rate_that_learns() -> None:
    """Of six orders of magnitude, of which the lower four learn nothing in so few steps."""
    tried = search(12)
    assert [trial.number for trial in tried] == list(range(12))
    best = best_trial(tried)
    assert best.settings["training.learning_rate"] > 0.005
    hopeless = search(1, search={"training.learning_rate": [1e-6]})
    assert best.bits is not None and hopeless[0].bits is not None and best.bits < hopeless[0].bits - 2
    assert tried[0].settings == {"training.learning_rate": resolve_parts("rnn-char").training.learning_rate}


def test_suggestions_learn_from_what_was_told() -> None:
    """Of a function with its least at a rate of 0.01 and a size of 64; random rates are 1.67 orders of magnitude off."""
    space = parse_space(start_of("rnn-char"), {"training.learning_rate": RATES, "model.hidden_size": "16:144"})
    off = np.array([distances(space, seed) for seed in range(4)])  # (seeds, trials, settings)
    assert off[:, :6, 0].mean() > 1.2
    assert off[:, -20:, 0].mean() < 0.9
    assert off[:, :, 0].min(axis=1).max() < 0.3


def distances(space: Any, seed: int, trials: int = 45) -> list[tuple[float, float]]:
    study, off = Study(space, seed, {}, 1), []
    for number in range(trials):
        trial, settings = study.ask(number)
        rate, size = settings["training.learning_rate"], settings["model.hidden_size"]
        assert isinstance(size, int) and rate == float(f"{rate:.3g}")
        off.append((abs(math.log10(rate) + 2), abs(size - 64) / 128))
        study.tell(trial, off[-1][0] ** 2 + off[-1][1] ** 2, {})
    return off


def test_a_trial_is_the_training_that_it_names() -> None:
    fixed = {"model": {"embedding_size": 4}, "training": SMALL["training"]}
    both = {"training.learning_rate": "1e-3:3e-2", "model.hidden_size": "4:12"}
    tried = search(3, search=both, settings=fixed, seed=5)
    for trial in tried:
        assert (trial.bits, trial.steps) == pytest.approx(by_hand("rnn-char", trial, fixed, steps=30, seed=5))
        assert trial.outcome == "done" and trial.problem is None and trial.seconds > 0


def test_equal_seeds_give_equal_searches() -> None:
    first, again, other = (search(8, steps=3, seed=seed) for seed in (1, 1, 2))
    assert [replace(trial, seconds=0) for trial in first] == [replace(trial, seconds=0) for trial in again]
    assert [trial.settings for trial in first[1:]] != [trial.settings for trial in other[1:]]


def test_the_order_of_an_ngram_and_the_vocabulary_of_a_tokenizer() -> None:
    tried = list(reviewgen.tune("ngram-char", iter(TEXTS), trials=4, budget="60s"))
    for trial in tried:
        assert (trial.bits, trial.steps) == pytest.approx(by_hand("ngram-char", trial, {}))
    both = {"tokenizer.vocab_size": [300, 330], "model.smoothing": "witten-bell,absolute"}
    tried = list(reviewgen.tune("ngram-word", TEXTS, trials=3, search=both, settings={"model": {"order": 2}}, seed=2))
    for trial in tried:
        assert (trial.bits, trial.steps) == pytest.approx(by_hand("ngram-word", trial, {"model": {"order": 2}}))
    assert {trial.settings["model.smoothing"] for trial in tried} <= {"witten-bell", "absolute"}


def test_hopeless_trials_are_cut_short() -> None:
    settings = {"model": SMALL["model"], "training": SMALL["training"] | {"evaluations": 10, "patience": 99}}
    tried = search(16, settings=settings, search={"training.learning_rate": [1e-6, 2e-6, 2e-2]})
    cut = [trial for trial in tried if trial.outcome == "pruned"]
    assert cut and all(trial.settings["training.learning_rate"] < 1e-3 and trial.steps < 30 for trial in cut)
    assert all(trial.number >= 6 and trial.steps >= 12 for trial in cut)
    assert best_trial(tried).settings["training.learning_rate"] == 2e-2


def test_a_trained_model_keeps_its_size() -> None:
    base = reviewgen.train("rnn-char", TEXTS, steps=20, **SMALL)
    tried = list(reviewgen.tune(base, TEXTS, trials=2, steps=5, settings={"training": SMALL["training"]}))
    assert set(tried[0].settings) == {"training.learning_rate", "model.output_dropout"}
    with pytest.raises(ConfigError, match="hidden_size"):
        reviewgen.tune(base, TEXTS, search={"model.hidden_size": "4:16"})


# What goes wrong.


def test_trials_that_diverge_are_failed_and_the_search_goes_on(monkeypatch: Any) -> None:
    whole = Fit.__iter__

    def diverge(fit: Fit) -> Iterator[Any]:
        if fit.config.learning_rate > 1e-3:
            raise TrainingError("The loss is nan at step 3.")
        yield from whole(fit)

    monkeypatch.setattr(Fit, "__iter__", diverge)
    tried = search(5, search={"training.learning_rate": [1e-4, 1.0]}, steps=3)
    outcomes = {(trial.settings["training.learning_rate"], trial.outcome, trial.problem) for trial in tried}
    assert outcomes == {(1e-4, "done", None), (1.0, "failed", "The loss is nan at step 3.")}
    assert best_trial(tried).settings["training.learning_rate"] == 1e-4
    tried = search(2, search={"training.learning_rate": [1.0]}, steps=3)
    with pytest.raises(TrainingError, match="None of 2 trials gave a model: The loss is nan"):
        best_trial(tried)
    with pytest.raises(TrainingError, match="None of 0 trials"):
        best_trial([])


def test_a_budget_that_is_too_short_is_said_at_the_first_trial() -> None:
    with pytest.raises(TrainingError, match=r"A budget of 0\.001 s for a trial is too short"):
        search(3, steps=None, budget=0.001)


def test_scores_that_are_no_distribution_end_the_search() -> None:
    with pytest.raises(NotADistribution, match="nothing to tune by"):
        list(reviewgen.tune("ngram-char", TEXTS, settings={"model": {"smoothing": "stupid-backoff"}}, trials=2))
    none = {"model": {"smoothing": "none"}}
    tried = list(reviewgen.tune("ngram-char", TEXTS, settings=none, trials=2, validation=["Quite another text!"]))
    assert {trial.outcome for trial in tried} == {"failed"} and "probability zero" in str(tried[0].problem)


def test_a_corpus_that_cannot_be_read() -> None:
    with pytest.raises(DataError, match="no such file"):
        next(reviewgen.tune("rnn-char", "no such file.csv"))


def test_optuna_prints_nothing(capsys: Any) -> None:
    search(1, steps=2)
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")


def test_without_optuna_it_says_what_to_install(monkeypatch: Any) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "optuna"] or ["optuna"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install 'reviewgen\[tune\]'"):
        reviewgen.tune("gru-char", "no such file.csv")


# A file of trials.


def timeless(tried: list[TuneTrial]) -> list[TuneTrial]:
    return [replace(trial, seconds=0) for trial in tried]


def test_an_interrupted_search_goes_on_as_if_nothing_had_been(tmp_path: Path, monkeypatch: Any) -> None:
    whole = search(9, steps=4)
    file = tmp_path / "trials.jsonl"
    found = reviewgen.tune(
        "rnn-char", TEXTS, trials=9, settings=SMALL, steps=4, search={"training.learning_rate": RATES}, storage=file
    )
    first = [next(found) for _ in range(7)]

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(tuning, "_train", interrupt)
        next(found)
    again = search(9, steps=4, storage=file)
    assert timeless(again) == timeless(whole)
    assert again[:7] == first
    assert search(3, steps=4, storage=file) == again[:3]


def test_a_process_that_was_killed_leaves_nothing_that_hinders(tmp_path: Path) -> None:
    whole, file = search(5, steps=4), tmp_path / "trials.jsonl"
    search(3, steps=4, storage=file)
    study = Study(parse_space(start_of("rnn-char"), {"training.learning_rate": RATES}), 0, {}, 1, file)
    study.ask(3)  # and no more is heard of it
    with file.open("a", encoding="utf-8") as lines:
        lines.write('{"op_code": 4, "wor')
    assert timeless(search(5, steps=4, storage=file)) == timeless(whole)


def test_two_searches_in_one_file(tmp_path: Path, monkeypatch: Any) -> None:
    file = tmp_path / "trials.jsonl"
    whole = tuning._train

    def train(study: Any, trial: Any, fit: Fit, result: TuneTrial) -> TuneTrial:
        monkeypatch.setattr(tuning, "_train", whole)
        assert len(search(2, steps=4, storage=file)) == 2
        return whole(study, trial, fit, result)

    monkeypatch.setattr(tuning, "_train", train)
    with pytest.raises(TrainingError, match="Another search uses"):
        search(3, steps=4, storage=file)
    assert len(search(3, steps=4, storage=file)) == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 3}, "seed 0, not 3"),
        ({"steps": 5}, "steps 4, not 5"),
        ({"search": {"training.learning_rate": "1e-5:1"}}, "search"),
        ({"settings": {**SMALL, "model": {"hidden_size": 4}}}, "settings"),
    ],
    ids=str,
)
def test_a_file_of_another_search_is_refused(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    file = tmp_path / "trials.jsonl"
    before = search(1, steps=4, storage=file)
    with pytest.raises(ConfigError, match=f"holds another search, of {said}"):
        search(1, **({"steps": 4, "storage": file} | change))
    with pytest.raises(ConfigError, match="of corpus"):
        list(
            reviewgen.tune(
                "rnn-char", TEXTS[1:], settings=SMALL, steps=4, search={"training.learning_rate": RATES}, storage=file, trials=1
            )
        )
    assert search(1, steps=4, storage=file) == before


@pytest.mark.parametrize(
    "content", [b"text,stars\nGood,5\n", b"\xff\xfe\x00", b"two words", b'{"op_code": 99}\n', b"[]\n", b"null\n"], ids=str
)
def test_a_file_of_something_else_is_left_alone(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "reviews.csv"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="no search that can be read"):
        search(1, storage=file)
    assert file.read_bytes() == content


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere" / "trials.jsonl"):
        with pytest.raises(OSError, match=str(tmp_path)):
            search(1, storage=place)


# The command.


@pytest.fixture
def words(tmp_path: Path, monkeypatch: Any) -> list[str]:
    monkeypatch.chdir(tmp_path)
    Path("my reviews.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    settings = [f"{group}.{name}={value}" for group, names in SMALL.items() for name, value in names.items()]
    sets = [word for setting in settings for word in ("--set", setting)]
    rates = ["--search", f"training.learning_rate={RATES}"]
    return ["tune", "rnn-char", "--data", "my reviews.txt", "--steps", "4", "--trials", "3", *rates, *sets]


def test_the_command_prints_a_table_and_the_command_that_trains(words: list[str], monkeypatch: Any, capsys: Any) -> None:
    status, out, err = run_command(monkeypatch, capsys, *words, "--lowercase")
    assert status == 0, err
    lines = out.splitlines()
    assert lines[0].split() == ["trial", "learning_rate", "bits/char", "steps", "seconds", "outcome"]
    assert [line.split()[0] for line in lines[1:4]] == ["0", "1", "2"]
    best = best_trial(search(3, steps=4, lowercase=True))
    assert f"trial {best.number}, {best.bits:.4f} bits" in lines[4]
    command = shlex.split(lines[5])
    assert command[:3] == ["reviewgen", "train", "rnn-char"] and command[-2:] == ["--out", "my-model"]
    status, out, err = run_command(monkeypatch, capsys, *command[1:], "--json")
    assert status == 0, err
    trained = json.loads(out)
    assert min(found["bits_per_character"] for found in trained["evaluations"]) == pytest.approx(best.bits)
    assert trained["data"]["lowercase"] is True


def test_the_command_as_json_and_from_a_model(words: list[str], monkeypatch: Any, capsys: Any) -> None:
    reviewgen.train("rnn-char", TEXTS, steps=4, out="base", **SMALL)
    further = ["tune", "--from", "base", *words[2:8], "--set", "training.batch_size=4", "--json"]
    status, out, err = run_command(monkeypatch, capsys, *further)
    found = json.loads(out)
    assert status == 0 and len(found["trials"]) == 3, err
    assert set(found["best"]["settings"]) == {"training.learning_rate", "model.output_dropout"}
    assert found["command"].startswith(
        "reviewgen train --from base --data 'my reviews.txt' --steps 4 --set training.batch_size=4"
    )


def test_an_interrupt_prints_the_best_so_far(words: list[str], monkeypatch: Any, capsys: Any) -> None:
    whole = tuning._train

    def train(study: Any, trial: Any, run: Any, found: TuneTrial) -> TuneTrial:
        if found.number == until:
            raise KeyboardInterrupt
        return whole(study, trial, run, found)

    monkeypatch.setattr(tuning, "_train", train)
    until = 2
    status, out, err = run_command(monkeypatch, capsys, *words)
    assert status == 130 and "Interrupted; the finished trials are kept." in err
    assert len(out.splitlines()) == 5 and out.splitlines()[-1].startswith("reviewgen train")
    until = 0
    status, out, err = run_command(monkeypatch, capsys, *words)
    assert (status, out) == (130, "") and "before the first trial" in err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--trials", "0"], "trials must be"),
        (["--search", "training.learning_rate=1:0.1"], "reversed"),
        (["--search", "learning_rate=1:2"], "group.name=value"),
        (["--search", "model.hidden_size=4:8"], "both set and searched"),
        (["--budget", "3s"], "one of budget"),
        (["--storage", "my reviews.txt"], "no search that can be read"),
        (["--from", "base"], "'base'"),
    ],
    ids=str,
)
def test_the_command_refuses_in_one_sentence(more: list[str], said: str, words: list[str], monkeypatch: Any, capsys: Any) -> None:
    status, out, err = run_command(monkeypatch, capsys, *words, *more)
    assert (status, out) == (2, "")
    assert err.startswith("error: ") and said in err and len(err.splitlines()) == 1


def test_the_command_says_that_every_trial_failed(words: list[str], monkeypatch: Any, capsys: Any) -> None:
    Path("strange.txt").write_text("\n".join(chr(0x4E00 + number) * 3 for number in range(60)), encoding="utf-8")
    none = ["tune", "ngram-char", "--data", "strange.txt", "--trials", "2", "--set", "model.smoothing=none"]
    status, out, err = run_command(monkeypatch, capsys, *none)
    assert status == 1 and "None of 2 trials gave a model" in err and len(out.splitlines()) == 3
