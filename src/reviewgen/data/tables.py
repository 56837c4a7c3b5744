"""Read records from files of each format: csv, JSON, parquet, Arrow, SQLite, spreadsheets. Each
error names the file and, if possible, the row.

A reader is a function that gets the columns that are needed (None for all) and yields records. A
JSON file has records as lines, as an array, or inside one value, as data frames and APIs write
them:

    {"text": "a"}⏎{"text": "b"}                   lines, or values one after another
    [{"text": "a"}, {"text": "b"}]                an array, read piece by piece
    {"reviews": [{"text": "a"}, ...], "page": 1}  a wrapper: its only list of records
    {"text": {"0": "a"}, "stars": {"0": 5}}       columns, as pandas writes them by default
    {"columns": [...], "data": [[...], ...]}      columns and rows, pandas' orientation "split"
    {"tt01": {"text": "a"}, ...}                  objects by their id
"""

import csv
import itertools
import json
import re
import sqlite3
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from reviewgen.config.bounded import MAX_DEPTH, refuse_deep
from reviewgen.data.columns import USUAL_NAMES, DataConfig
from reviewgen.data.documents import ROWS, read_texts
from reviewgen.data.files import PlainFile
from reviewgen.errors import ConfigError, DataError, counted, first_line, quoted, shortened
from reviewgen.registry.plugins import find_reader

if TYPE_CHECKING:
    import pyarrow

# characters from which the layout of a JSON file is detected; an array is read in such pieces
_JSON_HEAD = 1 << 22
_JSON_SEPARATOR = re.compile(r"[ \t\n\r]*([],])[ \t\n\r]*")
_NOT_SPACE = re.compile(r"\S")
_LONGEST_TOKEN = 64  # no escape or literal of JSON has more characters
_SEPARATORS = ",;\t|"
# the first line of some csv files, by which they tell Excel their separator
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?[\r\n]*', re.IGNORECASE)
_CSV_HEAD = 1 << 20  # the format of a csv file is detected from the lines in its first characters
_PROBED_ROWS = 10  # rows that are compared to detect the format
_BUFFER = 1 << 20  # bytes that are read from a column of a parquet file at once
_MAX_FIELD = 1 << 29  # max characters in a field of a csv file
_SQLITE_TABLES = (
    "select name from sqlite_master where type in ('table', 'view') and name not like"
    " 'sqlite\\_%' escape '\\'"
)
# the first word of a query, after white space and comments
_SELECT = re.compile(r"(\s|--.*\n|/\*[\s\S]*?\*/)*(select|with|values)\b", re.IGNORECASE)
# matches the column and the row of a cell in the XML of a spreadsheet
_CELL = re.compile(rb"<(?:\w+:)?c\s[^>]*?r=.([A-Z]+)(\d+)")
_MAX_CELLS = 1 << 26  # max cells of a sheet; each takes 24 bytes, even if it is empty

Read: TypeAlias = Callable[[Sequence[str] | None], Iterable[Any]]
"""A reader: a function from the columns that are needed (None for all) to records."""


def find_read(file: PlainFile, config: DataConfig) -> Read:
    """Return the reader of a file; ``config`` has the options for txt files and SQLite files.

    Raises:
        PluginConflict, BrokenPlugin: See ``find_plugin``.
    """
    path = file.path
    readers: Mapping[str, Read] = {
        "text": lambda columns: read_texts(path, config.documents),
        "csv": lambda columns: _read_csv(path, file.name),
        "json": lambda columns: _read_json(path, file.name),
        "parquet": lambda columns: _read_parquet(path, columns),
        "arrow": lambda columns: records_of(_arrow_batches(path), columns),
        "sqlite": lambda columns: _read_sqlite(path, config.sql),
    }
    return readers.get(file.kind) or read_with(find_reader(file.kind), str(path))


def read_with(reader: Any, source: str) -> Read:
    """Return a function that reads a source, a path or a URL, with an installed reader."""
    return lambda columns: records_of(reader(source), columns)


def _read_json(path: Path, name: str) -> Iterator[Any]:
    """Yield the records of a JSON file.

    The file is read as JSON lines under two conditions: its first line that is not blank is an
    object or a string; and another line follows, or the suffix is ``.jsonl`` or ``.ndjson``.

    Raises:
        DataError: The file is not JSON, or its records are ambiguous or malformed.
    """
    with path.open(encoding="utf-8") as file:
        head = file.read(_JSON_HEAD).lstrip()
    first, _, rest = head.partition("\n")
    if (path.suffix in (".jsonl", ".ndjson") or rest.strip()) and _is_json_line(first):
        yield from _read_json_lines(path, name)
    elif head.startswith("["):
        yield from _read_array(path, name)
    else:
        yield from _find_records(_read_values(path, name), name)


