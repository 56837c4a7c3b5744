"""The folder ``OUT.partial`` that a job works in until its result is complete; the same job goes on from what is finished in it.

    job.json        what the results depend on
    lock, lock.pid  held by the process that works in it, or by the first of several
    parts, ...      the results, in a folder for each kind
    checksums       the checksum of each, to find out later damage

Only what a job has made is touched: a folder of something else is refused, and so is one of another user, who may have put links
into it. Knows nothing of what a job does.
"""

import contextlib
import json
import logging
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from reviewgen.checksums import checksum
from reviewgen.config import MAX_RECORD, read_json
from reviewgen.errors import CheckpointError, OutputExists, StorageError, printable
from reviewgen.flushing import Flusher
from reviewgen.lock import Lock, is_foreign, read_holder
from reviewgen.scratch import is_made_by_user
from reviewgen.storage import write_file, write_new

SUFFIX, JOB_FILE = ".partial", "job.json"
TABLE_KINDS = ("parts", "sums", "out", "digests")
"""The folders of a table in progress; the first has what all others are made from, the result is ``out``, or a file."""

LOCK_FILES = (_LOCK := "lock", "lock.pid")
_CHECKSUMS = "checksums"
_TRIES = 3  # of locking a folder that its holder removes
_logger = logging.getLogger("reviewgen")


