"""Compiled loops of the recurrent models for inference: the forward pass, logits, generation. They know arrays, no settings.

What a model does not have is None. None is a type, so a branch for it is not compiled: first use compiles one cell, and either
the table of products or the matrix that it stands for.

Shapes: B texts, T time (tokens), V vocabulary, E embedding, H hidden, L layers, R rows side by side, P number of gates times H,
rounded up to whole panels (``reviewgen.compiled.linear``), K tokens before the last one that n-grams look at. Inside, a state is
(L, R, H), so that a layer's rows are a matrix.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int64, Shaped

from reviewgen.compiled import compiled, inlined, inner
from reviewgen.compiled.linear import add_product, sigmoid32, tanh32
from reviewgen.compiled.sampling import sample_live_rows

__all__ = [
    "GATES",
    "GRU",
    "LSTM",
    "RNN",
    "Scratch",
    "Weights",
    "add",
    "bucket_of",
    "extend_key",
    "forward",
    "generate",
    "make_scratch",
]

RNN, GRU, LSTM = 0, 1, 2
GATES = {RNN: 1, GRU: 3, LSTM: 4}
"""Number of blocks of H rows in a layer's matrices, in torch's order: the rnn's only one; r, z, n; i, f, g, o."""

CHUNK_ROWS = 512  # tokens whose input products are made together: a few megabytes
ZERO, ONE = np.float32(0), np.float32(1)
MULTIPLIER = 0x9E3779B1  # 2 ** 32 over the golden ratio, made odd
MASK = 0xFFFFFFFF


def extend_key(key: Any, token: Any) -> Any:
    """Return the hash key, int64, of an n-gram from its first token and the key of the tokens after it, 0 if there are none.

    A key has 32 bits, kept in 64, in which products wrap around. Fibonacci hashing (Knuth, volume 3, 6.4) with a shift
    between the tokens, so that their order matters. In training, the same lines hash tensors.
    """
    mixed = ((key + token + 1) * MULTIPLIER) & MASK
    return mixed ^ (mixed >> 15)


def bucket_of(key: Any, buckets: int) -> Any:
    """Return the bucket of a key, in proportion to its value (Lemire 2019, "Fast Random Integer Generation")."""
    return (key * buckets) >> 32


_extend_key, _bucket_of = inlined(extend_key), inlined(bucket_of)


class Weights(NamedTuple):
    """The weights of a recurrent model, prepared for the loops: every matrix in panels, each followed by its scales."""

    table: Float32[np.ndarray, "V P"] | None  # each token's ``W_ih x + biases[0]``; None: computed from the next fields
    embedding: Float32[np.ndarray, "V E"]
    ngrams: Float32[np.ndarray, "K buckets E"] | None  # if there are any, there is no table
    first: Shaped[np.ndarray, "panels E 64"]
    first_scales: Float32[np.ndarray, " P"]
    above: Shaped[np.ndarray, "L1 panels H 64"]  # W_ih of the L-1 layers above the first
    above_scales: Float32[np.ndarray, "L1 P"]
    recurrent: Shaped[np.ndarray, "L panels H 64"]
    recurrent_scales: Float32[np.ndarray, "L P"]
    biases: Float32[np.ndarray, "L P"]  # b_ih + b_hh; the gru's b_ih
    hidden_biases: Float32[np.ndarray, "L P"] | None  # the gru's b_hh
    projection: Shaped[np.ndarray, "panels H 64"] | None
    projection_scales: Float32[np.ndarray, " E64"] | None
    output: Shaped[np.ndarray, "panels K 64"]
    output_scales: Float32[np.ndarray, " V64"]
    output_bias: Float32[np.ndarray, " V"]


class Scratch(NamedTuple):
    """Memory that the loops overwrite, for C tokens of the same texts side by side."""

    ids: Int64[np.ndarray, " C"]
    before: Int64[np.ndarray, "C K"] | None  # the last tokens before each of ids; with n-grams only
    vectors: Float32[np.ndarray, "C E"] | None  # without a table only
    gates: Float32[np.ndarray, "C P"]
    hidden: Float32[np.ndarray, "R P"] | None  # the gru's product of the state
    outputs: Float32[np.ndarray, "C H"]
    projected: Float32[np.ndarray, "R E64"] | None


