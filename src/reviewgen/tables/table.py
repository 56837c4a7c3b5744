"""Writes a table in JSON lines, parquet or CSV. The table is the result of a ``Job`` whose pieces
are shards. When all shards are written, they become ``OUT``.

The rows of a shard depend on the plan and on ``shard_texts``, not on the number of processes. The
processes work in rounds: in each round, every process writes one shard and then waits for the
others. So if one process fails, is interrupted or ends, all end.
"""

import csv
import json
import math
import re
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from itertools import chain, compress, islice
from pathlib import Path
from typing import Any

import numpy as np

from reviewgen.config.bounded import MAX_RECORD, MAX_VOCABULARY, read_json
from reviewgen.config.options import ShardOptions
from reviewgen.config.settings import check_count
from reviewgen.data.cleaning import first_of_each, hash_text
from reviewgen.data.tokens import digest_file
from reviewgen.errors import (
    CheckpointError,
    ConfigError,
    OutputExists,
    StorageError,
    quoted,
    storage_errors,
)
from reviewgen.processes import Processes, all_processes
from reviewgen.storage import (
    Job,
    atomic_file,
    check_output,
    digest_of,
    remove,
    temporary_folder,
    to_path,
)

Progress = Callable[[str, int, int | None], None]
"""A function that is called with the name of the stage, the number of finished texts, and the total
number of texts if it is known.
"""

Row = dict[str, Any]
_FORMATS = ("jsonl", "parquet")  # the formats of a folder
_OTHER_FILES = ("json", "txt", "tsv", "xls", "xlsx")  # suffixes of files that cannot be written
_MANIFEST = "manifest.json"
_MANIFEST_FORMAT = 1
_PARQUET_ROWS = 10_000  # max number of rows that are written to parquet in one call
# Max number of texts in a shard if the table is a single file. The shards are then only kept until
# the file is written; they are small, since an interruption loses one shard of each process.
_FILE_SHARD_TEXTS = 1_000
_REPORTED_TEXTS = 64  # number of texts between two reports of progress
_MAX_DRAWS = 10  # if repeats are left out: max number of drawn texts per wanted text
# if repeats are left out, this many times the estimated number of missing texts are drawn
_MARGIN = 1.1
# UTF-8 cannot encode surrogates: JSON escapes them, and other formats get U+FFFD instead
_SURROGATES = re.compile("[\ud800-\udfff]")
# matches before the first character of a spreadsheet formula (OWASP, CSV injection)
_FORMULA = re.compile(r"\A(?=[=+\-@\t\r])")


@dataclass(frozen=True)
class WrittenTexts:
    """The result of ``write_table``: a finished table.

    Attributes:
        out: The folder or file of the table.
        texts: The number of texts.
        summary: Facts about all texts. For generated texts: the seed, the number of drawn texts,
            and the number of repeats that were left out.
        files: The names of the files of the table.
        is_new: Whether this call has written the table. False if the table was already complete.
        is_resumed: Whether an earlier, interrupted call has written some of the texts.
    """

    out: Path
    texts: int
    summary: Mapping[str, Any]
    files: tuple[str, ...]
    is_new: bool = True
    is_resumed: bool = False


@dataclass(frozen=True, kw_only=True)
class TablePlan:
    """A description of a table that is to be written: its columns and how to make its rows.

    Attributes:
        columns: The pyarrow type of each column, as in {"text": "string"}; one of them is the text.
        facts: The facts on which the rows depend, as JSON values by name. If the seed is None, the
            seed of an earlier, interrupted call is used, or else a random seed.
        stage: The name of the work, for the progress display.
        rows: A function of (seed, first, last) that yields the rows of the texts ``first`` to
            ``last - 1``, or fewer rows at the end of the texts.
        compared: The columns of the text. If texts must differ, rows do in one of these columns.
        total: The number of texts to write; None for all texts that ``rows`` yields.
        summarize: A function that makes the summary from all rows; None for generated texts.
        receipts: If the table is a single file: another file, to which the receipts are written.
        can_resume: Whether equal facts mean equal rows, so that an interrupted call can be resumed.
            Otherwise the shards of an earlier call are removed.
    """

    columns: Mapping[str, str]
    facts: Mapping[str, Any]
    stage: str
    rows: Callable[[int, int, int], Iterator[Row]]
    compared: Sequence[str] = ("text",)
    total: int | None = None
    summarize: Callable[[Iterator[Row]], dict[str, Any]] | None = None
    receipts: Path | None = None
    can_resume: bool = True

    @property
    def is_synthetic(self) -> bool:
        """Whether a model writes the texts."""
        return "seed" in self.facts


