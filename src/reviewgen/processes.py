"""The processes of ``accelerate launch``: what they exchange, how they share work, and how they end together.

``process_state`` is accelerate's; the groups here are gloo groups of torch, over main memory. No process waits forever: one
that ends, for any reason, closes its connections, and those that wait for it get ``ProcessLost``. Values that must be equal
everywhere, such as the clock and the numbers that decisions depend on, are exchanged and not computed by each process.
"""

import atexit
import hashlib
import itertools
import json
import os
import re
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from jaxtyping import Float64
from torch import Tensor, distributed

from reviewgen.errors import ProcessLost, ReviewgenError, TrainingError, first_line, storage_errors
from reviewgen.interrupts import Interrupts, deferred, handled

CONNECTING = timedelta(minutes=5)
"""How long a process waits for the others to start: they may import torch from a slow disk, but need no longer than that."""

TOLD = "its own error message says why."
"""Ends the message of an error that another process prints."""

_TIMEOUT = timedelta(hours=2)  # for a process that is connected and still working; one that has ended is noticed
_ROUND_SECONDS = 5.0  # of shared tasks; a task that is in progress then is finished
_WINDOW = 1 << 16  # tasks that a round deals out at most: there may be very many, and a list of all would not fit in memory
_STRATEGIES = {"FSDP": "FSDP", "DEEPSPEED": "DeepSpeed", "MEGATRON_LM": "Megatron-LM", "PARALLELISM_CONFIG": "parallelism"}
_failures: list[str] = []  # why the processes could not be connected; accelerate's state is then half made, for good

Result = TypeVar("Result")
Item = TypeVar("Item")


def process_state(timeout: timedelta = CONNECTING) -> Any:
    """Return accelerate's ``PartialState``: rank, number of processes, device. Without an accelerator, processes use the CPU.

    The first call connects the processes, and Ctrl-C and SIGTERM end the process while it waits for the others. If that fails, so
    does every later call, at once.

    Args:
        timeout: How long it waits.

    Raises:
        ProcessLost: The processes of a launcher cannot be connected.
        TrainingError: accelerate is configured for a strategy that splits a model.
    """
    if _failures:
        raise ProcessLost(_failures[0])
    for variable, strategy in _STRATEGIES.items():
        if parse_flag_from_env(f"ACCELERATE_USE_{variable}"):
            raise TrainingError(
                f"accelerate is configured for {strategy}, which reviewgen does not use: choose multi-GPU or multi-CPU."
            )
    was_connected = distributed.is_initialized()
    try:
        # While torch waits in compiled code, no handler of Python is called: an interrupt ends the process.
        with nullcontext() if was_connected else handled(signal.SIG_DFL):
            cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
            state = PartialState(cpu=cpu, timeout=timeout)
            if state.num_processes > 1:
                _lasting_group()
    except (RuntimeError, ValueError) as error:  # the second if the environment names no address
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            raise
        _failures.append(
            f"The processes could not be connected ({first_line(error)}). Check that all have started, and the address and the "
            "port; set GLOO_SOCKET_IFNAME to the network interface of the machines, and with --max_restarts set "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1."
        )
        raise ProcessLost(_failures[0]) from None
    if distributed.is_initialized() and not was_connected:
        atexit.register(lambda: distributed.is_initialized() and distributed.destroy_process_group())
    return state


@cache
def _lasting_group() -> Any:
    """Return the group of all processes that lasts as long as they do. It is made when they connect: all are there then."""
    return distributed.new_group(backend="gloo", timeout=_TIMEOUT)


@contextmanager
def connection_errors() -> Iterator[None]:
    """Turn torch's errors about a lost connection into ``ProcessLost``.

    Raises:
        ProcessLost: Another process has ended, or has not answered within the timeout.
        MemoryError: This process has no memory for what the others send.
    """
    try:
        yield
    except RuntimeError as error:
        traceback.clear_frames(error.__traceback__)  # they reference the connection, which must close when this process ends
        if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
            raise MemoryError from None
        reason = re.sub(r"^\[\S+\] ", "", first_line(error)).split(". ")[0]  # without its place in torch, and advice
        raise ProcessLost(f"Another process has ended or does not answer ({reason}).") from None


