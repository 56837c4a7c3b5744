"""``TrainingRun``: trains a network, an n-gram or a blend step by step, so that the caller can
watch.
"""

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Unpack, cast

from reviewgen.compiled.jit import clock
from reviewgen.config.options import TrainKwargs, refuse_unknown_options
from reviewgen.config.settings import to_dict
from reviewgen.data.split import Corpus
from reviewgen.devices import using_threads
from reviewgen.errors import ProcessLost, TrainingError
from reviewgen.evaluation.evaluate import sample_documents, spread_documents
from reviewgen.evaluation.metrics import TextMetrics
from reviewgen.evaluation.scoring import measure_gains
from reviewgen.hub.card import card_text
from reviewgen.interrupts import block_signals
from reviewgen.model.review_model import ReviewModel
from reviewgen.processes import can_restart, how_to_resume, process_state
from reviewgen.protocols.model import LanguageModel
from reviewgen.runs.build import build_model
from reviewgen.runs.corpus import PreparedCorpus, ReadCorpus, read_plan, tokenize
from reviewgen.runs.measure import (
    choose_documents,
    evaluate,
    measure_texts,
    suggest_trained_weights,
)
from reviewgen.runs.plan import TrainingPlan, make_plan
from reviewgen.runs.record import RunRecord, training_facts
from reviewgen.runs.saver import RunSaver
from reviewgen.runs.setup import dotted
from reviewgen.runs.tracking import RunLog
from reviewgen.runs.train_blend import finish_blend, fit_weights, train_parts
from reviewgen.saving.layout import Bundle
from reviewgen.saving.weights import ModelWeights
from reviewgen.training.loop import fit
from reviewgen.training.memory import use_large_pages
from reviewgen.training.report import Report

_FINAL_TOKENS = 100_000  # maximum number of held-out tokens of the final evaluation
# minimum number of texts of the final evaluation, if scoring them takes no more than a few seconds
_FINAL_TEXTS = 100
_GAIN_TEXTS = 60  # minimum number of texts on which the gain from conditions is measured
_FINAL_SHARE = 0.015  # share of a time budget for the final evaluation
# an interrupted blend fits its weights on the usual number of tokens divided by this
_INTERRUPTED_DIVISOR = 4

_logger = logging.getLogger("reviewgen")


