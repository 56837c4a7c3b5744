"""Checks installed plugins without training them, each package in a process of its own: the static
laws of each kind.

A plugin may raise, exit, crash, hang or print while it is imported; none of that reaches the
process that checks it.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
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

# seconds to start Python, to import torch and a package, and to check its plugins, on the busiest
# machine
LIMIT = 120.0
_AT_ONCE = 4  # processes
_SHORT = 300  # characters of a message
_VOCAB_SIZE = 1_000  # of the config with which a preset's settings are checked
_SCRIPT = """
import json, sys
sys.path[:], *given = json.loads(sys.argv[1])
from reviewgen.testing.installed import report
report(*given)
"""


@dataclass(frozen=True)
class Inspection:
    """The result for one plugin.

    Attributes:
        plugin: The plugin.
        problem: What is wrong, as a sentence that names plugin, package and cause; None if nothing
            is.
        seconds: How long its import and checks took.
    """

    plugin: Plugin
    problem: str | None
    seconds: float = 0.0


def inspect_plugins(
    plugins: Iterable[Plugin] | None = None, limit: float = LIMIT
) -> list[Inspection]:
    """Inspect plugins, each package in a process of its own; whatever they do at import, this
    process is not affected.

    Args:
        plugins: The plugins; None for all that are installed. One that is registered in this
            process only is left out.
        limit: Seconds for a package.

    Returns:
        The results, in the order of the plugins. If one ends the process, those of its package
        after it are not inspected.
    """
    every = list_plugins() if plugins is None else plugins
    asked = [plugin for plugin in every if plugin.package != THIS_PROCESS]
    by_package: dict[str, list[Plugin]] = {}
    for plugin in asked:
        if plugin.problem is None:
            by_package.setdefault(plugin.package, []).append(plugin)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        done = [
            result
            for package in pool.map(lambda group: _inspect(group, limit), by_package.values())
            for result in package
        ]
    results = {id(result.plugin): result for result in done}
    return [
        results.get(id(each))
        or Inspection(each, f"{title_of(each)} is not usable: {each.problem}.")
        for each in asked
    ]


def inspect_plugin(plugin: Plugin) -> None:
    """Import a plugin and check what its entry point leads to.

    Raises:
        PluginError: It cannot be imported, or is not what its group asks for; the message says
            which package and why.
    """
    try:
        if plugin.kind == "preset":
            _check_preset(find_preset(plugin))
        elif plugin.kind == "weights":
            find_weights(plugin)
            known = describe_weights(plugin)
            assert known is None or not known.problem, known and known.problem
        else:
            _check(plugin.kind, find_plugin(plugin.kind, plugin)[0])
    except AssertionError as problem:
        raise BrokenPlugin(f"{title_of(plugin)} cannot be used. {problem}") from problem


def report(file: str, plugins: Sequence[dict[str, Any]]) -> None:
    """Inspect the plugins of a package, append a line on each to a file, and end the process:
    called in a process of its own.
    """
    for plugin in (Plugin(**facts) for facts in plugins):
        started = time.monotonic()
        problem = None
        try:
            inspect_plugin(plugin)
        # a third party's module may raise anything while it is imported
        except BaseException as error:
            fault = f"{title_of(plugin)} cannot be used: {describe_error(error)}"
            problem = shortened(
                " ".join((str(error) if isinstance(error, PluginError) else fault).split()), _SHORT
            )
        # standard output is the plugin's to print to
        with Path(file).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps([problem, time.monotonic() - started]) + "\n")
    os._exit(0)  # not held up by threads and exit functions of a plugin


def assert_members(value: Any, protocol: type, *, is_class: bool = False) -> None:
    """Raise AssertionError unless a value has the methods and attributes of a protocol; a class,
    the methods and Config.
    """
    assert not is_class or isinstance(value, type), (
        f"Its entry point must name a class; got {value!r:.60}."
    )
    methods = {
        name
        for name, member in vars(protocol).items()
        if callable(member) or isinstance(member, classmethod)
    }
    names = methods | {"Config"} if is_class else {*vars(protocol), *protocol.__annotations__}
    public = sorted(name for name in names if name == "__call__" or not name.startswith("_"))
    missing = [name for name in public if getattr(value, name, None) is None]
    name = value.__name__ if is_class else type(value).__name__
    assert not missing, (
        f"{name} lacks {', '.join(missing)} of reviewgen.protocols.{protocol.__name__}."
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
    is_right = cls.__dataclass_params__.frozen and all(field.kw_only for field in fields)
    assert is_right, (
        f"{cls.__name__} must be frozen and keyword-only: @dataclass(frozen=True, kw_only=True)."
    )
    with asserting(f"The types of {cls.__name__} cannot be read:"):
        fields_of(cls)
    first = fields[0].name if fields else "none"
    is_right = not needs_vocab_size or first == "vocab_size"
    assert is_right, f"The first field of {cls.__name__} must be vocab_size; got {first}."
    missing = {
        field.name
        for field in fields
        if field.default is field.default_factory is dataclasses.MISSING
    }
    required = sorted(missing.difference(VOCABULARY_FIELDS if needs_vocab_size else ()))
    assert not required, (
        f"The settings {', '.join(required)} need defaults: a plugin can be used without a preset."
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
        is_factory = callable(entry) and callable(getattr(entry, "expect", None))
        assert is_factory, (
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
    """Check that the parts of a preset are installed, and its settings are theirs."""
    for part in preset.parts:
        find_preset(part)
    with asserting(f"It names the model {preset.model!r} and the tokenizer {preset.tokenizer!r}:"):
        model = find_stepper(preset.model) or find_model(preset.model)[0]
        tokenizer, _ = find_tokenizer(preset.tokenizer)
    sizes = (
        () if preset.parts else ({}, *preset.sizes, *(settings for _, settings in preset.by_epochs))
    )
    lengths = {}, *(settings for _, settings in preset.training_by_epochs)
    choices = [
        ("model", model.Config, {"vocab_size": _VOCAB_SIZE, **preset.model_settings, **more})
        for more in sizes
    ]
    choices += [
        ("training", TrainingConfig, {**preset.training_settings, **more}) for more in lengths
    ]
    for group, cls, settings in (
        *choices,
        ("tokenizer", tokenizer.Config, preset.tokenizer_settings),
    ):
        with asserting(f"It has a {group} setting that cannot be used:"):
            from_dict(cls, settings)
    with asserting("It has a generation setting that cannot be used:"):
        generation_config(GenerationConfig(), preset.generation_settings)


def _inspect(plugins: Sequence[Plugin], limit: float) -> list[Inspection]:
    """Inspect the plugins of a package in a new process."""
    with temporary_folder() as folder:
        file = folder / "reports"
        file.touch()
        request = json.dumps(
            [sys.path, str(file), [dataclasses.asdict(plugin) for plugin in plugins]]
        )
        command = [sys.executable, "-c", _SCRIPT, request]
        null = subprocess.DEVNULL
        try:
            status = subprocess.run(
                command, stdin=null, stdout=null, stderr=null, timeout=limit, check=False
            ).returncode
            # of its native code
            end = f"exit status {status}" if status >= 0 else signal.Signals(-status).name
            how = f"ends the process ({end})"
        except subprocess.TimeoutExpired:
            how = f"was not imported within {limit:.0f} s: it waits, or does too much"
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    results = [Inspection(plugin, *line) for plugin, line in zip(plugins, lines, strict=False)]
    rest = plugins[len(lines) :]
    for plugin in rest:
        problem = f"{title_of(rest[0])} {how} while it is imported."
        results.append(
            Inspection(
                plugin,
                (
                    problem
                    if plugin is rest[0]
                    else f"{title_of(plugin)} was not inspected: {problem}"
                ),
            )
        )
    return results
