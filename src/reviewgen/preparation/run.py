"""Prepares a token store, step by step, in one process or in several that share the work.

The steps: open the sources on each machine; read and clean them into parts; find duplicates; split; look for leaks; train the
tokenizer; encode the parts into shards; write ``store.json``. Each task's result is a file that depends on the source and the
settings only, so the store does not depend on the number of processes.
"""

import logging
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from reviewgen.data import workspace
from reviewgen.data.cleaning import Cleaner, CleaningReport
from reviewgen.data.corpus import SPLITS, Corpus, fingerprint_texts, require_texts
from reviewgen.data.hub_shards import HubShard
from reviewgen.data.shards import Shard
from reviewgen.data.store import save_array
from reviewgen.data.store_folder import StoreFolder
from reviewgen.errors import DataError
from reviewgen.novelty import TextWindows
from reviewgen.preparation import duplicates, leaks, near_duplicates, reading, splitting
from reviewgen.preparation.encoding import encode_parts
from reviewgen.preparation.job import Job, WorkFolder
from reviewgen.preparation.parts import DROPPED, Part, Parts
from reviewgen.runs.prepare import refuse_single_review
from reviewgen.training import Processes, local_processes
from reviewgen.training.rounds import Watch, everywhere, main_process_only

__all__ = ["run_job"]

_logger = logging.getLogger("reviewgen")

_LEAK_PARTS = 6  # that one task looks for some of all held-out texts in; one part for a sample of them


@dataclass
class Run:
    """A job that is being done, in one of the processes.

    Attributes:
        job: The job.
        work: Its working folder.
        processes: All processes.
        watch: Told what is being done.
        sources: The source, and the validation source if there is one.
        parts: The parts of each source.
        reports: What cleaning did to each source.
        notes: Sentences for the user.
    """

    job: Job
    work: WorkFolder
    processes: Processes
    watch: Watch
    sources: Sequence[reading.Source] = ()
    parts: list[list[Part]] = field(default_factory=list)
    reports: Sequence[CleaningReport] = ()
    notes: tuple[str, ...] = ()

    def part(self, source: int, number: int) -> Part:
        """Return a part of a source, whether or not it is read."""
        name = f"{source}-{number:05d}"
        return Part(number, self.work.place("texts", name), self.work.place("codes", name))

    def share(self, kind: str, numbers: Sequence[int], work: Callable[[int], None]) -> None:
        """Share tasks with the other processes."""
        self.watch(kind)
        self.work.share(self.processes, numbers, work)

    def found(self, name: str) -> np.ndarray:
        """Return the rows that a task has found."""
        rows: np.ndarray = np.load(self.work.place("found", f"{name}.npy"))
        return rows

    def find(self, name: str, look: Callable[[], np.ndarray]) -> None:
        """Write the rows that a task finds, unless an earlier try has."""
        self.work.write_later(self.work.place("found", f"{name}.npy"), partial(_save, look))


def _save(look: Callable[[], np.ndarray], file: Path) -> None:
    save_array(file, look())


def run_job(job: Job, processes: Processes, watch: Watch) -> StoreFolder:
    """Prepare the store of a job; all processes call this and return the store.

    Raises:
        ReviewgenError: A source, a text or the disk is unusable; an earlier try was another job.
        ProcessLost: Another process has failed or ended.
    """
    run = Run(job, WorkFolder(job.out, job.url), processes, watch)
    try:
        with ExitStack() as stack:
            if finished := _open(run, stack):
                return finished
            _read(run)
        dropped = _drop(run)
        _split(run, dropped)
        everything = Parts([part for parts in run.parts for part in parts], bool(job.plan.data.conditions))
        _find_leaks(run, everything)
        corpus = main_process_only(processes, partial(_describe, run, everything), run.work.folder)
        encode_parts(job, run.work, processes, everything, corpus, run.notes, watch)
        store = main_process_only(processes, run.work.publish, job.url or job.out)
        _remove(run)
        return store
    finally:
        run.work.close()


def _remove(run: Run) -> None:
    """Remove the parts, each in one of the processes, and the rest of the working folder; nothing is left to agree on."""
    parts = [part for source in run.parts for part in source]
    for part in parts[run.processes.rank :: run.processes.world_size]:
        shutil.rmtree(part.folder, ignore_errors=True)
    if run.processes.rank == 0:
        run.work.remove()


