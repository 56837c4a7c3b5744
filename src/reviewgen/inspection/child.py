"""What a process of ``processes`` does: it inspects plugins one after another and writes a line of JSON for each.

Lines are written with the file opened anew each time, because standard output is the plugin's to print to.
"""

import importlib
import json
import os
import re
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

from reviewgen.errors import PluginError
from reviewgen.inspection.static import inspect_plugin
from reviewgen.registry import Plugin

_SHORT = 300  # characters of a message


def run(reports: Path, plugins: Sequence[Plugin]) -> None:
    """Inspect the plugins of a package, append a report on each to a file, and end the process."""
    pid, forks = os.getpid(), [0]

    def count_fork() -> None:
        forks[0] += 1

    _import_libraries(plugins[0].package)
    _write(reports, {"ready": True})
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_parent=count_fork)
    for plugin in plugins:
        started, before = time.monotonic(), forks[0]
        problem = _problem(plugin)
        if os.getpid() != pid:  # a process that the plugin forked
            os._exit(0)
        if problem is None and forks[0] > before:
            problem = f"{_name(plugin)} starts a process (os.fork) while it is imported; it must not."
        _write(reports, {"problem": problem, "seconds": time.monotonic() - started})
    os._exit(0)  # not held up by threads and exit functions of a plugin


def _import_libraries(package: str) -> None:
    """Import torch and numba if a package needs them, so that the time of a plugin is its own."""
    try:
        required = requires(package) or []
    except PackageNotFoundError:
        return
    if any(re.match(r"(torch|reviewgen)\b(?!-)", requirement) for requirement in required):
        for name in ("reviewgen.compiled.sampling", "reviewgen.protocols.model"):
            importlib.import_module(name)


def _problem(plugin: Plugin) -> str | None:
    """Return what is wrong with a plugin, as a sentence; None if nothing is."""
    try:
        inspect_plugin(plugin)
    except PluginError as error:
        return _shorten(str(error))
    except SystemExit as end:
        return _shorten(f"{_name(plugin)} calls sys.exit({end.code!r}) while it is imported; it must not.")
    except BaseException as error:  # a third party's module may raise anything while it is imported
        return _shorten(f"{_name(plugin)} cannot be used: {type(error).__name__}: {error}")
    return None


def _name(plugin: Plugin) -> str:
    return f"The {plugin.kind} {plugin.name!r} of {plugin.package} {plugin.version}"


def _shorten(text: str) -> str:
    joined = " ".join(text.split())
    return joined if len(joined) <= _SHORT else f"{joined[: _SHORT - 3]}..."


def _write(reports: Path, report: dict[str, Any]) -> None:
    with reports.open("a", encoding="utf-8") as file:
        file.write(json.dumps(report) + "\n")
