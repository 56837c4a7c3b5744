"""The compiled step of the recurrent models for inference. It knows arrays, but no settings.

A field of ``Packed`` is None if the model does not need it. numba treats None as a type and does
not compile a branch for it. So the first use compiles one cell only, and either the look-up in the
table of products or the product that the table replaces.

Shapes: B texts, V vocabulary, E embedding, H hidden, L layers, R texts that are stepped together, P
number of gates times H, rounded up to whole panels of 64 (``reviewgen.compiled.linear``), V64 and
M64 numbers of outputs rounded up in the same way, K tokens before the last one that n-grams look
at, A width of a key, W tokens that a pointer can copy. Here, h and c are (L, B, H), so that those
of a layer are a matrix; the first R texts are stepped.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from reviewgen.compiled import by_address, inlined, inner, reordered
from reviewgen.compiled.conditioning import Conditioning, hold
from reviewgen.compiled.linear import ONE, ZERO, Matrix, add_product, exp32, sigmoid32, tanh32
from reviewgen.compiled.ngrams import add, add_ngrams, append_token

RNN = 0
GRU = 1
LSTM = 2
# a sum of float32 exponentials between these has neither underflowed nor overflowed
MIN_SUM = np.float32(1e-20)
MAX_SUM = np.float32(1e30)
GATES = {RNN: 1, GRU: 3, LSTM: 4}
"""Number of blocks of H rows in a layer's matrices. Their order is torch's: r, z, n for the gru; i,
f, g, o for the lstm. The rnn has one block.
"""


class PackedPointer(NamedTuple):
    """The weights of a pointer, see ``Pointer``. Its matrices are already multiplied by the weights
    w of the normalisation.
    """

    # P_k, P_q divided by sqrt(A), and w_g, one below the other: a product has the A numbers of the
    # key, the A numbers of the query, and the log odds of the gate without its bias
    panels: Float32[np.ndarray, "panels K 64"]
    scales: Float32[np.ndarray, " M64"]
    gate_bias: float
    epsilon: float
    key_size: int  # A
    slots: int  # W + 1
    bos_id: int  # -1 if the model has none
    # this id and those after it stand for conditions and fields, and are never copied
    first_condition_id: int


class Packed(NamedTuple):
    """The weights of a recurrent model, prepared for the compiled loops. Matrices are in panels,
    see ``reviewgen.compiled.linear``.
    """

    # ``W_ih x + biases[0]`` of each token; if None, the loops compute it from the next fields
    table: Float32[np.ndarray, "V P"] | None
    embedding: Float32[np.ndarray, "V E"]
    ngrams: Float32[np.ndarray, "K buckets E"] | None  # a model with n-grams has no table
    first: Matrix  # W_ih of the first layer
    above: Matrix  # W_ih of the L-1 other layers, stacked
    recurrent: Matrix  # W_hh of the L layers, stacked
    biases: Float32[np.ndarray, "L P"]  # b_ih + b_hh; for the gru only b_ih
    hidden_biases: Float32[np.ndarray, "L P"] | None  # for the gru b_hh
    projection: Matrix | None  # before a tied output layer, if H differs from E
    output: Matrix
    output_bias: Float32[np.ndarray, " V"]
    relu: int | None  # 1 for relu as the activation, None for tanh
    zoneout: float | None  # the setting; None if it is 0
    memory: int | None  # 1 for the lstm, whose state has c; None for the others
    # the product of the conditions' vector is added to the output layer's input
    conditioning: Conditioning | None
    pointer: PackedPointer | None


@by_address
def step(model, ids, floats, ints, logits):
    """Feed a token to each text, and write the logits after it; see ``reviewgen.compiled.steps``.

    Args:
        model: A pointer to the weights: ``model[0]`` is a ``Packed``.
        ids: As in ``reviewgen.compiled.steps``.
        floats: The state: h of each layer; then, for the lstm, c of each layer; then, with a
            pointer, a ring of W + 1 keys, each row (W + 1) A wide or wider; then, with
            conditions or fields, the two arrays ``sums`` and ``products`` of ``hold``.
        ints: With a pointer, the slot of the next token's key in the ring, and the id of the token
            in each slot, -1 where there is no token to copy; then the last K tokens, if the model
            has n-grams.
        logits: As in ``reviewgen.compiled.steps``; if it has no rows, only the state is updated.
    """
    weights = model[0]
    layers = len(weights.biases)
    rows = len(ids)
    h = floats[:layers]
    c = _memory(floats, weights.memory, layers)
    past = _past(ints, weights.pointer)
    if rows > 0:
        gates = np.empty((rows, weights.biases.shape[1]), np.float32)
        _look_up(weights, weights.table, weights.ngrams, ids, past, gates)
        hold(weights.conditioning, ids, floats)
        for row in range(rows):
            append_token(ids[row], past, row)
        for layer in range(layers):
            if layer > 0:
                _broadcast(weights.biases[layer], gates)
                panels = weights.above.panels[layer - 1]
                scales = weights.above.scales[layer - 1]
                add_product(panels, scales, h[layer - 1, :rows], gates)
            _step(
                weights.recurrent.panels[layer],
                weights.recurrent.scales[layer],
                weights.hidden_biases,
                weights.relu,
                weights.zoneout,
                layer,
                gates,
                h[layer, :rows],
                c,
            )
    _broadcast(weights.output_bias, logits)
    _add_logits(
        weights.output,
        weights.projection,
        weights.conditioning,
        weights.pointer,
        h[layers - 1, : _rows_read(ids, logits, weights.pointer)],
        floats[len(floats) - 1],  # the products of conditions and fields come last
        logits,
        ids,
        floats[layers if weights.memory is None else 2 * layers],  # the keys come after h and c
        ints,
        len(weights.output_bias),
    )


@inner
def _memory(floats, memory, layers):
    """Return c of each layer, or None if the model has no c."""
    return None if memory is None else floats[layers:]


@inner
def _past(ints, pointer):
    """Return the last K tokens, (K, B), which stand behind the rows of a pointer."""
    return ints if pointer is None else ints[1 + pointer.slots :]


@inner
def _rows_read(ids, logits, pointer):
    """Return the number of texts for which the input of the output layer is computed: those whose
    logits are wanted and, with a pointer, those that get a token, to compute the next key.
    """
    return len(logits) if pointer is None else max(len(ids), len(logits))


@inner
def _add_logits(
    output,
    projection,
    conditioning,
    pointer,
    h,
    products,
    logits,
    ids,
    keys,
    ints,
    vocabulary,
):
    """Add the output layer's products to ``logits``, (R, V64). With a pointer, they become the log
    probabilities of its mixture.

    Args:
        output, projection, conditioning, pointer: The fields of Packed.
        h: The hidden state of the last layer, (R, H) or wider.
        products: The projections of conditions and fields. Each row is as wide as the output
            layer's input, or wider. Not used if ``conditioning`` is None.
        logits: Contains the biases of the output layer; updated.
        ids, keys, ints, vocabulary: As in ``_point``; used by a pointer only.
    """
    if projection is None and conditioning is None and pointer is None:
        add_product(output.panels, output.scales, h, logits)
        return
    inputs = np.zeros((len(h), _width(output, projection)), np.float32)
    if projection is None:
        for row in range(len(h)):
            _copy(h[row, : inputs.shape[1]], inputs[row])
    else:
        add_product(projection.panels, projection.scales, h, inputs)
    if conditioning is not None:
        for row in range(len(h)):
            add(products[row, : inputs.shape[1]], inputs[row])
    add_product(output.panels, output.scales, inputs[: len(logits)], logits)
    if pointer is not None:
        _point(pointer, inputs, ids, keys, ints, vocabulary, logits)


@inner
def _point(pointer, inputs, ids, keys, ints, vocabulary, logits):
    """Append the tokens that were read to the ring of the pointer, and mix what it copies into the
    logits.

    Args:
        pointer: The PackedPointer.
        inputs: The inputs x of the output layer. Each row is as wide as x, or wider with zeros at
            the end.
        ids: The tokens that were read, (R,) or empty.
        keys: The keys in the ring, (B, (W + 1) A) or wider; updated.
        ints: The slot of the next token's key, then the id of the token in each slot, (1 + W + 1,
            B) or longer; updated.
        vocabulary: V.
        logits: (R, V64) or empty; the logits become log probabilities.
    """
    size = pointer.key_size
    width = pointer.panels.shape[1]
    normalised = np.empty((len(inputs), width), np.float32)
    products = np.zeros((len(inputs), len(pointer.scales)), np.float32)
    for row in range(len(inputs)):
        x = inputs[row, :width]
        scale = ONE / np.sqrt(_dot(x, x) / np.float32(width) + np.float32(pointer.epsilon))
        for j in range(width):
            normalised[row, j] = x[j] * scale
    # each row of the products has the next token's key, the query and the gate's log odds
    add_product(pointer.panels, pointer.scales, normalised, products)
    for row in range(len(ids)):
        token = ids[row]
        if token == pointer.bos_id:  # a text begins, which copies nothing of the last one
            ints[1 : 1 + pointer.slots, row] = -1
        elif token < pointer.first_condition_id:
            # the token's key is in its slot already, since it does not depend on the token
            ints[1 + ints[0, row], row] = token
        # the next slot gets the key of the next token, whose id is not known yet
        slot = (ints[0, row] + 1) % pointer.slots
        ints[0, row] = slot
        ints[1 + slot, row] = -1
        _copy(products[row, :size], keys[row, slot * size : (slot + 1) * size])
    for row in range(len(logits)):
        query = products[row, size : 2 * size]
        log_odds = products[row, 2 * size] + np.float32(pointer.gate_bias)
        _mix(pointer, query, log_odds, keys[row], ints[1:], row, logits[row, :vocabulary])


@inner
def _mix(pointer, query, log_odds, keys, tokens, row, logits):
    """Replace the logits of a text by the log probabilities of a mixture: with probability 1 - g
    their softmax, with probability g what the pointer copies.

    Args:
        pointer: The PackedPointer.
        query: (A,).
        log_odds: The log odds of g: log(g / (1 - g)).
        keys: The key in each slot, one after another: (W + 1) A numbers or more.
        tokens: The id of the token in each slot, (W + 1, B) or longer, -1 where there is none.
        row: The column of the text in ``tokens``.
        logits: (V,); updated.
    """
    size = len(query)
    scores = np.full(pointer.slots, -np.inf, np.float32)
    for slot in range(pointer.slots):
        if tokens[slot, row] >= 0:
            scores[slot] = _dot(query, keys[slot * size : (slot + 1) * size])
    shift = _log_sum_exp(logits)  # subtracted from each logit, to give its log probability
    log_sum_of_scores = _log_sum_exp(scores)
    can_copy = log_sum_of_scores > -np.inf
    if can_copy:
        shift += _add_logs(ZERO, log_odds)  # log(1 + g / (1 - g)), which is -log(1 - g)
    for j in range(len(logits)):
        logits[j] -= shift
    for slot in range(pointer.slots):
        token = tokens[slot, row]
        if token >= 0:
            # the log of the token's share of the copies, plus log(g) = -log(1 + exp(-log_odds))
            copied = scores[slot] - log_sum_of_scores - _add_logs(ZERO, -log_odds)
            logits[token] = _add_logs(logits[token], copied)


@inner
def _log_sum_exp(numbers):
    """Return the logarithm of the sum of the exponentials of numbers, -inf if all are -inf. The
    largest number is subtracted before (and added after) only if the sum would be too small or too
    large for float32.
    """
    total = _sum_exp(numbers, ZERO)
    if MIN_SUM < total < MAX_SUM:
        return np.float32(math.log(total))
    highest = np.max(numbers)
    if highest == -np.inf:
        return np.float32(-np.inf)
    return highest + np.float32(math.log(_sum_exp(numbers, highest)))


@inner
def _sum_exp(numbers, shift):
    """Return the sum of exp(number - shift) over numbers."""
    powers = np.empty_like(numbers)
    for j in range(len(numbers)):
        powers[j] = exp32(numbers[j] - shift)
    return _sum(powers)


@reordered
def _sum(numbers):
    """Return the sum of numbers, added in any order. This is a function of its own because the
    compiler may reorder all operations in it, and those of ``exp32`` must keep their order.
    """
    total = ZERO
    for j in range(len(numbers)):
        total += numbers[j]
    return total


@inner
def _add_logs(a, b):
    """Return log(exp(a) + exp(b))."""
    return max(a, b) + np.float32(math.log1p(math.exp(-abs(a - b))))


@reordered
def _dot(a, b):
    """Return the dot product of two vectors."""
    total = ZERO
    for j in range(len(a)):
        total += a[j] * b[j]
    return total


@inner
def _width(output, projection):
    """Return the width of an array for the output layer's input. If a projection computes this
    input, its result is padded to whole panels, so the array is wider than the input.
    """
    return output.panels.shape[1] if projection is None else len(projection.scales)


@inner
def _copy(numbers, row):
    """Copy numbers to the beginning of a row, which may be longer. Assigning to a slice would take
    seconds to compile.
    """
    for j in range(len(numbers)):
        row[j] = numbers[j]


@inner
def _broadcast(numbers, rows):
    """Copy numbers into each row."""
    for row in range(len(rows)):
        _copy(numbers, rows[row])


@inner
def _look_up(weights, table, ngrams, ids, past, gates):
    """Write the product of W_ih and the input, plus the bias, to ``gates``, (R, P), for the first
    layer: from the table, or computed from the embeddings.

    ``ids``, int64 (R,), are the tokens to feed; ``past``, int64 (K, B), are the tokens before them.
    """
    if table is not None:
        for row in range(len(ids)):
            _copy(table[ids[row]], gates[row])
    else:
        vectors = np.empty((len(ids), weights.embedding.shape[1]), np.float32)
        for row in range(len(ids)):
            _copy(weights.embedding[ids[row]], vectors[row])
            if ngrams is not None:
                add_ngrams(ngrams, ids[row], past, row, vectors[row])
        _broadcast(weights.biases[0], gates)
        add_product(weights.first.panels, weights.first.scales, vectors, gates)


@inner
def _step(panels, scales, hidden_biases, relu, zoneout, layer, gates, h, c):
    """Advance h and c of a layer by one token. The equations are those of ``Rnn``, ``Gru`` and
    ``Lstm``.

    Args:
        panels, scales: The recurrent matrix of the layer.
        hidden_biases: float32 (L, P) for the gru; None for the others.
        relu, zoneout: The fields of Packed.
        layer: The index of the layer.
        gates: float32 (R, P), the products of W_ih and the inputs, plus the biases; overwritten.
        h: float32 (R, H) or wider, the hidden state of the layer; updated.
        c: float32 (L, B, H) or wider, for the lstm; None for the others; updated.
    """
    size = panels.shape[1]
    if hidden_biases is not None:
        hidden = np.empty_like(gates)  # the gru needs the product of the state by itself
        _broadcast(hidden_biases[layer], hidden)
        add_product(panels, scales, h, hidden)
        for row in range(len(h)):
            _gru(gates[row], hidden[row], h[row, :size], relu, zoneout)
        return
    add_product(panels, scales, h, gates)
    for row in range(len(h)):
        if c is None:
            _rnn(gates[row], h[row, :size], relu, zoneout)
        else:
            _lstm(gates[row], h[row, :size], c[layer, row, :size], relu, zoneout)


@inner
def _rnn(gates, h, relu, zoneout):
    """Replace h by its value after the step. ``gates`` is the sum of both products and biases."""
    for j in range(len(h)):
        h[j] = _zone_out(h[j], _activate(gates[j], relu), zoneout)


@inner
def _gru(gates, hidden, h, relu, zoneout):
    """Replace h by its value after the step. ``gates`` is the product of the input and W_ih plus
    its bias; ``hidden`` is the product of h and W_hh plus its bias. In both, r, z and n are side by
    side.
    """
    size = len(h)
    for j in range(size):
        r = sigmoid32(gates[j] + hidden[j])
        z = sigmoid32(gates[size + j] + hidden[size + j])
        n = _activate(gates[2 * size + j] + r * hidden[2 * size + j], relu)
        h[j] = _zone_out(h[j], (ONE - z) * n + z * h[j], zoneout)


@inner
def _lstm(gates, h, c, relu, zoneout):
    """Replace h and c by their values after the step. ``gates`` is the sum of both products and
    biases, with i, f, g and o side by side.
    """
    size = len(h)
    # the memory of g; each g is replaced by the new c (before zoneout) as soon as it is used
    fresh = gates[2 * size : 3 * size]
    for j in range(size):
        written = sigmoid32(gates[j]) * _activate(fresh[j], relu)
        fresh[j] = sigmoid32(gates[size + j]) * c[j] + written
    # The loops are separate, so that the compiler uses vector instructions: each loop needs few
    # checks that its arrays do not overlap.
    for j in range(size):
        c[j] = _zone_out(c[j], fresh[j], zoneout)
    for j in range(size):
        h[j] = _zone_out(h[j], sigmoid32(gates[3 * size + j]) * _activate(fresh[j], relu), zoneout)


@inlined
def _zone_out(old, new, zoneout):
    """Return the expected value of a unit that keeps its old value with probability ``zoneout``."""
    if zoneout is None:
        return new
    share = np.float32(zoneout)
    return share * old + (ONE - share) * new


@inlined
def _activate(number, relu):
    """Return tanh of a number, or its relu if ``relu`` is not None."""
    if relu is None:
        return tanh32(number)
    return ZERO if number < ZERO else number
