"""Draws the learning curves of trainings as charts, from their training.json: bits per character,
metrics, the learning rate.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from markupsafe import Markup

from reviewgen.errors import BundleError
from reviewgen.rates import describe_copies
from reviewgen.web.charts import Chart, Panel, Point, Series, draw_figure

AXES = {"seconds": "seconds", "steps": "step", "tokens": "tokens_seen"}
"""The quantities of the horizontal axis: the user's name for each, and its name in
training.json.
"""

_LABELS = {"steps": "steps", "tokens": "tokens seen"}
# For each unit of time: the shortest duration that is shown in this unit, the unit itself (both in
# seconds), and the label of the axis.
_UNITS = (
    (2 * 3600.0, 3600.0, "hours of training"),
    (180.0, 60.0, "minutes of training"),
    (0.0, 1.0, "seconds of training"),
)
# Points above this multiple of the fewest bits are left out: those of the first steps, or of a
# diverged run, would flatten the rest.
_MAX_RATIO = 3.0
_LOW = 90.0  # the height of a panel below the first, in pixels


@dataclass(frozen=True)
class LearningCurves:
    """The learning curves of one run, from ``training.json``; a value is None if it is unknown or
    infinite.

    Attributes:
        name: The name of the run in the plot.
        preset: The preset that was trained.
        verdict: The verdict on the run, and if it was measured, the copy rate with its interval.
        held_out_token_copy_rate: The share of the 20-token windows of held-out reviews that occur
            in the training text.
        evaluations: The figures of each evaluation, by name.
        curve: Lists of values that were recorded between the evaluations, by name; all have the
            same length.
        units: The unit of each metric of generated texts, by the metric's name.
        parts: For a blend, the curves of the models that were trained with it.
    """

    name: str
    preset: str
    verdict: str
    held_out_token_copy_rate: float | None
    evaluations: Sequence[Mapping[str, Any]]
    curve: Mapping[str, Sequence[float | None]]
    units: Mapping[str, str] = field(default_factory=dict)
    parts: Sequence["LearningCurves"] = ()

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics of generated texts that have a value in at least one evaluation,
        in this run or in one of its parts.
        """
        names = list[str]()
        for entry in self.evaluations:
            metrics = entry.get("metrics", {})
            names += [name for name, value in metrics.items() if value is not None]
        for part in self.parts:
            names += part.metrics
        return list(dict.fromkeys(names))


def find_curves(training: Mapping[str, Any], name: str) -> LearningCurves:
    """Read the learning curves from the content of a training.json.

    Args:
        training: The content of the file.
        name: The name of the run in the plot.

    Raises:
        BundleError: The content has no evaluations, or they are damaged.
    """
    evaluations = training.get("evaluations")
    if not evaluations:
        why = (
            "a blend is not trained"
            if "parts" in training
            else "its training ended before the first evaluation"
        )
        raise BundleError(f"{name} has no learning curve: {why}.")
    try:
        novelty = training.get("novelty") or {}
        held_out = novelty.get("held_out_token_copy_rate")
        verdict = (training.get("verdict") or {}).get("words")
        copies = describe_copies(novelty)
        metrics = training.get("metrics") or {}
        run = LearningCurves(
            name=name,
            preset=str(training.get("preset")),
            verdict=" ".join(filter(None, [verdict, copies and f"Copy rate: {copies}."])),
            held_out_token_copy_rate=None if held_out is None else float(held_out),
            evaluations=evaluations,
            curve=training.get("curve") or {},
            units={metric: facts["unit"] for metric, facts in metrics.items()},
            parts=_find_parts(training.get("parts")),
        )
        learning_chart([run], metrics=run.metrics)  # raises if any number is damaged
    except (TypeError, ValueError, AttributeError, KeyError):
        raise BundleError(
            f"The training.json of {name} is damaged: its learning curves cannot be drawn."
        ) from None
    return run


def _find_parts(parts: Any) -> list[LearningCurves]:
    """Return the curves of the models of a blend, each with the name of its preset. A count model
    has no curve, so the x values of its evaluations are removed; it is drawn as a level.
    """
    curves = []
    for part in parts if isinstance(parts, list) else ():
        if part.get("evaluations"):
            run = find_curves(part, str(part.get("preset")))
            if not run.curve:
                without_x = [
                    {name: value for name, value in entry.items() if name not in AXES.values()}
                    for entry in run.evaluations
                ]
                run = replace(run, evaluations=without_x)
            curves.append(run)
    return curves


