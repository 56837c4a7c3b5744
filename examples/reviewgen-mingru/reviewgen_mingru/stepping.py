"""The steppers of minGRU and minLSTM: generation token by token, in a compiled loop and without
torch.

``reviewgen.compiled`` has the matrix products, the loop that samples, and the rules of a compiled
step. Must not import torch. Shapes: B texts, T time (tokens), V vocabulary, H hidden, L layers, K
tokens of the window, N random numbers of a text.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import ClassVar, Literal, NamedTuple, TypeAlias

import numpy as np

from reviewgen.compiled import (
    CompiledStep,
    Constraints,
    SamplingParams,
    add_product,
    by_address,
    exp32,
    feed,
    inlined,
    inner,
    log32,
    pack,
    refuse_non_finite,
    sample,
    sigmoid32,
)
from reviewgen.protocols import TensorSpec
from reviewgen_mingru.config import MinGruConfig, MinLstmConfig, MinRnnConfig

__all__ = ["EPSILON", "MinGruStepper", "MinLstmStepper", "MinRnnStepper"]

EPSILON = 1e-6
"""Added to the mean square of a vector before its root is taken."""

State: TypeAlias = tuple[np.ndarray, np.ndarray]
"""As the model's: h, float32 (B, L, H), and the last K ids, int64 (B, K)."""

ZERO = np.float32(0)
ONE = np.float32(1)


class Network(NamedTuple):
    """The weights, prepared for the step: matrices in panels, each followed by its scales; norms
    are part of the matrices.
    """

    embedding: np.ndarray  # (K, V+1, H)
    gates: np.ndarray  # (L, panels, H, 64)
    gates_scales: np.ndarray
    gates_bias: np.ndarray  # (L, 2 H or 3 H, padded)
    mix: np.ndarray  # (L, panels, H, 64)
    mix_scales: np.ndarray
    output: np.ndarray  # (panels, H, 64)
    output_scales: np.ndarray
    output_bias: np.ndarray  # (V,)
    is_lstm: int


