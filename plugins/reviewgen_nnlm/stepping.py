"""The stepper of nnlm: inference without torch.

The hidden layer's product with each token's embedding, at each context position, can be computed in
advance. If the table of these products is small enough, a step looks them up: it adds up n-1 rows,
and only the output layer is a matrix product.

Must not import torch. Shapes: B texts, V vocabulary, V1 = V + 1, E embedding, H hidden, n the
order, K = n-1 tokens of context, R texts that are stepped together, H64 and V64 numbers rounded up
to whole panels (``reviewgen.compiled.linear``).
"""

from collections.abc import Mapping
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

from reviewgen.compiled import by_address, inlined, inner
from reviewgen.compiled.conditioning import (
    Conditioning,
    hold,
    make_floats,
    pack_conditioning,
    take_sums,
)
from reviewgen.compiled.decoding import CompiledStepper
from reviewgen.compiled.linear import (
    ZERO,
    Bits,
    Matrix,
    add_product,
    copy_tensors,
    pack,
    tanh32,
)
from reviewgen.compiled.steps import CompiledStep
from reviewgen.protocols.stepper import (
    StatePart,
    StepState,
    TensorSpec,
    ids_part,
    initial_arrays,
    join_state,
    split_state,
    sums_part,
)
from reviewgen_nnlm.config import NnlmConfig

# a larger table takes longer to compute than it saves while a few texts are generated
TABLE_BYTES = 1 << 24


class Packed(NamedTuple):
    """The weights of an nnlm, prepared for the compiled loops. Matrices are in panels, see
    ``reviewgen.compiled.linear``.
    """

    # the hidden layer's product with the embedding of each of V+1 ids, at each of n-1 positions;
    # empty if it would be too large: then the products are computed from the next two fields
    table: Float32[np.ndarray, "K rows H"]
    embedding: Float32[np.ndarray, "V1 E"]
    hidden: Matrix
    hidden_bias: Float32[np.ndarray, " H64"]
    output: Matrix
    output_bias: Float32[np.ndarray, " V"]
    is_relu: int
    # the product of the conditions' vector is added to the hidden layer's input
    conditioning: Conditioning | None


def state_parts(config: NnlmConfig) -> list[StatePart | None]:
    """Return the parts of the state."""
    return [ids_part(config, config.order), sums_part(config, config.embedding_size)]


class NnlmStepper(CompiledStepper):
    """The stepper of ``nnlm``. The state is the last n-1 ids, (B, n-1), padded with the id V before
    the beginning.

    With conditions or fields, the state is a pair: the last ids, and the sums of conditions and
    fields, (B, E + 2).
    """

    Config: ClassVar[type] = NnlmConfig

    def __init__(
        self, config: NnlmConfig, tensors: Mapping[str, np.ndarray], weight_bits: Bits = 32
    ) -> None:
        """Prepare the tensors of a model for inference with weights of ``weight_bits``. The tensors
        are copied.

        Raises:
            BundleError: A tensor holds NaN or infinity.
        """
        arrays = copy_tensors(tensors)
        self.config = config
        self.parts = state_parts(config)
        self._weights = _prepare(config, arrays, weight_bits)

    @staticmethod
    def expect(config: NnlmConfig) -> dict[str, TensorSpec]:
        """Return the name, dtype and shape of every tensor of a model with this config."""
        vocabulary = config.vocab_size
        width = config.embedding_size
        size = config.hidden_size
        shapes: dict[str, tuple[int, ...]] = {
            "embedding.weight": (vocabulary + 1, width),
            "hidden.weight": (size, (config.order - 1) * width),
            "hidden.bias": (size,),
            "output.weight": (vocabulary, size),
            "output.bias": (vocabulary,),
        }
        if config.holds:
            shapes["held"] = size, width
        return {name: ("float32", shape) for name, shape in shapes.items()}

    def initial_state(self, batch_size: int) -> StepState:
        """Return the state before the first token: the id V, n-1 times, and zero sums if the model
        has conditions or fields.
        """
        return join_state(*initial_arrays(self.parts, batch_size))

    @cached_property
    def compiled_step(self) -> CompiledStep:
        """The step; see ``reviewgen.protocols.SupportsCompiledStep``."""
        return CompiledStep(_step, self._weights)

    def state_arrays(
        self, state: StepState
    ) -> tuple[Float32[np.ndarray, "S B W"], Int64[np.ndarray, "K B"]]:
        """Return a copy of a state in the arrays that the compiled step takes. The floats are the
        sums of conditions and fields, and the products of these sums with the matrix; the ints are
        the last n-1 ids.
        """
        last, sums = split_state(self.parts, state)
        floats = make_floats(self._weights.conditioning, sums, (0, len(last), 0))
        return floats, np.array(last.T, order="C")

    def state_of(
        self, floats: Float32[np.ndarray, "S B W"], ints: Int64[np.ndarray, "K B"]
    ) -> StepState:
        """Convert the arrays of ``state_arrays`` back to a state."""
        sums = take_sums(self._weights.conditioning, floats)
        return join_state(np.ascontiguousarray(ints.T), sums)


