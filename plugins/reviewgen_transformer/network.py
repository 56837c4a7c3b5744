"""The transformer as a language model: embedding, layers of attention and feed-forward, states.

Must not know tokenizers, training or text. Shapes: B batch, T time (tokens), V vocabulary, H
hidden, L layers, N heads, G key/value heads, D dimensions of a head, K = G D, F feed-forward, W
window, S = W + T places of tokens that have keys: W for the cache, then T for the tokens of a call.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from reviewgen.compiled.dropout import drop
from reviewgen.compiled.linear import Bits
from reviewgen.protocols import Operation, count_by_module, match_tensors
from reviewgen.protocols.abilities import float_arrays
from reviewgen.protocols.graph import ModelGraph
from reviewgen.protocols.inputs import (
    check_call,
    group_held,
    hold_given,
    initial_tensors,
    learn_given,
    make_held,
)
from reviewgen.protocols.ngrams import NgramEmbedding
from reviewgen.protocols.stepper import join_state
from reviewgen_transformer.config import TransformerConfig
from reviewgen_transformer.explain import list_operations
from reviewgen_transformer.graph import describe_transformer
from reviewgen_transformer.stepping import TransformerStepper, state_parts

State: TypeAlias = tuple[Tensor, ...]
"""The state of a model, in this order: the keys and values of the last W tokens, oldest first,
float32 (B, L, 2, W, G D), called the cache; the count of tokens in the cache, int64 (B,), which are
its last ones (the places before them are not read); with n-grams the last ids; with conditions or
fields their sums, (B, H + 2), see ``hold_given``. Keys are stored without their rotation.
"""

KINDS = {
    "embedding": "embeddings",
    "ngrams": "n-gram vectors",
    "held": "conditions",
    "layers": "layers",
    "norm": "last normalisation",
}
"""What the parameters of each module are called in reports. ``held`` is the matrix A that
multiplies the vector of conditions and fields.
"""


def mistral_name(name: str) -> str:
    """Return the name that a tensor has in ``MistralForCausalLM`` of the library transformers.

    >>> mistral_name("embedding.weight"), mistral_name("layers.0.mlp.up_proj.weight")
    ('model.embed_tokens.weight', 'model.layers.0.mlp.up_proj.weight')
    """
    return TransformerConfig.transformers_name(name)


class Positions(NamedTuple):
    """What all layers of a call share.

    Attributes:
        mask: Added to the scores: 0 where a token attends to a key, else -inf; float (B, 1, T, S).
        cosine: The cosines of the rotary angles of S positions, (S, D).
        sine: Their sines, (S, D), the first half of them negative.
    """

    mask: Float[Tensor, "B 1 T S"]
    cosine: Float[Tensor, "S D"]
    sine: Float[Tensor, "S D"]


class Attention(nn.Module):
    """Causal attention over a window, with rotary positions.

    Each head compares the query of a token with the keys of the last W tokens, and adds up their
    values by the softmax of these scores.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.head_size = config.head_size
        self.q_proj = nn.Linear(size, size, bias=False)
        self.k_proj = nn.Linear(size, config.key_size, bias=False)
        self.v_proj = nn.Linear(size, config.key_size, bias=False)
        self.o_proj = nn.Linear(size, size, bias=False)

    def begin_as_copy(self) -> None:
        """Initialise W_v to an orthogonal matrix, and W_o to half of its transpose. If each head
        has values of its own, W_o W_v is then half of the identity, so that a token becomes more
        probable if a head reads it. Similar to Trockman and Kolter 2023, "Mimetic Initialization of
        Self-Attention Layers".
        """
        values = nn.init.orthogonal_(self.v_proj.weight.detach())  # W_v, (K, H)
        heads = values.unflatten(0, (-1, self.head_size))  # (G, D, H)
        shared = self.o_proj.in_features // len(values)  # number of heads that share values, N / G
        with torch.no_grad():
            # (G, D, H) -> (N, D, H) -> (N D, H) -> (H, N D)
            self.o_proj.weight.copy_(heads.repeat_interleave(shared, 0).flatten(0, 1).T / 2)

    def forward(
        self, x: Float[Tensor, "B T H"], cache: Float[Tensor, "B 2 W K"], positions: Positions
    ) -> tuple[Float[Tensor, "B T H"], Float[Tensor, "B 2 W K"]]:
        """Return what the heads have read, multiplied by W_o, and the new cache: the keys and
        values of the last W tokens.
        """
        queries, keys, values, new_cache = self.project(x, cache, positions)
        read = F.scaled_dot_product_attention(
            *(heads.transpose(1, 2) for heads in (queries, keys, values)),
            attn_mask=positions.mask.to(queries.dtype),
            enable_gqa=keys.size(2) != queries.size(2),
        )
        return self.o_proj(read.transpose(1, 2).flatten(2)), new_cache

    def project(
        self, x: Float[Tensor, "B T H"], cache: Float[Tensor, "B 2 W K"], positions: Positions
    ) -> tuple[
        Float[Tensor, "B T N D"],
        Float[Tensor, "B S G D"],
        Float[Tensor, "B S G D"],
        Float[Tensor, "B 2 W K"],
    ]:
        """Return the queries and keys (rotated) and the values of the heads, and the new cache: the
        keys (not rotated) and values of the last W tokens.
        """
        time = x.size(1)
        queries = self.q_proj(x)
        cached_keys, cached_values = cache.to(queries.dtype).unbind(1)
        keys = torch.cat([cached_keys, self.k_proj(x)], dim=1)  # (B, S, K)
        values = torch.cat([cached_values, self.v_proj(x)], dim=1)
        new_cache = torch.stack([keys[:, time:], values[:, time:]], dim=1).to(cache.dtype)
        # split the heads: queries are then (B, T, N, D), keys and values (B, S, G, D)
        queries, keys, values = (
            heads.unflatten(-1, (-1, self.head_size)) for heads in (queries, keys, values)
        )
        queries = rotate(queries, positions.cosine[-time:], positions.sine[-time:])
        keys = rotate(keys, positions.cosine, positions.sine)
        return queries, keys, values, new_cache


