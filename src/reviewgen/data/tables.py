"""Read records from files of each format: csv, JSON, parquet, Arrow, SQLite, spreadsheets. Each
error names the file and, if possible, the row.

A reader is a function that gets the columns that are needed (None for all) and yields records. It
can be called in any process. A JSON file has records as lines, as an array, or inside one value, as
data frames and APIs write them:

    {"text": "a"}⏎{"text": "b"}                   lines, or values one after another
    [{"text": "a"}, {"text": "b"}]                an array, read piece by piece
    {"reviews": [{"text": "a"}, ...], "page": 1}  a wrapper: its only list of records
    {"text": {"0": "a"}, "stars": {"0": 5}}       columns, as pandas writes them by default
    {"columns": [...], "data": [[...], ...]}      columns and rows, pandas' orientation "split"
    {"tt01": {"text": "a"}, ...}                  objects by their id
"""

import csv
import io
import itertools
import json
import re
import sqlite3
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from reviewgen.config.bounded import MAX_DEPTH, refuse_deep
from reviewgen.data.columns import USUAL_NAMES, DataConfig
from reviewgen.data.documents import ROWS, find_edges, open_lines, read_texts
from reviewgen.data.files import PlainFile
from reviewgen.errors import ConfigError, DataError, counted, first_line, quoted, shortened
from reviewgen.registry.plugins import find_reader

if TYPE_CHECKING:
    import pyarrow

# characters that the layout of a JSON file is detected from; also read at once from an array
_JSON_HEAD = 1 << 22
_JSON_SEPARATOR = re.compile(r"[ \t\n\r]*([],])[ \t\n\r]*")
_LONGEST_TOKEN = 64  # characters; no escape or literal of JSON is longer
_SEPARATORS = ",;\t|"
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?[\r\n]*', re.IGNORECASE)
_CSV_HEAD = 1 << 20  # characters at the beginning of a csv file that its format is detected from
_PROBED_ROWS = 10  # rows that are compared to detect the format
_MAX_FIELD = 1 << 29  # characters in a field of a csv file
# matches the column and the row of a cell in the XML of a spreadsheet
_CELL = re.compile(rb"<(?:\w+:)?c\s[^>]*?r=.([A-Z]+)(\d+)")
_MAX_CELLS = 1 << 26  # cells of a sheet; each takes 24 bytes, even if it is empty

Read: TypeAlias = Callable[[Sequence[str] | None], Iterable[Any]]
"""A function from the columns that are needed (None for all) to the records of a unit."""


@dataclass(frozen=True)
class Unit:
    """A piece of a source that any process can read.

    Attributes:
        reads: The functions that read it, to be called in order, each with the name of its file for
            messages.
        size: Its approximate size in bytes; 0 if unknown.
        is_shared: Whether it may be too large for one process. Then each process reads all of it
            and keeps a part.
    """

    reads: tuple[tuple[Read, str], ...]
    size: int = 0
    is_shared: bool = False


def is_json_lines(path: Path) -> bool:
    """Return whether a UTF-8 file has a JSON object or string in each line.

    Only the first line that is not blank is parsed. Another one must follow it, unless the suffix
    is ``.jsonl`` or ``.ndjson``.
    """
    with path.open(encoding="utf-8") as file:
        lines = (line for line in iter(lambda: file.readline(_JSON_HEAD), "") if not line.isspace())
        first = next(lines, "")
        second = next(lines, "")
    try:
        return isinstance(json.loads(first), dict | str) and bool(
            second or path.suffix in (".jsonl", ".ndjson")
        )
    except (ValueError, RecursionError):
        return False


def read_json_lines(
    path: Path, name: str, start: int, stop: int, columns: object = None
) -> Iterator[Any]:
    """Yield the JSON values of the lines of a UTF-8 file between two byte offsets; see
    ``find_edges``.

    Raises:
        DataError: A line is not JSON, or its value is neither an object nor a string.
    """
    with open_lines(path, start, stop) as file:
        yield from (
            _parse(line, number, path, name, start)
            for number, line in enumerate(file, 1)
            if not line.isspace()
        )


