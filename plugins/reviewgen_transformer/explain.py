"""The operations of the transformer, one by one, by the equations of ``Transformer``.

Shapes: B batch, T time (tokens), V vocabulary, H hidden, N heads, G key/value heads, D dimensions
of a head, F feed-forward, W window, S = W + T tokens that have keys.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from reviewgen.protocols import Operation
from reviewgen.protocols.inputs import GIVEN_FORMULA


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
    formula = "x_t = e[ids_t]"
    weights = [table]
    products = 0
    if model.ngrams is not None:
        formula += f" + the embeddings of the last 2 to {config.ngrams} tokens"
        weights.append(model.ngrams.table.weight)
    if model.held is not None:
        formula += f" + A g_t, {GIVEN_FORMULA}"
        weights.append(model.held)
        products = model.held.numel()
    yield _operation("embedding", formula, x, "B T H", *weights, products=products)
    # state[0] is the cache, (B, L, 2, W, K), and state[1] is its count of tokens, (B,)
    positions, _ = model.positions(ids, state[1])
    for index, layer in enumerate(model.layers):
        suffix = f", layer {index + 1}" if config.layers > 1 else ""
        operations = list(_layer_operations(layer, x, state[0][:, index], positions))
        for operation in operations:
            yield replace(operation, name=operation.name + suffix)
        x = operations[-1].values  # the output of the layer
    x = model.norm(x)
    yield _normalisation("last normalisation", model.norm, x)
    logits = x @ table.T
    yield _operation("logits", "logits_t = e n_t", logits, "B T V", products=table.numel())


def _layer_operations(
    layer: Any, x: Float[Tensor, "B T H"], cache: Tensor, positions: Any
) -> Iterator[Operation]:
    """Yield the operations of one layer. The values of the last one are the layer's output.
    ``cache`` has the keys and values of the last W tokens, (B, 2, W, K); ``positions`` are the
    ``Positions`` of the call.
    """
    attention = layer.self_attn
    n = layer.input_layernorm(x)
    yield _normalisation("normalisation", layer.input_layernorm, n)
    q, k, v, _ = attention.project(n, cache, positions)  # k and v are (B, S, G, D)
    time, heads, head_size = q.shape[1:]
    yield _operation("queries", "q_t = R_t W_q n_t", q, "B T N D", attention.q_proj.weight)
    yield _operation("keys", "k_t = R_t W_k n_t", k[:, -time:], "B T G D", attention.k_proj.weight)
    yield _operation("values", "v_t = W_v n_t", v[:, -time:], "B T G D", attention.v_proj.weight)
    # Token t attends to places t + 1 to t + W. Without place 0, these are the window of W places
    # that begins at t.
    window = cache.size(2)
    # the keys and values that each head reads at each token, (B, T, N, D, W)
    k, v = (
        part[:, 1:].unfold(1, window, 1).repeat_interleave(heads // part.size(2), 2)
        for part in (k, v)
    )
    mask_windows = positions.mask[:, 0, :, 1:].unfold(2, window, 1)  # (B, T, T, W)
    mask = mask_windows.diagonal(0, 1, 2).mT  # window t of each row t: (B, T, W)
    scores = torch.einsum("btnd,btndw->btnw", q, k) / math.sqrt(head_size) + mask[:, :, None]
    products = heads * head_size * window
    yield _operation(
        "scores",
        "q_t . k_s / sqrt(D) for t - W < s <= t",
        scores,
        "B T N W",
        products=products,
    )
    weights = scores.softmax(-1)
    yield _operation(
        "softmax",
        "a_ts = softmax over s of the scores",
        weights,
        "B T N W",
        kind="attention",
    )
    read = torch.einsum("btnw,btndw->btnd", weights, v).flatten(2)
    x = x + attention.o_proj(read)
    weight = attention.o_proj.weight
    products += weight.numel()
    formula = "x_t = x_t + W_o sum over s of a_ts v_s"
    yield _operation("mix", formula, x, "B T H", weight, products=products)
    n = layer.post_attention_layernorm(x)
    yield _normalisation("second normalisation", layer.post_attention_layernorm, n)
    mlp = layer.mlp
    f = F.silu(mlp.gate_proj(n)) * mlp.up_proj(n)
    weights = mlp.gate_proj.weight, mlp.up_proj.weight
    products = 2 * weights[0].numel() + f.size(-1)
    formula = "f_t = silu(W_gate n_t) * W_up n_t"
    yield _operation("gated", formula, f, "B T F", *weights, products=products)
    x = x + mlp.down_proj(f)
    yield _operation("feed-forward", "x_t = x_t + W_down f_t", x, "B T H", mlp.down_proj.weight)


def _normalisation(name: str, norm: Any, n: Float[Tensor, "B T H"]) -> Operation:
    """Return the operation of a normalisation whose result is ``n``. It has three products for each
    number: the square, the division and the weight.
    """
    formula = "n_t = x_t / rms(x_t) * w"
    return _operation(name, formula, n, "B T H", norm.weight, products=3 * n.size(-1))


def _operation(
    name: str,
    formula: str,
    values: Tensor,
    axes: str,
    *weights: Tensor,
    products: int | None = None,
    kind: Any = "values",
) -> Operation:
    """Return an operation that is the first to use some weights. ``products`` is the number of
    multiplications for each token; by default, that of matrix products with the weights.
    """
    parameters = sum(weight.numel() for weight in weights)
    for_token = parameters if products is None else products
    return Operation(
        name=name,
        formula=formula,
        values=values,
        axes=axes,
        parameters=parameters,
        multiplications=for_token * values.size(0) * values.size(1),
        kind=kind,
    )
