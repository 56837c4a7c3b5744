"""The process group of a training run: broadcast, all-gather, gradient averaging, and a clean end when a process is lost.

In each step every process computes the gradients of its own lanes; one all-reduce then averages them, weighted by the number of
targets behind them, which gives the step that one process with all the lanes would take. This is a plain all-reduce and not
torch's DistributedDataParallel: that averages without weights, must know which parameters have no gradient and which steps only
accumulate, and its advantage, sending the first gradients while the last are computed, gains nothing here: the gradients of a
recurrent layer are complete only at the end of back-propagation through time.

No process waits forever: a process that ends, for any reason, closes its connections, and those that wait for it get
``ProcessLost``; so do they within a minute if its machine vanishes. Values that must be equal everywhere, such as the clock and
the numbers that decisions depend on, are exchanged and not computed by each process.
"""

import hashlib
import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, distributed, nn

from reviewgen.errors import ProcessLost, TrainingError
from reviewgen.training.connections import connection_errors, new_group, process_state
from reviewgen.training.interrupts import Interrupts, deferred

TOLD = "its own error message says why."
"""Ends the message of an error that another process prints."""


class Processes:
    """A process group, with the collective operations that training needs; by default this process alone.

    Args:
        rank: Rank of this process in the group, from 0. Rank 0 is the main process.
        world_size: Number of processes in the group.
        group: The torch process group, over main memory. This object owns it.

    Attributes:
        interrupts: Whether this process was interrupted.
    """

    def __init__(self, rank: int = 0, world_size: int = 1, group: Any = None) -> None:
        self.rank, self.world_size = rank, world_size
        self.interrupts = Interrupts()
        self._group = group

    def all_gather(self, values: Sequence[float]) -> Float64[np.ndarray, "P N"]:
        """Return the N numbers of each of P processes.

        Raises:
            ProcessLost: Another process has ended.
        """
        table = torch.zeros(self.world_size, len(values), dtype=torch.float64)
        table[self.rank] = torch.tensor(values, dtype=torch.float64)
        if self.world_size > 1:
            with connection_errors():
                distributed.all_reduce(table, group=self._group)
        gathered: np.ndarray = table.numpy()
        return gathered

    def broadcast(self, value: Any) -> Any:
        """Return the main process's value, a plain value or tensors on the CPU.

        Raises:
            ProcessLost: Another process has ended.
        """
        if self.world_size == 1:
            return value
        values = [value]
        with connection_errors():
            distributed.broadcast_object_list(values, group=self._group, group_src=0)
        return value if self.rank == 0 else values[0]

    def all_gather_object(self, value: Any) -> list[Any]:
        """Return the values of all processes by rank; they are plain values or tensors on the CPU.

        Raises:
            ProcessLost: Another process has ended.
        """
        values = [value] * self.world_size
        if self.world_size > 1:
            with connection_errors():
                distributed.all_gather_object(values, value, group=self._group)
        return values

    def broadcast_weights(self, model: nn.Module) -> None:
        """Copy the main process's weights to all processes. The model is on the CPU."""
        if self.world_size > 1:
            with connection_errors():
                for tensor in model.state_dict().values():
                    distributed.broadcast(tensor.view(-1).view(torch.uint8), group=self._group, group_src=0)

    def average_gradients(self, parameters: Iterable[Tensor], losses: Float[Tensor, "*N"], targets: int) -> Float[Tensor, "*N"]:
        """Replace each gradient by its weighted mean over the processes; return that of losses. Does not wait for the device.

        A process counts by its number of ``targets``. A parameter without a gradient gets one of zeros.

        Raises:
            KeyboardInterrupt: A process was interrupted; all processes raise it, in the same step.
            ProcessLost: Another process has ended.
        """
        if self.world_size == 1:
            return losses
        counts, interrupted = self.all_gather([targets, self.interrupts.arrived]).T  # (P,) each
        if interrupted.any():
            raise KeyboardInterrupt
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in trained]
        flat = torch.cat([*(gradient.float().flatten() for gradient in gradients), losses.float().flatten()])
        flat *= targets / max(1.0, counts.sum())
        with connection_errors():
            distributed.all_reduce(flat, group=self._group if flat.device.type == "cpu" else None)
        pieces = torch.split(flat[: len(flat) - losses.numel()], [gradient.numel() for gradient in gradients])
        for parameter, gradient, piece in zip(trained, gradients, pieces, strict=True):
            parameter.grad = gradient.copy_(piece.view_as(gradient))
        return flat[len(flat) - losses.numel() :].view_as(losses)

    def refuse_differences(self, facts: Mapping[str, Any]) -> None:
        """Check that all processes have the same settings, in every process.

        Args:
            facts: JSON values, by the name to use in the error message.

        Raises:
            TrainingError: They differ; in all processes but the first it is ProcessLost, so that one of them prints it.
            ProcessLost: Another process has ended.
        """
        own = {name: _digest(json.dumps(value, sort_keys=True)) for name, value in facts.items()}
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
            ProcessLost: The main process failed in the block, or another process has ended.
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
        if self._group is not None:
            distributed.destroy_process_group(self._group)
            self._group = None  # the connection closes only with the last reference to it


@contextmanager
def all_processes() -> Iterator[Processes]:
    """Connect all processes of the launcher. Ctrl-C and SIGTERM take effect at the next step, in all processes."""
    state = process_state()
    if state.num_processes == 1:
        yield Processes()
        return
    processes = _connect(state, range(state.num_processes))
    try:
        with deferred(processes.interrupts):
            yield processes
    finally:
        processes.close()


def local_processes() -> Processes:
    """Connect the processes of this machine with one another, until they are closed."""
    state = process_state()
    if state.num_processes == 1:
        return Processes()
    everyone = _connect(state, range(state.num_processes))
    machines = everyone.all_gather([_digest(os.environ.get("GROUP_RANK") or socket.gethostname())])[:, 0]
    everyone.close()
    groups = {machine: _connect(state, np.flatnonzero(machines == machine).tolist()) for machine in np.unique(machines).tolist()}
    return groups[float(machines[state.process_index])]


def _connect(state: Any, ranks: Sequence[int]) -> Processes:
    """Return the processes of a new group of ``ranks``. All processes must call this, those outside it get one of their own.

    Raises:
        ProcessLost: Another process has ended.
    """
    group = new_group(ranks)
    return Processes(ranks.index(state.process_index), len(ranks), group) if state.process_index in ranks else Processes()


def _digest(text: str) -> int:
    """Return a hash of a text, of 48 bits: a float64 holds it exactly."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest(), "big")
