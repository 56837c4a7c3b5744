"""``check_plugin`` checks an installed plugin in seconds, from its metadata to the texts that it
generates in a fresh process.

The checks run as tests of pytest, in ``test_plugin``. This module determines the checks for a name.
"""

import contextlib
import functools
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import product
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
    find_logits_processor,
    find_metric,
    find_model,
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
"""The largest number of parameters of a preset: 800 MB of weights. A preset should be trained in
minutes, on a laptop.
"""

_OPINIONS = ("I liked the", "We loved the", "Nobody needs the", "A great", "A dull")
_THINGS = ("film", "plot of the film", "music", "meal")
_ENDS = ("it was over too soon", "we will come back", "that is all")
TEXTS = tuple(
    f"{opinion} {thing}, and {end}." for opinion, thing, end in product(_OPINIONS, _THINGS, _ENDS)
)
"""The texts to train on: 60 short reviews."""

PROMPTS = ("I", "A great film, and")
"""Two prompts of different lengths, so that a state that grows with the tokens is noticed."""

# the kinds of plugins that can be checked by their names; the others belong to one of these
_NAMED = ("preset", "model", "tokenizer", "weights", "logits processor", "metric", "reader")
# A logits processor or a metric is tried with this preset, which is trained in a moment.
_PRESET = "ngram-char"
_VOCAB_SIZE = 256  # for a tokenizer without the setting vocab_size, such as one of characters
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
        message: What is wrong, in short; empty if nothing is wrong.
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
        """Whether every check was made and is ok. False if there are no checks, because pytest
        could not collect them.
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
    tests = Path(__file__).with_name("test_plugin.py")
    options = f"-c {os.devnull} -p reviewgen.testing.options -p no:cacheprovider -q --tb=short"
    warnings = "-W ignore::pytest.PytestAssertRewriteWarning"
    arguments = [str(tests), f"--rootdir={tests.parent}", f"--plugin={name}"]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        pytest.main([*arguments, *options.split(), *warnings.split()], plugins=[recorder])
    return PluginReport(name, subject.preset, tuple(recorder.checks), printed.getvalue())


class _Recorder:
    """A plugin of pytest that keeps the results of tests."""

    def __init__(self) -> None:
        self.checks: list[PluginCheck] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Keep the result of a test. Its setup and teardown are kept only if they fail."""
        if report.when != "call" and report.passed:
            return
        outcome = {"passed": "ok", "failed": "failed"}.get(report.outcome, "not checked")
        name = report.nodeid.partition("[")[2][:-1]  # what is in the brackets at the end
        crash = getattr(report.longrepr, "reprcrash", None)
        message = ""
        if crash is not None:
            words = " ".join(crash.message.split())
            message = f"{words:.250} ({Path(crash.path).name}, line {crash.lineno})"
        self.checks.append(PluginCheck(name, outcome, report.duration, message))  # type: ignore[arg-type]


@dataclass(frozen=True)
class CheckedPlugin:
    """What ``check_plugin`` checks for a name.

    Attributes:
        preset: The preset to train; empty if there is neither a preset nor a model nor a tokenizer
            of that name.
        plugins: The plugins to inspect: those with this name and, from the same package, the model,
            stepper, presets and tokenizer that belong to this name.
    """

    preset: str
    plugins: tuple[Plugin, ...]

    def has(self, kind: str) -> bool:
        """Return whether a plugin of a kind is checked."""
        return any(plugin.kind == kind for plugin in self.plugins)


def resolve_plugin(name: str) -> CheckedPlugin:
    """Find every plugin of a name, and what is checked with it. Nothing is imported.

    Raises:
        UnknownPlugin: No installed plugin has that name.
    """
    # a usable plugin comes before an unusable one of the same name
    plugins = sorted(list_plugins(), key=lambda plugin: plugin.problem is not None)
    plugin_of: dict[tuple[str, str], Plugin] = {}
    for plugin in plugins:
        plugin_of.setdefault((plugin.kind, plugin.name), plugin)
    named = [plugin_of[kind, name] for kind in _NAMED if (kind, name) in plugin_of]
    model = ""
    tokenizer = ""
    preset = ""
    if name in preset_names():
        preset = name
        model, tokenizer, *_ = name.split("-")  # a preset is named MODEL-TOKENIZER or longer
    elif ("model", name) in plugin_of:
        preset = f"{name}-char"
        model = name
    elif ("tokenizer", name) in plugin_of:
        preset = f"rnn-{name}"
        tokenizer = name
    elif not named:
        raise _unknown_name(name, [plugin.name for plugin in plugins])
    parts = [
        plugin_of[key] for key in (("model", model), ("tokenizer", tokenizer)) if key in plugin_of
    ]
    # ``named`` is empty if the name is that of a pair of a model and a tokenizer, which can be
    # trained without a preset plugin
    package = (named or parts)[0].package
    related = [plugin for plugin in parts if plugin.package == package]
    if related:
        related += _named_after(related[0], plugins)
    if name == model:  # train a preset of the package, if it has one, instead of NAME-char
        preset = next((plugin.name for plugin in related if plugin.kind == "preset"), preset)
    return CheckedPlugin(preset, tuple(dict.fromkeys([*named, *related])))