def make_scratch(weights: Weights, h: Float32[np.ndarray, "L B H"], past: Int64[np.ndarray, "B K"] | None, time: int) -> Scratch:
    """Return scratch memory for texts of up to ``time`` tokens, at least 1, of which about CHUNK_ROWS are taken together."""
    rows, padded = h.shape[1], weights.biases.shape[1]
    tokens = rows * min(time, max(1, CHUNK_ROWS // max(1, rows)))
    projected = weights.projection_scales
    return Scratch(
        ids=np.empty(tokens, np.int64),
        before=None if past is None else np.empty((tokens, past.shape[1]), np.int64),
        vectors=None if weights.table is not None else np.empty((tokens, weights.embedding.shape[1]), np.float32),
        gates=np.empty((tokens, padded), np.float32),
        hidden=None if weights.hidden_biases is None else np.empty((rows, padded), np.float32),
        outputs=np.empty((tokens, h.shape[2]), np.float32),
        projected=None if projected is None else np.empty((rows, len(projected)), np.float32),
    )


@compiled
def forward(weights, relu, zoneout, ids, h, c, past, scratch, logits):
    """Feed ids, int64 (B, T), to the model, update its state in place, and write the logits after them, (B, V64).

    A layer takes about CHUNK_ROWS tokens before the next layer does: the input products of all of them are one matrix product.

    Args:
        weights: The model's Weights.
        relu: True for relu as the activation, None for tanh.
        zoneout: float32, the config's; None for 0.
        ids: The tokens.
        h, c: float32 (L, B, H), the state; c is None but for the lstm.
        past: int64 (B, K), the last tokens; None without n-grams.
        scratch: Scratch memory for ids.
        logits: Written.
    """
    rows, time = ids.shape
    steps = max(1, len(scratch.ids) // max(1, rows))
    for start in range(0, time, steps):
        count = min(steps, time - start)
        for t in range(count):
            for row in range(rows):
                scratch.ids[t * rows + row] = ids[row, start + t]
                if past is not None:
                    _copy(past[row], scratch.before[t * rows + row])
                    _append(ids[row, start + t], past[row])
        _advance(weights, relu, zoneout, count * rows, rows, h, c, scratch)
    _compute_logits(weights, h[len(h) - 1], scratch.projected, logits)


@compiled
def generate(
    weights, relu, zoneout, h, c, past, scratch, logits, rows, texts, start, sampled, new_tokens, uniform, used, params,
    windows, run, scores, probs,
):  # fmt: skip
    """Sample tokens for B texts until each has ended or has fewer than two random numbers left.

    The first ``live`` slots hold the texts that have not ended: the last of them changes places with one that ends.

    Args:
        weights, relu, zoneout: As in ``forward``.
        h, c, past: The state, as in ``forward``; updated, and of row ``rows[slot]`` in each slot.
        scratch: Scratch memory for a token.
        logits: float32 (B, V64), scratch memory.
        rows: int64 (B,), the row in each slot: 0 to B-1, in any order afterwards.
        texts, start, sampled, new_tokens, uniform, used, params, windows, run, scores, probs: As in ``sample_live_rows``.
    """
    live, ids = len(rows), scratch.ids
    while live > 0:
        _compute_logits(weights, h[len(h) - 1, :live], scratch.projected, logits[:live])
        sample_live_rows(
            logits, rows, live, texts, start, sampled, new_tokens, uniform, used, params, windows, run, ids, scores, probs
        )
        live = _retire(rows, ids, live, h, c, past)
        if past is not None:
            for row in range(live):
                _copy(past[row], scratch.before[row])
                _append(ids[row], past[row])
        _advance(weights, relu, zoneout, live, live, h, c, scratch)


@inner
def _advance(weights, relu, zoneout, count, rows, h, c, scratch):
    """Feed the first ``count`` tokens of ``scratch.ids``, step by step, to the texts in the first ``rows`` slots of h and c."""
    biases, outputs = weights.biases, scratch.outputs
    gates = scratch.gates[:count]
    _look_up(weights, weights.table, weights.ngrams, scratch.ids[:count], scratch.before, scratch.vectors, gates)
    for layer in range(len(h)):
        if layer > 0:
            _broadcast(biases[layer], gates)
            add_product(weights.above[layer - 1], weights.above_scales[layer - 1], outputs[:count], gates)
        panels, scales = weights.recurrent[layer], weights.recurrent_scales[layer]
        for t in range(count // max(1, rows)):
            now = gates[t * rows : (t + 1) * rows]
            _step(panels, scales, weights.hidden_biases, relu, zoneout, layer, now, scratch.hidden, h[layer, :rows], c)
            for row in range(rows):
                _copy(h[layer, row], outputs[t * rows + row])


@inner
def _compute_logits(weights, top, projected, logits):
    """Write the logits of the last layer's h, (R, H), to ``logits``, (R, V64)."""
    _broadcast(weights.output_bias, logits)
    if projected is None:
        add_product(weights.output, weights.output_scales, top, logits)
        return
    projected = projected[: len(top)]
    _clear(projected)
    add_product(weights.projection, weights.projection_scales, top, projected)
    add_product(weights.output, weights.output_scales, projected, logits)


@inner
def _retire(rows, ids, live, h, c, past):
    """Let ended texts change places with the last ones that live, and return the new ``live``."""
    slot = 0
    while slot < live:
        if ids[slot] >= 0:
            slot += 1
            continue
        live -= 1
        for layer in range(len(h)):
            _swap(h[layer, slot], h[layer, live])
            if c is not None:
                _swap(c[layer, slot], c[layer, live])
        if past is not None:
            _swap(past[slot], past[live])
        rows[slot], rows[live] = rows[live], rows[slot]
        ids[slot] = ids[live]
    return live


@inner
def _swap(first, second):
    for j in range(len(first)):
        first[j], second[j] = second[j], first[j]


@inner
def _append(token, past):
    """Append a token to the last tokens, and drop the oldest."""
    for j in range(1, len(past)):
        past[j - 1] = past[j]
    if len(past) > 0:
        past[-1] = token


@inner
def _copy(numbers, row):
    """Copy numbers into a row that is at least as long; to assign to a slice would take seconds to compile."""
    for j in range(len(numbers)):
        row[j] = numbers[j]


@compiled
def add(numbers, row):
    """Add numbers to a row."""
    for j in range(len(row)):
        row[j] += numbers[j]


@inner
def _clear(rows):
    for row in range(len(rows)):
        for j in range(rows.shape[1]):
            rows[row, j] = ZERO


@inner
def _broadcast(numbers, rows):
    """Copy numbers into each row."""
    for row in range(len(rows)):
        _copy(numbers, rows[row])


@inner
def _look_up(weights, table, ngrams, ids, past, vectors, gates):
    """Write the first layer's products of tokens, int64 (R,), that follow ``past``, int64 (R, K), to ``gates``, (R, P)."""
    if table is not None:
        for row in range(len(ids)):
            _copy(table[ids[row]], gates[row])
    if vectors is not None:
        for row in range(len(ids)):
            _copy(weights.embedding[ids[row]], vectors[row])
            if ngrams is not None:
                _add_ngrams(ngrams, ids[row], past[row], vectors[row])
        _broadcast(weights.biases[0], gates)
        add_product(weights.first, weights.first_scales, vectors[: len(ids)], gates)


@inner
def _add_ngrams(ngrams, token, past, vector):
    """Add the vectors of the n-grams that end with a token to ``vector``, (E,)."""
    key = _extend_key(0, token)
    for before in range(len(past)):
        key = _extend_key(key, past[-1 - before])
        add(ngrams[before, _bucket_of(key, ngrams.shape[1])], vector)


@inner
def _step(panels, scales, hidden_biases, relu, zoneout, layer, gates, hidden, h, c):
    """Advance a layer's h, (R, H), and c by one token, by the equations in the cell's own file.

    Args:
        panels, scales: The layer's recurrent matrix.
        hidden_biases: float32 (L, P), the gru's; None for the others.
        relu, zoneout: As in ``forward``.
        layer: Index of the layer.
        gates: float32 (R, P), the products of the inputs; overwritten.
        hidden: float32, at least R rows of P, scratch memory of the gru, which needs the product of the state by itself.
        h: The layer's.
        c: float32 (L, B, H), the lstm's; None for the others.
    """
    if hidden_biases is not None:
        hidden = hidden[: len(h)]
        _broadcast(hidden_biases[layer], hidden)
        add_product(panels, scales, h, hidden)
        for row in range(len(h)):
            _gru(gates[row], hidden[row], h[row], relu, zoneout)
        return
    add_product(panels, scales, h, gates)
    for row in range(len(h)):
        if c is None:
            _rnn(gates[row], h[row], relu, zoneout)
        else:
            _lstm(gates[row], h[row], c[layer, row], relu, zoneout)


@inner
def _rnn(gates, h, relu, zoneout):
    for j in range(len(h)):
        h[j] = _zone_out(h[j], _activate(gates[j], relu), zoneout)


@inner
def _gru(gates, hidden, h, relu, zoneout):
    size = len(h)
    for j in range(size):
        r = sigmoid32(gates[j] + hidden[j])
        z = sigmoid32(gates[size + j] + hidden[size + j])
        n = _activate(gates[2 * size + j] + r * hidden[2 * size + j], relu)
        h[j] = _zone_out(h[j], (ONE - z) * n + z * h[j], zoneout)


@inner
def _lstm(gates, h, c, relu, zoneout):
    size = len(h)
    fresh = gates[2 * size : 3 * size]  # of the gates i, f, g, o: g, then c before zoneout
    for j in range(size):
        fresh[j] = sigmoid32(gates[size + j]) * c[j] + sigmoid32(gates[j]) * _activate(fresh[j], relu)
    for j in range(size):  # separate loops need fewer checks that arrays do not overlap, so that they vectorise
        c[j] = _zone_out(c[j], fresh[j], zoneout)
    for j in range(size):
        h[j] = _zone_out(h[j], sigmoid32(gates[3 * size + j]) * _activate(fresh[j], relu), zoneout)


@inlined
def _zone_out(old, new, zoneout):
    """Return the expected value of a unit that keeps its old value with probability ``zoneout``."""
    if zoneout is None:
        return new
    return zoneout * old + (ONE - zoneout) * new


@inlined
def _activate(number, relu):
    if relu is None:
        return tanh32(number)
    return ZERO if number < ZERO else number