def _prepare(
    config: NnlmConfig, tensors: Mapping[str, Float32[np.ndarray, "..."]], bits: Bits
) -> Packed:
    """Return the weights in the form that the compiled loops take, with the table of products if it
    is small enough.
    """
    embedding = tensors["embedding.weight"]
    weight = tensors["hidden.weight"]
    rows, width = embedding.shape
    size = config.hidden_size
    context = config.order - 1
    table = np.empty((0, rows, size), np.float32)
    if 4 * context * rows * size <= TABLE_BYTES:  # a float32 has 4 bytes
        by_position = weight.reshape(size, context, width).transpose(1, 2, 0)  # (K, E, H)
        table = np.ascontiguousarray(embedding @ by_position)  # (K, V+1, H)
    hidden = pack(weight, bits)
    return Packed(
        table=table,
        embedding=embedding,
        hidden=hidden,
        hidden_bias=np.pad(tensors["hidden.bias"], (0, len(hidden.scales) - size)),
        output=pack(tensors["output.weight"], bits),
        output_bias=tensors["output.bias"],
        is_relu=int(config.activation == "relu"),
        conditioning=pack_conditioning(config, tensors, bits),
    )


@inner
def _compute_logits(weights, conditioning, seen, floats, logits):
    """Write the logits for the next token to ``logits``, (R, V64).

    Args:
        weights: The weights, a ``Packed``.
        conditioning: The field ``conditioning`` of ``weights``.
        seen: int64 (n-1, B), the last n-1 ids of each text; the first R texts are stepped.
        floats: The sums of conditions and fields, and the products of these sums with the matrix.
        logits: Written.
    """
    bias = weights.output_bias
    width = weights.embedding.shape[1]
    rows = len(logits)
    positions = len(seen)
    h = np.empty((rows, len(weights.hidden_bias)), np.float32)
    for row in range(rows):
        for j in range(h.shape[1]):
            h[row, j] = weights.hidden_bias[j]
        if conditioning is not None:
            _add(floats[1, row, : h.shape[1]], h[row])  # the products
    if len(weights.table) > 0:
        for row in range(rows):
            for position in range(positions):
                _add(weights.table[position, seen[position, row]], h[row])
    else:
        vectors = np.zeros((rows, positions * width), np.float32)
        for row in range(rows):
            for position in range(positions):
                vector = vectors[row, position * width : (position + 1) * width]
                _add(weights.embedding[seen[position, row]], vector)
        add_product(weights.hidden.panels, weights.hidden.scales, vectors, h)
    for row in range(rows):
        for j in range(h.shape[1]):
            h[row, j] = _activate(h[row, j], weights.is_relu)
        for j in range(len(bias)):
            logits[row, j] = bias[j]
    add_product(weights.output.panels, weights.output.scales, h, logits)


@by_address
def _step(weights, ids, floats, ints, logits):
    """Feed a token to each text, and write the logits after it; see ``reviewgen.compiled.steps``.

    Args:
        weights: A pointer to the weights: ``weights[0]`` is a ``Packed``.
        ids, logits: As in ``reviewgen.compiled.steps``.
        floats: The sums of conditions and fields, and the products of these sums with the matrix;
            empty if the model has neither conditions nor fields.
        ints: The last n-1 ids.
    """
    last = len(ints) - 1
    for row in range(len(ids)):  # drop the oldest id, and append the new one
        for position in range(last):
            ints[position, row] = ints[position + 1, row]
        ints[last, row] = ids[row]
    hold(weights[0].conditioning, ids, floats)
    _compute_logits(weights[0], weights[0].conditioning, ints, floats, logits)


@inlined
def _activate(number, is_relu):
    """Return relu or tanh of a number."""
    if is_relu:
        return ZERO if number < ZERO else number
    return tanh32(number)


@inner
def _add(numbers, row):
    """Add numbers to the beginning of a row, which may be longer."""
    for j in range(len(numbers)):
        row[j] += numbers[j]
