"""Signals raise an interrupt inside a command."""

import signal

import pytest

from reviewgen.interrupts import SIGNALS, begin, raising_interrupts


def test_signals_raise_an_interrupt_inside_a_command_and_are_restored() -> None:
    found = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}  # a shell may ignore some in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before = [signal.getsignal(number) for number in SIGNALS]
    for number in SIGNALS:
        with pytest.raises(KeyboardInterrupt), raising_interrupts():
            begin()
            signal.raise_signal(number)
    assert [signal.getsignal(number) for number in SIGNALS] == before
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup sets it
    with raising_interrupts():
        begin()
        signal.raise_signal(signal.SIGHUP)
    for number, handler in found.items():
        signal.signal(number, handler)
