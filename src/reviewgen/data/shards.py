"""Prepared files of one format as a stream of records, and in parts that several processes may read. Knows no columns.

Text is read by ``documents``, csv by ``delimited``, parquet by ``parquet``, JSON lines by ``json_lines`` and other JSON by
``json_records``.
"""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import xxhash

from reviewgen.data.delimited import read_rows, row_spans
from reviewgen.data.documents import read_texts
from reviewgen.data.json_lines import is_json_lines, read_objects
from reviewgen.data.json_records import read_records
from reviewgen.data.lines import MAX_TEXT_CHARACTERS
from reviewgen.data.parquet import read_table
from reviewgen.data.spans import Span, spans_of
from reviewgen.errors import DataError, first_line

__all__ = ["Shard", "fingerprint", "raise_data_errors", "reading_error"]

_PART_BYTES = 1 << 23  # of files that are worth a task


@dataclass(frozen=True)
class Shard:
    """Files of a source and how to read them; its fields are JSON values, so that it can be sent to another process.

    Attributes:
        name: The name of the source, for messages.
        kind: "text", "csv", "json" or "parquet".
        paths: The prepared files; see ``prepare_files``.
        originals: The user's files, for messages.
        documents: How a txt file is cut into texts: "line", "paragraph", "sentence" or "file".
        max_characters: The maximum number of characters of a text; a txt file that is one text may have a billion.
        span: The part of a single large file, see ``spans_of``; None for whole files.
    """

    name: str
    kind: str
    paths: Sequence[str]
    originals: Sequence[str]
    documents: str
    max_characters: int = MAX_TEXT_CHARACTERS
    span: Span | None = None

    @property
    def size(self) -> int:
        """The size of the files on disk, in bytes."""
        return sum(Path(path).stat().st_size for path in self.paths)

    def parts(self, size: int | None = None) -> "list[Shard]":
        """Return the files in parts of about ``size`` bytes, in order; small files share a part, and large files have several."""
        size, parts, first, filled = size or _PART_BYTES, [], 0, 0
        for last, path in enumerate(self.paths, 1):
            spans = self._spans(Path(path), self.originals[last - 1], size)
            if spans and first < last - 1:
                parts.append(self._part(first, last - 1))
            parts += [self._part(last - 1, last, span) for span in spans]
            filled += Path(path).stat().st_size
            if spans:
                first, filled = last, 0
            elif filled >= size or last == len(self.paths):
                parts.append(self._part(first, last))
                first, filled = last, 0
        return parts

    def _spans(self, path: Path, original: str, size: int) -> list[Span]:
        if self.kind == "csv":
            return row_spans(path, original, size)
        return spans_of(path, self.kind, self.documents, size) if self.kind != "json" or is_json_lines(path) else []

    def _part(self, first: int, last: int, span: Span | None = None) -> "Shard":
        originals = self.originals[first:last]
        name = originals[0] if len(originals) == 1 else f"{originals[0]} to {originals[-1]}"
        if span is not None:
            name += f" ({'row groups' if self.kind == 'parquet' else 'bytes'} {span[0]:,} to {span[1]:,})"
        return replace(self, name=name, paths=self.paths[first:last], originals=originals, span=span)

    def records(self, columns: Sequence[str] | None = None) -> Iterator[Any]:
        """Yield the records: strings, or mappings of column to value.

        Args:
            columns: The columns that are needed; a parquet file's other columns are not read. None reads all.

        Raises:
            DataError: A file cannot be read.
        """
        files = zip(self.paths, self.originals, strict=True)
        return itertools.chain.from_iterable(self._read_file(Path(path), original, columns) for path, original in files)

    def _read_file(self, path: Path, original: str, columns: Sequence[str] | None) -> Iterator[Any]:
        """Yield the records of a file, whose errors name it."""
        limit = self.max_characters
        records: Iterator[Any]
        if self.kind == "parquet":
            records = read_table(path, original, columns, self.span, limit)
        elif self.kind == "csv":
            records = read_rows(path, original, limit, self.span)
        elif self.kind == "text":
            records = read_texts(path, self.documents, original, limit, self.span)
        elif is_json_lines(path):
            records = read_objects(path, original, limit, self.span)
        else:
            records = read_records(path, original, limit)
        return raise_data_errors(records, self.name if len(self.originals) == 1 else original)


def fingerprint(shard: Shard) -> list[Any]:
    """Return the suffix and the size of each file, and a hash of its content, which is computed as fast as the file is read."""
    facts = []
    for path in map(Path, shard.paths):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()
            facts.append([path.suffix, file.tell(), digest])
    return facts


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
    reason = first_line(error).strip("\"'").rstrip(".")
    return DataError(f"{name} cannot be read: {reason}.")
