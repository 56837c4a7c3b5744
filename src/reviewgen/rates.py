"""Rates of generated texts: each with its 95 % interval, and with the number of characters that it
rests on.

Texts are drawn independently of each other, their characters are not. So the variance is that of a
jackknife over groups of texts (Kott 2001, "The delete-a-group jackknife"). The interval of a share
is Wilson's (1927), for as many independent trials as would have that variance; so it does not
shrink to a point where nothing was counted.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import pvariance
from typing import Any, TypeVar

MIN_CHARACTERS = 20_000
"""A rate that was measured on fewer characters of generated text is not known yet."""

_GROUPS = 10  # of the jackknife
_NORMAL = 1.960  # the quantile at 0.975 of the normal distribution
_STUDENT = 2.262  # the quantile at 0.975 of Student's distribution with 9 degrees of freedom
T = TypeVar("T")


def find_intervals(
    measure: Callable[[Sequence[T]], Sequence[float]],
    items: Sequence[T],
    are_shares: Sequence[bool] | None = None,
) -> list[list[float] | None]:
    """Return the 95 % interval, low and high, of each number that is measured on some items; None
    with fewer than 10 items.

    None also where a number is not finite, for all items or for nine tenths of them.

    Args:
        measure: Returns the numbers of any of the items.
        items: Texts, or what is known of each.
        are_shares: Whether each number is a share, from 0 to 1; all are by default.

    >>> ((low, high),) = find_intervals(lambda items: [sum(items) / len(items)], [0] * 100)
    >>> low, round(high, 3)
    (0.0, 0.037)
    """
    values = measure(items)
    if len(items) < _GROUPS:
        return [None] * len(values)
    estimates = []
    for group in range(_GROUPS):  # each is left out once
        others = [item for number, item in enumerate(items) if number % _GROUPS != group]
        estimates.append(measure(others))
    intervals: list[list[float] | None] = []
    flags = are_shares or [True] * len(values)
    for value, column, is_share in zip(values, zip(*estimates, strict=True), flags, strict=True):
        variance = (_GROUPS - 1) * _variance(column)
        if is_share and 0 <= value <= 1:
            interval = _wilson(value, variance, len(items))
        else:
            interval = _symmetric(value, variance)
        intervals.append(interval if all(map(math.isfinite, interval)) else None)
    return intervals


def describe_rate(
    value: float, interval: Sequence[float] | None = None, characters: int | None = None
) -> str:
    """Return a rate as people read it; of a model that was saved without its interval or
    characters, the rate alone.

    >>> describe_rate(0.0321, (0.0214, 0.0447), 25_000), describe_rate(0.0321, None, 5_000)
    ('3.2% (95 %: 2.1% to 4.5%)', 'not known yet (5,000 of 20,000 characters)')
    """
    if characters is not None and characters < MIN_CHARACTERS:
        return f"not known yet ({characters:,} of {MIN_CHARACTERS:,} characters)"
    if not interval:
        return f"{value:.1%}"
    return f"{value:.1%} (95 %: {interval[0]:.1%} to {interval[-1]:.1%})"


def describe_copies(novelty: Mapping[str, Any]) -> str:
    """Return the copy rate that ``training.json`` has under ``novelty``, as people read it; "" if
    it was not measured.
    """
    if novelty.get("copy_rate") is None:
        return ""
    return describe_rate(
        novelty["copy_rate"], novelty.get("copy_rate_interval"), novelty.get("copy_rate_characters")
    )


def _variance(values: Sequence[float]) -> float:
    try:
        return float(pvariance(map(float, values)))
    except OverflowError:
        return math.inf


def _wilson(value: float, variance: float, count: int) -> list[float]:
    """Return Wilson's interval, with Student's quantile where the variance is estimated from the
    groups.
    """
    trials: float = count
    if variance > 0 and 0 < value < 1:
        trials = value * (1 - value) / (variance * (_STUDENT / _NORMAL) ** 2)
    scale = 1 + _NORMAL**2 / trials
    middle = value + _NORMAL**2 / (2 * trials)
    spread = _NORMAL * (value * (1 - value) / trials + (_NORMAL / (2 * trials)) ** 2) ** 0.5
    return [max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)]


def _symmetric(value: float, variance: float) -> list[float]:
    return [value - _STUDENT * variance**0.5, value + _STUDENT * variance**0.5]
