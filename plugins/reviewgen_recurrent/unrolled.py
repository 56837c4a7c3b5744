"""A layer over a sequence on the processor, its way back written by hand: the loop over time has the state's product and no more.

torch's own GRU and RNN add to the gradient of the recurrent matrix at every step; here it is one product, after the loop, as are
the products of the inputs. In the loop torch multiplies, and ``pointwise`` does the rest. Under autocast matrices, outputs
and what is kept for the way back have its precision; states have float32.

It must not know a model or its settings. Shapes: B batch, T time, E inputs, H hidden, G gates times H, P parts of a state.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from reviewgen.compiled.tensors import PRECISIONS, as_array
from reviewgen_recurrent.kernels import GRU, LSTM
from reviewgen_recurrent.pointwise import backward_step, forward_step

__all__ = ["can_unroll", "unroll"]


def can_unroll(x: Tensor) -> bool:
    """Return whether ``unroll`` serves: on the processor, in a precision that it knows, where gradients are wanted."""
    return x.device.type == "cpu" and _precision(x) in PRECISIONS and torch.is_grad_enabled()


def unroll(
    x: Float[Tensor, "T B E"],
    state: tuple[Float[Tensor, "1 B H"], ...],
    weights: tuple[Tensor, Tensor, Tensor, Tensor],
    cell: int,
    is_relu: bool,
    zoned: Bool[Tensor, "T P B H"] | None,
) -> tuple[Float[Tensor, "T B H"], tuple[Float[Tensor, "1 B H"], ...]]:
    """Return a layer's outputs and its last state.

    Args:
        weights: weight_ih, weight_hh, bias_ih and bias_hh.
        cell: RNN, GRU or LSTM of ``kernels``.
        is_relu: Whether relu stands for tanh.
        zoned: What keeps its old value, at every step.
    """
    precision = _precision(x)
    wide = torch.promote_types(precision, torch.float32)
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    narrow = (part.to(precision) for part in (x, weight_ih, weight_hh, bias_ih))
    memory = torch.cat(state).to(wide)  # (P, B, H)
    outputs, last = _Unrolled.apply(*narrow, bias_hh.to(wide), memory, cell, is_relu, zoned)
    return outputs, tuple(last.split(1))


class _Unrolled(torch.autograd.Function):
    """One layer; all tensors but the zones' are of the same precision, bias_hh and memory of no less than float32."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias_ih: Tensor,
        bias_hh: Tensor,
        memory: Tensor,
        cell: int,
        is_relu: bool,
        zoned: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Return the outputs, (T, B, H), and the last memory, (P, B, H)."""
        (time, rows, _), size = x.shape, weight_hh.shape[1]
        gates = torch.addmm(bias_ih, x.reshape(time * rows, -1), weight_ih.T).view(time, rows, -1)  # (T, B, G)
        outputs = x.new_empty(time + 1, rows, size)
        outputs[0] = memory[0]
        last, product = memory.clone(), x.new_empty(rows, len(weight_hh))
        kept = x.new_empty(time, rows, size if cell in (GRU, LSTM) else 0)
        zones = np.zeros((0, 0, 0, 0), np.bool_) if zoned is None else zoned.numpy()
        arrays = (*map(as_array, (gates, product, bias_hh, last, outputs, kept)), zones)
        for t, before in enumerate(outputs[:-1].unbind()):
            torch.mm(before, weight_hh.T, out=product)
            forward_step(cell, is_relu, t, *arrays)
        ctx.save_for_backward(x, weight_ih, weight_hh, gates, outputs, kept)
        ctx.facts = cell, is_relu, zones
        return outputs[1:], last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_outputs: Tensor, of_last: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, the weights, the biases and the memory."""
        x, weight_ih, weight_hh, gates, outputs, kept = ctx.saved_tensors
        cell, is_relu, zones = ctx.facts
        time, rows, width = gates.shape
        of_gates = gates.new_empty(time, rows, width + outputs.shape[-1] * (cell == GRU))  # (T, B, D)
        of_memory, product = of_last.clone(memory_format=torch.contiguous_format), gates.new_zeros(rows, outputs.shape[-1])
        arrays = (*map(as_array, (gates, kept, outputs, of_outputs.contiguous(), product, of_memory, of_gates)), zones)
        steps = of_gates[..., -width:].unbind()
        for t in reversed(range(time)):
            backward_step(cell, is_relu, t, *arrays)
            torch.mm(steps[t], weight_hh, out=product)
        of_memory[0] += product
        of_inputs, of_states = (part.flatten(0, 1) for part in (of_gates[..., :width], of_gates[..., -width:]))  # (T*B, G)
        shift = outputs.shape[-1] if cell == GRU else 0  # its first gates stand last
        of_x = (of_inputs @ weight_ih.roll(shift, 0)).view_as(x) if ctx.needs_input_grad[0] else None
        of_weight_ih = (of_inputs.T @ x.flatten(0, 1)).roll(-shift, 0)
        of_weight_hh = of_states.T @ outputs[:-1].flatten(0, 1)
        sums = (of_gates.new_ones(1, time * rows) @ of_gates.flatten(0, 1))[0]  # (D); a product is faster than a sum
        of_bias_ih, of_bias_hh = sums[:width].roll(-shift), sums[-width:].to(of_memory.dtype)
        return of_x, of_weight_ih, of_weight_hh, of_bias_ih, of_bias_hh, of_memory, None, None, None


def _precision(x: Tensor) -> torch.dtype:
    """Return the precision in which matrices are multiplied."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
