"""States of several rows, arrays or nested tuples of arrays with B first: taken apart and put together."""

from collections.abc import Sequence

import numpy as np

from reviewgen.protocols import StepState

__all__ = ["select_rows", "stack_rows"]


def select_rows(state: StepState, rows: Sequence[int]) -> StepState:
    """Return the state of some of the rows."""
    return tuple(select_rows(part, rows) for part in state) if isinstance(state, tuple) else state[np.asarray(rows, np.int64)]


def stack_rows(states: Sequence[StepState]) -> StepState:
    """Return the state of all rows of several states."""
    if isinstance(states[0], tuple):
        return tuple(stack_rows(parts) for parts in zip(*states, strict=True))
    return np.concatenate(states)
