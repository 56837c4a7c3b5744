"""The torch form of a saved model: built from its class and its tensors. This file of the room needs torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from reviewgen.bundle.layout import CONFIG, WEIGHTS
from reviewgen.bundle.tensors import check_tensors
from reviewgen.config import from_dict
from reviewgen.errors import BundleError
from reviewgen.protocols import LanguageModel, TensorSpec
from reviewgen.registry import find_model

__all__ = ["build_model", "read_model"]


def read_model(folder: Path, name: str, settings: Mapping[str, Any]) -> LanguageModel:
    """Return a saved model; it is built only after its tensors were found to fit its config.

    Raises:
        BundleError: They do not fit.
    """
    kind, _ = find_model(name)
    config = from_dict(kind.Config, settings)
    expected = _expect(kind, config)
    check_tensors(folder, expected)
    tensors = load_file(folder / WEIGHTS)
    return _fill(kind, config, {name: tensor.to(getattr(torch, expected[name][0])) for name, tensor in tensors.items()})


def build_model(name: str, config: Any, arrays: Mapping[str, np.ndarray]) -> LanguageModel:
    """Return a model from arrays that were found to fit its config.

    Raises:
        BundleError: The model's own look at them finds a fault.
    """
    kind, _ = find_model(name)
    return _fill(kind, config, {key: torch.from_numpy(array.copy()) for key, array in arrays.items()})


def _fill(kind: Any, config: Any, tensors: Mapping[str, Tensor]) -> LanguageModel:
    model: LanguageModel = kind(config)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:  # torch's word on tensors that do not fit
        raise BundleError(f"{WEIGHTS} does not fit the model: {_first_line(error)}") from None
    if isinstance(model, nn.Module):
        model.eval()
    return model


def _expect(kind: Any, config: Any) -> dict[str, TensorSpec]:
    """Return the form of a model's tensors, without the memory for them; the sizes of counts are only known after counting."""
    try:
        with torch.device("meta"):
            tensors: dict[str, Tensor] = kind(config).state_dict()
    except (RuntimeError, OverflowError) as error:  # torch's word on sizes that no machine can count
        raise BundleError(f"No model can be built from the config in {CONFIG}: {_first_line(error)}") from None
    is_module = issubclass(kind, nn.Module)
    return {
        name: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape) if is_module else (None,) * tensor.dim())
        for name, tensor in tensors.items()
    }


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(line.strip() for line in lines[:3])
