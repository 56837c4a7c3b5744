"""Arrays in memory, or in a scratch file on disk where they would not fit. Knows nothing of n-grams."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Arena"]

UNLIMITED_SHARE = 8  # an array goes to disk where it takes more than an eighth of the limit


class Arena:
    """Hands out arrays. With a limit, large ones are files that the system pages in and out as they are read and written.

    A file loses its name as soon as it is mapped, so that it is gone with its array, however the process ends.
    """

    def __init__(self, limit_bytes: int | None = None) -> None:
        self._largest = None if limit_bytes is None else limit_bytes // UNLIMITED_SHARE

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return an array of zeros or of anything."""
        dtype = np.dtype(dtype)
        size = int(np.prod(shape)) * dtype.itemsize
        if self._largest is None or size <= max(self._largest, 1):
            return np.empty(shape, dtype)
        with tempfile.NamedTemporaryFile(prefix="reviewgen-", delete=False) as file:
            file.truncate(size)
            array = np.memmap(file, dtype, "r+", shape=shape)
        Path(file.name).unlink()
        return array

    def zeros(self, shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return an array of zeros."""
        array = self.empty(shape, dtype)
        array[...] = 0
        return array
