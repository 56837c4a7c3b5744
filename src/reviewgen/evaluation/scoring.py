"""Evaluates a model on texts, and scores single texts. Inner functions use nats, results are in bits."""

import math
import time
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float64

from reviewgen.data import TokenStore
from reviewgen.errors import DataError, quoted
from reviewgen.evaluation.losses import Document, batches, token_losses
from reviewgen.evaluation.results import Evaluation, Score, TokenScore, Totals
from reviewgen.protocols import LanguageModel, Tokenizer

_TIMED_TEXTS, _TIMED_TOKENS = 16, 200


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
    return add_up(_add_up_batch(model, batch, vocab_size, device, given) for batch in batches(documents))


def add_up(totals: Iterable[Totals]) -> Totals:
    """Return the sum of sums, added in their order."""
    nats, tokens, characters, reviews, impossible = 0.0, 0, 0, 0, 0
    for each in totals:
        nats += each.nats
        tokens += each.tokens
        characters += each.characters
        reviews += each.reviews
        impossible += each.zero_probability_tokens
    return Totals(nats, tokens, characters, reviews, impossible)


def _add_up_batch(model: LanguageModel, batch: Sequence[Document], vocab_size: int, device: str, given: int) -> Totals:
    losses = np.concatenate(token_losses(model, [ids for ids, _ in batch], vocab_size, device, given))
    characters = sum(length for _, length in batch)
    return Totals(float(losses.sum(dtype=np.float64)), losses.size, characters, len(batch), int(np.isinf(losses).sum()))


def score_text(
    model: LanguageModel, tokenizer: Tokenizer, text: str, prefix: Sequence[int] = (), given: str = "", device: str = "cpu"
) -> Score:
    """Return the bits of one text, including its end token, given the ids of its conditions and the text before it.

    Args:
        model: The model, in evaluation mode.
        tokenizer: Its tokenizer.
        text: The text.
        prefix: The ids of its conditions.
        given: The text before it.
        device: The device of the model.

    Raises:
        DataError: The text is empty, or not a string.
    """
    if not isinstance(text, str) or not isinstance(given, str):
        raise DataError(f"A text to score must be a string; got {quoted(given if isinstance(text, str) else text)}.")
    if not text:
        raise DataError("There is no text to score; give one of at least one character.")
    ids = tokenizer.encode(text)
    before = [*prefix, *tokenizer.encode(given)]
    framed = np.array([tokenizer.bos_id, *before, *ids, tokenizer.eos_id])
    bits = token_losses(model, [framed], tokenizer.vocab_size, device, len(before))[0] / math.log(2)
    texts = [tokenizer.decode([token]) for token in ids] + [""]
    scores = [TokenScore(piece, float(value)) for piece, value in zip(texts, bits, strict=True)]
    total = float(bits.sum(dtype=np.float64))
    return Score(total, total / len(text), scores)


def log_probabilities(model: LanguageModel, ids: list[int], context: int, device: str = "cpu") -> list[float]:
    """Return the log probability (nats) of each id after the first ``context`` ids (bos, conditions and prompt).

    Args:
        model: The model, in evaluation mode.
        ids: The ids of a text, bos first.
        context: How many of them are not scored.
        device: The device of the model.
    """
    if len(ids) == context:
        return []
    losses = token_losses(model, [np.array(ids, np.int64)], model.config.vocab_size, device, context - 1)[0]
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
    for batch in batches(documents):
        texts = [ids for ids, _ in batch]
        losses = [np.concatenate(token_losses(model, texts, vocab_size, "cpu", given)) for model in models]
        tables.append(-np.stack(losses, axis=1).astype(np.float64))
        characters += sum(length for _, length in batch)
    if not characters:
        raise DataError("There is no text to score." if len(tables) == 1 else "The texts to score have no characters.")
    return np.concatenate(tables), characters


def sample_documents(store: TokenStore, tokens: int) -> list[Document]:
    """Return texts of a store, evenly spaced, with about ``tokens`` tokens in all."""
    share = min(1.0, tokens / max(1, store.tokens))
    count = max(1, round(share * len(store))) if len(store) else 0
    return [(store.document(index), int(store.characters[index])) for index in _spread(len(store), count)]


def spread_documents(documents: Sequence[Document], count: int) -> list[Document]:
    """Return up to ``count`` of some documents, evenly spaced; of fewer than all, those that have characters."""
    if count < len(documents):
        documents = [document for document in documents if document[1]] or documents
    return [documents[index] for index in _spread(len(documents), min(count, len(documents)))]


def measure_rate(
    model: LanguageModel, documents: Sequence[Document], vocab_size: int, device: str = "cpu", given: int = 0
) -> float:
    """Return how many tokens per second a model scores: measured on the beginnings of a few documents, after a warm-up.

    Raises:
        NotADistribution: The model's scores do not sum to one.
    """
    texts = [ids[:_TIMED_TOKENS] for ids, _ in documents[:_TIMED_TEXTS]]
    token_losses(model, texts[:1], vocab_size, device, given)
    start = time.monotonic()
    losses = token_losses(model, texts, vocab_size, device, given)
    return sum(map(len, losses)) / max(time.monotonic() - start, 1e-9)


def _spread(size: int, count: int) -> list[int]:
    """Return ``count`` indices below ``size``, evenly spaced; one is in the middle."""
    return [int((2 * number + 1) * size // (2 * count)) for number in range(count)]
