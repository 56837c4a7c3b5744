"""How a command ends on Ctrl-C, SIGTERM or SIGHUP: with a short message and the exit status 130.

Each of these signals raises KeyboardInterrupt, which a command may catch to keep finished work.
During an import this is not safe: an interrupted import leaves packages such as NumPy half
initialised, and some packages turn the interrupt into another error. So before a command begins its
work, an interrupt inside an import ends the process at once.

This module is imported before all others and imports little, because until then Python handles
Ctrl-C and prints a traceback.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# True for type checkers; importing it from typing would be slow, since typing imports re
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

INTERRUPTED = 130
"""The exit status of an interrupted command; shells use the same number after Ctrl-C."""

SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    if hasattr(signal, name)
)
"""The signals that interrupt a command: Ctrl-C, a request to terminate, and the closing of the
terminal, which is SIGBREAK on Windows.
"""

_IMPORTING = "<frozen importlib._bootstrap>"  # the file name of the code of Python's imports
_has_begun = False  # whether a command has begun its work


def raise_on_interrupt() -> None:
    """Let signals raise KeyboardInterrupt from now on, also inside imports."""
    global _has_begun
    _has_begun = True


@contextmanager
def raising_interrupts() -> Iterator[None]:
    """Let signals raise KeyboardInterrupt inside the block. Until ``raise_on_interrupt`` is called,
    a signal during an import ends the process instead.
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
    """Set a handler for the signals inside the block, and restore the earlier handlers at its end.
    Outside the main thread, do nothing.

    A signal that is ignored before the block, as under nohup, stays ignored.

    Args:
        handler: The handler.
        only_handled: Whether to change only signals that have a Python handler.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old_handlers = {number: signal.getsignal(number) for number in SIGNALS}
    for number, old in old_handlers.items():
        if callable(old) or (old == signal.SIG_DFL and not only_handled):
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in old_handlers.items():
            if old is not None:  # None: the handler is not one of Python's, and was not changed
                signal.signal(number, old)


@contextmanager
def block_signals() -> Iterator[None]:
    """Ignore the signals inside the block. Outside the main thread, do nothing, since signals reach
    only the main thread.
    """
    with signal_handler(signal.SIG_IGN):
        yield


@contextmanager
def defer_signals(interrupted: threading.Event) -> Iterator[None]:
    """Defer signals inside the block: a signal sets the event ``interrupted``. If the event is set
    when the block ends, raise KeyboardInterrupt.

    A signal without a Python handler, such as SIGTERM in a plain script, still ends the process.
    """
    with signal_handler(lambda *_: interrupted.set(), only_handled=True):
        yield
    if interrupted.is_set():
        raise KeyboardInterrupt


def ignore() -> None:
    """Ignore the signals from now on. Called when the process is about to end."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, frame: FrameType | None) -> "NoReturn":
    """Handle a signal: raise KeyboardInterrupt; or, during an import before the command has begun
    its work, end the process.
    """
    if not _has_begun and _is_importing(frame):
        try:
            os.write(2, b"Interrupted.\n")
        finally:  # even if standard error is closed
            os._exit(INTERRUPTED)
    raise KeyboardInterrupt


def _is_importing(frame: FrameType | None) -> bool:
    """Return whether a frame or one of its callers belongs to an import."""
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTING:
            return True
        frame = frame.f_back
    return False
