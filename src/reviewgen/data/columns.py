"""Chooses the columns that hold the text and its conditions, and makes plain values of both. Knows nothing of files."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, TypeAlias

from reviewgen.data.shards import Shard
from reviewgen.errors import DataError, did_you_mean

__all__ = ["Row", "TextStream", "choose_columns", "plain_rows"]

Row: TypeAlias = tuple[str, Sequence[str | float | None]]
"""A text, and the values of its conditions in order: strings, finite numbers, or None where there is none."""

TEXT_NAMES = (
    "text",
    "review",
    "review_text",
    "reviewtext",
    "content",
    "body",
    "review_body",
    "comment",
    "caption",
    "description",
)


@dataclass
class TextStream:
    """A stream of raw texts with their conditions, read once, and how it was read."""

    name: str
    rows: Iterator[Row]
    text_column: str | None = None
    columns: list[str] = field(default_factory=list)
    guessed: bool = False
    preview: list[str] = field(default_factory=list)  # the first three texts
    decode_errors: int = 0
    notes: list[str] = field(default_factory=list)
    shard: Shard | None = None  # the files that it reads, where it reads files

    @property
    def texts(self) -> Iterator[str]:
        """The texts alone."""
        return (text for text, _ in self.rows)


def choose_columns(
    name: str,
    head: list[Any],
    rows: Iterator[Any],
    text_column: str | None = None,
    conditions: Sequence[str] = (),
    may_lack: bool = False,
) -> TextStream:
    """Return the texts of a stream of rows (strings, or mappings of column to value), with their conditions.

    Args:
        name: Of the source, for messages.
        head: The first rows, to guess and to show.
        rows: All rows, the first ones again.
        text_column: The column of the text; guessed where it is None.
        conditions: The columns of the conditions.
        may_lack: Whether a condition that has no column counts as not given.

    Raises:
        DataError: There is no such column, or none that holds text.
    """
    first = next((row for row in head if not _is_missing(row)), "")
    if isinstance(first, str):
        if text_column not in (None, "text"):
            raise DataError(f"{name} has no columns, so there is no {text_column!r}; leave the text column out.")
        notes = _lacking(name, conditions, [], may_lack)
        return TextStream(name, plain_rows(rows, name, None, conditions), preview=[_shown(row) for row in head[:3]], notes=notes)
    if not isinstance(first, Mapping):
        raise DataError(f"{name} yields {type(first).__name__}, neither strings nor rows with named columns.")
    head = [row for row in head if isinstance(row, Mapping)]
    columns = list(dict.fromkeys(str(key) for row in head for key in row))
    column = text_column if text_column is not None else _guess(name, columns, head)
    if column not in columns:
        raise DataError(f"{name} has no column {column!r}. {did_you_mean(column, columns)}")
    if column in conditions:
        raise DataError(f"The column {column!r} of {name} holds the text, so it is no condition of it.")
    notes = _lacking(name, conditions, columns, may_lack)
    preview = [_shown(row.get(column)) for row in head[:3]]
    return TextStream(
        name, plain_rows(rows, name, column, conditions), column, columns, text_column is None, preview, notes=notes
    )


def _lacking(name: str, conditions: Sequence[str], columns: list[str], may_lack: bool) -> list[str]:
    """Return a sentence for each condition that has no column, or raise."""
    missing = [condition for condition in conditions if condition not in columns]
    if missing and not may_lack:
        known = did_you_mean(missing[0], columns) if columns else "It has no columns at all."
        raise DataError(f"{name} has no column {missing[0]!r} for the condition of that name. {known}")
    return [f"{name} has no column {condition!r}, so this condition counts as not given." for condition in missing]


def plain_rows(rows: Iterable[Any], name: str, column: str | None, conditions: Sequence[str]) -> Iterator[Row]:
    """Yield the texts of rows, and the values of their conditions; without a column the rows are the texts.

    Raises:
        DataError: A text is no string, or a value neither a string nor a number.
    """
    if column is None:
        nothing = (None,) * len(conditions)
        yield from ((_string(row, number, name), nothing) for number, row in enumerate(rows, 1))
        return
    where = f"column {column!r} of {name}"
    for number, row in enumerate(rows, 1):
        is_row = isinstance(row, Mapping)
        values = [_plain(row.get(condition) if is_row else None, number, condition, name) for condition in conditions]
        yield _string(row.get(column) if is_row else row, number, where), values


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))  # pandas writes a missing text as nan


def _shown(value: Any) -> str:
    return "" if _is_missing(value) else str(value)


def _guess(name: str, columns: list[str], head: list[Any]) -> str:
    """Guess the text column: a usual name, else the column whose strings are longest."""
    lengths = {column: sum(len(row[column]) for row in head if isinstance(row.get(column), str)) for column in columns}
    textual = [column for column in columns if lengths[column]]
    if not textual:
        raise DataError(f"{name} has no column of text; its columns are: {', '.join(columns)}.")
    usual = {column.lower(): column for column in reversed(textual)}
    return next((usual[word] for word in TEXT_NAMES if word in usual), max(textual, key=lambda column: lengths[column]))


def _string(value: Any, number: int, name: str) -> str:
    """Return a value as a text; a missing one is empty."""
    if isinstance(value, str):
        return value
    if _is_missing(value):
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise DataError(f"Text {number} of {name} is of type {type(value).__name__}, not a string.")


def _plain(value: Any, number: int, condition: str, name: str) -> str | float | None:
    """Return a condition's value as a string or a finite number; a missing one is None."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value)
    if not isinstance(value, Real):
        kind = type(value).__name__
        raise DataError(f"Value {number} of column {condition!r} of {name} is of type {kind}, neither a string nor a number.")
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # a whole number that no float can hold
        return None
