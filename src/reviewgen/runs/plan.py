"""The plan of a run: everything that is decided before anything is read; a value that is checked when it is made."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reviewgen.config import check_seed, from_dict, parse_duration
from reviewgen.data import DataConfig, StoreFolder, Texts, find_store
from reviewgen.errors import ConfigError, quoted
from reviewgen.evaluation import find_metrics
from reviewgen.processes import resumes_by_itself
from reviewgen.runs.finished import discard_finished
from reviewgen.runs.further import keep_reading
from reviewgen.runs.options import TrainOptions
from reviewgen.runs.parts import TrainingParts, resolve_parts
from reviewgen.runs.prepared import fit_store
from reviewgen.runs.tracking import check_tracker
from reviewgen.storage import refuse_existing, to_path
from reviewgen.training import Budget

DEFAULT_BUDGET = "2m"
_MAX_LENGTH = 1_000_000_000  # steps or epochs


@dataclass(frozen=True, kw_only=True)
class RunLength:
    """How long a run trains: exactly one of the three is given."""

    seconds: float | None = None  # of training
    steps: int | None = None
    epochs: float | None = None

    @classmethod
    def parse(cls, budget: str | float | None, steps: int | None, epochs: float | None) -> "RunLength":
        """Return the length that the user has given, two minutes by default.

        Raises:
            ConfigError: Several are given, or the one that is given is out of range.
        """
        if sum(value is not None for value in (budget, steps, epochs)) > 1:
            raise ConfigError("Give one of budget, steps and epochs.")
        for name, value, types in (("steps", steps, int), ("epochs", epochs, int | float)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, types) or not 0 < value < _MAX_LENGTH):
                raise ConfigError(f"{name} must be a number above 0 and below {_MAX_LENGTH:,}; got {quoted(value)}.")
        if steps is None and epochs is None:
            return cls(seconds=parse_duration(DEFAULT_BUDGET if budget is None else budget))
        return cls(steps=steps, epochs=epochs)

    def budget(self) -> Budget:
        """Return when a training ends."""
        return Budget(seconds=self.seconds, steps=self.steps, epochs=self.epochs)

    def part(self, spent: float, share: float) -> "RunLength":
        """Return the length of a training that gets a share of the time that is not spent; the same if it is not a time."""
        return self if self.seconds is None else RunLength(seconds=share * max(0.0, self.seconds - spent))

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"seconds": self.seconds, "steps": self.steps, "epochs": self.epochs}


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What is trained, on which texts, for how long, and where the model is saved."""

    parts: TrainingParts
    texts: Texts
    length: RunLength
    seed: int
    out: Path | None
    log: str | None  # the tracker
    resume: bool
    store: StoreFolder | None = None  # if the source is a prepared token store

    @property
    def source(self) -> Any:
        """The source of the texts."""
        return self.texts.source

    @property
    def validation(self) -> Any:
        """The source to validate on; None for a part of the first."""
        return self.texts.validation

    @property
    def data(self) -> DataConfig:
        """How the texts are read."""
        return self.texts.config

    @property
    def preset(self) -> str:
        """The name of the preset."""
        return self.parts.preset

    def identity(self) -> dict[str, Any]:
        """Return what decides the weights besides the corpus, the seed and the length, as JSON values by group."""
        return {**self.parts.identity(), "data": self.data.facts()}

    def digest(self) -> str:
        """Return the SHA-256 of what decides the weights besides the corpus."""
        values = {"preset": self.preset, "seed": self.seed, "length": self.length.to_json(), **self.identity()}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def of_model(self, parts: TrainingParts, length: RunLength) -> "TrainingPlan":
        """Return the plan of one model of a blend, which is not saved by itself."""
        return replace(self, parts=parts, length=length, out=None, log=None)


def make_plan(start: Any, source: Any, options: TrainOptions) -> TrainingPlan:
    """Return the plan of a run; nothing is read, but for the ``store.json`` of a prepared token store.

    Args:
        start: A preset's name, or a trained ReviewModel.
        source: The texts.
        options: The other arguments of ``reviewgen.train``, which documents them.

    Raises:
        ReviewgenError: A setting, the preset or the output folder is unusable.
    """
    out = options.get("out")
    folder = None if out is None else to_path("out", out)
    if folder is not None:
        discard_finished(folder)
        if not resumes_by_itself():  # else this may be the model that the job has saved before it was restarted; see RunFolder
            refuse_existing(folder)
    parts = resolve_parts(
        start, options.get("model"), options.get("tokenizer"), options.get("training"), options.get("initial_weights")
    )
    find_metrics(parts.training.metrics)  # one that is not installed is refused before anything is read
    check_tracker(options.get("log"))
    data, store = data_config(options, parts.trained), find_store(source)
    texts = Texts(
        source,
        data if store is None else fit_store(store, parts, data, options.get("validation")),
        options.get("validation"),
        options.get("validation_split"),
        options.get("near_duplicates"),
        options.get("decontaminate"),
        allow_missing=parts.trained is not None,
    )
    texts.check()
    return TrainingPlan(
        parts=parts,
        texts=texts,
        length=RunLength.parse(options.get("budget"), options.get("steps"), options.get("epochs")),
        seed=check_seed(options.get("seed", 0)),
        out=folder,
        log=options.get("log"),
        resume=options.get("resume", False),
        store=store,
    )


def data_config(options: Mapping[str, Any], trained: Any = None) -> DataConfig:
    """Return how the corpus is read: as the user has chosen, else by the defaults; a trained model keeps its conditions."""
    cleaning: Mapping[str, Any] = {name: options.get(name) for name in ("lowercase", "strip_markdown", "fix_encoding", "clean")}
    reading = {
        "text_column": options.get("text_column"),
        "documents": options.get("documents", "line"),
        "conditions": options.get("conditions", ()),
        "max_text_characters": options.get("max_text_characters", DataConfig.max_text_characters),
        "sql": options.get("sql"),
        "subset": options.get("subset"),
        "dataset_split": options.get("split"),
        **DataConfig().cleaning,
        **{name: value for name, value in cleaning.items() if value is not None},
    }
    return from_dict(DataConfig, reading if trained is None else keep_reading(trained, reading))
