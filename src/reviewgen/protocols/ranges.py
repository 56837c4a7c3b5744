"""How several processes finish a model that is trained by counting, each with a range of what was
counted. Without torch.

Shapes by letter: P processes, N numbers.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64, Shaped


@runtime_checkable
class CountGroup(Protocol):
    """P processes that finish a model together; the core implements it.

    All methods are collective operations: the processes call the same ones in the same order, and
    may wait for one another.

    Attributes:
        rank: Number of this process, from 0.
        world_size: Number of processes, P.
    """

    rank: int
    world_size: int

    def all_gather(self, numbers: Int64[np.ndarray, " N"]) -> Int64[np.ndarray, "P N"]:
        """Return the N numbers of each process."""
        ...

    def all_to_all(
        self, parts: Sequence[Shaped[np.ndarray, "..."]]
    ) -> list[Shaped[np.ndarray, "..."]]:
        """Send ``parts[r]`` to rank r, and return what each rank has sent, by rank; only lengths
        may differ.
        """
        ...

    def all_gather_into(
        self, whole: Shaped[np.ndarray, " N"], part: Shaped[np.ndarray, " M"]
    ) -> None:
        """Write the parts of all ranks to ``whole``, in their order and in every process; a part
        may be a view of its place.
        """
        ...

    def gather_into(self, whole: Shaped[np.ndarray, " N"], part: Shaped[np.ndarray, " M"]) -> None:
        """Do the same in rank 0 only; the other ranks ignore ``whole``."""
        ...

    def reduce_scatter(
        self, array: Shaped[np.ndarray, " N"], sizes: Int64[np.ndarray, " P"]
    ) -> None:
        """Sum an array over the processes (reduce-scatter): each gets its ``sizes[rank]`` numbers,
        the rest is undefined.
        """
        ...


class SingleProcess:
    """The ``CountGroup`` of one process, without exchanges: with it, ``finish_ranges`` does what
    ``finish`` does.
    """

    rank = 0
    world_size = 1

    def all_gather(self, numbers: Int64[np.ndarray, " N"]) -> Int64[np.ndarray, "P N"]:
        """Return the numbers."""
        return numbers[None]

    def all_to_all(self, parts: list[Shaped[np.ndarray, "..."]]) -> list[Shaped[np.ndarray, "..."]]:
        """Return the parts."""
        return list(parts)

    def all_gather_into(
        self, whole: Shaped[np.ndarray, " N"], part: Shaped[np.ndarray, " M"]
    ) -> None:
        """Copy the part, unless it is in its place."""
        if not np.may_share_memory(whole, part):
            whole[:] = part

    def gather_into(self, whole: Shaped[np.ndarray, " N"], part: Shaped[np.ndarray, " M"]) -> None:
        """Copy the part, unless it is in its place."""
        self.all_gather_into(whole, part)

    def reduce_scatter(
        self, array: Shaped[np.ndarray, " N"], sizes: Int64[np.ndarray, " P"]
    ) -> None:
        """Leave the only summand as it is."""


@runtime_checkable
class SupportsCountRanges(Protocol):
    """A count model that several processes finish together, so that none holds all counts
    (``accelerate launch``).

    It is used in place of ``SupportsCountMerge`` if a model has both.
    """

    def finish_ranges(self, group: CountGroup) -> Mapping[str, Any]:
        """Turn the counts of all processes into one model, in rank 0; the core sends it to the
        others.

        It is the model that ``finish`` makes in one process from all texts, with the same tensors.
        A process may have counted nothing. An error that every process can detect is raised in
        every process.

        Returns:
            In rank 0, the facts that ``finish`` returns; elsewhere anything.
        """
        ...
