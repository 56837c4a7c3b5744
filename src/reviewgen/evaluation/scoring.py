"""The bits of encoded texts under a model: many texts side by side, in calls that stay small.

Texts are scored together, in rows: a row whose text ends takes the next text, from the initial state, as servers of language
models batch requests (Yu et al. 2022, "Orca", iteration-level scheduling). Padding every text to the longest would compute four
times as many tokens on a corpus of reviews.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor
from torch.nn import functional as F

from reviewgen.compiled.entropy import target_losses
from reviewgen.compiled.precision import PRECISIONS, as_array
from reviewgen.data import count_given
from reviewgen.errors import growing_state
from reviewgen.generation import device_errors, map_state
from reviewgen.protocols import LanguageModel, State, SupportsScore

Document: TypeAlias = tuple[np.ndarray, int]
"""The ids of a text (bos, conditions, fields, tokens, eos) and its number of characters."""

_ROWS = 64
_MAX_LOGITS = 1 << 23  # in one forward call: B x T x V
_MAX_TOKENS = 512  # per row in one forward call, T
_MAX_PADDING = 0.08  # of the tokens of a call, where rows end before it does
_BATCH_TEXTS = 1024


def batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Yield the documents in lists of up to 1,024, whose texts are scored together."""
    iterator = iter(documents)
    while batch := list(islice(iterator, _BATCH_TEXTS)):
        yield batch


@torch.inference_mode()
def token_losses(
    model: LanguageModel, texts: Sequence[np.ndarray], vocab_size: int, device: str = "cpu", given: int | None = None
) -> list[np.ndarray]:
    """Return the negative log likelihood (nats) of each text's tokens after bos and what is given.

    Args:
        model: The model, in evaluation mode.
        texts: The ids of each text, at least two.
        vocab_size: The tokenizer's; limits the tokens of one forward call.
        device: The device of the model.
        given: The number of ids after bos that are given; by default those of conditions and fields.

    Raises:
        DeviceError: The device has failed, as it does when it has no memory left.
    """
    losses: list[np.ndarray] = [np.empty(len(text) - 1, np.float32) for text in texts]
    waiting = sorted(range(len(texts)), key=lambda number: len(texts[number]))  # the longest is last, and starts first
    lengths = np.array([len(nats) for nats in losses])
    size = max(1, min(_ROWS, lengths.sum() // max(lengths, default=1)))  # so that the longest does not end long after all others
    rows, starts, state = list[int](), np.zeros(0, np.int64), None
    with device_errors(device):
        while rows or waiting:
            added = [waiting.pop() for _ in range(min(size - len(rows), len(waiting)))]
            if added:
                fresh = model.initial_state(len(added))
                state = map_state(_join, state, fresh) if rows else fresh
            rows, starts = rows + added, np.append(starts, np.zeros(len(added), np.int64))
            remaining = lengths[rows] - starts
            length = _choose_length(remaining, max(1, min(_MAX_TOKENS, _MAX_LOGITS // (len(rows) * vocab_size))))
            ids = np.zeros((len(rows), length + 1), np.int64)  # zeros after the end of a text
            for row, number, start in zip(ids, rows, starts, strict=True):
                text = texts[number][start : start + length + 1]
                row[: len(text)] = text
            table, state = _score_rows(model, torch.from_numpy(ids).to(device), state)
            for row, number, start in zip(table, rows, starts, strict=True):
                part = losses[number][start : start + length]
                part[:] = row[: len(part)]
            continuing = np.flatnonzero(remaining > length)
            if len(continuing) < len(rows):
                index = torch.from_numpy(continuing).to(device)
                state = map_state(lambda part, index=index: part[index], state)
            rows, starts = [rows[row] for row in continuing], starts[continuing] + length
    return [nats[count_given(text, vocab_size) if given is None else given :] for nats, text in zip(losses, texts, strict=True)]


def _choose_length(remaining: Int64[np.ndarray, " B"], longest: int) -> int:
    """Return how many tokens of each row to score in a call, so that few rows end much earlier."""
    lengths = np.unique(np.minimum(remaining, longest))
    padding = [1 - np.minimum(remaining, length).mean() / length for length in lengths]  # rises with the length
    return int(lengths[max(0, int(np.searchsorted(padding, _MAX_PADDING, side="right")) - 1)])


def _score_rows(model: LanguageModel, ids: Int[Tensor, "B T1"], state: State) -> tuple[Float[np.ndarray, "B T"], State]:
    """Return the negative log likelihood (nats) of each id but the first of each row, and the state after the last but one."""
    inputs, targets = ids[:, :-1], ids[:, 1:]
    if isinstance(model, SupportsScore):
        scores, state = model.score(inputs, targets, state)
        return -scores.float().cpu().numpy(), state
    logits, state = model(inputs, state)
    return _cross_entropies(logits, targets), state


def _cross_entropies(logits: Float[Tensor, "B T V"], targets: Int[Tensor, "B T"]) -> Float[np.ndarray, "B T"]:
    """Return the cross entropy (nats) of each target, without a copy of the logits where they are on the CPU."""
    is_time_first = not logits.is_contiguous()  # in memory, as from torch's recurrent layers
    if is_time_first:
        logits, targets = logits.transpose(0, 1), targets.transpose(0, 1)
    if logits.device.type == "cpu" and logits.dtype in PRECISIONS:
        if (largest := int(targets.max())) >= logits.shape[-1]:
            raise IndexError(f"Target {largest} is out of range: the model has logits for ids 0 to {logits.shape[-1] - 1}.")
        losses = np.empty(targets.numel(), np.float32)
        target_losses(as_array(logits.flatten(0, 1)), targets.flatten().numpy(), losses)
    else:
        losses = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none").cpu().numpy()
    table: np.ndarray = losses.reshape(targets.shape)
    return table.T if is_time_first else table


def _join(first: Tensor, second: Tensor) -> Tensor:
    if first.shape[1:] != second.shape[1:]:
        raise growing_state(first.shape, second.shape)
    return torch.cat([first, second])
