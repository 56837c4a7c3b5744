"""Numbered tasks that the processes of a launcher share, in rounds of a few seconds; knows nothing of what a task does.

After each round the processes exchange which tasks are done, and the rest is dealt out again. So a slow process gets fewer of
them, a process that has ended is noticed after a round, and an error in one ends all.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeAlias, TypeVar

from reviewgen.errors import ProcessLost, ReviewgenError, storage_errors
from reviewgen.training.processes import TOLD, Processes

SECONDS = 5.0  # of a round; a task that is in progress then is finished
_WINDOW = 1 << 16  # tasks that a round deals out at most: there may be very many, and a list of all would not fit in memory

Watch: TypeAlias = Callable[[str], None]
"""Called with what is being done."""

Result = TypeVar("Result")
Item = TypeVar("Item")


def share_tasks(
    processes: Processes,
    numbers: Iterable[int],
    work: Callable[[int], None],
    place: object,
    report: Callable[[int], None] = lambda _: None,
    flush: Callable[[], None] = lambda: None,
) -> None:
    """Do numbered tasks, each in one of the processes; return when all are done.

    Args:
        processes: The processes; all call this with the same numbers.
        numbers: The tasks.
        work: Does a task, whose result is a file.
        place: Where the results are written, for messages.
        report: Called with the number of tasks that are known to be done.
        flush: Called before other processes may see the results; returns when they are complete.

    Raises:
        ReviewgenError: A task of this process has failed.
        ProcessLost: Another process has failed, or has ended.
        KeyboardInterrupt: A process was interrupted; all raise it.
    """
    left, waiting, before = iter(numbers), list[int](), 0
    while waiting := [*waiting, *itertools.islice(left, _WINDOW - len(waiting))]:
        done: list[int] = []
        with _errors_shared(processes, done, place) as finished:
            deadline = time.monotonic() + SECONDS
            for number in waiting[processes.rank :: processes.world_size]:
                if time.monotonic() > deadline or processes.interrupts.arrived:
                    break
                work(number)
                done.append(number)
                report(before + len(done))
            flush()
        waiting = [number for number in waiting if number not in finished]
        before += len(finished)
        report(before)


def share_stream(
    processes: Processes,
    items: Iterable[Item],
    work: Callable[[int, Item], None],
    place: object,
    report: Callable[[int], None] = lambda _: None,
) -> int:
    """Do a task for each item of a stream that all processes read: of P processes each takes every P-th; return their number.

    For what is read faster than it is worked on. Raises as ``share_tasks``, whose arguments these are.
    """
    own, count, number, is_over = iter(enumerate(items)), 0, -1, False
    while not is_over:
        done: list[int] = []
        with _errors_shared(processes, done, place) as finished:
            deadline = time.monotonic() + SECONDS
            while not is_over and time.monotonic() < deadline and not processes.interrupts.arrived:
                number, item = next(own, (number, None))
                if is_over := item is None:
                    break
                if number % processes.world_size == processes.rank:
                    work(number, item)
                    done.append(number)
                    report(count + len(done))
        count += len(finished)
        report(count)
        is_over = bool(processes.all_gather([is_over]).all())
    return number + 1


def everywhere(processes: Processes, work: Callable[[], None], place: object) -> None:
    """Call a function in each process, and raise in all if it raises in one; see ``share_tasks``."""
    with _errors_shared(processes, [], place):
        work()


def main_process_only(processes: Processes, work: Callable[[], Result], place: object) -> Result:
    """Call a function in the main process and return its result in all processes; it can be pickled.

    Raises:
        ReviewgenError: The function has raised it; in the other processes it is ProcessLost.
    """
    results: list[Result] = []
    with _errors_shared(processes, [], place):
        if processes.rank == 0:
            results.append(work())
    shared: Result = processes.broadcast(results[0] if results else None)
    return shared


@contextmanager
def _errors_shared(processes: Processes, done: list[int], place: object) -> Iterator[set[int]]:
    """Run a block in each process, then raise in all of them if one has failed; fill a set with what all have done."""
    finished: set[int] = set()
    error: ReviewgenError | None = None
    try:
        with storage_errors(str(place)):
            yield finished
    except ReviewgenError as problem:
        error = problem
    results = processes.all_gather_object((done, error is not None, processes.interrupts.arrived))
    failed = [rank for rank, (_, has_failed, _) in enumerate(results) if has_failed]
    if failed:
        if error is not None and failed[0] == processes.rank:
            raise error
        raise ProcessLost(f"Process {failed[0]} has failed; {TOLD}")
    if any(interrupted for *_, interrupted in results):
        raise KeyboardInterrupt
    finished.update(itertools.chain.from_iterable(numbers for numbers, *_ in results))


class SharedWork:
    """The processes of a launcher as those that share work; see ``reviewgen.data.parts.Ranks``.

    Args:
        processes: The processes.
        place: Where the results are written, for messages.
    """

    def __init__(self, processes: Processes, place: object) -> None:
        self.rank, self.world_size = processes.rank, processes.world_size
        self._processes, self._place = processes, place

    def gather(self, work: Callable[[], Result]) -> list[Result]:
        """Call a function in each process and wait for all; return the results by rank. An error in one is raised in all."""
        results: list[Result] = []
        with _errors_shared(self._processes, [], self._place):
            results.append(work())
        return self._processes.all_gather_object(results[0])
