"""The first stage: clean the texts of a source, row by row.

    clean-KEY/rows/00012.arrow    the rows of a batch of texts, in the order of the source
    clean-KEY/lines/00012.arrow   instead of ``rows``: the same rows without repeated lines

A row is a text with its content hash and the values of its conditions. This process reads the
source and collects batches of texts, and workers clean them. The batches depend on the source only.
Duplicates stay here: the next stage marks them (see ``split``).
"""

import itertools
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from reviewgen.conditions import label_of
from reviewgen.data.cleaning import CleaningReport, add_reports, hash_text, note_mojibake
from reviewgen.data.columns import Example, SourceInfo
from reviewgen.data.documents import cut_text, divide_text, find_repeated_lines
from reviewgen.data.open import Source
from reviewgen.data.stage import (
    open_rows,
    read_column,
    run_stage,
    share,
    size_of,
    to_numpy,
    write_rows,
)
from reviewgen.errors import DataError, counted

if TYPE_CHECKING:
    import pyarrow

_BATCH_CHARACTERS = 1 << 22  # min characters of a batch
_BATCHES = 64  # a batch has at least a 64th of the characters read before it
# characters, about, of a source in which repeated lines are searched for
_SAMPLE_CHARACTERS = 1 << 24
_NAMED = 5  # max number of repeated lines that a message shows
# Settings that are left out of the stage's inputs. In their place, the inputs have the columns of
# the conditions and fields, and the width that was found. Weights do not change the rows.
_NOT_FOR_ROWS = {"conditions", "fields", "weights", "width"}
HELD_OUT = 0.05  # share of the texts for validation; test gets the same share

Cut: TypeAlias = Literal["splits", "blocks"]
"""How one long text is cut into rows: for the splits, or into equal blocks of one split."""


@dataclass
class Cleaned:
    """The cleaned rows of a source.

    Attributes:
        key: What identifies the rows.
        source: The source, without its readers.
        files: The Arrow files of the rows, in order.
        report: What cleaning did.
        dropped_lines: The repeated lines that were dropped from the cleaned texts.
        codes: The code of each row, (rows,) uint8; the next stage sets it.
    """

    key: str
    source: Source
    files: list[Path]
    report: CleaningReport
    dropped_lines: Sequence[str]
    codes: np.ndarray = field(init=False)

    @property
    def hashes(self) -> np.ndarray:
        """The content hash of each text, (rows,) uint64."""
        return read_column(self.files, "hash", np.uint64)

    @cached_property
    def lengths(self) -> np.ndarray:
        """The number of characters of each text, (rows,) int32."""
        from pyarrow import compute

        texts = (open_rows(file).column("text") for file in self.files)
        return to_numpy(map(compute.utf8_length, texts), np.int32)


def clean_source(
    source: Source, root: Path, cut: Cut, lines: Sequence[str] | None = None
) -> Cleaned:
    """Read and clean a source.

    Args:
        source: The source. Its notes and repeated lines are updated.
        root: The folder for the stage.
        cut: How the text of a source that is one long text is cut.
        lines: The repeated lines to drop; None looks for them in the texts.

    Raises:
        DataError: The source cannot be read, or no texts are left after cleaning.
        StorageError: The disk is full.
        WorkerError: A worker was killed.
    """
    info = source.info
    facts = source.config.facts()
    inputs = {
        "texts": source.facts,
        "reading": {name: value for name, value in facts.items() if name not in _NOT_FOR_ROWS},
        "columns": source.config.columns,
        "max_text_characters": source.config.max_text_characters,
        "width": info.width,
        "cut": cut if info.is_one_text else None,
        "lines": lines,
    }
    stage = run_stage(
        root,
        "clean",
        inputs,
        lambda folder: _clean(source, folder, cut, lines),
        are_complete=source.facts is not None,
    )
    if repeated := stage.facts["repeated"]:
        info.notes.append(f"Lines that occur in many texts of {info.name}: {repeated}.")
    info.notes += stage.facts["notes"]
    dropped = stage.facts["dropped_lines"]
    info.repeated_lines = dropped or info.repeated_lines
    return Cleaned(
        key=stage.folder.name,
        source=replace(source, readers=()),
        # not the files cache-*.arrow, which ``datasets`` may write beside them
        files=sorted(stage.folder.rglob("[0-9]*.arrow")),
        report=CleaningReport(**stage.facts["report"]),
        dropped_lines=dropped,
    )


