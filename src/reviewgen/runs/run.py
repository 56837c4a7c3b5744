"""``TrainingRun``: trains a network, an n-gram or a blend step by step, so that the caller can
watch.

The run of a blend has a run for each of its models, which train one after another on the same
corpus. Then the weights of the blend are fitted on held-out texts, as by ``reviewgen.blend``.
"""

import logging
import math
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Unpack

import torch

from reviewgen.blending.model import Blend
from reviewgen.compiled.jit import clock
from reviewgen.conditions import Conditions
from reviewgen.config.options import TrainKwargs, refuse_unknown_options
from reviewgen.config.settings import to_dict
from reviewgen.config.training import TrainingConfig
from reviewgen.data.split import Corpus
from reviewgen.data.tokens import Tokens, tokens_of
from reviewgen.devices import using_threads
from reviewgen.errors import Detail, NotADistribution, ProcessLost, TrainingError
from reviewgen.evaluation.evaluate import Evaluation, sample_documents, spread_documents
from reviewgen.evaluation.metrics import TextMetrics
from reviewgen.evaluation.scoring import Document, measure_gains
from reviewgen.hub.card import card_text, file_name
from reviewgen.interrupts import block_signals
from reviewgen.model.review_model import ReviewModel
from reviewgen.processes import (
    all_processes,
    can_restart,
    how_to_resume,
    launch_name,
    process_state,
)
from reviewgen.protocols.abilities import count_parameters
from reviewgen.protocols.checks import check_contract
from reviewgen.protocols.model import LanguageModel
from reviewgen.protocols.tokenizer import Tokenizer
from reviewgen.registry.metadata import OWN
from reviewgen.runs.blend import fit_blend, make_bundle
from reviewgen.runs.corpus import PreparedCorpus, ReadCorpus, read_plan, tokenize
from reviewgen.runs.folder import RunFolder
from reviewgen.runs.plan import LAUNCH, SETTINGS, TrainingPlan, make_plan
from reviewgen.runs.record import (
    Curves,
    RunRecord,
    choose_documents,
    evaluate,
    measure_texts,
    novelty_facts,
    suggest_trained_weights,
)
from reviewgen.runs.setup import TrainingSetup, dotted, parent_facts
from reviewgen.runs.tracking import RunLog
from reviewgen.saving.layout import Bundle
from reviewgen.saving.weights import ModelWeights
from reviewgen.training.evaluator import Evaluator
from reviewgen.training.loop import fit
from reviewgen.training.memory import use_large_pages
from reviewgen.training.report import Budget, Report, StopReason, find_verdict
from reviewgen.training.sizing import choose_size
from reviewgen.version import __version__

_COUNTING_SHARE = 0.4  # in a blend, counting takes at most this share of the time left
# in a blend, the network takes this share of the time that counting leaves; fitting the weights and
# evaluating the blend take the rest
_NETWORK_SHARE = 0.95
# share of a time budget for scoring the texts that a blend's weights are fitted on; the fit itself
# takes three times as long
_WEIGHTS_SHARE = 0.01
_FINAL_TOKENS = 100_000  # maximum number of held-out tokens of the final evaluation
# minimum number of texts of the final evaluation, if scoring them takes no more than a few seconds
_FINAL_TEXTS = 100
_GAIN_TEXTS = 60  # minimum number of texts on which the gain from conditions is measured
_FINAL_SHARE = 0.015  # share of a time budget for the final evaluation
# an interrupted blend fits its weights on the usual number of tokens divided by this
_INTERRUPTED_DIVISOR = 4
_EVALUATION_SHARE = 0.005  # share of a time budget for evaluating a blend on validation texts

_logger = logging.getLogger("reviewgen")