def _open(run: Run, stack: ExitStack) -> StoreFolder | None:
    """Open the sources: the first process of each machine, for all of them; then the working folder.

    Returns:
        The store, if the same job has made it already.
    """
    run.watch("Opening the source")
    plan, processes = run.job.plan, run.processes
    machine = local_processes()
    stack.callback(machine.close)
    folder = stack.enter_context(workspace())
    opened: list[reading.Source] = []

    def open_sources() -> None:
        if machine.rank == 0:
            sources = {"source": plan.source} | ({} if plan.validation is None else {"validation": plan.validation})
            for name, source in sources.items():
                (folder / name).mkdir()
                opened.append(reading.open_source(source, folder / name, plan.data))

    everywhere(processes, open_sources, folder)
    shared = machine.broadcast([source.closed() for source in opened])
    run.sources = opened or shared
    facts = [source.facts for source in run.sources]
    everywhere(processes, partial(processes.refuse_differences, {"the texts": facts}), folder)
    can_resume = all(source.shards is not None for source in run.sources)
    identity = {**run.job.identity(), "texts": facts}
    if can_resume:
        find = partial(run.work.find_finished, plan.preset, identity)
        if finished := main_process_only(processes, find, run.work.folder):
            if processes.rank == 0:
                _logger.warning("%s is complete already: the same job has made it.", run.job.url or run.job.out)
            return finished
    resumes = main_process_only(processes, lambda: run.work.open(identity, can_resume=can_resume), run.work.folder)
    if resumes:
        run.watch("Going on from the finished parts of an earlier try")
    everywhere(processes, run.work.require_shared, run.work.folder)
    return None


def _read(run: Run) -> None:
    """Read and clean the sources into parts."""
    run.parts = []
    for number, source in enumerate(run.sources):
        if source.shards is None:
            run.watch("Reading and cleaning")
            count = main_process_only(run.processes, partial(_read_stream, run, number), run.work.folder)
        else:
            run.share("Reading and cleaning", range(len(source.shards)), partial(_clean, run, number, source.shards))
            count = len(source.shards)
        run.parts.append([run.part(number, part) for part in range(count)])
    run.reports = [_report(run, number) for number in range(len(run.parts))]


def _read_stream(run: Run, number: int) -> int:
    """Read and clean a source in this process; return its number of parts."""
    stream, data = run.sources[number].stream, run.job.plan.data
    return reading.read_stream(stream, data, number > 0, lambda part, write: run.work.write(run.part(number, part).folder, write))


def _clean(run: Run, number: int, shards: Sequence[Shard | HubShard], part: int) -> None:
    stream, data = run.sources[number].stream, run.job.plan.data
    run.work.write_later(run.part(number, part).folder, lambda folder: reading.clean_part(folder, shards[part], stream, data))


def _report(run: Run, number: int) -> CleaningReport:
    """Return what cleaning did to a source, and add its notes to the stream's."""
    stream, cleaner = run.sources[number].stream, Cleaner(**run.job.plan.data.cleaning)
    cleaner.report.decode_errors = stream.decode_errors
    for part in run.parts[number]:
        cleaner.add(**part.report())
    stream.notes += cleaner.notes()
    require_texts(stream, replace(cleaner.report, kept=sum(part.count for part in run.parts[number])))
    return cleaner.report


def _drop(run: Run) -> list[np.ndarray]:
    """Find the duplicates; return the rows of each source to leave out, sorted."""
    dropped = []
    for number, parts in enumerate(run.parts):
        may_drop = run.job.plan.data.clean and not run.sources[number].stream.is_one_text
        buckets = duplicates.count_buckets(sum(part.count for part in parts)) if may_drop else 0
        run.share("Looking for duplicates", range(buckets), partial(_find_duplicates, run, number, buckets))
        found = [run.found(f"duplicates-{number}-{bucket}") for bucket in range(buckets)]
        dropped.append(np.sort(np.concatenate([np.empty(0, np.int64), *found])))
        run.reports[number].duplicates = len(dropped[-1])
    return dropped if run.job.near_duplicates is None else _drop_near(run, dropped, run.job.near_duplicates)


def _find_duplicates(run: Run, number: int, buckets: int, bucket: int) -> None:
    look = partial(duplicates.find_duplicates, run.parts[number], bucket, buckets)
    run.find(f"duplicates-{number}-{bucket}", look)


