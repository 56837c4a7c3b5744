"""What Ctrl-C, SIGTERM and SIGHUP do to a command: it ends with one sentence and the exit status
130.

Each raises KeyboardInterrupt, which a command may catch to keep what is finished. A module that is
cut off while it is imported leaves packages such as NumPy half initialised, and some of them turn
the interrupt into another error; so until a command has begun its work, an interrupt inside an
import ends the process at once. It is imported before all else, and imports little itself: before
that, Python handles Ctrl-C and prints a traceback.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn  # which imports re, and takes longer than all the rest

INTERRUPTED = 130
"""The exit status of a command that was interrupted, as shells give it for Ctrl-C."""

SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    if hasattr(signal, name)
)
"""What interrupts a command: Ctrl-C, a request to end, and a terminal that is closed, which is
SIGBREAK on Windows.
"""

_IMPORTING = "<frozen importlib._bootstrap>"
_has_begun = False


def raise_on_interrupt() -> None:
    """From now on, signals raise KeyboardInterrupt."""
    global _has_begun
    _has_begun = True


@contextmanager
def raising_interrupts() -> Iterator[None]:
    """Inside the block, signals raise KeyboardInterrupt; in an import, before
    ``raise_on_interrupt``, they end the process.
    """
    global _has_begun
    _has_begun = False
    with signal_handler(_interrupt):
        yield


@contextmanager
def signal_handler(
    handler: "Callable[[int, FrameType | None], object] | signal.Handlers",
    *,
    only_handled: bool = False,
) -> Iterator[None]:
    """Give the signals a handler inside the block; those before are set again. Does nothing outside
    the main thread.

    A signal that was ignored at the start, as under nohup, stays ignored.

    Args:
        handler: The handler.
        only_handled: Leave signals alone that have no handler of Python.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, present in before.items():
        if callable(present) or (present == signal.SIG_DFL and not only_handled):
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, present in before.items():
            if present is not None:
                signal.signal(number, present)


@contextmanager
def block_signals() -> Iterator[None]:
    """Ignore the signals inside the block. Does nothing outside the main thread, which no signal
    reaches.
    """
    with signal_handler(signal.SIG_IGN):
        yield


@contextmanager
def defer_signals(interrupted: threading.Event) -> Iterator[None]:
    """Record the signals inside the block in an event, and raise KeyboardInterrupt at its end if
    one arrived.

    A signal without a Python handler, such as SIGTERM in a plain script, still ends the process.
    """
    with signal_handler(lambda *_: interrupted.set(), only_handled=True):
        yield
    if interrupted.is_set():
        raise KeyboardInterrupt


def ignore() -> None:
    """Ignore the signals from now on: the process is about to end."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, frame: FrameType | None) -> "NoReturn":
    if not _has_begun and _is_importing(frame):
        try:
            os.write(2, b"Interrupted.\n")
        finally:  # also if standard error is closed
            os._exit(INTERRUPTED)
    raise KeyboardInterrupt


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTING:
            return True
        frame = frame.f_back
    return False
