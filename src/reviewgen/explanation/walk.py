"""One batch through a model, as lines: by its own operations, or by the calls of its modules. B batch, T time (tokens)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from reviewgen.errors import BrokenPlugin, ReviewgenError
from reviewgen.explanation.batch import Batch
from reviewgen.explanation.modules import ModuleCall, call_with_hooks
from reviewgen.explanation.results import Line
from reviewgen.protocols import LanguageModel, Operation, SupportsOperations


@dataclass(frozen=True)
class Walk:
    """What a model computed on a batch.

    Attributes:
        lines: The operations.
        logits: The logits.
        operations: The operations with their values, of a model that describes itself.
    """

    lines: tuple[Line, ...]
    logits: Float[Tensor, "B T V"]
    operations: tuple[Operation, ...] = ()


@torch.no_grad()
def walk(model: LanguageModel, batch: Batch) -> Walk:
    """Return what a model computes on a batch.

    Raises:
        BrokenPlugin: The model raises, or does not return what the contract says.
    """
    name = type(model).__name__
    try:
        state = model.initial_state(len(batch.ids))
        if isinstance(model, SupportsOperations):
            operations = tuple(model.operations(batch.ids, state))
            return Walk(tuple(_line(each, batch.is_read) for each in operations), operations[-1].values, operations)
        if isinstance(model, nn.Module):
            logits, calls = call_with_hooks(model, batch.ids, state)
            rest = "the rest of " if len(calls) > 1 else ""
            return Walk(tuple(_module_line(call, model, batch, rest) for call in calls), logits)
        logits, _ = model(batch.ids, state)
    except ReviewgenError:
        raise
    except Exception as error:  # a plugin's code, and the hooks that it has registered, may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise BrokenPlugin(f"The model {name} cannot be explained, for it raises when it is called: {reason:.250}") from error
    size = model.config.vocab_size
    axes, sizes = ("B", "T", "V"), (*batch.ids.shape, size)
    mean, spread = mean_and_spread(logits, batch.is_read)
    return Walk((Line("logits", "", axes, sizes, count_parameters(model), 0, mean, spread),), logits)


def count_parameters(model: LanguageModel) -> int:
    """Return the number of parameters of a module; of another model, the numbers that it stores."""
    if isinstance(model, nn.Module):
        return sum(parameter.numel() for parameter in model.parameters())
    return sum(tensor.numel() for tensor in model.state_dict().values())


def mean_and_spread(values: Any, is_read: Bool[Tensor, "B T"]) -> tuple[float | None, float | None]:
    """Return mean and standard deviation of finite values; where their axes begin with B and T, without padding."""
    if not isinstance(values, Tensor) or not values.is_floating_point() or not values.numel():
        return None, None
    kept = values[is_read] if values.shape[:2] == is_read.shape else values
    numbers = kept.detach().double()
    numbers = numbers[numbers.isfinite()]  # a count model gives bos minus infinity
    if not len(numbers):
        return None, None
    return float(numbers.mean()), float(numbers.std(correction=0))


def _line(operation: Operation, is_read: Bool[Tensor, "B T"]) -> Line:
    mean, spread = mean_and_spread(operation.values, is_read)
    return Line(
        name=operation.name,
        formula=operation.formula,
        axes=tuple(operation.axes.split()),
        sizes=tuple(operation.values.shape),
        parameters=operation.parameters,
        multiplications=operation.multiplications,
        mean=mean,
        spread=spread,
        kind=operation.kind,
    )


def _module_line(call: ModuleCall, model: Any, batch: Batch, rest: str) -> Line:
    mean, spread = mean_and_spread(call.values, batch.is_read)
    shape = () if call.values is None else tuple(call.values.shape)
    return Line(
        name=f"{call.name} ({call.kind})" if call.name else rest + call.kind,
        formula="",
        axes=name_axes(shape, batch.ids.size(0), batch.ids.size(1), model.config),
        sizes=shape,
        parameters=call.parameters,
        multiplications=call.multiplications,
        mean=mean,
        spread=spread,
        calls=call.calls,
    )


def name_axes(shape: Sequence[int], batch: int, time: int, config: Any) -> tuple[str, ...]:
    """Return a letter for each axis, by its size: B, T, V, or those of the settings; a number where none fits.

    The last of several axes is rather one of features than B or T, the others the other way round.
    """
    features = {int(config.vocab_size): "V"}
    for field, letter in (("embedding_size", "E"), ("hidden_size", "H")):
        if isinstance(size := getattr(config, field, None), int):
            features.setdefault(size, letter)
    for field, size in vars(config).items() if hasattr(config, "__dict__") else ():
        if type(size) is int and size > 1:
            features.setdefault(size, field)
    places = {batch * time: "BT", time: "T", batch: "B"}
    letters = []
    for number, size in enumerate(shape):
        first, second = (features, places) if number and number == len(shape) - 1 else (places, features)
        letters.append(first.get(size) or second.get(size) or str(size))
    return tuple(letters)
