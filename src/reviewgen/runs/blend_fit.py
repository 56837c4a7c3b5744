"""The fit of a blend: each of its models is fitted in turn on one prepared corpus, then their weights on its held-out texts.

A ``BlendFit`` is used as a ``Fit`` is: iterated for its reports, then finished into a ReviewModel.
"""

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from reviewgen.blending.model import Blend
from reviewgen.errors import NotADistribution, TrainingError
from reviewgen.evaluation import Document, measure_rate, sample_documents
from reviewgen.generation.model_stepper import using_threads
from reviewgen.interrupts import uninterrupted
from reviewgen.model import Bundle, ReviewModel
from reviewgen.processes import all_processes
from reviewgen.protocols import LanguageModel
from reviewgen.runs.blend import fit_mixture, make_bundle
from reviewgen.runs.curves import Curves, targets_per_character
from reviewgen.runs.final import evaluate_held_out
from reviewgen.runs.finished import SETTINGS
from reviewgen.runs.fit import BaseFit, Fit
from reviewgen.runs.parts import TrainingParts
from reviewgen.runs.plan import TrainingPlan
from reviewgen.runs.prepare import PreparedCorpus
from reviewgen.runs.record import RunRecord, novelty_facts, thin_record
from reviewgen.runs.run_folder import RunFolder
from reviewgen.runs.start import start_fit
from reviewgen.runs.tracking import RunLog
from reviewgen.training import Evaluator, Report, TrainingConfig, find_verdict

_COUNTING_SHARE = 0.4  # of the time left, at most
_WEIGHTS_SHARE = 0.05  # of the time left after counting: fitting the weights, and evaluating the blend
_MIN_TOKENS = 2_000  # held-out tokens that the weights are fitted on, at least
_FIT_COST = 3  # scoring a text, and the entropy at each of its tokens, for the fit, in times of its scoring
_INTERRUPTED_DIVISOR = 4  # an interrupted run fits the weights on a part of the texts only
_EVALUATION_SHARE = 0.005  # of the time budget, for the blend's own evaluation


