"""A corpus: one pass over a source cleans the texts, spools them to disk with their conditions and splits them by a hash of each.

The split is a property of the text alone: it is the same in any order, in any process, after streaming. Memory grows by a
key a text (see ``Keys``), never by the texts themselves.
"""

import contextlib
import hashlib
import itertools
import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from reviewgen.config import Bound, check
from reviewgen.data.batches import Lines, clean_rows, clean_shard, read_lines
from reviewgen.data.cleaning import Cleaner, CleaningReport
from reviewgen.data.columns import Row, TextStream
from reviewgen.data.shards import Shard
from reviewgen.data.sources import open_texts
from reviewgen.data.spool import Piece, Spool, read_spool
from reviewgen.data.workers import count_workers, run_tasks
from reviewgen.errors import ConfigError, DataError, storage_errors

__all__ = ["SPLITS", "Corpus", "DataConfig", "describe", "gather", "read_rows", "read_texts", "shorten"]

SPLITS = ("train", "validation", "test")
_WORTH_WORKERS = 1 << 26  # bytes of files; several processes take a second to start
_logger = logging.getLogger("reviewgen")
HELD_OUT = 0.05  # share of the texts in validation, and again in test


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How a source is read and cleaned."""

    text_column: str | None = None
    documents: Literal["line", "paragraph", "file"] = "line"
    clean: bool = True
    lowercase: bool = False
    strip_markdown: bool = False
    conditions: Annotated[tuple[str, ...], Bound(at_least=1)] = ()  # columns that a model learns to obey

    def __post_init__(self) -> None:
        check(self)
        if len(set(self.conditions)) < len(self.conditions):
            raise ConfigError(f"A condition is named twice: {', '.join(self.conditions)}.")

    @property
    def cleaning(self) -> dict[str, bool]:
        """The options of the Cleaner."""
        return {"clean": self.clean, "lowercase": self.lowercase, "strip_markdown": self.strip_markdown}

    def open(self, source: Any, workspace: Path, may_lack: bool = False) -> tuple[TextStream, Cleaner]:
        """Open a source and make the cleaner for its texts."""
        stream = open_texts(
            source,
            workspace,
            text_column=self.text_column,
            documents=self.documents,
            conditions=self.conditions,
            may_lack=may_lack,
        )
        cleaner = Cleaner(**self.cleaning)
        cleaner.report.decode_errors = stream.decode_errors
        return stream, cleaner


@dataclass
class Corpus:
    """Cleaned texts on disk, each in one split, and what is worth knowing about them."""

    spool: Path  # a text a line
    values: Path | None  # of the conditions, in the same lines; None where there are none
    splits: np.ndarray  # (texts,) uint8, an index into SPLITS
    fingerprint: str
    stream: TextStream
    report: CleaningReport
    validation: tuple[TextStream, CleaningReport] | None = None  # of a validation source of its own
    notes: list[str] = field(default_factory=list)
    pieces: Sequence[Piece] = ()  # the whole corpus, in parts of some megabytes

    def texts(self, split: str) -> Iterator[str]:
        """Yield the texts of a split, in their order in the source."""
        return read_spool(self.spool, self._is_in(split))

    def conditions(self, split: str) -> Iterator[Sequence[str | float | None]]:
        """Yield the values of the conditions beside each text of a split."""
        return itertools.repeat((), self.count(split)) if self.values is None else read_spool(self.values, self._is_in(split))

    def rows(self, split: str) -> Iterator[Row]:
        """Yield the texts of a split with the values of their conditions."""
        return zip(self.texts(split), self.conditions(split), strict=True)

    def count(self, split: str) -> int:
        """Return how many texts a split has."""
        return int(self._is_in(split).sum())

    def _is_in(self, split: str) -> np.ndarray:
        found: np.ndarray = self.splits == SPLITS.index(split)
        return found


def gather(source: Any, workspace: Path, config: DataConfig, validation: Any = None, may_lack: bool = False) -> Corpus:
    """Read a source once, clean its texts, keep them on disk and split them.

    Several large files are read and cleaned by several processes, with the same result; see ``count_workers``.

    Args:
        source: See ``open_texts``.
        workspace: A folder that outlives the corpus.
        config: How to read and clean.
        validation: A second source, to be the validation split; the first is then all train. Without it, a hash of each
            text says where it goes: 90 % train, 5 % validation, 5 % test.
        may_lack: Whether a condition that has no column counts as not given.

    Raises:
        DataError: A source cannot be read, or no texts are left after cleaning.
        StorageError: The workspace has no room for the texts.
        WorkerError: A process that reads was ended from outside.
    """
    path, values = workspace / "texts.jsonl", workspace / "conditions.jsonl"
    with storage_errors(path), Spool(path, values) as spool:
        stream, report = _spool(source, _subfolder(workspace, "source"), config, may_lack, spool)
        in_train, second = len(spool.keys), None
        if validation is not None:
            second = _spool(validation, _subfolder(workspace, "validation"), config, may_lack, spool)
    keys = np.frombuffer(spool.keys, np.uint64)
    notes = list(stream.notes)
    if validation is None:
        splits = split_by_key(keys)
    else:
        splits = (np.arange(len(keys)) >= in_train).astype(np.uint8)
        shared = int(np.isin(keys[in_train:], keys[:in_train]).sum())
        notes += [f"{shared} of {len(keys) - in_train} validation texts also stand in the training text."] if shared else []
    digest = hashlib.blake2b(keys.tobytes() + splits.tobytes(), digest_size=16)
    if config.conditions:
        digest.update(json.dumps(config.conditions).encode())
        with values.open("rb") as stored:
            for line in stored:
                digest.update(line)
    kept = values if config.conditions else None
    return Corpus(path, kept, splits, digest.hexdigest(), stream, report, second, notes, spool.pieces())


def _subfolder(workspace: Path, name: str) -> Path:
    (workspace / name).mkdir()
    return workspace / name


def _spool(source: Any, folder: Path, config: DataConfig, may_lack: bool, spool: Spool) -> tuple[TextStream, CleaningReport]:
    """Write a source's cleaned texts, the values of their conditions, and their keys."""
    stream, cleaner = config.open(source, folder, may_lack)
    parts = stream.shard.parts() if stream.shard is not None else []
    workers = min(len(parts), count_workers(sum(part.size for part in parts), _WORTH_WORKERS))
    batches = _read_together(parts, stream, folder, config, workers, cleaner) if workers > 1 else _read_alone(stream, cleaner)
    for lines in batches:
        spool.add(lines, cleaner.choose(lines.keys, lines.lengths))
    _refuse_nothing(stream, cleaner)
    return stream, cleaner.report


