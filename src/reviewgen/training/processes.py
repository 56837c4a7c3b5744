"""The processes of a launcher: what those that train one model tell one another, and how they part.

In each step every process descends on its own lanes; then the gradients are averaged in one call, weighted by the targets behind
them, which makes it the step of one process that has all the lanes. This is a plain all-reduce and not torch's
DistributedDataParallel: its mean knows no weights, it must be told of parameters without a gradient and of steps that only
accumulate, and what it is for, sending the first gradients while the last are computed, gains nothing here, since those of a
recurrent layer are all there at the end of back-propagation through time only.

Nobody waits for ever: who leaves, for whatever reason, closes its connections, and those that wait for it get ``ProcessLost``.
What must be the same everywhere, the clock and the numbers that decisions follow from, is exchanged and not computed twice.
"""

import hashlib
import json
import os
import socket
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, distributed, nn

from reviewgen.errors import ProcessLost, TrainingError
from reviewgen.training.device import process_state
from reviewgen.training.interrupts import Interrupts, deferred

__all__ = ["PATIENCE", "Processes", "all_processes", "peers", "processes_here"]

PATIENCE = timedelta(days=1)  # while another one works; one that ends is noticed at once


class Processes:
    """Processes that are connected: by default this one, alone.

    Args:
        rank: Which of them this one is, from 0.
        count: How many there are.
        group: Their connection, over main memory; the object owns it.
    """

    def __init__(self, rank: int = 0, count: int = 1, group: Any = None) -> None:
        self.rank, self.count = rank, count
        self.interrupts = Interrupts()
        self._group = group

    def gather(self, numbers: Sequence[float]) -> Float64[np.ndarray, "P N"]:
        """Return the numbers of each process; all give equally many.

        Raises:
            ProcessLost: One is gone.
        """
        table = torch.zeros(self.count, len(numbers), dtype=torch.float64)
        table[self.rank] = torch.tensor(numbers, dtype=torch.float64)
        if self.count > 1:
            with peers():
                distributed.all_reduce(table, group=self._group)
        found: np.ndarray = table.numpy()
        return found

    def share(self, value: Any) -> Any:
        """Return what the first process has given.

        Raises:
            ProcessLost: One is gone.
        """
        if self.count == 1:
            return value
        box = [value]
        with peers():
            distributed.broadcast_object_list(box, group=self._group, group_src=0)
        return value if self.rank == 0 else box[0]

    def collect(self, value: Any) -> list[Any]:
        """Return what each process has given, tensors on the CPU and plain values.

        Raises:
            ProcessLost: One is gone.
        """
        found = [value] * self.count
        if self.count > 1:
            with peers():
                distributed.all_gather_object(found, value, group=self._group)
        return found

    def share_weights(self, model: nn.Module) -> None:
        """Give all processes the first one's weights; the model is on the CPU."""
        if self.count > 1:
            with peers():
                for tensor in model.state_dict().values():
                    distributed.broadcast(tensor.view(-1).view(torch.uint8), group=self._group, group_src=0)

    def average_gradients(self, parameters: Iterable[Tensor], loss: Float[Tensor, ""], weight: int) -> Float[Tensor, ""]:
        """Make each gradient the mean over the processes, weighted, and return that of the loss; nothing waits for the device.

        A parameter that had no gradient gets one of zeros.

        Raises:
            KeyboardInterrupt: One of the processes has been interrupted; it is raised in all of them, in the same step.
            ProcessLost: One is gone.
        """
        if self.count == 1:
            return loss
        weights, interrupted = self.gather([weight, self.interrupts.arrived]).T  # (P,) each
        if interrupted.any():
            raise KeyboardInterrupt
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in trained]
        flat = torch.cat([*(gradient.float().flatten() for gradient in gradients), loss.float().view(1)])
        flat *= weight / max(1.0, weights.sum())
        with peers():
            distributed.all_reduce(flat, group=self._group if flat.device.type == "cpu" else None)
        pieces = torch.split(flat[:-1], [gradient.numel() for gradient in gradients])
        for parameter, gradient, piece in zip(trained, gradients, pieces, strict=True):
            parameter.grad = gradient.copy_(piece.view_as(gradient))
        return flat[-1]

    def refuse_differences(self, facts: Mapping[str, Any]) -> None:
        """Make sure that all processes were told the same; ``facts`` are JSON values by the name that a message gives them.

        Raises:
            TrainingError: They were not.
            ProcessLost: One is gone.
        """
        table = self.gather([_digest(json.dumps(value, sort_keys=True)) for value in facts.values()])  # (P, N)
        different = [name for name, column in zip(facts, table.T, strict=True) if (column != column[0]).any()]
        if different:
            raise TrainingError(
                f"The processes were not told the same: {', '.join(different)} differ. "
                "Give every machine the same command, the same corpus and the same versions."
            )

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """Let the first process through the block before the others, which fail where it failed.

        Raises:
            ProcessLost: The first one failed in the block, or one is gone.
        """
        has_failed = True
        try:
            if self.rank and self.share(None):
                raise ProcessLost("The first process could not go on; it says why.")
            yield
            has_failed = False
        finally:
            if not self.rank:
                with suppress(ProcessLost) if has_failed else nullcontext():
                    self.share(has_failed)

    def leave(self) -> None:
        """Close the connection; whoever waits for this process gets an error."""
        if self._group is not None:
            distributed.destroy_process_group(self._group)
            self._group = None  # the last reference: only then it closes


@contextmanager
def all_processes() -> Iterator[Processes]:
    """Connect all processes of the launcher; Ctrl-C and SIGTERM then wait for the next step, which all of them end with."""
    place = process_state()
    if place.num_processes == 1:
        yield Processes()
        return
    processes = _connect(place, range(place.num_processes))
    try:
        with deferred(processes.interrupts):
            yield processes
    finally:
        processes.leave()


def processes_here() -> Processes:
    """Connect the processes of each machine with one another, until they ``leave``."""
    place = process_state()
    if place.num_processes == 1:
        return Processes()
    everyone = _connect(place, range(place.num_processes))
    machines = everyone.gather([_digest(os.environ.get("GROUP_RANK") or socket.gethostname())])[:, 0]
    everyone.leave()
    groups = {machine: _connect(place, np.flatnonzero(machines == machine).tolist()) for machine in np.unique(machines).tolist()}
    return groups[float(machines[place.process_index])]


def _connect(place: Any, ranks: Sequence[int]) -> Processes:
    """Make a connection of some processes; all processes call it, also those that are none of them."""
    group = distributed.new_group(list(ranks), backend="gloo", timeout=PATIENCE)
    return Processes(ranks.index(place.process_index), len(ranks), group) if place.process_index in ranks else Processes()


def _digest(text: str) -> int:
    """Return a number that a float64 holds exactly."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest(), "big")


@contextmanager
def peers() -> Iterator[None]:
    """Turn torch's word on a lost connection into one sentence.

    Raises:
        ProcessLost: Another process has ended, or has been silent for too long.
    """
    try:
        yield
    except RuntimeError as error:
        traceback.clear_frames(error.__traceback__)  # they hold the connection, which this process closes when it leaves
        why = str(error).splitlines()[0]
        raise ProcessLost(f"Another process of this training has ended or does not answer ({why}).") from None
