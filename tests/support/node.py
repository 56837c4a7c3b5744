"""Runs JavaScript in Node. Tests that need it are skipped where there is none."""

import os
import shutil
import subprocess
from pathlib import Path


def find_node() -> str | None:
    return os.environ.get("REVIEWGEN_NODE") or shutil.which("node")


def why_no_node() -> str | None:
    """Return why no JavaScript can be run here; None if it can."""
    return None if find_node() else "no node in the path, nor REVIEWGEN_NODE"


def run_node(script: Path, *arguments: str) -> str:
    """Run a script to its end, and return what it prints."""
    node = find_node()
    assert node is not None
    done = subprocess.run([node, str(script), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