def _is_json_line(line: str) -> bool:
    """Return whether a line is an object or a string in JSON."""
    try:
        return isinstance(json.loads(line), dict | str)
    except (ValueError, RecursionError):
        return False


def _read_json_lines(path: Path, name: str) -> Iterator[Any]:
    """Yield the JSON values of the lines of a UTF-8 file.

    Raises:
        DataError: A line is not JSON, or its value is neither an object nor a string.
    """
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.isspace():
                continue
            problem = ""
            try:
                value = json.loads(line)
                if line.count("[") + line.count("{") > MAX_DEPTH:
                    refuse_deep(value)
                if not isinstance(value, dict | str):
                    problem = f"is a {type(value).__name__}, not an object"
            except RecursionError:
                problem = f"is nested more than {MAX_DEPTH} levels deep"
            except ValueError as error:
                problem = f"is not JSON ({first_line(error)})"
            if problem:
                raise DataError(f"{name} cannot be read: line {number:,} {problem}.")
            yield value


def _read_array(path: Path, name: str) -> Iterator[Any]:
    """Yield the values of a JSON array. The file is read in pieces, since it may be larger than
    memory.
    """
    decode = json.JSONDecoder(parse_constant=_refuse_constant).raw_decode
    number = 0
    start = 0
    with path.open(encoding="utf-8") as file:
        text = file.read(_JSON_HEAD).lstrip().removeprefix("[").lstrip()
        is_open = not text.startswith("]")
        while is_open:
            try:
                value, end = decode(text, start)
                separator = _JSON_SEPARATOR.match(text, end)
                if separator is None:
                    raise json.JSONDecodeError("Expecting ',' or ']'", text, end)
            except json.JSONDecodeError as error:
                # the text read so far may end within the value
                is_short = len(text[error.pos :].lstrip()) < _LONGEST_TOKEN
                is_cut = is_short or error.msg.startswith("Unterminated")
                # at least as much as is left of the text, so that a long value is parsed few times
                more = file.read(max(_JSON_HEAD, len(text) - start)) if is_cut else ""
                if not more:
                    raise _array_error(name, number, error.msg) from None
                text = (text[start:] + more).lstrip()
                start = 0
                continue
            if text.count("[", start, end) + text.count("{", start, end) >= MAX_DEPTH:
                refuse_deep([value])
            yield value
            number += 1
            start = separator.end()
            is_open = separator[1] == ","
        if number and (text[start:] + file.read(_JSON_HEAD)).strip():
            raise _array_error(name, number, "Extra data")


def _array_error(name: str, number: int, problem: str) -> DataError:
    """Return the error for a JSON array of which ``number`` records could be read."""
    location = f"after record {number:,}" if number else "in the first record"
    return DataError(f"{name} cannot be read: JSON parse error {location}: {problem}.")


def _refuse_constant(word: str) -> None:
    raise json.JSONDecodeError(f"JSON has no {word}; write null instead", "", 0)


def _read_values(path: Path, name: str) -> list[Any]:
    """Return the JSON values of a file, which follow one another without commas."""
    text = path.read_text(encoding="utf-8").strip()
    decode = json.JSONDecoder().raw_decode
    values = []
    end = 0
    try:
        while start := _NOT_SPACE.search(text, end):
            value, end = decode(text, start.start())
            refuse_deep(value)
            values.append(value)
    except ValueError as error:
        raise DataError(f"{name} cannot be read: it is not JSON ({first_line(error)}).") from None
    return values


def _find_records(values: list[Any], name: str) -> list[Any]:
    """Find the records in the JSON values of a file; the module docstring lists the layouts.

    Raises:
        DataError: There are several lists of records, or a row has too many or too few values.
    """
    if len(values) != 1 or not isinstance(values[0], Mapping):
        return values
    outer = values[0]
    inner = list(outer.values())
    lists = {key: items for key, items in outer.items() if isinstance(items, list) and items}
    # the keys of lists of records
    tables = [key for key, items in lists.items() if isinstance(items[0], Mapping)]
    if isinstance(outer.get("columns"), list) and isinstance(outer.get("data"), list):
        return _join_rows(outer["columns"], outer["data"], name)
    # if there are strings, the object is one record, or has at least three texts by their ids
    if any(isinstance(item, str) for item in inner):
        is_record = not all(isinstance(item, str) for item in inner) or _has_usual_name(outer)
        return values if is_record or len(inner) < 3 else inner
    if len(tables) > 1:
        raise DataError(
            f"{name} has several lists of records: {', '.join(tables)}. Save the one to read as a"
            " file."
        )
    if tables:
        return lists[tables[0]]
    # several lists and nothing else: they are columns
    if len(lists) == len(inner) > 1:
        return _join_rows(list(outer), list(itertools.zip_longest(*inner)), name)
    # a wrapper of one list of texts
    if len(lists) == 1 and isinstance(next(iter(lists.values()))[0], str):
        return next(iter(lists.values()))
    # no values, or values that are not all objects: a single record
    if not inner or not all(isinstance(item, Mapping) for item in inner):
        return values
    if len(inner) == 1 and any(isinstance(item, list | Mapping) for item in inner[0].values()):
        return _find_records(inner, name)  # nested, as in {"data": {"reviews": [...]}}
    keys = dict.fromkeys(itertools.chain.from_iterable(inner))  # of all inner objects
    are_rows = all(map(str.isdecimal, keys)) or _has_usual_name(outer)
    if _has_usual_name(keys) or not are_rows:
        return inner  # records by their ids
    # columns, as pandas writes them
    return [{column: cells.get(key) for column, cells in outer.items()} for key in keys]


