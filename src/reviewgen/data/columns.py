"""Chooses the column that holds the text, and turns what is in it into strings. Knows nothing of files."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from reviewgen.errors import DataError, did_you_mean

__all__ = ["TextStream", "choose_column"]

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
    """A stream of raw texts, read once, and how it was read."""

    name: str
    texts: Iterator[str]
    text_column: str | None = None
    columns: list[str] = field(default_factory=list)
    guessed: bool = False
    preview: list[str] = field(default_factory=list)  # the first three texts
    decode_errors: int = 0
    notes: list[str] = field(default_factory=list)


def choose_column(name: str, head: list[Any], rows: Iterator[Any], text_column: str | None) -> TextStream:
    """Return the texts of a stream of rows (strings, or mappings of column to value), read from the named or the guessed column.

    Args:
        name: Of the source, for messages.
        head: The first rows, to guess and to show.
        rows: All rows, the first ones again.
        text_column: The column; guessed where it is None.

    Raises:
        DataError: There is no such column, or none that holds text.
    """
    first = next((row for row in head if not _is_missing(row)), "")
    if isinstance(first, str):
        if text_column not in (None, "text"):
            raise DataError(f"{name} has no columns, so there is no {text_column!r}; leave the text column out.")
        return TextStream(name, _strings(rows, name), preview=[_shown(row) for row in head[:3]])
    if not isinstance(first, Mapping):
        raise DataError(f"{name} yields {type(first).__name__}, neither strings nor rows with named columns.")
    head = [row for row in head if isinstance(row, Mapping)]
    columns = list(dict.fromkeys(str(key) for row in head for key in row))
    column = text_column if text_column is not None else _guess(name, columns, head)
    if column not in columns:
        raise DataError(f"{name} has no column {column!r}. {did_you_mean(column, columns)}")
    preview = [_shown(row.get(column)) for row in head[:3]]
    texts = _strings((row.get(column) if isinstance(row, Mapping) else row for row in rows), f"column {column!r} of {name}")
    return TextStream(name, texts, column, columns, text_column is None, preview)


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


def _strings(values: Iterable[Any], name: str) -> Iterator[str]:
    """Yield values as strings; a missing value is an empty text."""
    for number, value in enumerate(values, 1):
        if isinstance(value, str):
            yield value
        elif _is_missing(value):
            yield ""
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield str(value)
        else:
            raise DataError(f"Text {number} of {name} is of type {type(value).__name__}, not a string.")
