"""Checks the static laws of installed plugins, which need no training. Each package is checked in a
process of its own.

A plugin may raise, exit, crash, hang or print while it is imported. This does not affect the
process that asks for the check.
"""

import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reviewgen.config.bounded import MAX_RECORD, read_text
from reviewgen.config.generation import GenerationConfig, Preset, generation_config
from reviewgen.config.settings import VOCABULARY_FIELDS, fields_of, from_dict
from reviewgen.config.training import TrainingConfig
from reviewgen.errors import BrokenPlugin, PluginError, shortened
from reviewgen.evaluation.metrics import find_problem
from reviewgen.protocols.checks import asserting, describe_error
from reviewgen.protocols.model import LanguageModel
from reviewgen.protocols.tokenizer import Tokenizer
from reviewgen.registry.metadata import Plugin, title_of
from reviewgen.registry.plugins import (
    THIS_PROCESS,
    find_model,
    find_plugin,
    find_preset,
    find_stepper,
    find_tokenizer,
    find_weights,
    list_plugins,
)
from reviewgen.registry.saved import describe_weights
from reviewgen.storage import temporary_folder

# Seconds in which Python must start, import torch and a package, and check the plugins of the
# package, even on a very busy machine.
LIMIT = 120.0
_PROCESSES = 4  # number of processes that inspect packages at the same time
_MAX_MESSAGE = 300  # characters
_VOCAB_SIZE = 1_000  # vocabulary size for checking the settings of a preset
_SCRIPT = """
import json, sys
sys.path[:], file, plugins = json.loads(sys.argv[1])
from reviewgen.testing.installed import report
report(file, plugins)
"""


@dataclass(frozen=True)
class Inspection:
    """The result for one plugin.

    Attributes:
        plugin: The plugin.
        problem: A sentence that names the plugin, its package and what is wrong; None if nothing is
            wrong.
        seconds: How long its import and checks took.
    """

    plugin: Plugin
    problem: str | None
    seconds: float = 0.0


def inspect_plugins(
    plugins: Iterable[Plugin] | None = None, limit: float = LIMIT
) -> list[Inspection]:
    """Inspect plugins, each package in a process of its own, so that nothing they do during import
    affects this process.

    Args:
        plugins: The plugins; None for all that are installed. Plugins that are only registered in
            this process are left out.
        limit: Seconds for a package.

    Returns:
        The results, in the order of the plugins. If a plugin ends the process, the plugins of its
        package that come after it are not inspected.
    """
    every = list_plugins() if plugins is None else plugins
    asked = [plugin for plugin in every if plugin.package != THIS_PROCESS]
    results: dict[Plugin, Inspection] = {}
    by_package: dict[str, list[Plugin]] = {}
    for plugin in asked:
        if plugin.problem is None:
            by_package.setdefault(plugin.package, []).append(plugin)
        else:
            problem = f"{title_of(plugin)} is not usable: {plugin.problem}."
            results[plugin] = Inspection(plugin, problem)
    with ThreadPoolExecutor(_PROCESSES) as pool:
        inspect = functools.partial(_inspect_package, limit=limit)
        for inspections in pool.map(inspect, by_package.values()):
            results |= {inspection.plugin: inspection for inspection in inspections}
    return [results[plugin] for plugin in asked]


def inspect_plugin(plugin: Plugin) -> None:
    """Import a plugin and check what its entry point leads to.

    Raises:
        PluginError: The plugin cannot be imported, or is not of the type that its group requires.
            The message names the package and the cause.
    """
    try:
        if plugin.kind == "preset":
            _check_preset(find_preset(plugin))
        elif plugin.kind == "weights":
            find_weights(plugin)
            weights = describe_weights(plugin)
            if weights is not None:
                assert not weights.problem, weights.problem
        else:
            _check(plugin.kind, find_plugin(plugin.kind, plugin)[0])
    except AssertionError as problem:
        raise BrokenPlugin(f"{title_of(plugin)} cannot be used. {problem}") from problem


def report(file: str, plugins: Sequence[dict[str, Any]]) -> None:
    """Inspect the plugins of a package, append a line of JSON for each to a file, and end the
    process. This is called in a process of its own.
    """
    for facts in plugins:
        plugin = Plugin(**facts)
        started = time.monotonic()
        problem = None
        try:
            inspect_plugin(plugin)
        except PluginError as error:
            problem = str(error)
        # a third party's module may raise anything while it is imported
        except BaseException as error:
            problem = f"{title_of(plugin)} cannot be used: {describe_error(error)}"
        if problem is not None:
            problem = shortened(" ".join(problem.split()), _MAX_MESSAGE)
        # The results go to a file, since a plugin may print to standard output.
        with Path(file).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps([problem, time.monotonic() - started]) + "\n")
    os._exit(0)  # do not wait for threads and exit functions of a plugin


def assert_members(value: Any, protocol: type, *, is_class: bool = False) -> None:
    """Raise AssertionError unless a value has the methods and attributes of a protocol. A class
    needs only the methods and ``Config``, since the other attributes may be set in its objects.
    """
    assert not is_class or isinstance(value, type), (
        f"Its entry point must name a class; got {value!r:.60}."
    )
    # the attributes, which have no value, and the methods
    members = {**dict.fromkeys(protocol.__annotations__), **vars(protocol)}
    missing = []
    for name, member in sorted(members.items()):
        is_public = name == "__call__" or not name.startswith("_")
        is_of_class = name == "Config" or callable(member) or isinstance(member, classmethod)
        is_needed = is_public and (is_of_class or not is_class)
        if is_needed and getattr(value, name, None) is None:
            missing.append(name)
    owner = value if is_class else type(value)
    assert not missing, (
        f"{owner.__name__} lacks {', '.join(missing)} of reviewgen.protocols.{protocol.__name__}."
    )


