"""The two forms of a trained model: the torch model, and a stepper that generates without torch.

The torch model is created on first use. If the plugin has no stepper of its own, the stepper is
created from the torch model, also on first use.
"""

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from reviewgen.errors import ConfigError, first_line, quoted
from reviewgen.protocols.stepper import Stepper

if TYPE_CHECKING:
    from reviewgen.protocols.model import LanguageModel


class ModelWeights:
    """The weights of a trained model, as a torch model and as a stepper.

    Args:
        model: The torch model, if it already exists.
        load: The function that builds the torch model if ``model`` is None. It is called at most
            once.
        stepper: A stepper with the same weights, if the plugin has created one without torch.
        weight_bits: The precision of the weights in generation: 32, 16 or 8 bits.

    Attributes:
        weight_bits: The argument of this name.
        device: The device that generates and scores, by PyTorch's name: "cpu", unless ``to`` was
            called.
        is_exposed: Whether the user has accessed the torch model, and so may have changed its
            weights.
    """

    def __init__(
        self,
        model: "LanguageModel | None" = None,
        load: "Callable[[], LanguageModel] | None" = None,
        stepper: Stepper | None = None,
        weight_bits: int = 32,
    ) -> None:
        self._model = model
        self._load = load
        self._stepper = stepper
        self.weight_bits = weight_bits
        self.device = "cpu"
        self.is_exposed = False
        self._on_device: LanguageModel | None = None

    @property
    def model(self) -> "LanguageModel":
        """The torch model; the caller must not change it."""
        if self._model is None:
            assert self._load is not None, "Weights need a model or a function that loads it."
            self._model = self._load()
        return self._model

    def expose(self) -> "LanguageModel":
        """Return the torch model to a caller that may change its weights. From now on, ``stepper``
        makes a new stepper from the current weights at each call.
        """
        self.is_exposed = True
        return self.model

    def to(self, device: str) -> None:
        """Generate and score on a device from now on. On an accelerator, a copy of the model is
        used.

        Raises:
            ConfigError: The device is not available, or the model cannot be moved to it.
        """
        if device == "cpu":
            self._on_device = None
            self.device = "cpu"
        elif device != self.device:
            self._on_device, self.device = _copy_to(device, self.model, self.weight_bits)

    @property
    def model_on_device(self) -> "LanguageModel":
        """The torch model on the device; the caller must not change it."""
        if self._on_device is not None and self.is_exposed:  # the weights may have changed
            self._on_device, _ = _copy_to(self.device, self.model, self.weight_bits)
        return self.model if self._on_device is None else self._on_device

    def stepper(self) -> Stepper:
        """Return a stepper with the current weights, on the device. A stepper on the CPU is cached,
        because packing its weights takes time.
        """
        if self._stepper is not None and self._on_device is None and not self.is_exposed:
            return self._stepper
        from reviewgen.generation.model_stepper import make_stepper  # imports torch

        stepper = make_stepper(self.model_on_device, self.device, self.weight_bits)
        if self._on_device is None:
            self._stepper = stepper
        return stepper


def _copy_to(device: str, model: "LanguageModel", weight_bits: int) -> "tuple[LanguageModel, str]":
    """Copy a model to an accelerator. Return the copy, and the name of its device with a number, as
    in "cuda:0". The number is needed since "cuda" alone may mean another device later.

    Raises:
        ConfigError: The device is not available, or the model cannot be moved to it.
    """
    import torch  # imported here, since most models generate without torch

    if not isinstance(model, torch.nn.Module):
        raise ConfigError(
            f"{type(model).__name__} models generate and score on the CPU only: leave out the"
            f" device {device}."
        )
    if weight_bits != 32:
        raise ConfigError(
            f"{weight_bits}-bit weights are for the CPU: leave out weight_bits or the device"
            f" {device}."
        )
    present = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    known = ["cpu"] if present is None else ["cpu", present.type]
    if device.split(":")[0] not in known:
        raise ConfigError(
            f"The device {quoted(device)} is not available: PyTorch has {' and '.join(known)} here."
        )
    try:
        on_device: Any = copy.deepcopy(model).to(device)
    # raised by torch, or by deepcopy if a plugin's model has an attribute that cannot be copied
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise ConfigError(
            f"The model cannot be copied to the device {device}: {first_line(error)}"
        ) from None
    # the device with its number, which ``device`` may lack; a model may have no parameters
    current = next((parameter.device for parameter in on_device.parameters()), None)
    return on_device, device if current is None or current.index is None else str(current)
