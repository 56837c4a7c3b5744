"""Conditions: columns beside the text (stars, genre) that a model learns to obey, as ids that stand before the text.

A control prefix (Ficler & Goldberg 2017; Keskar et al. 2019): the ids lie behind the tokenizer's, for each condition one that
means "any" and one for each of its values. Numbers are cut into bins. Knows no model, and of the tokenizer only its size.
"""

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Annotated, Any, Literal

import numpy as np

from reviewgen.config import Bound, check, from_dict, to_dict
from reviewgen.errors import ConfigError, DataError, did_you_mean

__all__ = ["Condition", "Conditions", "Value", "fit_conditions"]

MOST_CATEGORIES = 50
FEW_NUMBERS = 10  # distinct ones that stay a bin each
QUANTILES = (0.2, 0.4, 0.6, 0.8, 1.0)  # where the bins of more numbers end


@dataclass(frozen=True, kw_only=True)
class Value:
    """One value of a condition: a category, or the numbers from ``low`` to ``high``, both included."""

    label: Annotated[str, Bound(at_least=1)]
    share: Annotated[float, Bound(at_least=0, at_most=1)]  # of the training texts
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A column and its values: categories, the most frequent first, or bins of numbers, the lowest first."""

    name: Annotated[str, Bound(at_least=1)]
    kind: Literal["category", "number"]
    values: tuple[Value, ...]
    left_out: Annotated[int, Bound(at_least=0)] = 0  # rarer categories, which count as not given

    def __post_init__(self) -> None:
        check(self)
        labels = [value.label for value in self.values]
        if not labels or len(set(labels)) < len(labels):
            raise ConfigError(f"The values of the condition {self.name!r} are not distinct: {', '.join(labels) or 'none'}.")
        edges = [edge for value in self.values for edge in (value.low, value.high)]
        found = [edge for edge in edges if edge is not None]
        if found != sorted(found) or len(found) != (len(edges) if self.kind == "number" else 0):
            raise ConfigError(f"The bins of the condition {self.name!r} are no ascending numbers: {edges}.")

    def find(self, value: object) -> int | None:
        """Return the place of a value among the known ones, or None; a number goes into the first bin that holds it.

        >>> stars = Condition(name="stars", kind="number", values=(Value(label="4..5", share=1.0, low=4, high=5),))
        >>> stars.find(4.5), stars.find("5"), stars.find("4..5"), stars.find(6)
        (0, 0, 0, None)
        """
        number = _number(value) if self.kind == "number" else None
        label = _label(value)
        for place, known in enumerate(self.values):
            if number is not None and known.low is not None and known.high is not None:
                if known.low <= number <= known.high:
                    return place
            elif label == known.label:
                return place
        return None

    def describe(self) -> str:
        """Return the values and their shares in a line, as in "stars: 4 (30 %), 5 (70 %)"."""
        parts = [f"{value.label} ({_percent(value.share)})" for value in self.values]
        rest = 1 - sum(value.share for value in self.values)
        return f"{self.name}: {', '.join(parts)}" + (f", not given ({_percent(rest)})" if rest > 1e-4 else "")

    def refusal(self, value: object) -> str:
        """Return the sentence that says why ``find`` has no place for a value."""
        labels = [known.label for known in self.values]
        if self.kind == "category":
            return f"{value!r} is no value of the condition {self.name!r}. {did_you_mean(_label(value), labels)}"
        low, high = self.values[0].low, self.values[-1].high
        return f"{value!r} is no value of the condition {self.name!r}, which goes from {low:g} to {high:g}: {', '.join(labels)}."


@dataclass(frozen=True)
class Conditions:
    """Conditions in order, and the ids that stand for their values.

    Condition after condition takes one id for "any" and one for each value, from ``first_id`` on. There may be none.
    """

    conditions: tuple[Condition, ...] = ()
    first_id: int = 0  # the tokenizer's vocab_size

    def __post_init__(self) -> None:
        if len(set(self.names)) < len(self.names):
            raise ConfigError(f"A condition is named twice: {', '.join(self.names)}.")

    def __len__(self) -> int:
        return len(self.conditions)

    def __iter__(self) -> Iterator[Condition]:
        return iter(self.conditions)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the conditions."""
        return tuple(condition.name for condition in self.conditions)

    @property
    def any_ids(self) -> list[int]:
        """The "any" id of each condition: the prefix of a text of which nothing is known."""
        sizes = [1 + len(condition.values) for condition in self.conditions]
        return [self.first_id + sum(sizes[:number]) for number in range(len(sizes))]

    @property
    def vocab_size(self) -> int:
        """The number of ids, the tokenizer's among them."""
        return self.first_id + sum(1 + len(condition.values) for condition in self.conditions)

    def behind(self, vocab_size: int) -> "Conditions":
        """Return the same conditions with ids behind those of a tokenizer of that size."""
        return replace(self, first_id=vocab_size)

    def encode(self, values: Mapping[str, Any]) -> list[int]:
        """Return the ids, one a condition, of values by name; what is not given, or None, may be any.

        Raises:
            ConfigError: A name or a value is unknown; says which are known.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"Conditions are given by name, as in {{'stars': 5}}; got {values!r}.")
        for name in values:
            if name not in self.names:
                raise ConfigError(f"{name!r} is no condition of this model. {did_you_mean(str(name), self.names)}")
        row = [values.get(name) for name in self.names]
        for condition, value in zip(self.conditions, row, strict=True):
            if value is not None and condition.find(value) is None:
                raise ConfigError(condition.refusal(value))
        return self.encode_row(row)

    def encode_row(self, row: Sequence[Any]) -> list[int]:
        """Return the ids of one value a condition, as they stand beside a text; one that training did not know may be any."""
        places = (None if _is_missing(value) else c.find(value) for c, value in zip(self.conditions, row, strict=True))
        return [first if place is None else first + 1 + place for first, place in zip(self.any_ids, places, strict=True)]

    def unknown(self, row: Sequence[Any]) -> list[str]:
        """Return the names of the conditions of which a text has a value that training did not know."""
        pairs = zip(self.conditions, row, strict=True)
        return [condition.name for condition, value in pairs if not _is_missing(value) and condition.find(value) is None]

    def describe(self) -> list[str]:
        """Return a line a condition for a person: its values, and their shares of the training texts."""
        return [condition.describe() for condition in self.conditions]

    def notes(self) -> list[str]:
        """Return a sentence for each condition of which not all categories are kept."""
        return [
            f"The condition {condition.name!r} keeps its {len(condition.values)} most frequent values; the other "
            f"{condition.left_out:,} count as not given."
            for condition in self.conditions
            if condition.left_out
        ]

    def to_json(self) -> list[dict[str, Any]]:
        """Return the conditions as JSON values, without their ids."""
        return [to_dict(condition) for condition in self.conditions]

    @classmethod
    def from_json(cls, found: Any, first_id: int = 0) -> "Conditions":
        """Return what ``to_json`` gave.

        Raises:
            ConfigError: It is something else.
        """
        conditions = []
        for item in _list_of_objects(found, "The conditions"):
            values = [from_dict(Value, value) for value in _list_of_objects(item.get("values"), "A condition's values")]
            conditions.append(from_dict(Condition, item | {"values": values}))
        return cls(tuple(conditions), first_id)


def fit_conditions(names: Sequence[str], rows: Iterable[Sequence[str | float | None]]) -> Conditions:
    """Return the conditions that training texts have, from the values beside each text, read once.

    A column of numbers, spelled or not, is binned: up to 10 distinct ones stay a bin each, more go into at most 5 bins of about
    equally many texts. Of any other, the 50 most frequent values are kept. Memory grows by 8 bytes a number and by each distinct
    category.

    Args:
        names: Of the columns.
        rows: For each text a value for each name.

    Raises:
        DataError: A column holds no value at all.
    """
    columns = [_Column(name) for name in names]
    for row in rows if names else ():
        for column, value in zip(columns, row, strict=True):
            column.add(value)
    return Conditions(tuple(column.fit() for column in columns))


class _Column:
    """Gathers the values of one column."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._texts = 0
        self._numbers = array("d")
        self._categories: Counter[str] = Counter()

    def add(self, value: str | float | None) -> None:
        """Take note of one text's value."""
        self._texts += 1
        if _is_missing(value):
            return
        number = _number(value)
        if number is None:
            self._categories[_label(value)] += 1
        else:
            self._numbers.append(number)

    def fit(self) -> Condition:
        """Return the condition that all the values make."""
        if not self._categories and not self._numbers:
            raise DataError(f"The column {self._name!r} is empty in all training texts, so it cannot be a condition.")
        if not self._categories:
            values = _cut(np.frombuffer(self._numbers, np.float64), self._texts)
            return Condition(name=self._name, kind="number", values=values)
        self._categories.update(map(_label, self._numbers))  # one word among them, and numbers are names too
        ranked = sorted(self._categories.items(), key=lambda item: (-item[1], item[0]))
        values = tuple(Value(label=label, share=count / self._texts) for label, count in ranked[:MOST_CATEGORIES])
        return Condition(name=self._name, kind="category", values=values, left_out=len(ranked) - len(values))


