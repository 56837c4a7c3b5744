"""``check_plugin`` of logits processors, metrics and weights: good ones pass, and each fault is found by its check."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import reviewgen
from reviewgen import registry
from reviewgen.errors import UnknownPlugin
from reviewgen.testing import PluginReport, check_plugin
from tests.support.distributions import write_distribution

PROCESSOR = """
class Processor:
    def __init__(self, tokenizer):
        texts = [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)]
        self.banned = [token for token, text in enumerate(texts) if "e" in text]

    def __call__(self, ids, scores):
        scores[:, self.banned] = float("-inf")
        return scores
"""
METRIC = """
class Metric:
    unit = "letters e"
    lower_is_better = None

    def __call__(self, sample):
        return sum(text.count("e") for text in sample.texts)

METRIC = Metric()
"""
FAULTS = {
    "remembers": (
        "processor",
        ("scores[:, self.banned] =", "self.banned.append(len(self.banned) % 5); scores[:, self.banned] ="),
        "law no_memory of the logits processor",
        "must depend on ids and scores only",
    ),
    "fails": ("processor", ("return scores", "return 1 / 0"), "generation", "ZeroDivisionError"),
    "missing": ("processor", ("class Processor", "import fake_gone\nclass Processor"), "metadata", "fake_gone"),
    "untrue": ("metric", ("return sum", "return float('nan') * sum"), "law any_texts of the metric", "finite number"),
    "class": ("metric", ("METRIC = Metric()", "METRIC = Metric"), "metadata", "is the class Metric"),
    "raises": ("metric", ("return sum", "return sample.text and sum"), "measuring", "recorded no value"),
}
"""What is planted, a replacement in its module, a check that fails, and a part of its message."""


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Return a function that installs a package, of which nothing is left afterwards."""
    monkeypatch.setattr(registry.plugins, "_failures", {})

    def write(points: dict[str, dict[str, str]], **modules: str) -> Path:
        site = write_distribution(tmp_path / "site", "reviewgen-fake", points, modules)
        monkeypatch.syspath_prepend(str(site))
        return site

    yield write
    for name in [name for name in sys.modules if name.startswith("fake")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model of the preset ngram-char."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    reviewgen.train("ngram-char", [f"Review {n} is short." for n in range(40)], progress=False, out=folder)
    return folder


def failures(report: PluginReport) -> dict[str, str]:
    return {check.name: check.message for check in report.checks if check.outcome == "failed"}


def points_of(kind: str) -> dict[str, dict[str, str]]:
    groups = {"processor": ("logits_processors", "Processor"), "metric": ("metrics", "METRIC")}
    return {groups[kind][0]: {"no-e": f"fake_{kind}:{groups[kind][1]}"}}


def test_a_good_processor_and_a_good_metric_of_one_name_pass(plant: Any) -> None:
    plant(points_of("processor") | points_of("metric"), fake_processor=PROCESSOR, fake_metric=METRIC)
    seen: list[str] = []
    report = check_plugin("no-e", seen.append)
    report.raise_for_failure()
    messages = {check.name: check.message for check in report.checks}
    assert report.passed and report.preset == "" and seen == list(messages)
    assert len(messages) == len(report.checks) == 11
    assert "metric no-e" in messages["metadata"] and "logits processor no-e" in messages["metadata"]
    assert "changes 2 of 2 texts" in messages["generation"] and "letters e of generated texts" in messages["measuring"]
    assert [row.name for row in report.rows()] == ["metadata", "laws", "generation", "measuring"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(plant: Any, fault: str) -> None:
    kind, (old, new), check, words = FAULTS[fault]
    module = {"processor": PROCESSOR, "metric": METRIC}[kind]
    assert old in module
    plant(points_of(kind), **{f"fake_{kind}": module.replace(old, new)})
    report = check_plugin("reviewgen-fake:no-e")
    assert words in failures(report)[check], report
    assert all(len(message) < 500 for message in failures(report).values())
    if check == "metadata":
        assert {each.outcome for each in report.checks[1:]} == {"not checked"}
        assert [row.outcome for row in report.rows()] == ["failed", "not checked", "not checked"]


def test_weights_are_loaded_by_name(plant: Any, saved: Path) -> None:
    points = {
        "weights": {
            "ngram-char": "fake_weights.model",
            "ngram-char-mine": "fake_weights.other",
            "gru-char-mine": "fake_weights.gone",
        }
    }
    site = plant(points)
    (site / "fake_weights").mkdir()
    (site / "fake_weights" / "__init__.py").touch()
    for name in "model", "other":
        shutil.copytree(saved, site / "fake_weights" / name)
    report = check_plugin("reviewgen-fake:ngram-char")
    report.raise_for_failure()
    assert "a fresh process loads them by name" in report.checks[-1].message
    assert [check.name for check in report.checks] == ["metadata", "weights"]
    assert "the preset 'ngram-char'" in failures(check_plugin("ngram-char-mine"))["weights"]
    said = failures(check_plugin("gru-char-mine"))["metadata"]
    assert said.count("gru-char-mine") == 1 and "fake_weights.gone does not exist" in said and "save a trained model" in said


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UnknownPlugin, match=r"^No installed package provides a plugin 'distinct-7'\. Did you mean 'distinct-"):
        check_plugin("distinct-7")
