"""A lock of the operating system on a file, which ends with its holder, however that ends."""

import errno
import os
import sys
from pathlib import Path

__all__ = ["Lock"]

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP}  # file systems that have none
_TAKEN = {errno.EAGAIN, errno.EACCES, errno.EDEADLK}

if sys.platform == "win32":
    import msvcrt

    def _take(handle: int) -> None:
        os.lseek(handle, 1 << 30, os.SEEK_SET)  # beyond the content, which stays readable
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _take(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Lock:
    """Holds a file until it is released, or its process ends; the file says which process that is.

    Raises:
        BlockingIOError: Somebody else holds it.
        OSError: The file cannot be opened.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _take(self._handle)
            if not self.is_in_place():  # its last holder removed it just now
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            os.ftruncate(self._handle, 0)
            os.lseek(self._handle, 0, os.SEEK_SET)
            os.write(self._handle, str(os.getpid()).encode())
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return
            self.release()
            if error.errno in _TAKEN:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None
            raise

    def is_in_place(self) -> bool:
        """Return whether the file is still there and the same; who removes it lets others in."""
        try:
            return os.path.samestat(os.fstat(self._handle), self._file.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let go of the file, which stays where it is."""
        os.close(self._handle)
