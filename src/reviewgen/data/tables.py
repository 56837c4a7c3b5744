"""Reads tables as Arrow batches: csv, parquet and Arrow files, SQLite, spreadsheets. Each error names the file and the row.

A reader gets the columns that are needed, or None for all. It can be called in any process.
"""

import csv
import itertools
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reviewgen.errors import ConfigError, DataError, first_line, quoted, shortened

if TYPE_CHECKING:
    import pyarrow

CsvFormat = tuple[str, Sequence[str], int]
"""The separator of a csv file, the names of its columns, and the number of empty lines before them."""

_SEPARATORS = ",;\t|"
_HEAD, _PROBED_ROWS = 1 << 20, 10  # characters that the format is looked for in; rows that are compared
_CHUNK = 1 << 22  # bytes that are looked through at once
_BLOCK, _MAX_BLOCK = 1 << 20, 1 << 29  # bytes; a row must fit into a block, so it grows where one does not
_ROWS = 1024  # of a batch
_RAGGED = re.compile(r"Row #(\d+): Expected (\d+) columns, got (\d+): (.*)", re.DOTALL)


def find_format(path: Path) -> CsvFormat | None:
    """Return the format of a csv file, from its head; None if it has no rows.

    The separator is the one that is most frequent in the header outside quotes; in a tsv file a tab, unless it has none. Columns
    get names that are distinct and not empty.
    """
    csv.field_size_limit(_MAX_BLOCK)
    with path.open(encoding="utf-8", newline="") as stream:
        lines = stream.read(_HEAD).splitlines(keepends=True)
    if all(line.isspace() for line in lines):
        return None
    empty = next(number for number, line in enumerate(lines) if line.strip("\r\n"))
    lines = lines[empty:]
    header = re.sub(r'"[^"]*"', "", next(line for line in lines if not line.isspace()))
    separator = max(_SEPARATORS, key=header.count)
    rows = [row for row in itertools.islice(csv.reader(lines, delimiter=separator), _PROBED_ROWS) if row]
    fits = len(rows) > 1 and {len(row) for row in rows} == {len(rows[0])} != {1}
    if path.suffix == ".tsv" and separator != "\t" and ("\t" in header or not fits):
        separator = "\t"
    names: list[str] = []
    for number, column in enumerate(next(csv.reader(lines, delimiter=separator)), 1):
        name = column or f"column {number}"
        names.append(name if name not in names else f"{name} ({number})")
    return separator, names, empty


def read_csv(path: Path, name: str, found: CsvFormat, columns: Sequence[str] | None = None) -> "Iterator[pyarrow.RecordBatch]":
    """Yield the rows of a csv file of UTF-8; all values are strings.

    Raises:
        DataError: A row has more or fewer fields than the header, or a quote is not closed.
    """
    import pyarrow
    from pyarrow.csv import ConvertOptions, ParseOptions, ReadOptions, open_csv

    (separator, names, empty), rows = found, 1  # the first row is the header
    wanted = [column for column in names if columns is None or column in columns] or names[:1]
    convert = ConvertOptions(column_types=dict.fromkeys(wanted, pyarrow.string()), include_columns=wanted, null_values=[])
    parse = ParseOptions(delimiter=separator, newlines_in_values=True)
    block = _BLOCK
    while True:
        try:
            known = rows - 1  # of an earlier try, with smaller blocks
            read = ReadOptions(use_threads=False, block_size=block, column_names=names, skip_rows=empty, skip_rows_after_names=1)
            for whole in open_csv(path, read, parse, convert):
                batch, known = whole.slice(known), max(0, known - len(whole))
                rows += len(batch)
                for start in range(0, len(batch), _ROWS):
                    yield batch.slice(start, _ROWS)
        except pyarrow.ArrowInvalid as error:
            if "straddling" in str(error) and block < _MAX_BLOCK:
                block *= 8
                continue
            raise _csv_error(error, name, separator, rows) from None
        break


def check_quotes(path: Path, name: str, found: CsvFormat) -> None:
    """Raise if the quotes of a csv file break its rules: rows would be read as one text, or texts without their quotes.

    Characters after a closing quote are accepted within a line, as in ``"He said "no" twice"``.

    Raises:
        DataError: A quote is never closed, or closed within a text.
    """
    if _are_regular(path, found[0]):
        return
    lines: list[str] = []
    with path.open(encoding="utf-8", newline="") as stream:
        kept = (lines.append(line) or line for line in stream)  # type: ignore[func-returns-value]
        rows = csv.reader(kept, delimiter=found[0], strict=True)
        while True:
            lines.clear()
            first = rows.line_num + 1
            try:
                next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                is_open = "end of data" in str(error)
                if not is_open and len(lines) == 1 and lines[0].count('"') % 2 == 0 and '\\"' not in lines[0]:
                    continue
                how = f"is closed within a text, in line {rows.line_num:,}"
                if '\\"' in lines[-1]:
                    how = "has quotes after backslashes"
                raise DataError(
                    f"{name} cannot be read: the double quote opened in line {first:,} {'is never closed' if is_open else how}; "
                    "close it where its text ends, and double the quotes inside it."
                ) from None


