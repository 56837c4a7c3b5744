"""A corpus: one pass over a source cleans its examples, spools them to disk and splits them by the content hash of each text.

The split of a text depends on the text alone, so it is the same in any order and in any process. A source of one long text is cut
into parts instead (see ``long_text``). Memory grows by one hash per text (see ``HashSet``), not by the texts themselves.
"""

import contextlib
import functools
import hashlib
import itertools
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from reviewgen.config import Bound, check, to_dict
from reviewgen.data.cleaned_rows import CleanedRows, JsonLines, clean_rows, clean_shard, read_json_lines
from reviewgen.data.cleaning import Cleaner, CleaningReport, hash_text
from reviewgen.data.columns import Example, TextStream
from reviewgen.data.lines import MAX_TEXT_CHARACTERS
from reviewgen.data.long_text import SPLIT_CYCLE, cut_text, divide_text
from reviewgen.data.shards import Shard
from reviewgen.data.sources import open_texts
from reviewgen.data.spool import LineRange, Spool, read_spool
from reviewgen.data.workers import count_workers, run_tasks
from reviewgen.errors import ConfigError, DataError, counted, quoted, storage_errors

__all__ = ["SPLITS", "Corpus", "DataConfig", "describe", "gather", "read_examples", "shorten"]

SPLITS = ("train", "validation", "test")
HELD_OUT = 0.05  # share of the texts in validation, and again in test
_MIN_BYTES_FOR_WORKERS = 1 << 26  # of files; several processes take a second to start
_logger = logging.getLogger("reviewgen")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How a source is read and cleaned.

    Attributes:
        text_column: The column that holds the text; guessed if None.
        documents: How a txt file is cut into texts: by "line", by "paragraph" (blank lines between), by "sentence", or not at
            all ("file"; a source of one such file is one long text, whose parts are split).
        clean: Whether to decode HTML entities, remove HTML tags, apply NFC, and drop empty and duplicate texts.
        lowercase: Whether to lower-case the texts.
        strip_markdown: Whether to keep only the words of markdown.
        fix_encoding: Whether to mend texts that were decoded wrongly, with ftfy.
        conditions: The columns, such as stars or genre, that the model is conditioned on.
        max_text_characters: The maximum number of characters of a text; a txt file that is one text may have a billion.

    Raises:
        ConfigError: A value is of the wrong type or not allowed, or a condition is named twice.
    """

    text_column: str | None = None
    documents: Literal["line", "paragraph", "sentence", "file"] = "line"
    clean: bool = True
    lowercase: bool = False
    strip_markdown: bool = False
    fix_encoding: bool = False
    conditions: Annotated[tuple[str, ...], Bound(at_least=1)] = ()
    max_text_characters: Annotated[int, Bound(at_least=1, at_most=1 << 40)] = MAX_TEXT_CHARACTERS

    def __post_init__(self) -> None:
        check(self)
        if len(set(self.conditions)) < len(self.conditions):
            raise ConfigError(f"A condition is named twice: {', '.join(self.conditions)}.")

    @property
    def cleaning(self) -> dict[str, bool]:
        """The options of the ``Cleaner``."""
        names = ("clean", "lowercase", "strip_markdown", "fix_encoding")
        return {name: getattr(self, name) for name in names}

    def facts(self) -> dict[str, Any]:
        """Return what the texts depend on, as JSON values: the settings without the limit of their length."""
        return {name: value for name, value in to_dict(self).items() if name != "max_text_characters"}

    def open(self, source: Any, workspace: Path, allow_missing: bool = False) -> tuple[TextStream, Cleaner]:
        """Open a source with these settings; return its examples and a cleaner for them."""
        stream = open_texts(
            source,
            workspace,
            text_column=self.text_column,
            documents=self.documents,
            conditions=self.conditions,
            allow_missing=allow_missing,
            max_characters=self.max_text_characters,
        )
        cleaner = Cleaner(**self.cleaning)
        cleaner.report.decode_errors = stream.decode_errors
        return stream, cleaner


@dataclass
class Corpus:
    """Cleaned examples on disk, each assigned to a split, and the facts about them.

    Attributes:
        spool: The file of the texts, one JSON line each.
        values: The file of the condition values, in the same order; None if there are no conditions.
        splits: The split of each text, (texts,) uint8, an index into ``SPLITS``.
        fingerprint: A hash of the texts, their splits and their condition values.
        stream: The source and how it was read; its examples are used up.
        report: What cleaning did.
        validation: The same two for a separate validation source; None if there is none.
        notes: Sentences that the user should see.
        ranges: The lines of ``spool`` in contiguous ranges of some megabytes, for several processes.
    """

    spool: Path
    values: Path | None
    splits: np.ndarray
    fingerprint: str
    stream: TextStream
    report: CleaningReport
    validation: tuple[TextStream, CleaningReport] | None = None
    notes: list[str] = field(default_factory=list)
    ranges: Sequence[LineRange] = ()

    def texts(self, split: str) -> Iterator[str]:
        """Yield the texts of a split, in the order of the source."""
        return read_spool(self.spool, self._is_in(split))

    def conditions(self, split: str) -> Iterator[Sequence[str | float | None]]:
        """Yield the condition values of each text of a split."""
        return itertools.repeat((), self.count(split)) if self.values is None else read_spool(self.values, self._is_in(split))

    def examples(self, split: str) -> Iterator[Example]:
        """Yield the texts of a split with their condition values."""
        return zip(self.texts(split), self.conditions(split), strict=True)

    def every(self, step: int) -> Iterator[str]:
        """Yield every n-th text, of all splits."""
        return read_spool(self.spool, np.arange(len(self.splits)) % step == 0)

    @property
    def split_method(self) -> Literal["hash", "blocks", "source"]:
        """How texts are held out: by the hash of each, as blocks of one long text, or as a separate validation source."""
        if self.validation is not None:
            return "source"
        return "blocks" if self.stream.is_one_text else "hash"

    def describe_held_out(self) -> str:
        """Return how texts are held out, in words."""
        if self.split_method == "blocks":
            blocks = self.count("validation") + self.count("test")
            characters = round(self.report.characters * 2 * HELD_OUT / blocks)
            return (
                f"{blocks:,} blocks of about {characters:,} characters, spread evenly over one text, each between two parts of "
                "the training text"
            )
        return {"hash": "texts chosen by a hash of each", "source": "a separate source"}[self.split_method]

    def count(self, split: str) -> int:
        """Return the number of texts in a split."""
        return int(self._is_in(split).sum())

    def _is_in(self, split: str) -> np.ndarray:
        mask: np.ndarray = self.splits == SPLITS.index(split)
        return mask


def gather(source: Any, workspace: Path, config: DataConfig, validation: Any = None, allow_missing: bool = False) -> Corpus:
    """Read a source once, clean its texts, store them on disk and split them.

    Several large files are read and cleaned by several processes, with the same result; see ``count_workers``.

    Args:
        source: See ``open_texts``.
        workspace: A folder for the corpus; the caller removes it afterwards.
        config: How to read and clean.
        validation: A second source to use as the validation split; the first source is then all training text. If None, a hash
            of each text assigns its split: 90 % train, 5 % validation, 5 % test; one long text is cut (see ``cut_text``).
        allow_missing: Whether a condition without a column counts as not given; otherwise it is an error.

    Raises:
        DataError: A source cannot be read, no texts are left after cleaning, or there is one text that is too short to be cut.
        StorageError: The disk of the workspace is full.
        WorkerError: A worker process failed or was killed.
    """
    path, values = workspace / "texts.jsonl", workspace / "conditions.jsonl"
    with storage_errors(path), Spool(path, values) as spool:
        cut = functools.partial(cut_text, held_out=HELD_OUT) if validation is None else divide_text
        stream, report = _fill_spool(spool, source, _make_folder(workspace / "source"), config, allow_missing, cut)
        train_count, second = len(spool.hashes), None
        if validation is not None:
            folder = _make_folder(workspace / "validation")
            second = _fill_spool(spool, validation, folder, config, allow_missing, divide_text)
    hashes = np.frombuffer(spool.hashes, np.uint64)
    notes = list(stream.notes)
    if validation is not None:
        splits = (np.arange(len(hashes)) >= train_count).astype(np.uint8)
        shared = int(np.isin(hashes[train_count:], hashes[:train_count]).sum())
        notes += [f"{shared} of {len(hashes) - train_count} validation texts are also in the training text."] if shared else []
    elif stream.is_one_text:
        splits = np.resize([SPLITS.index(split) for split in SPLIT_CYCLE], len(hashes)).astype(np.uint8)
    else:
        splits = split_by_hash(hashes)
    stored_values = values if config.conditions else None
    lines = None if stored_values is None else stored_values.open("rb")
    with contextlib.nullcontext() if lines is None else lines:
        fingerprint = fingerprint_texts([hashes], [splits], config.conditions, lines or ())
    return Corpus(path, stored_values, splits, fingerprint, stream, report, second, notes, spool.ranges())


def fingerprint_texts(
    hashes: Iterable[np.ndarray], splits: Iterable[np.ndarray], conditions: Sequence[str], values: Iterable[bytes]
) -> str:
    """Return a hash that identifies a corpus in the token cache.

    Args:
        hashes: The content hashes of the texts, in pieces.
        splits: Their splits, in pieces.
        conditions: The names of the conditions.
        values: The line of the condition values of each text.
    """
    digest = hashlib.blake2b(digest_size=16)
    for piece in itertools.chain(hashes, splits):
        digest.update(piece.tobytes())
    if conditions:
        digest.update(json.dumps(conditions).encode())
        for line in values:
            digest.update(line)
    return digest.hexdigest()


def _make_folder(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _fill_spool(
    spool: Spool,
    source: Any,
    folder: Path,
    config: DataConfig,
    allow_missing: bool,
    cut: Callable[[str], list[str]],
) -> tuple[TextStream, CleaningReport]:
    """Write a source's cleaned examples and their content hashes to the spool; one long text is cut with ``cut``."""
    stream, cleaner = config.open(source, folder, allow_missing)
    if stream.is_one_text:
        _add_parts(spool, stream, cleaner, cut)
    else:
        for lines in _clean(stream, folder, config, cleaner):
            spool.add(lines, cleaner.keep_new(lines.hashes, lines.lengths))
    require_texts(stream, cleaner.report)
    stream.notes += cleaner.notes()
    stream.examples = iter(())  # used up; a corpus without open iterators can be pickled for other processes
    return stream, cleaner.report


