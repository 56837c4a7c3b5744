"""The folder of an export: it appears whole or not at all, and never replaces what is not an export. Knows no format."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reviewgen.config import check_flags
from reviewgen.errors import OutputExists, storage_errors
from reviewgen.storage import new_folder, refuse_existing, to_path, write_file

__all__ = ["ONNX", "TRANSFORMERS", "check_target", "export_folder", "write_json", "write_text"]

ONNX, TRANSFORMERS = "model.onnx", "tokenizer_config.json"
"""The markers: a file that each export of a kind has."""


def check_target(folder: str | os.PathLike[str], marker: str, overwrite: bool) -> Path:
    """Return the folder of an export; raise if an export cannot be written, before any work.

    Args:
        folder: The target.
        marker: A file that an earlier export of this kind has; a folder without it is never replaced.
        overwrite: Whether to replace an earlier export.

    Raises:
        ConfigError: The target is not a path.
        OutputExists: The target exists, and ``overwrite`` is false or it is not an export of this kind.
        StorageError: The nearest existing parent is not a writable folder.
    """
    check_flags(overwrite=overwrite)
    folder = to_path("folder", folder)
    if not (overwrite and folder.is_dir() and not folder.is_symlink()):
        refuse_existing(folder)
    elif any(folder.iterdir()) and not (folder / marker).is_file():
        raise OutputExists(
            f"{folder} exists and has no {marker}, so it is not replaced. Give another folder, or remove it first."
        )
    return folder


@contextlib.contextmanager
def export_folder(folder: Path, marker: str, overwrite: bool) -> Iterator[Path]:
    """Yield a scratch folder that becomes ``folder`` when the block ends, and is removed if the block raises.

    Raises:
        OutputExists: See ``check_target``.
        StorageError: The disk is full, or the folder cannot be written; nothing is left behind.
    """
    check_target(folder, marker, overwrite)
    with storage_errors(folder):
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        with new_folder(folder, overwrite=overwrite) as scratch:
            yield scratch


def write_json(file: Path, value: Any) -> None:
    """Write a value as a JSON file."""
    write_text(file, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(file: Path, text: str) -> None:
    """Write a text file."""
    write_file(file, text.encode("utf-8"))
