"""Reads csv and tsv files row by row; each error names the line of the user's file. Knows nothing of what the columns hold.

Python's ``csv`` module reads the fields. Every row has as many as the header, because a row with more or fewer nearly always has
a text that is not quoted. Two things are accepted because no text is lost by them: separators without a value at the end of a
row, and characters after a closing quote in the same line, as in ``"He said "no" twice"``.
"""

import csv
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import TextIOBase
from pathlib import Path
from typing import NoReturn

from reviewgen.data.lines import MAX_TEXT_CHARACTERS, read_lines
from reviewgen.data.quotes import find_row_ends
from reviewgen.data.spans import Span, edges_of, open_lines
from reviewgen.errors import DataError

__all__ = ["read_header", "read_rows", "row_spans"]

_SEPARATORS = ",;\t|"
_MAX_ROW = 1 << 24  # characters; a quote that is still open by then was never closed
_PROBED_ROWS = 10
_QUOTED = re.compile(r'"[^"]*"')
_LINE_END = re.compile(r"\r\n|\r|\n")
_QUOTES = "put each text with a {separator} or a line break in double quotes, and double the quotes inside it"


def read_header(path: Path, name: str) -> list[str]:
    """Return the distinct column names of a file; empty if it has no rows.

    Args:
        path: The file, of UTF-8.
        name: The user's file, for messages.

    Raises:
        DataError: A quote of the header is not closed.
    """
    with path.open(encoding="utf-8", newline="") as stream:
        header = next(_Rows(stream, _find_separator(path, name), name), None)
    return _make_distinct(header.fields) if header else []


def row_spans(path: Path, name: str, size: int) -> list[Span]:
    """Return spans of whole rows of about ``size`` bytes; an empty list if the file is small or where rows begin is unclear.

    Args:
        path: The file, of UTF-8.
        name: The user's file, for messages.
        size: The size of a span in bytes.
    """
    edges = edges_of(path, size)
    with path.open("rb") as file:
        if not edges or file.readline(_MAX_ROW).isspace():  # the header is not in the first line
            return []
    ends = find_row_ends(path, _find_separator(path, name), edges[1:-1])
    if ends is None:
        return []
    starts = [(0, 0), *((end, lines) for end, lines in ends if end < edges[-1])]
    starts = [start for start, before in zip(starts, [None, *starts], strict=False) if start != before]
    stops = [*(end for end, _ in starts[1:]), edges[-1]]
    return [(start, stop, lines) for (start, lines), stop in zip(starts, stops, strict=True)] if len(starts) > 1 else []


def read_rows(path: Path, name: str, limit: int = MAX_TEXT_CHARACTERS, span: Span | None = None) -> Iterator[dict[str, str]]:
    """Yield the rows of a file, or of a span of it, as mappings of column to value.

    Args:
        path: The file, of UTF-8.
        name: The user's file, for messages.
        limit: The maximum number of characters of a line; a row may have more.
        span: See ``row_spans``; None reads the whole file.

    Raises:
        DataError: A line is longer, a row has more or fewer fields than the header, or a quote is not closed.
    """
    separator = _find_separator(path, name)
    with path.open(encoding="utf-8", newline="") as stream:
        header = next(_Rows(stream, separator, name, limit), None)
    if header is None:
        return
    columns = _make_distinct(header.fields)
    required = max((number for number, field in enumerate(header.fields, 1) if field), default=len(columns))
    start, stop, lines = span or (0, None, 0)
    with open_lines(path, start, stop, newline="") as stream:
        rows = _Rows(stream, separator, name, limit, lines)
        for row in rows if start else itertools.islice(rows, 1, None):
            if len(row.fields) < required or any(row.fields[len(columns) :]):
                _refuse_ragged(row, columns, rows)
            yield dict(itertools.zip_longest(columns, row.fields[: len(columns)], fillvalue=""))


def _find_separator(path: Path, name: str) -> str:
    """Return the separator that is most frequent in the header outside quotes; in a tsv file a tab, unless it has none."""
    with path.open(encoding="utf-8", newline="") as stream:
        header = _QUOTED.sub("", next((line for line in read_lines(stream, name, _MAX_ROW) if not line.isspace()), ""))
    separator = max(_SEPARATORS, key=header.count)
    if path.suffix == ".tsv" and separator != "\t" and ("\t" in header or not _fits(path, name, separator)):
        return "\t"
    return separator


