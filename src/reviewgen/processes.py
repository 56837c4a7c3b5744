"""The processes of ``accelerate launch``: what they exchange, how they share work, and how they end
together.

``process_state`` is accelerate's; the groups here are gloo groups of torch, over main memory. No
process waits forever: one that ends, for any reason, closes its connections, and those that wait
for it get ``ProcessLost``. Values that must be equal everywhere, such as the clock and the numbers
that decisions depend on, are exchanged and not computed by each process. A process that is alone
needs no torch.
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
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from jaxtyping import Float64

from reviewgen.errors import ProcessLost, ReviewgenError, TrainingError, first_line, storage_errors
from reviewgen.interrupts import defer_signals, signal_handler

if TYPE_CHECKING:
    from torch import Tensor

# The others have so long to start: they may import torch from a slow disk.
_CONNECTING_TIMEOUT = timedelta(minutes=5)
# A process that is connected may work so long; one that has ended is noticed before.
_TIMEOUT = timedelta(hours=2)
# the strategies of accelerate that split a model, by their environment variables
_STRATEGIES = {
    "FSDP": "FSDP",
    "DEEPSPEED": "DeepSpeed",
    "MEGATRON_LM": "Megatron-LM",
    "PARALLELISM_CONFIG": "parallelism",
}
# Why the processes could not be connected; accelerate's state then stays half made.
_failures: list[str] = []

Result = TypeVar("Result")


def process_state() -> Any:
    """Return accelerate's ``PartialState``: rank, number of processes, device. Without an
    accelerator, processes use the CPU.

    The first call connects the processes, and Ctrl-C and SIGTERM end the process while it waits for
    the others. If that fails, so does every later call, at once.

    Raises:
        ProcessLost: The processes of a launcher cannot be connected.
        TrainingError: accelerate is configured for a strategy that splits a model.
    """
    from accelerate import PartialState  # with torch, a second or two
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
    was_connected = distributed.is_initialized()
    try:
        # While torch waits in compiled code, no handler of Python is called: an interrupt ends the
        # process.
        with nullcontext() if was_connected else signal_handler(signal.SIG_DFL):
            cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not accelerator.is_available()
            state = PartialState(cpu=cpu, timeout=_CONNECTING_TIMEOUT)
            if state.num_processes > 1:
                _lasting_group()
    except (RuntimeError, ValueError) as error:  # the second if the environment names no address
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            raise
        _failures.append(
            f"The processes could not be connected ({first_line(error)}). Check that all have"
            " started, and the address and the port; set GLOO_SOCKET_IFNAME to the network"
            " interface of the machines, and with --max_restarts set"
            " TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1."
        )
        raise ProcessLost(_failures[0]) from None
    if distributed.is_initialized() and not was_connected:
        atexit.register(
            lambda: distributed.is_initialized() and distributed.destroy_process_group()
        )
    return state


@cache
def _lasting_group() -> Any:
    """Return the group of all processes that lasts as long as they do. It is made when they
    connect: all are there then.
    """
    from torch import distributed

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
        # the frames reference the connection, which must close when this process ends
        traceback.clear_frames(error.__traceback__)
        if type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error):
            raise MemoryError from None
        # the place in torch in front of it, and the advice behind it, are left out
        reason = re.sub(r"^\[\S+\] ", "", first_line(error)).split(". ")[0]
        raise ProcessLost(f"Another process has ended or does not answer ({reason}).") from None


class Processes:
    """A process group, with the collective operations that are needed here; by default this process
    alone.

    All methods raise ProcessLost if another process has ended.

    Args:
        rank: Rank of this process in the group, from 0. Rank 0 is the main process.
        world_size: Number of processes in the group.
        group: The gloo group of torch. This object owns it.

    Attributes:
        interrupted: Set once this process was interrupted.
    """

    def __init__(self, rank: int = 0, world_size: int = 1, group: Any = None) -> None:
        self.rank = rank
        self.world_size = world_size
        self.group = group
        self.interrupted = threading.Event()

    def all_gather(self, values: Sequence[float]) -> Float64[np.ndarray, "P N"]:
        """Return the N numbers of each of P processes."""
        if self.world_size == 1:
            return np.array([values], np.float64)
        import torch

        table = torch.zeros(self.world_size, len(values), dtype=torch.float64)
        table[self.rank] = torch.tensor(values, dtype=torch.float64)
        with connection_errors():
            torch.distributed.all_reduce(table, group=self.group)
        gathered: np.ndarray = table.numpy()
        return gathered

    def all_gather_object(self, value: Any) -> list[Any]:
        """Return the values of all processes by rank; they are plain values or tensors on the
        CPU.
        """
        values = [value] * self.world_size
        if self.world_size > 1:
            from torch import distributed

            with connection_errors():
                distributed.all_gather_object(values, value, group=self.group)
        return values

    def broadcast(self, value: Any) -> Any:
        """Return the main process's value, a plain value or tensors on the CPU."""
        values = [value]
        if self.world_size > 1:
            from torch import distributed

            with connection_errors():
                distributed.broadcast_object_list(values, group=self.group, group_src=0)
        return values[0] if self.rank else value

    def sum_tensors(self, tensors: "Sequence[Tensor]") -> "Sequence[Tensor]":
        """Return the sums of tensors over the processes, in 32 bits; an accelerator is not waited
        for.
        """
        import torch

        flat = torch.cat([tensor.flatten().float() for tensor in tensors])
        with connection_errors():
            torch.distributed.all_reduce(
                flat, group=self.group if flat.device.type == "cpu" else None
            )
        pieces = torch.split(flat, [tensor.numel() for tensor in tensors])
        return [piece.view_as(tensor) for piece, tensor in zip(pieces, tensors, strict=True)]

    def gather(self, work: Callable[[], Result], path: object) -> list[Result]:
        """Call a function in each process and wait for all; return the results by rank.

        Args:
            work: The function; what it returns can be pickled.
            path: Where it writes, for messages.

        Raises:
            ReviewgenError: It has failed in this process.
            ProcessLost: It has failed in another process, or one has ended.
            KeyboardInterrupt: A process was interrupted; all raise it.
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
        ends = self.all_gather_object(
            (result, error is not None, is_interrupted or self.interrupted.is_set())
        )
        failed = [rank for rank, (_, has_failed, _) in enumerate(ends) if has_failed]
        if failed:
            if error is not None and failed[0] == self.rank:
                raise error
            raise ProcessLost(f"Process {failed[0]} has failed; its own error message says why.")
        if any(interrupted for *_, interrupted in ends):
            raise KeyboardInterrupt
        return [output for output, *_ in ends]

    def each(self, work: Callable[[], Result], path: object) -> Result:
        """Call a function in each process; return its own result, of any type. Arguments and errors
        are those of ``gather``.
        """
        results: list[Result] = []
        self.gather(lambda: results.append(work()), path)
        return results[0]

    def main(self, work: Callable[[], Result], path: object) -> Result:
        """Call a function in the main process; return its result in all. Arguments and errors are
        those of ``gather``.
        """
        results: list[Any] = self.gather(lambda: work() if self.rank == 0 else None, path)
        result: Result = results[0]
        return result

    def stop_if_interrupted(self) -> None:
        """Raise KeyboardInterrupt, inside ``gather``, if this process was interrupted."""
        if self.interrupted.is_set():
            raise KeyboardInterrupt

    def refuse_differences(self, facts: Mapping[str, Any]) -> None:
        """Check that all processes have the same settings, in every process.

        Args:
            facts: JSON values, by the name to use in the error message.

        Raises:
            TrainingError: They differ; all processes but the first raise ProcessLost, so that it is
                printed once.
        """
        digests = {
            name: hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()
            for name, value in facts.items()
        }
        everyone = self.all_gather_object(digests)  # other code may have other facts
        names = dict.fromkeys(chain.from_iterable(everyone))
        different = [name for name in names if len({by_name.get(name) for by_name in everyone}) > 1]
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
        """Close the connections; processes that wait for this one get ``ProcessLost``."""
        if self.group is not None:
            from torch import distributed

            distributed.destroy_process_group(self.group)
            self.group = None  # the connection closes only with the last reference to it


@contextmanager
def all_processes() -> Iterator[Processes]:
    """Connect all processes of the launcher. Ctrl-C and SIGTERM take effect at the next step, in
    all processes.
    """
    state = process_state()
    if state.num_processes == 1:
        yield Processes()
        return
    from torch import distributed

    with connection_errors():
        # a new group would wait in vain for a process that has ended
        distributed.barrier(_lasting_group())
    group = distributed.new_group(backend="gloo", timeout=_TIMEOUT)
    processes = Processes(state.process_index, state.num_processes, group)
    del group
    try:
        with defer_signals(processes.interrupted):
            yield processes
    finally:
        processes.close()


def resumes_by_itself() -> bool:
    """Return whether the launcher was started with ``--max_restarts``: a job that loses a process
    then starts again, and resumes.

    That, and not the number of restarts so far: a machine that joins the others again is not
    counted as one.
    """
    return _number("TORCHELASTIC_MAX_RESTARTS") > 0


def can_restart() -> bool:
    """Return whether the launcher starts the job again if a process is lost now."""
    return _number("TORCHELASTIC_RESTART_COUNT") < _number("TORCHELASTIC_MAX_RESTARTS")


def launch_name() -> str:
    """Return the name of the launcher's log folder, which a job keeps when it is started again; ""
    without a launcher.
    """
    # the path ends with NAME/attempt_0/RANK/error.json
    return "".join(Path(os.environ.get("TORCHELASTIC_ERROR_FILE", "")).parts[-4:-3])


def how_to_resume(*, has_checkpoint: bool) -> str:
    """Return a sentence for the user of a run that has lost a process."""
    if not has_checkpoint:
        return "No checkpoint was saved yet, so the same command starts from the beginning."
    if resumes_by_itself():
        return "Started again, the same command continues from the last checkpoint."
    return "The same command with --resume (resume=True) continues from the last checkpoint."


def _number(name: str) -> int:
    value = os.environ.get(name, "0")
    return int(value) if value.isdecimal() else 0
