"""Mixtures of next-token distributions. Their weights may depend on how certain each distribution
is.

The *gate* is a quadratic function of the entropies (nats) of the M distributions. Its exponential
multiplies the prior weights, which are then scaled to sum to one::

    w_m  ~  prior_m  exp(gate_m . (1, H_1 .. H_M, H_1 H_1, H_1 H_2 .. H_M H_M))

Jordan & Jacobs 1994, "Hierarchical Mixtures of Experts and the EM Algorithm", have such a gate;
Jelinek & Mercer 1980 let the weights depend on the context in buckets.

The mixture may be the *expert* of one more model, which mixes it into its own distribution.

Shapes: M distributions (the *parts* of the mixture); N steps: M, or M + 1 with the model that has
the mixture as its expert; R rows, V vocabulary, V64 at least V, F features of the gate; S and K as
in ``reviewgen.compiled.steps``.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from reviewgen.compiled.jit import by_address, compiled, inner, reordered
from reviewgen.compiled.linear import ZERO, exp32, log32
from reviewgen.compiled.steps import call_step

LOW = np.float32(-80)  # log probabilities below this are computed again, in double precision


class Mixture(NamedTuple):
    """A mixture of models, prepared for ``step_mixture``."""

    functions: Any  # addresses of the steps, int64 (N,)
    weights: Any  # addresses of the steps' weights, int64 (N,)
    # where each step's state begins along the axis S of the floats, and where the last one ends
    float_starts: Int64[np.ndarray, " N1"]
    int_starts: Int64[np.ndarray, " N1"]  # the same along the axis K of the ints
    prior: Float64[np.ndarray, " M"]
    gate: Float64[np.ndarray, "M F"]
    vocab_size: int


@by_address
def step_mixture(mixture, ids, floats, ints, logits):
    """Step each part of a mixture, and write the log probabilities of the mixture; see
    ``reviewgen.compiled.steps``. Then step the model that has the mixture as its expert, if there
    is one.

    Args:
        mixture: The address of a Mixture.
        ids, logits: As in ``reviewgen.compiled.steps``.
        floats, ints: The states of the parts, one after another; then that of the model that has
            the mixture as its expert, if there is one.
    """
    blend = mixture[0]
    count = len(blend.prior)
    part_logits = np.empty((count, *logits.shape), np.float32)
    for step in range(len(blend.functions)):
        own_floats = floats[blend.float_starts[step] : blend.float_starts[step + 1]]
        own_ints = ints[blend.int_starts[step] : blend.int_starts[step + 1]]
        own_logits = part_logits[step] if step < count else logits
        call_step(blend.functions[step], blend.weights[step], ids, own_floats, own_ints, own_logits)
        # after the last part, the parts are mixed; a further step finds the mixture in ``logits``
        if step == count - 1:
            mix(part_logits, blend.prior, blend.gate, blend.vocab_size, logits)


@compiled
def mix(parts, prior, gate, vocab_size, logits):
    """Write the log probabilities (nats) of a mixture.

    A token has probability zero if each part with a weight above zero gives it probability zero.

    Args:
        parts: float32 (M, R, V64), the logits of each part.
        prior: float64 (M,), the weight of each part before the gate.
        gate: float64 (M, F), the coefficients of the gate; with no columns, the weights are
            ``prior``.
        vocab_size: V.
        logits: float32 (R, V64); written.
    """
    count = len(parts)
    probs = np.empty((count, vocab_size), np.float32)
    scratch = np.empty((4, count))  # one allocation for four arrays
    totals = scratch[0]
    log_sum_exps = scratch[1]
    entropies = scratch[2]
    weights = scratch[3]
    for row in range(len(logits)):
        for part in range(count):
            totals[part], log_sum_exps[part], entropies[part] = _softmax(
                parts[part, row], probs[part]
            )
        _weigh(prior, gate, entropies, weights)
        mixed = logits[row, :vocab_size]
        # log probabilities that are too low for float32, or NaN, are computed in double precision
        if _average(probs, weights, totals, mixed) > 0:
            for token in range(vocab_size):
                if not mixed[token] >= LOW:
                    mixed[token] = _mix_token(parts[:, row, token], log_sum_exps, weights)


@inner
def _weigh(prior, gate, entropies, weights):
    """Write the mixture weights, (M,), for distributions with these entropies.

    ``weights`` first gets the values of the gate, which are then replaced by the weights.
    """
    count = len(prior)
    largest = -np.inf
    for part in range(count):
        weights[part] = _score(gate[part], entropies) if gate.shape[1] > 0 else 0.0
        largest = max(largest, weights[part])
    total = 0.0
    for part in range(count):
        weights[part] = prior[part] * math.exp(weights[part] - largest)
        total += weights[part]
    for part in range(count):
        weights[part] /= total


@inner
def _score(coefficients, entropies):
    """Return the value of the gate's quadratic function for one part."""
    score = coefficients[0]
    index = 1
    for entropy in entropies:
        score += coefficients[index] * entropy
        index += 1
    for first in range(len(entropies)):
        for second in range(first, len(entropies)):
            score += coefficients[index] * entropies[first] * entropies[second]
            index += 1
    return score


