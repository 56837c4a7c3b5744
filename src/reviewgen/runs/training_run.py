"""One training run: a preset, or a trained model, and a source become a ReviewModel, in steps that a caller can watch.

Joins data, registry, training and bundle; what is known of the run is recorded for ``training.json``.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from reviewgen.bundle import Bundle, Weights
from reviewgen.bundle.write import refuse_existing, write_or_rescue
from reviewgen.card import describe, write_card
from reviewgen.config import from_dict, to_dict
from reviewgen.data import Corpus, DataConfig, tokenize, workspace
from reviewgen.errors import DataError, NotADistribution, TrainingError
from reviewgen.evaluation import Evaluation, evaluate_documents, finite, sample_documents
from reviewgen.model import ReviewModel
from reviewgen.novelty import Index
from reviewgen.runs.agreement import refuse_differences
from reviewgen.runs.arguments import check_seed, parse_budget
from reviewgen.runs.curves import Curves, targets_per_character
from reviewgen.runs.index import make_index
from reviewgen.runs.record import corpus_facts, novelty_facts, progress_facts
from reviewgen.runs.resuming import RunFolder
from reviewgen.runs.start import find_start
from reviewgen.runs.tracking import RunLog
from reviewgen.training import Budget, Report, fit, local_processes, process_state, uninterrupted
from reviewgen.training.device import using_threads

__all__ = ["TrainingRun"]

_FINAL_TOKENS = 100_000  # held-out tokens of the last evaluation, at most


class TrainingRun:
    """One training, step by step, for whoever wants to watch.

    ``read`` the corpus, ``tokenize`` it, iterate over the reports, ``finish``::

        run = TrainingRun("gru-char", "reviews.csv", budget="60s")
        print(run.read().report)
        run.tokenize()
        for report in run:
            print(report.step, report.nats_per_token)
        model = run.finish()

    Args:
        start: A preset, ``<model>-<tokenizer>``, as in "lstm-word"; or a trained ReviewModel, which learns on from where it
            stands: it keeps its tokenizer, its conditions, its shape and its generation defaults, and stays as it is itself.
        source: Where the reviews come from; see ``reviewgen.data.sources.open_texts``.
        validation: A second source to validate on, instead of a part of the first.
        out: A folder to save the model in; it must not exist.
        budget: Time for reading and training ("2m", "90s", seconds); the last evaluation comes on top. Default: two minutes.
        steps: Train so many steps, or
        epochs: so many passes over the corpus, instead of a budget.
        seed: Of the weights, the order of the texts and dropout.
        model, tokenizer, training: Settings that differ from the preset's. A trained model takes only such settings of the model
            as leave its predictions alone, as dropout does; its learning rate peaks at half of its preset's.
        text_column: The column that holds the text; guessed if not given.
        documents: How a txt file is cut: "line", "paragraph" or "file".
        lowercase, strip_markdown: Further cleaning.
        clean: False takes the texts exactly as they are.
        conditions: Columns beside the text, as in ["stars"], that the model learns to obey; ``conditions`` says how, once it
            has read.
        log: Another place for the curves, "tensorboard" or "trackio", where that is installed; ``log.describe()`` says where.
        resume: Go on with a run of the same arguments that was cut short, from its last checkpoint in ``<out>.run``.

    Raises:
        ReviewgenError: A setting, the preset or the output folder is unusable. Nothing has been read by then.
    """

    def __init__(
        self,
        start: str | ReviewModel,
        source: Any,
        *,
        validation: Any = None,
        out: str | Path | None = None,
        budget: str | float | None = None,
        steps: int | None = None,
        epochs: float | None = None,
        seed: int = 0,
        model: Mapping[str, Any] | None = None,
        tokenizer: Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
        text_column: str | None = None,
        documents: str = "line",
        lowercase: bool = False,
        strip_markdown: bool = False,
        clean: bool = True,
        conditions: Sequence[str] = (),
        log: str | None = None,
        resume: bool = False,
    ) -> None:
        self.out = None if out is None else Path(out).expanduser()
        if self.out is not None:
            refuse_existing(self.out)
        self._start = find_start(start, model, tokenizer, training)
        self.preset, self.config = self._start.preset, self._start.training
        self.log = RunLog(log, self.out, self.preset)
        self._source, self._validation = source, validation
        self._budget_seconds, self._budget = parse_budget(budget, steps, epochs)
        self._seed = check_seed(seed)
        self._data = from_dict(
            DataConfig,
            self._start.keep_reading(
                {
                    "text_column": text_column,
                    "documents": documents,
                    "lowercase": lowercase,
                    "strip_markdown": strip_markdown,
                    "clean": clean,
                    "conditions": conditions,
                }
            ),
        )
        budgets = {"seconds": self._budget_seconds, "steps": steps, "epochs": epochs}
        settings = {**self._start.identity(), "data": to_dict(self._data)}
        self._told = {"the preset": self.preset, "the seed": seed, "the length": budgets, "settings": dict(settings)}
        settings |= {"seed": seed, "budget": budgets}
        self._run_folder = RunFolder(self.out, self.preset, self._start, settings, resume=resume)
        self._started = time.monotonic()
        self._size: list[dict[str, Any]] = []  # settings of model and training that were chosen, where nobody named a size
        self._last: Report | None = None
        self._stack: ExitStack | None = None
        self.is_interrupted = False
        self.notes: list[str] = []
        self._index: Index | None = None
        self._held_out_copy_rate: float | None = None
        self._bits_before: float | None = None  # per character of held-out text, of a trained model
        self.held_out: dict[str, Any] | None = None

    def read(self) -> Corpus:
        """Read, clean and split the corpus; its facts may be shown before the rest begins.

        Raises:
            CheckpointError: ``<out>.run`` holds a run that was cut short, or, to resume, none that fits.
            DataError: The source cannot be read, or holds a single review and no validation is given.
        """
        self._run_folder.open()
        before, self.notes = self.notes, self._run_folder.recall("notes")
        self._note(*before)
        with ExitStack() as stack:
            self._folder = stack.enter_context(workspace())
            self._machine = local_processes()  # one of them reads, and the others wait for it
            stack.callback(self._machine.close)
            with self._machine.main_process_first():
                is_reader = self._machine.rank == 0
                found = self._start.gather(self._source, self._validation, self._folder, self._data) if is_reader else None
            self.corpus: Corpus
            self.corpus, self.conditions, notes = self._machine.broadcast(found)
            self._run_folder.settle(self.corpus.stream.name, self.corpus.fingerprint)
            self._note(*notes)
            self._stack = stack.pop_all()
        return self.corpus

    def tokenize(self) -> None:
        """Train the tokenizer and encode the corpus, or take both from the cache, and build the model.

        Raises:
            StorageError: The cache has no room.
        """
        start, plugin = self._start, self._start.tokenizer_plugin
        identity = f"{plugin.name} {plugin.package} {plugin.version}"
        if self._stack is None:
            raise TrainingError("There is no corpus yet: call read before tokenize.")
        with self._stack, self._machine.main_process_first():  # the others find the tokens in the cache
            self.tokenizer, self.stores = tokenize(
                self.corpus,
                start.tokenizer_class,
                start.tokenizer_config,
                identity,
                self._folder,
                conditions=self.conditions,
                trained=start.tokenizer,
            )
        self.conditions = self.conditions.with_ids_from(self.tokenizer.vocab_size)
        for split in ("train", "validation"):
            if not self.stores[split].characters.any():
                raise DataError(f"The {split} texts have no characters.")
        if process_state().is_main_process:
            facts = {"data": {"fingerprint": self.corpus.fingerprint}, **start.facts(None)}
            self._index = make_index(self.stores["train"], self.tokenizer, start, facts)
        self._size = self._run_folder.recall("size")
        self._build()
        spent = time.monotonic() - self._started
        if self._budget_seconds is not None and spent > self._budget_seconds / 2:
            self.notes.append(
                f"Reading and tokenizing took {spent:.0f} s of the budget of {self._budget_seconds:.0f} s. Give more, "
                "or train again: the tokens are in the cache now."
            )

    def adopt(self, other: "TrainingRun") -> bool:
        """Take over the corpus and its tokens from a training that has read and tokenized, in place of doing so again.

        Returns whether the settings of both are such that this can be done.
        """
        if self._reading != other._reading:
            return False
        self.corpus, self.conditions, self.tokenizer, self.stores = other.corpus, other.conditions, other.tokenizer, other.stores
        self._index, self._size = other._index, list(other._size)
        self._build()
        return True

    @property
    def _reading(self) -> tuple[Any, ...]:
        """All that the corpus, its tokens and their index depend on."""
        start = self._start
        tokenizer = start.tokenizer_plugin, start.tokenizer_config, id(start.trained)
        return id(self._source), id(self._validation), self._data, *tokenizer, self.config.novelty, self.config.novelty_mb

    def _build(self) -> None:
        """Make the model, and measure what can be measured before it is trained."""
        start, recall = self._start, self._run_folder.recall
        train = self.stores["train"]
        kept = recall("evaluations"), recall("points"), recall("means")
        self._curves = Curves(targets_per_character(train, len(self.conditions)), *kept)
        held_out = sample_documents(self.stores["validation"], self.config.evaluation_tokens)
        if self._index is not None:
            self._held_out_copy_rate = self._index.copy_rate(ids[1 + len(self.conditions) : -1] for ids, _ in held_out)
        size = self._choose_size()
        self.config = replace(start.training, **size.get("training", {}))
        self.model = start.build(self.conditions.vocab_size, self._seed, size.get("model"))
        refuse_differences(self.model, self.corpus, self.conditions, self._told)
        self._bits_before = start.measure(self.model, held_out, self.tokenizer, self.conditions)
        self._note(*start.notes(self._bits_before))

    def _choose_size(self) -> Mapping[str, Any]:
        """Return settings of model and training for the time that is left, where nobody has named a size, and say so."""
        if self._start.sizable is None or self._budget_seconds is None:
            return {}
        left = self._started + self._budget_seconds - time.monotonic()
        if not self._size:
            chosen = self._start.choose_size(self.conditions.vocab_size, left, self.stores["train"].tokens)
            if chosen is not None:
                self._size.append({"model": dict(chosen.model), "training": dict(chosen.training)})
                self._note(chosen.describe(left))
        return self._size[0] if self._size else {}

    def _note(self, *notes: str) -> None:
        """Keep what there is to say; a run that goes on has said a part of it before."""
        self.notes += [note for note in notes if note not in self.notes]

    def __iter__(self) -> Iterator[Report]:
        """Train; yield a report a step. Afterwards the model holds its best weights."""
        budget = self._budget
        if self._budget_seconds is not None:
            budget = Budget(deadline=self._started + self._budget_seconds)
        reports = fit(
            self.model,
            self.tokenizer,
            self.stores["train"],
            self.stores["validation"],
            self.config,
            budget,
            self._seed,
            self._index,
            self.conditions.unspecified_ids,
            self._run_folder.checkpoints,
        )
        start = self._start
        parts = {"model": self.model.config, "tokenizer": start.tokenizer_config, "training": self.config, "data": self._data}
        settings = {name: to_dict(part) for name, part in parts.items()} | {"preset": self.preset, "seed": self._seed}
        with self.log.opened(settings):
            for report in reports:
                self._last = report
                self._note(*report.notes)
                yield self.log.record(report, self._curves.add(report))

    def interrupt(self) -> None:
        """Say that the training was cut short; ``finish`` then takes the best weights so far."""
        self.is_interrupted = True

    def finish(self) -> ReviewModel:
        """Evaluate on held-out text, and return the model, saved in ``out`` where that is given.

        Raises:
            StorageError: There is no room in ``out``; says where the model was saved instead.
            TrainingError: Not a single step was taken.
        """
        if self._last is None:
            raise TrainingError("The training was over before its first step; nothing was saved.")
        try:
            if not self.is_interrupted:
                self.held_out = self._evaluate()
        except KeyboardInterrupt:
            self.interrupt()
        with uninterrupted():
            return self._bundle()

    def _bundle(self) -> ReviewModel:
        """Put the model and the facts together, and save them."""
        start = self._start
        bundle = Bundle(
            preset=self.preset,
            weights=Weights(self.model),
            tokenizer=self.tokenizer,
            model_plugin=start.model_plugin,
            tokenizer_plugin=start.tokenizer_plugin,
            tokenizer_config=start.tokenizer_config,
            generation=start.generation,
            training=self.facts(),
            index=self._index,
            conditions=self.conditions or None,
        )
        bundle.card = write_card(describe(bundle))
        model = ReviewModel(bundle)
        if self.out is not None and process_state().is_main_process:
            write_or_rescue(bundle, self.out)
            self._run_folder.discard()
        return model

    def facts(self) -> dict[str, Any]:
        """Return what is known of the run, as JSON values; what training.json holds."""
        last, corpus = self._last, self.corpus
        stopped = "interrupted" if self.is_interrupted else last.stopped if last else None
        return {
            "preset": self.preset,
            **self._start.facts(self._bits_before),
            "seed": self._seed,
            "data": to_dict(self._data) | corpus_facts(corpus, self.stores, self.conditions),
            "config": to_dict(self.config),
            "budget_seconds": self._budget_seconds,
            "stopped": stopped,
            **progress_facts(last, time.monotonic() - self._started + self._run_folder.seconds),
            **self._curves.facts(stopped, self._held_out_copy_rate),
            "novelty": novelty_facts(self._index, corpus.fingerprint, self._curves.evaluations, self._held_out_copy_rate),
            "held_out": self.held_out,
            "notes": [*self.notes, *filter(None, [self.log.failure])],
        }

    def _evaluate(self) -> dict[str, Any] | None:
        """Evaluate on the test split, or on the validation split where that is all there is; None where it cannot be scored."""
        split = "test" if len(self.stores["test"]) else "validation"
        documents = sample_documents(self.stores[split], _FINAL_TOKENS)
        with using_threads(self._last.threads if self._last else 1):
            try:
                self.evaluation: Evaluation = evaluate_documents(
                    self.model, documents, self.tokenizer.vocab_size, given=len(self.conditions)
                )
            except NotADistribution:
                return None
        return {"split": split, "reviews_in_split": len(self.stores[split])} | finite(asdict(self.evaluation))
