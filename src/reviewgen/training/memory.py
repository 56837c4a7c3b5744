"""Lets the steps of a training reuse memory: freed tensors stay in the process, in large pages.

By default, malloc returns a large block to the system as soon as it is freed, and the next step takes it back, page by page, each
of which the system fills with zeros first. With a vocabulary of 8,000 tokens, that is a quarter of the time of a step. See
``mallopt(3)``, and "Performance Tuning Guide" of the PyTorch tutorials for large pages.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # large pages for large tensors; torch reads it at its first tensor

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4  # the parameters of mallopt
_REUSE = {_MMAP_MAX: 0, _TRIM_THRESHOLD: (1 << 31) - 1, _TOP_PAD: 1 << 26}
_DEFAULTS = {_MMAP_MAX: 1 << 16, _TRIM_THRESHOLD: 1 << 17, _TOP_PAD: 1 << 17, _MMAP_THRESHOLD: 1 << 25}


@contextmanager
def reused_memory() -> Iterator[None]:
    """Let the process keep freed memory inside the block, and return it to the system at the end; only glibc can do that."""
    libc = _load_glibc()
    try:
        _set_parameters(libc, _REUSE)
        yield
    finally:
        _set_parameters(libc, _DEFAULTS)
        if libc is not None:
            libc.malloc_trim(0)


def _set_parameters(libc: Any, values: dict[int, int]) -> None:
    for parameter, value in values.items() if libc is not None else ():
        libc.mallopt(parameter, value)


def _load_glibc() -> Any:
    """Return the C library of this process if it is glibc, and otherwise None."""
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version, libc.mallopt, libc.malloc_trim  # noqa: B018  reading them raises where they do not exist
    except (OSError, TypeError, AttributeError):  # TypeError: on Windows, None names no library
        return None
    return libc
