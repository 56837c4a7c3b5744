"""Where a run computes: device and precision through ``accelerate``, threads, and random numbers of its own."""

import atexit
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from jaxtyping import Int
from torch import Tensor, distributed

from reviewgen.errors import TrainingError
from reviewgen.protocols import SupportsDevices

__all__ = [
    "OwnRandom",
    "Threads",
    "autocast",
    "find_device",
    "find_precision",
    "native_precision",
    "process_state",
    "to_device",
    "using_threads",
]

_SLOW_STEPS = 5


def process_state() -> Any:
    """Return which of a launcher's processes this one is; without an accelerator they are processes on the CPU."""
    was_connected = distributed.is_initialized()
    place = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available())
    if distributed.is_initialized() and not was_connected:
        atexit.register(_disconnect)
    return place


def _disconnect() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


def find_device(wanted: str, model: Any) -> tuple[torch.device, tuple[str, ...]]:
    """Return where a model is trained, and what there is to say of that.

    "auto" is what accelerate finds, or the CPU where the model is unsuited for that.

    Raises:
        TrainingError: The wanted device is not there.
    """
    here: torch.device = process_state().device
    unsuited = model.unsuited_devices if isinstance(model, SupportsDevices) else frozenset()
    if wanted == "auto" and here.type in unsuited:
        said = f"{type(model).__name__} is unsuited for {here.type}, so it is trained on the CPU"
        return torch.device("cpu"), (f"{said}; training.device={here.type} trains it there all the same.",)
    if wanted not in ("auto", "cpu", here.type):
        raise TrainingError(f"training.device={wanted} is not to be had here: this process computes on {here.type}.")
    return torch.device("cpu") if wanted == "cpu" else here, ()


def find_precision(wanted: str, device: str) -> str:
    """Return the mixed precision to train in on a type of device: "auto" is the launcher's word, else the device's own.

    Raises:
        TrainingError: The device does not have it.
    """
    if wanted == "auto":
        wanted = os.environ.get("ACCELERATE_MIXED_PRECISION") or native_precision(device)
    if wanted == "fp8" or (wanted == "fp16" and device in ("cpu", "mps")):
        raise TrainingError(f"The mixed precision {wanted} is not to be had on {device}: use bf16 or no.")
    return wanted


def native_precision(device: str) -> str:
    """Return the mixed precision that a type of device has instructions for."""
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device == "cpu":
        return "bf16" if any("bf16" in name and has for name, has in torch.cpu.get_capabilities().items()) else "no"
    return "no"


def to_device(array: Int[np.ndarray, "B T"], device: torch.device) -> Int[Tensor, "B T"]:
    """Return ids on a device; the copy to a GPU goes on beside what it computes, and nothing waits for it."""
    if device.type != "cuda":
        return torch.from_numpy(array).to(device)
    return torch.from_numpy(np.ascontiguousarray(array)).pin_memory().to(device, non_blocking=True)


class OwnRandom:
    """Inside the block torch draws from a random stream of its own; outside, the global one is as it was.

    On an accelerator, whose dropout draws from the device's stream, that one is as well. ``states`` says how far they are.
    """

    def __init__(self, seed: int, device: str = "cpu") -> None:
        kinds = ["cpu"] if device == "cpu" else ["cpu", device]
        self._streams: list[Any] = [torch if kind == "cpu" else torch.get_device_module(kind) for kind in kinds]
        self.states = [torch.Generator(kind).manual_seed(seed).get_state() for kind in kinds]

    def __enter__(self) -> None:
        self._outside = [stream.get_rng_state() for stream in self._streams]
        self._set(self.states)

    def __exit__(self, *error: object) -> None:
        self.states = [stream.get_rng_state() for stream in self._streams]
        self._set(self._outside)

    def _set(self, states: list[torch.Tensor]) -> None:
        for stream, state in zip(self._streams, states, strict=True):
            stream.set_rng_state(state)


def autocast(device: str, precision: str) -> AbstractContextManager[Any]:
    """Return the block, to be entered often, in which a device computes products in a precision; "no" leaves 32 bits."""
    if precision == "no":
        return nullcontext()
    return torch.autocast(device, torch.float16 if precision == "fp16" else torch.bfloat16)


@contextmanager
def using_threads(threads: int) -> Iterator[None]:
    """Set the number of threads that torch computes with inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Threads:
    """Sets torch's threads for a run, and falls back to one where the others turn slow.

    Where other programs hold a core, a thread that waits for the other at every time step of a recurrent layer can make it
    fifty times slower.
    """

    def __init__(self, chosen: int, seconds_of_one: float | None) -> None:
        """Set them; ``seconds_of_one`` is what a step takes with one thread, where that is known."""
        self.chosen = min(chosen, torch.get_num_threads())
        self.seconds_of_one = seconds_of_one
        self._given = torch.get_num_threads()
        self._slow = 0  # steps in a row
        torch.set_num_threads(self.chosen)

    def record(self, seconds: float) -> None:
        """Take note of how long a step took."""
        if self.chosen > 1 and self.seconds_of_one is not None:
            self._slow = self._slow + 1 if seconds > 2 * self.seconds_of_one else 0
            if self._slow == _SLOW_STEPS:
                self.chosen = 1
                torch.set_num_threads(1)

    def restore(self) -> None:
        """Give torch back the number of threads it had."""
        torch.set_num_threads(self._given)
