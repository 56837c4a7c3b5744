"""Initial weights of a new model from tensors of another source: a safetensors file that the user gives, and what is recorded."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from reviewgen.errors import BrokenPlugin, ConfigError, quoted
from reviewgen.inputs import is_pipe
from reviewgen.model.layout import digest_of
from reviewgen.protocols import LanguageModel, SupportsInitialWeights
from reviewgen.storage import to_path


@dataclass(frozen=True)
class InitialWeights:
    """A safetensors file whose tensors a new model starts from.

    Attributes:
        file: The file.
        digest: Its SHA-256.
    """

    file: Path
    digest: str

    @classmethod
    def find(cls, file: Any, model_class: type, name: str) -> "InitialWeights":
        """Return the file that the user has given, after its header was read.

        Args:
            file: A path.
            model_class: The class of the model.
            name: The name of the preset.

        Raises:
            ConfigError: The file is missing or is not a safetensors file, or the model cannot use it.
        """
        path = to_path("initial_weights", file)
        if not issubclass(model_class, SupportsInitialWeights):
            raise ConfigError(f"{name} cannot start from tensors of another source: leave out initial_weights.")
        if is_pipe(path):
            raise ConfigError(f"initial_weights must be a file, and {path} is a pipe or a device. Save the tensors in a file.")
        try:
            with safe_open(path, framework="numpy"):
                pass
            return cls(path, digest_of(path))
        except SafetensorError:
            raise ConfigError(
                f"initial_weights must be a safetensors file, and {path.name} is not one; a pickle (.pt, .bin) is never read, as "
                "it could run code. Save its tensors with safetensors.torch.save_file."
            ) from None
        except OSError as error:
            reason = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
            raise ConfigError(f"initial_weights={quoted(str(path))} cannot be read: {reason}.") from None

    def facts(self, tensors: list[str]) -> dict[str, Any]:
        """Return what is recorded: the name of the file without its folder, its SHA-256, and the tensors of the model."""
        return {"file": self.file.name, "sha256": self.digest, "tensors": tensors}


def set_initial_weights(model: LanguageModel, weights: InitialWeights) -> list[str]:
    """Copy the tensors of a file into a new model; return the names of the model's tensors that have changed.

    Raises:
        ConfigError: A tensor has another shape than the model's, or no place in it.
        BrokenPlugin: The model names a tensor that it does not have.
    """
    assert isinstance(model, SupportsInitialWeights), "checked when the plan was made"
    name, state = weights.file.name, model.state_dict()
    try:
        given = dict(model.initial_weights(load_file(weights.file)))
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"{name} does not fit the model: {error}") from None
    if not given:
        raise ConfigError(f"{name} has no tensor that this model can start from.")
    _check(given, state, type(model).__name__, name)
    model.load_state_dict(state | {key: tensor.to(state[key].dtype) for key, tensor in given.items()})
    return list(given)


def _check(given: Mapping[str, Tensor], state: Mapping[str, Tensor], model: str, file: str) -> None:
    """Raise unless all tensors have the names, the shapes and the kind of numbers of the model's, and are finite."""
    for key, tensor in given.items():
        if key not in state:
            raise BrokenPlugin(f"{model}.initial_weights returns {quoted(key)}, which is not one of the model's tensors.")
        if tensor.shape != state[key].shape:
            sizes = " x ".join(map(str, tensor.shape)), " x ".join(map(str, state[key].shape))
            raise ConfigError(
                f"The tensor {key} of {file} has the shape {sizes[0]}, and that of the model {sizes[1]}: set the model's sizes "
                "and the tokenizer's vocabulary size to match, or give another file."
            )
        if tensor.is_floating_point() != state[key].is_floating_point() or not torch.isfinite(tensor).all():
            raise ConfigError(
                f"The tensor {key} of {file} has another dtype than the model's, or is not finite. Give another file."
            )
