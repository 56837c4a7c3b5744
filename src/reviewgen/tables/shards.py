"""The rows of a table as files: lines of JSON, or parquet."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

Row = dict[str, Any]
FORMATS = ("jsonl", "parquet")
SHARD_TEXTS = 10_000
"""The number of texts in a shard, by default."""

_SURROGATES = re.compile("[\ud800-\udfff]")


def writable(row: Row, format: str) -> Row:
    """Return a row as it can be read back: parquet has U+FFFD for lone surrogates, which UTF-8 lacks and JSON escapes."""
    if format == "jsonl":
        return row
    return {name: _SURROGATES.sub("\ufffd", value) if isinstance(value, str) else value for name, value in row.items()}


def write_rows(file: Path, rows: Iterable[Row], format: str, columns: Mapping[str, str]) -> None:
    """Write rows to a file; ``columns`` are the pyarrow types of their values, as in {"text": "string"}."""
    if format == "jsonl":
        with file.open("wb") as stream:
            for row in rows:
                line = json.dumps(row, ensure_ascii=False, allow_nan=False)
                stream.write(line.encode("utf-8", "backslashreplace") + b"\n")
        return
    import pyarrow as pa  # a tenth of a second
    from pyarrow import parquet

    schema, rest = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in columns.items()]), iter(rows)
    with parquet.ParquetWriter(file.absolute(), schema, compression="zstd") as writer:  # of "a:b", a would be a protocol
        while batch := list(islice(rest, SHARD_TEXTS)):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))


def read_rows(file: Path) -> Iterator[Row]:
    """Yield the rows of a shard."""
    if file.suffix == ".jsonl":
        with file.open("rb") as stream:
            yield from map(json.loads, stream)
        return
    from pyarrow import parquet

    for batch in parquet.ParquetFile(file.absolute()).iter_batches():
        yield from batch.to_pylist()