def _parse(line: str, number: int, path: Path, name: str, start: int) -> Any:
    try:
        value = json.loads(line)
        if line.count("[") + line.count("{") > MAX_DEPTH:
            refuse_deep(value)
        if isinstance(value, dict | str):
            return value
        problem = f"is a {type(value).__name__}, not an object"
    except RecursionError:
        problem = f"is nested more than {MAX_DEPTH} levels deep"
    except ValueError as error:
        problem = f"is not JSON ({first_line(error)})"
    with path.open("rb") as file:
        number += file.read(start).count(b"\n")
    raise DataError(f"{name} cannot be read: line {number:,} {problem}.") from None


def read_json(path: Path, name: str, columns: object = None) -> Iterator[Any]:
    """Yield the records of a JSON file that is not JSON lines.

    Raises:
        DataError: The file is not JSON, or its records are ambiguous or malformed.
    """
    with path.open("rb") as file:
        is_array = file.read(_JSON_HEAD).lstrip().startswith(b"[")
    if is_array:
        yield from _read_array(path, name)
        return
    try:
        values = _read_values(path)
    except ValueError as error:
        raise DataError(f"{name} cannot be read: it is not JSON ({first_line(error)}).") from None
    yield from _find_records(values, name)


def _read_array(path: Path, name: str) -> Iterator[Any]:
    """Yield the values of a JSON array. The file is read in pieces, since it may be larger than
    memory.
    """
    decode = json.JSONDecoder(parse_constant=_refuse_constant).raw_decode
    number = 0
    start = 0
    with path.open(encoding="utf-8") as file:
        text = file.read(_JSON_HEAD).lstrip().removeprefix("[").lstrip()
        while number or not text.startswith("]"):
            try:
                value, end = decode(text, start)
                separator = _JSON_SEPARATOR.match(text, end)
                if separator is None:
                    raise json.JSONDecodeError("Expecting ',' or ']'", text, end)
                is_last = separator[1] == "]"
                if is_last and (text[separator.end() :] + file.read(_JSON_HEAD)).strip():
                    raise json.JSONDecodeError("Extra data", text, separator.end())
            except json.JSONDecodeError as error:
                rest = text[error.pos :].lstrip()
                # the text read so far may end within the value
                is_cut = len(rest) < _LONGEST_TOKEN or error.msg.startswith("Unterminated")
                more = file.read(max(_JSON_HEAD, len(text) - start)) if is_cut else ""
                if not more:
                    location = f"after record {number:,}" if number else "in the first record"
                    raise DataError(
                        f"{name} cannot be read: JSON parse error {location}: {error.msg}."
                    ) from None
                text = (text[start:] + more).lstrip()
                start = 0
                continue
            if text.count("[", start, end) + text.count("{", start, end) >= MAX_DEPTH:
                refuse_deep([value])
            yield value
            if is_last:
                return
            number += 1
            start = separator.end()


def _refuse_constant(word: str) -> None:
    raise json.JSONDecodeError(f"JSON has no {word}; write null instead", "", 0)


def _read_values(path: Path) -> list[Any]:
    """Return the JSON values of a file, which follow one another without commas."""
    text = path.read_text(encoding="utf-8").strip()
    values = []
    decoder = json.JSONDecoder()
    start = 0
    while start < len(text):
        value, start = decoder.raw_decode(text, start)
        refuse_deep(value)
        values.append(value)
        start = next(
            (index for index in range(start, len(text)) if not text[index].isspace()), len(text)
        )
    return values


