"""Rates that are measured on generated texts, with their 95 % intervals.

Texts are drawn independently of each other; the characters of a text are not. So the variance is
estimated by a jackknife over groups of texts (Kott 2001, "The delete-a-group jackknife"). A share
gets Wilson's interval (1927). Unlike a symmetric interval, Wilson's does not shrink to a point if
the measured share is 0. The number of trials in Wilson's formula is the number of independent
trials that would have the estimated variance.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import pvariance
from typing import Any, TypeVar

MIN_CHARACTERS = 20_000
"""A rate that was measured on fewer characters of generated text is shown as "not known yet"."""

_GROUPS = 10  # number of groups of the jackknife
_NORMAL = 1.960  # 0.975 quantile of the normal distribution
_STUDENT = 2.262  # 0.975 quantile of Student's distribution with 9 degrees of freedom
T = TypeVar("T")


def find_intervals(
    measure: Callable[[Sequence[T]], Sequence[float]],
    items: Sequence[T],
    are_shares: Sequence[bool] | None = None,
) -> list[list[float] | None]:
    """Return the 95 % interval (low, high) of each number that ``measure`` returns for the items.

    An interval is None if there are fewer than 10 items, or if one of its ends would be NaN or
    infinite.

    Args:
        measure: Takes any number of the items, and returns one or more numbers.
        items: Texts, or what was measured on each text.
        are_shares: For each number, whether it is a share from 0 to 1; by default all are.

    >>> ((low, high),) = find_intervals(lambda items: [sum(items) / len(items)], [0] * 100)
    >>> low, round(high, 3)
    (0.0, 0.037)
    """
    values = measure(items)
    if len(items) < _GROUPS:
        return [None] * len(values)
    estimates = []
    for group in range(_GROUPS):  # leave out each group once
        kept = [item for index, item in enumerate(items) if index % _GROUPS != group]
        estimates.append(measure(kept))
    intervals: list[list[float] | None] = []
    flags = are_shares or [True] * len(values)
    estimates_by_number = zip(*estimates, strict=True)
    for value, estimated, is_share in zip(values, estimates_by_number, flags, strict=True):
        variance = (_GROUPS - 1) * _variance(estimated)
        if is_share and 0 <= value <= 1:
            interval = _wilson(value, variance, len(items))
        else:
            interval = _symmetric(value, variance)
        intervals.append(interval if all(map(math.isfinite, interval)) else None)
    return intervals


def describe_rate(
    value: float, interval: Sequence[float] | None = None, characters: int | None = None
) -> str:
    """Return a rate in words, for the user.

    Args:
        value: The rate, from 0 to 1.
        interval: The 95 % interval of the rate; None if the interval was not saved with the model.
        characters: The number of characters on which the rate was measured; None if that number was
            not saved.

    >>> describe_rate(0.0321, (0.0214, 0.0447), 25_000), describe_rate(0.0321, None, 5_000)
    ('3.2% (95 %: 2.1% to 4.5%)', 'not known yet (5,000 of 20,000 characters)')
    """
    if characters is not None and characters < MIN_CHARACTERS:
        return f"not known yet ({characters:,} of {MIN_CHARACTERS:,} characters)"
    if not interval:
        return f"{value:.1%}"
    return f"{value:.1%} (95 %: {interval[0]:.1%} to {interval[-1]:.1%})"


def describe_copies(novelty: Mapping[str, Any]) -> str:
    """Return the copy rate of a model in words, for the user; "" if the rate was not measured.

    Args:
        novelty: The entry ``novelty`` of ``training.json``.
    """
    if novelty.get("copy_rate") is None:
        return ""
    return describe_rate(
        novelty["copy_rate"], novelty.get("copy_rate_interval"), novelty.get("copy_rate_characters")
    )


def area_under_curve(positive: Iterable[float], negative: Iterable[float]) -> float:
    """Return the probability that a positive score is above a negative one; ties count half.

    >>> area_under_curve([3, 2], [1, 2])
    0.875
    """
    negative = sorted(negative)
    # for each positive score, twice the number of negative ones below it; ties count once
    twice_below = [
        bisect_left(negative, score) + bisect_right(negative, score) for score in positive
    ]
    pairs = len(twice_below) * len(negative)
    return sum(twice_below) / (2 * pairs) if pairs else math.nan


def describe_membership(novelty: Mapping[str, Any]) -> str:
    """Return in words, for the user, how well the bits of a text tell whether it was a training
    text; "" if this was not measured.

    Args:
        novelty: The entry ``novelty`` of ``training.json``.

    >>> describe_membership({"membership": 0.512, "membership_interval": [0.43, 0.59]})
    '0.51 (95 %: 0.43 to 0.59)'
    """
    if novelty.get("membership") is None:
        return ""
    low, high = novelty.get("membership_interval") or (None, None)
    interval = "" if low is None else f" (95 %: {low:.2f} to {high:.2f})"
    return f"{novelty['membership']:.2f}{interval}"


def _variance(values: Sequence[float]) -> float:
    """Return the variance of some numbers; infinity if the variance is too large for a float."""
    try:
        return float(pvariance(map(float, values)))
    except OverflowError:
        return math.inf


def _wilson(value: float, variance: float, count: int) -> list[float]:
    """Return Wilson's interval of a share.

    The number of trials is share * (1 - share) / variance. The variance is an estimate, so it is
    scaled up by the square of the ratio of Student's quantile to the normal one. If the variance is
    0, or the share is 0 or 1, each item counts as a trial.

    Args:
        value: The share.
        variance: The variance of the share, estimated from the groups.
        count: The number of items.
    """
    trials: float = count
    if variance > 0 and 0 < value < 1:
        trials = value * (1 - value) / (variance * (_STUDENT / _NORMAL) ** 2)
    scale = 1 + _NORMAL**2 / trials
    middle = value + _NORMAL**2 / (2 * trials)
    spread = _NORMAL * (value * (1 - value) / trials + (_NORMAL / (2 * trials)) ** 2) ** 0.5
    return [max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)]


def _symmetric(value: float, variance: float) -> list[float]:
    """Return the 95 % interval of a number by Student's distribution."""
    spread = _STUDENT * variance**0.5
    return [value - spread, value + spread]
