"""Checkpoints: what a run needs to go on as if it had never stopped, kept on disk while it trains.

    .lock                  held by the run's process
    run.json               what the run was told; the caller writes and compares it
    step-00001200/         the state after step 1,200
        state.safetensors  its tensors
        state.json         the rest of it
        digests.json       of both files

A checkpoint is written beside the others, forced to disk and then given its name, so it is whole or not there; one that was
damaged since does not match its digests, and the one before it is taken. Knows neither models nor optimizers.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load, save

from reviewgen.errors import CheckpointError, storage_errors
from reviewgen.training.lock import Lock
from reviewgen.training.packing import pack, unpack

__all__ = ["Checkpoints"]

_LOCK, _TENSORS, _REST, _DIGESTS = ".lock", "state.safetensors", "state.json", "digests.json"
_SHARE = 0.01  # of the time that writing checkpoints may take
_PREFIX, _SCRATCH = "step-", ".step-"


class Checkpoints:
    """A run's folder of checkpoints.

    Args:
        folder: Where they are.
        seconds: Between two of them; longer where writing one takes more than a hundredth of that. 0 for none.
        kept: How many of the last ones stay.

    Attributes:
        snapshot: Returns what the caller wants saved with the state, JSON values and tensors; called at each checkpoint.
        beside: After ``load``, what ``snapshot`` had returned for the checkpoint that was loaded.
        seconds: How long the run had trained at the checkpoint that was loaded.
    """

    RUN = "run.json"

    def __init__(self, folder: Path, seconds: float, kept: int) -> None:
        self.folder = folder
        self.snapshot: Callable[[], Mapping[str, Any]] = dict
        self.beside: dict[str, Any] = {}
        self.seconds = 0.0
        self._state: Any = None
        self._spacing, self._kept = seconds, kept
        self._notes: list[str] = []
        self._is_failing = False
        self._wait(0.0)

    def open(self) -> None:
        """Take the folder for this run, and make it where it is not there.

        Raises:
            CheckpointError: Another run has it.
            StorageError: It may not be written.
        """
        with storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                self._lock = Lock(self.folder / _LOCK)
            except BlockingIOError:
                raise CheckpointError(
                    f"{self.folder} is in use by another run{self._holder()}. Wait for its end, or give another output folder."
                ) from None
        self.close = weakref.finalize(self, _leave, self.folder, self._lock)
        for left in self.folder.glob(f"{_SCRATCH}*"):  # of a run that was killed while it wrote
            shutil.rmtree(left, ignore_errors=True)

    def steps(self) -> list[int]:
        """Return the steps after which there is a checkpoint, damaged ones included."""
        numbers = (path.name.removeprefix(_PREFIX) for path in self.folder.glob(f"{_PREFIX}*"))
        return sorted(int(number) for number in numbers if number.isdecimal())

    def load(self) -> None:
        """Take the newest whole checkpoint, where there are any, and remove the damaged ones after it.

        Raises:
            CheckpointError: There are some, and all are damaged.
        """
        damaged: list[int] = []
        for step in reversed(self.steps()):
            try:
                tree = unpack(*_read(self._place(step)))
                self._state, self.beside, self.seconds = tree["state"], tree["beside"], tree["state"]["seconds"]
            except (OSError, ValueError, KeyError, TypeError):
                damaged.append(step)
                continue
            for later in damaged:
                shutil.rmtree(self._place(later), ignore_errors=True)
                self._notes.append(f"The checkpoint of step {later:,} is damaged; that of step {step:,} is used.")
            return
        if damaged:
            raise CheckpointError(f"Every checkpoint in {self.folder} is damaged. Remove that folder to start over.")

    def has_others(self) -> bool:
        """Return whether the folder holds what no run puts there."""
        return any(path.name not in (self.RUN, _LOCK) and not path.name.startswith(_PREFIX) for path in self.folder.iterdir())

    def take_state(self) -> Any:
        """Return the state that was loaded, once; None where there is none. The time to the next checkpoint begins."""
        self._wait(0.0)
        state, self._state = self._state, None
        return state

    def is_due(self) -> bool:
        """Return whether it is time for the next checkpoint."""
        return time.monotonic() >= self._next

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write the state after a step; where that fails, the run goes on, the checkpoints before stay, and a note says so."""
        start = time.monotonic()
        packed, tensors = pack({"state": state, "beside": dict(self.snapshot())})
        try:
            with storage_errors(self._place(step)):
                self._write(step, packed, tensors)
            self._is_failing = False
        except OSError as error:
            if not self._is_failing:
                last = f"of step {self.steps()[-1]:,}" if self.steps() else "none"
                self._notes.append(f"No checkpoint at step {step:,}: {error} The training goes on; the last one is {last}.")
            self._is_failing = True
        self._wait(time.monotonic() - start)

    def note(self, text: str) -> None:
        """Have the next report say something."""
        self._notes.append(text)

    def take_notes(self) -> tuple[str, ...]:
        """Return what there is to say, once."""
        notes, self._notes = tuple(self._notes), []
        return notes

    def discard(self) -> None:
        """Remove the checkpoints of a run that has ended, and the folder unless somebody put something else there."""
        for step in self.steps() if self._lock.is_in_place() else ():
            shutil.rmtree(self._place(step), ignore_errors=True)
        self.close()

    @staticmethod
    def write(file: Path, content: bytes) -> None:
        """Write a file and force it to disk."""
        with file.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())

    def _wait(self, cost: float) -> None:
        wait = max(self._spacing, cost / _SHARE) if self._spacing else float("inf")
        self._next = time.monotonic() + wait

    def _place(self, step: int) -> Path:
        return self.folder / f"{_PREFIX}{step:08d}"

    def _holder(self) -> str:
        try:
            return f" (process {int((self.folder / _LOCK).read_text(encoding='ascii'))})"
        except (OSError, ValueError):
            return ""

    def _write(self, step: int, packed: Any, tensors: Mapping[str, Any]) -> None:
        if not self._lock.is_in_place():
            raise FileNotFoundError(errno.ENOENT, "somebody has removed the folder")
        scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=self.folder))
        try:
            contents = {_TENSORS: save(dict(tensors)), _REST: _as_json(packed)}
            contents[_DIGESTS] = _as_json({name: _digest(content) for name, content in contents.items()})
            for name, content in contents.items():
                self.write(scratch / name, content)
            scratch.rename(self._place(step))
            _sync_folder(self.folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        for old in self.steps()[: -self._kept]:
            shutil.rmtree(self._place(old), ignore_errors=True)


def _read(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Return a checkpoint's JSON value and tensors.

    Raises:
        ValueError: It is not what was written.
    """
    digests = json.loads((folder / _DIGESTS).read_bytes())
    contents = {name: (folder / name).read_bytes() for name in (_TENSORS, _REST)}
    for name, content in contents.items():
        if not isinstance(digests, dict) or digests.get(name) != _digest(content):
            raise ValueError(f"{name} is not as it was written")
    return json.loads(contents[_REST]), load(contents[_TENSORS])


def _as_json(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False).encode()


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=32).hexdigest()


def _sync_folder(folder: Path) -> None:
    """Force the names in a folder to disk."""
    if sys.platform != "win32":  # which opens no folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _leave(folder: Path, lock: Lock) -> None:
    """Let go of a run's folder, and remove it where it holds no checkpoint, unless somebody put something else there."""
    if sys.platform == "win32":  # which removes no file that is open; elsewhere somebody could take it in the meantime
        lock.release()
    is_empty = not any(folder.glob(f"{_PREFIX}*"))
    if is_empty and (sys.platform == "win32" or lock.is_in_place()):
        with contextlib.suppress(OSError):
            (folder / Checkpoints.RUN).unlink(missing_ok=True)
            (folder / _LOCK).unlink(missing_ok=True)
            folder.rmdir()
    if sys.platform != "win32":
        lock.release()
