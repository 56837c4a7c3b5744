"""From a model to an ONNX graph, by torch's own exporter. Needs torch, onnx and onnxscript; knows no plugin.

    ids (B, T), state_0, state_1, ...   ->   logits (B, T, V), new_state_0, new_state_1, ...

The tensors of a state are those of the model's nested tuple, in order, minus the state before the first token, so that zeros are
the first state of every model. There are two ways, since torch traces a loop over time as the steps that it happens to see:

    whole   the call over T tokens, traced with an unknown T; fails where the model loops over time
    step    the call of one token is traced, and ONNX's Scan repeats it, which the law *chunks* of the contract allows
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jaxtyping
import torch
from torch import Tensor, nn

from reviewgen.generation import flatten_state
from reviewgen.protocols import LanguageModel, State

if TYPE_CHECKING:
    from onnx import ModelProto

TRACED_BATCH, TRACED_TIME = 2, 5  # torch takes sizes of 0 and 1 as constants


def names_of(count: int) -> tuple[list[str], list[str]]:
    """Return the names of the inputs and of the outputs of a graph whose state has that many tensors."""
    states = [f"state_{number}" for number in range(count)]
    return ["ids", *states], ["logits", *(f"new_{name}" for name in states)]


class _Flat(nn.Module):
    """A model with the tensors of its state side by side, each minus the state before the first token."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model, self.like = model, model.initial_state(1)
        self.first = flatten_state(self.like)
        self.shifts = [first if first.any() else None for first in self.first]  # adding zeros is left out

    def forward(self, ids: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Return logits (B, T, V) and the tensors of the new state."""
        given = (_add(tensor, shift) for tensor, shift in zip(state, self.shifts, strict=True))
        logits, after = self.model(ids, _nest(self.like, given))
        changed = (_subtract(tensor, shift) for tensor, shift in zip(flatten_state(after), self.shifts, strict=True))
        return logits.float(), *changed


class _Step(nn.Module):
    """The same for one token of each row: ids (B), logits (B, V)."""

    def __init__(self, flat: _Flat) -> None:
        super().__init__()
        self.flat = flat

    def forward(self, ids: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Return logits (B, V) and the tensors of the new state."""
        logits, *after = self.flat(ids[:, None], *state)
        return logits[:, 0], *after


def _nest(like: State, tensors: Iterator[Tensor]) -> State:
    return next(tensors) if isinstance(like, Tensor) else tuple(_nest(part, tensors) for part in like)


def _add(tensor: Tensor, shift: Tensor | None) -> Tensor:
    return tensor if shift is None else tensor ^ shift if tensor.dtype == torch.bool else tensor + shift


def _subtract(tensor: Tensor, shift: Tensor | None) -> Tensor:
    return tensor if shift is None else tensor ^ shift if tensor.dtype == torch.bool else tensor - shift


@torch.no_grad()
def export_whole(model: LanguageModel) -> "ModelProto":
    """Return the graph of a call over T tokens."""
    flat = _Flat(model)
    ids = torch.zeros(TRACED_BATCH, TRACED_TIME, dtype=torch.long)
    batch, time = torch.export.Dim("batch"), torch.export.Dim("time")
    inputs, outputs = names_of(len(flat.first))
    exported = _trace(flat, ids, {0: batch, 1: time}, flat.first, (inputs, outputs))
    _set_shapes(exported.graph, flat)
    return exported


@torch.no_grad()
def export_step(model: LanguageModel) -> "ModelProto":
    """Return a graph that repeats the call of one token."""
    from onnx import helper

    flat = _Flat(model)
    inputs, outputs = names_of(len(flat.first))
    inner = ["id", *(f"{name}_before" for name in inputs[1:])], ["scores", *(f"{name}_after" for name in inputs[1:])]
    ids, axes = torch.zeros(TRACED_BATCH, dtype=torch.long), {0: torch.export.Dim("batch")}
    exported = _trace(_Step(flat), ids, axes, flat.first, inner)
    weights = exported.graph.initializer
    body = helper.make_graph(
        exported.graph.node,
        "step",
        _rotate(exported.graph.input),
        _rotate(exported.graph.output),
        value_info=exported.graph.value_info,
    )
    scan = helper.make_node(
        "Scan", _rotate(inputs), _rotate(outputs), body=body, num_scan_inputs=1, scan_input_axes=[1], scan_output_axes=[1]
    )
    graph = helper.make_graph([scan], "model", [], [], initializer=weights)
    _set_shapes(graph, flat)
    return helper.make_model(
        graph, opset_imports=exported.opset_import, functions=exported.functions, ir_version=exported.ir_version
    )


def _rotate(values: Any) -> list[Any]:
    """Return the values with the first one last: ONNX's Scan has the state first."""
    first, *others = values
    return [*others, first]


def _trace(
    module: nn.Module, ids: Tensor, axes: Mapping[int, Any], first: list[Tensor], names: tuple[list[str], list[str]]
) -> "ModelProto":
    """Return the graph of a module that takes ids and a state.

    Args:
        module: The module.
        ids: The ids to trace it with.
        axes: The axes of the ids whose size is free, the batch first.
        first: The tensors of the state, for one row.
        names: The names of inputs and outputs.
    """
    state = tuple(part.new_zeros(TRACED_BATCH, *part.shape[1:]) for part in first)
    shapes = {"ids": axes, "state": tuple({0: axes[0]} for _ in state)}
    with _quiet(), _unchecked_shapes():
        program = torch.export.export(module.eval(), (ids, *state), dynamic_shapes=shapes)
        exported = torch.onnx.export(program, (), dynamo=True, input_names=names[0], output_names=names[1], verbose=False)
    assert exported is not None  # with dynamo it returns a program
    return exported.model_proto


def _set_shapes(graph: Any, flat: _Flat) -> None:
    """Write the inputs and outputs of a graph, with axes that have names."""
    from onnx import TensorProto, helper

    vocab_size = flat.model(torch.zeros(1, 1, dtype=torch.long), flat.like)[0].shape[-1]
    states = [(helper.np_dtype_to_tensor_dtype(first.numpy().dtype), ["batch", *first.shape[1:]]) for first in flat.first]
    inputs, outputs = names_of(len(states))
    for values, names, own in (
        (graph.input, inputs, (TensorProto.INT64, ["batch", "time"])),
        (graph.output, outputs, (TensorProto.FLOAT, ["batch", "time", vocab_size])),
    ):
        del values[:]
        values.extend(helper.make_tensor_value_info(name, *kind) for name, kind in zip(names, [own, *states], strict=True))


@contextlib.contextmanager
def _unchecked_shapes() -> Iterator[None]:
    """Turn off jaxtyping's run-time checks, for code that has them: while torch traces, sizes are symbols and not numbers."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the exporter's warnings, log and prints, which are about torch's own code; what fails is raised all the same."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
