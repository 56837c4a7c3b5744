"""Evaluation during training: scores held-out texts, measures generated ones (token copy rate,
metrics), tracks the best result.

Evaluations take at most ``MAX_SHARE`` of a run. In a run for a time, the first one measures how
fast the model scores and generates, which decides how many held-out tokens and generated texts each
of them gets. In a run of steps or epochs, where two runs of one seed must be equal, it follows from
the number of tokens trained on.
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
"""The largest share of a run that goes into its evaluations, without the final one."""

SAMPLE_TOKENS = 100  # of each generated text
_DENSE_STRIDE = 32  # up to this stride of the index copy_tokens suffice; a sparser one needs more
_MAX_FACTOR = 8  # times copy_tokens that a sparser index needs, at most
# a training step computes three times as much per token as scoring: forward, and backward twice as
# much
_TRAINING_COST = 3
_MIN_TOKENS = 2_000  # of an evaluation in a run of steps: fewer would measure nothing
_MIN_COPY_TEXTS = 4  # of the same evaluation, for the same reason
# the attributes that no checkpoint saves
_GIVEN = ("tokenizer", "documents", "config", "index", "prefix", "processes", "metrics", "pieces")
_WITHIN_LIMIT = 0  # the group of results whose token copy rate is within the limit; it comes first
_BEYOND_LIMIT = 1  # the group of results whose token copy rate is beyond the limit
_UNRANKED = 2, 0.0  # worse than every result


def affordable_evaluations(wanted: int, tokens: float) -> int:
    """Return how many evaluations a run of a number of tokens has, up to the wanted ones: those
    within their share, and the last.

    >>> [affordable_evaluations(20, steps * 2048) for steps in (1, 12, 60, 300)]
    [1, 2, 7, 20]
    """
    # an evaluation, in tokens of training
    smallest = _MIN_TOKENS / _TRAINING_COST + _MIN_COPY_TEXTS * SAMPLE_TOKENS
    return int(min(wanted, 1 + MAX_SHARE * tokens / smallest))


@dataclass
class Evaluator:
    """Evaluates a model on held-out texts and tracks the best result.

    With several processes, each scores its share of the texts and the main process generates; all
    get the same result.

    Attributes:
        tokenizer: The model's tokenizer.
        documents: The held-out texts to score; fewer of them once there is a limit.
        config: Training settings.
        index: Index of the training text, for the token copy rate; without one it is not measured.
        prefix: Ids after bos that stand for conditions not given.
        processes: The process group.
        metrics: Measured of the generated texts.
        best: Bits per character of the best result.
        without_gain: Evaluations since the best one after the warm-up.
        seconds: Duration of the last evaluation.
        total_seconds: Duration of all evaluations so far.
        setup_seconds: Duration of what the first one did once: measured the rates.
        seconds_each: Maximum duration of one evaluation; None for no limit.
        copy_texts: The number of generated texts that the token copy rate is measured on; None as
            many as the settings say.
        has_nan: Whether the last result is NaN: the weights are useless.
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
        """Evaluate a model, which is in evaluation mode, and update the best result; return the
        report with this one.
        """
        if self.seconds_each is not None and self.copy_texts is None:
            start = clock()
            self._limit_to_seconds(model, device, self.seconds_each)
            self.setup_seconds = float(self.processes.all_gather([clock() - start])[0, 0])
            self.total_seconds = self.setup_seconds
        start = clock()
        evaluation = self._score(model, device)
        generated = None if self.processes.rank else self._measure_texts(model, device)
        sample, token_copy_rate, metrics = self.processes.broadcast(generated)
        is_best = self._update_best(evaluation, token_copy_rate)
        # the main process's clock
        self.seconds = float(self.processes.all_gather([clock() - start])[0, 0])
        self.total_seconds += self.seconds
        group, rate = self.best_rank
        notes = []
        if report.stopped and group == _BEYOND_LIMIT:
            share = (
                "of the 20-token windows of its texts, more than"
                f" training.copy_limit={self.config.copy_limit:g}"
            )
            notes = [
                f"At every evaluation, the model copied {share}; the weights that copied the"
                f" fewest, {rate:.3f}, are kept."
            ]
        return replace(
            report,
            evaluation=evaluation,
            token_copy_rate=token_copy_rate,
            sample=sample,
            is_best=is_best,
            metrics=metrics,
            evaluation_seconds=self.total_seconds,
            notes=(*report.notes, *self.metrics.pop_notes(), *notes),
        )

    def end_warmup(self) -> None:
        """Count evaluations without gain from the next one on.

        Of a trained model that is trained further, those during the warm-up are near the annealed
        weights that it started from, which a high learning rate first leaves and only the end of
        the run can beat.
        """
        self.without_gain = 0
        self.rank_to_beat = _UNRANKED

    def limit_to_share(self, seconds: float | None, tokens: float) -> None:
        """Limit the evaluations to a share of a run of some seconds, which the first one measures;
        or of a number of tokens.
        """
        if seconds is not None:
            self.seconds_each = MAX_SHARE * max(0.0, seconds) / self.config.evaluations
            return
        # half for scoring, half for generating
        budget = MAX_SHARE * round(tokens) / self.config.evaluations / 2
        self._limit(
            max(_MIN_TOKENS, round(_TRAINING_COST * budget)),
            max(_MIN_COPY_TEXTS, round(budget / SAMPLE_TOKENS)),
        )

    def has_time(self, seconds: float) -> bool:
        """Return whether another evaluation keeps within the evaluations' share of a run, after
        some seconds of it.
        """
        expected = self.seconds or self.seconds_each
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
        """Restore the state of another evaluator, of the same documents."""
        vars(self).update({name: value for name, value in state.items() if name != "texts"})
        self.documents = spread_documents(self.documents, state["texts"])

    def _limit_to_seconds(self, model: Any, device: str, seconds: float) -> None:
        """Limit each evaluation to some seconds: half for scoring, half for generating, at the
        rates measured now.
        """
        tokens = math.inf
        texts = 1.0
        if self.processes.rank == 0:
            with suppress(NotADistribution):
                tokens = (
                    seconds
                    / 2
                    * measure_rate(model, self.documents, self.tokenizer.vocab_size, device)
                )
            with suppress(GenerationError):  # diverged: the next step says so
                # there, one takes as long as all
                side_by_side = 1 if device == "cpu" else choose_batch_size(device)
                self._generate(model, device, side_by_side)  # a warm-up
                start = clock()
                self._generate(model, device, side_by_side)
                texts = seconds / 2 * side_by_side / max(clock() - start, 1e-9)
        self._limit(*self.processes.broadcast((tokens, texts)))

    def _limit(self, tokens: float, copy_texts: float) -> None:
        """Limit the tokens to score and the texts to generate in each evaluation, and keep at least
        one of each.
        """
        share = min(1.0, tokens / max(1, sum(len(ids) for ids, _ in self.documents)))
        self.documents = spread_documents(
            self.documents, max(1, round(share * len(self.documents)))
        )
        self.copy_texts = max(1, min(self._wanted_texts(), int(copy_texts)))

    def _wanted_texts(self) -> int:
        """Return how many texts to generate, without a limit: more if the index is so sparse that
        it covers few windows.
        """
        factor = (
            bool(self.metrics)
            if self.index is None
            else max(1, min(self.index.stride // _DENSE_STRIDE, _MAX_FACTOR))
        )
        return max(1, self.config.copy_tokens * factor // SAMPLE_TOKENS)

    def _score(self, model: Any, device: str) -> Evaluation | None:
        """Score the held-out texts, each process its share; None if the model's scores are not a
        distribution.
        """
        documents = self.documents[self.processes.rank :: self.processes.world_size]
        totals = Totals()
        is_scored = True
        try:
            totals = evaluate_totals(model, documents, self.tokenizer.vocab_size, device)
        except NotADistribution:
            is_scored = False
        nats, *counts, scored = self.processes.all_gather([*totals, is_scored]).sum(axis=0).tolist()
        return (
            Totals(nats, *map(int, counts)).evaluation()
            if scored == self.processes.world_size
            else None
        )

    def _measure_texts(
        self, model: Any, device: str
    ) -> tuple[str, float | None, dict[str, float | None]]:
        """Generate texts; return the first one, and the token copy rate and the metrics of all.

        A model that has diverged, whose logits are NaN or infinite, generates none; the next step
        ends the training.
        """
        try:
            generated = self._generate(model, device, self.copy_texts or self._wanted_texts())
        except GenerationError:
            return "", None, {}
        ids, texts = zip(*generated, strict=True)
        rate = None
        if self.index is not None and self.config.copy_tokens:
            rate = self.index.token_copy_rate([np.array(text_ids, np.int64) for text_ids in ids])
        return texts[0], rate, self.metrics.measure(texts)

    def _generate(self, model: Any, device: str, count: int) -> Sequence[tuple[list[int], str]]:
        """Generate texts, with the same seed at every evaluation; return their ids and their
        text.
        """
        stepper = make_stepper(model, device)
        size = choose_batch_size(device)
        generator = Generator(stepper, self.tokenizer, pieces=self.pieces, batch_size=size)
        request = Request(
            [""] * count, GenerationConfig(max_new_tokens=SAMPLE_TOKENS), seed=0, prefix=self.prefix
        )
        return [(row.ids, row.text) for row in generator.generate(request)]

    def _update_best(self, evaluation: Evaluation | None, token_copy_rate: float | None) -> bool:
        """Return whether this result is the best so far, and if so, record it.

        Results within the copy limit come before those beyond it. The former are ranked by bits per
        character, the latter by token copy rate.
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
        gains = rank < self.rank_to_beat and not self.has_nan
        self.without_gain = 0 if gains else self.without_gain + 1
        self.rank_to_beat = rank if gains else self.rank_to_beat
        return is_best
