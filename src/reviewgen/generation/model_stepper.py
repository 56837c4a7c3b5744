"""Steppers that work with any model, since they only call it.

Importing this module imports torch, so other modules import it only where they need it.

Dimensions: B batch, T time (tokens), V vocabulary, N random numbers per row, K last tokens of a
text.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from reviewgen.compiled.sampling import (
    NONE,
    Constraints,
    SamplingParams,
    compiled_constraints,
    sample_rows,
)
from reviewgen.devices import device_errors, using_threads
from reviewgen.generation.generator import DEVICE_ROWS
from reviewgen.generation.states import map_state
from reviewgen.protocols.model import LanguageModel, State, SupportsStep
from reviewgen.protocols.stepper import Stepper, StepState

_CHUNK_TOKENS = 512  # max tokens of a prompt that are fed in one call of the model


def make_stepper(model: LanguageModel, device: str = "cpu", weight_bits: int = 32) -> Stepper:
    """Return a stepper for a model.

    On the CPU it is the model's own stepper, if the model has one. Otherwise it is one that calls
    the model, in the model's own precision.

    Args:
        model: The model.
        device: The device of the model.
        weight_bits: The precision of the weights in the model's own stepper.
    """
    if device != "cpu":
        return DeviceStepper(model, device)
    return model.stepper(weight_bits) if isinstance(model, SupportsStep) else ModelStepper(model)


class ModelStepper:
    """A stepper that calls a model, which must be in evaluation mode, on its device.

    The state is the model's state with its tensors as NumPy arrays. On a CPU the model runs on one
    thread, for two reasons: in so short a step, several threads mostly wait for one another; and
    texts do not depend on the number of cores.
    """

    def __init__(self, model: LanguageModel, device: str = "cpu") -> None:
        self._model = model
        self._device = device

    def initial_state(self, batch_size: int) -> StepState:
        """Return the model's state before the first token."""
        return map_state(_to_array, self._model.initial_state(batch_size))

    @torch.inference_mode()
    def forward(
        self, ids: Int64[np.ndarray, "B T"], state: StepState
    ) -> tuple[Float[np.ndarray, "B V"], StepState]:
        """Return the logits (B, V) after the last token, float32, and the state."""
        tensors: State = _to_tensors(state, self._device)
        with using_threads(1) if self._device == "cpu" else nullcontext():
            for chunk in torch.split(torch.from_numpy(ids).to(self._device), _CHUNK_TOKENS, dim=1):
                logits, tensors = self._model(chunk, tensors)
        last: np.ndarray = logits[:, -1].to("cpu", torch.float32).numpy()
        return last, map_state(_to_array, tensors)


