"""Evaluation of a model in bits per character, which compares models of different vocabularies (n-gram, character, BPE).

It is the sum of ``-log2 p`` over all tokens of the texts, end tokens included, divided by the number of characters of the texts.
No token is skipped: if the model gives one probability zero, the result is infinite, and the number of such tokens is reported.
Condition ids are inputs and not predicted, so they add no bits. Inner functions use nats, results are in bits.

Texts are scored together, in rows: a row whose text ends takes the next text, from the initial state, as servers of language
models batch requests (Yu et al. 2022, "Orca", iteration-level scheduling). Padding every text to the longest would compute four
tokens for each of a corpus of reviews.

    metrics  metrics of generated texts by name, and how texts read, beside human ones
"""

import math
import operator
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor
from torch.nn import functional as F

from reviewgen.compiled.entropy import target_losses
from reviewgen.compiled.tensors import PRECISIONS, as_array
from reviewgen.data import TokenStore, count_given
from reviewgen.errors import DataError, growing_state, quoted
from reviewgen.evaluation.gains import ConditionGain as ConditionGain
from reviewgen.evaluation.gains import Document as Document
from reviewgen.evaluation.gains import keep_first as keep_first
from reviewgen.evaluation.gains import measure_gains as measure_gains
from reviewgen.evaluation.metrics import Metrics as Metrics
from reviewgen.evaluation.metrics import TextStatistics as TextStatistics
from reviewgen.evaluation.metrics import find_metrics as find_metrics
from reviewgen.evaluation.metrics import judge_by_metric as judge_by_metric
from reviewgen.evaluation.metrics import measure_texts as measure_texts
from reviewgen.evaluation.metrics import take_words as take_words
from reviewgen.generation import device_errors, map_state
from reviewgen.protocols import LanguageModel, State, SupportsScore, Tokenizer

_ROWS = 64
_MAX_LOGITS = 1 << 23  # in one forward call: B x T x V
_MAX_TOKENS = 512  # per row in one forward call, T
_MAX_PADDING = 0.08  # of the tokens of a call, where rows end before it does
_BATCH_TEXTS = 1024
_TIMED_TEXTS, _TIMED_TOKENS = 16, 200
_DARKEST_BITS = 10.0  # of a token of the darkest shade, or more; the same for all texts, so that they compare
_MAX_EXPONENT = math.log(sys.float_info.max)
_MAX_SHOWN = 2000  # tokens of a text in a notebook


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
        conditions: What each condition saves, measured on the first texts; empty for a model without conditions.
    """

    bits_per_character: float
    nats_per_character: float
    perplexity_per_token: float
    characters: int
    tokens: int
    reviews: int
    zero_probability_tokens: int
    conditions: tuple[ConditionGain, ...] = ()

    def facts(self) -> dict[str, Any]:
        """Return the figures as JSON values; without those of conditions if there are none."""
        conditions = {"conditions": [asdict(gain) for gain in self.conditions]} if self.conditions else {}
        figures = {name: value for name, value in vars(self).items() if name != "conditions"}
        return finite(figures) | conditions

    def _repr_html_(self) -> str:
        """Return a table of the figures, for notebooks."""
        from reviewgen.web.rendering import render  # Jinja2

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
        from reviewgen.web.rendering import render  # Jinja2

        end = len(self.tokens) - 1
        shown = [
            {
                "text": token.text.replace("\n", "⏎\n") or ("(end)" if place == end else "(part of a character)"),
                "bits": token.bits,
                "shade": round(10 * min(1.0, token.bits / _DARKEST_BITS)) if math.isfinite(token.bits) else None,
            }
            for place, token in enumerate(self.tokens[:_MAX_SHOWN])
        ]
        return render("evaluation/score.html", score=self, tokens=shown, most=_DARKEST_BITS, hidden=len(self.tokens) - len(shown))


class Totals(NamedTuple):
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
        rate, per_token = self.nats / self.characters, self.nats / self.tokens
        perplexity = math.exp(per_token) if per_token <= _MAX_EXPONENT else math.inf
        sizes = (self.characters, self.tokens, self.reviews, self.zero_probability_tokens)
        return Evaluation(rate / math.log(2), rate, perplexity, *sizes)


def finite(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the mapping with None for infinite and NaN values, which JSON does not have."""
    return {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in numbers.items()}


