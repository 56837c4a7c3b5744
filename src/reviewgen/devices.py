"""Helpers for torch's devices: set the number of CPU threads, report the errors of accelerators.

Importing this module imports torch, so other modules import it only where they need it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from reviewgen.errors import DeviceError, first_line


@contextmanager
def using_threads(threads: int) -> Iterator[None]:
    """Set the number of torch's CPU threads while the block runs; afterwards, restore the old
    number.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def device_errors(device: str) -> Iterator[None]:
    """Turn an error that the accelerator raises inside the block into a ``DeviceError``.

    Raises:
        DeviceError: The accelerator is out of memory, or has failed in another way.
    """
    try:
        yield
    except (torch.OutOfMemoryError, torch.AcceleratorError) as error:
        raise DeviceError(
            f"The device {device} has failed: {first_line(error)} Try the device cpu."
        ) from None
