"""Laws of counting in several processes, which are threads here: together they make the model of one."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from reviewgen.protocols import SupportsCountMerge, SupportsCountRanges
from reviewgen.testing.models import can, texts_to_count

__all__ = ["COUNTING_LAWS", "ThreadGroup", "count_merge", "count_ranges", "run_ranks"]

Make = Callable[[], Any]

PROCESSES = 3  # one of which counts nothing
_SECONDS = 60  # after which a thread that waits for the others gives up


class ThreadGroup:
    """The processes of a ``CountGroup`` as threads, which leave what they exchange in a list.

    Args:
        rank: Number of this thread.
        places: One place for each thread, shared by all.
        barrier: For all threads.
    """

    def __init__(self, rank: int, places: list[Any], barrier: threading.Barrier) -> None:
        self.rank, self.world_size = rank, len(places)
        self._places, self._barrier = places, barrier

    def all_gather(self, numbers: Int64[np.ndarray, " N"]) -> Int64[np.ndarray, "P N"]:
        """Return the numbers of each thread."""
        return np.stack(self._exchange(numbers.copy()))

    def all_to_all(self, parts: Sequence[Shaped[np.ndarray, "..."]]) -> list[Shaped[np.ndarray, "..."]]:
        """Return what each thread has sent to this one."""
        return [sent[self.rank] for sent in self._exchange([part.copy() for part in parts])]

    def all_gather_into(self, whole: Shaped[np.ndarray, " N"], part: Shaped[np.ndarray, " M"]) -> None:
        """Write the parts of all threads to ``whole``."""
        whole[:] = np.concatenate(self._exchange(part.copy()))

    def gather_into(self, whole: Shaped[np.ndarray, " N"], part: Shaped[np.ndarray, " M"]) -> None:
        """Do the same in rank 0 only."""
        parts = self._exchange(part.copy())
        if self.rank == 0:
            whole[:] = np.concatenate(parts)

    def reduce_scatter(self, array: Shaped[np.ndarray, " N"], sizes: Int64[np.ndarray, " P"]) -> None:
        """Sum each thread's slice, and fill the others with a number that is certainly wrong."""
        total = sum(self._exchange(array.copy()))
        stop = int(sizes[: self.rank + 1].sum())
        array[:] = -(10**9)
        array[stop - int(sizes[self.rank]) : stop] = total[stop - int(sizes[self.rank]) : stop]

    def _exchange(self, value: Any) -> list[Any]:
        """Return the values of all threads."""
        self._places[self.rank] = value
        self._barrier.wait(_SECONDS)
        values = list(self._places)
        self._barrier.wait(_SECONDS)
        return values


def run_ranks(processes: int, work: Callable[[ThreadGroup], Any]) -> list[Any]:
    """Call a function once in each of several threads, with its group, and return the results; raise the first error."""
    places, results = [None] * processes, [None] * processes
    barrier, errors = threading.Barrier(processes), []

    def run(rank: int) -> None:
        try:
            results[rank] = work(ThreadGroup(rank, places, barrier))
        except Exception as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in sorted(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
        raise error
    return results


def count_merge(make: Make) -> None:
    """SupportsCountMerge: the counts of several models, merged in any order, make the model of all texts."""
    model = make()
    if not can(model, SupportsCountMerge):
        return
    for order in (0, 1, 2), (2, 0, 1):
        parts = _counted_in_parts(model)
        first = parts[order[0]]
        for rank in order[1:]:
            first.add_counts(parts[rank].take_counts())
        first.finish()
        _assert_same(first.state_dict(), _counted(model).state_dict(), "The merged counts of several models")


def count_ranges(make: Make) -> None:
    """SupportsCountRanges: several processes, one of which has counted nothing, finish the model of one process."""
    model = make()
    if not can(model, SupportsCountRanges):
        return
    parts = _counted_in_parts(model)
    run_ranks(PROCESSES, lambda group: parts[group.rank].finish_ranges(group))
    _assert_same(parts[0].state_dict(), _counted(model).state_dict(), "finish_ranges in several processes")


def _counted(model: Any) -> Any:
    """Return a new model that one process has trained."""
    new = type(model)(model.config)
    for text in texts_to_count(model.config.vocab_size):
        new.observe(text)
    new.finish()
    return new


def _counted_in_parts(model: Any) -> list[Any]:
    """Return new models that have counted all texts together; the last has counted none."""
    parts = [type(model)(model.config) for _ in range(PROCESSES)]
    for number, text in enumerate(texts_to_count(model.config.vocab_size)):
        parts[number % (PROCESSES - 1)].observe(text)
    return parts


def _assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], what: str) -> None:
    assert found.keys() == expected.keys(), f"{what} makes the tensors {sorted(found)}; one model has {sorted(expected)}."
    for name, tensor in expected.items():
        same = found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)
        assert same, f"{what} makes another tensor {name!r} than one model that has counted all texts."


COUNTING_LAWS: tuple[Callable[[Make], None], ...] = (count_merge, count_ranges)
"""The laws of counting in several processes."""