class MinRnnStepper:
    """Base class of the two steppers."""

    Config: ClassVar[type]
    gates: ClassVar[int]

    def __init__(
        self,
        config: MinRnnConfig,
        tensors: Mapping[str, np.ndarray],
        weight_bits: Literal[32, 16, 8] = 32,
    ) -> None:
        """Prepare a model's tensors, which are copied, with weights of ``weight_bits``.

        Raises:
            BundleError: A tensor holds NaN or infinity.
        """
        refuse_non_finite(tensors)
        self.config = config
        self._network = self._prepare(
            {name: np.array(tensor, np.float32) for name, tensor in tensors.items()}, weight_bits
        )

    @classmethod
    def expect(cls, config: MinRnnConfig) -> dict[str, TensorSpec]:
        """Return the name, dtype and shape of every tensor of a model with this config."""
        vocabulary = config.vocab_size
        size = config.hidden_size
        shapes: dict[str, tuple[int, ...]] = {
            "embedding.weight": (config.window * (vocabulary + 1), size),
            "norm.weight": (size,),
            "output.weight": (vocabulary, size),
            "output.bias": (vocabulary,),
        }
        for layer in range(config.layers):
            shapes[f"layers.{layer}.norm.weight"] = (size,)
            shapes[f"layers.{layer}.gates.weight"] = (cls.gates * size, size)
            shapes[f"layers.{layer}.gates.bias"] = (cls.gates * size,)
            shapes[f"layers.{layer}.mix.weight"] = (size, size)
        return {name: ("float32", shape) for name, shape in shapes.items()}

    def initial_state(self, batch_size: int) -> State:
        """Return the state before the first token: zeros, and the id V for each token before the
        beginning.
        """
        config = self.config
        h = np.zeros((batch_size, config.layers, config.hidden_size), np.float32)
        return h, np.full((batch_size, config.window), config.vocab_size, np.int64)

    def forward(self, ids: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """Return the logits (B, V) after the last of T >= 1 tokens, ids (B, T), and the state after
        it.
        """
        return feed(self, self.config.vocab_size, ids, state)

    def sample(
        self,
        state: State,
        uniform: np.ndarray,
        params: SamplingParams,
        texts: np.ndarray,
        new_tokens: np.ndarray,
        constraints: Constraints | None = None,
    ) -> tuple[np.ndarray, np.ndarray, State]:
        """Sample up to N tokens a row in one compiled loop; see
        ``reviewgen.protocols.SupportsSample``.
        """
        return sample(
            self, self.config.vocab_size, state, uniform, params, texts, new_tokens, constraints
        )

    @cached_property
    def compiled_step(self) -> CompiledStep:
        """The step; see ``reviewgen.protocols.SupportsCompiledStep``."""
        return CompiledStep(_step, self._network)

    def state_arrays(self, state: State) -> tuple[np.ndarray, np.ndarray]:
        """Return a copy of a state as the step takes it: h, (L, B, H), and the last ids, (K, B)."""
        return np.array(state[0].swapaxes(0, 1), np.float32, order="C"), np.array(
            state[1].T, np.int64, order="C"
        )

    def state_of(self, floats: np.ndarray, ints: np.ndarray) -> State:
        """Return the state of such arrays."""
        return np.ascontiguousarray(floats.swapaxes(0, 1)), np.ascontiguousarray(ints.T)

    def _prepare(self, tensors: Mapping[str, np.ndarray], bits: Literal[32, 16, 8]) -> Network:
        config = self.config
        layers = [f"layers.{layer}" for layer in range(config.layers)]
        gates = pack(
            np.stack(
                [
                    tensors[f"{name}.gates.weight"] * tensors[f"{name}.norm.weight"]
                    for name in layers
                ]
            ),
            bits,
        )
        gates_bias = np.zeros((config.layers, gates.scales.shape[1]), np.float32)
        for layer, name in enumerate(layers):
            gates_bias[layer, : self.gates * config.hidden_size] = tensors[f"{name}.gates.bias"]
        mix, mix_scales = pack(np.stack([tensors[f"{name}.mix.weight"] for name in layers]), bits)
        return Network(
            tensors["embedding.weight"].reshape(
                config.window, config.vocab_size + 1, config.hidden_size
            ),
            *gates,
            gates_bias,
            mix,
            mix_scales,
            *pack(tensors["output.weight"] * tensors["norm.weight"], bits),
            tensors["output.bias"],
            int(self.gates == MinLstmStepper.gates),
        )


class MinGruStepper(MinRnnStepper):
    """The stepper of ``mingru``."""

    Config: ClassVar[type] = MinGruConfig
    gates = 2


class MinLstmStepper(MinRnnStepper):
    """The stepper of ``minlstm``."""

    Config: ClassVar[type] = MinLstmConfig
    gates = 3


@by_address
def _step(network, ids, floats, ints, logits):
    """Feed a token to each text, and write the logits after it; see ``reviewgen.compiled.steps``.

    The equations are in ``model``. The logits follow from the state, so they can be written without
    a token.

    Args:
        network: The address of a Network.
        ids, logits: As there.
        floats: h of each layer; a layer's are updated.
        ints: The last K ids; updated.
    """
    model = network[0]
    rows = len(logits)
    size = model.embedding.shape[2]
    window = len(ints)
    x = np.zeros((rows, model.mix_scales.shape[1]), np.float32)
    normed = np.empty((rows, size), np.float32)
    gates = np.empty((rows, model.gates_bias.shape[1]), np.float32)
    for row in range(len(ids)):
        for k in range(1, window):
            ints[k - 1, row] = ints[k, row]
        ints[window - 1, row] = ids[row]
    for row in range(rows):
        for k in range(window):
            vector = model.embedding[k, ints[window - 1 - k, row]]
            for j in range(size):
                x[row, j] += vector[j]
    for layer in range(len(model.mix)):
        if len(ids) > 0:
            _normalise(x, normed)
            _broadcast(model.gates_bias[layer], gates)
            add_product(model.gates[layer], model.gates_scales[layer], normed, gates)
            for row in range(rows):
                _update(gates[row], floats[layer, row], size, model.is_lstm)
        add_product(model.mix[layer], model.mix_scales[layer], floats[layer, :rows], x)
    _normalise(x, normed)
    _broadcast(model.output_bias, logits)
    add_product(model.output, model.output_scales, normed, logits)


@inner
def _update(gates, h, size, is_lstm):
    """Advance the first ``size`` units of a layer's h by a token."""
    for j in range(size):
        if is_lstm:
            a = sigmoid32(_softplus(-gates[size + j]) - _softplus(-gates[j]))
            candidate = gates[2 * size + j]
        else:
            a = sigmoid32(-gates[j])
            candidate = gates[size + j]
        h[j] = a * h[j] + (ONE - a) * candidate


@inlined
def _softplus(number):
    """Return log(1 + e ** number), which is -log sigmoid(-number), without overflow."""
    positive = number if number > ZERO else ZERO
    return positive + log32(ONE + exp32(number - positive - positive))


@inner
def _normalise(x, normed):
    """Write each row of x, of which ``normed`` has as many columns as count, divided by its root
    mean square.
    """
    size = normed.shape[1]
    for row in range(len(x)):
        total = ZERO
        for j in range(size):
            total += x[row, j] * x[row, j]
        scale = ONE / np.sqrt(total / np.float32(size) + np.float32(EPSILON))
        for j in range(size):
            normed[row, j] = x[row, j] * scale


@inner
def _broadcast(numbers, rows):
    """Copy numbers into each row, which may be longer."""
    for row in range(len(rows)):
        for j in range(len(numbers)):
            rows[row, j] = numbers[j]
