"""The operations of the transformer, one by one, by the equations of ``Transformer``.

Shapes: B batch, T time (tokens), V vocabulary, H hidden, N heads, G key/value heads, D dimensions
of a head, F feed-forward, W window, S = W + T tokens that have keys.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from reviewgen.protocols import Operation
from reviewgen.protocols.inputs import GIVEN_FORMULA, hold_given

NORMALISED = "n_t = x_t / rms(x_t) * w"


def list_operations(
    model: Any, ids: Int[Tensor, "B T"], state: tuple[Tensor, ...]
) -> Iterator[Operation]:
    """Yield the operations of a call of a ``Transformer``; see
    ``reviewgen.protocols.SupportsOperations``.

    Raises:
        ShapeError: The ids or a tensor of the state have another shape.
    """
    config = model.config
    table = model.embedding.weight
    x, _ = model.embed(ids, state)
    embedded = model.embedding(ids)
    yield _operation("embedding", "x_t = e[ids_t]", embedded, "B T H", table.numel())
    if model.ngrams is not None:
        embedded = embedded + model.ngrams(ids.T, state[2].T).transpose(0, 1)
        formula = f"x_t = x_t + the embeddings of the last 2 to {config.ngrams} tokens"
        size = model.ngrams.table.weight.numel()
        yield _operation("n-gram embeddings", formula, embedded, "B T H", size)
    if model.held is not None:
        given, _ = hold_given(config, table, ids, state[-1])
        yield _operation("given", GIVEN_FORMULA, given, "B T H")
        size = model.held.numel()
        yield _operation("held", "x_t = x_t + A g_t", x, "B T H", size, size)
    positions, _ = model.positions(ids, state[1])
    for index, layer in enumerate(model.layers):
        suffix = f", layer {index + 1}" if config.layers > 1 else ""
        for operation in _layer_operations(layer, x, state[0][:, index], positions, suffix):
            yield operation
        x = operation.values
    x = model.norm(x)
    yield _normalisation("last normalisation", model.norm, x)
    yield _operation("logits", "logits_t = e n_t", F.linear(x, table), "B T V", 0, table.numel())


def _layer_operations(
    layer: Any, x: Float[Tensor, "B T H"], cache: Tensor, positions: Any, suffix: str
) -> Iterator[Operation]:
    """Yield the operations of one layer. The values of the last one are its output."""
    attention = layer.self_attn
    n = layer.input_layernorm(x)
    yield _normalisation(f"normalisation{suffix}", layer.input_layernorm, n)
    queries, keys, values, _ = attention.project(n, cache, positions)
    time, heads, head_size = queries.shape[1:]
    for letter, heads_of, axes, linear in (
        ("q", queries, "B T N D", attention.q_proj),
        ("k", keys[:, -time:], "B T G D", attention.k_proj),
        ("v", values[:, -time:], "B T G D", attention.v_proj),
    ):
        name = {"q": "queries", "k": "keys", "v": "values"}[letter]
        rotation = "" if letter == "v" else "R_t "
        size = linear.weight.numel()
        formula = f"{letter}_t = {rotation}W_{letter} n_t"
        yield _operation(f"{name}{suffix}", formula, heads_of, axes, size, size)
    window = cache.size(2)
    # the tokens that each token may read, itself the last of them: (B, T, N, D, W)
    keys, values = (
        part.repeat_interleave(heads // part.size(2), 2).unfold(1, window, 1)[:, 1:]
        for part in (keys, values)
    )
    masks = positions.mask[:, 0].unfold(2, window, 1)  # (B, T, T + 1, W)
    mask = masks[:, :, 1:].diagonal(dim1=1, dim2=2).transpose(1, 2)  # (B, T, W)
    scores = torch.einsum("btnd,btndw->btnw", queries, keys) / math.sqrt(head_size)
    scores = scores + mask[:, :, None]
    products = heads * head_size * window
    formula = "q_t . k_s / sqrt(D) for t - W < s <= t"
    yield _operation(f"scores{suffix}", formula, scores, "B T N W", 0, products)
    weights = scores.softmax(-1)
    formula = "a_ts = softmax over s of the scores"
    yield _operation(f"softmax{suffix}", formula, weights, "B T N W", kind="attention")
    read = torch.einsum("btnw,btndw->btnd", weights, values).flatten(2)
    x = x + attention.o_proj(read)
    size = attention.o_proj.weight.numel()
    formula = "x_t = x_t + W_o sum over s of a_ts v_s"
    yield _operation(f"mix{suffix}", formula, x, "B T H", size, products + size)
    m = layer.post_attention_layernorm(x)
    name = f"second normalisation{suffix}"
    yield _normalisation(name, layer.post_attention_layernorm, m)
    mlp = layer.mlp
    inner = F.silu(mlp.gate_proj(m)) * mlp.up_proj(m)
    size = 2 * mlp.gate_proj.weight.numel()
    formula = "f_t = silu(W_gate n_t) * W_up n_t"
    yield _operation(f"gated{suffix}", formula, inner, "B T F", size, size + inner.size(-1))
    x = x + mlp.down_proj(inner)
    size = mlp.down_proj.weight.numel()
    formula = "x_t = x_t + W_down f_t"
    yield _operation(f"feed-forward{suffix}", formula, x, "B T H", size, size)


def _operation(
    name: str,
    formula: str,
    values: Tensor,
    axes: str,
    parameters: int = 0,
    products: int = 0,
    kind: Any = "values",
) -> Operation:
    """Return an operation. ``products`` is the number of multiplications for each token."""
    return Operation(
        name=name,
        formula=formula,
        values=values,
        axes=axes,
        parameters=parameters,
        multiplications=products * values.size(0) * values.size(1),
        kind=kind,
    )


def _normalisation(name: str, norm: nn.RMSNorm, values: Tensor) -> Operation:
    """Return a normalisation, which squares, scales and weights each number."""
    size = norm.weight.numel()
    return _operation(name, NORMALISED, values, "B T H", size, 3 * size)
