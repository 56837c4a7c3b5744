"""Compiles functions with numba, and caches their machine code on disk.

The first use of a function takes seconds, while a line on standard error says so (if that is a
terminal). Later uses load the machine code from disk. ``clock`` stands still while numba compiles,
so that a time budget allows the same training on a machine without the cache. Knows nothing of the
functions that are compiled. Must not import rich, which takes long to import, while the line is
rarely shown.
"""

import contextlib
import inspect
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO, TypeVar
from weakref import WeakSet

# If colorama is installed, numba loads it to colour its error messages. colorama then prints a
# reset code when the process ends, even into a pipe.
os.environ.setdefault("NUMBA_DISABLE_ERROR_MESSAGE_HIGHLIGHTING", "1")

import numba
from numba.core import event
from numba.extending import overload

_SAVE = "\x1b7"  # stores the position of the cursor
_ERASE = "\x1b8\x1b[K"  # moves the cursor to the stored position, and erases the rest of the line
# Compiled functions release Python's global lock, divide by zero as numpy does, and by default
# cannot be called by their address.
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}

FunctionT = TypeVar("FunctionT", bound=Callable[..., object])


def compiled(function: FunctionT) -> FunctionT:
    """Compile a function with numba at its first call, and cache the machine code on disk for other
    processes.

    The cache is beside the source, or else in the user's folder for numba. If neither can be
    written, each process compiles. The function is unwrapped first, because a wrapper that checks
    arguments at run time cannot be compiled.
    """
    return _compile(function)


def by_address(function: FunctionT) -> FunctionT:
    """Like ``compiled``, for a function that compiled code calls by its address. See
    ``reviewgen.compiled.steps``.
    """
    return _compile(function, no_cfunc_wrapper=False)


def _compile(function: FunctionT, **options: bool) -> FunctionT:
    """Return numba's dispatcher of a function, with further options of ``numba.njit``."""
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
    compiled_function: FunctionT = dispatcher  # for callers, it has the type of the function
    return compiled_function


def inner(function: FunctionT) -> FunctionT:
    """Make a function available to compiled functions; it is compiled as a part of them. Called
    from Python, it is plain Python.

    It is compiled faster than a ``compiled`` function, since it has no wrapper for Python and no
    cache of its own.
    """
    return _available_to_compiled(function)


def unmanaged(function: FunctionT) -> FunctionT:
    """Like ``inner``, for a function that creates no arrays: without the counting of references,
    which takes longer than the computation if a function gets tuples of many arrays.
    """
    return _available_to_compiled(function, _nrt=False)


def inlined(function: FunctionT) -> FunctionT:
    """Like ``inner``, but inlined into each caller. This lets innermost loops use vector
    instructions.
    """
    return _available_to_compiled(function, forceinline=True)


def reordered(function: FunctionT) -> FunctionT:
    """Like ``inner``, but sums may be added in any order, so they can use vector instructions."""
    return _available_to_compiled(function, fastmath={"reassoc", "nsz"}, _nrt=False)


def _available_to_compiled(function: FunctionT, **options: Any) -> FunctionT:
    """Tell numba how to compile calls of a function, with further options; return the function."""
    plain: FunctionT = inspect.unwrap(function)
    jit_options: Any = _OPTIONS | options
    # numba asks the lambda which function to compile for a call of ``plain``: ``plain`` itself
    overload(plain, jit_options=jit_options, strict=False)(lambda *_: plain)
    return plain


@lru_cache
def _drop_stale_files(folder: str, package: str) -> None:
    """Remove cached machine code that numba could not read, or that is out of date.

    numba cannot read a file that a full disk or a power cut has truncated. Such a file does not end
    with the last byte of a pickle. Nor can it read a file that refers to a module which an upgrade
    has removed. And numba notices changes only in the source file of a function, not in those of
    functions that are compiled into it. So this function removes truncated files, and all files
    that are older than a source file of this package or of the function's package.

    Args:
        folder: The folder of the cache.
        package: The folder of the package that the function belongs to.
    """
    newest_source = max(_newest_source(package), _newest_source(str(Path(__file__).parent)))
    with contextlib.suppress(OSError):
        for file in Path(folder).glob("*.nb[ic]"):
            status = file.stat()
            with file.open("rb") as opened:
                opened.seek(max(0, status.st_size - 1))
                last_byte = opened.read(1)
            if last_byte != pickle.STOP or status.st_mtime < newest_source:
                file.unlink()


@lru_cache
def _newest_source(package: str) -> float:
    """Return the time when a source file of a package was last modified; 0 if there are none."""
    return max((file.stat().st_mtime for file in Path(package).glob("*.py")), default=0.0)


class CompilingNotice(event.Listener):
    """Listens to numba's compiler. It measures the time of compilation, and shows the line while
    one of the watched functions is compiled.

    Attributes:
        functions: The watched functions, as numba's dispatchers.
        is_quiet: Whether no line is shown, because another display shows ``is_compiling``.
    """

    def __init__(self) -> None:
        self.functions: WeakSet[Any] = WeakSet()
        self.is_quiet = False
        # number of functions that are being compiled now, each called by the one before it
        self._depth = 0
        self._started = 0.0  # when the compilation of the outermost of them began
        self._seconds = 0.0  # duration of all compilations that have ended
        self._terminal: TextIO | None = None

    @contextlib.contextmanager
    def silenced(self) -> Iterator[None]:
        """Show no line inside the block."""
        before = self.is_quiet
        self.is_quiet = True
        try:
            yield
        finally:
            self.is_quiet = before

    @property
    def is_compiling(self) -> bool:
        """Whether a function is being compiled."""
        return self._depth > 0

    def clock(self) -> float:
        """Return the seconds of a monotonic clock that stands still while numba compiles."""
        now = self._started if self.is_compiling else time.monotonic()
        return now - self._seconds

    def on_start(self, event: Any) -> None:
        """Show or update the line if the outermost function is watched, on a terminal that can
        erase the line.
        """
        if not self.is_compiling:
            self._started = time.monotonic()
            is_terminal = sys.stderr is not None and sys.stderr.isatty()
            can_erase = is_terminal and os.environ.get("TERM") != "dumb"
            is_watched = event.data["dispatcher"] in self.functions
            is_shown = can_erase and is_watched and not self.is_quiet
            self._terminal = sys.stderr if is_shown else None
            self._write(_SAVE)
        self._depth += 1
        self._write(
            f"{_ERASE}Compiling for the first use, {time.monotonic() - self._started:.0f} s ..."
        )

    def on_end(self, event: Any) -> None:
        """Erase the line when the outermost function has been compiled."""
        self._depth -= 1
        if not self.is_compiling:
            self._seconds += time.monotonic() - self._started
            self._write(_ERASE)

    def _write(self, text: str) -> None:
        """Write to the terminal, if the line is shown."""
        if self._terminal is not None:
            self._terminal.write(text)
            self._terminal.flush()


compiling_notice = CompilingNotice()
clock = compiling_notice.clock
event.register("numba:compile", compiling_notice)
