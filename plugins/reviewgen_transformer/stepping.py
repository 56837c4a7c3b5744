"""The stepper of the transformer: inference without torch.

The matrices are packed for products with one vector (``reviewgen.compiled.linear``). The compiled
loops over tokens are in ``kernels``.

Must not import torch. Shapes: B texts, V vocabulary, H hidden, L layers, G key/value heads, D
dimensions of a head, K = G D, F feed-forward, W window.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import ClassVar, TypeAlias

import numpy as np
from jaxtyping import Float32, Int64

from reviewgen.compiled.conditioning import make_floats, pack_conditioning, take_sums
from reviewgen.compiled.decoding import CompiledStepper
from reviewgen.compiled.linear import Bits, copy_tensors, pack
from reviewgen.compiled.ngrams import ngram_rows
from reviewgen.compiled.steps import CompiledStep
from reviewgen.protocols.stepper import (
    StatePart,
    TensorSpec,
    ids_part,
    initial_arrays,
    join_state,
    split_state,
    sums_part,
)
from reviewgen_transformer import kernels
from reviewgen_transformer.config import TransformerConfig

State: TypeAlias = tuple[np.ndarray, ...]
"""The state of a stepper, in this order: the keys (before their rotation) and the values of the
last W tokens, oldest first, float32 (B, L, 2, W, K); how many of these W tokens exist, int64 (B,):
after fewer tokens, only the last places are used; the normalised output of the last layer, float32
(B, H); with n-grams the last ids, int64; with conditions or fields their sums, float32 (B, H + 2),
see ``reviewgen.protocols.inputs.hold_given``.
"""


def state_parts(config: TransformerConfig) -> list[StatePart | None]:
    """Return the parts of the state of a model. The state of a stepper has one more, the output of
    the last layer, after the count.
    """
    sizes = {"L": config.layers, "2": 2, "W": config.window, "K": config.key_size}
    return [
        StatePart("The cache of the state", sizes),
        StatePart("The count of the state", {}, 0),
        ids_part(config, config.ngrams),
        sums_part(config, config.hidden_size),
    ]


class TransformerStepper(CompiledStepper):
    """The stepper of ``transformer``."""

    Config: ClassVar[type] = TransformerConfig

    def __init__(
        self, config: TransformerConfig, tensors: Mapping[str, np.ndarray], weight_bits: Bits = 32
    ) -> None:
        """Prepare the tensors of a model for inference with weights of ``weight_bits``. The tensors
        are copied.

        Raises:
            BundleError: A tensor holds NaN or infinity.
        """
        arrays = copy_tensors(tensors)
        self.config = config
        cache, count, *others = state_parts(config)
        self.parts = [cache, count, StatePart("The output", {"H": config.hidden_size}), *others]
        self._weights = _prepare(config, arrays, weight_bits)

    @staticmethod
    def expect(config: TransformerConfig) -> dict[str, TensorSpec]:
        """Return the name, dtype and shape of every tensor of a model with this config."""
        size = config.hidden_size
        layer_shapes: dict[str, tuple[int, ...]] = {
            "input_layernorm": (size,),
            "self_attn.q_proj": (size, size),
            "self_attn.k_proj": (config.key_size, size),
            "self_attn.v_proj": (config.key_size, size),
            "self_attn.o_proj": (size, size),
            "post_attention_layernorm": (size,),
            "mlp.gate_proj": (config.inner_size, size),
            "mlp.up_proj": (config.inner_size, size),
            "mlp.down_proj": (size, config.inner_size),
        }
        shapes: dict[str, tuple[int, ...]] = {
            "embedding.weight": (config.vocab_size, size),
            "norm.weight": (size,),
        }
        for layer in range(config.layers):
            for name, shape in layer_shapes.items():
                shapes[f"layers.{layer}.{name}.weight"] = shape
        if config.ngrams > 1:
            shapes["ngrams.table.weight"] = (config.ngrams - 1) * config.ngram_buckets, size
        if config.holds:
            shapes["held"] = size, size
        return {name: ("float32", shape) for name, shape in shapes.items()}

    def initial_state(self, batch_size: int) -> State:
        """Return the state before the first token: an empty cache, and with n-grams the id V, which
        stands for each token before the beginning.
        """
        return initial_arrays(self.parts, batch_size)

    @cached_property
    def compiled_step(self) -> CompiledStep:
        """The step; see ``reviewgen.protocols.SupportsCompiledStep``."""
        return CompiledStep(kernels.step, self._weights)

    def state_arrays(
        self, state: State
    ) -> tuple[Float32[np.ndarray, "S B W"], Int64[np.ndarray, "K B"]]:
        """Return a copy of a state in the arrays that the compiled step takes; see
        ``kernels.step``. The oldest token is in the first slot of the ring.
        """
        config = self.config
        layers = config.layers
        cache, count, last, past, sums = split_state(self.parts, state)
        batch = len(count)
        ring_width = config.window * config.key_size
        shape = (3 * layers + 1, batch, max(ring_width, config.hidden_size))
        floats = make_floats(self._weights.conditioning, sums, shape)
        keys, values = cache.transpose(2, 1, 0, 3, 4)  # (L, B, W, K) each
        # the three rings of each layer; the keys occur with and without their rotation
        rings = np.concatenate([self._rotate(keys), values, keys])
        floats[: 3 * layers, :, :ring_width] = rings.reshape(3 * layers, batch, ring_width)
        floats[3 * layers, :, : config.hidden_size] = last
        # The next token gets slot 0. If the ring is full, this is the slot of the oldest token.
        ints = [np.zeros((1, batch), np.int64), count[None]]
        if past is not None:
            ints.append(past.T)
        return floats, np.ascontiguousarray(np.concatenate(ints))

    def state_of(
        self, floats: Float32[np.ndarray, "S B W"], ints: Int64[np.ndarray, "K B"]
    ) -> State:
        """Convert the arrays of ``state_arrays`` back to a state."""
        config = self.config
        layers = config.layers
        batch = floats.shape[1]
        # The slots from the oldest token to the latest one. The oldest is in the slot that the next
        # token will take.
        slots = (ints[0][:, None] + np.arange(config.window)) % config.window  # (B, W)
        # the values, then the keys before their rotation
        shape = (2, layers, batch, config.window, config.key_size)
        rings = floats[layers : 3 * layers, :, : config.window * config.key_size].reshape(shape)
        ordered = np.take_along_axis(rings, slots[None, None, :, :, None], axis=3)
        cache = ordered[::-1].transpose(2, 1, 0, 3, 4)  # keys before values
        last = floats[3 * layers, :, : config.hidden_size]
        past = np.ascontiguousarray(ints[2:].T) if len(ints) > 2 else None
        sums = take_sums(self._weights.conditioning, floats)
        return join_state(np.ascontiguousarray(cache), ints[1].copy(), last.copy(), past, sums)

    def _rotate(self, keys: Float32[np.ndarray, "L B W K"]) -> Float32[np.ndarray, "L B W K"]:
        """Return keys rotated by the angles of their slots."""
        split = keys.reshape(*keys.shape[:3], -1, self.config.head_size)  # (L, B, W, G, D)
        first, second = np.split(split, 2, axis=-1)
        cosine = self._weights.cosine[: self.config.window, None]  # (W, 1, D / 2)
        sine = self._weights.sine[: self.config.window, None]
        halves = [first * cosine - second * sine, second * cosine + first * sine]
        return np.concatenate(halves, axis=-1).reshape(keys.shape)


def _prepare(
    config: TransformerConfig, tensors: Mapping[str, Float32[np.ndarray, "..."]], bits: Bits
) -> kernels.Packed:
    """Return the weights in the form that the compiled loops take."""

    def stack(*names: str, norm: str | None = None) -> Float32[np.ndarray, "L M K"]:
        """Return some matrices of each layer, one below the other. ``norm`` names the normalisation
        whose result they read: its weights are multiplied into them.
        """
        stacked = []
        for layer in range(config.layers):
            prefix = f"layers.{layer}."
            matrix = np.concatenate([tensors[f"{prefix}{name}.weight"] for name in names])
            stacked.append(matrix if norm is None else matrix * tensors[f"{prefix}{norm}.weight"])
        return np.stack(stacked)

    projections = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    attention = stack(*projections, norm="input_layernorm")
    attention[:, : config.hidden_size] *= config.head_size**-0.5  # the rows of W_q
    expand = stack("mlp.gate_proj", "mlp.up_proj", norm="post_attention_layernorm")
    exponents = np.arange(0, config.head_size, 2) / config.head_size
    angles = np.arange(2 * config.window)[:, None] * config.rope_theta**-exponents
    embedding = tensors["embedding.weight"]
    return kernels.Packed(
        embedding=embedding,
        ngrams=ngram_rows(config, tensors),
        attention=pack(attention, bits),
        mix=pack(stack("self_attn.o_proj"), bits),
        expand=pack(expand, bits),
        contract=pack(stack("mlp.down_proj"), bits),
        output=pack(embedding * tensors["norm.weight"], bits),
        cosine=np.cos(angles).astype(np.float32),
        sine=np.sin(angles).astype(np.float32),
        epsilon=config.rms_norm_eps,
        bos_id=-1 if config.bos_id is None else config.bos_id,
        key_size=config.key_size,
        inner_size=config.inner_size,
        conditioning=pack_conditioning(config, tensors, bits),
    )
