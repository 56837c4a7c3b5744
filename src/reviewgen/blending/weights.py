"""The fixed mixture weights of a blend: checked if the user gives them, or fitted on held-out text by EM. No torch.

Sources: Jelinek & Mercer 1980, "Interpolated Estimation of Markov Source Parameters from Sparse Data"; Dempster, Laird & Rubin
1977, "Maximum Likelihood from Incomplete Data via the EM Algorithm". N tokens, M models.
"""

import math
import sys
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from reviewgen.errors import ConfigError, DataError, quoted

ROUNDS, TOLERANCE = 200, 1e-6
_MAX_WEIGHT = sys.float_info.max
_MIN_SHARE = 1e-12  # of a weight in the sum; less changes no probability
_ROUNDED_UP = 1e-3  # in float32, the log of a probability near one may be slightly above zero


def check_weights(weights: Any, models: int) -> tuple[float, ...]:
    """Return the weights scaled to sum to one; equal weights for None.

    >>> check_weights([1, 3], models=2)
    (0.25, 0.75)

    Raises:
        ConfigError: The weights are not one positive number per model.
    """
    if weights is None:
        return (1 / models,) * models
    expected = f"weights must be {models} numbers above 0, one per model"
    is_list = isinstance(weights, list | tuple) or (isinstance(weights, np.ndarray) and weights.ndim > 0)
    if not is_list:
        raise ConfigError(f"{expected}; got {quoted(weights)}.")
    numbers = list(weights)
    are_positive = all(isinstance(w, int | float) and not isinstance(w, bool) and 0 < w <= _MAX_WEIGHT for w in numbers)
    if not are_positive or len(numbers) != models:
        raise ConfigError(f"{expected}; got {quoted(numbers)}.")
    largest = float(max(numbers))  # divided by first, so that no sum is infinite
    total = math.fsum(w / largest for w in numbers)
    scaled = tuple(float(w / largest / total) for w in numbers)
    if not min(scaled) >= _MIN_SHARE:
        raise ConfigError(
            f"The smallest of the weights is less than {_MIN_SHARE:g} of their sum; leave that model out. Got {quoted(numbers)}."
        )
    return scaled


def fit_weights(
    log_probs: Float64[np.ndarray, "N M"], *, rounds: int = ROUNDS, tolerance: float = TOLERANCE
) -> Float64[np.ndarray, " M"]:
    """Return the mixture weights that maximise the likelihood of the tokens, by expectation maximisation.

    Starting from equal weights, each round sets a weight to the average of its model's share in each token's probability::

        w_m  <-  1/N sum_n  w_m p_m(n) / sum_k w_k p_k(n)

    The log likelihood never decreases, and is concave in the weights, so there is one maximum. A token to which every model
    gives probability zero has infinite bits whatever the weights are, so it is left out.

    Args:
        log_probs: The log probability (nats) of each token under each model; -inf is probability zero.
        rounds: The maximum number of rounds.
        tolerance: Stop when no weight changes by more.

    Raises:
        DataError: There are no tokens, every token has probability zero, or a log probability is NaN or above zero.
    """
    if np.isnan(log_probs).any() or (log_probs > _ROUNDED_UP).any():
        raise DataError("The weights cannot be fitted: a model gives a log probability that is NaN or above zero.")
    possible = log_probs[_is_possible(log_probs)]
    if not possible.size:
        raise DataError("The weights cannot be fitted: no token has a probability above zero under any of the models.")
    likelihoods = np.exp(possible - possible.max(axis=1, keepdims=True))  # (N, M), scaled per token, which changes no share
    weights = np.full(possible.shape[1], 1 / possible.shape[1])
    for _ in range(rounds):
        shares = weights * ((1 / (likelihoods @ weights)) @ likelihoods) / len(likelihoods)
        change = np.abs(shares - weights).max()
        weights = shares / shares.sum()  # the sum is one up to rounding
        if change <= tolerance:
            break
    return weights


def _is_possible(log_probs: Float64[np.ndarray, "N M"]) -> Bool[np.ndarray, " N"]:
    """Return a mask (N,) of the tokens with a probability above zero under at least one model."""
    possible: np.ndarray = np.isfinite(log_probs).any(axis=1)
    return possible


def mix_scores(
    log_probs: Float64[np.ndarray, "N M"], weights: Float64[np.ndarray, " M"] | Float64[np.ndarray, "N M"]
) -> Float64[np.ndarray, " N"]:
    """Return the log probability (nats) of each token under the mixture, with the same weights for all or with its own.

    It is -inf for probability zero.
    """
    with np.errstate(divide="ignore"):  # a weight may be zero
        mixed: np.ndarray = np.logaddexp.reduce(log_probs + np.log(weights), axis=1)
    return mixed
