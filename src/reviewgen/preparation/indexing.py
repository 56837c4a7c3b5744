"""The windows of the novelty index, which all processes collect, shard by shard; the result is that of one process."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from reviewgen.compiled.windows import WindowSet, sample_windows
from reviewgen.data.store import TokenStore, save_array
from reviewgen.novelty import WINDOWS, CompactIndex
from reviewgen.novelty.compact import choose_stride
from reviewgen.novelty.shared import count_collected, fill_sets, first_stride
from reviewgen.preparation.job import Job, WorkFolder
from reviewgen.protocols import Tokenizer
from reviewgen.training import Processes
from reviewgen.training.rounds import main_process_only

__all__ = ["collect_windows"]

_MAX_MEGABYTES = 16  # of an index; on disk, the windows of a larger one would take far more


def collect_windows(
    job: Job, work: WorkFolder, processes: Processes, shards: int, tokenizer: Tokenizer
) -> tuple[WindowSet, ...] | None:
    """Return the sets of the novelty index; all processes call this, once the shards are written.

    None if the index is exact or large: then one process builds it from the shards.

    Raises:
        ReviewgenError: The disk is full.
        ProcessLost: Another process has failed or ended.
    """
    settings = job.plan.parts.training
    if settings.novelty != CompactIndex.form or settings.novelty_mb > _MAX_MEGABYTES:
        return None
    collector = _Collector(work, shards, (tokenizer.bos_id, tokenizer.eos_id))
    tokens = main_process_only(processes, collector.count_tokens, work.folder)
    max_bytes = round(settings.novelty_mb * 1e6)
    stride = first_stride(tokens, max_bytes)
    collector.share(processes, stride)
    counts = main_process_only(processes, partial(collector.count, stride, tokens), work.folder)
    wanted = choose_stride(counts, max_bytes)
    if wanted < stride:
        collector.share(processes, stride := wanted)
    return fill_sets(counts, wanted, collector.parts(stride)) if processes.rank == 0 else None


class _Collector:
    """Collects windows in the training text of shards, and reads what was collected."""

    def __init__(self, work: WorkFolder, shards: int, separators: tuple[int, int]) -> None:
        self._work, self._shards, self._separators = work, shards, separators

    def count_tokens(self) -> int:
        """Return the number of ids of the training text, with bos and eos."""
        return sum(int(self._store(shard).offsets[-1]) for shard in range(self._shards))

    def share(self, processes: Processes, stride: int) -> None:
        """Collect the windows of a stride, in all processes."""
        self._work.share(processes, range(self._shards * len(WINDOWS)), partial(self._collect, stride))

    def count(self, stride: int, tokens: int) -> list[int]:
        """Return the number of distinct windows of each length."""
        return [count_collected((part[row] for part in self.parts(stride)), tokens) for row in range(len(WINDOWS))]

    def parts(self, stride: int) -> Iterator[list[np.ndarray]]:
        """Yield the hashes of the windows of each shard, one array for each length."""
        for shard in range(self._shards):
            tasks = range(shard * len(WINDOWS), (shard + 1) * len(WINDOWS))
            yield [np.load(self._file(stride, task)) for task in tasks]

    def _collect(self, stride: int, task: int) -> None:
        shard, row = divmod(task, len(WINDOWS))

        def write(file: Path) -> None:
            save_array(file, sample_windows(self._store(shard).blocks, self._separators, WINDOWS[row], stride))

        self._work.write_later(self._file(stride, task), write)

    def _file(self, stride: int, task: int) -> Path:
        return self._work.place("found", f"windows-{stride}-{task}.npy")

    def _store(self, shard: int) -> TokenStore:
        return TokenStore(self._work.shard(shard), "train")
