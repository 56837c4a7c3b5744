"""Atomic writing and resumable work. A file or folder appears only once it is complete, even if the
power fails.

A file or folder is written next to its target under a hidden name, forced to disk, and renamed. If
a process is killed, ``.NAME.new`` may remain, which the next process removes; the folder
``OUT.partial`` of a ``Job`` remains, too, from which the same job is resumed. This module does not
know models, and safetensors is the only format that it knows.

    to_path, check_output           check a target before hours of work
    open_input, is_pipe             open a file that the user names, which may be a pipe
    atomic_file, atomic_folder      write a target that appears only once it is complete
    publish                         give a finished file or folder its name
    describe_cut_off                say how to finish an interrupted replacement
    temporary_folder                a folder that is removed afterwards
    digest_of                       the SHA-256 of a file
    save_array                      write an array in numpy's format
    safetensors_file                write a file by the functions of safetensors
    open_tensors, read_vectors      read a safetensors file, after a check of its content
    Job                             work that can be resumed, with its pieces in a folder
"""

import contextlib
import errno
import hashlib
import io
import json
import logging
import os
import re
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from reviewgen.errors import (
    BundleError,
    CheckpointError,
    ConfigError,
    OutputExists,
    StorageError,
    quoted,
    storage_errors,
)

_logger = logging.getLogger("reviewgen")

LOCKS_OPEN_FILES = os.name == "nt"
"""True on Windows. There, an open or memory-mapped file cannot be renamed, replaced or removed, and
no folder that contains it can be renamed.
"""

# the error numbers of renaming a folder to an existing name
_ALREADY_EXISTS = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)
_JOB = "job.json"
_LOCK = ".lock"
_MIN_WAIT = 1  # seconds of waiting for another process, after which a job logs that it waits
_NOT_PIECES = {_JOB, ".job.json.new", _LOCK, "source"}  # files in a job's folder
# the names of the pieces of all kinds of jobs; the last five are those of stores in version 0.1.0
_PIECES = (
    "step-*.pt",
    "shards",
    "digests",
    "table",
    "stages",
    "files",
    "raw",
    "corpus",
    "words",
    "tokenizers",
    "store",
)
_PIPE_SECONDS = 30  # maximum wait until another process opens a pipe for writing
# safetensors' abbreviations of the kinds of numbers
_KINDS = {"F": "float", "BF": "bfloat", "I": "int", "U": "uint", "BOOL": "bool"}
# max number of tries to rename a file or folder, which other programs, such as virus scanners, may
# have opened
_TRIES = 20
_PAUSE_SECONDS = 0.1  # pause between two of these tries


def to_path(name: str, value: str | os.PathLike[str]) -> Path:
    """Convert an argument of the user to a path, and expand ``~``.

    Raises:
        ConfigError: ``value`` is not a path; the message has the argument's ``name``.
    """
    try:
        path = Path(value).expanduser()
        is_path = b"\0" not in os.fsencode(path)
    except RuntimeError:  # raised for the home folder of an unknown user
        raise ConfigError(
            f"{name}={quoted(value)} is in a home folder that does not exist. Write the path"
            " without ~."
        ) from None
    except (TypeError, ValueError, AttributeError):  # raised for other types, bytes and surrogates
        is_path = False
    if not is_path:
        raise ConfigError(f"{name} must be a path; got {quoted(value)}.")
    return path


def check_output(path: Path, advice: str = "remove it first") -> None:
    """Raise if a new file or folder cannot be created at a path. If something exists there, the
    message gives ``advice`` on how to replace it.

    Raises:
        OutputExists: Something exists at the path; or a replacement of the folder was interrupted,
            and has left the old folder under another name.
        StorageError: The nearest existing parent is not a writable folder.
    """
    with storage_errors(path):
        _refuse_existing(path, advice=advice)
        parents = path.absolute().parents
        # on Windows, not even the last one, a drive, need exist
        parent = next((parent for parent in parents if parent.exists()), parents[-1])
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise StorageError(
                f"{path} cannot be written: {parent} is not a writable folder. Choose another"
                " folder."
            )


