"""Steppers around others: one call at a time, for a model that must not be called by two threads; and one that can be stopped."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from reviewgen.protocols import Stepper, StepState, SupportsSample


class OneAtATime:
    """A stepper that is called by one thread at a time: torch's number of threads, which a call sets, is that of the process.

    Args:
        stepper: The stepper.
    """

    def __init__(self, stepper: Stepper) -> None:
        self._stepper, self._lock = stepper, threading.Lock()

    def initial_state(self, batch_size: int) -> StepState:
        """Return the state before the first token."""
        return self._stepper.initial_state(batch_size)

    def forward(self, ids: Int64[np.ndarray, "B T"], state: StepState) -> tuple[Float[np.ndarray, "B V"], StepState]:
        """Return the logits after the last token, and the state after it."""
        with self._lock:
            return self._stepper.forward(ids, state)


class Stopped(Exception):
    """The stepper was stopped."""


class _Stoppable:
    """A stepper that raises once ``must_stop`` returns true."""

    def __init__(self, stepper: Stepper, must_stop: Callable[[], bool]) -> None:
        self._stepper, self._must_stop = stepper, must_stop

    def initial_state(self, batch_size: int) -> StepState:
        return self._stepper.initial_state(batch_size)

    def forward(self, ids: Int64[np.ndarray, "B T"], state: StepState) -> tuple[Float[np.ndarray, "B V"], StepState]:
        if self._must_stop():
            raise Stopped
        return self._stepper.forward(ids, state)


class _StoppableSampler(_Stoppable):
    """The same with a loop of its own."""

    _stepper: Any

    def sample(self, *arguments: Any) -> Any:
        if self._must_stop():
            raise Stopped
        return self._stepper.sample(*arguments)


def stoppable(stepper: Stepper, must_stop: Callable[[], bool]) -> Stepper:
    """Return a stepper that raises Stopped instead of computing once ``must_stop`` returns true."""
    return (_StoppableSampler if isinstance(stepper, SupportsSample) else _Stoppable)(stepper, must_stop)
