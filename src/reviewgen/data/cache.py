"""The cache: a folder with cleaned corpora and token stores, of bounded size. The least recently
used entries are removed first.
"""

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from reviewgen.errors import StorageError, storage_errors
from reviewgen.storage import Job, temporary_folder

MAX_BYTES = 10_000_000_000
_WORKSPACE = "tmp-"  # prefix of the names of temporary folders in the cache
_KILLED_SECONDS = 7 * 24 * 3600  # after this, a temporary folder counts as abandoned
_IN_USE_SECONDS = 3600  # for this long after a folder's last use, a training may still need it

T = TypeVar("T")


def cache_folder() -> Path:
    """Return the folder of the cache: ``$REVIEWGEN_CACHE`` if set, else ``reviewgen`` in the user's
    cache folder.

    Raises:
        StorageError: The user has no home folder, as in some containers.
    """
    configured = os.environ.get("REVIEWGEN_CACHE")
    try:
        if configured:
            return Path(configured).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reviewgen"
    # pathlib raises it if HOME is not set and the system does not list the user
    except RuntimeError:
        raise StorageError(
            "There is no place for the cache: this user has no home folder. Set REVIEWGEN_CACHE to"
            " a folder that can be written."
        ) from None


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    """Yield a temporary folder inside the cache folder and remove it afterwards.

    Raises:
        StorageError: The cache folder cannot be written.
    """
    root = cache_folder()
    with contextlib.ExitStack() as stack:
        with storage_errors(f"the cache folder {root} (set REVIEWGEN_CACHE to use another)"):
            if root.is_file():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            root.mkdir(parents=True, exist_ok=True)
            folder = stack.enter_context(temporary_folder(root, _WORKSPACE))
        yield folder


def in_cache(
    name: str,
    read: Callable[[Path], T],
    facts: Mapping[str, Any],
    piece: str,
    make: Callable[[Job], object],
) -> T:
    """Read a folder of the cache; if it does not exist, a job makes it first.

    Args:
        name: The name of the folder.
        read: Reads the folder and returns its content, or raises if the folder is incomplete.
        facts: The settings and data that the folder's content depends on.
        piece: The name of the job's output that becomes the folder.
        make: Makes that output.
    """
    target = cache_folder() / name
    with storage_errors(target):
        if target.exists():
            try:
                read(target)
            # the folder is incomplete: its removal was interrupted, or the power failed
            except (OSError, ValueError, KeyError, TypeError):
                shutil.rmtree(target)
        if not target.exists():
            with Job(target, piece, facts, waits=True) as job:
                if not target.exists():
                    make(job)
                    job.finish(piece)
    with contextlib.suppress(OSError):  # this user may only read the cache
        os.utime(target)
    prune_cache()
    return read(target)


def cache_size() -> int:
    """Return the size of the cache in bytes."""
    return sum(size for _, size, _ in _entries())


def prune_cache(max_bytes: int = MAX_BYTES) -> None:
    """Remove the least recently used folders until the cache has at most ``max_bytes``. Folders
    used within the last hour are kept, and temporary folders unused for a week are removed in any
    case.
    """
    entries = sorted(_entries())
    total = sum(size for _, size, _ in entries)
    for used, size, folder in entries:
        idle = time.time() - used
        is_removed = total > max_bytes and idle > _IN_USE_SECONDS
        if folder.name.startswith(_WORKSPACE):
            is_removed = idle > _KILLED_SECONDS
        if is_removed:
            shutil.rmtree(folder, ignore_errors=True)
            total -= size


def _entries() -> Iterator[tuple[float, int, Path]]:
    """Yield the time of the last use, the size in bytes and the path of each folder of the
    cache.
    """
    root = cache_folder()
    for folder in root.iterdir() if root.is_dir() else ():
        with contextlib.suppress(OSError):  # another process is removing it
            if folder.is_dir():
                files = [file.stat() for file in folder.rglob("*") if file.is_file()]
                used = [folder.stat().st_mtime]
                if folder.suffix == ".partial":  # a running job writes to its files
                    used += [file.st_mtime for file in files]
                yield max(used), sum(file.st_size for file in files), folder
