"""The shards of a table: where they are written, with which columns, and their rows as lines of JSON or as parquet."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from reviewgen.config import check_count, check_text
from reviewgen.errors import ConfigError, did_you_mean, quoted
from reviewgen.storage import check_output, to_path

Row = dict[str, Any]
FORMATS = ("jsonl", "parquet")
SHARD_TEXTS = 10_000
"""The number of texts in a shard, by default."""

_MAX_SHARDS = 100_000  # the manifest names each, and a file system is slow with more files in a folder
_OTHER_FILES = ("json", "txt", "csv", "tsv")
_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Layout:
    """How a table is written.

    Attributes:
        out: The folder of the shards, or one file.
        is_file: Whether it is one file.
        format: "jsonl" or "parquet".
        shard_texts: The number of texts in a shard; the last has fewer.
        columns: The pyarrow type of each column, as in {"text": "string"}.
    """

    out: Path
    is_file: bool
    format: str
    shard_texts: int
    columns: Mapping[str, str]

    @classmethod
    def make(cls, out: Any, format: str | None, shard_texts: int, columns: Mapping[str, str]) -> "Layout":
        """Return the layout of a table.

        Args:
            out: A folder, or a file whose suffix is .jsonl or .parquet.
            format: The format; None is that of the file, or jsonl.
            shard_texts: The number of texts in a shard.
            columns: The type of each column.

        Raises:
            ConfigError: An argument is unusable.
            OutputExists: ``out`` is the current folder or the root.
        """
        path = to_path("out", out)
        if not path.name:  # "." or "/", which exist
            check_output(path)
        suffix = path.suffix.removeprefix(".").lower()
        if suffix in _OTHER_FILES:
            raise ConfigError(f"out={path.name} must be a folder, or a file whose name ends in .jsonl or .parquet.")
        check_text("format", format, optional=True)
        is_file = suffix in FORMATS
        format = format if format is not None else suffix if is_file else FORMATS[0]
        if format not in FORMATS:
            raise ConfigError(f"The format {quoted(format)} is unknown. {did_you_mean(format, FORMATS)}")
        if is_file and format != suffix:
            raise ConfigError(f"out={path.name} is a file of {suffix}, and the format is {format}: leave the format out.")
        check_count("shard_texts", shard_texts)
        return cls(path, is_file, format, shard_texts, columns)

    def refuse_many(self, texts: int) -> None:
        """Raise if a number of texts would be written to too many shards.

        Raises:
            ConfigError: It would; says how many texts a shard has to have.
        """
        if math.ceil(texts / self.shard_texts) > _MAX_SHARDS:
            raise ConfigError(
                f"A table has at most {_MAX_SHARDS:,} shards: for {texts:,} texts, shard_texts must be at least "
                f"{math.ceil(texts / _MAX_SHARDS):,}; got {self.shard_texts:,}."
            )

    def facts(self) -> dict[str, Any]:
        """Return what decides the files besides the rows, as JSON values by name."""
        return {"format": self.format, "shard_texts": self.shard_texts, "columns": dict(self.columns)}

    def writable(self, row: Row) -> Row:
        """Return a row as it can be read back: parquet has U+FFFD for lone surrogates, which UTF-8 lacks and JSON escapes."""
        if self.format == "jsonl":
            return row
        return {name: _SURROGATES.sub("\ufffd", value) if isinstance(value, str) else value for name, value in row.items()}

    def write_rows(self, file: Path, rows: Iterable[Row]) -> None:
        """Write rows to a file."""
        if self.format == "jsonl":
            with file.open("wb") as stream:
                for row in rows:
                    line = json.dumps(row, ensure_ascii=False, allow_nan=False)
                    stream.write(line.encode("utf-8", "backslashreplace") + b"\n")
            return
        import pyarrow as pa  # a tenth of a second
        from pyarrow import parquet

        schema, rest = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in self.columns.items()]), iter(rows)
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
