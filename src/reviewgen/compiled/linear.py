"""Matrix products for loops that generate token by token, as fast as memory allows, and activation
functions.

A matrix is stored in *panels* of 64 outputs. The sums of a panel stay in registers while its
weights are loaded once, in the order in which they are in memory (the packed layout of GotoBLAS;
Goto & van de Geijn 2008). Weights may be stored in 8 or 16 bits, with a scale for each output,
since the product for a single text waits for the weights to come from memory. Each sum adds its
inputs in order, with fused multiply-adds if the processor has them. So the result of a row does not
depend on the other rows.

Shapes: M outputs, M64 rounded up to whole panels, K inputs, R rows, P panels, S stacked matrices.
"""

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float32, Shaped
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from reviewgen.compiled.jit import compiled, inlined, reordered
from reviewgen.errors import BundleError, quoted

# number of outputs of a panel: their sums fill four registers of 512 bits, which is enough for the
# processor to begin other additions while it waits for the result of one
PANEL = 64
# number of rows that share a pass over a panel: of 32 registers, 16 hold their sums and 4 weights
GROUP = 4
ALIGNMENT = 64  # bytes, a cache line
LOWEST = np.float32(-87.0)  # not far below this, exp is no longer a normal float32
HIGHEST = np.float32(88.72283)  # above this, exp is infinite in float32
LOG2_E = np.float32(1.4426950408889634)
LN2_HIGH = np.float32(0.693359375)  # most of ln 2, in few bits (Cody & Waite)
LN2_LOW = np.float32(-2.12194440e-4)  # the rest of ln 2
SHIFT = np.float32(1.5 * 2**23)  # adding and subtracting this rounds a number to an integer
ONE = np.float32(1)
HALF = np.float32(0.5)
TWO = np.float32(2)
ZERO = np.float32(0)
INFINITY = np.float32(np.inf)
# coefficients of Taylor's series of exp, whose error is below 1e-8 up to ln(2) / 2
C3 = np.float32(1 / 6)
C4 = np.float32(1 / 24)
C5 = np.float32(1 / 120)
C6 = np.float32(1 / 720)
C7 = np.float32(1 / 5040)
EIGHTEEN = np.float32(18)
SMALLEST = np.float32(1.17549435e-38)  # the smallest normal float32
HALF_ROOT_BITS = np.int32(0x3F3504F3)  # the bits of sqrt(1/2)
MANTISSA = np.int32(0x007FFFFF)  # a mask of the bits of the mantissa
# coefficients of a polynomial for (log(1 + x) - x + x ** 2 / 2) / x ** 3: Moshier 1989, Cephes
# ``logf``
L0 = np.float32(3.3333331174e-1)
L1 = np.float32(-2.4999993993e-1)
L2 = np.float32(2.0000714765e-1)
L3 = np.float32(-1.6668057665e-1)
L4 = np.float32(1.4249322787e-1)
L5 = np.float32(-1.2420140846e-1)
L6 = np.float32(1.1676998740e-1)
L7 = np.float32(-1.1514610310e-1)
L8 = np.float32(7.0376836292e-2)

Bits: TypeAlias = Literal[32, 16, 8]
"""Bits of a stored weight. The product for a single text waits for the weights to come from memory.
If they do not fit in the processor's second-level cache, 8 bits are two to three times as fast as
32. 8 bits round each weight to a multiple of 1/127 of its output's largest weight; 16 bits are
nearly exact.
"""


class Matrix(NamedTuple):
    """A matrix in panels. The weight of input k in output 64 p + m is
    ``panels[p, k, m] * scales[64 p + m]``.

    Zeros pad the last panel. Compiled loops take the two arrays as arguments. Matrices of one shape
    may be stacked along leading axes.
    """

    panels: Shaped[np.ndarray, "*S P K 64"]  # float32, int16 or int8
    scales: Float32[np.ndarray, "*S M64"]


