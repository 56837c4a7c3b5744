"""What conditions are worth: the bits that a model saves by reading each, compared with values of other texts.

A useful condition saves bits, and costs bits if its value is taken from another text. A condition that does neither is ignored by
the model.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from reviewgen.conditions import Conditions
from reviewgen.data import count_given
from reviewgen.evaluation.scoring import Document, token_losses
from reviewgen.protocols import LanguageModel
from reviewgen.rates import find_intervals

_TOKENS = 100_000  # of the texts, about; each is scored twice more for each condition


@dataclass(frozen=True)
class ConditionGain:
    """What a model saves by reading a condition.

    Attributes:
        name: The condition.
        bits_per_character: The bits per character that it saves, compared with leaving it out.
        interval: The 95 % interval of these, low and high; None for fewer than ten texts.
        shuffled: The bits per character that the values of other texts save; negative where they cost some.
        characters: The number of characters of the texts for which it is given.
    """

    name: str
    bits_per_character: float
    interval: Sequence[float] | None
    shuffled: float
    characters: int

    def describe(self) -> str:
        """Return a line for the user.

        >>> ConditionGain("artist", 0.0412, (0.035, 0.047), -0.0103, 52_000).describe()
        'artist saves 0.041 bits per character (95 %: 0.035 to 0.047); the value of another text -0.010'
        """
        digits = 3 if abs(self.bits_per_character) >= 0.005 else 4
        among = "" if self.interval is None else f" (95 %: {self.interval[0]:.{digits}f} to {self.interval[1]:.{digits}f})"
        low, high = self.interval or (self.bits_per_character, self.bits_per_character)
        does_nothing = abs(self.bits_per_character) < 0.00005 or low <= 0 <= high  # two labels save up to 0.001 in a long review
        what = f"{self.name} has no effect: it saves" if does_nothing else f"{self.name} saves"
        saved, other = f"{self.bits_per_character:.{digits}f}", f"{self.shuffled:.{digits}f}"
        return f"{what} {saved} bits per character{among}; the value of another text {other}"


def keep_first(documents: Iterable[Document], kept: list[Document]) -> Iterator[Document]:
    """Yield documents, and add the first ones to a list, of as many tokens as ``measure_gains`` takes."""
    tokens = 0
    for ids, characters in documents:
        if tokens < _TOKENS:
            kept.append((ids, characters))
            tokens += len(ids)
        yield ids, characters


def measure_gains(
    model: LanguageModel, documents: Sequence[Document], conditions: Conditions, device: str = "cpu", nats: Sequence[float] = ()
) -> tuple[ConditionGain, ...]:
    """Return what each condition saves that at least two of the texts have, if the bits of these texts are finite.

    Args:
        model: The model, in evaluation mode.
        documents: The texts with their numbers of characters; see ``reviewgen.evaluation.evaluate_documents``.
        conditions: The conditions of the model, with their ids.
        device: The device of the model.
        nats: The negative log likelihood of each text, and perhaps of more texts after them, if they are scored already.
    """

    def score(texts: Sequence[np.ndarray]) -> np.ndarray:
        """Return the bits of each text."""
        losses = token_losses(model, texts, conditions.first_id, device)
        return np.array([text_losses.sum(dtype=np.float64) / math.log(2) for text_losses in losses])

    prefixes, texts = [], []
    for ids, _ in documents:
        start = 1 + count_given(ids, conditions.first_id)
        prefixes.append(conditions.split(ids[1:start].tolist()))
        texts.append((ids[:1], ids[start:]))
    characters, absent = np.array([length for _, length in documents]), conditions.split(conditions.unspecified_ids)
    gains = list[ConditionGain]()
    is_given = any(parts != absent for parts in prefixes)
    bits = np.array(nats[: len(documents)]) / math.log(2)
    if not nats:
        bits = score([ids for ids, _ in documents]) if is_given else np.zeros(len(documents))
    for place, name in enumerate(conditions.names):
        numbers = [number for number, parts in enumerate(prefixes) if parts[place] != absent[place]]
        if len(numbers) < 2 or not characters[numbers].sum():
            continue
        values = [prefixes[number][place] for number in numbers]
        order = np.random.default_rng(0).permutation(len(numbers))
        cycled = [values[number] for number in order[np.argsort(order) - 1].tolist()]  # along one cycle, so no text keeps its own
        changed = []
        for replaced in ([absent[place]] * len(numbers), cycled):
            framed = []
            for number, value in zip(numbers, replaced, strict=True):
                parts, (first, rest) = prefixes[number], texts[number]
                prefix = [token for part in (*parts[:place], value, *parts[place + 1 :]) for token in part]
                framed.append(np.concatenate((first, prefix, rest)).astype(np.int64))
            changed.append(score(framed))
        without, shuffled = changed
        if np.isfinite([bits[numbers], *changed]).all():
            saved = (without - bits[numbers]).tolist(), (without - shuffled).tolist(), characters[numbers].tolist()
            items = list(zip(*saved, strict=True))
            gains.append(_gain(name, items))
    return tuple(gains)


def _gain(name: str, items: Sequence[tuple[float, float, int]]) -> ConditionGain:
    """Return what a condition saves, from the bits that it and another text's value save per text, and the lengths."""

    def measure(some: Sequence[tuple[float, float, int]]) -> list[float]:
        return [float(sum(saved for saved, _, _ in some) / max(1, sum(length for _, _, length in some)))]

    total = sum(length for _, _, length in items)
    shuffled = float(sum(saving for _, saving, _ in items) / total)
    return ConditionGain(name, measure(items)[0], find_intervals(measure, items, [False])[0], shuffled, int(total))
