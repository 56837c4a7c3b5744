"""One training run: a preset and a source become a ReviewModel, in steps that a caller can watch.

Joins data, registry, training and bundle; what is known of the run is recorded for ``training.json``.
"""

import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from reviewgen import __version__
from reviewgen.api.arguments import check_seed, merge_settings, parse_budget
from reviewgen.api.curves import Curves, targets_per_character
from reviewgen.api.record import corpus_facts, novelty_facts
from reviewgen.api.resuming import RunFolder
from reviewgen.api.tracking import RunLog
from reviewgen.bundle import Bundle, Weights, fingerprint
from reviewgen.bundle.write import refuse_existing, write_or_rescue
from reviewgen.card import render_card
from reviewgen.conditions import Conditions, fit_conditions
from reviewgen.config import GenerationConfig, from_dict, to_dict
from reviewgen.data import Corpus, DataConfig, gather, tokenize, workspace
from reviewgen.errors import ConfigError, DataError, NotADistribution, TrainingError
from reviewgen.evaluation import Evaluation, evaluate_documents, finite, sample_documents
from reviewgen.model import ReviewModel
from reviewgen.novelty import Index, build_index
from reviewgen.protocols import CountTrained, LanguageModel
from reviewgen.registry import find_model, find_preset, find_tokenizer
from reviewgen.sampling.threads import using_threads
from reviewgen.training import (
    Budget,
    OwnRandom,
    Report,
    TrainingConfig,
    all_processes,
    find_place,
    fit,
    processes_here,
    uninterrupted,
)

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
        preset: ``<model>-<tokenizer>``, as in "lstm-word".
        source: Where the reviews come from; see ``reviewgen.data.sources.open_texts``.
        validation: A second source to validate on, instead of a part of the first.
        out: A folder to save the model in; it must not exist.
        budget: Time for reading and training ("2m", "90s", seconds); the last evaluation comes on top. Default: two minutes.
        steps: Train so many steps, or
        epochs: so many passes over the corpus, instead of a budget.
        seed: Of the weights, the order of the texts and dropout.
        model, tokenizer, training: Settings that differ from the preset's.
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
        preset: str,
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
        self.preset = preset
        self.out = None if out is None else Path(out).expanduser()
        if self.out is not None:
            refuse_existing(self.out)
        chosen = find_preset(preset)
        self.log = RunLog(log, self.out, preset)
        self._source, self._validation = source, validation
        self._budget_seconds, self._budget = parse_budget(budget, steps, epochs)
        self._seed = check_seed(seed)
        self._data = from_dict(
            DataConfig,
            {
                "text_column": text_column,
                "documents": documents,
                "lowercase": lowercase,
                "strip_markdown": strip_markdown,
                "clean": clean,
                "conditions": conditions,
            },
        )
        self._model_class, self._model_plugin = find_model(chosen.model)
        self._tokenizer_class, self._tokenizer_plugin = find_tokenizer(chosen.tokenizer)
        self._model_settings = merge_settings(self._model_class.Config, chosen.model_settings, model, "model")
        self._tokenizer_config = from_dict(
            self._tokenizer_class.Config,
            merge_settings(self._tokenizer_class.Config, chosen.tokenizer_settings, tokenizer, "tokenizer"),
        )
        self.config = from_dict(TrainingConfig, merge_settings(TrainingConfig, chosen.training_settings, training, "training"))
        sample = from_dict(self._model_class.Config, {"vocab_size": 2} | self._model_settings)  # a bad value is refused now
        self._generation = from_dict(GenerationConfig, chosen.generation_settings)
        settings = {
            "seed": seed,
            "budget": {"seconds": self._budget_seconds, "steps": steps, "epochs": epochs},
            "model": to_dict(sample) | {"vocab_size": None},
            "tokenizer": to_dict(self._tokenizer_config),
            "training": to_dict(self.config),
            "data": to_dict(self._data),
        }
        plugins = self._model_plugin, self._tokenizer_plugin
        counts = issubclass(self._model_class, CountTrained)
        self._run_folder = RunFolder(self.out, preset, plugins, settings, resume=resume, counts=counts)
        self._started = time.monotonic()
        self._last: Report | None = None
        self._stack: ExitStack | None = None
        self.is_interrupted = False
        self.notes: list[str] = []
        self._index: Index | None = None
        self._held_out_copy_rate: float | None = None
        self.held_out: dict[str, Any] | None = None

    def read(self) -> Corpus:
        """Read, clean and split the corpus; its facts may be shown before the rest begins.

        Raises:
            DataError: The source cannot be read, or holds a single review and no validation is given.
            CheckpointError: ``<out>.run`` holds a run that was cut short, or, to resume, none that fits.
        """
        self._run_folder.open()
        with ExitStack() as stack:
            self._folder = stack.enter_context(workspace())
            self._machine = processes_here()  # one of them reads, and the others wait for it
            stack.callback(self._machine.leave)
            with self._machine.first_goes_first():
                found = self._gather() if self._machine.rank == 0 else None
            self.corpus: Corpus
            self.corpus, self.conditions = self._machine.share(found)
            self._run_folder.settle(self.corpus.stream.name, self.corpus.fingerprint)
            self.notes += self.conditions.notes()
            self._stack = stack.pop_all()
        return self.corpus

    def _gather(self) -> tuple[Corpus, Conditions]:
        corpus = gather(self._source, self._folder, self._data, self._validation)
        if len(corpus.splits) < 2:
            raise DataError(
                "The corpus is a single review; at least two are needed, one to train on and one to hold out. "
                "A text file is cut by line, by paragraph or by file: see documents."
            )
        for stream in [corpus.stream, *(corpus.validation[:1] if corpus.validation else ())]:
            stream.rows = iter(())  # they have been read; what can be read once only cannot be handed to other processes
        return corpus, fit_conditions(self._data.conditions, corpus.conditions("train"))

    def tokenize(self) -> None:
        """Train the tokenizer and encode the corpus, or take both from the cache, and build the model.

        Raises:
            StorageError: The cache has no room.
        """
        plugin = self._tokenizer_plugin
        identity = f"{plugin.name} {plugin.package} {plugin.version}"
        if self._stack is None:
            raise TrainingError("There is no corpus yet: call read before tokenize.")
        with self._stack, self._machine.first_goes_first():  # the others find the tokens in the cache
            self.tokenizer, self.stores = tokenize(
                self.corpus, self._tokenizer_class, self._tokenizer_config, identity, self._folder, self.conditions
            )
        self.conditions = self.conditions.behind(self.tokenizer.vocab_size)
        for split in ("train", "validation"):
            if not self.stores[split].characters.any():
                raise DataError(f"The {split} texts have no characters.")
        recall = self._run_folder.recall
        self._curves = Curves(
            targets_per_character(self.stores["train"], len(self.conditions)), recall("evaluations"), recall("points")
        )
        self.model = self._make_model()
        self._refuse_differences()
        self._index = self._make_index()
        spent = time.monotonic() - self._started
        if self._budget_seconds is not None and spent > self._budget_seconds / 2:
            self.notes.append(
                f"Reading and tokenizing took {spent:.0f} s of the budget of {self._budget_seconds:.0f} s. Give more, "
                "or train again: the tokens are in the cache now."
            )

    def _refuse_differences(self) -> None:
        """Make sure that all processes of a launcher are about to train the same."""
        with all_processes() as processes:
            facts = {
                "the corpus": [self.corpus.fingerprint, self.stores["train"].tokens, self.conditions.to_json()],
                "the preset": self.preset,
                "the seed": self._seed,
                "the length": [self._budget.steps, self._budget.epochs, self._budget_seconds],
                "model settings": to_dict(self.model.config),
                "tokenizer settings": to_dict(self._tokenizer_config),
                "training settings": to_dict(self.config),
                "versions": [__version__, torch.__version__],
            }
            processes.refuse_differences(facts)

    def _make_index(self) -> Index | None:
        """Index the training text, unless the settings do without; of several processes the first one does."""
        if self.config.novelty == "none" or not find_place().is_main_process:
            return None
        store = self.stores["train"]
        data = {"data": {"fingerprint": self.corpus.fingerprint}}
        index = build_index(
            store.blocks,
            bos_id=self.tokenizer.bos_id,
            eos_id=self.tokenizer.eos_id,
            vocab_size=self.tokenizer.vocab_size,
            characters=int(store.characters.sum()),
            fingerprint=fingerprint(data, self._tokenizer_plugin.name, self._tokenizer_config),
            form=self.config.novelty,
            max_bytes=round(self.config.novelty_mb * 1e6),
        )
        store.forget()
        held_out = sample_documents(self.stores["validation"], self.config.evaluation_tokens)
        self._held_out_copy_rate = index.copy_rate(ids[1 + len(self.conditions) : -1] for ids, _ in held_out)
        return index

    def _make_model(self) -> LanguageModel:
        config = from_dict(self._model_class.Config, {"vocab_size": self.conditions.vocab_size} | self._model_settings)
        try:
            with OwnRandom(self._seed):
                model: LanguageModel = self._model_class(config)
        except (RuntimeError, MemoryError) as error:  # torch's word on memory that is not there
            raise ConfigError(f"The model cannot be built with these settings: {str(error).splitlines()[0]}") from None
        return model

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
            self.conditions.any_ids,
            self._run_folder.checkpoints,
        )
        parts = {"model": self.model.config, "tokenizer": self._tokenizer_config, "training": self.config, "data": self._data}
        settings = {name: to_dict(part) for name, part in parts.items()} | {"preset": self.preset, "seed": self._seed}
        with self.log.opened(settings):
            for report in reports:
                self._last = report
                self.notes += report.notes
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
        bundle = Bundle(
            preset=self.preset,
            weights=Weights(self.model),
            tokenizer=self.tokenizer,
            model_plugin=self._model_plugin,
            tokenizer_plugin=self._tokenizer_plugin,
            tokenizer_config=self._tokenizer_config,
            generation=self._generation,
            training=self.facts(),
            index=self._index,
            conditions=self.conditions or None,
        )
        bundle.card = render_card(self.preset, self._model_plugin.name, self._tokenizer_plugin.name, __version__, bundle.training)
        model = ReviewModel(bundle)
        if self.out is not None and find_place().is_main_process:
            write_or_rescue(bundle, self.out)
            self._run_folder.discard()
        return model

    def facts(self) -> dict[str, Any]:
        """Return what is known of the run, as JSON values; what training.json holds."""
        last, corpus = self._last, self.corpus
        stopped = "interrupted" if self.is_interrupted else last.stopped if last else None
        return {
            "preset": self.preset,
            "seed": self._seed,
            "data": to_dict(self._data) | corpus_facts(corpus, self.stores, self.conditions),
            "config": to_dict(self.config),
            "budget_seconds": self._budget_seconds,
            "stopped": stopped,
            "steps": last.step if last else 0,
            "tokens_seen": last.tokens if last else 0,
            "seconds": round(time.monotonic() - self._started + self._run_folder.seconds, 2),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "device": last.device if last else None,
            "threads": last.threads if last else None,
            "hardware": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
            **self._curves.facts(stopped, self._held_out_copy_rate),
            "novelty": novelty_facts(self._index, self._curves.evaluations, self._held_out_copy_rate),
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
