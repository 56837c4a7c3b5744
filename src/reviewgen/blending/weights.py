"""The mixture weights of a blend. The user gives them, or they are fitted on held-out text by
expectation maximisation. They are fixed, or a gate computes them for each token. No torch.

A model that is certain of the next token is right more often than one that is not, and an n-gram
and a network are certain in different contexts. So the fixed weights of M models may be multiplied
by the exponential of a *gate*, a quadratic function of the entropies (nats) of their next-token
distributions, and scaled to sum to one::

    w_m  ~  weight_m  exp(gate_m . (1, H_1 .. H_M, H_1 H_1, H_1 H_2 .. H_M H_M))

The gate is fitted in rounds. Each round is a step on a quadratic lower bound, so the likelihood
never decreases. A prior keeps the weights near the fixed ones. It counts as much as
``PRIOR_TOKENS`` tokens, so that a gate fitted to a few hundred held-out tokens also suits other
texts.

Sources: Jelinek & Mercer 1980, "Interpolated Estimation of Markov Source Parameters from Sparse
Data"; Dempster, Laird & Rubin 1977, "Maximum Likelihood from Incomplete Data via the EM Algorithm";
Jordan & Jacobs 1994, "Hierarchical Mixtures of Experts and the EM Algorithm"; Böhning 1992,
"Multinomial Logistic Regression Algorithm", for the bound.

Shapes: N tokens, M models, F features.
"""

import math
import sys
from typing import Any

import numpy as np
from jaxtyping import Float64

from reviewgen.errors import ConfigError, DataError, quoted

MAX_ROUNDS = 200  # max rounds that fit fixed weights
TOLERANCE = 1e-6  # a smaller change of the fixed weights ends their fit
MAX_GATE_ROUNDS = 300  # max rounds that fit a gate
GATE_TOLERANCE = 1e-7  # nats per token; a smaller gain ends the fit of a gate
# The weight of the gate's prior, in tokens. Of the values from 10 to 100, this one was the best for
# texts to which the gate was not fitted: in four corpora, with 300 to 14,000 tokens for the fit.
PRIOR_TOKENS = 30
# max tokens that a gate is fitted to; of more tokens, evenly spaced ones are chosen
MAX_TOKENS = 32_768
# in float32, the log of a probability near one may be above zero by at most this much
_ROUNDING = 1e-3


def check_weights(weights: Any, models: int) -> tuple[float, ...]:
    """Check mixture weights, and return them scaled to sum to one; None gives equal weights.

    >>> check_weights([1, 3], models=2)
    (0.25, 0.75)

    Raises:
        ConfigError: The weights are not one positive number per model.
    """
    if weights is None:
        return (1 / models,) * models
    is_list = isinstance(weights, list | tuple | np.ndarray) and np.ndim(weights)
    numbers = list(weights) if is_list else []
    are_positive = [
        isinstance(w, int | float) and not isinstance(w, bool) and 0 < w <= sys.float_info.max
        for w in numbers
    ]
    if are_positive != [True] * models:
        raise ConfigError(
            f"weights must be {models} numbers above 0, one per model; got {quoted(weights)}."
        )
    largest = float(max(numbers))  # dividing by it first keeps the sum finite
    total = math.fsum(w / largest for w in numbers)
    return tuple(float(w / largest / total) for w in numbers)


def fit_weights(log_probs: Float64[np.ndarray, "N M"]) -> Float64[np.ndarray, " M"]:
    """Return the mixture weights that maximise the likelihood of the tokens, by expectation
    maximisation.

    The weights are equal at first. Each round sets the weight of a model to its average share in
    the probability of a token::

        w_m  <-  1/N sum_n  w_m p_m(n) / sum_k w_k p_k(n)

    The log likelihood never decreases, and is concave in the weights, so there is one maximum. If
    every model gives a token probability zero, its bits are infinite whatever the weights are, so
    the token is left out.

    Args:
        log_probs: The log probability (nats) of each token under each model; -inf is probability
            zero.

    Raises:
        DataError: There are no tokens, every token has probability zero, or a log probability is
            NaN or above zero.
    """
    if not (log_probs <= _ROUNDING).all():  # NaN <= _ROUNDING is false, too
        raise DataError(
            "The weights cannot be fitted: a model gives a log probability that is NaN or above"
            " zero."
        )
    possible = log_probs[np.isfinite(log_probs).any(axis=1)]
    if not possible.size:
        raise DataError(
            "The weights cannot be fitted: no token has a probability above zero under any of the"
            " models."
        )
    # (N, M), scaled per token, which does not change the shares
    likelihoods = np.exp(possible - possible.max(axis=1, keepdims=True))
    weights = np.full(possible.shape[1], 1 / possible.shape[1])
    for _ in range(MAX_ROUNDS):
        totals = likelihoods @ weights  # (N,), the sums over k
        shares = weights * ((1 / totals) @ likelihoods) / len(likelihoods)
        change = np.abs(shares - weights).max()
        weights = shares / shares.sum()  # the sum is one up to rounding
        if change <= TOLERANCE:
            break
    return weights


