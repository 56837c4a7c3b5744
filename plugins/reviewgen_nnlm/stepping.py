"""The stepper of nnlm: inference without torch.

If the table of the hidden layer's products, for each token at each context position, is small
enough, they are looked up: a step is then n-1 additions of a row, and the output layer's product.
Must not import torch. Shapes: B texts, T time (tokens), V vocabulary, E embedding, H hidden, n
order, N random numbers a row, R rows side by side.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float32, Int64, Shaped

from reviewgen.compiled import by_address, inner
from reviewgen.compiled.conditioning import Conditioning, hold, multiply, pack_conditioning
from reviewgen.compiled.decoding import CompiledStepper
from reviewgen.compiled.linear import Bits, add_product, pack, refuse_non_finite, tanh32
from reviewgen.compiled.steps import CompiledStep
from reviewgen.protocols.stepper import StepState, TensorSpec
from reviewgen_nnlm.config import NnlmConfig

# of the table of products; a larger one takes longer to compute than it saves in a few texts
TABLE_BYTES = 1 << 24
ZERO = np.float32(0)


class Packed(NamedTuple):
    """The weights of an nnlm, prepared for the loops: matrices in panels, each followed by its
    scales.
    """

    # V+1 products for each of n-1 positions; empty: computed from the next fields
    table: Float32[np.ndarray, "K rows H"]
    embedding: Float32[np.ndarray, "V1 E"]
    hidden: Shaped[np.ndarray, "panels KE 64"]
    hidden_scales: Float32[np.ndarray, " H64"]
    hidden_bias: Float32[np.ndarray, " H64"]
    output: Shaped[np.ndarray, "panels H 64"]
    output_scales: Float32[np.ndarray, " V64"]
    output_bias: Float32[np.ndarray, " V"]
    is_relu: int
    held: Conditioning | None  # its product is added to the hidden layer's input


class NnlmStepper(CompiledStepper):
    """The stepper of ``nnlm``. The state is the last n-1 ids, (B, n-1), padded with the id V before
    the beginning.

    If the model holds what a text is given, the state has a second part, (B, E + 2).
    """

    Config: ClassVar[type] = NnlmConfig

    def __init__(
        self, config: NnlmConfig, tensors: Mapping[str, np.ndarray], weight_bits: Bits = 32
    ) -> None:
        """Prepare a model's tensors, which are copied, for inference with weights of
        ``weight_bits``.

        Raises:
            BundleError: A tensor holds NaN or infinity.
        """
        refuse_non_finite(tensors)
        self.config = config
        arrays = {name: np.array(tensor, np.float32) for name, tensor in tensors.items()}
        self._weights = _prepare(config, arrays, weight_bits)

    @staticmethod
    def expect(config: NnlmConfig) -> dict[str, TensorSpec]:
        """Return the name, dtype and shape of every tensor of a model with this config."""
        vocabulary = config.vocab_size
        width = config.embedding_size
        size = config.hidden_size
        return {
            **({"held": ("float32", (size, width))} if config.holds else {}),
            "embedding.weight": ("float32", (vocabulary + 1, width)),
            "hidden.weight": ("float32", (size, (config.order - 1) * width)),
            "hidden.bias": ("float32", (size,)),
            "output.weight": ("float32", (vocabulary, size)),
            "output.bias": ("float32", (vocabulary,)),
        }

    def initial_state(self, batch_size: int) -> StepState:
        """Return the state before the first token: n-1 times the id V."""
        config = self.config
        last = np.full((batch_size, config.order - 1), config.vocab_size, np.int64)
        return (
            (last, np.zeros((batch_size, config.embedding_size + 2), np.float32))
            if config.holds
            else last
        )

    @cached_property
    def compiled_step(self) -> CompiledStep:
        """The step; see ``reviewgen.protocols.SupportsCompiledStep``."""
        return CompiledStep(_step, self._weights)

    def state_arrays(
        self, state: StepState
    ) -> tuple[Float32[np.ndarray, "S B W"], Int64[np.ndarray, "K B"]]:
        """Return a copy of a state as the step takes it: what is held, its sums and their product;
        and the last n-1 ids.
        """
        held = self._weights.held
        last, *sums = state if self.config.holds else (state,)
        floats = np.zeros((0, len(last), 0), np.float32)
        if held is not None:
            floats = np.zeros((2, len(last), held.state_width), np.float32)
            floats[0, :, : sums[0].shape[1]] = sums[0]
            multiply(held, floats[0], floats[1])
        return floats, np.array(last.T, order="C")

    def state_of(
        self, floats: Float32[np.ndarray, "S B W"], ints: Int64[np.ndarray, "K B"]
    ) -> StepState:
        """Return the state of such arrays."""
        last = np.ascontiguousarray(ints.T)
        return (
            (last, floats[0, :, : self.config.embedding_size + 2].copy())
            if self.config.holds
            else last
        )


def _prepare(
    config: NnlmConfig, tensors: Mapping[str, Float32[np.ndarray, "..."]], bits: Bits
) -> Packed:
    embedding, hidden, bias = (
        tensors[name] for name in ("embedding.weight", "hidden.weight", "hidden.bias")
    )
    (rows, width), size = embedding.shape, len(bias)
    context = hidden.shape[1] // width
    table = np.empty((0, rows, size), np.float32)
    if 4 * context * rows * size <= TABLE_BYTES:
        by_position = hidden.reshape(size, context, width).transpose(1, 2, 0)  # (K, E, H)
        table = np.ascontiguousarray(embedding @ by_position)  # (K, V+1, H)
    packed = pack(hidden, bits)
    padded = np.zeros(len(packed.scales), np.float32)
    padded[:size] = bias
    output = pack(tensors["output.weight"], bits)
    is_relu = int(config.activation == "relu")
    held = pack_conditioning(config, tensors, bits)
    return Packed(table, embedding, *packed, padded, *output, tensors["output.bias"], is_relu, held)


@inner
def _compute_logits(weights, held, seen, floats, logits):
    """Write the logits after the last n-1 ids, int64 (n-1, R) or wider, to ``logits``, (R, V64)."""
    embedding = weights.embedding
    bias = weights.output_bias
    width = embedding.shape[1]
    rows = len(logits)
    positions = len(seen)
    h = np.empty((rows, len(weights.hidden_bias)), np.float32)
    for row in range(rows):
        for j in range(h.shape[1]):
            h[row, j] = weights.hidden_bias[j]
        if held is not None:
            _add(floats[1, row, : h.shape[1]], h[row])
    if len(weights.table) > 0:
        for row in range(rows):
            for position in range(positions):
                _add(weights.table[position, seen[position, row]], h[row])
    else:
        vectors = np.zeros((rows, positions * width), np.float32)
        for row in range(rows):
            for position in range(positions):
                _add(
                    embedding[seen[position, row]],
                    vectors[row, position * width : (position + 1) * width],
                )
        add_product(weights.hidden, weights.hidden_scales, vectors, h)
    for row in range(rows):
        for j in range(h.shape[1]):
            h[row, j] = (
                (ZERO if h[row, j] < ZERO else h[row, j]) if weights.is_relu else tanh32(h[row, j])
            )
        for j in range(len(bias)):
            logits[row, j] = bias[j]
    add_product(weights.output, weights.output_scales, h, logits)


@by_address
def _step(weights, ids, floats, ints, logits):
    """Feed a token to each text, and write the logits after it; see ``reviewgen.compiled.steps``.

    Args:
        weights: The address of Packed.
        ids, logits: As there.
        floats: What the model holds: the sums, and their product.
        ints: The last n-1 ids.
    """
    last = len(ints) - 1
    for row in range(len(ids)):
        for position in range(last):
            ints[position, row] = ints[position + 1, row]
        ints[last, row] = ids[row]
    hold(weights[0].held, ids, floats)
    _compute_logits(weights[0], weights[0].held, ints, floats, logits)


@inner
def _add(numbers, row):
    for j in range(len(numbers)):
        row[j] += numbers[j]
