"""The tensors of a saved model: their header is compared with the tensors that its config implies, before any is read.

A float32 tensor may be saved as float16, and a float32 matrix as int8 beside a scale for each row, in the tensor
``<name>.scale``: weight i, j is ``matrix[i, j] * scale[i]``. Both are converted back when they are read. Tied weights are one
tensor of the file: its metadata maps each further name to the name that is stored, as ``safetensors.torch.save_model`` writes it.
A blend of installed weights may share their files.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from reviewgen.bundle.layout import WEIGHTS
from reviewgen.errors import BundleError
from reviewgen.protocols import TensorSpec
from reviewgen.registry import find_weights

_MAX_WEIGHT = 1e9  # a sum of products of two stays far below the largest float32

FORMAT = "format"
"""The key of a file's metadata that is not a tensor's name; its value is "pt"."""

SCALE = ".scale"
"""The end of the name of an int8 matrix's scales, (rows,) float32."""


@dataclass(frozen=True)
class SavedTensors:
    """The tensors of a saved model, in one file; or of a blend, in the files of its parts' installed weights.

    Attributes:
        files: Each file, by a prefix of the names of its tensors.
    """

    files: Mapping[str, Path]

    @classmethod
    def find(cls, folder: Path, parts: Mapping[str, str]) -> "SavedTensors":
        """Return the tensors of a saved folder.

        Args:
            folder: The folder.
            parts: For a blend without a file of its own: the preset of each part, whose installed weights it shares, and the
                SHA-256 of their file.

        Raises:
            BundleError: The weights of a preset are not installed, or are not those that the blend was made of.
        """
        files = {f"{number}.": _installed_file(preset, digest) for number, (preset, digest) in enumerate(parts.items())}
        return cls(files or {"": folder / WEIGHTS})

    def load(self, expected: Mapping[str, TensorSpec], load_file: Callable[[Path], Mapping[str, Any]]) -> dict[str, Any]:
        """Return the tensors that a model expects, after their headers were compared with it; int8 matrices are scaled.

        Args:
            expected: The dtype and shape of each tensor.
            load_file: Reads a file: that of ``safetensors.numpy`` or ``safetensors.torch``.

        Raises:
            BundleError: A tensor is missing, extra, or has another dtype or shape.
        """
        self._check(expected)
        saved = self.load_as_stored(load_file)
        _check_values(saved)
        return {
            name: saved[name] * saved[name + SCALE][:, None]
            if name + SCALE in saved and name + SCALE not in expected
            else saved[name]
            for name in expected
        }

    def load_as_stored(self, load_file: Callable[[Path], Mapping[str, Any]]) -> dict[str, Any]:
        """Return the tensors as they are in the files, tied ones under each of their names."""
        stored = {prefix + name: tensor for prefix, file in self.files.items() for name, tensor in load_file(file).items()}
        return stored | {name: stored[kept] for name, kept in self._read_headers()[1].items()}

    def _read_headers(self) -> tuple[dict[str, tuple[str, tuple[int, ...]]], dict[str, str]]:
        """Return the dtype and shape of each stored tensor, and the further names of tied ones; no tensor is read."""
        headers: dict[str, tuple[str, tuple[int, ...]]] = {}
        names: dict[str, str] = {}
        for prefix, file in self.files.items():
            with safe_open(file, framework="numpy") as tensors:
                slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 it is not a mapping
                own = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
                tied = further_names(own, tensors.metadata() or {})
            headers |= {prefix + name: header for name, header in own.items()}
            names |= {prefix + name: prefix + kept for name, kept in tied.items()}
        return headers, names

    def _check(self, expected: Mapping[str, TensorSpec]) -> None:
        headers, names = self._read_headers()
        headers |= {name: headers[kept] for name, kept in names.items()}
        scaled = [name for name in expected if name in headers and _is_scaled(headers[name][0], expected, name)]
        stored = {**expected, **{name + SCALE: ("float32", expected[name][1][:1]) for name in scaled}}
        if headers.keys() != stored.keys():
            missing, extra = sorted(stored.keys() - headers.keys()), sorted(headers.keys() - stored.keys())
            raise BundleError(
                f"{WEIGHTS} does not match its config: missing tensors {_few(missing)}; unknown tensors {_few(extra)}."
            )
        for name, (dtype, shape) in stored.items():
            saved_dtype, saved_shape = headers[name]
            fits = len(saved_shape) == len(shape) and all(
                size in (None, saved) for size, saved in zip(shape, saved_shape, strict=True)
            )
            narrower = ("int8",) if name in scaled else ("float16",) if name in expected and dtype == "float32" else ()
            if not fits or DTYPES.get(saved_dtype) not in (dtype, *narrower):
                sizes = ["any" if size is None else size for size in shape]
                raise BundleError(
                    f"{name} in {WEIGHTS} is {saved_dtype} {list(saved_shape)}; its config requires {dtype} {sizes}."
                )


def further_names(stored: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the stored name of each name that is not stored, for tied weights.

    The scales of an int8 matrix are those of all its names.

    Args:
        stored: The dtype and shape of each tensor of a file.
        metadata: The file's metadata.
    """
    names = {name: kept for name, kept in metadata.items() if kept in stored and name not in stored and name != FORMAT}
    scales = {name + SCALE: kept + SCALE for name, kept in names.items() if stored[kept][0] == "I8" and kept + SCALE in stored}
    return names | {name: kept for name, kept in scales.items() if name not in stored}


def digest_of(file: Path) -> str:
    """Return the SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _installed_file(preset: str, digest: str) -> Path:
    folder = find_weights(preset)
    if folder is None or not (folder / WEIGHTS).is_file() or digest_of(folder / WEIGHTS) != digest:
        is_missing = folder is None or not (folder / WEIGHTS).is_file()
        problem = "are not installed" if is_missing else "are other ones than it was made of"
        raise BundleError(f"This blend uses the weights that ship with {ascii(preset)[:60]}, which {problem}.")
    return folder / WEIGHTS


def _is_scaled(saved_dtype: str, expected: Mapping[str, TensorSpec], name: str) -> bool:
    """Return whether a tensor is an int8 matrix with a scale for each row."""
    dtype, shape = expected[name]
    return saved_dtype == "I8" and dtype == "float32" and len(shape) == 2 and name + SCALE not in expected


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


def _check_values(tensors: Mapping[str, Any]) -> None:
    """Raise if a weight is NaN, infinite, or so large that sums of products overflow."""
    for name, tensor in tensors.items():
        if "float" in str(tensor.dtype) and math.prod(tensor.shape):
            largest = max(abs(float(tensor.max())), abs(float(tensor.min())))
            if not largest <= _MAX_WEIGHT:
                raise BundleError(
                    f"{name} in {WEIGHTS} is damaged: it has weights of {largest:.3g}; at most {_MAX_WEIGHT:.0e} is plausible."
                )


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more if names else "none"
