"""The cache of cleaned corpora and token stores, with a limit of its size: what was not used for longest is removed first."""

import contextlib
import errno
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from reviewgen.errors import StorageError, storage_errors
from reviewgen.protocols import Tokenizer
from reviewgen.storage import temporary_folder

MAX_BYTES = 10_000_000_000
_WORKSPACE = "tmp-"  # how the names of temporary folders in the cache begin
_KILLED_SECONDS = 7 * 24 * 3600  # after which a temporary folder is one that a killed process has left
_IN_USE_SECONDS = 3600  # after its last use, a folder is not removed: a training may be running on it


def cache_folder() -> Path:
    """Return the folder of the cache: ``$REVIEWGEN_CACHE`` if set, else ``reviewgen`` in the user's cache folder.

    Raises:
        StorageError: The user has no home folder, as in some containers.
    """
    configured = os.environ.get("REVIEWGEN_CACHE")
    try:
        if configured:
            return Path(configured).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reviewgen"
    except RuntimeError:  # pathlib's, for HOME unset and a user without an entry in the system's list
        raise StorageError(
            "The cache has no place: this user has no home folder. Set REVIEWGEN_CACHE to a folder that can be written."
        ) from None


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    """Yield a temporary folder inside the cache folder and remove it afterwards.

    Raises:
        StorageError: The cache folder cannot be written.
    """
    root = cache_folder()
    with storage_errors(f"the cache folder {root} (set REVIEWGEN_CACHE to use another)"):
        if root.is_file():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        root.mkdir(parents=True, exist_ok=True)
        stack = contextlib.ExitStack()
        folder = stack.enter_context(temporary_folder(root, _WORKSPACE))
    with stack:
        yield folder


def touch(folder: Path) -> None:
    """Mark a folder of the cache as used."""
    with contextlib.suppress(OSError):  # a cache that others may only read
        os.utime(folder)


def cache_size() -> int:
    """Return the size of the cache in bytes."""
    return sum(size for _, size, _ in _entries())


def prune_cache(max_bytes: int = MAX_BYTES) -> None:
    """Remove folders, the one that was not used for longest first, until the cache has at most ``max_bytes``."""
    entries = sorted(_entries())
    total = sum(size for _, size, _ in entries)
    for used, size, folder in entries:
        idle, is_temporary = time.time() - used, folder.name.startswith(_WORKSPACE)
        if idle > _KILLED_SECONDS if is_temporary else total > max_bytes and idle > _IN_USE_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
            total -= size


def _entries() -> Iterator[tuple[float, int, Path]]:
    """Yield when each folder of the cache was used last, its size in bytes, and its path."""
    root = cache_folder()
    for folder in root.iterdir() if root.is_dir() else ():
        with contextlib.suppress(OSError):  # another process is removing it
            if folder.is_dir():
                files = [file.stat() for file in folder.rglob("*") if file.is_file()]
                written = [file.st_mtime for file in files if folder.suffix == ".partial"]  # a job is used while it is written
                yield max([folder.stat().st_mtime, *written]), sum(file.st_size for file in files), folder


def digest_tokenizer(tokenizer: Tokenizer) -> str:
    """Return a SHA-256 digest of a trained tokenizer, from the files that it saves."""
    with temporary_folder() as folder:
        tokenizer.save(folder)
        files = sorted(folder.iterdir())
        digests = [f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n" for file in files]
    return hashlib.sha256("".join(digests).encode()).hexdigest()