def _are_regular(path: Path, separator: str) -> bool:
    """Return whether each quote opens or closes a field, or is doubled; the state at a quote is the number of those before."""
    if not path.stat().st_size:
        return True
    data, edges, count = np.memmap(path, np.uint8, "r"), np.zeros(256, np.bool_), 0
    edges[list(f'"\r\n{separator}'.encode())] = True
    for start in range(0, len(data), _CHUNK):
        places = start + np.flatnonzero(data[start : start + _CHUNK] == ord('"'))
        is_opening = (count + np.arange(len(places))) % 2 == 0
        beside = np.where(is_opening, places - 1, places + 1)
        is_inside = (beside >= 0) & (beside < len(data))
        if not edges[data[beside[is_inside]]].all():
            return False
        count += len(places)
    return count % 2 == 0


def _csv_error(error: Exception, name: str, separator: str, rows: int) -> DataError:
    advice = f"put each text with a {separator!r} or a line break in double quotes, and double the quotes inside it"
    if ragged := _RAGGED.search(str(error)):
        row, expected, found, text = ragged.groups()
        has, shown = f"{found} field{'' if found == '1' else 's'}", shortened(first_line(ValueError(text)), 60)
        return DataError(
            f"{name} cannot be read: row {int(row):,} has {has}, and the header has {expected}: {shown!r}. There, {advice}, "
            "and keep the separators of missing values."
        )
    if "straddling" in str(error):
        return DataError(f"{name} cannot be read: after row {rows:,}, a double quote is never closed; {advice}.")
    return DataError(f"{name} cannot be read: {first_line(error).rstrip('.')}, after row {rows:,}.")


def row_groups(path: Path, size: int) -> list[tuple[int, int, int]]:
    """Return ranges of the row groups of a parquet file, each with its size in bytes, of at least ``size`` bytes if possible."""
    from pyarrow.parquet import ParquetFile  # a tenth of a second

    ranges, first, total = [], 0, 0
    with ParquetFile(path) as file:
        for number in range(file.metadata.num_row_groups):
            total += file.metadata.row_group(number).total_byte_size
            if total >= size or number == file.metadata.num_row_groups - 1:
                ranges.append((first, number + 1, total))
                first, total = number + 1, 0
    return ranges


def read_parquet(
    path: Path, groups: tuple[int, int] | None, columns: Sequence[str] | None = None
) -> "Iterator[pyarrow.RecordBatch]":
    """Yield the rows of a parquet file, or of a range of its row groups."""
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path, buffer_size=_HEAD) as file:
        tops = None if columns is None else {column if column in file.schema_arrow.names else top(column) for column in columns}
        wanted = None if tops is None else [column for column in file.schema_arrow.names if column in tops]
        numbers = None if groups is None else list(range(*groups))
        yield from file.iter_batches(_ROWS, row_groups=numbers, columns=wanted, use_threads=False)


def top(column: str) -> str:
    """Return the outermost column of a nested one."""
    return column.partition(".")[0]


def read_arrow(path: Path, columns: Sequence[str] | None = None) -> "Iterator[pyarrow.RecordBatch]":
    """Yield the batches of an Arrow file, of either format."""
    import pyarrow

    with pyarrow.memory_map(str(path)) as source:
        try:
            file = pyarrow.ipc.open_file(source)
            yield from (file.get_batch(number) for number in range(file.num_record_batches))
        except pyarrow.ArrowInvalid:
            source.seek(0)
            yield from pyarrow.ipc.open_stream(source)


def read_sqlite(path: Path, sql: str | None, columns: Sequence[str] | None = None) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of a query of a SQLite database, or of its only table.

    Raises:
        ConfigError: No query is given, and there are several tables; or the query is wrong.
    """
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        tables = [row[0] for row in connection.execute("select name from sqlite_master where type in ('table', 'view')")]
        if sql is None and len(tables) != 1:
            raise ConfigError(
                f"{path} has the tables {', '.join(tables) or '(none)'}: say what to read with --sql (sql in Python), as in "
                f'"select text from {tables[0] if tables else "reviews"}".'
            )
        try:
            cursor = connection.execute(sql or f'select * from "{tables[0]}"')
            names = [column[0] for column in cursor.description or ()]
            while rows := cursor.fetchmany(_ROWS):
                yield [dict(zip(names, row, strict=True)) for row in rows]
        except sqlite3.Error as error:
            raise ConfigError(f"The query {quoted(sql)} of {path} fails: {error}. Its tables: {', '.join(tables)}.") from None


def read_spreadsheet(path: str) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of the first sheet of a spreadsheet; its first row has the names of the columns.

    Raises:
        ConfigError: python-calamine is not installed.
    """
    try:
        from python_calamine import CalamineWorkbook
    except ImportError:
        raise ConfigError(f"Reading {path} needs an extra: pip install 'reviewgen[xlsx]'.") from None
    header, *rows = CalamineWorkbook.from_path(path).get_sheet_by_index(0).to_python() or [[]]
    names = [str(column) for column in header]
    yield [dict(zip(names, row, strict=False)) for row in rows]


def batched(records: Iterable[Any], size: int = _ROWS) -> Iterator[list[Any]]:
    """Yield records in lists."""
    iterator = iter(records)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk
