"""Finds the plugin that a model was saved with, and says what to do if it is missing. Standard library only.

The ``distribution`` in config.json decides: the plugin of that package is used, also if another package has one of the same name.
"""

import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from reviewgen.errors import BundleError, UnknownPlugin
from reviewgen.registry.installed_points import Plugin, find_name_fault, is_same_package
from reviewgen.registry.plugins import THIS_PROCESS, list_plugins

_PACKAGE = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)
_VERSION = re.compile(r"[\w.+!-]{0,50}", re.ASCII)


def plugin_of_saved(kind: str, facts: Mapping[str, Any]) -> Plugin:
    """Return the plugin that a model was saved with, as ``find_model`` or ``find_tokenizer`` takes it.

    Args:
        kind: "model" or "tokenizer".
        facts: Its entry in config.json: ``name``, ``distribution`` and ``version``.

    Raises:
        UnknownPlugin: It is not installed, or not registered in this process; the message says what to do.
        BundleError: The entry names nothing that can be installed.
    """
    name, package = facts["name"], facts["distribution"]
    if find_name_fault(kind, name) is not None:
        raise BundleError(f"This model needs a {kind} whose name is not valid: {ascii(name)[:60]}.")
    named = [plugin for plugin in list_plugins(kind) if plugin.name == name]
    for plugin in named:
        if is_same_package(plugin.package, package):
            return plugin
    if package == THIS_PROCESS:
        raise UnknownPlugin(
            f"This model needs the {kind} {name!r:.60}, which was registered in the process that saved it. Register it with "
            f"reviewgen.register_{kind}({name!r:.60}, ...) before loading."
        )
    if not _PACKAGE.fullmatch(package) or not _VERSION.fullmatch(facts["version"]):
        raise BundleError(f"This model needs the {kind} {name!r:.60} of a package whose name or version is not valid.")
    others = [plugin.package for plugin in named if plugin.package != THIS_PROCESS]
    raise UnknownPlugin(_explain_missing(kind, name, package, facts["version"], others))


def _explain_missing(kind: str, name: str, package: str, saved_version: str, providers: list[str]) -> str:
    needed = f"This model needs the {kind} {name!r:.60} of the package {package} {saved_version}"
    try:
        problem = f"and {package} {version(package)}, which is installed, has none of that name"
        wanted = f"{package}=={saved_version}" if saved_version else package
    except PackageNotFoundError:
        problem, wanted = "which is not installed", package
    others = f"The one of {' and '.join(providers):.100} is another {kind} and is not used. " if providers else ""
    return f"{needed}, {problem}. {others}Install it: pip install {wanted}"