def _has_usual_name(names: Iterable[str]) -> bool:
    """Return whether one of the names is usual for a column of text."""
    return not USUAL_NAMES.isdisjoint(map(str.lower, names))


def _join_rows(columns: list[Any], rows: list[Any], name: str) -> list[Any]:
    """Return a record for each row; the values of a row are in the order of the columns."""
    for row in rows:
        if len(row) != len(columns):
            raise DataError(
                f"{name} cannot be read: a row has {len(row)} values, and there are {len(columns)}"
                f" columns: {row!r:.60}."
            )
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _find_format(path: Path) -> tuple[str, list[str], int]:
    """Detect the format of a csv file: the separator, the column names, and the number of lines
    before the header, such as ``sep=;``.

    The separator is the character that is most frequent in the header, outside quotes. In a tsv
    file, the separator is a tab, unless the header has no tab and another separator fits the rows.
    Names that are empty or duplicate are changed, so that all are distinct.
    """
    csv.field_size_limit(_MAX_FIELD)
    with path.open(encoding="utf-8", newline="") as stream:
        lines = stream.readlines(_CSV_HEAD)
    # the blank lines at the beginning, and then the line "sep=...", are skipped
    skipped = next((number for number, line in enumerate(lines) if line.strip("\r\n")), len(lines))
    match = _SEPARATOR_LINE.fullmatch("".join(lines[skipped : skipped + 1]))
    lines = lines[skipped + bool(match) :]
    skipped += bool(match)
    # each quoted field is replaced by "q", since its separators do not count
    bare = re.sub(r'"[^"]*"', "q", "".join(lines)).splitlines()
    header = next(filter(str.strip, bare), "")
    separator = match[1] if match else max(_SEPARATORS, key=header.count)
    if path.suffix == ".tsv" and not match:
        probed = itertools.islice(csv.reader(lines, delimiter=separator), _PROBED_ROWS)
        lengths = [len(row) for row in probed if row]
        fits_rows = len(lengths) > 1 and len(set(lengths)) == 1 and lengths[0] > 1
        if not fits_rows or "\t" in header:
            separator = "\t"
    names: list[str] = []
    for number, column in enumerate(next(csv.reader(lines, delimiter=separator), ()), 1):
        name = column.replace("\n", " ") or f"column {number}"
        names.append(f"{name} ({number})" if name in names else name)
    return separator, names, skipped


def _read_csv(path: Path, name: str) -> Iterator[dict[str, str]]:
    """Yield the rows of a UTF-8 csv file; all values are strings.

    In a row of one line, a quoted text may have quotes that are not doubled, as in ``"He said "no"
    twice"``, but not after a backslash.

    Raises:
        DataError: A row has more or fewer fields than the header; or a quoted text is never closed;
            or it has quotes that are not doubled, and the row has several lines or backslashes
            before quotes. If this were accepted, several rows could be read as one text, or texts
            would lose their quotes.
    """
    separator, names, skipped = _find_format(path)
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
                # only a single line with paired quotes, none of them after a backslash, is read
                # again, less strictly
                if first != last or lines[0].count('"') % 2 or '\\"' in lines[0]:
                    raise _quote_error(name, first, last, lines[-1], str(error)) from None
                (row,) = csv.reader(lines, delimiter=separator)
            if not row:
                continue
            number += 1
            if len(row) != len(names):
                raise DataError(
                    f"{name} cannot be read: row {number:,} has {counted(len(row), 'field')}, and"
                    f" the header has {len(names)}: {shortened(lines[0].strip(), 60)!r}. In that"
                    f" row, put each text with a {separator!r} or a line break in double quotes,"
                    " double the quotes inside it, and keep the separators of missing values."
                )
            if number > 1:
                yield dict(zip(names, row, strict=True))


