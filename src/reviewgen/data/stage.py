"""Stages: folders of Arrow files and other results that appear only when they are complete, in a
cache of bounded size.

The name of a stage's folder ends with a digest of everything that its content depends on. So a
folder that exists is never out of date. One process makes a stage while others, such as the ranks
of a launcher or a second command, wait for its lock and then find it complete. A stage that was
interrupted keeps the files that are complete, and goes on with the others.

The work on a stage is divided into tasks. A task is a module-level function and its arguments, and
its result depends on the arguments only. So no result depends on the number of workers.
"""

import contextlib
import errno
import hashlib
import itertools
import json
import os
import shutil
import signal
import time
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

from reviewgen.config.bounded import MAX_RECORD, read_json
from reviewgen.data.documents import ROWS
from reviewgen.errors import ConfigError, StorageError, WorkerError, quoted, storage_errors
from reviewgen.storage import Job, digest_of, remove, temporary_folder
from reviewgen.version import __version__

if TYPE_CHECKING:
    import pyarrow

MAX_BYTES = 10_000_000_000  # maximum size of the cache
STAGE_FILE = "stage.json"  # the facts of a stage, written last
_LOCK = ".lock"  # a file in a temporary folder
_WORKSPACE = "tmp-"  # prefix of the names of temporary folders
_LOCKING_SECONDS = 60  # a temporary folder of this age is locked, unless its process has ended
_IN_USE_SECONDS = 3600  # for this long after a folder's last use, a training may still need it
_VARIABLE = "REVIEWGEN_WORKERS"
_MAX_WORKERS = 4  # default max number of workers
_IDLE_SECONDS = 300  # after this, a worker without a task ends
_MIN_BYTES = 20_000_000  # min bytes of text for several workers, which take a second to start

T = TypeVar("T")

Progress: TypeAlias = Callable[[str], None]
"""A function that is called with a description of each step."""


@dataclass(frozen=True)
class Stage:
    """A complete stage.

    Attributes:
        folder: The folder with the files of the stage.
        facts: What is known about the files, as JSON values.
    """

    folder: Path
    facts: Mapping[str, Any]


def run_stage(
    root: Path,
    name: str,
    inputs: Any,
    make: Callable[[Path], Mapping[str, Any]],
    *,
    are_complete: bool = True,
) -> Stage:
    """Return a stage; if it does not exist, make it first.

    Args:
        root: The folder that the stage is in: the cache, or the folder of an unfinished result.
        name: The kind of stage.
        inputs: What the stage depends on, as JSON values.
        make: Makes the files in the folder that it is called with, which may have files of an
            interrupted earlier call, and returns the facts. It writes with ``write_rows`` or
            ``Job.write_whole``, which skip a file that exists.
        are_complete: Whether ``inputs`` are all that the stage depends on. If it also depends on a
            Python object, it is made in any case, and its content is added to the inputs.

    Raises:
        StorageError: The folder cannot be written.
        ReviewgenError: ``make`` has failed. The files that it has made are removed, unless another
            call may succeed.
    """
    if not are_complete:  # make the files first, so that their digests can be added to the inputs
        with workspace(root) as folder, storage_errors(folder):
            made = folder / "files"
            facts = make(made)
            digests = [digest_of(made / file) for file in sorted(sizes_of(made))]

            def move(target: Path) -> Mapping[str, Any]:
                """Make the stage of the files that exist already."""
                shutil.copytree(made, target, copy_function=shutil.move, dirs_exist_ok=True)
                return facts

            return run_stage(root, name, [inputs, facts, digests], move)
    versions = [__version__, unicodedata.unidata_version]
    target = root / f"{name}-{digest_json([versions, inputs])}"
    with storage_errors(target):
        stage = _read(target) or _make(target, name, make)
        with contextlib.suppress(OSError):  # raised if this user may only read the cache
            os.utime(target)
    return stage


