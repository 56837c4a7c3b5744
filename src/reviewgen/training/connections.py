"""Connections that notice when the machine at their other end has vanished: its power is cut, or its network is down.

Such a machine closes nothing, so TCP alone would wait for hours. The operating systems of both ends are made to ask each other
whether they are there. They answer whatever the processes do, so a process that is merely slow is not lost.
"""

import contextlib
import os
import socket
import stat
from pathlib import Path

__all__ = ["SECONDS", "watch_connections"]

SECONDS = 30
"""After this time without an answer, a connection is closed."""

_INTERVAL_SECONDS = 5  # between two questions


def watch_connections() -> None:
    """Let the TCP connections of this process end when the machine at the other end does not answer. On Linux and macOS."""
    folder = Path("/dev/fd")
    for number in [int(path.name) for path in folder.iterdir()] if folder.is_dir() else ():
        with contextlib.suppress(OSError):  # closed in the meantime
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                with socket.socket(fileno=os.dup(number)) as connection:
                    _watch(connection)


def _watch(connection: socket.socket) -> None:
    """Set the options of a TCP connection; they belong to the connection, and not to the number it has in this process."""
    if connection.type != socket.SOCK_STREAM or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
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
