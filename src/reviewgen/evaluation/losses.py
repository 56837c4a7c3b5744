"""The negative log likelihood of each token of many texts, in rows that are scored together.

A row whose text ends takes the next text, from the initial state, as servers of language models batch requests (Yu et al. 2022,
"Orca", iteration-level scheduling). Padding every text to the longest would compute four tokens for each of a corpus of reviews.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor
from torch.nn import functional as F

from reviewgen.compiled.entropy import target_losses
from reviewgen.compiled.tensors import PRECISIONS, as_array
from reviewgen.errors import growing_state
from reviewgen.generation import device_errors, map_state
from reviewgen.protocols import LanguageModel, State, SupportsScore

Document = tuple[np.ndarray, int]
"""The ids of a text (bos, conditions, tokens, eos) and its number of characters."""

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
    model: LanguageModel, texts: Sequence[np.ndarray], vocab_size: int, device: str = "cpu", given: int = 0
) -> list[np.ndarray]:
    """Return the negative log likelihood (nats) of each text's tokens after bos and the ``given`` condition ids.

    Args:
        model: The model, in evaluation mode.
        texts: The ids of each text, at least two.
        vocab_size: The number of ids; limits the tokens of one forward call.
        device: The device of the model.
        given: The number of condition ids after bos.

    Raises:
        DeviceError: The device has failed, as it does when it has no memory left.
    """
    with device_errors(device):
        return _token_losses(model, texts, vocab_size, device, given)


def _token_losses(
    model: LanguageModel, texts: Sequence[np.ndarray], vocab_size: int, device: str, given: int
) -> list[np.ndarray]:
    losses: list[np.ndarray] = [np.empty(len(text) - 1, np.float32) for text in texts]
    waiting = sorted(range(len(texts)), key=lambda number: len(texts[number]))  # the longest is last, and starts first
    rows, starts = _start_rows(waiting, _count_rows(losses))
    state = model.initial_state(len(rows))
    while rows:
        remaining = np.array([len(losses[number]) for number in rows]) - starts
        length = _choose_length(remaining, max(1, min(_MAX_TOKENS, _MAX_LOGITS // (len(rows) * vocab_size))))
        ids = _padded([texts[number][start : start + length + 1] for number, start in zip(rows, starts, strict=True)], length + 1)
        table, state = _score_rows(model, torch.from_numpy(ids).to(device), state)
        for row, number, start in zip(table, rows, starts, strict=True):
            part = losses[number][start : start + length]
            part[:] = row[: len(part)]
        continuing = np.flatnonzero(remaining > length)
        added, zeros = _start_rows(waiting, len(rows) - len(continuing))
        state = _replace_rows(model, state, continuing, len(added)) if len(continuing) < len(rows) else state
        rows = [rows[row] for row in continuing] + added
        starts = np.concatenate([starts[continuing] + length, zeros])
    return [each[given:] for each in losses]


def _count_rows(losses: Sequence[np.ndarray]) -> int:
    """Return how many rows to score together: so few that the longest text does not end long after all others."""
    lengths = [len(each) for each in losses]
    return max(1, min(_ROWS, sum(lengths) // max(lengths, default=1)))


def _start_rows(waiting: list[int], count: int) -> tuple[list[int], Int64[np.ndarray, " N"]]:
    """Take up to ``count`` texts off the list of those that wait; return their numbers, and zeros, where they start."""
    numbers = [waiting.pop() for _ in range(min(count, len(waiting)))]
    return numbers, np.zeros(len(numbers), np.int64)


def _choose_length(remaining: Int64[np.ndarray, " B"], longest: int) -> int:
    """Return how many tokens of each row to score in a call, so that few rows end much earlier."""
    lengths = np.unique(np.minimum(remaining, longest))
    padding = [1 - np.minimum(remaining, length).mean() / length for length in lengths]  # rises with the length
    return int(lengths[max(0, int(np.searchsorted(padding, _MAX_PADDING, side="right")) - 1)])


def _padded(texts: Sequence[np.ndarray], length: int) -> Int64[np.ndarray, "B T"]:
    """Return texts as rows of one length, with zeros after their end."""
    table = np.zeros((len(texts), length), np.int64)
    for row, text in zip(table, texts, strict=True):
        row[: len(text)] = text
    return table


def _score_rows(model: LanguageModel, ids: Int[Tensor, "B T1"], state: State) -> tuple[Float[np.ndarray, "B T"], State]:
    """Return the negative log likelihood (nats) of each id but the first of each row, and the state after the last but one."""
    inputs, targets = ids[:, :-1], ids[:, 1:]
    if isinstance(model, SupportsScore):
        scores, state = model.score(inputs, targets, state)
        return -scores.float().cpu().numpy(), state
    logits, state = model(inputs, state)
    return cross_entropies(logits, targets), state


def cross_entropies(logits: Float[Tensor, "B T V"], targets: Int[Tensor, "B T"]) -> Float[np.ndarray, "B T"]:
    """Return the cross entropy (nats) of each target, without a copy of the logits where they are on the CPU."""
    is_time_first = not logits.is_contiguous()  # in memory, as from torch's recurrent layers
    if is_time_first:
        logits, targets = logits.transpose(0, 1), targets.transpose(0, 1)
    if logits.device.type == "cpu" and logits.dtype in PRECISIONS:
        if int(targets.max()) >= logits.shape[-1]:
            raise IndexError(
                f"Target {int(targets.max())} is out of range: the model has logits for ids 0 to {logits.shape[-1] - 1}."
            )
        losses = np.empty(targets.numel(), np.float32)
        target_losses(as_array(logits.flatten(0, 1)), targets.flatten().numpy(), losses)
    else:
        flat = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
        losses = flat.cpu().numpy()
    table: np.ndarray = losses.reshape(targets.shape)
    return table.T if is_time_first else table


def _replace_rows(model: LanguageModel, state: State, kept: Int64[np.ndarray, " K"], added: int) -> State:
    """Return the state of the rows that continue, then of rows at the beginning of a text."""
    rows = torch.from_numpy(kept)
    selected: State = map_state(lambda part: part[rows.to(part.device)], state)
    return map_state(_join, selected, model.initial_state(added)) if added else selected


def _join(first: Tensor, second: Tensor) -> Tensor:
    if first.shape[1:] != second.shape[1:]:
        raise growing_state(first.shape, second.shape)
    return torch.cat([first, second])
