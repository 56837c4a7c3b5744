"""How the process allocates memory while it trains: freed memory is kept, and large tensors are in
large pages.

By default, malloc returns a large block to the system as soon as it is freed, and the next step
takes it back, page by page, each of which the system fills with zeros first. With a vocabulary of
8,000 tokens, that is a quarter of the time of a step. Only glibc can do otherwise; see
``mallopt(3)``, and "Performance Tuning Guide" of the PyTorch tutorials for large pages.
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
_REUSE = {_MMAP_MAX: 0, _TRIM_THRESHOLD: (1 << 31) - 1, _TOP_PAD: 1 << 26}
# as glibc sets them, but for the threshold of mmap: once it is set, it no longer adapts, so it is
# the largest that glibc would choose
_DEFAULTS = {
    _MMAP_MAX: 1 << 16,
    _TRIM_THRESHOLD: 1 << 17,
    _TOP_PAD: 1 << 17,
    _MMAP_THRESHOLD: 1 << 25,
}


def use_large_pages() -> None:
    """Let torch allocate large tensors in large pages, if the process has no tensor yet.

    Torch reads the variable at its first tensor; afterwards the environment is as before.
    """
    if _LARGE_PAGES not in os.environ:
        os.environ[_LARGE_PAGES] = "1"
        torch.empty(1)
        del os.environ[_LARGE_PAGES]


@contextmanager
def reused_memory() -> Iterator[None]:
    """Let the process keep freed memory inside the block, and return it to the system at the end.

    What malloc was set to cannot be read. So where the environment sets it, nothing is changed, and
    elsewhere it gets the defaults of glibc at the end.
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
