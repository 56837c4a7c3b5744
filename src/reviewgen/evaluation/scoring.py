"""The nats of the tokens of many texts, scored side by side; and the bits that a model saves by
reading each condition.

Texts are scored together, in rows: a row whose text ends takes the next text, from the initial
state, as servers of language models batch requests (Yu et al. 2022, "Orca", iteration-level
scheduling). Padding every text to the longest would compute four times as many tokens on a corpus
of reviews.

A useful condition saves bits, and costs bits if its value is taken from another text. A condition
that does neither is ignored by the model.
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
from reviewgen.data.store import count_given
from reviewgen.devices import device_errors
from reviewgen.errors import growing_state
from reviewgen.generation.states import map_state
from reviewgen.protocols.model import LanguageModel, State, SupportsScore
from reviewgen.rates import find_intervals

Document: TypeAlias = tuple[np.ndarray, int]
"""The ids of a text (bos, conditions, fields, tokens, eos) and its number of characters."""

_ROWS = 64  # texts that are scored side by side
_MAX_LOGITS = 1 << 23  # in one forward call: B x T x V
_MAX_TOKENS = 512  # per row in one forward call, T
_MAX_PADDING = 0.08  # the share of padding among the tokens of a forward call
_BATCH_TEXTS = 1024
# of the texts on which gains are measured, about; each is scored twice more for each condition
_GAIN_TOKENS = 100_000


def batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Yield the documents in lists of up to 1,024, whose texts are scored together."""
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
    """Return the negative log likelihood (nats) of each text's tokens, without those of bos and of
    the ids that are given.

    Args:
        model: The model, in evaluation mode.
        texts: The ids of each text, at least two.
        vocab_size: The tokenizer's; limits the tokens of one forward call.
        device: The device of the model.
        given: The number of ids after bos that are given; by default those of conditions and
            fields.

    Raises:
        DeviceError: The device has failed, as it does when it has no memory left.
    """
    losses: list[np.ndarray] = [np.empty(len(text) - 1, np.float32) for text in texts]
    # the longest is last, and starts first
    waiting = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    lengths = np.array([len(nats) for nats in losses])
    # fewer rows where one text is very long, so that it does not end long after all others
    size = max(1, min(_ROWS, lengths.sum() // max(lengths, default=1)))
    rows = list[int]()
    starts = np.zeros(0, np.int64)
    state = None
    with device_errors(device):
        while rows or waiting:
            added = [waiting.pop() for _ in range(min(size - len(rows), len(waiting)))]
            if added:
                fresh = model.initial_state(len(added))
                state = map_state(_join, state, fresh) if rows else fresh
            rows = rows + added
            starts = np.append(starts, np.zeros(len(added), np.int64))
            remaining = lengths[rows] - starts
            length = _choose_length(
                remaining, max(1, min(_MAX_TOKENS, _MAX_LOGITS // (len(rows) * vocab_size)))
            )
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
            rows = [rows[row] for row in continuing]
            starts = starts[continuing] + length
    return [
        nats[count_given(text, vocab_size) if given is None else given :]
        for nats, text in zip(losses, texts, strict=True)
    ]


def _choose_length(remaining: Int64[np.ndarray, " B"], longest: int) -> int:
    """Return how many tokens of each row to score in a call, so that few rows end much earlier."""
    lengths = np.unique(np.minimum(remaining, longest))
    # the share of padding, which rises with the length
    padding = [1 - np.minimum(remaining, length).mean() / length for length in lengths]
    return int(lengths[max(0, int(np.searchsorted(padding, _MAX_PADDING, side="right")) - 1)])


def _score_rows(
    model: LanguageModel, ids: Int[Tensor, "B T1"], state: State
) -> tuple[Float[np.ndarray, "B T"], State]:
    """Return the negative log likelihood (nats) of each id but the first of each row, and the state
    after the last but one.
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
    """Return the cross entropy (nats) of each target, without a copy of the logits where they are
    on the CPU.
    """
    is_time_first = not logits.is_contiguous()  # in memory, as from torch's recurrent layers
    if is_time_first:
        logits = logits.transpose(0, 1)
        targets = targets.transpose(0, 1)
    if logits.device.type == "cpu" and logits.dtype in PRECISIONS:
        if (largest := int(targets.max())) >= logits.shape[-1]:
            raise IndexError(
                f"Target {largest} is out of range: the model has logits for ids 0 to"
                f" {logits.shape[-1] - 1}."
            )
        losses = np.empty(targets.numel(), np.float32)
        target_losses(as_array(logits.flatten(0, 1)), targets.flatten().numpy(), losses)
    else:
        losses = (
            F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
            .cpu()
            .numpy()
        )
    table: np.ndarray = losses.reshape(targets.shape)
    return table.T if is_time_first else table


def _join(first: Tensor, second: Tensor) -> Tensor:
    if first.shape[1:] != second.shape[1:]:
        raise growing_state(first.shape, second.shape)
    return torch.cat([first, second])


@dataclass(frozen=True)
class ConditionGain:
    """What a model saves by reading a condition.

    Attributes:
        name: The condition.
        bits_per_character: The bits per character that it saves, compared with leaving it out.
        interval: The 95 % interval of these, low and high; None for fewer than ten texts.
        shuffled: The bits per character that the values of other texts save; negative where they
            cost some.
        characters: The number of characters of the texts for which it is given.
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
        among = (
            ""
            if self.interval is None
            else f" (95 %: {self.interval[0]:.{digits}f} to {self.interval[1]:.{digits}f})"
        )
        what = f"{self.name} saves" if self.has_effect else f"{self.name} has no effect: it saves"
        saved = f"{self.bits_per_character:.{digits}f}"
        other = f"{self.shuffled:.{digits}f}"
        return f"{what} {saved} bits per character{among}; the value of another text {other}"

    @property
    def has_effect(self) -> bool:
        """Whether it saves or costs bits: its interval does not contain zero."""
        low, high = self.interval or (self.bits_per_character, self.bits_per_character)
        # a threshold far below the 0.001 that two labels save in a long review
        is_zero = abs(self.bits_per_character) < 0.00005
        return not is_zero and not low <= 0 <= high


def suggest_next(gains: Sequence[ConditionGain], model: LanguageModel) -> list[str]:
    """Return a sentence that says what to do about conditions without effect on a network; an empty
    list if there are none.
    """
    unused = ", ".join(gain.name for gain in gains if not gain.has_effect)
    # a longer training does not change an n-gram, or a blend with one
    if not unused or not isinstance(model, torch.nn.Module):
        return []
    advice = "train longer, use a blend such as blend-word, or give fewer fields and conditions"
    return [f"No effect on this network: {unused}. To change that, {advice}."]


def keep_first(documents: Iterable[Document], kept: list[Document]) -> Iterator[Document]:
    """Yield documents, and add the first ones to a list, until it has the tokens that
    ``measure_gains`` needs.
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
    """Measure what each condition saves. Left out are conditions that fewer than two texts have, or
    whose texts have infinite bits.

    Args:
        model: The model, in evaluation mode.
        documents: The texts with their numbers of characters; see
            ``reviewgen.evaluation.evaluate.evaluate_documents``.
        conditions: The conditions of the model, with their ids.
        device: The device of the model.
        nats: The negative log likelihood of each text, and perhaps of more texts after them, if
            they are scored already.
    """
    prefixes = []  # the ids of each condition of each text
    texts = []  # bos, and the ids after the conditions
    for ids, _ in documents:
        start = 1 + count_given(ids, conditions.first_id)
        prefixes.append(conditions.split(ids[1:start].tolist()))
        texts.append((ids[:1], ids[start:]))
    absent = conditions.split(conditions.unspecified_ids)
    if all(prefix == absent for prefix in prefixes):
        return ()

    def measure_bits(framed: Sequence[np.ndarray]) -> np.ndarray:
        losses = token_losses(model, framed, conditions.first_id, device)
        return np.array([text_losses.sum(dtype=np.float64) / math.log(2) for text_losses in losses])

    def replace_values(place: int, values: Mapping[int, list[int]]) -> list[np.ndarray]:
        """Return some texts, by their numbers, with other values of a condition."""
        framed = []
        for number, value in values.items():
            first, rest = texts[number]
            prefix = [*prefixes[number]]
            prefix[place] = value
            framed.append(np.concatenate((first, *prefix, rest)).astype(np.int64))
        return framed

    if nats:
        bits = np.array(nats[: len(documents)]) / math.log(2)
    else:
        bits = measure_bits([ids for ids, _ in documents])
    characters = np.array([length for _, length in documents])
    gains = list[ConditionGain]()
    for place, name in enumerate(conditions.names):
        numbers = [
            number for number, prefix in enumerate(prefixes) if prefix[place] != absent[place]
        ]
        if len(numbers) < 2 or not characters[numbers].sum():
            continue
        # each text gets the value of the text before it in a random order, so none keeps its own
        order = np.random.default_rng(0).permutation(numbers)
        before = dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))
        cycled = {number: prefixes[before[number]][place] for number in numbers}
        without = measure_bits(replace_values(place, dict.fromkeys(numbers, absent[place])))
        shuffled = measure_bits(replace_values(place, cycled))
        if np.isfinite([bits[numbers], without, shuffled]).all():
            saved = without - bits[numbers]
            gains.append(_gain(name, saved, without - shuffled, characters[numbers]))
    return tuple(gains)


def _gain(
    name: str, saved: np.ndarray, shuffled: np.ndarray, characters: np.ndarray
) -> ConditionGain:
    """Return the gain of a condition, from the bits that its value and the value of another text
    save in each text, and the characters of each text.
    """
    items: list[tuple[float, int]] = list(zip(saved.tolist(), characters.tolist(), strict=True))

    def measure(some: Sequence[tuple[float, int]]) -> list[float]:
        return [sum(bits for bits, _ in some) / max(1, sum(length for _, length in some))]

    total = int(characters.sum())
    interval = find_intervals(measure, items, [False])[0]
    return ConditionGain(name, measure(items)[0], interval, sum(shuffled.tolist()) / total, total)
