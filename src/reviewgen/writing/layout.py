"""Where a table is written, in which format and with which columns; knows nothing of what the rows say."""

import json
import math
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reviewgen.config import check_count, check_text
from reviewgen.errors import ConfigError, did_you_mean, quoted
from reviewgen.storage import refuse_existing, to_path

FORMATS = ("jsonl", "parquet")
_SURROGATES = re.compile("[\ud800-\udfff]")
SHARD_TEXTS = 10_000
"""The number of texts in a shard, by default."""

_MAX_SHARDS = 100_000  # the manifest names each, and a file system is slow with more files in a folder


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

    def name(self, number: int, count: int) -> str:
        """Return the file name of a shard, as ``datasets`` names those of a split."""
        return f"train-{number:05d}-of-{count:05d}.{self.format}"

    def refuse_many(self, texts: int) -> None:
        """Raise if a number of texts would be written to too many shards.

        Raises:
            ConfigError: It would; says how many texts a shard has to have.
        """
        if not self.is_file and math.ceil(texts / self.shard_texts) > _MAX_SHARDS:
            raise ConfigError(
                f"A table has at most {_MAX_SHARDS:,} shards: for {texts:,} texts, shard_texts must be at least "
                f"{math.ceil(texts / _MAX_SHARDS):,}; got {self.shard_texts:,}."
            )

    def facts(self) -> dict[str, Any]:
        """Return what decides the files besides the rows, as JSON values by name."""
        return {"format": self.format, "shard_texts": self.shard_texts, "columns": dict(self.columns)}


def make_layout(out: Any, format: str | None, shard_texts: int, columns: Mapping[str, str], *, may_be_file: bool) -> Layout:
    """Return the layout of a table.

    Args:
        out: A folder; with ``may_be_file`` also a file, whose suffix is .jsonl or .parquet.
        format: The format; None is that of the file, or jsonl.
        shard_texts: The number of texts in a shard.
        columns: The type of each column.
        may_be_file: Whether the table can be one file.

    Raises:
        ConfigError: An argument is unusable.
        OutputExists: ``out`` is the current folder or the root.
    """
    path = to_path("out", out)
    if not path.name:  # "." or "/", which exist
        refuse_existing(path)
    suffix = path.suffix.removeprefix(".").lower()
    is_file = may_be_file and suffix in FORMATS
    if suffix in FORMATS and not may_be_file:
        raise ConfigError(
            f"The shards are written to a folder, and {path.name} is the name of a file. Give a folder as out, such as "
            f"{path.stem}."
        )
    check_text("format", format, optional=True)
    if format is None:
        format = suffix if is_file else FORMATS[0]
    if format not in FORMATS:
        raise ConfigError(f"The format {quoted(format)} is unknown. {did_you_mean(format, FORMATS)}")
    if is_file and format != suffix:
        raise ConfigError(f"out={path.name} is a file of {suffix}, and the format is {format}: leave the format out.")
    check_count("shard_texts", shard_texts)
    return Layout(path, is_file, format, shard_texts, columns)


def encode_row(row: Mapping[str, Any]) -> bytes:
    """Return a row as a line of JSON."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"


def write_shard(file: Path, lines: Iterable[bytes], layout: Layout) -> None:
    """Write rows, given as lines of JSON, to a file in the format of a layout."""
    if layout.format == "jsonl":
        with file.open("wb") as stream:
            stream.writelines(lines)
        return
    import pyarrow as pa  # a tenth of a second
    from pyarrow import parquet

    table = pa.Table.from_pylist([_encodable(json.loads(line)) for line in lines], schema=_schema(layout))
    parquet.write_table(table, file.absolute(), compression="zstd")  # of "a:b", pyarrow would take a for a protocol


def _encodable(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row whose texts have U+FFFD for lone surrogates, which UTF-8 lacks; JSON has an escape for them."""
    return {name: _SURROGATES.sub("\ufffd", value) if isinstance(value, str) else value for name, value in row.items()}


def join_shards(files: Sequence[Path], file: Path, layout: Layout) -> None:
    """Write the rows of shards to one file."""
    if layout.format == "jsonl":
        with file.open("wb") as stream:
            for shard in files:
                with shard.open("rb") as source:
                    shutil.copyfileobj(source, stream, 1 << 20)
        return
    from pyarrow import parquet

    with parquet.ParquetWriter(file.absolute(), _schema(layout), compression="zstd") as writer:
        for shard in files:
            writer.write_table(parquet.read_table(shard.absolute()))


def _schema(layout: Layout) -> Any:
    import pyarrow as pa

    return pa.schema([(name, pa.type_for_alias(kind)) for name, kind in layout.columns.items()])
