"""Choose the device and the precision of a training, make its ``Accelerator``, and isolate its
random numbers.

A training has an ``Accelerator`` of its own. It scales and accumulates gradients, clips them, sums
them over the processes, computes in 16 bits and logs. These parts are done without it:

- The counts of targets, interrupts, the clock and the results of evaluations are exchanged in
  ``Processes``. Accelerate's process group notices a process that has raised an error only after
  its timeout; the group of ``Processes`` notices it at once. With NCCL, it would also wait for the
  device in each step.
- A training in 32 bits leaves ``autocast`` out, and does not switch it off:
  ``accelerator.autocast(AutocastKwargs(enabled=False))`` takes 0.1 ms.
- The learning rate follows a clock. ``AcceleratedScheduler`` counts steps, and once per process.
- The model is not prepared. ``DistributedDataParallel`` averages gradients without weights, must
  know which parameters have no gradient, and hides which process has failed. It would send the
  first gradients while the last are computed; those of a recurrent layer are complete only at the
  end of back-propagation through time.
- Checkpoints are our own. Accelerate's are pickles.
- Accelerate has no counterpart of the separate random numbers, of autotuning, and of the choice of
  the CPU for a model that is unsuited for the accelerator.

All trainings of a process share its 16-bit format, which accelerate fixes at its first use; a
training in 32 bits may run beside them.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, is_initialized
from accelerate.utils import GradScalerKwargs
from torch import Tensor

from reviewgen.errors import TrainingError, quoted
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

    "auto" is the launcher's setting, or else the device's native precision. It is "no" if
    accelerate computes in 32 bits in this process, or on another type of device.

    Raises:
        TrainingError: The device does not support the precision.
    """
    is_fixed_to_32_bits = is_initialized() and AcceleratorState().mixed_precision == "no"
    is_process_device = process_state().device.type == device
    if wanted == "auto":
        wanted = _launched_precision() or native_precision(device)
        if is_fixed_to_32_bits or not is_process_device:
            return "no"
    if wanted == "fp8" or (wanted == "fp16" and device in ("cpu", "mps")):
        raise TrainingError(
            f"The mixed precision {wanted} is not available on {device}: use bf16 or no."
        )
    if wanted != "no" and not is_process_device:
        raise TrainingError(
            f"The mixed precision {wanted} is not available on {device} in a process that computes"
            f" on {process_state().device.type}: set ACCELERATE_USE_CPU=1, or"
            " training.precision=no."
        )
    return wanted


def _launched_precision() -> str:
    """Return the mixed precision that the launcher has set; "" if it has set none.

    Raises:
        TrainingError: It is unknown.
    """
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "").lower()
    if precision not in ("", "no", "bf16", "fp16", "fp8"):
        raise TrainingError(
            f"ACCELERATE_MIXED_PRECISION is {quoted(precision)}; it must be no, bf16 or fp16."
        )
    return precision


def native_precision(device: str) -> str:
    """Return the mixed precision that a device type has instructions for."""
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device == "cpu":
        capabilities = torch.cpu.get_capabilities().items()
        has_bf16 = any("bf16" in name and is_there for name, is_there in capabilities)
        return "bf16" if has_bf16 else "no"
    return "no"


@contextmanager
def accumulation(steps: int) -> Iterator[None]:
    """Context manager in which accelerators accumulate ``steps`` batches. All accelerators of a
    process share this number, so the earlier one is restored afterwards: the caller may have an
    accelerator of its own.
    """
    state = GradientState()
    kwargs = state.plugin_kwargs
    is_synced = state.sync_gradients
    state.plugin_kwargs = {"num_steps": steps, "sync_with_dataloader": False}
    try:
        yield
    finally:
        state.plugin_kwargs = kwargs
        state.sync_gradients = is_synced


def make_accelerator(precision: str = "no", **options: Any) -> Accelerator:
    """Return an accelerator.

    Args:
        precision: The mixed precision of the training: "no", "bf16" or "fp16".
        options: Other arguments of ``Accelerator``.

    Raises:
        TrainingError: Another training of this process has used the other 16-bit format.
    """
    device = process_state().device.type
    # the format of the whole process, which accelerate fixes when the first accelerator is made
    if is_initialized():
        process_format = AcceleratorState().mixed_precision
    elif precision != "no":
        process_format = precision
    else:  # this training computes in 32 bits, but a later one of the process may use 16 bits
        process_format = _launched_precision()
        if process_format not in ("bf16", "fp16"):
            process_format = "bf16" if device == "cpu" else native_precision(device)
    if precision not in ("no", process_format):
        raise TrainingError(
            "accelerate computes in one mixed precision for each process, which is"
            f" {process_format} here:"
            f" train in {precision} in a new process, with ACCELERATE_MIXED_PRECISION={precision}."
        )
    # making an ``Accelerator`` changes the shared number of batches, which is restored
    with accumulation(1):
        scaling = GradScalerKwargs(enabled=precision == "fp16")
        return Accelerator(mixed_precision=process_format, kwargs_handlers=[scaling], **options)


def autocast(accelerator: Accelerator, precision: str) -> AbstractContextManager[Any]:
    """Return an autocast context for a precision; with "no", everything is computed in 32 bits."""
    if precision == "no":
        return nullcontext()
    context: AbstractContextManager[Any] = accelerator.autocast()
    return context


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
            for name in dict.fromkeys(("cpu", device))  # only one if the device is the CPU
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
        self._global_states = self._get_states()
        self._set_states(self.states)

    def __exit__(self, *error: object) -> None:
        self.states = self._get_states()
        self._set_states(self._global_states)

    def _get_states(self) -> dict[str, Tensor]:
        """Return the present state of each of torch's global generators."""
        return {device: module.get_rng_state() for device, module in self._modules.items()}

    def _set_states(self, states: Mapping[str, Tensor]) -> None:
        """Set the state of each of torch's global generators."""
        for device, module in self._modules.items():
            module.set_rng_state(states[device])
