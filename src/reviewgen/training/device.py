"""Choose the device and the precision of training steps, and isolate their random numbers.

The device and the precision come from accelerate: from its ``PartialState`` and its configuration.
Its class ``Accelerator`` is not used, for three reasons. It fixes the precision of a process at its
first use, but a process may train several models with different precisions. Its optimizers share
one loss scaler, so with two optimizers the gradients are unscaled twice. It saves pickles. So
autocast and the loss scaler are torch's.
"""

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from reviewgen.errors import TrainingError
from reviewgen.processes import process_state
from reviewgen.protocols.model import SupportsDevices


def choose_device(wanted: str, model: Any) -> tuple[torch.device, tuple[str, ...]]:
    """Return the device to train a model on, and notes for the user.

    "auto" is the device that accelerate selects, or the CPU if the model is unsuited for that
    device.

    Raises:
        TrainingError: The wanted device is not available.
    """
    available: torch.device = process_state().device
    unsuited = model.unsuited_devices if isinstance(model, SupportsDevices) else frozenset()
    if wanted == "auto" and available.type in unsuited:
        note = (
            f"{type(model).__name__} is unsuited for {available.type}, so it is trained on the CPU;"
            f" set training.device={available.type} to train it there anyway."
        )
        return torch.device("cpu"), (note,)
    if wanted not in ("auto", "cpu", available.type):
        raise TrainingError(
            f"training.device={wanted} is not available here: this process computes on"
            f" {available.type}. Set training.device=auto to use that device."
        )
    device = torch.device("cpu") if wanted == "cpu" else available
    return device, ()


def choose_precision(wanted: str, device: str) -> str:
    """Return the mixed precision to train with on a device type.

    "auto" is the launcher's setting, or else the device's native precision.

    Raises:
        TrainingError: The device does not support the precision.
    """
    if wanted == "auto":
        wanted = os.environ.get("ACCELERATE_MIXED_PRECISION") or native_precision(device)
    if wanted == "fp8" or (wanted == "fp16" and device in ("cpu", "mps")):
        raise TrainingError(
            f"The mixed precision {wanted} is not available on {device}: use bf16 or no."
        )
    return wanted


def native_precision(device: str) -> str:
    """Return the mixed precision that a device type has instructions for."""
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device == "cpu":
        capabilities = torch.cpu.get_capabilities().items()
        has_bf16 = any("bf16" in name and is_there for name, is_there in capabilities)
        return "bf16" if has_bf16 else "no"
    return "no"


def autocast(device: str, precision: str) -> AbstractContextManager[Any]:
    """Return a reusable autocast context for a device type and a precision; with "no", everything
    is computed in 32 bits.
    """
    if precision == "no":
        return nullcontext()  # a device type without autocast refuses even a disabled context
    return torch.autocast(device, torch.float16 if precision == "fp16" else torch.bfloat16)


class IsolatedRng:
    """Context manager that gives torch a separate stream of random numbers. The global stream is
    restored on exit.

    On an accelerator, it covers the generators of both the CPU and the device; dropout uses the
    latter.

    Attributes:
        states: The state of each generator at the last exit, by device type. Save it, and pass it
            to ``resume`` to continue the stream.
    """

    def __init__(self, seed: int, device: str = "cpu") -> None:
        self.states: dict[str, Tensor] = {
            name: torch.Generator(name).manual_seed(seed).get_state()
            for name in dict.fromkeys(("cpu", device))
        }
        self._modules: dict[str, Any] = {
            name: torch if name == "cpu" else torch.get_device_module(name) for name in self.states
        }

    def resume(self, states: Mapping[str, Tensor]) -> None:
        """Continue the streams of a checkpoint. If the checkpoint was saved on another type of
        device, only the CPU's generator continues.
        """
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
