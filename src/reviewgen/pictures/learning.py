"""Plots of learning curves: bits per character, token copy rate, metrics and learning rate over time, of one run or several."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from reviewgen.errors import BundleError
from reviewgen.pictures.figures import new_figure, plain

AXES = {"seconds": "seconds", "steps": "step", "tokens": "tokens_seen"}
"""The quantities of the horizontal axis: the user's name for each, and its name in training.json."""

_UNITS = (
    (2 * 3600.0, 3600.0, "hours"),
    (180.0, 60.0, "minutes"),
    (0.0, 1.0, "seconds"),
)  # smallest duration in seconds, seconds per unit, name
_MAX_RATIO = 4.0  # times the minimum of bits; higher values, of first steps or a diverged run, would flatten the rest


@dataclass(frozen=True)
class LearningCurves:
    """The learning curves of one run, from ``training.json``; a value is None if it is unknown or infinite.

    Attributes:
        name: The name of the run in the plot.
        preset: The preset that was trained.
        verdict: The sentence that sums up the run; None if there is none.
        held_out_token_copy_rate: The token copy rate of real held-out reviews, to compare with.
        evaluations: One mapping per evaluation.
        curve: By name, the values between the evaluations, all of one length.
        units: The unit of each metric of generated texts, by the metric's name.
        parts: The curves of the models of a blend that were trained with it.
    """

    name: str
    preset: str
    verdict: str | None
    held_out_token_copy_rate: float | None
    evaluations: Sequence[Mapping[str, Any]]
    curve: Mapping[str, Sequence[float | None]]
    units: Mapping[str, str] = field(default_factory=dict)
    parts: Sequence["LearningCurves"] = ()

    def column(self, name: str) -> list[float]:
        """Return one number of all evaluations, with NaN for None: matplotlib draws nothing there."""
        return [_nan_for_none(each.get("metrics", {}).get(name, each.get(name))) for each in self.evaluations]

    def points(self, across: str, up: str, unit: float) -> tuple[list[float], list[float]]:
        """Return two columns of the curve between the evaluations, the first divided by ``unit``."""
        columns = (map(_nan_for_none, self.curve.get(name, ())) for name in (across, up))
        return [value / unit for value in next(columns)], list(next(columns))

    def has(self, name: str) -> bool:
        """Return whether a number has a panel: bits per character always has, others if any evaluation has a finite value."""
        return name == "bits_per_character" or any(map(math.isfinite, self.column(name)))

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics of generated texts that have a value at some evaluation, also of the parts."""
        own = [name for each in self.evaluations for name in each.get("metrics", {}) if self.has(name)]
        return list(dict.fromkeys([*own, *(name for part in self.parts for name in part.metrics)]))

    @property
    def best(self) -> int | None:
        """The index of the evaluation whose weights were kept; None if there is none."""
        kept = [index for index, each in enumerate(self.evaluations) if each.get("is_best")]
        return kept[-1] if kept else None


def find_curves(training: Mapping[str, Any], name: str) -> LearningCurves:
    """Return the learning curves in the content of a training.json.

    Args:
        training: The content.
        name: The name of the run in the plot.

    Raises:
        BundleError: It has no evaluations, or they are damaged.
    """
    evaluations, curve = training.get("evaluations"), training.get("curve") or {}
    novelty, verdict = training.get("novelty") or {}, training.get("verdict") or {}
    if not evaluations:
        why = "a blend is not trained" if "parts" in training else "its training ended before the first evaluation"
        raise BundleError(f"{name} has no learning curve: {why}.")
    if not _are_curves(evaluations, curve) or not isinstance(novelty, dict) or not isinstance(verdict, dict):
        raise BundleError(
            f"The training.json of {name} is damaged: its evaluations, curve, novelty or verdict have the wrong type."
        )
    metrics = training.get("metrics") or {}
    sentence, held_out = verdict.get("words"), novelty.get("held_out_token_copy_rate")
    return LearningCurves(
        name=name,
        preset=str(training.get("preset")),
        verdict=sentence if isinstance(sentence, str) else None,
        held_out_token_copy_rate=held_out if isinstance(held_out, int | float) else None,
        evaluations=evaluations,
        curve=curve,
        units={metric: str(facts.get("unit")) for metric, facts in metrics.items() if isinstance(facts, dict)},
        parts=_find_parts(training.get("parts")),
    )


def _find_parts(parts: Any) -> list[LearningCurves]:
    """Return the curves of the models of a blend, named by their presets; of one trained by counting only the height is known."""
    if not isinstance(parts, list):
        return []
    trained = [part for part in parts if isinstance(part, dict) and part.get("evaluations")]
    curves = [find_curves(part, str(part.get("preset"))) for part in trained]
    return [
        each if each.curve else replace(each, evaluations=[_without_position(last) for last in each.evaluations])
        for each in curves
    ]


def _without_position(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in evaluation.items() if name not in AXES.values()}


def _are_curves(evaluations: Any, curve: Any) -> bool:
    """Return whether evaluations and curve have the types of a training.json, and its columns one length."""
    if not isinstance(evaluations, list) or not all(isinstance(each, dict) for each in evaluations):
        return False
    if not isinstance(curve, dict) or not all(isinstance(column, list) for column in curve.values()):
        return False
    across = tuple(AXES.values())
    metrics = [each.get("metrics", {}) for each in evaluations]
    if not all(isinstance(each, dict) for each in metrics):
        return False
    numbers = [each.get(name) for each in evaluations for name in (*across, "bits_per_character", "token_copy_rate")]
    numbers += [value for each in metrics for value in each.values()]
    columns = [curve.get(name, []) for name in (*across, "train_bits_per_character", "learning_rate")] if curve else [[]]
    numbers += [value for column in columns for value in column]
    return all(value is None or isinstance(value, int | float) for value in numbers) and len(set(map(len, columns))) == 1


def draw_curves(given: Sequence[LearningCurves], against: str = "seconds", metrics: Sequence[str] = ()) -> Any:
    """Return a figure with a panel for each known number, which share a horizontal axis.

    The models of a blend are drawn beside it.

    Args:
        given: The runs.
        against: The quantity of the horizontal axis, a key of ``AXES``.
        metrics: The metrics of generated texts that have a panel, too.
    """
    runs = [each for run in given for each in (*run.parts, run)]
    heights = {name: height for name, height in _PANELS.items() if any(run.has(name) for run in runs)}
    heights |= dict.fromkeys(metrics, _METRIC_HEIGHT)
    figure = new_figure(8, 1.5 + sum(heights.values()))
    panels = figure.subplots(len(heights), sharex=True, squeeze=False, height_ratios=list(heights.values()))[:, 0]
    unit, label = _unit(runs) if against == "seconds" else (1.0, {"steps": "steps", "tokens": "tokens seen"}[against])
    for name, axes in zip(heights, panels, strict=True):
        for number, run in enumerate(runs):
            draw = _DRAWN.get(name, partial(_draw_metric, name))
            draw(axes, run, f"C{number % 10}", AXES[against], unit)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylim(*_bounds(runs))
    panels[-1].set_xlabel(label)
    panels[-1].set_xlim(left=0)
    if against != "seconds":
        panels[-1].xaxis.set_major_formatter("{x:,.0f}")
    if len(given) == 1:
        figure.suptitle(f"{plain(given[0].name)} ({plain(given[0].preset)})")
        panels[0].set_title(plain(textwrap.fill(given[0].verdict or "", 100)), fontsize=9, color="0.35")
    figure.legend(handles=_legend(runs), loc="outside lower center", ncols=3, frameon=False)
    return figure


def _draw_bits(axes: Any, run: LearningCurves, color: str, across: str, unit: float) -> None:
    """Draw bits per character: solid for held-out text, dashed for training text, a ring at the weights that were kept."""
    _draw_evaluations(axes, run, color, across, "bits_per_character", unit)
    axes.plot(*run.points(across, "train_bits_per_character", unit), "--", color=color, alpha=0.7, linewidth=1)
    if run.best is not None:
        point = run.column(across)[run.best] / unit, run.column("bits_per_character")[run.best]
        axes.plot(*point, "o", color=color, markersize=11, fillstyle="none", markeredgewidth=1.5)
    axes.set_ylabel("bits per character")


def _draw_copies(axes: Any, run: LearningCurves, color: str, across: str, unit: float) -> None:
    """Draw the token copy rate of generated texts, and that of held-out reviews as a dotted line."""
    _draw_evaluations(axes, run, color, across, "token_copy_rate", unit)
    if run.held_out_token_copy_rate is not None:
        axes.axhline(run.held_out_token_copy_rate, color=color, linestyle=":", linewidth=1.2)
    axes.set(ylabel="token copy rate\nof generated text", ylim=(-0.03, 1.03))


def _draw_metric(name: str, axes: Any, run: LearningCurves, color: str, across: str, unit: float) -> None:
    """Draw a metric of generated texts."""
    _draw_evaluations(axes, run, color, across, name, unit)
    if name in run.units:
        axes.set_ylabel(f"{plain(name)}\n({plain(run.units[name])})")


def _draw_rates(axes: Any, run: LearningCurves, color: str, across: str, unit: float) -> None:
    axes.plot(*run.points(across, "learning_rate", unit), color=color, linewidth=1.2)
    axes.set_ylabel("learning rate")
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))


def _draw_evaluations(axes: Any, run: LearningCurves, color: str, across: str, up: str, unit: float) -> None:
    """Draw a metric of all evaluations; a single one, of a model trained by counting, also as a horizontal line."""
    heights = run.column(up)
    axes.plot([value / unit for value in run.column(across)], heights, "o-", color=color, markersize=3.5)
    if len(heights) == 1 and math.isfinite(heights[0]):
        axes.axhline(heights[0], color=color, alpha=0.5, linewidth=1)


_PANELS = {"bits_per_character": 4.5, "token_copy_rate": 1.5, "learning_rate": 1.5}  # the panels and their heights in inches
_METRIC_HEIGHT = 1.5
_DRAWN = {"bits_per_character": _draw_bits, "token_copy_rate": _draw_copies, "learning_rate": _draw_rates}


def _legend(runs: Sequence[LearningCurves]) -> list[Any]:
    """Return the entries of the legend: the runs by colour if there are several, then the line styles."""
    from matplotlib.lines import Line2D

    labels = [plain(run.name) for run in runs] if len(runs) > 1 else ["weights kept"]
    for number, run in enumerate(runs):
        kept = math.nan if run.best is None else run.column("bits_per_character")[run.best]
        labels[number] += f": {kept:.3f}" if math.isfinite(kept) else ""
    color, ring = "C0" if len(runs) == 1 else "0.3", labels[0] if len(runs) == 1 else "weights kept"
    shown = [Line2D([], [], color=f"C{n % 10}", linewidth=3, label=label) for n, label in enumerate(labels) if len(runs) > 1]
    shown.append(Line2D([], [], color=color, marker="o", markersize=3.5, label="held-out text"))
    shown.append(Line2D([], [], color=color, marker="o", markersize=11, fillstyle="none", linestyle="", label=ring))
    if any(run.curve for run in runs):
        shown.append(Line2D([], [], color=color, linestyle="--", linewidth=1, alpha=0.7, label="training text"))
    if any(run.held_out_token_copy_rate is not None for run in runs):
        shown.append(Line2D([], [], color=color, linestyle=":", label="token copy rate of held-out reviews"))
    return shown


def _bounds(runs: Sequence[LearningCurves]) -> tuple[float, float]:
    """Return the limits of the bits axis: the best values of all runs are visible, and others up to ``_MAX_RATIO`` times them."""
    lowest, highest = [], []
    for run in runs:
        held_out = list(filter(math.isfinite, run.column("bits_per_character")))
        trained = list(filter(math.isfinite, run.points("step", "train_bits_per_character", 1.0)[1]))
        known = held_out or trained or [1.0]
        lowest.append(min(known + trained))
        highest.append(min(max(known), _MAX_RATIO * min(known)))
    margin = 0.05 * max(highest)
    return min(lowest) - margin, max(highest) + margin


def _unit(runs: Sequence[LearningCurves]) -> tuple[float, str]:
    """Return the seconds per unit of a readable time axis, and the label of the axis."""
    longest = max((value for run in runs for value in run.column("seconds") if math.isfinite(value)), default=0.0)
    return next((unit, f"{name} of training") for shortest, unit, name in _UNITS if longest >= shortest)


def _nan_for_none(value: float | None) -> float:
    return math.nan if value is None else float(value)
