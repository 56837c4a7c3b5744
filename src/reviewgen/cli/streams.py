"""What surrounds a command: its standard streams, of which the parent process may have closed some, and interrupts."""

import contextlib
import errno
import functools
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TextIO, TypeVar

from reviewgen.cli.console import note
from reviewgen.interrupts import INTERRUPTED

_STDOUT = "standard output"

P = ParamSpec("P")
R = TypeVar("R")


def interruptible(command: Callable[P, R]) -> Callable[P, R]:
    """Let an interrupt that a command does not handle end it with a note; the frameworks above would each say it their way."""

    @functools.wraps(command)
    def run(*args: P.args, **options: P.kwargs) -> R:
        try:
            return command(*args, **options)
        except KeyboardInterrupt:
            note("Interrupted.")
            sys.exit(INTERRUPTED)

    return run


class _Unfailing(io.FileIO):
    """A file whose writing never fails: notes that a full disk cannot take are dropped, and the command goes on."""

    def write(self, data: Any, /) -> int:
        """Write, or drop."""
        try:
            return super().write(data)
        except OSError:
            return len(data)


class _Output(io.FileIO):
    """Standard output; an OSError of writing to it says in its ``filename`` that it is that which could not be written."""

    def write(self, data: Any, /) -> int:
        """Write."""
        try:
            return super().write(data)
        except OSError as error:
            error.filename = _STDOUT
            raise


def open_streams() -> None:
    """Replace streams that the parent process has closed, so that no file that is opened later takes their number.

    A closed input is empty and a closed error output is dropped; writing to a closed standard output raises OSError.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_WRONLY if number == 2 else os.O_RDONLY)  # takes the lowest number that is free
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 (the stream of the process)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text_stream(_Output(1, "w", closefd=False), sys.stdout)
    if sys.stderr is sys.__stderr__ and not (sys.stderr is not None and sys.stderr.isatty()):
        sys.stderr = _text_stream(_Unfailing(2, "w", closefd=False), sys.stderr, line_buffering=True)
    for stream in (sys.stdout, sys.stderr):  # a character that the terminal cannot encode is printed as an escape
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _text_stream(raw: io.FileIO, replaced: TextIO | None, line_buffering: bool = False) -> io.TextIOWrapper:
    encoding = "utf-8" if replaced is None else replaced.encoding
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=encoding, line_buffering=line_buffering or raw.isatty())


def finish_output() -> None:
    """Write what standard output still holds.

    Raises:
        OSError: It cannot be written.
    """
    sys.stdout.flush()


def is_closed_pipe(error: OSError) -> bool:
    """Return whether the program that reads standard output has ended, as ``head`` does once it has its lines."""
    return error.errno == errno.EPIPE and error.filename == _STDOUT


def close_output() -> None:
    """Write what standard output still holds, and drop what cannot be written: the interpreter would try again at its end."""
    with contextlib.suppress(OSError):
        sys.stdout.close()
    sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (the stream of the process)


def describe_os_error(error: OSError) -> str:
    """Return a sentence on an error of the operating system that no command has expected."""
    reason = error.strerror or str(error) or type(error).__name__
    if error.filename == _STDOUT:
        reason = "it is closed" if error.errno == errno.EBADF else reason
        return f"Standard output cannot be written: {reason}. Redirect it to a file or a terminal."
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)} cannot be read or written: {reason}."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{reason}: free some space in the temporary folder and in the cache (REVIEWGEN_CACHE, NUMBA_CACHE_DIR)."
    return f"The operating system refused a step: {reason}."
