"""The stepper of nnlm: a trained model's arrays, made ready once to predict one token after another.

The hidden layer's product of a token at a place is looked up where all of them are few, so that a step is n-1 additions of a
row and the output's product. It must not import torch. Shapes: B texts, T time (tokens), V vocabulary, E embedding, H hidden,
n order, N numbers, R rows side by side.
"""

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int64, Shaped

from reviewgen.compiled import compiled
from reviewgen.compiled.linear import Bits, add_product, pack, refuse_non_numbers, tanh32
from reviewgen.compiled.sampling import NONE, SamplingParams, sample_live_rows
from reviewgen.compiled.windows import NO_WINDOWS
from reviewgen.protocols.stepper import CopyGuard, TensorSpec
from reviewgen_nnlm.config import NnlmConfig

__all__ = ["NnlmStepper"]

TABLE_BYTES = 1 << 24  # of looked-up products; a larger table takes longer to make than some texts to write without it
ZERO = np.float32(0)


class Weights(NamedTuple):
    """An nnlm made ready: matrices in panels, each followed by its scales."""

    table: Float32[np.ndarray, "K rows H"]  # of n-1 places, V+1 products each; or of none: they are made from what follows
    embedding: Float32[np.ndarray, "V1 E"]
    hidden: Shaped[np.ndarray, "panels KE 64"]
    hidden_scales: Float32[np.ndarray, " H64"]
    hidden_bias: Float32[np.ndarray, " H64"]
    output: Shaped[np.ndarray, "panels H 64"]
    output_scales: Float32[np.ndarray, " V64"]
    output_bias: Float32[np.ndarray, " V"]


class NnlmStepper:
    """The stepper of ``nnlm``. The state is the last n-1 ids, (B, n-1), filled up with the id V before the beginning."""

    Config: ClassVar[type] = NnlmConfig

    def __init__(self, config: NnlmConfig, tensors: Mapping[str, np.ndarray], bits: Bits = 32) -> None:
        """Make a stepper from a model's tensors, which it does not keep.

        Raises:
            BundleError: A tensor holds NaN or infinity.
        """
        refuse_non_numbers(tensors)
        self.config = config
        self._is_relu = config.activation == "relu"
        self._weights = _prepare({name: np.array(tensor, np.float32) for name, tensor in tensors.items()}, bits)

    @staticmethod
    def expect(config: NnlmConfig) -> dict[str, TensorSpec]:
        """Return the name and form of every tensor of a model with this config."""
        vocabulary, width, size = config.vocab_size, config.embedding_size, config.hidden_size
        return {
            "embedding.weight": ("float32", (vocabulary + 1, width)),
            "hidden.weight": ("float32", (size, (config.order - 1) * width)),
            "hidden.bias": ("float32", (size,)),
            "output.weight": ("float32", (vocabulary, size)),
            "output.bias": ("float32", (vocabulary,)),
        }

    def initial_state(self, batch_size: int) -> Int64[np.ndarray, "B K"]:
        """Return the state before the first token: n-1 times the id V."""
        return np.full((batch_size, self.config.order - 1), self.config.vocab_size, np.int64)

    def forward(
        self, ids: Int64[np.ndarray, "B T"], state: Int64[np.ndarray, "B K"]
    ) -> tuple[Float32[np.ndarray, "B V"], Int64[np.ndarray, "B K"]]:
        """Return the logits of what follows the last of T >= 1 tokens, and the last n-1 ids (K = n-1)."""
        seen = np.concatenate((state, ids), axis=1)[:, -state.shape[1] :].copy()
        logits = np.zeros((len(ids), len(self._weights.output_scales)), np.float32)
        _score(self._weights, self._is_relu, seen, logits)
        return np.ascontiguousarray(logits[:, : self.config.vocab_size]), seen

    def sample(
        self,
        state: Int64[np.ndarray, "B K"],
        uniform: Float64[np.ndarray, "B N"],
        params: SamplingParams,
        texts: Int64[np.ndarray, "B L"],
        written: Int64[np.ndarray, " B"],
        guard: CopyGuard | None = None,
    ) -> tuple[Int64[np.ndarray, "B N"], Int64[np.ndarray, " B"], Int64[np.ndarray, "B K"]]:
        """Return up to N tokens a row, how many numbers each used up, and the state after them, as SupportsSample says.

        A row stops where fewer than two numbers are left. To the last bit, it does not depend on the rows beside it.
        """
        begun, seen = texts.shape[1], np.array(state, order="C")
        whole = np.full((len(texts), begun + uniform.shape[1]), NONE, np.int64)
        whole[:, :begun] = texts
        drawn, used = np.zeros(len(texts), np.int64), np.zeros(len(texts), np.int64)
        windows, run = guard or (NO_WINDOWS, 0)
        numbers, new = np.ascontiguousarray(uniform), np.ascontiguousarray(written)
        _write(self._weights, self._is_relu, seen, whole, begun, drawn, new, numbers, used, params, windows, run)
        return whole[:, begun:], used, seen


