"""A stepper for any model, through its plain call. Needs torch, and is imported where it is needed."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from reviewgen.protocols import LanguageModel, State, Stepper, StepState, SupportsStep

__all__ = ["PlainStepper", "make_stepper"]

_READ_TOKENS = 512  # of a prompt, at a time


def make_stepper(model: LanguageModel, device: str = "cpu", bits: int = 32) -> Stepper:
    """Return the model's own stepper, where it has one and is on the CPU; else one that calls the model, in its own precision."""
    return model.stepper(bits) if device == "cpu" and isinstance(model, SupportsStep) else PlainStepper(model, device)


class PlainStepper:
    """Calls a model, in evaluation mode, on the device that it is on. Its state is the model's, as arrays."""

    def __init__(self, model: LanguageModel, device: str = "cpu") -> None:
        self._model, self._device = model, device

    def initial_state(self, batch_size: int) -> StepState:
        """Return the model's state before the first token."""
        return _arrays(self._model.initial_state(batch_size))

    @torch.inference_mode()
    def read(self, ids: Int64[np.ndarray, "B T"], state: StepState) -> tuple[Float[np.ndarray, "B V"], StepState]:
        """Return the logits (B, V) after the last token, float32, and the state."""
        memory: State = _tensors(state, self._device)
        for piece in torch.split(torch.from_numpy(ids).to(self._device), _READ_TOKENS, dim=1):
            logits, memory = self._model(piece, memory)
        last: np.ndarray = logits[:, -1].to("cpu", torch.float32).numpy()
        return last, _arrays(memory)


def _arrays(state: State) -> StepState:
    return tuple(_arrays(part) for part in state) if isinstance(state, tuple) else _array(state)


def _array(tensor: Tensor) -> Any:
    """Return a tensor as an array, bfloat16 as float32, which holds the same values."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _tensors(state: StepState, device: str) -> State:
    if isinstance(state, tuple):
        return tuple(_tensors(part, device) for part in state)
    return torch.from_numpy(np.ascontiguousarray(state)).to(device)
