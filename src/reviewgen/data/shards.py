"""Sound files of one kind as a stream of rows, and in parts that several processes may read. Knows no column.

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

__all__ = ["Shard", "plain_errors", "unreadable"]

_BLANK_LINES = re.compile(r"\n(?:[^\S\n]*\n)+")
_BUFFER = 1 << 20  # bytes of a parquet column read at a time
_PART = 1 << 23  # bytes of files that are worth a task of their own
_ROWS = 1024  # of a parquet file at a time
_SAMPLE_BY = {"line": "line", "paragraph": "paragraph", "file": "document"}


@dataclass(frozen=True)
class Shard:
    """Some files of a source and how they are read: strings and numbers only, so that another process can be told.

    Attributes:
        name: Of the source, for messages.
        kind: "text", "csv", "json" or "parquet".
        paths: Sound stand-ins of the files.
        originals: The files, for messages.
        documents: How a txt file is cut.
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
        """Bytes, as they lie on the disk."""
        return sum(Path(path).stat().st_size for path in self.paths)

    def parts(self) -> "list[Shard]":
        """Return the same files in parts, in order; small files share one."""
        parts, first, size = [], 0, 0
        for last, path in enumerate(self.paths, 1):
            size += Path(path).stat().st_size
            if size >= _PART or last == len(self.paths):
                parts.append(self._part(first, last))
                first, size = last, 0
        return parts

    def _part(self, first: int, last: int) -> "Shard":
        originals = self.originals[first:last]
        name = originals[0] if len(originals) == 1 else f"{originals[0]} to {originals[-1]}"
        return replace(self, name=name, paths=self.paths[first:last], originals=originals)

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[Any]:
        """Yield strings, or mappings of column to value; ``columns`` names those that are needed, to save time.

        Raises:
            DataError: A file cannot be read.
        """
        rows = _parquet_rows(self.paths, columns) if self.kind == "parquet" else self._other_rows()
        return plain_errors(rows, self.name)

    def _other_rows(self) -> Iterator[Any]:
        from datasets import load_dataset  # half a second

        logging.getLogger("datasets.packaged_modules").setLevel(logging.CRITICAL)  # it logs each error that it also raises
        paths = [glob.escape(path) for path in self.paths]  # datasets takes a path for a pattern
        with _uncounted():
            rows = load_dataset(self.kind, data_files={"train": paths}, split="train", streaming=True, **self._reader_options())
        texts = (row["text"] for row in rows) if self.kind == "text" else rows
        yield from _paragraphs(texts) if self.documents == "paragraph" else texts

    def _reader_options(self) -> dict[str, Any]:
        """Return what ``datasets`` needs to read each value as it stands."""
        if self.kind == "text":
            return {"sample_by": _SAMPLE_BY[self.documents]}
        if self.kind != "csv":
            return {}
        from datasets import Features, Value

        names = self.options["columns"]
        features = Features({name: Value("string") for name in names})  # "007" is no number
        options: dict[str, Any] = {"sep": self.options["separator"], "na_filter": False, "features": features}
        return {**options, "names": names, "header": 0} if self.options["has_renamed"] else options


def _parquet_rows(paths: Iterable[str], columns: Sequence[str] | None) -> Iterator[Mapping[str, Any]]:
    from pyarrow.parquet import ParquetFile  # a tenth of a second

    for path in paths:
        with ParquetFile(path, buffer_size=_BUFFER) as file:
            there = file.schema_arrow.names
            wanted = None if columns is None else [column for column in dict.fromkeys(columns) if column in there]
            for batch in file.iter_batches(_ROWS, columns=wanted, use_threads=False):
                yield from batch.to_pylist()


@contextlib.contextmanager
def _uncounted() -> Iterator[None]:
    """Keep ``datasets`` from telling a server on the internet, or waiting for it, that it reads a file on this machine."""
    from datasets import config

    before = getattr(config, "HF_UPDATE_DOWNLOAD_COUNTS", False)
    config.HF_UPDATE_DOWNLOAD_COUNTS = False
    try:
        yield
    finally:
        config.HF_UPDATE_DOWNLOAD_COUNTS = before


def _paragraphs(texts: Iterable[str]) -> Iterator[str]:
    """Cut at blank lines, those with spaces in them too."""
    for text in texts:
        yield from (part for part in (piece.strip("\n") for piece in _BLANK_LINES.split(text)) if part.strip())


def plain_errors(rows: Iterable[Any], name: str | Path) -> Iterator[Any]:
    """Yield rows; a reader's error becomes one sentence."""
    try:
        yield from rows
    except (DataError, KeyboardInterrupt):
        raise
    except Exception as error:  # pandas, pyarrow and datasets raise types of their own, and a caller's iterable any
        raise unreadable(name, error) from None


def unreadable(name: str | Path, error: Exception) -> DataError:
    """Return the sentence that says why a source cannot be read."""
    lines = str(error).strip(" \n\"'").splitlines() or [type(error).__name__]
    return DataError(f"{name} cannot be read: {lines[0].rstrip('.')}.")
