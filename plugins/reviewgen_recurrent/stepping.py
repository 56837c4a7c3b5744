"""The steppers of rnn, gru and lstm: inference without torch.

``W_ih`` times the embedding of a token is one of V vectors, so the first layer's product is looked
up in a table if the table is small enough. The matrices are packed for products with one vector
(``reviewgen.compiled.linear``). The compiled loops over tokens are in ``kernels``.

Must not import torch. Shapes: B texts, V vocabulary, E embedding, H hidden, L layers, K tokens
before the last one that n-grams look at.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import ClassVar, TypeAlias

import numpy as np
from jaxtyping import Float32, Int64

from reviewgen.compiled.conditioning import make_floats, pack_conditioning, take_sums
from reviewgen.compiled.decoding import CompiledStepper
from reviewgen.compiled.linear import Bits, Matrix, copy_tensors, pack
from reviewgen.compiled.ngrams import ngram_rows
from reviewgen.compiled.steps import CompiledStep
from reviewgen.protocols.stepper import (
    StatePart,
    TensorSpec,
    ids_part,
    initial_arrays,
    split_state,
    sums_part,
)
from reviewgen_recurrent import kernels
from reviewgen_recurrent.config import (
    KEY_SIZE,
    NORM_EPSILON,
    GruConfig,
    LstmConfig,
    RecurrentConfig,
    RnnConfig,
)

# a larger table takes longer to compute than it saves while a few hundred words are generated
TABLE_BYTES = 1 << 24

State: TypeAlias = tuple[np.ndarray, ...]
"""The state of a stepper, in this order: h, float32 (B, L, H); for the lstm c, float32 (B, L, H);
with n-grams the last K ids, int64 (B, K); with conditions or fields their sums, float32 (B, E + 2),
see ``reviewgen.protocols.inputs.hold_given``; with a pointer the keys, float32 (B, W + 1, A), and
the ids of their tokens, int64 (B, W + 1).
"""


def state_parts(config: RecurrentConfig, vectors: int) -> list[StatePart | None]:
    """Return the parts of the state of a model. ``vectors`` is the number of vectors in the state
    of a cell: 1 (h) or 2 (h and c).
    """
    sizes = {"L": config.layers, "H": config.hidden_size}
    slots = {"S": config.pointer + 1}  # W + 1
    pointer: list[StatePart | None] = [None, None]
    if config.pointer:
        pointer = [
            StatePart("The keys of the state", {**slots, "A": KEY_SIZE}),
            StatePart("The copied ids of the state", slots, -1),
        ]
    return [
        *(StatePart(f"The state {name}", sizes) for name in "hc"[:vectors]),
        ids_part(config, config.ngrams),
        sums_part(config, config.embedding_size),
        *pointer,
    ]


class RecurrentStepper(CompiledStepper):
    """Base class of the three steppers. A subclass names its cell; the steps of the cells are in
    ``kernels``.
    """

    Config: ClassVar[type]
    cell: ClassVar[int]
    vectors: ClassVar[int] = 1  # number of vectors in a cell's state: 1 is h, 2 are h and c

    def __init__(
        self, config: RecurrentConfig, tensors: Mapping[str, np.ndarray], weight_bits: Bits = 32
    ) -> None:
        """Prepare the tensors of a model for inference with weights of ``weight_bits``. The tensors
        are copied.

        Raises:
            BundleError: A tensor holds NaN or infinity.
        """
        arrays = copy_tensors(tensors)
        self.config = config
        self.parts = state_parts(config, self.vectors)
        self._weights = self._prepare(arrays, weight_bits)

    @classmethod
    def expect(cls, config: RecurrentConfig) -> dict[str, TensorSpec]:
        """Return the name, dtype and shape of every tensor of a model with this config."""
        vocabulary = config.vocab_size
        width = config.embedding_size
        size = config.hidden_size
        rows = kernels.GATES[cls.cell] * size
        features = width if config.tied else size  # width of the output layer's input
        shapes: dict[str, tuple[int, ...]] = {
            "embedding.weight": (vocabulary, width),
            "output.bias": (vocabulary,),
        }
        if config.ngrams > 1:
            shapes["ngrams.table.weight"] = (config.ngrams - 1) * config.ngram_buckets, width
        if not config.tied:
            shapes["output.weight"] = (vocabulary, size)
        elif size != width:
            shapes["output.projection.weight"] = (width, size)
        if config.holds:
            shapes["held"] = features, width
        if config.pointer:
            shapes |= {f"pointer.{name}.weight": (KEY_SIZE, features) for name in ("query", "key")}
            shapes |= {"pointer.norm.weight": (features,), "pointer.gate.weight": (1, features)}
            shapes["pointer.gate.bias"] = (1,)
        for layer in range(config.layers):
            shapes[f"recurrent.weight_ih_l{layer}"] = rows, size if layer else width
            shapes[f"recurrent.weight_hh_l{layer}"] = rows, size
            shapes |= {f"recurrent.bias_{kind}_l{layer}": (rows,) for kind in ("ih", "hh")}
        return {name: ("float32", shape) for name, shape in shapes.items()}

    def initial_state(self, batch_size: int) -> State:
        """Return the state before the first token: zeros, and with n-grams the id V, which stands
        for each token before the beginning; with a pointer, the ids -1.
        """
        return initial_arrays(self.parts, batch_size)

    @cached_property
    def compiled_step(self) -> CompiledStep:
        """The step; see ``reviewgen.protocols.SupportsCompiledStep``."""
        return CompiledStep(kernels.step, self._weights)

    def state_arrays(
        self, state: State
    ) -> tuple[Float32[np.ndarray, "S B W"], Int64[np.ndarray, "K B"]]:
        """Return a copy of a state in the two arrays that the compiled step takes; see
        ``kernels.step``.

        The floats are h of each layer; then c of each layer; then the ring of keys of a pointer;
        then, with conditions or fields, their sums and the products of the sums with the matrix.
        All are as wide as the widest of them. The ints are those of a pointer, then the last K ids.
        The oldest token is in the first slot of the ring.
        """
        rows = self.vectors * self.config.layers
        size = self.config.hidden_size
        *memory, past, sums, keys, seen = split_state(self.parts, state)
        batch = len(memory[0])
        shape = (rows, batch, size)
        ints = [] if past is None else [past.T]
        if keys is not None:
            ring = keys.reshape(batch, -1)
            shape = (rows + 1, batch, max(size, ring.shape[1]))
            # the key of the next token is in the last slot of the ring, W
            ints = [np.full((1, batch), self.config.pointer), seen.T, *ints]
        floats = make_floats(self._weights.conditioning, sums, shape)
        floats[:rows, :, :size] = np.concatenate([vectors.swapaxes(0, 1) for vectors in memory])
        if keys is not None:
            floats[rows, :, : ring.shape[1]] = ring
        # the empty array is for a model without ints, since there must be one array
        return floats, np.concatenate([np.empty((0, batch), np.int64), *ints])

    def state_of(
        self, floats: Float32[np.ndarray, "S B W"], ints: Int64[np.ndarray, "K B"]
    ) -> State:
        """Convert the arrays of ``state_arrays`` back to a state."""
        rows = self.vectors * self.config.layers
        # h and, for the lstm, c, each (L, B, H)
        memory = np.split(floats[:rows, :, : self.config.hidden_size], self.vectors)
        keys: np.ndarray | None = None
        seen: np.ndarray | None = None
        if self.config.pointer:
            slots = self.config.pointer + 1
            # ints[0] is the slot of the next token's key; the slot after it has the oldest token
            order = (ints[0][:, None] + 1 + np.arange(slots)) % slots  # (B, W + 1), oldest first
            seen = np.take_along_axis(ints[1 : 1 + slots].T, order, axis=1)
            ring = floats[rows, :, : slots * KEY_SIZE].reshape(-1, slots, KEY_SIZE)
            keys = np.take_along_axis(ring, order[..., None], axis=1)
            ints = ints[1 + slots :]
        past = np.ascontiguousarray(ints.T) if len(ints) else None
        sums = take_sums(self._weights.conditioning, floats)
        vectors = (np.ascontiguousarray(part.swapaxes(0, 1)) for part in memory)
        return tuple(part for part in (*vectors, past, sums, keys, seen) if part is not None)

    def _prepare(
        self, tensors: Mapping[str, Float32[np.ndarray, "..."]], bits: Bits
    ) -> kernels.Packed:
        """Return the weights in the form that the compiled loops take, with the table of products
        if it is small enough.
        """
        config = self.config
        embedding = tensors["embedding.weight"]
        weight_ih, weight_hh, bias_ih, bias_hh = (
            [tensors[f"recurrent.{name}_l{layer}"] for layer in range(config.layers)]
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        recurrent = pack(np.stack(weight_hh), bits)
        rows = len(bias_ih[0])  # number of gates times H
        columns = recurrent.scales.shape[1]  # P: the rows, rounded up to whole panels
        padding = ((0, 0), (0, columns - rows))
        biases = np.pad(np.stack(bias_ih), padding)
        hidden_biases: np.ndarray | None = np.pad(np.stack(bias_hh), padding)
        if self.cell != kernels.GRU:  # in the gru, r scales n's b_hh, so b_hh stays separate
            biases += hidden_biases
            hidden_biases = None
        table = None
        ngrams = ngram_rows(config, tensors)
        # a float32 has 4 bytes
        if ngrams is None and 4 * len(embedding) * columns <= TABLE_BYTES:
            table = np.tile(biases[0], (len(embedding), 1))
            # very large weights overflow here; sampling then reports the infinite logits
            with np.errstate(over="ignore", invalid="ignore"):
                table[:, :rows] += embedding @ weight_ih[0].T
        # with a single layer, there are none above it: an empty stack
        above = Matrix(recurrent.panels[:0], recurrent.scales[:0])
        if config.layers > 1:
            above = pack(np.stack(weight_ih[1:]), bits)
        projection, output = self._output(tensors, bits)
        return kernels.Packed(
            table=table,
            embedding=embedding,
            ngrams=ngrams,
            first=pack(weight_ih[0], bits),
            above=above,
            recurrent=recurrent,
            biases=biases,
            hidden_biases=hidden_biases,
            projection=projection,
            output=output,
            output_bias=tensors["output.bias"],
            relu=1 if config.activation == "relu" else None,
            zoneout=config.zoneout or None,
            memory=1 if self.vectors > 1 else None,
            conditioning=pack_conditioning(config, tensors, bits),
            pointer=_pack_pointer(config, tensors) if config.pointer else None,
        )

    def _output(
        self, tensors: Mapping[str, Float32[np.ndarray, "..."]], bits: Bits
    ) -> tuple[Matrix | None, Matrix]:
        """Return the projection (None if there is none) and the output matrix.

        If the product of both matrices has fewer numbers than the two together, the product takes
        their place. This is not possible if conditions or fields are added between them, or if a
        pointer needs the projection.
        """
        weight = tensors["embedding.weight" if self.config.tied else "output.weight"]
        projection = tensors.get("output.projection.weight")
        if projection is None:
            return None, pack(weight, bits)
        is_smaller = len(weight) * projection.shape[1] <= weight.size + projection.size
        if is_smaller and not self.config.holds and not self.config.pointer:
            return None, pack(weight @ projection, bits)
        return pack(projection, bits), pack(weight, bits)


def _pack_pointer(
    config: RecurrentConfig, tensors: Mapping[str, Float32[np.ndarray, "..."]]
) -> kernels.PackedPointer:
    """Return the weights of the pointer, with 32 bits each."""
    key, query, gate, norm = (
        tensors[f"pointer.{name}.weight"] for name in ("key", "query", "gate", "norm")
    )
    stacked = np.concatenate([key, query * np.float32(KEY_SIZE**-0.5), gate]) * norm
    return kernels.PackedPointer(
        *pack(stacked),
        gate_bias=float(tensors["pointer.gate.bias"][0]),
        epsilon=NORM_EPSILON,
        key_size=KEY_SIZE,
        slots=config.pointer + 1,
        bos_id=-1 if config.bos_id is None else config.bos_id,
        first_condition_id=config.vocab_size - config.field_ids - config.condition_ids,
    )


class RnnStepper(RecurrentStepper):
    """The stepper of ``rnn``."""

    Config: ClassVar[type] = RnnConfig
    cell = kernels.RNN


class GruStepper(RecurrentStepper):
    """The stepper of ``gru``."""

    Config: ClassVar[type] = GruConfig
    cell = kernels.GRU


class LstmStepper(RecurrentStepper):
    """The stepper of ``lstm``."""

    Config: ClassVar[type] = LstmConfig
    cell = kernels.LSTM
    vectors = 2
