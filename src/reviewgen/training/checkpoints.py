"""Checkpoints: the state of a run on disk, from which an interrupted run resumes as if it had never stopped.

    step-00001200/         the state after step 1,200
        state.safetensors  its tensors
        state.json         everything else
        digests.json       hashes of both files

The folder is that of a ``Job``, whose lock keeps other processes out. A checkpoint is complete or not there. If one was damaged
later, its files do not match their digests, and the one before it is loaded. Knows neither models nor optimizers.
"""

import contextlib
import errno
import hashlib
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from reviewgen.config import MAX_VOCABULARY, dump_json, read_json
from reviewgen.errors import CheckpointError, ProcessLost, StorageError, storage_errors
from reviewgen.processes import can_restart, how_to_resume
from reviewgen.storage import Job

_DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, SafetensorError)
_TENSORS, _REST, _DIGESTS = "state.safetensors", "state.json", "digests.json"
_SHARE = 0.01  # of the training time that writing checkpoints may take
_MARKERS = ("$tensor", "$tuple", "$items", "$float")  # keys that stand for what JSON does not have
_PREFIX = "step-"


class Checkpoints:
    """The checkpoints of a run, in a folder.

    Args:
        folder: The folder.
        seconds: Minimum seconds between two checkpoints; more if writing one takes over a hundredth of that. 0 saves none.
        kept: Number of most recent checkpoints to keep.

    Attributes:
        snapshot: Returns JSON values and tensors of the caller, which are saved with the state; called at each checkpoint.
        extra: After ``load``, the values that ``snapshot`` had returned for the loaded checkpoint.
        seconds: Training time at the loaded checkpoint.
    """

    def __init__(self, folder: Path, seconds: float, kept: int) -> None:
        self.folder = folder
        self.snapshot: Callable[[], Mapping[str, Any]] = dict
        self.extra: dict[str, Any] = {}
        self.seconds = 0.0
        self._state: Any = None
        self._min_spacing, self._kept = seconds, kept
        self._notes: list[str] = []
        self._is_failing = False
        self._schedule_next(0.0)

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint, in order; damaged ones are included."""
        numbers = (path.name.removeprefix(_PREFIX) for path in self.folder.glob(f"{_PREFIX}*"))
        return sorted(int(number) for number in numbers if number.isdecimal())

    def load(self) -> None:
        """Load the newest checkpoint that is not damaged, if any, and remove the damaged ones after it.

        Raises:
            CheckpointError: All checkpoints are damaged.
        """
        damaged: list[int] = []
        for step in reversed(self.steps()):
            try:
                tree = unpack(*_read_checkpoint(self._step_folder(step)))
                self._state, self.extra, self.seconds = tree["state"], tree["beside"], tree["state"]["seconds"]
            except _DAMAGE:
                damaged.append(step)
                continue
            for later in damaged:
                shutil.rmtree(self._step_folder(later), ignore_errors=True)
                self._notes.append(f"The checkpoint of step {later:,} is damaged; that of step {step:,} is used.")
            return
        if damaged:
            raise CheckpointError(f"Every checkpoint in {self.folder} is damaged. Remove that folder to start over.")

    def pop_state(self) -> Any:
        """Return the loaded state, once, or None. The time to the next checkpoint starts now."""
        self._schedule_next(0.0)
        state, self._state = self._state, None
        return state

    def is_due(self) -> bool:
        """Return whether it is time for the next checkpoint."""
        return time.monotonic() >= self._next

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Save the state after a step. If that fails, or could not be read again, a note says so, and the run continues with the
        checkpoints it has.
        """
        start = time.monotonic()
        packed, tensors = pack({"state": state, "beside": dict(self.snapshot())})  # saved keys, which do not change
        try:
            with storage_errors(self._step_folder(step)):
                self._write(step, packed, tensors)
            self._is_failing = False
        except OSError as error:
            if not self._is_failing:
                last = f"the last checkpoint is of step {self.steps()[-1]:,}" if self.steps() else "there is no checkpoint yet"
                self._notes.append(f"No checkpoint at step {step:,}: {error} Training continues; {last}.")
            self._is_failing = True
        self._schedule_next(time.monotonic() - start)

    def note(self, text: str) -> None:
        """Add a note to the next report."""
        self._notes.append(text)

    def pop_notes(self) -> tuple[str, ...]:
        """Return the new notes, once."""
        notes, self._notes = tuple(self._notes), []
        return notes

    write = staticmethod(Path.write_bytes)

    def _schedule_next(self, cost: float) -> None:
        """Set the time of the next checkpoint, given the seconds that writing the last one took."""
        wait = max(self._min_spacing, cost / _SHARE) if self._min_spacing else float("inf")
        self._next = time.monotonic() + wait

    def _step_folder(self, step: int) -> Path:
        return self.folder / f"{_PREFIX}{step:08d}"

    def _write(self, step: int, packed: Any, tensors: Mapping[str, Any]) -> None:
        if not self.folder.is_dir():
            raise FileNotFoundError(errno.ENOENT, "the folder was removed")
        try:
            rest = dump_json(packed, MAX_VOCABULARY, indent=None)
        except ValueError as error:
            raise StorageError(f"{self._step_folder(step) / _REST} cannot be saved: {error}.") from None
        contents = {_TENSORS: save(dict(tensors)), _REST: rest}
        digests = {name: _digest(content) for name, content in contents.items()}
        contents[_DIGESTS] = dump_json(digests).rstrip()  # so that it is damaged wherever it is cut

        def write(scratch: Path) -> None:
            scratch.mkdir()
            for name, content in contents.items():
                self.write(scratch / name, content)

        Job.write_whole(self._step_folder(step), write)
        for old in self.steps()[: -self._kept]:
            shutil.rmtree(self._step_folder(old), ignore_errors=True)


