"""The folder ``OUT.partial`` that a job works in until its result is complete; the same job goes on from what is finished in it.

``job.json`` in it says what the results depend on. One process holds its lock. Knows nothing of what a job does.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reviewgen.config import MAX_RECORD, read_json
from reviewgen.errors import CheckpointError, StorageError
from reviewgen.lock import Lock, read_holder
from reviewgen.storage import write_file

__all__ = ["PartialFolder", "differences"]

_JOB_FILE = "job.json"


class PartialFolder:
    """The working folder of a job.

    Args:
        out: The path of the result.
        doing: What another process that holds the lock does, for the message.
    """

    def __init__(self, out: Path, doing: str) -> None:
        self.out, self.folder = out, out.with_name(f"{out.name}.partial")
        self._doing = doing
        self._lock: Lock | None = None

    def place(self, kind: str, name: object) -> Path:
        """Return the path of a result."""
        return self.folder / kind / str(name)

    def acquire(self) -> dict[str, Any] | None:
        """Create and lock the folder; return the facts of the job that was begun in it, or None.

        Raises:
            CheckpointError: Another process holds the lock.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "lock"
        try:
            self._lock = Lock(file)
        except BlockingIOError:
            holder = read_holder(file)
            who = "another process" if holder is None else f"process {holder}"
            raise CheckpointError(f"{self.folder} is in use by {who}, which {self._doing}. Wait for it.") from None
        try:
            return dict(read_json(self.folder / _JOB_FILE, MAX_RECORD))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError):
            return {}

    def start(self, facts: Mapping[str, Any], kinds: Sequence[str], *, resumes: bool) -> None:
        """Make the folders of the results, and remove what is not finished; without ``resumes``, all that is there."""
        for path in () if resumes else self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
        for kind in kinds:
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
        """Release the lock and remove the folder."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def differences(facts: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    """Return the names of the facts, JSON values, that were others before."""
    facts = json.loads(json.dumps(facts))
    return [name for name in facts if before.get(name) != facts[name]]