def _read(folder: Path) -> Stage | None:
    """Return the stage in a folder; None if the folder is missing or incomplete."""
    try:
        content = read_json(folder / STAGE_FILE, MAX_RECORD)
        # all files that were recorded are there, with their sizes
        is_complete = sizes_of(folder).items() >= content["files"].items()
        return Stage(folder, content["facts"]) if is_complete else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _make(target: Path, name: str, make: Callable[[Path], Mapping[str, Any]]) -> Stage:
    """Make a stage in the folder ``target``, unless another process has made it meanwhile."""
    is_in_cache = target.parent == cache_folder()
    with Job(target, name, {}, waits=True) as job:
        if (stage := _read(target)) is not None:
            return stage  # another process has made it
        remove(target)  # it is incomplete: its removal was interrupted, or the power failed
        files = job.path("files")
        (files / STAGE_FILE).unlink(missing_ok=True)  # left by an interrupted call
        try:
            facts = make(files)
            files.mkdir(exist_ok=True)
            content = {"facts": facts, "files": sizes_of(files)}
            text = json.dumps(content, indent=1)
            (files / STAGE_FILE).write_text(text, encoding="utf-8", newline="")
            job.finish("files")
        except Exception as error:
            # After a killed worker or a full disk, the same command may go on with the files. In
            # the cache they are kept only for a killed worker, since they take space on a full
            # disk.
            may_succeed = isinstance(error, WorkerError | StorageError | OSError)
            if not may_succeed or (is_in_cache and not isinstance(error, WorkerError)):
                job.clear()
            raise
    if is_in_cache:
        prune_cache()
    # the facts as they will be read from the file: for example, tuples are lists
    return Stage(target, json.loads(text)["facts"])


