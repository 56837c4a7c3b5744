"""A Stepper for any model, through its call. Imports torch, so it is imported where it is needed."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from reviewgen.protocols import LanguageModel, State, Stepper, StepState, SupportsStep

__all__ = ["ModelStepper", "make_stepper", "using_threads"]

_CHUNK_TOKENS = 512  # of a prompt, in one call


def make_stepper(model: LanguageModel, device: str = "cpu", weight_bits: int = 32) -> Stepper:
    """Return the model's own stepper if it has one and is on the CPU, else one that calls the model in its own precision."""
    return model.stepper(weight_bits) if device == "cpu" and isinstance(model, SupportsStep) else ModelStepper(model, device)


@contextmanager
def using_threads(threads: int) -> Iterator[None]:
    """Set the number of torch's CPU threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class ModelStepper:
    """Calls a model in evaluation mode on its device. The state is the model's, as arrays.

    On a CPU it computes on one thread: a step of one token is so short that several threads mostly wait for one another, and so
    a text does not depend on the number of cores.
    """

    def __init__(self, model: LanguageModel, device: str = "cpu") -> None:
        self._model, self._device = model, device

    def initial_state(self, batch_size: int) -> StepState:
        """Return the model's state before the first token."""
        return _to_arrays(self._model.initial_state(batch_size))

    @torch.inference_mode()
    def forward(self, ids: Int64[np.ndarray, "B T"], state: StepState) -> tuple[Float[np.ndarray, "B V"], StepState]:
        """Return the logits (B, V) after the last token, float32, and the state."""
        tensors: State = _to_tensors(state, self._device)
        with using_threads(1) if self._device == "cpu" else nullcontext():
            for piece in torch.split(torch.from_numpy(ids).to(self._device), _CHUNK_TOKENS, dim=1):
                logits, tensors = self._model(piece, tensors)
        last: np.ndarray = logits[:, -1].to("cpu", torch.float32).numpy()
        return last, _to_arrays(tensors)


def _to_arrays(state: State) -> StepState:
    return tuple(_to_arrays(part) for part in state) if isinstance(state, tuple) else _to_array(state)


def _to_array(tensor: Tensor) -> Any:
    """Return a tensor as an array, bfloat16 as float32, which holds the same values."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _to_tensors(state: StepState, device: str) -> State:
    if isinstance(state, tuple):
        return tuple(_to_tensors(part, device) for part in state)
    return torch.from_numpy(np.ascontiguousarray(state)).to(device)