def pack(weights: Float32[np.ndarray, "*S M K"], bits: Bits = 32) -> Matrix:
    """Store a matrix, or a stack of matrices, in panels.

    Args:
        weights: The matrix. Each row has the weights of one output, as in torch.
        bits: 32 keeps the weights. 16 and 8 round each weight to a multiple of 1/32767 or 1/127 of
            its output's largest weight.

    >>> out = np.zeros((1, 64), np.float32)
    >>> weight = pack(np.array([[1, 2], [3, 4]], np.float32))
    >>> add_product(*weight, np.array([[1, 10]], np.float32), out)
    >>> out[0, :3].tolist()
    [21.0, 43.0, 0.0]
    """
    *stack, outputs, inputs = weights.shape
    panels = -(-outputs // PANEL)  # rounded up
    scales = np.ones((*stack, panels * PANEL), np.float32)
    dtype = np.dtype({32: "float32", 16: "int16", 8: "int8"}[bits])
    if bits < 32:
        weights, scales[..., :outputs] = quantize(weights, bits)
    padded = np.zeros((*stack, panels * PANEL, inputs), dtype)
    padded[..., :outputs, :] = weights
    packed = _aligned((*stack, panels, inputs, PANEL), dtype)
    packed[...] = np.swapaxes(padded.reshape(*stack, panels, PANEL, inputs), -1, -2)
    return Matrix(packed, scales)


def quantize(
    weights: Float32[np.ndarray, "*S M K"], bits: int
) -> tuple[Float32[np.ndarray, "*S M K"], Float32[np.ndarray, "*S M"]]:
    """Round weights to integers of ``bits`` bits. Return these, and for each row the scale by which
    they must be multiplied.

    >>> [array.tolist() for array in quantize(np.array([[1, -127], [0, 0]], np.float32), 8)]
    [[[1.0, -127.0], [0.0, 0.0]], [1.0, 1.0]]
    """
    scales = np.abs(weights).max(axis=-1, initial=0) / np.float32(2 ** (bits - 1) - 1)
    scales = np.where(scales > 0, scales, ONE)
    return np.rint(weights / scales[..., None]), scales


def refuse_non_finite(tensors: Mapping[str, np.ndarray]) -> None:
    """Raise unless all tensors of a model are finite.

    Raises:
        BundleError: A tensor holds NaN or infinity.
    """
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise BundleError(
                f"The tensor {quoted(name)} holds NaN or infinity, so the model cannot be used."
                " Train it again."
            )


def copy_tensors(tensors: Mapping[str, np.ndarray]) -> dict[str, Float32[np.ndarray, "..."]]:
    """Return copies of the tensors of a model, as float32.

    Raises:
        BundleError: A tensor holds NaN or infinity.
    """
    refuse_non_finite(tensors)
    return {name: np.array(tensor, np.float32) for name, tensor in tensors.items()}


def _aligned(shape, dtype):
    """Return an uninitialised array that starts at a cache line. A row of a panel then spans as few
    cache lines as possible.
    """
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


def _make_tile(rows):
    """Return a function, the innermost loop of a product for ``rows`` rows. It is built from LLVM
    instructions, since numba has no vector types.
    """

    @intrinsic
    def tile(typing, panel, scales, inputs, outputs, row, column):
        """Multiply a panel, (K, 64), by ``inputs[row : row + rows]``, apply the scales, and add the
        result to 64 columns of ``outputs[row : row + rows]``.
        """

        def generate(context, builder, signature, arguments):
            """Emit the instructions; numba calls this when it compiles a call of ``tile``."""
            return _build_tile(context, builder, signature, arguments, rows)

        return types.void(panel, scales, inputs, outputs, types.intp, types.intp), generate

    return tile


def _build_tile(context, builder, signature, arguments, rows):
    """Emit the instructions of ``tile`` in ``_make_tile``, with a vector for the outputs of a
    panel.

    ``context``, ``builder``, ``signature`` and ``arguments`` are what numba gives to an intrinsic.
    """
    panel, scales, inputs, outputs = (
        context.make_array(array)(context, builder, value)
        for array, value in zip(signature.args[:4], arguments[:4], strict=True)
    )
    row, column = arguments[4:]
    element = context.get_data_type(signature.args[0].dtype)
    vector = ir.VectorType(ir.FloatType(), PANEL)
    stored = ir.VectorType(element, PANEL)
    fused_type = ir.FunctionType(vector, [vector] * 3)
    # a function that computes a * b + c
    fused = cgutils.get_or_insert_function(builder.module, fused_type, f"llvm.fmuladd.v{PANEL}f32")
    length = builder.extract_value(panel.shape, 0)  # K
    width = builder.extract_value(inputs.shape, 1)  # elements from one row to the next
    stride = builder.extract_value(outputs.shape, 1)  # the same for the outputs
    # one vector of sums for each row, which LLVM keeps in registers
    sums = [cgutils.alloca_once_value(builder, ir.Constant(vector, None)) for _ in range(rows)]
    # where the inputs of each row begin
    starts = [builder.mul(builder.add(row, ir.Constant(row.type, r)), width) for r in range(rows)]
    # for each input k: sums[r] += weights[k] * inputs[row + r, k]
    with cgutils.for_range(builder, length) as loop:
        weights = _load(
            builder, panel.data, builder.mul(loop.index, ir.Constant(row.type, PANEL)), stored
        )
        if element != ir.FloatType():  # integers of 8 or 16 bits
            weights = builder.sitofp(
                builder.sext(weights, ir.VectorType(ir.IntType(32), PANEL)), vector
            )
        for r in range(rows):
            number = builder.load(builder.gep(inputs.data, [builder.add(starts[r], loop.index)]))
            # ``spread`` is a vector with this number in all its elements
            first = builder.insert_element(
                ir.Constant(vector, ir.Undefined), number, ir.Constant(ir.IntType(32), 0)
            )
            spread = builder.shuffle_vector(
                first, first, ir.Constant(ir.VectorType(ir.IntType(32), PANEL), [0] * PANEL)
            )
            builder.store(builder.call(fused, [weights, spread, builder.load(sums[r])]), sums[r])
    # outputs[row + r] += sums[r] * scales
    scale = _load(builder, scales.data, column, vector)
    for r in range(rows):
        offset = builder.add(
            builder.mul(builder.add(row, ir.Constant(row.type, r)), stride), column
        )
        total = builder.call(
            fused, [builder.load(sums[r]), scale, _load(builder, outputs.data, offset, vector)]
        )
        builder.store(total, _pointer(builder, outputs.data, offset, vector), align=4)
    return context.get_dummy_value()


def _pointer(builder, data, offset, vector):
    """Return the address of the vector that begins at an element of an array."""
    return builder.bitcast(builder.gep(data, [offset]), vector.as_pointer())


def _load(builder, data, offset, vector):
    """Load the vector that begins at an element of an array."""
    # a vector may begin at any element; without ``align``, in bytes, LLVM would assume that it
    # begins at a multiple of its own size
    return builder.load(
        _pointer(builder, data, offset, vector), align=1 if vector.element == ir.IntType(8) else 2
    )


_one_row = _make_tile(1)
_two_rows = _make_tile(2)
_three_rows = _make_tile(3)
_row_group = _make_tile(GROUP)


@compiled
def add_product(panels, scales, inputs, outputs):
    """Multiply a matrix by R rows, and add the products to ``outputs``.

    Args:
        panels, scales: The fields of a Matrix, (P, K, 64) and (64 P,).
        inputs: float32 (R, K), C-contiguous; further columns are ignored.
        outputs: float32 (R, 64 P), C-contiguous; updated.
    """
    rest = len(inputs) % GROUP
    whole = len(inputs) - rest  # number of rows in whole groups
    for panel in range(len(panels)):
        weights = panels[panel]
        column = panel * PANEL
        for row in range(0, whole, GROUP):
            _row_group(weights, scales, inputs, outputs, row, column)
        if rest == 1:
            _one_row(weights, scales, inputs, outputs, whole, column)
        elif rest == 2:
            _two_rows(weights, scales, inputs, outputs, whole, column)
        elif rest == 3:
            _three_rows(weights, scales, inputs, outputs, whole, column)


@reordered
def add_up(numbers):
    """Return the sum of numbers, (K,)."""
    total = 0.0
    for j in range(len(numbers)):
        total += numbers[j]
    return total


@inlined
def _split(number):
    """Return an integer n and e ** r - 1, such that number = n ln 2 + r and abs(r) <= ln(2) / 2."""
    shifted = number * LOG2_E + SHIFT
    n = shifted - SHIFT
    rest = number - n * LN2_HIGH - n * LN2_LOW
    series = ((((C7 * rest + C6) * rest + C5) * rest + C4) * rest + C3) * rest + HALF
    return np.int32(n), series * rest * rest + rest


@inlined
def exp32(number):
    """Return e to the power of a float32, with a relative error of 1e-7. The result is 0 below -87
    and infinity above 88.72283. Vectorises in a loop.
    """
    # comparisons instead of ``max`` and ``min``, so that NaN stays NaN
    raised = LOWEST if number < LOWEST else number
    clipped = HIGHEST if number > HIGHEST else raised
    n, expm1_rest = _split(clipped)
    # 2 ** (n - 1): n may be 128, and 2 ** 128 is not a float32
    half_power = np.int32((n + np.int32(126)) << np.int32(23)).view(np.float32)
    power = TWO * (half_power * expm1_rest + half_power)
    result = ZERO if number < LOWEST else power
    return INFINITY if number > HIGHEST else result


@inlined
def log32(number):
    """Return the natural logarithm of a float32, with a relative error of 2e-7. The result is -inf
    below 1.2e-38, and NaN for NaN. Vectorises in a loop.
    """
    bits = np.int32(np.float32(number).view(np.int32) - HALF_ROOT_BITS)
    # number = (1 + x) 2 ** exponent, sqrt(1/2) <= 1 + x < sqrt(2)
    exponent = np.float32(np.int32(bits >> np.int32(23)))
    x = np.int32(np.int32(bits & MANTISSA) + HALF_ROOT_BITS).view(np.float32) - ONE
    series = ((((L8 * x + L7) * x + L6) * x + L5) * x + L4) * x + L3
    series = ((series * x + L2) * x + L1) * x + L0
    square = x * x
    result = x + (exponent * LN2_LOW + (series * x * square - HALF * square)) + exponent * LN2_HIGH
    of_small = number if number != number else -INFINITY  # NaN stays NaN
    return result if number >= SMALLEST else of_small


@inlined
def sigmoid32(number):
    """Return 1 / (1 + exp(-number)) of a float32, with a relative error of 2e-7. Vectorises in a
    loop.
    """
    return ONE / (ONE + exp32(-number))


@inlined
def tanh32(number):
    """Return tanh of a float32, with a relative error of 2e-7. Vectorises in a loop.

    The error is as small near zero, since e^(2x) - 1 is computed directly, not as a difference of
    rounded numbers.
    """
    two_x = number + number
    # if 2x is above 18 or below -18, tanh x rounds to 1 or -1
    raised = -EIGHTEEN if two_x < -EIGHTEEN else two_x
    clipped = EIGHTEEN if two_x > EIGHTEEN else raised
    n, expm1_rest = _split(clipped)
    power = np.int32((n + np.int32(127)) << np.int32(23)).view(np.float32)  # 2 ** n
    expm1 = power * expm1_rest + (power - ONE)  # e^(2x) - 1
    # tanh x = (e^(2x) - 1) / (e^(2x) + 1)
    return expm1 / (expm1 + TWO)
