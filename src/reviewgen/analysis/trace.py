"""Records a forward pass: the calls of modules with their inputs and outputs, the operations
between them, and the number of multiplications in each call.

Hooks record the calls of modules, and a ``TorchDispatchMode`` records the operations that torch
runs, in the order in which they happen. ``explain`` counts the multiplications, and ``graph``
follows values from module to module. The multiplications, called *products* here, are those of the
code that runs: those in matrix products, by the formulas of torch's flop counter, and those in
elementwise products. B batch, T time (tokens).
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, is_dataclass
from typing import Any, NamedTuple
from unittest import mock

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from reviewgen.config.settings import to_dict
from reviewgen.errors import BrokenPlugin, ReviewgenError
from reviewgen.protocols.graph import Axis

_LETTERS = {
    "vocab_size": "V",
    "hidden_size": "H",
    "embedding_size": "E",
    "embedding_dim": "E",
    "d_model": "D",
}
_ELEMENTWISE = ("mul", "mul_", "addcmul")
# attention on a CPU; torch's flop counter knows only the operations of GPUs
_CPU_ATTENTION = "_scaled_dot_product_flash_attention_for_cpu"


@dataclass(eq=False)
class ModuleCall:
    """A call of a module.

    Attributes:
        name: The path of the module, as in "blocks.0.mix"; empty for the model.
        module: The module.
        around: The call that made this call; None for the call of the model.
        inputs, outputs: The tensors that the call took and returned.
        has_calls: Whether the module called other modules.
        products: The number of multiplications in the call, without those in the calls that it
            made.
    """

    name: str
    module: nn.Module
    around: "ModuleCall | None"
    inputs: list[Tensor]
    outputs: list[Tensor] = field(default_factory=list)
    has_calls: bool = False
    products: int = 0


class Step(NamedTuple):
    """An operation of torch, or the end of the call of a module. At the end of a call,
    ``operation`` is empty and ``call`` is that call. Otherwise ``call`` is the call in which the
    operation ran.
    """

    operation: str
    inputs: list[Tensor]
    outputs: list[Tensor]
    call: ModuleCall | None


class Trace(NamedTuple):
    """A recorded forward pass: the logits, the tensors of the state before and after it, and the
    steps in order.
    """

    logits: Float[Tensor, "B T V"]
    states: tuple[list[Tensor], list[Tensor]]
    steps: list[Step]

    @property
    def calls(self) -> list[ModuleCall]:
        """The calls of modules, in the order in which they end; the call of the model is the
        last.
        """
        return [step.call for step in self.steps if not step.operation and step.call is not None]


@torch.no_grad()
def trace(model: Any, ids: Int[Tensor, "B T"], *, follows: bool = False) -> Trace:
    """Run a forward pass, and record the calls of modules with their products. If ``follows`` is
    true, record the operations of torch, too.

    Raises:
        BrokenPlugin: The model raises, or does not return a pair of logits (B, T, V) and a state.
    """
    from torch.utils.flop_counter import flop_registry  # takes half a second to import

    watch = _Watch(flop_registry, follows)
    with broken_plugins(model, ids), ExitStack() as stack:
        named = model.named_modules() if isinstance(model, nn.Module) else ()
        for name, module in named:
            begin_hook = module.register_forward_pre_hook(watch.begin(name), with_kwargs=True)
            end_hook = module.register_forward_hook(watch.end, with_kwargs=True)
            stack.callback(begin_hook.remove)
            stack.callback(end_hook.remove)
        state = model.initial_state(len(ids))
        with watch, watch.custom_functions(), _unfused_operations():
            result = model(ids, state)
        expected = (*ids.shape, model.config.vocab_size)
        is_pair = isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], Tensor)
        if not is_pair or result[0].shape != expected:
            returned = [tuple(tensor.shape) for tensor in tensors(result)] or type(result).__name__
            raise BrokenPlugin(
                f"{type(model).__name__} must return a pair of logits (B, T, V) = {expected} and a"
                f" state; got {returned!s:.200}."
            )
    return Trace(result[0], (list(tensors(state)), list(tensors(result[1]))), watch.steps)


@contextmanager
def broken_plugins(model: Any, ids: Tensor) -> Iterator[None]:
    """Turn errors that a model or its hooks raise inside the block into a BrokenPlugin that names
    the model.

    Raises:
        BrokenPlugin: The block raises an error that is not a ReviewgenError.
    """
    try:
        yield
    except ReviewgenError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        name = type(model).__name__
        raise BrokenPlugin(
            f"A forward pass of {name} with ids of shape {tuple(ids.shape)} raises {reason:.250}"
        ) from error


@contextmanager
def _unfused_operations() -> Iterator[None]:
    """Switch off oneDNN and fused encoder layers inside the block, since a dispatch mode does not
    see their operations.
    """
    mha = torch.backends.mha
    with warnings.catch_warnings(), ExitStack() as stack:
        stack.callback(mha.set_fastpath_enabled, mha.get_fastpath_enabled())
        mha.set_fastpath_enabled(False)
        warnings.filterwarnings("ignore", message="TF32")  # flags() also sets an option that warns
        stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
        yield


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's is untyped
    """Records the operations that torch dispatches, and through hooks the calls of modules."""

    def __init__(self, formulas: Mapping[Any, Any], follows: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's is untyped
        self.steps = list[Step]()
        self._formulas = formulas
        self._follows = follows
        self._open = list[ModuleCall]()

    def begin(self, name: str) -> Any:
        """Return the hook that records the beginning of a module's call."""

        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            around = self._open[-1] if self._open else None
            if around is not None:
                around.has_calls = True
            self._open.append(ModuleCall(name, module, around, list(tensors((args, kwargs)))))

        return hook

    def end(self, _module: nn.Module, _args: Any, _kwargs: Any, output: Any) -> None:
        """The hook that records the end of a module's call."""
        call = self._open.pop()
        call.outputs = list(tensors(output))
        self.steps.append(Step("", call.inputs, call.outputs, call))

    @contextmanager
    def custom_functions(self) -> Iterator[None]:
        """Inside the block, record the calls of autograd functions that models define, since torch
        does not dispatch what these compute in numpy.
        """
        apply = vars(torch.autograd.Function)["apply"]  # the class method, bound to no class

        def apply_and_record(function: Any, *args: Any) -> Any:
            """Call ``apply`` of an autograd function, which is a class, and record the call."""
            result = apply.__get__(None, function)(*args)
            self._record(function.__name__, args, result)
            return result

        with mock.patch.object(torch.autograd.Function, "apply", classmethod(apply_and_record)):
            yield

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        # torch's flop counter has one formula for all overloads of a function
        packet = getattr(function, "_overloadpacket", function)
        if self._open:
            self._open[-1].products += self._products(packet, args, kwargs, result)
        self._record(packet.__name__, (args, kwargs), result)
        return result

    def _record(self, operation: str, args: Any, result: Any) -> None:
        """Record an operation, if operations are followed."""
        if self._follows:
            call = self._open[-1] if self._open else None
            self.steps.append(Step(operation, list(tensors(args)), list(tensors(result)), call))

    def _products(self, packet: Any, args: Any, kwargs: Any, result: Any) -> int:
        """Return the number of multiplications in an operation of torch."""
        if packet.__name__ in _ELEMENTWISE:
            return int(result.numel())
        if packet.__name__ == _CPU_ATTENTION:
            # (B, heads, T, width); each query is multiplied by each key, and each weight by a value
            (*batch, queries, width), key, value = (tensor.shape for tensor in args[:3])
            return torch.Size((*batch, queries, key[-2], width + value[-1])).numel()
        formula = self._formulas.get(packet)
        # torch counts a multiplication and an addition as two
        return 0 if formula is None else int(formula(*args, **kwargs, out_val=result)) // 2


def tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors of a nested value."""
    leaves = tree_leaves(vars(value) if is_dataclass(value) else value)
    return (leaf for leaf in leaves if isinstance(leaf, Tensor))


def letter_sizes(config: Any) -> dict[str, int]:
    """Return the sizes in the settings of a model that have a letter, by letter."""
    settings = to_dict(config)
    sizes = dict[str, int]()
    for name, letter in _LETTERS.items():
        size = settings.get(name)
        if isinstance(size, int) and size > 1:
            sizes[letter] = size
    return sizes


def name_axes(
    shape: Sequence[int], batch: Sequence[int], letters: Mapping[str, int]
) -> tuple[Axis, ...]:
    """Return a name for each axis of a tensor, by the size of the axis: B, T, BT, the letter of a
    size of the model, or up to eight times such a letter, as in 4H. If no name fits, the axis keeps
    its size as a number.

    If several names fit, the last axis gets the name of a size of the model, and earlier axes get B
    or T.
    """
    rows, time = batch
    batch_names = {rows: "B"} if time == 1 else {rows * time: "BT", time: "T", rows: "B"}
    names = list[Axis]()
    for n, size in enumerate(shape):
        of_model = [letter for letter, dim in letters.items() if dim == size]
        for letter, dim in letters.items():
            factor, rest = divmod(size, dim)
            # a size of at most 8 may be a multiple by chance
            if not rest and 2 <= factor <= 8 < size:
                of_model.append(f"{factor}{letter}")
        of_batch = [batch_names[size]] if size in batch_names else []
        is_last = 0 < n == len(shape) - 1  # the axis of a vector counts as an earlier one
        fitting = [*of_model, *of_batch] if is_last else [*of_batch, *of_model]
        names.append(fitting[0] if fitting else size)
    return tuple(names)