def write_table(
    make_plan: Callable[[Path], TablePlan],
    out: Any,
    shards: ShardOptions,
    progress: Progress | None = None,
    given: Any = None,
) -> Any:
    """Write a table. Under a launcher, all processes call this.

    Args:
        make_plan: A function of the path of the table that checks all other arguments and returns
            the plan.
        out: A folder, or a file with the suffix .jsonl, .parquet or .csv; None to return the table
            itself.
        shards: The format and the number of texts in a shard. If the format is None, a file has the
            format of its suffix, and a folder has jsonl. The last shard may have fewer texts.
        progress: Called with the progress, in the main process.
        given: What the texts or their conditions are read from. If this is a pandas DataFrame, a
            returned table is a DataFrame, too.

    Returns:
        A ``WrittenTexts``. If ``out`` is None, a Dataset or a DataFrame.

    Raises:
        ConfigError: An argument is not valid, or the existing table was written with other
            settings.
        OutputExists: ``out`` exists and is not a table; or is a table, but whether it was written
            from the same texts cannot be found out.
        CheckpointError: Another process is writing this table, or the working folder has the shards
            of another job.
        ReviewgenError: See ``make_plan``.
        ProcessLost: Another process has failed or ended.
    """
    if out is None:
        from datasets import Dataset  # takes a second, since it imports pandas

        if shards.format is not None:
            raise ConfigError(
                "The format is that of a folder; without out, a dataset is returned: leave the"
                " format out."
            )
        from pyarrow import parquet

        with temporary_folder() as folder:
            written = write_table(make_plan, folder / "table.parquet", shards, progress)
            dataset = Dataset(parquet.read_table(written.out))
        # only pandas DataFrames have this method
        return dataset.to_pandas() if hasattr(given, "iterrows") else dataset

    def make_table() -> _Table:
        """Check the arguments, and return the table as this process sees it. Called in each
        process.
        """
        path, format = _check_target(out, shards.format)
        check_count("shard_texts", shards.shard_texts)
        return _Table(path, replace(shards, format=format), make_plan(path), processes, progress)

    with all_processes() as processes, ExitStack() as locks:
        table = processes.each(make_table, out)
        complete = table.open(locks)
        return complete or table.write()


def _check_target(out: Any, format: str | None) -> tuple[Path, str]:
    """Check the path and the format of a table, and return both. If the format is None, a file has
    the format of its suffix, and a folder has jsonl.
    """
    path = to_path("out", out)
    suffix = path.suffix.removeprefix(".").lower()
    if suffix in _OTHER_FILES:
        raise ConfigError(
            f"out={path.name} must be a folder, or a file whose name ends in .jsonl, .parquet or"
            " .csv."
        )
    is_file = suffix in (*_FORMATS, "csv")
    if format is None:
        format = suffix if is_file else _FORMATS[0]
    if not is_file and not (isinstance(format, str) and format in _FORMATS):
        raise ConfigError(
            f"The format of a folder is jsonl or parquet; got {quoted(format)}. For a CSV file, let"
            " the name of out end in .csv."
        )
    if is_file and format != suffix:
        raise ConfigError(
            f"out={path.name} is a file of {suffix}, and the format is {format}: leave the format"
            " out."
        )
    # A path without a name is "." or "/". These exist, so the check fails.
    if is_file or not path.name or _read_manifest(path) is None:
        check_output(path)
    return path, format


