"""Generation from a blend: mixes the next-token probabilities of the steppers of its components. No
torch.

If every component has a compiled step and the tokens of the blend, the blend has a compiled step
too, and generates in one compiled loop. Otherwise it steps its components in Python.

Shapes: B batch, T time (tokens), V vocabulary, M components, F features of the gate; S, W and K as
in ``reviewgen.compiled.steps``.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Float32, Int64

from reviewgen.blending.characters import CharacterStepper
from reviewgen.blending.config import BlendConfig, join_names, read_characters, split_names
from reviewgen.compiled.decoding import CompiledStepper, needs_early_logits
from reviewgen.compiled.mixing import Mixture, mix, step_mixture
from reviewgen.compiled.steps import CompiledStep, addresses
from reviewgen.protocols.migration import read_saved_config
from reviewgen.protocols.stepper import Stepper, StepState, SupportsCompiledStep, TensorSpec
from reviewgen.registry.plugins import find_stepper
from reviewgen.registry.saved import plugin_of_saved


class BlendStepper:
    """A mixture of steppers. Its logits are log probabilities (nats), ``log sum_i w_i
    softmax(logits_i)``; or those of the last stepper, if this mixture of the others is its expert.

    The state is the tuple of the components' states.

    Args:
        steppers: The steppers of the components.
        config: The settings of the blend.
    """

    def __init__(self, steppers: Sequence[Stepper], config: BlendConfig) -> None:
        self._steppers: tuple[Any, ...] = tuple(steppers)
        self.config = config
        self._prior = np.array(config.weights[: config.averaged], np.float64)
        self._gate = config.coefficients

    def initial_state(self, batch_size: int) -> StepState:
        """Return the states of the components before the first token."""
        return tuple(stepper.initial_state(batch_size) for stepper in self._steppers)

    def forward(
        self, ids: Int64[np.ndarray, "B T"], state: StepState
    ) -> tuple[Float[np.ndarray, "B V"], StepState]:
        """Return the log probability of each token after the last of ``ids``, and the states of the
        components after it.
        """
        if not self.config.has_expert:
            return self._average(ids, state)
        *others, own_state = state
        for token in ids.T:
            mixed, others = self._average(token[:, None], others)
            logits, own_state = self._steppers[-1].forward_with_expert(
                token[:, None], mixed[:, None], own_state
            )
        return logits, (*others, own_state)

    def _average(
        self, ids: Int64[np.ndarray, "B T"], states: Sequence[StepState]
    ) -> tuple[Float32[np.ndarray, "B V"], tuple[StepState, ...]]:
        """Return the log probabilities of the average after the last of ``ids``, and the states of
        the averaged components.
        """
        pairs = zip(self._steppers[: self.config.averaged], states, strict=True)
        steps = [stepper.forward(ids, own_state) for stepper, own_state in pairs]
        logits, new_states = zip(*steps, strict=True)
        stacked = np.stack([np.asarray(own, np.float32) for own in logits])  # (M, B, V)
        mixed = np.empty(stacked.shape[1:], np.float32)
        mix(stacked, self._prior, self._gate, self.config.vocab_size, mixed)
        return mixed, new_states


class CompiledBlendStepper(BlendStepper, CompiledStepper):
    """A mixture of steppers that have compiled steps. It samples in one compiled loop, and with an
    expert, it also reads in one.
    """

    @property
    def needs_early_logits(self) -> bool:
        """Whether the step of a component needs a full ``logits`` array after every token."""
        return any(map(needs_early_logits, self._steppers))

    def forward(
        self, ids: Int64[np.ndarray, "B T"], state: StepState
    ) -> tuple[Float[np.ndarray, "B V"], StepState]:
        """Return the log probability of each token after the last of ``ids``, and the states of the
        components after it.
        """
        # with an expert, all components are stepped for each token: a compiled loop is faster
        base = CompiledStepper if self.config.has_expert else BlendStepper
        return base.forward(self, ids, state)

    @cached_property
    def compiled_step(self) -> CompiledStep:
        """The step; see ``reviewgen.protocols.SupportsCompiledStep``."""
        steps = [stepper.compiled_step for stepper in self._steppers]
        # where the state of each component begins, in the floats and in the ints
        starts = self._layout[:2]
        vocab_size = self.config.vocab_size
        mixture = Mixture(*addresses(steps), *starts, self._prior, self._gate, vocab_size)
        return CompiledStep(step_mixture, mixture, steps)

    def state_arrays(
        self, state: StepState
    ) -> tuple[Float32[np.ndarray, "S B W"], Int64[np.ndarray, "K B"]]:
        """Return a copy of the components' states in one pair of arrays. The states are one after
        another, all as wide as the widest.
        """
        float_starts, _, widths = self._layout
        pairs = zip(self._steppers, state, strict=True)
        arrays = [stepper.state_arrays(own) for stepper, own in pairs]
        all_floats, all_ints = zip(*arrays, strict=True)
        batch_size = all_floats[0].shape[1]
        floats = np.zeros((float_starts[-1], batch_size, max(widths)), np.float32)
        for own, start, width in zip(all_floats, float_starts[:-1], widths, strict=True):
            floats[start : start + len(own), :, :width] = own
        return floats, np.concatenate(all_ints)

    def state_of(
        self, floats: Float32[np.ndarray, "S B W"], ints: Int64[np.ndarray, "K B"]
    ) -> StepState:
        """Return the components' states that are stored in such arrays; the inverse of
        ``state_arrays``.
        """
        float_starts, int_starts, widths = self._layout
        own_floats = np.split(floats, float_starts[1:-1])
        own_ints = np.split(ints, int_starts[1:-1])
        components = zip(self._steppers, own_floats, own_ints, widths, strict=True)
        return tuple(
            stepper.state_of(own[..., :width], numbers)
            for stepper, own, numbers, width in components
        )

    @cached_property
    def _layout(self) -> tuple[Int64[np.ndarray, " M1"], Int64[np.ndarray, " M1"], list[int]]:
        """The layout of the arrays of a state: where the floats of each component begin and the
        last ones end, the same for the ints, and the width of the floats of each component.
        """
        states = [stepper.state_arrays(stepper.initial_state(1)) for stepper in self._steppers]
        all_floats, all_ints = zip(*states, strict=True)
        float_starts = np.cumsum([0, *map(len, all_floats)])
        int_starts = np.cumsum([0, *map(len, all_ints)])
        return float_starts, int_starts, [floats.shape[2] for floats in all_floats]


def make_blend_stepper(steppers: Sequence[Stepper], config: BlendConfig) -> BlendStepper:
    """Return the stepper of a blend. It generates in a compiled loop if every component has a
    compiled step and the tokens of the blend.

    Args:
        steppers: The steppers of the components; each takes the token ids of its own component.
        config: The settings of the blend.
    """
    blended: list[Stepper] = []
    for stepper, entry in zip(steppers, config.models, strict=True):
        tokens = read_characters(entry, config.vocab_size)  # None: those of the blend
        blended.append(stepper if tokens is None else CharacterStepper(stepper, tokens))
    if all(isinstance(stepper, SupportsCompiledStep) for stepper in blended):
        return CompiledBlendStepper(blended, config)
    return BlendStepper(blended, config)


class SavedBlend:
    """Builds the stepper of a blend from saved tensors, if all components have a stepper. See
    ``reviewgen.protocols.StepperFactory``.

    Raises:
        BundleError: The tensors are not those of a trained model.
    """

    Config: ClassVar[type] = BlendConfig

    # mypy expects __new__ to return an instance of its own class; here it returns a BlendStepper.
    def __new__(  # type: ignore[misc]
        cls, config: BlendConfig, tensors: Mapping[str, np.ndarray], weight_bits: int = 32
    ) -> BlendStepper:
        """Return the stepper of a blend with these tensors."""
        split = split_names(tensors, len(config.models))
        steppers = [
            factory(own_config, named, weight_bits)
            for (factory, own_config), named in zip(_factories(config), split, strict=True)
        ]
        return make_blend_stepper(steppers, config)

    @staticmethod
    def expect(config: BlendConfig) -> Mapping[str, TensorSpec] | None:
        """Return the dtype and shape of every tensor of every component; None if a component has no
        stepper and so needs torch.
        """
        specs: list[Any] = [
            None if factory is None else factory.expect(own_config)
            for factory, own_config in _factories(config)
        ]
        return None if None in specs else join_names(specs)


def _factories(config: BlendConfig) -> Iterator[tuple[Any, Any]]:
    """Yield, for each component, its stepper factory and its config. Both are None if the component
    has no stepper.

    An earlier version of the plugin may have saved the config; it is migrated.
    """
    for entry in config.models:
        factory: Any = find_stepper(plugin_of_saved("model", entry))
        if factory is None:
            yield None, None
        else:
            yield factory, read_saved_config(factory.Config, entry["config"], entry["version"])
