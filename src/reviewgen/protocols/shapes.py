"""Checks of what a model is called with: errors that name each axis, what is expected and what was given.

A check that passes only compares two tuples, which takes about a microsecond; checks stand at the top of a model's call, never in
an inner loop.
"""

from collections.abc import Mapping
from typing import Any

import torch

from reviewgen.errors import ShapeError

_INTEGERS = {torch.int64, torch.int32}
_MEANINGS = {"B": " texts", "L": " layers", "H": " hidden units", "K": " tokens before"}


def check_ids(ids: Any) -> int:
    """Return B of the ids that a model is called with.

    Raises:
        ShapeError: They are not a tensor of integers of the shape (B, T).
    """
    if not isinstance(ids, torch.Tensor) or ids.ndim != 2 or ids.dtype not in _INTEGERS:
        hint = " For one text write ids[None], which adds the axis B." if getattr(ids, "ndim", 0) == 1 else ""
        raise ShapeError(f"ids must be integers of the shape (B, T), B texts of T tokens each; got {_describe(ids)}.{hint}")
    return ids.shape[0]  # len would fix the size of the batch in an exported model


def check_state(state: Any, parts: int) -> tuple[Any, ...]:
    """Return the parts of a state: itself if it is a single tensor, else the items of the tuple.

    Raises:
        ShapeError: It has another number of parts.
    """
    given = state if isinstance(state, tuple) else (state,)
    if len(given) != parts:
        expected = "one tensor" if parts == 1 else f"a tuple of {parts} parts"
        raise ShapeError(
            f"The state must be {expected}, as initial_state(B) and each call return it; got {', '.join(map(_describe, given))}."
        )
    return given


def check_shape(name: str, tensor: Any, sizes: Mapping[str, int], *, is_integer: bool = False) -> None:
    """Raise unless a tensor has the expected size on each axis.

    Args:
        name: What it is, as in "the state h".
        tensor: The tensor.
        sizes: The size of each axis by its letter, in order.
        is_integer: Whether it must hold integers, else floating-point numbers.

    Raises:
        ShapeError: It has another shape or dtype, or is not a tensor.
    """
    if isinstance(tensor, torch.Tensor) and tensor.shape == tuple(sizes.values()):
        is_right = tensor.dtype in _INTEGERS if is_integer else tensor.is_floating_point()
        if is_right:
            return
    expected = ", ".join(f"{letter}={size}{_MEANINGS.get(letter, '')}" for letter, size in sizes.items())
    kind, shape, differences = "integers" if is_integer else "floating-point numbers", getattr(tensor, "shape", ()), ""
    if len(shape) == len(sizes):
        pairs = zip(sizes.items(), shape, strict=True)
        differences = "".join(f", {letter} is {given}" for (letter, size), given in pairs if given != size)
    raise ShapeError(
        f"{name} must be {kind} of the shape ({', '.join(sizes)}), here {expected}; got {_describe(tensor)}{differences}. "
        "initial_state(B) returns one of the right shape."
    )


def _describe(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of {str(value.dtype).removeprefix('torch.')} of the shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"
