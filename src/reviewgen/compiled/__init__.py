"""What compiled loops share: decorators, matrix products, the draw of a token, sets of token windows. numpy and numba.

A model that writes whole texts in a loop of its own (``SupportsSample``) imports these, so that a temperature, a top-p and a
copy limit mean the same for every model.

    linear     matrices in panels, times the vectors of a few texts; exp, tanh and sigmoid of many numbers at once
    entropy    cross entropy and its gradient
    draw       weights of the vocabulary to one token
    precision  numbers of 16, 32 and 64 bits in one loop; ``tensors`` hands over torch's, and alone here imports it
    windows    hashed sets of token windows, and the question whether a token would complete a copied span
"""

import contextlib
import inspect
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numba

__all__ = ["compiled", "inlined"]

_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}

FunctionT = TypeVar("FunctionT", bound=Callable[..., object])


def compiled(function: FunctionT) -> FunctionT:
    """Compile a function with numba at its first call, and keep the machine code on disk for the next process.

    It is kept beside the source, else in numba's folder of the user; where neither may be written, each process compiles.
    The function is unwrapped first: nothing that checks its arguments at run time can be compiled.
    """
    plain = inspect.unwrap(function)
    try:
        made = numba.njit(cache=True, **_OPTIONS)(plain)
        _drop_empty_files(made.stats.cache_path)
    except RuntimeError:  # no folder can hold the cache
        made = numba.njit(**_OPTIONS)(plain)
    found: FunctionT = made
    return found


@lru_cache
def _drop_empty_files(folder: str) -> None:
    """Remove what a power cut left of compiled code: numba writes a missing file again, but fails at an empty one."""
    with contextlib.suppress(OSError):
        for file in Path(folder).glob("*.nb[ic]"):
            if file.stat().st_size == 0:
                file.unlink()


def inlined(function: FunctionT) -> FunctionT:
    """Compile a function into those that call it: worth its compile time in the innermost loops only."""
    found: FunctionT = numba.njit(inline="always", **_OPTIONS)(inspect.unwrap(function))
    return found