class TrainingRun:
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
        self._set_up(make_plan(start, source, options))

    def _set_up(self, plan: TrainingPlan) -> None:
        use_large_pages()
        self._plan = plan
        self._log = RunLog(plan.log, plan.out, plan.preset)
        self._folder = RunFolder(plan)
        self._is_interrupted = False
        self._evaluation: Evaluation | None = None
        self._started = clock()
        self._corpus: ReadCorpus | None = None
        self._record = RunRecord()
        self._model: LanguageModel | None = None
        # for a blend, the runs of its models that have started so far
        self._component_runs = list[TrainingRun]()
        # the blend, and the facts on how its weights were fitted
        self._fitted: tuple[Blend, dict[str, Any]] | None = None
        # the token copy rate of the held-out texts; None without a novelty index
        self._copy_rate: float | None = None
        # bits per character on held-out texts of a model that is trained further, before this run
        self._bits_before: float | None = None
        # names of the tensors that come from a file of initial weights
        self._initial_tensors = list[str]()
        self._copied = dict[str, Any]()
        self._metric_facts = dict[str, Any]()
        self._measuring_seconds = 0.0

    def read(self) -> Corpus:
        """Read, clean and split the corpus, and return it, so that the caller can inspect it before
        the training.

        Raises:
            CheckpointError: ``<out>.partial`` holds an interrupted run and ``resume`` is not set;
                or ``resume`` is set, and there is no interrupted run with these settings.
            DataError: The source cannot be read, or contains a single review and no validation is
                given.
        """
        with self._folder.opened():
            self._corpus = read_plan(self.plan)
            self._record.note(*self._corpus.notes)
            self._folder.require_corpus(self.corpus.fingerprint)
        return self.corpus

    def tokenize(self) -> None:
        """Train the tokenizer and encode the corpus, or load both from the token cache; then build
        the model.

        Raises:
            StorageError: The cache is full or cannot be written.
            DataError: The texts of a split have no characters.
            TrainingError: The corpus was not read.
        """
        with self._folder.closed_on_error():
            self._begin(tokenize(self.plan, self._require_read("tokenize")))

    def start_on(self, corpus: PreparedCorpus) -> None:
        """Use a corpus that was prepared before, and build the model. Call this instead of ``read``
        and ``tokenize``.

        Args:
            corpus: A corpus that was prepared for a plan with the same source, tokenizer and
                novelty index; see ``Variants.corpus``.

        Raises:
            CheckpointError: As for ``read``.
        """
        with self._folder.opened():
            self._folder.require_corpus(corpus.corpus.fingerprint)
            self._begin(corpus)

    def __iter__(self) -> Iterator[Report]:
        """Train, and yield a report for each step. Afterwards the model holds its best weights.

        Raises:
            TrainingError: The corpus was not tokenized; or the training has failed, see
                ``reviewgen.train``.
            NotADistribution: The probabilities of one model of a blend do not sum to one.
        """
        corpus = self._require_prepared("train")
        plan = self.plan
        if plan.setup.components:
            yield from self._train_components(corpus)
            return
        reports = fit(
            self.model,
            corpus.tokenizer,
            corpus.stores["train"],
            corpus.stores["validation"],
            self.config,
            plan.length,
            plan.seed,
            corpus.index,
            corpus.conditions.unspecified_ids,
            self._folder.checkpoints,
            self._metrics,
            all_evaluations="training.evaluations" in plan.setup.own,
        )
        used = {"model": to_dict(self.model.config), "training": to_dict(self.config)}
        settings = plan.facts() | dotted(used)
        with self._folder.closed_on_error(), self.log.opened(settings):
            for report in reports:
                yield self.log.record(report, self._record.add(report))

    def interrupt(self) -> None:
        """Mark the run as interrupted: ``finish`` then saves the best weights so far, and does not
        measure the model.

        Raises:
            TrainingError: The corpus was not tokenized, so there is no training to interrupt.
            ProcessLost: The launcher can restart the job, which then resumes.
        """
        self._require_prepared("interrupt the training")
        if can_restart():
            with self._folder.closed_on_error():
                has_checkpoint = bool(self._folder.checkpoints.steps())
                raise ProcessLost(
                    "This process received a termination signal."
                    f" {how_to_resume(has_checkpoint=has_checkpoint)}"
                )
        self._is_interrupted = True

    def finish(self) -> ReviewModel:
        """Save the model, measure it, save it again with the results, and return it. Without
        ``out`` nothing is saved.

        Raises:
            StorageError: ``out`` cannot be written; the message says where the model was saved
                instead.
            TrainingError: The model, or a model of a blend, was not trained for a single step.
        """
        corpus = self._require_prepared("finish")
        with self._folder.closed_on_error():
            self._require_steps()
            with block_signals():
                # an interrupted blend, whose weights are not fitted yet
                if self._component_runs and self._fitted is None:
                    tokens = self.config.evaluation_tokens // _INTERRUPTED_DIVISOR
                    self._blend_components(sample_documents(corpus.stores["validation"], tokens))
                model = self._save()
            if self.is_interrupted:
                return model
            self._measure_saved(corpus)
            with block_signals():
                return self._save()

    def _require_steps(self) -> None:
        """Check that each model was trained for one step at least.

        Raises:
            TrainingError: A model was not.
        """
        components = self.plan.setup.components
        last = self._network_record.last
        has_steps = last.tokens or last.stopped
        if not has_steps or len(self._component_runs) < len(components):
            of_model = f" of {components[-1].preset}" if components else ""
            raise TrainingError(
                f"The training ended before the first step{of_model}; nothing was saved. Give it"
                " more time."
            )

    def _measure_saved(self, corpus: PreparedCorpus) -> None:
        """Measure the model after it was saved. If an error or an interrupt stops this, tell the
        user that the training is complete, and where the model is.
        """
        where = "kept" if self.out is None else f"saved in {self.out}"
        start = clock()
        try:
            self._measure(corpus)
        except KeyboardInterrupt:
            self._is_interrupted = True
            self._record.note(
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
        self._measuring_seconds = clock() - start

    def facts(self) -> dict[str, Any]:
        """Return the record of the training, as in ``training.json``. For a blend, steps, tokens
        and the verdict are those of its network.

        Raises:
            TrainingError: The corpus was not tokenized; or the training of a blend's network, its
                last model, has not started.
        """
        plan = self.plan
        corpus = self._require_prepared("call facts")
        record = self._record
        if len(self._component_runs) < len(plan.setup.components):
            raise TrainingError(
                f"There is no record of {plan.preset} yet: iterate over the run to train its"
                " models."
            )
        # for a blend, the runs of its count models, and the run of its network
        *counted, network = self._component_runs or [self]
        # a blend whose weights are not fitted yet has no last report of its own
        last = record.last if record.last.stopped else network._record.last
        stopped = network._record.last.stopped
        if stopped is None and self.is_interrupted:
            stopped = StopReason.INTERRUPTED
        evaluation_seconds = last.evaluation_seconds + self._measuring_seconds
        evaluation_seconds += sum(run._record.last.evaluation_seconds for run in counted)
        texts = corpus.corpus.fingerprint
        novelty = novelty_facts(
            corpus.index, texts, self._copied, record.evaluations, network._copy_rate
        )
        origin = parent_facts(plan.setup.trained, self._bits_before)
        weights = plan.setup.initial_weights
        if weights is not None:
            origin["initial_weights"] = {
                "file": weights.file.name,
                "sha256": weights.digest,
                "tensors": self._initial_tensors,
            }
        launch = launch_name()
        return {
            "preset": plan.preset,
            **origin,
            "seed": plan.seed,
            SETTINGS: plan.digest(),
            **({LAUNCH: launch} if launch else {}),
            # renamed, since the facts of the corpus have another entry "split"
            "data": plan.data.facts() | {"dataset_split": plan.data.split} | corpus.facts(),
            "config": to_dict(self.config),
            "budget_seconds": plan.length.seconds,
            "stopped": None if stopped is None else stopped.value,
            "steps": last.step,
            "tokens_seen": last.tokens,
            "seconds": round(clock() - self._started + self._folder.checkpoints.seconds, 2),
            "evaluation_seconds": round(evaluation_seconds, 2),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "device": last.device,
            "threads": last.threads,
            "hardware": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
            "verdict": asdict(find_verdict(network._record.evaluations, stopped, novelty)),
            "evaluations": record.evaluations,
            "curve": record.curve(),
            "novelty": novelty,
            "metrics": self._metric_facts or self._metrics.facts(),
            "parameters": None if self._model is None else count_parameters(self._model),
            "held_out": self.held_out,
            "notes": [*record.notes, *filter(None, [self.log.failure])],
        }

    def _begin(self, corpus: PreparedCorpus) -> None:
        """Choose the model size for a time budget, build the model, and measure the values that
        the trained model is compared with: the copy rate of the held-out texts and, for a model
        that is trained further, its bits per character.
        """
        plan = self.plan
        setup = plan.setup
        self._metrics = TextMetrics(setup.training.metrics, corpus.words)
        saved = {} if setup.components else self._folder.checkpoints.extra
        self._record = RunRecord.of(corpus.stores["train"], saved)
        self._record.note(*corpus.notes)
        if setup.components:  # the run of each component builds its model
            self._corpus = corpus
            return
        documents = sample_documents(corpus.stores["validation"], setup.training.evaluation_tokens)
        if corpus.index is not None:
            texts = (tokens_of(ids, corpus.tokenizer.vocab_size) for ids, _ in documents)
            self._copy_rate = corpus.index.token_copy_rate(texts)
        if not saved:
            self._record.size = self._choose_size(corpus)
        model = self._build_model(corpus)
        with all_processes() as processes:
            processes.refuse_differences(
                {
                    "the corpus": [corpus.corpus.fingerprint, corpus.conditions.to_json()],
                    "model settings": to_dict(model.config),
                    "versions": [__version__, torch.__version__],
                    "the seed": plan.seed,
                    "settings": plan.facts() | {"seed": None},
                }
            )
        if setup.trained is not None:
            self._note_trained(setup.trained, model, documents, corpus)
        self._folder.checkpoints.snapshot = self._record.to_checkpoint
        self._model = model
        self._corpus = corpus

    def _build_model(self, corpus: PreparedCorpus) -> Any:
        """Return the model to train, in the size that was chosen, and with the tensors of the
        user's file of initial weights. The model of a third party is checked.

        Raises:
            ConfigError: The initial weights do not fit.
            BrokenPlugin: The model violates the contract of models.
        """
        setup = self.plan.setup
        if self._record.size is not None:
            setup = setup.sized(**self._record.size)
        model = setup.build_model(corpus.tokenizer, corpus.conditions, self.plan.seed)
        if setup.initial_weights is not None:
            self._initial_tensors = setup.initial_weights.copy_into(model)
            names = ", ".join(self._initial_tensors)
            self._record.note(
                Detail(
                    f"Initial weights from {setup.initial_weights.file.name}: {names}; the others"
                    " are random."
                )
            )
        plugin = setup.model_plugin
        is_third_party = plugin.package != OWN
        if is_third_party and isinstance(model, torch.nn.Module) and not setup.is_counted:
            is_sampled = setup.training.sampled_softmax > 0
            check_contract(model, plugin.name, plugin.package, is_sampled=is_sampled)
        return model

    def _choose_size(self, corpus: PreparedCorpus) -> dict[str, Mapping[str, Any]] | None:
        """Choose the largest model of a preset, and the batch size, that can be trained in the time
        budget on a CPU.

        With several processes, the main process times some steps, and all use its result. It
        ignores the other processes, since they make a training on CPUs only a little faster.

        Returns:
            The settings of the size, by group. None if the user has set a size, the preset has no
            sizes, the length is not a time, or the device is not a CPU.
        """
        setup = self.plan.setup
        seconds = self.plan.length.seconds
        train = corpus.stores["train"]
        if setup.sizes is None or seconds is None or process_state().device.type != "cpu":
            return None
        key = self.preset, seconds
        if key in corpus.sizes:
            # another training with this preset and budget has chosen the size
            return setup.not_own(corpus.sizes[key])

        def build(size: Mapping[str, Any]) -> LanguageModel:
            return setup.sized(size, {}).build_model(corpus.tokenizer, corpus.conditions, seed=0)

        with all_processes() as processes:
            sizing = None
            if processes.rank == 0:
                # the batch may grow only if the user has set neither of these
                may_grow = not {"training.batch_size", "training.bptt"} & setup.own
                sizing = choose_size(
                    setup.sizes,
                    build,
                    setup.training,
                    seconds,
                    train.count,
                    int(train.characters.sum()),
                    may_grow=may_grow,
                )
            sizing = processes.broadcast(sizing)
        if sizing is None:
            return None
        self._record.note(Detail(sizing.describe(seconds)))
        size = {"model": sizing.model, "training": sizing.training}
        corpus.sizes[key] = size
        return size

    def _note_trained(
        self, trained: ReviewModel, model: Any, documents: list[Document], corpus: PreparedCorpus
    ) -> None:
        """Evaluate a model that is trained further, before the training, and note the result for
        the user.
        """
        device = process_state().device
        evaluation = evaluate(
            model.to(device).eval(), documents, corpus.tokenizer.vocab_size, str(device)
        )
        model.to("cpu")
        so_far = ""
        if evaluation is not None and math.isfinite(evaluation.bits_per_character):
            self._bits_before = bits = evaluation.bits_per_character
            so_far = f", which takes {bits:.4f} bits per character of the held-out texts so far"
        name = file_name(trained.bundle.origin or "a trained model")
        rate = self.plan.setup.training.learning_rate
        self._record.note(
            f"Training {name} ({self.plan.preset}) further{so_far}; the learning rate peaks at"
            f" {rate:.3g}."
        )

    def _train_components(self, corpus: PreparedCorpus) -> Iterator[Report]:
        """Train the models of a blend in turn, then fit their weights and evaluate the blend."""
        with self._folder.closed_on_error():
            for setup in self.plan.setup.components:
                length = self._length_of(setup)
                run = make_run(
                    replace(self.plan, setup=setup, length=length, out=None, log=None, resume=False)
                )
                if not setup.is_counted:  # only a network has checkpoints and a log
                    run._log = self.log
                    run._folder = self._folder
                run._begin(corpus)
                self._component_runs.append(run)
                for report in run:
                    # without repetitions
                    notes = dict.fromkeys((*run._record.notes, *report.notes))
                    new_notes = [note for note in notes if note not in self._record.notes]
                    self._record.note(*new_notes)
                    yield replace(report, part=run.preset, notes=tuple(new_notes), stopped=None)
                if setup.is_counted and run._record.last.evaluation is None:
                    raise NotADistribution(
                        f"The scores of {run.preset} with these settings are not probabilities that"
                        " sum to one, so it cannot be part of a blend."
                    )
            yield self._report_blend(corpus)

    def _report_blend(self, corpus: PreparedCorpus) -> Report:
        """Fit the weights of a blend and evaluate it; return the last report of the run."""
        start = clock()
        seconds = self.plan.length.seconds
        last = self._network_record.last
        with using_threads(last.threads):
            network = self._component_runs[-1]
            scoring_seconds = None if seconds is None else _WEIGHTS_SHARE * seconds
            documents = choose_documents(
                network.model, corpus, "validation", self.config.evaluation_tokens, scoring_seconds
            )
            with all_processes() as processes:
                documents = processes.broadcast(documents)  # their number depends on a clock
            weights = self._blend_components(documents)
            evaluator = Evaluator(
                corpus.tokenizer,
                documents,
                self.config,
                corpus.index,
                corpus.conditions.unspecified_ids,
                metrics=self._metrics,
                seconds_each=None if seconds is None else _EVALUATION_SHARE * seconds,
            )
            report = replace(
                last,
                part=self.preset,
                progress=1.0,
                loss=None,
                learning_rate=None,
                notes=(Detail(weights),),
                stopped=None,
            )
            report = evaluator.evaluate(self.model, report)
        report = replace(
            report,
            seconds=last.seconds + clock() - start,
            evaluation_seconds=last.evaluation_seconds + evaluator.total_seconds,
            stopped=last.stopped,
        )
        self._record.add(report)
        return report

    def _length_of(self, setup: TrainingSetup) -> Budget:
        """Return the length of the training of one model of a blend: with a time budget, a share of
        the time that is left.
        """
        length = self.plan.length
        if length.seconds is None:
            return length
        spent = sum(run._record.last.seconds for run in self._component_runs)
        share = _COUNTING_SHARE if setup.is_counted else _NETWORK_SHARE
        # all processes use the main process's clock, since they must agree on the length
        with all_processes() as processes:
            return Budget(seconds=processes.broadcast(share * max(0.0, length.seconds - spent)))

    def _blend_components(self, documents: list[Document]) -> str:
        """Fit the weights of a blend, and make the blend this run's model. Return a sentence with
        the weights and the bits per character of each model.
        """
        corpus = self._require_prepared("blend")
        models = [run.model for run in self._component_runs]
        plugins = [run.plan.setup.model_plugin for run in self._component_runs]
        blend, facts = fit_blend(models, plugins, documents, corpus.tokenizer.vocab_size)
        self._model = blend
        self._fitted = (blend, facts | {"source": corpus.corpus.source.name, "split": "validation"})
        bits_alone = facts["bits_per_character"]["parts"]
        shown = ["infinite" if bits is None else f"{bits:.4f}" for bits in bits_alone]
        described = [
            f"{run.preset} {weight:.3f} (alone {bits} bits per character)"
            for run, weight, bits in zip(
                self._component_runs, blend.config.weights, shown, strict=True
            )
        ]
        return f"Weights, fitted on {facts['tokens']:,} held-out tokens: {', '.join(described)}."

    def _measure(self, corpus: PreparedCorpus) -> None:
        """Evaluate the model, and each model of a blend, on the same held-out texts; then measure
        the texts that the model generates.
        """
        last = self._network_record.last
        seconds = self.plan.length.seconds
        scoring_seconds = None
        if seconds is not None:
            scoring_seconds = _FINAL_SHARE * seconds
            if self._component_runs:
                # the blend scores each text as often as all its models together
                scoring_seconds /= 2
        with using_threads(last.threads):
            documents = choose_documents(
                self.model, corpus, corpus.final_split, _FINAL_TOKENS, scoring_seconds, _FINAL_TEXTS
            )
            for run in (*self._component_runs, self):
                run._evaluation = evaluate(run.model, documents, corpus.tokenizer.vocab_size)
            if not process_state().is_main_process:
                return
            if corpus.conditions and self._evaluation is not None:
                # each gain is measured by scoring the texts once more, so there are fewer texts
                count = max(_GAIN_TEXTS, len(documents) // (2 * len(corpus.conditions)))
                gain_documents = spread_documents(documents, count)
                gains = measure_gains(self.model, gain_documents, corpus.conditions)
                self._evaluation = replace(self._evaluation, conditions=gains)
            if self.plan.setup.training.copy_tokens:
                self._copied, self._metric_facts = measure_texts(self.model, corpus, self._metrics)
                self._record.note(*self._metrics.pop_notes())
            if not self._component_runs:
                spent = clock() - self._started
                self._record.note(*suggest_trained_weights(self.plan, corpus, last.tokens, spent))

    def _save(self) -> ReviewModel:
        """Write the model to the output folder, if there is one, and return it."""
        bundle = self._make_bundle()
        self._folder.save(bundle)
        return ReviewModel(bundle)

    def _make_bundle(self) -> Bundle:
        """Return the bundle: the model, and everything else that is saved with it."""
        setup = self.plan.setup
        corpus = self._require_prepared("finish")
        facts = self.facts()
        if self._fitted is not None:
            models = []
            for run in self._component_runs:
                bundle = run._make_bundle()
                seconds = round(run._record.last.seconds, 2)
                models.append(
                    ReviewModel(replace(bundle, training=bundle.training | {"seconds": seconds}))
                )
            return make_bundle(models, *self._fitted, setup.preset, setup.generation, facts)
        words = "any" if corpus.lexicon is None else setup.generation.words
        bundle = Bundle(
            preset=setup.preset,
            weights=ModelWeights(self.model),
            tokenizer=corpus.tokenizer,
            model_plugin=setup.model_plugin,
            tokenizer_plugin=setup.tokenizer_plugin,
            tokenizer_config=setup.tokenizer_config,
            generation=replace(setup.generation, words=words, conditions={}),
            training=facts,
            index=corpus.index,
            lexicon=corpus.lexicon,
            conditions=corpus.conditions,
        )
        bundle.card = card_text(bundle)
        return bundle

    @property
    def _network_record(self) -> RunRecord:
        """The record of this run; for a blend, that of the run of its network, its last model."""
        return (self._component_runs or [self])[-1]._record

    @property
    def plan(self) -> TrainingPlan:
        """Everything that was decided before the corpus was read."""
        return self._plan

    @property
    def log(self) -> RunLog:
        """The log in a tracker; ``log.describe()`` says where the log is."""
        return self._log

    @property
    def is_interrupted(self) -> bool:
        """Whether the training was interrupted."""
        return self._is_interrupted

    @property
    def evaluation(self) -> Evaluation | None:
        """The last evaluation; None before ``finish``, or if the model cannot be scored."""
        return self._evaluation

    @property
    def out(self) -> Path | None:
        """The folder that the model is saved in."""
        return self.plan.out

    @property
    def preset(self) -> str:
        """The name of the preset."""
        return self.plan.preset

    @property
    def config(self) -> TrainingConfig:
        """The training settings; for a blend, those of its network. With a time budget,
        ``tokenize`` chooses some of them.
        """
        training = self.plan.setup.training
        size = self._network_record.size
        return training if size is None else replace(training, **size["training"])

    @property
    def corpus(self) -> Corpus:
        """The corpus, once it has been read."""
        return self._require_read("use the corpus").corpus

    @property
    def conditions(self) -> Conditions:
        """The conditions, once the corpus has been read; their ids are assigned when it is
        tokenized.
        """
        return self._require_read("use the conditions").conditions

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, once the corpus has been tokenized."""
        return self._require_prepared("use the tokenizer").tokenizer

    @property
    def stores(self) -> Mapping[str, Tokens]:
        """The tokens of each split, once the corpus has been tokenized."""
        return self._require_prepared("use the tokens").stores

    @property
    def model(self) -> LanguageModel:
        """The model, once the corpus has been tokenized. A blend exists once its models are
        trained.
        """
        self._require_prepared("use the model")
        if self._model is None:
            raise TrainingError(
                f"There is no {self.preset} yet: iterate over the run to train its models."
            )
        return self._model

    @property
    def curves(self) -> Mapping[str, Curves]:
        """The learning curves so far, by preset, once the corpus has been tokenized. A blend has
        the curves of each of its models.
        """
        self._require_prepared("use the curves")
        runs = self._component_runs if self.plan.setup.components else [self]
        return {run.preset: run._record for run in runs}

    @property
    def notes(self) -> list[str]:
        """The sentences for the user so far."""
        return list(self._record.notes)

    @property
    def held_out(self) -> dict[str, Any] | None:
        """The last evaluation as JSON values, with the name of the split that was scored. None
        before ``finish``, or if the model cannot be scored.
        """
        if self.evaluation is None:
            return None
        split = self._require_prepared("use the evaluation").final_split
        texts = {"split": split, "reviews_in_split": len(self.stores[split])}
        return texts | self.evaluation.to_dict()

    def _require_read(self, action: str) -> ReadCorpus:
        if self._corpus is None:
            raise TrainingError(f"There is no corpus yet: call read before you {action}.")
        return self._corpus

    def _require_prepared(self, action: str) -> PreparedCorpus:
        if not isinstance(self._corpus, PreparedCorpus):
            step = "read and tokenize" if self._corpus is None else "tokenize"
            raise TrainingError(f"The corpus is not prepared yet: call {step} before you {action}.")
        return self._corpus


def make_run(plan: TrainingPlan) -> TrainingRun:
    """Return a new run for a plan that was made before."""
    run = TrainingRun.__new__(TrainingRun)
    run._set_up(plan)
    return run
