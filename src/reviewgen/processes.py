"""The processes of ``accelerate launch``: how they exchange values, share work, and end together.

``process_state`` is the state object of accelerate. The process groups are torch's gloo groups,
which communicate through main memory. No process waits forever: a process that ends, for any
reason, closes its connections, and the processes that wait for it raise ``ProcessLost``. Values
that must be equal in all processes, such as the time and the numbers on which decisions depend, are
exchanged instead of being computed in each process. A single process does not need torch.
"""

import atexit
import hashlib
import json
import os
import re
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float64

from reviewgen.errors import ProcessLost, ReviewgenError, TrainingError, first_line, storage_errors
from reviewgen.interrupts import defer_signals, signal_handler

# How long a process waits for the others to start. They may import torch from a slow disk.
_CONNECTING_TIMEOUT = timedelta(minutes=5)
# How long connected processes wait for each other's work. A process that has ended is noticed
# earlier.
_TIMEOUT = timedelta(hours=2)
# accelerate's strategies that split a model. The environment variable ACCELERATE_USE_<key> selects
# a strategy.
_STRATEGIES = {
    "FSDP": "FSDP",
    "DEEPSPEED": "DeepSpeed",
    "MEGATRON_LM": "Megatron-LM",
    "PARALLELISM_CONFIG": "parallelism",
}
# The reason why the processes could not be connected; empty if there was no failure. After a
# failure, accelerate's state is incomplete, so the state is not used again.
_failures: list[str] = []

Result = TypeVar("Result")


def process_state() -> Any:
    """Return accelerate's ``PartialState``: rank, number of processes, device. Without an
    accelerator, the device is the CPU.

    The first call connects the processes. A process that waits for the others to connect is ended
    by Ctrl-C and SIGTERM. If connecting fails, every later call fails at once.

    Raises:
        ProcessLost: The processes of a launcher cannot be connected.
        TrainingError: accelerate is configured for a strategy that splits a model.
    """
    from accelerate import PartialState  # with torch, it takes a second or two
    from accelerate.utils import parse_flag_from_env
    from torch import accelerator, distributed

    if _failures:
        raise ProcessLost(_failures[0])
    for variable, strategy in _STRATEGIES.items():
        if parse_flag_from_env(f"ACCELERATE_USE_{variable}"):
            raise TrainingError(
                f"accelerate is configured for {strategy}, which reviewgen does not use: choose"
                " multi-GPU or multi-CPU."
            )
    backend = os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower()
    if backend != "no":
        raise TrainingError(
            f"accelerate is configured to compile models (dynamo_backend: {backend}), which"
            " reviewgen does not do: choose no."
        )
    was_connected = distributed.is_initialized()
    try:
        # While torch waits in compiled code, Python calls no signal handlers. So the default
        # handlers are set, with which a signal ends the process.
        with nullcontext() if was_connected else signal_handler(signal.SIG_DFL):
            cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not accelerator.is_available()
            state = PartialState(cpu=cpu, timeout=_CONNECTING_TIMEOUT)
            if state.num_processes > 1:
                _lasting_group()
    # torch raises a ValueError if the environment variables have no address
    except (RuntimeError, ValueError) as error:
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            raise
        _failures.append(
            f"The processes could not be connected ({first_line(error)}). Check that all have"
            " started, and the address and the port; set GLOO_SOCKET_IFNAME to the network"
            " interface of the machines, and with --max_restarts set"
            " TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1."
        )
        raise ProcessLost(_failures[0]) from None
    if distributed.is_initialized() and not was_connected:  # this call has connected the processes
        atexit.register(
            lambda: distributed.is_initialized() and distributed.destroy_process_group()
        )
    return state


@cache
def _lasting_group() -> Any:
    """Return a group of all processes; the group exists until the processes end. The first call is
    made while the processes connect, since all processes must take part in making a group.
    """
    from torch import distributed

    return distributed.new_group(backend="gloo", timeout=_TIMEOUT)


