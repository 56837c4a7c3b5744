"""The fit of a plan's model on a prepared corpus: iterated for its reports, then finished into a ReviewModel."""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from reviewgen.card import describe, write_card
from reviewgen.config import to_dict
from reviewgen.errors import TrainingError
from reviewgen.evaluation import Evaluation, Metrics
from reviewgen.generation.model_stepper import using_threads
from reviewgen.interrupts import uninterrupted
from reviewgen.model import Bundle, ReviewModel, Weights
from reviewgen.processes import process_state
from reviewgen.protocols import LanguageModel
from reviewgen.runs.curves import Curves
from reviewgen.runs.final import describe_held_out, evaluate_held_out, final_split, measure_texts
from reviewgen.runs.finished import SETTINGS
from reviewgen.runs.plan import TrainingPlan
from reviewgen.runs.prepare import PreparedCorpus
from reviewgen.runs.record import CopyRates, RunRecord, corpus_facts, novelty_facts, parent_facts, progress_facts, thin_record
from reviewgen.runs.run_folder import RunFolder
from reviewgen.runs.suggestion import suggest_trained_weights
from reviewgen.runs.tracking import RunLog
from reviewgen.training import Report, StopReason, TrainingConfig, fit, interrupts_kept_for_restart
from reviewgen.training.checkpoints import Checkpoints

_logger = logging.getLogger("reviewgen")


@dataclass(frozen=True)
class Baseline:
    """What the training starts from."""

    token_copy_rate: float | None = None  # of the held-out texts; None without a novelty index
    bits_per_character: float | None = None  # of a trained model on the held-out texts; None for a new one, or if infinite
    initial_tensors: tuple[str, ...] = ()  # those of the model that a file has given


@dataclass(kw_only=True)
class BaseFit(ABC):
    """What the fits of a model and of a blend share: iterated for their reports, then saved, measured and saved again.

    Attributes:
        plan: The plan of the run.
        corpus: The prepared corpus.
        started: When the run was started, a moment of ``time.monotonic``.
        record: Notes for the user and the reports so far; of a blend, only its own.
        log: The tracker that the curves are also logged to; of a blend, those of the model trained by gradient.
        folder: The folder of the checkpoints; None for a run without.
        is_interrupted: Whether the user has interrupted the run.
        evaluation: The final evaluation; None before ``finish``, and if the model cannot be scored.
        copy_rates: Its copy rates in characters; unknown before ``finish``, and with ``training.copy_tokens=0``.
        metric_facts: Its metrics, as ``Metrics.facts`` returns them; likewise.
        evaluation_seconds: Duration of the final evaluation, copy rates and metrics included.
    """

    plan: TrainingPlan
    corpus: PreparedCorpus
    started: float
    record: RunRecord
    log: RunLog
    folder: RunFolder | None = None
    is_interrupted: bool = False
    evaluation: Evaluation | None = None
    copy_rates: CopyRates = field(default_factory=CopyRates)
    metric_facts: dict[str, Any] = field(default_factory=dict)
    evaluation_seconds: float = 0.0

    @cached_property
    def metrics(self) -> Metrics:
        """The metrics of the texts that the model generates."""
        return Metrics(self.plan.parts.training.metrics, self.corpus.words)

    @property
    def held_out(self) -> dict[str, Any] | None:
        """The final evaluation as JSON values, with the split it was on."""
        return describe_held_out(self.evaluation, self.corpus)

    def interrupt(self) -> None:
        """Mark the run as interrupted by the user, so that ``finish`` does not measure the model."""
        self.is_interrupted = True

    def finish(self) -> ReviewModel:
        """Save the model if the plan has an output folder, measure it, save it again with the results, and return it.

        Raises:
            StorageError: The folder cannot be written; says where the model was saved instead.
            TrainingError: No step was taken; of a blend, by one of its models.
        """
        last = self._complete()
        with uninterrupted():
            model = self._save()
        if self.is_interrupted:
            return model
        where = "kept" if self.plan.out is None else f"saved in {self.plan.out}"
        start = time.monotonic()
        try:
            self._measure(last)
        except KeyboardInterrupt:
            self.interrupt()
            self.record.note(f"The training was over when it was interrupted: its model is {where}, and was not measured fully.")
        except Exception:
            _logger.warning("The training is over and its model is %s; an error has occurred while it was measured.", where)
            raise
        self.evaluation_seconds = time.monotonic() - start
        with uninterrupted():
            return self._save()

    @abstractmethod
    def make_bundle(self) -> Bundle:
        """Return the model with everything that is saved with it."""

    @abstractmethod
    def _complete(self) -> Report:
        """Return the last report of the training by gradient, after what is left to do of an interrupted training."""

    @abstractmethod
    def _measure(self, last: Report) -> None:
        """Evaluate the model on held-out texts, and measure what it generates."""

    def _measure_texts(self, model: LanguageModel, last: Report) -> None:
        """Measure the copy rates and the metrics of generated texts."""
        if self.plan.parts.training.copy_tokens and process_state().is_main_process:
            self.copy_rates, self.metric_facts = measure_texts(model, self.corpus, last.threads, self.metrics)
            self.record.note(*self.metrics.pop_notes())

    def _save(self) -> ReviewModel:
        bundle = self.make_bundle()
        if self.folder is not None:
            self.folder.save(bundle)
        return ReviewModel(bundle)