def _add_parts(spool: Spool, stream: TextStream, cleaner: Cleaner, cut: Callable[[str], list[str]]) -> None:
    """Write the one text of a source to the spool, cut into parts; equal parts are no duplicates."""
    for rows in clean_rows(stream.examples, cleaner):
        cleaner.keep_new(rows.hashes, rows.lengths)
        for text, values in rows.examples:
            for part in cut(text):
                lines = CleanedRows([(part, values)], np.array([hash_text(part)], np.uint64)).to_json_lines()
                spool.add(lines, np.ones(1, bool))


def _clean(stream: TextStream, folder: Path, config: DataConfig, cleaner: Cleaner) -> Iterator[JsonLines]:
    """Yield the cleaned examples of a source, which several processes read if it is large."""
    parts = stream.shard.parts() if stream.shard is not None else []
    workers = min(len(parts), count_workers(sum(part.size for part in parts), _MIN_BYTES_FOR_WORKERS))
    if workers > 1:
        yield from _clean_in_workers(parts, stream, folder, config, cleaner, workers)
    else:
        yield from (rows.to_json_lines() for rows in clean_rows(stream.examples, cleaner))


def _clean_in_workers(
    parts: Sequence[Shard], stream: TextStream, folder: Path, config: DataConfig, cleaner: Cleaner, workers: int
) -> Iterator[JsonLines]:
    """Read and clean the parts of a source in several processes; yield their results in order."""
    stream.examples = iter(())  # closes the file that the head was read from
    folders = [folder / f"part {number}" for number in range(len(parts))]
    common = {"column": stream.text_column, "conditions": config.conditions, "cleaning": config.cleaning}
    tasks = [{"folder": str(path), "shard": asdict(part), **common} for path, part in zip(folders, parts, strict=True)]
    with contextlib.closing(run_tasks(clean_shard, tasks, workers)) as results:
        for path, result in zip(folders, results, strict=True):
            cleaner.add(**result)
            yield from read_json_lines(path)
            shutil.rmtree(path)


