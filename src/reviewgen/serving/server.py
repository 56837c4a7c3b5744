"""Runs the application under uvicorn, in this process or in several workers, until a signal ends
it.

After SIGTERM or Ctrl-C, no new connection is accepted. Requests in progress have
``shutdown_seconds`` to end. Then they are cancelled, and the application answers them with an
error. A second Ctrl-C cancels them at once.
"""

import asyncio
import errno
import json
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import uvicorn
from prometheus_client.multiprocess import mark_process_dead
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from reviewgen.api import load
from reviewgen.errors import ConfigError, ReviewgenError, StorageError, quoted
from reviewgen.serving.app import create_app
from reviewgen.serving.engine import Engine
from reviewgen.serving.options import Limits, ServerOptions
from reviewgen.storage import temporary_folder

_MAX_HEADERS = 65_536  # bytes of a request's first line and headers
_MAX_CONNECTIONS = 1000  # max connections of a process, even if it may open more files
# With these errors, the system cannot accept a connection now; asyncio tries again after a second.
_ACCEPT_ERRORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_SECONDS_BETWEEN_ACCEPT_ERRORS = 60  # the log has at most one such error in this time
_OPTIONS = "REVIEWGEN_SERVER_OPTIONS"  # the environment variable by which workers get the options
_OPTIONS_OF_APP = ("limits", "key_digests", "cors_origins", "hosts", "page")
# A worker must answer uvicorn in this time. uvicorn waits as long for a worker that has just died,
# and handles no signal meanwhile.
_HEALTH_SECONDS = 20


class _Connection(H11Protocol):
    """A connection that is closed unless all headers of a request arrive before uvicorn's
    keep-alive timer ends.

    uvicorn itself starts this timer only after a response, and stops the timer at the first byte of
    the next request. Here, the timer runs whenever no request is in progress. If there are too many
    connections, a new connection replaces the connection that has waited longest. If requests are
    in progress on all connections, uvicorn answers the next request with 503.
    """

    @property
    def deadline(self) -> float:
        """The time of the event loop at which the timer ends; infinite while a request is in
        progress.
        """
        timer = self.timeout_keep_alive_task
        return math.inf if timer is None or self.transport.is_closing() else timer.when()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer of a new connection. If there are too many, close one that waits."""
        super().connection_made(transport)
        limit = self.limit_concurrency
        if limit is not None and len(self.connections) >= limit:
            connections = [each for each in self.connections if isinstance(each, _Connection)]
            longest_waiting = min(connections, key=lambda each: each.deadline)
            if longest_waiting.deadline < math.inf:
                longest_waiting.timeout_keep_alive_handler()  # closes the connection
        self._start_timer(self.loop.time() + self.timeout_keep_alive)

    def data_received(self, data: bytes) -> None:
        """Read bytes of a request. uvicorn stops the timer at the first byte; it is started again,
        with the same deadline, if the headers are not complete.
        """
        deadline = self.deadline
        super().data_received(data)
        is_waiting = self.cycle is None or self.cycle.response_complete
        if is_waiting and self.timeout_keep_alive_task is None and deadline < math.inf:
            self._start_timer(deadline)

    def _start_timer(self, deadline: float) -> None:
        """Close the connection when the time of the event loop reaches the deadline."""
        self.timeout_keep_alive_task = self.loop.call_at(deadline, self.timeout_keep_alive_handler)


class _AcceptErrorFilter(logging.Filter):
    """Logs at most one line a minute about connections that cannot be accepted; asyncio logs a
    traceback for each attempt.
    """

    due = 0.0  # when the next line may be logged, in seconds since 1970

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log a record; shorten a record about a refused connection."""
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, OSError) or error.errno not in _ACCEPT_ERRORS:
            return True
        if record.created < self.due:
            return False
        self.due = record.created + _SECONDS_BETWEEN_ACCEPT_ERRORS
        record.msg = f"Connections wait, since the system refuses to accept them: {error.strerror}."
        record.exc_info = None
        return True


def open_socket(host: str, port: int, stall_seconds: float, workers: int = 1) -> socket.socket:
    """Return a socket that listens, so that the port is known to be free before any model is
    loaded.

    Raises:
        ConfigError: The host is not an address of this machine, or several workers cannot share a
            socket here.
        StorageError: The port is in use, or may not be used.
    """
    # uvicorn passes the socket to its workers through a Unix socket, which Windows lacks
    if workers > 1 and not hasattr(socket, "AF_UNIX"):
        raise ConfigError(
            f"workers={workers} is for Linux and macOS: on Windows, one process serves. Leave it"
            " out."
        )
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        # EACCES: only the system may use ports below 1024
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise StorageError(
                f"Port {port} of {host}: {error.strerror}. Give another --port, or 0 for a free"
                " one."
            ) from None
        raise ConfigError(
            f"{quoted(host)} is not an address of this machine: {error}. Give one, as in 127.0.0.1."
        ) from None
    # connections inherit the options of the socket
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # the system closes a connection whose client reads nothing
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * stall_seconds))
    return listening


