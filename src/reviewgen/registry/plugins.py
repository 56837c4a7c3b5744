"""Finds plugins by entry point. Listing reads package metadata and imports nothing; asking for a name imports that one.

Groups ``reviewgen.models``, ``reviewgen.tokenizers`` and ``reviewgen.presets``; the entry point's name is the user's name. In
``reviewgen.steppers`` a model's name names what writes with its weights without torch; few models need one. In
``reviewgen.weights`` a preset's name names a package folder that is a saved model, and holds no code. In-tree plugins use the
same door as everybody else's. Standard library only.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from reviewgen.config import Preset
from reviewgen.errors import BrokenPlugin, PluginConflict, SourceError, UnknownPlugin, did_you_mean
from reviewgen.names import parse_preset

__all__ = [
    "Plugin",
    "describe_plugin",
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
}

_registered: dict[tuple[str, str], Any] = {}  # (kind, name) -> class: this process only
_failures: dict[tuple[str, str], str] = {}  # (kind, name) -> why its import failed in this process


@dataclass(frozen=True)
class Plugin:
    """One installed model, tokenizer or preset, as its package's metadata tell; ``problem`` says why it is unusable."""

    kind: str
    name: str
    package: str
    version: str
    problem: str | None = None


def list_plugins(kind: str) -> list[Plugin]:
    """Return what is installed of a kind ("model", "tokenizer", "preset"), by name, without importing any of it."""
    found = [_describe(kind, name, points) for name, points in _entry_points(kind).items()]
    local = [Plugin(kind, name, "(this process)", "") for k, name in _registered if k == kind]
    return sorted(found + local, key=lambda plugin: plugin.name)


def list_presets() -> list[Plugin]:
    """Return the installed presets; imports none of them."""
    return list_plugins("preset")


def list_models() -> list[Plugin]:
    """Return the installed models; imports none of them."""
    return list_plugins("model")


def list_tokenizers() -> list[Plugin]:
    """Return the installed tokenizers; imports none of them."""
    return list_plugins("tokenizer")


def find_model(name: str) -> tuple[Any, Plugin]:
    """Import and return one model class, and where it came from.

    Raises:
        UnknownPlugin: Nothing of that name is installed.
        PluginConflict: Two packages claim the name.
        BrokenPlugin: Its package fails to import.
    """
    return _find("model", name)


def find_tokenizer(name: str) -> tuple[Any, Plugin]:
    """Import and return one tokenizer class, and where it came from; raises as ``find_model``."""
    return _find("tokenizer", name)


def find_stepper(name: str) -> Any | None:
    """Import and return what builds steppers for a model of this name; None where nothing does. Raises as ``find_model``."""
    try:
        return None if ("model", name) in _registered else _find("stepper", name)[0]
    except UnknownPlugin:
        return None


def find_weights(name: str) -> Path | None:
    """Return the installed folder of a preset's trained weights, None where there is none; imports no more than its package.

    Raises:
        PluginConflict: Two packages claim the name.
        BrokenPlugin: The folder is not there.
    """
    try:
        point, plugin = _locate("weights", name)
    except UnknownPlugin:
        return None
    try:
        spec = None if point is None else importlib.util.find_spec(point.value)
    except Exception as error:  # the package of the folder is a stranger's
        raise BrokenPlugin(f"The weights {name!r} of {plugin.package} {plugin.version} cannot be found: {error}") from error
    if spec is None or not spec.submodule_search_locations:
        why = plugin.problem or "there is no such folder"
        raise BrokenPlugin(f"The weights {name!r} of {plugin.package} {plugin.version} are not there: {why}.")
    return Path(next(iter(spec.submodule_search_locations)))


def find_preset(name: str) -> Preset:
    """Return a preset; an installed model and tokenizer compose without one, with the model's own defaults.

    Raises:
        SourceError: The name is not of the form ``<model>-<tokenizer>[-<size>]``.
        UnknownPlugin: There is no such preset, and no such pair of a model and a tokenizer.
    """
    if name in _entry_points("preset"):
        preset, plugin = _find("preset", name)
        if not isinstance(preset, Preset):
            raise BrokenPlugin(f"The preset {name!r} of {plugin.package} {plugin.version} is no reviewgen.config.Preset.")
        return preset
    parts = parse_preset(name)
    models, tokenizers = (_names(kind) for kind in ("model", "tokenizer"))
    if parts.size is None and parts.model in models and parts.tokenizer in tokenizers:
        return Preset(model=parts.model, tokenizer=parts.tokenizer)
    raise UnknownPlugin(f"There is no preset {name!r}. {did_you_mean(name, preset_names())}")