def read_examples(source: Any, workspace: Path, config: DataConfig, *, split: str = "all") -> Iterator[Example]:
    """Yield the cleaned examples of a source, or of one of its splits; nothing is kept afterwards.

    A condition without a column counts as not given. What was read and changed is logged, at level INFO of the logger
    ``reviewgen``.

    Raises:
        DataError: The source cannot be read, no texts are left, or the split is empty.
        ConfigError: The split is unknown.
    """
    if split not in ("all", *SPLITS):
        raise ConfigError(f"A split is all, train, validation or test; got {quoted(split)}.")
    return _read_all(source, workspace, config) if split == "all" else _read_split(source, workspace, config, split)


def describe(stream: TextStream, report: CleaningReport) -> list[str]:
    """Return lines for the user on what was read and changed: the text column, three texts, the counts of the cleaning."""
    lines = list(stream.notes)
    if stream.text_column is not None:
        others = [column for column in stream.columns if column != stream.text_column]
        guess = f" (guessed; others: {', '.join(others)})" if stream.guessed and others else ""
        lines.append(f"Text column: {stream.text_column!r}{guess}")
    lines += [f"  | {shorten(text)}" for text in stream.preview]
    changes = {
        "empty": report.empty,
        "duplicates": report.duplicates,
        "near duplicates": report.near_duplicates,
        "held-out texts left out, as they share runs with training texts": report.leaking,
        "line-break tags replaced": report.breaks_replaced,
        "other tags removed": report.tags_removed,
        "entities decoded": report.entities_decoded,
        "changed by NFC": report.normalized,
        "encodings mended": report.encodings_fixed,
        "decode errors": report.decode_errors,
    }
    counts = "".join(f", {name} {count:,}" for name, count in changes.items() if count)
    kept = f"{report.kept:,} ({counted(report.characters, 'character')})"
    return [*lines, f"Read {counted(report.read, 'review')}, kept {kept}{counts}."]