def open_input(file: Path) -> IO[bytes]:
    """Open a file, or a pipe such as ``<(zcat ...)`` in a shell, for reading from the start. A pipe
    can be opened only once.

    Raises:
        OSError: The file cannot be read, is a device, or is a pipe that no process has opened for
            writing within 30 seconds. ``strerror`` has the reason.
    """
    if not is_pipe(file):
        return file.open("rb")
    opened: list[IO[bytes]] = []
    # opening a pipe blocks until a process opens it for writing
    thread = threading.Thread(target=lambda: opened.append(file.open("rb")), daemon=True)
    thread.start()
    thread.join(_PIPE_SECONDS)
    if not opened:
        raise TimeoutError(
            errno.ETIMEDOUT, f"nothing has opened this pipe for writing in {_PIPE_SECONDS} seconds"
        )
    # a terminal is a device, too, but can be read like a pipe
    if not stat.S_ISFIFO(file.stat().st_mode) and not opened[0].isatty():
        opened[0].close()
        raise OSError(errno.EINVAL, "it is a device, not a file")
    return opened[0]


def is_pipe(file: Path) -> bool:
    """Return whether a path is a pipe or device, which can be read only once."""
    return file.exists() and not file.is_file() and not file.is_dir()


@contextlib.contextmanager
def atomic_file(file: Path) -> Iterator[Path]:
    """Yield the path of a new file to write. When the block ends, the new file replaces ``file``.
    If the block raises, the new file is removed.
    """
    new = file.with_name(f".{file.name}.new")
    try:
        yield new
        _fsync(new)
        _rename(new, file, replaces=True)
        _fsync(file.parent)
    finally:
        new.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(folder: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a new, empty folder. When the block ends, the new folder becomes ``folder``. If the
    block raises, the new folder is removed.

    Args:
        folder: The target. Missing parents are created.
        overwrite: Whether to replace an existing target. The old folder is renamed, and removed
            only after the new folder has its name.

    Raises:
        OutputExists: ``folder`` exists and ``overwrite`` is false, or an earlier replacement of the
            folder was interrupted.
        OSError: The operating system refused a step. The target is then unchanged, and nothing is
            left behind.
    """
    _refuse_existing(folder, overwrite=overwrite)
    new = folder.with_name(f".{folder.name}.new")
    old = folder.with_name(f".{folder.name}.old")
    # a process that was killed may have left both
    remove(new)
    remove(old)
    try:
        new.mkdir(parents=True)
        yield new
        _fsync_tree(new)
        if overwrite and os.path.lexists(folder):
            _rename(folder, old)
        try:
            publish(new, folder)
        except BaseException:  # give the old folder its name back
            if os.path.lexists(old) and not os.path.lexists(folder):
                old.rename(folder)
            raise
    finally:
        remove(new)
        if os.path.lexists(folder):  # otherwise ``old`` is the only copy of it
            remove(old)


def publish(new: Path, target: Path) -> None:
    """Force a finished file or folder to disk, and rename it to ``target``, which must not exist
    and must be on the same file system.

    Raises:
        OutputExists: ``target`` exists: another process may have created it in the meantime.
        OSError: The operating system refused a step.
    """
    _fsync_tree(new)
    if new.is_file():  # renaming a file would replace an existing file
        _refuse_existing(target)
    try:
        _rename(new, target)
    except OSError as error:
        if error.errno in _ALREADY_EXISTS:
            _refuse_existing(target)
        raise
    _fsync(target.parent)


def describe_cut_off(folder: Path) -> str:
    """Return advice for the user if a replacement of a folder was interrupted between its two
    renames, else "".
    """
    if not folder.name:  # such as "." or "/", which are never replaced
        return ""
    new = folder.with_name(f".{folder.name}.new")
    old = folder.with_name(f".{folder.name}.old")
    if os.path.lexists(folder) or not os.path.lexists(old):
        return ""
    where = f"{old}, and the new one, which is complete, is {new}" if new.exists() else str(old)
    return (
        f"The replacement of {folder} was cut off: the old folder is {where}. Rename the one to"
        f" keep to {folder.name}."
    )


@contextlib.contextmanager
def temporary_folder(parent: Path | None = None, prefix: str = "reviewgen-") -> Iterator[Path]:
    """Yield an empty temporary folder, which is removed when the block ends."""
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True) as name:
        yield Path(name)


def digest_of(file: Path) -> str:
    """Return the SHA-256 of a file as a hexadecimal string."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def save_array(file: Path, values: Any) -> None:
    """Write a numpy array in numpy's format.

    Raises:
        OSError: The disk is full.
    """
    import numpy as np  # imported here, since only callers with arrays need numpy

    buffer = io.BytesIO()  # np.save to a file hides the cause of an error, such as a full disk
    np.save(buffer, values)
    file.write_bytes(buffer.getbuffer())


def remove(path: Path) -> None:
    """Remove a file, a folder with its content, or a link without its target. Nothing happens if
    the path does not exist.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def safetensors_file(file: Path) -> Iterator[None]:
    """Wrap a block that writes a file by the functions of safetensors. Errors become OSErrors, and
    the file gets the permissions that the process's umask allows for new files.

    Raises:
        OSError: Writing failed. The error has the operating system's number and message; the number
            is EIO if safetensors does not give one.
    """
    # imported here, since only callers with tensors need safetensors
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        match = re.search(r"([^:]*) \(os error (\d+)\)", str(error))
        if match is None:
            raise OSError(errno.EIO, " ".join(str(error).split())) from None
        # the fourth argument is the error number of Windows
        raise OSError(int(match[2]), match[1].strip(), None, int(match[2])) from None
    # the umask can only be read by setting another one
    mask = os.umask(0)
    os.umask(mask)
    file.chmod(0o666 & ~mask)  # safetensors lets only the owner read the file


@contextlib.contextmanager
def open_tensors(file: Path, kind: str) -> Iterator[Any]:
    """Open a safetensors file for reading inside the block. The arrays that are read are copies,
    which can be used after the file is closed.

    Args:
        file: The file.
        kind: What the file should contain, for messages, as in "lexicon".

    Raises:
        BundleError: The file cannot be read or is not a safetensors file. If the block raises a
            BundleError, the name of the file is put in front of the error's message.
    """
    from safetensors import SafetensorError, safe_open  # imported here, as in safetensors_file

    try:
        if is_pipe(file):
            raise BundleError("cannot be read: it is not a file.")
        with safe_open(file, framework="numpy") as tensors:
            yield tensors
    except BundleError as error:
        raise BundleError(f"The {kind} {file} {error}") from None
    except OSError as error:
        raise BundleError(f"The {kind} {file} cannot be read: {error.strerror or error}.") from None
    except SafetensorError as error:
        raise BundleError(
            f"The {kind} {file} is damaged, or not a {kind}: {' '.join(str(error).split())}."
        ) from None


def read_vectors(tensors: Any, expected: Mapping[str, Collection[str]]) -> dict[str, Any]:
    """Check the arrays of an open safetensors file, and return them by name. Their names and dtypes
    must be as expected, and each array must have one axis.

    Args:
        tensors: What ``open_tensors`` yields.
        expected: The names of the dtypes that each array may have, as in {"ids": ["uint32"]}.

    Raises:
        BundleError: The names, dtypes or axes are not as expected.
    """
    headers = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 it is not a mapping
    is_expected = headers.keys() == expected.keys() and all(
        len(header.get_shape()) == 1 and dtype_name(header.get_dtype()) in expected[name]
        for name, header in headers.items()
    )
    if not is_expected:
        raise BundleError(
            f"is damaged: it must have exactly the arrays {', '.join(expected)}, each with one axis"
            " and an expected dtype."
        )
    return {name: tensors.get_tensor(name) for name in expected}


def dtype_name(code: str) -> str:
    """Return numpy's and torch's name of a safetensors dtype, as in "float32" for "F32"."""
    kind = code.rstrip("0123456789")
    return _KINDS.get(kind, kind) + code[len(kind) :]


def _refuse_existing(
    path: Path, *, overwrite: bool = False, advice: str = "remove it first"
) -> None:
    """Raise OutputExists if something exists at a path and may not be overwritten, or if an earlier
    replacement of the path was interrupted.
    """
    reason = describe_cut_off(path)
    if reason:
        raise OutputExists(reason)
    if os.path.lexists(path) and not overwrite:
        raise OutputExists(f"{path} already exists. Give another name, or {advice}.")


def _has_files(path: Path) -> bool:
    """Return whether a path is a file, or a folder that contains a file at any depth."""
    return path.is_file() or any(below.is_file() for below in path.rglob("*"))


def _fsync(path: Path) -> None:
    """Force a file, or the directory entries of a folder, to disk, if the system can do that."""
    try:
        # Windows can flush only files that are open for writing
        handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    # raised for folders on Windows, and for files that another library has made read-only
    except PermissionError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        # some network file systems cannot flush folders
        if error.errno not in (errno.EINVAL, errno.EBADF):
            raise
    finally:
        os.close(handle)


def _fsync_tree(path: Path) -> None:
    """Force a file, or a folder with its content, to disk."""
    for entry in (*path.rglob("*"), path):
        if entry.is_dir() or entry.is_file():
            _fsync(entry)


def _rename(source: Path, target: Path, *, replaces: bool = False) -> None:
    """Rename a path. On Windows, where open files cannot be renamed, retry for some time."""
    rename = source.replace if replaces else source.rename
    if not LOCKS_OPEN_FILES:
        rename(target)
        return
    for _ in range(_TRIES):
        try:
            rename(target)
            return
        except PermissionError:
            time.sleep(_PAUSE_SECONDS)
    raise StorageError(
        f"{target} cannot be written while its files are open, as in another program. Close it, and"
        " try again."
    )


class Job:
    """Work that can be resumed after an interruption. The finished pieces of the work, files or
    folders, are kept in the folder ``OUT.partial`` until the result ``OUT`` is complete.

    The folder contains the pieces, a lock, and ``job.json`` with the facts on which the result
    depends. A piece gets its name only once it is complete. When the same job is started again, the
    pieces that exist are skipped::

        with Job(out, "store", {"texts": digest}) as job:
            for name in names:
                job.write(name, make)
            job.finish("store")

    If the folder belongs to another kind of job or to something else, the folder is not changed.
    Files that are not of the job are not removed.

    Args:
        out: The path of the result.
        kind: What the result is: "training", "table", "corpus" or "store".
        facts: What the result depends on, as JSON values by name.
        waits: Whether to wait if another process is doing the same work. Otherwise an error is
            raised.
    """

    def __init__(
        self, out: Path, kind: str, facts: Mapping[str, Any], *, waits: bool = False
    ) -> None:
        self.out = out
        self.folder = out.with_name(f"{out.name}.partial")
        self._kind = kind
        self._facts = {"kind": kind, **facts}
        self._waits = waits
        self._lock: Any = None

    def __enter__(self) -> "Job":
        """Lock the folder.

        Raises:
            CheckpointError: Another process is using the folder, or the folder has pieces of a job
                with other facts.
            OutputExists: The folder does not belong to a job of this kind.
        """
        from filelock import FileLock, Timeout

        seconds = _MIN_WAIT if self._waits else 0
        while self._lock is None:
            self._read()  # raises if the folder belongs to something else
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / _LOCK, timeout=seconds, thread_local=False)
            try:
                lock.acquire()
            except (FileNotFoundError, FileExistsError):
                continue  # another process has just removed the folder
            except Timeout:
                if self._waits:
                    _logger.info("Waiting for another process, which makes %s.", self.out)
                    seconds = -1  # forever
                    continue
                raise CheckpointError(
                    f"Another process is working in {self.folder}. Wait for it to finish."
                ) from None
            # If the lock's file is gone, another process has finished and has removed the folder
            # with it. Then try again.
            if self.done(_LOCK):
                self._lock = lock
        for scratch in self.folder.rglob(".*.*[0-9]"):  # left by a process that was killed
            remove(scratch)
        if not self._pieces():  # then nothing depends on the facts of an earlier run
            self.path(_JOB).unlink(missing_ok=True)
        try:
            self.require(self._facts)
        except BaseException:
            self._lock.release()  # the folder may have pieces of a job with other facts
            raise
        return self

    def __exit__(self, *error: object) -> None:
        """Release the lock. Remove the folder if it has no finished pieces."""
        if not any(_has_files(piece) for piece in self._pieces()):
            remove(self.folder)
        self._lock.release()
        # on Windows, ``remove`` above has not removed the open lock
        if LOCKS_OPEN_FILES and not self._pieces() and not self.done(_JOB):
            with contextlib.suppress(OSError):  # another process may have just opened the lock
                self.path(_LOCK).unlink(missing_ok=True)  # Windows' lock is removed by its release
                self.folder.rmdir()

    def require(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Add facts to those in ``job.json``, and return all facts of the job.

        Raises:
            CheckpointError: An earlier run of the job had other values for these facts, or
                ``job.json`` is damaged.
            OutputExists: The folder does not belong to a job of this kind.
        """
        # as they will be read from the file: for example, tuples become lists
        current: dict[str, Any] = json.loads(json.dumps(dict(facts)))
        file = self.path(_JOB)
        before = self._read()
        different = [name for name in current if name in before and before[name] != current[name]]
        if different:
            raise CheckpointError(
                f"{self.folder} holds an unfinished job with other"
                f" {' and '.join(sorted(different))}. Rerun the original command to resume it,"
                " remove the folder, or choose another name."
            )
        if not file.exists() or current.keys() - before.keys():
            with atomic_file(file) as new:
                new.write_text(json.dumps(before | current, indent=1), encoding="utf-8")
        return before | current

    def path(self, name: str) -> Path:
        """Return the path of a piece in the folder."""
        return self.folder / name

    def done(self, name: str) -> bool:
        """Return whether a piece is finished."""
        return self.path(name).exists()

    def write(self, name: str, make: Callable[[Path], object]) -> None:
        """Make a piece, which is a file or a folder, unless it exists. ``make`` is called with a
        path to write to.
        """
        self.write_whole(self.path(name), make)

    @staticmethod
    def write_whole(path: Path, make: Callable[[Path], object]) -> None:
        """Make a piece at a path, unless it exists. Processes that do not have the lock may also
        call this.
        """
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            make(scratch)
            # a worker of a process that was killed may just have made the same piece
            with contextlib.suppress(OutputExists):
                publish(scratch, path)
        finally:
            remove(scratch)

    def clear(self) -> None:
        """Remove all pieces, for example if their source cannot be read again."""
        for pattern in _PIECES:
            for path in self.folder.glob(pattern):
                remove(path)

    def finish(self, name: str) -> None:
        """Rename a piece to the result ``out``, and remove all other pieces. The folder is removed
        when the ``with`` block ends.

        Raises:
            OutputExists: ``out`` exists by now.
        """
        publish(self.path(name), self.out)
        self.clear()

    def _read(self) -> dict[str, Any]:
        """Return the facts of an earlier run of the job; an empty dict if there was no earlier run.

        Raises:
            CheckpointError: ``job.json`` is damaged.
            OutputExists: The folder has content that does not belong to a job of this kind.
        """
        # Look for pieces before reading the facts. Another process that starts the same job writes
        # its facts before its pieces, so pieces without facts are not of such a process.
        has_pieces = bool(self._pieces())
        file = self.path(_JOB)
        before: dict[str, Any] = {}
        try:
            before = dict(json.loads(file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            if not has_pieces:
                return before
        except (ValueError, TypeError):
            raise CheckpointError(
                f"{file} is damaged, or not of an unfinished job. Remove {self.folder} to start"
                " over, or choose another name."
            ) from None
        kind = before.get("kind")
        # version 0.1.0 did not write the kind
        is_first_version = before and self._facts.keys() - before.keys() == {"kind"}
        if kind != self._kind and not is_first_version:
            other = "" if kind is None else f", but of an unfinished {kind}"
            raise OutputExists(
                f"{self.folder} exists and is not the folder of an unfinished {self._kind}{other}."
                " Rerun the command that it belongs to, remove it, or choose another name."
            )
        return before

    def _pieces(self) -> list[Path]:
        """Return the paths of all pieces in the folder; an empty list if the folder does not
        exist.
        """
        return [path for path in self.folder.glob("*") if path.name not in _NOT_PIECES]
