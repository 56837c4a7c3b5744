"""The folder of an export: it appears whole or not at all, and replaces nothing but an earlier export. Knows no format.

An export has a list of its files, and is replaced only if it has no other files. Names alone would not do: every model folder of
the Hugging Face Hub has a ``tokenizer_config.json``.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reviewgen.config import check_flags, read_json
from reviewgen.errors import OutputExists, quoted, storage_errors
from reviewgen.storage import atomic_folder, check_output, to_path
from reviewgen.version import __version__

LIST = "reviewgen-export.json"
"""The file of an export that names its other files."""

ONNX, TRANSFORMERS = "onnx", "transformers"
"""The kinds of exports."""

_TOLERATED = {".DS_Store"}  # of macOS


def check_target(folder: str | os.PathLike[str], kind: str, overwrite: bool) -> Path:
    """Return the folder of an export; raise if an export cannot be written, before any work.

    Args:
        folder: The target.
        kind: ``ONNX`` or ``TRANSFORMERS``.
        overwrite: Whether to replace an earlier export of this kind.

    Raises:
        ConfigError: The target is not a path.
        OutputExists: The target exists, and ``overwrite`` is false, or it is not an export of this kind or has other files.
        StorageError: The nearest existing parent is not a writable folder.
    """
    check_flags(overwrite=overwrite)
    folder = to_path("folder", folder)
    if not (overwrite and folder.is_dir() and not folder.is_symlink()):
        check_output(folder)
    else:
        with storage_errors(folder):
            _refuse_others(folder, kind)
    return folder


def _refuse_others(folder: Path, kind: str) -> None:
    """Raise unless a folder is empty or has the files of an export alone."""
    if not (present := list(folder.iterdir())):
        return
    own = _listed_files(folder, kind)
    if own is None:
        raise OutputExists(
            f"{folder} exists and is not an export of reviewgen --{kind}, so it is not replaced. Give another folder, or remove "
            "it first."
        )
    if others := sorted(path.name for path in present if path.name not in own or path.is_dir()):
        more = f" and {len(others) - 1:,} more" if len(others) > 1 else ""
        raise OutputExists(
            f"{folder} exists and has other files than those of the export, {quoted(others[0])}{more}, so it is not replaced. "
            "Move them, or give another folder."
        )


def _listed_files(folder: Path, kind: str) -> set[str] | None:
    """Return the names of an export's files; None if the folder is not an export of this kind."""
    try:
        listed = read_json(folder / LIST)
        files = listed["files"] if (listed["library"], listed["export"]) == ("reviewgen", kind) else None
        return None if files is None else {*files, LIST, *_TOLERATED}
    except (OSError, ValueError, LookupError, TypeError):  # the file is missing, or another program's
        return None


@contextlib.contextmanager
def export_folder(folder: Path, kind: str, overwrite: bool) -> Iterator[Path]:
    """Yield a scratch folder that becomes ``folder`` when the block ends, and is removed if the block raises.

    Raises:
        OutputExists: See ``check_target``.
        StorageError: The disk is full, or the folder cannot be written; nothing is left behind.
    """
    check_target(folder, kind, overwrite)
    with storage_errors(folder):
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(folder, overwrite=overwrite) as scratch:
            yield scratch
            files = sorted(path.name for path in scratch.iterdir())
            write_json(scratch / LIST, {"library": "reviewgen", "library_version": __version__, "export": kind, "files": files})
            if overwrite:
                check_target(folder, kind, overwrite)  # others may have written there in the meantime


def write_json(file: Path, value: Any) -> None:
    """Write a value as a JSON file."""
    write_text(file, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(file: Path, text: str) -> None:
    """Write a text file."""
    file.write_bytes(text.encode("utf-8"))
