"""Handle the parts of a corpus: read and write their Arrow files, share the work on them among
processes, and find texts to leave out.

The tasks of a stage are divided among the processes of a launcher, or among worker processes of
this one. A task is a module-level function and its arguments. Its result depends on the arguments
only, so the results do not depend on the number of processes. A part is an Arrow file in the format
of ``datasets``. It is memory-mapped when it is read.

Near duplicates are texts with similar sets of lower-case word trigrams. They are found by MinHash
(Broder 1997) and banding (Leskovec et al., ch. 3), both from ``rensa``. A text is dropped if its
estimated Jaccard similarity to an earlier kept text reaches the threshold.
"""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

import numpy as np

from reviewgen.config.settings import Bound, check
from reviewgen.data.documents import ROWS
from reviewgen.errors import ConfigError, WorkerError, quoted
from reviewgen.novelty import COPY_CHARACTERS, TextWindows
from reviewgen.processes import Processes
from reviewgen.storage import Job

_MAX_WORKERS = 8  # default max number of workers; more would wait for the disk
_MIN_BYTES = 1 << 26  # min bytes of text for several workers, which take a second to start
_VARIABLE = "REVIEWGEN_WORKERS"
_MINIMA = 128  # hash functions of a MinHash
_SEED = 1  # seed of the hash functions
_SHINGLE = 3  # words in an n-gram
_RECALL = 0.99  # min probability that banding finds a pair at the threshold
_SAMPLE_CHARACTERS = 1 << 18  # characters of the sample of held-out texts checked for leaks
_GROUP_CHARACTERS = 1 << 20  # characters of held-out texts that are checked at once
_TRAIN = 0  # the code of the training split
_HELD_OUT = (1, 2)  # the codes of the held-out splits
if TYPE_CHECKING:
    import pyarrow

T = TypeVar("T")

Progress: TypeAlias = Callable[[str], None]
"""A function that is called with the name of each stage."""


