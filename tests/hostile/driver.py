"""Runs a fuzzer in a process of its own and watches it: time and memory of each case, crashes, and cases that never end."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

from tests.hostile.frame import Outcome, Tried

__all__ = ["CASE_SECONDS", "MEMORY", "Summary", "fuzz", "modules"]

CASE_SECONDS = 20.0
PREPARE_SECONDS = 180.0
MEMORY = 10**9  # bytes that a case may take over what the process has after ``prepare``
_ROOT = Path(__file__).parents[2]
_FOLDER = Path(__file__).parent


@dataclass
class Summary:
    """What came of the cases of a fuzzer."""

    name: str
    verdicts: Counter[str] = field(default_factory=Counter)
    failures: list[Tried] = field(default_factory=list)
    slowest: float = 0.0  # seconds
    peak_bytes: int = 0
    seconds: float = 0.0

    @property
    def tried(self) -> int:
        """Number of cases."""
        return self.verdicts.total()

    def add(self, tried: Tried) -> None:
        """Count a case."""
        self.verdicts[tried.outcome.verdict] += 1
        self.slowest = max(self.slowest, tried.seconds)
        self.peak_bytes = max(self.peak_bytes, tried.peak_bytes)
        if tried.outcome.verdict == "failed":
            self.failures.append(tried)


def modules() -> list[str]:
    """The fuzzers of this folder: names of the modules that define FUZZER."""
    return sorted(file.stem for file in _FOLDER.glob("*.py") if "\nFUZZER" in file.read_text(encoding="utf-8"))


def fuzz(
    spec: str,
    *,
    seed: int,
    cases: int | None = None,
    seconds: float = float("inf"),
    case_seconds: float = CASE_SECONDS,
    memory: int = MEMORY,
    each: Callable[[Tried], None] = lambda tried: None,
) -> Summary:
    """Try the cases of ``seed``, ``seed + 1`` and so on, and return what came of them.

    Args:
        spec: A module of this folder, or ``package.module:NAME``.
        seed: The first seed.
        cases: How many; unlimited by default.
        seconds: No case starts later than this after the first one.
        case_seconds: A case that takes longer has failed.
        memory: A case that takes more bytes has failed.
        each: Called after each case.
    """
    summary = Summary(spec.rpartition(":")[2])
    spec = spec if "." in spec else f"tests.hostile.{spec}"
    start = None
    with contextlib.ExitStack() as stack:
        child: _Child | None = None
        while cases is None or summary.tried < cases:
            if child is None:
                child = stack.enter_context(_started(spec))
            start = start or time.monotonic()
            tried = child.broken or child.tried(seed + summary.tried, case_seconds, memory)
            summary.add(tried)
            each(tried)
            summary.seconds = time.monotonic() - start
            if child.broken or summary.seconds >= seconds:
                break
            if child.stopped:
                child = stack.close()
    return summary


class _Child:
    """A process that tries cases.

    Attributes:
        broken: Why no case can be tried: the fuzzer did not get through ``prepare``.
        stopped: The process has ended, or was ended.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", connection: Connection, log: Path) -> None:
        self._process, self._connection, self._log = process, connection, log
        self.broken: Tried | None = None
        self.stopped = False
        self._base = 0
        answer, detail = self._answer(PREPARE_SECONDS, None)
        if isinstance(answer, int):
            self._base = answer
        else:
            self.broken = Tried(0, Outcome("failed", "prepare", detail), 0.0, 0)

    def tried(self, seed: int, seconds: float, memory: int) -> Tried:
        """Try a case."""
        start = time.monotonic()
        with contextlib.suppress(OSError):  # it has died since the last case, which _answer finds out
            self._connection.send(seed)
        answer, detail = self._answer(seconds, self._base + memory)
        if not isinstance(answer, Tried):
            return Tried(seed, Outcome("failed", f"seed {seed}", detail), time.monotonic() - start, 0)
        if answer.seconds > seconds:
            detail = f"The case took {answer.seconds:.1f} s; the limit is {seconds:g} s."
        elif answer.peak_bytes > memory:
            detail = f"The case took {answer.peak_bytes / 1e6:.0f} MB; the limit is {memory / 1e6:.0f} MB."
            self.stop()
        return replace(answer, outcome=Outcome("failed", answer.outcome.case, detail)) if detail else answer

    def _answer(self, seconds: float, limit: int | None) -> tuple[object, str]:
        """What the process sends within the given time; or None, and what happened."""
        deadline = time.monotonic() + seconds
        while not self._connection.poll(0.1):
            if self._process.poll() is not None:
                return None, self._end(f"The process ended: {_described(self._process.returncode)}.")
            if time.monotonic() > deadline:
                self._process.send_signal(signal.SIGUSR1)  # prints where it is
                time.sleep(0.3)
                return None, self._end(f"It did not end in {seconds:g} s.")
            if limit and (taken := self._resident()) > limit:
                over, allowed = (taken - self._base) / 1e6, (limit - self._base) / 1e6
                return None, self._end(f"It took {over:.0f} MB; the limit is {allowed:.0f} MB.")
        try:
            return self._connection.recv(), ""
        except (EOFError, OSError):
            self._process.wait()
            return None, self._end(f"The process ended: {_described(self._process.returncode)}.")

    def _resident(self) -> int:
        """Resident memory of the largest of the process and those that it has started."""
        taken = [0]
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self._process.pid)
            for one in (process, *process.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    taken.append(one.memory_info().rss)
        return max(taken)

    def _end(self, reason: str) -> str:
        """End the process, and return the reason with the end of what it has printed."""
        self.stop()
        printed = self._log.read_bytes().decode("utf-8", "backslashreplace")[-3000:]
        return f"{reason}\n{printed}".rstrip()

    def stop(self) -> None:
        """End the process with all that it has started."""
        self.stopped = True
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(self._process.pid).children(recursive=True):  # some lead sessions of their own
                with contextlib.suppress(psutil.Error):
                    process.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """Let the process end by itself, or end it."""
        self._connection.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self.stop()


@contextlib.contextmanager
def _started(spec: str) -> Iterator[_Child]:
    """A process with the fuzzer, prepared; it leads a session, so that all that it starts can be ended with it."""
    with tempfile.TemporaryDirectory(prefix="hostile-", ignore_cleanup_errors=True) as scratch:
        ours, theirs = Pipe()
        folder = Path(scratch, "folder")
        folder.mkdir()
        words = [sys.executable, "-m", "tests.hostile.child", spec, str(folder), str(theirs.fileno()), str(os.getpid())]
        environment = {**os.environ, "REVIEWGEN_CACHE": str(Path(scratch, "cache")), "PYTHONPATH": _python_path()}
        with Path(scratch, "log").open("wb") as log:
            process = subprocess.Popen(
                words,
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        theirs.close()
        with contextlib.ExitStack() as stack:
            stack.callback(ours.close)
            child = _Child(process, ours, Path(scratch, "log"))
            stack.callback(child.close)
            yield child


def _python_path() -> str:
    """The checkout, in front of what the environment has."""
    return os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))


def _described(status: int) -> str:
    """An exit status in words."""
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
