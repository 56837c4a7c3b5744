"""Evaluate a model during training: score held-out texts, measure generated texts (token copy rate,
metrics), and track the best result.

Evaluations take at most ``MAX_SHARE`` of a run. In a run with a time budget, the first evaluation
measures how fast the model scores and generates. From these speeds follow the numbers of held-out
tokens and of generated texts in each evaluation. In a run of steps or epochs, they follow from the
number of tokens to train on instead, since two runs with the same seed must be equal.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from reviewgen.compiled.jit import clock
from reviewgen.config.generation import GenerationConfig
from reviewgen.config.training import TrainingConfig
from reviewgen.errors import GenerationError, NotADistribution
from reviewgen.evaluation.evaluate import (
    Evaluation,
    Totals,
    evaluate_totals,
    measure_rate,
    spread_documents,
)
from reviewgen.evaluation.metrics import TextMetrics
from reviewgen.evaluation.scoring import Document
from reviewgen.generation.generator import Generator, choose_batch_size
from reviewgen.generation.model_stepper import make_stepper
from reviewgen.generation.pieces import TokenTexts
from reviewgen.generation.request import Request
from reviewgen.novelty import Index
from reviewgen.processes import Processes
from reviewgen.protocols.tokenizer import Tokenizer
from reviewgen.training.report import Report

MAX_SHARE = 0.06
"""The max share of a run's time that evaluations take, without the final evaluation."""

SAMPLE_TOKENS = 100  # max tokens of each generated text
# If at least one window in _DENSE_STRIDE can be looked up in the index, copy_tokens tokens are
# enough to measure copies. A sparser index needs more, but at most _MAX_FACTOR times as many are
# generated.
_DENSE_STRIDE = 32
_MAX_FACTOR = 8
# training costs three times as much per token as scoring: the backward pass costs twice as much as
# the forward pass
_TRAINING_COST = 3
_MIN_TOKENS = 2_000  # min tokens to score in a run of steps: fewer would measure nothing
_MIN_COPY_TEXTS = 4  # min texts to generate in a run of steps, for the same reason
# attributes that are not saved in checkpoints, since a resumed run makes them again
_GIVEN = ("tokenizer", "documents", "config", "index", "prefix", "processes", "metrics", "pieces")
# The sort key of a result is a pair of a group and a number; the lowest key is the best.
_WITHIN_LIMIT = 0  # the group of results whose token copy rate is within the limit
_BEYOND_LIMIT = 1  # the group of results whose token copy rate is beyond the limit
_UNRANKED = 2, 0.0  # the sort key before the first result: higher than that of every result


def affordable_evaluations(wanted: int, tokens: float) -> int:
    """Return how many evaluations a run of ``tokens`` tokens has, at most ``wanted``.

    All but the final evaluation take at most ``MAX_SHARE`` of the run.

    >>> [affordable_evaluations(20, steps * 2048) for steps in (1, 12, 60, 300)]
    [1, 2, 7, 20]
    """
    # the cost of the smallest evaluation, in tokens of training
    smallest = _MIN_TOKENS / _TRAINING_COST + _MIN_COPY_TEXTS * SAMPLE_TOKENS
    return int(min(wanted, 1 + MAX_SHARE * tokens / smallest))


