"""``BlendTraining``: trains the models of a blend one after another on the same corpus, then fits
the weights of the blend on held-out texts, as ``reviewgen.blend`` does.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from reviewgen.compiled.jit import clock
from reviewgen.devices import using_threads
from reviewgen.errors import Detail, NotADistribution
from reviewgen.evaluation.evaluate import sample_documents
from reviewgen.evaluation.metrics import TextMetrics
from reviewgen.evaluation.scoring import Document
from reviewgen.processes import all_processes
from reviewgen.runs.blend import fit_blend
from reviewgen.runs.corpus import PreparedCorpus
from reviewgen.runs.measure import choose_documents
from reviewgen.runs.plan import TrainingPlan
from reviewgen.runs.record import RunRecord
from reviewgen.runs.setup import TrainingSetup
from reviewgen.runs.tracking import RunLog
from reviewgen.runs.train_model import ModelTraining
from reviewgen.training.checkpoints import Checkpoints
from reviewgen.training.evaluator import Evaluator
from reviewgen.training.report import Budget, Report

_COUNTING_SHARE = 0.4  # counting takes at most this share of the time left
# the network takes this share of the time that counting leaves; fitting the weights and evaluating
# the blend take the rest
_NETWORK_SHARE = 0.95
# share of a time budget for scoring the texts that the weights are fitted on; the fit itself takes
# three times as long
_WEIGHTS_SHARE = 0.01
# an interrupted blend fits its weights on the usual number of tokens divided by this
_INTERRUPTED_DIVISOR = 4
_EVALUATION_SHARE = 0.005  # share of a time budget for evaluating the blend on validation texts


@dataclass(eq=False)
class BlendTraining:
    """The training of a blend: iterate over it for a report of each step of its models, and of the
    blend. Arguments and attributes are those of ``ModelTraining``.

    Attributes:
        model: The ``Blend``; None until its weights are fitted.
        parts: The trainings of its models that have started so far. The last is the network.
    """

    plan: TrainingPlan
    corpus: PreparedCorpus
    record: RunRecord
    checkpoints: Checkpoints
    log: RunLog
    parts: list[ModelTraining] = field(default_factory=list)
    model: Any = None

    def __post_init__(self) -> None:
        self.metrics = TextMetrics(self.plan.setup.training.metrics, self.corpus.words)
        self.record.begin(self.corpus, {})

    def __iter__(self) -> Iterator[Report]:
        """Train the models in turn, then fit their weights and evaluate the blend.

        Raises:
            TrainingError: The training of a model has failed.
            NotADistribution: The probabilities of a model do not sum to one.
        """
        for setup in self.plan.setup.components:
            part = self._start(setup)
            for report in part:
                self.record.last = report
                # without repetitions
                notes = dict.fromkeys((*part.record.notes, *report.notes))
                new_notes = [note for note in notes if note not in self.record.notes]
                self.record.note(*new_notes)
                yield replace(report, part=setup.preset, notes=tuple(new_notes), stopped=None)
            if setup.is_counted and part.record.last.evaluation is None:
                raise NotADistribution(
                    f"The scores of {setup.preset} with these settings are not probabilities that"
                    " sum to one, so it cannot be part of a blend."
                )
        report = self._evaluate()
        self.record.add(report)
        yield report

    def _start(self, setup: TrainingSetup) -> ModelTraining:
        """Start the training of a model of the blend. Only a network has checkpoints and a log."""
        plan = replace(self.plan, setup=setup, length=self._length_of(setup))
        record = RunRecord(training=setup.training)
        checkpoints = self.checkpoints
        log = self.log
        if setup.is_counted:
            checkpoints = Checkpoints()
            log = RunLog(None, None, setup.preset)
        part = ModelTraining(plan, self.corpus, record, checkpoints, log)
        self.parts.append(part)
        self.record.parts[setup.preset] = record
        # in the end, those of the network
        self.record.training = record.training
        self.record.token_copy_rate = record.token_copy_rate
        self.record.last = record.last
        return part

    def _length_of(self, setup: TrainingSetup) -> Budget:
        """Return the length of the training of a model: with a time budget, a share of the time
        that is left.
        """
        length = self.plan.length
        if length.seconds is None:
            return length
        spent = sum(part.record.last.seconds for part in self.parts)
        share = _COUNTING_SHARE if setup.is_counted else _NETWORK_SHARE
        # all processes use the main process's clock, since they must agree on the length
        with all_processes() as processes:
            return Budget(seconds=processes.broadcast(share * max(0.0, length.seconds - spent)))

    def _evaluate(self) -> Report:
        """Fit the weights of the blend and evaluate it; return the last report of the run."""
        start = clock()
        corpus = self.corpus
        network = self.parts[-1]
        config = self.record.training
        seconds = self.plan.length.seconds
        last = self.record.last
        with using_threads(last.threads):
            documents = choose_documents(
                network.model,
                corpus,
                "validation",
                config.evaluation_tokens,
                None if seconds is None else _WEIGHTS_SHARE * seconds,
            )
            with all_processes() as processes:
                documents = processes.broadcast(documents)  # their number depends on a clock
            weights = self._fit(documents)
            evaluator = Evaluator(
                corpus.tokenizer,
                documents,
                config,
                corpus.index,
                corpus.conditions.unspecified_ids,
                metrics=self.metrics,
                seconds_each=None if seconds is None else _EVALUATION_SHARE * seconds,
            )
            report = replace(
                last,
                part=self.plan.preset,
                progress=1.0,
                loss=None,
                learning_rate=None,
                notes=(Detail(weights),),
                stopped=None,
            )
            report = evaluator.evaluate(self.model, report)
        return replace(
            report,
            seconds=last.seconds + clock() - start,
            evaluation_seconds=last.evaluation_seconds + evaluator.total_seconds,
            stopped=last.stopped,
        )

    def _fit(self, documents: list[Document]) -> str:
        """Make the blend, and fit its weights on held-out texts. Return a sentence with the weights
        and the bits per character of each model.
        """
        corpus = self.corpus
        self.model, facts = fit_blend(
            [part.model for part in self.parts],
            [part.plan.setup.model_plugin for part in self.parts],
            documents,
            corpus.tokenizer.vocab_size,
        )
        self.record.weights = facts | {"source": corpus.texts.source.name, "split": "validation"}
        described = []
        for part, weight, bits in zip(
            self.parts, self.model.config.weights, facts["bits_per_character"]["parts"], strict=True
        ):
            shown = "infinite" if bits is None else f"{bits:.4f}"
            described.append(f"{part.plan.preset} {weight:.3f} (alone {shown} bits per character)")
        return f"Weights, fitted on {facts['tokens']:,} held-out tokens: {', '.join(described)}."

    def complete(self) -> None:
        """Fit the weights of the blend if its training was interrupted before."""
        if self.model is None:
            tokens = self.record.training.evaluation_tokens // _INTERRUPTED_DIVISOR
            self._fit(sample_documents(self.corpus.stores["validation"], tokens))
