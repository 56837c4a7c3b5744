"""Scratch folders: where a process keeps what it has not finished yet, and how the next one removes what a killed one has left.

    .my-model-k3b9x2qa/    the folder, beside its target or in a folder of temporary files
        reviewgen.lock     locked by the process for as long as it lives
        new                what it writes

The operating system releases a lock when its process ends for any reason, so a folder whose lock is free was left by a process
that was killed. Nothing is removed because it is old. Where the file system has no locks, nothing is removed.

    scratch_folder     a folder for the block
    temporary_folder   the same among the temporary files of this machine
    abandoned_folders  those that killed processes have left, one by one, locked and then removed
"""

import contextlib
import functools
import logging
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from reviewgen.lock import Lock

NEW = "new"
TEMPORARY = "reviewgen-tmp-"
"""How the names of temporary folders begin."""

_LOCK = "reviewgen.lock"
_RANDOM = r"[a-z0-9_]{8}"  # how ``mkdtemp`` ends a name
_NEW_MODE = 0o700  # of a folder from ``mkdtemp``
_TRIES = 100
_logger = logging.getLogger("reviewgen")


@contextlib.contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield a new folder that no other process touches; removed when the block ends.

    Args:
        parent: An existing folder.
        prefix: How its name begins.

    Raises:
        OSError: It cannot be created.
    """
    folder, lock = _create(parent, prefix)
    try:
        yield folder
    finally:
        _remove(folder, lock)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield an empty temporary folder, removed when the block ends, or by a later process if this one is killed."""
    parent = Path(tempfile.gettempdir())
    _remove_temporary(parent)
    with scratch_folder(parent, TEMPORARY) as scratch:
        folder = scratch / NEW
        folder.mkdir()
        yield folder


def abandoned_folders(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield each scratch folder that a killed process has left; it is locked meanwhile, and removed afterwards.

    Args:
        parent: The folder that they are in; it need not exist.
        prefix: How their names begin.
    """
    name = re.compile(re.escape(prefix) + _RANDOM)
    try:
        folders = [Path(entry.path) for entry in os.scandir(parent) if name.fullmatch(entry.name)]
    except OSError:
        return
    for folder in sorted(folders):
        lock = _lock_abandoned(folder)
        if lock is None:
            continue
        try:
            yield folder
        finally:
            if _remove(folder, lock):
                _logger.warning("Removed %s, which a process that was killed has left.", folder)


def remove_abandoned(parent: Path, prefix: str) -> list[Path]:
    """Remove the scratch folders that killed processes have left, and return their paths."""
    return list(abandoned_folders(parent, prefix))


def is_locked(folder: Path) -> bool:
    """Return whether a living process uses a scratch folder."""
    try:
        lock = Lock(folder / _LOCK, with_holder=False) if (folder / _LOCK).is_file() else None
    except BlockingIOError:
        return True
    except OSError:
        return False
    if lock is not None:
        lock.release()
    return False


@functools.cache
def _remove_temporary(parent: Path) -> None:
    """Remove abandoned temporary folders, once in a process: the folder above may have very many entries."""
    remove_abandoned(parent, TEMPORARY)


def _create(parent: Path, prefix: str) -> tuple[Path, Lock]:
    """Return a new folder and its lock; tried again where another process has just removed it as an abandoned one."""
    for _ in range(_TRIES):
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        try:
            lock = Lock(folder / _LOCK, with_holder=False)
        except (BlockingIOError, FileNotFoundError, FileExistsError):  # the last if it was removed while filelock looked for it
            continue
        except BaseException:
            with contextlib.suppress(OSError):
                folder.rmdir()
            raise
        if lock.is_in_place():
            return folder, lock
        lock.release()
    raise FileExistsError(f"No scratch folder can be kept in {parent}.")


def _lock_abandoned(folder: Path) -> Lock | None:
    """Return the lock of a folder that was left by a killed process of this user; None for all other folders."""
    file = folder / _LOCK
    with contextlib.suppress(OSError):
        if folder.is_symlink() or not folder.is_dir() or not _is_own(folder):
            return None
        if file.is_symlink() or not file.is_file():
            if stat.S_IMODE(folder.stat().st_mode) == _NEW_MODE:  # else it is not from ``mkdtemp``
                folder.rmdir()  # only if it is empty: its process was killed at the very first or last step, or makes another
            return None
        lock = Lock(file, with_holder=False)
        if lock.is_supported and lock.is_in_place():
            return lock
        lock.release()
    return None


def _is_own(folder: Path) -> bool:
    """Return whether a folder belongs to this user, so that no other has put links into it."""
    return not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid()


def is_made_by_user(folder: Path) -> bool:
    """Return whether a folder belongs to this user, or to the owner that what this user makes beside it gets: NFS, for example,
    may give the files of root, or of all users, to one user."""
    if _is_own(folder):
        return True
    try:
        new = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError:
        return False
    try:
        return folder.stat().st_uid == new.stat().st_uid
    finally:
        new.rmdir()


def _remove(folder: Path, lock: Lock) -> bool:
    """Remove a locked folder, its lock last; keep the lock where something stays, so that a later process tries again."""
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        if path.name == _LOCK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()
    with contextlib.suppress(OSError):
        if all(path.name == _LOCK for path in folder.iterdir()):
            lock.remove()
            folder.rmdir()
            return True
    lock.release()
    return False
