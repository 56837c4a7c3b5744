"""The plan of a training: everything that is decided before the corpus is read."""

import contextlib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reviewgen.config.options import TrainingOptions, TrainKwargs
from reviewgen.config.settings import (
    check_seed,
    check_value,
    fields_of,
    parse_duration,
    to_dict,
)
from reviewgen.data.columns import DataConfig
from reviewgen.data.prepared import find_store
from reviewgen.data.split import CorpusSpec
from reviewgen.data.tokens import StoreFolder
from reviewgen.errors import ConfigError, ReviewgenError, quoted
from reviewgen.evaluation.metrics import find_metrics
from reviewgen.processes import resumes_by_itself
from reviewgen.runs.reading import check_store, data_config, make_texts
from reviewgen.runs.setup import TrainingSetup, dotted, resolve_setup
from reviewgen.runs.tracking import check_tracker
from reviewgen.saving.read import read_training
from reviewgen.saving.write import refuse_other_files
from reviewgen.storage import Job, check_output, to_path
from reviewgen.training.report import Budget

SETTINGS = "settings_digest"
"""The key in ``training.json`` of the plan's digest, ``TrainingPlan.digest``."""

LAUNCH = "launch"
"""The key in ``training.json`` of the job's ``launch_name``, if there was a launcher."""

DEFAULT_BUDGET = "2m"
_MAX_LENGTH = 1_000_000_000  # steps or epochs
# the training settings that may have other values when a run is resumed
_FREE = ("checkpoint_seconds", "checkpoints_kept", "device", "metrics")


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What is trained, on which texts, for how long, and where the model is saved.

    Attributes:
        setup: The plugins, their settings, and the model that is trained further, if any.
        texts: Which texts are read, and how.
        length: When the training ends.
        seed: Seed of the initial weights, of the order of the texts, and of dropout.
        out: The folder that the model is saved in.
        min_texts: The lexicon has the words that occur in at least this many training texts.
        log: The name of the tracker, if the run is logged.
        resume: Whether an interrupted run is resumed.
        overwrite: Whether the model may replace another model in ``out``.
        store: The token store, if the source is one.
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
        """Return all that the weights depend on besides the corpus, as JSON values by dotted
        name.
        """
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
            **dotted(groups),
        }

    def digest(self) -> str:
        """Return the SHA-256 of ``facts``."""
        return hashlib.sha256(json.dumps(self.facts(), sort_keys=True).encode()).hexdigest()


def parse_length(budget: str | float | None, steps: int | None, epochs: float | None) -> Budget:
    """Return the length of a training from the user's options; two minutes by default.

    Raises:
        ConfigError: More than one option is given, or its value is out of range.
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
    """Check the arguments of a training and return its plan. No texts are read. If the source is a
    token store, only its ``store.json`` is read.

    Args:
        start: A preset's name, or a trained ReviewModel.
        source: The texts.
        options: The other arguments of ``reviewgen.train``, which documents them.

    Raises:
        ReviewgenError: A setting, the preset or the output folder is unusable.
    """
    out = None
    overwrite = options.get("overwrite", False)
    given_out = options.get("out")
    if given_out is not None:
        out = to_path("out", given_out)
        if overwrite:
            refuse_other_files(out)
        else:
            discard_checkpoints_of_finished_run(out)
            # An existing model is refused, except in a job that its launcher restarts: the job
            # itself may have saved this model already.
            if not resumes_by_itself():
                check_output(out, "--overwrite (overwrite=True)")
    setup = resolve_setup(
        start, *map(options.get, ("model", "tokenizer", "training", "initial_weights"))
    )
    # a metric that is not installed is refused before anything is read
    find_metrics(setup.training.metrics)
    check_tracker(options.get("log"))
    min_texts = options.get("min_texts", 2)
    check_value("min_texts", min_texts, fields_of(TrainingOptions)["min_texts"])
    data = data_config(options, setup.trained)
    store = find_store(source)
    if store is not None:
        data = check_store(store, setup, data, options.get("validation"))
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


def find_record(out: Path) -> dict[str, Any]:
    """Return the record (``training.json``) of a saved model; an empty dict if there is none, or it
    is damaged.
    """
    with contextlib.suppress(ReviewgenError):
        return read_training(out)
    return {}


def discard_checkpoints_of_finished_run(out: Path) -> None:
    """Remove the checkpoints of a finished run: of a run that has saved its model in ``out``, and
    was killed before it could remove them.
    """
    settings = find_record(out).get(SETTINGS)
    if settings is None:
        return
    # opening this job fails if the folder beside the model is that of another run
    job = Job(out, "training", {SETTINGS: settings})
    if job.folder.is_dir():
        with contextlib.suppress(ReviewgenError, OSError), job:
            job.clear()
