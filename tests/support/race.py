"""The exponential race that draws a token, written plainly with Python's whole numbers; see ``reviewgen.compiled.draw_token``."""

from fractions import Fraction

import numpy as np


def draw(probabilities: np.ndarray, uniform: float) -> int:
    """Return the token whose exponential arrival time is the smallest."""
    with np.errstate(divide="ignore"):
        return int(np.argmin(-np.log1p(-shares(uniform, len(probabilities))) / probabilities))


def shares(uniform: float, count: int) -> np.ndarray:
    """Return the random number in [0, 1) of each token."""
    high, low = divmod(int(Fraction(uniform) * 2**64), 2**32)
    first = mix((high + low) % 2**32, low)
    second = mix((low + 0x9E3779B9) % 2**32, first)
    upper = [mix((first + token * 0x9E3779B9) % 2**32, second) for token in range(count)]
    return np.array([(bits * 2**21 + mix(bits, first) // 2**11) / 2**53 for bits in upper])


def mix(x: int, key: int) -> int:
    x = (x ^ (x >> 16)) * 0x21F0AAAD % 2**32
    x = (x ^ (x >> 15) ^ key) * 0x735A2D97 % 2**32
    return x ^ (x >> 15)
