"""Finds plugins by entry point. Listing reads package metadata and imports no plugin; finding one by name imports that one.

The groups are ``reviewgen.models``, ``reviewgen.tokenizers`` and ``reviewgen.presets``; the name of an entry point is the name
that users type. ``reviewgen.steppers`` is optional: it maps the name of a model to a factory of steppers that generate without
torch. ``reviewgen.weights`` maps the name of a preset to a package folder that is a saved model and contains no code.
``reviewgen.logits_processors`` has factories of logits processors, ``reviewgen.metrics`` metrics of generated texts. Plugins in
this repository are found in the same way as those of third parties. Standard library only.
"""

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from pathlib import Path
from typing import Any

from reviewgen.config import Preset
from reviewgen.errors import BrokenPlugin, PluginConflict, SourceError, UnknownPlugin, did_you_mean
from reviewgen.names import parse_preset

__all__ = [
    "Plugin",
    "describe_plugin",
    "find_logits_processor",
    "find_metric",
    "find_model",
    "find_preset",
    "find_stepper",
    "find_tokenizer",
    "find_weights",
    "list_models",
    "list_plugins",
    "list_presets",
    "list_tokenizers",
    "preset_names",
    "register_model",
    "register_tokenizer",
]

GROUPS = {
    "model": "reviewgen.models",
    "tokenizer": "reviewgen.tokenizers",
    "preset": "reviewgen.presets",
    "stepper": "reviewgen.steppers",
    "weights": "reviewgen.weights",
    "logits processor": "reviewgen.logits_processors",
    "metric": "reviewgen.metrics",
}

_registered: dict[tuple[str, str], Any] = {}  # (kind, name) -> class, for this process
_failures: dict[tuple[str, str], str] = {}  # (kind, name) -> why its import failed, in this process


@dataclass(frozen=True)
class Plugin:
    """An installed model, tokenizer or preset, as described by the metadata of its package.

    Attributes:
        kind: "model", "tokenizer", "preset", "stepper", "weights", "logits processor" or "metric".
        name: The name that users type.
        package: The distribution that provides it; "(this process)" if it was registered.
        version: The version of the distribution.
        problem: Why it cannot be used; None if no problem is known.
    """

    kind: str
    name: str
    package: str
    version: str
    problem: str | None = None


def list_plugins(kind: str) -> list[Plugin]:
    """Return the installed plugins of a kind ("model", "tokenizer", "preset"), sorted by name, without importing them."""
    installed = [_describe(kind, name, points) for name, points in _entry_points(kind).items()]
    registered = [Plugin(kind, name, "(this process)", "") for k, name in _registered if k == kind]
    return sorted(installed + registered, key=lambda plugin: plugin.name)


def list_presets() -> list[Plugin]:
    """Return the installed presets, without importing them."""
    return list_plugins("preset")


def list_models() -> list[Plugin]:
    """Return the installed models, without importing them."""
    return list_plugins("model")


def list_tokenizers() -> list[Plugin]:
    """Return the installed tokenizers, without importing them."""
    return list_plugins("tokenizer")


def find_model(name: str) -> tuple[Any, Plugin]:
    """Import a model class, and return it with the description of its plugin.

    Raises:
        UnknownPlugin: No installed plugin has that name.
        PluginConflict: Two packages provide the name.
        BrokenPlugin: Its package cannot be imported.
    """
    return _load("model", name)


def find_tokenizer(name: str) -> tuple[Any, Plugin]:
    """Import a tokenizer class, and return it with the description of its plugin; raises as ``find_model``."""
    return _load("tokenizer", name)


def find_logits_processor(name: str) -> tuple[Any, Plugin]:
    """Import the factory of a logits processor, and return it with its plugin; raises as ``find_model``."""
    return _load("logits processor", name)


def find_metric(name: str) -> tuple[Any, Plugin]:
    """Import a metric, and return it with its plugin; raises as ``find_model``."""
    return _load("metric", name)


def find_stepper(name: str) -> Any | None:
    """Import and return the stepper factory of a model; None if there is none. Raises as ``find_model``."""
    try:
        return None if ("model", name) in _registered else _load("stepper", name)[0]
    except UnknownPlugin:
        return None


def find_weights(name: str) -> Path | None:
    """Return the installed folder of a preset's trained weights; None if there is none. Only its parent package is imported.

    Raises:
        PluginConflict: Two packages provide the name.
        BrokenPlugin: The folder does not exist.
    """
    try:
        point, plugin = _locate("weights", name)
    except UnknownPlugin:
        return None
    try:
        spec = None if point is None else importlib.util.find_spec(point.value)
    except Exception as error:  # a third party's package may raise anything while it is imported
        raise BrokenPlugin(f"The weights {name!r} of {plugin.package} {plugin.version} cannot be imported: {error}") from error
    if spec is None or not spec.submodule_search_locations:
        why = plugin.problem or "their folder does not exist"
        raise BrokenPlugin(
            f"The weights {name!r} of {plugin.package} {plugin.version} are missing: {why}. Reinstall the package."
        )
    return Path(next(iter(spec.submodule_search_locations)))


