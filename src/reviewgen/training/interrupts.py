"""Pieces of work that an interrupt must not cut in two: short ones ignore it, long ones heed it where it suits them."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["Interrupts", "deferred", "uninterrupted"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore Ctrl-C and SIGTERM inside the block; in a thread other than the main one, signals never arrive anyway."""
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
    """Whether Ctrl-C or SIGTERM has come."""

    arrived: bool = False


@contextmanager
def deferred(interrupts: Interrupts) -> Iterator[None]:
    """Only take note of Ctrl-C and SIGTERM inside the block, and raise at its end where one has come.

    A signal that has no handler, as SIGTERM in a plain script, ends the process as ever.
    """

    def take_note(*_: object) -> None:
        interrupts.arrived = True

    is_main = threading.current_thread() is threading.main_thread()
    handled = [number for number in _SIGNALS if is_main and callable(signal.getsignal(number))]
    before = {number: signal.signal(number, take_note) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if interrupts.arrived:
        raise KeyboardInterrupt
