"""The batch that is explained: texts as ids and targets, and the tokens for display. B batch, T time (tokens)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from reviewgen.errors import DataError
from reviewgen.generation import show
from reviewgen.look.subject import Subject

SAMPLE_TEXTS = ("The movie was good.", "I did not like the end of it.")
IGNORED = -100  # the target where none is to be predicted, as torch's losses have it
_MOST_TEXTS, _MOST_TOKENS = 4, 256
_MOST_CHARACTERS = 64 * _MOST_TOKENS  # of a text that are tokenized


@dataclass(frozen=True)
class Batch:
    """The ids of some texts.

    Attributes:
        texts: The texts, perhaps cut.
        ids: What the model reads: bos, conditions, tokens; shorter texts are padded with eos.
        targets: The tokens that follow, IGNORED after bos and at padding.
        rows: The ids of each text without padding.
        labels: The tokens of a model for display.
        notes: Sentences on texts that were cut.
    """

    texts: tuple[str, ...]
    ids: Int[Tensor, "B T"]
    targets: Int[Tensor, "B T"]
    rows: list[list[int]]
    labels: "Labels"
    notes: tuple[str, ...]

    @property
    def is_read(self) -> Bool[Tensor, "B T"]:
        """Whether each position is one of a text, not padding."""
        return torch.arange(self.ids.size(1)) < torch.tensor([len(row) for row in self.rows])[:, None]

    @property
    def places(self) -> list[tuple[int, int]]:
        """Row and position of each prediction, text by text."""
        return [(row, time) for row, time in torch.nonzero(self.targets != IGNORED).tolist()]


class Labels(dict[int, str]):
    """The ids of a model for display: tokens, each decoded once, and conditions."""

    def __init__(self, subject: Subject) -> None:
        self._tokenizer = subject.tokenizer
        super().__init__({self._tokenizer.bos_id: "(start)", self._tokenizer.eos_id: "(end)"})
        for condition, first in zip(subject.conditions, subject.conditions.unspecified_ids, strict=True):
            self[first] = f"({condition.name} not given)"
            self.update({first + n: f"({condition.name} {value.label})" for n, value in enumerate(condition.values, 1)})

    def __missing__(self, token: int) -> str:
        text = self._tokenizer.decode([token])
        self[token] = show(text) if text and "\ufffd" not in text else "(byte)"  # a part of a character
        return self[token]


def check_texts(text: Any) -> tuple[str, ...]:
    """Return the texts to explain; without any, sample texts.

    Raises:
        DataError: A text is empty or not a string, or there are too many.
    """
    if text is None:
        return SAMPLE_TEXTS
    texts = (text,) if isinstance(text, str) or not isinstance(text, Sequence) else tuple(text)
    if wrong := [each for each in texts if not isinstance(each, str)]:
        raise DataError(f"A text to explain must be a string; got {type(wrong[0]).__name__}.")
    if not texts or not all(texts):
        raise DataError("A text to explain is empty; give one of at least one character.")
    if len(texts) > _MOST_TEXTS:
        raise DataError(f"At most {_MOST_TEXTS} texts are explained at once; got {len(texts)}.")
    return texts


def make_batch(texts: Sequence[str], subject: Subject, prefix: Sequence[int]) -> Batch:
    """Return the batch of some texts, behind the ids of their conditions; of a long text, the beginning."""
    tokenizer, frames, shown, notes = subject.tokenizer, [], [], []
    for text in texts:
        ids = list(tokenizer.encode(text[:_MOST_CHARACTERS]))
        is_cut = len(ids) > _MOST_TOKENS or len(text) > _MOST_CHARACTERS
        ids = ids[:_MOST_TOKENS]
        shown.append(tokenizer.decode(ids) if is_cut else text)
        frames.append([tokenizer.bos_id, *prefix, *ids, *([] if is_cut else [tokenizer.eos_id])])
        if is_cut:
            notes.append(f"Of a text of {len(text):,} characters the first {len(ids)} tokens are explained.")
    steps, first = max(map(len, frames)) - 1, len(prefix)
    ids_of_rows = torch.full((len(frames), steps), tokenizer.eos_id)
    targets = torch.full((len(frames), steps), IGNORED)
    for n, frame in enumerate(frames):
        ids_of_rows[n, : len(frame) - 1] = torch.tensor(frame[:-1])
        targets[n, first : len(frame) - 1] = torch.tensor(frame[1 + first :])
    return Batch(tuple(shown), ids_of_rows, targets, [frame[:-1] for frame in frames], Labels(subject), tuple(notes))
