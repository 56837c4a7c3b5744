"""Bootstrap over texts (Efron 1979, "Bootstrap Methods: Another Look at the Jackknife"): the percentile interval.

A text is drawn whole, with its bits and its characters, because the characters of one text are not independent. All models are
drawn on the same texts, so a difference of two has the interval of paired texts.
"""

from collections.abc import Mapping
from itertools import combinations

import numpy as np
from jaxtyping import Float64, Int64

from reviewgen.comparison.rows import Interval, Pair

RESAMPLES = 4000
_LEVEL = (2.5, 97.5)  # percentiles


def draw_texts(count: int, seed: int, resamples: int = RESAMPLES) -> Int64[np.ndarray, "R N"]:
    """Return how often each of N texts is drawn in each of R resamples of N texts, with replacement."""
    generator = np.random.default_rng(seed)
    counts: np.ndarray = generator.multinomial(count, np.full(count, 1 / count), size=resamples)
    return counts


def _rates(bits: Float64[np.ndarray, " N"], characters: Int64[np.ndarray, " N"], counts: np.ndarray) -> np.ndarray:
    """Return bits per character of each resample."""
    rates: np.ndarray = (counts @ bits) / np.maximum(1, counts @ characters)
    return rates


def _interval(values: Float64[np.ndarray, " R"]) -> Interval:
    low, high = np.percentile(values, _LEVEL)
    return float(low), float(high)


def bits_interval(bits: Float64[np.ndarray, " N"], characters: Int64[np.ndarray, " N"], seed: int) -> Interval | None:
    """Return the 95 % interval of bits per character; None for a single text, or if the bits are infinite.

    Args:
        bits: The bits of each text.
        characters: The characters of each text.
        seed: The seed of the resamples.
    """
    if len(bits) < 2 or not np.isfinite(bits).all():
        return None
    return _interval(_rates(bits, characters, draw_texts(len(bits), seed)))


def compare_pairs(bits: Mapping[str, Float64[np.ndarray, " N"]], characters: Int64[np.ndarray, " N"], seed: int) -> list[Pair]:
    """Return the paired difference of each two models.

    Args:
        bits: The bits of each of the same texts, by the model's name.
        characters: The characters of each text.
        seed: The seed of the resamples.
    """
    if len(bits) < 2:
        return []
    total, counts = int(characters.sum()), draw_texts(len(characters), seed)
    rates = {name: _rates(each, characters, counts) for name, each in bits.items() if np.isfinite(each).all()}
    pairs = []
    for first, second in combinations(bits, 2):
        known = first in rates and second in rates and len(characters) > 1
        sums = float(bits[first].sum()), float(bits[second].sum())
        difference = 0.0 if sums[0] == sums[1] else (sums[0] - sums[1]) / total
        pairs.append(Pair(first, second, difference, _interval(rates[first] - rates[second]) if known else None))
    return pairs
