"""The rows of some consecutive texts of a table, as lines of JSON, with a hash of each text. A part is complete or not there."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from reviewgen.data import hash_text
from reviewgen.storage import write_file, write_new
from reviewgen.writing.layout import encode_row

Write: TypeAlias = Callable[[Path, Callable[[Path], None]], None]
"""Creates a file under a name with what a function writes."""


@dataclass(frozen=True, slots=True)  # there may be millions
class TextPart:
    """One part.

    Attributes:
        folder: The folder of all parts.
        number: Its number, from 0.
    """

    folder: Path
    number: int

    @property
    def rows_file(self) -> Path:
        """The file of the rows; it is written last."""
        return self.folder / f"{self.number:06d}.jsonl"

    @property
    def _index_file(self) -> Path:
        return self.folder / f"{self.number:06d}.hashes"

    def is_finished(self, is_finished: Callable[[Path], bool]) -> bool:
        """Return whether it is complete, and not damaged since.

        Args:
            is_finished: Returns the same of a file.
        """
        return is_finished(self._index_file) and is_finished(self.rows_file)

    @property
    def count(self) -> int:
        """The number of texts."""
        return self._index_file.stat().st_size // 8

    def index(self) -> np.ndarray:
        """Return the content hash of each text, (N, 1)."""
        return np.fromfile(self._index_file, np.uint64).reshape(-1, 1)

    def write(self, rows: Iterable[Mapping[str, Any]], write: Write = write_new) -> None:
        """Write the rows; each has a text.

        Args:
            rows: The rows.
            write: Writes a file, as ``write_new`` does; called for that of the hashes, then for that of the rows.
        """
        lines, hashes = [], []
        for row in rows:
            lines.append(encode_row(row))
            hashes.append(hash_text(row["text"]))
        for file in (self.rows_file, self._index_file):  # one of them may be there
            file.unlink(missing_ok=True)
        write(self._index_file, lambda file: write_file(file, np.array(hashes, np.uint64).tobytes()))
        write(self.rows_file, lambda file: write_file(file, b"".join(lines)))

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows as they were written."""
        with self.rows_file.open("rb") as stream:
            return [json.loads(line) for line in stream]

    def lines(self, wanted: np.ndarray) -> Iterator[bytes]:
        """Yield the rows with some numbers, sorted."""
        with self.rows_file.open("rb") as stream:
            lines = stream.readlines()
        return (lines[number] for number in wanted.tolist())