def evaluate_documents(model: LanguageModel, documents: Iterable[Document], vocab_size: int, device: str = "cpu") -> Evaluation:
    """Evaluate a model on encoded texts; each text starts from the initial state.

    Args:
        model: The model, in evaluation mode.
        documents: The texts.
        vocab_size: The tokenizer's; limits the size of a batch. Ids up to the last one from there on are given, not predicted.
        device: The device of the model.

    Raises:
        DataError: There are no texts, or none of them has a character.
    """
    return add_up_documents(model, documents, vocab_size, device).evaluation()


def add_up_documents(model: LanguageModel, documents: Iterable[Document], vocab_size: int, device: str = "cpu") -> Totals:
    """Return the sums of an evaluation, which may be over no texts; see ``evaluate_documents`` for the arguments."""
    return add_up(_add_up_batch(model, batch, vocab_size, device) for batch in batches(documents))


def add_up(totals: Iterable[Totals]) -> Totals:
    """Return the sum of sums, added in their order."""
    return Totals(*(reduce(operator.add, column) for column in zip(*totals, strict=True)))


def _add_up_batch(model: LanguageModel, batch: Sequence[Document], vocab_size: int, device: str) -> Totals:
    losses = np.concatenate(token_losses(model, [ids for ids, _ in batch], vocab_size, device))
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
    models: Sequence[LanguageModel], documents: Iterable[Document], vocab_size: int
) -> tuple[Float64[np.ndarray, "N M"], int]:
    """Return the log probability (nats) of each of N tokens under each of M models, and the number of characters.

    Tokens include end tokens. The documents are iterated over once. Memory is eight bytes per token and model.

    Args:
        models: The models, in evaluation mode.
        documents: The texts.
        vocab_size: The tokenizer's; limits the size of a batch. Ids up to the last one from there on are given, not predicted.

    Raises:
        DataError: There are no texts, or none of them has a character.
    """
    tables, characters = [np.zeros((0, len(models)))], 0
    for batch in batches(documents):
        texts = [ids for ids, _ in batch]
        losses = [np.concatenate(token_losses(model, texts, vocab_size)) for model in models]
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


def measure_rate(model: LanguageModel, documents: Sequence[Document], vocab_size: int, device: str = "cpu") -> float:
    """Return how many tokens per second a model scores: measured on the beginnings of a few documents, after a warm-up.

    Raises:
        NotADistribution: The model's scores do not sum to one.
    """
    texts = [ids[:_TIMED_TOKENS] for ids, _ in documents[:_TIMED_TEXTS]]
    token_losses(model, texts[:1], vocab_size, device)
    start = time.monotonic()
    losses = token_losses(model, texts, vocab_size, device)
    return sum(map(len, losses)) / max(time.monotonic() - start, 1e-9)