@dataclass
class Evaluator:
    """Evaluates a model on held-out texts and tracks the best result.

    With several processes, each scores its share of the held-out texts, and the main process
    generates texts. All processes get the same result.

    Attributes:
        tokenizer: The model's tokenizer.
        documents: The held-out texts to score. Their number is reduced when evaluations are
            limited.
        config: Training settings.
        index: Index of the training text, to measure the token copy rate; None does not measure it.
        prefix: Ids after bos that stand for conditions and fields not given.
        processes: The process group.
        metrics: The metrics to measure on generated texts.
        best: Bits per character of the best result.
        without_gain: Number of evaluations since the best one, counted after the warm-up.
        seconds: Duration of the last evaluation.
        total_seconds: Duration of all evaluations so far.
        setup_seconds: Duration of measuring the speeds, once, in the first evaluation.
        seconds_each: Maximum duration of one evaluation; None for no limit.
        copy_texts: The number of texts to generate in each evaluation; None for the number that the
            settings determine.
        has_nan: Whether the last result is NaN, so that the weights are useless.
        best_rank: Sort key of the best result; lower is better.
        rank_to_beat: Sort key of the best result after the warm-up.
        pieces: The tokenizer's tokens as text, decoded once for all evaluations.
    """

    tokenizer: Tokenizer
    documents: list[Document]
    config: TrainingConfig
    index: Index | None = None
    prefix: Sequence[int] = ()
    processes: Processes = field(default_factory=Processes)
    metrics: TextMetrics = field(default_factory=TextMetrics)
    best: float = math.inf
    without_gain: int = 0
    seconds: float = 0.0
    total_seconds: float = 0.0
    setup_seconds: float = 0.0
    seconds_each: float | None = None
    copy_texts: int | None = None
    has_nan: bool = False
    best_rank: tuple[int, float] = _UNRANKED
    rank_to_beat: tuple[int, float] = _UNRANKED
    pieces: TokenTexts = field(init=False)

    def __post_init__(self) -> None:
        self.pieces = TokenTexts(self.tokenizer)

    def evaluate(self, model: Any, report: Report, device: str = "cpu") -> Report:
        """Evaluate a model and update the best result; return the report with the evaluation's
        result.

        The model must be in evaluation mode.
        """
        if self.seconds_each is not None and self.copy_texts is None:
            start = clock()
            self._limit_to_seconds(model, device, self.seconds_each)
            self.setup_seconds = self._seconds_since(start)
            self.total_seconds = self.setup_seconds
        start = clock()
        evaluation = self._score(model, device)
        generated = None if self.processes.rank else self._measure_texts(model, device)
        sample, token_copy_rate, metrics = self.processes.broadcast(generated)
        is_best = self._update_best(evaluation, token_copy_rate)
        self.seconds = self._seconds_since(start)
        self.total_seconds += self.seconds
        notes = (*report.notes, *self.metrics.pop_notes())
        group, copy_rate = self.best_rank
        if report.stopped and group == _BEYOND_LIMIT:
            notes += (
                "At every evaluation, the model copied of the 20-token windows of its texts, more"
                f" than training.copy_limit={self.config.copy_limit:g}; the weights that copied the"
                f" fewest, {copy_rate:.3f}, are kept.",
            )
        return replace(
            report,
            evaluation=evaluation,
            token_copy_rate=token_copy_rate,
            sample=sample,
            is_best=is_best,
            metrics=metrics,
            evaluation_seconds=self.total_seconds,
            notes=notes,
        )

    def restart_patience(self) -> None:
        """Start counting evaluations without gain from the next one on.

        This matters if a trained model is trained further. During the warm-up, its weights are
        still near the annealed weights that it started from. A high learning rate then moves away
        from these, so only the end of the run can beat the results of the warm-up.
        """
        self.without_gain = 0
        self.rank_to_beat = _UNRANKED

    def limit_to_share(self, seconds: float | None, tokens: float) -> None:
        """Limit the evaluations to ``MAX_SHARE`` of a run.

        Args:
            seconds: The time of the run, if it has a time budget; the first evaluation then
                measures what fits. Otherwise None.
            tokens: The tokens of the run, used if ``seconds`` is None.
        """
        if seconds is not None:
            self.seconds_each = MAX_SHARE * max(0.0, seconds) / self.config.evaluations
            return
        # what an evaluation may cost, in tokens of training: half for scoring, half for generating
        half = MAX_SHARE * round(tokens) / self.config.evaluations / 2
        self._limit(
            max(_MIN_TOKENS, round(_TRAINING_COST * half)),
            max(_MIN_COPY_TEXTS, round(half / SAMPLE_TOKENS)),
        )

    def has_time(self, seconds: float) -> bool:
        """Return whether there is time for another evaluation, ``seconds`` after the start of a
        run. All evaluations, this one included, may take at most ``MAX_SHARE`` of that time;
        ``setup_seconds`` do not count.
        """
        expected = self.seconds or self.seconds_each  # duration of the next evaluation
        return (
            expected is None
            or self.total_seconds - self.setup_seconds + expected <= MAX_SHARE * seconds
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the state to save in a checkpoint."""
        return {name: value for name, value in vars(self).items() if name not in _GIVEN} | {
            "texts": len(self.documents)
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of another evaluator with the same documents."""
        vars(self).update({name: value for name, value in state.items() if name != "texts"})
        self.documents = spread_documents(self.documents, state["texts"])

    def _seconds_since(self, start: float) -> float:
        """Return the seconds since ``start`` by the main process's clock, in every process."""
        return float(self.processes.all_gather([clock() - start])[0, 0])

    def _limit_to_seconds(self, model: Any, device: str, seconds: float) -> None:
        """Limit each evaluation to ``seconds``: half for scoring and half for generating, at the
        speeds measured now.
        """
        half = seconds / 2
        tokens = math.inf  # no limit if the model's scores are not a distribution
        texts = 1.0  # if the model cannot generate texts
        if self.processes.rank == 0:
            with suppress(NotADistribution):
                rate = measure_rate(model, self.documents, self.tokenizer.vocab_size, device)
                tokens = half * rate
            with suppress(GenerationError):  # the model has diverged; the next step reports it
                # on an accelerator, a batch takes as long as one text
                side_by_side = 1 if device == "cpu" else choose_batch_size(device)
                self._generate(model, device, side_by_side)  # a warm-up
                start = clock()
                self._generate(model, device, side_by_side)
                texts = half * side_by_side / max(clock() - start, 1e-9)
        self._limit(*self.processes.broadcast((tokens, texts)))

    def _limit(self, tokens: float, copy_texts: float) -> None:
        """Limit the tokens to score and the texts to generate in each evaluation, and keep at least
        one of each.
        """
        all_tokens = sum(len(ids) for ids, _ in self.documents)
        share = min(1.0, tokens / max(1, all_tokens))
        count = max(1, round(share * len(self.documents)))
        self.documents = spread_documents(self.documents, count)
        self.copy_texts = max(1, min(self._max_copy_texts(), int(copy_texts)))

    def _max_copy_texts(self) -> int:
        """Return how many texts an evaluation generates if its time is not limited."""
        factor = 1
        if self.index is not None:
            # a sparse index covers few windows, so more texts are needed
            factor = max(1, min(self.index.stride // _DENSE_STRIDE, _MAX_FACTOR))
        elif not self.metrics:
            return 1  # nothing is measured; the text is a sample for the user
        return max(1, self.config.copy_tokens * factor // SAMPLE_TOKENS)

    def _score(self, model: Any, device: str) -> Evaluation | None:
        """Score the held-out texts; each process scores its share. Return None if the model's
        scores are not a distribution.
        """
        documents = self.documents[self.processes.rank :: self.processes.world_size]
        totals = Totals()
        is_scored = True
        try:
            totals = evaluate_totals(model, documents, self.tokenizer.vocab_size, device)
        except NotADistribution:
            is_scored = False
        sums = self.processes.all_gather([*totals, is_scored]).sum(axis=0).tolist()
        nats, *counts, scoring_processes = sums
        if scoring_processes < self.processes.world_size:
            return None
        return Totals(nats, *map(int, counts)).evaluation()

    def _measure_texts(
        self, model: Any, device: str
    ) -> tuple[str, float | None, dict[str, float | None]]:
        """Generate texts; return the first one, and the token copy rate and the metrics of all.

        A model that has diverged (its logits are NaN or infinite) generates no texts; the next
        training step then ends the run.
        """
        try:
            generated = self._generate(model, device, self.copy_texts or self._max_copy_texts())
        except GenerationError:
            return "", None, {}
        ids, texts = zip(*generated, strict=True)
        rate = None
        if self.index is not None and self.config.copy_tokens:
            rate = self.index.token_copy_rate([np.array(text_ids, np.int64) for text_ids in ids])
        return texts[0], rate, self.metrics.measure(texts)

    def _generate(self, model: Any, device: str, count: int) -> Sequence[tuple[list[int], str]]:
        """Generate texts, with the same seed at every evaluation; return the ids and the text of
        each.
        """
        stepper = make_stepper(model, device)
        size = choose_batch_size(device)
        generator = Generator(stepper, self.tokenizer, pieces=self.pieces, batch_size=size)
        request = Request(
            [""] * count, GenerationConfig(max_new_tokens=SAMPLE_TOKENS), seed=0, prefix=self.prefix
        )
        return [(text.ids, text.text) for text in generator.generate(request)]

    def _update_best(self, evaluation: Evaluation | None, token_copy_rate: float | None) -> bool:
        """Return whether this result is the best so far, and if so, record it.

        Results within the copy limit are better than results beyond it. Within the limit, results
        are ranked by bits per character; beyond the limit, by token copy rate.
        """
        bits = math.inf if evaluation is None else evaluation.bits_per_character
        self.has_nan = math.isnan(bits)
        rank = _WITHIN_LIMIT, bits
        if (
            self.config.keep != "best"
            and token_copy_rate is not None
            and token_copy_rate > self.config.copy_limit
        ):
            rank = _BEYOND_LIMIT, token_copy_rate
        is_best = rank < self.best_rank and not self.has_nan
        if is_best:
            self.best = bits
            self.best_rank = rank
        if rank < self.rank_to_beat and not self.has_nan:
            self.rank_to_beat = rank
            self.without_gain = 0
        else:
            self.without_gain += 1
        return is_best