@dataclass(kw_only=True)
class BlendFit(BaseFit):
    """A blend whose models are being trained; made by ``start_blend``.

    Attributes:
        fits: The fits of the models, those that have started.
        weights: The fitted weights, one for each model; empty until all models are trained.
        gate: How they depend on the context.
        weight_facts: The facts on their fit.
    """

    fits: list[Fit] = field(default_factory=list)
    weights: tuple[float, ...] = ()
    gate: dict[str, Any] = field(default_factory=dict)
    weight_facts: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> TrainingConfig:
        """The training settings of the model that is trained by gradient."""
        return self.fits[-1].config if self._are_all_started else self.plan.parts.training

    @property
    def model(self) -> LanguageModel:
        """The blend.

        Raises:
            TrainingError: Its models are not all trained yet.
        """
        if not self.weights:
            raise TrainingError(f"There is no {self.plan.preset} yet: iterate over the run to train its models.")
        plugins = [fit.plan.parts.model_plugin for fit in self.fits]
        return Blend.from_models([fit.model for fit in self.fits], plugins, self.weights, self.gate)

    @property
    def curves(self) -> dict[str, Curves]:
        """The learning curves so far of each model, by its preset."""
        return {fit.plan.preset: fit.record.curves for fit in self.fits}

    @property
    def _are_all_started(self) -> bool:
        return len(self.fits) == len(self.plan.parts.models)

    def __iter__(self) -> Iterator[Report]:
        """Train the models, then fit their weights; yield a report for each step, and the last one for the blend.

        Raises:
            NotADistribution: The scores of a model that is trained by counting do not sum to one.
        """
        with nullcontext() if self.folder is None else self.folder.closed_on_error():
            for parts in self.plan.parts.models:
                fit = self._start(parts)
                self.fits.append(fit)
                for report in fit:
                    yield self._forward(fit, report)
                _refuse_scores(fit)
            yield self._report_blend()

    def interrupt(self) -> None:
        """Mark the run as interrupted by the user, so that ``finish`` does not measure the blend and its models."""
        super().interrupt()
        for fit in self.fits[-1:]:
            fit.interrupt()

    def facts(self) -> dict[str, Any]:
        """Return the record of the training as JSON values: that of the model trained by gradient, and what is the blend's.

        Raises:
            TrainingError: No model is trained by gradient yet.
        """
        if not self._are_all_started:
            raise TrainingError(f"There is no record of {self.plan.preset} yet: iterate over the run to train its models.")
        by_gradient, evaluations = self.fits[-1], self.record.curves.evaluations
        facts, token_copy_rate = by_gradient.facts(), by_gradient.baseline.token_copy_rate
        return {
            **facts,
            "preset": self.plan.preset,
            SETTINGS: self.plan.digest(),
            "budget_seconds": self.plan.length.seconds,
            "evaluation_seconds": self._evaluation_seconds(),
            "verdict": self._judge(facts["stopped"], token_copy_rate),
            "evaluations": evaluations,
            "curve": {},
            "novelty": novelty_facts(
                self.corpus.index, self.corpus.corpus.fingerprint, self.copy_rates, evaluations, token_copy_rate
            ),
            "metrics": self.metric_facts or self.metrics.facts(),
            "held_out": self.held_out,
            "notes": [*self.record.notes, *filter(None, [self.log.failure])],
        }

    def _start(self, parts: TrainingParts) -> Fit:
        """Start the fit of a model, for its share of the time left. Only the one by gradient has checkpoints and a log."""
        share = _COUNTING_SHARE if parts.is_counted else 1 - _WEIGHTS_SHARE
        with all_processes() as processes:  # of the first one's clock: the lengths are compared
            length = processes.broadcast(self.plan.length.part(self._spent(), share))
        plan = self.plan.of_model(parts, length)
        log, folder = (None, None) if parts.is_counted else (self.log, self.folder)
        return start_fit(plan, self.corpus, started=self.started, log=log, folder=folder)

    def _spent(self) -> float:
        """Return how long the models were trained so far, in seconds."""
        return sum(fit.record.last.seconds for fit in self.fits if fit.record.last is not None)

    def _forward(self, fit: Fit, report: Report) -> Report:
        """Return the report of a model as one of the whole run, with the notes that are new."""
        notes = [note for note in dict.fromkeys((*fit.record.notes, *report.notes)) if note not in self.record.notes]
        self.record.note(*notes)
        return replace(report, part=fit.plan.preset, notes=tuple(notes), stopped=None)

    def _report_blend(self) -> Report:
        """Fit the weights and evaluate the blend; return the last report of the run."""
        last, start = self.fits[-1].record.last, time.monotonic()
        assert last is not None, "training by gradient reports at least one step"
        corpus, left = self.corpus, self.plan.length.part(self._spent(), 1).seconds
        half = None if left is None else left / 2  # for fitting; the rest is enough for evaluating
        seconds_each = None if self.plan.length.seconds is None else _EVALUATION_SHARE * self.plan.length.seconds
        with using_threads(last.threads):
            documents = self._choose_documents(half)
            self._fit_weights(documents)
            prefix = corpus.conditions.unspecified_ids
            evaluator = Evaluator(
                corpus.tokenizer, documents, self.config, corpus.index, prefix, metrics=self.metrics, seconds_each=seconds_each
            )
            result = evaluator.evaluate(self.model)
        report = replace(
            last,
            **vars(result),
            part=self.plan.preset,
            progress=1.0,
            loss=None,
            learning_rate=None,
            seconds=last.seconds + time.monotonic() - start,
            evaluation_seconds=last.evaluation_seconds + evaluator.total_seconds,
            notes=(self._describe_weights(), *self.metrics.pop_notes()),
        )
        self.record.add(report)
        return report

    def _choose_documents(self, seconds: float | None) -> list[Document]:
        """Return held-out texts to fit the weights on: as for an evaluation, or as many as can be scored in the time."""
        store, tokens = self.corpus.stores["validation"], self.config.evaluation_tokens
        vocab_size, given = self.corpus.conditions.vocab_size, len(self.corpus.conditions)
        with all_processes() as processes:
            if seconds is not None and processes.rank == 0:
                probe = sample_documents(store, _MIN_TOKENS)
                rates = [measure_rate(fit.model, probe, vocab_size, given=given) for fit in self.fits]
                tokens = max(_MIN_TOKENS, min(tokens, round(seconds / _FIT_COST / sum(1 / rate for rate in rates))))
            return sample_documents(store, processes.broadcast(tokens))

    def _fit_weights(self, documents: list[Document]) -> None:
        conditions, models = self.corpus.conditions, [fit.model for fit in self.fits]
        self.weights, self.gate, facts = fit_mixture(models, documents, conditions.vocab_size, len(conditions))
        self.weight_facts = facts | {"source": self.corpus.corpus.source.name, "split": "validation"}

    def _describe_weights(self) -> str:
        """Return the weights and the bits per character of the models, as a sentence."""
        bits = self.weight_facts["bits_per_character"]["parts"]
        models = [
            f"{fit.plan.preset} {weight:.3f} (alone {'infinite' if own is None else f'{own:.4f}'} bits per character)"
            for fit, weight, own in zip(self.fits, self.weights, bits, strict=True)
        ]
        return f"Weights, fitted on {self.weight_facts['tokens']:,} held-out tokens: {', '.join(models)}."

    def _judge(self, stopped: str | None, held_out_token_copy_rate: float | None) -> dict[str, Any]:
        """Return the verdict: on the curve of the model that is trained by gradient, and on what the blend copies."""
        own = self.record.curves.evaluations
        copies = {"token_copy_rate": own[-1]["token_copy_rate"] if own else None}
        curve = [each | copies for each in self.fits[-1].record.curves.evaluations]
        return asdict(find_verdict(curve, stopped, held_out_token_copy_rate))

    def _complete(self) -> Report:
        if not self._are_all_started or (last := self.fits[-1].record.last) is None:
            name = self.plan.parts.models[-1].preset
            raise TrainingError(
                f"The training was over before the first step of {name}; nothing was saved. Give it a longer budget."
            )
        with uninterrupted():
            if not self.weights:
                tokens = self.config.evaluation_tokens // _INTERRUPTED_DIVISOR
                self._fit_weights(sample_documents(self.corpus.stores["validation"], tokens))
        return last

    def _measure(self, last: Report) -> None:
        blend, budget = self.model, self.plan.length.seconds
        half = None if budget is None else budget / 2  # the blend scores each text as often as all its models together
        models = [*(fit.model for fit in self.fits), blend]
        *alone, self.evaluation = evaluate_held_out(models, self.corpus, last.threads, half)
        for fit, evaluation in zip(self.fits, alone, strict=True):
            fit.evaluation = evaluation
        self._measure_texts(blend, last)

    def _evaluation_seconds(self) -> float:
        """Return the duration of all evaluations: of each model, of the blend, and the final one."""
        last = [fit.record.last for fit in self.fits[:-1]] + [self.record.last or self.fits[-1].record.last]
        return round(sum(report.evaluation_seconds for report in last if report is not None) + self.evaluation_seconds, 2)

    def make_bundle(self) -> Bundle:
        """Return the blend with everything that is saved with it."""
        parts = self.plan.parts
        models = [ReviewModel(_bundle_of(fit)) for fit in self.fits]
        bundle = make_bundle(models, self.weights, self.gate, self.weight_facts, parts.preset, parts.generation, self.facts())
        bundle.training = thin_record(bundle.training)
        return bundle


