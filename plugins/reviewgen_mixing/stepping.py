"""The stepper of ``mixing``: generation from the arrays of a trained model. Must not import torch.

Shapes: B texts, V64 at least V; the others as in ``coding``.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import ClassVar, TypeAlias

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

from reviewgen.compiled import CompiledStep, CompiledStepper, feed
from reviewgen.protocols import TensorSpec
from reviewgen_mixing.coding import Network, new_state
from reviewgen_mixing.config import MixingConfig
from reviewgen_mixing.explain import contributions
from reviewgen_mixing.passes import step
from reviewgen_mixing.trained import expect_arrays, read_arrays

State: TypeAlias = tuple[Float32[np.ndarray, "B F I"], Int64[np.ndarray, "B K"]]


class MixingStepper(CompiledStepper):
    """The stepper of ``mixing``. The state is that of the model, as arrays.

    A mixing model has no weight matrices, so ``weight_bits`` has no effect. A trained network in
    memory is used without checks.

    Raises:
        BundleError: The arrays are damaged or do not fit the config.
    """

    Config: ClassVar[type] = MixingConfig

    def __init__(
        self,
        config: MixingConfig,
        tensors: Mapping[str, np.ndarray] | Network,
        weight_bits: int = 32,
    ) -> None:
        self.config = config
        self._network = tensors if isinstance(tensors, Network) else read_arrays(tensors, config)

    @classmethod
    def expect(cls, config: MixingConfig) -> Mapping[str, TensorSpec]:
        """Return the name, dtype and shape of every array of a model with this config."""
        return expect_arrays(config)

    def initial_state(self, batch_size: int) -> State:
        """Return the state before the first token of B texts."""
        return self.state_of(*new_state(self._network, batch_size))

    def forward_with_expert(
        self, ids: Int64[np.ndarray, "B T"], expert: Float[np.ndarray, "B T V"], state: State
    ) -> tuple[Float32[np.ndarray, "B V"], State]:
        """Return the log probabilities after the last token, with an expert's logits after each;
        see ``reviewgen.protocols.SupportsExpertForward``.
        """
        return feed(self, self.config.vocab_size, ids, state, expert)

    def contributions(
        self, ids: Int64[np.ndarray, " T"], expert: Float[np.ndarray, "N V"] | None = None
    ) -> dict[str, Float64[np.ndarray, " N"]]:
        """Return what each context contributes to each of ``ids`` after the first; see
        ``reviewgen.protocols.SupportsContributions``.
        """
        return contributions(self._network, ids, expert)

    @cached_property
    def compiled_step(self) -> CompiledStep:
        """The step that compiled loops call; see ``reviewgen.protocols.SupportsCompiledStep``."""
        return CompiledStep(step, self._network)

    def state_arrays(
        self, state: State
    ) -> tuple[Float32[np.ndarray, "F B I"], Int64[np.ndarray, "K B"]]:
        """Return a copy of a state in the form that the compiled step needs."""
        floats, ints = state
        # ascontiguousarray would not copy the state of a single text
        return np.array(floats.swapaxes(0, 1), order="C"), np.array(ints.T, order="C")

    def state_of(
        self, floats: Float32[np.ndarray, "F B I"], ints: Int64[np.ndarray, "K B"]
    ) -> State:
        """Convert the arrays of ``state_arrays`` back to a state."""
        return np.ascontiguousarray(floats.swapaxes(0, 1)), np.ascontiguousarray(ints.T)
