"""The folder ``OUT.partial`` that a job works in until its result is complete; the same job goes on from what is finished in it.

``job.json`` in it says what the results depend on. One process holds its lock. Knows nothing of what a job does.
"""

import contextlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reviewgen.config import MAX_RECORD, read_json
from reviewgen.errors import CheckpointError, OutputExists, StorageError
from reviewgen.flushing import Flusher
from reviewgen.lock import Lock, is_foreign, read_holder
from reviewgen.storage import write_file, write_new

__all__ = ["PartialFolder", "differences"]

_JOB_FILE = "job.json"
_LOCK_FILES = ("lock", "lock.pid")
_TRIES = 3  # of locking a folder that its holder removes


class PartialFolder:
    """The working folder of a job.

    Args:
        out: The path of the result.
        doing: What another process that holds the lock does, for the message.
        kinds: The folders of the results in it.
    """

    def __init__(self, out: Path, doing: str, kinds: Sequence[str]) -> None:
        self.out, self.folder = out, out.with_name(f"{out.name}.partial")
        self._doing, self._kinds = doing, kinds
        self._lock: Lock | None = None
        self._flusher = Flusher()

    def place(self, kind: str, name: object) -> Path:
        """Return the path of a result."""
        return self.folder / kind / str(name)

    def acquire(self) -> dict[str, Any] | None:
        """Create and lock the folder; return the facts of the job that was begun in it, or None.

        Raises:
            CheckpointError: Another process holds the lock.
            OutputExists: The folder is not that of a job.
        """
        self._refuse_foreign()
        for _ in range(_TRIES):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = self._acquire_lock()
            if lock is not None and (lock.is_in_place() or not lock.is_supported):
                self._lock = lock
                return self._read_job()
            if lock is not None:
                lock.release()
        raise self._in_use()

    def start(self, facts: Mapping[str, Any], *, resumes: bool) -> None:
        """Make the folders of the results, and remove what is not finished; without ``resumes``, all results."""
        if not resumes:
            self._remove_results()
        for kind in self._kinds:
            (self.folder / kind).mkdir(parents=True, exist_ok=True)
            for scratch in (self.folder / kind).glob(".*"):  # of a process that was killed
                shutil.rmtree(scratch) if scratch.is_dir() else scratch.unlink()
        write_file(self.folder / _JOB_FILE, json.dumps(facts, indent=1).encode())

    def require_shared(self) -> None:
        """Raise in a process that does not see the folder.

        Raises:
            StorageError: It does not.
        """
        if not (self.folder / _JOB_FILE).exists():
            raise StorageError(
                f"{self.folder} is not the same folder on all machines: give an --out on a file system that they share."
            )

    def remove(self) -> None:
        """Remove the folder, unless something else was put into it, and release the lock."""
        self._remove_results()
        (self.folder / _JOB_FILE).unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.remove()
            self._lock = None
        with contextlib.suppress(OSError):  # it is not empty
            self.folder.rmdir()

    def remove_left(self, facts: Mapping[str, Any]) -> None:
        """Remove what a process has left that was killed after it had published the result; facts are those of its job."""
        if self._lock is not None or not (self.folder / _JOB_FILE).is_file():
            return
        try:
            before = self.acquire()
        except CheckpointError:  # it is not killed
            return
        if before is None or differences(facts, before):
            self.close()
        else:
            self.remove()

    def write_later(self, path: Path, write: Callable[[Path], None]) -> None:
        """Write a result, as ``write_new``; it is forced to disk and gets its name while the next results are computed."""
        write_new(path, write, self._flusher)

    def later(self, finish: Callable[[], None]) -> None:
        """Have a function called while the next results are computed, when those of earlier calls have their names."""
        self._flusher(finish)

    def flush(self) -> None:
        """Return when all results have their names."""
        self._flusher.wait()

    def close(self) -> None:
        """Release the lock, once no file is written."""
        self._flusher.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _refuse_foreign(self) -> None:
        """Raise if the folder was not made by a job: it has other files, and no job.json, before which no result is written."""
        if not self.folder.is_dir() or (self.folder / _JOB_FILE).exists():
            return
        own = {*_LOCK_FILES, *(kind.partition("/")[0] for kind in self._kinds)}
        others = {path.name for path in self.folder.iterdir()} - own
        if is_foreign(self.folder / _LOCK_FILES[0]):
            others.add(_LOCK_FILES[0])
        others |= {kind for kind in self._kinds if any(path.is_file() for path in (self.folder / kind).rglob("*"))}
        if others:
            raise OutputExists(
                f"{self.folder}, where work in progress is kept, has something else in it, {min(others)}: remove that folder, or "
                "give another --out."
            )

    def _acquire_lock(self) -> Lock | None:
        """Return the lock; None if its holder has just removed the folder."""
        try:
            return Lock(self.folder / _LOCK_FILES[0])
        except BlockingIOError:
            raise self._in_use() from None
        except (FileNotFoundError, FileExistsError):  # the second if it was removed while filelock looked for it
            return None

    def _in_use(self) -> CheckpointError:
        holder = read_holder(self.folder / _LOCK_FILES[0])
        who = "another process" if holder is None else f"process {holder}"
        return CheckpointError(f"{self.folder} is in use by {who}, which {self._doing}. Wait for it.")

    def _read_job(self) -> dict[str, Any] | None:
        try:
            return dict(read_json(self.folder / _JOB_FILE, MAX_RECORD))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError):
            return {}

    def _remove_results(self) -> None:
        for kind in self._kinds:
            shutil.rmtree(self.folder / kind, ignore_errors=True)


def differences(facts: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    """Return the names of the facts, JSON values, that were others before."""
    facts = json.loads(json.dumps(facts))
    return [name for name in facts if before.get(name) != facts[name]]
