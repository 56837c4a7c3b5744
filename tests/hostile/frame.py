"""Runs a fuzzer in a process of its own and watches it: a case may take 20 seconds and 1 GB, and
must not end the process.
"""

import contextlib
import faulthandler
import importlib
import multiprocessing
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

__all__ = ["FUZZERS", "Failure", "Fuzzer", "find_fault", "fuzz"]

FUZZERS = ("folders", "kills", "commands", "calls", "requests")
CASE_SECONDS = 20.0
PREPARE_SECONDS = 300.0
MEMORY = 10**9
MAX_MESSAGE = 500


class Fuzzer:
    """A source of hostile cases; ``prepare`` runs once, then ``run`` for each seed."""

    def prepare(self, folder: Path) -> None:
        """Make what all cases need in an empty folder."""

    def run(self, seed: int) -> tuple[str, str]:
        """Try the case of a seed; return what it was, and what is wrong: "" if it was refused in a
        sentence, or had no effect.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Stop what ``prepare`` started."""


@dataclass(frozen=True)
class Failure:
    """A case that went wrong."""

    seed: int
    case: str
    detail: str


def find_fault(error: BaseException) -> str:
    """Return what is wrong with the way something was refused; "" if it is one of our errors, in
    one short sentence.
    """
    from reviewgen.errors import ReviewgenError

    message = str(error)
    if not isinstance(error, ReviewgenError):
        return "".join(traceback.format_exception(error))[-2000:]
    return (
        ""
        if 10 < len(message) <= MAX_MESSAGE and "Traceback" not in message
        else f"not a short sentence: {message[:2000]}"
    )


def in_child(work: Callable[[], object]) -> None:
    """Do some work in a forked child, so that this process starts no threads, which its later forks
    would wait for.
    """
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def fuzz(
    name: str, seed: int, cases: int | None = None, seconds: float = float("inf")
) -> tuple[int, list[Failure]]:
    """Try the cases of ``seed``, ``seed + 1`` and so on; return how many were tried, and those that
    went wrong.
    """
    tried = 0
    failures = list[Failure]()
    start = time.monotonic()
    while (cases is None or tried < cases) and time.monotonic() - start < seconds:
        with tempfile.TemporaryDirectory(prefix="hostile-", ignore_cleanup_errors=True) as folder:
            ours, theirs = multiprocessing.Pipe()
            process = multiprocessing.get_context("spawn").Process(
                target=_serve, args=(name, folder, theirs)
            )
            process.start()
            theirs.close()
            try:
                said = _answer(ours, process.pid or 0, PREPARE_SECONDS, None)
                base = _memory(process.pid or 0)
                while (
                    said is not None
                    and (cases is None or tried < cases)
                    and time.monotonic() - start < seconds
                ):
                    ours.send(seed + tried)
                    said = _answer(ours, process.pid or 0, CASE_SECONDS, base + MEMORY)
                    case, problem = said or (
                        "",
                        f"the process ended, or took {CASE_SECONDS} s or {MEMORY} bytes",
                    )
                    failures += [Failure(seed + tried, case, problem)] if problem else []
                    tried += 1
                if not tried:
                    raise RuntimeError(f"the fuzzer {name} could not be prepared")
            finally:
                ours.close()
                _end(process.pid or 0)
                process.join()
    return tried, failures


def _serve(name: str, folder: str, connection: Connection) -> None:
    """Prepare a fuzzer, and try each seed that arrives until the other side closes the
    connection.
    """
    os.setsid()
    faulthandler.enable()
    os.environ["REVIEWGEN_CACHE"] = str(Path(folder, "cache"))
    fuzzer: Fuzzer = importlib.import_module(f"tests.hostile.{name}").FUZZER
    own = Path(folder, "own")
    own.mkdir()
    fuzzer.prepare(own)
    connection.send(("", ""))
    with contextlib.suppress(EOFError):
        while True:
            seed = connection.recv()
            try:
                connection.send(fuzzer.run(seed))
            except BaseException:  # a case may raise anything, KeyboardInterrupt and SystemExit too
                connection.send((f"seed {seed}", traceback.format_exc()))
    fuzzer.close()


def _answer(
    connection: Connection, pid: int, seconds: float, limit: int | None
) -> tuple[str, str] | None:
    """Return what a process sends; None if it ends, takes too long or too much memory."""
    until = time.monotonic() + seconds
    while not connection.poll(0.1):
        if (
            not psutil.pid_exists(pid)
            or time.monotonic() > until
            or (limit and _memory(pid) > limit)
        ):
            return None
    try:
        said: tuple[str, str] = connection.recv()
    except (EOFError, OSError):
        return None
    return said


def _memory(pid: int) -> int:
    """Return the resident bytes of the largest of a process and what it has started."""
    taken = [0]
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        taken += [each.memory_info().rss for each in (process, *process.children(recursive=True))]
    return max(taken)


def _end(pid: int) -> None:
    """End a process with all that it has started."""
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                process.kill()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