@contextmanager
def connection_errors() -> Iterator[None]:
    """Turn torch's errors about a lost connection into ``ProcessLost``.

    Raises:
        ProcessLost: Another process has ended, or did not answer within the timeout.
        MemoryError: This process does not have enough memory for the data that the others send.
    """
    try:
        yield
    except RuntimeError as error:
        # The frames of the traceback reference the connection, which must be closed when this
        # process ends.
        traceback.clear_frames(error.__traceback__)
        if type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error):
            raise MemoryError from None
        # leave out torch's source location at the start, and its advice at the end
        reason = re.sub(r"^\[\S+\] ", "", first_line(error)).split(". ")[0]
        raise ProcessLost(f"Another process has ended or does not answer ({reason}).") from None


class Processes:
    """A process group and its collective operations. By default, the group is only this process.

    All methods that communicate raise ProcessLost if another process has ended.

    Args:
        rank: Rank of this process in the group, from 0. Rank 0 is the main process.
        world_size: Number of processes in the group.
        group: torch's gloo group, which ``close`` destroys.

    Attributes:
        interrupted: An event that is set when this process is interrupted.
    """

    def __init__(self, rank: int = 0, world_size: int = 1, group: Any = None) -> None:
        self.rank = rank
        self.world_size = world_size
        self.group = group
        self.interrupted = threading.Event()

    def all_gather(self, values: Sequence[float]) -> Float64[np.ndarray, "P N"]:
        """Gather N numbers from each of P processes."""
        if self.world_size == 1:
            return np.array([values], np.float64)
        import torch

        # each process fills in its own row, and the sum of all tables has all rows
        table = torch.zeros(self.world_size, len(values), dtype=torch.float64)
        table[self.rank] = torch.tensor(values, dtype=torch.float64)
        with connection_errors():
            torch.distributed.all_reduce(table, group=self.group)
        gathered: np.ndarray = table.numpy()
        return gathered

    def all_gather_object(self, value: Any) -> list[Any]:
        """Gather a value from each process. Return the values in the order of ranks. A value may be
        any object that can be pickled; its tensors must be on the CPU.
        """
        values = [value] * self.world_size  # replaced by those of the processes, if there are more
        if self.world_size > 1:
            from torch import distributed

            with connection_errors():
                distributed.all_gather_object(values, value, group=self.group)
        return values

    def broadcast(self, value: Any) -> Any:
        """Return the main process's value in all processes. The value may be any object that can be
        pickled; its tensors must be on the CPU.
        """
        values = [value]
        if self.world_size > 1:
            from torch import distributed

            with connection_errors():
                distributed.broadcast_object_list(values, group=self.group, group_src=0)
        return values[0] if self.rank else value

    def gather(self, work: Callable[[], Result], path: object) -> list[Result]:
        """Call a function in each process, and wait for all. Return the results in the order of
        ranks.

        Args:
            work: The function, whose results must be picklable.
            path: The path that the function writes to, for error messages.

        Raises:
            ReviewgenError: The function has failed in this process.
            ProcessLost: The function has failed in another process, or another process has ended.
            KeyboardInterrupt: A process was interrupted. All processes raise it.
        """
        result: Result | None = None
        error: ReviewgenError | None = None
        is_interrupted = False
        try:
            with storage_errors(str(path)):
                result = work()
        except ReviewgenError as problem:
            error = problem
        except KeyboardInterrupt:
            is_interrupted = True
        # for each process: its result, whether it has failed, whether it was interrupted
        outcomes = self.all_gather_object(
            (result, error is not None, is_interrupted or self.interrupted.is_set())
        )
        failed = [rank for rank, (_, has_failed, _) in enumerate(outcomes) if has_failed]
        if failed:
            if error is not None and failed[0] == self.rank:
                raise error
            raise ProcessLost(f"Process {failed[0]} has failed; its own error message says why.")
        if any(interrupted for *_, interrupted in outcomes):
            raise KeyboardInterrupt
        return [output for output, *_ in outcomes]

    def each(self, work: Callable[[], Result], path: object) -> Result:
        """Call a function in each process. Return the result of this process, which need not be
        picklable. Arguments and errors are those of ``gather``.
        """
        results: list[Result] = []
        self.gather(lambda: results.append(work()), path)
        return results[0]

    def main(self, work: Callable[[], Result], path: object) -> Result:
        """Call a function in the main process, and return its result in all processes. Arguments
        and errors are those of ``gather``.
        """
        results: list[Any] = self.gather(lambda: work() if self.rank == 0 else None, path)
        result: Result = results[0]
        return result

    def stop_if_interrupted(self) -> None:
        """Raise KeyboardInterrupt if this process was interrupted. A function that ``gather`` calls
        may call this; ``gather`` then raises KeyboardInterrupt in all processes.
        """
        if self.interrupted.is_set():
            raise KeyboardInterrupt

    def refuse_differences(self, facts: Mapping[str, Any]) -> None:
        """Check that all processes have the same settings. All processes must call this.

        Args:
            facts: The settings as JSON values, by the name that an error message uses.

        Raises:
            TrainingError: The settings differ. Only the main process raises this error, so that it
                is printed once; the others raise ProcessLost.
        """
        digests = {
            name: hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()
            for name, value in facts.items()
        }
        all_digests = self.all_gather_object(digests)  # one dict of each process
        # the names may differ, too, if the processes have different versions
        names = dict.fromkeys(chain.from_iterable(all_digests))
        different = [name for name in names if len({own.get(name) for own in all_digests}) > 1]
        if different and self.rank:
            raise ProcessLost(
                "The processes have different settings; the error message of the main process says"
                " which."
            )
        if different:
            raise TrainingError(
                f"The processes have different settings: {', '.join(different)}. "
                "Run the same command everywhere, with the same corpus and the same versions."
            )

    def close(self) -> None:
        """Close the connections. Processes that wait for this process raise ``ProcessLost``."""
        if self.group is not None:
            from torch import distributed

            distributed.destroy_process_group(self.group)
            self.group = None  # the connection closes when the last reference to it is gone


