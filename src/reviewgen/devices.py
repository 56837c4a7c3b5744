"""The devices that torch computes on: its CPU threads, and the errors of accelerators. Imports
torch, so it is imported where it is needed.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from reviewgen.errors import DeviceError, first_line


@contextmanager
def using_threads(threads: int) -> Iterator[None]:
    """Set the number of torch's CPU threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def device_errors(device: str) -> Iterator[None]:
    """Turn the errors of an accelerator in a block into ``DeviceError``.

    Raises:
        DeviceError: The accelerator has no memory left, or cannot compute what it is asked for.
    """
    try:
        yield
    except (torch.OutOfMemoryError, torch.AcceleratorError) as error:
        raise DeviceError(
            f"The device {device} has failed: {first_line(error)} Try the device cpu."
        ) from None
