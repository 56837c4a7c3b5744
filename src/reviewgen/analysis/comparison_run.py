"""``reviewgen.compare``: trains or loads each model, and measures it on the same held-out texts. If
a model fails, its row says why.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from reviewgen.analysis.comparison_figures import (
    ComparisonRow,
    Measured,
    average_seeds,
    measure_model,
    measure_repeat,
)
from reviewgen.analysis.comparison_report import Comparison
from reviewgen.analysis.comparison_texts import HeldOut, HeldOutReading
from reviewgen.config.bounded import to_json
from reviewgen.config.names import parse_source
from reviewgen.config.options import CompareKwargs, refuse_unknown_options
from reviewgen.config.settings import (
    check_count,
    check_mapping,
    check_seed,
    check_text,
    from_dict,
    parse_duration,
)
from reviewgen.errors import (
    BrokenPlugin,
    CheckpointError,
    ConfigError,
    ReviewgenError,
    did_you_mean,
    quoted,
    shortened,
)
from reviewgen.model.review_model import ReviewModel
from reviewgen.registry.plugins import preset_names
from reviewgen.runs.display import training_bar
from reviewgen.runs.plan import DEFAULT_BUDGET
from reviewgen.runs.reading import data_config
from reviewgen.runs.run import TrainingRun
from reviewgen.runs.setup import dotted
from reviewgen.runs.trial_store import TrialStore
from reviewgen.runs.trials import check_groups, train_run
from reviewgen.storage import to_path

if TYPE_CHECKING:
    from rich.console import Console

# keywords of ``compare`` that are not options of a training
_OWN = {
    "held_out",
    "held_out_split",
    "prompt",
    "seed",
    "seeds",
    "settings",
    "row_settings",
    "out",
    "resume",
}
_LENGTH = ("budget", "steps", "epochs")  # the options that limit the length of a training


def find_models(models: Any) -> list[tuple[ComparisonRow, Any]]:
    """Return a pair for each model: its row, which has only the name and the source yet; and the
    name of a preset to train, a source for ``load``, or a ReviewModel.

    Args:
        models: A mapping from the names of rows to models; or a list, whose items are models or
            pairs of name and model.

    Raises:
        ConfigError: There is no model, an item is neither a name nor a model, or two rows have the
            same name.
        SourceError: A name is neither a preset nor the source of a model, or could be both.
    """
    if isinstance(models, str) or not isinstance(models, Mapping | Sequence):
        raise ConfigError(
            "models must be a list, or a dictionary by name, as in ['gru-char', 'lstm-char']; got"
            f" {models!r:.60}."
        )
    entries = models.items() if isinstance(models, Mapping) else models
    named = [entry if isinstance(entry, tuple) else (None, entry) for entry in entries]
    rows = [(_start_row(name, source), source) for name, source in named]
    if not rows:
        raise ConfigError(
            "There is no model to compare: give presets, as in gru-char, or saved models."
        )
    # the files of two rows need different names, on file systems that ignore case, too
    by_file = dict[str, ComparisonRow]()
    for row, _ in rows:
        first_row = by_file.setdefault(_file_name(row.name).casefold(), row)
        if first_row is not row:
            raise ConfigError(
                f"Two rows have the name {row.name[:60]!r} ({first_row.source[:60]} and"
                f" {row.source[:60]}). Name them: first=SOURCE second=SOURCE on the command line,"
                " {'first': ..., 'second': ...} in Python."
            )
    return rows


def _start_row(name: Any, source: Any) -> ComparisonRow:
    """Check a name and a source; return a row that has only these."""
    if not isinstance(name, str | None) or name == "":
        raise ConfigError(
            f"The name of a row must be a string that is not empty; got {name!r:.60}."
        )
    if isinstance(source, ReviewModel):
        return ComparisonRow(
            name=name or source.preset, source=source.bundle.origin or "a loaded model"
        )
    if not isinstance(source, str | Path):
        raise ConfigError(
            "Compare presets, saved folders, repositories or ReviewModels; got"
            f" {type(source).__name__}."
        )
    is_preset = isinstance(parse_source(source, preset_names()), str)  # a name, not a path
    if name is None:
        name = str(source)
        if isinstance(source, Path) or os.path.exists(source):  # noqa: PTH110  Path raises for long names
            name = to_path("models", source).resolve().name
    return ComparisonRow(name=name, source=str(source), is_trained_here=is_preset)


def _file_name(name: str) -> str:
    """Turn the name of a row into the name of a file, without dots at the beginning and the end.

    >>> _file_name("ana/lyrics@v2"), _file_name("../..")
    ('ana-lyrics-v2', 'model')
    """
    return re.sub(r"[^\w.-]+", "-", name).strip(".-")[:80] or "model"


class ComparisonRun:
    """One comparison: it checks its arguments, and then trains and measures the models. It reads no
    data before ``start`` is called.

    The folder has the finished trainings in the file of a ``TrialStore``. It has the models of the
    first seed in ``models/NAME``, and those of a further seed in ``models-seed-SEED/NAME``.

    Raises:
        ReviewgenError: As in ``compare``, except for the errors of reading the data.
    """

    def __init__(self, models: Any, data: Any, options: CompareKwargs) -> None:
        refuse_unknown_options(
            options, CompareKwargs, "compare", others=("models", "data", "progress")
        )
        self.prompt = options.get("prompt", "the ")
        self.seed = check_seed(options.get("seed", 0))
        self.seeds = options.get("seeds", 1)
        check_count("seeds", self.seeds)
        check_text("prompt", self.prompt)
        if isinstance(data, Iterator):
            raise ConfigError(
                "data is an iterator, which can be read only once; give a list, or a file."
            )
        self.settings = check_groups(options.get("settings"))
        self.models = _with_settings(find_models(models), options.get("row_settings"))
        given: dict[str, Any] = {
            name: value for name, value in options.items() if value is not None
        }
        self.options = _training_options(given)
        for row, source in self.models:
            if row.is_trained_here:
                # Making a run checks its options. A broken plugin is reported in its row later.
                with suppress(BrokenPlugin):
                    TrainingRun(source, data, **self.options, **self._groups(row))
        self.folder = to_path("out", given["out"]) if "out" in given else None
        self._store = TrialStore("comparison", self.folder, resume=options.get("resume", False))
        self.reading = HeldOutReading(
            data,
            given.get("held_out"),
            given.get("held_out_split"),
            data_config(self.options),
            self.options.get("budget"),
        )

    def _groups(self, row: ComparisonRow) -> dict[str, Any]:
        """Return the settings of a row by group: those of all rows, updated with its own."""
        groups = {group: dict(values) for group, values in self.settings.items()}
        for setting, value in row.settings.items():
            group, _, name = setting.partition(".")
            groups[group][name] = value
        return groups

    def start(self, console: "Console") -> Comparison:
        """Read the held-out texts, check or write the facts that all rows depend on, and return a
        comparison without rows.

        Raises:
            CheckpointError: The folder is a comparison with other texts or settings.
        """
        with console.status("Reading the held-out texts ..."):
            held_out = self.reading.read_held_out()
        training_corpus = held_out.corpus
        if training_corpus is None and any(row.is_trained_here for row, _ in self.models):
            training_corpus = self.reading.corpus().fingerprint
        self._store.identify(
            to_json(
                {
                    "corpus": training_corpus,
                    "held_out": held_out.digest,
                    "prompt": self.prompt,
                    "seed": self.seed,
                    "settings": self.settings,
                    **{name: self.options.get(name) for name in _LENGTH},
                }
            )
        )
        for row, _ in self.models:
            if row.is_trained_here:
                self._identify(row)
        return Comparison(held_out, self.prompt, self.seed)

    def _identify(self, row: ComparisonRow) -> None:
        """Record in the folder what is trained for a row. If the folder already has the name of the
        row, check that it stands for the same preset and settings.

        Raises:
            CheckpointError: The preset or the settings differ.
        """
        trained = {"preset": row.source, "settings": to_json(row.settings)}
        before = self._store.results.get(_file_name(row.name))
        if before is None:
            self._store.add(_file_name(row.name), trained)
        elif before != trained:
            raise CheckpointError(
                f"In {self.folder}, the row {quoted(row.name)} has another preset or other settings"
                f" ({before['preset']}, {before['settings']}): give the same to resume it, or give"
                " the row another name."
            )

    def rows(self, held_out: HeldOut, console: "Console") -> Iterator[Measured]:
        """Measure the models in order, and yield each row when it is finished. If a model fails,
        its row gives the reason.
        """
        for n, (row, source) in enumerate(self.models, 1):
            if not console.quiet:
                console.print(f"{row.name} ({n} of {len(self.models)})", markup=False, style="dim")
            try:
                count = self.seeds if row.is_trained_here else 1
                trainings = [
                    self._measure(row, source, held_out, self.seed + number, console)
                    for number in range(count)
                ]
                yield average_seeds(trainings, held_out)
            # a plugin may raise anything; the comparison continues with the other models
            except (Exception, SystemExit) as error:
                reason = " ".join(str(error).split())
                # the message of any other exception may need its type to be understood
                if not reason or not isinstance(error, ReviewgenError | OSError):
                    reason = f"{type(error).__name__}: {reason}".removesuffix(": ")
                yield Measured(replace(row, failed=shortened(reason, 400)), None)

    def _measure(
        self, row: ComparisonRow, source: Any, held_out: HeldOut, seed: int, console: "Console"
    ) -> Measured:
        """Train a model from a seed, or load it, and measure it. If the folder has a row that was
        measured with the same weights, return that row.
        """
        training = None  # a function that returns the training texts
        if row.is_trained_here:
            model, share = self._train(row, source, seed, console)
            row = replace(row, processor_share=share)
            training = self.reading.training_texts
        elif isinstance(source, ReviewModel):
            model = source
        else:
            model = ReviewModel.from_pretrained(source)
        key = f"{_file_name(row.name)}, seed {seed}"
        digest = "" if self.folder is None else _digest(model)
        stored = self._store.results.get(key)
        if stored is not None and (stored["source"], stored["weights"]) == (row.source, digest):
            return _to_measured(stored)
        if seed == self.seed:
            measured = measure_model(model, row, held_out, self.prompt, seed, training)
        else:
            measured = measure_repeat(model, row, held_out)
        nats = None if measured.nats is None else measured.nats.tolist()
        results = {"source": row.source, "weights": digest, "row": asdict(measured.row)}
        self._store.add(key, {**results, "nats": nats})
        return measured

    def _train(
        self, row: ComparisonRow, preset: str, seed: int, console: "Console"
    ) -> tuple[ReviewModel, float | None]:
        """Return the model of a preset, and the processor share of its training. Load the model if
        the folder has it from an interrupted comparison; otherwise train it, or resume its
        training.
        """
        out = None
        if self.folder is not None:
            models = "models" if seed == self.seed else f"models-seed-{seed}"
            out = self.folder / models / _file_name(row.name)
        if out is not None and out.exists():
            return ReviewModel.from_pretrained(out), None
        # whether an interrupted training has left a checkpoint
        resume = out is not None and any(out.with_name(f"{out.name}.partial").glob("step-*"))
        settings = self.options | self._groups(row)
        run = TrainingRun(preset, self.reading.data, **settings, seed=seed, out=out, resume=resume)
        with console.status("Reading and tokenizing ..."):
            run.read()
            run.tokenize()
        with training_bar(console) as show:
            _, share = train_run(run, show)
        model = run.finish()
        # Ctrl-C during the last evaluation ended only the training; it ends the comparison, too
        if run.record.is_interrupted:
            raise KeyboardInterrupt
        return model, share


def _with_settings(
    models: Sequence[tuple[ComparisonRow, Any]], row_settings: Any
) -> list[tuple[ComparisonRow, Any]]:
    """Return the models, with the settings that only some rows have.

    Args:
        models: The rows with their models.
        row_settings: Settings by group, by the name of the row.

    Raises:
        ConfigError: No row has one of the names, or the model of a row is not trained here.
    """
    example = "{'wide': {'model': {'hidden_size': 512}}}"
    given = {} if row_settings is None else check_mapping("row_settings", row_settings, example)
    names = [row.name for row, _ in models]
    for name in given:
        if name not in names:
            raise ConfigError(
                f"There are settings of {quoted(name)}, but no row has this name."
                f" {did_you_mean(name, names)}"
            )
    changed = []
    for row, source in models:
        settings = dotted(check_groups(given.get(row.name)))
        if settings and not row.is_trained_here:
            raise ConfigError(
                f"{quoted(row.name)} is a trained model, which is compared as it is; only presets"
                " have settings."
            )
        changed.append((replace(row, settings=settings), source))
    return changed


def _training_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of ``TrainingRun`` among those of ``compare``, except seed and settings.
    The budget is in seconds; it has a default if no option limits the training.
    """
    training = {name: value for name, value in given.items() if name not in _OWN}
    if not any(name in training for name in _LENGTH):
        training["budget"] = DEFAULT_BUDGET
    if "budget" in training:
        training["budget"] = parse_duration(training["budget"])
    return training


def _to_measured(stored: Mapping[str, Any]) -> Measured:
    """Return the row and the nats of a finished training, as the store has them."""
    row = stored["row"]
    # JSON has turned the tuples into lists; an interval that is not known stays None
    intervals = {name: limits and tuple(limits) for name, limits in row["intervals"].items()}
    nats = stored["nats"]
    return Measured(
        from_dict(ComparisonRow, {**row, "intervals": intervals}),
        None if nats is None else np.array(nats),
    )


def _digest(model: ReviewModel) -> str:
    """Return a hash of the weights of a model."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.bundle.model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
