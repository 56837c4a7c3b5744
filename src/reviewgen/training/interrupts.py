"""Interrupts during work that must not be cut in two: short work ignores them, long work defers them to its end."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from reviewgen.interrupts import SIGNALS


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore Ctrl-C, SIGTERM and SIGHUP inside the block. Does nothing outside the main thread, which no signal reaches."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class Interrupts:
    """Whether Ctrl-C, SIGTERM or SIGHUP has arrived inside a ``deferred`` block.

    Attributes:
        arrived: Whether one of them has.
    """

    arrived: bool = False


@contextmanager
def deferred(interrupts: Interrupts) -> Iterator[None]:
    """Record Ctrl-C, SIGTERM and SIGHUP inside the block, and raise KeyboardInterrupt at its end if one arrived.

    A signal without a Python handler, such as SIGTERM in a plain script, still ends the process.
    """

    def record(*_: object) -> None:
        interrupts.arrived = True

    is_main = threading.current_thread() is threading.main_thread()
    handled = [number for number in SIGNALS if is_main and callable(signal.getsignal(number))]
    before = {number: signal.signal(number, record) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if interrupts.arrived:
        raise KeyboardInterrupt
