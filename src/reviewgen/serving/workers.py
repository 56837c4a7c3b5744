"""Several processes that serve the same models on one socket; the system hands each connection to one of them.

Each process loads the models. The first one must have started before the others are; one that dies is started again.
"""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection, get_context, parent_process
from multiprocessing.process import BaseProcess

from prometheus_client.multiprocess import mark_process_dead

from reviewgen.errors import ReviewgenError, WorkerError
from reviewgen.serving.server import ServerOptions, load_engines, make_app, run
from reviewgen.storage import temporary_folder

_LOG = logging.getLogger("reviewgen")
_RESTART_SECONDS, _MOST_RESTART_SECONDS = 1.0, 60.0  # before a worker is started again; twice as long after each failure
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
        leave_out: As in ``load_engines``; of the models that the first process does not serve.
        announce: Is called with the names of the models once all processes answer requests.

    Raises:
        WorkerError: A process could not start, as where no model can be loaded; or it lacks a model that the first one serves.
    """
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with temporary_folder() as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
        workers: list[BaseProcess] = []
        try:
            first, started = _start(options, listening, ended)
            workers.append(first)
            for name, reason in started.failed.items():
                leave_out(name, ReviewgenError(reason))
            workers.extend(_start(options, listening, ended, started.names)[0] for _ in range(count - 1))
            if not ended.is_set():
                announce(started.names)
            retries = _Retries()
            while not ended.is_set():
                _replace_dead(workers, retries, lambda: _start(options, listening, ended, started.names)[0], ended)
        finally:
            _stop(workers, options.limits.shutdown_seconds + _GRACE)


@dataclass(frozen=True)
class _Started:
    """What a worker says once it answers requests: the models that it serves, and why it does not serve the others."""

    names: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass
class _Retries:
    """When the next worker is started after one could not be, and the reasons that were said already."""

    delay: float = _RESTART_SECONDS
    not_before: float = 0.0
    said: set[str] = field(default_factory=set)

    def failed(self, reason: str) -> None:
        """Wait longer, and say why on standard error, once for each reason."""
        if reason not in self.said:
            _LOG.warning("A process of the server has ended and cannot be started again; the others go on. %s", reason)
        self.said.add(reason)
        self.delay = min(2 * self.delay, _MOST_RESTART_SECONDS)
        self.not_before = time.monotonic() + self.delay

    def succeeded(self) -> None:
        """Forget the failures."""
        self.delay = _RESTART_SECONDS
        self.said.clear()


def _start(
    options: ServerOptions, listening: socket.socket, ended: threading.Event, needed: Sequence[str] = ()
) -> tuple[BaseProcess, _Started]:
    """Start a worker and wait until it answers requests.

    Raises:
        WorkerError: It could not start, or lacks a model that it needs, as the first worker serves it; it was ended then.
    """
    ours, theirs = get_context("spawn").Pipe()
    worker = get_context("spawn").Process(target=_work, args=(options, listening, theirs, needed), daemon=True)
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
        _stop([worker], _GRACE)
        raise WorkerError(said)
    return worker, said


def _replace_dead(
    workers: list[BaseProcess], retries: _Retries, start: Callable[[], BaseProcess], ended: threading.Event
) -> None:
    """Wait a moment, or until a worker has died; start another one in its place, at the earliest after the delay."""
    if alive := [worker.sentinel for worker in workers if worker.is_alive()]:
        connection.wait(alive, timeout=0.5)
    else:
        ended.wait(0.5)
    for number, worker in enumerate(workers):
        if worker.is_alive() or ended.is_set() or time.monotonic() < retries.not_before:
            continue
        mark_process_dead(worker.pid)
        ended.wait(_RESTART_SECONDS)
        try:
            workers[number] = start()
        except WorkerError as error:
            retries.failed(str(error))
        else:
            retries.succeeded()


def _stop(workers: list[BaseProcess], seconds: float) -> None:
    for worker in workers:
        worker.terminate()
    deadline = time.monotonic() + seconds
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
        if worker.is_alive():
            worker.kill()


def _work(options: ServerOptions, listening: socket.socket, ready: connection.Connection, needed: Sequence[str]) -> None:
    """Serve, in a process of its own; says over a pipe that it has started, or why not."""
    threading.Thread(target=_follow_parent, daemon=True).start()
    failed: dict[str, str] = {}
    try:
        engines = load_engines(
            options.sources, options.weight_bits, lambda name, error: failed.update({name: str(error)}), options.limits.max_rows
        )
        for name in needed:
            if name not in engines:  # found before it serves: a request for that model would be refused here
                raise WorkerError(f"{name} cannot be loaded any more: {failed.get(name, 'it is missing')}")
        app = make_app(options, engines)
    except ReviewgenError as error:
        ready.send(str(error))
        return
    run(app, listening, lambda: ready.send(_Started(list(engines), failed)), options.access_log)


def _follow_parent() -> None:
    """End this process if the one that started it dies without saying so."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