def _read_checkpoint(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Return a checkpoint's JSON value and tensors.

    Raises:
        ValueError: A file does not match its digest.
    """
    digests = read_json(folder / _DIGESTS)
    for name in (_TENSORS, _REST):
        with (folder / name).open("rb") as stream:  # in pieces: a file that was damaged may have any size
            digest = hashlib.file_digest(stream, _new_digest).hexdigest()
        if not isinstance(digests, dict) or digests.get(name) != digest:
            raise ValueError(f"{name} does not match its digest")
    return read_json(folder / _REST, MAX_VOCABULARY), load((folder / _TENSORS).read_bytes())


def _digest(content: bytes) -> str:
    return _new_digest(content).hexdigest()


def _new_digest(content: bytes = b"") -> "hashlib.blake2b":
    return hashlib.blake2b(content, digest_size=32)


def pack(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    """Return a tree as a JSON value, and its tensors by number and path; no two of them share memory.

    A tensor that stands in several places, as tied weights do, is in the table once.

    The memory order of a tensor's axes is kept, because matrix products may round differently in another order.

    >>> pack({"rate": 0.1, "betas": (0.9, 0.99), "state": {0: {"step": torch.tensor(3.0)}}})[0]   # doctest: +SKIP
    {'rate': 0.1, 'betas': {'$tuple': [0.9, 0.99]},
     'state': {'$items': [[0, {'step': {'$tensor': '0 state.0.step', 'axes': []}}]]}}

    Raises:
        TypeError: The tree holds something other than tensors and JSON values.
    """
    tensors: dict[str, Tensor] = {}
    return _pack(tree, "", tensors, {}), tensors


def unpack(packed: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return the tree that was packed.

    Raises:
        KeyError: A tensor is missing.
    """
    if isinstance(packed, list):
        return [unpack(part, tensors) for part in packed]
    if not isinstance(packed, dict):
        return packed
    if "$tensor" in packed:
        axes = packed["axes"]
        return tensors[packed["$tensor"]].permute([axes.index(axis) for axis in range(len(axes))]).clone()
    if "$tuple" in packed:
        return tuple(unpack(part, tensors) for part in packed["$tuple"])
    if "$items" in packed:
        return {key: unpack(part, tensors) for key, part in packed["$items"]}
    if "$float" in packed:
        return float(packed["$float"])
    return {key: unpack(part, tensors) for key, part in packed.items()}


def _pack(tree: Any, path: str, tensors: dict[str, Tensor], names: dict[tuple[Any, ...], str]) -> Any:
    """Return a part of a tree, at ``path``, as a JSON value, and add its tensors to the table.

    Args:
        tree: The part.
        path: Where it is.
        tensors: The table.
        names: The name in it of each tensor so far, by what identifies its memory.
    """
    if isinstance(tree, Tensor):
        axes = _axes_in_memory(tree)
        memory = tree.device, tree.data_ptr(), tree.dtype, tree.shape, tree.stride()
        if tree.numel() and memory in names:
            return {"$tensor": names[memory], "axes": axes}
        name = names[memory] = f"{len(tensors)} {path}"
        plain = tree.detach().cpu().permute(axes).contiguous()
        addresses = {tensor.untyped_storage().data_ptr() for tensor in tensors.values()}
        is_shared = plain.untyped_storage().data_ptr() in addresses  # as that of tied weights is
        tensors[name] = plain.clone() if is_shared else plain
        return {"$tensor": name, "axes": axes}
    if isinstance(tree, Mapping):
        items = [(key, _pack(part, f"{path}.{key}".lstrip("."), tensors, names)) for key, part in tree.items()]
        is_plain = all(isinstance(key, str) and key not in _MARKERS for key in tree)
        return dict(items) if is_plain else {"$items": items}
    if isinstance(tree, list | tuple):
        parts = [_pack(part, f"{path}.{number}".lstrip("."), tensors, names) for number, part in enumerate(tree)]
        return parts if isinstance(tree, list) else {"$tuple": parts}
    if isinstance(tree, float) and not math.isfinite(tree):
        return {"$float": str(tree)}
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    raise TypeError(f"{path or 'The tree'} is a {type(tree).__name__}; a checkpoint holds tensors and JSON values.")


def _axes_in_memory(tensor: Tensor) -> list[int]:
    """Return a tensor's axes from the longest stride to the shortest; in their own order if it has gaps or overlaps in memory."""
    axes = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    return axes if tensor.permute(axes).is_contiguous() else list(range(tensor.dim()))


@contextlib.contextmanager
def interrupts_kept_for_restart(checkpoints: Checkpoints | None) -> Iterator[None]:
    """Where the job can be restarted, turn an interrupt into an error: the launcher ends all processes before it restarts them.

    Args:
        checkpoints: Those of the run; None if it has none, or in another process than the main one.

    Raises:
        ProcessLost: The process was interrupted, and the job can be restarted.
    """
    try:
        yield
    except KeyboardInterrupt:
        if not can_restart():
            raise
        has_checkpoint = checkpoints is not None and bool(checkpoints.steps())
        raise ProcessLost(f"This process was asked to end. {how_to_resume(has_checkpoint=has_checkpoint)}") from None
