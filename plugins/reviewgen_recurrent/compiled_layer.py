"""A recurrent layer for training on a CPU, in compiled loops with a hand-written gradient.

torch's own GRU and RNN add to the gradient of the recurrent matrix at every step. Here, one matrix
product after the loop over time computes this gradient, and the products of the inputs are also
computed for all steps at once. Inside the loop over time, torch computes the product of the state
with the recurrent matrix, and compiled loops compute the rest. Under autocast, the matrices, the
outputs and the values saved for the backward pass have autocast's precision; the states have
float32.

The compiled loops take arrays of any precision: ``wide(a)`` converts a number to the precision of
the arithmetic, and ``narrow(a, b)`` rounds the number a to the precision of b.

Each loop writes to one row and reads few others. Only then does the compiler see that the rows do
not overlap, and use vector instructions.

Must not know a model or its settings. Shapes: B batch, T time, E inputs, H hidden, G number of
gates times H, S vectors of a state (the lstm has two, h and c), D columns of the gradient of the
gates.

For rnn and lstm, D = G. For the gru, D = 4 H, since gate n uses the product of the input and the
product of the state separately. The columns are four blocks of H: the gradients of n's product of
the input; of r; of z; and of n's product of the state (which is the first block times r). So the
last three blocks are the gradient of the product of the state, in torch's order r, z, n. The first
three blocks are the gradient of the product of the input, in the order n, r, z.
"""

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numba import types
from numba.extending import overload
from torch import Tensor
from torch.autograd.function import once_differentiable

from reviewgen.compiled import compiled, inlined, inner
from reviewgen.compiled.linear import ONE, ZERO, sigmoid32, tanh32
from reviewgen.compiled.ngrams import add
from reviewgen.compiled.tensors import PRECISIONS, as_array, narrow, wide
from reviewgen_recurrent.kernels import GRU, LSTM


def can_run_compiled(x: Tensor) -> bool:
    """Return whether ``run_compiled`` can be used: the input must be on a CPU and in a supported
    precision, and gradients must be enabled.
    """
    return x.device.type == "cpu" and _precision(x) in PRECISIONS and torch.is_grad_enabled()


def run_compiled(
    x: Float[Tensor, "T B E"],
    state: tuple[Float[Tensor, "1 B H"], ...],
    weights: tuple[Tensor, Tensor, Tensor, Tensor],
    cell: int,
    is_relu: bool,
    zoned: Bool[Tensor, "T S B H"] | None,
) -> tuple[Float[Tensor, "T B H"], tuple[Float[Tensor, "1 B H"], ...]]:
    """Run a layer over a sequence. Return its outputs and its last state.

    Args:
        x: The inputs.
        state: The state before the first step.
        weights: weight_ih, weight_hh, bias_ih and bias_hh.
        cell: RNN, GRU or LSTM of ``kernels``.
        is_relu: Whether the activation is relu instead of tanh.
        zoned: The zoneout mask: which units keep their old value at each step.
    """
    precision = _precision(x)
    state_precision = torch.promote_types(precision, torch.float32)
    *matrices, bias_hh = weights
    operands = (tensor.to(precision) for tensor in (x, *matrices))
    memory = torch.cat(state).to(state_precision)  # (S, B, H)
    outputs, last = _CompiledLayer.apply(
        *operands, bias_hh.to(state_precision), memory, cell, is_relu, zoned
    )
    return outputs, tuple(last.split(1))


