"""Reads from the metadata of installed packages which plugins they provide, and what is wrong with them. Imports no plugin.

What the distribution ``reviewgen`` provides has its name to itself. The version of the contract that a package is written for is
the name of its entry point in the group ``reviewgen.api``. Standard library only.
"""

import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import Distribution, EntryPoint, distributions
from typing import NamedTuple

from reviewgen.config import parse_preset
from reviewgen.errors import SourceError
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
OWN = "reviewgen"  # the distribution of the plugins in this repository

_UNKNOWN = "(unknown package)"
_PART_OF_PRESET = ("model", "tokenizer", "stepper", "web stepper", "web tokenizer")
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_ATTRIBUTE = re.compile(r"[A-Za-z_][\w.]*\s*:\s*[A-Za-z_][\w.]*(\s*\[.*\])?", re.ASCII)
_FOLDER = re.compile(r"[A-Za-z_]\w*(\.\w+)*", re.ASCII)
_VERSION = re.compile(r"(\d{1,9})(\.\d{1,9})?", re.ASCII)


@dataclass(frozen=True)
class Plugin:
    """An installed plugin, as described by the metadata of its package.

    Attributes:
        kind: One of ``GROUPS``; "package" for a package whose metadata cannot be read.
        name: The name that users type.
        package: The distribution that provides it; "(this process)" if it was registered.
        version: The version of the distribution.
        problem: Why the name does not lead to it, or why it cannot be used; None if no problem is known.
        api_version: The version of the contract that it is written for; None if its package declares none, which counts as 1.
    """

    kind: str
    name: str
    package: str
    version: str
    problem: str | None = None
    api_version: str | None = None


class InstalledPoint(NamedTuple):
    """An installed plugin, and its entry point.

    Attributes:
        plugin: Its description.
        point: Its entry point; None if it was registered.
        fault: Why it cannot be used, whatever else is installed; None if no reason is known.
    """

    plugin: Plugin
    point: EntryPoint | None
    fault: str | None


def installed_points(kind: str) -> Mapping[str, list[InstalledPoint]]:
    """Return the installed plugins of a kind by name; those of one name by package, reviewgen's own first."""
    return _read(_folders())[0].get(kind, {})


def broken_packages() -> list[Plugin]:
    """Return the packages whose entry points cannot be read."""
    return _read(_folders())[1]


def is_same_package(one: str, other: str) -> bool:
    """Return whether two names are of one distribution: case does not count, and hyphens, underscores and dots are equal."""
    return _normalize(one) == _normalize(other)


def find_name_fault(kind: str, name: str) -> str | None:
    """Return why a plugin cannot have a name; None if it can."""
    if kind in _PART_OF_PRESET:
        is_valid = _NAME.fullmatch(name) is not None and "-" not in name
        return None if is_valid else "its name must have the letters a to z and digits only, a letter first"
    if kind in ("preset", "weights"):
        try:
            is_valid = bool(parse_preset(name))
        except SourceError:
            is_valid = False
        return None if is_valid else "its name must be of the form <model>-<tokenizer>[-<size>], in lower case"
    is_valid = _NAME.fullmatch(name) is not None
    return None if is_valid else "its name must have the letters a to z, digits and hyphens only, a letter first"


def find_api_fault(declared: object, package: str) -> str | None:
    """Return why a plugin with a version of the contract cannot be used; None if it can.

    Args:
        declared: The version, as in "1.0"; None counts as 1.
        package: The package to upgrade, if its version is too old.
    """
    match = _VERSION.fullmatch("1" if declared is None else declared) if isinstance(declared, str | None) else None
    if match is None:
        return f"the version of the plugin contract that it declares must be of the form major.minor; got {ascii(declared)[:40]}"
    ours, theirs = int(API_VERSION.partition(".")[0]), int(match[1])
    if ours == theirs:
        return None
    newer = OWN if theirs > ours else package
    return (
        f"it is written for version {declared or 1} of the plugin contract, and this reviewgen has version {API_VERSION}; "
        f"upgrade {newer}"
    )


def _folders() -> tuple[tuple[str, int], ...]:
    """Return the folders of ``sys.path``, and when a package was last installed into each of them or removed."""
    folders = []
    for folder in sys.path:
        try:
            folders.append((folder, os.stat(folder or ".").st_mtime_ns))  # noqa: PTH116, a Path takes ten times as long
        except OSError:
            continue
    return tuple(folders)


