"""Checkpoints: the state of a run on disk, from which an interrupted run resumes as if it had never
stopped.

A checkpoint is one file, such as ``step-00001200.pt`` for the state after step 1,200. The file has
a digest, then the state as ``torch.save`` writes it. This format keeps the strides of each tensor;
with other strides, matrix products may be rounded differently. It is loaded with
``weights_only=True``, so loading runs no code.

The checkpoints are in the folder of a ``Job``, whose lock keeps other processes out. A checkpoint
file appears only when it is complete. If a file was damaged later, it does not match its digest,
and the checkpoint before it is loaded. This module knows neither models nor optimizers.
"""

import hashlib
import io
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from reviewgen.errors import CheckpointError, storage_errors
from reviewgen.storage import Job

_SHARE = 0.01  # max share of the training time that writing checkpoints takes
_DIGEST_BYTES = 32


class Checkpoints:
    """The checkpoints of a run, in a folder.

    Args:
        folder: The folder; None for a run without checkpoints, and in all processes but the first.
        seconds: Min seconds between two checkpoints. The interval becomes longer if writing a
            checkpoint takes more than 1 % of it. 0 saves no checkpoints.
        kept: Number of most recent checkpoints to keep.

    Attributes:
        snapshot: A function that returns the caller's own values, plain values and tensors. It is
            called at each checkpoint, and the values are saved with the state.
        extra: After ``load``, the values of ``snapshot`` in the loaded checkpoint.
        seconds: After ``load``, the training time at the loaded checkpoint.
    """

    def __init__(self, folder: Path | None = None, seconds: float = 0.0, kept: int = 1) -> None:
        self.folder = folder
        self.snapshot: Callable[[], Mapping[str, Any]] = dict
        self.extra: dict[str, Any] = {}
        self.seconds = 0.0
        self._state: Any = None
        self._min_spacing = seconds
        self._kept = kept
        self._notes: list[str] = []
        self._is_failing = False
        self._schedule_next(0.0)

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint, in order; damaged ones are included."""
        if self.folder is None:
            return []
        numbers = (path.stem.removeprefix("step-") for path in self.folder.glob("step-*.pt"))
        return sorted(int(number) for number in numbers if number.isdecimal())

    def load(self) -> None:
        """Load the newest checkpoint that is not damaged, if there is one, and remove newer,
        damaged ones.

        Raises:
            CheckpointError: All checkpoints are damaged.
        """
        damaged: list[int] = []
        for step in reversed(self.steps()):
            try:
                saved = _read(self._file(step))
            except (OSError, ValueError, UnpicklingError):
                damaged.append(step)
                continue
            self._state = saved["state"]
            self.extra = saved["beside"]
            self.seconds = self._state["seconds"]
            for later in damaged:
                self._file(later).unlink(missing_ok=True)
                self._notes.append(
                    f"The checkpoint of step {later:,} is damaged; that of step {step:,} is used."
                )
            self._notes.append(f"The run resumes from step {step:,}.")
            return
        if damaged:
            raise CheckpointError(
                f"Every checkpoint in {self.folder} is damaged. Remove that folder to start over."
            )

    def pop_state(self) -> Any:
        """Return the loaded state, or None; later calls return None.

        The time until the next checkpoint is counted from this call.
        """
        self._schedule_next(0.0)
        state = self._state
        self._state = None
        return state

    def is_due(self) -> bool:
        """Return whether it is time for the next checkpoint."""
        return time.monotonic() >= self._next

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Save the state after a step; it has tensors and plain values.

        If saving fails, a note reports it, and the run continues with the checkpoints it has.
        """
        if self.folder is None:
            return
        start = time.monotonic()
        stream = io.BytesIO()
        torch.save(_plain({"state": state, "beside": self.snapshot()}), stream)
        content = stream.getvalue()
        try:
            with storage_errors(self._file(step)):
                Job.write_whole(
                    self._file(step),
                    lambda scratch: scratch.write_bytes(_digest(content) + content),
                )
                for old in self.steps()[: -self._kept]:
                    self._file(old).unlink(missing_ok=True)
            self._is_failing = False
        except OSError as error:
            if not self._is_failing:  # of several failures in a row, only the first is reported
                steps = self.steps()
                last = "there is no checkpoint yet"
                if steps:
                    last = f"the last checkpoint is of step {steps[-1]:,}"
                self._notes.append(
                    f"No checkpoint at step {step:,}: {error} Training continues; {last}."
                )
            self._is_failing = True
        self._schedule_next(time.monotonic() - start)

    def note(self, text: str) -> None:
        """Add a note to the next report."""
        self._notes.append(text)

    def pop_notes(self) -> tuple[str, ...]:
        """Return the notes since the last call."""
        notes = tuple(self._notes)
        self._notes = []
        return notes

    def _schedule_next(self, writing_seconds: float) -> None:
        """Set the time of the next checkpoint, given the seconds that writing the last one took."""
        wait = max(self._min_spacing, writing_seconds / _SHARE)
        # with a min spacing of 0, no checkpoint is ever due
        self._next = time.monotonic() + wait if self._min_spacing else float("inf")

    def _file(self, step: int) -> Path:
        """Return the path of the checkpoint of a step."""
        return (self.folder or Path()) / f"step-{step:08d}.pt"


def _read(file: Path) -> Any:
    """Return the content of a checkpoint; its tensors are on the CPU.

    Raises:
        ValueError: The content does not match its digest.
    """
    content = memoryview(file.read_bytes())
    if _digest(content[_DIGEST_BYTES:]) != content[:_DIGEST_BYTES]:
        raise ValueError(f"{file.name} does not match its digest")
    return torch.load(io.BytesIO(content[_DIGEST_BYTES:]), map_location="cpu", weights_only=True)


def _digest(content: Any) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()


def _plain(tree: Any) -> Any:
    """Convert a tree to Python's own dicts, lists, tuples and floats.

    ``torch.load`` with ``weights_only=True`` refuses subclasses of these types, such as
    ``numpy.float64``.
    """
    if isinstance(tree, Mapping):
        return {key: _plain(part) for key, part in tree.items()}
    if isinstance(tree, list | tuple):
        items = [_plain(part) for part in tree]
        return items if isinstance(tree, list) else tuple(items)
    return float(tree) if isinstance(tree, float) else tree
