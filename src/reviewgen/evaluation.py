"""Evaluation of a model in bits per character, which compares models of different vocabularies (n-gram, character, BPE).

It is the sum of ``-log2 p`` over all tokens of the texts, end tokens included, divided by the number of characters of the texts.
No token is skipped: if the model gives one probability zero, the result is infinite, and the number of such tokens is reported.
Condition ids are inputs and not predicted, so they add no bits. Inner functions use nats, results are in bits.
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

_BATCH_SIZE = 64  # texts
_MAX_LOGITS = 1 << 23  # in one forward call: B x T x V
_MAX_TOKENS = 512  # per row in one forward call, T
_BUFFER = 1024  # texts that are sorted by length together, so that the rows of a batch have similar lengths

Document = tuple[np.ndarray, int]
"""The ids of a text (bos, conditions, tokens, eos) and its number of characters."""


@dataclass(frozen=True)
class Evaluation:
    """How well a model predicts texts.

    Attributes:
        bits_per_character: Total bits divided by the characters; infinite if a token has probability zero.
        nats_per_character: The same in nats.
        perplexity_per_token: exp of the nats per token; comparable only between models with the same tokenizer.
        characters: The number of characters.
        tokens: The number of predicted tokens, including end tokens.
        reviews: The number of texts.
        zero_probability_tokens: The number of tokens with probability zero.
    """

    bits_per_character: float
    nats_per_character: float
    perplexity_per_token: float
    characters: int
    tokens: int
    reviews: int
    zero_probability_tokens: int


@dataclass(frozen=True)
class TokenScore:
    """One token of a scored text.

    Attributes:
        text: The token's text; empty for the end token.
        bits: Its negative log2 probability.
    """

    text: str
    bits: float


@dataclass(frozen=True)
class Score:
    """The negative log2 probability of one text.

    Attributes:
        bits: The total, including the end token.
        bits_per_character: The total divided by the number of characters.
        tokens: The bits of each token, the end token last.
    """

    bits: float
    bits_per_character: float
    tokens: list[TokenScore]


@dataclass(frozen=True)
class Totals:
    """The sums over texts that an evaluation is computed from; the sums of several processes can be added.

    Attributes:
        nats: The negative log likelihood.
        tokens: The number of predicted tokens, including end tokens.
        characters: The number of characters.
        reviews: The number of texts.
        zero_probability_tokens: The number of tokens with probability zero.
    """

    nats: float = 0.0
    tokens: int = 0
    characters: int = 0
    reviews: int = 0
    zero_probability_tokens: int = 0

    def evaluation(self) -> Evaluation:
        """Return the evaluation: the sums per character and per token.

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
    """Evaluate a model on encoded texts; each text starts from the initial state.

    Args:
        model: The model, in evaluation mode.
        documents: The texts.
        vocab_size: The number of ids; limits the size of a batch.
        device: The device of the model.
        given: The number of condition ids after bos, which are inputs and not predicted.

    Raises:
        DataError: There are no texts, or none of them has a character.
    """
    return add_up_documents(model, documents, vocab_size, device, given).evaluation()


def add_up_documents(
    model: LanguageModel, documents: Iterable[Document], vocab_size: int, device: str = "cpu", given: int = 0
) -> Totals:
    """Return the sums of an evaluation, which may be over no texts; see ``evaluate_documents`` for the arguments."""
    nats, tokens, characters, reviews, impossible = 0.0, 0, 0, 0, 0
    for batch in _batches(documents):
        losses = np.concatenate(_token_losses(model, [ids for ids, _ in batch], vocab_size, device, given))
        nats += float(losses.sum(dtype=np.float64))
        impossible += int(np.isinf(losses).sum())
        tokens += losses.size
        characters += sum(length for _, length in batch)
        reviews += len(batch)
    return Totals(nats, tokens, characters, reviews, impossible)


