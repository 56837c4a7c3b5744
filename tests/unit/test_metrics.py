"""Metrics of generated texts: their values by brute force, in trainings, cards and plots, and what goes wrong in them."""

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

import reviewgen
from reviewgen.config import TrainingConfig
from reviewgen.errors import BrokenPlugin, BundleError, ConfigError, PluginConflict, UnknownPlugin
from reviewgen.evaluation.metrics import Metrics, find_metrics, make_sample
from reviewgen.evaluation.text_statistics import measure_texts
from reviewgen.pictures import draw_curves, find_curves
from reviewgen.runs.plan import make_plan
from reviewgen.runs.prepare import prepare
from tests.support.fakes import GRU, TEXTS, run_command, train_tiny
from tests.unit.test_registry import Install, install, untouched_registry

__all__ = ["install", "untouched_registry"]  # fixtures

IN_TREE = ("distinct-1", "distinct-2", "distinct-3", "distinct-4", "self-repetition", "new-words")
CODE = """
seen, calls = [], []

class Recorder:
    unit, lower_is_better = "texts", False
    def __call__(self, sample):
        seen.append(sample)
        return len(sample.texts)

class Raises(Recorder):
    def __call__(self, sample):
        calls.append(1)
        raise ValueError("no\\nverbs here.")

class Exits(Recorder):
    def __call__(self, sample):
        raise SystemExit("bye")

class Nan(Recorder):
    def __call__(self, sample):
        return float("nan")

class Text(Recorder):
    def __call__(self, sample):
        return "many"

class Once(Recorder):
    def __call__(self, sample):
        calls.append(2)
        if calls.count(2) == 1:
            raise RuntimeError("not yet")
        return 0.5

class NoUnit:
    lower_is_better = None
    def __call__(self, sample):
        return 0

class LongUnit(Recorder):
    unit = "x" * 41

recorder, raises, exits, nan, text, once, no_unit, long_unit = (
    each() for each in (Recorder, Raises, Exits, Nan, Text, Once, NoUnit, LongUnit)
)
number = 7
"""
NAMES = ("recorder", "raises", "exits", "nan", "text", "once", "no_unit", "long_unit", "number", "Recorder", "gone")


@pytest.fixture
def fakes(install: Install) -> None:
    """Install a package of metrics, good and bad."""
    points = {name.lower().replace("_", "-") + ("-class" if name == "Recorder" else ""): f"fake_metrics:{name}" for name in NAMES}
    install("reviewgen-fakes", {"metrics": points}, {"fake_metrics": CODE})


def words(text: str) -> list[str]:
    """Return the words of a text in lower case, found character by character."""
    found, word = [], ""
    for here, after in zip(text, [*text[1:], " "], strict=False):
        if is_letter(here) or (word and here in "'\u2019" and is_letter(after)):
            word += here
        elif word:
            found.append(word.casefold())
            word = ""
    return [*found, word.casefold()] if word else found


def is_letter(character: str) -> bool:
    category = unicodedata.category(character)
    return (character.isalnum() and category != "Nd") or category[0] == "M" or character in "\u200c\u200d"


def random_texts(seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(list("abcDEF"), rng.integers(0, 14))) + "." for _ in range(rng.integers(1, 9))]


def brute_distinct(texts: Sequence[str], n: int) -> float:
    different, total = set(), 0
    for text in texts:
        row = words(text)
        for start in range(len(row)):
            if start + n <= len(row):
                different.add(" ".join(row[start : start + n]))
                total += 1
    return len(different) / total if total else 0.0


def brute_repetition(texts: Sequence[str], n: int) -> float:
    shares = []
    for text in texts:
        row, repeated = words(text), 0
        for end in range(n, len(row) + 1):
            gram = row[end - n : end]
            repeated += any(row[before : before + n] == gram for before in range(end - n))
        if len(row) >= n:
            shares.append(repeated / (len(row) - n + 1))
    return sum(shares) / len(shares) if shares else 0.0


def brute_new(texts: Sequence[str], training: Sequence[str]) -> float:
    known, written = {word for text in training for word in words(text)}, [word for text in texts for word in words(text)]
    return sum(1 for word in written if word not in known) / len(written) if written else 0.0


# Values.


