"""Runs the application under uvicorn, on one socket, until a signal ends it.

On SIGTERM or Ctrl-C no new connection is accepted; requests in progress have ``shutdown_seconds`` to end, then they are ended
with an error. A second Ctrl-C ends them at once.
"""

import asyncio
import errno
import logging
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import uvicorn
from starlette.applications import Starlette

from reviewgen.api import load
from reviewgen.errors import ConfigError, ReviewgenError, StorageError, quoted
from reviewgen.serving.app import create_app
from reviewgen.serving.engine import Engine
from reviewgen.serving.keys import ApiKeys
from reviewgen.serving.limits import Limits
from reviewgen.serving.service import Service

_MAX_HEADERS = 65_536  # bytes of a request's first line and headers
_HURRY_SECONDS = 1.0  # after a second Ctrl-C, for the errors to be sent
_GRACE = 5  # seconds between the end of requests and that of their connections


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """What a server serves, and how; may be handed to another process.

    Attributes:
        sources: The source of each model by its name.
        weight_bits: The bits of a weight, as in ``reviewgen.load``.
        limits: The limits of a request.
        keys: The accepted API keys; None accepts every request.
        cors_origins: The origins whose pages may call the server.
        hosts: The names that requests may call the server by, besides localhost; None accepts any.
        page: Whether to serve the page that writes texts.
        access_log: Whether to log each request.
    """

    sources: Mapping[str, str]
    weight_bits: int = 32
    limits: Limits = field(default_factory=Limits)
    keys: ApiKeys | None = None
    cors_origins: tuple[str, ...] = ()
    hosts: frozenset[str] | None = None
    page: bool = False
    access_log: bool = False


def open_socket(host: str, port: int, stall_seconds: float) -> socket.socket:
    """Return a socket that listens, so that the port is known to be free before any model is loaded.

    Raises:
        ConfigError: The host is not an address of this machine.
        StorageError: The port is in use, or may not be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise ConfigError(
            f"{quoted(host)} is not an address: {error.strerror}. Give one of this machine, as in 127.0.0.1."
        ) from None
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # connections inherit it: one whose client reads nothing is closed by the system
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * stall_seconds))
        listening.bind(address)
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise _bind_error(host, port, error) from None
    return listening


def _bind_error(host: str, port: int, error: OSError) -> ReviewgenError:
    if error.errno == errno.EADDRINUSE:
        return StorageError(f"Port {port} of {host} is in use by another program: give another --port, or 0 for a free one.")
    if error.errno == errno.EACCES:
        return StorageError(f"Port {port} may not be used: ports below 1024 are the system's. Give another --port.")
    return ConfigError(f"{quoted(host)} is not an address of this machine: {error.strerror}. Give one that is, as in 127.0.0.1.")


def load_engines(
    sources: Mapping[str, str],
    weight_bits: int = 32,
    leave_out: Callable[[str, ReviewgenError], None] | None = None,
    max_rows: int = Limits.max_rows,
) -> dict[str, Engine]:
    """Return engines of the models that load and that an engine can run, by name.

    Args:
        sources: Their sources, by name.
        weight_bits: The bits of a weight.
        leave_out: Is called with the name of each other one, and why; without it, that is raised.
        max_rows: How many texts of a model are generated side by side.

    Raises:
        ReviewgenError: No model is left; or one fails, and there is no ``leave_out``.
    """
    engines: dict[str, Engine] = {}
    for number, (name, source) in enumerate(sources.items(), 1):
        try:
            engines[name] = Engine(load(source, weight_bits=weight_bits), max_rows=max_rows)
        except ReviewgenError as error:
            is_last_chance = number == len(sources) and not engines
            if leave_out is None or is_last_chance:
                for engine in engines.values():
                    engine.close(drain=False)
                raise type(error)(f"{source} cannot be served: {error}") from None
            leave_out(name, error)
    return engines


class _Server(uvicorn.Server):
    """A server that says when it has started, and ends requests with an error when their time after the signal is over."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def _service(self) -> Service:
        app: Any = self.config.app
        service: Service = app.state.service
        return service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End all requests with an error on a second Ctrl-C; uvicorn alone would cancel them, and answer 500."""
        if self._loop is not None and self.should_exit and sig == signal.SIGINT:
            self._loop.call_soon_threadsafe(self._hurry, self._loop)
        else:
            super().handle_exit(sig, frame)

    def _hurry(self, loop: asyncio.AbstractEventLoop) -> None:
        self._service.refuse_new()
        self._service.end_running()
        loop.call_later(_HURRY_SECONDS, self._force)

    def _force(self) -> None:
        """Cancel what is left: connections whose clients do not read."""
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # a cancelled task is not a fault to be logged
        self.force_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        service = self._service
        service.refuse_new()
        end = asyncio.get_running_loop().call_later(service.limits.shutdown_seconds, service.end_running)
        await super().shutdown(sockets)
        end.cancel()


def make_server(app: Starlette, announce: Callable[[], None], access_log: bool = False) -> uvicorn.Server:
    """Return the uvicorn server of an application; ``announce`` is called once requests are answered."""
    service: Service = app.state.service
    config = uvicorn.Config(
        app,
        lifespan="on",
        http="h11",  # httptools, which uvicorn takes where it is installed, reads headers of any size
        h11_max_incomplete_event_size=_MAX_HEADERS,
        ws="none",
        log_config=None,
        access_log=access_log,
        server_header=False,
        timeout_graceful_shutdown=int(service.limits.shutdown_seconds) + _GRACE,
    )
    return _Server(config, announce)


def make_app(options: ServerOptions, engines: Mapping[str, Engine]) -> Starlette:
    """Return the application for some engines as ``options`` says; raises as ``create_app``."""
    return create_app(
        engines,
        limits=options.limits,
        keys=options.keys,
        cors_origins=options.cors_origins,
        hosts=options.hosts,
        page=options.page,
    )


def run(app: Starlette, listening: socket.socket, announce: Callable[[], None], access_log: bool = False) -> None:
    """Serve an application until SIGTERM or Ctrl-C.

    Args:
        app: The application.
        listening: The socket.
        announce: Is called once requests are answered.
        access_log: Whether to log each request.
    """
    _log(access_log)
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises the signal again after the end, which is not a failure
        signal.signal(number, lambda *_: None)
    make_server(app, announce, access_log).run([listening])


def _log(access_log: bool) -> None:
    """Log faults, and each request if asked for, to standard error; headers, and so the keys, are never logged."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.addFilter(lambda record: "WebSocket library" not in record.getMessage())  # uvicorn's advice to install one
    logger = logging.getLogger("uvicorn")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.WARNING)
    logging.getLogger("uvicorn.access").setLevel(logging.INFO if access_log else logging.WARNING)
