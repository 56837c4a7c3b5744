"""Device, precision, CPU threads, memory and random number streams of a training run.

The device and the precision are those of accelerate: of its ``PartialState`` and its configuration. An ``Accelerator`` itself
fixes the precision of a process at its first use, but a process may train several models, each in its own; its optimizers share
one loss scaler, which unscales twice where there are two; and it saves pickles. So autocast and the scaler are torch's.
"""

import ctypes
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from reviewgen.errors import TrainingError
from reviewgen.processes import process_state
from reviewgen.protocols import SupportsDevices

_MAX_SLOW_STEPS = 5  # in a row, before a run falls back to one thread
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # large pages for large tensors; torch reads it at its first tensor

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4  # the parameters of mallopt
_REUSE = {_MMAP_MAX: 0, _TRIM_THRESHOLD: (1 << 31) - 1, _TOP_PAD: 1 << 26}
_DEFAULTS = {_MMAP_MAX: 1 << 16, _TRIM_THRESHOLD: 1 << 17, _TOP_PAD: 1 << 17, _MMAP_THRESHOLD: 1 << 25}


def choose_device(wanted: str, model: Any) -> tuple[torch.device, tuple[str, ...]]:
    """Return the device to train a model on, and notes for the user.

    "auto" is the device accelerate selects, or the CPU if the model is unsuited for that device.

    Raises:
        TrainingError: The wanted device is not available.
    """
    available: torch.device = process_state().device
    unsuited = model.unsuited_devices if isinstance(model, SupportsDevices) else frozenset()
    if wanted == "auto" and available.type in unsuited:
        note = (
            f"{type(model).__name__} is unsuited for {available.type}, so it is trained on the CPU; "
            f"set training.device={available.type} to train it there anyway."
        )
        return torch.device("cpu"), (note,)
    if wanted not in ("auto", "cpu", available.type):
        raise TrainingError(
            f"training.device={wanted} is not available here: this process computes on {available.type}. "
            "Set training.device=auto to use that device."
        )
    return torch.device("cpu") if wanted == "cpu" else available, ()


def choose_precision(wanted: str, device: str) -> str:
    """Return the mixed precision to train in on a device type. "auto" is the launcher's setting, else the device's native one.

    Raises:
        TrainingError: The device does not support it.
    """
    if wanted == "auto":
        wanted = os.environ.get("ACCELERATE_MIXED_PRECISION") or native_precision(device)
    if wanted == "fp8" or (wanted == "fp16" and device in ("cpu", "mps")):
        raise TrainingError(f"The mixed precision {wanted} is not available on {device}: use bf16 or no.")
    return wanted


def native_precision(device: str) -> str:
    """Return the mixed precision that a device type has instructions for."""
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device == "cpu":
        return "bf16" if any("bf16" in name and has for name, has in torch.cpu.get_capabilities().items()) else "no"
    return "no"


def to_device(array: Int[np.ndarray, "B T"], device: torch.device) -> Int[Tensor, "B T"]:
    """Copy ids to a device. The copy to a GPU is asynchronous, from pinned memory."""
    if device.type != "cuda":
        return torch.from_numpy(array).to(device)
    return torch.from_numpy(np.ascontiguousarray(array)).pin_memory().to(device, non_blocking=True)


class IsolatedRng:
    """Context manager that gives torch a separate random number stream; the global one is restored on exit.

    For an accelerator it covers both the CPU's generator and the device's, which dropout uses there.

    Attributes:
        states: The state of each generator as of the last exit, by device type. Save and restore them to resume the stream.
    """

    def __init__(self, seed: int, device: str = "cpu") -> None:
        self.states: dict[str, Tensor] = {
            each: torch.Generator(each).manual_seed(seed).get_state() for each in dict.fromkeys(("cpu", device))
        }
        self._modules: dict[str, Any] = {each: torch if each == "cpu" else torch.get_device_module(each) for each in self.states}

    def resume(self, states: Mapping[str, Tensor]) -> None:
        """Continue the stream of a checkpoint; of one that was saved on another device, that of the CPU's generator."""
        self.states |= {device: state for device, state in states.items() if device in self.states}

    def __enter__(self) -> None:
        self._global_states = self._get()
        self._set(self.states)

    def __exit__(self, *error: object) -> None:
        self.states = self._get()
        self._set(self._global_states)

    def _get(self) -> dict[str, Tensor]:
        return {device: module.get_rng_state() for device, module in self._modules.items()}

    def _set(self, states: Mapping[str, Tensor]) -> None:
        for device, module in self._modules.items():
            module.set_rng_state(states[device])


def autocast(device: str, precision: str) -> AbstractContextManager[Any]:
    """Return a reusable autocast context for a device type and a precision; "no" leaves computation in 32 bits."""
    if precision == "no":
        return nullcontext()
    return torch.autocast(device, torch.float16 if precision == "fp16" else torch.bfloat16)


class Threads:
    """Sets torch's number of CPU threads for a run, and falls back to one thread if several turn slow.

    If other programs occupy a core, threads that wait for one another at every time step of a recurrent layer can be fifty
    times slower than one thread.

    Attributes:
        count: The number of threads in use.
        one_thread_seconds: Duration of a step with one thread; None if it was not measured, and then there is no fallback.
    """

    def __init__(self, count: int, one_thread_seconds: float | None) -> None:
        self.count = min(count, torch.get_num_threads())
        self.one_thread_seconds = one_thread_seconds
        self._count_before = torch.get_num_threads()
        self._slow_steps = 0  # in a row
        torch.set_num_threads(self.count)

    def record(self, seconds: float) -> None:
        """Record the duration of a step; after five slow steps in a row, switch to one thread."""
        if self.count > 1 and self.one_thread_seconds is not None:
            self._slow_steps = self._slow_steps + 1 if seconds > 2 * self.one_thread_seconds else 0
            if self._slow_steps == _MAX_SLOW_STEPS:
                self.count = 1
                torch.set_num_threads(1)

    def restore(self) -> None:
        """Set torch's number of threads back to what it was before the run."""
        torch.set_num_threads(self._count_before)


@contextmanager
def reused_memory() -> Iterator[None]:
    """Let the process keep freed memory inside the block, in large pages, and return it to the system at the end.

    By default, malloc returns a large block to the system as soon as it is freed, and the next step takes it back, page by page,
    each of which the system fills with zeros first. With a vocabulary of 8,000 tokens, that is a quarter of the time of a step.
    Only glibc can do this; see ``mallopt(3)``, and "Performance Tuning Guide" of the PyTorch tutorials for large pages.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    try:
        for parameter, value in _REUSE.items():
            libc.mallopt(parameter, value)
        yield
    finally:
        for parameter, value in _DEFAULTS.items():
            libc.mallopt(parameter, value)
        libc.malloc_trim(0)