def _clean(source: Source, folder: Path, cut: Cut, lines: Sequence[str] | None) -> dict[str, Any]:
    """Make the files of the stage, and return its facts."""
    # for the workers, since only this process calls the readers
    without_readers = replace(source, readers=())
    tasks = (
        (folder / f"rows/{number:05d}.arrow", batch)
        for number, batch in enumerate(_read_batches(source))
    )
    num_proc = source.config.num_proc
    files = share(partial(_clean_rows, without_readers, cut), tasks, source.size, num_proc)
    description = ""  # describes the repeated lines that are found below
    if lines is None:
        lines, description = _find_lines(source, files)
    if lines:
        drop = partial(_drop_lines, without_readers, lines)
        files = share(drop, [(file,) for file in files], size_of(files), num_proc)
        shutil.rmtree(folder / "rows")
    reports = [json.loads(open_rows(file).schema.metadata[b"report"]) for file in files]
    report = add_reports(CleaningReport(**each["counts"]) for each in reports)
    report.decode_errors = source.info.decode_errors
    require_texts(source.info, report)
    example = next(filter(None, (each["mojibake"] for each in reports)), None)
    return {
        "report": asdict(report),
        "dropped_lines": list(lines),
        "repeated": description,
        "notes": note_mojibake(report.mojibake, example),
    }


