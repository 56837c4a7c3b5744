"""Prepared files of one format as a stream of records, and in parts that several processes may read. Knows no columns.

Parquet is read by pyarrow, row group by row group; everything else by ``datasets``.
"""

import contextlib
import glob
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reviewgen.errors import DataError

__all__ = ["Shard", "raise_data_errors", "reading_error"]

_BLANK_LINES = re.compile(r"\n(?:[^\S\n]*\n)+")
_PARQUET_BUFFER = 1 << 20  # bytes of a column read at a time
_PARQUET_ROWS = 1024  # read at a time
_PART_BYTES = 1 << 23  # of files that are worth a task
_SAMPLE_BY = {"line": "line", "paragraph": "paragraph", "file": "document"}


@dataclass(frozen=True)
class Shard:
    """Files of a source and how to read them; its fields are JSON values, so that it can be sent to another process.

    Attributes:
        name: The name of the source, for messages.
        kind: "text", "csv", "json" or "parquet".
        paths: The prepared files; see ``prepare_files``.
        originals: The user's files, for messages.
        documents: How a txt file is cut into texts: "line", "paragraph" or "file".
        options: The separator and the columns of csv files.
    """

    name: str
    kind: str
    paths: Sequence[str]
    originals: Sequence[str]
    documents: str
    options: Mapping[str, Any]

    @property
    def size(self) -> int:
        """The size of the files on disk, in bytes."""
        return sum(Path(path).stat().st_size for path in self.paths)

    def parts(self) -> "list[Shard]":
        """Return the files in parts, in order; small files share a part."""
        parts, first, size = [], 0, 0
        for last, path in enumerate(self.paths, 1):
            size += Path(path).stat().st_size
            if size >= _PART_BYTES or last == len(self.paths):
                parts.append(self._part(first, last))
                first, size = last, 0
        return parts

    def _part(self, first: int, last: int) -> "Shard":
        originals = self.originals[first:last]
        name = originals[0] if len(originals) == 1 else f"{originals[0]} to {originals[-1]}"
        return replace(self, name=name, paths=self.paths[first:last], originals=originals)

    def records(self, columns: Sequence[str] | None = None) -> Iterator[Any]:
        """Yield the records: strings, or mappings of column to value.

        Args:
            columns: The columns that are needed; a parquet file's other columns are not read. None reads all.

        Raises:
            DataError: A file cannot be read.
        """
        records = _read_parquet(self.paths, columns) if self.kind == "parquet" else self._read_with_datasets()
        return raise_data_errors(records, self.name)

    def _read_with_datasets(self) -> Iterator[Any]:
        from datasets import load_dataset  # half a second

        logging.getLogger("datasets.packaged_modules").setLevel(logging.CRITICAL)  # it logs each error that it also raises
        paths = [glob.escape(path) for path in self.paths]  # datasets treats a path as a glob
        with _no_download_counts():
            records = load_dataset(
                self.kind, data_files={"train": paths}, split="train", streaming=True, **self._reader_options()
            )
        texts = (record["text"] for record in records) if self.kind == "text" else records
        yield from _split_paragraphs(texts) if self.documents == "paragraph" else texts

    def _reader_options(self) -> dict[str, Any]:
        """Return the options with which ``datasets`` reads each value unchanged."""
        if self.kind == "text":
            return {"sample_by": _SAMPLE_BY[self.documents]}
        if self.kind != "csv":
            return {}
        from datasets import Features, Value

        names = self.options["columns"]
        features = Features({name: Value("string") for name in names})  # "007" is not a number
        options: dict[str, Any] = {"sep": self.options["separator"], "na_filter": False, "features": features}
        return {**options, "names": names, "header": 0} if self.options["has_renamed"] else options


def _read_parquet(paths: Iterable[str], columns: Sequence[str] | None) -> Iterator[Mapping[str, Any]]:
    from pyarrow.parquet import ParquetFile  # a tenth of a second

    for path in paths:
        with ParquetFile(path, buffer_size=_PARQUET_BUFFER) as file:
            existing = file.schema_arrow.names
            wanted = None if columns is None else [column for column in dict.fromkeys(columns) if column in existing]
            for batch in file.iter_batches(_PARQUET_ROWS, columns=wanted, use_threads=False):
                yield from batch.to_pylist()


@contextlib.contextmanager
def _no_download_counts() -> Iterator[None]:
    """Keep ``datasets`` from reporting to the Hub, and waiting for its answer, that it reads a local file."""
    from datasets import config

    before = getattr(config, "HF_UPDATE_DOWNLOAD_COUNTS", False)
    config.HF_UPDATE_DOWNLOAD_COUNTS = False
    try:
        yield
    finally:
        config.HF_UPDATE_DOWNLOAD_COUNTS = before


def _split_paragraphs(texts: Iterable[str]) -> Iterator[str]:
    """Split texts at blank lines, including those with spaces in them."""
    for text in texts:
        yield from (part for part in (piece.strip("\n") for piece in _BLANK_LINES.split(text)) if part.strip())


def raise_data_errors(records: Iterable[Any], name: str | Path) -> Iterator[Any]:
    """Yield records; raise any error of the reader as a DataError of one sentence."""
    try:
        yield from records
    except (DataError, KeyboardInterrupt):
        raise
    except Exception as error:  # pandas, pyarrow and datasets raise types of their own, and a user's iterable any
        raise reading_error(name, error) from None


def reading_error(name: str | Path, error: Exception) -> DataError:
    """Return a DataError that says in one sentence why a source cannot be read."""
    lines = str(error).strip(" \n\"'").splitlines() or [type(error).__name__]
    return DataError(f"{name} cannot be read: {lines[0].rstrip('.')}.")