def _find_records(values: list[Any], name: str) -> list[Any]:
    """Find the records in the JSON values of a file; the module docstring lists the layouts.

    Raises:
        DataError: There are several lists of records, or a row has too many or too few values.
    """
    if len(values) != 1 or not isinstance(values[0], Mapping):
        return values
    value = values[0]
    inner = list(values[0].values())
    if isinstance(value.get("columns"), list) and isinstance(value.get("data"), list):
        for row in value["data"]:
            if len(row) != len(value["columns"]):
                counts = (
                    f"a row has {len(row)} values, and there are {len(value['columns'])} columns"
                )
                raise DataError(f"{name} cannot be read: {counts}: {row!r:.60}.")
        return [dict(zip(value["columns"], row, strict=True)) for row in value["data"]]
    if any(isinstance(item, str) for item in inner):
        is_record = any(str(key).lower() in USUAL_NAMES for key in value) or not all(
            isinstance(item, str) for item in inner
        )
        return values if is_record or len(inner) < 3 else inner
    lists = {key: items for key, items in value.items() if isinstance(items, list) and items}
    records = [key for key, items in lists.items() if isinstance(items[0], Mapping)]
    if len(records) > 1:
        raise DataError(
            f"{name} has several lists of records: {', '.join(map(str, records))}. Save the one to"
            " read as a file."
        )
    if records:
        return list(lists[records[0]])
    if lists and len(lists) == len(inner) > 1:
        return [dict(zip(value, row, strict=True)) for row in itertools.zip_longest(*inner)]
    if len(lists) == 1 and isinstance(next(iter(lists.values()))[0], str):
        return next(iter(lists.values()))
    if (
        len(inner) == 1
        and isinstance(inner[0], Mapping)
        and any(isinstance(item, list | Mapping) for item in inner[0].values())
    ):
        return _find_records(inner, name)  # nested, as in {"data": {"reviews": [...]}}
    if not inner or not all(isinstance(item, Mapping) for item in inner):
        return values
    keys = dict.fromkeys(itertools.chain.from_iterable(inner))
    inside, outside = ([str(key).lower() for key in names] for names in (keys, value))
    if not USUAL_NAMES.isdisjoint(inside) or not (
        all(map(str.isdecimal, inside)) or not USUAL_NAMES.isdisjoint(outside)
    ):
        return inner  # records by their ids
    # columns, as pandas writes them
    return [{column: cells.get(key) for column, cells in value.items()} for key in keys]


def _find_format(path: Path) -> tuple[str, list[str], int]:
    """Detect the format of a csv file: the separator, the column names, and the number of lines
    before the header, such as ``sep=;``.

    The separator is the character that is most frequent in the header, outside quotes. In a tsv
    file it is a tab, unless the header has no tab and another separator fits the rows. Names that
    are empty or duplicate are changed, so that they are distinct.
    """
    csv.field_size_limit(_MAX_FIELD)
    with path.open(encoding="utf-8", newline="") as stream:
        lines = io.StringIO(stream.read(_CSV_HEAD), newline="").readlines()
    skipped = next((number for number, line in enumerate(lines) if line.strip("\r\n")), len(lines))
    if match := _SEPARATOR_LINE.fullmatch("".join(lines[skipped : skipped + 1])):
        skipped += 1
    lines = lines[skipped:]
    bare = re.sub(r'"[^"]*"', "q", "".join(lines)).splitlines()
    header = next((line for line in bare if line.strip()), "")
    separator = match[1] if match else max(_SEPARATORS, key=header.count)
    rows = [
        row for row in itertools.islice(csv.reader(lines, delimiter=separator), _PROBED_ROWS) if row
    ]
    fits = len(rows) > 1 and {len(row) for row in rows} == {len(rows[0])} != {1}
    if path.suffix == ".tsv" and not match and separator != "\t" and ("\t" in header or not fits):
        separator = "\t"
    names: list[str] = []
    for number, column in enumerate(next(csv.reader(lines, delimiter=separator), ()), 1):
        name = " ".join(column.split("\n")) or f"column {number}"
        names.append(name if name not in names else f"{name} ({number})")
    return separator, names, skipped


def read_csv(
    path: Path, name: str, columns: Sequence[str] | None = None
) -> Iterator[dict[str, str]]:
    """Yield the rows of a UTF-8 csv file; all values are strings.

    Characters after a closing quote are accepted within a line, as in ``"He said "no" twice"``.

    Raises:
        DataError: A row has more or fewer fields than the header; or a quote is never closed, or is
            closed within a text. Without this error, several rows would be read as one text, or
            texts would lose their quotes.
    """
    separator, names, skipped = _find_format(path)
    wanted = [(column, names.index(column)) for column in needed_columns(names, columns)]
    lines = list[str]()  # lines of the current row
    number = 0  # number of the current row; the header is row 1
    with path.open(encoding="utf-8", newline="") as stream:
        # Records the lines of a row for error messages. ``append`` returns None; mypy reports its
        # use in an expression.
        recorded = (lines.append(line) or line for line in itertools.islice(stream, skipped, None))  # type: ignore[func-returns-value]
        rows = csv.reader(recorded, delimiter=separator, strict=True)
        while True:
            lines.clear()
            first = skipped + rows.line_num + 1
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                last = skipped + rows.line_num
                if first != last or lines[0].count('"') % 2 or '\\"' in lines[0]:
                    raise _quote_error(name, first, last, lines[-1], str(error)) from None
                (row,) = csv.reader(lines, delimiter=separator)
            number += bool(row)
            if row and len(row) != len(names):
                raise DataError(
                    f"{name} cannot be read: row {number:,} has {counted(len(row), 'field')}, and"
                    f" the header has {len(names)}: {shortened(lines[0].strip(), 60)!r}. In that"
                    f" row, put each text with a {separator!r} or a line break in double quotes,"
                    " double the quotes inside it, and keep the separators of missing values."
                )
            if number > 1 and row:
                yield {column: row[index] for column, index in wanted}


