"""Copies a model to a device. Needs torch."""

import copy

import torch
from torch import nn

from reviewgen.errors import ConfigError, first_line, quoted
from reviewgen.protocols import LanguageModel


def copy_to(device: str, model: LanguageModel, weight_bits: int) -> LanguageModel:
    """Return a copy of a model on an accelerator.

    Args:
        device: Its name, as in "cuda", "cuda:1" or "mps".
        model: The model.
        weight_bits: The bits of a weight during generation.

    Raises:
        ConfigError: The device is not available, or the model cannot be moved to it.
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{type(model).__name__} models generate and score on the CPU only: leave out the device {device}.")
    if weight_bits != 32:
        raise ConfigError(f"{weight_bits}-bit weights are for the CPU: leave out weight_bits or the device {device}.")
    here = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    known = ["cpu"] if here is None else ["cpu", here.type]
    if device.split(":")[0] not in known:
        raise ConfigError(f"The device {quoted(device)} is not available: PyTorch has {' and '.join(known)} here.")
    try:
        on_device: LanguageModel = copy.deepcopy(model).to(device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:  # of torch, or of a plugin's deepcopy
        raise ConfigError(f"The model cannot be copied to the device {device}: {first_line(error)}") from None
    return on_device


def place_of(model: LanguageModel, device: str) -> str:
    """Return the device of a model with its number, as in "cuda:0": the device that a bare "cuda" means may change later."""
    assert isinstance(model, nn.Module)
    parameter = next(model.parameters(), None)
    return device if parameter is None or parameter.device.index is None else str(parameter.device)
