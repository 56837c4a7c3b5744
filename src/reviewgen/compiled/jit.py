"""What compiles functions with numba: the cache of machine code on disk, and functions that compiled ones can call.

Knows nothing of what is compiled.
"""

import contextlib
import inspect
import os
import pickle
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

# Where colorama is installed, numba loads it to colour its own errors, and it then prints a reset code when the process ends,
# even into a pipe.
os.environ.setdefault("NUMBA_DISABLE_ERROR_MESSAGE_HIGHLIGHTING", "1")

import numba
from numba.extending import overload

from reviewgen.compiled.notice import compiling_notice

_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}

FunctionT = TypeVar("FunctionT", bound=Callable[..., object])


def compiled(function: FunctionT) -> FunctionT:
    """Compile a function with numba at its first call, and cache the machine code on disk for the next process.

    The cache is beside the source, or else in numba's folder of the user; where neither can be written, each process compiles.
    The function is unwrapped first, because what checks its arguments at run time cannot be compiled.
    """
    return _compile(function)


def by_address(function: FunctionT) -> FunctionT:
    """Like ``compiled``, for a function that compiled code calls by its address; see ``reviewgen.compiled.steps``."""
    return _compile(function, no_cfunc_wrapper=False)


def _compile(function: FunctionT, **options: bool) -> FunctionT:
    plain: FunctionT = inspect.unwrap(function)
    jit_options = _OPTIONS | options
    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]  # NUMBA_DISABLE_JIT=1 runs the loops as Python, to step into
        return plain
    try:
        dispatcher = numba.njit(cache=True, **jit_options)(plain)
        _drop_stale_files(dispatcher.stats.cache_path, str(Path(inspect.getfile(plain)).parent))
    except RuntimeError:  # no folder can hold the cache
        dispatcher = numba.njit(**jit_options)(plain)
    compiling_notice.functions.add(dispatcher)
    compiled_function: FunctionT = dispatcher
    return compiled_function


def inner(function: FunctionT) -> FunctionT:
    """Make a function available to compiled functions, with which it is compiled; called from Python, it is plain Python.

    It is compiled faster than one that Python can call: without a wrapper for Python, and without a cache of its own.
    """
    return _available_to_compiled(function)


def inlined(function: FunctionT) -> FunctionT:
    """Like ``inner``, but inlined into each caller: for innermost loops, so that they can use vector instructions."""
    return _available_to_compiled(function, forceinline=True)


def reordered(function: FunctionT) -> FunctionT:
    """Like ``inner``, but sums may be added in any order, so that they use vector instructions."""
    return _available_to_compiled(function, fastmath={"reassoc", "nsz"})


def _available_to_compiled(function: FunctionT, **options: Any) -> FunctionT:
    plain: FunctionT = inspect.unwrap(function)
    jit_options: Any = _OPTIONS | options
    overload(plain, jit_options=jit_options, strict=False)(lambda *_: plain)
    return plain


@lru_cache
def _drop_stale_files(folder: str, source: str) -> None:
    """Remove cached machine code that numba would trip over.

    numba fails at a file that a full disk or a power cut has cut off, so one whose last byte is not that of a pickle is removed;
    and at one that names a module which an upgrade has removed. It notices changes only in the file of a function, not in the
    files of functions that are compiled into it. So files older than a source file of this package, or of the package ``source``
    that the function belongs to, are removed.
    """
    newest = max(map(_newest_source, {source, str(Path(__file__).parent)}))
    with contextlib.suppress(OSError):
        for file in Path(folder).glob("*.nb[ic]"):
            status = file.stat()
            with file.open("rb") as opened:
                opened.seek(max(0, status.st_size - 1))
                last = opened.read(1)
            if last != pickle.STOP or status.st_mtime < newest:
                file.unlink()


@lru_cache
def _newest_source(package: str) -> float:
    """Return when a source file of a package was last modified."""
    return max((file.stat().st_mtime for file in Path(package).glob("*.py")), default=0.0)