def preset_names() -> set[str]:
    """Return every name that ``find_preset`` knows: the presets, and the pairs of a model and a tokenizer."""
    return _names("preset") | {f"{model}-{tokenizer}" for model in _names("model") for tokenizer in _names("tokenizer")}


def register_model(name: str, model: Any) -> None:
    """Make a model class available under a name in the running process; for a notebook.

    Raises:
        PluginConflict: The name is taken by an installed package.
        SourceError: The name cannot stand in a preset's name.
    """
    _register("model", name, model)


def register_tokenizer(name: str, tokenizer: Any) -> None:
    """Make a tokenizer class available under a name in the running process; raises as ``register_model``."""
    _register("tokenizer", name, tokenizer)


def _register(kind: str, name: str, plugin: Any) -> None:
    try:
        fits = parse_preset(f"{name}-char" if kind == "model" else f"rnn-{name}").size is None
    except SourceError:
        fits = False
    if not fits:
        raise SourceError(f"{name!r} cannot name a {kind}: letters a to z and digits only, a letter first.")
    points = _entry_points(kind).get(name)
    if points:
        raise PluginConflict(f"The {kind} {name!r} is already provided by {_packages(points)}. Choose another name.")
    _registered[kind, name] = plugin


def describe_plugin(kind: str, name: str) -> Plugin:
    """Return where a plugin comes from, without importing it; raises as ``find_model``, but for BrokenPlugin."""
    return _locate(kind, name)[1]


def _find(kind: str, name: str) -> tuple[Any, Plugin]:
    point, plugin = _locate(kind, name)
    if point is None:
        return _registered[kind, name], plugin
    try:
        return point.load(), plugin
    except Exception as error:  # a stranger's module may raise anything while it is imported
        cause = f"{type(error).__name__}: {error}"
        _failures[kind, name] = cause
        raise BrokenPlugin(f"The {kind} {name!r} of {plugin.package} {plugin.version} fails to import: {cause}") from error


def _locate(kind: str, name: str) -> tuple[EntryPoint | None, Plugin]:
    """Return the one entry point of a name, None where it was registered in this process, and its description."""
    if (kind, name) in _registered:
        return None, Plugin(kind, name, "(this process)", "")
    found = _entry_points(kind)
    points = found.get(name)
    if points is None:
        raise UnknownPlugin(f"No installed package provides the {kind} {name!r}. {did_you_mean(name, set(found) | _local(kind))}")
    if len(points) > 1:
        raise PluginConflict(f"The {kind} {name!r} is claimed by {_packages(points)}. Uninstall all but one of them.")
    return points[0], _describe(kind, name, points)


def _entry_points(kind: str) -> Mapping[str, list[EntryPoint]]:
    """Return the entry points of a kind by name; a package seen twice on the path counts once."""
    found: dict[str, dict[tuple[str, str], EntryPoint]] = {}
    for point in entry_points(group=GROUPS[kind]):
        found.setdefault(point.name, {}).setdefault((_package(point), point.value), point)
    return {name: list(points.values()) for name, points in found.items()}


def _names(kind: str) -> set[str]:
    return set(_entry_points(kind)) | _local(kind)


def _local(kind: str) -> set[str]:
    return {name for k, name in _registered if k == kind}


def _describe(kind: str, name: str, points: list[EntryPoint]) -> Plugin:
    point = points[0]
    problem = _failures.get((kind, name))
    if len(points) > 1:
        problem = f"claimed by {_packages(points)}"
    elif not _is_there(point):
        problem = f"its module {point.value.partition(':')[0]} is not there"
    return Plugin(kind, name, _package(point), point.dist.version if point.dist else "", problem)


def _is_there(point: EntryPoint) -> bool:
    """Return whether the entry point's top module can be found, without importing it."""
    try:
        return importlib.util.find_spec(point.module.partition(".")[0]) is not None
    except (AttributeError, ValueError):  # the entry point is not written module:name
        return False


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "(unknown package)"


def _packages(points: list[EntryPoint]) -> str:
    return " and ".join(sorted(f"{_package(p)} ({p.value})" for p in points))
