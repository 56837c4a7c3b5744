"""Launches of several processes on this machine, and folders that tests of several workers
share.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from filelock import FileLock

from tests.support.servers import free_port

__all__ = ["CPU", "launch", "made_once"]

CPU = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
"""The environment of a process that uses one thread, and no accelerator."""


def launch(
    processes: int,
    folder: Path,
    *words: str,
    env: Mapping[str, str] | None = None,
    timeout: float = 600,
) -> "subprocess.CompletedProcess[str]":
    """Run a script in several processes of this machine, in a folder that also has their cache;
    return what they printed.

    ``--multi_gpu`` starts as many as are asked for, also where there is no GPU; ``--cpu`` starts
    one.

    Args:
        processes: Their number.
        folder: The folder.
        *words: Options of the launcher, the script and its arguments.
        env: More of the environment.
        timeout: In seconds.
    """
    own = CPU | {"REVIEWGEN_CACHE": str(folder / "cache")} | dict(env or {})
    plain = [
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        "--num_machines",
        "1",
        "--main_process_port",
        str(free_port()),
    ]
    launcher = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        str(processes),
        *plain,
    ]
    return subprocess.run(
        [*launcher, *words],
        cwd=folder,
        env=os.environ | own,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def made_once(
    tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]
) -> Path:
    """Return a folder that a function has filled: in the first worker of pytest-xdist that asks for
    it, for all of them.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    made = folder.with_name(f"{name}.made")
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            folder.mkdir()
            make(folder)
            made.touch()
    assert made.exists(), f"{name} could not be made; see the failure of the test that asked first"
    return folder
