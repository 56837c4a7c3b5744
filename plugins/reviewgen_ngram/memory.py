"""Arrays in memory, or in a temporary file if they would not fit. Must not know n-grams."""

import mmap
import os
import tempfile
from typing import IO, Any

import numpy as np

from reviewgen.errors import storage_errors

LARGEST_SHARE = 8  # an array of more than an eighth of the limit goes to disk
_CHUNK_BYTES = 1 << 20


class Arena:
    """Allocates arrays. With a limit, large ones are memory-mapped files, which the system pages in and out.

    The operating system removes a file with its array, however the process ends.
    """

    def __init__(self, limit_bytes: int | None = None) -> None:
        self._largest = None if limit_bytes is None else limit_bytes // LARGEST_SHARE

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return an uninitialised array; a large one is a file.

        Raises:
            StorageError: The disk has no room for it.
        """
        dtype = np.dtype(dtype)
        size = int(np.prod(shape)) * dtype.itemsize
        if self._largest is None or size <= max(self._largest, 1):
            return np.empty(shape, dtype)
        with storage_errors("the scratch folder"), tempfile.TemporaryFile(prefix="reviewgen-") as file:
            _reserve(file, size)
            return np.memmap(file, dtype, "r+", shape=shape)

    def zeros(self, shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return an array of zeros, which takes no memory where it is never written; a large one is a file.

        Raises:
            StorageError: The disk has no room for it.
        """
        array = self.empty(shape, dtype)
        return array if isinstance(array, np.memmap) else np.zeros(shape, dtype)

    def release(self, *arrays: np.ndarray) -> None:
        """Release the pages of arrays that are files from memory; they are read again when needed."""
        for array in arrays:
            while isinstance(array, np.ndarray) and array.base is not None:
                array = array.base  # a view's
            if isinstance(array, mmap.mmap) and hasattr(array, "madvise"):  # not on Windows
                array.madvise(mmap.MADV_DONTNEED)


def _reserve(file: IO[bytes], size: int) -> None:
    """Reserve the room of a file on the disk: a full disk must fail here, not kill the process when a page is written later."""
    if hasattr(os, "posix_fallocate"):  # neither on Windows nor on macOS
        os.posix_fallocate(file.fileno(), 0, size)
        return
    for start in range(0, size, _CHUNK_BYTES):
        file.write(bytes(min(_CHUNK_BYTES, size - start)))
    file.flush()
