"""``reviewgen.sweep`` and ``reviewgen.plot_sweep``: trainings with several values of one setting,
as a bias-variance table and its plot.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Unpack

from reviewgen.config.options import ExperimentKwargs
from reviewgen.config.settings import check_list, check_mapping, check_text
from reviewgen.errors import ConfigError, quoted
from reviewgen.evaluation.evaluate import sample_documents
from reviewgen.protocols.abilities import count_parameters
from reviewgen.rates import MIN_CHARACTERS
from reviewgen.runs.measure import evaluate
from reviewgen.runs.run import Run
from reviewgen.runs.trials import (
    Experiment,
    TrainedTrial,
    Training,
    check_values,
    combine,
    mean,
    name_settings,
    summarize,
)
from reviewgen.web.charts import Chart, Panel, Series, refuse_chart, save_chart

_TRAIN_TOKENS = 100_000  # tokens of the training text that are scored


@dataclass(frozen=True, kw_only=True)
class SweepRow(TrainedTrial):
    """The results of a training with one value of the setting.

    Attributes:
        value: The value of the setting that is swept.
        series: The settings that distinguish this row's series, as in {"model.smoothing": "none"}.
        train_bits: Bits per character of a sample of the training texts, as ``bits`` is of held-out
            texts.
        train_impossible: Share of the tokens of this sample that have probability zero.
        ngrams: The numbers of distinct n-grams of 1, 2, ... n tokens in the model; empty for a
            model without n-grams.
        novelty: The copy rate with its interval, and the number of characters it was measured on,
            as in ``training.json``, for the first seed; empty if it was not measured.
    """

    value: Any
    series: Mapping[str, Any] = field(default_factory=dict)
    train_bits: float | None = None
    train_impossible: float | None = None
    ngrams: Sequence[int] = ()
    novelty: Mapping[str, Any] = field(default_factory=dict)

    @property
    def token_copy_rate(self) -> float | None:
        """Share of 20-token windows of generated texts that occur in the training text; None if it
        was not measured.
        """
        return self.novelty.get("token_copy_rate")

    @property
    def copy_rate(self) -> float | None:
        """The copy rate; None if it was not measured, or was measured on too few characters."""
        if self.novelty.get("copy_rate_characters", 0) < MIN_CHARACTERS:
            return None
        return self.novelty.get("copy_rate")


def sweep(
    preset: str,
    source: Any,
    setting: str,
    values: Sequence[Any],
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    series: Mapping[str, Sequence[Any]] | None = None,
    seeds: int = 1,
    out: str | Path | None = None,
    resume: bool = False,
    **options: Unpack[ExperimentKwargs],
) -> Iterator[SweepRow]:
    """Train a preset with each value of a setting; yield a row of a bias-variance table for each
    model.

    The corpus is read and tokenized once, or once for each value of a tokenizer setting.

    >>> sweep = reviewgen.sweep("ngram-char", "reviews.csv", "model.order", [2])  # doctest: +SKIP
    >>> rows = list(sweep)  # doctest: +SKIP
    >>> reviewgen.plot_sweep(rows, "model.order", "ngram-char", "orders.png")  # doctest: +SKIP

    Args:
        preset: ``<model>-<tokenizer>``.
        source: The reviews.
        setting: A setting of the model, the tokenizer or the training, as in "model.order".
        values: The values of the setting, in this order; strings are converted to its type.
        settings: Other settings that differ from the preset's, by group, as in {"model":
            {"smoothing": "witten-bell"}}.
        series: Other settings with several values, as in {"model.smoothing": ["kneser-ney",
            "none"]}. The sweep is repeated for each value (for several settings, each combination),
            and a plot has a line for each.
        seeds: The number of trainings per row, from different seeds: the figures are their means.
        out: A folder for the finished trainings; it must not exist.
        resume: Whether to continue in ``out``, and train only what is missing.
        options: The other keywords of ``train`` that make sense for several trainings: budget (for
            each training), steps, epochs, seed, log, initial_weights, min_texts, and those for
            reading and filtering a corpus.

    Raises:
        ConfigError: The setting, a value or an argument is unknown; raised before any training.
        OutputExists: ``out`` exists, and ``resume`` is not set.
        CheckpointError: ``resume`` is set, but ``out`` is not a sweep, or has other texts or
            settings.
    """
    function = ("sweep", "setting", "values", "settings", "series", "seeds", "out", "resume")
    experiment = Experiment(
        function,
        preset,
        source,
        settings,
        options,
        seeds=seeds,
        measure=_measure,
        needs_bits=False,
    )
    grouping = {} if series is None else check_mapping("series", series, "{'model.order': [2, 4]}")
    varied = {**grouping, setting: values}
    for name, listed in varied.items():
        check_values(name, listed)
    if setting in grouping:
        raise ConfigError(
            f"{setting} is swept, so it cannot have a series for each of its values too."
        )
    combinations = combine(varied)
    for changed in combinations:  # a bad value is refused before any work
        experiment.plan(changed)
    experiment.open_store("sweep", "out", out, resume=resume)
    # An error of the first training is raised, since the others would probably have it, too. If a
    # later one fails, its row says so.
    return (
        _make_row(
            experiment.train(name_settings(changed, "="), changed, may_fail=number > 0),
            changed,
            setting,
        )
        for number, changed in enumerate(combinations)
    )


def _measure(run: Run) -> dict[str, Any]:
    """Return what only a sweep measures, as JSON values."""
    model = run.finish()
    if run.record.is_interrupted:  # while ``finish`` measured the model
        raise KeyboardInterrupt
    documents = sample_documents(run.corpus.stores["train"], _TRAIN_TOKENS)
    train = evaluate(run.model, documents, run.corpus.tokenizer.vocab_size)
    kinds = count_parameters(run.model)
    names = [f"{length}-grams" for length in range(1, len(kinds) + 1)]
    return {
        "train_bits": None if train is None else train.bits_per_character,
        "train_impossible": None if train is None else train.zero_probability_tokens / train.tokens,
        "ngrams": [kinds[name] for name in names if name in kinds],
        "novelty": model.training["novelty"] or {},
    }


def _make_row(trainings: Sequence[Training], changed: Mapping[str, Any], setting: str) -> SweepRow:
    """Return the row of some trainings that differ in their seeds only."""
    figures = [training.figures for training in trainings]
    return SweepRow(
        **summarize(trainings),
        value=changed[setting],
        series={name: value for name, value in changed.items() if name != setting},
        train_bits=mean(each.get("train_bits") for each in figures),
        train_impossible=mean(each.get("train_impossible") for each in figures),
        ngrams=figures[0].get("ngrams", ()),
        novelty=figures[0].get("novelty", {}),
    )


def plot_sweep(
    rows: Sequence[SweepRow],
    setting: str,
    preset: str,
    file: str | Path,
    *,
    overwrite: bool = False,
) -> None:
    """Plot the bits per character and copy rates of a sweep against the values of its setting. The
    file's suffix selects PNG, SVG or PDF.

    Args:
        rows: The rows that ``sweep`` has yielded.
        setting: The name of the setting, for the axis.
        preset: The name of the preset, for the title.
        file: The file to write.
        overwrite: Whether to replace the file if it exists.

    Raises:
        ConfigError: The suffix is not .png, .svg or .pdf; or the file is PNG or PDF, and matplotlib
            is not installed.
        OutputExists: The file exists.
        StorageError: The file cannot be written.
    """
    check_text("setting", setting)
    check_text("preset", preset)
    rows = check_list("rows", rows, "list(reviewgen.sweep(...))")
    for row in rows:
        if not isinstance(row, SweepRow):
            raise ConfigError(
                f"rows must be what reviewgen.sweep has yielded; got {quoted(row)} among them."
            )
    file = refuse_chart(file, overwrite)
    # the rows of each series
    lines = [list(line) for _, line in itertools.groupby(rows, key=lambda row: row.series)]
    bits = list[Series]()
    copies = list[Series]()
    impossible = list[Series]()
    for colour, line in enumerate(lines):
        prefix = "".join(
            f"{name.partition('.')[2]} {value}, " for name, value in line[0].series.items()
        )
        # indexes of the colours of charts
        train_colour = 7
        copy_colour = 5
        if len(lines) > 1:  # with several series, each has one colour in all panels
            train_colour = colour
            copy_colour = colour
        bits.append(Series(f"{prefix}held-out text", _points(line, "bits"), colour))
        train = _points(line, "train_bits")
        bits.append(Series(f"{prefix}training text", train, train_colour, is_dashed=True))
        copies.append(Series(f"{prefix}copy rate", _points(line, "copy_rate"), copy_colour))
        if any(row.impossible for row in line):
            shares = _points(line, "impossible")
            impossible.append(Series(f"{prefix}probability zero", shares, colour))
    # the panels below the first one are lower: 90 pixels
    panels = [Panel("bits per character", bits)]
    if any(series.points for series in copies):
        panels.append(Panel("copy rate of generated text", copies, 90.0, (0.0, 1.0)))
    if impossible:
        panels.append(Panel("impossible tokens of held-out text", impossible, 90.0))
    labels = [str(row.value) for row in max(lines, key=len, default=[])]
    save_chart(Chart(preset, setting, panels, labels=labels), file)


def _points(rows: Sequence[SweepRow], name: str) -> list[tuple[float, float]]:
    """Return the points of a line, (index of the row, value of the field ``name``), without the
    rows whose value is None.
    """
    points = [(float(index), getattr(row, name)) for index, row in enumerate(rows)]
    return [point for point in points if point[1] is not None]
