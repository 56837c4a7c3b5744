"""How several processes together finish a model that is trained by counting. Each process has a
range of the counts. Needs no torch.

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
        """Send ``parts[r]`` to rank r, and return what each rank has sent to this one, by rank. The
        arrays may differ only in length.
        """
        ...

    def all_gather_into(
        self, whole: Shaped[np.ndarray, " N"], part: Shaped[np.ndarray, " M"]
    ) -> None:
        """Write the parts of all ranks, one after the other, to ``whole`` in every process.
        ``part`` may be a view of the section of ``whole`` where it belongs.
        """
        ...

    def gather_into(self, whole: Shaped[np.ndarray, " N"], part: Shaped[np.ndarray, " M"]) -> None:
        """Do the same as ``all_gather_into``, in rank 0 only; the other ranks ignore ``whole``."""
        ...

    def reduce_scatter(
        self, array: Shaped[np.ndarray, " N"], sizes: Int64[np.ndarray, " P"]
    ) -> None:
        """Sum an array over the processes, in place. Each process gets only its own section of the
        sum, ``sizes[rank]`` numbers; the rest of its array is undefined.
        """
        ...


class SingleProcess:
    """The ``CountGroup`` of a single process, which exchanges nothing. With this group,
    ``finish_ranges`` does the same as ``finish``.
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
        """Copy the part to ``whole``, unless it is a view of ``whole``."""
        if not np.may_share_memory(whole, part):
            whole[:] = part

    def gather_into(self, whole: Shaped[np.ndarray, " N"], part: Shaped[np.ndarray, " M"]) -> None:
        """Copy the part to ``whole``, unless it is a view of ``whole``."""
        self.all_gather_into(whole, part)

    def reduce_scatter(
        self, array: Shaped[np.ndarray, " N"], sizes: Int64[np.ndarray, " P"]
    ) -> None:
        """Leave the array as it is: there is nothing to add."""


@runtime_checkable
class SupportsCountRanges(Protocol):
    """A count model that several processes (``accelerate launch``) finish together, so that no
    process holds all counts.

    If a model has both this ability and ``SupportsCountMerge``, the core uses this one.
    """

    def finish_ranges(self, group: CountGroup) -> Mapping[str, Any]:
        """Turn the counts of all processes into one model in rank 0. The core sends the model to
        the other ranks.

        The model has the same tensors as the one that ``finish`` makes from all texts in one
        process. A process may have counted nothing. An error that every process can detect is
        raised in every process.

        Returns:
            In rank 0, the facts that ``finish`` returns. The value of other ranks is ignored.
        """
        ...