@contextmanager
def all_processes() -> Iterator[Processes]:
    """Connect all processes of the launcher, and yield their group. Inside the block, Ctrl-C and
    SIGTERM take effect in all processes, when the processes next exchange values.
    """
    state = process_state()
    if state.num_processes == 1:
        yield Processes()
        return
    from torch import distributed

    with connection_errors():
        # raises if a process has ended; ``new_group`` would wait for that process in vain
        distributed.barrier(_lasting_group())
    group = distributed.new_group(backend="gloo", timeout=_TIMEOUT)
    processes = Processes(state.process_index, state.num_processes, group)
    del group  # ``close`` closes the connection by removing the last reference, which is its own
    try:
        with defer_signals(processes.interrupted):
            yield processes
    finally:
        processes.close()


def resumes_by_itself() -> bool:
    """Return whether the launcher was started with ``--max_restarts``. If so, the launcher restarts
    a job that has lost a process, and the job resumes.

    The number of restarts so far would be the wrong criterion: when a machine joins the others
    again, the launcher does not count it as a restart.
    """
    return _read_number("TORCHELASTIC_MAX_RESTARTS") > 0


def can_restart() -> bool:
    """Return whether the launcher would restart the job if a process were lost now."""
    return _read_number("TORCHELASTIC_RESTART_COUNT") < _read_number("TORCHELASTIC_MAX_RESTARTS")


def launch_name() -> str:
    """Return the name of the launcher's log folder, which identifies a job: the name stays the same
    when the launcher restarts the job. Return "" without a launcher.
    """
    # The path in this variable ends with NAME/attempt_0/RANK/error.json.
    file = Path(os.environ.get("TORCHELASTIC_ERROR_FILE", ""))
    return file.parent.parent.parent.name


def how_to_resume(*, has_checkpoint: bool) -> str:
    """Return a sentence that tells the user how to resume a run that has lost a process."""
    if not has_checkpoint:
        return "No checkpoint was saved yet, so the same command starts from the beginning."
    if resumes_by_itself():
        return "Started again, the same command continues from the last checkpoint."
    return "The same command with --resume (resume=True) continues from the last checkpoint."


def _read_number(name: str) -> int:
    """Return the whole number in an environment variable; 0 if there is none."""
    value = os.environ.get(name, "0")
    return int(value) if value.isdecimal() else 0
