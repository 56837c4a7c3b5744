"""From weights of the vocabulary to one token: temperature, top-k, top-p, min-p, then one draw by inverse CDF.

The filters mean what they mean in transformers and act in its order. Knows neither a model nor a tokenizer.
"""

import numpy as np
from jaxtyping import Float, Float64

from reviewgen.compiled import compiled

__all__ = ["draw", "draw_rows", "weigh_logits", "weigh_probabilities"]


def weigh_logits(logits: Float[np.ndarray, "*B V"], temperature: float) -> Float64[np.ndarray, "*B V"]:
    """Return exp((logit - largest) / temperature) of every token; not compiled, for numpy's exponential is vectorised."""
    with np.errstate(over="ignore"):  # a temperature near zero
        weights: np.ndarray = np.exp((logits - logits.max(axis=-1, keepdims=True)) / np.float64(temperature))
    return weights


@compiled
def weigh_probabilities(weights, temperature):
    """Raise probabilities, float64 (V,), to the power of 1 / temperature, in place and up to a factor."""
    if temperature == 1.0:
        return
    largest, exponent = weights.max(), np.float32(1 / temperature)
    for token in range(len(weights)):  # in single precision, whose power is four times as fast
        weights[token] = np.float32(weights[token] / largest) ** exponent


@compiled
def draw(weights, top_k, top_p, min_p, uniform):
    """Return the token at which the filtered cumulative weight passes ``uniform``, in [0, 1) of its total.

    top-k keeps the k heaviest tokens and their equals (Fan et al. 2018); top-p the smallest set of that share or more (Holtzman
    et al. 2020), of equals those of smaller id; min-p those at least min_p times as heavy as the heaviest (Nguyen et al. 2024).
    The heaviest always stays. 0, 1 and 0 switch them off.

    Args:
        weights: float64 (V,), not negative, at least one above zero; what the filters drop becomes zero.
    """
    if 0 < top_k < len(weights) or top_p < 1:
        _keep_heaviest(weights, top_k if top_k > 0 else len(weights), top_p)
    if min_p > 0:
        floor = min_p * weights.max()
        for token in range(len(weights)):
            if weights[token] < floor:
                weights[token] = 0.0
    rest = uniform * weights.sum()
    last = 0
    for token in range(len(weights)):
        if weights[token] > 0:
            last = token  # the last token of positive weight, should rounding pass it
            rest -= weights[token]
            if rest < 0:
                break
    return last


@compiled
def draw_rows(weights, top_k, top_p, min_p, uniform, tokens):
    """Write the token drawn from each row of ``weights``, float64 (B, V), into ``tokens``, int64 (B,); see ``draw``."""
    for row in range(len(weights)):
        tokens[row] = draw(weights[row], top_k, top_p, min_p, uniform[row])


@compiled
def _keep_heaviest(weights, top_k, top_p):
    """Zero all but the top_k heaviest and their equals, and of these all but the heaviest that make up a share top_p."""
    heap = np.arange(len(weights))
    size = len(heap)
    for place in range(size // 2 - 1, -1, -1):
        _sink(heap, size, place, weights)
    total = weights.sum() if top_k >= size else np.inf  # of what top-k leaves; not known yet where it drops some
    kept, before = 0, 0.0
    while size > 0 and before < top_p * total and (kept < top_k or weights[heap[0]] == weights[heap[size]]):
        size -= 1
        heap[0], heap[size] = heap[size], heap[0]  # the kept ones stand behind the heap, the lightest first
        before += weights[heap[size]]
        kept += 1
        _sink(heap, size, 0, weights)
    total, before = before if total == np.inf else total, 0.0
    for place in range(len(heap) - 1, -1, -1):
        weight = weights[heap[place]]
        if place < size or before >= top_p * total:
            weights[heap[place]] = 0.0
        before += weight


@compiled
def _sink(heap, size, place, weights):
    """Let a token sink in a heap whose top is the heaviest token, of equals that of the smallest id."""
    while True:
        best, first = place, 2 * place + 1
        for child in range(first, min(first + 2, size)):
            a, b = heap[child], heap[best]
            if weights[a] > weights[b] or (weights[a] == weights[b] and a < b):
                best = child
        if best == place:
            return
        heap[place], heap[best] = heap[best], heap[place]
        place = best
