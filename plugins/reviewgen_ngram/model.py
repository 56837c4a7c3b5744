"""The n-gram language model: counts of what followed the last tokens, smoothed or not.

Source: Chen & Goodman 1998, "An Empirical Study of Smoothing Techniques for Language Modeling"; Heafield et al. 2013 for the
conventions of KenLM's lmplz, which this model keeps: bos is context only and never predicted, eos is predicted, the lowest
order is interpolated with the uniform distribution over every id but bos.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int, Int64, Integer
from torch import Tensor

from reviewgen.config import Bound, check
from reviewgen.errors import DataError, TrainingError
from reviewgen_ngram.counts import NgramCounter
from reviewgen_ngram.estimate import FALLBACK, Estimate, estimate
from reviewgen_ngram.tensors import empty_tensors, read_tensors, write_tensors
from reviewgen_ngram.trie import Trie

__all__ = ["Ngram", "NgramConfig"]

DENSE_CELLS = 1 << 21  # probabilities worked on at once in a call: 16 MiB
SCORE_ROWS = 1 << 17  # tokens scored at once


@dataclass(frozen=True, kw_only=True)
class NgramConfig:
    """``order`` tokens make an n-gram, the predicted one included: order 6 looks back five tokens."""

    vocab_size: Annotated[int, Bound(at_least=1)]
    order: Annotated[int, Bound(at_least=1, at_most=64)] = 6
    smoothing: Literal["kneser-ney", "none"] = "kneser-ney"

    def __post_init__(self) -> None:
        check(self)


class Ngram:
    """A count model of order n over token ids; returns log probabilities (nats) that sum to one.

    ``kneser-ney`` gives every token but bos a probability above zero. ``none`` is maximum likelihood, c(h w) / c(h): an unseen
    event has probability zero and scores -inf. At a context that was never seen it answers with the longest suffix that was;
    no text's infinite score turns finite by that. Where all n - 1 tokens (or all since bos) were never a context, the event
    that made up the newest of them was unseen as well, or its context was, and so on back to an event after a seen context,
    at the latest after bos: that one scored -inf.

    The state is the last n - 1 ids, newest last, -1 before the start.
    """

    Config: ClassVar[type] = NgramConfig

    def __init__(self, config: NgramConfig) -> None:
        self.config = config
        self._counter: NgramCounter | None = None
        self._bos_id: int | None = None
        self._trie: Trie | None = None
        self._discounts: list[tuple[float, float, float]] = []

    def observe(self, ids: Integer[np.ndarray, " T"]) -> None:
        """Count one text: its beginning-of-text id, its tokens, its end-of-text id.

        The first id is context and never predicted; where it turns up again inside, another text begins.

        Raises:
            TrainingError: The text has no id, one outside the vocabulary, or another first id than the texts before; or the
                model is finished.
        """
        if self._trie is not None:
            raise TrainingError("This n-gram model is finished and counts no more texts. Make a new one.")
        if not len(ids):
            raise TrainingError("A text without any id was to be counted; it needs at least its beginning-of-text id.")
        if ids.min() < 0 or ids.max() >= self.config.vocab_size:
            raise TrainingError(f"A text has ids {ids.min()}..{ids.max()}; this model knows 0..{self.config.vocab_size - 1}.")
        first = int(ids[0])
        if self._counter is None or self._bos_id is None:
            self._counter, self._bos_id = NgramCounter(self.config.vocab_size, self.config.order), first
        if first != self._bos_id:
            raise TrainingError(f"A text begins with id {first}, those before with {self._bos_id}; all must begin alike.")
        self._counter.add(ids)

    def finish(self) -> Mapping[str, Any]:
        """Turn the counts into probabilities, once; return discounts and numbers of n-grams per order, and notes.

        Raises:
            TrainingError: No text was observed, or none has a token after its first.
        """
        if self._counter is None or self._bos_id is None:
            raise TrainingError("No text was observed, so there is nothing to count. Call observe with at least one text first.")
        rows = self._counter.take()
        self._counter = None
        if not len(rows.counts):
            raise TrainingError("No observed text has a token after its first, so there is nothing to predict. Add texts.")
        found = estimate(rows, self._bos_id, self.config.smoothing)
        self._trie = Trie(found.levels, self.config.vocab_size, self._bos_id)
        self._discounts = found.discounts
        return _facts(found)

    def initial_state(self, batch_size: int) -> Int[Tensor, "B K"]:
        """Return the state before the first token of B texts: no token yet, -1 at all K = order - 1 places."""
        return torch.full((batch_size, self.config.order - 1), -1, dtype=torch.int64)

    def __call__(self, ids: Int[Tensor, "B T"], state: Int[Tensor, "B K"]) -> tuple[Float[Tensor, "B T V"], Int[Tensor, "B K"]]:
        """Return the log probability of every token after each position, and the state after the last.

        Raises:
            TrainingError: The model has no counts yet.
            DataError: An id lies outside the vocabulary.
        """
        trie = self._trained()
        history, after = self._history(ids, state)
        logits = np.empty((history.shape[1], self.config.vocab_size), np.float32)  # (B·T, V)
        step = max(1, DENSE_CELLS // self.config.vocab_size)
        for start in range(0, len(logits), step):
            rows = slice(start, start + step)
            logits[rows] = _log(trie.distributions(history[:, rows]))
        return torch.from_numpy(logits).view(*ids.shape, self.config.vocab_size).to(ids.device), after

    def score(
        self, ids: Int[Tensor, "B T"], targets: Int[Tensor, "B T"], state: Int[Tensor, "B K"]
    ) -> tuple[Float[Tensor, "B T"], Int[Tensor, "B K"]]:
        """Return the log probability of ``targets[b, t]`` after ``ids[b, :t + 1]``, and the state after the last token.

        Raises:
            TrainingError: The model has no counts yet.
            DataError: An id or a target lies outside the vocabulary.
        """
        trie = self._trained()
        history, after = self._history(ids, state)
        words = self._checked(targets).reshape(-1)  # (B·T,)
        scores = np.empty(len(words), np.float32)
        for start in range(0, len(words), SCORE_ROWS):
            rows = slice(start, start + SCORE_ROWS)
            scores[rows] = _log(trie.probabilities(history[:, rows], words[rows]))
        return torch.from_numpy(scores).view(ids.shape).to(ids.device), after

    def state_dict(self) -> dict[str, Tensor]:
        """Return the arrays of the trained model, or all its names with empty tensors before it is trained."""
        if self._trie is None:
            return empty_tensors(self.config.vocab_size, self.config.order)
        return write_tensors(self._trie.levels, self._trie.bos_id, self._discounts)

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Take a trained model's arrays over, without copying them.

        Raises:
            BundleError: A tensor is missing, extra, misshapen or damaged; the model stays as it was.
        """
        levels, bos_id, discounts = read_tensors(tensors, self.config.vocab_size, self.config.order)
        self._trie, self._bos_id, self._discounts = Trie(levels, self.config.vocab_size, bos_id), bos_id, discounts
        self._counter = None

    def _trained(self) -> Trie:
        if self._trie is None:
            raise TrainingError("This n-gram model has no counts yet. Call observe and finish, or load a trained one, first.")
        return self._trie

    def _checked(self, ids: Int[Tensor, "B T"]) -> Int64[np.ndarray, "B T"]:
        array: np.ndarray = ids.detach().cpu().numpy().astype(np.int64)
        if array.size and (array.min() < 0 or array.max() >= self.config.vocab_size):
            raise DataError(f"Ids {array.min()}..{array.max()} were given; this model knows 0..{self.config.vocab_size - 1}.")
        return array

    def _history(self, ids: Int[Tensor, "B T"], state: Int[Tensor, "B K"]) -> tuple[Int64[np.ndarray, "K R"], Int[Tensor, "B K"]]:
        """Return for each of R = B·T positions the last K tokens, the newest first, and the state after the last position."""
        back, length = self.config.order - 1, ids.shape[1]
        tokens = np.concatenate([state.detach().cpu().numpy(), self._checked(ids)], axis=1)  # (B, K+T)
        history = np.empty((back, ids.numel()), np.int64)
        for depth in range(back):
            history[depth] = tokens[:, back - depth : back - depth + length].reshape(-1)
        return history, torch.from_numpy(tokens[:, tokens.shape[1] - back :].copy()).to(ids.device)


def _log(p: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Return natural logarithms; probability zero gives -inf and no warning."""
    with np.errstate(divide="ignore"):
        log: np.ndarray = np.log(p)
    return log


def _facts(found: Estimate) -> dict[str, Any]:
    """Return what ``finish`` reports, as JSON values; the first entry of each list belongs to order 1."""
    fell_back = [order for order, fell in enumerate(found.fell_back, 1) if fell]
    notes = []
    if fell_back:
        spelled = f"Order {fell_back[0]} has" if len(fell_back) == 1 else f"Orders {_enumerate(fell_back)} have"
        values = ", ".join(f"{value:g}" for value in FALLBACK)
        notes.append(f"{spelled} no usable discounts; KenLM's fall-back {values} is used there.")
    return {
        "discounts": [list(values) for values in found.discounts],
        "fallback_orders": fell_back,
        "ngrams": found.ngrams,
        "notes": notes,
    }


def _enumerate(numbers: list[int]) -> str:
    """Return ``1, 2 and 5``; at least two numbers."""
    return f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"
