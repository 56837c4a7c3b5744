"""An exclusive lock on a file, held through the operating system, so that it is released when its process ends for any reason."""

import errno
import os
import sys
from pathlib import Path

__all__ = ["Lock"]

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP}  # the file system has no locks
_HELD = {errno.EAGAIN, errno.EACCES, errno.EDEADLK}

if sys.platform == "win32":
    import msvcrt

    def _acquire(handle: int) -> None:
        os.lseek(handle, 1 << 30, os.SEEK_SET)  # beyond the content, which stays readable
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _acquire(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Lock:
    """An exclusive lock on a file, acquired on construction and held until it is released or the process ends.

    The file contains the process id of the holder. On a file system without locks nothing is locked.

    Raises:
        BlockingIOError: Another process holds the lock.
        OSError: The file cannot be opened.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _acquire(self._handle)
            if not self.is_in_place():  # the last holder has just removed the file
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            os.ftruncate(self._handle, 0)
            os.lseek(self._handle, 0, os.SEEK_SET)
            os.write(self._handle, str(os.getpid()).encode())
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                return
            self.release()
            if error.errno in _HELD:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None
            raise

    def is_in_place(self) -> bool:
        """Return whether the locked file still exists under its name. If it was removed, another process can lock a new one."""
        try:
            return os.path.samestat(os.fstat(self._handle), self._file.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Release the lock; the file stays."""
        os.close(self._handle)
