"""Functions on the states of steppers.

A state is an array, or a tuple of states, which may be nested or empty. The first dimension of each
array is the batch.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from reviewgen.errors import growing_state
from reviewgen.protocols.stepper import StepState


class Slot(NamedTuple):
    """One row of the state of a batch."""

    batch: StepState
    row: int


def map_state(function: Callable[..., Any], *states: Any) -> Any:
    """Apply a function to each array of a state, and return the results as a state.

    With several states of the same structure, the function gets their corresponding arrays.
    """
    if isinstance(states[0], tuple):
        return tuple(map_state(function, *parts) for parts in zip(*states, strict=True))
    return function(*states)


def select_rows(state: StepState, rows: Sequence[int] | np.ndarray) -> StepState:
    """Return the state of the rows with these indices."""
    return map_state(lambda part: part[np.asarray(rows, np.int64)], state)


def stack_rows(states: Sequence[StepState]) -> StepState:
    """Concatenate the states of several batches to the state of one batch.

    Raises:
        BrokenPlugin: The shapes of their rows differ.
    """
    return map_state(_concatenate, *states)


def _concatenate(*parts: np.ndarray) -> np.ndarray:
    """Concatenate arrays whose rows must have the same shape."""
    for part in parts:
        if part.shape[1:] != parts[0].shape[1:]:
            raise growing_state(part.shape, parts[0].shape)
    return np.concatenate(parts)


def gather(slots: Sequence[Slot]) -> StepState:
    """Return rows from the states of one or several batches as one state.

    If all rows are from one batch, they are selected at once, which is faster.
    """
    batch = slots[0].batch
    rows = [slot.row for slot in slots]
    if all(slot.batch is batch for slot in slots):
        return select_rows(batch, rows)
    return stack_rows([select_rows(slot.batch, [slot.row]) for slot in slots])
