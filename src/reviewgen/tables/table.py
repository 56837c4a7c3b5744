"""A table in progress: a ``Job`` whose pieces are shards, which become ``OUT`` with a manifest when all are written.

Which rows a shard has depends on the job only, and not on the number of processes. They work in rounds: in each, every process
writes one shard, and all wait for each other, so that an error, an interrupt or the end of one ends all.
"""

import json
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from reviewgen.config import MAX_RECORD, MAX_VOCABULARY, read_json
from reviewgen.data import digest_file
from reviewgen.errors import CheckpointError, ConfigError, DataError, OutputExists, StorageError
from reviewgen.processes import Processes
from reviewgen.storage import Job, check_output
from reviewgen.tables.shards import Layout, Row, read_rows

Progress = Callable[[str, int, int | None], None]
"""Called with what is being done, how many texts of it are done, and of how many if that is known."""

_MANIFEST, _FORMAT = "manifest.json", 1
_REPORTED = 64  # texts between two reports of progress


@dataclass(frozen=True)
class WrittenTexts:
    """A table that was written.

    Attributes:
        out: Its folder, or its file.
        texts: The number of texts.
        summary: What is said of all texts: of generated ones the seed, how many were drawn, and the repeats left out.
        files: The names of its files.
        is_new: Whether this call has written it; otherwise it was complete already.
    """

    out: Path
    texts: int
    summary: Mapping[str, Any]
    files: tuple[str, ...]
    is_new: bool = True


