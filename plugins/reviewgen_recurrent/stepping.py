"""The steppers of rnn, gru and lstm: inference without torch.

The first layer's product of a token is looked up (``W_ih`` times its embedding is one of V
vectors), the matrices are packed for products with one vector (``reviewgen.compiled.linear``), and
the loops over tokens are compiled, in ``kernels``. Must not import torch. Shapes: B texts, T time
(tokens), V vocabulary, E embedding, H hidden, L layers, K tokens before the last one that n-grams
look at.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import ClassVar, TypeAlias

import numpy as np
from jaxtyping import Float32, Int64

from reviewgen.compiled.conditioning import multiply, pack_conditioning
from reviewgen.compiled.decoding import CompiledStepper
from reviewgen.compiled.linear import Bits, Matrix, pack, refuse_non_finite
from reviewgen.compiled.steps import CompiledStep
from reviewgen.protocols.stepper import TensorSpec
from reviewgen_recurrent import kernels
from reviewgen_recurrent.config import GruConfig, LstmConfig, RecurrentConfig, RnnConfig

# of the table of products; a larger one takes longer to compute than it saves in a few hundred
# words
TABLE_BYTES = 1 << 24

Parts: TypeAlias = tuple[np.ndarray, ...]
"""A state: h, float32 (B, L, H), for the lstm also c, the same, and with n-grams the last K ids,
int64 (B, K); then, if the model holds what a text is given, that, float32 (B, E + 2).
"""


class RecurrentStepper(CompiledStepper):
    """Base class of the three steppers; a subclass names its cell, whose equations are in
    ``kernels``.
    """

    Config: ClassVar[type]
    cell: ClassVar[int]
    parts: ClassVar[int] = 1  # of a cell's state

    def __init__(
        self, config: RecurrentConfig, tensors: Mapping[str, np.ndarray], weight_bits: Bits = 32
    ) -> None:
        """Prepare a model's tensors, which are copied, for inference with weights of
        ``weight_bits``.

        Raises:
            BundleError: A tensor holds NaN or infinity.
        """
        refuse_non_finite(tensors)
        self.config = config
        self._weights = self._prepare(
            {name: np.array(tensor, np.float32) for name, tensor in tensors.items()}, weight_bits
        )

    @classmethod
    def expect(cls, config: RecurrentConfig) -> dict[str, TensorSpec]:
        """Return the name, dtype and shape of every tensor of a model with this config."""
        vocabulary = config.vocab_size
        width = config.embedding_size
        size = config.hidden_size
        rows = kernels.GATES[cls.cell] * size
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
            shapes["held"] = width if config.tied else size, width
        for layer in range(config.layers):
            shapes[f"recurrent.weight_ih_l{layer}"] = rows, size if layer else width
            shapes[f"recurrent.weight_hh_l{layer}"] = rows, size
            shapes |= {f"recurrent.bias_{kind}_l{layer}": (rows,) for kind in ("ih", "hh")}
        return {name: ("float32", shape) for name, shape in shapes.items()}

    def initial_state(self, batch_size: int) -> Parts:
        """Return the state before the first token: zeros, and the id V for each token before the
        beginning.
        """
        config = self.config
        parts = [
            np.zeros((batch_size, config.layers, config.hidden_size), np.float32)
            for _ in range(self.parts)
        ]
        past = (
            [np.full((batch_size, config.ngrams - 1), config.vocab_size, np.int64)]
            if config.ngrams > 1
            else []
        )
        held = (
            [np.zeros((batch_size, config.embedding_size + 2), np.float32)] if config.holds else []
        )
        return *parts, *past, *held

    @cached_property
    def compiled_step(self) -> CompiledStep:
        """The step; see ``reviewgen.protocols.SupportsCompiledStep``."""
        return CompiledStep(kernels.step, self._weights)

    def state_arrays(
        self, state: Parts
    ) -> tuple[Float32[np.ndarray, "S B W"], Int64[np.ndarray, "K B"]]:
        """Return a copy of a state as the kernels take it: h of each layer, c of each, what is
        held; and the last tokens.

        What is held takes two rows, which may be wider than H: the sums, and their product with a
        matrix.
        """
        past = (
            state[self.parts].T
            if self.config.ngrams > 1
            else np.empty((0, len(state[0])), np.int64)
        )
        memory = [part.swapaxes(0, 1) for part in state[: self.parts]]
        held = self._weights.held
        if held is None:
            floats = np.ascontiguousarray(np.concatenate(memory))
        else:
            rows = len(memory) * self.config.layers
            size = self.config.hidden_size
            floats = np.zeros((rows + 2, len(state[0]), max(size, held.state_width)), np.float32)
            floats[:rows, :, :size] = np.concatenate(memory)
            floats[rows, :, : state[-1].shape[1]] = state[-1]
            multiply(held, floats[rows], floats[rows + 1])
        return floats, np.array(past, np.int64, order="C")

    def state_of(
        self, floats: Float32[np.ndarray, "S B W"], ints: Int64[np.ndarray, "K B"]
    ) -> Parts:
        """Return the state of such arrays."""
        config, rows = self.config, self.parts * self.config.layers
        memory = floats[:rows, :, : config.hidden_size]
        parts = (np.ascontiguousarray(part.swapaxes(0, 1)) for part in np.split(memory, self.parts))
        past = (np.ascontiguousarray(ints.T),) if config.ngrams > 1 else ()
        held = (floats[rows, :, : config.embedding_size + 2].copy(),) if config.holds else ()
        return *parts, *past, *held

    def _prepare(
        self, tensors: Mapping[str, Float32[np.ndarray, "..."]], bits: Bits
    ) -> kernels.Packed:
        config = self.config
        embedding = tensors["embedding.weight"]
        weight_ih, weight_hh, bias_ih, bias_hh = (
            [tensors[f"recurrent.{name}_l{layer}"] for layer in range(config.layers)]
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        recurrent = pack(np.stack(weight_hh), bits)
        first = pack(weight_ih[0], bits)
        sizes = config.layers, recurrent.scales.shape[1]
        biases = np.zeros(sizes, np.float32)
        hidden_biases = np.zeros(sizes, np.float32)
        separate = self.cell == kernels.GRU  # r scales the b_hh of n
        biases[:, : len(bias_ih[0])] = np.stack(bias_ih) + (0 if separate else np.stack(bias_hh))
        hidden_biases[:, : len(bias_hh[0])] = np.stack(bias_hh)
        table = None
        ngrams = None
        if config.ngrams > 1:
            ngrams = tensors["ngrams.table.weight"].reshape(
                config.ngrams - 1, config.ngram_buckets, config.embedding_size
            )
        elif 4 * len(embedding) * sizes[1] <= TABLE_BYTES:
            table = np.tile(biases[0], (len(embedding), 1))
            # sampling reports what such weights lead to
            with np.errstate(over="ignore", invalid="ignore"):
                table[:, : len(bias_ih[0])] += embedding @ weight_ih[0].T
        above = (
            pack(np.stack(weight_ih[1:]), bits)
            if weight_ih[1:]
            else Matrix(recurrent.panels[:0], recurrent.scales[:0])
        )
        projection, output = self._output(tensors, bits)
        matrices = (*first, *above, *recurrent)
        gru_biases = hidden_biases if separate else None
        kind = (
            1 if config.activation == "relu" else None,
            config.zoneout or None,
            1 if self.parts > 1 else None,
        )
        outputs = (*projection, *output, tensors["output.bias"])
        held = pack_conditioning(config, tensors, bits)
        return kernels.Packed(
            table, embedding, ngrams, *matrices, biases, gru_biases, *outputs, *kind, held
        )

    def _output(
        self, tensors: Mapping[str, Float32[np.ndarray, "..."]], bits: Bits
    ) -> tuple[Matrix | tuple[None, None], Matrix]:
        """Return the projection and the output matrix; two None for no projection, or if their
        product is smaller.
        """
        weight = tensors["embedding.weight" if self.config.tied else "output.weight"]
        projection = tensors.get("output.projection.weight")
        if projection is None:
            return (None, None), pack(weight, bits)
        if (
            not self.config.holds
            and len(weight) * projection.shape[1] <= weight.size + projection.size
        ):
            return (None, None), pack(weight @ projection, bits)
        return pack(projection, bits), pack(weight, bits)


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
    parts = 2