def _cut(numbers: np.ndarray, texts: int) -> tuple[Value, ...]:
    """Return the bins of numbers (N,); every one holds some, since each ends at one of them.

    A bin of whole numbers starts one above the end of the last, any other at that end, which the last bin keeps to itself.
    """
    highs = np.unique(numbers)
    is_few = len(highs) <= FEW_NUMBERS
    step = float((highs == np.floor(highs)).all())
    if not is_few:
        highs = np.unique(np.quantile(numbers, QUANTILES, method="inverted_cdf"))
    lows = highs if is_few else np.concatenate(([numbers.min()], highs[:-1] + step))
    counts = np.bincount(np.searchsorted(highs, numbers), minlength=len(highs))
    return tuple(
        Value(label=_label(low) if low == high else f"{_label(low)}..{_label(high)}", share=count / texts, low=low, high=high)
        for low, high, count in zip(lows.tolist(), highs.tolist(), counts.tolist(), strict=True)
    )


def _is_missing(value: object) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in ("", "nan")
    return value is None or (isinstance(value, Real) and bool(value != value))  # nan is all that differs from itself


def _number(value: object) -> float | None:
    """Return a number, or what spells one, as a float; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | Real):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number + 0.0 if math.isfinite(number) else None  # no -0.0, which is spelled otherwise


def _label(value: object) -> str:
    """Return how a value is spelled: 5 and 5.0 alike."""
    number = None if isinstance(value, str) else _number(value)
    return " ".join(str(value).split()) if number is None else repr(number).removesuffix(".0")


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _list_of_objects(found: Any, what: str) -> list[dict[str, Any]]:
    if not isinstance(found, list) or not found or not all(isinstance(item, dict) for item in found):
        raise ConfigError(f"{what} should be a list of JSON objects, not {str(found)[:60]!r}.")
    return found
