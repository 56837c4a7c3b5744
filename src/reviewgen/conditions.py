"""Conditions: columns such as stars or genre that a model is conditioned on, encoded as ids between bos and the text.

They are control codes (Ficler & Goldberg 2017; Keskar et al. 2019). Their ids follow the tokenizer's: for each condition one id
for "unspecified" and one for each value. Numbers are binned. Knows no model, and of the tokenizer only its vocabulary size.
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
from reviewgen.config.settings import check_value
from reviewgen.errors import ConfigError, DataError, did_you_mean, quoted

MAX_CATEGORIES = 50
MAX_DISTINCT_NUMBERS = 10  # up to this many, each number has its own bin
QUANTILES = (0.2, 0.4, 0.6, 0.8, 1.0)  # the upper ends of the bins of more numbers


@dataclass(frozen=True, kw_only=True)
class Value:
    """One value of a condition: a category, or a bin of numbers.

    Attributes:
        label: The category, or the bin as text, as in "5" or "1950..1969".
        share: The share of the training texts that have this value.
        low: The lower end of the bin, included; None for a category.
        high: The upper end of the bin, included; None for a category.
    """

    label: Annotated[str, Bound(at_least=1)]
    share: Annotated[float, Bound(at_least=0, at_most=1)]
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A column that a model is conditioned on.

    Attributes:
        name: The name of the column.
        kind: "category" or "number".
        values: Its values: categories, the most frequent first, or bins of numbers, the lowest first.
        left_out: The number of rarer categories that were dropped and count as not given.

    Raises:
        ConfigError: The values are not distinct, or the bins are not ascending.
    """

    name: Annotated[str, Bound(at_least=1)]
    kind: Literal["category", "number"]
    values: tuple[Value, ...]
    left_out: Annotated[int, Bound(at_least=0)] = 0

    def __post_init__(self) -> None:
        check(self)
        labels = [value.label for value in self.values]
        if not labels or len(set(labels)) < len(labels):
            raise ConfigError(f"The values of the condition {quoted(self.name)} are not distinct: {', '.join(labels) or 'none'}.")
        edges = [edge for value in self.values for edge in (value.low, value.high)]
        numbers = [edge for edge in edges if edge is not None]
        if numbers != sorted(numbers) or len(numbers) != (len(edges) if self.kind == "number" else 0):
            raise ConfigError(f"The bins of the condition {quoted(self.name)} are not ascending numbers: {edges}.")

    def find(self, value: object) -> int | None:
        """Return the index of a value in ``values``, or None if it is unknown; a number belongs to the first bin that holds it.

        >>> stars = Condition(name="stars", kind="number", values=(Value(label="4..5", share=1.0, low=4, high=5),))
        >>> stars.find(4.5), stars.find("5"), stars.find("4..5"), stars.find(6)
        (0, 0, 0, None)
        """
        number = finite_number(value) if self.kind == "number" else None
        label = label_of(value)
        for index, known in enumerate(self.values):
            is_it = label == known.label
            if number is not None and known.low is not None and known.high is not None:
                is_it = known.low <= number <= known.high
            if is_it:
                return index
        return None

    def plain(self, value: object) -> str | int | float | None:
        """Return a value as it is written: of a numeric condition a number, else text; None if it is missing."""
        if is_missing(value):
            return None
        number = finite_number(value) if self.kind == "number" else None
        return label_of(value) if number is None else int(number) if number.is_integer() else number

    def describe(self) -> str:
        """Return one line with the values and their shares, as in "stars: 4 (30 %), 5 (70 %)"."""
        shares = {value.label: value.share for value in self.values}
        rest = 1 - sum(shares.values())
        shares |= {"not given": rest} if rest > 1e-4 else {}
        return f"{self.name}: {', '.join(f'{label} ({100 * share:.3g} %)' for label, share in shares.items())}"

    def describe_unknown(self, value: object) -> str:
        """Return an error message for a value that ``find`` does not know."""
        labels = [known.label for known in self.values]
        if self.kind == "category":
            return f"{value!r} is not a value of the condition {self.name!r}. {did_you_mean(label_of(value), labels)}"
        low, high = self.values[0].low, self.values[-1].high
        return (
            f"{value!r} is not a value of the condition {self.name!r}, which goes from {low:g} to {high:g}: {', '.join(labels)}."
        )


