"""Packages of npm for tests, installed once a machine. Tests that need one are skipped where npm cannot install it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock

from tests.support.node import why_no_node


def installed(*packages: str) -> Path:
    """Return a folder ``node_modules`` with packages, as in "onnxruntime-web@1.23"; skip the test where there is none."""
    if reason := why_no_node():
        pytest.skip(reason)
    if shutil.which("npm") is None:
        pytest.skip("no npm in the path")
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = caches / "reviewgen-tests" / "-".join(packages).replace("/", "+")
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if not (folder / "done").exists():
            _install(folder, packages)
    return folder / "node_modules"


def _install(folder: Path, packages: tuple[str, ...]) -> None:
    (folder / "package.json").write_text('{"private": true, "type": "module"}', encoding="utf-8")
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", *packages]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not install {packages} within 300 seconds")
    if done.returncode:
        pytest.skip(f"npm cannot install {packages}: {done.stderr[-300:]}")
    (folder / "done").touch()