@pytest.mark.parametrize("seed", range(20))
def test_values_are_those_of_brute_force(seed: int) -> None:
    texts, training = random_texts(seed), ["a B, c!", "don't"]
    values = Metrics(IN_TREE, frozenset({"a", "b", "c", "don't"})).measure(texts)
    for n in (1, 2, 3, 4):
        assert values[f"distinct-{n}"] == pytest.approx(brute_distinct(texts, n))
    assert values["self-repetition"] == pytest.approx(brute_repetition(texts, 4))
    assert values["new-words"] == pytest.approx(brute_new(texts, training))
    statistics = measure_texts(texts)  # of tune-sampling
    assert statistics.distinct == tuple(values[f"distinct-{n}"] for n in (1, 2, 3, 4))
    assert statistics.repetition == values["self-repetition"]


def test_known_values() -> None:
    texts = ["The end, the end, the end, the end!", "Is THIS the end?"]
    values = Metrics(IN_TREE, frozenset({"the", "end", "is"})).measure(texts)
    assert values["distinct-1"] == 4 / 12
    assert values["distinct-2"] == 4 / 10
    assert values["self-repetition"] == pytest.approx((3 / 5 + 0) / 2)
    assert values["new-words"] == 1 / 12
    assert set(Metrics(IN_TREE).measure([""]).values()) == {0.0}


# In a training.


def test_each_evaluation_measures_the_texts_that_were_generated(fakes: None, tmp_path: Path) -> None:
    import fake_metrics

    names = [*IN_TREE, "recorder"]
    model = train_tiny("gru-char", tmp_path, **GRU | {"steps": 12, "training": {"evaluations": 3, "metrics": names}})
    evaluations, samples = model.training["evaluations"], fake_metrics.seen
    assert len(evaluations) >= 2
    training = list(TEXTS)  # some are held out
    for evaluation, sample in zip(evaluations, samples, strict=False):
        values = evaluation["metrics"]
        assert list(values) == names
        assert values["recorder"] == len(sample.texts) > 1
        for n in (1, 2, 3, 4):
            assert values[f"distinct-{n}"] == pytest.approx(brute_distinct(sample.texts, n))
        assert values["self-repetition"] == pytest.approx(brute_repetition(sample.texts, 4))
        assert values["new-words"] >= brute_new(sample.texts, training) > 0
        assert sample.training_words <= {word for text in training for word in words(text)}
    final, generated, held_out = model.training["metrics"], samples[-2], samples[-1]
    assert final["recorder"] == {
        "unit": "texts", "lower_is_better": False, "generated": len(generated.texts), "held_out": len(held_out.texts)
    }  # fmt: skip
    assert all(any(text in whole for whole in TEXTS) for text in held_out.texts)
    assert final["distinct-2"]["generated"] == pytest.approx(brute_distinct(generated.texts, 2))
    assert final["distinct-2"]["held_out"] == pytest.approx(brute_distinct(held_out.texts, 2))


@pytest.mark.parametrize("preset", ["ngram-char", "ngram-word", "blend-char"])
def test_counting_and_blends_are_measured_too(preset: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"steps": 5, "training": {"batch_size": 4}} if preset == "blend-char" else {}
    model = train_tiny(preset, tmp_path, model={"hidden_size": 8} if preset == "blend-char" else {}, **options)
    (evaluation,) = model.training["evaluations"]
    assert set(evaluation["metrics"]) == set(TrainingConfig().metrics) == set(model.training["metrics"])
    assert all(0 <= value <= 1 for value in evaluation["metrics"].values())
    if preset == "blend-char":
        assert all(each["metrics"] for part in model.training["parts"] for each in part["evaluations"])


def test_the_words_of_the_training_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVIEWGEN_CACHE", str(tmp_path))
    for preset in ("ngram-char", "ngram-word"):
        corpus = prepare(make_plan(preset, TEXTS, {"steps": 1}))
        held = {split: set() for split in ("train", "validation", "test")}
        for split, found in held.items():
            store = corpus.stores[split]
            for number in range(len(store)):
                found.update(words(corpus.tokenizer.decode(store.document(number).tolist())))
        assert corpus.words == held["train"]
    assert prepare(make_plan("ngram-char", TEXTS, {"training": {"metrics": []}})).words == frozenset()


def test_without_an_index_as_many_texts_are_generated(fakes: None, tmp_path: Path) -> None:
    import fake_metrics

    train_tiny("ngram-char", tmp_path, training={"novelty": "none", "metrics": ["recorder"]})
    assert len(fake_metrics.seen[0].texts) == TrainingConfig().copy_tokens // 100
    fake_metrics.seen.clear()
    model = train_tiny("ngram-char", tmp_path, training={"copy_tokens": 0, "metrics": ["recorder"]})
    assert [len(sample.texts) for sample in fake_metrics.seen] == [1]
    assert model.training["metrics"]["recorder"]["generated"] is None


