"""The law of ``SupportsOperations``: the operations lead to the model's own logits, and account for all of its parameters."""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import torch

from reviewgen.protocols import Operation, SupportsOperations
from reviewgen.testing.models import ROWS, STEPS, assert_close, call, can, some_ids

__all__ = ["operations"]


def operations(make: Callable[[], Any]) -> None:
    """SupportsOperations: the last operation yields the logits; axes, names, parameters and gates are as the protocol says."""
    model = make()
    if not can(model, SupportsOperations):
        return
    ids = some_ids(model, ROWS, STEPS)
    for state in model.initial_state(ROWS), call(model, ids)[1]:
        expected, _ = call(model, ids, state)
        with torch.no_grad():
            steps = list(model.operations(ids, state))
        assert steps and all(isinstance(step, Operation) for step in steps), (
            "operations() must yield reviewgen.protocols.Operation."
        )
        assert_close(steps[-1].values, expected, "The last operation must yield the logits of the model's call.")
        _check_axes(steps, {"B": ROWS, "T": STEPS, "V": model.config.vocab_size})
        _check_numbers(steps)
    _check_parameters(model, steps)


def _check_axes(steps: Sequence[Operation], known: Mapping[str, int]) -> None:
    """Check that there is a word for each axis, and that a letter has one size throughout."""
    sizes = dict(known)
    for step in steps:
        words, shape = step.axes.split(), tuple(step.values.shape)
        assert len(words) == len(shape), (
            f"The operation {step.name!r} has the axes {step.axes!r} for values of the shape {shape}."
        )
        for word, size in zip(words, shape, strict=True):
            if len(word) == 1:
                assert sizes.setdefault(word, size) == size, (
                    f"The axis {word} of the operation {step.name!r} has the size {size}; elsewhere it has {sizes[word]}."
                )
        for word, size in zip(words, shape, strict=True):
            product = prod(sizes.get(letter, 0) for letter in word)
            assert len(word) == 1 or product == size, (
                f"The axis {word} of the operation {step.name!r} has the size {size}; the product of its letters is {product}."
            )
    assert steps[-1].axes == "B T V", f'The last operation must have the axes "B T V"; got {steps[-1].axes!r}.'


def _check_numbers(steps: Sequence[Operation]) -> None:
    """Check that names are distinct, counts are not negative, and gates lie between 0 and 1."""
    names = [step.name for step in steps]
    assert len(set(names)) == len(names), f"Operations must have distinct names; got {names}."
    for step in steps:
        assert step.parameters >= 0 and step.multiplications >= 0, f"The operation {step.name!r} has a negative count."
        if step.kind == "gate":
            low, high = float(step.values.min()), float(step.values.max())
            assert 0 <= low <= high <= 1, f"The gate {step.name!r} has values from {low:g} to {high:g}; they must lie in 0..1."
        if step.kind == "window":
            assert not step.values.is_floating_point(), f"The window {step.name!r} must hold ids."


def _check_parameters(model: Any, steps: Sequence[Operation]) -> None:
    """Check that every parameter of a module is counted once."""
    if not isinstance(model, torch.nn.Module):
        return
    counted, number = sum(step.parameters for step in steps), sum(each.numel() for each in model.parameters())
    assert counted == number, f"The operations have {counted:,} parameters in all; the model has {number:,}."
