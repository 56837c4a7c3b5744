"""Arrays in memory, or in a scratch file on disk where they would not fit. Knows nothing of n-grams."""

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from reviewgen.errors import storage_errors

__all__ = ["Arena"]

LARGEST_SHARE = 8  # an array of more than an eighth of the limit goes to disk


class Arena:
    """Hands out arrays. With a limit, large ones are files that the system pages in and out as they are read and written.

    A file loses its name as soon as it is mapped, so that it is gone with its array, however the process ends.
    """

    def __init__(self, limit_bytes: int | None = None) -> None:
        self._largest = None if limit_bytes is None else limit_bytes // LARGEST_SHARE

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return an array of any values; a large one is a file.

        Raises:
            StorageError: The disk has no room for it.
        """
        dtype = np.dtype(dtype)
        size = int(np.prod(shape)) * dtype.itemsize
        if self._largest is None or size <= max(self._largest, 1):
            return np.empty(shape, dtype)
        with tempfile.NamedTemporaryFile(prefix="reviewgen-", delete=False) as file:
            with storage_errors("the scratch folder"):
                os.posix_fallocate(file.fileno(), 0, size)  # now or never: a full disk must not kill the process later
            array = np.memmap(file, dtype, "r+", shape=shape)
        Path(file.name).unlink()
        return array

    def zeros(self, shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return an array of zeros, as ``empty`` does one of any values."""
        array = self.empty(shape, dtype)
        array[...] = 0
        return array