def _spread(size: int, count: int) -> list[int]:
    """Return ``count`` indices below ``size``, evenly spaced; one is in the middle."""
    return [int((2 * number + 1) * size // (2 * count)) for number in range(count)]


def batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Yield the documents in lists of up to 1,024, whose texts are scored together."""
    iterator = iter(documents)
    while batch := list(islice(iterator, _BATCH_TEXTS)):
        yield batch


@torch.inference_mode()
def token_losses(
    model: LanguageModel, texts: Sequence[np.ndarray], vocab_size: int, device: str = "cpu", given: int | None = None
) -> list[np.ndarray]:
    """Return the negative log likelihood (nats) of each text's tokens after bos and what is given.

    Args:
        model: The model, in evaluation mode.
        texts: The ids of each text, at least two.
        vocab_size: The tokenizer's; limits the tokens of one forward call.
        device: The device of the model.
        given: The number of ids after bos that are given; by default those of conditions and fields.

    Raises:
        DeviceError: The device has failed, as it does when it has no memory left.
    """
    losses: list[np.ndarray] = [np.empty(len(text) - 1, np.float32) for text in texts]
    waiting = sorted(range(len(texts)), key=lambda number: len(texts[number]))  # the longest is last, and starts first
    lengths = np.array([len(each) for each in losses])
    size = max(1, min(_ROWS, lengths.sum() // max(lengths, default=1)))  # so that the longest does not end long after all others
    rows, starts, state = list[int](), np.zeros(0, np.int64), None
    with device_errors(device):
        while rows or waiting:
            added = [waiting.pop() for _ in range(min(size - len(rows), len(waiting)))]
            if added:
                fresh = model.initial_state(len(added))
                state = map_state(_join, state, fresh) if rows else fresh
            rows, starts = rows + added, np.append(starts, np.zeros(len(added), np.int64))
            remaining = lengths[rows] - starts
            length = _choose_length(remaining, max(1, min(_MAX_TOKENS, _MAX_LOGITS // (len(rows) * vocab_size))))
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
                kept = torch.from_numpy(continuing).to(device)
                state = map_state(lambda part, kept=kept: part[kept], state)
            rows, starts = [rows[row] for row in continuing], starts[continuing] + length
    return [each[count_given(text, vocab_size) if given is None else given :] for each, text in zip(losses, texts, strict=True)]


def _choose_length(remaining: Int64[np.ndarray, " B"], longest: int) -> int:
    """Return how many tokens of each row to score in a call, so that few rows end much earlier."""
    lengths = np.unique(np.minimum(remaining, longest))
    padding = [1 - np.minimum(remaining, length).mean() / length for length in lengths]  # rises with the length
    return int(lengths[max(0, int(np.searchsorted(padding, _MAX_PADDING, side="right")) - 1)])


def _score_rows(model: LanguageModel, ids: Int[Tensor, "B T1"], state: State) -> tuple[Float[np.ndarray, "B T"], State]:
    """Return the negative log likelihood (nats) of each id but the first of each row, and the state after the last but one."""
    inputs, targets = ids[:, :-1], ids[:, 1:]
    if isinstance(model, SupportsScore):
        scores, state = model.score(inputs, targets, state)
        return -scores.float().cpu().numpy(), state
    logits, state = model(inputs, state)
    return _cross_entropies(logits, targets), state


def _cross_entropies(logits: Float[Tensor, "B T V"], targets: Int[Tensor, "B T"]) -> Float[np.ndarray, "B T"]:
    """Return the cross entropy (nats) of each target, without a copy of the logits where they are on the CPU."""
    is_time_first = not logits.is_contiguous()  # in memory, as from torch's recurrent layers
    if is_time_first:
        logits, targets = logits.transpose(0, 1), targets.transpose(0, 1)
    if logits.device.type == "cpu" and logits.dtype in PRECISIONS:
        if (largest := int(targets.max())) >= logits.shape[-1]:
            raise IndexError(f"Target {largest} is out of range: the model has logits for ids 0 to {logits.shape[-1] - 1}.")
        losses = np.empty(targets.numel(), np.float32)
        target_losses(as_array(logits.flatten(0, 1)), targets.flatten().numpy(), losses)
    else:
        losses = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none").cpu().numpy()
    table: np.ndarray = losses.reshape(targets.shape)
    return table.T if is_time_first else table


def _join(first: Tensor, second: Tensor) -> Tensor:
    if first.shape[1:] != second.shape[1:]:
        raise growing_state(first.shape, second.shape)
    return torch.cat([first, second])
