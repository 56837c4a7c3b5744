"""Reads the schema of a table of generated texts: one entry for each column.

A column that is a condition of the model is drawn for each text. All others are generated. If there
is one, it is the text itself, under the formats of its entry. If there are several, each text is a
JSON object, and each value of it, under the JSON schema of its entry, goes to its own column.
"""

import itertools
import json
import logging
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from reviewgen.conditions import ANY, DRAW, Condition, Conditions, DrawGroup
from reviewgen.config.bounded import MAX_RECORD, read_json
from reviewgen.config.generation import FORMATS
from reviewgen.data.texts import open_records
from reviewgen.errors import ConfigError, DataError, counted, did_you_mean, quoted
from reviewgen.generation.generator import Generation
from reviewgen.storage import to_path

_HEAD_ROWS = 1000  # the columns of a schema that is a table are those of its first 1000 rows
_MAX_RANGE = 10_000  # max number of integers in a range from which a condition is drawn
_MAX_NUMBER = 10**15  # max absolute value of a generated number, unless the schema gives a range
_TEXT_FORMATS = tuple(name for name in FORMATS if name != "json_schema")
_NOTES = ("title", "description")  # keys of a JSON schema that allow and forbid nothing
_STRING_KEYS = ("enum", "pattern", "minLength", "maxLength")
_ARROW_TYPES = {"string": "string", "integer": "int64", "number": "double", "boolean": "bool"}
_JSON_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
Value = str | int | float | None
_logger = logging.getLogger("reviewgen")


@dataclass(frozen=True)
class Schema:
    """What the columns of a table are.

    Attributes:
        draws: The groups of conditions that are drawn. The values of a group are drawn together.
        columns: The pyarrow type of each generated column, by name.
        settings: The formats of the generated texts, as settings of ``generate``.
    """

    draws: Sequence[DrawGroup] = ()
    columns: dict[str, str] = field(default_factory=lambda: {"text": "string"})
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def drawn(self) -> set[str]:
        """The names of the conditions that are drawn."""
        return {*itertools.chain.from_iterable(group.names for group in self.draws)}

    def values(self, generated: Generation) -> dict[str, Any]:
        """Return the value of each generated column. If the text does not fit the schema, each
        value is None.
        """
        if generated.problem and self.settings:
            _logger.warning(
                "The columns of text %d are empty: %s", generated.number, generated.problem
            )
            return dict.fromkeys(self.columns)
        if "json_schema" not in self.settings:
            return dict.fromkeys(self.columns, generated.text)
        values = json.loads(generated.text[len(generated.prompt) :])
        for name, kind in self.columns.items():
            # in JSON, a number of this column may be written as an integer
            if kind == "double" and values[name] is not None:
                values[name] = float(values[name])
        return {name: values[name] for name in self.columns}


def read_schema(source: Any, conditions: Conditions, reserved: Sequence[str]) -> Schema:
    """Read a schema.

    Args:
        source: One of two things. Either a mapping of each column to its entry, or a JSON schema of
            an object; both may also be a JSON string or a .json file. The entry of a condition is
            {value: weight}, where the empty value stands for "not given", or a JSON schema with an
            enum or a range of integers. Or a table whose columns are conditions: a csv, jsonl or
            parquet file, or another source that ``train`` accepts.
        conditions: The conditions of the model.
        reserved: The names that a generated column cannot have.

    Raises:
        ConfigError: An entry, a condition, a value or a weight is unusable.
        DataError: The source cannot be read.
    """
    schema = source
    is_json = isinstance(source, str) and source.lstrip().startswith("{")
    try:
        if is_json:
            schema = json.loads(source)
        elif isinstance(source, str | Path) and Path(source).suffix.lower() == ".json":
            schema = read_json(to_path("schema", source), MAX_RECORD)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"The schema {quoted(source) if is_json else source} cannot be read:"
            f" {getattr(error, 'strerror', None) or error}."
        ) from None
    if not isinstance(schema, Mapping):
        if not conditions:
            raise ConfigError(
                "This model was trained without conditions, so a table has nothing to draw: leave"
                " schema out."
            )
        return Schema([_read_table(open_records(source), conditions)])
    rest: dict[str, Any] = {}  # the keys of a JSON schema beside its properties
    if schema.get("type") == "object" and isinstance(schema.get("properties"), Mapping):
        rest = dict(schema)
        schema = rest.pop("properties")
    if not schema:
        raise ConfigError('The schema is empty: give {"condition": {"value": weight}}.')
    draws = list[DrawGroup]()
    entries = dict[str, dict[str, Any]]()
    for name, entry in zip(map(str, schema), schema.values(), strict=True):
        condition = next((each for each in conditions if each.name == name), None)
        if condition is not None:
            draws += _read_condition(condition, entry)
        elif name in reserved:
            raise ConfigError(
                f"{quoted(name)} is the name of another column of the table: rename this column of"
                " the schema."
            )
        else:
            entries[name] = _read_column(entry)
    columns = {name: _arrow_type(name, entry, conditions) for name, entry in entries.items()}
    if not entries:
        return Schema(draws)
    if len(entries) == 1 and [*columns.values()] == ["string"]:  # the column is the text itself
        return Schema(draws, columns, _text_settings(*entries.popitem()))
    properties = {name: _json_entry(name, entry) for name, entry in entries.items()}
    json_schema = rest | {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }
    return Schema(draws, columns, {"json_schema": json_schema})


