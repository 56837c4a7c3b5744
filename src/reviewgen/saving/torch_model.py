"""Builds the torch model of a saved folder from its class, config and tensors. Needs torch."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from reviewgen.errors import BundleError, first_line
from reviewgen.protocols.migration import read_saved_config
from reviewgen.protocols.model import LanguageModel
from reviewgen.protocols.stepper import TensorSpec
from reviewgen.registry.metadata import Plugin
from reviewgen.registry.plugins import find_model
from reviewgen.saving.layout import CONFIG, WEIGHTS
from reviewgen.saving.tensors import SavedTensors


def read_model(
    saved: SavedTensors, plugin: Plugin, settings: Mapping[str, Any], version: str
) -> LanguageModel:
    """Check the tensors of a saved folder against its config, and build the model.

    Args:
        saved: The tensors of the folder.
        plugin: The model's plugin.
        settings: The model's config, as JSON values.
        version: The version of the plugin that saved the model.

    Raises:
        BundleError: The tensors do not match the config.
    """
    model_class, _ = find_model(plugin)
    config = read_saved_config(model_class.Config, settings, version)
    expected = _tensor_specs(model_class, config)
    mapped = saved.load(expected, load_file)
    # Copied, since the tensors are mapped from the file: if the file is truncated later, reading
    # them would crash the process.
    tensors = {
        key: tensor.to(getattr(torch, expected[key][0]), copy=True)
        for key, tensor in mapped.items()
    }
    return _build(model_class, config, tensors)


def build_model(plugin: Plugin, config: Any, arrays: Mapping[str, np.ndarray]) -> LanguageModel:
    """Build a model from arrays that were already checked against its config.

    Raises:
        BundleError: The model's ``load_state_dict`` rejects the arrays.
    """
    model_class, _ = find_model(plugin)
    tensors = {key: torch.from_numpy(array.copy()) for key, array in arrays.items()}
    return _build(model_class, config, tensors)


def _build(model_class: Any, config: Any, tensors: Mapping[str, Tensor]) -> LanguageModel:
    """Build a model in evaluation mode; the errors are those of ``build_model``."""
    model: LanguageModel = model_class(config)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:  # raised by torch for tensors that do not match
        raise BundleError(f"{WEIGHTS} does not match the model: {first_line(error)}") from None
    if isinstance(model, nn.Module):
        model.eval()
    return model


def _tensor_specs(model_class: Any, config: Any) -> dict[str, TensorSpec]:
    """Return the dtype and shape of each tensor of a model, without allocating memory for it.
    Arrays of a model that was trained by counting may have any size, since their sizes depend on
    the corpus.
    """
    try:
        with torch.device("meta"):
            tensors: dict[str, Tensor] = model_class(config).state_dict()
    except (RuntimeError, OverflowError) as error:  # raised by torch for sizes beyond 64 bits
        raise BundleError(
            f"No model can be built from the config in {CONFIG}: {first_line(error)}"
        ) from None
    is_module = issubclass(model_class, nn.Module)
    return {
        name: (
            str(tensor.dtype).removeprefix("torch."),
            tuple(tensor.shape) if is_module else (None,) * tensor.dim(),
        )
        for name, tensor in tensors.items()
    }