@inner
def _softmax(logits, probs):
    """Write unnormalised probabilities of the first V logits to ``probs``, (V,).

    Returns:
        The sum of the unnormalised probabilities, the log sum exp of the logits, and the entropy
        (nats) of the distribution.
    """
    largest = _largest(logits, len(probs))
    for token in range(len(probs)):
        probs[token] = exp32(logits[token] - largest)
    total, weighted = _sums(logits, largest, probs)
    log_total = math.log(total)
    return total, largest + log_total, log_total - weighted / total


@inner
def _largest(logits, count):
    """Return the largest of the first ``count`` logits; NaN if one is a positive NaN.

    Vector instructions find the largest integer, but not the largest float. So each float is turned
    into an integer such that the order stays the same: its bits, with all bits but the sign
    inverted if it is negative.
    """
    largest_key = np.int32(-0x7FFFFFFF)
    for token in range(count):
        bits = np.float32(logits[token]).view(np.int32)
        key = np.int32(bits ^ np.int32(np.int32(bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))
        largest_key = key if key > largest_key else largest_key
    # the same change turns the integer back into the bits of the float
    return np.int32(
        largest_key ^ np.int32(np.int32(largest_key >> np.int32(31)) & np.int32(0x7FFFFFFF))
    ).view(np.float32)


@reordered
def _sums(logits, largest, probs):
    """Return the sum of the unnormalised probabilities, and the sum of each one times its
    logarithm.
    """
    total = ZERO
    weighted = ZERO
    for token in range(len(probs)):
        total += probs[token]
        weighted += probs[token] * (logits[token] - largest if probs[token] > ZERO else ZERO)
    return np.float64(total), np.float64(weighted)


@inner
def _average(probs, weights, totals, mixed):
    """Write to ``mixed`` the logs of the weighted average of the parts' distributions. Return how
    many of them are below ``LOW`` or NaN; the caller computes these again in double precision.

    The unnormalised probabilities of a part add up to its entry in ``totals``.
    """
    for token in range(len(mixed)):
        mixed[token] = ZERO
    for part in range(len(probs)):
        factor = np.float32(weights[part] / totals[part])
        for token in range(len(mixed)):
            mixed[token] += factor * probs[part, token]
    low_count = 0
    for token in range(len(mixed)):
        mixed[token] = log32(mixed[token])
        low_count += 0 if mixed[token] >= LOW else 1  # NaN is not above LOW
    return low_count


@inner
def _mix_token(logits, log_sum_exps, weights):
    """Return the log probability of one token, computed in double precision.

    ``logits``, (M,), has the token's logit in each part; ``log_sum_exps``, (M,), has the log sum
    exp of all logits of each part.
    """
    largest = -np.inf
    for part in range(len(weights)):
        if weights[part] > 0:
            largest = max(largest, logits[part] - log_sum_exps[part])
    # ``largest`` is still -inf if each part that has a weight gives the token probability zero, or
    # a logit that is NaN, which ``max`` ignores in compiled code
    if not largest > -np.inf:
        return np.float32(largest)
    total = 0.0
    for part in range(len(weights)):
        if weights[part] > 0:
            total += weights[part] * math.exp(logits[part] - log_sum_exps[part] - largest)
    return np.float32(largest + math.log(total))
