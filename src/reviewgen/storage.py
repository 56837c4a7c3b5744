"""Atomic writing and resumable work: what a process writes appears whole or not at all, even where
the power fails.

A file or folder is written beside its target under a hidden name, forced to disk, and renamed. A
process that is killed leaves ``.NAME.new``, which the next one removes, or ``OUT.partial`` of a
``Job``, which the same job resumes. It knows no models, and no formats but safetensors.

    to_path, check_output           check a target before hours of work
    open_input, is_pipe             open a file that the user names, which may be a pipe
    atomic_file, atomic_folder      write a target whole
    publish                         give a finished file or folder its name
    describe_cut_off                say how to finish an interrupted replacement
    temporary_folder                a folder that is removed afterwards
    digest_of                       the SHA-256 of a file
    safetensors_file                write a file by the functions of safetensors
    open_tensors, read_vectors      read such a file, after checking what it contains
    Job                             work that can be resumed, in a folder until it is whole
"""

import contextlib
import errno
import hashlib
import json
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

LOCKS_OPEN_FILES = os.name == "nt"
"""Whether a file that is open or memory-mapped cannot be renamed, replaced or removed, nor a folder
above it renamed.
"""

# the errors of renaming a folder to a name that exists
_ALREADY_EXISTS = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)
_JOB = "job.json"
_LOCK = ".lock"
_NOT_PIECES = {_JOB, ".job.json.new", _LOCK, "source"}  # other files in the folder of a job
# the pieces that jobs make
_PIECES = (
    "step-*.pt",
    "shards",
    "digests",
    "table",
    "raw",
    "corpus",
    "words",
    "tokenizers",
    "store",
)
_PIPE_SECONDS = 30  # to wait until something writes to a pipe
# the kinds of numbers, as safetensors abbreviates them
_KINDS = {"F": "float", "BF": "bfloat", "I": "int", "U": "uint", "BOOL": "bool"}
_TRIES = 20  # to rename what other programs, such as virus scanners, have just opened
_PAUSE_SECONDS = 0.1  # between two of these tries


def to_path(name: str, value: str | os.PathLike[str]) -> Path:
    """Return a path that the user has given, with ``~`` expanded.

    Raises:
        ConfigError: The argument ``name`` is not a path.
    """
    try:
        path = Path(value).expanduser()
        is_path = b"\0" not in os.fsencode(path)
    except RuntimeError:  # the home folder of a user who does not exist
        raise ConfigError(
            f"{name}={quoted(value)} is in a home folder that does not exist. Write the path"
            " without ~."
        ) from None
    except (TypeError, ValueError, AttributeError):  # of another type, of bytes, with surrogates
        is_path = False
    if not is_path:
        raise ConfigError(f"{name} must be a path; got {quoted(value)}.")
    return path


