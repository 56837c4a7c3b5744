"""Make memory allocation fast while a process trains: keep freed memory, and put large tensors in
large pages.

By default, malloc returns a large block to the system as soon as it is freed. The next step
allocates it again, and the system fills each of its pages with zeros. With a vocabulary of 8,000
tokens, this takes a quarter of the time of a step. Only the malloc of glibc can be set to keep the
memory; see ``mallopt(3)``. For large pages, see "Performance Tuning Guide" of the PyTorch
tutorials.
"""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_LARGE_PAGES = "THP_MEM_ALLOC_ENABLE"
# the parameters of mallopt
_TRIM_THRESHOLD = -1
_TOP_PAD = -2
_MMAP_THRESHOLD = -3
_MMAP_MAX = -4
# Keep freed memory: allocate large blocks from the heap, too (no mmap), never return memory of the
# heap to the system, and let the heap grow by 64 MB more than needed.
_REUSE = {_MMAP_MAX: 0, _TRIM_THRESHOLD: (1 << 31) - 1, _TOP_PAD: 1 << 26}
# The defaults of glibc, except for the threshold of mmap. glibc adapts this threshold by itself
# until one of the four parameters is set, so it gets the largest value that glibc would choose.
_DEFAULTS = {
    _MMAP_MAX: 1 << 16,
    _TRIM_THRESHOLD: 1 << 17,
    _TOP_PAD: 1 << 17,
    _MMAP_THRESHOLD: 1 << 25,
}


def use_large_pages() -> None:
    """Let torch allocate large tensors in large pages, if the process has no tensor yet.

    Torch reads the environment variable when it allocates its first tensor. Then the variable is
    removed again.
    """
    if _LARGE_PAGES not in os.environ:
        os.environ[_LARGE_PAGES] = "1"
        torch.empty(1)
        del os.environ[_LARGE_PAGES]


@contextmanager
def reused_memory() -> Iterator[None]:
    """Context manager that lets the process keep freed memory, and returns it to the system at the
    end.

    The settings of malloc cannot be read, so they cannot be restored. If environment variables set
    them, nothing is changed. Otherwise malloc gets the defaults of glibc at the end.
    """
    is_set = "GLIBC_TUNABLES" in os.environ or any(
        name.startswith("MALLOC_") for name in os.environ
    )
    if is_set or platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    try:
        for parameter, value in _REUSE.items():
            libc.mallopt(parameter, value)
        yield
    finally:
        for parameter, value in _DEFAULTS.items():
            libc.mallopt(parameter, value)
        libc.malloc_trim(0)
