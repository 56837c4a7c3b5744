"""Reads the rows of a parquet file with pyarrow, row group by row group. Knows nothing of what the columns hold.

A column of a row group says how large its values are together, packed and unpacked, and the headers of its pages how large each
is. Values that would not fit into memory are refused before they are read, and as many rows are read at a time as fit.
"""

import io
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from reviewgen.data.lines import MAX_TEXT_CHARACTERS, too_long
from reviewgen.data.parquet_pages import Page, max_bytes, read_pages
from reviewgen.data.spans import Span
from reviewgen.errors import DataError

if TYPE_CHECKING:
    from pyarrow import RecordBatch
    from pyarrow.parquet import ParquetFile

__all__ = ["read_table"]

_BUFFER = 1 << 20  # bytes of a column read at a time
_ROWS, _BYTES = 1024, 1 << 26  # turned into Python values at a time, at most
_MAX_UTF8 = 4  # bytes of a character
_MAX_RATIO, _ALWAYS_UNPACKED = 100, 1 << 26  # times the packed size of a column, and bytes; as for gzip files
_FOOTER_END, _SIGNATURE = 8, 28  # bytes: the length of the footer and PAR1; what ends the footer of a file of encrypted columns
_MAX_PAGE = 1 << 28  # bytes; most writers begin a new page after one megabyte


