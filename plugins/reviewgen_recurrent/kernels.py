"""Compiled loops of the recurrent models for inference: the forward pass, logits, generation. They know arrays, no settings.

Shapes: B texts, T time (tokens), V vocabulary, E embedding, H hidden, L layers, R rows side by side, P number of gates times H,
rounded up to whole panels (``reviewgen.compiled.linear``), K tokens before the last one that n-grams look at. Inside, a state is
(L, R, H), so that a layer's rows are a matrix.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Shaped

from reviewgen.compiled import compiled, inlined
from reviewgen.compiled.linear import add_product, sigmoid32, tanh32
from reviewgen.compiled.sampling import sample_live_rows

__all__ = [
    "GATES",
    "GRU",
    "LSTM",
    "RNN",
    "Weights",
    "add",
    "bucket_of",
    "compute_logits",
    "extend_key",
    "forward",
    "generate",
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

    table: Float32[np.ndarray, "V P"]  # each token's ``W_ih x + biases[0]``; without rows, it is computed from the next fields
    embedding: Float32[np.ndarray, "V E"]
    ngrams: Float32[np.ndarray, "K buckets E"]  # if there are any, the table is empty
    first: Shaped[np.ndarray, "panels E 64"]
    first_scales: Float32[np.ndarray, " P"]
    above: Shaped[np.ndarray, "L1 panels H 64"]  # W_ih of the L-1 layers above the first
    above_scales: Float32[np.ndarray, "L1 P"]
    recurrent: Shaped[np.ndarray, "L panels H 64"]
    recurrent_scales: Float32[np.ndarray, "L P"]
    biases: Float32[np.ndarray, "L P"]  # b_ih + b_hh; the gru's b_ih
    hidden_biases: Float32[np.ndarray, "L P"]  # the gru's b_hh
    projection: Shaped[np.ndarray, "panels H 64"]  # no panels without a projection
    projection_scales: Float32[np.ndarray, " E64"]
    output: Shaped[np.ndarray, "panels K 64"]
    output_scales: Float32[np.ndarray, " V64"]
    output_bias: Float32[np.ndarray, " V"]


@compiled
def forward(weights, cell, is_relu, zoneout, ids, h, c, past):
    """Feed ids, int64 (B, T), to the model and update its state in place.

    A layer takes about CHUNK_ROWS tokens before the next layer does: the input products of all of them are one matrix product.

    Args:
        weights: The model's Weights.
        cell: RNN, GRU or LSTM.
        is_relu: Whether the activation is relu instead of tanh.
        zoneout: float32, the config's.
        ids: The tokens.
        h, c: float32 (L, B, H), the state; c has width 0 but for the lstm.
        past: int64 (B, K), the last tokens.
    """
    layers, rows, width = h.shape
    biases, steps = weights.biases, min(ids.shape[1], max(1, CHUNK_ROWS // max(1, rows)))
    all_gates, outputs = np.empty((steps * rows, biases.shape[1]), np.float32), np.empty((steps * rows, width), np.float32)
    hidden, chunk = np.empty((rows, biases.shape[1]), np.float32), np.empty(steps * rows, np.int64)
    before = np.empty((steps * rows, past.shape[1]), np.int64)
    for start in range(0, ids.shape[1], steps):
        count = min(steps, ids.shape[1] - start)
        gates = all_gates[: count * rows]
        for t in range(count):
            for row in range(rows):
                chunk[t * rows + row] = ids[row, start + t]
                _copy(past[row], before[t * rows + row])
                _append(ids[row, start + t], past[row])
        _look_up(weights, chunk[: count * rows], before[: count * rows], gates)
        for layer in range(layers):
            if layer > 0:
                _broadcast(biases[layer], gates)
                add_product(weights.above[layer - 1], weights.above_scales[layer - 1], outputs[: count * rows], gates)
            for t in range(count):
                now = gates[t * rows : (t + 1) * rows]
                _step(weights, cell, is_relu, zoneout, layer, now, hidden, h[layer], c[layer])
                for row in range(rows):
                    _copy(h[layer, row], outputs[t * rows + row])


@compiled
def compute_logits(weights, top, logits):
    """Write the logits of the last layer's h, (R, H), to ``logits``, (R, V64)."""
    _broadcast(weights.output_bias, logits)
    if len(weights.projection) == 0:
        add_product(weights.output, weights.output_scales, top, logits)
    else:
        projected = np.zeros((len(top), len(weights.projection_scales)), np.float32)
        add_product(weights.projection, weights.projection_scales, top, projected)
        add_product(weights.output, weights.output_scales, projected, logits)


@compiled
def generate(weights, cell, is_relu, zoneout, h, c, past, texts, start, sampled, new_tokens, uniform, used, params, windows, run):
    """Sample tokens for B texts until each has ended or has fewer than two random numbers left.

    The first ``live`` slots hold the texts that have not ended: the last of them moves into the slot of one that ends.

    Args:
        weights, cell, is_relu, zoneout: As in ``forward``.
        h, c, past: The state, as in ``forward``; updated.
        texts, start, sampled, new_tokens, uniform, used, params, windows, run: As in ``sample_live_rows``.
    """
    biases, vocabulary = weights.biases, len(weights.output_bias)
    layers, live, _ = h.shape
    rows, ids = np.arange(live), np.empty(live, np.int64)
    h_now, c_now, past_now = h.copy(), c.copy(), past.copy()
    all_logits = np.zeros((live, len(weights.output_scales)), np.float32)
    scores, probs = np.empty(vocabulary), np.empty(vocabulary)
    all_gates, hidden = np.empty((live, biases.shape[1]), np.float32), np.empty((live, biases.shape[1]), np.float32)
    while live > 0:
        logits = all_logits[:live]
        compute_logits(weights, h_now[layers - 1, :live], logits)
        sample_live_rows(
            logits, rows, live, texts, start, sampled, new_tokens, uniform, used, params, windows, run, ids, scores, probs
        )
        live = _retire(rows, ids, live, h_now, c_now, past_now, h, c, past)
        gates = all_gates[:live]
        _look_up(weights, ids[:live], past_now[:live], gates)
        for row in range(live):
            _append(ids[row], past_now[row])
        for layer in range(layers):
            if layer > 0:
                _broadcast(biases[layer], gates)
                add_product(weights.above[layer - 1], weights.above_scales[layer - 1], h_now[layer - 1, :live], gates)
            _step(weights, cell, is_relu, zoneout, layer, gates, hidden, h_now[layer, :live], c_now[layer, :live])


