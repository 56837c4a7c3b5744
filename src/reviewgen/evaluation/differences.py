"""Bits per character of models on the same texts, with 95 % intervals: of one model over the texts,
and of the difference between two models over the texts and the seeds of their training.

The variance over texts is that of a ratio of two sums (Cochran 1977, "Sampling Techniques", section
6.3). The variance over seeds is estimated from trainings that differ only in their seed. Each is
multiplied by the square of its own quantile of Student's distribution, and the root of their sum is
half the width of the interval. Such an interval holds the true value in at least 95 % of all cases
(Banerjee 1960, "Approximate Confidence Interval for Linear Functions of Means of k Populations When
the Population Variances Are Not Equal").
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

Interval = tuple[float, float]
"""The low and high end of a 95 % interval."""

_CONFIDENCE = 0.95
_MAX_DEGREES = 10_000  # with more, the quantile changes by less than 0.001
# the grid on which ``_student_quantile`` integrates, in radians
_ANGLES = np.linspace(0, math.pi / 2, 20_001)


class SeedSpread(NamedTuple):
    """How much trainings differ that differ only in their seed.

    Attributes:
        deviation: The standard deviation of their bits per character.
        degrees: The degrees of freedom of the deviation: the number of trainings, less one for each
            group of trainings that it was estimated from.
    """

    deviation: float
    degrees: int


@dataclass(frozen=True)
class Difference:
    """The difference between two models on the same texts.

    Attributes:
        value: Bits per character of the candidate minus those of the base. If it is below zero, the
            candidate is better.
        interval: The 95 % interval of the value; None if the bits of a model are infinite, or if
            there is only one text.
        is_over_seeds: Whether the interval covers the choice of the seed, and not only that of the
            texts.
    """

    value: float
    interval: Interval | None
    is_over_seeds: bool = False

    @property
    def is_significant(self) -> bool:
        """Whether the interval excludes zero."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]

    @property
    def is_better(self) -> bool | None:
        """Whether the candidate is better than the base: True or False if the interval covers texts
        and seeds and excludes zero, otherwise None, for unknown.

        An interval over texts alone excludes zero too often: for 14 to 32 of 100 pairs of trainings
        that differed only in their seed. So one training of each model leaves the answer unknown.
        """
        if not self.is_over_seeds or not self.is_significant:
            return None
        return self.value < 0


def compare_bits(
    base: Float64[np.ndarray, "S N"],
    candidate: Float64[np.ndarray, "R N"],
    characters: Int64[np.ndarray, " N"],
    seed_spread: SeedSpread | None = None,
) -> Difference:
    """Return the difference in bits per character of two models on the same N texts.

    If a model was trained from several seeds, or ``seed_spread`` is given, the interval covers
    texts and seeds. Both models are then taken to have the same spread over seeds, unless the
    trainings of one are all equal. Otherwise, it covers only the texts.

    Args:
        base: The nats of each text, for each of S seeds.
        candidate: The nats of each text, for each of R seeds.
        characters: The number of characters of each text.
        seed_spread: The spread over seeds of other, similar trainings. It is pooled with that of
            these trainings.
    """
    base_mean = base.mean(axis=0)
    candidate_mean = candidate.mean(axis=0)
    base_sum = float(base_mean.sum())
    candidate_sum = float(candidate_mean.sum())
    # two models with infinite sums do not differ, but infinity minus infinity would be NaN
    value = 0.0 if base_sum == candidate_sum else candidate_sum - base_sum
    value /= math.log(2) * max(1, int(characters.sum()))
    spreads = [] if seed_spread is None else [seed_spread]
    # the variance of the difference over seeds, as a multiple of that of a single training
    seed_factor = 0.0
    for nats in (base, candidate):
        own = find_seed_spread(nats, characters)
        # a model that is trained by counting is the same from each seed, and adds no variance
        if own is None or own.deviation > 0:
            seed_factor += 1 / len(nats)  # the variance of a mean of len(nats) trainings
            if own is not None:
                spreads.append(own)
    spread = pool_spreads(spreads)
    is_over_seeds = spread is not None or seed_factor == 0
    if len(characters) < 2 or not math.isfinite(base_sum + candidate_sum):
        return Difference(value, None, is_over_seeds)
    # the square of half the width of the interval
    square = _text_variance(base, candidate, characters)
    square *= _student_quantile(len(characters) - 1) ** 2
    if spread is not None:
        square += seed_factor * spread.deviation**2 * _student_quantile(spread.degrees) ** 2
    half_width = square**0.5
    return Difference(value, (value - half_width, value + half_width), is_over_seeds)


