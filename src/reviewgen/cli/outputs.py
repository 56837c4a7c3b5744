"""The files that ``generate`` writes texts and receipts to: locked, gone on with, and never taken from something else.

A run goes on with a file only if each of its lines is demonstrably its own. An incomplete last line, which a crash leaves, is
removed only if it begins as a line of this run does; everything else is left as it was found.
"""

import contextlib
import json
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

from reviewgen.errors import ConfigError, storage_errors
from reviewgen.lock import Lock, is_foreign

STREAMS = ("/dev/stdout", "/dev/stderr", "/proc/self/fd/1", "/proc/self/fd/2")
"""Paths of the standard output and error of a process."""


def is_stream(file: Path) -> bool:
    """Return whether a path is the standard output or error of this process, which is written to and never read back."""
    return file.as_posix() in STREAMS


def check_output(option: str, file: Path) -> None:
    """Refuse a path that no text can be appended to and read back from.

    Raises:
        ConfigError: It is a link, a folder, a pipe or a device.
    """
    if is_stream(file):
        return
    try:
        mode = file.lstat().st_mode
    except OSError:
        return  # it is created; what stands in the way of that is said by ``storage_errors``
    kinds = {stat.S_ISLNK: "a link", stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in kinds.items() if is_kind(mode)), "a device")
        raise ConfigError(f"{option} is a file that can be resumed, and {file} is {kind}. Give a file, or /dev/stdout.")


@contextlib.contextmanager
def locked(*files: Path) -> Iterator[None]:
    """Hold files for this process, so that no two runs write to one. The locks are hidden files beside them, removed at the end.

    Raises:
        ConfigError: Another process holds one, or something else has the name of a lock.
        StorageError: The folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        for file in files:
            with storage_errors(file):
                file.parent.mkdir(parents=True, exist_ok=True)
                stack.callback(_lock(file).remove)
        yield


def _lock(file: Path) -> Lock:
    place = file.with_name(f".{file.name}.lock")
    while True:
        if is_foreign(place):
            raise ConfigError(f"{place} or {place.name}.pid is not a lock of reviewgen. Rename it, or give another file.")
        try:
            lock = Lock(place)
        except BlockingIOError:
            raise ConfigError(f"Another process is writing to {file}. Wait until it has ended, or give another file.") from None
        if lock.is_in_place():
            return lock
        lock.release()  # the run before has removed the file in between


def continue_file(
    file: Path, form: bytes, beginning: bytes, is_own: Callable[[Any, int], bool], kind: str, last: int | None = None
) -> list[Any]:
    """Return the lines of a file as JSON values, and cut off what comes after: the rest of a line that a crash has left.

    Args:
        file: The file; it need not exist.
        form: How a line of any run begins; of a line that begins otherwise no more is read, however long it is.
        beginning: How each line of this run begins.
        is_own: Whether a value is line ``number``, from 0, of this run's file.
        kind: What a line is, for messages.
        last: Lines of a higher ``number`` are cut off as well. None keeps all.

    Raises:
        ConfigError: A line is something else. The file is unchanged.
    """
    if not file.exists():
        return []
    values: list[Any] = []
    kept, rest = 0, b""
    with file.open("rb") as stream:
        for number, line in enumerate(iter(partial(_read_line, stream, form), b"")):
            value, is_whole = _parse(line), line.endswith(b"\n")
            begins = line.startswith(beginning) or beginning.startswith(line)
            if not (is_own(value, number) if is_whole else begins):
                raise ConfigError(f"Line {number + 1} of {file} is not {kind}, so the file is left unchanged. Give another file.")
            if is_whole and not rest and (last is None or value["number"] <= last):
                values.append(value)
                kept += len(line)
            else:
                rest = line
    if rest:
        with file.open("rb+") as stream:
            stream.truncate(kept)
    return values


def _read_line(stream: IO[bytes], form: bytes) -> bytes:
    """Return the next line of a file; of one that does not begin with ``form``, only as many bytes, or fewer."""
    start = stream.readline(len(form))
    return start + stream.readline() if start == form else start


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