def _fits(path: Path, name: str, separator: str) -> bool:
    """Return whether the first rows of a file have equally many fields, and more than one."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(
            itertools.islice(filter(None, csv.reader(read_lines(stream, name, _MAX_ROW), delimiter=separator)), _PROBED_ROWS)
        )
    return len(rows) > 1 and {len(row) for row in rows} == {len(rows[0])} != {1}


def _make_distinct(columns: list[str]) -> list[str]:
    """Return column names of which none is empty and no two are the same."""
    names: list[str] = []
    for number, column in enumerate(columns, 1):
        name = column or f"column {number}"
        names.append(name if name not in names else f"{name} ({number})")
    return names


@dataclass(frozen=True)
class _Row:
    """A row.

    Attributes:
        fields: Its fields.
        lines: The lines of the file that it is made of.
        first: The number of the first of them, from 1.
    """

    fields: list[str]
    lines: list[str]
    first: int


class _Rows:
    """The rows of a file, header included, without blank lines.

    Raises:
        DataError: A quote is not closed.
    """

    def __init__(
        self, stream: TextIOBase, separator: str, name: str, limit: int = MAX_TEXT_CHARACTERS, lines_before: int = 0
    ) -> None:
        self._max_row = max(_MAX_ROW, limit)
        csv.field_size_limit(max(csv.field_size_limit(), 2 * self._max_row + 2))  # a row and its last line
        self.name, self.separator = name, separator
        self._number, self._size = lines_before, 0
        self._lines: list[str] = []
        self._feed = self._read_lines(read_lines(stream, name, limit))
        self._strict = csv.reader(self._feed, delimiter=separator, strict=True)

    def __iter__(self) -> "_Rows":
        return self

    def __next__(self) -> _Row:
        while True:
            self._lines, self._size = [], 0
            first = self._number + 1
            try:
                fields = next(self._strict)
            except csv.Error as error:
                fields = self._read_loosely(first, is_at_end="end of data" in str(error))
            if len(fields) > 1 or not self._lines[0].isspace():
                return _Row(fields, self._lines, first)

    def _read_lines(self, stream: Iterator[str]) -> Iterator[str]:
        """Yield the lines of the file, and remember those of the current row."""
        for line in stream:
            self._number += 1
            self._size += len(line)
            self._lines.append(line)
            if self._size > self._max_row:
                self._refuse_open_quote(self._number + 1 - len(self._lines), is_open=True)
            yield line

    def _read_loosely(self, first: int, *, is_at_end: bool) -> list[str]:
        """Return the fields of a row that has characters after a closing quote, if that quote was opened in the same line."""
        if is_at_end or len(self._lines) > 1:
            self._refuse_open_quote(first, is_open=is_at_end)
        rest = itertools.chain(list(self._lines), self._feed)
        return next(csv.reader(rest, delimiter=self.separator))

    def _refuse_open_quote(self, first: int, *, is_open: bool) -> NoReturn:
        """Raise for the quote that the remembered lines leave open, or that a quote of another text has closed.

        Args:
            first: The number of the first of the lines.
            is_open: Whether it is still open after the last of them.
        """
        fields = next(csv.reader(self._lines, delimiter=self.separator))
        spans = [len(_LINE_END.findall(field)) for field in fields]
        last = len(fields) - 1 if is_open else max(index for index, span in enumerate(spans) if span)
        how = "is never closed" if is_open else f"is closed within a text, in line {self._number}"
        raise DataError(
            f"{self.name} cannot be read: the double quote opened in line {first + sum(spans[:last])} {how}; close it where its "
            "text ends, and double the quotes inside it."
        )


def _refuse_ragged(row: _Row, columns: list[str], rows: _Rows) -> NoReturn:
    """Raise for a row that has more or fewer fields than the header."""
    count, wanted = _fields(len(row.fields)), f"the header has {len(columns)} ({_first_names(columns)})"
    last = row.first + len(row.lines) - 1
    if len(row.lines) > 1:
        place = f"lines {row.first} to {last} are one row of {count}, and {wanted}"
        advice = f"perhaps a double quote in line {row.first} is never closed; otherwise "
    else:
        place, advice = f"line {row.first} has {count}, and {wanted}", ""
    other = next((sign for sign in _SEPARATORS if row.lines[0].count(sign) == len(columns) - 1 > 0), rows.separator)
    if other != rows.separator:
        advice += f"the line seems to be separated by {other!r} and the header by {rows.separator!r}: use one of them, or "
    if len(row.fields) < len(columns):
        advice += "keep the separators of missing values, and "
    raise DataError(f"{rows.name} cannot be read: {place}; {advice}{_QUOTES.format(separator=repr(rows.separator))}.")


def _fields(count: int) -> str:
    return f"{count} field" if count == 1 else f"{count} fields"


def _first_names(columns: list[str]) -> str:
    names = ", ".join(columns[:5])
    return names if len(columns) <= 5 else f"{names}, ..."
