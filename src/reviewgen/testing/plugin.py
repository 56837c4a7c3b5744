"""``check_plugin``: all that an installed plugin goes through, from its metadata to texts in a
fresh process, in seconds.

The checks are tests of pytest, in ``test_plugin``; this module says which there are for a name.
"""

import contextlib
import functools
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from reviewgen.api import load, train
from reviewgen.config.generation import Preset
from reviewgen.config.settings import from_dict
from reviewgen.errors import UnknownPlugin, did_you_mean
from reviewgen.model.review_model import ReviewModel
from reviewgen.protocols.model import CountTrained
from reviewgen.registry.metadata import Plugin
from reviewgen.registry.plugins import (
    THIS_PROCESS,
    find_model,
    find_plugin,
    find_preset,
    find_stepper,
    find_tokenizer,
    list_plugins,
    preset_names,
)
from reviewgen.storage import temporary_folder
from reviewgen.testing.abilities import MODEL_LAWS
from reviewgen.testing.installed import inspect_plugins
from reviewgen.testing.laws import run_python
from reviewgen.testing.metrics import METRIC_LAWS
from reviewgen.testing.models import make_model
from reviewgen.testing.processors import PROCESSOR_LAWS
from reviewgen.testing.steppers import STEPPER_LAWS
from reviewgen.testing.tokenizers import TOKENIZER_LAWS, make_tokenizer

Checks = Iterator[tuple[str, Callable[[], object]]]

MAX_PARAMETERS = 200_000_000
"""Of a preset: 800 MB of weights. These models are trained in minutes, on a laptop."""

TEXTS = tuple(
    f"{opinion} {thing}, and {end}."
    for opinion in ("I liked the", "We loved the", "Nobody needs the", "A great", "A dull")
    for thing in ("film", "plot of the film", "music", "meal")
    for end in ("it was over too soon", "we will come back", "that is all")
)
"""The texts to train on: 60 short reviews."""

PROMPTS = ("I", "A great film, and")
"""Two prompts of different lengths, so that a state that grows with the tokens is noticed."""

_NAMED = ("preset", "model", "tokenizer", "weights", "logits processor", "metric", "reader")
_PRESET = "ngram-char"  # trained to try a logits processor or a metric: it is counted in a moment
# of a tokenizer without the setting vocab_size, as of one that has a token for each character
_VOCAB_SIZE = 256
_SCRIPT = """
import json, reviewgen, sys
model = reviewgen.load(sys.argv[1])
print(json.dumps(model.generate(json.load(sys.stdin), max_new_tokens=20, seed=1)))
"""


@dataclass(frozen=True)
class PluginCheck:
    """One check of a plugin.

    Attributes:
        name: What was checked: "metadata", "presets", "law causal", "training", ...
        outcome: "ok", "failed", or "not checked".
        seconds: How long it took.
        message: What is wrong, in short; empty if nothing is.
    """

    name: str
    outcome: Literal["ok", "failed", "not checked"]
    seconds: float
    message: str