def test_no_metrics(tmp_path: Path) -> None:
    model = train_tiny("ngram-char", tmp_path, training={"metrics": []})
    assert model.training["metrics"] == {}
    assert model.training["evaluations"][0]["metrics"] == {}
    assert "| metric |" not in str(model.generate_model_card())


# What fails.


@pytest.mark.parametrize(
    ("name", "problem"),
    [("raises", "ValueError: no verbs here."), ("exits", "SystemExit: bye."), ("nan", "it returned nan, not a finite number."),
     ("text", "it returned 'many', not a finite number.")],
)  # fmt: skip
def test_a_metric_that_fails_is_noted_once_and_missing(fakes: None, tmp_path: Path, name: str, problem: str) -> None:
    options = GRU | {"steps": 12, "training": {"evaluations": 3, "metrics": [name, "distinct-2"]}}
    model = train_tiny("gru-char", tmp_path, **options)
    training = model.training
    assert training["steps"] == 12
    assert len(training["evaluations"]) >= 2
    assert {each["metrics"][name] for each in training["evaluations"]} == {None}
    assert all(each["metrics"]["distinct-2"] is not None for each in training["evaluations"])
    notes = [note for note in training["notes"] if "metric" in note]
    assert notes == [f"The metric {name!r} of reviewgen-fakes 1.2.3 failed and is shown as missing: {problem}"]
    card = str(model.generate_model_card())
    assert "| distinct-2 (share) |" in card
    assert f"| {name}" not in card
    json.dumps(training, allow_nan=False)


