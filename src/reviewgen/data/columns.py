"""From chunks of records to examples: chooses the columns of the text and of the conditions. Knows nothing of files.

A *chunk* is what a reader yields: an Arrow batch, or a list of records, which are strings or mappings of column to value. An
*example* is a text with its condition values.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeAlias

from reviewgen.errors import DataError, did_you_mean, quoted

if TYPE_CHECKING:
    import pyarrow

MAX_TEXT_CHARACTERS = 10_000_000
"""The default of ``max_text_characters``."""

Chunk: TypeAlias = "pyarrow.RecordBatch | Sequence[Any]"
Example: TypeAlias = tuple[str, Sequence[str | float | None]]
"""A text and one value for each condition, in order: a string, a finite number, or None if the value is missing."""

_PREVIEW = 1000  # characters
USUAL_NAMES = [
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
]
_CODE = re.compile(r"[!-~]*[\d_/@\\:=#][!-~]*|[!-~]*\w\.\w[!-~]*")  # an id, a date, a URL, a path, an address
_WORD = re.compile(r"[^\W\d_]+")
_SURROGATE = re.compile("[\ud800-\udfff]")
_DATES = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
    "sept",
    "tues",
    "thur",
    "am",
    "pm",
    "t",
    "z",
    "utc",
    "gmt",
    "st",
    "nd",
    "rd",
    "th",
]
_DATE_WORDS = frozenset(_DATES) | {word[:3] for word in _DATES}


@dataclass
class SourceInfo:
    """How a source was read.

    Attributes:
        name: The name of the source, for messages.
        text_column: The column of the text; None if the source has no columns.
        columns: All columns of the source.
        guessed: Whether the text column was guessed.
        preview: How the first three texts begin.
        decode_errors: Runs of bytes in the files that are not valid in their encoding.
        notes: Sentences about the source that the user should see.
        is_one_text: Whether the source is a single text file that is not cut into lines, paragraphs or sentences.
    """

    name: str
    text_column: str | None = None
    columns: list[str] = field(default_factory=list)
    guessed: bool = False
    preview: list[str] = field(default_factory=list)
    decode_errors: int = 0
    notes: list[str] = field(default_factory=list)
    is_one_text: bool = False


def records_of(chunk: Chunk, count: int) -> list[Any]:
    """Return the first records of a chunk; the fields of a nested record ``{"a": {"b": 1}}`` are columns ``a.b``."""
    records = list(chunk[:count]) if isinstance(chunk, Sequence) else chunk.slice(0, count).to_pylist()
    return [dict(_flatten(record)) if isinstance(record, Mapping) else record for record in records]


def _flatten(record: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def choose_columns(
    name: str, head: list[Any], text_column: str | None, conditions: Sequence[str], *, allow_missing: bool = False
) -> SourceInfo:
    """Choose the column of the text; check that it and the conditions exist.

    Args:
        name: The name of the source, for messages.
        head: The first records; see ``records_of``.
        text_column: The column of the text; guessed if None.
        conditions: The columns of the conditions.
        allow_missing: Whether a condition without a column counts as not given; otherwise it is an error.

    Raises:
        DataError: A column is missing, or no column holds text.
    """
    first = next((record for record in head if not _is_missing(record)), "")
    if not isinstance(first, str | Mapping):
        raise DataError(f"{name} yields {type(first).__name__}; it must yield strings or records with named columns.")
    if isinstance(first, str) and text_column not in (None, "text"):
        raise DataError(f"{name} has no columns, so there is no {quoted(text_column)}; leave the text column out.")
    records = [record for record in head if isinstance(record, Mapping)]
    columns = list(dict.fromkeys(str(key) for record in records for key in record))
    missing = [condition for condition in conditions if condition not in columns]
    column = None
    if isinstance(first, Mapping):
        column = text_column if text_column is not None else _guess_text_column(name, columns, records)
        if column not in columns:
            raise DataError(f"{name} has no column {quoted(column)}. {did_you_mean(column, columns)}")
        if column in conditions:
            raise DataError(f"The column {quoted(column)} of {name} holds the text, so it cannot be a condition.")
    if missing and not allow_missing:
        known = did_you_mean(missing[0], columns) if columns else "It has no columns at all."
        raise DataError(f"{name} has no column {quoted(missing[0])} for the condition of that name. {known}")
    texts = [record if column is None else record.get(column) for record in (head if column is None else records)[:3]]
    return SourceInfo(
        name,
        column,
        columns,
        guessed=column is not None and text_column is None,
        preview=["" if _is_missing(text) else str(text)[:_PREVIEW] for text in texts],
        notes=[f"{name} has no column {condition!r}, so this condition counts as not given." for condition in missing],
    )


def to_examples(
    chunk: Chunk, name: str, column: str | None, conditions: Sequence[str], max_characters: int | None, first: int
) -> list[Example]:
    """Return the examples of a chunk; without a column, each record is a text.

    Args:
        chunk: The chunk.
        name: The file, for messages.
        column: The column of the text.
        conditions: The columns of the conditions.
        max_characters: The maximum number of characters of a text; None does not limit it.
        first: The number of the first record of the chunk in the file.

    Raises:
        DataError: A text is not a string or is too long, or a condition value is neither a string nor a number.
    """
    if column is None and not isinstance(chunk, Sequence):
        raise DataError(f"{name} has columns, and the files before it have none: give files of one format.")
    texts, place = (chunk, name) if column is None else (_values(chunk, column), f"column {column!r} of {name}")
    if column is not None and first == 1 and not _has_column(chunk, column):
        raise DataError(f"{name} has no column {quoted(column)}, as the records before it have.")
    values = [_values(chunk, condition, is_text=False) for condition in conditions]
    rows = zip(*values, strict=True) if values else ((),) * len(texts)
    return [
        (
            _as_text(text, number, place, max_characters),
            [_as_condition(value, number, condition, name) for value, condition in zip(row, conditions, strict=True)],
        )
        for number, (text, row) in enumerate(zip(texts, rows, strict=True), first)
    ]


def _has_column(chunk: Chunk, column: str) -> bool:
    top = column.partition(".")[0]
    if not isinstance(chunk, Sequence):
        return column in chunk.schema.names or top in chunk.schema.names
    return not all(isinstance(each, Mapping) and column not in each and top not in map(str, each) for each in chunk)


def _values(chunk: Chunk, column: str, *, is_text: bool = True) -> Sequence[Any]:
    """Return the values of a column, None where it is missing; a text may stand among the records as it is."""
    if isinstance(chunk, Sequence):
        return [_look_up(each, column) if isinstance(each, Mapping) else each if is_text else None for each in chunk]
    names = chunk.schema.names
    if column in names:
        return list(chunk.column(names.index(column)).to_pylist())
    top, _, rest = column.partition(".")
    if top not in names:
        return [None] * len(chunk)
    return [_look_up(each, rest) if isinstance(each, Mapping) else None for each in chunk.column(top).to_pylist()]


def _look_up(record: Mapping[str, Any], column: str) -> Any:
    if column in record:
        return record[column]
    if "." not in column:
        return next((value for name, value in record.items() if str(name) == column), None)
    top, _, rest = column.partition(".")
    inner = record.get(top)
    return _look_up(inner, rest) if isinstance(inner, Mapping) else None


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))  # pandas stores a missing text as NaN


def _guess_text_column(name: str, columns: list[str], records: list[Any]) -> str:
    """Return the column with a usual name, or else the one with the most characters; columns of numbers or ids do not count.

    If no column seems to hold text, one with a usual name does.
    """
    values = {column: [record[column] for record in records if isinstance(record.get(column), str)] for column in columns}
    lengths = {column: sum(map(len, values[column])) for column in columns}
    seeming = {column: sum(len(value) for value in values[column] if _is_text(value.strip())) for column in columns}
    textual = [column for column in columns if lengths[column] and 3 * seeming[column] >= lengths[column]]
    usual = {column.lower(): column for column in reversed(textual or [column for column in columns if lengths[column]])}
    for word in USUAL_NAMES:
        if word in usual:
            return usual[word]
    if not textual:
        raise DataError(
            f"{name} has no column of text; its columns are: {', '.join(columns)}. If one of them is the text, name it with "
            "--text-column (text_column in Python)."
        )
    return max(textual, key=lambda column: lengths[column])


def _is_text(value: str) -> bool:
    """Return whether a value has words, and is not a date, a URL, an id or another code."""
    words = _WORD.findall(value)
    return bool(words) and _CODE.fullmatch(value) is None and not all(word.lower() in _DATE_WORDS for word in words)


def _as_text(value: Any, number: int, place: str, max_characters: int | None) -> str:
    """Return a value as a text of valid Unicode; a missing value is an empty text."""
    if isinstance(value, str):
        if max_characters is not None and len(value) > max_characters:
            raise DataError(
                f"Text {number:,} of {place} has more than {max_characters:,} characters, the limit for one text. Cut it into "
                "texts, or raise the limit with --max-text-characters (max_text_characters in Python)."
            )
        return value if value.isascii() else _SURROGATE.sub("\ufffd", value)
    if _is_missing(value):
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise DataError(f"Text {number:,} of {place} is of type {type(value).__name__}, not a string.")


def _as_condition(value: Any, number: int, condition: str, name: str) -> str | float | None:
    """Return a condition's value as a string or a finite number; None if it is missing, NaN or infinite."""
    if value is None:
        return None
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, bool):
        return str(value)
    if not isinstance(value, Real):
        kind = type(value).__name__
        raise DataError(
            f"Value {number:,} of column {quoted(condition)} of {name} is of type {kind}, neither a string nor a number."
        )
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer too large for a float
        return None