def _prepare(tensors: Mapping[str, Float32[np.ndarray, "..."]], bits: Bits) -> Weights:
    embedding, hidden, bias = (tensors[name] for name in ("embedding.weight", "hidden.weight", "hidden.bias"))
    (rows, width), size = embedding.shape, len(bias)
    places = hidden.shape[1] // width
    table = np.empty((0, rows, size), np.float32)
    if 4 * places * rows * size <= TABLE_BYTES:
        by_place = hidden.reshape(size, places, width).transpose(1, 2, 0)  # (K, E, H)
        table = np.ascontiguousarray(embedding @ by_place)  # (K, V+1, H)
    packed = pack(hidden, bits)
    padded = np.zeros(len(packed.scales), np.float32)
    padded[:size] = bias
    return Weights(table, embedding, *packed, padded, *pack(tensors["output.weight"], bits), tensors["output.bias"])


@compiled
def _score(weights, is_relu, seen, logits):
    """Write the logits after the last n-1 ids of some rows, int64 (R, n-1), to ``logits``, (R, V64)."""
    embedding, bias = weights.embedding, weights.output_bias
    width = embedding.shape[1]
    h = np.empty((len(seen), len(weights.hidden_bias)), np.float32)
    for row in range(len(seen)):
        for j in range(h.shape[1]):
            h[row, j] = weights.hidden_bias[j]
    if len(weights.table) > 0:
        for row in range(len(seen)):
            for place in range(seen.shape[1]):
                _add(weights.table[place, seen[row, place]], h[row])
    else:
        vectors = np.zeros((len(seen), seen.shape[1] * width), np.float32)
        for row in range(len(seen)):
            for place in range(seen.shape[1]):
                _add(embedding[seen[row, place]], vectors[row, place * width : (place + 1) * width])
        add_product(weights.hidden, weights.hidden_scales, vectors, h)
    for row in range(len(seen)):
        for j in range(h.shape[1]):
            h[row, j] = (ZERO if h[row, j] < ZERO else h[row, j]) if is_relu else tanh32(h[row, j])
        for j in range(len(bias)):
            logits[row, j] = bias[j]
    add_product(weights.output, weights.output_scales, h, logits)


@compiled
def _write(weights, is_relu, seen, texts, begun, drawn, written, uniform, used, params, windows, run):
    """Draw tokens for B texts until each has met its end or the last but one of its numbers; ``seen`` goes with them.

    A text that has ended leaves its slot to the last one, so that all work is for texts that go on.

    Args:
        texts, begun, drawn, written, uniform, used, params, windows, run: As in ``sample_live_rows``.
    """
    live, vocabulary, last = len(seen), len(weights.output_bias), seen.shape[1] - 1
    rows, ids, now = np.arange(live), np.empty(live, np.int64), seen.copy()
    all_logits = np.zeros((live, len(weights.output_scales)), np.float32)
    scores, chances = np.empty(vocabulary), np.empty(vocabulary)
    while live > 0:
        logits = all_logits[:live]
        _score(weights, is_relu, now[:live], logits)
        sample_live_rows(
            logits, rows, live, texts, begun, drawn, written, uniform, used, params, windows, run, ids, scores, chances
        )
        slot = 0
        while slot < live:
            if ids[slot] >= 0:
                for place in range(last):
                    now[slot, place] = now[slot, place + 1]
                now[slot, last] = ids[slot]
                slot += 1
                continue
            live -= 1
            for place in range(last + 1):
                seen[rows[slot], place] = now[slot, place]
                now[slot, place] = now[live, place]
            rows[slot], ids[slot] = rows[live], ids[live]


@compiled
def _add(numbers, row):
    for j in range(len(numbers)):
        row[j] += numbers[j]
