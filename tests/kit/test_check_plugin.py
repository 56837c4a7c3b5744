"""``check_plugin``: good plugins pass, and each fault is found by the check that is there for
it.
"""

import json
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from reviewgen.cli import app
from reviewgen.errors import ConfigError, UnknownPlugin
from reviewgen.testing import PluginReport, check_plugin
from reviewgen.testing.scaffold import new_plugin
from tests.support.distributions import Install, write_distribution
from tests.support.forked import run_python
from tests.support.saved import edit_json

pytestmark = pytest.mark.usefixtures("untouched_registry")

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
    unit, lower_is_better = "letters e", None

    def __call__(self, sample):
        return sum(text.count("e") for text in sample.texts)

METRIC = Metric()
"""
POINTS = {
    "processor": ("logits_processors", "fakep:Processor"),
    "metric": ("metrics", "fakem:METRIC"),
}
MODULES = {"processor": ("fakep", PROCESSOR), "metric": ("fakem", METRIC)}
FAILS_IN_TRAINING = (
    "        if self.training:\n            raise ValueError('no gradient')\n        gate, value"
)
FAILS_IN_SAVING = (
    "    def state_dict(self, *args, **kwargs):\n        raise OSError('disk')\n\n    def stepper("
)
MODELS: dict[str, tuple[list[tuple[str, str, str]], dict[str, str]]] = {
    "none": ([], {}),
    "sizes": (
        [("presets.py", "(64, 128, 256)", "(128, 64)")],
        {"presets": "must be listed from small to large"},
    ),
    "huge": (
        [("presets.py", "(64, 128, 256)", "(64, 20_000)")],
        {"presets": "can be trained in minutes"},
    ),
    "causal": (
        [("model.py", "ids)).chunk", "ids.roll(-1, 1))).chunk")],
        {"law causal": "future", "training": ""},
    ),
    "training": (
        [("model.py", "        gate, value", FAILS_IN_TRAINING)],
        {"training": "no gradient"},
    ),
    "saving": ([("model.py", "    def stepper(", FAILS_IN_SAVING)], {"training": "disk"}),
    "stepper": (
        [("stepping.py", "(1 - keep) * value", "keep * value")],
        {"law step_logits of the stepper": "logits (B, V) differ"},
    ),
}
"""Replacements in the files of the model template, and checks that fail with a part of their
message.
"""
REMEMBERING = (
    "scores[:, self.banned] =",
    "self.banned.append(len(self.banned) % 5); scores[:, self.banned] =",
)
IN_USE = {
    "remembers": (
        "processor",
        REMEMBERING,
        "law no_memory of the logits processor",
        "must depend on ids and scores only",
    ),
    "fails": ("processor", ("return scores", "return 1 / 0"), "generation", "ZeroDivisionError"),
    "untrue": (
        "metric",
        ("return sum", "return float('nan') * sum"),
        "law any_texts of the metric",
        "is finite",
    ),
    "class": (
        "metric",
        ("METRIC = Metric()", "METRIC = Metric"),
        "metadata",
        "is the class Metric",
    ),
    "raises": (
        "metric",
        ("return sum", "return sample.text and sum"),
        "measuring",
        "recorded no value",
    ),
}
"""What is planted, a replacement in its module, a check that fails, and a part of its message."""


def plant(name: str, tmp_path: Path, patch: pytest.MonkeyPatch, replacements: Any = ()) -> None:
    """Put the model template with replacements on the path, as if it were installed."""
    folder = new_plugin(name, "model", tmp_path / name)
    for file, old, new in replacements:
        path = folder / f"reviewgen_{name}" / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
    points = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["entry-points"]
    write_distribution(
        folder,
        f"reviewgen-{name}",
        {group.removeprefix("reviewgen."): each for group, each in points.items()},
    )
    patch.syspath_prepend(str(folder))


def failures(report: PluginReport) -> dict[str, str]:
    found = {check.name: check.message for check in report.checks if check.outcome == "failed"}
    assert all(len(message) < 500 for message in found.values())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("fault", MODELS)
def test_a_fault_of_a_model_s_package_is_found(fault, tmp_path, monkeypatch):
    replacements, expected = MODELS[fault]
    plant(f"fake{fault}", tmp_path, monkeypatch, replacements)
    report = check_plugin(f"fake{fault}-char")
    found = failures(report)
    assert all(words in found[check] for check, words in expected.items()) and report.passed == (
        not expected
    ), report
    if expected:
        with pytest.raises(AssertionError, match=f"fake{fault}-char fails"):
            report.raise_for_failure()
    else:
        report.raise_for_failure()


@pytest.mark.slow
def test_of_a_package_that_cannot_be_imported_nothing_else_is_checked(tmp_path, monkeypatch):
    plant(
        "fakegone",
        tmp_path,
        monkeypatch,
        [("model.py", "import torch\n", "import torch\nimport fake_missing\n")],
    )
    report = check_plugin("fakegone")  # the model, with the preset of its package
    assert report.preset == "fakegone-char" and "fake_missing" in failures(report)["metadata"]
    assert not report.passed and len(report.checks) == 1
    with pytest.raises(UnknownPlugin, match="Did you mean 'fakegone'"):
        check_plugin("fakegne")


@pytest.mark.slow
def test_a_tokenizer_alone_and_a_preset_of_one_package_pass():
    tokenizer = check_plugin("char")
    both = check_plugin("rnn-char")
    tokenizer.raise_for_failure()
    both.raise_for_failure()
    names = [{check.name for check in report.checks} for report in (tokenizer, both)]
    assert (
        tokenizer.preset == "rnn-char"
        and "law any_ids of the tokenizer" in names[0]
        and "law causal" not in names[0]
    )
    assert {
        "law any_ids of the tokenizer",
        "law causal",
        "law protocol",
        "law drift of the stepper",
        "training",
    } <= names[1]


def put(install: Install, *kinds: str, change: tuple[str, str] = ("", "")) -> None:
    modules = {MODULES[kind][0]: MODULES[kind][1].replace(*change) for kind in kinds}
    install(
        "reviewgen-fake", {POINTS[kind][0]: {"no-e": POINTS[kind][1]} for kind in kinds}, modules
    )


@pytest.mark.slow
def test_a_good_processor_and_a_good_metric_of_one_name_pass(install):
    put(install, "processor", "metric")
    report = check_plugin("no-e")
    report.raise_for_failure()
    assert report.passed and report.preset == "" and len(report.checks) == 11
    assert {"metadata", "generation", "measuring", "law scores of the logits processor"} <= {
        each.name for each in report.checks
    }


@pytest.mark.slow
@pytest.mark.parametrize("fault", IN_USE)
def test_a_fault_of_a_processor_or_metric_is_found(install, fault):
    kind, change, check, words = IN_USE[fault]
    put(install, kind, change=change)
    report = check_plugin("no-e")
    assert words in failures(report)[check], report


@pytest.mark.parametrize("name", ["mine", "reviewgen-mine"])
def test_the_name_of_a_package_of_weights_leads_to_its_preset(name, install, tmp_path, run_command):
    project = tomllib.loads(
        (new_plugin("mine", "weights", tmp_path / "new") / "pyproject.toml").read_text()
    )["project"]
    points = {kind: project["entry-points"][f"reviewgen.{kind}"] for kind in ("presets", "weights")}
    install(project["name"], points, {})
    status, _, error = run_command("plugin", "check", name)
    assert status == 1
    assert (
        f"No installed package provides a plugin '{name}'. Did you mean 'gru-char-mine'?" in error
    )


@pytest.mark.slow
def test_weights_are_loaded_by_name(install, model_folder):
    points = {
        "ngram-char-own": "fakew.model",
        "ngram-char-mine": "fakew.word",
        "gru-char-mine": "fakew.gone",
    }
    site = install("reviewgen-fake", {"weights": points}, {"fakew/__init__": ""})
    shutil.copytree(model_folder("ngram-char"), site / "fakew" / "model")
    edit_json(site / "fakew" / "model" / "config.json", "preset", value="ngram-char-own")
    (site / "fakew" / "model" / "manifest.json").unlink()
    shutil.copytree(model_folder("ngram-word"), site / "fakew" / "word")
    report = check_plugin("ngram-char-own")
    report.raise_for_failure()
    assert report.checks[-1].name == "weights" and report.checks[-1].outcome == "ok"
    assert not PluginReport("ngram-char-own", "", ()).passed  # nothing was checked
    assert "the preset 'ngram-word'" in failures(check_plugin("ngram-char-mine"))["weights"]
    assert "fakew.gone does not exist" in failures(check_plugin("gru-char-mine"))["weights"]


@pytest.mark.slow
def test_the_command_prints_what_pytest_prints(install):
    put(install, "metric", change=("return sum", "return float('nan') * sum"))
    done = CliRunner().invoke(app, ["plugin", "check", "no-e"])
    assert done.exit_code == 1 and "any_texts: The value for any texts is finite" in done.stdout
    assert "test_plugin[law any_texts of the metric]" in done.stdout and " failed, " in done.stdout
    done = CliRunner().invoke(app, ["plugin", "check", "no-e", "--json"])
    facts = json.loads(done.stdout)
    assert done.exit_code == 1 and facts["passed"] is False
    assert {each["name"]: each["outcome"] for each in facts["checks"]}[
        "law protocol of the metric"
    ] == "ok"


def test_without_pytest_the_command_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytest", None)
    done = CliRunner().invoke(app, ["plugin", "check", "char"])
    assert isinstance(done.exception, ConfigError) and "pip install 'reviewgen[testing]'" in str(
        done.exception
    )


@pytest.mark.slow
def test_pytest_checks_by_name_without_the_command():
    words = [
        "-m",
        "pytest",
        "--pyargs",
        "reviewgen.testing",
        "-p",
        "reviewgen.testing.options",
        "--plugin",
    ]
    # -p: as the entry point of an installation does
    done = run_python([*words, "distinct-1", "-q", "-k", "no_order"])
    assert done.returncode == 0 and "1 passed, 5 deselected" in done.stdout, done.stdout
    done = run_python([*words, "distinct-0"])
    assert done.returncode == 4 and "provides a plugin 'distinct-0'. Did you mean" in done.stderr, (
        done.stderr
    )
