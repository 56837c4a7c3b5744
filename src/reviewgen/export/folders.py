"""The folder of an export: it appears whole or not at all, and replaces nothing but an earlier export. Knows no format.

An export has a list of its files. Names alone would not tell it from others: every model folder of the Hugging Face Hub has a
``tokenizer_config.json``.
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


def check_target(folder: str | os.PathLike[str], kind: str, overwrite: bool) -> Path:
    """Return the folder of an export; raise if an export cannot be written, before any work.

    Args:
        folder: The target.
        kind: ``ONNX`` or ``TRANSFORMERS``.
        overwrite: Whether to replace an earlier export of this kind.

    Raises:
        ConfigError: The target is not a path.
        OutputExists: The target exists, and ``overwrite`` is false, or it has other files than those of an export of this kind.
        StorageError: The nearest existing parent is not a writable folder.
    """
    check_flags(overwrite=overwrite)
    folder = to_path("folder", folder)
    with storage_errors(folder):
        if not (overwrite and folder.is_dir() and not folder.is_symlink()):
            check_output(folder)
        elif others := {path.name for path in folder.iterdir()} - _own_files(folder, kind):
            raise OutputExists(
                f"{folder} has other files than an export of reviewgen --{kind}, as {quoted(min(others))}: it is not replaced. "
                "Give another folder, or move them."
            )
    return folder


def _own_files(folder: Path, kind: str) -> set[str]:
    """Return the names of the files that an export of this kind has written in a folder."""
    try:
        listed = read_json(folder / LIST)
        return {*listed["files"], LIST, ".DS_Store"} if listed["export"] == kind else set()  # the last one is of macOS
    except (OSError, ValueError, LookupError, TypeError):  # the file is missing, or another program's
        return set()


@contextlib.contextmanager
def export_folder(folder: Path, kind: str, overwrite: bool) -> Iterator[Path]:
    """Yield a scratch folder that becomes ``folder`` when the block ends, and is removed if the block raises.

    Raises:
        StorageError: The disk is full, or the folder cannot be written; nothing is left behind.
    """
    with storage_errors(folder):
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(folder, overwrite=overwrite) as scratch:
            yield scratch
            files = sorted(path.name for path in scratch.iterdir())
            write_json(scratch / LIST, {"library": "reviewgen", "library_version": __version__, "export": kind, "files": files})


def write_json(file: Path, value: Any) -> None:
    """Write a value as a JSON file."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    file.write_text(text, encoding="utf-8", newline="")