def _read_condition(condition: Condition, entry: Any) -> list[DrawGroup]:
    """Return a list with the group of a condition; an empty list if its values are drawn as often
    as in the training texts, which needs no group.

    Args:
        condition: The condition.
        entry: {value: weight}, or a JSON schema.
    """
    keys = entry if isinstance(entry, Mapping) else {}
    kind = keys.get("type")
    values = keys.get("enum")
    if not isinstance(values, list) and not isinstance(kind, str | list):  # no JSON schema
        return [_read_weights(condition, entry)]
    low = keys.get("minimum")
    high = keys.get("maximum")
    if values is None and kind == "integer" and type(low) is int and type(high) is int:
        if not 0 <= high - low < _MAX_RANGE:
            raise ConfigError(
                f"The range of {quoted(condition.name)} in the schema must have 1 to"
                f" {_MAX_RANGE:,} integers; got {low} to {high}."
            )
        values = list(range(low, high + 1))
    if values:
        rows = [(_checked(condition, value),) for value in values]
        # the cumulative weights of values that all have the weight 1
        return [DrawGroup((condition.name,), rows, np.arange(1.0, len(rows) + 1))]
    if condition.is_field or not {*keys} <= {"type", *_NOTES}:
        raise ConfigError(
            f"The schema must say which values {quoted(condition.name)} has, since this model is"
            " conditioned on it: give an enum, a range of integers, or {value: weight}."
        )
    return []


def _read_column(entry: Any) -> dict[str, Any]:
    """Return the entry of a generated column in one form: with ``enum`` instead of ``choices``, and
    with the type "string" if it has a format of texts but no type.
    """
    column: dict[str, Any] = dict(entry) if isinstance(entry, Mapping) else {}
    if "choices" in column:
        column["enum"] = column.pop("choices")
    if "type" not in column and {*column} & {*_TEXT_FORMATS, "pattern", "minLength", "maxLength"}:
        column["type"] = "string"
    return column


def _arrow_type(name: str, entry: Mapping[str, Any], conditions: Conditions) -> str:
    """Return the pyarrow type of a generated column."""
    values = entry.get("enum")
    kinds = entry.get("type", [])  # the JSON types of the column: one name or several
    if isinstance(values, list):
        kinds = [_JSON_TYPES.get(type(value), "") for value in values]
    kinds = {kinds} if isinstance(kinds, str) else {*map(str, kinds)}
    kinds -= {"null"}
    kinds = {"number"} if kinds == {"integer", "number"} else kinds
    if len(kinds) != 1 or not kinds <= _ARROW_TYPES.keys():
        hint = did_you_mean(name, conditions.names) if conditions else ""
        raise ConfigError(
            f"{quoted(name)} is not a condition of this model, and a column to generate needs a"
            f" type ({', '.join(_ARROW_TYPES)}) or an enum of one type; got {quoted(entry)}. {hint}"
        )
    return _ARROW_TYPES[kinds.pop()]


