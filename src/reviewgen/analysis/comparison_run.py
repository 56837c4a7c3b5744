"""``reviewgen.compare``: trains or loads each model, and measures it on the same held-out texts. If
a model fails, its row says why.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from reviewgen.analysis.comparison_figures import ComparisonRow, Measured, measure_model
from reviewgen.analysis.comparison_report import Comparison
from reviewgen.analysis.comparison_texts import HeldOut, HeldOutReading
from reviewgen.config.bounded import MAX_VOCABULARY, read_json, to_json
from reviewgen.config.names import parse_source
from reviewgen.config.options import CompareKwargs, refuse_unknown_options
from reviewgen.config.settings import check_seed, check_text, parse_duration
from reviewgen.errors import (
    BrokenPlugin,
    CheckpointError,
    ConfigError,
    OutputExists,
    ReviewgenError,
    shortened,
    storage_errors,
)
from reviewgen.model.review_model import ReviewModel
from reviewgen.registry.plugins import preset_names
from reviewgen.runs.display import training_bar
from reviewgen.runs.plan import DEFAULT_BUDGET
from reviewgen.runs.reading import data_config
from reviewgen.runs.run import TrainingRun
from reviewgen.runs.trials import check_groups
from reviewgen.storage import atomic_file, check_output, to_path

if TYPE_CHECKING:
    from rich.console import Console

# keywords of ``compare`` that are not options of a training
_OWN = {"held_out", "held_out_split", "prompt", "settings", "out", "resume"}
_LENGTH = ("budget", "steps", "epochs")  # options that limit a training
_IDENTITY = "comparison.json"
_SCHEMA = 1


def find_models(models: Any) -> list[tuple[ComparisonRow, Any]]:
    """Return a pair for each model: a row that has only the name and the source, and the model: a
    preset to train, a source for ``load``, or a ReviewModel.

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
    is_preset = isinstance(parse_source(source, preset_names()), str)  # a preset stays a name
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

    The folder has the files ``comparison.json`` (the facts that all rows depend on),
    ``models/NAME`` and ``rows/NAME.json``.

    Raises:
        ReviewgenError: As in ``compare``, except for the errors of reading the data.
    """

    def __init__(self, models: Any, data: Any, options: CompareKwargs) -> None:
        refuse_unknown_options(
            options, CompareKwargs, "compare", others=("models", "data", "progress")
        )
        self.prompt = options.get("prompt", "the ")
        self.seed = check_seed(options.get("seed", 0))
        check_text("prompt", self.prompt)
        if isinstance(data, Iterator):
            raise ConfigError(
                "data is an iterator, which can be read only once; give a list, or a file."
            )
        self.models = find_models(models)
        self.settings = check_groups(options.get("settings"))
        given: dict[str, Any] = {
            name: value for name, value in options.items() if value is not None
        }
        self.options = _training_options(given) | self.settings
        for row, source in self.models:
            if row.is_trained_here:
                # Making a run checks its options. A broken plugin is reported in its row later.
                with suppress(BrokenPlugin):
                    TrainingRun(source, data, **self.options)
        resume = options.get("resume", False)
        self.folder: Path | None = None
        self._earlier_facts = None
        if "out" in given:
            self.folder = to_path("out", given["out"])
            self._earlier_facts = _read_facts(self.folder, resume)
        elif resume:
            raise ConfigError(
                "Only a comparison with an output folder can be resumed: give out, or leave resume"
                " out."
            )
        self.reading = HeldOutReading(
            data,
            given.get("held_out"),
            given.get("held_out_split"),
            data_config(self.options),
            self.options.get("budget"),
        )

    def start(self, console: "Console") -> Comparison:
        """Read the held-out texts, check or create ``comparison.json``, and return a comparison
        without rows.

        Raises:
            CheckpointError: The folder is a comparison with other texts or settings.
        """
        with console.status("Reading the held-out texts ..."):
            held_out = self.reading.read_held_out()
        facts: dict[str, Any] = to_json(
            {
                "schema": _SCHEMA,
                "corpus": held_out.corpus,
                "held_out": held_out.digest,
                "prompt": self.prompt,
                "seed": self.seed,
                "settings": self.settings,
                **{name: self.options.get(name) for name in _LENGTH},
            }
        )
        if self._earlier_facts is not None:
            earlier = dict(self._earlier_facts)
            different = [name for name, value in facts.items() if earlier.get(name) != value]
            if different:
                raise CheckpointError(
                    f"{self.folder} is a comparison with another {', '.join(different)}. Give the"
                    " same texts and settings to resume it, or another folder."
                )
        elif self.folder is not None:
            _write_json(self.folder / _IDENTITY, facts)
        return Comparison(held_out, self.prompt, self.seed)

    def rows(self, held_out: HeldOut, console: "Console") -> Iterator[Measured]:
        """Measure the models in order, and yield each row when it is finished. If a model fails,
        its row gives the reason.
        """
        for n, (row, source) in enumerate(self.models, 1):
            if not console.quiet:
                console.print(f"{row.name} ({n} of {len(self.models)})", markup=False, style="dim")
            try:
                yield self._measure(row, source, held_out, console)
            # a plugin may raise anything; the comparison continues with the other models
            except (Exception, SystemExit) as error:
                reason = " ".join(str(error).split())
                # the message of any other exception may need its type to be understood
                if not reason or not isinstance(error, ReviewgenError | OSError):
                    reason = f"{type(error).__name__}: {reason}".removesuffix(": ")
                yield Measured(replace(row, failed=shortened(reason, 400)), None)

    def _measure(
        self, row: ComparisonRow, source: Any, held_out: HeldOut, console: "Console"
    ) -> Measured:
        """Train or load a model and measure it. If the folder has a row that was measured with the
        same weights, return that row.
        """
        training = None
        if row.is_trained_here:
            model = self._train(source, _file_name(row.name), console)
            training = self.reading.training_texts
        elif isinstance(source, ReviewModel):
            model = source
        else:
            model = ReviewModel.from_pretrained(source)
        measure = partial(measure_model, model, row, held_out, self.prompt, self.seed, training)
        if self.folder is None:
            return measure()
        file = self.folder / "rows" / f"{_file_name(row.name)}.json"
        digest = _digest(model)
        measured = _read_row(file, row, digest)
        if measured is None:
            measured = measure()
            values = {"row": measured.row, "bits": measured.bits, "weights": digest}
            _write_json(file, to_json(values))
        return measured

    def _train(self, preset: Any, name: str, console: "Console") -> ReviewModel:
        """Return the model of a preset. Load it if the folder has it from an interrupted
        comparison; otherwise train it, or resume its training.
        """
        out = None if self.folder is None else self.folder / "models" / name
        if out is not None and out.exists():
            return ReviewModel.from_pretrained(out)
        # whether an interrupted training has left a checkpoint
        resume = out is not None and any(out.with_name(f"{out.name}.partial").glob("step-*"))
        run = TrainingRun(preset, self.reading.data, **self.options, out=out, resume=resume)
        with console.status("Reading and tokenizing ..."):
            run.read()
            run.tokenize()
        with training_bar(console) as show:
            for report in run:
                show(report)
        model = run.finish()
        # Ctrl-C during the last evaluation ended only the training; it ends the comparison, too
        if run.record.is_interrupted:
            raise KeyboardInterrupt
        return model


def _training_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of ``TrainingRun`` among those of ``compare``. The budget is in seconds;
    it has a default if no option limits the training.
    """
    training = {name: value for name, value in given.items() if name not in _OWN}
    if not any(name in training for name in _LENGTH):
        training["budget"] = DEFAULT_BUDGET
    if "budget" in training:
        training["budget"] = parse_duration(training["budget"])
    return training