def assert_config(cls: Any, *, needs_vocab_size: bool = False) -> None:
    """Raise AssertionError unless a class is a config: a frozen, keyword-only dataclass whose
    settings have defaults.
    """
    is_dataclass = isinstance(cls, type) and dataclasses.is_dataclass(cls)
    assert is_dataclass, (
        f"Config is {cls!r:.60}; it must be a class with @dataclass(frozen=True, kw_only=True)."
    )
    fields = dataclasses.fields(cls)
    assert cls.__dataclass_params__.frozen and all(field.kw_only for field in fields), (
        f"{cls.__name__} must be frozen and keyword-only: @dataclass(frozen=True, kw_only=True)."
    )
    with asserting(f"The types of {cls.__name__} cannot be read:"):
        fields_of(cls)
    missing = dataclasses.MISSING
    required = {
        field.name
        for field in fields
        if field.default is missing and field.default_factory is missing
    }
    if needs_vocab_size:
        first = fields[0].name if fields else "none"
        assert first == "vocab_size", (
            f"The first field of {cls.__name__} must be vocab_size; got {first}."
        )
        required -= set(VOCABULARY_FIELDS)
    assert not required, (
        f"The settings {', '.join(sorted(required))} need defaults: a plugin can be used without a"
        " preset."
    )


def _check(kind: str, entry: Any) -> None:
    """Check the static laws of a kind of plugin: those that need no training."""
    if kind == "model":
        assert_members(entry, LanguageModel, is_class=True)
        assert_config(entry.Config, needs_vocab_size=True)
    elif kind == "tokenizer":
        assert_members(entry, Tokenizer, is_class=True)
        assert_config(entry.Config)
    elif kind == "stepper":
        assert callable(entry) and callable(getattr(entry, "expect", None)), (
            f"{entry!r:.60} is not a reviewgen.protocols.StepperFactory: a call, expect and Config."
        )
        assert_config(getattr(entry, "Config", None), needs_vocab_size=True)
    elif kind == "metric":
        problem = find_problem(entry)
        assert problem is None, (
            f"The entry point must be an object as reviewgen.protocols.Metric describes: {problem}."
        )
    elif kind in ("logits processor", "reader"):
        assert callable(entry), f"The entry point must be a function or a class; got {entry!r:.60}."
    elif kind in ("web stepper", "web tokenizer"):
        with asserting("It must be the Path of an ES module with an export default function:"):
            assert "export default" in read_text(entry, MAX_RECORD), entry.name


def _check_preset(preset: Preset) -> None:
    """Check that the model and the tokenizer of a preset (also the presets of which a blend
    consists) are installed, and that they accept its settings.
    """
    for name in preset.parts:
        find_preset(name)
    with asserting(f"It names the model {preset.model!r} and the tokenizer {preset.tokenizer!r}:"):
        model = find_stepper(preset.model) or find_model(preset.model)[0]
        tokenizer, _ = find_tokenizer(preset.tokenizer)
    if not preset.parts:
        own = {"vocab_size": _VOCAB_SIZE, **preset.model_settings}
        for changes in ({}, *preset.sizes, *(settings for _, settings in preset.by_epochs)):
            _check_settings("model", model.Config, {**own, **changes})
    for changes in ({}, *(settings for _, settings in preset.training_by_epochs)):
        _check_settings("training", TrainingConfig, {**preset.training_settings, **changes})
    _check_settings("tokenizer", tokenizer.Config, preset.tokenizer_settings)
    with asserting("It has a generation setting that cannot be used:"):
        generation_config(GenerationConfig(), preset.generation_settings)


def _check_settings(group: str, config: Any, settings: Mapping[str, Any]) -> None:
    """Check that a config class accepts settings. ``group`` names them in the message."""
    with asserting(f"It has a {group} setting that cannot be used:"):
        from_dict(config, settings)


def _inspect_package(plugins: Sequence[Plugin], limit: float) -> list[Inspection]:
    """Inspect the plugins of a package in a new process."""
    with temporary_folder() as folder:
        file = folder / "reports"
        file.touch()
        facts = [dataclasses.asdict(plugin) for plugin in plugins]
        request = json.dumps([sys.path, str(file), facts])
        ending = _run_quietly([sys.executable, "-c", _SCRIPT, request], limit)
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    # there are fewer lines than plugins if a plugin has ended the process
    results = [Inspection(plugin, *line) for plugin, line in zip(plugins, lines, strict=False)]
    remaining = plugins[len(lines) :]
    if remaining:  # the first of these has ended the process
        cause = f"{title_of(remaining[0])} {ending} while it is imported."
        results.append(Inspection(remaining[0], cause))
        for plugin in remaining[1:]:
            problem = f"{title_of(plugin)} was not inspected: {cause}"
            results.append(Inspection(plugin, problem))
    return results


def _run_quietly(command: list[str], limit: float) -> str:
    """Run a command without its output, and return how it ended, for a message."""
    null = subprocess.DEVNULL
    try:
        completed = subprocess.run(
            command, stdin=null, stdout=null, stderr=null, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return f"was not imported within {limit:.0f} s: it waits, or does too much"
    status = completed.returncode
    ending = f"exit status {status}"
    if status < 0:  # a signal ended it, as when native code crashes
        ending = signal.Signals(-status).name
    return f"ends the process ({ending})"