@dataclass(frozen=True)
class Conditions:
    """The conditions of a model, in order, and the ids of their values; empty for a model without conditions.

    From ``first_id`` on, each condition in turn has one id for "unspecified" and one for each value.

    Attributes:
        conditions: The conditions.
        first_id: The first id: the tokenizer's vocabulary size.

    Raises:
        ConfigError: A condition is named twice.
    """

    conditions: tuple[Condition, ...] = ()
    first_id: int = 0

    def __post_init__(self) -> None:
        check_value("conditions", self.conditions, tuple[Condition, ...])
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
    def unspecified_ids(self) -> list[int]:
        """The "unspecified" id of each condition: the prefix of a text without known values."""
        sizes = [1 + len(condition.values) for condition in self.conditions]
        return [self.first_id + sum(sizes[:number]) for number in range(len(sizes))]

    @property
    def condition_ids(self) -> int:
        """The number of ids of categories and numbers, from ``first_id`` on."""
        return sum(1 + len(condition.values) for condition in self.conditions)

    @property
    def field_ids(self) -> int:
        """The number of ids of fields, which follow those of categories and numbers: one each, and one that ends them all."""
        return 0

    @property
    def vocab_size(self) -> int:
        """The number of ids, including the tokenizer's."""
        return self.first_id + self.condition_ids + self.field_ids

    def with_ids_from(self, vocab_size: int) -> "Conditions":
        """Return the same conditions with ids from ``vocab_size`` on, after a tokenizer's."""
        return replace(self, first_id=vocab_size)

    def encode(self, values: Mapping[str, Any]) -> list[int]:
        """Return one id for each condition, given values by name; a condition that is missing or None is unspecified.

        Raises:
            ConfigError: A name or a value is unknown; the message lists the known ones.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"Conditions must be a mapping of name to value, as in {{'stars': 5}}; got {quoted(values)}.")
        for name in values:
            if name not in self.names:
                raise ConfigError(f"{quoted(name)} is not a condition of this model. {did_you_mean(str(name), self.names)}")
        ordered = [values.get(name) for name in self.names]
        for condition, value in zip(self.conditions, ordered, strict=True):
            if value is not None and condition.find(value) is None:
                raise ConfigError(condition.describe_unknown(value))
        return self.encode_values(ordered)

    def encode_values(self, values: Sequence[Any]) -> list[int]:
        """Return one id for each condition, given the values of an example in order; missing or unknown ones are unspecified."""
        indices = (None if is_missing(value) else c.find(value) for c, value in zip(self.conditions, values, strict=True))
        pairs = zip(self.unspecified_ids, indices, strict=True)
        return [first if index is None else first + 1 + index for first, index in pairs]

    def unknown(self, values: Sequence[Any]) -> list[str]:
        """Return the names of the conditions for which an example has a value that was not in the training texts."""
        pairs = zip(self.conditions, values, strict=True)
        return [condition.name for condition, value in pairs if not is_missing(value) and condition.find(value) is None]

    def describe(self) -> list[str]:
        """Return one line per condition for the user: its values and their shares of the training texts."""
        return [condition.describe() for condition in self.conditions]

    def notes(self) -> list[str]:
        """Return a sentence for each condition that lost its rarer categories."""
        return [
            f"The condition {condition.name!r} keeps its {len(condition.values)} most frequent values; the other "
            f"{condition.left_out:,} count as not given."
            for condition in self.conditions
            if condition.left_out
        ]

    def to_json(self) -> list[dict[str, Any]]:
        """Return the conditions as JSON values; the ids are not included."""
        return [to_dict(condition) for condition in self.conditions]

    @classmethod
    def from_json(cls, stored: Any, first_id: int = 0) -> "Conditions":
        """Return the conditions from the JSON values that ``to_json`` returned.

        Raises:
            ConfigError: The values do not describe conditions.
        """
        return from_dict(cls, {"conditions": stored, "first_id": first_id})


def fit_conditions(names: Sequence[str], examples: Iterable[Sequence[str | float | None]]) -> Conditions:
    """Return the conditions of a training corpus: the categories or bins of each column, from one pass over its values.

    A column of numbers, or of strings that are numbers, is binned: up to 10 distinct numbers have a bin each, more are put into
    at most 5 bins with about as many texts each. Of any other column, the 50 most frequent values are kept. Memory grows by
    8 bytes per number and by each distinct category.

    Args:
        names: The names of the columns.
        examples: The condition values of each text, in the order of the names.

    Raises:
        DataError: A column has no values.
    """
    texts, numbers, categories = 0, [array("d") for _ in names], [Counter[str]() for _ in names]
    for values in examples if names else ():
        texts += 1
        for value, own, others in zip(values, numbers, categories, strict=True):
            if (number := finite_number(value)) is not None:
                own.append(number)
            elif not is_missing(value):
                others[label_of(value)] += 1
    return Conditions(tuple(_fit(*column, texts) for column in zip(names, numbers, categories, strict=True)))


def _fit(name: str, numbers: "array[float]", categories: Counter[str], texts: int) -> Condition:
    """Return the condition of a column of a number of texts, some of whose values are numbers and the others categories."""
    if not categories and not numbers:
        raise DataError(f"The column {quoted(name)} is empty in all training texts, so it cannot be a condition.")
    if not categories:
        return Condition(name=name, kind="number", values=_bin_numbers(np.frombuffer(numbers, np.float64), texts))
    categories.update(map(label_of, numbers))  # one value is not a number, so all are categories
    ranked = sorted(categories.items(), key=lambda item: (-item[1], item[0]))
    kept = tuple(Value(label=label, share=count / texts) for label, count in ranked[:MAX_CATEGORIES])
    return Condition(name=name, kind="category", values=kept, left_out=len(ranked) - len(kept))


def _bin_numbers(numbers: np.ndarray, texts: int) -> tuple[Value, ...]:
    """Return the bins of numbers (N,); none is empty, since each ends at one of the numbers.

    If all numbers are integers, a bin starts one above the end of the bin before. Otherwise it starts at that end, but a number
    equal to the end belongs to the bin before.
    """
    highs = np.unique(numbers)
    lows, step = highs, float((highs == np.floor(highs)).all())
    if len(highs) > MAX_DISTINCT_NUMBERS:
        highs = np.unique(np.quantile(numbers, QUANTILES, method="inverted_cdf"))
        lows = np.concatenate(([numbers.min()], highs[:-1] + step))
    counts, values = np.bincount(np.searchsorted(highs, numbers), minlength=len(highs)), []
    for low, high, count in zip(lows.tolist(), highs.tolist(), counts.tolist(), strict=True):
        label = label_of(low) if low == high else f"{label_of(low)}..{label_of(high)}"
        values.append(Value(label=label, share=count / texts, low=low, high=high))
    return tuple(values)


def is_missing(value: object) -> bool:
    """Return whether a value is not given: None, NaN, or a string that is blank or says NaN."""
    if isinstance(value, str):
        return value.strip().lower() in ("", "nan")
    return value is None or (isinstance(value, Real) and bool(value != value))  # only NaN differs from itself


def finite_number(value: object) -> float | None:
    """Return a finite number, or a string that is one, as a float; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | Real):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number + 0.0 if math.isfinite(number) else None  # -0.0 becomes 0.0, which has another label


def label_of(value: object) -> str:
    """Return a value as text; 5 and 5.0 have the same label."""
    number = None if isinstance(value, str) else finite_number(value)
    return " ".join(str(value).split()) if number is None else repr(number).removesuffix(".0")
