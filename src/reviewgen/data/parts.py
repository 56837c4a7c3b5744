"""The parts of a corpus: the Arrow files that they are, how the work on them is shared, and which
texts are left out.

The tasks of a stage are dealt to the processes of a launcher, or to worker processes of this one. A
task is a function of a module and its arguments, whose result depends on these only; so the results
do not depend on how many processes there are. A part is a file in the format of ``datasets``, which
stays on disk while it is read.

Near duplicates are texts of similar word trigrams in lower case, by MinHash (Broder 1997) and
banding (Leskovec et al., ch. 3), both of ``rensa``: a text is dropped if its estimated Jaccard
similarity to an earlier one that is kept reaches the threshold.
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

_MAX_WORKERS = 8  # by default; more would wait for the disk
_MIN_BYTES = 1 << 26  # of texts; several processes take a second to start
_VARIABLE = "REVIEWGEN_WORKERS"
_MINIMA = 128
_SEED = 1
_SHINGLE = 3
_RECALL = 0.99
_SAMPLE_CHARACTERS = 1 << 18  # of held-out texts that are looked for, if that is a sample of them
_GROUP_CHARACTERS = 1 << 20  # of held-out texts that are looked for at once
_TRAIN = 0  # the code of the training split
_HELD_OUT = (1, 2)  # the codes of the held-out splits
if TYPE_CHECKING:
    import pyarrow

T = TypeVar("T")

Progress: TypeAlias = Callable[[str], None]
"""Called with the name of each stage."""


@dataclass(frozen=True)
class SharedJob:
    """A job, and the processes that share it, each of which calls the same methods in the same
    order.

    Attributes:
        job: The job.
        ranks: The processes.
        progress: Called with each stage.
    """

    job: Job
    ranks: Processes = field(default_factory=Processes)
    progress: Progress = lambda stage: None

    def main(self, function: Callable[[], T]) -> T:
        """Call a function in the main process; return its result in all."""
        return self.ranks.main(function, self.job.out)

    def share(
        self, function: Callable[..., T], tasks: Sequence[tuple[Any, ...]], size: int
    ) -> list[T]:
        """Call a function once for each task, given its arguments; return the results in order.

        Args:
            function: A function of a module, or a ``partial`` of one.
            tasks: The arguments of each call, the same in all processes.
            size: How many bytes of text they read; see ``count_workers``.

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
        """Return the slices that deal items, which have ``size`` bytes of text, to all processes:
        one task of each.
        """
        count = min(items, self.ranks.world_size * self.count_workers(size))
        return [slice(number, None, count) for number in range(count)]

    def count_workers(self, size: int) -> int:
        """Return the number of worker processes of each process for texts of ``size`` bytes.

        It is ``$REVIEWGEN_WORKERS`` if set; otherwise one per core, up to 8, if there is enough
        text and no launcher, or else 1.

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
    # Unlike those of concurrent.futures, the processes of joblib neither fork beside the threads of
    # torch nor run the user's script again, which may have no guard for it. They read no file.
    # joblib has no type hints.
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
    """Return a column of numbers of all parts, (N,)."""
    return np.concatenate(
        [np.empty(0, dtype), *(np.asarray(read_part(file).column(name)) for file in files)]
    ).astype(dtype)


def size_of(files: Sequence[Path]) -> int:
    """Return the number of bytes of all parts."""
    return sum(file.stat().st_size for file in files)


def texts_of(files: Sequence[Path], wanted: np.ndarray) -> Iterator[str]:
    """Yield the texts of parts that a mask (N,) selects."""
    for file, mask in zip(files, split_by_part(wanted, files), strict=True):
        for batch in read_part(file).select(["text"]).filter(mask).to_batches():
            yield from batch.column(0).to_pylist()


def rows_of(files: Sequence[Path], columns: Sequence[str], code: int) -> Iterator[tuple[Any, ...]]:
    """Yield the values of some columns of each text of a split of a corpus."""
    for batch in itertools.chain.from_iterable(read_part(file).to_batches() for file in files):
        rows = batch.select(columns).filter(np.asarray(batch.column("split")) == code)
        yield from zip(*(column.to_pylist() for column in rows.columns), strict=True)


def split_by_part(values: np.ndarray, files: Sequence[Path]) -> list[np.ndarray]:
    """Return the values (N,) beside the texts of each part."""
    return np.split(values, np.cumsum([len(read_part(file)) for file in files])[:-1])


def write_part(file: Path, make: Callable[[], "pyarrow.Table"]) -> None:
    """Write a table as a part that appears whole, unless it is there."""
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
        near_duplicates: Of texts that are at least this similar, only the first is kept.
        decontaminate: Held-out texts that share a run of this many characters with a training text
            are left out.

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
        """Return a mask (N,) of the texts that no earlier one is similar to, of those in the mask
        ``keep`` (N,).
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

        If that is None, runs of 50 are counted in a sample of the held-out texts.

        Args:
            files: The parts, in order.
            codes: The split of each text, (N,).
            work: The job and its processes.

        Returns:
            A mask (N,) of the texts to leave out, none if ``decontaminate`` is None; and a sentence
            for the user.
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
    """Return a sentence on ``count`` leaking texts, of those checked and of all held-out ones."""
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
    """Return which texts share a run with a training text of some parts, (T,)."""
    return TextWindows(texts, length).are_shared(texts_of(files, wanted))


def _groups(
    files: Sequence[Path], parts: Sequence[np.ndarray], *, is_sample: bool
) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Yield held-out texts in groups, with their rows; of a sample the first ones of each part, in
    one group.
    """
    from pyarrow import compute

    sizes = []  # of the texts that are looked for
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
