"""Atomic writing: a folder that appears whole or not at all, even where the power fails in the middle.

The content is written into a scratch folder beside its target (``reviewgen.scratch``), every file is forced to disk, and a
rename gives it its name. Used for saved models, the token cache and checkpoints. Files are flushed through handles that are open
for writing and nothing is renamed onto an existing name, because Windows refuses both. Standard library only, but for the class
of safetensors' errors; it knows neither models nor formats.

    write_file, fsync_file, fsync_folder    force content and names to disk
    new_folder, publish                     a folder from scratch to its name; only ``_replace`` overwrites
    recover                                 a folder whose replacement was cut off, and what killed processes have left of it
    to_path, refuse_existing                check a target before hours of work
    find_same_names                         names that are one name on Windows and macOS
    default_mode, safetensors_errors        for files that another library writes
    Job                                     work that can be resumed, in a folder until it is whole
"""

import contextlib
import ctypes
import errno
import functools
import glob
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from reviewgen.errors import CheckpointError, ConfigError, OutputExists, StorageError, quoted, storage_errors
from reviewgen.scratch import NEW, OLD, abandoned_folders, scratch_folder

LOCKS_OPEN_FILES = os.name == "nt"
"""Whether a file that is open or memory-mapped cannot be renamed, replaced or removed, nor a folder above it renamed."""

_ALREADY_EXISTS = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)  # what renaming a folder onto an existing name gives
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of linux/fcntl.h and linux/fs.h
_JOB, _LOCK = "job.json", ".lock"
_NOT_PIECES = {_JOB, "job.new", _LOCK, "source"}  # of a job
_PATIENCE_SECONDS = 2.0  # for other programs, such as virus scanners, that briefly open what was just written
_REPLACING_SECONDS = 1.5 * _PATIENCE_SECONDS  # in which another process that is replacing a folder would have finished


def to_path(name: str, value: str | os.PathLike[str]) -> Path:
    """Return a path that the user has given, with ``~`` expanded.

    Raises:
        ConfigError: The argument ``name`` is not a path.
    """
    try:
        path = Path(value).expanduser()
        is_path = b"\0" not in os.fsencode(path)
    except RuntimeError:  # the home folder of a user who does not exist
        raise ConfigError(f"{name}={quoted(value)} is in a home folder that does not exist. Write the path without ~.") from None
    except (TypeError, ValueError, AttributeError):  # of another type, of bytes, with surrogates
        is_path = False
    if not is_path:
        raise ConfigError(f"{name} must be a path; got {quoted(value)}.")
    return path


