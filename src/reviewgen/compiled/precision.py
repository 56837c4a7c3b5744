"""Mixed precision in compiled loops: float32 and float64 as they are, bfloat16, which numpy does not have, as uint16.

``as_array`` gives a loop the memory of a tensor; the only function of this package for torch. A loop converts values that it
loads with ``wide`` (bfloat16 to float32), and values that it stores with ``narrow``.
"""

import numpy as np
import torch
from numba import types
from numba.extending import overload
from torch import Tensor

from reviewgen.compiled.jit import inlined

PRECISIONS = (torch.float32, torch.bfloat16, torch.float64)
"""The dtypes that ``precision`` supports."""

HALF_ULP, BIT, SIXTEEN = np.uint32(0x7FFF), np.uint32(1), np.uint32(16)


def as_array(tensor: Tensor) -> np.ndarray:
    """Return an array that shares the memory of a CPU tensor; bfloat16 as uint16."""
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()


@inlined
def _rounded(number):
    bits = np.float32(number).view(np.uint32)
    return np.uint16((bits + HALF_ULP + ((bits >> SIXTEEN) & BIT)) >> SIXTEEN)  # to nearest, ties to even


def wide(number):
    """Return a stored number in the precision to compute with; only in compiled code."""


@overload(wide)
def _make_wide(number):
    if number == types.uint16:
        return lambda number: np.uint32(np.uint32(number) << SIXTEEN).view(np.float32)
    return lambda number: number


def narrow(number, like):
    """Return a number in the stored precision of ``like``; only in compiled code."""


@overload(narrow)
def _make_narrow(number, like):
    if like == types.uint16:
        return lambda number, like: _rounded(number)
    return lambda number, like: number
