"""The tensors of a saved model: their header is compared with the tensors that its config implies, before any is read.

A float32 tensor may be saved as float16, and a float32 matrix as int8 beside a scale for each row, in the tensor
``<name>.scale``: weight i, j is ``matrix[i, j] * scale[i]``. Both are converted back when they are read.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from reviewgen.bundle.layout import WEIGHTS
from reviewgen.errors import BundleError
from reviewgen.protocols import TensorSpec

__all__ = ["SCALE", "check_tensors", "unscale"]

SCALE = ".scale"
"""The end of the name of an int8 matrix's scales, (rows,) float32."""


def check_tensors(folder: Path, expected: Mapping[str, TensorSpec]) -> None:
    """Compare the header of the weights with what a model expects, before any tensor is read.

    Raises:
        BundleError: A tensor is missing, extra, or has another dtype or shape.
    """
    with safe_open(folder / WEIGHTS, framework="numpy") as tensors:
        names = set(tensors.keys())
        scaled = [name for name in expected if name in names and _is_scaled(tensors.get_slice(name).get_dtype(), expected, name)]
        stored = {**expected, **{name + SCALE: ("float32", expected[name][1][:1]) for name in scaled}}
        if names != set(stored):
            missing, extra = sorted(set(stored) - names), sorted(names - set(stored))
            raise BundleError(
                f"{WEIGHTS} does not match its config: missing tensors {_few(missing)}; unknown tensors {_few(extra)}."
            )
        for name, (dtype, shape) in stored.items():
            part = tensors.get_slice(name)
            saved_shape, saved_dtype = tuple(part.get_shape()), part.get_dtype()
            fits = len(saved_shape) == len(shape) and all(
                size in (None, saved) for size, saved in zip(shape, saved_shape, strict=True)
            )
            narrower = ("int8",) if name in scaled else ("float16",) if name in expected and dtype == "float32" else ()
            if not fits or DTYPES.get(saved_dtype) not in (dtype, *narrower):
                sizes = ["any" if size is None else size for size in shape]
                raise BundleError(
                    f"{name} in {WEIGHTS} is {saved_dtype} {list(saved_shape)}; its config requires {dtype} {sizes}."
                )


def _is_scaled(saved_dtype: str, expected: Mapping[str, TensorSpec], name: str) -> bool:
    """Return whether a tensor is an int8 matrix with a scale for each row."""
    dtype, shape = expected[name]
    return saved_dtype == "I8" and dtype == "float32" and len(shape) == 2 and name + SCALE not in expected


def unscale(saved: Mapping[str, Any], expected: Mapping[str, TensorSpec]) -> dict[str, Any]:
    """Return the tensors or arrays of a model, in which int8 matrices are multiplied by their scales."""
    return {
        name: saved[name] * saved[name + SCALE][:, None]
        if name + SCALE in saved and name + SCALE not in expected
        else saved[name]
        for name in expected
    }


DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "BOOL": "bool",
}
"""The dtypes of safetensors, by their names in numpy and torch."""


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more if names else "none"