def mix_scores(
    log_probs: Float64[np.ndarray, "N M"],
    weights: Float64[np.ndarray, " M"] | Float64[np.ndarray, "N M"],
) -> Float64[np.ndarray, " N"]:
    """Return the log probability (nats) of each token under the mixture; -inf for probability zero.

    Either all tokens share the same weights, or each token has its own.
    """
    with np.errstate(divide="ignore"):  # a weight may be zero
        mixed: np.ndarray = np.logaddexp.reduce(log_probs + np.log(weights), axis=1)
    return mixed


def features_of(entropies: Float64[np.ndarray, "N M"]) -> Float64[np.ndarray, "N F"]:
    """Return the features of the gate: 1, the entropies, and the products of two entropies.

    >>> features_of(np.array([[2.0, 3.0]])).tolist()
    [[1.0, 2.0, 3.0, 4.0, 6.0, 9.0]]
    """
    first, second = np.triu_indices(entropies.shape[1])
    ones = np.ones((len(entropies), 1))
    return np.concatenate((ones, entropies, entropies[:, first] * entropies[:, second]), axis=1)


def gated_weights(
    features: Float64[np.ndarray, "N F"],
    weights: Float64[np.ndarray, " M"],
    gate: Float64[np.ndarray, "M F"],
) -> Float64[np.ndarray, "N M"]:
    """Return the mixture weights of each token. A weight of zero stays zero."""
    scores = features @ gate.T
    unnormalised = weights * np.exp(scores - scores.max(axis=1, keepdims=True))
    gated: np.ndarray = unnormalised / unnormalised.sum(axis=1, keepdims=True)
    return gated


def fit_gate(
    log_probs: Float64[np.ndarray, "N M"],
    entropies: Float64[np.ndarray, "N M"],
    weights: Float64[np.ndarray, " M"],
) -> Float64[np.ndarray, "M F"]:
    """Return the gate that maximises the likelihood of the tokens, under a prior in favour of the
    fixed weights.

    Args:
        log_probs: The log probability (nats) of each token under each model; -inf is probability
            zero. Tokens that are impossible under all models are left out.
        entropies: The entropy (nats) of each model's distribution at each token.
        weights: The fixed weights, which do not depend on the context.
    """
    possible = np.flatnonzero(np.isfinite(log_probs).any(axis=1))
    chosen = possible[:: max(1, math.ceil(len(possible) / MAX_TOKENS))]
    scores = log_probs[chosen]
    likelihoods = np.exp(scores - scores.max(axis=1, keepdims=True))
    features = features_of(entropies[chosen])
    tokens = max(1, len(chosen))
    moments = features.T @ features / tokens
    # without this term, the moments are singular if an entropy does not vary
    moments += 1e-9 * np.trace(moments) * np.eye(len(moments))
    prior = PRIOR_TOKENS / tokens  # weight of the prior, relative to the tokens
    # The curvature of the bound is 0.5 times the moments, that of the prior is ``prior`` times the
    # moments. This is the inverse of their sum.
    step = np.linalg.inv(moments) / (0.5 + prior)
    gate = np.zeros((log_probs.shape[1], features.shape[1]))
    objective = -np.inf
    for _ in range(MAX_GATE_ROUNDS):
        before = objective
        gated = gated_weights(features, weights, gate)
        joint = gated * likelihoods
        total = np.maximum(joint.sum(axis=1, keepdims=True), 1e-300)  # not zero, to divide by it
        penalty = 0.5 * prior * np.sum(gate @ moments * gate)
        objective = np.log(total).mean() - penalty
        if objective - before <= GATE_TOLERANCE:
            break
        gradient = (joint / total - gated).T @ features / tokens
        gate = gate + (gradient - prior * gate @ moments) @ step
    return gate


def check_gate(gate: dict[str, Any], models: int) -> None:
    """Check that a gate for ``models`` models has the form that ``BlendConfig`` describes.

    Raises:
        ConfigError: The gate is malformed.
    """
    count = 1 + models + models * (models + 1) // 2  # number of features, F
    try:
        table = np.array(gate["coefficients"], np.float64)
    except (KeyError, TypeError, ValueError):
        table = np.empty(0)
    if table.shape != (models, count) or not np.isfinite(table).all() or len(gate) > 1:
        raise ConfigError(
            f"The gate of a blend of {models} models must be {{'coefficients': {models} lists of"
            f" {count} finite numbers}}; got {str(gate)[:100]}."
        )
