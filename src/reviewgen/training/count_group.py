"""What the processes of a counted training exchange, over a gloo group of torch: parts of arrays, and that all are still there.

Arrays are sent in pieces, so that what torch and the network hold of them is bounded.
"""

import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor, distributed

from reviewgen.training.connections import connection_errors
from reviewgen.training.interrupts import Interrupts

_PIECE_BYTES = 1 << 26
_CALL_SECONDS = 2.0  # between two roll calls


class GlooGroup:
    """A ``CountGroup`` whose arrays are in main memory.

    Args:
        rank: Number of this process, from 0.
        world_size: Number of processes.
        group: The gloo group of torch.

    All methods raise ProcessLost if another process has ended.
    """

    def __init__(self, rank: int, world_size: int, group: Any) -> None:
        self.rank, self.world_size, self._group = rank, world_size, group

    @connection_errors()
    def all_gather(self, numbers: Int64[np.ndarray, " N"]) -> Int64[np.ndarray, "P N"]:
        """Return the N numbers of each process."""
        table = torch.empty(self.world_size, len(numbers), dtype=torch.int64)
        distributed.all_gather(list(table), torch.from_numpy(np.ascontiguousarray(numbers)), group=self._group)
        gathered: np.ndarray = table.numpy()
        return gathered

    @connection_errors()
    def all_to_all(self, parts: Sequence[Shaped[np.ndarray, "..."]]) -> list[Shaped[np.ndarray, "..."]]:
        """Send ``parts[r]`` to rank r, and return what each rank has sent, by rank."""
        sizes = self.all_gather(np.array([len(part) for part in parts]))[:, self.rank].tolist()
        received = [np.empty((size, *parts[0].shape[1:]), parts[0].dtype) for size in sizes]
        received[self.rank] = parts[self.rank]
        for shift in range(1, self.world_size):
            target, source = (self.rank + shift) % self.world_size, (self.rank - shift) % self.world_size
            works = [distributed.isend(piece, target, self._group) for piece in _pieces(parts[target])]
            works += [distributed.irecv(piece, source, self._group) for piece in _pieces(received[source])]
            for work in works:
                if work is not None:  # None is for processes that do not belong to the group
                    work.wait()
        return received

    @connection_errors()
    def all_gather_into(self, whole: Shaped[np.ndarray, " N"], part: Shaped[np.ndarray, " M"]) -> None:
        """Write the parts of all ranks to ``whole``, in their order and in every process."""
        edges = self._edges(part)
        self._place(whole, part, edges)
        for source, (start, stop) in enumerate(pairwise(edges)):
            for piece in _pieces(whole[start:stop]):
                distributed.broadcast(piece, source, self._group)

    @connection_errors()
    def gather_into(self, whole: Shaped[np.ndarray, " N"], part: Shaped[np.ndarray, " M"]) -> None:
        """Do the same in rank 0 only."""
        edges = self._edges(part)
        if self.rank:
            for piece in _pieces(np.ascontiguousarray(part)):
                distributed.send(piece, 0, self._group)
            return
        self._place(whole, part, edges)
        for source in range(1, self.world_size):
            for piece in _pieces(whole[edges[source] : edges[source + 1]]):
                distributed.recv(piece, source, self._group)

    @connection_errors()
    def reduce_scatter(self, array: Shaped[np.ndarray, " N"], sizes: Int64[np.ndarray, " P"]) -> None:
        """Sum an array over the processes, in each only its own slice."""
        for target, (start, stop) in enumerate(pairwise(np.cumsum([0, *sizes]).tolist())):
            step = _PIECE_BYTES // array.itemsize
            for first in range(start, stop, step):
                distributed.reduce(torch.from_numpy(array[first : min(stop, first + step)]), target, group=self._group)

    def _edges(self, part: Shaped[np.ndarray, " M"]) -> list[int]:
        """Return where the parts of all ranks start in a whole, and its length."""
        edges: list[int] = np.cumsum([0, *self.all_gather(np.array([len(part)]))[:, 0]]).tolist()
        return edges

    def _place(self, whole: Shaped[np.ndarray, " N"], part: Shaped[np.ndarray, " M"], edges: list[int]) -> None:
        """Copy a part to its place, unless it is a view of it."""
        place = whole[edges[self.rank] : edges[self.rank + 1]]
        if len(part) and place.ctypes.data != part.ctypes.data:
            place[:] = part


class Attendance:
    """Finds out whether all processes are still there, while each does work of its own, without waiting for them.

    A roll call is an all-reduce in the background: it is over when all have answered it, or fails when a process has ended. It
    also tells all processes that one was interrupted.

    Args:
        group: The gloo group of torch.
        interrupts: Of this process; they arrive when they have arrived in another one.
    """

    def __init__(self, group: Any, interrupts: Interrupts) -> None:
        self._group, self._interrupts = group, interrupts
        self._call()

    def check(self) -> None:
        """Raise if a process has ended; call this often.

        Raises:
            ProcessLost: Another process has ended.
        """
        if time.monotonic() - self._called > _CALL_SECONDS and self._work.is_completed():
            self._finish_call()
            self._call()

    def wait(self) -> None:
        """Wait until all processes do; each must call this once, at the end of its work.

        Raises:
            ProcessLost: Another process has ended.
        """
        while self._finish_call():
            self._call(is_working=0)

    @connection_errors()
    def _call(self, is_working: int = 1) -> None:
        self._answers: Tensor = torch.tensor([is_working, int(self._interrupts.arrived)])
        self._work = distributed.all_reduce(self._answers, group=self._group, async_op=True)
        self._called = time.monotonic()

    @connection_errors()
    def _finish_call(self) -> int:
        """Wait for the answers to the last call, and return how many processes were working."""
        self._work.wait()
        working, interrupted = self._answers.tolist()
        self._interrupts.arrived = self._interrupts.arrived or interrupted > 0
        return int(working)


def _pieces(array: Shaped[np.ndarray, "..."]) -> Iterator[Tensor]:
    """Yield the bytes of an array in pieces, as tensors that share its memory."""
    if not array.size:
        return
    data = torch.from_numpy(array.reshape(-1).view(np.uint8))
    for start in range(0, len(data), _PIECE_BYTES):
        yield data[start : start + _PIECE_BYTES]
