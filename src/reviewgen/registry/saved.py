"""Finds the plugins that a saved model needs, and describes installed weights by size and quality.

A saved model names the package of each plugin, as ``distribution`` in config.json. Only the plugin
of this package is used, even if another package has a plugin of the same name. Standard library
only.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from reviewgen.config.bounded import MAX_RECORD, read_json
from reviewgen.config.records import check_record
from reviewgen.config.settings import to_dict
from reviewgen.errors import BundleError, PluginError, UnknownPlugin
from reviewgen.registry.metadata import Plugin, find_name_fault, is_same_package
from reviewgen.registry.plugins import THIS_PROCESS, find_weights, list_plugins

_PACKAGE = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)
_VERSION = re.compile(r"[\w.+!-]{0,50}", re.ASCII)


def saved_facts(plugin: Plugin, config: Any) -> dict[str, Any]:
    """Return the entry of a plugin in config.json, with its config."""
    return {
        "name": plugin.name,
        "distribution": plugin.package,
        "version": plugin.version,
        "config": to_dict(config),
    }


def plugin_of_saved(kind: str, facts: Mapping[str, Any]) -> Plugin:
    """Return the plugin that a model was saved with, for a call of ``find_model`` or
    ``find_tokenizer``.

    Args:
        kind: "model" or "tokenizer".
        facts: The plugin's entry in config.json: ``name``, ``distribution`` and ``version``.

    Raises:
        UnknownPlugin: The plugin is not installed, or not registered in this process; the message
            says what to do.
        BundleError: The name of the plugin or of its package is not valid.
    """
    name = facts["name"]
    package = facts["distribution"]
    if find_name_fault(kind, name) is not None:
        raise BundleError(f"This model needs a {kind} whose name is not valid: {ascii(name)[:60]}.")
    named = [plugin for plugin in list_plugins(kind) if plugin.name == name]
    for plugin in named:
        if is_same_package(plugin.package, package):
            return plugin
    if package == THIS_PROCESS:
        raise UnknownPlugin(
            f"This model needs the {kind} {name!r:.60}, which was registered in the process that"
            f" saved it. Register it with reviewgen.register_{kind}({name!r:.60}, ...) before"
            " loading."
        )
    if not _PACKAGE.fullmatch(package) or not _VERSION.fullmatch(facts["version"]):
        raise BundleError(
            f"This model needs the {kind} {name!r:.60} of a package whose name or version is not"
            " valid."
        )
    providers = [plugin.package for plugin in named if plugin.package != THIS_PROCESS]
    raise UnknownPlugin(_explain_missing(kind, name, package, facts["version"], providers))


def _explain_missing(
    kind: str, name: str, package: str, saved_version: str, providers: list[str]
) -> str:
    """Return the message for a plugin that is not installed. ``providers`` are other packages that
    have a plugin of the same name.
    """
    wanted = package  # the argument of pip install
    try:
        problem = f"and {package} {version(package)}, which is installed, has none of that name"
        if saved_version:
            wanted = f"{package}=={saved_version}"
    except PackageNotFoundError:
        problem = "which is not installed"
    needed = f"This model needs the {kind} {name!r:.60} of the package {package} {saved_version}"
    note = ""
    if providers:
        note = f"The one of {' and '.join(providers):.100} is another {kind} and is not used. "
    return f"{needed}, {problem}. {note}Install it: pip install {wanted}"


@dataclass(frozen=True)
class InstalledWeights:
    """The trained weights of a preset.

    Attributes:
        megabytes: The size of the folder; None if the folder cannot be read.
        bits_per_character: Bits per character of held-out text of the training corpus; None if they
            were not measured.
        copy_rate: The share of generated characters that are in long spans copied from the training
            text ("value"), the 95 % interval of this share ("interval"), and the number of
            characters that were measured ("characters"). None if the share was not measured.
        parameters: The number of parameters of each kind; None if these numbers were not recorded.
        problem: Why the weights cannot be used; None if no problem is known.
    """

    megabytes: float | None = None
    bits_per_character: float | None = None
    copy_rate: Mapping[str, Any] | None = None
    parameters: Mapping[str, int] | None = None
    problem: str | None = None


def describe_weights(preset: str | Plugin) -> InstalledWeights | None:
    """Return the facts about a preset's installed weights, without loading the weights. Return None
    if no weights are installed.
    """
    try:
        folder = find_weights(preset)
        if folder is None:
            return None
        size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
        training = read_json(folder / "training.json", MAX_RECORD)
        check_record(training)
    except PluginError as problem:
        return InstalledWeights(problem=str(problem))
    except (OSError, ValueError) as error:
        return InstalledWeights(problem=f"training.json cannot be read: {error}")
    novelty = training.get("novelty") or {}
    copies = {
        "value": novelty.get("copy_rate"),
        "interval": novelty.get("copy_rate_interval"),
        "characters": novelty.get("copy_rate_characters"),
    }
    return InstalledWeights(
        megabytes=round(size / 1e6, 2),
        bits_per_character=(training.get("held_out") or {}).get("bits_per_character"),
        copy_rate=None if copies["value"] is None else copies,
        parameters=training.get("parameters"),
    )