def score_text(model: LanguageModel, tokenizer: Tokenizer, text: str, prefix: Sequence[int] = ()) -> Score:
    """Return the bits of one text, including its end token, given the ids of its conditions.

    Raises:
        DataError: The text is empty, or not a string.
    """
    if not isinstance(text, str):
        raise DataError(f"A text to score must be a string; got {text!r}.")
    if not text:
        raise DataError("There is no text to score; give one of at least one character.")
    ids = tokenizer.encode(text)
    framed = np.array([tokenizer.bos_id, *prefix, *ids, tokenizer.eos_id])
    bits = _token_losses(model, [framed], tokenizer.vocab_size, "cpu", len(prefix))[0] / math.log(2)
    texts = [tokenizer.decode([token]) for token in ids] + [""]
    scores = [TokenScore(piece, float(value)) for piece, value in zip(texts, bits, strict=True)]
    total = float(bits.sum(dtype=np.float64))
    return Score(total, total / len(text), scores)


def log_probabilities(model: LanguageModel, ids: list[int], context: int) -> list[float]:
    """Return the log probability (nats) of each id after the first ``context`` ids (bos, conditions and prompt)."""
    if len(ids) == context:
        return []
    losses = _token_losses(model, [np.array(ids, np.int64)], model.config.vocab_size, "cpu", context - 1)[0]
    scores: list[float] = (-losses).tolist()
    return scores


def score_tokens(
    models: Sequence[LanguageModel], documents: Iterable[Document], vocab_size: int, given: int = 0
) -> tuple[Float64[np.ndarray, "N M"], int]:
    """Return the log probability (nats) of each of N tokens under each of M models, and the number of characters.

    Tokens include end tokens. The documents are iterated over once. Memory is eight bytes per token and model.

    Args:
        models: The models, in evaluation mode.
        documents: The texts.
        vocab_size: The number of ids; limits the size of a batch.
        given: The number of condition ids after bos, which are inputs and not scored.

    Raises:
        DataError: There are no texts, or none of them has a character.
    """
    tables, characters = [np.zeros((0, len(models)))], 0
    for batch in _batches(documents):
        texts = [ids for ids, _ in batch]
        losses = [np.concatenate(_token_losses(model, texts, vocab_size, "cpu", given)) for model in models]
        tables.append(-np.stack(losses, axis=1).astype(np.float64))
        characters += sum(length for _, length in batch)
    if not characters:
        raise DataError("There is no text to score." if len(tables) == 1 else "The texts to score have no characters.")
    return np.concatenate(tables), characters


def finite(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the mapping with None for infinite and NaN values, which JSON does not have."""
    return {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in numbers.items()}


def sample_documents(store: TokenStore, tokens: int) -> list[Document]:
    """Return texts of a store, evenly spaced, with about ``tokens`` tokens in all."""
    share = min(1.0, tokens / max(1, store.tokens))
    count = max(1, round(share * len(store))) if len(store) else 0
    indices = np.linspace(0, len(store) - 1, count).round().astype(int)
    return [(store.document(index), int(store.characters[index])) for index in indices.tolist()]


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Yield batches of texts of similar length."""
    iterator = iter(documents)
    while buffer := sorted(itertools.islice(iterator, _BUFFER), key=lambda document: len(document[0])):
        for start in range(0, len(buffer), _BATCH_SIZE):
            yield buffer[start : start + _BATCH_SIZE]


@torch.inference_mode()
def _token_losses(model: LanguageModel, texts: list[np.ndarray], vocab_size: int, device: str, given: int) -> list[np.ndarray]:
    """Return the negative log likelihood (nats) of each text's tokens after bos and the ``given`` condition ids."""
    longest = max(map(len, texts)) - 1
    padded = np.zeros((len(texts), longest + 1), np.int64)
    for row, text in zip(padded, texts, strict=True):
        row[: len(text)] = text
    ids = torch.from_numpy(padded).to(device)
    step = max(1, min(_MAX_TOKENS, _MAX_LOGITS // (len(texts) * vocab_size)))
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
