"""Opens the files that a user names, which may be pipes: ``/dev/stdin``, or ``<(zcat ...)`` of a shell.

Opening a named pipe that nothing writes to waits without end, and so does reading a device. Every file that a user names as an
input is opened here, other than those in the folder of a model. Standard library only.
"""

import errno
import os
import select
import stat
import time
from pathlib import Path
from typing import IO

__all__ = ["is_pipe", "open_input"]

_SECONDS = 30.0  # until the first byte
_POLL = 200  # milliseconds; between two of them an interrupt is handled


def open_input(file: Path) -> IO[bytes]:
    """Open a file, a pipe or a terminal for reading from its beginning to its end; a pipe cannot be read twice.

    Raises:
        OSError: It cannot be read, is a device, or is a pipe that nothing has been written to in 30 seconds. Its ``strerror`` is
            the part of a sentence that says so.
    """
    mode = file.stat().st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # opening a folder says that it is one
        return file.open("rb")
    handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not stat.S_ISFIFO(mode) and not os.isatty(handle):
            raise OSError(errno.EINVAL, "it is a device, not a file")
        _wait_for_input(handle)
        os.set_blocking(handle, True)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def is_pipe(file: Path) -> bool:
    """Return whether a path leads to something that can be read only once, as a pipe or a device."""
    try:
        mode = file.stat().st_mode
    except OSError:
        return False  # whoever opens it says why
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _wait_for_input(handle: int) -> None:
    poll, deadline = select.poll(), time.monotonic() + _SECONDS
    poll.register(handle, select.POLLIN)
    while not poll.poll(_POLL):
        if time.monotonic() > deadline:
            raise TimeoutError(errno.ETIMEDOUT, f"nothing was written to this pipe in {_SECONDS:g} seconds")