class _Table:
    """A table that is being written, as one of the processes sees it. See ``write_table``."""

    def __init__(
        self,
        out: Path,
        shards: ShardOptions,
        plan: TablePlan,
        processes: Processes,
        progress: Progress | None,
    ) -> None:
        self.out = out
        self.plan = plan
        self.processes = processes
        self.is_file = out.suffix.lower() == f".{shards.format}"
        self.shard_texts = (
            min(shards.shard_texts, _FILE_SHARD_TEXTS) if self.is_file else shards.shard_texts
        )
        # shards are read back, so they are not in CSV
        self.format = "jsonl" if shards.format == "csv" else shards.format
        layout = {"format": shards.format, "shard_texts": self.shard_texts, "columns": plan.columns}
        self.facts: dict[str, Any] = json.loads(json.dumps({**plan.facts, **layout}))
        # the seed may not be known yet
        known = {name: value for name, value in self.facts.items() if name != "seed"}
        self.job = Job(out, "table", known)
        self.progress = progress if processes.rank == 0 else None
        self.keep_formulas = shards.keep_formulas
        self.unique = bool(self.facts.get("unique"))
        self.is_resumed = False
        # Number of texts in a shard of the job. The shards of the job may have repeats, and are not
        # the shards of the finished table.
        self.size = min(self.shard_texts, plan.total or self.shard_texts)

    def open(self, locks: ExitStack) -> WrittenTexts | None:
        """Lock the working folder until ``locks`` is closed, and resume the job in it. If the table
        is already complete, return the table, else None.
        """
        self.processes.refuse_differences({**self.facts, "out": str(self.out)})
        self.facts, complete = self.processes.main(lambda: self._open_job(locks), self.out)
        if complete is None:
            self.processes.gather(self._require_shared, self.out)
        return complete

    def write(self) -> WrittenTexts:
        """Write the shards in rounds, and then the table. If texts must differ, draw at most ten
        times the wanted number of texts, until enough of them differ.
        """
        total = self.plan.total
        # number of texts to write; if texts must differ, number of texts to draw, which may grow
        wanted = total or sys.maxsize
        size = self.size
        shards = 0  # number of shards that are written
        texts = 0  # number of texts in these shards
        hashes = np.empty(0, np.uint64)  # the hash of each of them; none if repeats are allowed

        def write_own_shard() -> tuple[int, np.ndarray]:
            """Write this process's shard of the round. Return the number of its texts, and their
            hashes.
            """
            first = (shards + self.processes.rank) * size
            rows = self._write_shard(first, wanted) if first < wanted else []
            own_hashes = [self._hash_of(row) for row in rows] if self.unique else []
            return len(rows), np.array(own_hashes, np.uint64)

        while shards * size < wanted:
            results = self.processes.gather(write_own_shard, self.out)
            hashes = np.concatenate([hashes, *(shard_hashes for _, shard_hashes in results)])
            texts += sum(length for length, _ in results)
            shards += self.processes.world_size
            if total is None:
                if results[-1][0] < size:  # the last process has found no more texts
                    break
            elif self.unique and shards * size >= wanted:
                distinct = int(first_of_each(hashes).sum())
                max_drawn = _MAX_DRAWS * total
                if distinct < total and texts < max_drawn:
                    # a new distinct text is expected to take as many draws as one took so far on
                    # average; _MARGIN adds some more
                    missing = (total - distinct) * texts / max(1, distinct) * _MARGIN
                    wanted = min(max_drawn, texts + math.ceil(missing))
                    # processes whose shard began after the last wanted text have written none
                    shards = texts // size
        return self.processes.main(lambda: self._finish(texts, hashes), self.out)

    def _hash_of(self, row: Row) -> int:
        """Return the hash of the text of a row."""
        return hash_text(json.dumps([row[name] for name in self.plan.compared]))

    def _write_shard(self, first: int, wanted: int) -> list[Row]:
        """Write a shard unless it exists, and return its rows.

        Args:
            first: The number of its first text.
            wanted: The number of texts to write, or to draw if texts must differ.
        """
        file = self._shard_path(first // self.size)
        # the name of the digest's file has the digest of the shard as it is now, so the file of a
        # damaged shard is not found
        if file.exists() and self._digest_path(file).exists():
            return list(read_rows(file))
        # missing, damaged, or left by a process that was killed before it recorded the digest
        remove(file)
        last = first + self.size
        # if texts must differ, all shards have the same size, since further ones may follow
        if not self.unique:
            last = min(last, wanted)
        total = None if self.plan.total is None else wanted
        written = list[Row]()
        for row in self.plan.rows(self.facts.get("seed", 0), first, last):
            self.processes.stop_if_interrupted()
            written.append(row if self.format == "jsonl" else _replace(row, _SURROGATES, "\ufffd"))
            if self.progress is not None and not len(written) % _REPORTED_TEXTS:
                # the other processes have written about as many rows in this round
                done = first + len(written) * self.processes.world_size
                self.progress(self.plan.stage, min(done, wanted), total)
        if written:
            self._write_file(file, written, self.format, is_marked=False)
            Job.write_whole(self._digest_path(file), Path.touch)
        return written

    def _shard_path(self, number: int) -> Path:
        """Return the path of a shard of the job."""
        return self.job.path(f"shards/texts-{number:05d}.{self.format}")

    def _digest_path(self, shard: Path) -> Path:
        """Return the path of an empty file whose name has the digest of a shard. If this file
        exists, the shard is complete.
        """
        return self.job.path(f"digests/{shard.name}.{digest_of(shard)}")

    def _open_job(self, locks: ExitStack) -> tuple[dict[str, Any], WrittenTexts | None]:
        """Open the table in the main process. Return its facts; and the table if it is already
        complete, else None. If the facts have a seed, the returned seed is never None.
        """
        facts = dict(self.facts)
        manifest = None if self.is_file else _read_manifest(self.out)
        if manifest is None:
            locks.enter_context(self.job)
            if not self.plan.can_resume:
                self.job.clear()
            self.is_resumed = any(self.job.path("shards").glob("t*"))  # see _shard_path
            before = self.job.require({})  # the recorded facts of the earlier call, if any
        else:
            before = manifest["job"]
        if "seed" in facts and facts["seed"] is None:  # the user has given none
            facts["seed"] = before.get("seed", secrets.randbits(32))
        if manifest is None:
            if "seed" in facts:
                self.job.require({"seed": facts["seed"]})
            return facts, None
        names = facts | before
        if different := [name for name in names if facts.get(name) != before.get(name)]:
            raise ConfigError(
                f"{self.out} was written with other settings: {', '.join(different)} differ. Remove"
                " that folder, or give another --out."
            )
        if not self.plan.can_resume:
            raise OutputExists(
                f"{self.out} already exists. Give another folder, or remove it first."
            )
        # the working folder is left if a process was killed after it had published the table
        if self.job.folder.exists():
            with suppress(CheckpointError, OutputExists), self.job:
                self.job.clear()
        return facts, WrittenTexts(
            self.out, manifest["texts"], manifest["summary"], tuple(manifest["files"]), is_new=False
        )

    def _require_shared(self) -> None:
        """Raise if this process does not see the working folder of the main process."""
        if not self.job.done("job.json"):
            raise StorageError(
                f"{self.job.folder} is not the same folder on all machines: give an --out on a file"
                " system that they share."
            )

    def _finish(self, texts: int, hashes: np.ndarray) -> WrittenTexts:
        """Make the table from the shards, and rename it to ``out``. If texts must differ,
        ``hashes`` has the hash of each text.
        """
        # remove an unpublished table of an earlier call, which may no longer match the shards
        remove(self.job.path("table"))
        shards = [self._shard_path(number) for number in range(math.ceil(texts / self.size))]
        rows: Iterator[Row] = chain.from_iterable(map(read_rows, shards))
        total = self.plan.total
        if self.plan.summarize is not None:
            summary = self.plan.summarize(chain.from_iterable(map(read_rows, shards)))
        else:
            summary = {"seed": self.facts["seed"], "asked": total, "drawn": texts, "repeats": 0}
        if self.unique:
            is_first = first_of_each(hashes)
            kept = np.flatnonzero(is_first)[:total]  # positions of the texts that the table keeps
            # texts that were drawn after the last one that the table keeps are not counted
            drawn = int(kept[-1]) + 1 if len(kept) == total else texts
            rows = islice(compress(rows, is_first.tolist()), len(kept))
            texts = len(kept)
            summary |= {"drawn": drawn, "repeats": drawn - texts}
        if not self.is_file:
            files = self._write_folder(rows, texts, summary)
        else:
            if self.plan.receipts is not None:
                rows = _write_receipts(self.plan.receipts, rows)
            self._write_file(
                self.job.path("table"), rows, self.facts["format"], self.plan.is_synthetic
            )
            files = (self.out.name,)
        self.job.finish("table")
        return WrittenTexts(self.out, texts, summary, files, is_resumed=self.is_resumed)

    def _write_folder(
        self, rows: Iterator[Row], texts: int, summary: Mapping[str, Any]
    ) -> tuple[str, ...]:
        """Write the files of a table that is a folder, and its manifest. Return the names of the
        files, without the manifest.
        """
        folder = self.job.path("table")
        size = self.shard_texts
        count = math.ceil(texts / size)
        files = {}
        for number in range(count):
            # the naming scheme of the library ``datasets``
            file = folder / f"train-{number:05d}-of-{count:05d}.{self.format}"
            # the last file takes all rows, so that their files are read to the end and closed
            part = islice(rows, size) if number + 1 < count else rows
            self._write_file(file, part, self.format, self.plan.is_synthetic)
            files[file.name] = {"texts": min(size, texts - number * size), **digest_file(file)}
        content = {
            "format": _MANIFEST_FORMAT,
            "synthetic": self.plan.is_synthetic,
            "texts": texts,
            "summary": summary,
            "job": self.facts,
            "files": files,
        }
        text = json.dumps(content, indent=1, ensure_ascii=False)
        (folder / _MANIFEST).write_bytes(text.encode("utf-8", "backslashreplace"))
        return tuple(files)

    def _write_file(
        self, file: Path, rows: Iterable[Row], format: str | None, is_marked: bool
    ) -> None:
        """Write rows to a file, which appears under its name only when it is complete.

        A marked file says that its texts are synthetic. A parquet file says so in the metadata of
        its schema, because its readers expect exactly the columns of the plan; any other file has a
        column ``synthetic``.
        """
        columns = self.plan.columns
        if is_marked and format != "parquet":
            columns = {**columns, "synthetic": "bool"}
            rows = (row | {"synthetic": True} for row in rows)
        metadata = {"synthetic": "true"} if is_marked else {}
        Job.write_whole(
            file,
            lambda path: _write_rows(path, rows, format, columns, metadata, self.keep_formulas),
        )


def _replace(row: Row, pattern: re.Pattern[str], new: str) -> Row:
    """Return a row in which matches of a pattern are replaced in all values that are strings."""
    return {
        name: pattern.sub(new, value) if isinstance(value, str) else value
        for name, value in row.items()
    }


def _write_rows(
    file: Path,
    rows: Iterable[Row],
    format: str | None,
    columns: Mapping[str, str],
    metadata: Mapping[str, str],
    keep_formulas: bool,
) -> None:
    """Write rows to a file.

    Args:
        file: The file.
        rows: The rows.
        format: "jsonl", "csv" or "parquet".
        columns: The pyarrow type of each column, as in {"text": "string"}.
        metadata: The metadata of the schema, for a parquet file.
        keep_formulas: Whether values that a spreadsheet would take for formulas stay as they are in
            a CSV file.
    """
    if format == "jsonl":
        with file.open("wb") as stream:
            for row in rows:
                line = json.dumps(row, ensure_ascii=False, allow_nan=False)
                stream.write(line.encode("utf-8", "backslashreplace") + b"\n")
        return
    if format == "csv":
        # utf-8-sig writes a byte order mark: without it, Excel misreads letters that are not ASCII
        with file.open("w", encoding="utf-8-sig", newline="") as table:
            writer = csv.DictWriter(table, columns)
            # the header is written like a row, since a name may look like a formula
            for row in chain([dict(zip(columns, columns, strict=True))], rows):
                cells = _replace(row, _SURROGATES, "\ufffd")
                writer.writerow(cells if keep_formulas else _replace(cells, _FORMULA, "'"))
        return
    import pyarrow as pa  # importing it takes a tenth of a second
    from pyarrow import parquet

    fields = [(name, pa.type_for_alias(kind)) for name, kind in columns.items()]
    schema = pa.schema(fields, dict(metadata))
    rest = iter(rows)
    # an absolute path, because pyarrow takes the "a" of "a:b" for a protocol
    with parquet.ParquetWriter(file.absolute(), schema, compression="zstd") as writer:
        while batch := list(islice(rest, _PARQUET_ROWS)):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))


