"""Opens the sources of a corpus on each machine, and reads and cleans them into parts."""

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from reviewgen.data import DataConfig
from reviewgen.data.cleaned_rows import CleanedRows, clean_files, clean_rows
from reviewgen.data.cleaning import Cleaner, hash_text
from reviewgen.data.columns import TextStream
from reviewgen.data.corpus import HELD_OUT
from reviewgen.data.hub_shards import HubShard
from reviewgen.data.long_text import cut_text, divide_text
from reviewgen.data.shards import Shard, fingerprint

__all__ = ["Source", "clean_part", "open_source", "read_stream"]

_PART_BYTES, _MAX_PARTS = 1 << 23, 128
_STREAM_CHARACTERS = 1 << 23  # of a part of a source that is not read from files


@dataclass(frozen=True)
class Source:
    """A source that is open on this machine.

    Attributes:
        stream: How it was read; its examples are open only in the process that has opened it.
        shards: Its parts; None if one process reads it: a stream, or one long text.
        facts: What is compared with the other machines, and with the source of an earlier try: sizes and digests.
    """

    stream: TextStream
    shards: Sequence[Shard | HubShard] | None
    facts: Any

    def closed(self) -> "Source":
        """Return it without open files, so that it can be sent to another process."""
        return replace(self, stream=replace(self.stream, examples=iter(())))


def open_source(source: Any, folder: Path, config: DataConfig) -> Source:
    """Open a source and choose its parts.

    Raises:
        DataError: The source cannot be read.
    """
    stream, _ = config.open(source, folder)
    shard = stream.shard
    if stream.hub is not None:
        return Source(stream, stream.hub.parts(), stream.hub.facts())
    if shard is None or stream.is_one_text:
        return Source(stream, None, None if shard is None else fingerprint(shard))
    size = max(_PART_BYTES, shard.size // _MAX_PARTS)
    return Source(stream, shard.parts(size), fingerprint(shard))


def clean_part(folder: Path, shard: Shard | HubShard, stream: TextStream, config: DataConfig) -> None:
    """Read and clean a part into a new folder."""
    report = clean_files(folder, shard, stream.text_column, config.conditions, config.cleaning)
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")


def read_stream(
    stream: TextStream, config: DataConfig, is_validation: bool, write: Callable[[int, Callable[[Path], None]], None]
) -> int:
    """Read and clean a source that is not read in shards; return its number of parts.

    Args:
        stream: The source.
        config: How to clean it.
        is_validation: Whether it is the validation source, of which nothing is held out.
        write: Called for each part with its number, and a function that writes its folder.
    """
    cleaner, number = Cleaner(**config.cleaning), 0
    rows: Iterator[CleanedRows] = clean_rows(stream.examples, cleaner)
    if stream.is_one_text:
        cut = divide_text if is_validation else functools.partial(cut_text, held_out=HELD_OUT)
        rows = (_cut(each, cut) for each in rows)
    for number, group in enumerate(_groups(rows), 1):
        write(number - 1, functools.partial(_write_rows, group, cleaner))
        cleaner.report, cleaner.mojibake = replace(cleaner.report, **dict.fromkeys(asdict(cleaner.report), 0)), None
    return number


def _cut(rows: CleanedRows, cut: Callable[[str], list[str]]) -> CleanedRows:
    """Return the one text in the rows, if it is there, in parts."""
    examples = [(part, values) for text, values in rows.examples for part in cut(text)]
    return CleanedRows(examples, np.array([hash_text(text) for text, _ in examples], np.uint64))


def _groups(rows: Iterator[CleanedRows]) -> Iterator[list[CleanedRows]]:
    """Yield rows in groups of about a part's size; the last is smaller, and empty if there are no texts."""
    group: list[CleanedRows] = []
    characters = 0
    for each in rows:
        group.append(each)
        characters += int(each.lengths.sum())
        if characters >= _STREAM_CHARACTERS:
            yield group
            group, characters = [], 0
    yield group


def _write_rows(rows: Sequence[CleanedRows], cleaner: Cleaner, folder: Path) -> None:
    folder.mkdir()
    with (
        (folder / "texts").open("wb") as texts,
        (folder / "values").open("wb") as values,
        (folder / "index").open("wb") as index,
    ):
        for lines in (each.to_json_lines() for each in rows):
            texts.writelines(lines.texts)
            values.writelines(lines.values)
            index.write(np.stack((lines.hashes, lines.lengths.astype(np.uint64)), axis=1).tobytes())
    report = {"counts": asdict(cleaner.report), "mojibake": cleaner.mojibake}
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
