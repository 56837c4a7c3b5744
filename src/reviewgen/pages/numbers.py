"""Numbers as people read them: the filters of templates. None is a dash everywhere, and infinity has its sign."""

import math
from collections.abc import Callable, Mapping

_MISSING = "–"
_SIZES = ("B", "kB", "MB", "GB", "TB")


def thousands(value: float | None) -> str:
    """Return a whole number with separators.

    >>> thousands(1234567), thousands(None)
    ('1,234,567', '–')
    """
    return _special(value) or f"{value:,.0f}"


def decimal(value: float | None, digits: int = 3) -> str:
    """Return a number with a fixed number of digits after the point.

    >>> decimal(2.0456, 2), decimal(math.inf)
    ('2.05', '∞')
    """
    return _special(value) or f"{value:,.{digits}f}"


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share as a percentage.

    >>> percent(0.1234)
    '12.3 %'
    """
    return _special(value) or f"{value:.{digits}%}".replace("%", " %")


def size(value: float | None) -> str:
    """Return a number of bytes in decimal units.

    >>> size(999), size(1_234_000), size(10**16)
    ('999 B', '1.2 MB', '10,000.0 TB')
    """
    if value is None or not math.isfinite(value):
        return _special(value)
    power = 0
    while value >= 1000 and power < len(_SIZES) - 1:
        value, power = value / 1000, power + 1
    return f"{value:,.1f} {_SIZES[power]}" if power else f"{value:.0f} B"


def duration(value: float | None) -> str:
    """Return seconds as seconds, minutes or hours.

    >>> duration(0.04), duration(12.34), duration(125), duration(7260), duration(3599.7)
    ('0.04 s', '12.3 s', '2 m 05 s', '2 h 01 m', '1 h 00 m')
    """
    if value is None or not math.isfinite(value):
        return _special(value)
    if value < 1:
        return f"{value:.2g} s"
    if value < 60:
        return f"{value:.1f} s"
    whole = round(value)
    return f"{whole // 60} m {whole % 60:02} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02} m"


def _special(value: float | None) -> str:
    """Return the sign of a value that is missing or infinite; empty for a number."""
    if value is None or math.isnan(value):
        return _MISSING
    return "" if math.isfinite(value) else "∞" if value > 0 else "-∞"


FILTERS: Mapping[str, Callable[..., str]] = {
    "decimal": decimal,
    "duration": duration,
    "percent": percent,
    "size": size,
    "thousands": thousands,
}