class FeedForward(nn.Module):
    """Two layers with a gate, SwiGLU: ``W_down (silu(W_gate x) * W_up x)``."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.inner_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.inner_size, bias=False)
        self.down_proj = nn.Linear(config.inner_size, config.hidden_size, bias=False)

    def forward(self, x: Float[Tensor, "B T H"]) -> Float[Tensor, "B T H"]:
        """Return the output of the second layer."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """Attention and feed-forward. Each reads the normalised x, and its result is added to x."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.input_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = FeedForward(config)

    def forward(
        self, x: Float[Tensor, "B T H"], cache: Float[Tensor, "B 2 W K"], positions: Positions
    ) -> tuple[Float[Tensor, "B T H"], Float[Tensor, "B 2 W K"]]:
        """Return the output of the layer, and its new cache: the keys and values of the last W
        tokens.
        """
        read, new_cache = self.self_attn(self.input_layernorm(x), cache, positions)
        x = x + drop(read, self.dropout, self.training)
        added = self.mlp(self.post_attention_layernorm(x))
        return x + drop(added, self.dropout, self.training), new_cache


class Transformer(nn.Module):
    """A language model of layers in which each token attends to the last W tokens.

    Vaswani et al. 2017, "Attention Is All You Need", in the form of Llama (Touvron et al. 2023) and
    Mistral (Jiang et al. 2023, "Mistral 7B"): normalisation by the root mean square in front of
    each part (Zhang and Sennrich 2019), rotary positions (Su et al. 2021), a gated feed-forward
    layer (Shazeer 2020), a sliding window, and tied embeddings. e is the embedding table (V, H); *
    is the elementwise product; R_t rotates pairs of dimensions by angles proportional to t. For
    each layer and each head::

        x_t = e[ids_t]                                      (B, H)
        n_t = x_t / rms(x_t) * w                            (B, H)
        q_t, k_t, v_t = W_q n_t, W_k n_t, W_v n_t           (B, D) each
        a_ts = softmax over s of (R_t q_t) . (R_s k_s) / sqrt(D),  t - W < s <= t
        x_t = x_t + W_o (sum over s of a_ts v_s)            (B, H), all heads side by side
        m_t = x_t / rms(x_t) * w'                           (B, H)
        x_t = x_t + W_down (silu(W_gate m_t) * W_up m_t)    (B, H), the x_t of the next layer
        logits_t = e (x_t / rms(x_t) * w'')                 (B, V)

    The scores depend on differences of positions only. So positions are counted from the oldest
    token in the cache, and a text may be of any length.

    With ``ngrams`` above 1, x_t is the sum of e[ids_t] and the embeddings of the n-grams that end
    at position t (``NgramEmbedding``). A model with ids of conditions or fields adds ``A g_t`` to
    it; g_t is the vector of the conditions and fields of the text (``reviewgen.protocols.inputs``).

    Returns logits; see ``reviewgen.protocols.LanguageModel``.
    """

    Config: ClassVar[type] = TransformerConfig

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        size = config.hidden_size
        self.embedding = nn.Embedding(config.vocab_size, size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(size, config.rms_norm_eps)
        self.ngrams: NgramEmbedding | None = None
        if config.ngrams > 1:
            self.ngrams = NgramEmbedding(config, size)
        self.held = make_held(config, size, size)  # A, the matrix of conditions and fields
        self.parts = state_parts(config)
        # a tied embedding starts small, so that the logits are small
        nn.init.normal_(self.embedding.weight, std=size**-0.5)
        for name, weights in self.layers.named_parameters():
            if name.endswith("proj.weight"):
                # The matrices whose product is added to x start small, so that all layers together
                # add about as much as x itself.
                scale = 0.2 if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
                nn.init.normal_(weights, std=scale * weights.size(1) ** -0.5)
        for layer in self.layers:
            layer.self_attn.begin_as_copy()

    def initial_state(self, batch_size: int) -> State:
        """Return the state before the first token: an empty cache, and with n-grams the id V, which
        stands for each token before the beginning.
        """
        return initial_tensors(self.parts, batch_size, self.embedding.weight)

    def forward(
        self, ids: Int[Tensor, "B T"], state: State
    ) -> tuple[Float[Tensor, "B T V"], State]:
        """Return logits for the token after each of ``ids``, and the state after the last.

        Raises:
            ShapeError: The ids or a tensor of the state have another shape.
        """
        features, after = self.features(ids, state)
        return F.linear(features, self.embedding.weight), after

    def features(
        self, ids: Int[Tensor, "B T"], state: State
    ) -> tuple[Float[Tensor, "B T H"], State]:
        """Return the input of the output layer, and the state after the last token; see
        ``reviewgen.protocols.SupportsOutputLayer``.

        Raises:
            ShapeError: The ids or a tensor of the state have another shape.
        """
        x, (cache, count, past, sums) = self.embed(ids, state)
        positions, count = self.positions(ids, count)
        new_caches = []
        for index, layer in enumerate(self.layers):
            x, new_cache = layer(x, cache[:, index], positions)
            new_caches.append(new_cache)
        return self.norm(x), join_state(torch.stack(new_caches, dim=1), count, past, sums)

    def embed(
        self, ids: Int[Tensor, "B T"], state: State
    ) -> tuple[Float[Tensor, "B T H"], tuple[Any, ...]]:
        """Return the input of the first layer, and the four parts of the state. The cache and the
        count are those before the call, which the layers still need. The last ids and the sums
        (None if the model has none) are already those after it.

        Raises:
            ShapeError: The ids or a tensor of the state have another shape.
        """
        config = self.config
        cache, count, past, sums = check_call(self.parts, ids, state)
        x = self.embedding(ids)
        if self.ngrams is not None:
            x = x + self.ngrams(ids.T, past.T).transpose(0, 1)
            past = torch.cat([past, ids], dim=1)[:, -past.size(1) :]
        if self.held is not None:
            given, sums = hold_given(config, self.embedding.weight, ids, sums)
            x = x + F.linear(learn_given(given, self.training), self.held)
        return drop(x, config.embedding_dropout, self.training), (cache, count, past, sums)

    def positions(
        self, ids: Int[Tensor, "B T"], count: Int[Tensor, " B"]
    ) -> tuple[Positions, Int[Tensor, " B"]]:
        """Return the mask and the rotations of a call, and the count of tokens in the cache after
        it. A token attends to its own text only, which begins with the latest bos.

        Args:
            ids: The new tokens.
            count: The number of tokens in the cache before the call.
        """
        config = self.config
        table = self.embedding.weight
        time = ids.size(1)
        # all S places have keys, and the last T, those of the new tokens, have queries
        key_place = torch.arange(config.window + time, device=table.device)  # (S,)
        query_place = key_place[config.window :, None]  # (T, 1)
        is_near = (key_place <= query_place) & (key_place > query_place - config.window)  # (T, S)
        begins = torch.zeros_like(ids) if config.bos_id is None else (ids == config.bos_id).long()
        text = begins.cumsum(1)  # (B, T), 0 for the text that the cache is from
        is_cached = key_place[: config.window] >= config.window - count[:, None]  # (B, W)
        is_same_text = torch.cat(
            [
                (text == 0)[..., None] & is_cached[:, None],  # (B, T, W)
                text[..., None] == text[:, None],  # (B, T, T)
            ],
            dim=-1,
        )  # (B, T, S)
        mask = table.new_zeros(()).masked_fill(~(is_near & is_same_text), -torch.inf)
        last_text = text[:, -1:]  # (B, 1)
        added = (text == last_text).sum(1)  # number of new tokens that are of the last text
        # if the last text began in this call, the tokens in the cache are of another text
        count = torch.where(last_text[:, 0] > 0, added, count + added).clamp(max=config.window)
        exponents = torch.arange(0, config.head_size, 2, device=table.device) / config.head_size
        angles = key_place[:, None] * config.rope_theta**-exponents  # (S, D / 2)
        angles = torch.cat([angles, angles], dim=-1).to(table.dtype)  # (S, D)
        sine = angles.sin()
        sine[:, : exponents.size(0)] *= -1  # the signs that ``rotate`` needs
        return Positions(mask[:, None], angles.cos(), sine), count

    def operations(self, ids: Int[Tensor, "B T"], state: State) -> Iterator[Operation]:
        """Yield the operations of a call in evaluation mode; see
        ``reviewgen.protocols.SupportsOperations``.

        Raises:
            ShapeError: The ids or a tensor of the state have another shape.
        """
        return list_operations(self, ids, state)

    def output_layer(self) -> tuple[Float[Tensor, "V H"], None]:
        """Return the weight of the output layer, which has no bias; see
        ``reviewgen.protocols.SupportsOutputLayer``.
        """
        return self.embedding.weight, None

    def initial_weights(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors from elsewhere under the names that they have in this model.

        Accepted are the names of ``state_dict``, those of ``MistralForCausalLM`` of the library
        transformers, and the names of an embedding table (see ``is_embedding_table``).

        Raises:
            ConfigError: A name is not accepted, or two tensors stand for the same tensor of this
                model.
        """
        own_names = {mistral_name(name): name for name in self.state_dict()}
        accepted = "the tensors of MistralForCausalLM, and the model's own"
        return match_tensors(self, tensors, lambda name: own_names.get(name, name), accepted)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return a parameter group for the matrix of conditions and fields, which has a lower
        learning rate. See ``reviewgen.protocols.SupportsParameterGroups``.
        """
        return group_held(self.held)

    def parameter_kinds(self) -> dict[str, int]:
        """Return the number of parameters of each kind; see
        ``reviewgen.protocols.SupportsParameterKinds``.
        """
        return {KINDS[module]: count for module, count in count_by_module(self).items()}

    def scale_logits(self, scale: float) -> bool:
        """Multiply the logits by a number; see ``reviewgen.protocols.SupportsScaledLogits``."""
        with torch.no_grad():
            self.norm.weight *= scale
        return True

    def stepper(self, weight_bits: Bits = 32) -> TransformerStepper:
        """Return a stepper made from a copy of the current weights, rounded to ``weight_bits``.

        Raises:
            BundleError: A weight is NaN or infinite.
        """
        return TransformerStepper(self.config, float_arrays(self), weight_bits)

    def describe_graph(self) -> ModelGraph:
        """Return the computational graph, to be drawn."""
        return describe_transformer(self.config)


def rotate(
    x: Float[Tensor, "B T N D"], cosine: Float[Tensor, "T D"], sine: Float[Tensor, "T D"]
) -> Float[Tensor, "B T N D"]:
    """Rotate each pair of dimensions, j and j + D / 2, by the angle of the position.

    The rotation adds the sine times the other dimension of the pair, with a minus for the first
    one. So the first half of ``sine`` must be negative.
    """
    swapped = x.roll(x.size(-1) // 2, -1)
    return torch.addcmul(
        x * cosine.unsqueeze(1).to(x.dtype), swapped, sine.unsqueeze(1).to(x.dtype)
    )
