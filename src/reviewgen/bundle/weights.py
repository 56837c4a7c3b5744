"""The two forms of a trained model: the torch model, and a stepper that generates without torch. Each is created on first use."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from reviewgen.generation.generator import choose_batch_size
from reviewgen.protocols import Stepper

if TYPE_CHECKING:
    from reviewgen.protocols import LanguageModel


class Weights:
    """The weights of a trained model, as a torch model and as a stepper.

    Args:
        model: The torch model, if it is built already.
        load: Builds the torch model otherwise; called at most once.
        stepper: A stepper of the same weights, if one was created without torch.
        weight_bits: The precision of the weights in generation: 32, 16 or 8 bits.

    Attributes:
        weight_bits: As given.
        device: The device that generates and scores, as PyTorch names it: "cpu", unless ``to`` was called.
        is_exposed: Whether the user has access to the torch model, so that its weights may have changed.
    """

    def __init__(
        self,
        model: "LanguageModel | None" = None,
        load: "Callable[[], LanguageModel] | None" = None,
        stepper: Stepper | None = None,
        weight_bits: int = 32,
    ) -> None:
        self._model, self._load, self._stepper, self.weight_bits = model, load, stepper, weight_bits
        self.device, self.is_exposed = "cpu", False
        self._on_device: LanguageModel | None = None

    @property
    def model(self) -> "LanguageModel":
        """The torch model; the caller must not change it."""
        if self._model is None:
            assert self._load is not None, "Weights need a model or a function that loads it."
            self._model = self._load()
        return self._model

    def expose(self) -> "LanguageModel":
        """Return the torch model for modification; later steppers use the changed weights."""
        self._stepper, self.is_exposed = None, True
        return self.model

    def to(self, device: str) -> None:
        """Let a device generate and score, with a copy of the model.

        Raises:
            ConfigError: The device is not available, or the model cannot be moved to it.
        """
        if device == self.device:
            return
        from reviewgen.bundle.devices import copy_to, place_of  # torch

        self._on_device = None if device == "cpu" else copy_to(device, self.model, self.weight_bits)
        self.device = device if self._on_device is None else place_of(self._on_device, device)

    @property
    def model_on_device(self) -> "LanguageModel":
        """The torch model on the device; the caller must not change it."""
        if self._on_device is None:
            return self.model
        if self.is_exposed:  # its weights may have changed
            from reviewgen.bundle.devices import copy_to  # torch

            self._on_device = copy_to(self.device, self.model, self.weight_bits)
        return self._on_device

    @property
    def batch_size(self) -> int:
        """How many texts to generate side by side."""
        return choose_batch_size(self.device)

    def stepper(self) -> Stepper:
        """Return a stepper of the current weights, on the device."""
        if self._stepper is not None and self._on_device is None:
            return self._stepper
        from reviewgen.generation.model_stepper import make_stepper

        return make_stepper(self.model_on_device, self.device, self.weight_bits)
