"""The batch that is explained: texts as ids and targets, and the tokens for display. B batch, T time (tokens)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from reviewgen.conditions import Conditions
from reviewgen.errors import DataError
from reviewgen.generation.next_tokens import show
from reviewgen.protocols import Tokenizer

SAMPLE_TEXTS = ("The movie was good.", "I did not like the end of it.")
MAX_TEXTS = 4
MAX_TOKENS = 256  # of a text that are explained
_MAX_CHARACTERS = 64 * MAX_TOKENS  # of a text that are tokenized
IGNORED = -100  # the target where none is to be predicted, as torch's losses have it


@dataclass(frozen=True)
class Batch:
    """The ids of some texts.

    Attributes:
        texts: The texts, perhaps cut.
        ids: What the model reads: bos, conditions, tokens; shorter texts are padded with eos.
        targets: The tokens that follow, IGNORED after bos and at padding.
        rows: The ids of each text without padding.
        tokens: The tokens read of each text, for display.
        characters: The characters of all texts.
        notes: Sentences on texts that were cut.
    """

    texts: tuple[str, ...]
    ids: Int[Tensor, "B T"]
    targets: Int[Tensor, "B T"]
    rows: tuple[list[int], ...]
    tokens: tuple[tuple[str, ...], ...]
    characters: int
    notes: tuple[str, ...] = ()

    @property
    def is_read(self) -> Bool[Tensor, "B T"]:
        """Whether each position is one of a text, not padding."""
        lengths = torch.tensor([len(row) for row in self.rows])
        return torch.arange(self.ids.size(1)) < lengths[:, None]


class Labels:
    """The ids of a model for display: tokens, each decoded once, and conditions."""

    def __init__(self, tokenizer: Tokenizer, conditions: Conditions) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, str] = {tokenizer.bos_id: "(start)", tokenizer.eos_id: "(end)"}
        for condition, first in zip(conditions, conditions.unspecified_ids, strict=True):
            self._known[first] = f"({condition.name} not given)"
            self._known |= {first + n: f"({condition.name} {value.label})" for n, value in enumerate(condition.values, 1)}

    def label(self, token: int) -> str:
        """Return a token for display."""
        if token not in self._known:
            text = self._tokenizer.decode([token])
            self._known[token] = show(text) if text and "\ufffd" not in text else "(byte)"  # a part of a character
        return self._known[token]


def check_texts(text: object) -> tuple[str, ...]:
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
    if len(texts) > MAX_TEXTS:
        raise DataError(f"At most {MAX_TEXTS} texts are explained at once; got {len(texts)}.")
    return texts


def make_batch(texts: Sequence[str], tokenizer: Tokenizer, prefix: Sequence[int], labels: Labels) -> Batch:
    """Return the batch of some texts; of a long one, the beginning.

    Args:
        texts: The texts.
        tokenizer: The model's.
        prefix: The ids of the conditions.
        labels: For display.
    """
    frames, shown, notes = [], [], []
    for text in texts:
        ids = tokenizer.encode(text[:_MAX_CHARACTERS])
        is_cut = len(ids) > MAX_TOKENS or len(text) > _MAX_CHARACTERS
        ids = list(ids[:MAX_TOKENS])
        shown.append(tokenizer.decode(ids) if is_cut else text)
        frames.append([tokenizer.bos_id, *prefix, *ids, *([] if is_cut else [tokenizer.eos_id])])
        if is_cut:
            notes.append(f"Of a text of {len(text):,} characters the first {len(ids)} tokens are explained.")
    rows = tuple(frame[:-1] for frame in frames)
    steps = max(map(len, rows))
    ids_of_rows = torch.full((len(rows), steps), tokenizer.eos_id)
    targets = torch.full((len(rows), steps), IGNORED)
    for number, frame in enumerate(frames):
        ids_of_rows[number, : len(frame) - 1] = torch.tensor(frame[:-1])
        targets[number, len(prefix) : len(frame) - 1] = torch.tensor(frame[1 + len(prefix) :])
    return Batch(
        texts=tuple(shown),
        ids=ids_of_rows,
        targets=targets,
        rows=rows,
        tokens=tuple(tuple(map(labels.label, row)) for row in rows),
        characters=sum(map(len, shown)),
        notes=tuple(notes),
    )
