"""How many threads torch computes with, for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["using_threads"]


@contextmanager
def using_threads(threads: int) -> Iterator[None]:
    """Let torch compute with so many threads inside the block."""
    given = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(given)
