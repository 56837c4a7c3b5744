"""Arrays in memory, or in a temporary file if they would not fit. Must not know n-grams."""

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from reviewgen.errors import storage_errors

__all__ = ["Arena"]

LARGEST_SHARE = 8  # an array of more than an eighth of the limit goes to disk


class Arena:
    """Allocates arrays. With a limit, large ones are memory-mapped files, which the system pages in and out.

    A file is unlinked as soon as it is mapped, so that it is removed with its array, however the process ends.
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
        with tempfile.NamedTemporaryFile(prefix="reviewgen-", delete=False) as file:
            with storage_errors("the scratch folder"):
                os.posix_fallocate(file.fileno(), 0, size)  # a full disk must fail here, not kill the process at a later write
            array = np.memmap(file, dtype, "r+", shape=shape)
        Path(file.name).unlink()
        return array

    def zeros(self, shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return an array of zeros; a large one is a file.

        Raises:
            StorageError: The disk has no room for it.
        """
        array = self.empty(shape, dtype)
        array[...] = 0
        return array
