"""``TrainingRun``: a training in steps that the caller can watch; a facade over the plan, the prepared corpus and the fit."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Unpack

from reviewgen.conditions import Conditions
from reviewgen.config import refuse_unknown_options
from reviewgen.data import Corpus, TokenStore
from reviewgen.errors import TrainingError
from reviewgen.evaluation import Evaluation
from reviewgen.model import ReviewModel
from reviewgen.protocols import LanguageModel, Tokenizer
from reviewgen.runs.blend_fit import BlendFit, start_blend
from reviewgen.runs.curves import Curves
from reviewgen.runs.fit import Fit
from reviewgen.runs.options import TrainOptions
from reviewgen.runs.plan import TrainingPlan, make_plan
from reviewgen.runs.prepare import PreparedCorpus, ReadCorpus, read_corpus
from reviewgen.runs.record import RunRecord
from reviewgen.runs.run_folder import RunFolder
from reviewgen.runs.start import start_fit
from reviewgen.runs.tracking import RunLog
from reviewgen.training import Report, TrainingConfig


class TrainingRun:
    """A training, step by step: ``read`` the corpus, ``tokenize`` it, iterate over the reports, ``finish``.

    ::

        run = TrainingRun("gru-char", "reviews.csv", budget="60s")
        print(run.read().report)
        run.tokenize()
        for report in run:
            print(report.step, report.nats_per_token)
        model = run.finish()

    The clock of a time budget starts at the end of the first step: reading, tokenizing and compiling are not counted.

    Args:
        start: A preset, ``<model>-<tokenizer>``, as in "lstm-word"; or a trained ReviewModel to train further: a copy of its
            weights is trained, and its tokenizer, conditions, size and generation defaults are kept.
        source: The reviews; see ``reviewgen.data.sources.open_texts``.
        options: The keywords of ``reviewgen.train``, which documents them.

    Raises:
        ReviewgenError: A setting, the preset or the output folder is unusable. Nothing has been read by then.
    """

    def __init__(self, start: str | ReviewModel, source: Any, **options: Unpack[TrainOptions]) -> None:
        refuse_unknown_options(options, TrainOptions, "TrainingRun")
        self._plan = make_plan(start, source, options)
        self._log = RunLog(self._plan.log, self._plan.out, self._plan.preset)
        self._run_folder = RunFolder(self._plan)
        self._started = time.monotonic()
        self._read: ReadCorpus | None = None
        self._fit: Fit | BlendFit | None = None

    def read(self) -> Corpus:
        """Read, clean and split the corpus, and return it, so that it can be described before the training.

        Raises:
            CheckpointError: ``<out>.run`` holds an interrupted run that is not resumed; or, to resume, no run of these settings.
            DataError: The source cannot be read, or contains a single review and no validation is given.
            TrainingError: The corpus was read before.
        """
        if self._read is not None:
            raise TrainingError("The corpus of this run was read before: make another TrainingRun to read it again.")
        self._run_folder.open()
        with self._run_folder.closed_on_error():
            read = read_corpus(self._plan)
            self._run_folder.describe_corpus(read.corpus.source.name, read.corpus.fingerprint)
        self._read = read
        return read.corpus

    def tokenize(self) -> None:
        """Train the tokenizer and encode the corpus, or load both from the token cache, and build the model.

        Raises:
            StorageError: The cache is full or cannot be written.
            DataError: The texts of a split have no characters.
            TrainingError: The corpus was not read, or was tokenized before.
        """
        if self._fit is not None:
            raise TrainingError("The corpus of this run was tokenized before: iterate over the run to train.")
        read = self._require_read("tokenize")
        with self._run_folder.closed_on_error():
            self._start(read.tokenize(self._plan))

    def start_on(self, corpus: PreparedCorpus) -> None:
        """Start on a corpus that was prepared before, instead of ``read`` and ``tokenize``; the clock starts now.

        Args:
            corpus: The corpus of a plan with the same source, tokenizer and index; see ``have_same_corpus``.

        Raises:
            CheckpointError: As ``read``.
            TrainingError: The corpus of this run was read before.
        """
        if self._read is not None or self._fit is not None:
            raise TrainingError("This run has a corpus already: make another TrainingRun to start on a prepared one.")
        self._run_folder.open()
        with self._run_folder.closed_on_error():
            self._run_folder.describe_corpus(corpus.corpus.source.name, corpus.corpus.fingerprint)
            self._started = time.monotonic()
            self._start(corpus)

    def _start(self, corpus: PreparedCorpus) -> None:
        start = start_blend if self._plan.parts.models else start_fit
        self._fit = start(self._plan, corpus, started=self._started, log=self._log, folder=self._run_folder)

    def __iter__(self) -> Iterator[Report]:
        """Train; yield a report for each step. Afterwards the model holds its best weights.

        Raises:
            TrainingError: The corpus was not tokenized; or the training has failed, see ``reviewgen.train``.
        """
        return iter(self._require_fit("train"))

    def interrupt(self) -> None:
        """Mark the run as interrupted: ``finish`` then takes the best weights so far, and does not measure the model.

        Raises:
            TrainingError: The corpus was not tokenized, so there is no training.
        """
        self._require_fit("interrupt the training").interrupt()

    def finish(self) -> ReviewModel:
        """Save the model in ``out`` if that is given, measure it, save it again with the results, and return it.

        Raises:
            StorageError: ``out`` cannot be written; says where the model was saved instead.
            TrainingError: No step was taken.
        """
        fit = self._require_fit("finish")
        with self._run_folder.closed_on_error():
            return fit.finish()

    def facts(self) -> dict[str, Any]:
        """Return the record of the training as JSON values, as ``training.json`` holds it.

        Raises:
            TrainingError: The corpus was not tokenized.
        """
        return self._require_fit("call facts").facts()

    @property
    def plan(self) -> TrainingPlan:
        """Everything that was decided before anything is read."""
        return self._plan

    @property
    def out(self) -> Path | None:
        """The folder that the model is saved in."""
        return self._plan.out

    @property
    def preset(self) -> str:
        """The name of the preset."""
        return self._plan.preset

    @property
    def config(self) -> TrainingConfig:
        """The training settings; with a time budget, some are chosen by ``tokenize``."""
        return self._plan.parts.training if self._fit is None else self._fit.config

    @property
    def log(self) -> RunLog:
        """Where the curves are also logged; ``log.describe()`` says where that is."""
        return self._log

    @property
    def corpus(self) -> Corpus:
        """The corpus, once it was read."""
        return self._require_read("use the corpus").corpus if self._fit is None else self._fit.corpus.corpus

    @property
    def conditions(self) -> Conditions:
        """The conditions, once the corpus was read; their ids are assigned when it is tokenized."""
        return self._require_read("use the conditions").conditions if self._fit is None else self._fit.corpus.conditions

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, once the corpus was tokenized."""
        return self._require_fit("use the tokenizer").corpus.tokenizer

    @property
    def stores(self) -> Mapping[str, TokenStore]:
        """The tokens of each split, once the corpus was tokenized."""
        return self._require_fit("use the tokens").corpus.stores

    @property
    def model(self) -> LanguageModel:
        """The model, once the corpus was tokenized; a blend, once its models are trained."""
        return self._require_fit("use the model").model

    @property
    def curves(self) -> Mapping[str, Curves]:
        """The learning curves so far, once the corpus was tokenized; of each model of a blend, by its preset."""
        return self._require_fit("use the curves").curves

    @property
    def notes(self) -> list[str]:
        """Sentences for the user so far."""
        if self._fit is not None:
            return list(self._fit.record.notes)
        record = RunRecord.restore(1.0, self._run_folder.saved)
        record.note(*(() if self._read is None else self._read.notes))
        return record.notes

    @property
    def held_out(self) -> dict[str, Any] | None:
        """The last evaluation as JSON values, and which split it was on; None before ``finish``, or if it cannot be scored."""
        return None if self._fit is None else self._fit.held_out

    @property
    def evaluation(self) -> Evaluation | None:
        """The last evaluation; None before ``finish``, or if the model cannot be scored."""
        return None if self._fit is None else self._fit.evaluation

    @property
    def is_interrupted(self) -> bool:
        """Whether the training was interrupted."""
        return self._fit is not None and self._fit.is_interrupted

    def _require_read(self, action: str) -> ReadCorpus:
        if self._read is None:
            raise TrainingError(f"There is no corpus yet: call read before you {action}.")
        return self._read

    def _require_fit(self, action: str) -> Fit | BlendFit:
        if self._fit is None:
            step = "read and tokenize" if self._read is None else "tokenize"
            raise TrainingError(f"The corpus is not prepared yet: call {step} before you {action}.")
        return self._fit
