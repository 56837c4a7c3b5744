"""What ``doctor`` checks: packages that raise, exit, crash, hang or are not what they say are
named, and harm no other.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from reviewgen.errors import PluginError
from reviewgen.registry.plugins import list_plugins
from reviewgen.testing.installed import Inspection, inspect_plugin, inspect_plugins
from tests.support.distributions import MODEL

pytestmark = pytest.mark.usefixtures("untouched_registry")

METHODS = "def state_dict(self): ...\n    def load_state_dict(self, tensors): ...\n    def __call__"
PLAIN = (
    MODEL.replace("from torch import nn\n", "")
    .replace("nn.Module", "object")
    .replace("def forward", METHODS)
)
"""A model that is imported in a moment: without torch."""
PRESET = "from reviewgen.config import Preset\nModel = Preset(model='gru', tokenizer='char', {})"
SIZED = MODEL.replace("vocab_size: int\n", "vocab_size: int\n    size: int = 1\n")
STATIC = {
    "raises": ("models", "raise RuntimeError('no such device')", "no such device"),
    "lacksit": ("models", "Other = 1", "AttributeError"),
    "nomodule": ("models", "import fake_not_there", "No module named 'fake_not_there'"),
    "unwritten": ("models", None, "No module named 'fakeunwritten'"),
    "syntax": ("models", "def broken(:", "SyntaxError"),
    "instance": ("models", "Model = 3", "must name a class; got 3"),
    "half": ("models", MODEL.replace("initial_state", "start"), "lacks initial_state"),
    "plainconfig": (
        "models",
        MODEL.replace("@dataclass(frozen=True, kw_only=True)\n", ""),
        "must be a class with @dataclass",
    ),
    "thawed": ("models", MODEL.replace("frozen=True, ", ""), "must be frozen and keyword-only"),
    "novocab": (
        "models",
        SIZED.replace("    vocab_size: int\n", ""),
        "first field of Config must be vocab_size; got size",
    ),
    "mistyped": (
        "models",
        SIZED.replace("size: int = 1", "size: 'Intt' = 1"),
        "The types of Config cannot be read",
    ),
    "badtokenizer": ("tokenizers", MODEL, "lacks decode, encode, load, save of"),
    "nostepper": ("steppers", MODEL, "not a reviewgen.protocols.StepperFactory"),
    "dictpreset": ("presets", "Model = {'model': 'gru'}", "not a reviewgen.config.Preset"),
    "strange": ("presets", PRESET.format("").replace("gru", "grru"), "names the model 'grru'"),
    "setting": (
        "presets",
        PRESET.format("model_settings={'hidden_sise': 4}"),
        "'hidden_sise' is not a setting",
    ),
    "size": ("presets", PRESET.format("sizes=({'hidden_size': -1},)"), "hidden_size must be"),
    "trainingset": (
        "presets",
        PRESET.format("training_settings={'bach_size': 4}"),
        "that cannot be used: 'bach_size'",
    ),
    "generationset": (
        "presets",
        PRESET.format("generation_settings={'top_p': 4}"),
        "that cannot be used: top_p",
    ),
}
"""Group, module and cause of packages that are broken in one way each."""
ENDING = {
    "exits": ("import sys; sys.exit('bye')", "calls sys.exit('bye')"),
    "quietly": ("import os; os._exit(0)", "ends the process (exit status 0)"),
    "sleeps": ("import time; time.sleep(600)", "was not imported within"),
    "prints": (
        "import sys\nwhile True: print('x' * 99); print('y', file=sys.stderr)",
        "was not imported within",
    ),
    "crashes": (
        "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "SIGSEGV" if os.name == "posix" else "exit status",
    ),
    "interrupts": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
}
"""Module and cause of packages that only another process can import."""


def test_a_plugin_that_is_not_what_it_says_is_named_with_the_cause(install):
    for package, (group, code, words) in STATIC.items():
        name = f"{package}-char" if group == "presets" else package
        point = {group: {name: f"fake{package}:Model"}}
        install(f"reviewgen-{package}", point, {} if code is None else {f"fake{package}": code})
        (plugin,) = [each for each in list_plugins() if each.package == f"reviewgen-{package}"]
        with pytest.raises(PluginError) as raised:
            inspect_plugin(plugin)
        assert words in str(raised.value) and f"reviewgen-{package} 1.2.3" in str(raised.value), (
            package,
            raised.value,
        )


def test_the_installed_plugins_are_as_they_say():
    for plugin in list_plugins():
        inspect_plugin(plugin)


def problems(results: list[Inspection]) -> dict[str, Any]:
    return {each.plugin.name: each.problem for each in results}


def test_the_plugin_that_ends_the_process_of_its_package_is_named(install):
    points = {
        "models": {"early": "fakefine:Model", "ends": "fakeends:Model", "later": "fakefine:Model"}
    }
    install("reviewgen-mixed", points, {"fakeends": "import os; os._exit(1)", "fakefine": PLAIN})
    found = problems(
        inspect_plugins(
            [each for each in list_plugins("model") if each.package == "reviewgen-mixed"]
        )
    )
    assert (
        found["early"] is None
        and "'ends' of reviewgen-mixed 1.2.3 ends the process (exit status 1)" in found["ends"]
    )
    assert "'later' of reviewgen-mixed 1.2.3 was not inspected: The model 'ends'" in found["later"]


@pytest.mark.slow
def test_a_package_that_ends_or_holds_up_its_process_harms_no_other(install):
    for package, (code, _) in ENDING.items():
        site = install(
            f"reviewgen-{package}",
            {"models": {package: f"fake{package}:Model"}},
            {f"fake{package}": code},
        )
    install("reviewgen-fine", {"models": {"fine": "fakefine:Model"}}, {"fakefine": PLAIN})
    late = [plugin for plugin in list_plugins("model") if plugin.name in ("sleeps", "prints")]
    others = [plugin for plugin in list_plugins("model") if plugin not in late]
    found = problems(inspect_plugins(late, limit=5.0)) | problems(inspect_plugins(others))
    assert [name for name, (_, words) in ENDING.items() if words not in found[name]] == []
    assert all(found[name] is None for name in ("fine", "lstm", "ngram"))
    processes = [
        (entry / "cmdline").read_bytes()
        for entry in Path("/proc").glob("[0-9]*")
        if (entry / "cmdline").exists()
    ]
    assert not any(str(site).encode() in line for line in processes)  # nothing is left running


@pytest.mark.slow
def test_doctor_shows_each(install, run_command):
    for package, code in ("quits", "import os; os._exit(3)"), ("fine", PLAIN):
        install(
            f"reviewgen-{package}",
            {"models": {package: f"fake{package}:Model"}},
            {f"fake{package}": code},
        )
    status, out, _ = run_command("doctor")
    assert status == 1 and "reviewgen-fine 1.2.3: ok (model fine)" in out
    assert "reviewgen-quits 1.2.3: 1 of 1 broken (model quits)" in out
    status, out, _ = run_command("doctor", "--json")
    facts = json.loads(out)
    assert len(facts["problems"]) == 1
    assert {plugin["package"] for plugin in facts["plugins"] if plugin["problem"] is None} == {
        "reviewgen",
        "reviewgen-fine",
    }
