"""What a preparation is to make, checked before anything is read, and the folder it works in until the store is finished.

The working folder ``STORE.partial`` has the cleaned texts in parts, what was found about them, and the store so far. The same
command goes on from what is finished in it. It is removed when the store has its name.
"""

import hashlib
import json
import platform
import sys
import unicodedata
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

from reviewgen.config import to_dict
from reviewgen.data import cache_folder
from reviewgen.data.cleaning import hash_text
from reviewgen.data.remote import cached_folder, is_uploaded, refuse_existing_url, upload_store
from reviewgen.data.store_folder import STORE_FILE, StoreFolder, parse_store_file
from reviewgen.data.urls import is_url
from reviewgen.errors import CheckpointError, ConfigError, DataError, OutputExists, StorageError, printable, quoted
from reviewgen.partial import STORE_KINDS, PartialFolder, differences
from reviewgen.preparation.leaks import check_run
from reviewgen.preparation.near_duplicates import check_threshold
from reviewgen.preparation.options import PrepareOptions
from reviewgen.runs.plan import TrainingPlan, make_plan
from reviewgen.runs.prepared import find_store
from reviewgen.storage import publish, refuse_existing, to_path
from reviewgen.training import Processes
from reviewgen.training.rounds import share_tasks
from reviewgen.version import __version__

__all__ = ["Job", "WorkFolder", "make_job"]


@dataclass(frozen=True)
class Job:
    """A preparation.

    Attributes:
        plan: The plan of a training of the preset on the source.
        out: The folder of the store; one in the token cache, if the store is copied to a URL.
        url: That URL.
        near_duplicates: See ``PrepareOptions``.
        decontaminate: Likewise.
    """

    plan: TrainingPlan
    out: Path
    url: str | None
    near_duplicates: float | None
    decontaminate: int | None

    def identity(self) -> dict[str, Any]:
        """Return what decides the store besides the texts, as JSON values by name."""
        parts = self.plan.parts
        libraries = ("tokenizers", "numpy") if self.near_duplicates is None else ("tokenizers", "numpy", "rensa")
        return {
            "versions": [
                __version__,
                *map(version, libraries),
                unicodedata.unidata_version,
                platform.python_version(),
            ],
            "tokenizer": [parts.tokenizer_plugin.name, parts.tokenizer_plugin.package, parts.tokenizer_plugin.version],
            "tokenizer settings": to_dict(parts.tokenizer_config),
            "reading": self.plan.data.facts(),
            "novelty": [parts.training.novelty, parts.training.novelty_mb],
            "near_duplicates": self.near_duplicates,
            "decontaminate": self.decontaminate,
        }

    def names(self) -> dict[str, Any]:
        """Return what only has to be the same in all processes."""
        texts = (self.plan.source, self.plan.validation)
        source, validation = (str(text) if isinstance(text, str | Path) else type(text).__name__ for text in texts)
        return {
            "preset": self.plan.preset,
            "source": source,
            "validation": validation,
            "out": self.url or str(self.out),
            "source code": source_digest(Path(__file__).parents[1], self.plan.parts.tokenizer_class.__module__),
        }


def source_digest(folder: Path, module: str) -> str:
    """Return a digest of the Python files of a folder and of a loaded module."""
    digest = hashlib.sha256()
    for file in [*sorted(folder.rglob("*.py")), Path(getattr(sys.modules.get(module), "__file__", None) or __file__)]:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def make_job(source: Any, preset: str, out: Any, options: PrepareOptions) -> Job:
    """Return what to prepare; nothing is read.

    Raises:
        ReviewgenError: A setting or the preset is unusable.
    """
    near, run = options.get("near_duplicates"), options.get("decontaminate")
    check_threshold(near)
    check_run(run)
    others: Any = {name: value for name, value in options.items() if name not in ("near_duplicates", "decontaminate")}
    url = out if isinstance(out, str) and is_url(out) else None
    if url is None and isinstance(out, str) and out.startswith("hf://"):
        raise ConfigError(f"{quoted(out)} names no folder of the Hub: write hf://datasets/owner/name/folder.")
    folder = cache_folder() / f"preparing-{hash_text(url):016x}" if url else to_path("out", out)
    if not folder.name:  # "." or "/", which exist
        refuse_existing(folder)
    return Job(make_plan(preset, source, others), folder, url, near, run)


