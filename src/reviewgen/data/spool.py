"""The spool: the cleaned texts and their condition values in two files of JSON lines, kept while a corpus is tokenized."""

import itertools
import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reviewgen.data.cleaned_rows import JsonLines

__all__ = ["LineRange", "Spool", "read_spool"]

_RANGE_BYTES = 1 << 23  # about, in one LineRange
_decode_json = json.JSONDecoder().raw_decode  # json.loads looks for white space first


@dataclass(frozen=True)
class LineRange:
    """A contiguous range of lines of a spool file.

    Attributes:
        offset: Where it starts in the file, in bytes.
        first: The number of its first line, from 0.
        count: The number of lines.
    """

    offset: int
    first: int
    count: int


class Spool:
    """The two files while they are written.

    Attributes:
        hashes: The content hash of each text.
    """

    def __init__(self, texts: Path, values: Path) -> None:
        self.hashes = array("Q")
        self._texts, self._values = texts.open("wb"), values.open("wb")
        self._starts = [(0, 0)]  # (bytes, lines) before each range
        self._bytes = 0

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *error: object) -> None:
        with self._texts, self._values:
            pass

    def add(self, lines: JsonLines, kept: np.ndarray) -> None:
        """Write the lines selected by a mask (N,)."""
        texts = list(itertools.compress(lines.texts, kept))
        self._texts.writelines(texts)
        self._values.writelines(itertools.compress(lines.values, kept))
        self.hashes.frombytes(lines.hashes[kept].tobytes())
        self._bytes += sum(map(len, texts))
        if self._bytes - self._starts[-1][0] >= _RANGE_BYTES:
            self._starts.append((self._bytes, len(self.hashes)))

    def ranges(self) -> list[LineRange]:
        """Return the ranges that the file of the texts divides into."""
        ends = [*self._starts[1:], (self._bytes, len(self.hashes))]
        pairs = zip(self._starts, ends, strict=True)
        return [LineRange(offset, first, end - first) for (offset, first), (_, end) in pairs if end > first]


def read_spool(file: Path, wanted: np.ndarray, offset: int = 0) -> Iterator[Any]:
    """Yield the decoded lines selected by a mask (N,), of the N lines that start at a byte offset of the file."""
    with file.open("rb") as stored:
        stored.seek(offset)
        for line in itertools.compress(stored, wanted):
            yield _decode(line)


def _decode(line: bytes) -> Any:
    """Return the value of a line; that of a string without escapes, as most are, need not be parsed."""
    if line.startswith(b'"') and b"\\" not in line:
        return line[1:-2].decode("utf-8", "surrogatepass")
    return _decode_json(line.decode("utf-8", "surrogatepass"))[0]
