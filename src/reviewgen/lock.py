"""An exclusive lock on a file, by ``filelock``: the operating system releases it when its process ends for any reason."""

import contextlib
import errno
import os
import re
import stat
from pathlib import Path

from filelock import FileLock, Timeout

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP}  # the file system has no locks


class Lock:
    """An exclusive lock on a file, acquired on construction and held until it is released or the process ends.

    The file ``<name>.pid`` beside it contains the process id of the holder: Windows lets nobody else read a locked file. On a
    file system without locks nothing is locked.

    Args:
        file: The file; created if it does not exist.
        with_holder: Whether to write ``<name>.pid``.

    Attributes:
        is_supported: Whether the file system has locks.

    Raises:
        BlockingIOError: Another process holds the lock.
        OSError: The file cannot be opened.
    """

    def __init__(self, file: Path, *, with_holder: bool = True) -> None:
        self._file, self._lock = file, FileLock(file, timeout=0, thread_local=False)
        self.is_supported = True
        try:
            self._lock.acquire()
        except Timeout:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None
        except (OSError, NotImplementedError) as error:  # the second from older versions of filelock, for ENOSYS
            if isinstance(error, OSError) and error.errno not in _UNSUPPORTED:
                raise
            file.touch()
            self.is_supported = False
        try:
            self._identity: os.stat_result | None = file.stat()
        except FileNotFoundError:  # its holder before has removed it in between
            self._identity = None
        with contextlib.suppress(OSError):  # it only makes an error message more precise
            if with_holder and not _is_other(_pid_file(file)):
                _pid_file(file).write_text(str(os.getpid()), encoding="ascii")

    def is_in_place(self) -> bool:
        """Return whether the locked file still exists under its name. If it was removed, another process can lock a new one."""
        try:
            return self._identity is not None and os.path.samestat(self._identity, self._file.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Release the lock; on Windows, that removes the file."""
        self._lock.release()

    def remove(self) -> None:
        """Remove the file and release the lock, in this order if possible, so that no other process locks the file."""
        if not _is_other(_pid_file(self._file)):
            _pid_file(self._file).unlink(missing_ok=True)
        try:
            self._file.unlink(missing_ok=True)
        except PermissionError:  # Windows removes no open file
            self.release()
            self._file.unlink(missing_ok=True)
        else:
            self.release()


def is_foreign(file: Path) -> bool:
    """Return whether a path, or ``<name>.pid`` beside it, has something else than a lock has: a link, or content of its own."""
    return _is_other(file, b"") or _is_other(_pid_file(file))


def read_holder(file: Path) -> int | None:
    """Return the process id of the holder of a lock, or None if it is not known."""
    try:
        return int(_head(_pid_file(file)))
    except (OSError, ValueError):
        return None


def _pid_file(file: Path) -> Path:
    return file.with_name(f"{file.name}.pid")


def _is_other(file: Path, content: bytes = rb"\d{0,20}") -> bool:
    """Return whether a path has anything but a plain file with this content, by default a process id; false if it is free."""
    try:
        return not stat.S_ISREG(file.lstat().st_mode) or not re.fullmatch(content, _head(file))
    except FileNotFoundError:
        return False


def _head(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(32)
    except PermissionError:  # a lock that Windows lets nobody read; elsewhere, not ours
        return b"" if os.name == "nt" else b"?"
