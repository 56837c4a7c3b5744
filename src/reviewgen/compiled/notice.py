"""A line on the terminal while functions are compiled for the first use, which takes seconds; later uses load them from disk.

It appears on standard error, if that is a terminal, and is erased afterwards. Must not import rich, since the line mostly does
not appear. ``is_compiling`` is for those who show progress of their own.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO
from weakref import WeakSet

from numba.core import event

_SAVE, _ERASE = "\x1b7", "\x1b8\x1b[K"  # the position of the cursor; back to it, and erase the rest of the line


class CompilingNotice(event.Listener):
    """Listens to numba's compiler, and shows the line while one of the watched functions is compiled.

    Attributes:
        functions: The watched functions, as numba's dispatchers.
        is_quiet: Whether no line is shown, since another display shows ``is_compiling``.
    """

    def __init__(self) -> None:
        self.functions: WeakSet[Any] = WeakSet()
        self.is_quiet = False
        self._open: list[Any] = []  # the functions that are being compiled, each called by the one before it
        self._started = 0.0
        self._terminal: TextIO | None = None

    @contextmanager
    def silenced(self) -> Iterator[None]:
        """Show no line inside the block."""
        before, self.is_quiet = self.is_quiet, True
        try:
            yield
        finally:
            self.is_quiet = before

    @property
    def is_compiling(self) -> bool:
        """Whether a watched function is being compiled."""
        return bool(self._open)

    def on_start(self, event: Any) -> None:
        """Show or update the line, unless a function is compiled that is not ours."""
        function = event.data["dispatcher"]
        if not self._open and function not in self.functions:
            return
        if not self._open:
            can_erase = sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
            self._started, self._terminal = time.monotonic(), sys.stderr if can_erase and not self.is_quiet else None
            self._write(_SAVE)
        self._open.append(function)
        self._write(f"{_ERASE}Compiling for the first use, {time.monotonic() - self._started:.0f} s ...")

    def on_end(self, event: Any) -> None:
        """Erase the line when the outermost function is compiled."""
        if self._open:
            self._open.pop()
            if not self._open:
                self._write(_ERASE)

    def _write(self, text: str) -> None:
        if self._terminal is not None:
            self._terminal.write(text)
            self._terminal.flush()


compiling_notice = CompilingNotice()
event.register("numba:compile", compiling_notice)
