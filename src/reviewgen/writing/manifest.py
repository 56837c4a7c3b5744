"""``manifest.json`` of a complete table: the job, the summary, and the size and digest of each file."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reviewgen.config import MAX_RECORD, MAX_VOCABULARY, read_json
from reviewgen.errors import DataError, OutputExists, printable, shortened

MANIFEST = "manifest.json"
FORMAT = 1


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a folder, or None if there is nothing.

    Raises:
        OutputExists: Something else than a table is there.
    """
    if not (folder / MANIFEST).is_file():
        return None
    try:
        manifest = dict(read_json(folder / MANIFEST, max(MAX_RECORD, MAX_VOCABULARY)))
        if (
            manifest["format"] == FORMAT
            and isinstance(manifest["job"], dict)
            and _is_count(manifest["texts"])
            and all(_is_count(facts["size"]) and _is_count(facts["texts"]) for facts in manifest["files"].values())
            and isinstance(manifest["summary"], dict)
        ):
            return manifest
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        pass
    raise OutputExists(f"{folder / MANIFEST} is not a manifest of reviewgen, so the folder is left as it is. Give another --out.")


def is_summary(summary: Mapping[str, Any], empty: Mapping[str, Any]) -> bool:
    """Return whether a summary is one of such texts.

    Args:
        summary: The summary.
        empty: That of no texts: counts are 0, and numbers that may be unknown None.
    """
    return summary.keys() == empty.keys() and all(
        _is_count(value) if empty[name] is not None else value is None or (type(value) in (int, float) and value >= 0)
        for name, value in summary.items()
    )


def changed_manifest(folder: Path) -> DataError:
    """Return the error for a manifest that is not as it was written."""
    return DataError(f"The table {folder} is damaged: its {MANIFEST} was changed. Remove it, or give another --out.")


def require_files(folder: Path, files: Mapping[str, Any]) -> None:
    """Raise unless the files of a complete table are there.

    Raises:
        DataError: One is not, or has another size.
    """
    for name, facts in files.items():
        file = folder / name
        is_there = os.path.isfile(file)  # noqa: PTH113  # Path.is_file raises for a name that is too long
        if not is_there or file.stat().st_size != facts["size"]:
            problem = "is incomplete: it has no" if not is_there else "is damaged: the size has changed of"
            shown = shortened(printable(name), 100)
            raise DataError(f"The table {folder} {problem} {shown}. Remove it to write it again, or give another --out.")


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0