def _read_alone(stream: TextStream, cleaner: Cleaner) -> Iterator[Lines]:
    return (batch.spell() for batch in clean_rows(stream.rows, cleaner))


def _read_together(
    parts: Sequence[Shard], stream: TextStream, folder: Path, config: DataConfig, workers: int, cleaner: Cleaner
) -> Iterator[Lines]:
    """Have several processes read and clean the parts of a source; yield what they wrote, in order."""
    stream.rows = iter(())  # lets go of the file that was peeked into
    folders = [folder / f"part {number}" for number in range(len(parts))]
    common = {"column": stream.text_column, "conditions": config.conditions, "cleaning": config.cleaning}
    tasks = [{"folder": str(home), "shard": asdict(part), **common} for home, part in zip(folders, parts, strict=True)]
    with contextlib.closing(run_tasks(clean_shard, tasks, workers)) as counts:
        for home, count in zip(folders, counts, strict=True):
            cleaner.report.add(count)
            yield from read_lines(home)
            shutil.rmtree(home)


def read_texts(source: Any, workspace: Path, config: DataConfig, *, split: str = "all") -> Iterator[str]:
    """Yield a source's cleaned texts; see ``read_rows``."""
    return (text for text, _ in read_rows(source, workspace, config, split=split))


def read_rows(source: Any, workspace: Path, config: DataConfig, *, split: str = "all") -> Iterator[Row]:
    """Yield a source's cleaned texts and their conditions without keeping them; of one split only where it is named.

    A condition that the source has no column for counts as not given. What was read and changed is logged, at level INFO of the
    logger ``reviewgen``.

    Raises:
        DataError: The source cannot be read, no texts are left, or the split is empty.
        ConfigError: The split is unknown.
    """
    if split not in ("all", *SPLITS):
        raise ConfigError(f"A split is all, train, validation or test; got {split!r}.")
    return _read_all(source, workspace, config) if split == "all" else _read_split(source, workspace, config, split)


