"""The plan of a training, everything that is decided before anything is read, and the folder from
which it is resumed.

``OUT.partial`` is the folder beside the output while a run trains: a ``Job`` whose pieces are
checkpoints. An interrupted run resumes from its last checkpoint, and only with the same settings,
seed, length and corpus: on request, or by itself where the launcher restarts lost processes. A run
that has already saved its model is finished, not resumed. The files of an interrupted run are never
overwritten silently. The folder is removed when the model is saved for the first time, before it is
measured.
"""

import contextlib
import hashlib
import json
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reviewgen.config.options import TrainingOptions, TrainKwargs
from reviewgen.config.settings import (
    check_seed,
    check_value,
    fields_of,
    from_dict,
    parse_duration,
    to_dict,
)
from reviewgen.data.columns import DataConfig
from reviewgen.data.parts import Filters
from reviewgen.data.pipeline import LEGACY_OPTIONS, CorpusSpec
from reviewgen.data.store import StoreFolder, digest_tokenizer, find_store
from reviewgen.data.weighting import check_corpora
from reviewgen.errors import (
    AlreadyTrained,
    CheckpointError,
    ConfigError,
    DataError,
    OutputExists,
    ReviewgenError,
    quoted,
    storage_errors,
)
from reviewgen.evaluation import find_metrics
from reviewgen.processes import all_processes, launch_name, resumes_by_itself
from reviewgen.runs.display import check_tracker
from reviewgen.runs.setup import TrainingSetup, resolve_setup
from reviewgen.saving.layout import Bundle
from reviewgen.saving.read import read_training
from reviewgen.saving.write import refuse_other_files, write_or_rescue
from reviewgen.storage import Job, check_output, to_path
from reviewgen.training.checkpoints import Checkpoints
from reviewgen.training.report import Budget, StopReason

SETTINGS = "settings_digest"
"""Where the record of a training has the digest of what decides the run besides its corpus."""

LAUNCH = "launch"
"""Where it has the ``launch_name`` of its job, if there was a launcher."""