def start_blend(
    plan: TrainingPlan, corpus: PreparedCorpus, *, started: float, log: RunLog, folder: RunFolder | None = None
) -> BlendFit:
    """Return the fit of a blend; each of its models is built when it is its turn. See ``start_fit`` for the arguments."""
    record = RunRecord.restore(targets_per_character(corpus.stores["train"], len(corpus.conditions)), {})
    names = ", then ".join(parts.preset for parts in plan.parts.models)
    record.note(*corpus.notes, f"{plan.preset} is trained in parts: {names}, then their weights on held-out texts.")
    return BlendFit(plan=plan, corpus=corpus, started=started, record=record, log=log, folder=folder)


def _bundle_of(fit: Fit) -> Bundle:
    """Return a trained model; the seconds in its record are those of its own training."""
    bundle = fit.make_bundle()
    seconds = 0.0 if fit.record.last is None else round(fit.record.last.seconds, 2)
    return replace(bundle, training=bundle.training | {"seconds": seconds})


def _refuse_scores(fit: Fit) -> None:
    """Raise before any further training if the scores of a model cannot be averaged with those of another.

    Raises:
        NotADistribution: They do not sum to one.
    """
    if fit.record.last is not None and fit.record.last.evaluation is None and fit.plan.parts.is_counted:
        raise NotADistribution(
            f"The scores of {fit.plan.preset} with these settings are not probabilities that sum to one, so it cannot be part of "
            "a blend."
        )
