"""A table in progress: parts of rows in the working folder ``OUT.partial``, which become the shards of ``OUT``, and a manifest.

The rows of a part depend on the job only, and so does which rows a shard has; not on the number of processes, or on which of them
wrote what. The same job goes on from the finished parts.
"""

import contextlib
import json
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from reviewgen.config import read_json
from reviewgen.data import digest_file
from reviewgen.errors import ConfigError, OutputExists
from reviewgen.partial import JOB_FILE, TABLE_KINDS, PartialFolder, differences, remove_entry
from reviewgen.processes import Processes, everywhere, main_process_only, share_tasks
from reviewgen.storage import fsync_file, fsync_folder, publish, refuse_existing, write_file
from reviewgen.writing.layout import Layout, join_shards, write_shard
from reviewgen.writing.manifest import FORMAT, MANIFEST, changed_manifest, is_summary, read_manifest, require_files
from reviewgen.writing.parts import TextPart

_GENERATED = dict.fromkeys(("seed", "asked", "drawn", "repeats"), 0)

Progress = Callable[[str, int, int | None], None]
"""Called with what is being done, how many texts of it are done, and of how many if that is known."""


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
        facts: What decides the rows, as JSON values by name. A seed that is None becomes that of an earlier try, or ``seed``.
        processes: All processes.
        progress: Called with the progress, in the main process.
        summary: The summary of no texts: numbers are 0, and those that may be unknown None.
        can_resume: Whether ``facts`` identify the rows; otherwise nothing is kept of an earlier try.
    """

    def __init__(
        self,
        layout: Layout,
        facts: Mapping[str, Any],
        processes: Processes,
        progress: Progress | None,
        *,
        summary: Mapping[str, Any] = _GENERATED,
        can_resume: bool = True,
    ) -> None:
        self.layout, self.processes = layout, processes
        self._summary, self._can_resume = summary, can_resume
        self.facts = {**facts, **layout.facts()}
        self.work = PartialFolder(layout.out, "writes the same texts", TABLE_KINDS)
        self._progress = progress if processes.rank == 0 else None

    def open(self, seed: int = 0) -> WrittenTexts | None:
        """Lock the working folder and go on from what is in it; return the table if it is complete already.

        Raises:
            ConfigError: The working folder, or the folder, has the texts of another job.
            OutputExists: Something else exists at ``out``, or a table of texts that cannot be compared with these.
            DataError: The folder is complete, but for files that were removed or changed.
            CheckpointError: Another process writes it.
        """
        self.facts, finished = main_process_only(self.processes, partial(self._open, seed), self.work.folder)
        if finished is None:
            everywhere(self.processes, self.work.require_shared, self.work.folder)
        return finished

    def part(self, number: int) -> TextPart:
        """Return a part, whether or not it is written."""
        return TextPart(self.work.folder / "parts", number)

    def report(self, stage: str, done: int, total: int | None) -> None:
        """Report progress."""
        if self._progress is not None:
            self._progress(stage, done, total)

    def finish(self, parts: Sequence[TextPart], kept: np.ndarray | None, summary: Mapping[str, Any]) -> WrittenTexts:
        """Write the shards from the parts, give the table its name, and return it.

        Args:
            parts: All parts in order.
            kept: The rows to write, sorted; None writes all.
            summary: JSON values for the manifest.
        """
        edges = np.cumsum([0, *(part.count for part in parts)], dtype=np.int64)
        total, size = int(edges[-1]) if kept is None else len(kept), self.layout.shard_texts
        names = [self.layout.name(number, -(-total // size)) for number in range(-(-total // size))]

        def write(number: int) -> None:
            first, last = number * size, min((number + 1) * size, total)
            self._write_shard(names[number], parts, edges, np.arange(first, last) if kept is None else kept[first:last])

        def report(done: int) -> None:
            self.report("Writing the shards", min(done * size, total), total)

        texts = {name: min(size, total - number * size) for number, name in enumerate(names)}
        main_process_only(self.processes, lambda: self._remove_others(texts), self.work.folder)
        share_tasks(self.processes, range(len(names)), write, self.work.folder, report)
        return main_process_only(self.processes, lambda: self._publish(names, total, summary), self.layout.out)

    def close(self) -> None:
        """Release the lock."""
        self.work.close()

    def _open(self, seed: int) -> tuple[dict[str, Any], WrittenTexts | None]:
        out = self.layout.out
        finished, before = self._find(), None
        if finished is None:
            if self._is_left():
                self.work.remove_left(self.facts)
            refuse_existing(out)
            before = self.work.acquire()
            finished = self._look_again(is_new=before is None)
        if finished is not None:
            before = finished["job"]
        facts = dict(self.facts)
        if "seed" in facts and facts["seed"] is None:
            facts["seed"] = seed if before is None else before.get("seed")
        if before is not None and (different := differences(facts, before)):
            place, go_on = (self.work.folder, "Give the same command to go on, remove") if finished is None else (out, "Remove")
            self.close()
            raise ConfigError(
                f"{place} has the texts of another job: {', '.join(different)} differ. {go_on} that folder, or give "
                "another --out."
            )
        if "seed" in facts:
            self._require_seed(facts["seed"], is_finished=finished is not None)
        if finished is not None:
            if not self._can_resume:
                raise OutputExists(f"{out} already exists. Give another folder, or remove it first.")
            if not is_summary(finished["summary"], self._summary):
                raise changed_manifest(out)
            require_files(out, finished["files"])
            if sum(one["texts"] for one in finished["files"].values()) != finished["texts"]:
                raise changed_manifest(out)
            if not (self.work.folder / "out").exists():
                self.work.remove_left(facts)
            return facts, _written(out, finished, is_new=False)
        self.work.start(facts, resumes=before is not None and self._can_resume)
        return facts, None

    def _require_seed(self, seed: Any, *, is_finished: bool) -> None:
        """Raise if the seed of an earlier try is not one.

        Raises:
            CheckpointError, DataError: It is not.
        """
        if type(seed) is not int or not 0 <= seed < 1 << 64:
            raise changed_manifest(self.layout.out) if is_finished else self.work.damaged(self.work.folder / JOB_FILE)

    def _find(self) -> dict[str, Any] | None:
        """Return the manifest of the table if it is complete; None for a table of one file, which has no manifest."""
        return None if self.layout.is_file else read_manifest(self.layout.out)

    def _look_again(self, *, is_new: bool) -> dict[str, Any] | None:
        """Return the manifest if another process has completed the table before it released the lock.

        Args:
            is_new: Whether this process has made the working folder; then it is removed if it is not needed.
        """
        is_needed = False
        try:
            finished = self._find()
            if finished is None:
                refuse_existing(self.layout.out)
                is_needed = True
            return finished
        finally:
            if is_new and not is_needed:
                self.work.remove()

    def _is_left(self) -> bool:
        """Return whether there is a file, and nothing else is to come of the working folder: its process was killed after it had
        published the file, or before anything was finished."""
        out, digest = self.layout.out, self.work.place("digests", self.layout.out.name)
        if not self.layout.is_file or not out.is_file():
            return False
        return not self.work.has_results or _read_facts(digest) == digest_file(out)

    def _remove_others(self, texts: Mapping[str, int]) -> None:
        """Remove shards of an earlier try that are not these, given by name with their number of texts."""
        for file in self.work.place("out", "").iterdir():
            digest = self.work.place("digests", file.name)
            if file.name not in texts or _read_facts(digest).get("texts") != texts[file.name]:
                remove_entry(file)
                remove_entry(digest)

    def _write_shard(self, name: str, parts: Sequence[TextPart], edges: np.ndarray, rows: np.ndarray) -> None:
        """Write the shard with some rows, and its digest."""
        first, last = np.searchsorted(edges, rows[[0, -1]], side="right") - 1
        bounds = rows.searchsorted(edges[first : last + 2])
        lines = (
            line
            for part, low, high in zip(range(first, last + 1), bounds[:-1], bounds[1:], strict=True)
            for line in parts[part].lines(rows[low:high] - edges[part])
        )
        file, digest = self.work.place("out", name), self.work.place("digests", name)
        if not self.work.is_finished(file):
            digest.unlink(missing_ok=True)
            self.work.write(file, lambda scratch: write_shard(scratch, lines, self.layout))
        if not self.work.is_finished(digest):
            facts = {"texts": len(rows), **digest_file(file)}
            self.work.write(digest, lambda scratch: write_file(scratch, json.dumps(facts).encode()))

    def _publish(self, names: Sequence[str], texts: int, summary: Mapping[str, Any]) -> WrittenTexts:
        folder, out = self.work.folder / "out", self.layout.out
        if self.layout.is_file:
            joined = self.work.place("parts", f".joined.{self.layout.format}")
            join_shards([folder / name for name in names], joined, self.layout)
            fsync_file(joined)
            write_file(self.work.place("digests", out.name), json.dumps(digest_file(joined)).encode())
            refuse_existing(out)
            joined.replace(out)
            fsync_folder(out.parent)
            written = WrittenTexts(out, texts, summary, (out.name,))
        else:
            files = {name: read_json(self.work.place("digests", name)) for name in names}
            content = {"format": FORMAT, "synthetic": "seed" in self.facts, "texts": texts, "summary": summary}
            content |= {"job": self.facts, "files": files}
            write_file(folder / MANIFEST, json.dumps(content, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace"))
            publish(folder, out)
            written = _written(out, content)
        self.work.remove()
        return written


def _written(out: Path, manifest: Mapping[str, Any], *, is_new: bool = True) -> WrittenTexts:
    return WrittenTexts(out, manifest["texts"], manifest["summary"], tuple(manifest["files"]), is_new)


def _read_facts(digest: Path) -> dict[str, Any]:
    """Return what a file in the folder ``digests`` says of a shard; nothing if it is not there or damaged."""
    with contextlib.suppress(OSError, ValueError):
        if stat.S_ISREG(digest.lstat().st_mode) and isinstance(facts := read_json(digest), dict):  # a pipe would not end
            return facts
    return {}