@dataclass(frozen=True)
class SharedJob:
    """A job and the processes that share it. All processes call the same methods in the same order.

    Attributes:
        job: The job.
        ranks: The processes.
        progress: Called with the name of each stage.
    """

    job: Job
    ranks: Processes = field(default_factory=Processes)
    progress: Progress = lambda stage: None

    def main(self, function: Callable[[], T]) -> T:
        """Call a function in the main process only; return its result in all processes."""
        return self.ranks.main(function, self.job.out)

    def share(
        self, function: Callable[..., T], tasks: Sequence[tuple[Any, ...]], size: int
    ) -> list[T]:
        """Call a function once for each task, spread over the processes; return the results in
        order, in all processes.

        Args:
            function: A module-level function, or a ``partial`` of one.
            tasks: The arguments of each call; the same list in all processes.
            size: The bytes of text that all tasks read together; see ``count_workers``.

        Raises:
            WorkerError: A worker process was killed.
            ReviewgenError: A task has failed.
        """
        world = self.ranks.world_size
        batch = tasks[self.ranks.rank :: world]
        results = self.ranks.gather(
            lambda: _call_all(function, batch, min(self.count_workers(size), len(batch))),
            self.job.out,
        )
        return [results[number % world][number // world] for number in range(len(tasks))]

    def slices(self, items: int, size: int) -> list[slice]:
        """Return slices that divide a list of ``items`` items evenly: one slice, and so one task,
        for each process and worker.

        The items have ``size`` bytes of text in all.
        """
        count = min(items, self.ranks.world_size * self.count_workers(size))
        return [slice(number, None, count) for number in range(count)]

    def count_workers(self, size: int) -> int:
        """Return the number of workers that each process starts for ``size`` bytes of text.

        It is ``$REVIEWGEN_WORKERS`` if set. Otherwise it is the number of cores, at most 8. It is 1
        if there is little text, or if a launcher has started several processes.

        Raises:
            ConfigError: The variable is not a positive integer.
        """
        if configured := os.environ.get(_VARIABLE):
            if not configured.isdecimal() or int(configured) < 1:
                raise ConfigError(
                    f"{_VARIABLE} is {quoted(configured)}; set it to the number of processes that"
                    " read and tokenize: 1, 2, ..."
                )
            return int(configured)
        if size < _MIN_BYTES or self.ranks.world_size > 1:
            return 1
        cores = (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1
        )
        return min(cores, _MAX_WORKERS)


def _call_all(
    function: Callable[..., T], tasks: Sequence[tuple[Any, ...]], workers: int
) -> list[T]:
    if workers <= 1:
        return [function(*task) for task in tasks]
    # The processes of concurrent.futures would either fork while torch has threads, or run the
    # user's script again, which may not guard against that. Those of joblib do neither. Arguments
    # are not passed through files (max_nbytes=None). joblib has no type hints.
    from joblib import Parallel, delayed  # type: ignore[import-untyped]
    from joblib.externals.loky.process_executor import TerminatedWorkerError  # type: ignore[import-untyped]

    try:
        results: list[T] = Parallel(workers, batch_size=1, max_nbytes=None)(
            delayed(_call)(function, task) for task in tasks
        )
    except TerminatedWorkerError:
        raise WorkerError(
            "A process that reads or tokenizes the corpus was killed, perhaps because memory ran"
            f" out. Try again, with {_VARIABLE}=1 if it happens again."
        ) from None
    return results


def _call(function: Callable[..., T], task: tuple[Any, ...]) -> T:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the cores are busy with the other workers
    return function(*task)


def read_part(file: Path) -> "pyarrow.Table":
    """Return the table of a part."""
    import pyarrow

    return pyarrow.ipc.open_stream(pyarrow.memory_map(str(file))).read_all()


def read_column(files: Sequence[Path], name: str, dtype: Any) -> np.ndarray:
    """Return a numeric column of all parts together, (N,)."""
    return np.concatenate(
        [np.empty(0, dtype), *(np.asarray(read_part(file).column(name)) for file in files)]
    ).astype(dtype)


def size_of(files: Sequence[Path]) -> int:
    """Return the size of all parts in bytes."""
    return sum(file.stat().st_size for file in files)


def texts_of(files: Sequence[Path], wanted: np.ndarray) -> Iterator[str]:
    """Yield the texts that a mask (N,) over all parts selects."""
    for file, mask in zip(files, split_by_part(wanted, files), strict=True):
        for batch in read_part(file).select(["text"]).filter(mask).to_batches():
            yield from batch.column(0).to_pylist()


def rows_of(files: Sequence[Path], columns: Sequence[str], code: int) -> Iterator[tuple[Any, ...]]:
    """Yield the values of ``columns`` for each text of the split with a code."""
    for batch in itertools.chain.from_iterable(read_part(file).to_batches() for file in files):
        rows = batch.select(columns).filter(np.asarray(batch.column("split")) == code)
        yield from zip(*(column.to_pylist() for column in rows.columns), strict=True)


def split_by_part(values: np.ndarray, files: Sequence[Path]) -> list[np.ndarray]:
    """Split an array with one value for each text, (N,), into one array for each part."""
    return np.split(values, np.cumsum([len(read_part(file)) for file in files])[:-1])


def write_part(file: Path, make: Callable[[], "pyarrow.Table"]) -> None:
    """Write the table that ``make`` returns as a part, unless the file exists. The file appears
    only when it is complete.
    """
    import pyarrow

    def write(scratch: Path) -> None:
        table = make()
        with scratch.open("wb") as stream, pyarrow.ipc.new_stream(stream, table.schema) as writer:
            writer.write_table(table, max_chunksize=ROWS)

    Job.write_whole(file, write)


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which texts are left out of a corpus.

    Attributes:
        near_duplicates: A text is left out if an earlier kept text is at least this similar
            (Jaccard similarity); None keeps all.
        decontaminate: Held-out texts that share a run of this many characters with a training text
            are left out; None keeps all.

    Raises:
        ConfigError: A value is out of range, or rensa is not installed.
    """

    near_duplicates: Annotated[float | None, Bound(at_least=0.3, at_most=1)] = None
    decontaminate: Annotated[int | None, Bound(at_least=20, at_most=1_000_000_000)] = None

    def __post_init__(self) -> None:
        check(self)
        if self.near_duplicates is not None and find_spec("rensa") is None:
            raise ConfigError(
                "near_duplicates needs rensa: pip install 'reviewgen[near-duplicates]'."
            )

    def find_distinct(self, files: Sequence[Path], keep: np.ndarray) -> np.ndarray:
        """Return a mask (N,) of the texts to keep: those in the mask ``keep`` (N,) that are not
        near duplicates of an earlier kept text.
        """
        from rensa import RMinHash, RMinHashLSH

        threshold = self.near_duplicates or 1.0
        widths = [
            width
            for width in (32, 16, 8, 4, 2)
            if 1 - (1 - threshold**width) ** (_MINIMA // width) >= _RECALL
        ]
        index = RMinHashLSH(threshold, _MINIMA, _MINIMA // max(widths, default=1))
        is_distinct = keep.copy()
        known: dict[int, RMinHash] = {}
        for row, text in zip(np.flatnonzero(keep).tolist(), texts_of(files, keep), strict=True):
            words = text.lower().split()
            minima = RMinHash(_MINIMA, _SEED)
            minima.update(
                [
                    " ".join(words[at : at + _SHINGLE])
                    for at in range(max(1, len(words) - _SHINGLE + 1))
                ]
            )
            if any(minima.jaccard(known[other]) >= threshold for other in index.query(minima)):
                is_distinct[row] = False
            else:
                index.insert(row, minima)
                known[row] = minima
        return is_distinct

    def find_leaks(
        self, files: Sequence[Path], codes: np.ndarray, work: SharedJob
    ) -> tuple[np.ndarray, list[str]]:
        """Find held-out texts that share a run of ``decontaminate`` characters with a training
        text.

        If ``decontaminate`` is None, no text is left out: only a sample of the held-out texts is
        checked, for runs of 50 characters.

        Args:
            files: The parts, in order.
            codes: The split of each text, (N,).
            work: The job and its processes.

        Returns:
            A mask (N,) of the texts to leave out, all False if ``decontaminate`` is None; and a
            list of notes for the user.
        """
        length = self.decontaminate
        run = length or COPY_CHARACTERS
        size = size_of(files)
        parts = split_by_part(codes, files)
        leaking = np.zeros(len(codes), np.bool_)
        checked = 0
        for rows, texts in _groups(files, parts, is_sample=length is None):
            slices = work.slices(len(files), size)
            tasks = [
                (texts, run, files[span], np.concatenate(parts[span]) == _TRAIN) for span in slices
            ]
            leaking[rows] = np.logical_or.reduce(work.share(_are_shared, tasks, size))
            checked += len(rows)
        note = _describe_leaks(
            int(leaking.sum()),
            checked,
            int(np.isin(codes, _HELD_OUT).sum()),
            run,
            is_sample=length is None,
        )
        return leaking if length else np.zeros_like(leaking), note


def _describe_leaks(
    count: int, checked: int, held_out: int, run: int, *, is_sample: bool
) -> list[str]:
    """Return a note on ``count`` leaking texts among ``checked`` checked ones, of ``held_out`` in
    all.
    """
    if not (count if is_sample else checked):
        return []
    which = f"{checked:,} held-out texts"
    if checked < held_out:
        which = f"a sample of {checked:,} of {held_out:,} held-out texts"
    share_of, are, them = ("shares", "is", "it") if count == 1 else ("share", "are", "them")
    found = (
        f"Of {which}, {count:,} {share_of} a run of {run} characters or more with a training text"
    )
    if is_sample:
        return [f"{found}; --decontaminate {run} leaves {them} out."]
    return [f"{found}, and {are} left out." if count else f"{found}."]


def _are_shared(
    texts: Sequence[str], length: int, files: Sequence[Path], wanted: np.ndarray
) -> np.ndarray:
    """Return a mask (T,) of the texts that share a run of ``length`` characters with a selected
    text of the parts; ``wanted`` is the mask of the training texts.
    """
    return TextWindows(texts, length).are_shared(texts_of(files, wanted))


def _groups(
    files: Sequence[Path], parts: Sequence[np.ndarray], *, is_sample: bool
) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Yield groups of held-out texts: their row numbers in the corpus, and the texts.

    If ``is_sample``, only the first held-out texts of each part are yielded.
    """
    from pyarrow import compute

    sizes = []  # characters of each text to check; 0 for the others
    for file, codes in zip(files, parts, strict=True):
        lengths = np.maximum(compute.utf8_length(read_part(file).column("text")), 1)
        masked = np.where(np.isin(codes, _HELD_OUT), lengths, 0)
        sizes.append(
            np.where(np.cumsum(masked) - masked > _SAMPLE_CHARACTERS // len(files), 0, masked)
            if is_sample
            else masked
        )
    characters = np.concatenate(sizes)
    rows = np.flatnonzero(characters)
    groups = np.cumsum(characters[rows]) // _GROUP_CHARACTERS
    for group in np.unique(groups):
        wanted = np.zeros(len(characters), np.bool_)
        wanted[rows[groups == group]] = True
        yield np.flatnonzero(wanted), list(texts_of(files, wanted))
