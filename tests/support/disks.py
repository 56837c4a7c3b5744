"""What lies below a folder, and disks that are full."""

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reviewgen.errors import ReviewgenError

__all__ = ["interrupt", "largest_file", "listing", "peak_memory"]


def listing(folder: Path) -> dict[str, bytes | str | None]:
    """Return what is below a folder: the content of files, the targets of links, None for
    folders.
    """
    found: dict[str, bytes | str | None] = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        found[name] = None
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def peak_memory() -> int:
    """Return the most bytes of memory that this process has had."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file be longer than a number of bytes, as on a disk that is full."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def interrupt(patch: pytest.MonkeyPatch, work: Callable[[], object], calls: int) -> None:
    """Do some work on a disk that is full after a number of files."""
    left = [calls]
    plain = os.fsync

    def fsync(handle: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        plain(handle)

    with patch.context() as own, pytest.raises(ReviewgenError, match=r"No (room|space)"):
        own.setattr(os, "fsync", fsync)
        work()