def describe(stream: TextStream, report: CleaningReport) -> list[str]:
    """Return what was read and changed, in lines for a person: the column, three rows, the numbers of the cleaning."""
    lines = list(stream.notes)
    if stream.text_column is not None:
        others = [column for column in stream.columns if column != stream.text_column]
        guess = f" (guessed; others: {', '.join(others)})" if stream.guessed and others else ""
        lines.append(f"Text column: {stream.text_column!r}{guess}")
    lines += [f"  | {shorten(row)}" for row in stream.preview]
    changes = {
        "empty": report.empty,
        "duplicates": report.duplicates,
        "line-break tags replaced": report.breaks_replaced,
        "entities decoded": report.entities_decoded,
        "changed by NFC": report.normalized,
        "decode errors (not UTF-8)": report.decode_errors,
    }
    numbers = "".join(f", {name} {count:,}" for name, count in changes.items() if count)
    return [*lines, f"Read {report.read:,} reviews, kept {report.kept:,} ({report.characters:,} characters){numbers}."]


def shorten(text: str, width: int = 100) -> str:
    """Return a text on one line, cut to a width."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 3] + "..."


def _read_all(source: Any, workspace: Path, config: DataConfig) -> Iterator[Row]:
    stream, cleaner = config.open(source, workspace, may_lack=True)
    for batch in clean_rows(stream.rows, cleaner):
        yield from itertools.compress(batch.rows, cleaner.choose(batch.keys, batch.lengths))
    _log(stream, cleaner.report)
    _refuse_nothing(stream, cleaner)


def _read_split(source: Any, workspace: Path, config: DataConfig, split: str) -> Iterator[Row]:
    corpus = gather(source, workspace, config, may_lack=True)
    _log(corpus.stream, corpus.report)
    if not corpus.count(split):
        raise DataError(f"The {split} split of {corpus.stream.name} is empty: it has {len(corpus.splits)} texts in all.")
    yield from corpus.rows(split)


def _log(stream: TextStream, report: CleaningReport) -> None:
    for line in describe(stream, report):
        _logger.info("%s", line)


def split_by_key(keys: np.ndarray) -> np.ndarray:
    """Return the split of each text from its 64-bit key: 90 % train, 5 % validation, 5 % test.

    A corpus of a few texts may leave train or validation empty by chance; one text then moves over, chosen by its key, with
    its duplicates where those were kept.
    """
    share = keys / 2.0**64
    codes = np.digitize(share, (1 - 2 * HELD_OUT, 1 - HELD_OUT)).astype(np.uint8)
    train, validation, test = range(3)
    if train not in codes:
        codes[keys == keys.min()] = train
    if validation not in codes:
        in_train = keys[codes == train]
        donors = in_train if in_train.min() < in_train.max() else keys[codes == test]
        if donors.size:  # else there is one text only
            codes[keys == donors.max()] = validation
    return codes


def _refuse_nothing(stream: TextStream, cleaner: Cleaner) -> None:
    report = cleaner.report
    if not report.kept:
        why = f"{report.read} read, {report.empty} empty" if report.read else "none read"
        raise DataError(f"No reviews are left of {stream.name} after cleaning ({why}).")