def _read_facts(folder: Path, resume: bool) -> Any:
    """Check the folder of a comparison. Return the content of its ``comparison.json``, the facts
    that its rows depend on; None for a new folder.
    """
    with storage_errors(folder):
        is_comparison = (folder / _IDENTITY).is_file()
    if is_comparison and not resume:
        raise OutputExists(
            f"{folder} is a comparison already. Resume it (--resume, in Python resume=True), or"
            " give another."
        )
    if resume and folder.exists():
        with suppress(OSError, ValueError):
            return read_json(folder / _IDENTITY)
        raise CheckpointError(
            f"{folder} is not the folder of a comparison, so it cannot be resumed. Give another"
            " folder."
        )
    check_output(folder)
    return None


def _write_json(file: Path, values: Any) -> None:
    with storage_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(file) as new:
            new.write_text(json.dumps(values, indent=2), encoding="utf-8")


def _read_row(file: Path, row: ComparisonRow, digest: str) -> Measured | None:
    """Read a finished row. Return None if it is missing or damaged, or belongs to another model or
    other weights.
    """
    try:
        stored = read_json(file, MAX_VOCABULARY)
        stored_row = ComparisonRow.from_json(stored["row"])
        bits = stored["bits"]
        if bits is not None:  # an infinite number is null in JSON
            bits = tuple(math.inf if value is None else float(value) for value in bits)
        stored_key = (stored_row.name, stored_row.source, stored["weights"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return Measured(stored_row, bits) if stored_key == (row.name, row.source, digest) else None


def _digest(model: ReviewModel) -> str:
    """Return a hash of the weights of a model."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.bundle.model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