def _quote_error(name: str, first: int, last: int, line: str, problem: str) -> DataError:
    how = (
        "is never closed"
        if "end of data" in problem
        else f"is closed within a text, in line {last:,}"
    )
    if '\\"' in line:
        how = "has quotes after backslashes"
    return DataError(
        f"{name} cannot be read: the double quote opened in line {first:,} {how}; close it where"
        " its text ends, and double the quotes inside it."
    )


def read_parquet(
    path: Path, group: int, columns: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a row group of a parquet file."""
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path, buffer_size=_CSV_HEAD) as file:
        wanted = needed_columns(file.schema_arrow.names, columns)
        yield from records_of(
            file.iter_batches(ROWS, row_groups=[group], columns=wanted, use_threads=False)
        )


def needed_columns(names: Sequence[str], columns: Sequence[str] | None) -> list[str]:
    """Return the names of the table's columns that are needed.

    ``columns`` may have nested columns: ``a.b`` is in the column ``a``. None stands for all
    columns.
    """
    if columns is None:
        return list(names)
    wanted = {column if column in names else column.partition(".")[0] for column in columns}
    return [name for name in names if name in wanted]


def read_arrow(
    path: Path, name: str, columns: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the rows of an Arrow file, in the file or the stream format."""
    return records_of(_arrow_batches(path), columns)


def _arrow_batches(path: Path) -> "Iterator[pyarrow.RecordBatch]":
    import pyarrow

    with pyarrow.memory_map(str(path)) as source:
        try:
            file = pyarrow.ipc.open_file(source)
            yield from (file.get_batch(number) for number in range(file.num_record_batches))
        except pyarrow.ArrowInvalid:
            source.seek(0)
            yield from pyarrow.ipc.open_stream(source)


def records_of(chunks: Iterable[Any], columns: Sequence[str] | None = None) -> Iterator[Any]:
    """Yield the records of chunks; each chunk is an Arrow batch or a list of records."""
    for chunk in chunks:
        if isinstance(chunk, Sequence):
            yield from chunk
        else:
            for batch in (chunk.slice(start, ROWS) for start in range(0, len(chunk), ROWS)):
                yield from batch.select(needed_columns(batch.schema.names, columns)).to_pylist()


def read_dataset(source: Any, columns: Sequence[str] | None) -> Iterator[Any]:
    """Yield the rows of a ``datasets.Dataset``."""
    return records_of(
        source.select_columns(needed_columns(source.column_names, columns))
        .with_format("arrow")
        .iter(ROWS)
    )


def read_schema(path: Path, kind: str) -> "pyarrow.Schema | None":
    """Return the schema of a parquet or an Arrow file; None for other formats."""
    if kind == "parquet":
        from pyarrow.parquet import read_schema as read

        return read(path)
    return next((batch.schema for batch in _arrow_batches(path)), None) if kind == "arrow" else None


# the first word of a query, after white space and comments
_SELECT = re.compile(r"(\s|--.*\n|/\*[\s\S]*?\*/)*(select|with|values)\b", re.IGNORECASE)


def read_sqlite(
    path: Path, name: str, columns: object = None, *, sql: str | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the rows that a query returns from a SQLite database; without a query, those of its
    only table.

    Raises:
        ConfigError: No query is given, and there is not exactly one table; or the query is wrong.
    """
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        query = (
            "select name from sqlite_master where type in ('table', 'view') and name not like"
            " 'sqlite\\_%' escape '\\'"
        )
        tables = [row[0] for row in connection.execute(query)]
        first = '"{}"'.format(tables[0].replace('"', '""')) if tables else "reviews"
        if sql is None and len(tables) != 1:
            raise ConfigError(
                f"{path} has the tables {', '.join(tables) or '(none)'}: say what to read with"
                f" --sql (sql in Python), as in 'select text from {first}'."
            )
        if sql is not None and not _SELECT.match(sql):
            raise ConfigError(
                f"The query {quoted(sql)} must begin with SELECT or WITH: a query only reads."
            )
        try:
            cursor = connection.execute(sql or f"select * from {first}")
            names = [column[0] for column in cursor.description or ()]
            for row in cursor:
                yield dict(zip(names, row, strict=True))
        except sqlite3.Error as error:
            raise ConfigError(
                f"The query {quoted(sql)} of {path} fails: {first_line(error)}. A query only reads;"
                f" the tables are: {', '.join(tables)}."
            ) from None


def read_spreadsheet(path: str) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of the first sheet of a spreadsheet, in one list. The first row of the sheet
    has the column names.

    Raises:
        ConfigError: python-calamine is not installed.
    """
    header, *rows = _open_workbook(path).get_sheet_by_index(0).to_python() or [[]]
    names = [str(column) for column in header]
    yield [dict(zip(names, row, strict=False)) for row in rows]


def note_sheets(path: Path, name: str) -> list[str]:
    """Return a note for the user if a spreadsheet has several sheets."""
    first, *others = _open_workbook(str(path)).sheet_names
    note = (
        f"Of {name}, only the first sheet, {first!r}, is read; to read another, save it as csv:"
        f" {', '.join(others)}."
    )
    return [note] if others else []


def _open_workbook(path: str) -> Any:
    try:
        from python_calamine import CalamineWorkbook
    except ImportError:
        raise ConfigError(
            f"Reading {path} needs an extra: pip install 'reviewgen[xlsx]'."
        ) from None
    _refuse_far_cells(path)
    return CalamineWorkbook.from_path(path)


def _refuse_far_cells(path: str) -> None:
    """Raise if a spreadsheet has a cell far from the others: the reader would allocate all the
    empty cells in between.

    Raises:
        DataError: A sheet has such a cell.
    """
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            cells = (
                _CELL.findall(archive.read(member)) if member.startswith("xl/worksheets/") else ()
            )
            columns = {column for column, _ in cells}
            if (
                cells
                and max(map(_column_number, columns)) * max(int(row) for _, row in cells)
                > _MAX_CELLS
            ):
                raise DataError(
                    f"{path} has a cell far from the others, in {member}. Delete the empty columns"
                    " and rows in between, or save the sheet as csv."
                )


def _column_number(name: bytes) -> int:
    """Return the number of a column: 1 for A, 27 for AA."""
    number = 0
    for letter in name:
        number = 26 * number + letter - 64  # the code of A is 65
    return number


def find_units(file: PlainFile, config: DataConfig, size: int) -> list[Unit]:
    """Return the units of a file, each of about ``size`` bytes if it can be cut."""
    path = file.path
    name = file.name
    kind = file.kind
    total = path.stat().st_size
    read: Any
    if kind == "text" or (kind == "json" and is_json_lines(path)):
        documents = config.documents if kind == "text" else "line"
        read = (
            partial(read_texts, path, documents)
            if kind == "text"
            else partial(read_json_lines, path, name)
        )
        units = list[Unit]()
        for start, stop in itertools.pairwise(find_edges(path, size, documents)):
            label = name if start == 0 else f"{name} (from byte {start:,} on)"
            units.append(make_unit(partial(read, start, stop), label, stop - start))
        return units
    if kind == "parquet":
        from pyarrow.parquet import ParquetFile  # takes a tenth of a second to import

        with ParquetFile(path) as opened:
            sizes = [
                opened.metadata.row_group(group).total_byte_size
                for group in range(opened.metadata.num_row_groups)
            ]
        read = partial(read_parquet, path)
        return [
            make_unit(partial(read, group), name, length, is_shared=length >= 4 * size)
            for group, length in enumerate(sizes)
        ]
    readers = {
        "csv": read_csv,
        "json": read_json,
        "arrow": read_arrow,
        "sqlite": partial(read_sqlite, sql=config.sql),
    }
    read = readers.get(kind) or partial(read_with, find_reader(kind))
    return [make_unit(partial(read, path, name), name, total, is_shared=total >= 2 * size)]


def read_with(
    reader: Any, source: Path | str, name: str, columns: Sequence[str] | None
) -> Iterator[Any]:
    """Yield the records that an installed reader returns for a source."""
    return records_of(reader(str(source)), columns)


def make_unit(read: Read, name: str, size: int = 0, *, is_shared: bool = False) -> Unit:
    """Return a unit that one function reads; ``name`` is the name of its file, for messages."""
    return Unit(((read, name),), size, is_shared)