class WorkFolder(PartialFolder):
    """The working folder of a job.

    Args:
        out: The folder of the store.
        url: The URL that it is copied to instead.

    Attributes:
        digest: Identifies the job and its texts, in the main process; None if the texts cannot be read again.
    """

    def __init__(self, out: Path, url: str | None = None) -> None:
        super().__init__(out, "prepares the same store", STORE_KINDS)
        self._url = url
        self._upload = ""  # what its upload is known by
        self.digest: str | None = None

    @property
    def store(self) -> Path:
        """The store so far."""
        return self.folder / "store"

    def shard(self, number: int) -> Path:
        """Return the folder of a shard of the store."""
        return self.place("store/shards", f"{number:05d}")

    def share(self, processes: Processes, numbers: Iterable[int], work: Callable[[int], None]) -> None:
        """Share tasks with the other processes; see ``share_tasks``. Their results are complete when it returns."""
        share_tasks(processes, numbers, work, self.folder, flush=self.flush)

    def find_finished(self, preset: str, facts: dict[str, Any]) -> StoreFolder | None:
        """Return the store if the same job has made it already; what is left of the job is removed.

        Args:
            preset: The preset that the store is for.
            facts: What the results depend on, as JSON values by name; the texts can be read again.
        """
        store = None
        with suppress(DataError):  # nothing can be read there, or it is unfinished, which ``open`` says
            store = find_store(self._url or self.out)
        if store is None or (store.facts["preset"], store.facts.get("job")) != (preset, _digest(facts)):
            return None
        if self._is_published():
            self.remove_left(facts)
        return store

    def open(self, facts: dict[str, Any], *, can_resume: bool) -> bool:
        """Lock the folder for this job; return whether an earlier try is resumed.

        Args:
            facts: What the results depend on, as JSON values by name.
            can_resume: Whether the source can be read again; otherwise an earlier try is removed.

        Raises:
            OutputExists, DataError: The store exists already.
            CheckpointError: The folder is in use, or of other settings or texts.
        """
        self._upload = _digest(facts)
        self.digest = self._upload if can_resume else None
        if self._is_published():
            self.remove_left(facts)
        self._refuse_existing()
        before = self.acquire()
        try:
            self._refuse_existing()  # another process may have finished it before it released the lock
        except (OutputExists, DataError):
            if before is None:
                self.remove()
            raise
        resumes = before is not None and can_resume
        if before is not None and (different := differences(facts, before)):
            raise CheckpointError(
                f"{self.folder} is the beginning of another store: {', '.join(different)} differ. Give the same command to go on,"
                " remove that folder, or give another --out."
            )
        self.start(facts, resumes=resumes)
        return resumes

    def require_shared(self) -> None:
        """Raise in a process that does not see the folder, as the others do; see ``PartialFolder``."""
        try:
            super().require_shared()
        except StorageError:
            if self._url is None:
                raise
            raise StorageError(
                f"A store at {self._url} is made in the token cache, which is not the same folder on all machines: set "
                "REVIEWGEN_CACHE to a folder that they share, or prepare the store in such a folder and copy it."
            ) from None

    def _is_published(self) -> bool:
        if self._url is None:
            return (self.out / STORE_FILE).is_file() and not self.store.exists()
        return self.folder.exists() and is_uploaded(self.store, self._url)

    def _refuse_existing(self) -> None:
        refuse_existing(self.out)
        if self._url is not None:
            refuse_existing_url(self._url, self._upload)

    def publish(self) -> StoreFolder:
        """Give the finished store, which is on the disk, its name, or copy it to its URL; return the store.

        Raises:
            OutputExists: Something else was put into it.
        """
        content = parse_store_file((self.store / STORE_FILE).read_bytes(), str(self.store))
        self._refuse_others(content["files"])
        if self._url is None:
            publish(self.store, self.out, is_flushed=True)
            store = StoreFolder.read(self.out)
        else:
            upload_store(self.store, self._url, self._upload)
            store = StoreFolder(cached_folder(self.store / STORE_FILE), content, self._url)
            if not store.folder.exists():  # it need not be fetched
                publish(self.store, store.folder, is_flushed=True)
        return store

    def _refuse_others(self, files: Iterable[str]) -> None:
        own = {STORE_FILE, *files}
        own |= {str(folder) for name in own for folder in PurePosixPath(name).parents}
        for path in self.store.rglob("*"):
            if path.is_symlink() or path.relative_to(self.store).as_posix() not in own:
                raise OutputExists(
                    f"{printable(str(path))} is not of the store that is made there. Remove it, and give the same command again."
                )


def _digest(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