def find_preset(name: str) -> Preset:
    """Return a preset; any installed model and tokenizer also form one, with their default settings.

    Raises:
        SourceError: The name is not of the form ``<model>-<tokenizer>[-<size>]``.
        UnknownPlugin: No installed preset, or pair of a model and a tokenizer, has that name.
    """
    if name in _entry_points("preset"):
        preset, plugin = _load("preset", name)
        if not isinstance(preset, Preset):
            raise BrokenPlugin(f"The preset {name!r} of {plugin.package} {plugin.version} is not a reviewgen.config.Preset.")
        return preset
    parts = parse_preset(name)
    models, tokenizers = (_names(kind) for kind in ("model", "tokenizer"))
    if parts.size is None and parts.model in models and parts.tokenizer in tokenizers:
        return Preset(model=parts.model, tokenizer=parts.tokenizer)
    raise UnknownPlugin(f"There is no preset {name!r}. {did_you_mean(name, preset_names())}")


def preset_names() -> set[str]:
    """Return every name that ``find_preset`` accepts: the presets, and the pairs of a model and a tokenizer."""
    return _names("preset") | {f"{model}-{tokenizer}" for model in _names("model") for tokenizer in _names("tokenizer")}


def register_model(name: str, model: Any) -> None:
    """Register a model class under a name, for the running process only, as in a notebook.

    Raises:
        PluginConflict: An installed package provides the name.
        SourceError: The name cannot be part of a preset's name.
    """
    _register("model", name, model)


def register_tokenizer(name: str, tokenizer: Any) -> None:
    """Register a tokenizer class under a name, for the running process only; raises as ``register_model``."""
    _register("tokenizer", name, tokenizer)


def _register(kind: str, name: str, plugin: Any) -> None:
    try:
        is_valid = parse_preset(f"{name}-char" if kind == "model" else f"rnn-{name}").size is None
    except SourceError:
        is_valid = False
    if not is_valid:
        raise SourceError(f"{name!r} cannot name a {kind}: use the letters a to z and digits only, a letter first.")
    points = _entry_points(kind).get(name)
    if points:
        raise PluginConflict(f"The {kind} {name!r} is already provided by {_packages(points)}. Choose another name.")
    _registered[kind, name] = plugin


def describe_plugin(kind: str, name: str) -> Plugin:
    """Return the description of a plugin without importing it; raises as ``find_model``, except BrokenPlugin."""
    return _locate(kind, name)[1]


def _load(kind: str, name: str) -> tuple[Any, Plugin]:
    """Import a plugin, and return it with its description."""
    point, plugin = _locate(kind, name)
    if point is None:
        return _registered[kind, name], plugin
    try:
        return point.load(), plugin
    except Exception as error:  # a third party's module may raise anything while it is imported
        cause = f"{type(error).__name__}: {error}"
        _failures[kind, name] = cause
        raise BrokenPlugin(f"The {kind} {name!r} of {plugin.package} {plugin.version} cannot be imported: {cause}") from error


def _locate(kind: str, name: str) -> tuple[EntryPoint | None, Plugin]:
    """Return the entry point of a name with its description; the entry point is None if it was registered in this process."""
    if (kind, name) in _registered:
        return None, Plugin(kind, name, "(this process)", "")
    installed = _entry_points(kind)
    points = installed.get(name)
    if points is None:
        raise UnknownPlugin(
            f"No installed package provides the {kind} {name!r}. {did_you_mean(name, set(installed) | _registered_names(kind))}"
        )
    if len(points) > 1:
        raise PluginConflict(f"The {kind} {name!r} is provided by {_packages(points)}. Uninstall all but one of them.")
    return points[0], _describe(kind, name, points)


def _entry_points(kind: str) -> Mapping[str, list[EntryPoint]]:
    """Return the entry points of a kind by name; a package that is on the path twice counts once."""
    unique: dict[str, dict[tuple[str, str], EntryPoint]] = {}
    folders = tuple((folder, Path(folder).stat().st_mtime_ns) for folder in sys.path if Path(folder).exists())
    for point in _installed(GROUPS[kind], folders):
        unique.setdefault(point.name, {}).setdefault((_package(point), point.value), point)
    return {name: list(points.values()) for name, points in unique.items()}


@lru_cache(maxsize=len(GROUPS))
def _installed(group: str, folders: tuple[tuple[str, int], ...]) -> EntryPoints:
    """Return a group's entry points in the folders of ``sys.path``: read again when a package is installed or removed."""
    return entry_points(group=group)


def _names(kind: str) -> set[str]:
    return set(_entry_points(kind)) | _registered_names(kind)


def _registered_names(kind: str) -> set[str]:
    return {name for k, name in _registered if k == kind}


def _describe(kind: str, name: str, points: list[EntryPoint]) -> Plugin:
    point = points[0]
    problem = _failures.get((kind, name))
    if len(points) > 1:
        problem = f"several packages provide it: {_packages(points)}"
    elif not _has_module(point):
        problem = f"its module {point.value.partition(':')[0]} is not installed"
    return Plugin(kind, name, _package(point), point.dist.version if point.dist else "", problem)


def _has_module(point: EntryPoint) -> bool:
    """Return whether the entry point's top module can be found, without importing it."""
    try:
        return importlib.util.find_spec(point.module.partition(".")[0]) is not None
    except (AttributeError, ValueError):  # the entry point is not written module:name
        return False


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "(unknown package)"


def _packages(points: list[EntryPoint]) -> str:
    return " and ".join(sorted(f"{_package(p)} ({p.value})" for p in points))
