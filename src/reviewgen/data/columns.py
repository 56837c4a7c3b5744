"""Chooses the columns of the text and of the conditions, and turns records into examples. Knows nothing of files.

A *record* is what a source yields: a string, or a mapping of column to value. An *example* is a text with its condition values.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, TypeAlias

from reviewgen.data.hub_shards import HubShard
from reviewgen.data.lines import too_long
from reviewgen.data.shards import Shard
from reviewgen.errors import DataError, did_you_mean, quoted

__all__ = ["Example", "TextStream", "choose_columns", "to_examples"]

Example: TypeAlias = tuple[str, Sequence[str | float | None]]
"""A text and one value for each condition, in order: a string, a finite number, or None if the value is missing."""

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
_CODE = re.compile(r"[!-~]*[\d_/@\\:=#][!-~]*|[!-~]*\w\.\w[!-~]*")  # an id, a date, a URL, a path, an address
_WORD = re.compile(r"[^\W\d_]+")
_MONTHS = "january february march april may june july august september october november december"
_DAYS = "monday tuesday wednesday thursday friday saturday sunday"
_DATE_WORDS = frozenset(f"{_MONTHS} {_DAYS} sept tues thur am pm t z utc gmt st nd rd th".split())
_OF_DATES = _DATE_WORDS | {word[:3] for word in _DATE_WORDS}


@dataclass
class TextStream:
    """A stream of raw examples, which can be read once, and how the source was read.

    Attributes:
        name: The name of the source, for messages.
        examples: The texts with their condition values.
        text_column: The column of the text; None if the source has no columns.
        columns: All columns of the source.
        guessed: Whether the text column was guessed.
        preview: The first three texts.
        decode_errors: Runs of bytes in the files that are not valid in their encoding.
        notes: Sentences about the source that the user should see.
        shard: The files of the source; None if it is not read from files.
        hub: The first shard of a dataset of the Hub that has several; None for other sources.
        is_one_text: Whether the source is a single text file that is not cut into lines, paragraphs or sentences.
    """

    name: str
    examples: Iterator[Example]
    text_column: str | None = None
    columns: list[str] = field(default_factory=list)
    guessed: bool = False
    preview: list[str] = field(default_factory=list)
    decode_errors: int = 0
    notes: list[str] = field(default_factory=list)
    shard: Shard | None = None
    hub: HubShard | None = None
    is_one_text: bool = False

    @property
    def texts(self) -> Iterator[str]:
        """The texts without their condition values."""
        return (text for text, _ in self.examples)


def choose_columns(
    name: str,
    head: list[Any],
    records: Iterator[Any],
    *,
    text_column: str | None = None,
    conditions: Sequence[str] = (),
    allow_missing: bool = False,
    max_characters: int | None = None,
) -> TextStream:
    """Choose the columns of a stream of records and return the stream of its examples.

    Args:
        name: The name of the source, for messages.
        head: The first records, for the guess of the text column and the preview.
        records: All records, including the first ones.
        text_column: The column of the text; guessed if None.
        conditions: The columns of the conditions.
        allow_missing: Whether a condition without a column counts as not given; otherwise it is an error.
        max_characters: The maximum number of characters of a text; None does not limit it.

    Raises:
        DataError: A column is missing, or no column holds text.
    """
    first = next((record for record in head if not _is_missing(record)), "")
    if isinstance(first, str):
        if text_column not in (None, "text"):
            raise DataError(f"{name} has no columns, so there is no {quoted(text_column)}; leave the text column out.")
        notes = _note_missing_columns(name, conditions, [], allow_missing)
        preview = [_preview_text(record) for record in head[:3]]
        return TextStream(name, to_examples(records, name, None, conditions, max_characters), preview=preview, notes=notes)
    if not isinstance(first, Mapping):
        raise DataError(f"{name} yields {type(first).__name__}; it must yield strings or records with named columns.")
    head = [record for record in head if isinstance(record, Mapping)]
    columns = list(dict.fromkeys(str(key) for record in head for key in record))
    column = text_column if text_column is not None else _guess_text_column(name, columns, head)
    if column not in columns:
        raise DataError(f"{name} has no column {quoted(column)}. {did_you_mean(column, columns)}")
    if column in conditions:
        raise DataError(f"The column {quoted(column)} of {name} holds the text, so it cannot be a condition.")
    notes = _note_missing_columns(name, conditions, columns, allow_missing)
    return TextStream(
        name,
        to_examples(records, name, column, conditions, max_characters),
        text_column=column,
        columns=columns,
        guessed=text_column is None,
        preview=[_preview_text(record.get(column)) for record in head[:3]],
        notes=notes,
    )


def _note_missing_columns(name: str, conditions: Sequence[str], columns: list[str], allow_missing: bool) -> list[str]:
    """Return a sentence for each condition without a column, or raise if that is not allowed."""
    missing = [condition for condition in conditions if condition not in columns]
    if missing and not allow_missing:
        known = did_you_mean(missing[0], columns) if columns else "It has no columns at all."
        raise DataError(f"{name} has no column {quoted(missing[0])} for the condition of that name. {known}")
    return [f"{name} has no column {condition!r}, so this condition counts as not given." for condition in missing]


def to_examples(
    records: Iterable[Any], name: str, column: str | None, conditions: Sequence[str], max_characters: int | None = None
) -> Iterator[Example]:
    """Yield the text and the condition values of each record; without a column, each record is a text.

    Raises:
        DataError: A text is not a string or is too long, or a condition value is neither a string nor a number.
    """
    if column is None:
        no_values = (None,) * len(conditions)
        yield from ((_as_text(record, number, name, max_characters), no_values) for number, record in enumerate(records, 1))
        return
    described = f"column {column!r} of {name}"
    for number, record in enumerate(records, 1):
        is_mapping = isinstance(record, Mapping)
        values = [
            _as_condition_value(record.get(condition) if is_mapping else None, number, condition, name)
            for condition in conditions
        ]
        yield _as_text(record.get(column) if is_mapping else record, number, described, max_characters), values


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))  # pandas stores a missing text as NaN


def _preview_text(value: Any) -> str:
    return "" if _is_missing(value) else str(value)


def _guess_text_column(name: str, columns: list[str], head: list[Any]) -> str:
    """Return the column with a usual name, or else the one with the most characters; columns of numbers or ids do not count.

    If no column seems to hold text, one with a usual name does.
    """
    values = {column: [record[column] for record in head if isinstance(record.get(column), str)] for column in columns}
    lengths = {column: sum(map(len, values[column])) for column in columns}
    textual = [column for column in columns if lengths[column] and 3 * _count_characters(values[column]) >= lengths[column]]
    usual = {column.lower(): column for column in reversed(textual or [column for column in columns if lengths[column]])}
    for word in TEXT_NAMES:
        if word in usual:
            return usual[word]
    if not textual:
        raise DataError(
            f"{name} has no column of text; its columns are: {', '.join(columns)}. If one of them is the text, name it with "
            "--text-column (text_column in Python)."
        )
    return max(textual, key=lambda column: lengths[column])


def _count_characters(values: list[str]) -> int:
    """Return the number of characters in those values that seem to be text."""
    return sum(len(value) for value in values if _is_text(value.strip()))


def _is_text(value: str) -> bool:
    """Return whether a value has words, and is not a date, a URL, an id or another code."""
    words = _WORD.findall(value)
    return bool(words) and _CODE.fullmatch(value) is None and not all(word.lower() in _OF_DATES for word in words)


def _as_text(value: Any, number: int, name: str, max_characters: int | None) -> str:
    """Return a value as a text; a missing value is an empty text."""
    if isinstance(value, str):
        if max_characters is not None and len(value) > max_characters:
            raise too_long(f"Text {number:,} of {name}", max_characters)
        return value
    if _is_missing(value):
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise DataError(f"Text {number} of {name} is of type {type(value).__name__}, not a string.")


def _as_condition_value(value: Any, number: int, condition: str, name: str) -> str | float | None:
    """Return a condition's value as a string or a finite number; None if it is missing, NaN or infinite."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value)
    if not isinstance(value, Real):
        kind = type(value).__name__
        raise DataError(
            f"Value {number} of column {quoted(condition)} of {name} is of type {kind}, neither a string nor a number."
        )
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer too large for a float
        return None
