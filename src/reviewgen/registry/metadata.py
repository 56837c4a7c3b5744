"""Reads from the metadata of installed packages which plugins they provide, and what is wrong with
them. Imports no plugin.

Names provided by the distribution ``reviewgen`` are reserved. The version of the contract that a
package is written for is the name of its entry point in the group ``reviewgen.api``. Standard
library only.
"""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, distributions
from typing import NamedTuple

from reviewgen.config.names import PRESET, is_plugin_name
from reviewgen.version import API_VERSION

GROUPS = {
    "model": "reviewgen.models",
    "tokenizer": "reviewgen.tokenizers",
    "preset": "reviewgen.presets",
    "stepper": "reviewgen.steppers",
    "weights": "reviewgen.weights",
    "logits processor": "reviewgen.logits_processors",
    "metric": "reviewgen.metrics",
    "reader": "reviewgen.readers",
    "web stepper": "reviewgen.web_steppers",
    "web tokenizer": "reviewgen.web_tokenizers",
}
API_GROUP = "reviewgen.api"
OWN = "reviewgen"  # the distribution that provides the plugins in this repository

# Kinds of plugins whose names are parts of preset names, which are joined by hyphens.
_WITHOUT_HYPHEN = ("model", "tokenizer", "stepper", "web stepper", "web tokenizer")
_VERSION = re.compile(r"(\d{1,9})(\.\d{1,9})?", re.ASCII)


@dataclass(frozen=True)
class Plugin:
    """An installed plugin, as described by the metadata of its package.

    Attributes:
        kind: One of ``GROUPS``.
        name: The name that users type.
        package: The distribution that provides the plugin; "(this process)" if the plugin was
            registered in this process.
        version: The version of the distribution.
        problem: Why the name does not find this plugin, or why the plugin cannot be used; None if
            no problem is known.
        api_version: The version of the contract that the plugin is written for. None, which counts
            as 1, if the plugin's package declares no version.
    """

    kind: str
    name: str
    package: str
    version: str
    problem: str | None = None
    api_version: str | None = None


class InstalledPlugin(NamedTuple):
    """An installed plugin, and its entry point; a registered plugin has no entry point."""

    plugin: Plugin
    point: EntryPoint | None


def installed_plugins(kind: str) -> Mapping[str, list[InstalledPlugin]]:
    """Return the installed plugins of a kind, by name. Plugins with the same name are sorted by
    package, those of reviewgen first.
    """
    return _read(_folders())[kind]


def title_of(plugin: Plugin) -> str:
    """Return the name of a plugin for a message: "The model 'lstm' of reviewgen 0.1.0"."""
    return f"The {plugin.kind} {plugin.name!r} of {plugin.package} {plugin.version}".rstrip()


def is_same_package(one: str, other: str) -> bool:
    """Return whether two names stand for the same distribution. Case is ignored, and hyphens,
    underscores and dots are equal.
    """
    return _normalize(one) == _normalize(other)


def is_own(plugin: Plugin) -> bool:
    """Return whether reviewgen itself provides a plugin."""
    return is_same_package(plugin.package, OWN)


def find_name_fault(kind: str, name: str) -> str | None:
    """Return why a plugin of a kind cannot have a name; None if the name is valid."""
    if kind in ("preset", "weights"):
        rule = "be of the form <model>-<tokenizer>[-<size>], in lower case"
        is_valid = PRESET.fullmatch(name) is not None
    elif kind in _WITHOUT_HYPHEN:
        rule = "have the letters a to z and digits only, a letter first"
        is_valid = is_plugin_name(name) and "-" not in name
    else:
        rule = "have the letters a to z, digits and hyphens only, a letter first"
        is_valid = is_plugin_name(name)
    return None if is_valid else f"its name must {rule}"


def find_api_fault(declared: object, package: str) -> str | None:
    """Return why a plugin with a declared version of the contract cannot be used; None if the
    plugin can be used.

    Args:
        declared: The version that the plugin declares, as in "1.0"; None counts as 1.
        package: The package to upgrade if the declared version is too old.
    """
    match = _VERSION.fullmatch("1" if declared is None else str(declared))
    if match is None:
        return (
            "the version of the plugin contract that it declares must be of the form major.minor;"
            f" got {ascii(declared)[:40]}"
        )
    ours = int(API_VERSION.partition(".")[0])
    theirs = int(match[1])
    if ours == theirs:
        return None
    outdated = OWN if theirs > ours else package
    return (
        f"it is written for version {declared or 1} of the plugin contract, and this reviewgen has"
        f" version {API_VERSION}; upgrade {outdated}"
    )


def _folders() -> tuple[tuple[str, int], ...]:
    """Return the folders of ``sys.path`` with their modification times. The time of a folder
    changes when a package is installed in it or removed, so ``_read`` is cached by these pairs.
    """
    folders = []
    for folder in sys.path:
        try:
            folders.append((folder, os.stat(folder or ".").st_mtime_ns))  # noqa: PTH116, a Path takes ten times as long
        except OSError:
            continue
    return tuple(folders)


@lru_cache(maxsize=1)
def _read(folders: tuple[tuple[str, int], ...]) -> dict[str, dict[str, list[InstalledPlugin]]]:
    """Return the installed plugins, by kind and name. ``problem`` of a plugin does not yet say
    whether other plugins have the same name.
    """
    table: dict[str, dict[str, list[InstalledPlugin]]] = {kind: {} for kind in GROUPS}
    kinds = {group: kind for kind, group in GROUPS.items()}
    packages: set[str] = set()
    for distribution in distributions():
        text = distribution.read_text("entry_points.txt")
        if not text or "[reviewgen." not in text.replace(" ", ""):
            continue  # parsing the other packages would take long
        package = distribution.name
        if _normalize(package) in packages:
            continue  # Python imports a package from the first folder that has it
        packages.add(_normalize(package))
        points = distribution.entry_points
        declared = next((point.name for point in points if point.group == API_GROUP), None)
        fault = find_api_fault(declared, package)
        for point in points:
            kind = kinds.get(point.group)
            if kind is not None:
                problem = find_name_fault(kind, point.name) or fault
                plugin = Plugin(kind, point.name, package, distribution.version, problem, declared)
                table[kind].setdefault(point.name, []).append(InstalledPlugin(plugin, point))
    for by_name in table.values():
        for same_name in by_name.values():
            same_name.sort(key=lambda entry: (not is_own(entry.plugin), entry.plugin.package))
    return table


def _normalize(package: str) -> str:
    """Return the form of a package's name that is equal for all spellings (PEP 503)."""
    return re.sub(r"[-_.]+", "-", package).lower()
