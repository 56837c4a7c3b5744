"""Reads the records of a JSON file, one by one: an array of them, or one after another, as in JSON lines. Knows no columns.

ijson parses the file piece by piece, so that memory grows with the largest record and not with the file.
"""

import itertools
import re
import sys
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
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
_DIGITS_TO_ZEROS = bytes.maketrans(b"0123456789", b"0" * 10)
_NO_NUMBER = re.compile("-?(?:NaN|Infinity)")  # Python's json writes them


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
        events = ijson.basic_parse(stream, multiple_values=True, buf_size=_CHUNK)
        try:
            for record in _build(events):
                number += 1
                stream.start_record(number + 1)
                yield _with_floats(record)
        except (ijson.JSONError, _Unusable, InvalidOperation) as error:  # the last for an exponent of many digits
            place = f"after record {number:,}" if number else "in the first record"
            raise DataError(f"{name} cannot be read: JSON parse error {place}: {_describe(error)}.") from None


class _Unusable(Exception):
    """JSON that is not an array of records or records one after another, or that is nested too deeply."""


def _build(events: Iterator[tuple[str, Any]]) -> Iterator[Any]:
    """Yield the values that the events of a parser make up, or the items of an array; ijson's ``items`` has no limit of depth."""
    first = next(events, None)
    if first is None:
        return
    outer = int(first[0] == "start_array")
    depth, builder = 0, ijson.ObjectBuilder()
    for event, value in itertools.chain([first], events):
        if depth < outer and event != "start_array":
            raise _Unusable("something other than an array follows the array")
        if event in _STARTS:
            depth += 1
            if depth > MAX_DEPTH:
                raise _Unusable(f"it is nested more than {MAX_DEPTH} levels deep")
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
    """Return the first line of a parser's message, without what it quotes of the file other than a number that JSON lacks."""
    if isinstance(error, InvalidOperation):
        return "a number is too large"
    said = error.args[0] if error.args else ""
    text = (said if isinstance(said, bytes) else str(said).encode()).decode("latin-1")  # its arrow counts bytes
    lines = text.removeprefix("parse error: ").removeprefix("lexical error: ").strip().splitlines()
    if len(lines) > 2 and (found := _NO_NUMBER.match(lines[1], max(0, lines[2].find("^") - 1))):
        return f"JSON has no {found[0]}; write null instead"
    return lines[0].rstrip(".") if lines else type(error).__name__


class _Bounded:
    """A file that raises before a record becomes too large for memory."""

    def __init__(self, file: BufferedIOBase, name: str, limit: int) -> None:
        self._file, self._name, self._limit = file, name, limit
        self._digits, self._end = sys.get_int_max_str_digits(), b""
        self.start_record(1)

    def start_record(self, number: int) -> None:
        """Count from here on for a record; what was read with the one before counts for neither."""
        self._number, self._bytes, self._values = number, 0, 0

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        chunk = self._file.read(size)
        if self._digits:  # ijson's C code ends the process where Python refuses to make a number of the digits
            if b"0" * (self._digits + 1) in (self._end + chunk).translate(_DIGITS_TO_ZEROS):  # far faster than a pattern
                raise DataError(f"{self._name} cannot be read: it has a run of more than {self._digits:,} digits.")
            self._end = chunk[-self._digits :]
        self._bytes += len(chunk)
        self._values += sum(map(chunk.count, (b",", b"[", b"{")))
        if self._bytes > _MAX_ESCAPE * self._limit + _OTHER_COLUMNS:
            raise too_long(f"Record {self._number:,} of {self._name}", self._limit)
        if self._values > MAX_VALUES:
            raise DataError(f"{self._name} cannot be read: record {self._number:,} has more than {MAX_VALUES:,} values.")
        return chunk
