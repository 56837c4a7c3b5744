"""Doctor's checks: packages that raise, exit, crash, hang, fork or are not what they say are each named, and harm nobody else."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reviewgen.inspection import Inspection, inspect_plugins
from reviewgen.registry import list_plugins
from reviewgen.registry.plugins import THIS_PROCESS

CONFIG = """
from dataclasses import dataclass
@dataclass(frozen=True, kw_only=True)
class Config:
    vocab_size: int
    size: int = 1
"""
MODEL = f"""{CONFIG}
class Model:
    Config = Config
    def initial_state(self, batch_size): ...
    def __call__(self, ids, state): ...
    def state_dict(self): ...
    def load_state_dict(self, tensors): ...
"""
PRESET = "from reviewgen.config import Preset\n"

BROKEN = {
    "raises": ("models", "raise RuntimeError('no such device')", "RuntimeError: no such device"),
    "exits": ("models", "import sys; sys.exit('bye')", "calls sys.exit('bye')"),
    "quits": ("models", "import os; os._exit(3)", "ends the process while it is imported (exit status 3)"),
    "quietly": ("models", "import os; os._exit(0)", "ends the process while it is imported (exit status 0)"),
    "sleeps": ("models", "import time; time.sleep(600)", "was not imported within"),
    "forks": ("models", f"import os, time\nif os.fork() == 0:\n    time.sleep(600)\n{MODEL}", "starts a process (os.fork)"),
    "prints": ("models", "import sys\nwhile True: print('x' * 99); print('y', file=sys.stderr)", "was not imported within"),
    "crashes": ("models", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
    "interrupts": ("models", "raise KeyboardInterrupt", "KeyboardInterrupt"),
    "lacksit": ("models", "Other = 1", "AttributeError"),
    "nomodule": ("models", "import fake_not_there", "No module named 'fake_not_there'"),
    "unwritten": ("models", None, "its module fake_unwritten is not installed"),
    "syntax": ("models", "def broken(:", "SyntaxError"),
    "instance": ("models", "Model = 3", "is the int 3; its entry point must name the class of a model"),
    "half": ("models", f"{MODEL}    state_dict = None", "lacks state_dict"),
    "plainconfig": ("models", MODEL.replace("@dataclass(frozen=True, kw_only=True)\n", ""), "must be a class with @dataclass"),
    "thawed": ("models", MODEL.replace("frozen=True, ", ""), "must be frozen and keyword-only"),
    "novocab": ("models", MODEL.replace("    vocab_size: int\n", ""), "first field must be vocab_size; got size"),
    "mistyped": ("models", MODEL.replace("size: int = 1", "size: 'Intt' = 1"), "whose types cannot be read"),
    "badtokenizer": ("tokenizers", f"{MODEL}", "lacks train, encode, decode, save, load"),
    "nostepper": ("steppers", f"{MODEL}", "not a reviewgen.protocols.StepperFactory"),
    "dictpreset": ("presets", "Model = {'model': 'gru'}", "not a reviewgen.config.Preset"),
    "strange": ("presets", f"{PRESET}Model = Preset(model='grru', tokenizer='char')", "names the model 'grru'"),
    "setting": (
        "presets",
        f"{PRESET}Model = Preset(model='gru', tokenizer='char', model_settings={{'hidden_sise': 4}})",
        "'hidden_sise' is not a setting",
    ),
    "size": (
        "presets",
        f"{PRESET}Model = Preset(model='gru', tokenizer='char', sizes=({{'hidden_size': -1}},))",
        "hidden_size must be",
    ),
    "trainingset": (
        "presets",
        f"{PRESET}Model = Preset(model='gru', tokenizer='char', training_settings={{'bach_size': 4}})",
        "has a training setting that cannot be used: 'bach_size'",
    ),
    "generationset": (
        "presets",
        f"{PRESET}Model = Preset(model='gru', tokenizer='char', generation_settings={{'top_p': 4}})",
        "has a generation setting that cannot be used: top_p",
    ),
}
"""Group, module and cause of packages that are broken in one way each."""


def plant(site: Path, package: str, group: str, name: str, code: str | None) -> None:
    module = f"fake_{package}"
    info = site / f"reviewgen_{package}-1.2.3.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: reviewgen-{package}\nVersion: 1.2.3\n")
    (info / "entry_points.txt").write_text(f"[reviewgen.{group}]\n{name} = {module}:Model\n")
    if code is not None:
        (site / f"{module}.py").write_text(code)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    for package, (group, code, _) in BROKEN.items():
        plant(folder, package, group, f"{package}-char" if group == "presets" else package, code)
    plant(folder, "fine", "models", "fine", MODEL)
    return folder


@pytest.fixture(scope="module")
def inspected(site) -> tuple[dict[str, Inspection], float]:
    """Inspect the planted packages and those of the tree, once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        started = time.monotonic()
        results = inspect_plugins(limit=3.0)
        expected = {(each.kind, each.name) for each in list_plugins() if each.package != THIS_PROCESS}
    assert {(each.plugin.kind, each.plugin.name) for each in results} == expected
    return {f"{each.plugin.package} {each.plugin.kind} {each.plugin.name}": each for each in results}, time.monotonic() - started