def _named_after(owner: Plugin, plugins: Iterable[Plugin]) -> list[Plugin]:
    """Return the stepper and the presets of a package that are named after its model or tokenizer,
    ``owner``.
    """
    related = []
    for plugin in plugins:
        model, _, rest = plugin.name.partition("-")  # a preset is named MODEL-TOKENIZER
        name = model if owner.kind == "model" else rest.partition("-")[0]
        is_of_package = plugin.package == owner.package and plugin.kind in ("stepper", "preset")
        if is_of_package and name == owner.name:
            related.append(plugin)
    return related


def _unknown_name(name: str, names: list[str]) -> UnknownPlugin:
    """Return the error for a name that is not among the names of the installed plugins."""
    # the package reviewgen-mine may have the preset gru-char-mine
    ending = f"-{name.removeprefix('reviewgen-')}"
    meant = next((known for known in names if known.endswith(ending)), name)
    return UnknownPlugin(
        f"No installed package provides a plugin {name!r}. {did_you_mean(meant, names)}"
    )


def checks_of(name: str) -> Checks:
    """Yield the checks of a plugin, with their names. If its package cannot be imported, there is
    only the check of the metadata.
    """
    subject = resolve_plugin(name)
    # Weights have a check of their own, and a new package from a template has no trained weights
    # yet.
    inspected = [plugin for plugin in subject.plugins if plugin.kind != "weights"]
    inspections = inspect_plugins(inspected)
    problems = [inspection.problem for inspection in inspections if inspection.problem]
    yield "metadata", functools.partial(_assert_none, problems)
    if problems:
        return
    if subject.preset:
        yield from _checks_of_preset(subject)
    if subject.has("weights"):
        yield "weights", functools.partial(_check_weights, name)
    if subject.has("logits processor"):
        factory, _ = find_logits_processor(name)
        yield from _bind(PROCESSOR_LAWS, " of the logits processor", factory)
        yield "generation", functools.partial(_check_generation, name)
    if subject.has("metric"):
        metric, _ = find_metric(name)
        yield from _bind(METRIC_LAWS, " of the metric", metric)
        yield "measuring", functools.partial(_check_measuring, name)


def _checks_of_preset(subject: CheckedPlugin) -> Checks:
    """Yield the checks of a preset: its settings; the laws of its model, stepper and tokenizer, if
    they are to be checked; and a training.
    """
    preset = find_preset(subject.preset)
    settings: dict[str, Any] = {}
    if not preset.parts:  # a blend has no settings to make a model from
        smallest = preset.sizes[0] if preset.sizes else {}
        settings = {**preset.model_settings, **smallest}
    if subject.has("model") and not preset.parts:
        make = functools.partial(make_model, preset.model, **settings)
        factory = find_stepper(preset.model)
        presets = [plugin.name for plugin in subject.plugins if plugin.kind == "preset"]
        yield "presets", functools.partial(_check_presets, presets)
        yield from _bind(MODEL_LAWS, "", make)
        if factory is not None or hasattr(find_model(preset.model)[0], "stepper"):
            yield from _bind(STEPPER_LAWS, " of the stepper", make, factory)
    if subject.has("tokenizer"):
        make_one = functools.partial(make_tokenizer, preset.tokenizer)
        yield from _bind(TOKENIZER_LAWS, " of the tokenizer", make_one)
    yield "training", functools.partial(_check_training, subject, preset, settings)


def _bind(laws: Iterable[Callable[..., None]], of: str, *arguments: Any) -> Checks:
    """Yield a check for each law, which passes ``arguments`` to the law. The check has the name of
    the law, followed by ``of``.
    """
    for law in laws:
        yield f"law {law.__name__}{of}", functools.partial(law, *arguments)


def _assert_none(problems: list[str]) -> None:
    """Raise AssertionError with the problems, if there are any."""
    assert not problems, " ".join(problems)


def _check_presets(names: Iterable[str]) -> None:
    """Build the model of each preset in each of its sizes, without memory for its weights, and
    check the number of parameters.
    """
    for name in names:
        preset = find_preset(name)
        model_class, _ = find_model(preset.model)
        tokenizer_class, _ = find_tokenizer(preset.tokenizer)
        tokenizer_config = from_dict(tokenizer_class.Config, preset.tokenizer_settings)
        vocab_size = getattr(tokenizer_config, "vocab_size", None) or _VOCAB_SIZE
        counts = []
        for size in preset.sizes or ({},):
            settings = {"vocab_size": vocab_size, **preset.model_settings, **size}
            with torch.device("meta"):
                model = model_class(from_dict(model_class.Config, settings))
            parameters = model.parameters() if isinstance(model, nn.Module) else ()
            counts.append(sum(parameter.numel() for parameter in parameters))
        assert counts == sorted(counts), (
            f"The sizes of {name} have {counts} parameters; they must be listed from small to"
            " large."
        )
        assert counts[-1] <= MAX_PARAMETERS, (
            f"{name} has {counts[-1]:,} parameters; at most {MAX_PARAMETERS:,} can be trained in"
            " minutes."
        )


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
    """Load weights by name, here and in a fresh process. They must belong to the preset of this
    name, and generate the same texts in both processes.
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
    """Train a preset on TEXTS."""
    return train(preset, list(TEXTS), progress=False, seed=0, **options)


def _generate(model: ReviewModel) -> list[str]:
    """Return the texts that a model generates for PROMPTS, with a fixed seed."""
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