def _quote_error(name: str, first: int, last: int, line: str, problem: str) -> DataError:
    """Return the error for a double quote in the lines ``first`` to ``last``; ``line`` is the last
    of them, and ``problem`` is the message of the csv module.
    """
    how = f"is closed within a text, in line {last:,}"
    if '\\"' in line:
        how = "has quotes after backslashes"
    elif "end of data" in problem:
        how = "is never closed"
    return DataError(
        f"{name} cannot be read: the double quote opened in line {first:,} {how}; close it where"
        " its text ends, and double the quotes inside it."
    )


def _read_parquet(path: Path, columns: Sequence[str] | None) -> Iterator[Any]:
    """Yield the rows of a parquet file; only a part of it is in memory at a time."""
    from pyarrow.parquet import ParquetFile  # takes a tenth of a second to import

    with ParquetFile(path, buffer_size=_BUFFER) as file:
        wanted = needed_columns(file.schema_arrow.names, columns)
        # one call for all row groups would keep what it has read of each in memory
        for group in range(file.num_row_groups):
            batches = file.iter_batches(ROWS, [group], wanted, use_threads=False)
            yield from records_of(batches)


def needed_columns(names: Sequence[str], columns: Sequence[str] | None) -> list[str]:
    """Return those of a table's column names that are needed for ``columns`` (None: all of them).

    A nested column ``a.b`` is in the table's column ``a``.
    """
    wanted = set(names)
    if columns is not None:
        wanted = {*columns, *(column.partition(".")[0] for column in columns)}
    return [name for name in names if name in wanted]


def _arrow_batches(path: Path) -> "Iterator[pyarrow.RecordBatch]":
    """Yield the batches of an Arrow file, in the file format or in the stream format."""
    import pyarrow

    with pyarrow.memory_map(str(path)) as source:
        try:
            file = pyarrow.ipc.open_file(source)
            yield from map(file.get_batch, range(file.num_record_batches))
        except pyarrow.ArrowInvalid:
            source.seek(0)
            yield from pyarrow.ipc.open_stream(source)


def records_of(chunks: Iterable[Any], columns: Sequence[str] | None = None) -> Iterator[Any]:
    """Yield the records of chunks; each chunk is an Arrow batch or a list of records."""
    for chunk in chunks:
        if isinstance(chunk, Sequence):
            yield from chunk
            continue
        for start in range(0, len(chunk), ROWS):
            batch = chunk.slice(start, ROWS)
            yield from batch.select(needed_columns(batch.schema.names, columns)).to_pylist()


def read_schema(file: PlainFile) -> "pyarrow.Schema | None":
    """Return the schema of a parquet or an Arrow file; None for other formats, and for an Arrow
    file without rows.
    """
    if file.kind == "parquet":
        from pyarrow.parquet import read_schema as read

        return read(file.path)
    batches = _arrow_batches(file.path) if file.kind == "arrow" else ()
    return next((batch.schema for batch in batches), None)


def _read_sqlite(path: Path, sql: str | None) -> Iterator[dict[str, Any]]:
    """Yield the rows that a query returns from a SQLite database; without a query, the rows of the
    database's only table.

    Raises:
        ConfigError: No query is given, and there is not exactly one table; or the query is wrong.
    """
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        tables = [name for (name,) in connection.execute(_SQLITE_TABLES)]
        first = '"{}"'.format(tables[0].replace('"', '""')) if tables else "reviews"
        if sql is None and len(tables) != 1:
            raise ConfigError(
                f"{path} has the tables {', '.join(tables) or '(none)'}: say what to read with"
                f" --sql (sql in Python), as in 'select text from {first}'."
            )
        query = sql or f"select * from {first}"
        if not _SELECT.match(query):
            raise ConfigError(
                f"The query {quoted(sql)} must begin with SELECT or WITH: a query only reads."
            )
        try:
            cursor = connection.execute(query)
            names = [column[0] for column in cursor.description]
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
    # an empty sheet has no rows; then [[]] gives an empty header
    header, *rows = _open_workbook(path).get_sheet_by_index(0).to_python() or [[]]
    names = list(map(str, header))
    yield [dict(zip(names, row, strict=False)) for row in rows]


def note_sheets(file: PlainFile) -> list[str]:
    """Return a note for the user if a file is a spreadsheet with several sheets."""
    if file.kind != "xlsx":
        return []
    first, *others = _open_workbook(str(file.path)).sheet_names
    note = (
        f"Of {file.name}, only the first sheet, {first!r}, is read; to read another, save it as"
        f" csv: {', '.join(others)}."
    )
    return [note] if others else []


def _open_workbook(path: str) -> Any:
    """Return the opened spreadsheet; raise if its reader is not installed, or a cell is far off."""
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
            if not member.startswith("xl/worksheets/"):
                continue
            cells = _CELL.findall(archive.read(member))
            width = max(map(_column_number, {column for column, _ in cells}), default=0)
            height = max((int(row) for _, row in cells), default=0)
            if width * height > _MAX_CELLS:
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