class _CompiledLayer(torch.autograd.Function):
    """One layer as a function of torch with its own gradient. All tensors (except the mask) have
    the precision of the matrix products, but bias_hh and memory have at least float32.
    """

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
        """Return the outputs, (T, B, H), and the last state, (S, B, H)."""
        time, rows, _ = x.shape
        size = weight_hh.shape[1]
        # the product of the input, for all steps, (T, B, G)
        gates = torch.addmm(bias_ih, x.reshape(time * rows, -1), weight_ih.T).view(time, rows, -1)
        # outputs[t] is h before step t; the last item is h after the last step
        outputs = x.new_empty(time + 1, rows, size)
        outputs[0] = memory[0]
        last = memory.clone()  # the steps update it in place
        product = x.new_empty(rows, len(weight_hh))
        # values that the backward pass of gru and lstm needs, see ``_forward_step``
        kept = x.new_empty(time, rows, size if cell in (GRU, LSTM) else 0)
        # without zoneout, an empty array, as compiled loops need one type
        masks = np.zeros((0, 0, 0, 0), np.bool_) if zoned is None else zoned.numpy()
        arrays = (*map(as_array, (gates, product, bias_hh, last, outputs, kept)), masks)
        for t, before in enumerate(outputs[:-1].unbind()):
            torch.mm(before, weight_hh.T, out=product)
            _forward_step(cell, is_relu, t, *arrays)
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
        size = outputs.shape[-1]
        # For the gru, ``grad_gates`` has one block of H more, and the gradient of the product of
        # the input is in the order n, r, z. Rolls by ``shift`` convert this order and torch's.
        shift = size if cell == GRU else 0
        grad_gates = gates.new_empty(time, rows, width + shift)  # (T, B, D)
        grad_memory = grad_last.clone(memory_format=torch.contiguous_format)
        grad_product = gates.new_zeros(rows, size)
        grad_outputs = grad_outputs.contiguous()
        saved = (gates, kept, outputs)
        gradients = (grad_outputs, grad_product, grad_memory, grad_gates)
        arrays = (*map(as_array, saved + gradients), masks)
        # a view: the gradient of the product of the state, (T, B, G), which the steps fill
        grad_hidden = grad_gates[..., -width:]
        hidden_steps = grad_hidden.unbind()
        for t in reversed(range(time)):
            _backward_step(cell, is_relu, t, *arrays)
            torch.mm(hidden_steps[t], weight_hh, out=grad_product)
        grad_memory[0] += grad_product
        # the gradient of the product of the input, (T*B, G); for the gru in the order n, r, z
        grad_inputs = grad_gates[..., :width].flatten(0, 1)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad_inputs @ weight_ih.roll(shift, 0)).view_as(x)
        grad_weight_ih = (grad_inputs.T @ x.flatten(0, 1)).roll(-shift, 0)
        grad_weight_hh = grad_hidden.flatten(0, 1).T @ outputs[:-1].flatten(0, 1)
        # the sum over steps and rows, (D); a product with ones is faster than ``sum``
        sums = (grad_gates.new_ones(1, time * rows) @ grad_gates.flatten(0, 1))[0]
        grad_bias_ih = sums[:width].roll(-shift)
        grad_bias_hh = sums[-width:].to(grad_memory.dtype)
        grad_weights = (grad_weight_ih, grad_weight_hh, grad_bias_ih, grad_bias_hh)
        return grad_x, *grad_weights, grad_memory, None, None, None


