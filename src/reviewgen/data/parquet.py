"""Reads the rows of a parquet file with pyarrow, row group by row group. Knows nothing of what the columns hold.

A column of a row group says how large its values are together, packed and unpacked, so that most values that would not fit into
memory are refused before they are read.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reviewgen.data.lines import MAX_TEXT_CHARACTERS, too_long
from reviewgen.data.spans import Span
from reviewgen.errors import DataError

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

__all__ = ["read_table"]

_BUFFER = 1 << 20  # bytes of a column read at a time
_ROWS, _BYTES = 1024, 1 << 26  # turned into Python values at a time, at most
_MAX_UTF8 = 4  # bytes of a character
_MAX_RATIO, _ALWAYS_UNPACKED = 100, 1 << 26  # times the packed size of a column, and bytes; as for gzip files


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
        DataError: The values of a column are longer, on average over a row group, or it unpacks to far more than its size.
    """
    from pyarrow.parquet import ParquetFile  # a tenth of a second

    with ParquetFile(path, buffer_size=_BUFFER) as file:
        existing = file.schema_arrow.names
        wanted = None if columns is None else [column for column in dict.fromkeys(columns) if column in existing]
        for group in range(file.num_row_groups) if span is None else range(*span):
            row_bytes = _row_bytes(file, group, wanted, name, limit)
            rows = max(1, min(_ROWS, int(_BYTES / max(1.0, row_bytes))))
            for batch in file.iter_batches(rows, row_groups=[group], columns=wanted, use_threads=False):
                yield from batch.to_pylist()


def _row_bytes(file: "ParquetFile", group: int, wanted: Sequence[str] | None, name: str, limit: int) -> float:
    """Return the bytes of a row of a row group, on average over its rows and without compression; raises as ``read_table``."""
    meta, total = file.metadata.row_group(group), 0.0
    for number in range(meta.num_columns):
        column = meta.column(number)
        if wanted is not None and column.path_in_schema.partition(".")[0] not in wanted:
            continue
        if column.total_uncompressed_size > max(_ALWAYS_UNPACKED, _MAX_RATIO * column.total_compressed_size):
            raise DataError(
                f"{name} unpacks to more than {_MAX_RATIO} times its size in the column {column.path_in_schema!r}: no text does."
            )
        if column.total_uncompressed_size > _MAX_UTF8 * limit * max(1, meta.num_rows):
            raise too_long(f"On average, a value of the column {column.path_in_schema!r} of {name}", limit)
        total += column.total_uncompressed_size
    return total / max(1.0, float(meta.num_rows))
