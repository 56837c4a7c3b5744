"""Cleaned rows in batches: in memory, or in the files by which a worker hands them over. Knows neither sources nor splits."""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from reviewgen.data.cleaning import Cleaner
from reviewgen.data.columns import Row, plain_rows
from reviewgen.data.shards import Shard

__all__ = ["CleanedRows", "Lines", "clean_rows", "clean_shard", "read_lines"]

_TEXTS, _CHARACTERS = 1024, 1 << 20  # where a batch ends
_spell = json.JSONEncoder(ensure_ascii=False).encode  # \u escapes would join two lone surrogates


@dataclass(frozen=True)
class Lines:
    """Cleaned rows as JSON, a line each: texts, and lists of the values of their conditions, if there are any."""

    texts: list[bytes]
    values: list[bytes]
    keys: np.ndarray  # (N,) uint64, of the texts
    lengths: np.ndarray  # (N,) int64, characters


@dataclass(frozen=True)
class CleanedRows:
    """Cleaned rows."""

    rows: list[Row]
    keys: np.ndarray  # (N,) uint64, of the texts

    @property
    def lengths(self) -> np.ndarray:
        """The number of characters of each text, (N,)."""
        return np.array([len(text) for text, _ in self.rows], np.int64)

    def spell(self) -> Lines:
        """Return the rows as JSON."""
        texts = [_line(text) for text, _ in self.rows]
        return Lines(texts, [_line(values) for _, values in self.rows if values], self.keys, self.lengths)


def _line(value: Any) -> bytes:
    return _spell(value).encode("utf-8", "surrogatepass") + b"\n"


def clean_rows(rows: Iterable[Row], cleaner: Cleaner) -> Iterator[CleanedRows]:
    """Yield what is left of rows; duplicates are still there."""
    kept, keys, characters = [], [], 0
    for text, values in rows:
        cleaned = cleaner(text)
        if cleaned is None:
            continue
        kept.append((cleaned[0], values))
        keys.append(cleaned[1])
        characters += len(text)
        if len(kept) == _TEXTS or characters > _CHARACTERS:
            yield CleanedRows(kept, np.array(keys, np.uint64))
            kept, keys, characters = [], [], 0
    yield CleanedRows(kept, np.array(keys, np.uint64))


def clean_shard(
    *, folder: str, shard: Mapping[str, Any], column: str | None, conditions: Sequence[str], cleaning: Mapping[str, bool]
) -> dict[str, int]:
    """Read and clean files into a new folder, for ``read_lines``, and return the counts of what was done; a worker's task.

    Args:
        folder: Where the lines go.
        shard: The fields of a Shard.
        column: That of the text; None where the rows are the texts.
        conditions: The columns of the conditions.
        cleaning: The options of the Cleaner.

    Raises:
        DataError: A file cannot be read.
    """
    files, cleaner, home = Shard(**shard), Cleaner(**cleaning), Path(folder)
    home.mkdir()
    rows = files.rows(None if column is None else [column, *conditions])
    with _create(home, "texts") as texts, _create(home, "values") as values, _create(home, "numbers") as numbers:
        for batch in clean_rows(plain_rows(rows, files.name, column, conditions), cleaner):
            lines = batch.spell()
            texts.writelines(lines.texts)
            values.writelines(lines.values)
            numbers.write(np.stack((lines.keys, lines.lengths.astype(np.uint64)), axis=1).tobytes())
    return asdict(cleaner.report)


def read_lines(folder: Path) -> Iterator[Lines]:
    """Yield what ``clean_shard`` wrote into a folder."""
    numbers = np.fromfile(folder / "numbers", np.uint64).reshape(-1, 2)
    with (folder / "texts").open("rb") as texts, (folder / "values").open("rb") as values:
        for first in range(0, len(numbers), _TEXTS):
            keys, lengths = numbers[first : first + _TEXTS].T
            lines, beside = (list(itertools.islice(file, len(keys))) for file in (texts, values))
            yield Lines(lines, beside, keys, lengths.astype(np.int64))


def _create(folder: Path, name: str) -> IO[bytes]:
    return (folder / name).open("wb")
