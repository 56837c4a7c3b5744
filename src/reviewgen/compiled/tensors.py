"""Compiled loops over the memory of torch's tensors: mixed precision, and cross entropy with its
gradient in one pass.

``as_array`` gives a loop access to the memory of a tensor. float32 and float64 stay as they are;
bfloat16, which numpy does not have, is seen as uint16. A loop converts values that it loads with
``wide`` (bfloat16 to float32), and values that it stores with ``narrow`` (back to the stored
precision).
"""

import math

import numpy as np
import torch
from numba import types
from numba.extending import overload
from torch import Tensor

from reviewgen.compiled.jit import compiled, inlined, inner
from reviewgen.compiled.linear import exp32

PRECISIONS = (torch.float32, torch.bfloat16, torch.float64)
"""The dtypes that ``as_array`` supports."""

# bfloat16 keeps the upper 16 bits of a float32; this is just below half a unit of its last bit
HALF_ULP = np.uint32(0x7FFF)
BIT = np.uint32(1)
SIXTEEN = np.uint32(16)
BLOCK = 32  # number of partial sums; they do not wait for each other, so the loop vectorises
MIN_SUM = 1e-30  # below this sum of exponentials, float32 may underflow
MAX_SUM = 1e30  # above this sum of exponentials, float32 may overflow


def as_array(tensor: Tensor) -> np.ndarray:
    """Return an array that shares the memory of a CPU tensor; a bfloat16 tensor becomes a uint16
    array.
    """
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.view(torch.uint16)
    return tensor.detach().numpy()


@inlined
def _rounded(number):
    """Return the bits of a number as bfloat16."""
    bits = np.float32(number).view(np.uint32)
    # round to nearest; a tie is rounded up only if the last bit that stays is 1, that is, to even
    return np.uint16((bits + HALF_ULP + ((bits >> SIXTEEN) & BIT)) >> SIXTEEN)


def wide(number):
    """Convert a stored number to the precision for computing. Works in compiled code only."""


@overload(wide)
def _make_wide(number):
    """Return what numba compiles for ``wide`` if ``number`` has a given type, its argument here."""
    if number == types.uint16:
        return lambda number: np.uint32(np.uint32(number) << SIXTEEN).view(np.float32)
    return lambda number: number


def narrow(number, like):
    """Convert a number to the stored precision of ``like``. Works in compiled code only."""


@overload(narrow)
def _make_narrow(number, like):
    """Return what numba compiles for ``narrow`` if the arguments have the given types."""
    if like == types.uint16:
        return lambda number, like: _rounded(number)
    return lambda number, like: number


@compiled
def cross_entropy_and_gradient(logits, targets, scale, gradient):
    """Return the sum of the cross entropies (nats) of N rows of logits, and write the gradient.

    Args:
        logits: (N, V), float32, or bfloat16 as uint16.
        targets: int64 (N,), at most V - 1; rows with a negative target are ignored.
        scale: float32, a factor by which the gradient is multiplied.
        gradient: (N, V), of the same type as the logits; written.
    """
    # V rounded up to whole blocks
    powers = np.empty((logits.shape[1] + BLOCK - 1) // BLOCK * BLOCK, np.float32)
    total = 0.0
    for row in range(len(logits)):
        if targets[row] < 0:
            gradient[row, :] = 0
            continue
        shift, exp_sum = _exp_all(logits[row], powers)
        factor = scale / exp_sum
        # the gradient is scale * softmax, and at the target scale * (softmax - 1)
        _scale_all(powers, factor, gradient[row])
        target = targets[row]
        gradient[row, target] = narrow(powers[target] * factor - scale, gradient[row, target])
        total += math.log(exp_sum) + float(shift) - float(wide(logits[row, target]))
    return total


@compiled
def target_losses(logits, targets, losses):
    """Write the cross entropy (nats) of each of N rows of logits.

    Args:
        logits: (N, V), float32 or float64, or bfloat16 as uint16.
        targets: int64 (N,), from 0 to V - 1.
        losses: float32 (N,); written.
    """
    powers = np.empty((logits.shape[1] + BLOCK - 1) // BLOCK * BLOCK, np.float32)
    for row in range(len(logits)):
        shift, exp_sum = _exp_all(logits[row], powers)
        losses[row] = math.log(exp_sum) + float(shift) - float(wide(logits[row, targets[row]]))


@inner
def _exp_all(logits, powers):
    """Write exp(logit - shift) of each logit, (V,), to ``powers``, (V rounded up to whole blocks,).
    Return the shift and the sum of the exponentials.

    The shift is zero, or the largest logit if the sum would be too small or too large for float32.
    """
    shift = np.float32(0)
    exp_sum = _exp_shifted(logits, shift, powers)
    if not MIN_SUM < exp_sum < MAX_SUM:
        shift = np.float32(wide(logits[0]))
        for j in range(len(logits)):
            shift = max(shift, np.float32(wide(logits[j])))
        exp_sum = _exp_shifted(logits, shift, powers)
    return shift, exp_sum


@inner
def _exp_shifted(logits, shift, powers):
    """Write exp(logit - shift) of each logit to ``powers``, and zeros to the rest of its last
    block. Return the sum of the exponentials.
    """
    for j in range(len(logits)):
        powers[j] = exp32(np.float32(wide(logits[j]) - shift))
    powers[len(logits) :] = 0
    sums = np.zeros(BLOCK, np.float32)
    for start in range(0, len(powers), BLOCK):
        for j in range(BLOCK):
            sums[j] += powers[start + j]
    total = np.float32(0)
    for j in range(BLOCK):
        total += sums[j]
    return total


@inner
def _scale_all(powers, scale, row):
    """Write each power, multiplied by ``scale``, to ``row``, (V,), in the precision of the row."""
    for j in range(len(row)):
        row[j] = narrow(powers[j] * scale, row[j])
