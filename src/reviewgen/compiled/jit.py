"""What compiles functions with numba: the cache of machine code on disk, and functions that
compiled ones can call.

The first use of a function takes seconds, while a line on standard error says so, if that is a
terminal; later uses load the machine code from disk. ``clock`` stands still meanwhile, so that a
time budget buys the same training on a fresh machine. Knows nothing of what is compiled. Must not
import rich, since the line mostly does not appear.
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

# Where colorama is installed, numba loads it to colour its own errors, and it then prints a reset
# code when the process ends, even into a pipe.
os.environ.setdefault("NUMBA_DISABLE_ERROR_MESSAGE_HIGHLIGHTING", "1")

import numba
from numba.core import event
from numba.extending import overload

_SAVE = "\x1b7"  # stores the position of the cursor
_ERASE = "\x1b8\x1b[K"  # moves the cursor back there, and erases the rest of the line
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}

FunctionT = TypeVar("FunctionT", bound=Callable[..., object])


def compiled(function: FunctionT) -> FunctionT:
    """Compile a function with numba at its first call, and cache the machine code on disk for the
    next process.

    The cache is beside the source, or else in numba's folder of the user; where neither can be
    written, each process compiles. The function is unwrapped first, because what checks its
    arguments at run time cannot be compiled.
    """
    return _compile(function)


def by_address(function: FunctionT) -> FunctionT:
    """Like ``compiled``, for a function that compiled code calls by its address; see
    ``reviewgen.compiled.steps``.
    """
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
    """Make a function available to compiled functions, with which it is compiled; called from
    Python, it is plain Python.

    It is compiled faster than one that Python can call: without a wrapper for Python, and without a
    cache of its own.
    """
    return _available_to_compiled(function)


def inlined(function: FunctionT) -> FunctionT:
    """Like ``inner``, but inlined into each caller: for innermost loops, so that they can use
    vector instructions.
    """
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

    numba fails at a file that a full disk or a power cut has cut off, so one whose last byte is not
    that of a pickle is removed; and at one that names a module which an upgrade has removed. It
    notices changes only in the file of a function, not in the files of functions that are compiled
    into it. So files older than a source file of this package, or of the package ``source`` that
    the function belongs to, are removed.
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


class CompilingNotice(event.Listener):
    """Listens to numba's compiler: measures its time, and shows the line while one of the watched
    functions is compiled.

    Attributes:
        functions: The watched functions, as numba's dispatchers.
        is_quiet: Whether no line is shown, since another display shows ``is_compiling``.
    """

    def __init__(self) -> None:
        self.functions: WeakSet[Any] = WeakSet()
        self.is_quiet = False
        self._depth = 0  # functions that are being compiled, each called by the one before it
        self._started = 0.0
        self._seconds = 0.0  # of all compilations that have ended
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
        """Show or update the line, unless a function is compiled that is not ours."""
        if not self.is_compiling:
            self._started = time.monotonic()
            can_erase = (
                sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
            )
            is_shown = (
                can_erase and not self.is_quiet and event.data["dispatcher"] in self.functions
            )
            self._terminal = sys.stderr if is_shown else None
            self._write(_SAVE)
        self._depth += 1
        self._write(
            f"{_ERASE}Compiling for the first use, {time.monotonic() - self._started:.0f} s ..."
        )

    def on_end(self, event: Any) -> None:
        """Erase the line when the outermost function is compiled."""
        self._depth -= 1
        if not self.is_compiling:
            self._seconds += time.monotonic() - self._started
            self._write(_ERASE)

    def _write(self, text: str) -> None:
        if self._terminal is not None:
            self._terminal.write(text)
            self._terminal.flush()


compiling_notice = CompilingNotice()
clock = compiling_notice.clock
event.register("numba:compile", compiling_notice)
