"""A pool of worker processes that call functions by name; arguments and results are JSON, large data is passed in files.

The workers are started as ``python -m reviewgen.data.worker``. ``multiprocessing`` would run the user's script again in each of
them, or fork a process that has threads.
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
from reviewgen.errors import ConfigError, ReviewgenError, WorkerError, quoted

__all__ = ["count_workers", "run_tasks"]

_MAX_WORKERS = 8  # by default; more would wait for the disk and for the process that merges their results
_VARIABLE = "REVIEWGEN_WORKERS"

Arguments: TypeAlias = Mapping[str, Any]
"""The keyword arguments of one call; JSON values."""


def count_workers(size: int, min_size: int) -> int:
    """Return the number of processes to use for an amount of data.

    It is ``$REVIEWGEN_WORKERS`` if set; otherwise one per core, up to 8, if there is enough data, or else 1.

    Args:
        size: The size of the data, in bytes.
        min_size: The size from which on several processes are faster.

    Raises:
        ConfigError: The variable is not a positive integer.
    """
    configured = os.environ.get(_VARIABLE)
    if configured:
        if not configured.isdecimal() or int(configured) < 1:
            raise ConfigError(
                f"{_VARIABLE} is {quoted(configured)}; set it to the number of processes that read and tokenize: 1, 2, ..."
            )
        return int(configured)
    if size < min_size or not sys.executable:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MAX_WORKERS)


def run_tasks(function: Callable[..., Any], tasks: Iterable[Arguments], workers: int) -> Generator[Any, None, None]:
    """Call a module-level function once per task in worker processes; yield the results in order.

    Close the generator to end the workers.

    Raises:
        WorkerError: A worker process failed or was killed.
        ReviewgenError, OSError: The function raised it.
    """
    with _Pool(workers) as pool:
        waiting: deque[Future[Any]] = deque()
        for task in tasks:
            waiting.append(pool.submit(function, task))
            if len(waiting) > workers + 1:  # limits the finished results that wait on disk
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class _Pool:
    """Worker processes, and one thread per worker that waits for its results."""

    def __init__(self, workers: int) -> None:
        self._threads = ThreadPoolExecutor(workers)
        self._processes: list[subprocess.Popen[str]] = []
        self._idle: queue.SimpleQueue[subprocess.Popen[str]] = queue.SimpleQueue()
        self._workers = workers

    def __enter__(self) -> "_Pool":
        with contextlib.ExitStack() as stack:
            stack.callback(self._stop)
            for _ in range(self._workers):
                self._processes.append(_start_worker())
                self._idle.put(self._processes[-1])
            stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    def submit(self, function: Callable[..., Any], task: Arguments) -> "Future[Any]":
        """Call a function in the next idle worker."""
        return self._threads.submit(self._call_idle_worker, json.dumps([function.__module__, function.__name__, task]))

    def _call_idle_worker(self, call: str) -> Any:
        worker = self._idle.get()
        try:
            return _call(worker, call)
        finally:
            self._idle.put(worker)

    def _stop(self) -> None:
        """Kill the processes, which also ends the threads that wait for them."""
        for process in self._processes:
            process.kill()
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.communicate()


def _start_worker() -> "subprocess.Popen[str]":
    """Start a worker with this process's module path, in its own process group, so that Ctrl-C reaches only this process.

    POSIX and Windows each ignore the other's way to start a group.
    """
    paths = [path for path in sys.path if path]
    environment = {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "reviewgen.data.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=os.environ | environment,
        process_group=0,
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )


def _call(worker: "subprocess.Popen[str]", call: str) -> Any:
    """Send a call to a worker and return its result."""
    assert worker.stdin is not None and worker.stdout is not None
    try:
        worker.stdin.write(call + "\n")
        worker.stdin.flush()
        line = worker.stdout.readline()
    except (BrokenPipeError, ConnectionResetError):
        line = ""
    if not line.endswith("\n"):
        raise WorkerError(_describe_exit(worker.wait()))
    response = json.loads(line)
    if "error" in response:
        raise _rebuild_error(**response["error"])
    return response["result"]


def _describe_exit(status: int) -> str:
    if status >= 0:
        cause = f"failed with status {status}; its error is shown above"
    else:
        cause = f"was killed ({signal.Signals(-status).name}), perhaps because memory ran out"
    return (
        f"A process that reads or tokenizes the corpus {cause}. No partial result was kept; train again, with {_VARIABLE}=1 if "
        "it happens again."
    )


def _rebuild_error(kind: str, message: str, errno: int | None) -> Exception:
    """Return the error that was raised in a worker."""
    if errno is not None:
        return OSError(errno, message)
    error_type = getattr(errors, kind, WorkerError)
    error: ReviewgenError = error_type(message)
    return error
