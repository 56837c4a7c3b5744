"""Signals raise an interrupt inside a command."""

import signal

import pytest

from reviewgen.interrupts import SIGNALS, begin, caught


def test_signals_raise_an_interrupt_inside_a_command_and_are_restored() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs in the background
    before = [signal.getsignal(number) for number in SIGNALS]
    for number in SIGNALS:
        with pytest.raises(KeyboardInterrupt), caught():
            begin()
            signal.raise_signal(number)
    assert [signal.getsignal(number) for number in SIGNALS] == before
    present = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup sets it
    with caught():
        begin()
        signal.raise_signal(signal.SIGHUP)
    signal.signal(signal.SIGHUP, present)
