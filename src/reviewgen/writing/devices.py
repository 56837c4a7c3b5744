"""The device that generates and scores a table of texts: the one that accelerate selects, for a model that gains by it."""

import torch

from reviewgen.model import ReviewModel

__all__ = ["device_type", "move"]


def device_type(model: ReviewModel) -> str:
    """Return the type of the device that a model is on, as in "cuda", which decides how it rounds."""
    return model.device.split(":")[0]


def move(model: ReviewModel, device: str) -> None:
    """Move a model to a device.

    Args:
        model: The model. One that is on an accelerator already stays there if the device is "auto".
        device: "auto", or a device of torch. "auto" is the device that accelerate selects if the model is a network that is
            suited for it and has 32-bit weights, else the CPU.

    Raises:
        ConfigError: There is no such device, or the model cannot be there.
        ProcessLost: The processes of a launcher cannot be connected.
    """
    if device != "auto":
        model.to(device)
        return
    if not torch.accelerator.is_available():
        return
    from reviewgen.training import choose_device, process_state  # accelerate, half a second

    available = process_state().device
    if available.type == "cpu" or model.device != "cpu" or model.weight_bits != 32:
        return
    network = model.bundle.model
    if isinstance(network, torch.nn.Module):
        model.to(str(choose_device("auto", network)[0]))
