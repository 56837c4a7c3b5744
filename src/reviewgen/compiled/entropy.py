"""Cross entropy of rows of logits and its gradient in one walk, without a table of probabilities beside them."""

import math

import numpy as np

from reviewgen.compiled import compiled
from reviewgen.compiled.linear import exp32
from reviewgen.compiled.precision import narrow, wide

__all__ = ["cross_entropy_and_gradient"]

BLOCK = 32  # sums side by side, which a processor adds up at once
NEAR, FAR = 1e-30, 1e30


@compiled
def cross_entropy_and_gradient(logits, targets, scale, gradient):
    """Return the sum of the losses of rows of logits, and write its gradient.

    Args:
        logits: (N, V), float32, or bfloat16 as uint16.
        targets: int64 (N,), below V; a negative one is none.
        scale: float32, what the gradient is multiplied with.
        gradient: (N, V) like the logits; written.
    """
    powers = np.empty((logits.shape[1] + BLOCK - 1) // BLOCK * BLOCK, np.float32)
    total = 0.0
    for row in range(len(logits)):
        if targets[row] < 0:
            _clear(gradient[row])
            continue
        shift = np.float32(0)
        found = _raise_all(logits[row], shift, powers)
        if not NEAR < found < FAR:  # as logits a hundred from zero make it: measure them from the largest
            shift = _largest(logits[row])
            found = _raise_all(logits[row], shift, powers)
        factor = scale / found
        _shrink(powers, factor, gradient[row])
        target = targets[row]
        gradient[row, target] = narrow(powers[target] * factor - scale, gradient[row, target])
        total += math.log(found) + float(shift) - float(wide(logits[row, target]))
    return total


@compiled
def _raise_all(logits, shift, powers):
    """Write e to each logit less a shift, and return the sum."""
    for j in range(len(logits)):
        powers[j] = exp32(wide(logits[j]) - shift)
    powers[len(logits) :] = 0
    sums = np.zeros(BLOCK, np.float32)
    for start in range(0, len(powers), BLOCK):
        for j in range(BLOCK):
            sums[j] += powers[start + j]
    found = np.float32(0)
    for j in range(BLOCK):
        found += sums[j]
    return found


@compiled
def _largest(logits):
    found = wide(logits[0])
    for j in range(len(logits)):
        found = max(found, wide(logits[j]))
    return found


@compiled
def _shrink(powers, scale, row):
    for j in range(len(row)):
        row[j] = narrow(powers[j] * scale, row[j])


@compiled
def _clear(row):
    for j in range(len(row)):
        row[j] = 0