@pytest.mark.parametrize("package", BROKEN)
def test_a_broken_package_is_named_with_the_cause(inspected, package):
    (result,) = [each for each in inspected[0].values() if each.plugin.package == f"reviewgen-{package}"]
    assert result.problem is not None
    assert f"reviewgen-{package} 1.2.3" in result.problem and BROKEN[package][2] in result.problem
    assert len(result.problem) < 500 and "\n" not in result.problem


def test_good_packages_are_fine(inspected):
    good = {name: each.problem for name, each in inspected[0].items() if each.plugin.package in ("reviewgen", "reviewgen-fine")}
    assert "reviewgen-fine model fine" in good and "reviewgen preset lstm-word" in good
    assert {name: problem for name, problem in good.items() if problem} == {}


def test_the_slow_ones_do_not_delay_it(inspected):
    assert inspected[1] < 300  # the two that never end sleep for 600 s or print for ever


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_nothing_is_left_running(inspected, site):
    running = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(site).encode() in (entry / "cmdline").read_bytes():
                running.append(entry.name)
        except OSError:
            continue
    assert running == []


def test_the_rest_of_a_package_is_inspected_after_one_that_ends_the_process(tmp_path, monkeypatch):
    plant(tmp_path, "mixed", "models", "mixed", "import os; os._exit(1)")
    entry_points = tmp_path / "reviewgen_mixed-1.2.3.dist-info" / "entry_points.txt"
    entry_points.write_text(entry_points.read_text() + "other = fake_other:Model\nanother = fake_mixed:Model\n")
    (tmp_path / "fake_other.py").write_text(MODEL)
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins = [plugin for plugin in list_plugins("model") if plugin.package == "reviewgen-mixed"]
    problems = {each.plugin.name: each.problem for each in inspect_plugins(plugins)}
    assert problems["other"] is None
    assert "exit status 1" in str(problems["mixed"]) and "exit status 1" in str(problems["another"])


def test_doctor_shows_each(site, tmp_path):
    few = tmp_path / "few"
    for package in ("raises", "quits", "forks"):
        plant(few, package, "models", package, BROKEN[package][1])
    plant(few, "fine", "models", "fine", MODEL)
    command = [sys.executable, "-m", "reviewgen", "doctor"]
    env = os.environ | {"PYTHONPATH": str(few)}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=300)
    assert done.returncode == 1, done.stderr
    assert "reviewgen-fine 1.2.3: ok (model fine)" in done.stdout
    assert "reviewgen-quits 1.2.3: 1 of 1 broken (model quits)" in done.stdout
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, env=env, check=False, timeout=300)
    facts = json.loads(done.stdout)
    assert len(facts["problems"]) == 3
    assert {plugin["package"] for plugin in facts["plugins"] if plugin["problem"] is None} == {"reviewgen", "reviewgen-fine"}