def sizes_of(folder: Path) -> dict[str, int]:
    """Return the size of each file of a folder, by its path in the folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}


def digest_json(facts: Any) -> str:
    """Return a digest of JSON values, 32 hexadecimal digits."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def share(
    function: Callable[..., T],
    tasks: Iterable[tuple[Any, ...]],
    size: int,
    num_proc: int | None = None,
) -> list[T]:
    """Call a function once for each task, in workers if there is much text. Return the results in
    the order of the tasks.

    Tasks are taken from the iterable in this process. At any time, at most one task more than there
    are workers is unfinished.

    Args:
        function: A module-level function, or a ``partial`` of one.
        tasks: The arguments of each call.
        size, num_proc: The bytes of text that all tasks read together, and the number of workers;
            see ``count_workers``.

    Raises:
        WorkerError: A worker was killed.
        ReviewgenError: A task has failed.
    """
    workers = count_workers(size, num_proc)
    if workers <= 1:
        return [function(*task) for task in tasks]
    # The processes of concurrent.futures would either fork while torch has threads, or run the
    # user's script again, which may not guard against that. Those of joblib do neither. joblib has
    # no type hints.
    from joblib.externals.loky import get_reusable_executor  # type: ignore[import-untyped]
    from joblib.externals.loky.process_executor import TerminatedWorkerError  # type: ignore[import-untyped]

    executor = get_reusable_executor(
        workers,
        timeout=_IDLE_SECONDS,
        # the cores are busy with the other workers
        env={"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        # Ctrl-C interrupts this process, which waits for the workers
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
    )
    results: list[T] = []
    running = deque[Any]()
    try:
        for task in tasks:
            running.append(executor.submit(function, *task))
            if len(running) > workers:
                results.append(running.popleft().result())
        results += [future.result() for future in running]
    except TerminatedWorkerError:
        raise WorkerError(
            "A process that reads or tokenizes the corpus was killed, perhaps because memory ran"
            f" out. Try again, with --num-proc 1 (or {_VARIABLE}=1) if it happens again."
        ) from None
    finally:
        for future in running:
            future.cancel()
        wait(running)  # none may write into a folder that is removed after an error
    return results


def count_workers(size: int, num_proc: int | None = None) -> int:
    """Return the number of workers for ``size`` bytes of text.

    It is ``num_proc`` if given, else ``$REVIEWGEN_WORKERS`` if set; else the number of cores, at
    most 4, or 1 if there is little text.

    Raises:
        ConfigError: The variable is not a positive integer.
    """
    if num_proc is not None:
        return num_proc
    if configured := os.environ.get(_VARIABLE):
        if not configured.isdecimal() or int(configured) < 1:
            raise ConfigError(
                f"{_VARIABLE} is {quoted(configured)}; set it to the number of processes that"
                " read and tokenize: 1, 2, ..."
            )
        return int(configured)
    if size < _MIN_BYTES:
        return 1
    has_affinity = hasattr(os, "sched_getaffinity")  # not on macOS and Windows
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return min(cores, _MAX_WORKERS)


def slices(items: int, size: int, num_proc: int | None = None) -> list[slice]:
    """Return slices that divide a list of ``items`` items evenly, one for each of N workers: slice
    i has every N-th item, from item i on.

    The slices depend on the number of workers. So they are for results that do not depend on how
    the items are divided, such as sums. The items have ``size`` bytes of text in all; see
    ``count_workers``.
    """
    count = min(items, count_workers(size, num_proc))
    return [slice(number, None, count) for number in range(count)]


def write_rows(file: Path, make: Callable[[], "pyarrow.Table"]) -> None:
    """Write the table that ``make`` returns as an Arrow file, unless the file exists. The file
    appears only when it is complete.
    """
    import pyarrow

    def write(scratch: Path) -> None:
        table = make()
        with scratch.open("wb") as stream, pyarrow.ipc.new_stream(stream, table.schema) as writer:
            writer.write_table(table, max_chunksize=ROWS)

    Job.write_whole(file, write)


def open_rows(file: Path) -> "pyarrow.Table":
    """Return the table of a file of rows, memory-mapped. Its stage counts as used."""
    import pyarrow

    with contextlib.suppress(OSError):  # raised if this user may only read the cache
        os.utime(file.parents[1])  # the folder of the stage; the file is in a subfolder
    return pyarrow.ipc.open_stream(pyarrow.memory_map(str(file))).read_all()


def read_column(files: Sequence[Path], name: str, dtype: Any) -> np.ndarray:
    """Return a numeric column of some Arrow files as one array, (N,)."""
    return to_numpy((open_rows(file).column(name) for file in files), dtype)


def to_numpy(columns: Iterable["pyarrow.ChunkedArray"], dtype: Any) -> np.ndarray:
    """Concatenate numeric columns to one array, (N,). The columns must have no missing values."""
    # pyarrow's own conversion imports pandas, which takes a third of a second
    chunks = itertools.chain.from_iterable(column.chunks for column in columns)
    # np.concatenate needs at least one array, and there may be no chunks
    return np.concatenate([np.empty(0, dtype), *map(np.from_dlpack, chunks)]).astype(dtype)


def size_of(files: Iterable[Path]) -> int:
    """Return the size of some files in bytes."""
    return sum(file.stat().st_size for file in files)


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
    # raised by pathlib if HOME is not set and the system does not list the user
    except RuntimeError:
        raise StorageError(
            "There is no place for the cache: this user has no home folder. Set REVIEWGEN_CACHE to"
            " a folder that can be written."
        ) from None


@contextlib.contextmanager
def workspace(root: Path | None = None) -> Iterator[Path]:
    """Yield a temporary folder inside the cache, or another folder, and remove it afterwards.

    Raises:
        StorageError: The cache folder cannot be written.
    """
    from filelock import FileLock

    root = root or cache_folder()
    with contextlib.ExitStack() as stack:
        with storage_errors(f"the cache folder {root} (set REVIEWGEN_CACHE to use another)"):
            if root.is_file():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            root.mkdir(parents=True, exist_ok=True)
            folder = stack.enter_context(temporary_folder(root, _WORKSPACE))
            stack.enter_context(FileLock(folder / _LOCK, thread_local=False))
        yield folder


def cache_size() -> int:
    """Return the size of the cache in bytes."""
    return sum(size for _, size, _ in _cached_folders())


def prune_cache(max_bytes: int = MAX_BYTES) -> None:
    """Remove the least recently used folders until the cache has at most ``max_bytes``. Folders
    that were used within the last hour are kept. Temporary folders of processes that have ended are
    removed in any case.
    """
    entries = sorted(_cached_folders())
    total = sum(size for _, size, _ in entries)
    for used, size, folder in entries:
        idle = time.time() - used
        is_removed = total > max_bytes and idle > _IN_USE_SECONDS
        if folder.name.startswith(_WORKSPACE):
            is_removed = idle > _LOCKING_SECONDS and not _is_locked(folder)
        if is_removed:
            shutil.rmtree(folder, ignore_errors=True)
            total -= size


def _is_locked(folder: Path) -> bool:
    """Return whether a process holds the lock of a temporary folder."""
    from filelock import FileLock

    try:
        with FileLock(folder / _LOCK, timeout=0):
            return False
    except (OSError, NotImplementedError):  # Timeout is an OSError
        return True


def _cached_folders() -> Iterator[tuple[float, int, Path]]:
    """Yield the time of the last use, the size in bytes and the path of each folder of the
    cache.
    """
    root = cache_folder()
    for folder in root.iterdir() if root.is_dir() else ():
        with contextlib.suppress(OSError):  # raised if another process removes the folder meanwhile
            if folder.is_dir():
                files = [file.stat() for file in folder.rglob("*") if file.is_file()]
                used = [folder.stat().st_mtime]
                if folder.suffix == ".partial":  # a running job writes to its files
                    used += [file.st_mtime for file in files]
                yield max(used), sum(file.st_size for file in files), folder
