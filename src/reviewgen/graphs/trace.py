"""Records a forward pass: which modules were called, with which shapes, and what each value was computed from.

Hooks note the calls of modules. What lies between them, as sums and products, is read from autograd's graph; a
``TorchFunctionMode`` notes during which call each of its operations happened. Must not know pictures. Needs torch.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from reviewgen.errors import BrokenPlugin

Shape = tuple[int, ...]
VALUES = ("ids", "logits", "state", "state_after")  # of a model
_SIGNS = str.maketrans({"/": "∕", "#": "＃"})


@dataclass(eq=False)
class Call:
    """A call of a module.

    Attributes:
        name: The module's path, as "blocks.0.mix"; empty for the model.
        module: The module.
        around: The call that it is part of; None for the model's.
        inputs, outputs: The tensors that it took and returned.
        has_calls: Whether it called other modules.
    """

    name: str
    module: nn.Module
    around: "Call | None"
    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    has_calls: bool = False

    @property
    def id(self) -> str:
        """Its name as the id of a node, where / and # have a meaning and the names of values are taken."""
        name = as_id(self.name)
        return f"{name}." if name in VALUES else name


@dataclass
class Record:
    """A forward pass.

    Attributes:
        calls: The calls of modules below the model, in the order of their ends.
        logits: What the model returned.
        states: The state that it took, and the state that it returned.
        places: The call during which each operation happened.
        parameters: The name of each parameter, by its identity.
    """

    calls: list[Call]
    logits: Tensor
    states: tuple[list[Tensor], list[Tensor]]
    places: dict[Any, Call]
    parameters: dict[int, str]


def record(model: Any, batch: int, time: int) -> Record:
    """Return the record of a forward pass of random ids; the model itself stays as it is.

    Raises:
        BrokenPlugin: The model raises, or does not return logits (B, T, V) and a state.
    """
    name = type(model).__name__
    try:
        model = copy.deepcopy(model).eval().requires_grad_(True)
        ids = torch.randint(model.config.vocab_size, (batch, time), generator=torch.Generator().manual_seed(0))
        state = _as_leaves(model.initial_state(batch))
        logits, after, calls, watch = _run(model, ids, state)
    except Exception as error:  # a plugin may raise anything
        raise BrokenPlugin(
            f"A forward pass of {name} with ids of shape ({batch}, {time}) raises {type(error).__name__}: {error!s:.250}"
        ) from error
    if not isinstance(logits, Tensor) or logits.shape != (batch, time, model.config.vocab_size):
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise BrokenPlugin(f"{name} returns logits of shape {shape}; ({batch}, {time}, {model.config.vocab_size}) is expected.")
    parameters = {id(parameter): path for path, parameter in model.named_parameters()}
    return Record(calls, logits, (list(leaves(state)), list(leaves(after))), watch.places, parameters)


def as_id(name: str) -> str:
    """Return a module's path without the signs that have a meaning in ids.

    >>> as_id("heads.a/b")
    'heads.a∕b'
    """
    return name.translate(_SIGNS)


def leaves(value: Any) -> Iterator[Tensor]:
    """Yield the tensors of a nested value."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from leaves(each)
    elif isinstance(value, tuple | list):
        for each in value:
            yield from leaves(each)


def _as_leaves(state: Any) -> Any:
    """Return a state whose floating-point tensors autograd follows."""
    if isinstance(state, tuple):
        return tuple(_as_leaves(part) for part in state)
    return state.detach().clone().requires_grad_(state.is_floating_point())


class _Watch(TorchFunctionMode):
    """Notes the call during which each operation happened, by its node of autograd."""

    def __init__(self) -> None:
        super().__init__()
        self.places: dict[Any, Call] = {}
        self.stack: list[Call] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        value = function(*args, **(kwargs or {}))
        for tensor in leaves(value):
            if tensor.grad_fn is not None and self.stack:
                self.places.setdefault(tensor.grad_fn, self.stack[-1])
        return value


def _run(model: nn.Module, ids: Tensor, state: Any) -> tuple[Any, Any, list[Call], _Watch]:
    """Call the model with hooks on each of its modules."""
    watch, calls = _Watch(), list[Call]()
    names = {module: path for path, module in model.named_modules()}

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        around = watch.stack[-1] if watch.stack else None
        if around is not None:
            around.has_calls = True
        watch.stack.append(Call(names[module], module, around, list(leaves((args, kwargs)))))

    def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        call = watch.stack.pop()
        call.outputs = list(leaves(output))
        if call.around is not None:
            calls.append(call)

    for module in names:
        module.register_forward_pre_hook(before, with_kwargs=True)
        module.register_forward_hook(after, with_kwargs=True)
    with torch.enable_grad(), watch:
        logits, new_state = model(ids, state)
    return logits, new_state, calls, watch