def refuse_existing(folder: Path) -> None:
    """Raise if a new folder cannot be created at a path.

    Raises:
        OutputExists: Something exists there.
        StorageError: The nearest existing parent is not a writable folder.
    """
    with storage_errors(folder):
        recover(folder)
        if folder.exists() or folder.is_symlink():
            raise _already_exists(folder)
        parent = next(parent for parent in folder.absolute().parents if parent.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise StorageError(f"{folder} cannot be written: {parent} is not a writable folder. Choose another folder.")


@contextlib.contextmanager
def new_folder(folder: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder that becomes ``folder`` when the block ends, and is removed if the block raises.

    What a process that was killed has left of the same target is removed first.

    Args:
        folder: The target; its parent exists.
        overwrite: Whether to replace what exists there; it is removed only after the new folder has its name.

    Raises:
        OutputExists: ``folder`` exists and ``overwrite`` is false.
        OSError: The operating system refused a step; the target is as it was, and nothing is left behind.
    """
    recover(folder)
    with scratch_folder(folder.parent, _prefix(folder)) as scratch:
        new = scratch / NEW
        new.mkdir()
        yield new
        _fsync_tree(new)
        new.chmod(default_mode(is_folder=True))  # the block may have changed it
        if overwrite:
            _replace(new, folder, scratch / OLD)
        else:
            _rename_new(new, folder)
        fsync_folder(folder.parent)


def publish(scratch: Path, folder: Path) -> None:
    """Force a finished folder to disk and give it its name, on the same file system.

    Args:
        scratch: The folder.
        folder: Its name.

    Raises:
        OutputExists: Another process was first to create ``folder``.
        OSError: The operating system refused a step.
    """
    _fsync_tree(scratch)
    _rename_new(scratch, folder)
    fsync_folder(folder.parent)


def recover(folder: Path) -> None:
    """Finish a replacement of a folder that was cut off between its two renames, and remove what killed processes have left.

    The new folder was complete by then, so it gets the name. A process that replaces the folder just now is waited for.
    """
    for scratch in abandoned_folders(folder.parent, _prefix(folder)):
        for name in (NEW, OLD) if (scratch / OLD).exists() else ():
            if not os.path.lexists(folder) and (scratch / name).exists():
                with contextlib.suppress(OSError):
                    (scratch / name).rename(folder)
    deadline = time.monotonic() + _REPLACING_SECONDS
    while not os.path.lexists(folder) and _is_being_replaced(folder) and time.monotonic() < deadline:
        time.sleep(_REPLACING_SECONDS / 60)


def write_file(file: Path, content: bytes) -> None:
    """Write a file and force it to disk."""
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def write_new(path: Path, write: Callable[[Path], object], later: Callable[[Callable[[], None]], None] | None = None) -> None:
    """Create a file or folder under a temporary name, then force it to disk and give it its name, unless that exists.

    Args:
        path: The name.
        write: Called with the temporary name.
        later: Called with a function that does what follows, so that another thread may; None does it at once.
    """
    if path.exists():
        return
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(scratch)
    except BaseException:
        _remove(scratch)
        raise
    name = functools.partial(_name_new, scratch, path)
    name() if later is None else later(name)


def _name_new(scratch: Path, path: Path) -> None:
    """Force a finished file or folder to disk and give it its name; it is removed if that fails."""
    try:
        if scratch.is_dir():
            publish(scratch, path)
        else:
            fsync_file(scratch)
            scratch.replace(path)
    finally:
        _remove(scratch)


def _remove(scratch: Path) -> None:
    if scratch.is_dir():
        shutil.rmtree(scratch, ignore_errors=True)
    scratch.unlink(missing_ok=True)


def fsync_file(file: Path) -> None:
    """Force the content of an existing file to disk."""
    try:
        handle = os.open(file, os.O_RDWR)  # Windows flushes no handle that is open for reading only
    except PermissionError:
        handle = os.open(file, os.O_RDONLY)  # a read-only file; other systems flush it through any handle
    _fsync(handle, errno.EBADF)


def fsync_folder(folder: Path) -> None:
    """Force the names in a folder to disk, where the system allows that."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders; elsewhere, a folder may be writable and not readable
        return
    _fsync(handle, errno.EINVAL)  # some network file systems flush no folders


def _fsync(handle: int, ignored: int) -> None:
    """Force what a handle is of to disk, and close it; one error number is ignored."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != ignored:
            raise
    finally:
        os.close(handle)


def find_same_names(names: Iterable[str]) -> tuple[str, str] | None:
    """Return two names that differ only in case, if there are any: on Windows and macOS they are one file.

    >>> find_same_names(["config.json", "merges.txt", "Config.json"])
    ('config.json', 'Config.json')
    """
    seen: dict[str, str] = {}
    for name in names:
        if (other := seen.setdefault(name.casefold(), name)) != name:
            return other, name
    return None


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
        _rename(scratch, folder)
    except OSError as error:
        if error.errno in _ALREADY_EXISTS:
            raise _already_exists(folder) from None
        raise


def _replace(new: Path, folder: Path, aside: Path) -> None:
    """Rename to a name that may exist; what has it now is left in the scratch folder, which is removed afterwards.

    Where the system can exchange two names, one of both has the name at every moment. Elsewhere, the old entry is moved aside,
    and moved back on failure.
    """
    if os.path.lexists(folder) and _exchange(new, folder):
        return
    if os.path.lexists(folder):
        _move_aside(folder, aside)
    try:
        _rename(new, folder)
    except BaseException:
        if os.path.lexists(aside):
            aside.rename(folder)
        raise


def _is_being_replaced(folder: Path) -> bool:
    """Return whether a living process is between the two renames."""
    try:
        return any((scratch / OLD).exists() for scratch in folder.parent.glob(f"{glob.escape(_prefix(folder))}????????"))
    except OSError:
        return False


def _prefix(folder: Path) -> str:
    """Return how the names of the scratch folders of a target begin."""
    return f".{folder.name}-"


def _exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two entries of a file system in one step, as Linux can; return whether that was done."""
    renameat2 = None if LOCKS_OPEN_FILES else _renameat2()
    if renameat2 is None:
        return False
    done: int = renameat2(_AT_FDCWD, os.fsencode(one.absolute()), _AT_FDCWD, os.fsencode(other.absolute()), _RENAME_EXCHANGE)
    return done == 0  # else, the file system cannot, and the renames say what is wrong


@functools.cache
def _renameat2() -> Callable[..., int] | None:
    """Return renameat2(2) of the C library, where it has it."""
    try:
        return ctypes.CDLL(None).renameat2
    except (OSError, TypeError, AttributeError):  # Windows; another C library
        return None


def _move_aside(folder: Path, aside: Path) -> None:
    try:
        _rename(folder, aside)
    except PermissionError:
        if not LOCKS_OPEN_FILES:
            raise
        raise StorageError(
            f"{folder} cannot be replaced while its files are open, as in another program. Close it, or give another folder."
        ) from None


def _rename(source: Path, target: Path) -> None:
    """Rename; where open files cannot be renamed, try for a while."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            source.rename(target)
            return
        except PermissionError:
            if not LOCKS_OPEN_FILES or time.monotonic() >= deadline:
                raise
        time.sleep(_PATIENCE_SECONDS / 40)


def _already_exists(folder: Path) -> OutputExists:
    return OutputExists(f"{folder} already exists. Give another folder, or remove it first.")


class Job:
    """Work that can be resumed: ``OUT.partial`` holds its pieces until ``OUT`` is whole.

    The folder has ``job.json``, which says what the result depends on, a lock, and the pieces, each of which has its name only
    once it is whole. The same work goes on from them::

        with Job(out, {"texts": digest}) as job:
            for name in names:
                job.write(name, make)
            job.finish("store")

    Args:
        out: The result.
        facts: What the result depends on, as JSON values by name.
        waits: Whether to wait for another process that does the same work, instead of raising.
    """

    def __init__(self, out: Path, facts: Mapping[str, Any], *, waits: bool = False) -> None:
        self.out, self.folder = out, out.with_name(f"{out.name}.partial")
        self._facts, self._waits = json.loads(json.dumps(dict(facts))), waits
        self._lock: Any = None
        self._is_finished = False

    def __enter__(self) -> "Job":
        """Lock the folder.

        Raises:
            CheckpointError: Another process works in it, or it has the pieces of a job with other facts.
            OutputExists: It is not the folder of a job.
        """
        from filelock import FileLock, Timeout

        while self._lock is None:
            names = _names(self.folder)
            if names - _NOT_PIECES and _JOB not in names:
                raise OutputExists(
                    f"{self.folder} exists and is not the folder of an unfinished job. Remove it, or choose another name."
                )
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / _LOCK, timeout=-1 if self._waits else 0, thread_local=False)
            try:
                lock.acquire()
            except (FileNotFoundError, FileExistsError):  # the other process has just removed the folder
                continue
            except Timeout:
                raise CheckpointError(f"Another process is working in {self.folder}. Wait for it to finish.") from None
            if (self.folder / _LOCK).exists():  # else the other process has finished, and removed it
                self._lock = lock
        for scratch in self.folder.rglob(".*.*[0-9]"):  # of a process that was killed
            _remove(scratch)
        if _names(self.folder) <= _NOT_PIECES - {"source"}:  # nothing was made of the facts before
            (self.folder / _JOB).unlink(missing_ok=True)
        try:
            self.require(self._facts)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        is_file = (path.is_file() and path.name not in _NOT_PIECES for path in self.folder.rglob("*"))
        if not self._is_finished and not any(is_file):  # nothing is worth keeping
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()
        if LOCKS_OPEN_FILES and _names(self.folder) == {_LOCK}:
            with contextlib.suppress(OSError):  # another process has just opened it
                (self.folder / _LOCK).unlink()
                self.folder.rmdir()

    def require(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Add facts to those of the job, and return all.

        Raises:
            CheckpointError: An earlier try had others.
        """
        given: dict[str, Any] = json.loads(json.dumps(dict(facts)))
        file = self.folder / _JOB
        try:
            before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        except ValueError:
            raise CheckpointError(f"{file} is damaged. Remove {self.folder} to start over.") from None
        if different := [name for name in given.keys() & before.keys() if given[name] != before[name]]:
            raise CheckpointError(
                f"{self.folder} holds an unfinished job with other {' and '.join(sorted(different))}. Rerun the original command "
                "to resume it, remove the folder, or choose another name."
            )
        content = json.dumps(before | given, indent=1).encode()
        if not file.exists() or given.keys() - before.keys():
            scratch = file.with_suffix(".new")
            write_file(scratch, content)
            scratch.replace(file)
        return before | given

    def path(self, name: str) -> Path:
        """Return the path of a piece."""
        return self.folder / name

    def done(self, name: str) -> bool:
        """Return whether a piece is whole."""
        return self.path(name).exists()

    def write(self, name: str, make: Callable[[Path], object]) -> None:
        """Make a piece, a file or a folder, at a path that it is given; a piece that is whole stays as it is."""
        self.write_whole(self.path(name), make)

    @staticmethod
    def write_whole(path: Path, make: Callable[[Path], object]) -> None:
        """The same in another process, which has the path of the piece."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_new(path, make)

    def clear(self) -> None:
        """Remove all pieces, as those of a source that cannot be read again."""
        for path in self.folder.iterdir():
            if path.name not in _NOT_PIECES:
                _remove(path)

    def finish(self, name: str) -> None:
        """Give a piece the name of the result, and remove the rest.

        Raises:
            OutputExists: Something has that name by now.
        """
        publish(self.path(name), self.out)
        self._is_finished = True  # the folder is another process's, as soon as it is removed
        shutil.rmtree(self.folder, ignore_errors=True)


def _names(folder: Path) -> set[str]:
    try:
        return {path.name for path in folder.iterdir()}
    except FileNotFoundError:
        return set()