def find_interval(
    nats: Float64[np.ndarray, " N"], characters: Int64[np.ndarray, " N"]
) -> Interval | None:
    """Return the 95 % interval over the texts of the bits per character of a model. Return None for
    a single text, or if the nats of a text are infinite.
    """
    # the difference from a model that needs no bits; ``[None]`` adds an axis for a single seed
    return compare_bits(np.zeros_like(nats)[None], nats[None], characters).interval


def find_seed_spread(
    nats: Float64[np.ndarray, "S N"], characters: Int64[np.ndarray, " N"]
) -> SeedSpread | None:
    """Return the spread of the bits per character over S seeds. Return None for a single seed, or
    if the nats of a text are infinite.

    Args:
        nats: The nats of each text, for each seed.
        characters: The number of characters of each text.
    """
    if len(nats) < 2 or not np.isfinite(nats).all():
        return None
    bits = nats.sum(axis=1) / math.log(2) / max(1, int(characters.sum()))
    return SeedSpread(float(bits.std(ddof=1)), len(nats) - 1)


def pool_spreads(spreads: Sequence[SeedSpread]) -> SeedSpread | None:
    """Combine the spreads of several groups of trainings, as in an analysis of variance. Return
    None if there are none.
    """
    degrees = sum(spread.degrees for spread in spreads)
    if not degrees:
        return None
    squares = sum(spread.degrees * spread.deviation**2 for spread in spreads)
    return SeedSpread((squares / degrees) ** 0.5, degrees)


def _text_variance(
    base: Float64[np.ndarray, "S N"],
    candidate: Float64[np.ndarray, "R N"],
    characters: Int64[np.ndarray, " N"],
) -> float:
    """Return the variance over N texts of the difference in bits per character.

    A seed is better for some texts and worse for others. This is part of the spread over seeds, so
    it is subtracted here; it can be estimated only for a model with several seeds.
    """
    text_count = len(characters)
    total = max(1, int(characters.sum()))  # characters of all texts
    means = []  # for each model, the mean residual of each text over its seeds, (N,)
    seed_noise = 0.0  # what the seeds add to the sum of squares below
    for nats in (base, candidate):
        bits = nats / math.log(2)  # (S, N) or (R, N)
        # the bits of each text, less what a text of its length has on average
        residuals = bits - bits.sum(axis=1, keepdims=True) / total * characters
        mean = residuals.mean(axis=0)
        means.append(mean)
        if len(nats) > 1:
            # the variance of the mean over seeds, summed over the texts
            seed_noise += float(((residuals - mean) ** 2).sum()) / (len(nats) - 1) / len(nats)
    squares = float(((means[1] - means[0]) ** 2).sum())
    return max(0.0, squares - seed_noise) / total**2 * text_count / (text_count - 1)


@cache
def _student_quantile(degrees: int) -> float:
    """Return the half-width that holds 95 % of Student's distribution.

    With t = sqrt(degrees) * tan(angle), the density of the angle is proportional to cos(angle) **
    (degrees - 1), which is integrated on a grid.
    """
    used_degrees = min(degrees, _MAX_DEGREES)
    density = np.cos(_ANGLES) ** (used_degrees - 1)
    # the integral by the trapezoidal rule, up to each angle
    mass = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    angle = float(np.interp(_CONFIDENCE, mass / mass[-1], _ANGLES))
    return math.sqrt(used_degrees) * math.tan(angle)