def shorten(text: str, width: int = 100) -> str:
    """Return a text on one line, cut after a word to at most a width in characters."""
    line = " ".join(text.split())
    if len(line) <= width:
        return line
    cut = line[: width - 3]
    return (cut if line[width - 3] == " " else cut.rpartition(" ")[0] or cut) + "..."


def _read_all(source: Any, workspace: Path, config: DataConfig) -> Iterator[Example]:
    stream, cleaner = config.open(source, workspace, allow_missing=True)
    for rows in clean_rows(stream.examples, cleaner):
        yield from itertools.compress(rows.examples, cleaner.keep_new(rows.hashes, rows.lengths))
    stream.notes += cleaner.notes()
    _log(stream, cleaner.report)
    require_texts(stream, cleaner.report)


def _read_split(source: Any, workspace: Path, config: DataConfig, split: str) -> Iterator[Example]:
    corpus = gather(source, workspace, config, allow_missing=True)
    _log(corpus.stream, corpus.report)
    if not corpus.count(split):
        total = counted(len(corpus.splits), "text")
        raise DataError(f"The {split} split of {corpus.stream.name} is empty: it has {total} in all.")
    yield from corpus.examples(split)


def _log(stream: TextStream, report: CleaningReport) -> None:
    for line in describe(stream, report):
        _logger.info("%s", line)


def split_by_hash(hashes: np.ndarray, *, is_whole: bool = True) -> np.ndarray:
    """Return the split of each text from its content hash, (texts,) uint8: 90 % train, 5 % validation, 5 % test.

    In a corpus of a few texts, train or validation may be empty by chance. One text is then moved there, chosen by its hash,
    together with its duplicates if those were kept. Not so if these are only a part of the texts, ``is_whole=False``.
    """
    share = hashes / 2.0**64
    codes = np.digitize(share, (1 - 2 * HELD_OUT, 1 - HELD_OUT)).astype(np.uint8)
    if not is_whole:
        return codes
    train, validation, test = range(3)
    if train not in codes:
        codes[hashes == hashes.min()] = train
    if validation not in codes:
        in_train = hashes[codes == train]
        donors = in_train if in_train.min() < in_train.max() else hashes[codes == test]
        if donors.size:  # otherwise there is only one text
            codes[hashes == donors.max()] = validation
    return codes


def require_texts(stream: TextStream, report: CleaningReport) -> None:
    """Raise if cleaning has kept no texts.

    Raises:
        DataError: It has kept none.
    """
    if not report.kept:
        counts = f"{report.read} read, {report.empty} empty" if report.read else "none read"
        raise DataError(f"No reviews are left of {stream.name} after cleaning ({counts}).")
