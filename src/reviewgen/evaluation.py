"""Bits per character: the one number that compares an n-gram, a character model and a BPE model.

It is the total bits of the reviews, each with its end token, divided by their characters. Unseen events are never skipped: a
model that gives one probability zero scores infinity, and the count of such tokens says so. The conditions of a review are given,
not predicted: they are read and cost nothing. Nats inside, bits outside.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor
from torch.nn import functional as F

from reviewgen.data import TokenStore
from reviewgen.errors import DataError
from reviewgen.protocols import LanguageModel, SupportsScore, Tokenizer

__all__ = [
    "Evaluation",
    "Score",
    "TokenScore",
    "Totals",
    "add_up_documents",
    "evaluate_documents",
    "finite",
    "log_probabilities",
    "sample_documents",
    "score_text",
    "score_tokens",
]

_ROWS = 64  # texts side by side
_LOGITS = 1 << 23  # in one call: rows x tokens x vocabulary
_LONGEST_CALL = 512  # tokens a row
_BUFFER = 1024  # texts sorted by length together, so that rows are equally long

Document = tuple[np.ndarray, int]
"""A text's ids, bos and its conditions before them and eos behind, and its number of characters."""


@dataclass(frozen=True)
class Evaluation:
    """How well a model predicts texts; ``tokens`` counts end tokens."""

    bits_per_character: float
    nats_per_character: float
    perplexity_per_token: float
    characters: int
    tokens: int
    reviews: int
    zero_probability_tokens: int


@dataclass(frozen=True)
class TokenScore:
    """One token of a scored text; the end token's text is empty."""

    text: str
    bits: float


@dataclass(frozen=True)
class Score:
    """The bits that one text takes, in all, per character and token by token."""

    bits: float
    bits_per_character: float
    tokens: list[TokenScore]


@dataclass(frozen=True)
class Totals:
    """What an evaluation adds up; those of parts of the texts add up to those of all."""

    nats: float = 0.0
    tokens: int = 0
    characters: int = 0
    reviews: int = 0
    zero_probability_tokens: int = 0

    def evaluation(self) -> Evaluation:
        """Return what the totals say.

        Raises:
            DataError: There are no texts, or none of them has a character.
        """
        if not self.characters:
            raise DataError("There is no text to evaluate." if not self.reviews else "The texts to evaluate have no characters.")
        return Evaluation(
            bits_per_character=self.nats / self.characters / math.log(2),
            nats_per_character=self.nats / self.characters,
            perplexity_per_token=_exp(self.nats / self.tokens),
            characters=self.characters,
            tokens=self.tokens,
            reviews=self.reviews,
            zero_probability_tokens=self.zero_probability_tokens,
        )


def evaluate_documents(
    model: LanguageModel, documents: Iterable[Document], vocab_size: int, device: str = "cpu", given: int = 0
) -> Evaluation:
    """Measure a model, in evaluation mode, on framed texts; each starts from the initial state.

    Args:
        model: The model.
        documents: The texts.
        vocab_size: The number of ids; sizes the calls.
        device: Where the model is.
        given: How many ids after bos are conditions, which are read but not predicted.

    Raises:
        DataError: There are no texts, or none of them has a character.
    """
    return add_up_documents(model, documents, vocab_size, device, given).evaluation()


def add_up_documents(
    model: LanguageModel, documents: Iterable[Document], vocab_size: int, device: str = "cpu", given: int = 0
) -> Totals:
    """Return the totals of an evaluation, of no texts too; see ``evaluate_documents``."""
    nats, tokens, characters, reviews, impossible = 0.0, 0, 0, 0, 0
    for group in _groups(documents):
        losses = np.concatenate(_score_group(model, [ids for ids, _ in group], vocab_size, device, given))
        nats += float(losses.sum(dtype=np.float64))
        impossible += int(np.isinf(losses).sum())
        tokens += losses.size
        characters += sum(length for _, length in group)
        reviews += len(group)
    return Totals(nats, tokens, characters, reviews, impossible)


