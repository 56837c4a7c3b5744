"""The device that generates and scores a table of texts: the one that accelerate selects, for a model that gains by it."""

import logging

import torch

from reviewgen.config import check_text
from reviewgen.errors import ConfigError
from reviewgen.model import ReviewModel
from reviewgen.registry import find_model

_logger = logging.getLogger("reviewgen")


def move(model: ReviewModel, device: str) -> None:
    """Move a model to a device.

    Args:
        model: The model. One that is on an accelerator already stays there if the device is "auto".
        device: "auto", or a device of torch. "auto" is the device that accelerate selects if the model is a network that is
            suited for it and has 32-bit weights, else the CPU.

    Raises:
        ConfigError: The device is not available, or the model cannot be moved to it.
        ProcessLost: The processes of a launcher cannot be connected.
    """
    check_text("device", device)
    if device != "auto":
        model.to(device)
        return
    if model.device != "cpu" or model.weight_bits != 32 or not torch.accelerator.is_available():
        return
    model_class, _ = find_model(model.bundle.model_plugin.name)
    if not issubclass(model_class, torch.nn.Module):
        return
    from reviewgen.processes import process_state
    from reviewgen.training import choose_device  # accelerate, half a second

    if process_state().device.type != "cpu":
        try:
            model.to(choose_device("auto", model_class)[0])
        except ConfigError as error:
            _logger.warning("%s The CPU computes instead.", error)