@dataclass(frozen=True)
class PluginReport:
    """All checks of a plugin.

    Attributes:
        name: The name that was checked.
        preset: The preset that was trained, ``<model>-<tokenizer>``; empty for what is not trained,
            such as a metric.
        checks: The checks, in order.
        output: What pytest has printed.
    """

    name: str
    preset: str
    checks: tuple[PluginCheck, ...]
    output: str = field(default="", repr=False)

    @property
    def passed(self) -> bool:
        """Whether every check was made and is ok; false if pytest found none, as when a package
        fails in between.
        """
        return bool(self.checks) and all(check.outcome == "ok" for check in self.checks)

    @property
    def seconds(self) -> float:
        """How long all checks took."""
        return sum(check.seconds for check in self.checks)

    def raise_for_failure(self) -> None:
        """Raise unless all checks were made and are ok.

        Raises:
            AssertionError: Names each check that failed, with its message.
        """
        failed = [
            f"{check.name}: {check.message}" for check in self.checks if check.outcome == "failed"
        ]
        details = "\n".join(failed) or self.output
        assert self.passed, (
            f"{self.name} fails {len(failed)} of {len(self.checks)} checks.\n{details}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {**asdict(self), "passed": self.passed, "seconds": self.seconds}


def check_plugin(name: str) -> PluginReport:
    """Check every installed plugin of a name as a user will meet it, with pytest; takes up to 20 s
    for a small model.

    In order: its metadata and import, in a process of its own; its presets with their settings and
    sizes; the laws of the model, of its stepper and of the tokenizer; two training steps, saving,
    and loading in a fresh process, which must generate the same texts for two prompts of different
    lengths. Weights are loaded by name, here and in a fresh process. A logits processor keeps its
    laws and generates, a metric keeps its laws and is measured in a training. If a plugin cannot be
    imported, nothing else is checked.

    >>> check_plugin("mingru-char").raise_for_failure()  # doctest: +SKIP

    Args:
        name: A preset, which is checked with its model and tokenizer if its package provides them,
            and with its weights if they are installed; a model, trained with a preset of its
            package or the tokenizer ``char``; a tokenizer, trained with the model ``rnn``; a logits
            processor; a metric; or a reader.

    Raises:
        UnknownPlugin: No installed plugin has that name.
    """
    import hypothesis  # noqa: F401  of the same extra: a law needs it
    import pytest

    subject = resolve_plugin(name)
    recorder = _Recorder()
    folder = Path(__file__).parent
    options = [
        "--plugin",
        name,
        "-c",
        os.devnull,
        "--rootdir",
        str(folder),
        "-p",
        "reviewgen.testing.options",
    ]
    options += [
        "-p",
        "no:cacheprovider",
        "-W",
        "ignore::pytest.PytestAssertRewriteWarning",
        "-q",
        "--tb=short",
    ]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        pytest.main([str(folder / "test_plugin.py"), *options], plugins=[recorder])
    return PluginReport(name, subject.preset, tuple(recorder.checks), printed.getvalue())


class _Recorder:
    """A plugin of pytest that keeps the results of tests."""

    def __init__(self) -> None:
        self.checks: list[PluginCheck] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Keep the result of a test; the setup and the end of one count if they fail."""
        if report.when == "call" or not report.passed:
            outcome = {"passed": "ok", "failed": "failed"}.get(report.outcome, "not checked")
            name = report.nodeid.partition("[")[2][:-1]
            crash = getattr(report.longrepr, "reprcrash", None)
            location = "" if crash is None else f" ({Path(crash.path).name}, line {crash.lineno})"
            message = "" if crash is None else f"{' '.join(crash.message.split()):.250}{location}"
            self.checks.append(PluginCheck(name, outcome, report.duration, message))  # type: ignore[arg-type]


@dataclass(frozen=True)
class CheckedPlugin:
    """What is checked.

    Attributes:
        name: The name that was given.
        preset: The preset to train; empty if there is neither a preset nor a model nor a tokenizer
            of that name.
        plugins: The plugins to inspect: those of the name, and what its package has of the model,
            stepper, presets and tokenizer.
    """

    name: str
    preset: str
    plugins: tuple[Plugin, ...]

    def has(self, kind: str) -> bool:
        """Return whether a plugin of a kind is checked."""
        return any(plugin.kind == kind for plugin in self.plugins)


def resolve_plugin(name: str) -> CheckedPlugin:
    """Return what a name means: every plugin that has it. Nothing is imported.

    Raises:
        UnknownPlugin: No installed plugin has that name.
    """
    known = sorted(list_plugins(), key=lambda plugin: plugin.problem is not None)

    def find(kind: str, name: str) -> list[Plugin]:
        # of several the usable one
        return [plugin for plugin in known if (plugin.kind, plugin.name) == (kind, name)][:1]

    named = [plugin for kind in _NAMED for plugin in find(kind, name)]
    kinds = {plugin.kind for plugin in named}
    is_pair = name in preset_names()
    if not named and not is_pair:
        names = [plugin.name for plugin in known]
        # as in gru-char-mine of the package reviewgen-mine
        ending = f"-{name.removeprefix('reviewgen-')}"
        meant = next((each for each in names if each.endswith(ending)), name)
        raise UnknownPlugin(
            f"No installed package provides a plugin {name!r}. {did_you_mean(meant, names)}"
        )
    model, tokenizer = (
        [*name.split("-"), ""][:2] if is_pair else (name, "") if "model" in kinds else ("", name)
    )
    parts = [*find("model", model), *find("tokenizer", tokenizer)]
    package_plugins = [plugin for plugin in known if plugin.package == [*named, *parts][0].package]
    beside = [plugin for plugin in parts if plugin in package_plugins]
    if beside:  # with what is named after the model, or else after the tokenizer
        index = 0 if beside[0].kind == "model" else 1  # in the name of a preset
        after = [
            plugin
            for plugin in package_plugins
            if beside[0].name in plugin.name.split("-")[index : index + 1]
        ]
        beside += [plugin for plugin in after if plugin.kind in ("stepper", "preset")]
    preset = name if is_pair else f"rnn-{name}" if "tokenizer" in kinds else ""
    if "model" in kinds:
        preset = next((plugin.name for plugin in beside if plugin.kind == "preset"), f"{name}-char")
    return CheckedPlugin(name, preset, tuple(dict.fromkeys([*named, *beside])))


def checks_of(name: str) -> Checks:
    """Yield the checks of a plugin, by name; those after the metadata only if its package can be
    imported.
    """
    subject = resolve_plugin(name)
    # which may not be trained yet
    inspected = [plugin for plugin in subject.plugins if plugin.kind != "weights"]
    problems = [
        inspection.problem for inspection in inspect_plugins(inspected) if inspection.problem
    ]
    yield "metadata", functools.partial(_assert_none, problems)
    if problems:
        return
    if subject.preset:
        yield from _checks_of_preset(subject)
    if subject.has("weights"):
        yield "weights", functools.partial(_check_weights, name)
    if subject.has("logits processor"):
        yield from _bind(
            PROCESSOR_LAWS, " of the logits processor", find_plugin("logits processor", name)[0]
        )
        yield "generation", functools.partial(_check_generation, name)
    if subject.has("metric"):
        yield from _bind(METRIC_LAWS, " of the metric", find_plugin("metric", name)[0])
        yield "measuring", functools.partial(_check_measuring, name)


def _checks_of_preset(subject: CheckedPlugin) -> Checks:
    """Yield the laws of a model, its stepper and a tokenizer, whichever are checked, and a
    training.
    """
    preset = find_preset(subject.preset)
    settings = (
        {}
        if preset.parts
        else {**preset.model_settings, **(preset.sizes[0] if preset.sizes else {})}
    )
    if subject.has("model") and not preset.parts:  # a blend has no settings to make one from
        make = functools.partial(make_model, preset.model, **settings)
        factory = find_stepper(preset.model)
        yield (
            "presets",
            functools.partial(
                _check_presets,
                [plugin.name for plugin in subject.plugins if plugin.kind == "preset"],
            ),
        )
        yield from _bind(MODEL_LAWS, "", make)
        if factory is not None or hasattr(find_model(preset.model)[0], "stepper"):
            yield from _bind(STEPPER_LAWS, " of the stepper", make, factory)
    if subject.has("tokenizer"):
        yield from _bind(
            TOKENIZER_LAWS, " of the tokenizer", functools.partial(make_tokenizer, preset.tokenizer)
        )
    yield "training", functools.partial(_check_training, subject, preset, settings)


def _bind(laws: Iterable[Callable[..., None]], of: str, *arguments: Any) -> Checks:
    for law in laws:
        yield f"law {law.__name__}{of}", functools.partial(law, *arguments)


def _assert_none(problems: list[str]) -> None:
    assert not problems, " ".join(problems)


def _check_presets(names: Iterable[str]) -> None:
    """Build the model of each preset in each of its sizes, without memory for its weights, and
    check the number of parameters.
    """
    for name in names:
        preset = find_preset(name)
        model_class = find_model(preset.model)[0]
        tokenizer_class, _ = find_tokenizer(preset.tokenizer)
        tokenizer = from_dict(tokenizer_class.Config, preset.tokenizer_settings)
        counts = []
        for size in preset.sizes or ({},):
            values = {
                "vocab_size": getattr(tokenizer, "vocab_size", None) or _VOCAB_SIZE,
                **preset.model_settings,
                **size,
            }
            with torch.device("meta"):
                model = model_class(from_dict(model_class.Config, values))
            counts.append(
                sum(parameter.numel() for parameter in model.parameters())
                if isinstance(model, nn.Module)
                else 0
            )
        assert counts == sorted(counts), (
            f"The sizes of {name} have {counts} parameters; "
            "they must be listed from small to large."
        )
        most = (
            f"{name} has {counts[-1]:,} parameters; at most {MAX_PARAMETERS:,} can be trained in"
            " minutes."
        )
        assert counts[-1] <= MAX_PARAMETERS, most


def _check_training(subject: CheckedPlugin, preset: Preset, settings: Mapping[str, Any]) -> None:
    """Train for two steps, or count; save and load the model, here and in a fresh process: it must
    generate the same texts.
    """
    is_counted = issubclass(find_model(preset.model)[0], CountTrained)
    model = _train(subject.preset, steps=None if is_counted else 2, model=settings)
    with temporary_folder() as folder:
        model.save_pretrained(folder / "model")
        before = _generate(model)
        after = _generate(load(folder / "model"))
        assert after == before, (
            f"The loaded model generates {after}, and the model that was saved {before}; they must"
            " be equal."
        )
        if not any(plugin.package == THIS_PROCESS for plugin in subject.plugins):
            _assert_same_elsewhere(folder / "model", after)


def _check_weights(name: str) -> None:
    """Load weights by name, here and in a fresh process: both must be of the preset, and generate
    the same texts.
    """
    model = load(name)
    advice = (
        "They must be of the preset that they are named after: train that, or rename the entry"
        " point in reviewgen.weights."
    )
    assert model.preset == name, (
        f"load({name!r}) returns weights of the preset {model.preset!r}. {advice}"
    )
    _assert_same_elsewhere(name, _generate(model))


def _check_generation(name: str) -> None:
    """Generate with a logits processor that is saved as a model's default, here and in a fresh
    process.
    """
    with temporary_folder() as folder:
        _train(_PRESET).save_pretrained(folder / "model")
        load(folder / "model").save_generation_config(folder / "model", logits_processors=[name])
        _assert_same_elsewhere(folder / "model", _generate(load(folder / "model")))


def _check_measuring(name: str) -> None:
    """Train with a metric, which must measure the texts of the model and held-out ones."""
    facts = _train(_PRESET, training={"metrics": (name,)}).training["metrics"][name]
    is_measured = facts["generated"] is not None and facts["held_out"] is not None
    assert is_measured, f"A training recorded no value of the metric: {facts}."


def _train(preset: str, **options: Any) -> ReviewModel:
    return train(preset, list(TEXTS), progress=False, seed=0, **options)


def _generate(model: ReviewModel) -> list[str]:
    return model.generate(list(PROMPTS), max_new_tokens=20, seed=1)


def _assert_same_elsewhere(source: str | Path, here: list[str]) -> None:
    """Raise AssertionError unless a fresh process loads a model and generates the texts of this
    process.
    """
    there = json.loads(run_python(_SCRIPT, str(source), stdin=json.dumps(PROMPTS)))
    assert there == here, (
        f"A fresh process generates {there} from the saved model, and this one {here}; they must be"
        " equal."
    )
