"""Cuts a large file into spans that several processes may read: bytes of a file of lines, row groups of a parquet file.

Those of csv files are in ``delimited``.

The spans of a file are in order, and their records are those of the file. Knows no columns.
"""

import io
import itertools
from pathlib import Path

__all__ = ["Span", "edges_of", "find_lines", "open_lines", "spans_of"]

Span = tuple[int, ...]
"""The first byte, or row group, and the one after the last; of a csv file also the number of lines before."""

_MIN_BYTES = 1 << 16  # of a span
_PIECE = 1 << 20  # bytes of a line that are read at a time


def spans_of(path: Path, kind: str, documents: str, size: int) -> list[Span]:
    """Return the spans of a file, each of about ``size`` bytes; an empty list if the file is small or cannot be cut.

    Args:
        path: The prepared file.
        kind: Its format; "json" are JSON lines.
        documents: How a txt file is cut into texts.
        size: The size of a span in bytes.
    """
    edges = edges_of(path, size)
    if kind == "json" or (kind == "text" and documents != "file"):
        return list(itertools.pairwise(edges))
    return _row_groups(path, max(size, _MIN_BYTES)) if kind == "parquet" and edges else []


def edges_of(path: Path, size: int) -> list[int]:
    """Return bytes that cut a file into equal parts of about ``size`` bytes, with its first and its end; none if it is small."""
    total, size = path.stat().st_size, max(size, _MIN_BYTES)
    count = total // size
    return [total * number // count for number in range(count + 1)] if total >= 2 * size else []


def _row_groups(path: Path, size: int) -> list[Span]:
    from pyarrow.parquet import ParquetFile  # a tenth of a second

    with ParquetFile(path) as file:
        meta = file.metadata
        count = max(1, min(meta.num_row_groups, path.stat().st_size // size))
        edges = [meta.num_row_groups * number // count for number in range(count + 1)]
    return list(itertools.pairwise(edges)) if count > 1 else []


def find_lines(path: Path, span: Span, documents: str) -> Span:
    """Return the bytes of the lines whose texts start in a span of a txt file: whole lines, or between blank lines."""
    with path.open("rb") as file:
        start, stop = (_next_start(file, edge, documents) for edge in span)
    return start, stop


def open_lines(path: Path, start: int = 0, stop: int | None = None, newline: str | None = None) -> io.TextIOWrapper:
    """Open a file of UTF-8 between two bytes at which lines start; ``newline`` is that of ``open``."""
    if stop is None:
        return path.open(encoding="utf-8", newline=newline)
    raw = path.open("rb")
    raw.seek(start)
    return io.TextIOWrapper(io.BufferedReader(_Limited(raw, stop - start)), encoding="utf-8", newline=newline)


def _next_start(file: io.BufferedReader, edge: int, documents: str) -> int:
    """Return where the first text starts that begins at or after a byte."""
    if edge == 0:
        return 0
    file.seek(edge - 1)
    _skip_line(file)  # the rest of the line that the byte before the edge is in
    while documents != "line" and _skip_line(file) is False:
        pass
    return file.tell()


def _skip_line(file: io.BufferedReader) -> bool | None:
    """Skip a line, of any length in little memory; return whether it is blank, and None at the end of the file."""
    is_blank = None
    while piece := file.readline(_PIECE):
        is_blank = piece.isspace() and is_blank is not False
        if piece.endswith(b"\n"):
            break
    return is_blank


class _Limited(io.RawIOBase):
    """The next bytes of a file, as a file; closes it."""

    def __init__(self, file: io.BufferedReader, size: int) -> None:
        self._file, self._left = file, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed's Buffer has no slices
        count: int = self._file.readinto(buffer[: min(len(buffer), self._left)])
        self._left -= count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()