DEFAULT_BUDGET = "2m"
_MAX_LENGTH = 1_000_000_000  # steps or epochs
# settings that may change when a run is resumed
_FREE = ("checkpoint_seconds", "checkpoints_kept", "device", "metrics")
_CUT_SHORT = (StopReason.INTERRUPTED.value, StopReason.PROCESS_ENDED.value)
# what was done is done in further trainings
_CLEANING = ("lowercase", "strip_markdown", "fix_encoding", "drop_repeated_lines")


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What is trained, on which texts, for how long, and where the model is saved.

    Attributes:
        setup: The plugins, their settings, and the model that is trained further.
        texts: Which texts, and how they are read.
        length: How long.
        seed: Seed of the initial weights, the order of the texts and dropout.
        out: The folder that the model is saved in.
        min_texts: In how many training texts a word of the lexicon occurs, at least.
        log: The tracker.
        resume: Whether an interrupted run is resumed.
        overwrite: Whether the model replaces one that ``out`` holds.
        store: The token store, if the source is a prepared one.
    """

    setup: TrainingSetup
    texts: CorpusSpec
    length: Budget
    seed: int
    out: Path | None = None
    min_texts: int = 2
    log: str | None = None
    resume: bool = False
    overwrite: bool = False
    store: StoreFolder | None = None

    @property
    def preset(self) -> str:
        """The name of the preset."""
        return self.setup.preset

    @property
    def data(self) -> DataConfig:
        """How the texts are read."""
        return self.texts.config

    def facts(self) -> dict[str, Any]:
        """Return what decides the weights besides the corpus, as JSON values by dotted name."""
        setup = self.setup
        groups = {
            "model": setup.model_facts(),
            "tokenizer": to_dict(setup.tokenizer_config),
            "training": {
                name: value for name, value in to_dict(setup.training).items() if name not in _FREE
            },
            "data": self.data.facts(),
            "budget": vars(self.length),
        }
        return {
            "preset": self.preset,
            "seed": self.seed,
            "min_texts": self.min_texts,
            "from": None if setup.trained is None else setup.trained.digest,
            "initial_weights": (
                None if setup.initial_weights is None else setup.initial_weights.digest
            ),
        } | {
            f"{group}.{name}": value
            for group, values in groups.items()
            for name, value in values.items()
        }

    def digest(self) -> str:
        """Return the SHA-256 of ``facts``."""
        return hashlib.sha256(json.dumps(self.facts(), sort_keys=True).encode()).hexdigest()


def parse_length(budget: str | float | None, steps: int | None, epochs: float | None) -> Budget:
    """Return how long a run trains, as the user has said; two minutes by default.

    Raises:
        ConfigError: Several are given, or the one that is given is out of range.
    """
    if sum(value is not None for value in (budget, steps, epochs)) > 1:
        raise ConfigError("Give one of budget, steps and epochs.")
    for name, value, types in (("steps", steps, int), ("epochs", epochs, int | float)):
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, types) or not 0 < value < _MAX_LENGTH
        ):
            raise ConfigError(
                f"{name} must be a number above 0 and below {_MAX_LENGTH:,}; got {quoted(value)}."
            )
    if steps is None and epochs is None:
        return Budget(seconds=parse_duration(DEFAULT_BUDGET if budget is None else budget))
    return Budget(steps=steps, epochs=epochs)


def make_plan(start: Any, source: Any, options: TrainKwargs) -> TrainingPlan:
    """Return the plan of a run; nothing is read, but for the ``store.json`` of a prepared token
    store.

    Args:
        start: A preset's name, or a trained ReviewModel.
        source: The texts.
        options: The other arguments of ``reviewgen.train``, which documents them.

    Raises:
        ReviewgenError: A setting, the preset or the output folder is unusable.
    """
    out = None if (folder := options.get("out")) is None else to_path("out", folder)
    overwrite = options.get("overwrite", False)
    if out is not None:
        if overwrite:
            refuse_other_files(out)
        else:
            discard_finished(out)
            # else this may be the model that the job has saved before it was restarted
            if not resumes_by_itself():
                check_output(out, "--overwrite (overwrite=True)")
    setup = resolve_setup(
        start, *map(options.get, ("model", "tokenizer", "training", "initial_weights"))
    )
    # one that is not installed is refused before anything is read
    find_metrics(setup.training.metrics)
    check_tracker(options.get("log"))
    min_texts = options.get("min_texts", 2)
    check_value("min_texts", min_texts, fields_of(TrainingOptions)["min_texts"])
    data = data_config(options, setup.trained)
    store = find_store(source)
    if store is not None:
        data = _check_store(store, setup, data, options.get("validation"))
    return TrainingPlan(
        setup=setup,
        texts=make_texts(source, options, data, allow_missing=setup.trained is not None),
        length=parse_length(options.get("budget"), options.get("steps"), options.get("epochs")),
        seed=check_seed(options.get("seed", 0)),
        out=out,
        min_texts=min_texts,
        log=options.get("log"),
        resume=options.get("resume", False),
        overwrite=overwrite,
        store=store,
    )


def make_texts(
    source: Any, options: Mapping[str, Any], config: DataConfig, *, allow_missing: bool = False
) -> CorpusSpec:
    """Return which texts a corpus is made of, checked.

    Raises:
        ConfigError: An option is unusable.
    """
    if weights := options.get("weights"):  # which are not those of a token store
        check_corpora(source, weights)
        if options.get("validation") is None and options.get("validation_split") is not None:
            raise ConfigError(
                "With several corpora, validation_split does not say which one it is of: give"
                " validation, too."
            )
    filters = Filters(
        near_duplicates=options.get("near_duplicates"), decontaminate=options.get("decontaminate")
    )
    return CorpusSpec(
        source,
        config,
        options.get("validation"),
        options.get("validation_split"),
        filters,
        allow_missing,
    )


def find_record(out: Path) -> dict[str, Any]:
    """Return the record of a saved model; an empty one if there is none, or it is damaged."""
    with contextlib.suppress(ReviewgenError):
        return read_training(out)
    return {}


def discard_finished(out: Path) -> None:
    """Remove the folder of a run that has saved its model in ``out`` and was killed before it could
    remove the folder.
    """
    settings = find_record(out).get(SETTINGS)
    if settings is not None and (job := Job(out, "training", {SETTINGS: settings})).folder.is_dir():
        with contextlib.suppress(ReviewgenError, OSError), job:
            job.clear()


def data_config(options: Mapping[str, Any], trained: Any = None) -> DataConfig:
    """Return how the corpus is read: as the user has chosen, else by the defaults.

    A model that is trained further keeps its conditions, and its texts are cleaned at least as
    those before: if lines were dropped, the same ones are.

    Raises:
        ConfigError: An option is unusable, or the trained model does not have one of the
            conditions.
    """
    chosen = {
        name: options[name] for name in to_dict(DataConfig()) if options.get(name) is not None
    }
    if trained is None:
        return from_dict(DataConfig, chosen)
    names = trained.conditions.names
    before = trained.training.get("data") or {}
    if new := [
        name
        for name in (*chosen.get("conditions", ()), *chosen.get("fields", ()))
        if name not in names
    ]:
        raise ConfigError(
            f"A model that is trained further keeps its conditions ({', '.join(names) or 'none'}),"
            f" so {quoted(new[0])} cannot be one of them: train a model from scratch."
        )
    cleaning = {name: chosen.get(name, False) or bool(before.get(name)) for name in _CLEANING}
    clean = chosen.get("clean", True) and before.get("clean", True)
    lines = before.get("repeated_lines") if before.get("drop_repeated_lines") else None
    kept = {"conditions": names, "fields": (), "repeated_lines": lines}
    return from_dict(DataConfig, {**chosen, **cleaning, "clean": clean, **kept})


def _check_store(
    store: StoreFolder, setup: TrainingSetup, data: DataConfig, validation: Any
) -> DataConfig:
    """Return how the texts of a store were read, after checking that a training can use it.

    Raises:
        ConfigError: The tokenizer, its settings or how the texts were read differ.
        DataError: The store has no facts, as one of the token cache.
    """
    trained = setup.trained
    plugin = setup.tokenizer_plugin
    plain = DataConfig()
    try:
        facts, stored = (
            store.facts["tokenizer"],
            from_dict(DataConfig, {**LEGACY_OPTIONS, **store.facts["reading"]}),
        )
        reading = {name: getattr(stored, name) for name in (*plain.facts(), "fields")}
        before = {"tokenizer": facts["name"], "package": facts["package"]}
        before |= {f"tokenizer.{name}": value for name, value in facts["settings"].items()}
        identity = facts["digest"], store.facts["conditions"]
    except (KeyError, TypeError, AttributeError):
        raise DataError(
            f"{store.name} is not a prepared token store, or it is damaged. Prepare it again."
        ) from None
    if validation is not None:
        raise ConfigError(
            f"The validation texts of the token store {store.name} are in it: leave validation out."
        )
    asked = {"tokenizer": plugin.name, "package": plugin.package}
    if trained is None:
        asked |= {
            f"tokenizer.{name}": value for name, value in to_dict(setup.tokenizer_config).items()
        }
        asked |= {
            name: getattr(data, name)
            for name in reading
            if getattr(data, name) != getattr(plain, name)
        }
    elif identity != (digest_tokenizer(trained.tokenizer), trained.conditions.to_json()):
        raise ConfigError(
            f"The tokenizer or the conditions of the token store {store.name} are not those of the"
            " model."
        )
    for name, value in asked.items():
        if (saved := (before | reading).get(name)) != value:
            raise ConfigError(
                f"The token store {store.name} was prepared with {name}={quoted(saved)}, not"
                f" {quoted(value)}: leave that out, or prepare another store."
            )
    return stored


class RunFolder:
    """The folder of a run; a run without an output has none. Of several processes, only the first
    uses it.

    Args:
        plan: The plan of the run.

    Attributes:
        checkpoints: The checkpoints in it; none without an output, and in all processes but the
            first. All processes have their ``extra``, what is saved of the run's record, and their
            ``seconds``.

    Raises:
        ConfigError: There is nothing to resume from: no output.
        CheckpointError: The model is trained by counting, which cannot be resumed.
    """

    def __init__(self, plan: TrainingPlan) -> None:
        if plan.resume and plan.out is None:
            raise ConfigError(
                "Only a run with an output folder has checkpoints to resume from: give out, or"
                " leave resume out."
            )
        if plan.resume and plan.setup.is_counted:
            raise CheckpointError(
                f"{plan.preset} is trained by counting, which has no checkpoints: an interrupted"
                " count starts over. Leave out --resume (resume=True)."
            )
        self._plan = plan
        self._is_open = False
        self._is_saved = False
        self._job: Job | None = None
        # the fingerprint of the corpus, if the model was saved before a restart
        self._finished: str | None = None
        self.checkpoints = Checkpoints()

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Lock the folder for this run, and load the last checkpoint if the run is resumed; unlock
        it if the block fails.

        Raises:
            CheckpointError: The folder holds an interrupted run and this run does not resume it, or
                this run resumes and there is none; or what the folder holds is of another run,
                damaged or in use.
            OutputExists: It is not the folder of a run; or the job was started with restarts, and
                the output folder exists.
            StorageError: The folder cannot be written.
            TrainingError: Of several processes, only some have an output folder.
        """
        if not self._is_open:  # else reading was interrupted after this, and is tried again
            with all_processes() as processes:
                processes.refuse_differences(
                    {"whether there is an output folder": self._plan.out is None}
                )
                opened = processes.main(lambda: self._open(processes.world_size), self._plan.out)
            self._finished, self.checkpoints.extra, self.checkpoints.seconds = opened
            self._is_open = True
        with self.closed_on_error():
            yield

    def _open(self, processes: int) -> tuple[str | None, dict[str, Any], float]:
        """Return the fingerprint of the corpus of a run that is over, or None; and what a
        checkpoint has to resume from.

        Raises:
            OutputExists: The output folder exists, and is not of a run that is over.
        """
        plan = self._plan
        training = plan.setup.training
        if plan.out is None:
            return None, {}, 0.0
        if resumes_by_itself():
            record = find_record(plan.out)
            # else it is what is replaced
            is_of_this_job = not plan.overwrite or record.get(LAUNCH) == launch_name()
            if (
                is_of_this_job
                and record.get(SETTINGS) == plan.digest()
                and record.get("stopped") not in _CUT_SHORT
            ):
                return record["data"]["fingerprint"], {}, 0.0
            if not plan.overwrite:
                check_output(plan.out)
        self._job = job = Job(
            plan.out, "training", {**plan.facts(), "processes": processes, SETTINGS: plan.digest()}
        )
        if plan.resume and not job.folder.is_dir():
            raise CheckpointError(
                f"There is no run to resume: {job.folder} does not exist. Leave out --resume"
                " (resume=True) to start one."
            )
        with storage_errors(job.folder):
            job.__enter__()
        self._close = weakref.finalize(self, job.__exit__)
        self.checkpoints = checkpoints = Checkpoints(
            job.folder, training.checkpoint_seconds, training.checkpoints_kept
        )
        steps = checkpoints.steps()
        with self.closed_on_error():
            if steps and not (plan.resume or resumes_by_itself()):
                raise CheckpointError(
                    f"{job.folder} holds a run that was interrupted after step {steps[-1]:,} or"
                    " later. Resume it with the same command and --resume (resume=True), or remove"
                    " that folder to start over."
                )
            checkpoints.load()
        if plan.resume and not steps:
            checkpoints.note(
                "The run was interrupted before its first checkpoint, so it starts again."
            )
        return None, checkpoints.extra, checkpoints.seconds

    def require_corpus(self, fingerprint: str) -> None:
        """Compare the corpus with that of the run that is resumed.

        Raises:
            AlreadyTrained: The run had saved its model before the launcher restarted it.
            OutputExists: A run of the same settings has saved a model of another corpus.
            CheckpointError: The resumed run was started on another corpus.
        """
        if self._finished == fingerprint:
            raise AlreadyTrained(
                f"{self._plan.out} was saved before: it was trained with the same settings, on the"
                " same texts."
            )
        if self._finished is not None:
            raise OutputExists(
                f"{self._plan.out} already exists, and was trained on other texts. Give another"
                " folder, or remove it first."
            )
        if self._job is not None:
            with storage_errors(self._job.folder):
                self._job.require({"corpus": fingerprint})

    def save(self, bundle: Bundle) -> None:
        """Write the model, in place of what this run has saved before, and remove the folder, which
        is no longer needed.

        Raises:
            StorageError: The output folder cannot be written; the message says where the model was
                saved instead.
        """
        if self._job is None:
            return
        write_or_rescue(bundle, self._job.out, overwrite=self._is_saved or self._plan.overwrite)
        if not self._is_saved and self._close.alive:
            self._job.clear()
            self._close()
        self._is_saved = True

    @contextlib.contextmanager
    def closed_on_error(self) -> Iterator[None]:
        """Unlock the folder if a block raises an error.

        This does not wait for the garbage collector: a traceback that a notebook keeps would keep
        the lock. After an interrupt the folder stays locked, since the run may still be finished.
        """
        try:
            yield
        except Exception:
            if self._job is not None:
                self._close()
            self._is_open = False
            raise
