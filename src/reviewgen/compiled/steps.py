"""Compiled steps: how one loop runs the models of any plugin, and several of them at once.

A *step* is a compiled function that feeds a token to each of R texts and writes the logits after
it. Every step has the same signature, and gets its weights by their address. So a loop that calls
steps is compiled once, for all models::

    @by_address
    def step(weights, ids, floats, ints, logits):
        model = weights[0]  # the named tuple that CompiledStep was created with
        ...

Shapes: R texts that are stepped, B >= R texts, V64 the vocabulary size rounded up to a multiple of
64; S, W and K as the model needs.

    weights    the address of the weights
    ids        int64 (R,), the token to feed to each text; empty to feed none, which happens before
               the first token is sampled
    floats     float32 (S, B, W), the state of B texts, of which the step updates the first R; W may
               be larger than it needs
    ints       int64 (K, B), the rest of the state
    logits     float32 (R, V64), written; what is behind the vocabulary is ignored
"""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

# ids, floats, ints, logits
_ARRAYS = types.int64[::1], types.float32[:, :, ::1], types.int64[:, ::1], types.float32[:, ::1]
_IS_COMPILED = not numba.config.DISABLE_JIT  # type: ignore[attr-defined]  # else the loops run as Python


class CompiledStep:
    """A step with its weights; it keeps them in memory.

    Args:
        step: The function, decorated with ``by_address``; it is compiled now, or read from the
            disk.
        weights: A named tuple of C-contiguous arrays, whole numbers, floats, None, and such tuples.
        parts: The steps that this one calls, which it keeps in memory, too.

    Attributes:
        function: The address of the function.
        weights: The address of the weights.
    """

    function: Any
    weights: Any

    def __init__(
        self,
        step: Callable[..., None],
        weights: tuple[Any, ...],
        parts: Sequence["CompiledStep"] = (),
    ) -> None:
        self._kept = step, weights, tuple(parts)
        if not _IS_COMPILED:
            self.function = step
            self.weights = (weights,)
            return
        pointer = types.CPointer(numba.typeof(weights))
        compiled: Any = step
        result = compiled.get_compile_result(types.void(pointer, *_ARRAYS))
        self._memory = np.array(_words(weights), np.int64)
        self.function = result.library.get_pointer_to_function(
            result.fndesc.llvm_cfunc_wrapper_name
        )
        if not self.function:
            raise TypeError(
                f"{step.__name__} has no address: decorate it with reviewgen.compiled.by_address."
            )
        self.weights = self._memory.ctypes.data


def addresses(steps: Sequence[CompiledStep]) -> tuple[Any, Any]:
    """Return the functions of some steps and their weights, as compiled code takes them: two
    arrays, int64 (M,).
    """
    functions = tuple(step.function for step in steps)
    weights = tuple(step.weights for step in steps)
    return (np.array(functions), np.array(weights)) if _IS_COMPILED else (functions, weights)


def _words(value: Any) -> list[int]:
    """Return a value in 64-bit words, as numba's compiled code has it in memory.

    An array is owner (none: CompiledStep keeps it in memory), parent, size, bytes of an element,
    address, shape and strides: ``arystruct_t`` of numba.
    """
    if isinstance(value, tuple):
        return list(chain.from_iterable(map(_words, value)))
    if isinstance(value, np.ndarray):
        return [0, 0, value.size, value.itemsize, value.ctypes.data, *value.shape, *value.strides]
    if isinstance(value, float):
        return [int(np.float64(value).view(np.int64))]
    return [0 if value is None else int(value)]


def _call_in_python(
    function: Any, weights: Any, ids: Any, floats: Any, ints: Any, logits: Any
) -> None:
    function(weights, ids, floats, ints, logits)


@intrinsic
def _call_compiled(typing, function, weights, ids, floats, ints, logits):
    """Call a step by its address."""

    def generate(context, builder, signature, arguments):
        """Emit the call of the function at an address."""
        kinds = [context.get_value_type(kind) for kind in signature.args[1:]]
        kind = ir.FunctionType(context.get_value_type(types.none), kinds)
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, *_ARRAYS), generate


call_step: Any = _call_compiled if _IS_COMPILED else _call_in_python
"""Call a step, given the addresses of its function and its weights, and the other arguments."""
