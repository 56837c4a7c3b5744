"""Several processes that serve the same models on one socket; the system hands each connection to one of them.

Each process loads the models. The first one must have started before the others are; one that dies is started again.
"""

import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import connection, get_context, parent_process
from multiprocessing.process import BaseProcess

from prometheus_client.multiprocess import mark_process_dead

from reviewgen.errors import ReviewgenError, WorkerError
from reviewgen.serving.server import ServerOptions, load_models, make_app, run

__all__ = ["run_workers"]

_RESTART_SECONDS = 1.0  # at least, between two starts
_GRACE = 15  # seconds that a worker may take longer than its shutdown time


def run_workers(
    options: ServerOptions,
    listening: socket.socket,
    count: int,
    leave_out: Callable[[str, ReviewgenError], None],
    announce: Callable[[list[str]], None],
) -> None:
    """Serve models in several processes until SIGTERM or Ctrl-C.

    Args:
        options: How to serve.
        listening: The socket.
        count: The number of processes.
        leave_out: As in ``load_models``; of the models that the first process does not serve.
        announce: Is called with the names of the models once all processes answer requests.

    Raises:
        WorkerError: The first process could not start, as where no model can be loaded.
    """
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with tempfile.TemporaryDirectory(prefix="reviewgen-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        workers: list[BaseProcess] = []
        try:
            first, started = _start(options, listening, ended)
            workers.append(first)
            for name, reason in started.failed.items():
                leave_out(name, ReviewgenError(reason))
            workers += (_start(options, listening, ended)[0] for _ in range(count - 1))
            if not ended.is_set():
                announce(started.names)
            while not ended.is_set():
                _replace_dead(workers, options, listening, ended)
        finally:
            _stop(workers, options.limits.shutdown_seconds + _GRACE)


@dataclass(frozen=True)
class _Started:
    """What a worker says once it answers requests: the models that it serves, and why it does not serve the others."""

    names: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def _start(options: ServerOptions, listening: socket.socket, ended: threading.Event) -> tuple[BaseProcess, _Started]:
    """Start a worker and wait until it answers requests."""
    ours, theirs = get_context("spawn").Pipe()
    worker = get_context("spawn").Process(target=_work, args=(options, listening, theirs), daemon=True)
    worker.start()
    theirs.close()
    while not ended.is_set() and not ours.poll(0.1):
        pass
    if ended.is_set():
        return worker, _Started()
    try:
        said = ours.recv()
    except EOFError:
        raise WorkerError(
            "A process of the server died while it started: there may not be enough memory for its models."
        ) from None
    if isinstance(said, str):
        raise WorkerError(said)
    return worker, said


def _replace_dead(workers: list[BaseProcess], options: ServerOptions, listening: socket.socket, ended: threading.Event) -> None:
    """Wait until a worker has died, or a moment; start another one in its place."""
    connection.wait([worker.sentinel for worker in workers], timeout=0.5)
    for number, worker in enumerate(workers):
        if not worker.is_alive() and not ended.is_set():
            mark_process_dead(worker.pid)
            time.sleep(_RESTART_SECONDS)
            workers[number], _ = _start(options, listening, ended)


def _stop(workers: list[BaseProcess], seconds: float) -> None:
    for worker in workers:
        worker.terminate()
    deadline = time.monotonic() + seconds
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
        if worker.is_alive():
            worker.kill()


def _work(options: ServerOptions, listening: socket.socket, ready: connection.Connection) -> None:
    """Serve, in a process of its own; says over a pipe that it has started, or why not."""
    threading.Thread(target=_follow_parent, daemon=True).start()
    failed: dict[str, str] = {}
    try:
        models = load_models(options.sources, options.weight_bits, lambda name, error: failed.update({name: str(error)}))
        app = make_app(options, models)
    except ReviewgenError as error:
        ready.send(str(error))
        return
    run(app, listening, lambda: ready.send(_Started(list(models), failed)), options.access_log)


def _follow_parent() -> None:
    """End this process if the one that started it dies without saying so."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
