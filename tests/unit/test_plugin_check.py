"""``check_plugin``: a good plugin passes, and each planted fault is found by the check that is there for it."""

import json
import re
import sys

import pytest
from typer.testing import CliRunner

from reviewgen import registry
from reviewgen.cli import app
from reviewgen.errors import UnknownPlugin
from reviewgen.scaffold import new_plugin
from reviewgen.testing import PluginReport, check_plugin, plugin_check
from reviewgen.testing.report import PluginCheck
from reviewgen.testing.subject import find_subject

FAULTS = {
    "none": ([], {}),
    "import": ([("model.py", "import torch\n", "import torch\nimport fake_missing\n")], {"metadata": "fake_missing"}),
    "setting": ([("presets.py", '"hidden_size": 256}', '"hiden_size": 256}')], {"metadata": "'hiden_size' is not a setting"}),
    "sizes": ([("presets.py", "(64, 128, 256)", "(128, 64)")], {"presets": "must be listed from small to large"}),
    "huge": ([("presets.py", "(64, 128, 256)", "(64, 20_000)")], {"presets": "can be trained in minutes"}),
    "causal": ([("model.py", "ids)).chunk", "ids.roll(-1, 1))).chunk")], {"law causal": "future", "stepper": ""}),
    "training": (
        [
            (
                "model.py",
                "        gate, value",
                "        if self.training:\n            raise ValueError('no gradient')\n        gate, value",
            )
        ],
        {"training": "ValueError: no gradient (model.py, line"},
    ),
    "saving": (
        [
            (
                "model.py",
                "    def stepper(",
                "    def state_dict(self, *args, **kwargs):\n        raise OSError('disk')\n\n    def stepper(",
            )
        ],
        {"training": "disk", "saving": ""},
    ),
    "stepper": (
        [("stepping.py", "(1 - keep) * value", "keep * value")],
        {"stepper": "the stepper gives other logits than the call"},
    ),
    "expect": (
        [("stepping.py", '("float32", (2 * hidden,))', '("float32", (hidden,))')],
        {"stepper": "", "saving": "gates.bias"},
    ),
}
"""Replacements in the files of the model template, and the checks that fail with a part of their message."""


@pytest.fixture
def plant(tmp_path, monkeypatch):
    """Return a function that puts the model template with replacements on the path, as if it were installed."""
    monkeypatch.setattr(registry.plugins, "_failures", {})

    def write(name, replacements=()):
        folder = new_plugin(name, "model", tmp_path / name)
        for file, old, new in replacements:
            path = folder / f"reviewgen_{name}" / file
            assert old in path.read_text()
            path.write_text(path.read_text().replace(old, new))
        info = folder / f"reviewgen_{name}-1.2.3.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: reviewgen-{name}\nVersion: 1.2.3\nRequires-Dist: torch\n")
        project = (folder / "pyproject.toml").read_text()
        points = re.findall(r'^\[project\.entry-points\."([\w.]+)"\]\n((?:.+ = .+\n)+)', project, re.MULTILINE)
        assert len(points) == 4
        (info / "entry_points.txt").write_text("".join(f"[{group}]\n{lines}" for group, lines in points).replace('"', ""))
        monkeypatch.syspath_prepend(str(folder))

    yield write
    for name in [name for name in sys.modules if name.startswith("reviewgen_fake")]:
        del sys.modules[name]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(plant, monkeypatch, fault):
    replacements, expected = FAULTS[fault]
    plant(f"fake{fault}", replacements)
    laws = [law for law in plugin_check.MODEL_LAWS if law.__name__ == "causal"]  # the laws have tests of their own
    monkeypatch.setattr(plugin_check, "MODEL_LAWS", tuple(laws))
    monkeypatch.setattr(plugin_check, "STEPPER_LAWS", ())
    report = check_plugin(f"fake{fault}-char")
    failed = {check.name: check.message for check in report.checks if check.outcome == "failed"}
    assert failed.keys() <= expected.keys() and bool(failed) == bool(expected), report
    for name, message in failed.items():
        assert expected[name] in message and len(message) < 500
    assert report.passed == (not expected)
    if expected:
        with pytest.raises(AssertionError, match=f"fake{fault}-char fails"):
            report.raise_for_failure()
    else:
        report.raise_for_failure()


def test_what_needs_a_failed_check_is_not_checked(plant):
    plant("fakegone", FAULTS["import"][0])
    report = check_plugin("fakegone-char")
    outcomes = {check.name: check.outcome for check in report.checks}
    assert outcomes.pop("metadata") == "failed"
    assert set(outcomes.values()) == {"not checked"}
    assert len(outcomes) > 20 and not report.passed


def test_a_name_is_a_preset_a_model_or_a_tokenizer(plant):
    plant("fakename")
    preset, model, tokenizer = find_subject("fakename-word"), find_subject("fakename"), find_subject("char")
    assert (preset.preset_name, preset.model, preset.tokenizer) == ("fakename-word", True, False)
    assert {(p.kind, p.name) for p in preset.plugins} >= {
        ("preset", "fakename-word"),
        ("model", "fakename"),
        ("tokenizer", "word"),
    }
    assert (model.preset_name, model.model, model.tokenizer) == ("fakename-char", True, False)
    assert {(p.kind, p.name) for p in model.plugins} >= {
        ("model", "fakename"),
        ("stepper", "fakename"),
        ("preset", "fakename-char"),
    }
    assert (tokenizer.preset_name, tokenizer.model, tokenizer.tokenizer) == ("rnn-char", False, True)
    both = find_subject("rnn-char")  # of one package
    assert (both.model, both.tokenizer) == (True, True)
    with pytest.raises(UnknownPlugin, match="Did you mean 'fakename'"):
        check_plugin("fakenme")


def report_of(*outcomes: str) -> PluginReport:
    checks = [PluginCheck(f"law {n}", outcome, 0.5, f"Message {n}.") for n, outcome in enumerate(outcomes)]
    return PluginReport("x-char", "x-char", (PluginCheck("metadata", "ok", 1.0, "fine"), *checks))


def test_the_report(monkeypatch):
    report = report_of("ok", "failed", "ok", "not checked")
    assert [(row.name, row.outcome, row.seconds) for row in report.rows()] == [
        ("metadata", "ok", 1.0),
        ("laws", "ok", 1.0),
        ("law 1", "failed", 0.5),
        ("laws", "not checked", 0.5),
    ]
    assert report.seconds == 3.0 and not report.passed and report_of("ok").passed
    assert json.loads(json.dumps(report.to_dict()))["checks"][2]["message"] == "Message 1."
    assert "Message 1." in str(report)


@pytest.mark.parametrize("columns", [80, 120])
def test_the_command(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("reviewgen.testing.check_plugin", lambda name, on_check: report_of("ok", "failed"))
    done = CliRunner().invoke(app, ["plugin", "check", "x-char"])
    assert done.exit_code == 1
    assert "1 failed" in done.stdout and "Message 1." in done.stdout and max(map(len, done.stdout.splitlines())) <= columns
    assert json.loads(CliRunner().invoke(app, ["plugin", "check", "x-char", "--json"]).stdout)["passed"] is False
    monkeypatch.setattr("reviewgen.testing.check_plugin", lambda name, on_check: report_of("ok"))
    assert CliRunner().invoke(app, ["plugin", "check", "x-char"]).exit_code == 0
