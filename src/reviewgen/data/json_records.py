"""Reads the records of a JSON file, one by one: an array of them, or one after another, as in JSON lines. Knows no columns.

ijson parses the file piece by piece, so that memory grows with the largest record and not with the file.
"""

from collections.abc import Iterable, Iterator
from decimal import Decimal
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import ijson

from reviewgen.config import MAX_DEPTH, MAX_VALUES
from reviewgen.data.lines import MAX_TEXT_CHARACTERS, too_long
from reviewgen.errors import DataError

__all__ = ["read_records"]

_CHUNK = 1 << 16  # bytes
_STARTS, _ENDS = {"start_map", "start_array"}, {"end_map", "end_array"}
_MAX_ESCAPE = 6  # bytes of a character that is written as \u00e9
_OTHER_COLUMNS = 1 << 20  # bytes


def read_records(path: Path, name: str, limit: int = MAX_TEXT_CHARACTERS) -> Iterator[Any]:
    """Yield the items of an array, or the values of a file that has one after another.

    Args:
        path: The file, of UTF-8.
        name: The user's file, for messages.
        limit: The maximum number of characters of a text; it bounds the records.

    Raises:
        DataError: It is not JSON, or a record is too large.
    """
    number = 0
    with path.open("rb") as file:
        stream = _Bounded(file, name, limit)
        in_array = file.peek(_CHUNK).lstrip().startswith(b"[")
        try:
            for record in _build(ijson.basic_parse(stream, multiple_values=True, buf_size=_CHUNK), outer=int(in_array)):
                number += 1
                stream.start_record(number + 1)
                yield _with_floats(record)
        except (ijson.JSONError, _TooDeep) as error:
            place = f"after record {number:,}" if number else "in the first record"
            raise DataError(f"{name} cannot be read: JSON parse error {place}: {_describe(error)}.") from None


class _TooDeep(Exception):
    """A record is nested too deeply."""


def _build(events: Iterable[tuple[str, Any]], outer: int) -> Iterator[Any]:
    """Yield the values that the events of a parser make up, at a depth of ``outer``; ijson's ``items`` has no limit of depth."""
    depth, builder = 0, ijson.ObjectBuilder()
    for event, value in events:
        if event in _STARTS:
            depth += 1
            if depth > MAX_DEPTH:
                raise _TooDeep(f"it is nested more than {MAX_DEPTH} levels deep")
            if depth <= outer:
                continue
        elif event in _ENDS:
            depth -= 1
            if depth < outer:
                continue
        builder.event(event, value)
        if depth == outer:
            yield builder.value
            builder = ijson.ObjectBuilder()


def _with_floats(record: Any) -> Any:
    """Return a record with floats for ijson's Decimals; ijson's own floats would limit whole numbers to 64 bits."""
    if isinstance(record, dict):
        return {key: float(value) if isinstance(value, Decimal) else value for key, value in record.items()}
    return float(record) if isinstance(record, Decimal) else record


def _describe(error: Exception) -> str:
    """Return the first line of a parser's message, without what it quotes of the file."""
    lines = str(error).removeprefix("parse error: ").removeprefix("lexical error: ").strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


class _Bounded:
    """A file that raises before a record becomes too large for memory."""

    def __init__(self, file: BufferedIOBase, name: str, limit: int) -> None:
        self._file, self._name, self._limit = file, name, limit
        self.start_record(1)

    def start_record(self, number: int) -> None:
        """Count from here on for a record; what was read with the one before counts for neither."""
        self._number, self._bytes, self._values = number, 0, 0

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        chunk = self._file.read(size)
        self._bytes += len(chunk)
        self._values += sum(map(chunk.count, (b",", b"[", b"{")))
        if self._bytes > _MAX_ESCAPE * self._limit + _OTHER_COLUMNS:
            raise too_long(f"Record {self._number:,} of {self._name}", self._limit)
        if self._values > MAX_VALUES:
            raise DataError(f"{self._name} cannot be read: record {self._number:,} has more than {MAX_VALUES:,} values.")
        return chunk
