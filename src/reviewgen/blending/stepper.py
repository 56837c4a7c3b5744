"""Generation from a blend: mixes the next-token probabilities of its parts' steppers. No torch.

B batch, T time (tokens), V vocabulary.
"""

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
    """A mixture of steppers; its logits are log probabilities (nats), ``log sum_i w_i softmax(logits_i)``.

    The state is the tuple of the parts' states.

    Args:
        steppers: The steppers of the parts.
        weights: The mixture weight of each part; they sum to one.
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
        scores, new_states = [], []
        for stepper, log_weight, part_state in zip(self._steppers, self._log_weights, state, strict=True):
            logits, new_state = stepper.forward(ids, part_state)
            scores.append(logits - _log_sum_exp(logits, axis=-1)[:, None] + log_weight)  # (B, V)
            new_states.append(new_state)
        return _log_sum_exp(np.stack(scores), axis=0).astype(np.float32, copy=False), tuple(new_states)


class SavedBlend(BlendStepper):
    """A blend built from saved tensors, for blends whose parts all have a stepper; see ``reviewgen.protocols.StepperFactory``.

    Raises:
        BundleError: The tensors are not those of a trained model.
    """

    Config: ClassVar[type] = BlendConfig

    def __init__(self, config: BlendConfig, tensors: Mapping[str, np.ndarray], bits: int = 32) -> None:
        split = split_names(tensors, len(config.models))
        parts = zip(_find_factories(config), split, strict=True)
        super().__init__([factory(part, tensors, bits) for (factory, part), tensors in parts], config.weights)

    @staticmethod
    def expect(config: BlendConfig) -> Mapping[str, TensorSpec] | None:
        """Return the spec of every tensor of every part; None if a part has no stepper and needs torch."""
        specs = []
        for part in config.models:
            factory = find_stepper(part["name"])
            spec = None if factory is None else factory.expect(from_dict(factory.Config, part["config"]))
            if spec is None:
                return None
            specs.append(spec)
        return join_names(specs)


def _find_factories(config: BlendConfig) -> Iterator[tuple[Any, Any]]:
    """Yield the stepper factory and the config of each part."""
    for part in config.models:
        factory = find_stepper(part["name"])
        assert factory is not None, "expect() has found one"
        yield factory, from_dict(factory.Config, part["config"])


def _log_sum_exp(values: Float[np.ndarray, "..."], axis: int) -> Float[np.ndarray, "..."]:
    """Return log sum exp along an axis; -inf if all values are -inf."""
    largest = values.max(axis=axis, keepdims=True)
    largest = np.where(np.isneginf(largest), 0.0, largest)
    with np.errstate(divide="ignore"):
        sums: np.ndarray = np.log(np.exp(values - largest).sum(axis=axis)) + largest.squeeze(axis)
    return sums
