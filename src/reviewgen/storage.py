"""Atomic writing: a folder that appears whole or not at all, even where the power fails in the middle.

The content is written into a scratch folder beside its target, every file is forced to disk, and a rename gives the folder its
name. Used for saved models, the token cache and checkpoints. Files are flushed through handles that are open for writing and
nothing is renamed onto an existing name, because Windows refuses both. Standard library only, but for the class of safetensors'
errors; it knows neither models nor formats.

    write_file, fsync_file, fsync_folder    force content and names to disk
    new_folder, publish                     a folder from scratch to its name; only ``_replace`` overwrites
    to_path, refuse_existing                check a target before hours of work
    default_mode, safetensors_errors        for files that another library writes
"""

import contextlib
import errno
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from reviewgen.errors import ConfigError, OutputExists, StorageError, storage_errors

__all__ = [
    "default_mode",
    "fsync_file",
    "fsync_folder",
    "new_folder",
    "publish",
    "refuse_existing",
    "safetensors_errors",
    "to_path",
    "write_file",
]

_ALREADY_EXISTS = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)  # what renaming a folder onto an existing name gives


def to_path(name: str, value: str | os.PathLike[str]) -> Path:
    """Return a path that the user has given, with ``~`` expanded.

    Raises:
        ConfigError: The argument ``name`` is not a path.
    """
    if not isinstance(value, str | os.PathLike):
        raise ConfigError(f"{name} must be a path; got {value!r}.")
    return Path(value).expanduser()


def refuse_existing(folder: Path) -> None:
    """Raise if a new folder cannot be created at a path.

    Raises:
        OutputExists: Something exists there.
        StorageError: The nearest existing parent is not a writable folder.
    """
    with storage_errors(folder):
        if folder.exists() or folder.is_symlink():
            raise _already_exists(folder)
        parent = next(parent for parent in folder.absolute().parents if parent.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise StorageError(f"{folder} cannot be written: {parent} is not a writable folder. Choose another folder.")


@contextlib.contextmanager
def new_folder(folder: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty scratch folder that becomes ``folder`` when the block ends, and is removed if the block raises.

    Args:
        folder: The target; its parent exists.
        overwrite: Whether to replace what exists there; it is removed only after the new folder has its name.

    Raises:
        OutputExists: ``folder`` exists and ``overwrite`` is false.
        OSError: The operating system refused a step; the target is as it was, and nothing is left behind.
    """
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield scratch
        _fsync_tree(scratch)
        scratch.chmod(default_mode(is_folder=True))  # mkdtemp makes folders for their owner only
        (_replace if overwrite else _rename_new)(scratch, folder)
        fsync_folder(folder.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def publish(scratch: Path, folder: Path) -> None:
    """Force a finished folder to disk and give it its name, on the same file system.

    Raises:
        OutputExists: Another process was first to create ``folder``.
        OSError: The operating system refused a step.
    """
    _fsync_tree(scratch)
    _rename_new(scratch, folder)
    fsync_folder(folder.parent)


def write_file(file: Path, content: bytes) -> None:
    """Write a file and force it to disk."""
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def fsync_file(file: Path) -> None:
    """Force the content of an existing file to disk."""
    try:
        handle = os.open(file, os.O_RDWR)  # Windows flushes no handle that is open for reading only
    except PermissionError:
        handle = os.open(file, os.O_RDONLY)  # a read-only file; other systems flush it through any handle
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_folder(folder: Path) -> None:
    """Force the names in a folder to disk, where the system allows that; Windows opens no folders."""
    if sys.platform == "win32":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a folder may be writable and not readable
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems flush no folders
            raise
    finally:
        os.close(handle)


def default_mode(*, is_folder: bool = False) -> int:
    """Return the mode of a new file or folder under the process's umask, as ``open`` and ``mkdir`` give it."""
    os.umask(mask := os.umask(0))
    return (0o777 if is_folder else 0o666) & ~mask


@contextlib.contextmanager
def safetensors_errors() -> Iterator[None]:
    """Turn the error that safetensors raises for a failed write into the OSError inside it.

    Raises:
        OSError: With the operating system's number and message; EIO where safetensors gives no number.
    """
    from safetensors import SafetensorError  # imported here because only callers with tensors need it

    try:
        yield
    except SafetensorError as error:
        match = re.search(r"os error (\d+)", str(error))
        if match is None:
            raise OSError(errno.EIO, " ".join(str(error).split())) from None
        raise OSError(int(match[1]), os.strerror(int(match[1]))) from None


def _fsync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_dir():
            fsync_folder(path)
        elif path.is_file():
            fsync_file(path)
    fsync_folder(folder)


def _rename_new(scratch: Path, folder: Path) -> None:
    """Rename to a name that did not exist; another program may have created it in the meantime."""
    try:
        scratch.rename(folder)
    except OSError as error:
        if error.errno in _ALREADY_EXISTS:
            raise _already_exists(folder) from None
        raise


def _replace(scratch: Path, folder: Path) -> None:
    """Rename to a name that may exist: the old entry is moved aside, moved back on failure, and removed at the end."""
    aside = scratch.with_name(scratch.name + "-old")
    if os.path.lexists(folder):
        folder.rename(aside)
    try:
        scratch.rename(folder)
    except BaseException:
        if os.path.lexists(aside):
            aside.rename(folder)
        raise
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink(missing_ok=True)


def _already_exists(folder: Path) -> OutputExists:
    return OutputExists(f"{folder} already exists. Give another folder, or remove it first.")
