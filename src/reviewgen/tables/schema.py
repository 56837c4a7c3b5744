"""Draws the conditions of each text: from a distribution for each condition, or from the rows of a table, jointly.

What text i gets depends on the schema, the seed and i only.
"""

import hashlib
import itertools
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reviewgen.conditions import Condition, Conditions
from reviewgen.config import MAX_RECORD, read_json
from reviewgen.data import open_records
from reviewgen.errors import ConfigError, DataError, did_you_mean, quoted
from reviewgen.storage import to_path

_HEAD = 1000  # rows whose columns are those of a table
_STREAM = 0x5C4E  # beside (seed, i), which text i samples from, and (seed, i, try)

Value = str | int | float | None


@dataclass(frozen=True)
class Group:
    """Conditions that are drawn together.

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

    def values(self, name: str) -> set[Value]:
        """Return the values that a condition can get."""
        return {row[group.names.index(name)] for group in self.groups if name in group.names for row in group.rows}

    def digest(self) -> str | None:
        """Return a digest of what is drawn from; None if nothing is."""
        facts = [[group.names, group.rows, group.weights.tolist()] for group in self.groups]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest() if facts else None


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
    weights = source
    if isinstance(source, str | Path) and Path(source).suffix.lower() == ".json":
        try:
            weights = read_json(to_path("schema", source), MAX_RECORD)
        except (OSError, ValueError) as error:
            raise DataError(f"The schema {source} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    if isinstance(weights, Mapping):
        schema = Schema([_read_weights(name, own, conditions) for name, own in weights.items()])
        if not schema.groups:
            raise ConfigError('The schema is empty: give {"condition": {"value": weight}}.')
    else:
        schema = Schema([_read_table(open_records(source), conditions)])
    if twice := [name for name in schema.names if given.get(name) is not None]:
        raise ConfigError(f"The condition {quoted(twice[0])} is given and also drawn by the schema: leave out one of them.")
    return schema


def _read_weights(name: Any, weights: Any, conditions: Conditions) -> Group:
    """Return the group of a condition with a weight for each value."""
    condition = next((each for each in conditions if each.name == name), None)
    if condition is None:
        raise ConfigError(f"{quoted(name)} is not a condition of this model. {did_you_mean(str(name), conditions.names)}")
    numbers = list(weights.values()) if isinstance(weights, Mapping) else []
    if not all(type(weight) in (int, float) and weight >= 0 for weight in numbers) or not 0 < sum(numbers) <= sys.float_info.max:
        raise ConfigError(
            f"The schema must give {quoted(name)} weights of at least 0, {{value: weight}}, with a finite sum above 0; "
            f"got {quoted(weights)}."
        )
    return Group((condition.name,), [(_checked(condition, value),) for value in weights], np.cumsum(numbers, dtype=np.float64))


def _read_table(records: Iterable[Mapping[str, Any]], conditions: Conditions) -> Group:
    """Return the group of those columns of a table that are conditions."""
    rest = iter(records)
    head = list(itertools.islice(rest, _HEAD))
    columns = dict.fromkeys(str(column) for record in head for column in record)
    chosen, rows = [condition for condition in conditions if condition.name in columns], list[tuple[Value, ...]]()
    for number, record in enumerate(itertools.chain(head, rest) if chosen else (), 1):
        try:
            rows.append(tuple(_checked(condition, record.get(condition.name)) for condition in chosen))
        except ConfigError as problem:
            raise ConfigError(f"Row {number:,} of the schema: {problem}") from None
    if not rows:
        found = f"its columns are {', '.join(columns)}" if columns else "it has no rows"
        raise ConfigError(f"The schema has no column of a condition of this model ({', '.join(conditions.names)}); {found}.")
    return Group(tuple(condition.name for condition in chosen), rows, np.arange(1.0, len(rows) + 1))


def _checked(condition: Condition, value: Any) -> Value:
    plain = condition.plain(value)
    if plain is not None and condition.find(plain) is None:
        raise ConfigError(condition.describe_unknown(plain))
    return plain
