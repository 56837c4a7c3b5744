"""The finished trials of an experiment in a file, so that an interrupted experiment can be resumed.

The file has JSON lines. The first line has the facts that all trials depend on, such as the corpus,
the length of a training and the settings. Each other line has the results of one finished trial. A
line is complete, or it is the last one and was cut off by ``kill -9``; then it does not count. An
infinite number is written as ``Infinity``, as Python's ``json`` does.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reviewgen.errors import CheckpointError, ConfigError, OutputExists, quoted, storage_errors
from reviewgen.storage import atomic_file, check_output

_FILE = "trials.jsonl"  # the name of the file in the folder of an experiment
# the errors that reading a path raises if it does not hold trials
_UNREADABLE = (
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


class TrialStore:
    """The results of the finished trials of an experiment, by the key of each trial.

    ::

        store = TrialStore("sweep", folder, resume=resume)  # before any work
        store.identify({"corpus": fingerprint, "seed": 0})  # as soon as the facts are known
        if "order=4" not in store.results:
            store.add("order=4", {"bits": 1.9})

    Args:
        kind: What the experiment is, for messages: "sweep", "comparison".
        path: A folder for the file ``trials.jsonl``, or the file itself; None keeps the results in
            memory.
        resume: Whether ``path`` may hold finished trials, which are then used.
        is_file: Whether ``path`` is the file.

    Attributes:
        results: The results of the finished trials by key, in the order in which they were
            finished.

    Raises:
        ConfigError: ``resume`` is set without a path.
        OutputExists: ``path`` exists, and ``resume`` is not set.
        CheckpointError: ``path`` exists, and does not hold trials of this kind.
        StorageError: Nothing can be written to ``path``.
    """

    def __init__(
        self, kind: str, path: Path | None, *, resume: bool = False, is_file: bool = False
    ) -> None:
        self._kind = kind
        self._path = path
        self._place = "file" if is_file else "folder"
        self._file = path if path is None or is_file else path / _FILE
        self._facts: dict[str, Any] | None = None  # the facts in the file; None if it is new
        self.results: dict[str, Any] = {}
        self._size = 0  # bytes of the complete lines in the file
        if path is None or self._file is None:
            if resume:
                raise ConfigError(
                    f"The {kind} can be resumed only from its output folder: give out, or leave"
                    " resume out."
                )
            return
        with storage_errors(path):
            if not resume and self._file.is_file():
                raise OutputExists(
                    f"{path} already has finished trials. Resume the {kind} (--resume, in Python"
                    f" resume=True), or give another {self._place}."
                )
            if not resume or not os.path.lexists(path):
                check_output(path)
            # An empty folder, or one with hidden files only, is used like a new one: a process that
            # was killed soon after its start may have left it.
            elif is_file or not path.is_dir() or any(path.glob("[!.]*")):
                self._read(self._file)

    def identify(self, facts: Mapping[str, Any]) -> None:
        """Check that the trials in the file have the same facts, which all trials depend on. If the
        file is new, write the facts to it.

        Args:
            facts: JSON values by name.

        Raises:
            CheckpointError: The trials in the file have other facts.
            StorageError: The file cannot be written.
        """
        now = {"kind": self._kind, **json.loads(json.dumps(dict(facts)))}
        before = now if self._facts is None else self._facts
        for name in {**now, **before}:
            if now.get(name) != before.get(name):
                raise CheckpointError(
                    f"{self._path} holds trials with another {name}"
                    f" ({quoted(before.get(name))}, not {quoted(now.get(name))}): give the same"
                    f" texts and settings to resume them, or another {self._place}."
                )
        if self._file is None:
            return
        with storage_errors(self._file):
            if self._facts is not None:
                os.truncate(self._file, self._size)  # removes a last line that was cut off
                return
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(self._file) as new:
                new.write_text(json.dumps(now) + "\n", encoding="utf-8")
            self._size = self._file.stat().st_size
        self._facts = now

    def add(self, key: str, results: Any) -> None:
        """Add the results of a trial, and write them to disk. They replace results of the same key.

        Args:
            key: The key, which no other trial has.
            results: JSON values, and others that are kept as strings; numbers may be infinite.

        Raises:
            StorageError: The file cannot be written.
        """
        line = json.dumps({"trial": key, "results": results}, default=str)
        if self._file is not None:
            with storage_errors(self._file):
                os.truncate(self._file, self._size)  # a full disk may have left a part of a line
                with self._file.open("ab") as stream:
                    stream.write(line.encode() + b"\n")
                    stream.flush()
                    os.fsync(stream.fileno())
                self._size = self._file.stat().st_size
        self.results[key] = json.loads(line)["results"]  # the same values as after a resumption

    def _read(self, file: Path) -> None:
        """Read the complete lines of the file.

        Raises:
            CheckpointError: They are not those of an experiment of this kind.
        """
        try:
            content = file.read_bytes()
            self._size = content.rfind(b"\n") + 1
            if not content:
                return
            first, *others = [json.loads(line) for line in content[: self._size].splitlines()]
            self.results = {line["trial"]: line["results"] for line in others}
            if first["kind"] == self._kind:
                self._facts = first
                return
        except _UNREADABLE:
            pass  # it is something else of the user's
        raise CheckpointError(
            f"{self._path} holds no {self._kind} that can be resumed. Give another {self._place},"
            " or remove it."
        )