def score_text(model: LanguageModel, tokenizer: Tokenizer, text: str, prefix: Sequence[int] = ()) -> Score:
    """Score one text, its end token included, after the ids of its conditions.

    Raises:
        DataError: The text is empty.
    """
    if not isinstance(text, str) or not text:
        raise DataError("There is no text to score; give one of at least one character.")
    ids = tokenizer.encode(text)
    framed = np.array([tokenizer.bos_id, *prefix, *ids, tokenizer.eos_id])
    bits = _score_group(model, [framed], tokenizer.vocab_size, "cpu", len(prefix))[0] / math.log(2)
    texts = [tokenizer.decode([token]) for token in ids] + [""]
    scores = [TokenScore(piece, float(value)) for piece, value in zip(texts, bits, strict=True)]
    total = float(bits.sum(dtype=np.float64))
    return Score(total, total / len(text), scores)


def log_probabilities(model: LanguageModel, ids: list[int], given: int) -> list[float]:
    """Return the log probability (nats) of each token of a text after the first ``given`` ones."""
    if len(ids) == given:
        return []
    losses = _score_group(model, [np.array(ids, np.int64)], model.config.vocab_size, "cpu", given - 1)[0]
    scores: list[float] = (-losses).tolist()
    return scores


def score_tokens(
    models: Sequence[LanguageModel], documents: Iterable[Document], vocab_size: int, given: int = 0
) -> tuple[Float64[np.ndarray, "N M"], int]:
    """Return the log probability (nats) of each of N tokens, end tokens included, under each of M models, and the characters.

    ``given`` ids after bos are conditions and not scored. The documents are read once. Memory is eight bytes a token and model.

    Raises:
        DataError: There are no texts, or none of them has a character.
    """
    tables, characters = [np.zeros((0, len(models)))], 0
    for group in _groups(documents):
        texts = [ids for ids, _ in group]
        losses = [np.concatenate(_score_group(model, texts, vocab_size, "cpu", given)) for model in models]
        tables.append(-np.stack(losses, axis=1).astype(np.float64))
        characters += sum(length for _, length in group)
    if not characters:
        raise DataError("There is no text to score." if len(tables) == 1 else "The texts to score have no characters.")
    return np.concatenate(tables), characters


def finite(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Return numbers with None for those that JSON cannot hold (infinity, not a number)."""
    return {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in numbers.items()}


def sample_documents(store: TokenStore, tokens: int) -> list[Document]:
    """Return texts of a store, spread evenly over it, of about so many tokens in all."""
    share = min(1.0, tokens / max(1, store.tokens))
    count = max(1, round(share * len(store))) if len(store) else 0
    places = np.linspace(0, len(store) - 1, count).round().astype(int)
    return [(store.document(place), int(store.characters[place])) for place in places.tolist()]


def _groups(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Yield groups of texts of similar length."""
    iterator = iter(documents)
    while buffer := sorted(itertools.islice(iterator, _BUFFER), key=lambda document: len(document[0])):
        for start in range(0, len(buffer), _ROWS):
            yield buffer[start : start + _ROWS]


@torch.inference_mode()
def _score_group(model: LanguageModel, texts: list[np.ndarray], vocab_size: int, device: str, given: int) -> list[np.ndarray]:
    """Return the negative log likelihood (nats) of each text's tokens after bos and the given ones."""
    longest = max(map(len, texts)) - 1
    padded = np.zeros((len(texts), longest + 1), np.int64)
    for row, text in zip(padded, texts, strict=True):
        row[: len(text)] = text
    ids = torch.from_numpy(padded).to(device)
    step = max(1, min(_LONGEST_CALL, _LOGITS // (len(texts) * vocab_size)))
    state = model.initial_state(len(texts))
    losses = []
    for start in range(0, longest, step):
        inputs, targets = ids[:, start : start + step], ids[:, start + 1 : start + step + 1]
        inputs = inputs[:, : targets.shape[1]]
        if isinstance(model, SupportsScore):
            log_likelihoods, state = model.score(inputs, targets, state)
            losses.append(-log_likelihoods)
        else:
            logits, state = model(inputs, state)
            losses.append(_cross_entropy(logits, targets))
    table = torch.cat(losses, dim=1).float().cpu().numpy()  # (B, longest)
    return [row[given : len(text) - 1] for row, text in zip(table, texts, strict=True)]


def _cross_entropy(logits: Float[Tensor, "B T V"], targets: Int[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    flat = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
    return flat.view(targets.shape)


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