class PartialFolder:
    """The working folder of a job.

    Args:
        out: The path of the result.
        doing: What another process that holds the lock does, for the message.
        kinds: The folders of the results in it, in the order in which they are removed; no result is of use without the first.
    """

    def __init__(self, out: Path, doing: str, kinds: Sequence[str]) -> None:
        self.out, self.folder = out, out.with_name(f"{out.name}{SUFFIX}")
        self._doing, self._kinds = doing, (*kinds, _CHECKSUMS)
        self._lock: Lock | None = None
        self._flusher = Flusher()

    def place(self, kind: str, name: object) -> Path:
        """Return the path of a result."""
        return self.folder / kind / str(name)

    @property
    def has_results(self) -> bool:
        """Whether something is finished that is worth going on from."""
        return any(not path.name.startswith(".") for path in _entries(self.folder / self._kinds[0]))

    @property
    def is_locked(self) -> bool:
        """Whether this process holds the lock, on a file system that has locks."""
        return self._lock is not None and self._lock.is_supported

    def acquire(self) -> dict[str, Any] | None:
        """Create and lock the folder; return the facts of the job that was begun in it, or None.

        Raises:
            CheckpointError: Another process holds the lock, or ``job.json`` is damaged.
            OutputExists: The folder is not that of a job of this user.
        """
        for _ in range(_TRIES):
            self._refuse_foreign()
            self.folder.mkdir(parents=True, exist_ok=True)
            self._refuse_foreign()  # another user may have been faster
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
                remove_entry(scratch)
        job = self.folder / JOB_FILE
        if not _has_content(job):  # else it says the same, and writing it again could only damage it
            try:
                write_file(job, json.dumps(facts, indent=1).encode())
            except BaseException:
                job.unlink(missing_ok=True)
                raise

    def require_shared(self) -> None:
        """Raise in a process that does not see the folder.

        Raises:
            StorageError: It does not.
        """
        if not (self.folder / JOB_FILE).exists():
            raise StorageError(
                f"{self.folder} is not the same folder on all machines: give an --out on a file system that they share."
            )

    def remove(self) -> None:
        """Remove the folder, unless something else was put into it, and release the lock."""
        self._remove_results()
        (self.folder / JOB_FILE).unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.remove()
            self._lock = None
        with contextlib.suppress(OSError):  # it is not empty
            self.folder.rmdir()

    def remove_left(self, facts: Mapping[str, Any]) -> None:
        """Remove what a process has left that was killed after it had published the result; facts are those of its job."""
        if self._lock is not None or not self.folder.is_dir():
            return
        try:
            before = self.acquire()
        except (CheckpointError, OutputExists):  # it is not killed, or this is not its folder
            self.close()
            return
        if before is not None and self.has_results and differences(facts, before):
            self.close()
        else:
            self.remove()

    def is_finished(self, path: Path) -> bool:
        """Return whether a result is there as it was written; one that was damaged later is removed, to be made again."""
        if not os.path.lexists(path):
            return False
        if self._read_checksum(path) == checksum(path):
            return True
        _logger.warning("%s was damaged after it had been written, and is made again.", path)
        remove_entry(path)
        return False

    def write(self, path: Path, write: Callable[[Path], None]) -> None:
        """Write a result, as ``write_new``, unless it is finished."""
        self._write(path, write)

    def write_later(self, path: Path, write: Callable[[Path], None]) -> None:
        """The same; it is forced to disk and gets its name while the next results are computed."""
        self._write(path, write, self._flusher)

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

    def damaged(self, file: Path) -> CheckpointError:
        """Return the error for a file that is not as it was written, and that is not made again."""
        return CheckpointError(f"{file} is damaged. Remove {self.folder} to start over.")

    def _write(self, path: Path, write: Callable[[Path], None], later: Flusher | None = None) -> None:
        if self.is_finished(path):
            return

        def write_with_checksum(scratch: Path) -> None:
            write(scratch)
            # Not forced to disk: a result whose checksum is lost when the power fails is made again.
            remove_entry(file := self._checksum_file(path))  # it may be a link by now
            file.write_text(checksum(scratch), encoding="ascii")

        write_new(path, write_with_checksum, later)

    def _read_checksum(self, path: Path) -> str | None:
        """Return the checksum of a result as it was written; None if it was lost when the power failed, or damaged itself."""
        file = self._checksum_file(path)
        try:
            return file.read_text(encoding="ascii") if stat.S_ISREG(file.lstat().st_mode) else None  # a pipe would not end
        except (OSError, ValueError):
            return None

    def _checksum_file(self, path: Path) -> Path:
        return self.place(_CHECKSUMS, ".".join(path.relative_to(self.folder).parts))

    def _refuse_foreign(self) -> None:
        """Raise if the folder exists and is not surely that of a job of this user.

        Raises:
            OutputExists: It is a link, a file or another user's, or has something in it that no job has put there.
        """
        problem = None
        with contextlib.suppress(FileNotFoundError):  # it is not there, or its holder removes it just now
            if os.path.lexists(self.folder):
                problem = self._find_foreign()
        if problem is not None:
            raise OutputExists(
                f"{self.folder}, where work in progress is kept, {printable(problem)}: remove that, or give another --out."
            )

    def _find_foreign(self) -> str | None:
        """Return what of the folder is not a job's, as the end of a sentence; None if all is."""
        if self.folder.is_symlink():
            return "is a link"
        if not self.folder.is_dir():
            return "is not a folder"
        if not is_made_by_user(self.folder):
            return "belongs to another user"
        job = self.folder / JOB_FILE
        for path in (job, *(self.folder / kind for kind in self._kinds)):
            if path.is_symlink():
                return f"has a link in it, {path.name}"
            if path.exists() and not (path.is_file() if path == job else path.is_dir()):
                return f"has something else in it, {path.name}"
        if is_foreign(self.folder / _LOCK):
            return f"has something else in it, {_LOCK}"
        other = None if job.exists() else next(self._others(), None)
        if other is None or job.exists():  # another process may have written it just now
            return None
        return f"has something else in it, {other.relative_to(self.folder).as_posix()}"

    def _others(self) -> Iterator[Path]:
        """Yield what is in the folder besides the names that an empty one may have."""
        own = {*LOCK_FILES, JOB_FILE, *self._kinds, *(kind.partition("/")[0] for kind in self._kinds)}
        with contextlib.suppress(FileNotFoundError):  # its holder removes it
            for path in self.folder.rglob("*"):
                if path.relative_to(self.folder).as_posix() not in own:
                    yield path

    def _acquire_lock(self) -> Lock | None:
        """Return the lock; None if its holder has just removed the folder."""
        try:
            return Lock(self.folder / _LOCK)
        except BlockingIOError:
            raise self._in_use() from None
        except (FileNotFoundError, FileExistsError):  # the second if it was removed while filelock looked for it
            return None

    def _in_use(self) -> CheckpointError:
        holder = read_holder(self.folder / _LOCK)
        who = "another process" if holder is None else f"process {holder}"
        return CheckpointError(f"{self.folder} is in use by {who}, which {self._doing}. Wait for it.")

    def _read_job(self) -> dict[str, Any] | None:
        file = self.folder / JOB_FILE
        if not _has_content(file) and next(self._others(), None) is None:  # its process was killed before it had written it
            return None
        with contextlib.suppress(OSError, ValueError):
            if isinstance(job := read_json(file, MAX_RECORD), dict):
                return job
        raise self.damaged(file)

    def _remove_results(self) -> None:
        for kind in self._kinds:
            shutil.rmtree(self.folder / kind, ignore_errors=True)  # which goes through no link


def differences(facts: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    """Return the names of the facts, JSON values, that were others before; names that only a changed file has are left out."""
    facts = json.loads(json.dumps(facts))
    names = [name for name in facts if before.get(name) != facts[name]]
    others = [name for name in before if name not in facts]
    return names + [name if re.fullmatch("[a-z_ ]{1,30}", name) else "other settings" for name in others][:1]


def remove_entry(path: Path) -> None:
    """Remove a file, a folder with all that is in it, or a link and not what it leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _entries(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        yield from folder.iterdir()


def _has_content(file: Path) -> bool:
    return file.exists() and file.stat().st_size > 0
