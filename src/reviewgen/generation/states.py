"""Nested states: a state is an array, or a tuple of states, possibly empty; each array has the
batch dimension first.
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
    """Return the state of the results of a function of each array, or of the corresponding arrays
    of several states.
    """
    if isinstance(states[0], tuple):
        return tuple(map_state(function, *parts) for parts in zip(*states, strict=True))
    return function(*states)


def select_rows(state: StepState, rows: Sequence[int] | np.ndarray) -> StepState:
    """Return the state of some rows."""
    return map_state(lambda part: part[np.asarray(rows, np.int64)], state)


def stack_rows(states: Sequence[StepState]) -> StepState:
    """Return the states of several batches as the state of one.

    Raises:
        BrokenPlugin: Their shapes differ.
    """
    return map_state(_concatenate, *states)


def _concatenate(*parts: np.ndarray) -> np.ndarray:
    for part in parts:
        if part.shape[1:] != parts[0].shape[1:]:
            raise growing_state(part.shape, parts[0].shape)
    return np.concatenate(parts)


def gather(slots: Sequence[Slot]) -> StepState:
    """Return the state of some rows of several batches; of rows of one batch by one selection."""
    batch = slots[0].batch
    rows = [slot.row for slot in slots]
    if all(slot.batch is batch for slot in slots):
        return select_rows(batch, rows)
    return stack_rows([select_rows(slot.batch, [slot.row]) for slot in slots])
