"""Worker processes: other Pythons that call functions of this package by name, with JSON in and JSON out.

They are started as ``python -m reviewgen.data.worker``: multiprocessing would run the user's own script again in each of them, or
fork a process that has threads. Whatever is large goes by files.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeAlias

import reviewgen.errors as errors
from reviewgen.errors import ConfigError, ReviewgenError, WorkerError

__all__ = ["count_workers", "run_tasks"]

_MOST = 8  # by default; more would wait for the disk and for the process that puts the parts together
_VARIABLE = "REVIEWGEN_WORKERS"

Arguments: TypeAlias = Mapping[str, Any]
"""Of one call, by name; JSON values."""


def count_workers(size: int, least: int) -> int:
    """Return how many processes share a work: ``$REVIEWGEN_WORKERS``, else one a core where its size is worth it, else 1.

    Raises:
        ConfigError: The variable holds no number of processes.
    """
    named = os.environ.get(_VARIABLE)
    if named:
        if not named.isdecimal() or int(named) < 1:
            raise ConfigError(f"{_VARIABLE} is {named!r}; it is the number of processes that read and tokenize: 1, 2, ...")
        return int(named)
    if size < least or not sys.executable:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MOST)


def run_tasks(function: Callable[..., Any], tasks: Iterable[Arguments], workers: int) -> Generator[Any, None, None]:
    """Yield what a function of a module returns for each task, in their order; close it to end the workers.

    Raises:
        WorkerError: A worker was ended from outside, or failed.
        ReviewgenError, OSError: Of the function.
    """
    with _Pool(workers) as pool:
        waiting: deque[Future[Any]] = deque()
        for task in tasks:
            waiting.append(pool.submit(function, task))
            if len(waiting) > workers + 1:  # no more lies finished on the disk than is soon fetched
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class _Pool:
    """Processes, and as many threads that talk to them."""

    def __init__(self, workers: int) -> None:
        self._threads = ThreadPoolExecutor(workers)
        self._processes: list[subprocess.Popen[str]] = []
        self._idle: queue.SimpleQueue[subprocess.Popen[str]] = queue.SimpleQueue()
        self._workers = workers

    def __enter__(self) -> "_Pool":
        with contextlib.ExitStack() as stack:
            stack.callback(self._end)
            for _ in range(self._workers):
                self._processes.append(_start())
                self._idle.put(self._processes[-1])
            stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def submit(self, function: Callable[..., Any], task: Arguments) -> "Future[Any]":
        """Have the next idle worker call a function."""
        return self._threads.submit(self._ask, json.dumps([function.__module__, function.__name__, task]))

    def _ask(self, call: str) -> Any:
        worker = self._idle.get()
        try:
            return _talk(worker, call)
        finally:
            self._idle.put(worker)

    def _end(self) -> None:
        """Kill the processes, which frees the threads that wait for them."""
        for process in self._processes:
            process.kill()
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.communicate()


def _start() -> "subprocess.Popen[str]":
    """Start a worker that finds the modules that this process finds, and that Ctrl-C does not reach: we end it."""
    paths = [path for path in sys.path if path]
    alone = {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "reviewgen.data.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | alone,
        process_group=0,
    )


def _talk(worker: "subprocess.Popen[str]", call: str) -> Any:
    """Hand a call to a worker and return the result."""
    assert worker.stdin is not None and worker.stdout is not None
    try:
        worker.stdin.write(call + "\n")
        worker.stdin.flush()
        answer = worker.stdout.readline()
    except (BrokenPipeError, ConnectionResetError):
        answer = ""
    if not answer.endswith("\n"):
        raise WorkerError(_why_dead(worker.wait()))
    found = json.loads(answer)
    if "error" in found:
        raise _error(**found["error"])
    return found["result"]


def _why_dead(status: int) -> str:
    if status >= 0:
        how = f"failed with status {status}; what it said stands above"
    else:
        how = f"was ended from outside ({signal.Signals(-status).name}), perhaps because memory ran out"
    return (
        f"A process that reads or tokenizes the corpus {how}. Nothing half-done was kept; train again, with {_VARIABLE}=1 if it "
        "happens again."
    )


def _error(kind: str, message: str, number: int | None) -> Exception:
    """Return the error that a worker ran into, as it was there."""
    if number is not None:
        return OSError(number, message)
    known = getattr(errors, kind, WorkerError)
    error: ReviewgenError = known(message)
    return error
