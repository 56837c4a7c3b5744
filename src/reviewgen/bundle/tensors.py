"""Compares the header of a saved model's tensors with the tensors that its config implies.

A float32 tensor may be saved as float16; it is converted back when it is read.
"""

from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open

from reviewgen.bundle.layout import WEIGHTS
from reviewgen.errors import BundleError
from reviewgen.protocols import TensorSpec

__all__ = ["NARROWER_DTYPES", "check_tensors"]

NARROWER_DTYPES = {"float32": "float16"}
"""The narrower dtype that tensors of a dtype may be saved in, to halve the file."""


def check_tensors(folder: Path, expected: Mapping[str, TensorSpec]) -> None:
    """Compare the header of the weights with what a model expects, before any tensor is read.

    Raises:
        BundleError: A tensor is missing, extra, or has another dtype or shape.
    """
    with safe_open(folder / WEIGHTS, framework="numpy") as tensors:
        names = set(tensors.keys())
        if names != set(expected):
            missing, extra = sorted(set(expected) - names), sorted(names - set(expected))
            raise BundleError(
                f"{WEIGHTS} does not match its config: missing tensors {_few(missing)}; unknown tensors {_few(extra)}."
            )
        for name, (dtype, shape) in expected.items():
            part = tensors.get_slice(name)
            saved_shape, saved_dtype = tuple(part.get_shape()), part.get_dtype()
            fits = len(saved_shape) == len(shape) and all(
                size in (None, saved) for size, saved in zip(shape, saved_shape, strict=True)
            )
            if not fits or DTYPES.get(saved_dtype) not in (dtype, NARROWER_DTYPES.get(dtype)):
                sizes = ["any" if size is None else size for size in shape]
                raise BundleError(
                    f"{name} in {WEIGHTS} is {saved_dtype} {list(saved_shape)}; its config requires {dtype} {sizes}."
                )


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