@compiled
def _retire(rows, ids, live, h_now, c_now, past_now, h, c, past):
    """Copy the states of ended texts to h, c and past, fill their slots from the end, and return the new ``live``."""
    slot = 0
    while slot < live:
        if ids[slot] >= 0:
            slot += 1
            continue
        live -= 1
        for layer in range(len(h)):
            _copy(h_now[layer, slot], h[layer, rows[slot]])
            _copy(c_now[layer, slot], c[layer, rows[slot]])
            _copy(h_now[layer, live], h_now[layer, slot])
            _copy(c_now[layer, live], c_now[layer, slot])
        _copy(past_now[slot], past[rows[slot]])
        _copy(past_now[live], past_now[slot])
        rows[slot], ids[slot] = rows[live], ids[live]
    return live


@compiled
def _append(token, past):
    """Append a token to the last tokens, and drop the oldest."""
    for j in range(1, len(past)):
        past[j - 1] = past[j]
    if len(past) > 0:
        past[-1] = token


@compiled
def _copy(numbers, row):
    """Copy numbers into a row that is at least as long; to assign to a slice would take seconds to compile."""
    for j in range(len(numbers)):
        row[j] = numbers[j]


@compiled
def add(numbers, row):
    """Add numbers to a row."""
    for j in range(len(row)):
        row[j] += numbers[j]


@compiled
def _broadcast(numbers, rows):
    """Copy numbers into each row."""
    for row in range(len(rows)):
        _copy(numbers, rows[row])


@compiled
def _look_up(weights, ids, past, gates):
    """Write the first layer's products of tokens, int64 (R,), that follow ``past``, int64 (R, K), to ``gates``, (R, P)."""
    table, embedding = weights.table, weights.embedding
    if len(table) > 0:
        for row in range(len(ids)):
            _copy(table[ids[row]], gates[row])
        return
    vectors = np.empty((len(ids), embedding.shape[1]), np.float32)
    for row in range(len(ids)):
        _copy(embedding[ids[row]], vectors[row])
        key = _extend_key(0, ids[row])
        for before in range(past.shape[1]):
            key = _extend_key(key, past[row, -1 - before])
            add(weights.ngrams[before, _bucket_of(key, weights.ngrams.shape[1])], vectors[row])
    _broadcast(weights.biases[0], gates)
    add_product(weights.first, weights.first_scales, vectors, gates)


@compiled
def _step(weights, cell, is_relu, zoneout, layer, gates, hidden, h, c):
    """Advance a layer's h and c, (R, H), by one token, by the equations in the cell's own file.

    Args:
        gates: float32 (R, P), the products of the inputs; overwritten.
        hidden: float32, at least R rows of P, scratch memory of the gru, which needs the product of the state by itself.
    """
    panels, scales = weights.recurrent[layer], weights.recurrent_scales[layer]
    if cell == GRU:
        hidden = hidden[: len(h)]
        _broadcast(weights.hidden_biases[layer], hidden)
        add_product(panels, scales, h, hidden)
    else:
        add_product(panels, scales, h, gates)
    for row in range(len(h)):
        if cell == GRU:
            _gru(gates[row], hidden[row], h[row], is_relu, zoneout)
        elif cell == LSTM:
            _lstm(gates[row], h[row], c[row], is_relu, zoneout)
        else:
            _rnn(gates[row], h[row], is_relu, zoneout)


@compiled
def _rnn(gates, h, is_relu, zoneout):
    for j in range(len(h)):
        h[j] = _zone_out(h[j], _activate(gates[j], is_relu), zoneout)


@compiled
def _gru(gates, hidden, h, is_relu, zoneout):
    size = len(h)
    for j in range(size):
        r = sigmoid32(gates[j] + hidden[j])
        z = sigmoid32(gates[size + j] + hidden[size + j])
        n = _activate(gates[2 * size + j] + r * hidden[2 * size + j], is_relu)
        h[j] = _zone_out(h[j], (ONE - z) * n + z * h[j], zoneout)


@compiled
def _lstm(gates, h, c, is_relu, zoneout):
    size = len(h)
    fresh = gates[2 * size : 3 * size]  # of the gates i, f, g, o: g, then c before zoneout
    for j in range(size):
        fresh[j] = sigmoid32(gates[size + j]) * c[j] + sigmoid32(gates[j]) * _activate(fresh[j], is_relu)
    for j in range(size):  # separate loops need fewer checks that arrays do not overlap, so that they vectorise
        c[j] = _zone_out(c[j], fresh[j], zoneout)
    for j in range(size):
        h[j] = _zone_out(h[j], sigmoid32(gates[3 * size + j]) * _activate(fresh[j], is_relu), zoneout)


@inlined
def _zone_out(old, new, zoneout):
    """Return the expected value of a unit that keeps its old value with probability ``zoneout``."""
    return zoneout * old + (ONE - zoneout) * new


@inlined
def _activate(number, is_relu):
    return (ZERO if number < ZERO else number) if is_relu else tanh32(number)
