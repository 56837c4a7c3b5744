"""What a layer does at one time step beside its matrix product, forwards and backwards, compiled. It knows arrays, no settings.

Numbers are of any ``precision``. Each loop writes to one row and reads from few: only then does the compiler find that
rows do not overlap, and use the processor's vectors.

Shapes: T time, B rows side by side, H hidden, G gates times H, P parts of a state (the lstm's are h and c). The gradient of the
gates has D columns, which are G; the gru's are 4 H: its candidate's gradient stands in front as the input's product has it, and
at the end as the state's product has it, scaled by the reset gate. So the first G columns, rolled by H, are the input's, and the
last G are the state's.
"""

import math

import numpy as np
from numba import types
from numba.extending import overload

from reviewgen.compiled import compiled, inlined
from reviewgen.compiled.linear import sigmoid32, tanh32
from reviewgen.compiled.precision import narrow, wide
from reviewgen_recurrent.kernels import GRU, LSTM, add

__all__ = ["backward_step", "forward_step"]

ZERO, ONE = np.float32(0), np.float32(1)


@compiled
def forward_step(cell, is_relu, t, gates, product, bias, memory, outputs, kept, zoned):
    """Move the memory one step on.

    Args:
        gates: (T, B, G), the products of the inputs; written: the values of the gates.
        product: (B, G), that of the state.
        bias: (G,), the state's.
        memory: (P, B, H); written.
        outputs: (T + 1, B, H), of which t + 1 is written.
        kept: (T, B, H), what the way back needs besides: the gru's candidate product, the lstm's c before the step.
        zoned: Bools (T, P, B, H), or none: what stays as it is.
    """
    _, rows, size = memory.shape
    new = np.empty((2, size), memory.dtype)
    for row in range(rows):
        g, p, h = gates[t, row], product[row], memory[0, row]
        if cell == GRU:
            _gru(g, p, bias, h, kept[t, row], is_relu, new[0])
        elif cell == LSTM:
            _lstm(g, p, bias, memory[1, row], kept[t, row], is_relu, new)
            _settle(memory[1, row], new[1], zoned, t, 1, row)
        else:
            _rnn(g, p, bias, is_relu, new[0])
        _settle(h, new[0], zoned, t, 0, row)
        _narrow_all(h, outputs[t + 1, row])


@compiled
def backward_step(cell, is_relu, t, gates, kept, outputs, of_outputs, of_product, of_memory, of_gates, zoned):
    """Move the gradient of the memory one step back, (P, B, H), and write that of the gates, (T, B, D).

    Args:
        gates, kept, outputs, zoned: As ``forward_step`` left them.
        of_outputs: (T, B, H), the gradient of the outputs.
        of_product: (B, H), that of the step after this one which passes through its matrix.
    """
    parts, rows, size = of_memory.shape
    held, spare = np.zeros((parts, size), of_memory.dtype), np.empty(size, of_memory.dtype)
    for row in range(rows):
        d, g, out = of_memory[0, row], gates[t, row], of_gates[t, row]
        _gather(d, of_product[row], of_outputs[t, row])
        for part in range(parts if len(zoned) else 0):
            _hold(of_memory[part, row], zoned[t, part, row], held[part])
        if cell == GRU:
            _gru_back(d, g, outputs[t, row], kept[t, row], is_relu, out)
        elif cell == LSTM:
            _lstm_back(d, of_memory[1, row], g, kept[t, row], is_relu, out, spare)
        else:
            _rnn_back(d, outputs[t + 1, row], is_relu, out)
        for part in range(parts if len(zoned) else 0):
            add(held[part], of_memory[part, row])


@compiled
def _rnn(gates, product, bias, is_relu, new):
    for j in range(len(new)):
        new[j] = _squash(wide(gates[j]) + wide(product[j]) + bias[j], is_relu)


@compiled
def _rnn_back(d, output, is_relu, of_gates):
    for j in range(len(d)):
        of_gates[j] = narrow(d[j] * _slope(wide(output[j]), is_relu), of_gates[j])
    d[:] = ZERO


@compiled
def _gru(gates, product, bias, h, kept, is_relu, new):
    size = len(h)
    reset, update, candidate = gates[:size], gates[size : 2 * size], gates[2 * size :]
    _open(reset, product[:size], bias[:size])
    _open(update, product[size : 2 * size], bias[size : 2 * size])
    _add_bias(product[2 * size :], bias[2 * size :], kept)
    for j in range(size):
        candidate[j] = narrow(_squash(wide(candidate[j]) + wide(reset[j]) * wide(kept[j]), is_relu), candidate[j])
    for j in range(size):
        new[j] = wide(candidate[j]) + wide(update[j]) * (h[j] - wide(candidate[j]))


