"""Draws the conditions of each text: from a distribution for each condition, or from the rows of a table, jointly.

What text i gets depends on the schema, the seed and i only.
"""

import hashlib
import itertools
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reviewgen.conditions import Condition, Conditions
from reviewgen.config import parse_json
from reviewgen.data import open_records
from reviewgen.errors import ConfigError, DataError, did_you_mean, quoted
from reviewgen.storage import open_input, to_path

_MAX_JSON = 1 << 24  # bytes
_HEAD = 1000  # rows whose columns are those of a table
_STREAM = 0x5C4E  # beside (seed, i), which text i samples from, and (seed, i, try)

Value = str | int | float | None


@dataclass(frozen=True)
class Group:
    """Columns that are drawn together.

    Attributes:
        names: Their names.
        rows: The values that can be drawn.
        weights: The cumulative weights of the rows.
    """

    names: tuple[str, ...]
    rows: Sequence[tuple[Value, ...]]
    weights: np.ndarray


@dataclass(frozen=True)
class Schema:
    """What the conditions of texts are drawn from."""

    groups: Sequence[Group] = ()

    @property
    def names(self) -> list[str]:
        """The conditions that are drawn."""
        return [name for group in self.groups for name in group.names]

    def draw(self, seed: int, number: int) -> dict[str, Value]:
        """Return the values of a text by condition; one that is None is not given."""
        if not self.groups:
            return {}
        random = np.random.default_rng((seed, number, _STREAM)).random(len(self.groups))
        values: dict[str, Value] = {}
        for group, share in zip(self.groups, random.tolist(), strict=True):
            row = int(group.weights.searchsorted(share * group.weights[-1], side="right"))
            values |= zip(group.names, group.rows[min(row, len(group.rows) - 1)], strict=True)
        return values

    def values(self, name: str) -> list[Value]:
        """Return the values that a condition can get."""
        found = {row[group.names.index(name)] for group in self.groups if name in group.names for row in group.rows}
        return list(found)

    def digest(self) -> str | None:
        """Return a digest of what is drawn from; None if nothing is."""
        if not self.groups:
            return None
        facts = [[group.names, group.rows, group.weights.tolist()] for group in self.groups]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def read_schema(source: Any, conditions: Conditions, given: Mapping[str, Any]) -> Schema:
    """Return the schema that a source describes.

    Args:
        source: A mapping, or a .json file with one, of condition to {value: weight}; or a table whose columns are conditions: a
            csv, jsonl or parquet file, or what else ``train`` takes. The empty value stands for "not given".
        conditions: The conditions of the model.
        given: Conditions that are the same for all texts.

    Raises:
        ConfigError: The model has no conditions, or a condition, a value or a weight is unusable.
        DataError: The source cannot be read.
    """
    if not conditions:
        raise ConfigError("This model was trained without conditions, so a schema has nothing to draw: leave it out.")
    distribution = _read_json(source)
    if isinstance(distribution, Mapping):
        groups = [_read_weights(name, weights, conditions) for name, weights in distribution.items()]
        if not groups:
            raise ConfigError('The schema is empty: give {"condition": {"value": weight}}.')
    else:
        groups = [_read_table(source, conditions)]
    schema = Schema(tuple(groups))
    if twice := [name for name in schema.names if given.get(name) is not None]:
        raise ConfigError(f"The condition {quoted(twice[0])} is given and also drawn by the schema: leave out one of them.")
    return schema


def plain_value(condition: Condition, value: Any) -> Value:
    """Return a value of a condition as it is written: a number of a numeric condition as one, anything else as text."""
    if value is None or (isinstance(value, float) and math.isnan(value)) or str(value).strip().lower() in ("", "nan"):
        return None
    text = " ".join(str(value).split())
    if condition.kind == "number":
        try:
            number = float(text)
        except ValueError:  # the label of a bin
            return text
        return int(number) if number.is_integer() else number
    return text.removesuffix(".0") if isinstance(value, float) else text


def _read_json(source: Any) -> Any:
    """Return the value of a .json file, a mapping as it is, and None for anything else."""
    if isinstance(source, Mapping):
        return source
    if not isinstance(source, str | Path) or Path(source).suffix.lower() != ".json":
        return None
    path = to_path("schema", source)
    try:
        with open_input(path) as stream:
            content = stream.read(_MAX_JSON + 1)
    except OSError as error:
        raise DataError(f"The schema {source} cannot be read: {error.strerror}.") from None
    if len(content) > _MAX_JSON:
        raise DataError(f"The schema {source} cannot be read: it is larger than {_MAX_JSON >> 20} MB.")
    try:
        return parse_json(content.decode("utf-8"))
    except ValueError as error:
        raise DataError(f"The schema {source} is not JSON: {error}.") from None


def _read_weights(name: Any, weights: Any, conditions: Conditions) -> Group:
    """Return the group of a condition with a weight for each value."""
    condition = next((each for each in conditions if each.name == name), None)
    if condition is None:
        raise ConfigError(f"{quoted(name)} is not a condition of this model. {did_you_mean(str(name), conditions.names)}")
    if not isinstance(weights, Mapping) or not weights:
        raise ConfigError(f"The schema gives {quoted(name)} no weights: write {{value: weight}}; got {quoted(weights)}.")
    for value, weight in weights.items():
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not is_number or not 0 <= weight <= sys.float_info.max:
            raise ConfigError(
                f"The weight of {quoted(value)} of {quoted(name)} must be a number of at least 0; got {quoted(weight)}."
            )
    total = np.array(list(itertools.accumulate(float(weight) for weight in weights.values())))  # numpy would warn of an overflow
    if not 0 < total[-1] < math.inf:
        raise ConfigError(f"All weights of {quoted(name)} are 0, or their sum is infinite: give one of its values a weight.")
    return Group((condition.name,), [(_checked(condition, value),) for value in weights], total)


def _read_table(source: Any, conditions: Conditions) -> Group:
    """Return the group of those columns of a table that are conditions."""
    rows: list[tuple[Value, ...]] = []
    records = open_records(source)
    head = list(itertools.islice(records, _HEAD))
    columns = dict.fromkeys(str(column) for record in head for column in record)
    chosen = [condition for condition in conditions if condition.name in columns]
    for number, record in enumerate(itertools.chain(head, records) if chosen else (), 1):
        try:
            rows.append(tuple(_checked(condition, record.get(condition.name)) for condition in chosen))
        except ConfigError as problem:
            raise ConfigError(f"Row {number:,} of the schema: {problem}") from None
    if not rows:
        found = f"its columns are {', '.join(columns)}" if columns else "it has no rows"
        raise ConfigError(f"The schema has no column of a condition of this model ({', '.join(conditions.names)}); {found}.")
    return Group(tuple(condition.name for condition in chosen), rows, np.arange(1.0, len(rows) + 1))


def _checked(condition: Condition, value: Any) -> Value:
    plain = plain_value(condition, value)
    if plain is not None and condition.find(plain) is None:
        raise ConfigError(condition.describe_unknown(plain))
    return plain