class Run:
    """The run of a plan, step by step: call ``read`` and ``tokenize``, or ``start_on``; iterate
    over the reports; and call ``finish``.

    Args:
        plan: The plan.
        saver: Saves the run; a new one if not given.
        log: The log in a tracker; a new one if not given.

    Attributes:
        plan: Everything that was decided before the corpus was read.
        record: What the run has done and measured so far.

    Raises:
        ReviewgenError: The output folder is unusable.
    """

    plan: TrainingPlan
    record: RunRecord

    def __init__(
        self, plan: TrainingPlan, saver: RunSaver | None = None, log: RunLog | None = None
    ) -> None:
        use_large_pages()
        self.plan = plan
        self._log = log or RunLog(plan.log, plan.out, plan.preset)
        self._saver = saver or RunSaver(plan)
        self.record = self._new_record()
        self._corpus: ReadCorpus | None = None
        self._model: LanguageModel | None = None
        self._metrics = TextMetrics()
        self._parts = list[Run]()  # for a blend, the runs of its models that have started so far

    def _new_record(self, *notes: str) -> RunRecord:
        return RunRecord(
            training=self.plan.setup.training, log=self._log.describe(), notes=list(notes)
        )

    @property
    def corpus(self) -> PreparedCorpus:
        """The corpus; before it is tokenized, it has only ``texts``, ``conditions`` and ``notes``.

        Raises:
            TrainingError: The corpus was not read.
        """
        if self._corpus is None:
            raise TrainingError("There is no corpus yet: call read before you use it.")
        # a corpus that is only read raises a TrainingError if other attributes are used
        return cast("PreparedCorpus", self._corpus)

    @property
    def model(self) -> LanguageModel:
        """The model. A blend exists once its models are trained.

        Raises:
            TrainingError: The corpus was not tokenized; or the models of a blend are not trained.
        """
        self._require_prepared("use the model")
        if self._model is None:
            raise TrainingError(
                f"There is no {self.plan.preset} yet: iterate over the run to train its models."
            )
        return self._model

    def read(self) -> Corpus:
        """Read, clean and split the corpus, and return it, so that the caller can inspect it before
        the training.

        Raises:
            CheckpointError: ``<out>.partial`` holds an interrupted run and ``resume`` is not set;
                or ``resume`` is set, and there is no interrupted run with these settings.
            DataError: The source cannot be read, or contains a single review and no validation is
                given.
        """
        with self._saver.opened():
            corpus = read_plan(self.plan)
            self._corpus = corpus
            self.record.note(*corpus.notes)
            self._saver.require_corpus(corpus.texts.fingerprint)
        return corpus.texts

    def tokenize(self) -> None:
        """Train the tokenizer and encode the corpus, or load both from the token cache; then build
        the model.

        Raises:
            StorageError: The cache is full or cannot be written.
            DataError: The texts of a split have no characters.
            TrainingError: The corpus was not read.
        """
        corpus = self.corpus
        with self._saver.closed_on_error():
            self._begin(tokenize(self.plan, corpus))

    def start_on(self, corpus: PreparedCorpus) -> None:
        """Use a corpus that was prepared before, and build the model. Call this instead of ``read``
        and ``tokenize``.

        Args:
            corpus: A corpus that was prepared for a plan with the same source, tokenizer and
                novelty index; see ``Experiment.corpus``.

        Raises:
            CheckpointError: As for ``read``.
        """
        with self._saver.opened():
            self._saver.require_corpus(corpus.texts.fingerprint)
            self._begin(corpus)

    def _begin(self, corpus: PreparedCorpus) -> None:
        """Begin the record of the run and make the model; for a blend, only begin the record."""
        plan = self.plan
        started = self.record.started
        self.record = record = self._new_record(*self.record.notes)
        record.started = started
        checkpoints = self._saver.checkpoints
        record.seconds_before = checkpoints.seconds
        self._metrics = TextMetrics(plan.setup.training.metrics, corpus.words)
        record.metrics = self._metrics.facts()
        if plan.setup.components:  # the checkpoints of a blend are those of its network
            record.begin(corpus, {})
        else:
            saved = checkpoints.extra
            record.begin(corpus, saved)
            self._model = build_model(plan, corpus, record, is_resumed=bool(saved))
            checkpoints.snapshot = record.to_checkpoint
        self._corpus = corpus

    def __iter__(self) -> Iterator[Report]:
        """Train, and yield a report for each step. Afterwards the model holds its best weights.

        Raises:
            TrainingError: The corpus was not tokenized; or the training has failed, see
                ``reviewgen.train``.
            NotADistribution: The probabilities of one model of a blend do not sum to one.
        """
        corpus = self._require_prepared("train")
        plan = self.plan
        with self._saver.closed_on_error():
            if plan.setup.components:
                yield from self._train_blend(corpus)
                return
            config = self.record.training
            reports = fit(
                self.model,
                corpus.tokenizer,
                corpus.stores["train"],
                corpus.stores["validation"],
                config,
                plan.length,
                plan.seed,
                corpus.index,
                corpus.conditions.unspecified_ids,
                self._saver.checkpoints,
                self._metrics,
                all_evaluations="training.evaluations" in plan.setup.own,
            )
            used = {"model": to_dict(self.model.config), "training": to_dict(config)}
            with self._log.opened(plan.facts() | dotted(used)):
                for report in reports:
                    yield self._log.record(report, self.record.add(report))

    def _train_blend(self, corpus: PreparedCorpus) -> Iterator[Report]:
        """Train the models of a blend in turn, then fit their weights and evaluate the blend."""

        def start(plan: TrainingPlan) -> Run:
            """Return a run of one model of the blend, ready to be trained."""
            if plan.setup.is_counted:  # only a network has checkpoints and a log
                run = Run(replace(plan, out=None, log=None, resume=False))
            else:
                run = Run(plan, self._saver, self._log)
            run.start_on(corpus)
            self._parts.append(run)
            return run

        self._parts.clear()  # left by a training that was interrupted
        self.record.parts.clear()
        self._model = None
        yield from train_parts(self.plan, self.record, start)
        self._model, report = finish_blend(
            self.plan, corpus, self.record, self._parts, self._metrics
        )
        self.record.add(report)
        yield report

    def interrupt(self) -> None:
        """Mark the run as interrupted: ``finish`` then saves the best weights so far, and does not
        measure the model.

        Raises:
            TrainingError: The corpus was not tokenized, so there is no training to interrupt.
            ProcessLost: The launcher can restart the job, which then resumes.
        """
        self._require_prepared("interrupt the training")
        if can_restart():
            with self._saver.closed_on_error():
                has_checkpoint = bool(self._saver.checkpoints.steps())
                raise ProcessLost(
                    "This process received a termination signal."
                    f" {how_to_resume(has_checkpoint=has_checkpoint)}"
                )
        self.record.is_interrupted = True

    def finish(self) -> ReviewModel:
        """Save the model, measure it, save it again with the results, and return it. Without
        ``out`` nothing is saved.

        Raises:
            StorageError: ``out`` cannot be written; the message says where the model was saved
                instead.
            TrainingError: The model, or a model of a blend, was not trained for a single step.
        """
        corpus = self._require_prepared("finish")
        with self._saver.closed_on_error():
            self._require_steps()
            with block_signals():
                if self._model is None:  # an interrupted blend, whose weights are not fitted yet
                    tokens = self.record.training.evaluation_tokens // _INTERRUPTED_DIVISOR
                    documents = sample_documents(corpus.stores["validation"], tokens)
                    self._model = fit_weights(self._parts, corpus, self.record, documents)
                model = self._save(corpus)
            if self.record.is_interrupted:
                return model
            self._measure_saved(corpus)
            with block_signals():
                return self._save(corpus)

    def _require_steps(self) -> None:
        """Check that each model was trained for at least one step.

        Raises:
            TrainingError: A model was not.
        """
        components = self.plan.setup.components
        last = self.record.last
        has_steps = last.tokens or last.stopped
        if not has_steps or len(self.record.parts) < len(components):
            of_model = f" of {components[-1].preset}" if components else ""
            raise TrainingError(
                f"The training ended before the first step{of_model}; nothing was saved. Give it"
                " more time."
            )

    def _save(self, corpus: PreparedCorpus) -> ReviewModel:
        """Write the model to the output folder, if there is one, and return it."""
        setup = self.plan.setup
        words = "any" if corpus.lexicon is None else setup.generation.words
        bundle = Bundle(
            preset=setup.preset,
            weights=ModelWeights(self.model),
            tokenizer=corpus.tokenizer,
            model_plugin=setup.model_plugin,
            tokenizer_plugin=setup.tokenizer_plugin,
            tokenizer_config=setup.tokenizer_config,
            generation=replace(setup.generation, words=words, conditions={}),
            training=self.facts(),
            index=corpus.index,
            lexicon=corpus.lexicon,
            bigrams=corpus.bigrams,
            conditions=corpus.conditions,
        )
        bundle.card = card_text(bundle)
        self._saver.save(bundle)
        return ReviewModel(bundle)

    def _measure_saved(self, corpus: PreparedCorpus) -> None:
        """Measure the model after it was saved. If an error or an interrupt stops this, tell the
        user that the training is complete, and where the model is.
        """
        out = self.plan.out
        where = "kept" if out is None else f"saved in {out}"
        start = clock()
        try:
            self._measure(corpus)
        except KeyboardInterrupt:
            self.record.is_interrupted = True
            self.record.note(
                f"The training was complete when it was interrupted: its model is {where}, and was"
                " not measured fully."
            )
        except Exception:
            _logger.warning(
                "The training is over and its model is %s; an error occurred during the final"
                " measurements.",
                where,
            )
            raise
        self.record.measuring_seconds = clock() - start

    def _measure(self, corpus: PreparedCorpus) -> None:
        """Evaluate the model, and each model of a blend, on the same held-out texts; then measure
        the texts that the model generates.
        """
        record = self.record
        model = self.model
        last = record.last
        scoring_seconds = None
        if self.plan.length.seconds is not None:
            scoring_seconds = _FINAL_SHARE * self.plan.length.seconds
            if self._parts:
                # the blend scores each text as often as all its models together
                scoring_seconds /= 2
        with using_threads(last.threads):
            documents = choose_documents(
                model, corpus, corpus.final_split, _FINAL_TOKENS, scoring_seconds, _FINAL_TEXTS
            )
            vocab_size = corpus.tokenizer.vocab_size
            for run in (*self._parts, self):
                run.record.evaluation = evaluate(run.model, documents, vocab_size)
            if not process_state().is_main_process:
                return
            if corpus.conditions and record.evaluation is not None:
                # each gain is measured by scoring the texts once more, so there are fewer texts
                gain_texts = max(_GAIN_TEXTS, len(documents) // (2 * len(corpus.conditions)))
                gain_documents = spread_documents(documents, gain_texts)
                gains = measure_gains(model, gain_documents, corpus.conditions)
                record.evaluation = replace(record.evaluation, conditions=gains)
            if self.plan.setup.training.copy_tokens:
                record.copied, record.metrics = measure_texts(model, corpus, self._metrics)
                record.note(*self._metrics.pop_notes())
            if not self._parts:
                spent = clock() - record.started
                record.note(*suggest_trained_weights(self.plan, corpus, last.tokens, spent))

    def facts(self) -> dict[str, Any]:
        """Return the record of the training, as in ``training.json``. For a blend, steps, tokens
        and the verdict are those of its network.

        Raises:
            TrainingError: The corpus was not tokenized; or the training of a blend's network, its
                last model, has not started.
        """
        corpus = self._require_prepared("call facts")
        return training_facts(self.plan, corpus, self.record, self._model, self._log.failure)

    def _require_prepared(self, action: str) -> PreparedCorpus:
        """Return the tokenized corpus.

        Raises:
            TrainingError: There is none yet, so the caller cannot do ``action``, a verb phrase.
        """
        if not isinstance(self._corpus, PreparedCorpus):
            step = "read and tokenize" if self._corpus is None else "tokenize"
            raise TrainingError(f"The corpus is not prepared yet: call {step} before you {action}.")
        return self._corpus


class TrainingRun(Run):
    """A training, step by step: call ``read`` and ``tokenize``, iterate over the reports, and call
    ``finish``.

    ::

        run = TrainingRun("gru-char", "reviews.csv", budget="60s")
        print(run.read().report)
        run.tokenize()
        for report in run:
            print(report.step, report.nats_per_token)
        model = run.finish()

    A time budget starts with the training: reading and tokenizing do not count.

    Args:
        start: A preset, ``<model>-<tokenizer>``, as in "lstm-word"; or a trained ReviewModel to
            train further: a copy of its weights is trained, and its tokenizer, conditions, size and
            generation defaults are kept.
        source: The reviews; see ``reviewgen.data.open.open_source``.
        options: The keywords of ``reviewgen.train``, which documents them.

    Raises:
        ReviewgenError: A setting, the preset or the output folder is unusable. Nothing has been
            read by then.
    """

    def __init__(
        self, start: str | ReviewModel, source: Any, **options: Unpack[TrainKwargs]
    ) -> None:
        refuse_unknown_options(options, TrainKwargs, "TrainingRun")
        super().__init__(make_plan(start, source, options))