def test_a_metric_that_failed_is_called_again(fakes: None, tmp_path: Path) -> None:
    model = train_tiny("gru-char", tmp_path, **GRU | {"steps": 12, "training": {"evaluations": 3, "metrics": ["once"]}})
    values = [each["metrics"]["once"] for each in model.training["evaluations"]]
    assert values == [None] + [0.5] * (len(values) - 1)
    assert len(values) > 1


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (["distinct-5"], UnknownPlugin, "the metric 'distinct-5'.* Did you mean 'distinct-"),
        (["recorder-class"], BrokenPlugin, "it is the class Recorder"),
        (["number"], BrokenPlugin, "it is of the type int"),
        (["no-unit"], BrokenPlugin, "it is of the type NoUnit"),
        (["long-unit"], BrokenPlugin, "unit should be a string of at most 40"),
        (["gone"], BrokenPlugin, "'gone' of reviewgen-fakes 1.2.3 cannot be imported"),
        (["Distinct 2"], ConfigError, "'Distinct 2' is not one"),
        (["distinct-2", "distinct-2"], ConfigError, "'distinct-2' twice"),
    ],
)
def test_bad_names_are_refused_before_anything_is_read(
    fakes: None, tmp_path: Path, names: list[str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as problem:
        reviewgen.train("ngram-char", tmp_path / "does-not-exist.txt", training={"metrics": names}, progress=False)
    assert len(str(problem.value)) < 500


def test_two_packages_of_one_name(fakes: None, install: Install) -> None:
    install("reviewgen-others", {"metrics": {"recorder": "fake_others:x"}}, {"fake_others": "x = None"})
    with pytest.raises(PluginConflict, match=r"reviewgen-fakes and reviewgen-others provide the metric"):
        find_metrics(["recorder"])


# The card, the plot and the command line.


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("metrics")
    model = train_tiny("gru-char", folder / "cache", **GRU | {"steps": 12, "training": {"evaluations": 3}})
    model.save_pretrained(folder / "m")
    return folder / "m"


def test_the_card_has_a_row_for_each(saved: Path) -> None:
    training = json.loads((saved / "training.json").read_text())
    card = (saved / "README.md").read_text()
    for name, each in training["metrics"].items():
        assert f"| {name} (share) | {each['generated']:.4g} | {each['held_out']:.4g} |" in card


def test_a_panel_has_the_values_of_the_evaluations(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    real = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (drawn.append(self), real(self, *a, **k))[1])
    reviewgen.plot_training([saved], tmp_path / "c.svg", metrics=["new-words", "distinct-2"])
    (figure,) = drawn
    evaluations = json.loads((saved / "training.json").read_text())["evaluations"]
    panels = {axes.get_ylabel(): axes for axes in figure.axes}
    for name in ("new-words", "distinct-2"):
        line = panels[f"{name}\n(share)"].get_lines()[0]
        assert list(line.get_ydata()) == [each["metrics"][name] for each in evaluations]
        assert list(line.get_xdata()) == pytest.approx([each["seconds"] for each in evaluations])
    plain = draw_curves([find_curves(json.loads((saved / "training.json").read_text()), "m")])
    assert len(plain.axes) == len(figure.axes) - 2
    plt.close("all")


def test_a_missing_value_leaves_a_gap(saved: Path) -> None:
    training = json.loads((saved / "training.json").read_text())
    training["evaluations"][0]["metrics"]["distinct-2"] = None
    figure = draw_curves([find_curves(training, "m")], metrics=["distinct-2"])
    (axes,) = [axes for axes in figure.axes if axes.get_ylabel().startswith("distinct-2")]
    assert np.isnan(axes.get_lines()[0].get_ydata()[0])
    assert np.isfinite(axes.get_lines()[0].get_ydata()[1:]).all()


def test_an_older_record_has_no_metrics(saved: Path, tmp_path: Path) -> None:
    training = json.loads((saved / "training.json").read_text())
    del training["metrics"]
    for evaluation in training["evaluations"]:
        del evaluation["metrics"]
    curves = find_curves(training, "m")
    assert curves.metrics == []
    assert draw_curves([curves])
    assert draw_curves([curves, replace(curves, name="other")])


@pytest.mark.parametrize(
    "damage",
    [
        {"metrics": ["distinct-2"]},
        {"metrics": {"x": 3}},
        {"metrics": {"x": {"unit": 3, "lower_is_better": None, "generated": 1, "held_out": 1}}},
        {"metrics": {"x": {"unit": "share", "lower_is_better": None, "generated": "1", "held_out": 1}}},
        {"metrics": {"x": {"unit": "share", "lower_is_better": None, "generated": 1}}},
    ],
)
def test_a_damaged_record_is_a_sentence(saved: Path, tmp_path: Path, damage: dict[str, Any]) -> None:
    import shutil

    shutil.copytree(saved, tmp_path / "m")
    file = tmp_path / "m" / "training.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | damage))
    with pytest.raises(BundleError, match="metrics"):
        reviewgen.load(tmp_path / "m")


@pytest.mark.parametrize("damage", [3, {"distinct-2": "x"}, {"distinct-2": [1]}])
def test_damaged_evaluations_are_a_sentence(saved: Path, damage: Any) -> None:
    training = json.loads((saved / "training.json").read_text())
    training["evaluations"][0]["metrics"] = damage
    with pytest.raises(BundleError, match="damaged"):
        find_curves(training, "m")


def test_on_the_command_line(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    plot = ["plot", str(saved), "--out", str(tmp_path / "c.svg")]
    assert run_command(monkeypatch, capsys, *plot, "--metric", "distinct-2", "--metric", "new-words")[0] == 0
    assert (tmp_path / "c.svg").stat().st_size > 1000
    status, _, error = run_command(monkeypatch, capsys, *plot, "--overwrite", "--metric", "distinct-3")
    assert (status, "distinct-3" in error, "Did you mean 'distinct-2'" in error) == (2, True, True)
    (tmp_path / "reviews.txt").write_text("\n".join(TEXTS))
    monkeypatch.setenv("REVIEWGEN_CACHE", str(tmp_path / "cache"))
    command = ["train", "ngram-char", "--data", str(tmp_path / "reviews.txt"), "--out", str(tmp_path / "m"), "--set"]
    status, out, error = run_command(monkeypatch, capsys, *command, "training.metrics=distinct-1")
    assert status == 0, error
    final = json.loads((tmp_path / "m" / "training.json").read_text())["metrics"]
    assert f"distinct-1 {final['distinct-1']['generated']:.4g} (held out {final['distinct-1']['held_out']:.4g})" in out


def test_a_sample_has_the_words_as_they_are_written() -> None:
    assert make_sample(["Don't say 'No'.", ""]).words == (("Don't", "say", "No"), ())


def test_a_training_is_the_same_with_and_without_metrics(tmp_path: Path) -> None:
    """Metrics are measured beside the training: the weights do not depend on them."""
    one, two = (
        train_tiny("gru-char", tmp_path, **GRU | {"steps": 6, "training": {"metrics": metrics}})
        for metrics in ([], list(IN_TREE))
    )
    for name, tensor in one.model.state_dict().items():
        assert tensor.equal(two.model.state_dict()[name])