def _read_batches(source: Source) -> Iterator[list[Example]]:
    """Yield the examples of a source in batches; there is always a first one, which may be
    empty.
    """
    batch: list[Example] = []
    batch_characters = 0
    earlier_characters = 0  # of the batches before this one
    for example in source.examples():
        # batches become larger in a large source, so that it has only some hundred files
        if batch_characters >= max(_BATCH_CHARACTERS, earlier_characters // _BATCHES):
            yield batch
            earlier_characters += batch_characters
            batch = []
            batch_characters = 0
        batch.append(example)
        batch_characters += len(example[0])
    yield batch


def _clean_rows(source: Source, cut: Cut, file: Path, examples: list[Example]) -> Path:
    """Clean a batch of examples and write its rows; return the file. A task for workers."""
    write_rows(file, lambda: _make_rows(source, cut, examples))
    return file


def _make_rows(source: Source, cut: Cut, examples: list[Example]) -> "pyarrow.Table":
    """Clean examples, and return a table. A row has a text, its hash, its split (only in a cleaned
    corpus) and the values of its conditions. The metadata of the table holds the cleaning report.
    """
    import pyarrow

    cleaner = source.cleaner()
    rows: list[tuple[Any, ...]] = []
    for text, values in examples:
        cleaned = cleaner(text)
        if cleaned is None:
            continue
        cleaned_text, text_hash = cleaned
        if source.info.is_one_text:
            rows += [(piece, hash_text(piece), *values) for piece in _cut(cleaned_text, cut)]
        else:
            rows.append((cleaned_text, text_hash, *values))
    # for no rows, for which zip would return no columns
    empty: list[tuple[Any, ...]] = [()] * (2 + len(source.columns))
    texts, hashes, *columns = zip(*rows, strict=True) if rows else empty
    arrays = {
        "text": pyarrow.array(texts, pyarrow.string()),
        "hash": pyarrow.array(np.array(hashes, np.uint64)),
    }
    if source.is_cleaned:  # the last column has the splits; a missing one counts as train, 0
        arrays["split"] = pyarrow.array([int(code or 0) for code in columns.pop()], pyarrow.int64())
    for number, column in enumerate(columns):
        arrays[f"c{number}"] = _as_array(column)
    report = json.dumps({"counts": asdict(cleaner.report), "mojibake": cleaner.mojibake})
    return pyarrow.table(arrays).replace_schema_metadata({"report": report})


def _cut(text: str, cut: Cut) -> list[str]:
    """Cut a long text into rows; see ``Cut``."""
    return cut_text(text, HELD_OUT) if cut == "splits" else divide_text(text)


def _as_array(values: Sequence[str | float | None]) -> "pyarrow.Array":
    """Return the values of a condition as an array: of strings if any value is a string, else of
    numbers.
    """
    import pyarrow

    if any(isinstance(value, str) for value in values):
        return pyarrow.array(map(as_label, values), pyarrow.string())
    return pyarrow.array(values, pyarrow.float64())


def as_label(value: str | float | None) -> str | None:
    """Return the label of a number; strings and None stay as they are."""
    return label_of(value) if isinstance(value, float) else value


def _find_lines(source: Source, files: Sequence[Path]) -> tuple[list[str], str]:
    """Find the repeated lines of a source; return the lines to drop, and a description of those
    found, with advice.

    There are no lines to drop if the settings do not ask for it, or if the user has given the
    lines: then cleaning has dropped them already.
    """
    config = source.config
    info = source.info
    may_look = config.repeated_lines is None and not source.is_cleaned and not info.is_one_text
    if not may_look or not (config.clean or config.drop_repeated_lines):
        return [], ""
    counts = _count_lines(files)
    if not counts:
        return [], ""
    named = [
        f"{shorten(line, 60)!r} in {count:,}"
        for line, count in itertools.islice(counts.items(), _NAMED)
    ]
    if len(counts) > _NAMED:
        named[-1] += f" and {len(counts) - _NAMED} more"
    advice = "--drop-repeated-lines (drop_repeated_lines=True) drops them"
    if config.drop_repeated_lines:
        advice = "they are dropped"
    dropped = list(counts) if config.drop_repeated_lines else []
    return dropped, f"{', '.join(named)}; {advice}"


def _count_lines(files: Sequence[Path]) -> Mapping[str, int]:
    """Return the repeated lines of some files of rows, with the number of texts that have each.

    Only the first texts of each file are searched, so that memory stays bounded.
    """
    from pyarrow import compute

    texts = dict[int, str]()  # by hash, so that duplicates count once
    characters_per_file = _SAMPLE_CHARACTERS // len(files)
    for table in map(open_rows, files):
        # (rows,): the number of characters up to the end of each text
        ends = np.cumsum(compute.utf8_length(table.column("text")))
        head = table[: int(ends.searchsorted(characters_per_file)) + 1]
        # adds pairs of a hash and a text
        texts |= zip(head.column("hash").to_pylist(), head.column("text").to_pylist(), strict=True)
    return find_repeated_lines(texts.values())


def _drop_lines(source: Source, lines: Sequence[str], file: Path) -> Path:
    """Write a copy of a file of rows without repeated lines; return its path. A task for
    workers.
    """
    import pyarrow

    def make() -> pyarrow.Table:
        """Return the rows with new texts, hashes and cleaning report."""
        table = open_rows(file)
        cleaner = replace(source, info=replace(source.info, repeated_lines=list(lines))).cleaner()
        texts = list(map(cleaner.drop_lines, table.column("text").to_pylist()))
        report = json.loads(table.schema.metadata[b"report"])
        report["counts"]["lines_dropped"] = cleaner.report.lines_dropped
        # columns 0 and 1 are the text and its hash
        table = table.set_column(0, "text", pyarrow.array(texts, pyarrow.string()))
        hashes = np.array(list(map(hash_text, texts)), np.uint64)
        return table.set_column(1, "hash", pyarrow.array(hashes)).replace_schema_metadata(
            {"report": json.dumps(report)}
        )

    target = file.parents[1] / "lines" / file.name
    write_rows(target, make)
    return target


def read_texts_of(files: Iterable[Path], wanted: np.ndarray) -> Iterator[str]:
    """Yield the texts that a mask (rows,) over all rows of some files selects."""
    start = 0
    for file in files:
        stop = start + len(open_rows(file))
        yield from _read(file, "text", wanted[start:stop])
        start = stop


def read_values(
    file: Path, wanted: np.ndarray, is_label: Sequence[bool]
) -> Iterator[Sequence[str | float | None]]:
    """Yield the values of the first ``len(is_label)`` conditions in some rows of a file.

    Args:
        file: The Arrow file.
        wanted: A mask of the rows, (rows,).
        is_label: For each condition to read, whether its values are labels in the whole corpus. If
            so, the numbers of this file, which may have no labels, are converted to labels.
    """
    columns = (read_condition(file, number, wanted, each) for number, each in enumerate(is_label))
    # without conditions, an empty tuple for each wanted row
    return zip(*columns, strict=True) if is_label else itertools.repeat((), int(wanted.sum()))


def read_condition(
    file: Path, number: int, wanted: np.ndarray, is_label: bool
) -> Iterator[str | float | None]:
    """Yield the values of one condition; see ``read_values``."""
    values = _read(file, f"c{number}", wanted)
    return map(as_label, values) if is_label else values


def _read(file: Path, column: str, wanted: np.ndarray) -> Iterator[Any]:
    """Yield the values of a column in the rows that the mask ``wanted`` (rows,) selects."""
    for chunk in open_rows(file).column(column).filter(wanted).chunks:
        yield from chunk.to_pylist()


def require_texts(source: SourceInfo, report: CleaningReport) -> None:
    """Raise if cleaning has kept no texts.

    Raises:
        DataError: No texts are kept.
    """
    if report.read == report.empty:
        counts = f"{report.read} read, {report.empty} empty" if report.read else "none read"
        raise DataError(f"No reviews are left of {source.name} after cleaning ({counts}).")


def describe(source: SourceInfo, report: CleaningReport, *, is_brief: bool = False) -> list[str]:
    """Return lines for the user on what was read and changed: the notes, the text column, three
    texts, and the counts of the cleaning.

    If ``is_brief``, return a single line with the text column and the first two counts that are not
    zero.
    """
    others = ", ".join(column for column in source.columns if column != source.text_column)
    guess = f" (guessed; others: {others})" if source.guessed and others else ""
    # one item, or none if the source has no columns
    chosen = [] if source.text_column is None else [f"column: {source.text_column!r}{guess}"]
    lines = [
        *source.notes,
        *(f"Text {column}" for column in chosen),
        *(f"  | {shorten(text)}" for text in source.preview),
    ]
    changes = {
        "empty": report.empty,
        "duplicates": report.duplicates,
        "near duplicates": report.near_duplicates,
        "held-out texts left out, as they share runs with training texts": report.leaking,
        "line-break tags replaced": report.breaks_replaced,
        "other tags removed": report.tags_removed,
        "entities decoded": report.entities_decoded,
        "changed by NFC": report.normalized,
        "encodings repaired": report.encodings_fixed,
        "unwrapped": report.unwrapped,
        "repeated lines dropped": report.lines_dropped,
        "decode errors": report.decode_errors,
    }
    counts = [f", {name} {count:,}" for name, count in changes.items() if count]
    read = f"Read {counted(report.read, 'review')}"
    kept = f"kept {report.kept:,} ({counted(report.characters, 'character')})"
    if is_brief:
        return [f"{', '.join([f'{read} of {source.name}', *chosen])}; {kept}{''.join(counts[:2])}."]
    return [*lines, f"{read}, {kept}{''.join(counts)}."]


def shorten(text: str, width: int = 100) -> str:
    """Return a text on one line. If it is longer than ``width`` characters, cut it after a word and
    add dots.
    """
    line = " ".join(text.split())
    if len(line) <= width:
        return line
    cut = line[: width - 3]
    # leave out a word that would be cut, unless it is the only one
    return (cut if line[width - 3] == " " else cut.rpartition(" ")[0] or cut) + "..."
