"""The evaluator of a run: evaluates on held-out texts, measures how much the model copies, remembers the best, keeps a sample."""

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

SAMPLE_TOKENS = 100
_STRIDE, _MOST = 32, 8  # of an index for which copy_tokens are enough; of a thinner one so many times as much is written
_MEMORY = ("best", "best_copy_rate", "without_gain", "seconds", "best_rank")


@dataclass(frozen=True)
class EvaluationResult:
    """What one evaluation found; ``evaluation`` is None for a model whose scores are no distribution."""

    evaluation: Evaluation | None
    copy_rate: float | None
    sample: str
    is_best: bool


@dataclass
class Evaluator:
    """Evaluates on held-out texts and remembers what was best.

    Of several processes each evaluates its share of the texts, and the first one writes; all come to the same verdict.
    """

    tokenizer: Tokenizer
    documents: list[Document]
    config: TrainingConfig
    index: Index | None = None
    prefix: Sequence[int] = ()  # the ids after bos that stand for no condition in particular
    processes: Processes = field(default_factory=Processes)
    best: float = math.inf  # bits per character of the best
    best_copy_rate: float | None = None
    without_gain: int = 0
    seconds: float = 0.0  # that the last evaluation took
    best_rank: tuple[int, float] = (2, 0.0)
    pieces: Pieces = field(init=False)

    def __post_init__(self) -> None:
        self.pieces = Pieces(self.tokenizer)

    def evaluate(self, model: Any, device: str = "cpu") -> EvaluationResult:
        """Return what there is to say of the model as it stands, in evaluation mode."""
        start = time.monotonic()
        evaluation = self._measure(model, device)
        copy_rate, sample = self.processes.share(self._write_and_compare(model, device) if not self.processes.rank else None)
        is_best = self._compare(evaluation, copy_rate)
        self.seconds = time.monotonic() - start
        return EvaluationResult(evaluation, copy_rate, sample, is_best)

    def memory(self) -> dict[str, Any]:
        """Return what it remembers of the evaluations so far; ``remember`` takes it."""
        return {name: getattr(self, name) for name in _MEMORY}

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Go on from what another evaluator remembered."""
        for name in _MEMORY:
            setattr(self, name, memory[name])

    def notes(self) -> tuple[str, ...]:
        """Return what there is to say at the end: whether the copy limit was met."""
        limit, rate = self.config.copy_limit, self.best_copy_rate
        if self.config.keep == "best" or rate is None or rate <= limit:
            return ()
        said = f"No evaluation had a copy rate within training.copy_limit={limit:g}"
        return (f"{said}; the weights with the lowest, {rate:.3f}, are kept.",)

    def _measure(self, model: Any, device: str) -> Evaluation | None:
        own = self.documents[self.processes.rank :: self.processes.count]
        found, is_scored = Totals(), True
        try:
            found = add_up_documents(model, own, self.tokenizer.vocab_size, device, len(self.prefix))
        except NotADistribution:
            is_scored = False
        nats, *counts, scored = self.processes.gather([*astuple(found), is_scored]).sum(axis=0).tolist()
        return Totals(nats, *map(int, counts)).evaluation() if scored == self.processes.count else None

    def _write_and_compare(self, model: Any, device: str) -> tuple[float | None, str]:
        """Return the copy rate of what the model writes, and a sample of it."""
        texts = self._write(model, device)
        return self._measure_copies([ids for ids, _ in texts]), texts[0][1]

    def _measure_copies(self, texts: list[list[int]]) -> float | None:
        if self.index is None or not self.config.copy_tokens:
            return None
        return self.index.copy_rate([np.array(ids, np.int64) for ids in texts])

    def _write(self, model: Any, device: str) -> Sequence[tuple[list[int], str]]:
        """Return texts of the model as ids and characters, the same draws each time; the first is the sample."""
        tokens = self.config.copy_tokens * _times(self.index) if self.index is not None else 0
        count = max(1, tokens // SAMPLE_TOKENS)
        generator = Generator(make_stepper(model, device), self.tokenizer, pieces=self.pieces)
        request = Request([""] * count, GenerationConfig(max_new_tokens=SAMPLE_TOKENS), seed=0, prefix=self.prefix)
        return [(row.ids, row.text) for row in generator.generate(request)]

    def _compare(self, evaluation: Evaluation | None, copy_rate: float | None) -> bool:
        """Return whether this is the best so far: within the copy limit before beyond it, there by bits, beyond by copy rate."""
        bits = math.inf if evaluation is None else evaluation.bits_per_character
        is_within = self.config.keep == "best" or copy_rate is None or copy_rate <= self.config.copy_limit
        rank = (0, bits) if is_within or copy_rate is None else (1, copy_rate)
        is_best = rank < self.best_rank and not math.isnan(bits)
        if is_best:
            self.best, self.best_copy_rate, self.best_rank = bits, copy_rate, rank
        self.without_gain = 0 if is_best else self.without_gain + 1
        return is_best


def _times(index: Index) -> int:
    """Return how many times as much text shows how much is copied, where an index can evaluator few of the windows."""
    return max(1, min(index.stride // _STRIDE, _MOST))
