"""Cleaned examples, some at a time: in memory, or as JSON lines in the files through which a worker passes them on.

Knows neither sources nor splits.
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reviewgen.data.cleaning import Cleaner
from reviewgen.data.columns import Example, to_examples
from reviewgen.data.hub_shards import HubShard
from reviewgen.data.shards import Shard

__all__ = ["CleanedRows", "JsonLines", "clean_files", "clean_rows", "clean_shard", "read_json_lines"]

_MAX_TEXTS, _MAX_CHARACTERS = 1024, 1 << 20  # that one CleanedRows holds
_encode_json = json.JSONEncoder(ensure_ascii=False).encode  # \u escapes would join two lone surrogates


@dataclass(frozen=True)
class JsonLines:
    """Cleaned examples, each encoded as one line of JSON.

    Attributes:
        texts: The texts.
        values: The lists of condition values; empty if there are no conditions.
        hashes: The content hashes of the texts, (N,) uint64.
        lengths: Their numbers of characters, (N,) int64.
    """

    texts: list[bytes]
    values: list[bytes]
    hashes: np.ndarray
    lengths: np.ndarray


@dataclass(frozen=True)
class CleanedRows:
    """Cleaned examples with the hashes that find duplicates among them.

    Attributes:
        examples: The cleaned texts with their condition values.
        hashes: The content hashes of the texts, (N,) uint64.
    """

    examples: list[Example]
    hashes: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """The number of characters of each text, (N,)."""
        return np.array([len(text) for text, _ in self.examples], np.int64)

    def to_json_lines(self) -> JsonLines:
        """Return the examples encoded as JSON lines."""
        texts = [_json_line(text) for text, _ in self.examples]
        return JsonLines(texts, [_json_line(values) for _, values in self.examples if values], self.hashes, self.lengths)


def _json_line(value: Any) -> bytes:
    return _encode_json(value).encode("utf-8", "surrogatepass") + b"\n"


def clean_rows(examples: Iterable[Example], cleaner: Cleaner) -> Iterator[CleanedRows]:
    """Clean examples and yield those that are not empty, duplicates included, up to about 1,000 at a time."""
    kept, hashes, characters = [], [], 0
    for text, values in examples:
        cleaned = cleaner(text)
        if cleaned is None:
            continue
        kept.append((cleaned[0], values))
        hashes.append(cleaned[1])
        characters += len(text)
        if len(kept) == _MAX_TEXTS or characters > _MAX_CHARACTERS:
            yield CleanedRows(kept, np.array(hashes, np.uint64))
            kept, hashes, characters = [], [], 0
    yield CleanedRows(kept, np.array(hashes, np.uint64))


def clean_shard(
    *, folder: str, shard: Mapping[str, Any], column: str | None, conditions: Sequence[str], cleaning: Mapping[str, bool]
) -> dict[str, Any]:
    """Read and clean the files of a shard into a new folder; run by a worker.

    Args:
        folder: The folder to create; ``read_json_lines`` reads it.
        shard: The fields of a ``Shard``.
        column: The column of the text; None if each record is a text.
        conditions: The columns of the conditions.
        cleaning: The options of the ``Cleaner``.

    Returns:
        The arguments of ``Cleaner.add``.

    Raises:
        DataError: A file cannot be read.
    """
    return clean_files(Path(folder), Shard(**shard), column, conditions, cleaning)


def clean_files(
    folder: Path, files: Shard | HubShard, column: str | None, conditions: Sequence[str], cleaning: Mapping[str, bool]
) -> dict[str, Any]:
    """The same for a shard of files or of a dataset, in this process."""
    cleaner = Cleaner(**cleaning)
    folder.mkdir()
    records = files.records(None if column is None else [column, *conditions])
    limit = None if isinstance(files, Shard) and files.documents == "file" else files.max_characters
    examples = to_examples(records, files.name, column, conditions, limit)
    with (
        (folder / "texts").open("wb") as texts,
        (folder / "values").open("wb") as values,
        (folder / "index").open("wb") as index,
    ):
        for cleaned in clean_rows(examples, cleaner):
            lines = cleaned.to_json_lines()
            texts.writelines(lines.texts)
            values.writelines(lines.values)
            index.write(np.stack((lines.hashes, lines.lengths.astype(np.uint64)), axis=1).tobytes())
    return {"counts": asdict(cleaner.report), "mojibake": cleaner.mojibake}


def read_json_lines(folder: Path) -> Iterator[JsonLines]:
    """Yield what ``clean_shard`` wrote into a folder, some lines at a time."""
    index = np.fromfile(folder / "index", np.uint64).reshape(-1, 2)
    with (folder / "texts").open("rb") as texts, (folder / "values").open("rb") as values:
        for first in range(0, len(index), _MAX_TEXTS):
            hashes, lengths = index[first : first + _MAX_TEXTS].T
            text_lines, value_lines = (list(itertools.islice(file, len(hashes))) for file in (texts, values))
            yield JsonLines(text_lines, value_lines, hashes, lengths.astype(np.int64))
