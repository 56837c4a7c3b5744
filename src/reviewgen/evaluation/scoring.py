"""Scores the tokens of many texts together, in nats, and measures the bits that a model saves by
reading each condition.

Each text is a row of a batch. When a text ends, its row takes the next text and starts from the
initial state, as servers of language models batch requests (Yu et al. 2022, "Orca", iteration-level
scheduling). The alternative, to pad every text to the longest one, would compute four times as many
tokens on a corpus of reviews.

A useful condition saves bits, and costs bits if a text is given the value of another text. If a
condition does neither, the model ignores it.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor
from torch.nn import functional as F

from reviewgen.compiled.tensors import PRECISIONS, as_array, target_losses
from reviewgen.conditions import Conditions
from reviewgen.data.tokens import count_given
from reviewgen.devices import device_errors
from reviewgen.errors import growing_state
from reviewgen.generation.states import map_state
from reviewgen.protocols.model import LanguageModel, State, SupportsScore
from reviewgen.rates import find_intervals

Document: TypeAlias = tuple[np.ndarray, int]
"""The ids of a text (bos, conditions, fields, tokens, eos) and its number of characters."""

_ROWS = 64  # maximum number of rows: texts that are scored side by side
_MAX_LOGITS = 1 << 23  # maximum number of logits in one forward call, B x T x V
_MAX_TOKENS = 512  # maximum number of tokens of a row in one forward call, T
_MAX_PADDING = 0.08  # maximum share of padding among the tokens of a forward call
_BATCH_TEXTS = 1024  # maximum number of texts that are passed to ``token_losses`` together
# Gains are measured on texts of about this many tokens together. Each of these texts is scored
# twice more for each condition.
_GAIN_TOKENS = 100_000


def batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Yield the documents in lists of up to 1,024. The texts of a list are scored together."""
    iterator = iter(documents)
    while batch := list(islice(iterator, _BATCH_TEXTS)):
        yield batch


