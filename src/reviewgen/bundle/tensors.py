"""The header of a saved model's tensors, compared with what its config asks for.

Numbers of 32 bits may be saved in 16; what reads them widens them again.
"""

from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open

from reviewgen.bundle.layout import WEIGHTS
from reviewgen.errors import BundleError
from reviewgen.protocols import TensorSpec

__all__ = ["NARROWER", "check_tensors"]

NARROWER = {"float32": "float16"}
"""What numbers may be saved as, to take half the room."""


def check_tensors(folder: Path, expected: Mapping[str, TensorSpec]) -> None:
    """Compare the header of the weights with what a model expects, before any tensor is read.

    Raises:
        BundleError: A tensor is missing, extra, or has another dtype or shape.
    """
    with safe_open(folder / WEIGHTS, framework="numpy") as tensors:
        names = set(tensors.keys())
        if names != set(expected):
            missing, extra = sorted(set(expected) - names), sorted(names - set(expected))
            raise BundleError(f"{WEIGHTS} does not fit its config: missing {_few(missing)}, unknown {_few(extra)}.")
        for name, (dtype, shape) in expected.items():
            part = tensors.get_slice(name)
            found, found_dtype = tuple(part.get_shape()), part.get_dtype()
            fits = len(found) == len(shape) and all(size in (None, other) for size, other in zip(shape, found, strict=True))
            if not fits or DTYPES.get(found_dtype) not in (dtype, NARROWER.get(dtype)):
                wanted = ["any" if size is None else size for size in shape]
                raise BundleError(f"{name} in {WEIGHTS} is {found_dtype} {list(found)}; its config asks for {dtype} {wanted}.")


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
"""The names of safetensors for dtypes, and those of numpy and torch."""


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more if names else "none"
