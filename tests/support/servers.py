"""Starts programs that serve over HTTP, waits until they answer, and ends them."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


def free_port() -> int:
    """Return a port that nothing listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def started(
    command: Sequence[str],
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    grace: float = 60,
) -> "Iterator[subprocess.Popen[bytes]]":
    """Run a program in a group of its own, with its output in a file; end it by Ctrl-C, or after
    ``grace`` seconds by force.
    """
    with log.open("wb") as output:
        options: dict[str, Any] = {
            "stdout": output,
            "stderr": subprocess.STDOUT,
            "env": env,
            "cwd": cwd,
        }
        process = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, start_new_session=True, **options
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def serving(
    words: Sequence[str],
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    prefix: Sequence[str] = (),
) -> Iterator[dict[str, Any]]:
    """Run ``reviewgen serve`` or ``demo`` at a free port, and yield what it prints with ``--json``,
    and its process.
    """
    with started(
        [*prefix, sys.executable, "-m", "reviewgen", *words, "--json"], log, env, cwd
    ) as process:
        text = wait_for_log(log, lambda text: "}" in text or process.poll() is not None)
        assert "}" in text, f"{' '.join(words)} did not start: {text}"
        yield json.loads(text[text.index("{") : text.rindex("}") + 1]) | {"process": process}


def wait_for_log(log: Path, holds: Callable[[str], bool], seconds: float = 300) -> str:
    """Wait until something holds for what a program has printed, and return that."""
    deadline = time.monotonic() + seconds
    while not holds(text := log.read_text(encoding="utf-8", errors="replace")):
        assert time.monotonic() < deadline, text[-2000:]
        time.sleep(0.05)
    return text