def learning_chart(
    runs: Sequence[LearningCurves], against: str = "seconds", metrics: Sequence[str] = ()
) -> Chart:
    """Return a chart with panels for bits per character, for each metric and for the learning rate,
    if they have values.

    Args:
        runs: The runs. The models of a blend are drawn, too, each as a run of its own.
        against: The quantity of the horizontal axis, a key of ``AXES``.
        metrics: The metrics of generated texts to draw.
    """
    drawn = list[LearningCurves]()
    for run in runs:
        drawn += [*run.parts, run]
    x_key = AXES[against]
    if against == "seconds":
        unit, x_label = _choose_unit(drawn)
    else:
        unit = 1.0
        x_label = _LABELS[against]
    bits = list[Series]()
    for style, run in enumerate(drawn):
        bits += _bits(run, style, len(drawn), x_key, unit)
    panels = [Panel("bits per character", bits)]
    for name in metrics:
        units = [run.units[name] for run in drawn if name in run.units]
        label = f"{name}, {units[0]}" if units else name
        series = [
            Series(run.name, _points(run.evaluations, x_key, name, unit), style)
            for style, run in enumerate(drawn)
        ]
        if any(line.points for line in series):
            panels.append(Panel(label, series, _LOW))
    rates = [
        Series(run.name, _between(run, x_key, "learning_rate", unit), style, is_dashed=True)
        for style, run in enumerate(drawn)
    ]
    if any(line.points for line in rates):
        panels.append(Panel("learning rate", rates, _LOW))
    title = "Learning curves"
    summary = ""
    if len(runs) == 1:
        title = f"{runs[0].name} ({runs[0].preset})"
        summary = runs[0].verdict
    return Chart(title, x_label, panels, summary, from_zero=True)


def _choose_unit(runs: Sequence[LearningCurves]) -> tuple[float, str]:
    """Return the unit of time that suits the longest run, in seconds, and the label of the axis."""
    seconds = [0.0]
    for run in runs:
        seconds += [time for time, _ in _points(run.evaluations, "seconds", "seconds")]
    return next((unit, label) for shortest, unit, label in _UNITS if max(seconds) >= shortest)


def draw_inline(runs: Sequence[LearningCurves]) -> Markup | None:
    """Return a figure of bits per character against seconds for notebooks. Return None while there
    are fewer than two values.
    """
    series = list[Series]()
    bits = list[float]()
    for style, run in enumerate(runs):
        for line in _bits(run, style, len(runs), "seconds"):
            if line.points:
                series.append(line)
                if not line.is_ring:  # a ring repeats the value of an evaluation
                    bits += [y for _, y in line.points]
    if len(bits) < 2:
        return None
    summary = f"The fewest bits per character so far are {min(bits):.3f}."
    panels = [Panel("bits per character", series)]
    return draw_figure(Chart("Bits per character", "seconds", panels, summary, from_zero=True))


def _bits(
    run: LearningCurves, style: int, run_count: int, x_key: str, unit: float = 1.0
) -> Iterator[Series]:
    """Yield the series of bits per character: of held-out text, of training text, and a ring at the
    evaluation whose weights were kept. The names contain the run's name if there are several runs.
    """
    prefix = f"{run.name}, " if run_count > 1 else ""
    held_out = _points(run.evaluations, x_key, "bits_per_character", unit)
    trained = _between(run, x_key, "train_bits_per_character", unit)
    limit = _MAX_RATIO * min((bits for _, bits in held_out or trained), default=0.0)
    held_out_low = [point for point in held_out if point[1] <= limit]
    trained_low = [point for point in trained if point[1] <= limit]
    # a count model has a single evaluation, which is drawn as a level
    level = run.evaluations[0].get("bits_per_character") if len(run.evaluations) == 1 else None
    yield Series(f"{prefix}held-out text", held_out_low, style, level=level)
    yield Series(f"{prefix}training text", trained_low, style, is_dashed=True)
    last_best = [entry for entry in run.evaluations if entry.get("is_best")][-1:]
    for point in _points(last_best, x_key, "bits_per_character", unit):
        yield Series(f"{prefix}weights kept: {point[1]:.3f}", [point], style, is_ring=True)


def _points(
    evaluations: Sequence[Mapping[str, Any]], x_key: str, y_key: str, unit: float = 1.0
) -> list[Point]:
    """Return a point for each evaluation that has both numbers, ``x_key`` and ``y_key``. The x is
    divided by ``unit``.
    """
    numbers = [{**entry, **entry.get("metrics", {})} for entry in evaluations]
    return _finite([(entry.get(x_key), entry.get(y_key)) for entry in numbers], unit)


def _between(run: LearningCurves, x_key: str, y_key: str, unit: float) -> list[Point]:
    """Return the points between the evaluations: x and y are two of the lists of ``run.curve``."""
    return _finite(zip(run.curve.get(x_key, ()), run.curve.get(y_key, ()), strict=False), unit)


def _finite(pairs: Iterable[tuple[Any, Any]], unit: float) -> list[Point]:
    """Return the pairs whose values are both known and finite; x is divided by ``unit``."""
    known = [(float(x) / unit, float(y)) for x, y in pairs if x is not None and y is not None]
    return [point for point in known if all(map(math.isfinite, point))]
