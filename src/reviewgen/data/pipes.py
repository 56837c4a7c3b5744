"""Pipes as sources, such as ``/dev/stdin`` and ``<(zcat ...)`` of a shell: they can be read only once, so they are copied."""

import os
import select
import stat
import time
from pathlib import Path
from typing import Any

from reviewgen.errors import DataError, storage_errors

__all__ = ["spool_pipe"]

_CHUNK = 1 << 20
_SECONDS = 30.0  # until the first byte; a pipe that nothing writes to would be waited for without end


def spool_pipe(file: Path, copy: Path) -> Path:
    """Return a file itself, or a copy of what a pipe or a terminal gives until its end.

    Raises:
        DataError: Nothing arrives, it is a device, or it cannot be read.
        StorageError: The disk of the copy is full.
    """
    try:
        mode = file.stat().st_mode
        if stat.S_ISREG(mode):
            return file
        handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}. Name a file of texts, or a pipe.") from None
    try:
        if not stat.S_ISFIFO(mode) and not os.isatty(handle):
            raise DataError(f"{file} is a device, not a file of texts. Name a file, or a pipe.")
        with storage_errors(copy), copy.open("wb") as target:
            poll, deadline = select.poll(), time.monotonic() + _SECONDS
            poll.register(handle, select.POLLIN)
            while chunk := _read(handle, poll, deadline if not target.tell() else None, file):
                target.write(chunk)
    finally:
        os.close(handle)
    return copy


def _read(handle: int, poll: Any, deadline: float | None, file: Path) -> bytes:
    """Return the next bytes of a pipe, none at its end."""
    while not poll.poll(200):
        if deadline is not None and time.monotonic() > deadline:
            raise DataError(
                f"Nothing was written to the pipe {file} in {_SECONDS:g} seconds. Start the program that writes to it first."
            )
    return os.read(handle, _CHUNK)