class Processes:
    """A process group, with the collective operations that are needed here; by default this process alone.

    All methods raise ProcessLost if another process has ended.

    Args:
        rank: Rank of this process in the group, from 0. Rank 0 is the main process.
        world_size: Number of processes in the group.
        group: The gloo group of torch. This object owns it.

    Attributes:
        interrupts: Whether this process was interrupted.
    """

    def __init__(self, rank: int = 0, world_size: int = 1, group: Any = None) -> None:
        self.rank, self.world_size, self.group = rank, world_size, group
        self.interrupts = Interrupts()

    def all_gather(self, values: Sequence[float]) -> Float64[np.ndarray, "P N"]:
        """Return the N numbers of each of P processes."""
        if self.world_size == 1:
            return np.array([values], np.float64)
        table = torch.zeros(self.world_size, len(values), dtype=torch.float64)
        table[self.rank] = torch.tensor(values, dtype=torch.float64)
        with connection_errors():
            distributed.all_reduce(table, group=self.group)
        gathered: np.ndarray = table.numpy()
        return gathered

    def all_gather_object(self, value: Any) -> list[Any]:
        """Return the values of all processes by rank; they are plain values or tensors on the CPU."""
        values = [value] * self.world_size
        if self.world_size > 1:
            with connection_errors():
                distributed.all_gather_object(values, value, group=self.group)
        return values

    def broadcast(self, value: Any) -> Any:
        """Return the main process's value, a plain value or tensors on the CPU."""
        values = [value]
        if self.world_size > 1:
            with connection_errors():
                distributed.broadcast_object_list(values, group=self.group, group_src=0)
        return values[0] if self.rank else value

    def sum_tensors(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the sums of tensors over the processes, in 32 bits; an accelerator is not waited for."""
        if self.world_size == 1:
            return list(tensors)
        flat = torch.cat([tensor.flatten().float() for tensor in tensors])
        with connection_errors():
            distributed.all_reduce(flat, group=self.group if flat.device.type == "cpu" else None)
        pieces = torch.split(flat, [tensor.numel() for tensor in tensors])
        return [piece.view_as(tensor) for piece, tensor in zip(pieces, tensors, strict=True)]

    def refuse_differences(self, facts: Mapping[str, Any]) -> None:
        """Check that all processes have the same settings, in every process.

        Args:
            facts: JSON values, by the name to use in the error message.

        Raises:
            TrainingError: They differ; in all processes but the first it is ProcessLost, so that one of them prints it.
        """
        own = {name: hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest() for name, value in facts.items()}
        everyone = self.all_gather_object(own)  # other code may have other facts
        names = dict.fromkeys(name for each in everyone for name in each)
        different = [name for name in names if len({each.get(name) for each in everyone}) > 1]
        if different and self.rank:
            raise ProcessLost(f"The processes have different settings. The main process has failed; {TOLD}")
        if different:
            raise TrainingError(
                f"The processes have different settings: {', '.join(different)}. "
                "Run the same command everywhere, with the same corpus and the same versions."
            )

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """Let the main process run the block before the others; if it fails there, the others fail as well.

        Raises:
            ProcessLost: The main process failed in the block.
        """
        has_failed = True
        try:
            if self.rank and self.broadcast(None):
                raise ProcessLost(f"The main process failed; {TOLD}")
            yield
            has_failed = False
        finally:
            if not self.rank:
                with suppress(ProcessLost) if has_failed else nullcontext():
                    self.broadcast(has_failed)

    def close(self) -> None:
        """Close the connections; processes that wait for this one get ``ProcessLost``."""
        if self.group is not None:
            distributed.destroy_process_group(self.group)
            self.group = None  # the connection closes only with the last reference to it


@contextmanager
def all_processes() -> Iterator[Processes]:
    """Connect all processes of the launcher. Ctrl-C and SIGTERM take effect at the next step, in all processes."""
    state = process_state()
    if state.num_processes == 1:
        yield Processes()
        return
    with connection_errors():
        distributed.barrier(_lasting_group())  # a new group would wait in vain for a process that has ended
    group = distributed.new_group(backend="gloo", timeout=_TIMEOUT)
    processes = Processes(state.process_index, state.num_processes, group)
    del group
    try:
        with deferred(processes.interrupts):
            yield processes
    finally:
        processes.close()


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
            deadline = time.monotonic() + _ROUND_SECONDS
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
            deadline = time.monotonic() + _ROUND_SECONDS
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


def resumes_by_itself() -> bool:
    """Return whether the launcher was started with ``--max_restarts``: a job that loses a process then starts again, and resumes.

    That, and not the number of restarts so far: a machine that joins the others again is not counted as one.
    """
    return _number("TORCHELASTIC_MAX_RESTARTS") > 0


def can_restart() -> bool:
    """Return whether the launcher starts the job again if a process is lost now."""
    return _number("TORCHELASTIC_RESTART_COUNT") < _number("TORCHELASTIC_MAX_RESTARTS")


def how_to_resume(*, has_checkpoint: bool) -> str:
    """Return a sentence for the user of a run that has lost a process."""
    if not has_checkpoint:
        return "No checkpoint was saved yet, so the same command starts from the beginning."
    if resumes_by_itself():
        return "Started again, the same command goes on from the last checkpoint."
    return "The same command with --resume (resume=True) goes on from the last checkpoint."


def _number(name: str) -> int:
    value = os.environ.get(name, "0")
    return int(value) if value.isdecimal() else 0
