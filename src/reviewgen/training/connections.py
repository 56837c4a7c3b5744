"""Connections between the processes of a launcher: made within minutes or not at all, and closed when an end of them is lost.

A process that ends, for any reason, closes its connections. A machine that vanishes, as its power is cut or its network is down,
closes nothing, and TCP alone would wait for hours. So the operating systems of both ends are made to ask each other whether they
are there. They answer whatever the processes do: a process that is merely slow is not lost.
"""

import atexit
import contextlib
import os
import re
import signal
import socket
import stat
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from torch import distributed

from reviewgen.errors import ProcessLost, first_line
from reviewgen.interrupts import handled

SECONDS = 30
"""After this time without an answer, a connection is closed."""

CONNECTING = timedelta(minutes=5)
"""How long a process waits for the others to start: they may import torch from a slow disk, but need no longer than that."""

TIMEOUT = timedelta(days=1)
"""For a process that is connected and still working; one that ends, or vanishes with its machine, is noticed."""

_INTERVAL_SECONDS = 5  # between two questions
_failures: list[str] = []  # why the processes could not be connected; accelerate's state is then half made, for good


def process_state(timeout: timedelta = CONNECTING) -> Any:
    """Return accelerate's ``PartialState``: rank, number of processes, device. Without an accelerator, processes use the CPU.

    The first call connects the processes, and Ctrl-C and SIGTERM end the process while it waits for the others. If that fails, so
    does every later call, at once.

    Args:
        timeout: How long it waits.

    Raises:
        ProcessLost: The processes of a launcher cannot be connected.
    """
    if _failures:
        raise ProcessLost(_failures[0])
    was_connected = distributed.is_initialized()
    try:
        # While torch waits in compiled code, no handler of Python is called: an interrupt ends the process.
        with contextlib.nullcontext() if was_connected else handled(signal.SIG_DFL):
            cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
            state = PartialState(cpu=cpu, timeout=timeout)
            if state.num_processes > 1:
                _lasting_group()
    except (RuntimeError, ValueError) as error:  # the second if the environment names no address
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            raise
        _failures.append(
            f"The processes could not be connected ({first_line(error)}). Check that all have started, and the address and the "
            "port; set GLOO_SOCKET_IFNAME to the network interface of the machines, and with --max_restarts set "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1."
        )
        raise ProcessLost(_failures[0]) from None
    if distributed.is_initialized() and not was_connected:
        atexit.register(_disconnect)
    return state


@cache
def _lasting_group() -> Any:
    """Return the group of all processes that lasts as long as they do. It is made when they connect: all are there then."""
    group = distributed.new_group(backend="gloo", timeout=TIMEOUT)
    _watch_connections()
    return group


def _disconnect() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


def new_group(ranks: Sequence[int] | None = None) -> Any:
    """Return a new gloo group of some of the processes, by default of all. All processes must call this.

    They first wait for one another in a group that is connected already: a new one would wait in vain for a process that has
    ended.

    Raises:
        ProcessLost: Another process has ended.
    """
    with connection_errors():
        distributed.barrier(_lasting_group())
    group = distributed.new_group(None if ranks is None else list(ranks), backend="gloo", timeout=TIMEOUT)
    _watch_connections()
    return group


@contextmanager
def connection_errors() -> Iterator[None]:
    """Turn torch's errors about a lost connection into ``ProcessLost``.

    Raises:
        ProcessLost: Another process has ended, or has not answered within the timeout.
        MemoryError: This process has no memory for what the others send.
    """
    try:
        yield
    except RuntimeError as error:
        traceback.clear_frames(error.__traceback__)  # they reference the connection, which must close when this process ends
        if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
            raise MemoryError from None
        reason = re.sub(r"^\[\S+\] ", "", first_line(error)).split(". ")[0]  # without its place in torch, and advice
        raise ProcessLost(f"Another process has ended or does not answer ({reason}).") from None


def close_connections(kept: int) -> None:
    """Close the TCP connections of this process, which is about to end; those at one port, the store's, stay open.

    Another process may be waiting for what this one would have sent, and so would not notice that a third one has ended.
    """
    for connection in _connections():
        with contextlib.suppress(OSError):  # it listens, or was closed by the other end
            if kept not in (connection.getsockname()[1], connection.getpeername()[1]):
                connection.shutdown(socket.SHUT_RDWR)


def _watch_connections() -> None:
    """Let the TCP connections of this process end when the machine at the other end does not answer. On Linux and macOS."""
    for connection in _connections():
        with contextlib.suppress(OSError):  # it was closed by the other end
            _watch_connection(connection)


def _connections() -> Iterator[socket.socket]:
    """Yield the TCP connections of this process, and sockets that listen, each under another number; on Linux and macOS."""
    folder = Path("/dev/fd")
    for number in [int(path.name) for path in folder.iterdir()] if folder.is_dir() else ():
        with contextlib.suppress(OSError):  # closed in the meantime
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                with socket.socket(fileno=os.dup(number)) as connection:
                    if connection.type == socket.SOCK_STREAM and connection.family in (socket.AF_INET, socket.AF_INET6):
                        yield connection


def _watch_connection(connection: socket.socket) -> None:
    """Set the options of a TCP connection; they belong to the connection, and not to the number it has in this process."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    idle = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None))  # the second on macOS
    for option, value in (
        (idle, _INTERVAL_SECONDS),
        (getattr(socket, "TCP_KEEPINTVL", None), _INTERVAL_SECONDS),
        (getattr(socket, "TCP_KEEPCNT", None), SECONDS // _INTERVAL_SECONDS),
        (getattr(socket, "TCP_USER_TIMEOUT", None), 1000 * SECONDS),  # for what was sent and is not acknowledged
    ):
        if option is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
