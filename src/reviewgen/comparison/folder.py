"""A comparison on disk: ``comparison.json``, ``models/NAME`` and ``rows/NAME.json``. ``resume`` takes finished rows from it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reviewgen.comparison.entries import Entry, slug
from reviewgen.comparison.measuring import Measured
from reviewgen.comparison.rows import Row, to_json
from reviewgen.config import MAX_VOCABULARY, read_json
from reviewgen.errors import CheckpointError, OutputExists, storage_errors
from reviewgen.storage import atomic_file, check_output

_IDENTITY = "comparison.json"
_SCHEMA = 1


class Folder:
    """The folder of a comparison.

    Args:
        path: The folder; it must not exist unless ``resume``.
        resume: Whether to take what is there.

    Raises:
        OutputExists: It exists, and is not resumed.
        CheckpointError: To resume, it is not the folder of a comparison.
        StorageError: It cannot be written.
    """

    def __init__(self, path: Path, resume: bool) -> None:
        self.path = path
        self._before: dict[str, Any] | None = None
        if resume and path.exists():
            self._before = self._read(path / _IDENTITY)
        else:
            self._refuse_existing()

    def _refuse_existing(self) -> None:
        with storage_errors(self.path):
            is_comparison = (self.path / _IDENTITY).is_file()
        if is_comparison:
            raise OutputExists(
                f"{self.path} is a comparison already. Resume it (--resume, in Python resume=True), or give another."
            )
        check_output(self.path)

    def open(self, identity: Mapping[str, Any]) -> None:
        """Create the folder, or check that it is that of the same comparison.

        Raises:
            CheckpointError: It has other texts or settings; says which.
        """
        values = {"schema": _SCHEMA, **to_json(dict(identity))}
        if self._before is not None:
            if different := [name for name, value in values.items() if self._before.get(name) != value]:
                raise CheckpointError(
                    f"{self.path} is a comparison with another {', '.join(different)}. Give the same texts and settings to "
                    "resume it, or another folder."
                )
            return
        with storage_errors(self.path):
            (self.path / "models").mkdir(parents=True)
            (self.path / "rows").mkdir()
            with atomic_file(self.path / _IDENTITY) as new:
                new.write_text(json.dumps(values, indent=2), encoding="utf-8")

    def model(self, entry: Entry) -> Path:
        """Return where the model of an entry is saved."""
        return self.path / "models" / slug(entry.name)

    def read(self, entry: Entry) -> Measured | None:
        """Return a finished row; None if it is missing, damaged, or of another source."""
        try:
            stored = read_json(self._row_file(entry), MAX_VOCABULARY)
            row = Row.from_json(stored["row"])
            bits = stored["bits"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        if (row.name, row.source) != (entry.name, entry.label):
            return None
        return Measured(row, None if bits is None else tuple(float("inf") if each is None else float(each) for each in bits))

    def write(self, entry: Entry, measured: Measured) -> None:
        """Save a finished row.

        Raises:
            StorageError: The disk is full, or the folder cannot be written.
        """
        content = json.dumps(to_json({"row": measured.row, "bits": measured.bits}), ensure_ascii=True)
        file = self._row_file(entry)
        with storage_errors(file), atomic_file(file) as new:
            new.write_text(content, encoding="utf-8")

    def _row_file(self, entry: Entry) -> Path:
        return self.path / "rows" / f"{slug(entry.name)}.json"

    def _read(self, file: Path) -> dict[str, Any]:
        try:
            stored = read_json(file)
        except (OSError, ValueError):
            stored = None
        if not isinstance(stored, dict) or stored.get("schema") != _SCHEMA:
            raise CheckpointError(f"{self.path} is not the folder of a comparison, so it cannot be resumed. Give another folder.")
        return stored
