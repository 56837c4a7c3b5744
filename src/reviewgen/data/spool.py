"""The spool: cleaned texts and the values of their conditions, a JSON line each, on disk while a corpus is tokenized."""

import io
import itertools
import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reviewgen.data.batches import Lines

__all__ = ["Piece", "Spool", "read_spool"]

_PIECE = 1 << 23  # bytes, about


@dataclass(frozen=True)
class Piece:
    """Some lines that lie one after the other: where they begin in the file, and which texts they are."""

    offset: int  # bytes
    first: int
    count: int


class Spool:
    """The two files while they are written; ``keys`` holds the 64-bit key of each text."""

    def __init__(self, texts: Path, values: Path) -> None:
        self.keys = array("Q")
        self._texts, self._values = texts.open("wb"), values.open("wb")
        self._marks = [(0, 0)]  # bytes and texts before each piece
        self._bytes = 0

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *error: object) -> None:
        with self._texts, self._values:
            pass

    def add(self, lines: Lines, kept: np.ndarray) -> None:
        """Write those lines that are kept (N,)."""
        texts = list(itertools.compress(lines.texts, kept))
        self._texts.writelines(texts)
        self._values.writelines(itertools.compress(lines.values, kept))
        self.keys.frombytes(lines.keys[kept].tobytes())
        self._bytes += sum(map(len, texts))
        if self._bytes - self._marks[-1][0] >= _PIECE:
            self._marks.append((self._bytes, len(self.keys)))

    def pieces(self) -> list[Piece]:
        """Return the parts of the texts' file."""
        ends = [*self._marks[1:], (self._bytes, len(self.keys))]
        return [Piece(*mark, end - mark[1]) for mark, (_, end) in zip(self._marks, ends, strict=True) if end > mark[1]]


def read_spool(file: Path, wanted: np.ndarray, offset: int = 0) -> Iterator[Any]:
    """Yield the values of the lines that are wanted, of the N that begin at a byte of the file; ``wanted`` is (N,)."""
    with file.open("rb") as stored:
        stored.seek(offset)
        lines = io.TextIOWrapper(stored, encoding="utf-8", errors="surrogatepass")
        yield from map(json.loads, itertools.compress(lines, wanted))
