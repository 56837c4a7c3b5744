"""The compiled implementation of a recurrent layer for training on a CPU, with a hand-written gradient.

torch's own GRU and RNN add to the gradient of the recurrent matrix at every step; here it is one product after the loop, and so
are the products of the inputs. In the loop over time, torch computes the state's product and ``pointwise`` the rest. Under
autocast, matrices, outputs and what the backward pass needs have autocast's precision; states have float32.

Must not know a model or its settings. Shapes: B batch, T time, E inputs, H hidden, G number of gates times H, P parts of a state.
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


def can_run_compiled(x: Tensor) -> bool:
    """Return whether ``run_compiled`` supports this input: on a CPU, in a supported precision, with gradients enabled."""
    return x.device.type == "cpu" and _precision(x) in PRECISIONS and torch.is_grad_enabled()


def run_compiled(
    x: Float[Tensor, "T B E"],
    state: tuple[Float[Tensor, "1 B H"], ...],
    weights: tuple[Tensor, Tensor, Tensor, Tensor],
    cell: int,
    is_relu: bool,
    zoned: Bool[Tensor, "T P B H"] | None,
) -> tuple[Float[Tensor, "T B H"], tuple[Float[Tensor, "1 B H"], ...]]:
    """Return a layer's outputs and its last state.

    Args:
        x: The inputs.
        state: The state before the first step, part by part.
        weights: weight_ih, weight_hh, bias_ih and bias_hh.
        cell: RNN, GRU or LSTM of ``kernels``.
        is_relu: Whether the activation is relu instead of tanh.
        zoned: The zoneout mask: which units keep their old value at each step.
    """
    precision = _precision(x)
    wide = torch.promote_types(precision, torch.float32)
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    narrow = (tensor.to(precision) for tensor in (x, weight_ih, weight_hh, bias_ih))
    memory = torch.cat(state).to(wide)  # (P, B, H)
    outputs, last = _CompiledLayer.apply(*narrow, bias_hh.to(wide), memory, cell, is_relu, zoned)
    return outputs, tuple(last.split(1))


class _CompiledLayer(torch.autograd.Function):
    """One layer; all tensors but the mask have the same precision, bias_hh and memory at least float32."""

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
        """Return the outputs, (T, B, H), and the last state, (P, B, H)."""
        (time, rows, _), size = x.shape, weight_hh.shape[1]
        gates = torch.addmm(bias_ih, x.reshape(time * rows, -1), weight_ih.T).view(time, rows, -1)  # (T, B, G)
        outputs = x.new_empty(time + 1, rows, size)
        outputs[0] = memory[0]
        last, product = memory.clone(), x.new_empty(rows, len(weight_hh))
        kept = x.new_empty(time, rows, size if cell in (GRU, LSTM) else 0)
        masks = np.zeros((0, 0, 0, 0), np.bool_) if zoned is None else zoned.numpy()
        arrays = (*map(as_array, (gates, product, bias_hh, last, outputs, kept)), masks)
        for t, before in enumerate(outputs[:-1].unbind()):
            torch.mm(before, weight_hh.T, out=product)
            forward_step(cell, is_relu, t, *arrays)
        ctx.save_for_backward(x, weight_ih, weight_hh, gates, outputs, kept)
        ctx.facts = cell, is_relu, masks
        return outputs[1:], last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_outputs: Tensor, grad_last: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, the weights, the biases and the memory."""
        x, weight_ih, weight_hh, gates, outputs, kept = ctx.saved_tensors
        cell, is_relu, masks = ctx.facts
        time, rows, width = gates.shape
        grad_gates = gates.new_empty(time, rows, width + outputs.shape[-1] * (cell == GRU))  # (T, B, D)
        grad_memory = grad_last.clone(memory_format=torch.contiguous_format)
        grad_product = gates.new_zeros(rows, outputs.shape[-1])
        arrays = *map(as_array, (gates, kept, outputs, grad_outputs.contiguous(), grad_product, grad_memory, grad_gates)), masks
        steps = grad_gates[..., -width:].unbind()
        for t in reversed(range(time)):
            backward_step(cell, is_relu, t, *arrays)
            torch.mm(steps[t], weight_hh, out=grad_product)
        grad_memory[0] += grad_product
        grad_inputs, grad_hidden = (
            part.flatten(0, 1) for part in (grad_gates[..., :width], grad_gates[..., -width:])
        )  # (T*B, G)
        shift = outputs.shape[-1] if cell == GRU else 0  # the gru's gradients of the inputs begin with n; see ``pointwise``
        grad_x = (grad_inputs @ weight_ih.roll(shift, 0)).view_as(x) if ctx.needs_input_grad[0] else None
        grad_weight_ih = (grad_inputs.T @ x.flatten(0, 1)).roll(-shift, 0)
        grad_weight_hh = grad_hidden.T @ outputs[:-1].flatten(0, 1)
        sums = (grad_gates.new_ones(1, time * rows) @ grad_gates.flatten(0, 1))[0]  # (D); a product is faster than a sum
        grad_bias_ih, grad_bias_hh = sums[:width].roll(-shift), sums[-width:].to(grad_memory.dtype)
        return grad_x, grad_weight_ih, grad_weight_hh, grad_bias_ih, grad_bias_hh, grad_memory, None, None, None


def _precision(x: Tensor) -> torch.dtype:
    """Return the precision in which matrices are multiplied."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