def _precision(x: Tensor) -> torch.dtype:
    """Return the precision of the matrix products: that of autocast if it is on, else of x."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


@compiled
def _forward_step(cell, is_relu, t, gates, product, bias, memory, outputs, kept, zoned):
    """Advance the state by one step.

    Args:
        cell: RNN, GRU or LSTM of ``kernels``.
        is_relu: Whether the activation is relu instead of tanh.
        t: The step.
        gates: (T, B, G), the products of the inputs and weight_ih, plus bias_ih; step t is
            overwritten by the values of the gates.
        product: (B, G), the product of h and the recurrent matrix weight_hh.
        bias: (G,), bias_hh.
        memory: (S, B, H), the state; updated.
        outputs: (T + 1, B, H); row t + 1 is written.
        kept: (T, B, H), values for the backward pass; row t is written. For the gru, these are
            product + bias of gate n; for the lstm, c before the step; for the rnn, there are none.
        zoned: bool (T, S, B, H), the units that keep their old value; empty without zoneout.
    """
    _, rows, size = memory.shape
    new = np.empty((2, size), memory.dtype)  # h and c after the step, before zoneout
    for row in range(rows):
        gate_row = gates[t, row]
        product_row = product[row]
        h = memory[0, row]
        if cell == GRU:
            _gru(gate_row, product_row, bias, h, kept[t, row], is_relu, new[0])
        elif cell == LSTM:
            _lstm(gate_row, product_row, bias, memory[1, row], kept[t, row], is_relu, new)
            _update(memory[1, row], new[1], zoned, t, 1, row)
        else:
            _rnn(gate_row, product_row, bias, is_relu, new[0])
        _update(h, new[0], zoned, t, 0, row)
        _narrow_all(h, outputs[t + 1, row])


@compiled
def _backward_step(
    cell,
    is_relu,
    t,
    gates,
    kept,
    outputs,
    grad_outputs,
    grad_product,
    grad_memory,
    grad_gates,
    zoned,
):
    """Move the gradient of the state one step back, and write the gradient of the gates at this
    step.

    Args:
        cell, is_relu, t: As in ``_forward_step``.
        gates, kept, outputs, zoned: As ``_forward_step`` left them.
        grad_outputs: (T, B, H), the gradient of the outputs.
        grad_product: (B, H), the gradient that h (after this step) receives through the product
            with weight_hh in the next step.
        grad_memory: (S, B, H), the gradient of the state after the step; becomes the gradient of
            the state before the step, without what h receives through the product with weight_hh
            in this step.
        grad_gates: (T, B, D); step t is written.
    """
    vectors, rows, size = grad_memory.shape
    masked = vectors if len(zoned) else 0  # number of state vectors with zoneout
    passed = np.zeros((vectors, size), grad_memory.dtype)  # see ``_pass_by``
    scratch = np.empty(size, grad_memory.dtype)  # memory that ``_lstm_backward`` needs
    for row in range(rows):
        grad_h = grad_memory[0, row]
        gate_row = gates[t, row]
        out = grad_gates[t, row]
        _add_gradients(grad_h, grad_product[row], grad_outputs[t, row])
        for vector in range(masked):
            _pass_by(grad_memory[vector, row], zoned[t, vector, row], passed[vector])
        if cell == GRU:
            _gru_backward(grad_h, gate_row, outputs[t, row], kept[t, row], is_relu, out)
        elif cell == LSTM:
            _lstm_backward(
                grad_h, grad_memory[1, row], gate_row, kept[t, row], is_relu, out, scratch
            )
        else:
            _rnn_backward(grad_h, outputs[t + 1, row], is_relu, out)
        for vector in range(masked):
            add(passed[vector], grad_memory[vector, row])


@inner
def _rnn(gates, product, bias, is_relu, new):
    """Write the new h. ``gates`` is the product of the input plus its bias."""
    for j in range(len(new)):
        new[j] = _activate(wide(gates[j]) + wide(product[j]) + bias[j], is_relu)


@inner
def _rnn_backward(grad_h, output, is_relu, grad_gates):
    """Write the gradient of the gates. ``grad_h`` is the gradient of h after the step. It becomes
    zero, since h before the step has an effect only through the product with the recurrent matrix,
    whose gradient the caller adds.
    """
    for j in range(len(grad_h)):
        grad_gates[j] = narrow(grad_h[j] * _derivative(wide(output[j]), is_relu), grad_gates[j])
    grad_h[:] = ZERO


@inner
def _gru(gates, product, bias, h, kept, is_relu, new):
    """Write the new h. ``gates``, the product of the input plus its bias, is overwritten by the
    values of the gates; ``kept`` gets product + bias of gate n.
    """
    size = len(h)
    r, z, n = _thirds(gates, size)
    _sigmoid_gate(gates[: 2 * size], product, bias)  # r and z
    for j in range(size):
        kept[j] = narrow(wide(product[2 * size + j]) + bias[2 * size + j], kept[j])
    for j in range(size):
        n[j] = narrow(_activate(wide(n[j]) + wide(r[j]) * wide(kept[j]), is_relu), n[j])
    for j in range(size):
        new[j] = wide(n[j]) + wide(z[j]) * (h[j] - wide(n[j]))


@inner
def _gru_backward(grad_h, gates, before, kept, is_relu, grad_gates):
    """Write the gradient of the gates. ``before`` is h before the step. ``grad_h`` is the gradient
    of h after the step; it becomes the part of the gradient of h before the step that does not pass
    through the recurrent matrix.
    """
    size = len(grad_h)
    r, z, n = _thirds(gates, size)
    grad_n_input, grad_r, grad_z, grad_n_hidden = _quarters(grad_gates, size)
    for j in range(size):
        slope = (ONE - wide(z[j])) * _derivative(wide(n[j]), is_relu)
        grad_n_input[j] = narrow(grad_h[j] * slope, grad_n_input[j])
    for j in range(size):
        slope = (wide(before[j]) - wide(n[j])) * wide(z[j]) * (ONE - wide(z[j]))
        grad_z[j] = narrow(grad_h[j] * slope, grad_z[j])
    for j in range(size):
        grad_n_hidden[j] = narrow(wide(grad_n_input[j]) * wide(r[j]), grad_n_hidden[j])
    for j in range(size):
        grad_r[j] = narrow(wide(grad_n_hidden[j]) * wide(kept[j]) * (ONE - wide(r[j])), grad_r[j])
    for j in range(size):
        grad_h[j] *= wide(z[j])


@inner
def _lstm(gates, product, bias, c, kept, is_relu, new):
    """Write the new h and c to ``new[0]`` and ``new[1]``. ``gates``, the product of the input plus
    its bias, is overwritten by the values of the gates; ``kept`` gets the old c.
    """
    size = len(c)
    i, f, g, o = _quarters(gates, size)
    h_new = new[0]
    c_new = new[1]
    _sigmoid_gate(gates[: 2 * size], product, bias)  # i and f
    _sigmoid_gate(o, product[3 * size :], bias[3 * size :])
    _activation_gate(g, product[2 * size :], bias[2 * size :], is_relu)
    _narrow_all(c, kept)
    for j in range(size):
        c_new[j] = wide(f[j]) * c[j] + wide(i[j]) * wide(g[j])
    for j in range(size):
        h_new[j] = wide(o[j]) * _activate(c_new[j], is_relu)


@inner
def _lstm_backward(grad_h, grad_c, gates, before, is_relu, grad_gates, activated):
    """Write the gradient of the gates. ``grad_h`` and ``grad_c`` are the gradients of h and c after
    the step. They become those of h and c before the step, without the part of h that passes
    through the recurrent matrix, so ``grad_h`` becomes zero. ``before`` is c before the step;
    ``activated``, (H), is memory for the activation of c.
    """
    size = len(grad_h)
    i, f, g, o = _quarters(gates, size)
    grad_i, grad_f, grad_g, grad_o = _quarters(grad_gates, size)
    for j in range(size):
        c = wide(f[j]) * wide(before[j]) + wide(i[j]) * wide(g[j])
        activated[j] = _activate(c, is_relu)
    for j in range(size):
        grad_o[j] = narrow(grad_h[j] * activated[j] * wide(o[j]) * (ONE - wide(o[j])), grad_o[j])
    for j in range(size):
        grad_c[j] += grad_h[j] * wide(o[j]) * _derivative(activated[j], is_relu)
    for j in range(size):
        grad_f[j] = narrow(grad_c[j] * wide(before[j]) * wide(f[j]) * (ONE - wide(f[j])), grad_f[j])
    for j in range(size):
        grad_i[j] = narrow(grad_c[j] * wide(g[j]) * wide(i[j]) * (ONE - wide(i[j])), grad_i[j])
    for j in range(size):
        grad_g[j] = narrow(grad_c[j] * wide(i[j]) * _derivative(wide(g[j]), is_relu), grad_g[j])
    for j in range(size):
        grad_c[j] *= wide(f[j])
    grad_h[:] = ZERO


@inlined
def _thirds(row, size):
    """Return views of the gates r, z and n of a gru, which a row holds side by side."""
    return row[:size], row[size : 2 * size], row[2 * size :]


@inlined
def _quarters(row, size):
    """Return views of four gates that a row holds side by side, as i, f, g and o of an lstm."""
    return row[:size], row[size : 2 * size], row[2 * size : 3 * size], row[3 * size :]


@inner
def _sigmoid_gate(gate, product, bias):
    """Add the product and the bias to a gate, and apply the sigmoid."""
    for j in range(len(gate)):
        gate[j] = narrow(_sigmoid(wide(gate[j]) + wide(product[j]) + bias[j]), gate[j])


@inner
def _activation_gate(gate, product, bias, is_relu):
    """Add the product and the bias to a gate, and apply the activation function."""
    for j in range(len(gate)):
        gate[j] = narrow(_activate(wide(gate[j]) + wide(product[j]) + bias[j], is_relu), gate[j])


@inner
def _narrow_all(numbers, row):
    """Write numbers to a row, rounded to its precision."""
    for j in range(len(row)):
        row[j] = narrow(numbers[j], row[j])


@inner
def _update(old, new, zoned, t, vector, row):
    """Replace the values of one vector of a text's state by the new ones. Units that are zoned out
    keep their old value. ``vector`` is 0 for h and 1 for c; ``row`` is the text.
    """
    if len(zoned) == 0:
        for j in range(len(old)):
            old[j] = new[j]
        return
    stays = zoned[t, vector, row]
    for j in range(len(old)):
        old[j] = old[j] if stays[j] else new[j]


@inner
def _add_gradients(grad_h, grad_product, grad_output):
    """Add to the gradient of h its gradients through the matrix product and through the output."""
    for j in range(len(grad_h)):
        grad_h[j] += wide(grad_product[j]) + wide(grad_output[j])


@inner
def _pass_by(grad, stays, passed):
    """Move the gradient of the zoned-out units from ``grad`` to ``passed``, and leave zeros. These
    units kept their old value, so their gradient passes by the cell and goes to the step before.
    """
    for j in range(len(grad)):
        passed[j] = grad[j] if stays[j] else ZERO
    for j in range(len(grad)):
        grad[j] -= passed[j]


@inlined
def _activate(number, is_relu):
    """Return relu or tanh of a number."""
    if is_relu:
        return ZERO if number < ZERO else number
    return _tanh(number)


@inlined
def _derivative(value, is_relu):
    """Return the derivative of the activation function where its value is ``value``."""
    if is_relu:
        return ONE if value > ZERO else ZERO
    return ONE - value * value


def _sigmoid(number):
    """Return 1 / (1 + exp(-number)), in the precision of the number. The body is empty, since only
    compiled loops call this function: numba takes its implementation from ``_make_sigmoid``.
    """


@overload(_sigmoid)
def _make_sigmoid(number):
    """Return the implementation of ``_sigmoid`` for a type of number."""
    if number == types.float32:
        return lambda number: sigmoid32(number)
    return lambda number: 1 / (1 + math.exp(-number))


def _tanh(number):
    """Return the hyperbolic tangent of a number, in its precision. The body is empty, as that of
    ``_sigmoid``.
    """


@overload(_tanh)
def _make_tanh(number):
    """Return the implementation of ``_tanh`` for a type of number."""
    if number == types.float32:
        return lambda number: tanh32(number)
    return lambda number: math.tanh(number)
