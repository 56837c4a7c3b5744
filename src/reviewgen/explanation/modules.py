"""The calls of a model's modules, by forward hooks: what each returns, its own parameters and its own multiplications.

For models that do not describe themselves. What a module computes outside its child modules is counted at the module itself.
Multiplications are counted where torch dispatches them, so they are those of the code that runs: those of matrix products by
torch's FlopCounterMode, which counts two operations each, and those of elementwise products.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from reviewgen.errors import BrokenPlugin

_MAX_DEPTH = 8  # of nested outputs


@dataclass(frozen=True)
class ModuleCall:
    """What a module did in one call of the model.

    Attributes:
        name: Its name in the model; empty for the model itself.
        kind: Its class.
        values: The first tensor that it returned last, floating-point if there is one; None if it returned none.
        parameters: Its own, without those of its children and those that an earlier line has.
        multiplications: Its own, over all calls.
        calls: How often it was called.
    """

    name: str
    kind: str
    values: Tensor | None
    parameters: int
    multiplications: int
    calls: int


def call_with_hooks(model: Any, ids: Int[Tensor, "B T"], state: Any) -> tuple[Tensor, list[ModuleCall]]:
    """Return the logits of a model and what its modules did, in the order in which they ended; the model itself is last.

    Raises:
        BrokenPlugin: The model does not return a pair of logits and a state.
    """
    recorder = _Recorder()
    handles = [handle for name, module in model.named_modules() for handle in recorder.watch(name, module)]
    try:
        with recorder.counter, _without_onednn():
            result = model(ids, state)
    finally:
        for handle in handles:
            handle.remove()
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], Tensor)):
        name, given = type(model).__name__, type(result).__name__
        raise BrokenPlugin(f"{name} must return a pair of logits (B, T, V) and a state; got a {given}.")
    return result[0], list(recorder.calls(model))


@contextmanager
def _without_onednn() -> Iterator[None]:
    """Leave out oneDNN inside the block, whose recurrent layers are dispatched as a whole, so that nothing in them is counted."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="TF32")  # of a setting that flags() sets, too
        with torch.backends.mkldnn.flags(enabled=False):
            yield


class _Recorder:
    """Collects what modules return, and the multiplications before and after each."""

    def __init__(self) -> None:
        from torch.utils.flop_counter import FlopCounterMode  # loads half a second of torch's modules

        counts: dict[Any, Any] = dict.fromkeys(_ELEMENTWISE, _count_elementwise)
        counts[torch.ops.aten._scaled_dot_product_flash_attention_for_cpu] = _count_attention
        self.counter = FlopCounterMode(display=False, custom_mapping=counts)
        self._outputs: dict[str, Tensor | None] = {}
        self._calls: dict[str, int] = {}
        self._own: dict[str, int] = {}
        self._open: list[tuple[int, int]] = []  # of each module being called: the count before it, and that of its children

    def watch(self, name: str, module: nn.Module) -> Iterator[Any]:
        """Register hooks at a module; yield their handles."""
        yield module.register_forward_pre_hook(lambda *_: self._open.append((self.counter.get_total_flops(), 0)))
        yield module.register_forward_hook(lambda _module, _args, output: self._record(name, output))

    def _record(self, name: str, output: Any) -> None:
        before, of_children = self._open.pop()
        total = self.counter.get_total_flops() - before
        if self._open:
            outer, others = self._open[-1]
            self._open[-1] = (outer, others + total)
        self._own[name] = self._own.get(name, 0) + total - of_children
        self._calls[name] = self._calls.get(name, 0) + 1
        self._outputs[name] = find_tensor(output)

    def calls(self, model: nn.Module) -> Iterator[ModuleCall]:
        """Yield what each module did that did something by itself, and of the model itself what is left."""
        counted: set[int] = set()
        modules = dict(model.named_modules())
        for name, calls in self._calls.items():
            module = modules[name]
            own = _take_parameters(module.parameters(recurse=False), counted)
            if name == "":
                own += _take_parameters(model.parameters(), counted)  # of modules that are used without being called
            is_leaf = not any(True for _ in module.children())
            if is_leaf or own or self._own[name] or name == "":
                yield ModuleCall(name, type(module).__name__, self._outputs[name], own, self._own[name] // 2, calls)


def _take_parameters(parameters: Iterator[nn.Parameter], counted: set[int]) -> int:
    """Return the number of parameters that were not counted before, and mark them as counted."""
    total = 0
    for parameter in parameters:
        if id(parameter) not in counted:
            counted.add(id(parameter))
            total += parameter.numel()
    return total


def find_tensor(output: Any, depth: int = 0) -> Tensor | None:
    """Return the first floating-point tensor of nested outputs, else the first tensor, else None."""
    if isinstance(output, Tensor):
        return output
    if depth == _MAX_DEPTH:
        return None
    if isinstance(output, Mapping):
        items: Sequence[Any] = list(output.values())
    elif isinstance(output, list | tuple):
        items = output
    else:
        items = list(vars(output).values()) if is_dataclass(output) else []
    tensors = [tensor for item in items if (tensor := find_tensor(item, depth + 1)) is not None]
    floating = [tensor for tensor in tensors if tensor.is_floating_point()]
    return next(iter(floating or tensors), None)


_ELEMENTWISE = (torch.ops.aten.mul, torch.ops.aten.mul_, torch.ops.aten.addcmul)


def _count_elementwise(*_: Any, out_shape: Sequence[int], **__: Any) -> int:
    """Return twice the number of products, since FlopCounterMode counts a product in a matrix product as two operations."""
    return 2 * torch.Size(out_shape).numel()


def _count_attention(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
    """Return twice the products of an attention: query times key, and weights times value; FlopCounterMode knows only GPUs'."""
    *batch, queries, width = query  # (B, heads, T, width)
    return 2 * torch.Size((*batch, queries, key[-2], width + value[-1])).numel()
