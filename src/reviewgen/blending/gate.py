"""The gate of a blend: mixture weights that depend on how certain each part is. No torch.

A part that is certain of the next token is more often right than one that is not, and an n-gram and a network are certain in
different contexts. So the weights of M parts are a softmax of a quadratic function of the entropies (nats) of their next-token
distributions, which every model has::

    w_m  ~  weight_m  exp(gate_m . (1, H_1 .. H_M, H_1 H_1, H_1 H_2 .. H_M H_M))

It is fitted by expectation maximisation, in which each round improves on the last by a step on a quadratic lower bound. A prior
keeps the weights near those that do not depend on the context: it counts as much as ``PRIOR_TOKENS`` tokens, so that from a few
hundred held-out tokens nothing is fitted that does not hold for other texts.

Sources: Jordan & Jacobs 1994, "Hierarchical Mixtures of Experts and the EM Algorithm"; Böhning 1992, "Multinomial Logistic
Regression Algorithm", for the bound. N tokens, M models, F features.
"""

import numpy as np
from jaxtyping import Float64

from reviewgen.errors import ConfigError

PRIOR_TOKENS = 30  # on four corpora, of 10 to 100 the best on other texts, with 300 to 14,000 held-out tokens
ROUNDS, TOLERANCE = 300, 1e-7  # nats a token
MAX_TOKENS = 32_768  # that are fitted to; of more, evenly spaced ones


def count_features(models: int) -> int:
    """Return the number of features, F."""
    return 1 + models + models * (models + 1) // 2


def features_of(entropies: Float64[np.ndarray, "N M"]) -> Float64[np.ndarray, "N F"]:
    """Return 1, the entropies, and the product of each two of them.

    >>> features_of(np.array([[2.0, 3.0]])).tolist()
    [[1.0, 2.0, 3.0, 4.0, 6.0, 9.0]]
    """
    first, second = np.triu_indices(entropies.shape[1])
    ones = np.ones((len(entropies), 1))
    return np.concatenate((ones, entropies, entropies[:, first] * entropies[:, second]), axis=1)


def gated_weights(
    features: Float64[np.ndarray, "N F"], weights: Float64[np.ndarray, " M"], gate: Float64[np.ndarray, "M F"]
) -> Float64[np.ndarray, "N M"]:
    """Return the mixture weights of each token; a weight of zero stays zero."""
    scores = features @ gate.T
    unnormalised = weights * np.exp(scores - scores.max(axis=1, keepdims=True))
    gated: np.ndarray = unnormalised / unnormalised.sum(axis=1, keepdims=True)
    return gated


def fit_gate(
    log_probs: Float64[np.ndarray, "N M"], entropies: Float64[np.ndarray, "N M"], weights: Float64[np.ndarray, " M"]
) -> Float64[np.ndarray, "M F"]:
    """Return the gate that maximises the likelihood of the tokens, given a prior for the fixed weights.

    Args:
        log_probs: The log probability (nats) of each token under each model; -inf is probability zero. Tokens that are
            impossible under all models are left out.
        entropies: The entropy (nats) of each model's distribution of the token.
        weights: The weights that do not depend on the context.
    """
    possible = np.flatnonzero(np.isfinite(log_probs).any(axis=1))
    chosen = possible[:: max(1, -(-len(possible) // MAX_TOKENS))]
    scores = log_probs[chosen]
    likelihoods, features = np.exp(scores - scores.max(axis=1, keepdims=True)), features_of(entropies[chosen])
    tokens = max(1, len(chosen))
    moments = features.T @ features / tokens
    moments += 1e-9 * np.trace(moments) * np.eye(len(moments))  # else singular where an entropy does not vary
    step = np.linalg.inv(moments) / (0.5 + PRIOR_TOKENS / tokens)
    gate, before = np.zeros((log_probs.shape[1], features.shape[1])), -np.inf
    for _ in range(ROUNDS):
        gated = gated_weights(features, weights, gate)
        joint = gated * likelihoods
        total = joint.sum(axis=1, keepdims=True)
        after = np.log(np.maximum(total, 1e-300)).mean() - 0.5 * PRIOR_TOKENS / tokens * np.sum(gate @ moments * gate)
        if after - before <= TOLERANCE:
            break
        before = after
        gradient = (joint / np.maximum(total, 1e-300) - gated).T @ features / tokens
        gate = gate + (gradient - PRIOR_TOKENS / tokens * gate @ moments) @ step
    return gate


def check_gate(gate: object, models: int) -> None:
    """Raise unless a gate has the form that ``BlendConfig`` describes, for that many models.

    Raises:
        ConfigError: It has not.
    """
    rows = gate.get("coefficients") if isinstance(gate, dict) and set(gate) == {"coefficients"} else None
    count = count_features(models)
    is_table = isinstance(rows, list) and len(rows) == models and all(isinstance(row, list) and len(row) == count for row in rows)
    numbers = [number for row in rows for number in row] if isinstance(rows, list) and is_table else [None]
    if not all(isinstance(number, int | float) and not isinstance(number, bool) and np.isfinite(number) for number in numbers):
        raise ConfigError(
            f"The gate of a blend of {models} models must be {{'coefficients': {models} lists of {count} finite numbers}}; "
            f"got {str(gate)[:100]}."
        )