def _drop_near(run: Run, dropped: list[np.ndarray], threshold: float) -> list[np.ndarray]:
    """Find the near duplicates among the other texts of all sources; return the rows to leave out of each."""
    parts = [part for source in run.parts for part in source]
    masks = [mask for source, rows in zip(run.parts, dropped, strict=True) for _, mask in splitting.per_part(source, rows)]
    files = [run.work.place("found", f"signatures-{number}.npy") for number in range(len(parts))]
    run.share(
        "Looking for near duplicates",
        range(len(parts)),
        lambda number: run.work.write_later(
            files[number], partial(near_duplicates.write_signatures, parts[number], masks[number])
        ),
    )
    bands, rows = near_duplicates.choose_bands(threshold)
    whole = np.concatenate(masks)
    run.share(
        "Looking for near duplicates",
        range(bands),
        lambda band: run.find(f"near-{band}", partial(near_duplicates.find_near, files, whole, threshold, band, rows)),
    )
    near = np.unique(np.concatenate([run.found(f"near-{band}") for band in range(bands)]))
    first, result = 0, []
    for number, source in enumerate(run.parts):
        last = first + sum(part.count for part in source)
        own = near[slice(*near.searchsorted([first, last]))] - first
        run.reports[number].near_duplicates = len(own)
        result.append(np.sort(np.concatenate([dropped[number], own])))
        first = last
    return result


def _split(run: Run, dropped: Sequence[np.ndarray]) -> None:
    """Write the codes of all texts."""

    def write() -> None:
        for number, (parts, rows) in enumerate(zip(run.parts, dropped, strict=True)):
            method: splitting.SplitMethod = "blocks" if run.sources[number].stream.is_one_text else "hash"
            if len(run.sources) > 1:
                method = "validation" if number else "train"
            splitting.write_codes(parts, rows, method)

    main_process_only(run.processes, write, run.work.folder)


def _find_leaks(run: Run, parts: Parts) -> None:
    """Count the held-out texts that share long runs with training texts, and leave them out if that is asked for."""
    length, is_sample = run.job.decontaminate or leaks.RUN, run.job.decontaminate is None
    groups, held_out = leaks.held_out_groups(parts, is_sample=is_sample), leaks.count_held_out(parts)
    step = 1 if is_sample else _LEAK_PARTS
    some = [replace(parts, parts=parts.parts[at : at + step]) for at in range(0, len(parts.parts), step)]

    @lru_cache(1)  # the tasks of a group follow one another
    def windows(group: int) -> TextWindows:
        return leaks.windows_of(groups[group], length)

    def find(task: int) -> None:
        group, number = divmod(task, len(some))
        run.find(f"leaks-{length}-{task}", lambda: leaks.find_leaks(windows(group), some[number]))

    run.share("Looking for held-out texts in the training texts", range(len(groups) * len(some)), find)
    masks = [
        np.logical_or.reduce([run.found(f"leaks-{length}-{group * len(some) + number}") for number in range(len(some))])
        for group in range(len(groups))
    ]
    leaking, checked = int(sum(mask.sum() for mask in masks)), sum(map(len, masks))
    if held_out:
        run.notes += (leaks.describe_leaks(leaking, checked, held_out, length, is_dropped=not is_sample),)
    if not is_sample:
        run.reports[-1].leaking = leaking
        main_process_only(run.processes, partial(_drop_leaks, groups, masks), run.work.folder)


def _drop_leaks(groups: Sequence[Sequence[leaks.Group]], masks: Sequence[np.ndarray]) -> None:
    for group, mask in zip(groups, masks, strict=True):
        edges = np.cumsum([len(each.rows) for each in group])[:-1]
        leaks.drop_texts(group, np.split(mask, edges))


def _describe(run: Run, everything: Parts) -> Corpus:
    """Return the corpus, without its texts, once all texts have codes."""
    reports = []
    for source, parts, report in zip(run.sources, run.parts, run.reports, strict=True):
        counted = splitting.count_kept(parts, report)
        reports.append(replace(counted, kept=report.read - report.empty) if source.stream.is_one_text else counted)
    counts = everything.counts().sum(axis=0)
    refuse_single_review(int(counts.sum()))
    if not counts[SPLITS.index("validation")]:
        raise DataError("No validation texts are left. Give more texts, or a larger number of characters to decontaminate by.")
    first, data = run.sources[0].stream, run.job.plan.data
    kept = [part.codes != DROPPED for part in everything.parts]
    fingerprint = fingerprint_texts(
        (part.index()[mask, 0] for part, mask in zip(everything.parts, kept, strict=True)),
        (part.codes[mask] for part, mask in zip(everything.parts, kept, strict=True)),
        data.conditions,
        everything.value_lines(),
    )
    streams = [source.closed().stream for source in run.sources]
    splits = np.repeat(np.arange(len(SPLITS), dtype=np.uint8), counts)
    second = (streams[1], reports[1]) if len(streams) > 1 else None
    notes = [*first.notes, *(duplicates.note_shared(*run.parts) if second else ())]
    return Corpus(run.work.folder, None, splits, fingerprint, streams[0], reports[0], second, notes)