class DeviceStepper(ModelStepper):
    """A stepper that calls a model on an accelerator for hundreds of texts at once, and samples
    their tokens on the CPU.

    The state is a pair: the model's state, and the logits after the last token. While ``sample``
    samples a block of tokens, the model's state stays on the device.

    Every step computes ``DEVICE_ROWS`` rows, however many texts are left. A device chooses its
    kernels by the shape, and other kernels may change the last bits of the logits. Several threads
    sample the tokens of a step.
    """

    def initial_state(self, batch_size: int) -> StepState:
        """Return the model's state before the first token, with logits of zero."""
        return super().initial_state(batch_size), np.zeros(
            (batch_size, self._model.config.vocab_size), np.float32
        )

    @torch.inference_mode()
    def forward(
        self, ids: Int64[np.ndarray, "B T"], state: StepState
    ) -> tuple[Float[np.ndarray, "B V"], StepState]:
        """Return the logits (B, V) after the last token, float32, and the state."""
        with device_errors(self._device):
            if ids.shape[1] > 1:  # a prompt
                logits, new_state = super().forward(ids, state[0])
                return logits, (new_state, logits)
            tensors = map_state(_pad, _to_tensors(state[0], self._device))
            logits, tensors = self._step(ids[:, 0], tensors)
            return logits, (_to_rows(tensors, len(ids)), logits)

    def _step(
        self, tokens: Int64[np.ndarray, " B"], tensors: State
    ) -> tuple[Float[np.ndarray, "B V"], State]:
        """Feed one token to each of B rows.

        Return the logits of these rows on the CPU, and the state of all ``DEVICE_ROWS`` rows on the
        device.
        """
        ids = torch.from_numpy(np.ascontiguousarray(tokens[:, None])).to(self._device)
        logits, tensors = self._model(_pad(ids), tensors)
        return logits[: len(tokens), -1].to("cpu", torch.float32).numpy(), tensors

    @torch.inference_mode()
    def sample(
        self,
        state: StepState,
        uniform: Float64[np.ndarray, "B N"],
        params: SamplingParams,
        texts: Int64[np.ndarray, "B K"],
        new_tokens: Int64[np.ndarray, " B"],
        constraints: Constraints | None = None,
    ) -> tuple[Int64[np.ndarray, "B N"], Int64[np.ndarray, " B"], StepState]:
        """Sample up to N tokens for each row; see ``reviewgen.protocols.SupportsSample``."""
        count, max_steps = uniform.shape
        start = texts.shape[1]  # K, the column of the first new token in ``whole``
        windows, run, spelling, places = compiled_constraints(params, constraints, count)
        whole = np.pad(texts, ((0, 0), (0, max_steps)))  # (B, K + N), with room for new tokens
        uniform = np.ascontiguousarray(uniform.T)  # (N, B)
        tokens = np.empty(count, np.int64)  # the tokens of the current step
        new_places = places.copy()
        runs = np.full(count, run)
        sampled = np.full((count, max_steps), NONE, np.int64)
        used = np.zeros(count, np.int64)
        live = new_tokens < params.max_new_tokens
        logits = state[1]
        shares = _share(count, _count_threads())

        def sample_share(rows: slice) -> None:
            """Write the next tokens of some rows into ``tokens``. The loop below sets ``logits``,
            ``sizes`` and ``step`` to those of the current step.
            """
            sample_rows(
                logits[rows],
                whole[rows],
                sizes[rows],
                new_tokens[rows] + step,
                uniform[step, rows],
                params,
                windows,
                runs[rows],
                spelling,
                new_places[rows],
                tokens[rows],
            )

        with ThreadPoolExecutor(max(1, len(shares))) as threads, device_errors(self._device):
            tensors = map_state(_pad, _to_tensors(state[0], self._device))
            for step in range(max_steps):
                if not live.any():
                    break
                sizes = np.full(count, start + step)
                list(threads.map(sample_share, shares))  # list() waits for all shares
                sampled[live, step] = tokens[live]
                places[live] = new_places[live]  # those of ended rows stay as they are
                used += live
                has_room = new_tokens + step + 1 < params.max_new_tokens
                live &= (tokens >= 0) & (tokens != params.eos_id) & has_room
                # ended rows are fed eos, since all rows are computed anyway
                whole[:, start + step] = np.where(live, tokens, params.eos_id)
                logits, tensors = self._step(whole[:, start + step], tensors)
            return sampled, used, (_to_rows(tensors, count), logits)


def _count_threads() -> int:
    """Return the number of threads that sample tokens: this process's share of the cores, or
    torch's number of threads if that is larger.

    torch's number alone is not enough: a launcher such as torchrun sets it to one.
    """
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(torch.get_num_threads(), cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _share(count: int, parts: int) -> list[slice]:
    """Divide ``count`` rows into at most ``parts`` ranges of about equal size."""
    ends = [count * number // parts for number in range(parts + 1)]
    return [slice(first, last) for first, last in pairwise(ends) if first < last]


def _pad(tensor: Tensor) -> Tensor:
    """Append rows of zeros to a tensor, so that it has at least ``DEVICE_ROWS`` rows."""
    return torch.cat(
        [tensor, tensor.new_zeros(max(0, DEVICE_ROWS - len(tensor)), *tensor.shape[1:])]
    )


def _to_rows(state: State, count: int) -> StepState:
    """Return the state of the first ``count`` rows, as arrays."""
    return map_state(lambda tensor: _to_array(tensor[:count]), state)


def _to_array(tensor: Tensor) -> Any:
    """Convert a tensor to an array. NumPy has no bfloat16, so this becomes float32, which can hold
    the same values.
    """
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _to_tensors(state: StepState, device: str) -> State:
    """Return a state of arrays as tensors on a device."""
    return map_state(lambda part: torch.from_numpy(np.ascontiguousarray(part)).to(device), state)
