"""Generation from a blend: mixes the next-token probabilities of its parts' steppers. No torch.

If every part has a compiled step, so has the blend, and it generates in one compiled loop; else it steps its parts in Python.

B batch, T time (tokens), V vocabulary, M parts, F features of the gate; S, W and K of a compiled step's state.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

from reviewgen.blending.config import BlendConfig, join_names, split_names
from reviewgen.compiled.decoding import sample
from reviewgen.compiled.mixing import Mixture, mix, step_mixture
from reviewgen.compiled.sampling import SamplingParams
from reviewgen.compiled.steps import CompiledStep, addresses
from reviewgen.protocols.migration import read_saved_config
from reviewgen.protocols.stepper import Constraints, Stepper, StepState, SupportsCompiledStep, TensorSpec
from reviewgen.registry import find_stepper, plugin_of_saved


class BlendStepper:
    """A mixture of steppers; its logits are log probabilities (nats), ``log sum_i w_i softmax(logits_i)``.

    The state is the tuple of the parts' states.

    Args:
        steppers: The steppers of the parts.
        config: The settings of the blend.
    """

    def __init__(self, steppers: Sequence[Stepper], config: BlendConfig) -> None:
        self._steppers = tuple(steppers)
        self._vocab_size, self._prior, self._gate = config.vocab_size, np.array(config.weights, np.float64), config.coefficients

    def initial_state(self, batch_size: int) -> StepState:
        """Return the states of the parts before the first token."""
        return tuple(stepper.initial_state(batch_size) for stepper in self._steppers)

    def forward(self, ids: Int64[np.ndarray, "B T"], state: StepState) -> tuple[Float[np.ndarray, "B V"], StepState]:
        """Return the log probability of each token after the last of ``ids``, and the parts' states after it."""
        steps = [stepper.forward(ids, part) for stepper, part in zip(self._steppers, state, strict=True)]
        parts = np.stack([np.asarray(logits, np.float32) for logits, _ in steps])  # (M, B, V)
        mixed = np.empty(parts.shape[1:], np.float32)
        mix(parts, self._prior, self._gate, self._vocab_size, mixed)
        return mixed, tuple(new_state for _, new_state in steps)


class CompiledBlendStepper(BlendStepper):
    """A mixture of steppers with compiled steps: samples in one compiled loop."""

    _steppers: tuple[Any, ...]

    def sample(
        self,
        state: StepState,
        uniform: Float64[np.ndarray, "B N"],
        params: SamplingParams,
        texts: Int64[np.ndarray, "B K"],
        new_tokens: Int64[np.ndarray, " B"],
        constraints: Constraints | None = None,
    ) -> tuple[Int64[np.ndarray, "B N"], Int64[np.ndarray, " B"], StepState]:
        """Sample up to N tokens a row in one compiled loop; see ``reviewgen.protocols.SupportsSample``."""
        return sample(self, self._vocab_size, state, uniform, params, texts, new_tokens, constraints)

    @cached_property
    def compiled_step(self) -> CompiledStep:
        """The step; see ``reviewgen.protocols.SupportsCompiledStep``."""
        steps = [stepper.compiled_step for stepper in self._steppers]
        mixture = Mixture(*addresses(steps), *self._starts, self._prior, self._gate, self._vocab_size)
        return CompiledStep(step_mixture, mixture, steps)

    def state_arrays(self, state: StepState) -> tuple[Float32[np.ndarray, "S B W"], Int64[np.ndarray, "K B"]]:
        """Return a copy of the parts' states, one after another, all as wide as the widest."""
        arrays = [stepper.state_arrays(part) for stepper, part in zip(self._steppers, state, strict=True)]
        floats = np.zeros((self._starts[0][-1], arrays[0][0].shape[1], max(self._widths)), np.float32)
        for start, (part, _), width in zip(self._starts[0], arrays, self._widths, strict=False):
            floats[start : start + len(part), :, :width] = part
        return floats, np.concatenate([ints for _, ints in arrays])

    def state_of(self, floats: Float32[np.ndarray, "S B W"], ints: Int64[np.ndarray, "K B"]) -> StepState:
        """Return the parts' states of such arrays."""
        float_starts, int_starts = self._starts
        pieces = zip(np.split(floats, float_starts[1:-1]), np.split(ints, int_starts[1:-1]), self._widths, strict=True)
        parts = zip(self._steppers, pieces, strict=True)
        return tuple(stepper.state_of(part[..., :width], numbers) for stepper, (part, numbers, width) in parts)

    @cached_property
    def _starts(self) -> tuple[Int64[np.ndarray, " M1"], Int64[np.ndarray, " M1"]]:
        """Where the floats and the ints of each part begin in the arrays of a state, and where the last ones end."""
        sizes = [[len(floats), len(ints)] for floats, ints in self._one_state]
        starts = np.concatenate((np.zeros((1, 2), np.int64), np.cumsum(sizes, axis=0)))
        return starts[:, 0].copy(), starts[:, 1].copy()

    @cached_property
    def _widths(self) -> list[int]:
        """The width of each part's floats."""
        return [floats.shape[2] for floats, _ in self._one_state]

    @cached_property
    def _one_state(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The arrays of each part's state of one text."""
        return [stepper.state_arrays(stepper.initial_state(1)) for stepper in self._steppers]


def make_blend_stepper(steppers: Sequence[Stepper], config: BlendConfig) -> BlendStepper:
    """Return the stepper of a blend: one that generates in a compiled loop if every part has a compiled step."""
    is_compiled = all(isinstance(stepper, SupportsCompiledStep) for stepper in steppers)
    return (CompiledBlendStepper if is_compiled else BlendStepper)(steppers, config)


class SavedBlend:
    """A blend built from saved tensors, for blends whose parts all have a stepper; see ``reviewgen.protocols.StepperFactory``.

    Raises:
        BundleError: The tensors are not those of a trained model.
    """

    Config: ClassVar[type] = BlendConfig

    # mypy expects __new__ to return an instance of its own class; here it returns a BlendStepper.
    def __new__(cls, config: BlendConfig, tensors: Mapping[str, np.ndarray], weight_bits: int = 32) -> BlendStepper:  # type: ignore[misc]
        """Return the stepper of a blend with these tensors."""
        steppers = []
        for part, named in zip(config.models, split_names(tensors, len(config.models)), strict=True):
            factory = find_stepper(plugin_of_saved("model", part))
            assert factory is not None, "expect() has found one"
            steppers.append(factory(_read_config(factory, part), named, weight_bits))
        return make_blend_stepper(steppers, config)

    @staticmethod
    def expect(config: BlendConfig) -> Mapping[str, TensorSpec] | None:
        """Return the spec of every tensor of every part; None if a part has no stepper and needs torch."""
        specs = []
        for part in config.models:
            factory = find_stepper(plugin_of_saved("model", part))
            spec = None if factory is None else factory.expect(_read_config(factory, part))
            if spec is None:
                return None
            specs.append(spec)
        return join_names(specs)


def _read_config(factory: Any, part: Mapping[str, Any]) -> Any:
    """Return the config of a part, which an earlier version of its plugin may have saved."""
    return read_saved_config(factory.Config, part["config"], part["version"])