def check_output(path: Path, advice: str = "remove it first") -> None:
    """Raise if nothing new can be created at a path; ``advice`` is how the user can replace what
    exists.

    Raises:
        OutputExists: Something exists there, or its replacement was cut off.
        StorageError: The nearest existing parent is not a writable folder.
    """
    with storage_errors(path):
        _refuse_existing(path, advice=advice)
        parent = next(parent for parent in path.absolute().parents if parent.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise StorageError(
                f"{path} cannot be written: {parent} is not a writable folder. Choose another"
                " folder."
            )


def open_input(file: Path) -> IO[bytes]:
    """Open a file or a pipe, such as ``<(zcat ...)`` in a shell, to read it from its start; a pipe
    only once.

    Raises:
        OSError: It cannot be read, is a device, or is a pipe that nothing has opened for writing in
            30 seconds. ``strerror`` holds the reason.
    """
    if not is_pipe(file):
        return file.open("rb")
    opened: list[IO[bytes]] = []
    # opening a pipe waits for a writer
    thread = threading.Thread(target=lambda: opened.append(file.open("rb")), daemon=True)
    thread.start()
    thread.join(_PIPE_SECONDS)
    if not opened:
        raise TimeoutError(
            errno.ETIMEDOUT, f"nothing has opened this pipe for writing in {_PIPE_SECONDS} seconds"
        )
    if not stat.S_ISFIFO(file.stat().st_mode) and not opened[0].isatty():
        opened[0].close()
        raise OSError(errno.EINVAL, "it is a device, not a file")
    return opened[0]


def is_pipe(file: Path) -> bool:
    """Return whether a path leads to something that can be read only once."""
    return file.exists() and not file.is_file() and not file.is_dir()


@contextlib.contextmanager
def atomic_file(file: Path) -> Iterator[Path]:
    """Yield a path to write to, which replaces ``file`` when the block ends and is removed if the
    block raises.
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
    """Yield an empty folder that becomes ``folder`` when the block ends, and is removed if the
    block raises.

    Args:
        folder: The target; parents that are missing are created.
        overwrite: Whether to replace what exists there: it is moved aside, and removed once the new
            folder has its name.

    Raises:
        OutputExists: ``folder`` exists and ``overwrite`` is false, or an earlier replacement of it
            was cut off.
        OSError: The operating system refused a step; the target is as it was, and nothing is left
            behind.
    """
    _refuse_existing(folder, overwrite=overwrite)
    new = folder.with_name(f".{folder.name}.new")
    old = folder.with_name(f".{folder.name}.old")
    remove(new)  # of a process that was killed, as is the next
    remove(old)
    try:
        new.mkdir(parents=True)
        yield new
        _fsync_tree(new)
        if overwrite and os.path.lexists(folder):
            _rename(folder, old)
        try:
            publish(new, folder)
        except BaseException:
            if os.path.lexists(old) and not os.path.lexists(folder):
                old.rename(folder)
            raise
    finally:
        remove(new)
        if os.path.lexists(folder):
            remove(old)


def publish(new: Path, target: Path) -> None:
    """Force a finished file or folder to disk and give it its name, which is new, on the same file
    system.

    Raises:
        OutputExists: Another process was first to create ``target``.
        OSError: The operating system refused a step.
    """
    _fsync_tree(new)
    if new.is_file():  # which would replace another file
        _refuse_existing(target)
    try:
        _rename(new, target)
    except OSError as error:
        if error.errno in _ALREADY_EXISTS:
            _refuse_existing(target)
        raise
    _fsync(target.parent)


def describe_cut_off(folder: Path) -> str:
    """Return advice for a folder whose replacement was cut off between its two renames, else ""."""
    if not folder.name:  # as of "." or "/", which are never replaced
        return ""
    new = folder.with_name(f".{folder.name}.new")
    old = folder.with_name(f".{folder.name}.old")
    if os.path.lexists(folder) or not os.path.lexists(old):
        return ""
    both = f"{old}, and the new one, which is complete, is {new}" if new.exists() else str(old)
    return (
        f"The replacement of {folder} was cut off: the old folder is {both}. Rename the one to keep"
        f" to {folder.name}."
    )


@contextlib.contextmanager
def temporary_folder(parent: Path | None = None, prefix: str = "reviewgen-") -> Iterator[Path]:
    """Yield an empty temporary folder, removed when the block ends."""
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True) as name:
        yield Path(name)


def digest_of(file: Path) -> str:
    """Return the SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, or a link and not what it leads to, if it
    exists.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def safetensors_file(file: Path) -> Iterator[None]:
    """Write a file by the functions of safetensors, in the block; its mode is that of a new file
    under the process's umask.

    Raises:
        OSError: With the operating system's number and message; EIO where safetensors gives no
            number.
    """
    # only callers with tensors need safetensors
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        match = re.search(r"([^:]*) \(os error (\d+)\)", str(error))
        if match is None:
            raise OSError(errno.EIO, " ".join(str(error).split())) from None
        # the fourth argument is the number that Windows reads
        raise OSError(int(match[2]), match[1].strip(), None, int(match[2])) from None
    mask = os.umask(0)
    os.umask(mask)
    file.chmod(0o666 & ~mask)  # the library leaves it readable by its owner only


@contextlib.contextmanager
def open_tensors(file: Path, kind: str) -> Iterator[Any]:
    """Open a safetensors file to read from it in the block; arrays are copied and do not keep the
    file open.

    Args:
        file: The file.
        kind: What it should be, for messages: "lexicon".

    Raises:
        BundleError: The file cannot be read or is not a safetensors file, or the block raised a
            BundleError, whose message is completed with the file name.
    """
    from safetensors import SafetensorError, safe_open  # as above

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
    """Return the arrays of an open safetensors file, each with one axis, after checking their
    names, dtypes and axes.

    Args:
        tensors: What ``open_tensors`` yields.
        expected: The names of the dtypes that each array may have: "uint32".

    Raises:
        BundleError: The file has other arrays.
    """
    headers = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 it is not a mapping
    fit = headers.keys() == expected.keys() and all(
        len(header.get_shape()) == 1 and dtype_name(header.get_dtype()) in expected[name]
        for name, header in headers.items()
    )
    if not fit:
        raise BundleError(
            f"is damaged: it does not have the arrays {', '.join(expected)}, or their dtypes, with"
            " one axis each."
        )
    return {name: tensors.get_tensor(name) for name in expected}


def dtype_name(code: str) -> str:
    """Return the name that numpy and torch have for a dtype of safetensors: "float32" for "F32"."""
    kind = code.rstrip("0123456789")
    return _KINDS.get(kind, kind) + code[len(kind) :]


def _refuse_existing(
    path: Path, *, overwrite: bool = False, advice: str = "remove it first"
) -> None:
    reason = describe_cut_off(path)
    if reason:
        raise OutputExists(reason)
    if os.path.lexists(path) and not overwrite:
        raise OutputExists(f"{path} already exists. Give another name, or {advice}.")


def _has_files(path: Path) -> bool:
    """Return whether a path is a file, or a folder with a file somewhere in it."""
    return path.is_file() or any(below.is_file() for below in path.rglob("*"))


def _fsync(path: Path) -> None:
    """Force a file, or the names in a folder, to disk, where the system allows that."""
    try:
        # Windows flushes only what is open for writing
        handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    except PermissionError:  # Windows opens no folders; another library has made the file read-only
        return
    try:
        os.fsync(handle)
    except OSError as error:
        # some network file systems flush no folders
        if error.errno not in (errno.EINVAL, errno.EBADF):
            raise
    finally:
        os.close(handle)


def _fsync_tree(path: Path) -> None:
    for entry in (*path.rglob("*"), path):
        if entry.is_dir() or entry.is_file():
            _fsync(entry)


def _rename(source: Path, target: Path, *, replaces: bool = False) -> None:
    """Rename; where open files cannot be renamed, try for a while."""
    for _ in range(_TRIES if LOCKS_OPEN_FILES else 1):
        try:
            (source.replace if replaces else source.rename)(target)
            return
        except PermissionError:
            if not LOCKS_OPEN_FILES:
                raise
            time.sleep(_PAUSE_SECONDS)
    raise StorageError(
        f"{target} cannot be written while its files are open, as in another program. Close it, and"
        " try again."
    )


class Job:
    """Work that can be resumed: ``OUT.partial`` holds its pieces until ``OUT`` is whole.

    The folder has ``job.json``, which says what the result depends on, a lock, and the pieces, each
    of which has its name only once it is whole. The same work continues from them::

        with Job(out, "store", {"texts": digest}) as job:
            for name in names:
                job.write(name, make)
            job.finish("store")

    A folder of another kind of job, or of something else, is left as it is, and so is what others
    have put into the folder.

    Args:
        out: The result.
        kind: What the result is: "training", "table", "corpus" or "store".
        facts: What the result depends on, as JSON values by name.
        waits: Whether to wait for another process that does the same work, instead of raising.
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
            CheckpointError: Another process works in it, or it has the pieces of a job with other
                facts.
            OutputExists: It is not the folder of a job of this kind.
        """
        from filelock import FileLock, Timeout

        while self._lock is None:
            self._read()  # raises if it is the folder of something else
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(
                self.folder / _LOCK, timeout=-1 if self._waits else 0, thread_local=False
            )
            try:
                lock.acquire()
            except (FileNotFoundError, FileExistsError):
                continue  # the other process has just removed the folder
            except Timeout:
                raise CheckpointError(
                    f"Another process is working in {self.folder}. Wait for it to finish."
                ) from None
            if self.done(_LOCK):  # else the other process has finished, and removed it
                self._lock = lock
        for scratch in self.folder.rglob(".*.*[0-9]"):  # of a process that was killed
            remove(scratch)
        if not self._pieces():  # nothing was made of the facts before
            self.path(_JOB).unlink(missing_ok=True)
        try:
            self.require(self._facts)
        except BaseException:
            self._lock.release()  # what is in the folder is not this job's
            raise
        return self

    def __exit__(self, *error: object) -> None:
        if not any(_has_files(piece) for piece in self._pieces()):
            remove(self.folder)  # nothing is worth keeping
        self._lock.release()
        if LOCKS_OPEN_FILES and not self._pieces() and not self.done(_JOB):
            with contextlib.suppress(OSError):  # another process has just opened it
                self.path(_LOCK).unlink()
                self.folder.rmdir()

    def require(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Add facts to those of the job, and return all.

        Raises:
            CheckpointError: An earlier try had others, or ``job.json`` is damaged.
            OutputExists: It is not the folder of a job of this kind.
        """
        current: dict[str, Any] = json.loads(json.dumps(dict(facts)))
        file = self.path(_JOB)
        before = self._read()
        common = current.keys() & before.keys()
        different = [name for name in common if current[name] != before[name]]
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
        """Return the path of a piece."""
        return self.folder / name

    def done(self, name: str) -> bool:
        """Return whether a piece is whole."""
        return self.path(name).exists()

    def write(self, name: str, make: Callable[[Path], object]) -> None:
        """Make a piece, a file or a folder, unless it exists; ``make`` gets a path to write to."""
        self.write_whole(self.path(name), make)

    @staticmethod
    def write_whole(path: Path, make: Callable[[Path], object]) -> None:
        """Make a piece at its path, in a process that does not have the job."""
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            make(scratch)
            publish(scratch, path)
        finally:
            remove(scratch)

    def clear(self) -> None:
        """Remove all pieces, such as those of a source that cannot be read again."""
        for pattern in _PIECES:
            for path in self.folder.glob(pattern):
                remove(path)

    def finish(self, name: str) -> None:
        """Give a piece the name of the result, and remove the others; the folder goes when the
        block ends.

        Raises:
            OutputExists: Something has that name by now.
        """
        publish(self.path(name), self.out)
        self.clear()

    def _read(self) -> dict[str, Any]:
        """Return the facts of an earlier try; none if there was none.

        Raises:
            CheckpointError: ``job.json`` is damaged.
            OutputExists: The folder has something in it that is not of a job of this kind.
        """
        # read before the facts, since a job writes its facts before its pieces
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
        # 0.1.0 did not write the kind
        is_first_version = before and self._facts.keys() - before.keys() == {"kind"}
        if kind != self._kind and not is_first_version:
            other = "" if kind is None else f", but of an unfinished {kind}"
            raise OutputExists(
                f"{self.folder} exists and is not the folder of an unfinished {self._kind}{other}."
                " Rerun the command that it belongs to, remove it, or choose another name."
            )
        return before

    def _pieces(self) -> list[Path]:
        """Return the paths of what was made; none if the folder does not exist."""
        return [path for path in self.folder.glob("*") if path.name not in _NOT_PIECES]