class Table:
    """A table in progress, in one of the processes.

    Args:
        layout: How it is written.
        facts: What decides the rows, as JSON values by name. A seed that is None becomes that of an earlier try, or a random one.
        processes: All processes.
        progress: Called with the progress, in the main process.
        can_resume: Whether ``facts`` identify the rows; otherwise nothing is kept of an earlier try.
    """

    def __init__(
        self,
        layout: Layout,
        facts: Mapping[str, Any],
        processes: Processes,
        progress: Progress | None,
        *,
        can_resume: bool = True,
    ) -> None:
        self.layout, self.processes = layout, processes
        self.facts: dict[str, Any] = json.loads(json.dumps({**facts, **layout.facts()}))
        self._job = Job(layout.out, {name: value for name, value in self.facts.items() if name != "seed"})
        self._progress = progress if processes.rank == 0 else None
        self._can_resume, self._is_locked = can_resume, False

    def open(self) -> WrittenTexts | None:
        """Lock the working folder and resume what is in it; return the table if it is complete already.

        Raises:
            ConfigError: The folder has the texts of another job.
            OutputExists: Something else exists at ``out``, or a table of texts that cannot be compared with these.
            DataError: The folder is complete, but for files that were removed or changed.
            CheckpointError: Another process writes it, or the working folder has the shards of another job.
        """
        self.processes.refuse_differences({**self.facts, "out": str(self.layout.out)})
        self.facts, finished = self.processes.main(self._open, self.layout.out)
        if finished is None:
            self.processes.gather(self._require_shared, self.layout.out)
        return finished

    def close(self) -> None:
        """Release the lock."""
        if self._is_locked:
            self._job.__exit__()

    def write(self, number: int, rows: Iterable[Row], stage: str, before: int, total: int | None = None) -> list[Row]:
        """Write the rows of a shard, unless it is there, and return them; called by one process, inside ``gather``.

        Args:
            number: The number of the shard.
            rows: Its rows.
            stage: What is done, for the progress.
            before: The number of texts before them.
            total: The number of all texts, if it is known.
        """
        file = self._shard(number)
        if file.exists():
            return list(read_rows(file))
        written: list[Row] = []
        for row in rows:
            self.processes.stop_if_interrupted()
            written.append(self.layout.writable(row))
            if self._progress is not None and not len(written) % _REPORTED:
                done = before + len(written) * self.processes.world_size
                self._progress(stage, done if total is None else min(done, total), total)
        if written:
            Job.write_whole(file, lambda scratch: self.layout.write_rows(scratch, written))
        return written

    def rows(self, count: int) -> Iterator[Row]:
        """Yield the rows of all shards, of which there are ``count``."""
        return chain.from_iterable(read_rows(self._shard(number)) for number in range(count))

    def finish(self, texts: int, summary: Mapping[str, Any], rows: Iterable[Row] | None = None) -> WrittenTexts:
        """Give the table its name, and return it.

        Args:
            texts: The number of texts.
            summary: JSON values for the manifest.
            rows: The rows, where they are not those of all shards in their order.
        """
        return self.processes.main(lambda: self._finish(texts, summary, rows), self.layout.out)

    def _shard(self, number: int) -> Path:
        return self._job.path(f"shards/texts-{number:05d}.{self.layout.format}")

    def _open(self) -> tuple[dict[str, Any], WrittenTexts | None]:
        out, facts = self.layout.out, dict(self.facts)
        manifest = None if self.layout.is_file else _read_manifest(out)
        if manifest is None:
            check_output(out)
            self._job.__enter__()
            self._is_locked = True
            if not self._can_resume:
                self._job.clear()
            shutil.rmtree(self._job.path("table"), ignore_errors=True)  # of a process that was killed
            for file in self._job.path("shards").glob("train-*"):  # likewise, while it gave them their names
                file.rename(file.with_name(f"texts-{file.name.split('-')[1]}{file.suffix}"))
            if "seed" in facts:
                if facts["seed"] is None:
                    facts["seed"] = self._job.require({}).get("seed", secrets.randbits(32))
                self._job.require({"seed": facts["seed"]})
            return facts, None
        before = manifest["job"]
        if facts.get("seed", 0) is None:
            facts["seed"] = before.get("seed")
        if different := [name for name in {**facts, **before} if facts.get(name) != before.get(name)]:
            raise ConfigError(
                f"{out} has the texts of another job: {', '.join(different)} differ. Remove that folder, or give another --out."
            )
        if not self._can_resume:
            raise OutputExists(f"{out} already exists. Give another folder, or remove it first.")
        for name, known in manifest["files"].items():
            if not (out / name).is_file() or (out / name).stat().st_size != known["size"]:
                raise DataError(
                    f"The table {out} is damaged: {name} is missing or has another size. Remove it to write it again, or give "
                    "another --out."
                )
        if self._job.folder.exists():  # a process was killed when it had published the table
            with suppress(CheckpointError, OutputExists), self._job:
                self._job.clear()
        return facts, WrittenTexts(out, manifest["texts"], manifest["summary"], tuple(manifest["files"]), is_new=False)

    def _require_shared(self) -> None:
        if not self._job.done("job.json"):
            raise StorageError(
                f"{self._job.folder} is not the same folder on all machines: give an --out on a file system that they share."
            )

    def _finish(self, texts: int, summary: Mapping[str, Any], rows: Iterable[Row] | None) -> WrittenTexts:
        size, out = self.layout.shard_texts, self.layout.out
        count = -(-texts // size)
        if self.layout.is_file:
            whole = self.rows(count) if rows is None else rows
            self._job.write("table", lambda file: self.layout.write_rows(file, whole))
            self._job.finish("table")
            return WrittenTexts(out, texts, summary, (out.name,))
        names = [f"train-{number:05d}-of-{count:05d}.{self.layout.format}" for number in range(count)]  # as ``datasets`` has them
        if rows is None:
            folder = self._job.path("shards")
            folder.mkdir(exist_ok=True)
            for number, name in enumerate(names):
                self._shard(number).rename(folder / name)
        else:
            folder, rest = self._job.path("table"), iter(rows)
            for name in names:
                Job.write_whole(folder / name, lambda file: self.layout.write_rows(file, islice(rest, size)))
        files = {
            name: {"texts": min(size, texts - number * size), **digest_file(folder / name)} for number, name in enumerate(names)
        }
        content = {"format": _FORMAT, "synthetic": "seed" in self.facts, "texts": texts, "summary": summary}
        text = json.dumps(content | {"job": self.facts, "files": files}, indent=1, ensure_ascii=False)
        (folder / _MANIFEST).write_bytes(text.encode("utf-8", "backslashreplace"))
        self._job.finish(folder.name)
        return WrittenTexts(out, texts, summary, tuple(names))


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a table, or None if there is nothing.

    Raises:
        OutputExists: Something else has a manifest there.
    """
    if not (folder / _MANIFEST).is_file():
        return None
    with suppress(OSError, ValueError, TypeError, KeyError):
        manifest = dict(read_json(folder / _MANIFEST, max(MAX_RECORD, MAX_VOCABULARY)))
        if manifest["format"] == _FORMAT and {"job", "texts", "summary", "files"} <= manifest.keys():
            return manifest
    raise OutputExists(f"{folder / _MANIFEST} is not a manifest of reviewgen; the folder is left as it is. Give another --out.")
