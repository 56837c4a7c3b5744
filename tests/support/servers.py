"""Starts programs that serve over HTTP, waits until they answer, and ends them."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["free_port", "get", "post", "serving", "started", "wait_until_it_answers"]


def free_port() -> int:
    """Return a port that nothing listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def started(
    command: Sequence[str], log: Path, env: Mapping[str, str] | None = None, grace: float = 60
) -> "Iterator[subprocess.Popen[bytes]]":
    """Run a program in a group of its own, with its output in a file; end it by Ctrl-C, or after ``grace`` seconds by force."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=env, start_new_session=True
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
def serving(words: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> Iterator[dict[str, Any]]:
    """Run ``reviewgen serve`` or ``demo`` at a free port, and yield what it prints with ``--json``, and its process."""
    command = [sys.executable, "-m", "reviewgen", *words, "--json"]
    with started(command, log, env) as process:
        deadline = time.monotonic() + 300
        while "}" not in (text := log.read_text(encoding="utf-8")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "}" in text, f"{' '.join(words)} did not start: {text}"
        said = text[text.index("{") : text.rindex("}") + 1]
        yield json.loads(said) | {"process": process}


def wait_until_it_answers(url: str, process: "subprocess.Popen[bytes]", log: Path, seconds: float = 300) -> None:
    """Wait until a URL is answered with status 200."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            get(url)
            return
        time.sleep(0.1)
    raise AssertionError(f"{url} is not answered: {log.read_text(encoding='utf-8', errors='replace')[-2000:]}")


def get(url: str) -> bytes:
    """Return the body of a page.

    Raises:
        OSError: It cannot be reached, or the status is not 200.
    """
    with urllib.request.urlopen(url, timeout=300) as answer:
        return bytes(answer.read())


def post(url: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Any:
    """Return the JSON answer to a JSON request."""
    fields = {"Content-Type": "application/json", **(headers or {})}
    request = urllib.request.Request(url, json.dumps(body).encode(), fields)
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.load(answer)