@torch.inference_mode()
def token_losses(
    model: LanguageModel,
    texts: Sequence[np.ndarray],
    vocab_size: int,
    device: str = "cpu",
    given: int | None = None,
) -> list[np.ndarray]:
    """Return the negative log likelihood (nats) of each token of each text.

    bos, and the ids after it that are only inputs, get no value.

    Args:
        model: The model, in evaluation mode.
        texts: The ids of each text, at least two ids.
        vocab_size: The vocabulary size of the tokenizer; limits the tokens of one forward call.
        device: The device of the model.
        given: The number of ids after bos that are only inputs; by default these are the ids of
            conditions and fields.

    Raises:
        DeviceError: The device has failed, for example because it is out of memory.
    """
    # for each text, the nats of all its ids after bos
    losses: list[np.ndarray] = [np.empty(len(text) - 1, np.float32) for text in texts]
    # the indices of the texts by length; the longest text, which is last, is scored first
    waiting = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    lengths = np.array([len(nats) for nats in losses])
    # fewer rows if one text is very long: with 64, it would end long after all others
    max_rows = max(1, min(_ROWS, lengths.sum() // max(lengths, default=1)))
    indices = list[int]()  # for each row, the index of its text
    starts = np.zeros(0, np.int64)  # for each row, how many tokens of its text have been scored
    state = None
    with device_errors(device):
        while indices or waiting:
            # fill the free rows with new texts
            added = [waiting.pop() for _ in range(min(max_rows - len(indices), len(waiting)))]
            if added:
                fresh = model.initial_state(len(added))
                state = map_state(_join, state, fresh) if indices else fresh
            indices = indices + added
            starts = np.append(starts, np.zeros(len(added), np.int64))
            remaining = lengths[indices] - starts
            max_tokens = min(_MAX_TOKENS, _MAX_LOGITS // (len(indices) * vocab_size))
            # score this number of tokens of each row, as far as its text has them
            step = _choose_length(remaining, max(1, max_tokens))
            ids = np.zeros((len(indices), step + 1), np.int64)  # zeros after the end of a text
            for row, index, start in zip(ids, indices, starts, strict=True):
                text = texts[index][start : start + step + 1]
                row[: len(text)] = text
            row_losses, state = _score_rows(model, torch.from_numpy(ids).to(device), state)
            for row, index, start in zip(row_losses, indices, starts, strict=True):
                part = losses[index][start : start + step]  # shorter if the text ends
                part[:] = row[: len(part)]
            # remove the rows whose text has ended
            continuing = np.flatnonzero(remaining > step)
            if len(continuing) < len(indices):
                rows = torch.from_numpy(continuing).to(device)
                state = map_state(lambda part, rows=rows: part[rows], state)
            indices = [indices[row] for row in continuing]
            starts = starts[continuing] + step
    return [
        nats[count_given(text, vocab_size) if given is None else given :]
        for nats, text in zip(losses, texts, strict=True)
    ]


def _choose_length(remaining: Int64[np.ndarray, " B"], longest: int) -> int:
    """Return how many tokens of each row to score in one call.

    This is the largest number with which padding, for rows that end earlier, is at most the share
    ``_MAX_PADDING`` of the tokens.

    Args:
        remaining: The number of tokens left in each row.
        longest: The maximum to return.
    """
    lengths = np.unique(np.minimum(remaining, longest))
    # the share of padding for each length; it rises with the length, from zero for the first one
    padding = [1 - np.minimum(remaining, length).mean() / length for length in lengths]
    allowed = int(np.searchsorted(padding, _MAX_PADDING, side="right"))  # how many of the lengths
    return int(lengths[max(0, allowed - 1)])


def _score_rows(
    model: LanguageModel, ids: Int[Tensor, "B T1"], state: State
) -> tuple[Float[np.ndarray, "B T"], State]:
    """Return the negative log likelihood (nats) of all ids of each row except the first, and the
    state before the last id is read.
    """
    inputs = ids[:, :-1]
    targets = ids[:, 1:]
    if isinstance(model, SupportsScore):
        scores, state = model.score(inputs, targets, state)
        return -scores.float().cpu().numpy(), state
    logits, state = model(inputs, state)
    return _cross_entropies(logits, targets), state


def _cross_entropies(
    logits: Float[Tensor, "B T V"], targets: Int[Tensor, "B T"]
) -> Float[np.ndarray, "B T"]:
    """Return the cross entropy (nats) of each target.

    Logits on the CPU in one of ``PRECISIONS`` are not copied.
    """
    # Torch's recurrent layers return tensors whose first dimension in memory is time. They are
    # transposed, since ``flatten`` would copy them otherwise.
    is_time_first = not logits.is_contiguous()
    if is_time_first:
        logits = logits.transpose(0, 1)
        targets = targets.transpose(0, 1)
    if logits.device.type == "cpu" and logits.dtype in PRECISIONS:
        largest = int(targets.max())
        if largest >= logits.shape[-1]:  # the compiled loop does not check bounds
            raise IndexError(
                f"Target {largest} is out of range: the model has logits for ids 0 to"
                f" {logits.shape[-1] - 1}."
            )
        losses = np.empty(targets.numel(), np.float32)
        target_losses(as_array(logits.flatten(0, 1)), targets.flatten().numpy(), losses)
    else:
        flat = logits.float().flatten(0, 1)
        losses = F.cross_entropy(flat, targets.flatten(), reduction="none").cpu().numpy()
    table: np.ndarray = losses.reshape(targets.shape)
    return table.T if is_time_first else table


def _join(first: Tensor, second: Tensor) -> Tensor:
    """Append the rows of the second tensor to the first; both are the same part of a state."""
    if first.shape[1:] != second.shape[1:]:
        raise growing_state(first.shape, second.shape)
    return torch.cat([first, second])


@dataclass(frozen=True)
class ConditionGain:
    """The bits that a model saves by reading a condition.

    Attributes:
        name: The name of the condition.
        bits_per_character: The bits per character that the condition saves, compared with texts
            without it.
        interval: The 95 % interval (low, high) of ``bits_per_character``; None for fewer than ten
            texts.
        shuffled: The bits per character that the condition saves if each text gets the value of
            another text; negative if this costs bits.
        characters: The number of characters of the texts that have a value of the condition.
    """

    name: str
    bits_per_character: float
    interval: Sequence[float] | None
    shuffled: float
    characters: int

    def describe(self) -> str:
        """Return a line for the user.

        >>> ConditionGain("a", 0.0412, (0.035, 0.047), -0.0103, 52_000).describe()
        'a saves 0.041 bits per character (95 %: 0.035 to 0.047); the value of another text -0.010'
        """
        digits = 3 if abs(self.bits_per_character) >= 0.005 else 4
        interval = ""
        if self.interval is not None:
            low, high = self.interval
            interval = f" (95 %: {low:.{digits}f} to {high:.{digits}f})"
        what = f"{self.name} saves" if self.has_effect else f"{self.name} has no effect: it saves"
        saved = f"{self.bits_per_character:.{digits}f}"
        other = f"{self.shuffled:.{digits}f}"
        return f"{what} {saved} bits per character{interval}; the value of another text {other}"

    @property
    def has_effect(self) -> bool:
        """Whether the condition saves or costs bits: the interval does not contain zero."""
        # a useful condition with two labels saves about 0.001 bits per character of a long review,
        # far more than this
        if abs(self.bits_per_character) < 0.00005:
            return False
        if self.interval is None:
            return True
        low, high = self.interval
        return not low <= 0 <= high


def suggest_next(gains: Sequence[ConditionGain], model: LanguageModel) -> list[str]:
    """Return a list with one sentence for the user: what to do about conditions without effect.

    The list is empty if all conditions have an effect, or if the model is not a network.
    """
    unused = ", ".join(gain.name for gain in gains if not gain.has_effect)
    # longer training does not change an n-gram model, or a blend that contains one
    if not unused or not isinstance(model, torch.nn.Module):
        return []
    advice = "train longer, use a blend such as blend-word, or give fewer fields and conditions"
    return [f"No effect on this network: {unused}. To change that, {advice}."]


def keep_first(documents: Iterable[Document], kept: list[Document]) -> Iterator[Document]:
    """Yield all documents, and append the first ones to ``kept``.

    Documents are appended until they have the number of tokens that ``measure_gains`` needs.
    """
    tokens = 0
    for ids, characters in documents:
        if tokens < _GAIN_TOKENS:
            kept.append((ids, characters))
            tokens += len(ids)
        yield ids, characters


def measure_gains(
    model: LanguageModel,
    documents: Sequence[Document],
    conditions: Conditions,
    device: str = "cpu",
    nats: Sequence[float] = (),
) -> tuple[ConditionGain, ...]:
    """Measure the bits that each condition saves.

    A condition is left out if fewer than two texts have a value of it, or if some of these texts
    have infinite bits.

    Args:
        model: The model, in evaluation mode.
        documents: The texts; see ``reviewgen.evaluation.evaluate.evaluate_documents``.
        conditions: The conditions of the model, with their ids.
        device: The device of the model.
        nats: The negative log likelihood of each text, if the texts have been scored already;
            further values, of other texts, are ignored. By default the texts are scored here.
    """
    prefixes = []  # for each text, a list with the ids of each condition
    texts = []  # for each text, bos and the ids after the conditions
    for ids, _ in documents:
        start = 1 + count_given(ids, conditions.first_id)
        prefixes.append(conditions.split(ids[1:start].tolist()))
        texts.append((ids[:1], ids[start:]))
    absent = conditions.split(conditions.unspecified_ids)  # the prefix of a text without values
    if all(prefix == absent for prefix in prefixes):
        return ()

    def measure_bits(framed: Sequence[np.ndarray]) -> np.ndarray:
        """Return the bits of each text."""
        losses = token_losses(model, framed, conditions.first_id, device)
        return np.array([text_losses.sum(dtype=np.float64) / math.log(2) for text_losses in losses])

    def replace_values(condition: int, values: Mapping[int, list[int]]) -> list[np.ndarray]:
        """Return texts with another value of a condition.

        Args:
            condition: The index of the condition.
            values: The ids of the new value, by the number of the text. Other texts are left out.
        """
        framed = []
        for number, value in values.items():
            bos, rest = texts[number]
            prefix = [*prefixes[number]]
            prefix[condition] = value
            framed.append(np.concatenate((bos, *prefix, rest)).astype(np.int64))
        return framed

    if nats:
        bits = np.array(nats[: len(documents)]) / math.log(2)
    else:
        bits = measure_bits([ids for ids, _ in documents])
    characters = np.array([length for _, length in documents])
    gains = list[ConditionGain]()
    for condition, name in enumerate(conditions.names):
        unspecified = absent[condition]
        numbers = [
            number for number, prefix in enumerate(prefixes) if prefix[condition] != unspecified
        ]
        if len(numbers) < 2 or not characters[numbers].sum():
            continue
        # The texts are put in a random order. Each gets the value of the text before it, and the
        # first one gets that of the last text. So no text keeps its own value.
        order = np.random.default_rng(0).permutation(numbers)
        previous = dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))
        cycled = {number: prefixes[previous[number]][condition] for number in numbers}
        without = measure_bits(replace_values(condition, dict.fromkeys(numbers, unspecified)))
        shuffled = measure_bits(replace_values(condition, cycled))
        if np.isfinite([bits[numbers], without, shuffled]).all():
            saved = without - bits[numbers]
            gains.append(_gain(name, saved, without - shuffled, characters[numbers]))
    return tuple(gains)


def _gain(
    name: str, saved: np.ndarray, shuffled: np.ndarray, characters: np.ndarray
) -> ConditionGain:
    """Return the gain of a condition.

    Args:
        name: The name of the condition.
        saved: The bits that the condition saves in each text.
        shuffled: The bits that each text saves if it is given the value of another text.
        characters: The number of characters of each text.
    """
    items: list[tuple[float, int]] = list(zip(saved.tolist(), characters.tolist(), strict=True))

    def measure(some: Sequence[tuple[float, int]]) -> list[float]:
        """Return the bits that some texts save per character."""
        return [sum(bits for bits, _ in some) / max(1, sum(length for _, length in some))]

    total = int(characters.sum())
    interval = find_intervals(measure, items, [False])[0]
    return ConditionGain(name, measure(items)[0], interval, sum(shuffled.tolist()) / total, total)
