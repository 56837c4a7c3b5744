"""Draws one token with a random number: by an exponential race, so that close probabilities give the same token.

Each token gets a random number of its own, a hash of the draw's number and of its id, and from it an exponential arrival time,
-log(1 - x) / p. The first to arrive wins, which a token does with its probability (the Gumbel-max trick; Maddison et al. 2014).
Inverse transform sampling would do for one machine. But where another one computes the probabilities with other rounding, each
border of the cumulative sum moves, and of 8,000 tokens a hundred times as many draws change.

Of the tokens left when some are ruled out, the one next to arrive is a draw, too. So one random number is enough for a token. But
where filters then let in tokens that had not raced, these would arrive too early, and all race again: with ``another_number``.

Arithmetic of 32 bits, written so that it is exact in numba, in Python and in JavaScript (``web/static/sampling.js``).
"""

import math

import numpy as np

from reviewgen.compiled.jit import inner

MASK = 0xFFFFFFFF  # 32 bits
GOLDEN = 0x9E3779B9  # 2 ** 32 divided by the golden ratio: far apart for ids that are close


@inner
def draw_token(probs, uniform):
    """Return a token by its probability; of tokens that are ruled out, the same number gives the next best instead.

    Args:
        probs: float64 (V,), unnormalised probabilities, not negative, at least one above zero.
        uniform: A random number in [0, 1).
    """
    scaled = uniform * 4294967296.0
    high = int(scaled)
    low = int((scaled - high) * 4294967296.0)
    first = _mix((high + low) & MASK, low)
    second = _mix((low + GOLDEN) & MASK, first)
    winner, prob, time = 0, 0.0, np.inf  # time: that of arrival, times the probability
    for token in range(len(probs)):
        if probs[token] <= 0:
            continue
        bits = _mix((first + token * GOLDEN) & MASK, second)
        if probs[token] * time <= prob * (bits * 2.0**-32):  # -log(1 - x) >= x, so it cannot be the first to arrive
            continue
        share = (bits + (_mix(bits, first) >> 11) * 2.0**-21) * 2.0**-32  # in [0, 1), of 53 bits
        own_time = -math.log1p(-share)
        if probs[token] * time > prob * own_time:
            winner, prob, time = token, probs[token], own_time
    return winner


@inner
def another_number(uniform):
    """Return a number in [0, 1) whose race does not depend on that of ``uniform``: a quarter further on, exactly."""
    return uniform + 0.25 if uniform < 0.75 else uniform - 0.75


@inner
def _mix(x, key):
    """Return a hash of 32 bits of two numbers of 32 bits; constants by Wellons 2018, found by search ("lowbias32")."""
    x = ((x ^ (x >> 16)) * 0x21F0AAAD) & MASK
    x = ((x ^ (x >> 15) ^ key) * 0x735A2D97) & MASK
    return x ^ (x >> 15)
