"""Bits per character of many texts (``Evaluation``), or of one text token by token (``Score``)."""

import math
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from reviewgen.conditions import Conditions
from reviewgen.config.bounded import to_json
from reviewgen.data.tokens import Tokens, count_given
from reviewgen.errors import DataError, quoted
from reviewgen.evaluation.scoring import (
    ConditionGain,
    Document,
    batches,
    keep_first,
    measure_gains,
    token_losses,
)
from reviewgen.protocols.model import LanguageModel
from reviewgen.protocols.tokenizer import Tokenizer

_TIMED_TEXTS = 16  # measure_rate scores the beginnings of this many texts
_TIMED_TOKENS = 200  # measure_rate scores this many tokens of each
# Tokens of this many bits or more get the darkest shade. It is the same for every text, so that
# texts can be compared.
_DARKEST_BITS = 10.0
# exp of a larger number raises an OverflowError
_MAX_EXPONENT = math.log(sys.float_info.max)
_MAX_SHOWN = 2000  # maximum number of tokens of a text that a notebook shows


@dataclass(frozen=True)
class Evaluation:
    """How well a model predicts texts.

    Attributes:
        bits_per_character: The total bits divided by the number of characters; infinite if a token
            has probability zero.
        nats_per_character: The total nats divided by the number of characters.
        perplexity_per_token: exp(nats per token). It can only be compared between models with the
            same tokenizer.
        characters: The number of characters.
        tokens: The number of predicted tokens, including end tokens.
        reviews: The number of texts.
        zero_probability_tokens: The number of tokens with probability zero.
        conditions: The bits that each condition saves, measured on the first texts; empty for a
            model without conditions.
    """

    bits_per_character: float
    nats_per_character: float
    perplexity_per_token: float
    characters: int
    tokens: int
    reviews: int
    zero_probability_tokens: int
    conditions: tuple[ConditionGain, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON values, without ``conditions`` if it is empty."""
        facts = dict(to_json(self))
        if not self.conditions:
            del facts["conditions"]
        return facts

    def _repr_html_(self) -> str:
        """Return a table of the figures, for notebooks."""
        from reviewgen.web.rendering import render  # imports Jinja2

        return render("evaluation/evaluation.html", evaluation=self)


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

    def _repr_html_(self) -> str:
        """Return the text with each token shaded by its bits, for notebooks."""
        from reviewgen.web.rendering import render  # imports Jinja2

        end = len(self.tokens) - 1
        shown = []
        for index, token in enumerate(self.tokens[:_MAX_SHOWN]):
            if_empty = "(end)" if index == end else "(part of a character)"
            text = token.text.replace("\n", "⏎\n") or if_empty
            share = min(1.0, token.bits / _DARKEST_BITS)
            shade = round(10 * share) if math.isfinite(token.bits) else None
            shown.append({"text": text, "bits": token.bits, "shade": shade})
        return render(
            "evaluation/score.html",
            score=self,
            tokens=shown,
            most=_DARKEST_BITS,
            hidden=len(self.tokens) - len(shown),
        )


class Totals(NamedTuple):
    """The sums over texts from which an evaluation is computed. Several processes can each compute
    such sums and add them.

    Attributes:
        nats: The negative log likelihood of all tokens, in nats.
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
        """Compute the evaluation: divide the sums by the number of characters, and of tokens.

        Raises:
            DataError: There are no texts, or none of them has a character.
        """
        if not self.reviews:
            raise DataError("There is no text to evaluate.")
        if not self.characters:
            raise DataError("The texts to evaluate have no characters.")
        nats_per_character = self.nats / self.characters
        nats_per_token = self.nats / self.tokens
        perplexity = math.exp(nats_per_token) if nats_per_token <= _MAX_EXPONENT else math.inf
        bits_per_character = nats_per_character / math.log(2)
        sizes = (self.characters, self.tokens, self.reviews, self.zero_probability_tokens)
        return Evaluation(bits_per_character, nats_per_character, perplexity, *sizes)


def evaluate_documents(
    model: LanguageModel,
    documents: Iterable[Document],
    vocab_size: int,
    device: str = "cpu",
    conditions: Conditions | None = None,
) -> Evaluation:
    """Evaluate a model on encoded texts. Each text starts from the model's initial state.

    Args:
        model: The model, in evaluation mode.
        documents: The texts.
        vocab_size: The vocabulary size of the tokenizer; limits the size of a batch. Ids from
            ``vocab_size`` on are ids of conditions. The ids after bos up to the last of them are
            inputs and not predicted.
        device: The device of the model.
        conditions: The conditions of the model; the bits that each one saves are measured.

    Raises:
        DataError: There are no texts, or none of them has a character.
    """
    if not conditions:
        return evaluate_totals(model, documents, vocab_size, device).evaluation()
    first = list[Document]()
    nats = list[float]()
    totals = evaluate_totals(model, keep_first(documents, first), vocab_size, device, nats)
    evaluation = totals.evaluation()
    gains = measure_gains(model, first, conditions, device, nats)
    return replace(evaluation, conditions=gains)


def evaluate_totals(
    model: LanguageModel,
    documents: Iterable[Document],
    vocab_size: int,
    device: str = "cpu",
    nats: list[float] | None = None,
) -> Totals:
    """Return the sums of an evaluation. Unlike in ``evaluate_documents``, there may be no texts.

    Args:
        model, documents, vocab_size, device: As in ``evaluate_documents``.
        nats: A list to which the negative log likelihood of each text is appended.
    """
    parts = list[Totals]()  # the sums of each batch
    for batch in batches(documents):
        by_text = token_losses(model, [ids for ids, _ in batch], vocab_size, device)
        if nats is not None:
            nats += [float(text_losses.sum(dtype=np.float64)) for text_losses in by_text]
        losses = np.concatenate(by_text)
        batch_nats = float(losses.sum(dtype=np.float64))
        characters = sum(length for _, length in batch)
        zeros = int(np.isinf(losses).sum())
        parts.append(Totals(batch_nats, losses.size, characters, len(batch), zeros))
    return sum_totals(parts)


def sum_totals(totals: Iterable[Totals]) -> Totals:
    """Add the sums of several parts, in order. Without parts, all sums are zero."""
    return Totals(*map(sum, zip(*totals, strict=True)))


def score_text(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    prefix: Sequence[int] = (),
    given: str = "",
    device: str = "cpu",
) -> Score:
    """Return the bits of one text and of each of its tokens, including the end token.

    Args:
        model: The model, in evaluation mode.
        tokenizer: The model's tokenizer.
        text: The text.
        prefix: The ids of the text's conditions.
        given: A text that precedes ``text``, such as a prompt. It is an input and adds no bits.
        device: The device of the model.

    Raises:
        DataError: The text is empty, or not a string.
    """
    for argument in (text, given):
        if not isinstance(argument, str):
            raise DataError(f"A text to score must be a string; got {quoted(argument)}.")
    if not text:
        raise DataError("There is no text to score; give one of at least one character.")
    ids = tokenizer.encode(text)
    before = [*prefix, *tokenizer.encode(given)]
    framed = np.array([tokenizer.bos_id, *before, *ids, tokenizer.eos_id])
    (nats,) = token_losses(model, [framed], tokenizer.vocab_size, device, len(before))
    bits = nats / math.log(2)
    pieces = [tokenizer.decode([token]) for token in ids] + [""]
    scores = [TokenScore(piece, float(value)) for piece, value in zip(pieces, bits, strict=True)]
    total = float(bits.sum(dtype=np.float64))
    return Score(total, total / len(text), scores)


def log_probabilities(
    model: LanguageModel, ids: list[int], context: int, device: str = "cpu"
) -> list[float]:
    """Return the log probability (nats) of each id after the first ``context`` ids.

    Args:
        model: The model, in evaluation mode.
        ids: The ids of a text, bos first.
        context: The number of first ids that are not scored, such as bos, conditions and prompt.
        device: The device of the model.
    """
    if len(ids) == context:
        return []
    text = np.array(ids, np.int64)
    # bos is one of the ``context`` ids, but is not counted by ``token_losses``
    (losses,) = token_losses(model, [text], model.config.vocab_size, device, context - 1)
    return [-float(loss) for loss in losses]


def score_tokens(
    models: Sequence[LanguageModel], documents: Iterable[Document], vocab_size: int
) -> tuple[Float64[np.ndarray, "N M"], int]:
    """Score the tokens of texts by several models.

    The tokens include end tokens. The result takes eight bytes of memory per token and model.

    Args:
        models: The M models, in evaluation mode, all with the same tokenizer.
        documents: The texts; iterated over once.
        vocab_size: As in ``evaluate_documents``.

    Returns:
        The log probability (nats) of each of N tokens under each of M models, and the number of
        characters of the texts.

    Raises:
        DataError: There are no texts, or none of them has a character.
    """
    tables = list[np.ndarray]()  # for each batch, the log probabilities (tokens of the batch, M)
    characters = 0
    for batch in batches(documents):
        texts = [ids for ids, _ in batch]
        losses = [np.concatenate(token_losses(model, texts, vocab_size)) for model in models]
        tables.append(-np.stack(losses, axis=1).astype(np.float64))
        characters += sum(length for _, length in batch)
    if not tables:
        raise DataError("There is no text to score.")
    if not characters:
        raise DataError("The texts to score have no characters.")
    return np.concatenate(tables), characters


def sample_documents(store: Tokens, tokens: int) -> list[Document]:
    """Return evenly spaced texts of a store that have about ``tokens`` tokens together."""
    share = min(1.0, tokens / max(1, store.count))
    count = min(len(store), max(1, round(share * len(store))))
    return [
        (store.document(index), int(store.characters[index]))
        for index in spread_indices(len(store), count)
    ]


def spread_documents(documents: Sequence[Document], count: int) -> list[Document]:
    """Return up to ``count`` evenly spaced documents.

    Documents without characters are left out, unless all documents are returned or none has a
    character.
    """
    if count < len(documents):
        with_text = [(ids, characters) for ids, characters in documents if characters]
        documents = with_text or documents
    count = min(count, len(documents))
    return [documents[index] for index in spread_indices(len(documents), count)]


def measure_rate(
    model: LanguageModel, documents: Sequence[Document], vocab_size: int, device: str = "cpu"
) -> float:
    """Measure how many tokens per second a model scores. After one text as a warm-up, it scores the
    beginnings of a few documents.

    Raises:
        NotADistribution: The model's scores do not sum to one.
    """
    texts = [
        ids[: count_given(ids, vocab_size) + _TIMED_TOKENS] for ids, _ in documents[:_TIMED_TEXTS]
    ]
    token_losses(model, texts[:1], vocab_size, device)
    start = time.monotonic()
    losses = token_losses(model, texts, vocab_size, device)
    return sum(map(len, losses)) / max(time.monotonic() - start, 1e-9)


def spread_indices(size: int, count: int) -> list[int]:
    """Return ``count`` evenly spaced indices below ``size``, the middles of as many equal parts."""
    return [(2 * number + 1) * size // (2 * count) for number in range(count)]