def load_engines(
    options: ServerOptions, leave_out: Callable[[str, ReviewgenError], None] | None = None
) -> dict[str, Engine]:
    """Load models, and return an engine for each of them, by name.

    Args:
        options: Which models, and how.
        leave_out: Called with the name and the error of each model that fails; this model is left
            out. If None, the error is raised.

    Raises:
        ReviewgenError: No model is left, or a model fails and ``leave_out`` is None.
    """
    engines: dict[str, Engine] = {}
    *_, last_name = options.sources
    for name, source in options.sources.items():
        try:
            model = load(source, weight_bits=options.weight_bits)
            engines[name] = Engine(model, max_rows=options.limits.max_rows)
        except ReviewgenError as error:
            is_last_chance = not engines and name == last_name
            if leave_out is None or is_last_chance:
                for engine in engines.values():
                    engine.close()
                raise type(error)(f"{source} cannot be served: {error}") from None
            leave_out(name, error)
    return engines


def _make_app(options: ServerOptions, engines: Mapping[str, Engine]) -> Starlette:
    """Return the application that serves these engines."""
    return create_app(engines, **{name: getattr(options, name) for name in _OPTIONS_OF_APP})


def uvicorn_options(limits: Limits, access_log: bool = False) -> dict[str, Any]:
    """Return the settings of uvicorn. uvicorn logs faults and, with ``access_log``, each request.
    Headers are never logged, and so API keys are not.
    """
    # -1 if there is no limit
    descriptors = os.sysconf("SC_OPEN_MAX") if hasattr(os, "sysconf") else -1
    faults: dict[str, Any] = {"handlers": ["stderr"], "level": "ERROR", "propagate": False}
    return {
        "lifespan": "on",
        "http": _Connection,
        "timeout_keep_alive": limits.stall_seconds,
        # a quarter of the descriptors is for files and for connections that wait
        "limit_concurrency": min(_MAX_CONNECTIONS, descriptors * 3 // 4)
        if descriptors > 0
        else _MAX_CONNECTIONS,
        "h11_max_incomplete_event_size": _MAX_HEADERS,
        "ws": "none",
        "access_log": access_log,
        "server_header": False,
        "timeout_graceful_shutdown": limits.shutdown_seconds,
        "log_config": {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(message)s"}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain"}},
            "filters": {"accept": {"()": _AcceptErrorFilter}},
            "loggers": {
                "uvicorn": faults,
                "uvicorn.access": faults | {"level": "INFO" if access_log else "ERROR"},
                "asyncio": faults | {"filters": ["accept"]},
            },
        },
    }


def run(
    options: ServerOptions, engines: dict[str, Engine], listening: socket.socket, workers: int = 1
) -> None:
    """Serve models until SIGTERM or Ctrl-C.

    Args:
        options: How to serve.
        engines: The engines of the models that can be loaded. Several workers load the models
            again; then these engines are closed, and the dictionary is emptied.
        listening: The socket.
        workers: The number of processes. uvicorn restarts a process that has ended, and stops all
            processes after a signal.
    """
    settings = uvicorn_options(options.limits, options.access_log)
    if workers == 1:
        # when uvicorn has ended, it raises the signal again, which must not count as a failure
        for number in signal.SIGTERM, signal.SIGINT:
            signal.signal(number, lambda *_: None)
        uvicorn.Server(uvicorn.Config(_make_app(options, engines), **settings)).run([listening])
        return
    # a worker does not try again to load the models that have failed here
    fields = asdict(options) | {"sources": {name: options.sources[name] for name in engines}}
    while engines:
        engines.popitem()[1].close()
    with temporary_folder() as folder:
        os.environ |= {"PROMETHEUS_MULTIPROC_DIR": str(folder), _OPTIONS: json.dumps(fields)}
        listening.set_inheritable(True)
        settings |= {
            "factory": True,
            "workers": workers,
            "fd": listening.fileno(),
            "timeout_worker_healthcheck": _HEALTH_SECONDS,
        }
        uvicorn.run("reviewgen.serving.server:app_of_worker", **settings)


def app_of_worker() -> Starlette:
    """Return the application of a worker, with the options from its environment variable. uvicorn
    calls this in each worker.

    If a model cannot be loaded any more, the worker ends with a message. uvicorn starts this worker
    again, and the other workers go on.
    """
    fields = json.loads(os.environ[_OPTIONS])
    options = ServerOptions(**fields | {"limits": Limits(**fields["limits"])})
    for file in Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).glob("gauge_live*.db"):
        pid = int(file.stem.rpartition("_")[2])  # of the worker that wrote the file
        try:
            os.kill(pid, 0)  # sends no signal; raises if there is no such process
        except ProcessLookupError:  # the worker died: its texts in progress no longer count
            mark_process_dead(pid)
    try:
        return _make_app(options, load_engines(options))
    except ReviewgenError as error:
        sys.exit(f"A worker cannot start. {error}")
