"""Compiled steps: how one loop runs the models of any plugin, also several at once.

A *step* is a compiled function that feeds a token to each of R texts and writes the logits after
it. All steps have the same signature, and get their weights by address. So a loop that calls steps
is compiled only once, for all models::

    @by_address
    def step(weights, ids, floats, ints, logits):
        model = weights[0]  # the named tuple that CompiledStep was created with
        ...

The arguments, for R texts that are stepped, out of B texts that the state has; V64 is the
vocabulary size rounded up to a multiple of 64; S, W and K are chosen by the model:

    weights    the address of the weights
    ids        int64 (R,), the token to feed to each text; empty before the first token is sampled,
               to get logits without feeding a token
    floats     float32 (S, B, W), the state of B texts; the step updates the first R; W may be
               larger than the model needs
    ints       int64 (K, B), the rest of the state
    logits     float32 (R, V64); written; columns from the vocabulary size on are ignored. The step
               of a model that mixes an expert in (``reviewgen.protocols.SupportsExpertForward``)
               first reads the expert's logits from it, with ids and without
"""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

# the types of ids, floats, ints and logits
_ARRAYS = types.int64[::1], types.float32[:, :, ::1], types.int64[:, ::1], types.float32[:, ::1]
_IS_COMPILED = not numba.config.DISABLE_JIT  # type: ignore[attr-defined]  # else the loops run as Python


class CompiledStep:
    """The addresses of a step and of its weights. The object keeps both in memory.

    Args:
        step: The function, decorated with ``by_address``. It is compiled now, or its machine code
            is loaded from disk.
        weights: A named tuple of C-contiguous arrays, integers, floats, None, and such tuples.
        parts: The steps that this step calls; they are kept in memory, too.

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
        self._kept = step, weights, tuple(parts)  # their memory must not be freed
        if not _IS_COMPILED:
            self.function = step
            self.weights = (weights,)  # as in compiled code, a step finds the tuple at weights[0]
            return
        pointer_type = types.CPointer(numba.typeof(weights))
        dispatcher: Any = step
        result = dispatcher.get_compile_result(types.void(pointer_type, *_ARRAYS))
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
    """Return two arrays, int64 (M,): the addresses of the functions of M steps, and those of their
    weights. If the loops run as Python, return the objects themselves in two tuples.
    """
    functions = tuple(step.function for step in steps)
    weights = tuple(step.weights for step in steps)
    if not _IS_COMPILED:
        return functions, weights
    return np.array(functions), np.array(weights)


def _words(value: Any) -> list[int]:
    """Return a value as the 64-bit words that numba's compiled code expects in memory.

    An array becomes: owner (0, since CompiledStep keeps the array in memory), parent, size, bytes
    of an element, address, shape and strides. This is numba's ``arystruct_t``.
    """
    if isinstance(value, tuple):
        return list(chain.from_iterable(map(_words, value)))
    if isinstance(value, np.ndarray):
        return [0, 0, value.size, value.itemsize, value.ctypes.data, *value.shape, *value.strides]
    if isinstance(value, float):
        return [int(np.float64(value).view(np.int64))]
    return [0 if value is None else int(value)]


def _call_in_python(function: Any, *arguments: Any) -> None:
    """Call a step that is not compiled."""
    function(*arguments)


@intrinsic
def _call_compiled(typing, function, weights, ids, floats, ints, logits):
    """Call a step by its address."""

    def generate(context, builder, signature, arguments):
        """Emit the call of the function at an address."""
        argument_types = [context.get_value_type(kind) for kind in signature.args[1:]]
        step_type = ir.FunctionType(context.get_value_type(types.none), argument_types)
        step = builder.inttoptr(arguments[0], step_type.as_pointer())
        builder.call(step, arguments[1:])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, *_ARRAYS), generate


call_step: Any = _call_compiled if _IS_COMPILED else _call_in_python
"""Call a step. The arguments are the addresses of its function and its weights, then the arrays
``ids``, ``floats``, ``ints`` and ``logits``.
"""
