"""Where a run computes: device and precision through ``accelerate``, threads, and random numbers of its own."""

import os
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from reviewgen.errors import TrainingError

__all__ = ["OwnRandom", "Threads", "autocast", "find_place", "make_accelerator", "native_precision"]

_SLOW_STEPS = 5


def find_place() -> Any:
    """Return which of a launcher's processes this one is; without an accelerator they are processes on the CPU."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available())


def make_accelerator(precision: str) -> Any:
    """Return an accelerator; its precision is one for the whole process, so "no" only switches autocast off."""
    from accelerate import Accelerator
    from accelerate.utils import AutocastKwargs

    find_place()  # the accelerator is of the same mind
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ  # by `accelerate launch`, whose word counts
    mixed = precision if precision in ("bf16", "fp16") else None if launched else native_precision()
    try:
        return Accelerator(mixed_precision=mixed, kwargs_handlers=[AutocastKwargs(enabled=precision != "no")])
    except ValueError as error:
        raise TrainingError(f"training.precision={precision} is not to be had here: {error}") from None


def native_precision() -> str:
    """Return the mixed precision that the device has instructions for."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if torch.backends.mps.is_available():
        return "no"
    return "bf16" if any("bf16" in name and has for name, has in torch.cpu.get_capabilities().items()) else "no"


class OwnRandom:
    """Inside the block torch draws from a random stream of its own; outside, the global one is as it was."""

    def __init__(self, seed: int) -> None:
        self._inside = torch.Generator().manual_seed(seed).get_state()

    def __enter__(self) -> None:
        self._outside = torch.get_rng_state()
        torch.set_rng_state(self._inside)

    def __exit__(self, *error: object) -> None:
        self._inside = torch.get_rng_state()
        torch.set_rng_state(self._outside)


def autocast(device: str, precision: str) -> torch.autocast:
    """Return the block in which a device computes products in a precision; "no" leaves them in 32 bits."""
    return torch.autocast(device, torch.float16 if precision == "fp16" else torch.bfloat16, enabled=precision != "no")


class Threads:
    """Sets torch's threads for a run, and falls back to one where the others turn slow.

    Where other programs hold a core, a thread that waits for the other at every time step of a recurrent layer can make it
    fifty times slower.
    """

    def __init__(self, chosen: int, seconds_of_one: float | None) -> None:
        """Set them; ``seconds_of_one`` is what a step takes with one thread, where that is known."""
        self.chosen = chosen
        self._given, self._seconds_of_one = torch.get_num_threads(), seconds_of_one
        self._slow = 0  # steps in a row
        torch.set_num_threads(chosen)

    def record(self, seconds: float) -> None:
        """Take note of how long a step took."""
        if self.chosen > 1 and self._seconds_of_one is not None:
            self._slow = self._slow + 1 if seconds > 2 * self._seconds_of_one else 0
            if self._slow == _SLOW_STEPS:
                self.chosen = 1
                torch.set_num_threads(1)

    def restore(self) -> None:
        """Give torch back the number of threads it had."""
        torch.set_num_threads(self._given)
