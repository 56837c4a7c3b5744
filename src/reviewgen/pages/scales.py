"""From values to positions along an axis, linear or logarithmic, and round ticks."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

_STEPS = (1, 2, 5, 10)
_MARGIN = 0.06  # of the range, at each end


@dataclass(frozen=True)
class Scale:
    """An axis.

    Attributes:
        low, high: The values at its ends; their decimal logarithms if it is logarithmic.
        ticks: The values that are labelled, by their labels.
        is_log: Whether it is logarithmic.
    """

    low: float
    high: float
    ticks: dict[str, float]
    is_log: bool = False

    def place(self, value: float) -> float:
        """Return where on the axis a value is: 0 at the low end, 1 at the high end."""
        return ((math.log10(value) if self.is_log else value) - self.low) / (self.high - self.low)


def make_scale(values: Iterable[float], is_log: bool = False, from_zero: bool = False, count: int = 5) -> Scale:
    """Return an axis on which all of some finite values are.

    Args:
        values: The values; positive ones for a logarithmic axis. None at all gives an axis from 0 (or 1) on.
        is_log: Whether the axis is logarithmic.
        from_zero: Whether a linear axis starts at zero.
        count: About the number of ticks.
    """
    known = [math.log10(value) if is_log else value for value in values] or [0.0, 1.0]
    low, high = min(known), max(known)
    if from_zero and not is_log:
        low = min(0.0, low)
    if math.isclose(low, high, rel_tol=1e-9, abs_tol=1e-12):
        low, high = low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
    margin = (high - low) * _MARGIN
    low, high = low if from_zero and low == 0 else low - margin, high + margin
    ticks = _log_ticks(low, high, count) if is_log else _linear_ticks(low, high, count)
    return Scale(low, high, {short(tick): tick for tick in ticks}, is_log)


def _linear_ticks(low: float, high: float, count: int) -> list[float]:
    """Return multiples of 1, 2 or 5 times a power of ten, about ``count`` of them."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(step for step in _STEPS if step * power >= rough * 0.999)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float, count: int) -> list[float]:
    """Return powers of ten; with 2 and 5 times them if there are few, and thinned if there are many."""
    powers = range(math.floor(low), math.ceil(high) + 1)
    tens = [float(power) for power in powers if low <= power <= high]
    if len(tens) >= 3:
        return [10**power for power in tens[:: math.ceil(len(tens) / (count + 1))]]
    fine = [step * 10.0**power for power in powers for step in (1, 2, 5)]
    inside = [tick for tick in fine if low <= math.log10(tick) <= high]
    if len(inside) > count + 1:
        inside = [step * 10.0**power for power in powers for step in (1, 4) if low <= math.log10(step * 10.0**power) <= high]
    return inside if len(inside) >= 2 else _linear_ticks(10**low, 10**high, 3)


def short(value: float) -> str:
    """Return a number as a short label.

    >>> [short(value) for value in (0, 0.25, 2.0, 1500, 20_000, 3e6, 5e9, 1e-4)]
    ['0', '0.25', '2', '1.5k', '20k', '3M', '5G', '0.0001']
    """
    for factor, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.4g}{sign}"
    return f"{value:.4g}" if abs(value) > 1e-9 else "0"