def _write_receipts(file: Path, rows: Iterator[Row]) -> Iterator[Row]:
    """Yield rows, and write the receipt of each row to a temporary file. After the last row, this
    file is renamed to ``file``. This comes before the table is renamed, so that the same command
    still resumes the table if the process ends in between.

    Raises:
        OutputExists: A file with other content exists at this path by now.
    """
    with storage_errors(file), atomic_file(file) as new:
        with new.open("w", encoding="utf-8", errors="backslashreplace") as lines:
            for row in rows:
                lines.write(f"{row['receipt']}\n")
                yield row
        if file.exists() and digest_of(file) != digest_of(new):
            raise OutputExists(
                f"{file} already exists. Give another --receipt, or remove it first."
            )


def read_rows(file: Path) -> Iterator[Row]:
    """Yield the rows of a shard."""
    if file.suffix == ".jsonl":
        with file.open("rb") as stream:
            yield from map(json.loads, stream)
        return
    from pyarrow import parquet

    for batch in parquet.ParquetFile(file.absolute()).iter_batches():
        yield from batch.to_pylist()


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a table; None if the folder has no manifest, or the manifest of
    another program.
    """
    keys = {"job", "texts", "summary", "files"}
    with suppress(OSError, ValueError, TypeError, KeyError):
        manifest = dict(read_json(folder / _MANIFEST, max(MAX_RECORD, MAX_VOCABULARY)))
        if manifest["format"] == _MANIFEST_FORMAT and keys <= manifest.keys():
            return manifest
    return None
