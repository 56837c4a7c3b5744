"""Ctrl-C and SIGTERM during work that must not be cut in two: short work ignores them, long work defers them to its end."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["Interrupts", "deferred", "uninterrupted"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore Ctrl-C and SIGTERM inside the block. Does nothing outside the main thread, where signals are never delivered."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class Interrupts:
    """Whether Ctrl-C or SIGTERM has arrived inside a ``deferred`` block.

    Attributes:
        arrived: Whether one of them has.
    """

    arrived: bool = False


@contextmanager
def deferred(interrupts: Interrupts) -> Iterator[None]:
    """Record Ctrl-C and SIGTERM inside the block instead of raising, and raise KeyboardInterrupt at its end if one arrived.

    A signal without a Python handler, such as SIGTERM in a plain script, still ends the process.
    """

    def record(*_: object) -> None:
        interrupts.arrived = True

    is_main = threading.current_thread() is threading.main_thread()
    handled = [number for number in _SIGNALS if is_main and callable(signal.getsignal(number))]
    before = {number: signal.signal(number, record) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if interrupts.arrived:
        raise KeyboardInterrupt