@compiled
def _gru_back(d, gates, before, kept, is_relu, of_gates):
    size = len(d)
    reset, update, candidate = gates[:size], gates[size : 2 * size], gates[2 * size :]
    of_input, of_reset = of_gates[:size], of_gates[size : 2 * size]
    of_update, of_hidden = of_gates[2 * size : 3 * size], of_gates[3 * size :]
    for j in range(size):
        slope = (ONE - wide(update[j])) * _slope(wide(candidate[j]), is_relu)
        of_input[j] = narrow(d[j] * slope, of_input[j])
    for j in range(size):
        slope = (wide(before[j]) - wide(candidate[j])) * wide(update[j]) * (ONE - wide(update[j]))
        of_update[j] = narrow(d[j] * slope, of_update[j])
    for j in range(size):
        of_hidden[j] = narrow(wide(of_input[j]) * wide(reset[j]), of_hidden[j])
    for j in range(size):
        of_reset[j] = narrow(wide(of_hidden[j]) * wide(kept[j]) * (ONE - wide(reset[j])), of_reset[j])
    for j in range(size):
        d[j] *= wide(update[j])


@compiled
def _lstm(gates, product, bias, c, kept, is_relu, new):
    size = len(c)
    first, forget, candidate, last = gates[:size], gates[size : 2 * size], gates[2 * size : 3 * size], gates[3 * size :]
    h_new, c_new = new[0], new[1]
    _open(first, product[:size], bias[:size])
    _open(forget, product[size : 2 * size], bias[size : 2 * size])
    _open(last, product[3 * size :], bias[3 * size :])
    _close(candidate, product[2 * size : 3 * size], bias[2 * size : 3 * size], is_relu)
    _narrow_all(c, kept)
    for j in range(size):
        c_new[j] = wide(forget[j]) * c[j] + wide(first[j]) * wide(candidate[j])
    for j in range(size):
        h_new[j] = wide(last[j]) * _squash(c_new[j], is_relu)


@compiled
def _lstm_back(d, dc, gates, before, is_relu, of_gates, shown):
    size = len(d)
    first, forget, candidate, last = gates[:size], gates[size : 2 * size], gates[2 * size : 3 * size], gates[3 * size :]
    of_first, of_forget = of_gates[:size], of_gates[size : 2 * size]
    of_candidate, of_last = of_gates[2 * size : 3 * size], of_gates[3 * size :]
    for j in range(size):
        c = wide(forget[j]) * wide(before[j]) + wide(first[j]) * wide(candidate[j])
        shown[j] = _squash(c, is_relu)
    for j in range(size):
        of_last[j] = narrow(d[j] * shown[j] * wide(last[j]) * (ONE - wide(last[j])), of_last[j])
    for j in range(size):
        dc[j] += d[j] * wide(last[j]) * _slope(shown[j], is_relu)
    for j in range(size):
        of_forget[j] = narrow(dc[j] * wide(before[j]) * wide(forget[j]) * (ONE - wide(forget[j])), of_forget[j])
    for j in range(size):
        of_first[j] = narrow(dc[j] * wide(candidate[j]) * wide(first[j]) * (ONE - wide(first[j])), of_first[j])
    for j in range(size):
        of_candidate[j] = narrow(dc[j] * wide(first[j]) * _slope(wide(candidate[j]), is_relu), of_candidate[j])
    for j in range(size):
        dc[j] *= wide(forget[j])
    d[:] = ZERO


@compiled
def _open(gate, product, bias):
    for j in range(len(gate)):
        gate[j] = narrow(_sigmoid(wide(gate[j]) + wide(product[j]) + bias[j]), gate[j])


@compiled
def _close(gate, product, bias, is_relu):
    for j in range(len(gate)):
        gate[j] = narrow(_squash(wide(gate[j]) + wide(product[j]) + bias[j], is_relu), gate[j])


@compiled
def _add_bias(product, bias, total):
    for j in range(len(total)):
        total[j] = narrow(wide(product[j]) + bias[j], total[j])


@compiled
def _narrow_all(numbers, row):
    for j in range(len(row)):
        row[j] = narrow(numbers[j], row[j])


@compiled
def _settle(old, new, zoned, t, part, row):
    """Let the new numbers take the place of the old ones, but where these are zoned out."""
    if len(zoned) == 0:
        for j in range(len(old)):
            old[j] = new[j]
        return
    stays = zoned[t, part, row]
    for j in range(len(old)):
        old[j] = old[j] if stays[j] else new[j]


@compiled
def _gather(d, of_product, of_output):
    for j in range(len(d)):
        d[j] += wide(of_product[j]) + wide(of_output[j])


@compiled
def _hold(d, stays, held):
    """Take the gradient of what stayed as it was away from the cell's."""
    for j in range(len(d)):
        held[j] = d[j] if stays[j] else ZERO
    for j in range(len(d)):
        d[j] -= held[j]


@inlined
def _squash(number, is_relu):
    return (ZERO if number < ZERO else number) if is_relu else _tanh(number)


@inlined
def _slope(value, is_relu):
    """Return the slope of the squashing function where it has a value."""
    return (ONE if value > ZERO else ZERO) if is_relu else ONE - value * value


def _sigmoid(number):
    """Return 1 / (1 + exp(-number))."""


@overload(_sigmoid)
def _make_sigmoid(number):
    if number == types.float32:
        return lambda number: sigmoid32(number)
    return lambda number: 1 / (1 + math.exp(-number))


def _tanh(number):
    """Return tanh of a number."""


@overload(_tanh)
def _make_tanh(number):
    return (lambda number: tanh32(number)) if number == types.float32 else (lambda number: math.tanh(number))