@lru_cache(maxsize=1)
def _read(folders: tuple[tuple[str, int], ...]) -> tuple[dict[str, dict[str, list[InstalledPoint]]], list[Plugin]]:
    """Return the installed plugins by kind and name, and the packages that cannot be read."""
    table: dict[str, dict[str, list[InstalledPoint]]] = {kind: {} for kind in GROUPS}
    broken: list[Plugin] = []
    packages: set[str] = set()
    for distribution in distributions():
        try:
            text = distribution.read_text("entry_points.txt")
            if not text or "[reviewgen." not in text.replace(" ", ""):
                continue  # the others are not parsed, which takes long
            package, version = _name_and_version(distribution)
            if _normalize(package) not in packages:  # one that is on the path twice is imported from the first place
                for found in _points_of(distribution, package, version):
                    table[found.plugin.kind].setdefault(found.plugin.name, []).append(found)
            packages.add(_normalize(package))
        except Exception as error:  # a damaged file, which must not hide the other packages
            package, version = _name_and_version(distribution)
            problem = f"its entry points cannot be read: {type(error).__name__}: {error!s:.100}"
            broken.append(Plugin("package", package, package, version, problem))
    return {kind: {name: _describe_all(points) for name, points in names.items()} for kind, names in table.items()}, broken


def _name_and_version(distribution: Distribution) -> tuple[str, str]:
    try:
        metadata = distribution.metadata
        return str(metadata["Name"] or _UNKNOWN), str(metadata["Version"] or "")
    except Exception:  # the file is missing or damaged
        return _UNKNOWN, ""


def _points_of(distribution: Distribution, package: str, version: str) -> list[InstalledPoint]:
    """Return the plugins of a package, with what is wrong with each of them alone."""
    points = distribution.entry_points
    declared = sorted(point.name for point in points if point.group == API_GROUP)
    api_version = declared[0] if declared else None
    if len(declared) > 1:
        api_fault: str | None = f"its package declares several versions of the plugin contract: {', '.join(declared):.60}"
    else:
        api_fault = find_api_fault(api_version, package)
    kinds = {group: kind for kind, group in GROUPS.items()}
    found: dict[tuple[str, str], InstalledPoint] = {}
    values: dict[tuple[str, str], str] = {}
    for point in points:
        if (kind := kinds.get(point.group)) is None:
            continue
        fault = find_name_fault(kind, point.name) or api_fault or _find_module_fault(kind, point.value)
        first = values.setdefault((kind, point.name), point.value)
        if first != point.value:
            fault = f"its package has the name twice: {first} and {point.value}"
        found[kind, point.name] = InstalledPoint(Plugin(kind, point.name, package, version, fault, api_version), point, fault)
    return list(found.values())


def _find_module_fault(kind: str, value: str) -> str | None:
    """Return why the module of an entry point cannot be imported, as far as that is known without importing it."""
    pattern, form = (_FOLDER, "package.folder") if kind == "weights" else (_ATTRIBUTE, "module:attribute")
    if pattern.fullmatch(value) is None:
        return f"its entry point must be of the form {form}; got {value!a:.60}"
    top = re.split(r"[.:\s]", value, maxsplit=1)[0]
    try:
        is_installed = importlib.util.find_spec(top) is not None
    except (ImportError, AttributeError, ValueError):  # of a module that replaced itself while it was imported
        is_installed = top in sys.modules
    return None if is_installed else f"its module {top} is not installed"


def _describe_all(points: Iterable[InstalledPoint]) -> list[InstalledPoint]:
    """Return the plugins of one kind and name in order; the problem of one that the name does not lead to says why."""
    ordered = sorted(points, key=lambda found: (not is_same_package(found.plugin.package, OWN), found.plugin.package))
    first = ordered[0].plugin
    if len(ordered) == 1:
        return ordered
    is_reserved = is_same_package(first.package, OWN)
    packages = " and ".join(found.plugin.package for found in ordered)
    problem = f"the name is reserved for the {first.kind} of {OWN}" if is_reserved else f"{packages} have this name"
    others = ordered[1:] if is_reserved else ordered
    named = [found._replace(plugin=replace(found.plugin, problem=found.fault or problem)) for found in others]
    return [*ordered[: len(ordered) - len(others)], *named]


def _normalize(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()
