"""A trained model in two forms: as torch computes with it, and ready to write without torch; each made when asked for."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from reviewgen.protocols import Stepper

if TYPE_CHECKING:
    from reviewgen.protocols import LanguageModel

__all__ = ["Weights"]


class Weights:
    """A trained model.

    Args:
        model: It, where it is there already.
        load: Makes it, where it is not; called once.
        stepper: Writes with the same weights, where it could be made without the model.
        weight_bits: Of a weight while it writes: 32, 16 or 8.
    """

    def __init__(
        self,
        model: "LanguageModel | None" = None,
        load: "Callable[[], LanguageModel] | None" = None,
        stepper: Stepper | None = None,
        weight_bits: int = 32,
    ) -> None:
        self._model, self._load, self._stepper, self.weight_bits = model, load, stepper, weight_bits
        self.is_exposed = False

    @property
    def model(self) -> "LanguageModel":
        """The model, to be left as it is."""
        if self._model is None:
            assert self._load is not None, "Weights need a model, or a way to load it."
            self._model = self._load()
        return self._model

    def expose(self) -> "LanguageModel":
        """Return the model to somebody who may change its weights: what writes is made from it from now on."""
        self._stepper, self.is_exposed = None, True
        return self.model

    def stepper(self) -> Stepper:
        """Return what writes with the weights as they are now."""
        if self._stepper is not None:
            return self._stepper
        from reviewgen.generation.model_stepper import make_stepper

        return make_stepper(self.model, weight_bits=self.weight_bits)
