"""Opens the files that a user names, which may be pipes: ``/dev/stdin``, or ``<(zcat ...)`` of a shell.

Opening a named pipe that nothing writes to waits without end, and so does reading a device. Every file that a user names as an
input is opened here, other than those in the folder of a model. Standard library only.
"""

import errno
import io
import logging
import os
import select
import stat
import time
from pathlib import Path
from typing import IO, Any

_SECONDS = 30.0  # until something opens a pipe for writing
_NOTE_SECONDS = 5.0  # until a warning says what is waited for
_logger = logging.getLogger("reviewgen")
_POLL = 200  # milliseconds; between two of them an interrupt is handled


def open_input(file: Path) -> IO[bytes]:
    """Open a file, a pipe or a terminal for reading from its beginning to its end; a pipe cannot be read twice.

    Raises:
        OSError: It cannot be read, is a device, or is a pipe that nothing has opened for writing in 30 seconds. Its ``strerror``
            is the part of a sentence that says so.
    """
    mode = file.stat().st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # opening a folder says that it is one
        return file.open("rb")
    handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISFIFO(mode) and not os.isatty(handle):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is a device, not a file")
    raw = _Pipe(handle)
    pipe = io.BufferedReader(raw)
    poll, start, is_noted = select.poll(), time.monotonic(), False
    poll.register(handle, select.POLLIN)
    try:
        while not poll.poll(_POLL) and not pipe.peek(1):  # which keeps what arrives just now
            is_noted = _wait_on(raw, file, time.monotonic() - start, is_noted)
    except BaseException:
        pipe.close()
        raise
    os.set_blocking(handle, True)
    return pipe


def is_pipe(file: Path) -> bool:
    """Return whether a path leads to something that can be read only once, as a pipe or a device."""
    try:
        mode = file.stat().st_mode
    except OSError:
        return False  # whoever opens it says why
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


class _Pipe(io.FileIO):
    """A pipe.

    Attributes:
        has_writer: Whether a process had it open for writing, or had left something in it, when it was last read.
    """

    has_writer = False

    def readinto(self, buffer: Any) -> int | None:
        count = super().readinto(buffer)  # None if there is a writer, and nothing to read yet
        self.has_writer = count != 0
        return count


def _wait_on(pipe: _Pipe, file: Path, seconds: float, is_noted: bool) -> bool:
    """Go on waiting for a pipe, as long as it has a writer, else for a time; return whether a note has said so.

    Raises:
        TimeoutError: Nothing has opened it for writing in that time.
    """
    if not pipe.has_writer and seconds > _SECONDS:
        raise TimeoutError(errno.ETIMEDOUT, f"nothing has opened this pipe for writing in {_SECONDS:g} seconds")
    if seconds > _NOTE_SECONDS and not is_noted:
        _logger.warning("Waiting until something %s %s ...", "is written to" if pipe.has_writer else "opens", file)
    return seconds > _NOTE_SECONDS
