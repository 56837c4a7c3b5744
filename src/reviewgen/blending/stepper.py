"""The blend that writes: its parts' steppers, mixed at each token. No torch. B batch, T time (tokens), V vocabulary."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int64

from reviewgen.blending.config import BlendConfig, join_names, split_names
from reviewgen.config import from_dict
from reviewgen.protocols.stepper import Stepper, StepState, TensorSpec
from reviewgen.registry import find_stepper

__all__ = ["BlendStepper", "SavedBlend"]


class BlendStepper:
    """Mixes steppers in probability: the logits are ``log sum_i w_i softmax(logits_i)``, log probabilities (nats).

    The state is a tuple of the parts' states.

    Args:
        steppers: The parts.
        weights: Each part's share; they sum to one.
    """

    def __init__(self, steppers: Sequence[Stepper], weights: Sequence[float]) -> None:
        self._steppers = tuple(steppers)
        with np.errstate(divide="ignore"):  # a weight may be zero
            self._log_weights: list[float] = np.log(np.array(weights, np.float64)).tolist()

    def initial_state(self, batch_size: int) -> StepState:
        """Return the states of the parts before the first token."""
        return tuple(stepper.initial_state(batch_size) for stepper in self._steppers)

    def forward(self, ids: Int64[np.ndarray, "B T"], state: StepState) -> tuple[Float[np.ndarray, "B V"], StepState]:
        """Return the log probability of each token after the last of ``ids``, and the parts' states after it."""
        scores, after = [], []
        for stepper, log_weight, before in zip(self._steppers, self._log_weights, state, strict=True):
            logits, behind = stepper.forward(ids, before)
            scores.append(logits - _log_sum_exp(logits, axis=-1)[:, None] + log_weight)  # (B, V)
            after.append(behind)
        return _log_sum_exp(np.stack(scores), axis=0).astype(np.float32, copy=False), tuple(after)


class SavedBlend(BlendStepper):
    """A blend from a saved model, where each part can be had so; see ``reviewgen.protocols.StepperFactory``.

    Raises:
        BundleError: The tensors hold what no trained model holds.
    """

    Config: ClassVar[type] = BlendConfig

    def __init__(self, config: BlendConfig, tensors: Mapping[str, np.ndarray], bits: int = 32) -> None:
        split = split_names(tensors, len(config.models))
        parts = zip(_parts(config), split, strict=True)
        super().__init__([kind(own, part, bits) for (kind, own), part in parts], config.weights)

    @staticmethod
    def expect(config: BlendConfig) -> Mapping[str, TensorSpec] | None:
        """Return the name and form of every tensor of every part; None where a part can only be written with through torch."""
        forms = []
        for part in config.models:
            kind = find_stepper(part["name"])
            form = None if kind is None else kind.expect(from_dict(kind.Config, part["config"]))
            if form is None:
                return None
            forms.append(form)
        return join_names(forms)


def _parts(config: BlendConfig) -> Iterator[tuple[Any, Any]]:
    """Yield what builds each part's stepper, and the part's config."""
    for part in config.models:
        kind = find_stepper(part["name"])
        assert kind is not None, "expect found one"
        yield kind, from_dict(kind.Config, part["config"])


def _log_sum_exp(values: Float[np.ndarray, "..."], axis: int) -> Float[np.ndarray, "..."]:
    """Return log sum exp along an axis; of nothing but -inf it is -inf."""
    largest = values.max(axis=axis, keepdims=True)
    largest = np.where(np.isneginf(largest), 0.0, largest)
    with np.errstate(divide="ignore"):
        sums: np.ndarray = np.log(np.exp(values - largest).sum(axis=axis)) + largest.squeeze(axis)
    return sums