def _text_settings(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the formats of the text, as settings of ``generate``, for a table in which the text is
    the only generated column.
    """
    known = ("type", *_NOTES, *_TEXT_FORMATS, *_STRING_KEYS)
    if unknown := next((key for key in entry if key not in known), None):
        raise ConfigError(
            f"{quoted(unknown)} is not a format of the text {quoted(name)}."
            f" {did_you_mean(unknown, known)}"
        )
    settings = {key: value for key, value in entry.items() if key in _TEXT_FORMATS}
    if "enum" in entry:
        settings["choices"] = entry["enum"]
    patterns = list[str]()
    if "pattern" in entry:
        patterns.append(_whole_pattern(str(entry["pattern"])))
    if {"minLength", "maxLength"} & {*entry}:
        patterns.append(f"(?s:.{{{entry.get('minLength', 0)},{entry.get('maxLength', '')}}})")
    if patterns and "grammar" in entry:
        raise ConfigError(
            f"grammar cannot be combined with {', '.join(_STRING_KEYS[1:])} in the schema of"
            f" {quoted(name)}: leave out one of them."
        )
    if patterns:
        # in the grammar, slashes enclose a pattern, so each slash in it is escaped, but only once
        escaped = [pattern.replace("\\/", "/").replace("/", "\\/") for pattern in patterns]
        terminals = [f"/{pattern}/" for pattern in escaped]
        settings["grammar"] = f"start: TEXT\nTEXT: {' & '.join(terminals)}"
    return settings


def _whole_pattern(pattern: str) -> str:
    """Return a regular expression that matches whole texts, for the ``pattern`` of a JSON schema,
    which may match anywhere in a text unless it begins with ^ or ends with $.
    """
    has_end = pattern.endswith("$") and not pattern.endswith("\\$")
    before = "" if pattern.startswith("^") else "(?s:.*)"
    after = "" if has_end else "(?s:.*)"
    inner = pattern.removeprefix("^")[: -1 if has_end else None]
    return f"{before}(?:{inner}){after}"


def _json_entry(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of one of several generated columns."""
    entry = dict(entry)
    for key in ("include", "exclude", "grammar"):
        if key in entry:
            raise ConfigError(
                f"{key} of {quoted(name)} works if this is the only column that is generated; for"
                " several columns together, give it beside the schema."
            )
    if "regex" in entry:
        whole = {"pattern": f"^(?:{entry.pop('regex')})$"}
        entry["allOf"] = [*entry.get("allOf", []), whole]
    if "enum" not in entry and _arrow_type(name, entry, Conditions()) in ("int64", "double"):
        entry = {"minimum": -_MAX_NUMBER, "maximum": _MAX_NUMBER} | entry
    return entry


def _read_weights(condition: Condition, weights: Any) -> DrawGroup:
    """Return the group of a single condition. ``weights`` maps each value to its weight."""
    numbers = list(weights.values()) if isinstance(weights, Mapping) else []
    are_weights = all(type(weight) in (int, float) and weight >= 0 for weight in numbers)
    if not are_weights or not 0 < sum(numbers) <= sys.float_info.max:
        raise ConfigError(
            f"The schema must give {quoted(condition.name)} weights of at least 0, {{value:"
            f" weight}}, with a finite sum above 0; got {quoted(weights)}."
        )
    rows = [(_checked(condition, value),) for value in weights]
    return DrawGroup((condition.name,), rows, np.cumsum(numbers, dtype=np.float64))


def _read_table(records: Iterable[Mapping[str, Any]], conditions: Conditions) -> DrawGroup:
    """Return one group of all conditions of the model that are columns of a table. Each row of the
    table has the same weight.
    """
    rest = iter(records)
    head = list(itertools.islice(rest, _HEAD_ROWS))
    columns = dict.fromkeys(map(str, itertools.chain.from_iterable(head)))
    chosen = [condition for condition in conditions if condition.name in columns]
    records = itertools.chain(head, rest) if chosen else ()
    rows = list[tuple[Value, ...]]()
    rare: Counter[str] = Counter()  # the number of rows with a rare value, by condition
    for number, record in enumerate(records, 1):
        try:
            values = [_table_value(each, record.get(each.name), rare) for each in chosen]
            rows.append(tuple(values))
        except ConfigError as problem:
            raise ConfigError(f"Row {number:,} of the schema: {problem}") from None
    if not rows:
        reason = f"its columns are {', '.join(columns)}" if columns else "it has no rows"
        raise ConfigError(
            "The schema has no column of a condition of this model"
            f" ({', '.join(conditions.names)}); {reason}."
        )
    for name, count in rare.items():
        _logger.info(
            "%s of the schema: a rare value of %r counts as not given, as in training.",
            counted(count, "row"),
            name,
        )
    return DrawGroup(
        tuple(condition.name for condition in chosen), rows, np.arange(1.0, len(rows) + 1)
    )


def _table_value(condition: Condition, value: Any, rare: Counter[str]) -> Value:
    """Check and convert a value of a table. A rare category that the training left out counts as
    not given, as in training; ``rare`` counts such rows.
    """
    if condition.left_out and _is_unknown(condition, condition.plain(value)):
        rare[condition.name] += 1
        return None
    return _checked(condition, value)


def _checked(condition: Condition, value: Any) -> Value:
    """Check and convert a value of a schema. None stands for "not given"."""
    plain = condition.plain(value)
    if plain is None or (plain == ANY and _is_unknown(condition, plain)):
        return None
    if plain == DRAW and _is_unknown(condition, plain):
        raise ConfigError(
            f"A schema says what is drawn: {DRAW!r} is not a value of {condition.name!r} in it."
            " Leave it out."
        )
    condition.refuse(plain)
    return plain


def _is_unknown(condition: Condition, plain: Value) -> bool:
    """Return whether a value is unknown to a condition. A field, which takes any text, has no
    unknown values.
    """
    return plain is not None and not condition.is_field and condition.find(plain) is None
