"""Inspects plugins in processes: one for each package, a few at once.

If a process ends, crashes or is late, the plugin that it has not reported on is at fault; the package's others are inspected in a
new process.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reviewgen.registry import Plugin
from reviewgen.registry.plugins import THIS_PROCESS, list_plugins
from reviewgen.storage import temporary_folder

LIMIT = 5.0  # seconds for the import and the checks of one plugin
_START_LIMIT = 120.0  # seconds to start Python and import torch, on the busiest machine
_AT_ONCE = 4  # processes
_POLL = 0.02  # seconds
_SCRIPT = """
import json, sys
request = json.loads(sys.argv[1])
sys.path[:] = request["path"]
from pathlib import Path
from reviewgen.inspection.child import run
from reviewgen.registry import Plugin
run(Path(request["reports"]), [Plugin(**plugin) for plugin in request["plugins"]])
"""


@dataclass(frozen=True)
class Inspection:
    """The result for one plugin.

    Attributes:
        plugin: The plugin.
        problem: What is wrong, as a sentence that names plugin, package and cause; None if nothing is.
        seconds: How long its import and checks took.
    """

    plugin: Plugin
    problem: str | None
    seconds: float


def inspect_plugins(plugins: Iterable[Plugin] | None = None, limit: float = LIMIT) -> list[Inspection]:
    """Inspect plugins, each package in a process of its own; whatever they do at import, this process is not affected.

    Args:
        plugins: The plugins; None for all that are installed. One that is registered in this process only is left out.
        limit: Seconds for each plugin; on a machine where starting a process takes longer, that long.

    Returns:
        The results, in the order of the plugins.
    """
    asked = [plugin for plugin in (list_plugins() if plugins is None else plugins) if plugin.package != THIS_PROCESS]
    by_package: dict[str, list[Plugin]] = {}
    for plugin in asked:
        if plugin.problem is None:
            by_package.setdefault(plugin.package, []).append(plugin)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        done = pool.map(lambda package: _inspect_package(package, limit), by_package.values())
        results = {id(result.plugin): result for package in done for result in package}
    return [results[id(plugin)] if id(plugin) in results else _not_usable(plugin) for plugin in asked]


def _not_usable(plugin: Plugin) -> Inspection:
    """Return the result for a plugin whose metadata shows that it cannot be used."""
    problem = f"The {plugin.kind} {plugin.name!r} of {plugin.package} {plugin.version} is not usable: {plugin.problem}."
    return Inspection(plugin, problem, 0.0)


def _inspect_package(plugins: Sequence[Plugin], limit: float) -> list[Inspection]:
    """Inspect the plugins of a package, in a new process after each that ended one."""
    results: list[Inspection] = []
    while len(results) < len(plugins):
        rest = plugins[len(results) :]
        reports, failure, seconds = _run(rest, limit)
        results += [
            Inspection(plugin, report["problem"], report["seconds"]) for plugin, report in zip(rest, reports, strict=False)
        ]
        if failure is not None:
            plugin = rest[len(reports)]
            name = f"The {plugin.kind} {plugin.name!r} of {plugin.package} {plugin.version}"
            results.append(Inspection(plugin, f"{name} {failure}", seconds))
    return results


def _run(plugins: Sequence[Plugin], limit: float) -> tuple[list[dict[str, Any]], str | None, float]:
    """Run a process; return its reports, how it failed at the plugin after them, and how long that one took."""
    with temporary_folder() as folder:
        reports = folder / "reports"
        reports.touch()
        request = {"path": sys.path, "reports": str(reports), "plugins": [asdict(plugin) for plugin in plugins]}
        process = subprocess.Popen(
            [sys.executable, "-c", _SCRIPT, json.dumps(request)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=os.name == "posix",
        )
        try:
            return _watch(process, reports, len(plugins), limit)
        finally:
            _end(process)


def _watch(
    process: "subprocess.Popen[bytes]", reports: Path, expected: int, limit: float
) -> tuple[list[dict[str, Any]], str | None, float]:
    """Wait until a process has reported on all plugins, has ended, or is late with one."""
    lines: list[dict[str, Any]] = []
    allowed, since = _START_LIMIT, time.monotonic()
    while len(lines) <= expected:
        has_ended = process.poll() is not None  # before the last look at its reports
        read = _read(reports)
        now = time.monotonic()
        if len(read) > len(lines):
            if not lines:
                limit = max(limit, now - since)
            lines, allowed, since = read, limit, now
        elif has_ended:
            return lines[1:], _describe_end(process.returncode, is_ready=bool(lines)), now - since
        elif now - since > allowed:
            return lines[1:], f"was not imported within {allowed:.0f} s: it waits, or does too much at import.", now - since
        else:
            time.sleep(_POLL)
    return lines[1:], None, 0.0


def _read(reports: Path) -> list[dict[str, Any]]:
    """Return the whole lines that a process has written."""
    *whole, _ = reports.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in whole]


def _describe_end(status: int, is_ready: bool) -> str:
    if not is_ready:
        return f"could not be inspected: its process did not start (exit status {status}). Is torch installed correctly?"
    if status >= 0:
        return f"ends the process while it is imported (exit status {status}); it must not."
    with contextlib.suppress(ValueError):
        return f"crashes the process while it is imported ({signal.Signals(-status).name}): its native code is at fault."
    return f"crashes the process while it is imported (signal {-status}): its native code is at fault."


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a process and those that it has forked."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):  # which Windows lacks
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.terminate()  # on Windows the same as kill
    process.wait()