def read_table(
    path: Path,
    name: str,
    columns: Sequence[str] | None = None,
    span: Span | None = None,
    limit: int = MAX_TEXT_CHARACTERS,
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file as mappings of column to value.

    Args:
        path: The file.
        name: The user's file, for messages.
        columns: The columns that are needed; None reads all.
        span: The row groups to read; None reads all.
        limit: The maximum number of characters of a text.

    Raises:
        DataError: A value of a column is longer, or all on average over a row group; or the column unpacks to far more than its
            size, or a page of it is larger than 256 MB; or columns are encrypted.
    """
    from pyarrow.parquet import ParquetFile  # a tenth of a second

    with ParquetFile(path, buffer_size=_BUFFER) as file, path.open("rb") as stream:
        _refuse_encrypted(file, stream, name)
        existing = file.schema_arrow.names
        wanted = None if columns is None else [column for column in dict.fromkeys(columns) if column in existing]
        for group in range(file.num_row_groups) if span is None else range(*span):
            if not file.metadata.row_group(group).num_rows:  # its columns do not say where they begin
                continue
            rows = _rows_at_a_time(file, path, stream, group, wanted, name, limit)
            for batch in file.iter_batches(rows, row_groups=[group], columns=wanted, use_threads=False):
                if batch.nbytes > _MAX_UTF8 * limit:
                    _refuse_long_values(batch, name, limit)
                at_a_time = rows if batch.nbytes <= _BYTES else 1  # of a page that cannot be read in parts
                for first in range(0, batch.num_rows, at_a_time):
                    yield from batch.slice(first, at_a_time).to_pylist()


def _refuse_encrypted(file: "ParquetFile", stream: BinaryIO, name: str) -> None:
    """Raise if columns are encrypted though the footer is not: pyarrow aborts the process when it is asked for their sizes."""
    stream.seek(-_FOOTER_END, io.SEEK_END)
    length = int.from_bytes(stream.read(4), "little")
    if length >= file.metadata.serialized_size + _SIGNATURE:
        raise DataError(f"{name} has encrypted columns, which cannot be read. Write it without encryption.")


def _rows_at_a_time(
    file: "ParquetFile", path: Path, stream: BinaryIO, group: int, wanted: Sequence[str] | None, name: str, limit: int
) -> int:
    """Return how many rows of a row group are read at a time; raises as ``read_table``."""
    meta, total, rows = file.metadata.row_group(group), 0.0, _ROWS
    for number in range(meta.num_columns):
        column = meta.column(number)
        if wanted is not None and not any(f"{column.path_in_schema}.".startswith(f"{each}.") for each in wanted):
            continue
        where = f"the column {column.path_in_schema!r}"
        if column.total_uncompressed_size > max(_ALWAYS_UNPACKED, _MAX_RATIO * column.total_compressed_size):
            raise DataError(f"{name} unpacks to more than {_MAX_RATIO} times its size in {where}: no text does.")
        if column.total_uncompressed_size > _MAX_UTF8 * limit * max(1, meta.num_rows):
            raise too_long(f"On average, a value of {where} of {name}", limit)
        total += column.total_uncompressed_size
        rows = min(rows, _rows_of_pages(file, path, stream, group, number, name))
    return max(1, min(rows, int(_BYTES / max(1.0, total / max(1, meta.num_rows)))))


def _rows_of_pages(file: "ParquetFile", path: Path, stream: BinaryIO, group: int, number: int, name: str) -> int:
    """Return how many rows of a column can be read at a time, by the pages that they touch."""
    column = file.metadata.row_group(group).column(number)
    where, start = f"the column {column.path_in_schema!r}", column.data_page_offset
    if column.has_dictionary_page and 0 < column.dictionary_page_offset < start:
        start = column.dictionary_page_offset
    try:
        pages = list(read_pages(stream, start, column.total_compressed_size))
    except ValueError as error:
        raise DataError(f"{name} cannot be read: {where} is damaged ({error}).") from None
    largest = max((page.size for page in pages), default=0)
    if largest > _MAX_PAGE:
        raise DataError(
            f"{name} has a page of {largest:,} bytes in {where}; at most {_MAX_PAGE:,} are read at once. Write the file "
            "with smaller pages or row groups."
        )
    dictionary = next((page for page in pages if page.is_dictionary), Page(True, 0, 0))
    longest = dictionary.size
    if longest * _ROWS > _BYTES:  # else few rows of most files would be read at a time, which is slow
        longest = _longest_value(file, path, group, number, dictionary)
    halves = (_ROWS >> times for times in itertools.count())
    return next(rows for rows in halves if rows <= 1 or max_bytes(pages, rows, longest) <= largest + _BYTES)


def _longest_value(file: "ParquetFile", path: Path, group: int, number: int, dictionary: Page) -> int:
    """Return the bytes of the longest value of a column's dictionary, or of the dictionary if it cannot be looked at."""
    from pyarrow import compute, types
    from pyarrow.parquet import ParquetFile

    column = file.metadata.row_group(group).column(number)
    if column.physical_type != "BYTE_ARRAY":
        return 0 if column.physical_type != "FIXED_LEN_BYTE_ARRAY" else dictionary.size  # 0: of at most twelve bytes
    if column.path_in_schema not in file.schema_arrow.names:  # a part of a list or a struct
        return dictionary.size
    options: dict[str, Any] = {"read_dictionary": [column.path_in_schema], "buffer_size": _BUFFER}
    with ParquetFile(path, metadata=file.metadata, **options) as again:
        batches = again.iter_batches(1, row_groups=[group], columns=[column.path_in_schema], use_threads=False)
        first = next(batches).column(column.path_in_schema)
    if not types.is_dictionary(first.type) or len(first.dictionary) != dictionary.values:
        return dictionary.size
    return int(compute.max(compute.binary_length(first.dictionary)).as_py() or 0)


def _refuse_long_values(batch: "RecordBatch", name: str, limit: int) -> None:
    """Raise if a text cannot have few enough characters: turned into Python's, it would take up to four times its bytes."""
    from pyarrow import compute, types

    for column, values in zip(batch.schema.names, batch.columns, strict=True):
        texts = values.dictionary if types.is_dictionary(values.type) else values
        if types.is_string(texts.type) or types.is_large_string(texts.type):
            longest = compute.max(compute.binary_length(texts)).as_py()
            if (longest or 0) > _MAX_UTF8 * limit:
                raise too_long(f"A value of the column {column!r} of {name}", limit)
