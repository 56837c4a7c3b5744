"""The compiled step of the transformer for inference. It knows arrays, but no settings.

The keys and values of the last W tokens of a text are in a ring: the token at position p is in slot
p mod W. The key in slot s is rotated by the angle of s. The query of a token in slot c needs two
rotations. The keys in slots up to c are of the same lap around the ring; they are compared with the
query rotated by the angle of c. The keys in slots above c are of the previous lap; they are
compared with the query rotated by the angle of c + W. So the differences of the angles are those of
the positions, and the tables of angles have 2 W rows for a text of any length.

The weights of a normalisation are multiplied into the matrices that read its result.

Shapes: B texts, R texts that are stepped together, V vocabulary, H hidden, L layers, N heads, G
key/value heads, D dimensions of a head, K = G D, F feed-forward, W window, M64 outputs rounded up
to whole panels (``reviewgen.compiled.linear``).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from reviewgen.compiled import by_address, inner, reordered
from reviewgen.compiled.conditioning import Conditioning, hold
from reviewgen.compiled.linear import ONE, ZERO, Matrix, add_product, exp32, sigmoid32
from reviewgen.compiled.ngrams import add, add_ngrams, append_token


class Packed(NamedTuple):
    """The weights of a transformer, prepared for the compiled loops. Matrices are in panels, those
    of the layers stacked; see ``reviewgen.compiled.linear``.
    """

    embedding: Float32[np.ndarray, "V H"]
    ngrams: Float32[np.ndarray, "K buckets H"] | None
    attention: Matrix  # W_q, W_k and W_v below each other; W_q is divided by sqrt(D)
    mix: Matrix  # W_o
    expand: Matrix  # W_gate and W_up
    contract: Matrix  # W_down
    output: Matrix
    cosine: Float32[np.ndarray, "W2 D2"]  # the cosines of the angles of 2 W positions
    sine: Float32[np.ndarray, "W2 D2"]
    epsilon: float
    bos_id: int  # -1 if the model has none
    key_size: int  # K
    inner_size: int  # F
    # the product of the conditions' vector is added to the input of the first layer
    conditioning: Conditioning | None


@by_address
def step(model, ids, floats, ints, logits):
    """Feed a token to each text, and write the logits after it; see ``reviewgen.compiled.steps``.

    Args:
        model: A pointer to the weights: ``model[0]`` is a ``Packed``.
        ids: As in ``reviewgen.compiled.steps``.
        floats: The state, each row W K wide or wider: the rotated keys of each layer; the values of
            each layer; the keys of each layer as they were before their rotation; the normalised
            output of the last layer; then, with conditions or fields, the two arrays ``sums`` and
            ``products`` of ``hold``.
        ints: The slot of the next token; how many tokens the ring has; then, if the
            model has n-grams, the last tokens.
        logits: As in ``reviewgen.compiled.steps``; if it has no rows, only the state is updated.
    """
    weights = model[0]
    rows = len(ids)
    layers = len(weights.mix.panels)
    size = weights.embedding.shape[1]
    last = floats[3 * layers]  # the normalised output of the last layer, after the three rings
    if rows > 0:
        x = np.zeros((rows, weights.mix.scales.shape[1]), np.float32)
        hold(weights.conditioning, ids, floats)
        for row in range(rows):
            if ids[row] == weights.bos_id:  # a text begins, which does not attend to the last one
                ints[1, row] = 0
        _look_up(weights, weights.ngrams, weights.conditioning, ids, floats, ints, x)
        for layer in range(layers):
            _attend(weights, layer, floats, ints, x)
            _feed_forward(weights, layer, x)
        window = len(weights.cosine) // 2  # the table has 2 W rows
        for row in range(rows):
            append_token(ids[row], ints[2:], row)
            ints[0, row] = (ints[0, row] + 1) % window
            ints[1, row] = min(ints[1, row] + 1, window)
            _normalise(x[row, :size], weights.epsilon, last[row])
    logits[:] = ZERO
    add_product(weights.output.panels, weights.output.scales, last[: len(logits)], logits)


@inner
def _look_up(weights, ngrams, conditioning, ids, floats, ints, x):
    """Add the input of the first layer to ``x``, (R, M64), which is zero. The arguments ``ngrams``
    and ``conditioning`` are fields of ``weights``; numba compiles no branch for one that is None.
    """
    size = weights.embedding.shape[1]
    for row in range(len(ids)):
        add(weights.embedding[ids[row]], x[row])
        if ngrams is not None:
            add_ngrams(ngrams, ids[row], ints[2:], row, x[row])
        if conditioning is not None:
            # the projected vector of conditions and fields, which ``hold`` wrote to the last array
            add(floats[len(floats) - 1, row, :size], x[row])


@inner
def _normalise(x, epsilon, out):
    """Write x, (H,), divided by the root of its mean square, to the beginning of ``out``."""
    scale = ONE / np.sqrt(_dot(x, x) / np.float32(len(x)) + np.float32(epsilon))
    for j in range(len(x)):
        out[j] = x[j] * scale


@reordered
def _dot(a, b):
    """Return the dot product of two vectors."""
    total = ZERO
    for j in range(len(a)):
        total += a[j] * b[j]
    return total


@inner
def _feed_forward(weights, layer, x):
    """Add the feed-forward part of a layer to ``x``, (R, M64)."""
    size = weights.embedding.shape[1]
    inputs = np.empty_like(x)
    for row in range(len(x)):
        _normalise(x[row, :size], weights.epsilon, inputs[row])
    # the products with W_gate and W_up, F numbers each, side by side
    expanded = np.zeros((len(x), weights.expand.scales.shape[1]), np.float32)
    add_product(weights.expand.panels[layer], weights.expand.scales[layer], inputs, expanded)
    for row in range(len(x)):
        _gate(expanded[row, : weights.inner_size], expanded[row, weights.inner_size :])
    # W_down has F inputs, so it reads the gated numbers only
    add_product(weights.contract.panels[layer], weights.contract.scales[layer], expanded, x)


@inner
def _gate(gate, up):
    """Overwrite ``gate``, (F,), by ``silu(gate) * up``. ``up`` has F numbers or more."""
    for j in range(len(gate)):
        gate[j] = gate[j] * sigmoid32(gate[j]) * up[j]


@inner
def _attend(weights, layer, floats, ints, x):
    """Write the keys and values of a layer to the state, and add to ``x``, (R, M64), what its heads
    have read.
    """
    size = weights.embedding.shape[1]
    width = weights.key_size
    layers = len(weights.mix.panels)
    # first the normalised x; below, each row is overwritten by what the heads of the text read
    inputs = np.empty_like(x)
    for row in range(len(x)):
        _normalise(x[row, :size], weights.epsilon, inputs[row])
    # the query (H), the key (K) and the value (K) of each text, side by side
    projected = np.zeros((len(x), weights.attention.scales.shape[1]), np.float32)
    add_product(weights.attention.panels[layer], weights.attention.scales[layer], inputs, projected)
    for row in range(len(x)):
        slot = ints[0, row]
        start = slot * width
        key = projected[row, size : size + width]
        value = projected[row, size + width : size + 2 * width]
        keys = floats[layer, row]
        values = floats[layers + layer, row]
        _copy(value, values[start : start + width])
        _copy(key, floats[2 * layers + layer, row, start : start + width])
        _rotate(key, weights.cosine[slot], weights.sine[slot], keys[start : start + width])
        _read(weights, projected[row, :size], keys, values, slot, ints[1, row], inputs[row])
    add_product(weights.mix.panels[layer], weights.mix.scales[layer], inputs, x)


@inner
def _copy(numbers, row):
    """Copy numbers to a row of the same length."""
    for j in range(len(row)):
        row[j] = numbers[j]


@inner
def _rotate(x, cosine, sine, out):
    """Write the vectors x of some heads, which are side by side, to ``out`` after their rotation.
    Dimension j of a head is rotated together with dimension j + D / 2. ``cosine`` and ``sine`` are
    (D / 2,).
    """
    half = len(cosine)
    for start in range(0, len(x), 2 * half):
        first = x[start : start + half]
        second = x[start + half : start + 2 * half]
        for j in range(half):
            out[start + j] = first[j] * cosine[j] - second[j] * sine[j]
        for j in range(half):
            out[start + half + j] = second[j] * cosine[j] + first[j] * sine[j]


@inner
def _read(weights, query, keys, values, slot, count, out):
    """Write what each head reads to ``out``, (H,) or wider.

    Args:
        weights: The Packed of the model.
        query: The queries of all heads, (H,).
        keys, values: The ring, W times K numbers each.
        slot: The slot of the current token.
        count: The number of tokens in the ring before the current one.
        out: Written.
    """
    size = len(query)
    width = weights.key_size
    window = len(weights.cosine) // 2
    head_size = 2 * weights.cosine.shape[1]
    shared = size // width  # number of heads that read the same keys, N / G
    earlier = min(count, window - 1)  # number of tokens that are read besides the current one
    # The slots from ``current_from`` to ``slot`` are read, which are of the current lap around the
    # ring, and the slots from ``previous_from`` to the last one, which are of the previous lap.
    current_from = max(0, slot - earlier)
    previous_from = window - max(0, earlier - slot)
    # the queries of all heads, rotated for the keys of the current and of the previous lap
    current_query = np.empty(size, np.float32)
    previous_query = np.empty(size, np.float32)
    _rotate(query, weights.cosine[slot], weights.sine[slot], current_query)
    _rotate(query, weights.cosine[slot + window], weights.sine[slot + window], previous_query)
    scores = np.empty(window, np.float32)
    for head in range(size // head_size):
        key_start = head // shared * head_size
        query_start = head * head_size
        head_out = out[query_start : query_start + head_size]
        _score(
            current_query[query_start : query_start + head_size],
            keys[key_start:],
            width,
            current_from,
            slot + 1,
            scores,
        )
        _score(
            previous_query[query_start : query_start + head_size],
            keys[key_start:],
            width,
            previous_from,
            window,
            scores,
        )
        highest = max(_highest(scores[current_from : slot + 1]), _highest(scores[previous_from:]))
        head_out[:] = ZERO
        total = _add_values(
            scores, highest, values[key_start:], width, current_from, slot + 1, head_out
        )
        total += _add_values(
            scores, highest, values[key_start:], width, previous_from, window, head_out
        )
        for j in range(head_size):
            head_out[j] /= total


@inner
def _score(query, keys, width, first, stop, scores):
    """Write the scores of a head for the slots from ``first`` to ``stop - 1``. In ``keys``, the key
    of the next slot follows after ``width`` numbers.
    """
    for slot in range(first, stop):
        scores[slot] = _dot(query, keys[slot * width : slot * width + len(query)])


@reordered
def _highest(scores):
    """Return the highest score, or a very low number if there is no score."""
    highest = np.float32(-3.4e38)  # about the lowest float32
    for j in range(len(scores)):
        highest = max(highest, scores[j])
    return highest


@inner
def _add_values(scores, highest, values, width, first, stop, out):
    """Add the values of the slots from ``first`` to ``stop - 1`` to ``out``, (D,), each multiplied
    by a weight, ``exp(score - highest)``, which also overwrites the score. Return the sum of the
    weights. In ``values``, the value of the next slot follows after ``width`` numbers.
    """
    total = ZERO
    for slot in range(first, stop):
        scores[slot] = exp32(scores[slot] - highest)
    for slot in range(first, stop):
        weight = scores[slot]
        total += weight
        value = values[slot * width : slot * width + len(out)]
        for j in range(len(out)):
            out[j] += weight * value[j]
    return total
