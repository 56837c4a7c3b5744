"""A figure of the report, with the same figure of real texts, and a section of figures."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from reviewgen.config.bounded import to_json
from reviewgen.rates import find_intervals
from reviewgen.web.charts import Chart
from reviewgen.web.rendering import decimal, percent

MIN_TEXTS = 50
"""A figure of fewer texts is "not known"."""

T = TypeVar("T")


class Measured(NamedTuple):
    """A measured number.

    Attributes:
        value: The number; None if it is not known.
        interval: Its 95 % interval, low and high; None if it is not known.
        texts: The number of texts that it was measured on.
    """

    value: float | None = None
    interval: Sequence[float] | None = None
    texts: int = 0


NOT_KNOWN = Measured()


@dataclass(frozen=True)
class Figure:
    """A figure of the synthetic texts, beside that of real ones.

    Attributes:
        key: Its name in the JSON, as in "auc".
        name: Its name for people.
        both: Its value for the synthetic texts, and for real texts against other real texts.
        is_share: Whether it is shown in per cent.
        note: What is compared, or why a number is not known, in one sentence; "" for nothing.
        digits: The number of digits after the point.
    """

    key: str
    name: str
    both: tuple[Measured, Measured] = (NOT_KNOWN, NOT_KNOWN)
    is_share: bool = False
    note: str = ""
    digits: int = 2

    @property
    def synthetic(self) -> Measured:
        """The value for the synthetic texts."""
        return self.both[0]

    @property
    def real(self) -> Measured:
        """The value for real texts against other real texts."""
        return self.both[1]

    def show(self, measured: Measured) -> str:
        """Return a number with its interval, for people; "not known" if there is none.

        >>> Figure("auc", "").show(Measured(0.5, (0.48, 0.52), 100))
        '0.50 (0.48 to 0.52)'
        """
        if measured.value is None or math.isnan(measured.value):
            return "not known"
        form = percent if self.is_share else decimal
        digits = self.digits - self.is_share  # a percentage has one less: 0.50, but 50.0 %
        shown = form(measured.value, digits)
        if measured.interval is None:
            return shown
        low, high = (form(end, digits) for end in measured.interval)
        return f"{shown} ({low} to {high})"

    def to_dict(self) -> dict[str, Any]:
        """Return the figure as JSON values; an infinite number becomes None."""
        both = {"synthetic": self.synthetic, "real": self.real}
        numbers = {
            name: {
                "value": to_json(each.value),
                "interval": each.interval and list(map(to_json, each.interval)),
                "texts": each.texts,
            }
            for name, each in both.items()
        }
        return numbers | {"note": self.note}


@dataclass(frozen=True)
class Section:
    """A section of the report.

    Attributes:
        name: "likeness", "variety", "use" or "privacy".
        words: What the figures say, in one or more sentences.
        figures: The figures.
        charts: Curves.
        lists: Rows of words below the figures, by their title: each row has as many cells as
            the first, which is the header.
    """

    name: str
    words: str
    figures: Sequence[Figure] = ()
    charts: Sequence[Chart] = ()
    lists: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)

    def figure(self, key: str) -> Figure:
        """Return the figure with a key."""
        return next(figure for figure in self.figures if figure.key == key)

    def to_dict(self) -> dict[str, Any]:
        """Return the section as JSON values."""
        return {
            "words": self.words,
            "figures": {figure.key: figure.to_dict() for figure in self.figures},
            "lists": {title: list(map(list, rows)) for title, rows in self.lists.items()},
        }


def measure(
    compute: Callable[[Sequence[T]], float], items: Sequence[T], is_share: bool = False
) -> Measured:
    """Return a number with its interval; both are None if there are fewer than ``MIN_TEXTS`` items.

    Args:
        compute: Computes the number from all or some of the items.
        items: What was measured on each text.
        is_share: Whether the number is a share of items, from 0 to 1.
    """
    if len(items) < MIN_TEXTS:
        return Measured(texts=len(items))
    # ``find_intervals`` makes a group of every tenth item; in a table that is sorted by a label,
    # such groups would differ too little from each other
    shuffled = random.Random(0).sample(list(items), len(items))
    (interval,) = find_intervals(lambda some: [compute(some)], shuffled, [is_share])
    return Measured(compute(items), interval, len(items))
