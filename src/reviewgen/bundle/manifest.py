"""``manifest.json`` of a saved folder: the SHA-256 and the size of each file as it was saved, so that later changes are found.

    {"files": {"model.safetensors": {"sha256": "9f86...", "size": 3962162}, ...}}

The card is not listed: users edit it. A folder without a manifest, of an earlier version, is read without the comparison. The
manifest is not a signature: who can write the folder can write the manifest, too.
"""

import contextlib
import hashlib
import json
import shlex
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reviewgen.bundle.layout import CARD, CHANGE_LOCK, CONFIG, GENERATION, MANIFEST, MANIFEST_SCRATCH, SCRATCH, files_of
from reviewgen.config import read_json
from reviewgen.errors import BundleError, StorageError, storage_errors
from reviewgen.lock import Lock
from reviewgen.storage import fsync_folder, write_file

_SECONDS = 30.0  # of waiting for another process, which takes a few milliseconds
_MAX_NAMED = 2  # further files that a message names


@dataclass(frozen=True)
class SavedFile:
    """What a file contains.

    Attributes:
        sha256: Its SHA-256, hexadecimal.
        size: Its size in bytes.
    """

    sha256: str
    size: int


def digest_files(folder: Path, names: Iterable[str]) -> dict[str, SavedFile]:
    """Return what the files of a folder contain, without those that a manifest does not list or that do not exist."""
    return {name: _digest(folder / name) for name in sorted({*names} - {CARD, MANIFEST}) if (folder / name).is_file()}


def write_manifest(folder: Path, names: Collection[str] | None = None, changed: Mapping[str, SavedFile] | None = None) -> None:
    """Write the manifest of a folder as it is now, in one step.

    Args:
        folder: The folder.
        names: The files to list; by default, all that its config.json names.
        changed: Files that are about to be replaced, as they will be.

    Raises:
        OSError: The operating system refused a step.
    """
    if names is None:
        names = files_of(read_json(folder / CONFIG))
    files = digest_files(folder, names) | dict(changed or {})
    content = {"files": {name: asdict(file) for name, file in sorted(files.items())}}
    scratch = folder / MANIFEST_SCRATCH
    try:
        write_file(scratch, (json.dumps(content, indent=2) + "\n").encode())
        scratch.replace(folder / MANIFEST)
        fsync_folder(folder)
    finally:
        scratch.unlink(missing_ok=True)


def read_manifest(folder: Path, names: Collection[str]) -> dict[str, SavedFile] | None:
    """Return what the files of a folder contained when it was saved; None if it has no manifest.

    Args:
        folder: The folder.
        names: The names that a manifest may list.

    Raises:
        BundleError: The manifest is damaged.
    """
    file = folder / MANIFEST
    if not file.exists():
        return None
    try:
        content = read_json(file)
    except ValueError:
        content = None
    files = content.get("files") if isinstance(content, dict) and content.keys() == {"files"} else None
    if not isinstance(files, dict) or not files.keys() <= {*names} - {CARD, MANIFEST} or not all(map(_is_entry, files.values())):
        raise BundleError(f"{file} is damaged: it should have the SHA-256 and the size of each file. {_what_to_do(folder)}")
    return {name: SavedFile(**entry) for name, entry in files.items()}


def compare(folder: Path, saved: Mapping[str, SavedFile], present: Mapping[str, SavedFile], *, is_local: bool = True) -> None:
    """Raise if files are not as they were saved.

    Args:
        folder: The folder, for the message.
        saved: The files of its manifest.
        present: The files as they are now.
        is_local: Whether the user can change the folder; false for the cache of the Hub.

    Raises:
        BundleError: A file has changed, is missing, or was added.
    """
    changed = [name for name in sorted(saved.keys() | present.keys()) if saved.get(name) != present.get(name)]
    if not changed:
        return
    first, others = changed[0], changed[1:]
    if first not in present:
        problem = "is missing, but was saved with the model"
    elif first not in saved:
        problem = "was not saved with the model"
    else:
        problem = "has changed since the model was saved"
    more = f" and {len(others) - _MAX_NAMED} more" if len(others) > _MAX_NAMED else ""
    also = f" Changed as well: {', '.join(others[:_MAX_NAMED])}{more}." if others else ""
    raise BundleError(f"{first} of {folder} {problem}.{also} {_what_to_do(folder, is_local)}")


@contextlib.contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Let no other process change a file of a saved model inside the block; wait for one that does.

    Raises:
        StorageError: The folder cannot be written, or the other process does not end.
    """
    with storage_errors(folder):
        lock = _lock(folder)
    try:
        yield
    finally:
        lock.remove()


def _lock(folder: Path) -> Lock:
    deadline = time.monotonic() + _SECONDS
    while True:
        with contextlib.suppress(BlockingIOError):
            lock = Lock(folder / CHANGE_LOCK, with_holder=False)
            if lock.is_in_place():
                return lock
            lock.release()  # the process before has removed the file in between
        if time.monotonic() > deadline:
            raise StorageError(f"Another process is changing {folder}. Wait until it has ended, and try again.")
        time.sleep(0.01)


def finish_defaults(folder: Path, names: Collection[str]) -> None:
    """Put generation defaults in place whose saving was cut off after the manifest was written, and before the file was."""
    scratch = folder / SCRATCH
    if not scratch.is_file():
        return
    expected = (read_manifest(folder, names) or {}).get(GENERATION)
    if expected is not None and _digest(scratch) == expected:
        scratch.replace(folder / GENERATION)


def _what_to_do(folder: Path, is_local: bool = True) -> str:
    path = str(folder) if folder.is_absolute() or folder.parts[:1] == ("..",) else f"./{folder}"  # what the command takes
    pull = "reviewgen pull OWNER/NAME --out ./my-model --accept-changes"
    command = f"reviewgen doctor {shlex.quote(path)} --accept" if is_local else pull
    return f"Restore it, or take the change: {command}, or load(..., accept_changes=True)."


def _digest(file: Path) -> SavedFile:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return SavedFile(digest, stream.tell())


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and entry.keys() == {"sha256", "size"}
        and isinstance(entry["sha256"], str)
        and type(entry["size"]) is int
    )
