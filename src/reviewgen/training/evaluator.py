"""Evaluation during training: scores held-out texts, generates a sample, measures the copy rate, and tracks the best result."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

import numpy as np

from reviewgen.config import GenerationConfig
from reviewgen.errors import NotADistribution
from reviewgen.evaluation import Document, Evaluation, Totals, add_up_documents
from reviewgen.generation import Generator, Pieces, Request
from reviewgen.generation.model_stepper import make_stepper
from reviewgen.novelty import Index
from reviewgen.protocols import Tokenizer
from reviewgen.training.config import TrainingConfig
from reviewgen.training.processes import Processes

__all__ = ["EvaluationResult", "Evaluator"]

SAMPLE_TOKENS = 100  # of each generated text
_DENSE_STRIDE, _MAX_FACTOR = 32, 8  # copy_tokens suffice up to this stride of the index; a sparser one needs up to 8 times more
_STATE = ("best", "best_copy_rate", "without_gain", "seconds", "best_rank")  # fields saved in checkpoints, by these names


@dataclass(frozen=True)
class EvaluationResult:
    """The result of one evaluation.

    Attributes:
        evaluation: Scores of the held-out texts; None for a model whose scores are not a distribution.
        copy_rate: Share of 20-token windows of generated texts that occur in the training text; None if not measured.
        sample: A generated text.
        is_best: Whether this is the best result so far.
    """

    evaluation: Evaluation | None
    copy_rate: float | None
    sample: str
    is_best: bool


@dataclass
class Evaluator:
    """Evaluates a model on held-out texts and tracks the best result.

    With several processes, each scores its share of the texts and the main process generates; all get the same result.

    Attributes:
        tokenizer: The model's tokenizer.
        documents: The held-out texts to score.
        config: Training settings.
        index: Index of the training text, for the copy rate; without one it is not measured.
        prefix: Ids after bos that stand for conditions not given.
        processes: The process group.
        best: Bits per character of the best result.
        best_copy_rate: Copy rate of the best result.
        without_gain: Evaluations since the best one.
        seconds: Duration of the last evaluation.
        best_rank: Sort key of the best result; lower is better.
        pieces: The tokenizer's tokens as text, decoded once for all evaluations.
    """

    tokenizer: Tokenizer
    documents: list[Document]
    config: TrainingConfig
    index: Index | None = None
    prefix: Sequence[int] = ()
    processes: Processes = field(default_factory=Processes)
    best: float = math.inf
    best_copy_rate: float | None = None
    without_gain: int = 0
    seconds: float = 0.0
    best_rank: tuple[int, float] = (2, 0.0)
    pieces: Pieces = field(init=False)

    def __post_init__(self) -> None:
        self.pieces = Pieces(self.tokenizer)

    def evaluate(self, model: Any, device: str = "cpu") -> EvaluationResult:
        """Evaluate a model, which is in evaluation mode, and update the best result."""
        start = time.monotonic()
        evaluation = self._score(model, device)
        generated = None if self.processes.rank else self._sample_and_copy_rate(model, device)
        sample, copy_rate = self.processes.broadcast(generated)
        is_best = self._update_best(evaluation, copy_rate)
        self.seconds = time.monotonic() - start
        return EvaluationResult(evaluation, copy_rate, sample, is_best)

    def state_dict(self) -> dict[str, Any]:
        """Return the state to save in a checkpoint."""
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of another evaluator."""
        for name in _STATE:
            setattr(self, name, state[name])

    def notes(self) -> tuple[str, ...]:
        """Return notes for the end of the run: whether the copy limit was met."""
        limit, rate = self.config.copy_limit, self.best_copy_rate
        if self.config.keep == "best" or rate is None or rate <= limit:
            return ()
        reason = f"No evaluation had a copy rate within training.copy_limit={limit:g}"
        return (f"{reason}; the weights with the lowest, {rate:.3f}, are kept.",)

    def _score(self, model: Any, device: str) -> Evaluation | None:
        """Score the held-out texts, each process its share; None if the model's scores are not a distribution."""
        own = self.documents[self.processes.rank :: self.processes.world_size]
        totals, is_scored = Totals(), True
        try:
            totals = add_up_documents(model, own, self.tokenizer.vocab_size, device, len(self.prefix))
        except NotADistribution:
            is_scored = False
        nats, *counts, scored = self.processes.all_gather([*astuple(totals), is_scored]).sum(axis=0).tolist()
        return Totals(nats, *map(int, counts)).evaluation() if scored == self.processes.world_size else None

    def _sample_and_copy_rate(self, model: Any, device: str) -> tuple[str, float | None]:
        """Generate texts; return the first one, and the copy rate of all."""
        texts = self._generate(model, device)
        return texts[0][1], self._copy_rate([ids for ids, _ in texts])

    def _generate(self, model: Any, device: str) -> Sequence[tuple[list[int], str]]:
        """Generate texts, with the same seed at every evaluation; return their ids and their text."""
        tokens = self.config.copy_tokens * _copy_tokens_factor(self.index) if self.index is not None else 0
        count = max(1, tokens // SAMPLE_TOKENS)
        generator = Generator(make_stepper(model, device), self.tokenizer, pieces=self.pieces)
        request = Request([""] * count, GenerationConfig(max_new_tokens=SAMPLE_TOKENS), seed=0, prefix=self.prefix)
        return [(row.ids, row.text) for row in generator.generate(request)]

    def _copy_rate(self, texts: list[list[int]]) -> float | None:
        if self.index is None or not self.config.copy_tokens:
            return None
        return self.index.copy_rate([np.array(ids, np.int64) for ids in texts])

    def _update_best(self, evaluation: Evaluation | None, copy_rate: float | None) -> bool:
        """Return whether this result is the best so far, and if so, record it.

        Results within the copy limit come before those beyond it. The former are ranked by bits per character, the latter by
        copy rate.
        """
        bits = math.inf if evaluation is None else evaluation.bits_per_character
        is_within = self.config.keep == "best" or copy_rate is None or copy_rate <= self.config.copy_limit
        rank = (0, bits) if is_within or copy_rate is None else (1, copy_rate)
        is_best = rank < self.best_rank and not math.isnan(bits)
        if is_best:
            self.best, self.best_copy_rate, self.best_rank = bits, copy_rate, rank
        self.without_gain = 0 if is_best else self.without_gain + 1
        return is_best


def _copy_tokens_factor(index: Index) -> int:
    """Return how many times ``copy_tokens`` to generate: more if the index is so sparse that it covers few of the windows."""
    return max(1, min(index.stride // _DENSE_STRIDE, _MAX_FACTOR))
