"""The weights of a blend: given by a person, or fitted on held-out text by expectation maximisation. No torch.

Sources: Jelinek & Mercer 1980, "Interpolated Estimation of Markov Source Parameters from Sparse Data"; Dempster, Laird & Rubin
1977, "Maximum Likelihood from Incomplete Data via the EM Algorithm". N tokens, M models.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from reviewgen.errors import ConfigError, DataError

__all__ = ["can_be_fitted", "check_weights", "fit_weights", "mix_scores"]

ROUNDS, TOLERANCE = 200, 1e-6


def check_weights(weights: Any, models: int) -> tuple[float, ...]:
    """Return weights that sum to one, in the proportions of those given; equal ones for None.

    >>> check_weights([1, 3], models=2)
    (0.25, 0.75)

    Raises:
        ConfigError: They are not one positive number a model.
    """
    if weights is None:
        return (1 / models,) * models
    wanted = f"weights are {models} numbers above 0, one a model"
    if not isinstance(weights, list | tuple | np.ndarray):
        raise ConfigError(f"{wanted}; got {weights!r}.")
    numbers = list(weights)
    is_good = all(isinstance(w, int | float) and not isinstance(w, bool) and 0 < w < math.inf for w in numbers)
    if not is_good or len(numbers) != models:
        raise ConfigError(f"{wanted}; got {', '.join(map(repr, numbers)) or 'none'}.")
    total = math.fsum(numbers)
    return tuple(float(w / total) for w in numbers)


def fit_weights(
    log_probs: Float64[np.ndarray, "N M"], *, rounds: int = ROUNDS, tolerance: float = TOLERANCE
) -> Float64[np.ndarray, " M"]:
    """Return the weights of a mixture under which given tokens are likeliest, by expectation maximisation.

    Each round gives a model the average of its share in each token's probability, from equal weights on::

        w_m  <-  1/N sum_n  w_m p_m(n) / sum_k w_k p_k(n)

    The log likelihood falls in no round, and is concave in the weights, so there is one maximum. A token to which every
    model gives probability zero has infinite bits whatever the weights are, so it has no say in them.

    Args:
        log_probs: The log probability (nats) of each token under each model; -inf is probability zero.
        rounds: How many at most.
        tolerance: Ends when no weight moves by more.

    Raises:
        DataError: There are no tokens, or none that a model can predict, or a log probability is no number or above zero.
    """
    if np.isnan(log_probs).any() or (log_probs > _ROUNDED_UP).any():
        raise DataError("The weights cannot be fitted: a model gives a log probability that is no number, or above zero.")
    some = log_probs[can_be_fitted(log_probs)]
    if not some.size:
        raise DataError("The weights cannot be fitted: there is no token that any of the models can predict.")
    likelihoods = np.exp(some - some.max(axis=1, keepdims=True))  # (N, M): a factor a token changes no share
    weights = np.full(some.shape[1], 1 / some.shape[1])
    for _ in range(rounds):
        shares = weights * ((1 / (likelihoods @ weights)) @ likelihoods) / len(likelihoods)
        moved = np.abs(shares - weights).max()
        weights = shares / shares.sum()  # they sum to one but for rounding
        if moved <= tolerance:
            break
    return weights


def can_be_fitted(log_probs: Float64[np.ndarray, "N M"]) -> Bool[np.ndarray, " N"]:
    """Return which tokens at least one model gives a probability above zero."""
    possible: np.ndarray = np.isfinite(log_probs).any(axis=1)
    return possible


def mix_scores(log_probs: Float64[np.ndarray, "N M"], weights: Float64[np.ndarray, " M"]) -> Float64[np.ndarray, " N"]:
    """Return the log probability (nats) of each token under the mixture; -inf where it is zero."""
    with np.errstate(divide="ignore"):  # a weight may be zero
        mixed: np.ndarray = np.logaddexp.reduce(log_probs + np.log(weights), axis=1)
    return mixed


_ROUNDED_UP = 1e-3
"""A log probability of nearly one in float32 may come out a little above zero."""
