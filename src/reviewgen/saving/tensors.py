"""The tensors of a saved model. Before any tensor is read, the header of the file is compared with
the tensors that the model's config implies.

A float32 tensor may be saved as float16. A float32 matrix may also be saved as int8, with one scale
for each row in the tensor ``<name>.scale``: weight i, j is ``matrix[i, j] * scale[i]``. Reading
converts both forms back to float32. Tied weights are stored once: the metadata of the file maps
each further name of a tensor to the stored name, in the format of ``safetensors.torch.save_model``.
A blend of installed models may read its tensors from the files of these models.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open

from reviewgen.errors import BundleError, shortened
from reviewgen.protocols.stepper import TensorSpec
from reviewgen.registry.plugins import find_weights
from reviewgen.saving.layout import WEIGHTS
from reviewgen.storage import digest_of, dtype_name

_MAX_NAMES = 150  # maximum characters for the names of tensors in a message
_MAX_WEIGHT = 1e9  # sums of products of two weights up to this stay far below the largest float32

FORMAT = "format"
"""The only key in a file's metadata that is not the name of a tensor; its value is "pt"."""

SCALE = ".scale"
"""The suffix of the name of the tensor with the scales of an int8 matrix, (rows,) float32."""

# the stored name, the dtype and the shape of a tensor
_Header = tuple[str, str, tuple[int, ...]]


@dataclass(frozen=True)
class SavedTensors:
    """The tensors of a saved model. They are in one file, or for a blend that shares installed
    weights, in the files of these weights.

    Attributes:
        files: The path of each file, by the prefix that is put before the names of its tensors.
        rename: The names of tensors in this library, by their names in the file.
    """

    files: Mapping[str, Path]
    rename: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def find(cls, folder: Path, shared: Mapping[str, str]) -> "SavedTensors":
        """Find the files that hold the tensors of a saved folder.

        Args:
            folder: The folder.
            shared: For a blend without a weights file of its own: the presets whose installed
                weights it uses, one for each component, and the SHA-256 of each weights file.

        Raises:
            BundleError: The weights of a preset are not installed, or are not the ones that the
                blend was made from.
        """
        files = {}
        for number, (preset, digest) in enumerate(shared.items()):
            installed = find_weights(preset)
            # without installed weights, a file that does not exist, since the blend has none
            file = (installed or folder) / WEIGHTS
            if not file.is_file() or digest_of(file) != digest:
                problem = (
                    "differ from those it was made of" if file.is_file() else "are not installed"
                )
                raise BundleError(
                    f"This blend uses the weights that ship with {ascii(preset)[:60]}, which"
                    f" {problem}."
                )
            files[f"{number}."] = file
        return cls(files or {"": folder / WEIGHTS})

    def load(
        self, expected: Mapping[str, TensorSpec], load_file: Callable[[Path], Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Return the tensors that a model expects, after a check of their headers. Matrices that
        are stored as int8 are multiplied by their scales.

        Args:
            expected: The dtype and shape of each tensor, by name.
            load_file: The function that reads a file: ``load_file`` of ``safetensors.numpy`` or of
                ``safetensors.torch``.

        Raises:
            BundleError: A tensor is missing, extra, or has another dtype or shape; or a weight is
                NaN, infinite or implausibly large.
        """
        scaled = self._check(expected)
        saved = self.load_as_stored(load_file)
        _check_values(saved)
        return {
            name: saved[name] * saved[name + SCALE][:, None] if name in scaled else saved[name]
            for name in expected
        }

    def load_as_stored(self, load_file: Callable[[Path], Mapping[str, Any]]) -> dict[str, Any]:
        """Return the tensors by name, as they are stored, without a conversion. A tied tensor is
        returned under each of its names.
        """
        stored: dict[str, Any] = {}
        for prefix, file in self.files.items():
            stored |= {prefix + name: tensor for name, tensor in load_file(file).items()}
        return {name: stored[key] for name, (key, _, _) in self._read_headers().items()}

    def _read_headers(self) -> dict[str, _Header]:
        """Return the header of each tensor by its name, without reading the tensors. A tied tensor,
        and its scales, are listed under each of its names.
        """
        headers: dict[str, _Header] = {}
        for prefix, file in self.files.items():
            with safe_open(file, framework="numpy") as tensors:
                slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 it is not a mapping
                metadata = tensors.metadata() or {}
            stored_names: dict[str, str] = {}  # by the name in the model
            # the metadata of another program may have keys that are not names of tensors
            for tied_name, stored_name in metadata.items():
                if tied_name == FORMAT or stored_name not in slices:
                    continue
                stored_names[tied_name] = stored_name
                scale = stored_name + SCALE
                if scale in slices and slices[stored_name].get_dtype() == "I8":
                    stored_names.setdefault(tied_name + SCALE, scale)
            stored_names |= {name: name for name in slices}
            for name, stored_name in stored_names.items():
                headers[self.rename.get(prefix + name, prefix + name)] = (
                    prefix + stored_name,
                    dtype_name(slices[stored_name].get_dtype()),
                    tuple(slices[stored_name].get_shape()),
                )
        return headers

    def _check(self, expected: Mapping[str, TensorSpec]) -> set[str]:
        """Check the headers, and return the names of the matrices that are stored as int8 with
        scales. Raises the errors of ``load``.
        """
        headers = self._read_headers()
        scaled = set()
        stored = dict(expected)  # the tensors that the file should have
        for name, (dtype, shape) in expected.items():
            is_matrix = dtype == "float32" and len(shape) == 2
            # a matrix cannot be int8 if the model itself has a tensor with the name of its scales
            if not is_matrix or name + SCALE in expected:
                continue
            if name in headers and headers[name][1] == "int8":  # the dtype in the file
                scaled.add(name)
                stored[name + SCALE] = ("float32", shape[:1])
        if headers.keys() != stored.keys():
            missing = sorted(stored.keys() - headers.keys())
            extra = sorted(headers.keys() - stored.keys())
            raise BundleError(
                f"{WEIGHTS} does not match its config: missing tensors {_list(missing)}; unknown"
                f" tensors {_list(extra)}."
            )
        for name, (dtype, shape) in stored.items():
            _, saved_dtype, saved_shape = headers[name]
            accepted = {dtype}
            if name in scaled:
                accepted.add("int8")
            elif name in expected and dtype == "float32":
                accepted.add("float16")
            has_shape = len(shape) == len(saved_shape) and all(
                size in (None, saved) for size, saved in zip(shape, saved_shape, strict=True)
            )
            if saved_dtype not in accepted or not has_shape:
                sizes = ["any" if size is None else size for size in shape]
                raise BundleError(
                    f"{name} in {WEIGHTS} is {saved_dtype} {list(saved_shape)}; its config requires"
                    f" {dtype} {sizes}."
                )
        return scaled


def _list(names: list[str]) -> str:
    return shortened(", ".join(names) or "none", _MAX_NAMES)


def _check_values(tensors: Mapping[str, Any]) -> None:
    """Raise if a weight is NaN, infinite, or so large that sums of products could overflow."""
    for name, tensor in tensors.items():
        if "float" in str(tensor.dtype) and math.prod(tensor.shape):
            largest = max(abs(float(tensor.max())), abs(float(tensor.min())))
            if not largest <= _MAX_WEIGHT:
                raise BundleError(
                    f"{name} in {WEIGHTS} is damaged: it has weights of {largest:.3g}; at most"
                    f" {_MAX_WEIGHT:.0e} is plausible."
                )
