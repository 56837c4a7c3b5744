"""Numbers of any precision in compiled loops: float32 and float64 as they are, bfloat16, of which numpy knows nothing, as uint16.

A loop widens what it reads with ``wide``, bfloat16 to float32, and rounds what it writes with ``narrow``.
"""

import numpy as np
from numba import types
from numba.extending import overload

from reviewgen.compiled import inlined

__all__ = ["narrow", "wide"]

HALF_ULP, BIT, SIXTEEN = np.uint32(0x7FFF), np.uint32(1), np.uint32(16)


@inlined
def _rounded(number):
    bits = np.float32(number).view(np.uint32)
    return np.uint16((bits + HALF_ULP + ((bits >> SIXTEEN) & BIT)) >> SIXTEEN)  # to the nearest, to the even one of two


def wide(number):
    """Return a number that was read as one to compute with; to be compiled."""


@overload(wide)
def _make_wide(number):
    if number == types.uint16:
        return lambda number: np.uint32(np.uint32(number) << SIXTEEN).view(np.float32)
    return lambda number: number


def narrow(number, like):
    """Return a number as one to be written where ``like`` stands; to be compiled."""


@overload(narrow)
def _make_narrow(number, like):
    if like == types.uint16:
        return lambda number, like: _rounded(number)
    return lambda number, like: number