@dataclass(kw_only=True)
class Fit(BaseFit):
    """A model that is being trained; made by ``reviewgen.runs.start.start_fit``.

    Attributes:
        model: The model; after the training it holds its best weights.
        baseline: What was measured before the training.
    """

    model: LanguageModel
    baseline: Baseline

    @property
    def config(self) -> TrainingConfig:
        """The training settings, including those that were chosen for a time budget."""
        size = self.record.size
        return self.plan.parts.training if size is None else replace(self.plan.parts.training, **size.training)

    @property
    def curves(self) -> dict[str, Curves]:
        """The learning curves so far, by the preset."""
        return {self.plan.preset: self.record.curves}

    def __iter__(self) -> Iterator[Report]:
        """Train; yield a report for each step."""
        corpus = self.corpus
        reports = fit(
            self.model,
            corpus.tokenizer,
            corpus.stores["train"],
            corpus.stores["validation"],
            self.config,
            self.plan.length.budget(),
            self.plan.seed,
            corpus.index,
            corpus.conditions.unspecified_ids,
            self._checkpoints,
            self.metrics,
        )
        closed = nullcontext() if self.folder is None else self.folder.closed_on_error()
        with closed, interrupts_kept_for_restart(self._checkpoints), self.log.opened(self._settings()):
            for report in reports:
                yield self.log.record(report, self.record.add(report))

    @property
    def _checkpoints(self) -> Checkpoints | None:
        return None if self.folder is None else self.folder.checkpoints

    def facts(self) -> dict[str, Any]:
        """Return the record of the training as JSON values, as ``training.json`` holds it."""
        plan, corpus, record, baseline = self.plan, self.corpus, self.record, self.baseline
        stopped, initial = self._stopped(), plan.parts.initial_weights
        seconds = time.monotonic() - self.started + (0.0 if self.folder is None else self.folder.seconds)
        return {
            "preset": plan.preset,
            **parent_facts(plan.parts.trained, baseline.bits_per_character),
            **({} if initial is None else {"initial_weights": initial.facts(list(baseline.initial_tensors))}),
            "seed": plan.seed,
            SETTINGS: plan.digest(),
            "data": plan.data.facts() | corpus_facts(corpus.corpus, corpus.stores, corpus.conditions),
            "config": to_dict(self.config),
            "budget_seconds": plan.length.seconds,
            "stopped": None if stopped is None else stopped.value,
            **progress_facts(record.last, seconds, self.evaluation_seconds),
            **record.curves.facts(stopped, baseline.token_copy_rate),
            "novelty": novelty_facts(
                corpus.index, corpus.corpus.fingerprint, self.copy_rates, record.curves.evaluations, baseline.token_copy_rate
            ),
            "metrics": self.metric_facts or self.metrics.facts(),
            "held_out": self.held_out,
            "notes": [*record.notes, *filter(None, [self.log.failure])],
        }

    def _stopped(self) -> StopReason | None:
        stopped = None if self.record.last is None else self.record.last.stopped
        return StopReason.INTERRUPTED if self.is_interrupted and stopped is None else stopped

    def _settings(self) -> dict[str, Any]:
        """Return all settings, for the log."""
        configs = {
            "model": self.model.config,
            "tokenizer": self.plan.parts.tokenizer_config,
            "training": self.config,
            "data": self.plan.data,
        }
        return {name: to_dict(config) for name, config in configs.items()} | {"preset": self.plan.preset, "seed": self.plan.seed}

    def _complete(self) -> Report:
        if self.record.last is None:
            raise TrainingError("The training was over before its first step; nothing was saved. Give it a longer budget.")
        return self.record.last

    def _measure(self, last: Report) -> None:
        (self.evaluation,) = evaluate_held_out([self.model], self.corpus, last.threads, self.plan.length.seconds)
        self._measure_texts(self.model, last)
        self._suggest(last)

    def _suggest(self, last: Report) -> None:
        """Add a note if training shipped weights further would have served better."""
        if process_state().is_main_process:
            seconds = time.monotonic() - self.started
            with using_threads(last.threads):
                self.record.note(*suggest_trained_weights(self.plan, self.corpus, final_split(self.corpus), last.tokens, seconds))

    def _words(self) -> Literal["known", "any"]:
        """Return the default of ``words``: known words only if there is a lexicon; a model trained further keeps its own."""
        trained = self.plan.parts.trained
        is_kept = trained is not None and trained.generation_config.words == "any"
        return "any" if is_kept or self.corpus.lexicon is None else "known"

    def make_bundle(self) -> Bundle:
        """Return the model with everything that is saved with it."""
        parts = self.plan.parts
        bundle = Bundle(
            preset=parts.preset,
            weights=Weights(self.model),
            tokenizer=self.corpus.tokenizer,
            model_plugin=parts.model_plugin,
            tokenizer_plugin=parts.tokenizer_plugin,
            tokenizer_config=parts.tokenizer_config,
            generation=replace(parts.generation, words=self._words(), conditions={}),
            training=thin_record(self.facts()),
            index=self.corpus.index,
            lexicon=self.corpus.lexicon,
            conditions=self.corpus.conditions or None,
        )
        bundle.card = write_card(describe(bundle))
        return bundle
