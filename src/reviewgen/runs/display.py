"""How a training is shown: a bar on a terminal, a figure in a notebook, a log of accelerate's
trackers, and a plot of its curves.

The bar is on standard error. The figure is drawn with the notebook's own display (IPython, which is
there in every notebook) as inline SVG, and stays when the training has ended. Its curves come from
the run's record, so no update waits for the device.

A tracker (TensorBoard, Weights & Biases, MLflow ...) is third-party code: what it prints never
reaches standard output; when it fails, the training continues without it.
"""

import contextlib
import contextvars
import io
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, Task, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from reviewgen.compiled.jit import compiling_notice
from reviewgen.config.settings import check_list, check_text
from reviewgen.errors import ConfigError, did_you_mean, first_line, quoted
from reviewgen.hub.download import locate
from reviewgen.processes import process_state
from reviewgen.saving.read import read_training
from reviewgen.storage import check_output, to_path
from reviewgen.training.report import Report
from reviewgen.web.charts import refuse_chart, save_chart
from reviewgen.web.curves import AXES, LearningCurves, draw_inline, find_curves, learning_chart
from reviewgen.web.rendering import decimal, duration, render, thousands

TERM = "loss."
"""The beginning of the name under which a model's own loss term is kept, as in "loss.z_loss"."""

_PROJECT = "reviewgen"  # which trackers keep runs under
_NAMED_BY_RUN = ("tensorboard", "aim")  # their first argument is the run's name, not the project's
_OPTIONS: dict[str, Callable[[str], dict[str, Any]]] = {  # of each tracker, by the run's name
    "clearml": lambda name: {"task_name": name},
    "dvclive": lambda name: {"dir": name},
    "mlflow": lambda name: {"run_name": name},
    "swanlab": lambda name: {"experiment_name": name},
    "trackio": lambda name: {"name": name, "embed": False},
    "wandb": lambda name: {"name": name, "settings": {"console": "off"}},
}
# others refuse a sample, or warn at each one
_TAKE_TEXT = ("tensorboard", "trackio", "wandb", "comet_ml")
_LOGGED = (
    "bits_per_character",
    "train_bits_per_character",
    "token_copy_rate",
    "learning_rate",
    "tokens_seen",
    "bptt",
)


def check_tracker(name: str | None) -> None:
    """Raise if a tracker cannot be used; None for no tracker.

    Raises:
        ConfigError: There is no tracker of that name, or it is not installed.
    """
    if name is None:
        return
    trackers = _tracker_classes()
    if not isinstance(name, str) or name not in trackers:
        raise ConfigError(
            f"{quoted(name)} is not a tracker to log to. {did_you_mean(name, trackers)}"
        )
    is_known = trackers[name].__module__.startswith("accelerate.")
    spec = find_spec(name)
    # without an origin it may be a folder of wandb's runs
    if is_known and (spec is None or spec.origin is None):
        raise ConfigError(
            f"Logging to {name} needs a package that is not installed: pip install {name}"
        )


def _tracker_classes() -> dict[str, Any]:
    """Return accelerate's trackers by name, with those that
    ``accelerate.tracking.register_tracker_class`` has added.
    """
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS  # imports torch

    trackers: dict[str, Any] = LOGGER_TYPE_TO_CLASS
    return trackers


class RunLog:
    """The log of a run with a tracker, or one that does nothing.

    A tracker that needs a folder gets ``runs/NAME`` beside the model, or ``runs/NAME-2`` and so on
    if that exists. The others have a project "reviewgen" where their own settings say, with a run
    of that name.

    Args:
        tracker: The name of a tracker of accelerate, or None.
        out: The folder that the model will be saved in, whose name the run gets.
        preset: The run's name if there is no such folder.

    Attributes:
        failure: Why logging has failed, a sentence; None while it works.

    Raises:
        StorageError: Nothing can be written beside the model.
    """

    def __init__(self, tracker: str | None, out: Path | None, preset: str) -> None:
        self.failure: str | None = None
        self._kind = tracker
        self._name = preset.replace(":", "-") if out is None else out.absolute().name
        self._tracker: Any = None
        self._is_reported = False
        self._context = contextvars.copy_context()  # a tracker keeps its current run there
        self._folder: Path | None = None
        if tracker is not None and (
            tracker == "dvclive" or _tracker_classes()[tracker].requires_logging_directory
        ):
            parent = (Path() if out is None else out.parent) / "runs"
            names = itertools.chain(
                [self._name], (f"{self._name}-{number}" for number in itertools.count(2))
            )
            self._folder = next(
                folder for folder in map(parent.joinpath, names) if not folder.exists()
            )
            check_output(self._folder)  # the curves of two runs are not mixed

    def describe(self) -> str | None:
        """Return where the log is."""
        where = f"{self._kind} as {self._name}" if self._folder is None else str(self._folder)
        return None if self._kind is None else f"Logging to {where}."

    @contextlib.contextmanager
    def opened(self, settings: Mapping[str, Any]) -> Iterator[None]:
        """Log inside the block; the settings, by dotted name, become the run's hyperparameters."""
        if self._kind is not None and process_state().is_main_process:
            self._try(self._start, settings, is_shown=True)  # it may ask for a login
        try:
            yield
        finally:
            if self._tracker is not None:
                self._try(self._tracker.finish)
                self._tracker = None

    def record(self, report: Report, kept: Mapping[str, Any] | None) -> Report:
        """Log what is kept of a report, and return the report; with a note if logging has just
        failed.
        """
        if self._tracker is not None and kept is not None:
            named = {
                name: value
                for name, value in kept.items()
                if name in _LOGGED or name.startswith(TERM)
            }
            values = {
                name: value
                for name, value in {**named, **kept.get("metrics", {})}.items()
                if value is not None
            }
            sample = {"sample": report.sample} if report.sample and self._kind in _TAKE_TEXT else {}
            self._try(self._tracker.log, values | sample, report.step)
        if self.failure is None or self._is_reported:
            return report
        self._is_reported = True
        return replace(report, notes=(*report.notes, self.failure))

    def _start(self, settings: Mapping[str, Any]) -> None:
        kind = self._kind or ""
        name = (
            self._name
            if self._folder is None
            else str(self._folder)
            if kind == "dvclive"
            else self._folder.name
        )
        tracker_class = _tracker_classes()[kind]
        folders = (
            [self._folder.parent]
            if self._folder is not None and tracker_class.requires_logging_directory
            else []
        )
        first = name if kind in _NAMED_BY_RUN else _PROJECT
        tracker = tracker_class(
            first, *folders, **(_OPTIONS[kind](name) if kind in _OPTIONS else {})
        )
        tracker.start()
        simple = bool | int | float | str  # what a tracker takes
        tracker.store_init_configuration(
            {name: x if isinstance(x, simple) else json.dumps(x) for name, x in settings.items()}
        )
        self._tracker = tracker

    def _try(self, action: Callable[..., None], *arguments: Any, is_shown: bool = False) -> None:
        """Call the tracker, and show what it prints as a note or not at all; if it fails, continue
        without it.
        """
        try:
            with contextlib.redirect_stdout(sys.stderr if is_shown else io.StringIO()):
                self._context.run(action, *arguments)
        # third-party code may raise anything, and hours of training must not be lost to it
        except Exception as error:
            self.failure = (
                f"Logging to {self._kind} failed, and the training continues without it:"
                f" {first_line(error)}"
            )
            self._tracker = None


_SECONDS = 0.2  # between two updates of the bar
_BAR_WIDTH = 10  # characters of the bar
_DONE = 0.999  # the most that the bar shows as done
_FIGURE_SECONDS = 0.5  # between two updates of a figure, at least
_FIGURE_SHARE = 0.02  # of the time that the updates of a figure may take


class TerminalView:
    """Shows a bar while a training runs, and nothing afterwards."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def phase(self, text: str) -> AbstractContextManager[object]:
        """Show inside the block what is being done."""
        return self._console.status(text)

    def training(self) -> AbstractContextManager[Callable[[Report], None]]:
        """Show a bar inside the block."""
        return training_bar(self._console)

    def finish(self) -> None:
        """Show nothing."""


class NotebookView:
    """Shows a run as one figure of a notebook's cell, with a bar, bits per character and the
    learning curve.
    """

    def __init__(self, run: Any) -> None:
        self._run = run
        self._handle: Any = None
        self._last: Report | None = None
        self._next_update = 0.0  # of ``time.monotonic``

    @contextmanager
    def phase(self, text: str) -> Iterator[None]:
        """Show inside the block what is being done."""
        with compiling_notice.silenced():
            self._update(text)
            yield

    @contextmanager
    def training(self) -> Iterator[Callable[[Report], None]]:
        """Show the training inside the block; the value is the function that takes the report of
        each step.
        """
        with self.phase("Training ..."):
            yield self._show

    def finish(self) -> None:
        """Show the result."""
        held_out = self._run.evaluation
        result = "Interrupted" if self._run.is_interrupted else "Trained"
        bits = (
            ""
            if held_out is None
            else f": {decimal(held_out.bits_per_character)} bits per character of held-out text"
        )
        self._update(f"{result}{bits}.", is_over=True)

    def _show(self, report: Report) -> None:
        self._last = report
        if time.monotonic() >= self._next_update:
            self._update("Training ...")

    def _update(self, status: str, is_over: bool = False) -> None:
        """Draw the figure, and set the time of the next update."""
        from IPython import display as notebook  # in a notebook it is there

        shown: Any = notebook
        start = time.monotonic()
        records = self._run.curves.items() if self._last is not None else ()
        curves = [
            LearningCurves(name, name, "", None, record.evaluations, record.curve())
            for name, record in records
        ]
        running = [] if is_over else [run for run in curves if run.evaluations]
        figure = shown.HTML(
            render(
                "runs/training.html",
                preset=self._run.preset,
                status=status,
                progress=None if is_over or self._last is None else self._last.progress,
                facts="" if self._last is None else _describe(self._last),
                bits=[
                    (run.name, decimal(run.evaluations[-1].get("bits_per_character")))
                    for run in running
                ],
                chart=draw_inline(curves),
            )
        )
        if self._handle is None:
            self._handle = shown.display(figure, display_id=True)
        else:
            self._handle.update(figure)
        end = time.monotonic()
        self._next_update = end + max(_FIGURE_SECONDS, (end - start) / _FIGURE_SHARE)


def open_view(run: Any, is_shown: bool) -> TerminalView | NotebookView:
    """Return what shows a run if ``is_shown``, on a terminal or in a notebook, and in the main
    process of a run.
    """
    console = open_console(is_shown)
    return NotebookView(run) if console.is_jupyter else TerminalView(console)


def open_console(is_shown: bool) -> Console:
    """Return a console that prints only if ``is_shown``, on a terminal or in a notebook, and in the
    main process of a run.
    """
    console = Console(stderr=True, highlight=False)
    has_viewer = console.is_jupyter or console.file.isatty()
    if is_shown and has_viewer and process_state().is_main_process:
        return console
    # in a notebook a quiet one would still show its bars
    return Console(stderr=True, quiet=True, force_jupyter=False)


@contextmanager
def training_bar(console: Console) -> Iterator[Callable[[Report], None]]:
    """Show a progress bar inside the block; yield the function that updates it with a step's
    report.
    """
    elapsed = TimeElapsedColumn(Column(min_width=7))
    facts = _Facts("{task.fields[facts]}", markup=False, table_column=Column())
    columns = BarColumn(_BAR_WIDTH), TextColumn("{task.percentage:3.0f}%"), elapsed, facts
    is_hidden = console.quiet or not (console.is_jupyter or console.file.isatty())
    shown = 0.0
    with (
        Progress(*columns, console=console, transient=True, disable=is_hidden) as bar,
        compiling_notice.silenced(),
    ):
        task = bar.add_task("", total=1.0, facts="")

        def show(report: Report) -> None:
            nonlocal shown
            if abs(report.seconds - shown) > _SECONDS:  # each model of a blend starts from zero
                loss = (
                    []
                    if is_hidden or report.loss is None
                    else [f"{report.nats_per_token:.3f} nats"]
                )
                # a task that is done stops its clock, and a blend trains several models
                done = min(report.progress, _DONE)
                bar.update(task, completed=done, facts=_describe(report, loss))
                shown = report.seconds

        yield show


class _Facts(TextColumn):
    """The facts of the last step (nats are per token); or that functions are being compiled, during
    which there are no steps.
    """

    def render(self, task: Task) -> Text:
        """Return the text of the column: one line, which a narrow terminal cuts off; the other
        columns keep their width.
        """
        text = Text("compiling (once)") if compiling_notice.is_compiling else super().render(task)
        text.no_wrap = True
        text.overflow = "ellipsis"
        return text


def _describe(report: Report, loss: Sequence[str] = ()) -> str:
    """Return the facts of a step, those first that a narrow terminal has room for."""
    facts = [] if report.part is None else [report.part]
    if report.epochs is None:
        facts.append(f"{thousands(report.step)} texts")
    else:
        times = [
            f"{duration(report.seconds_per_epoch)} an epoch",
            f"{duration(report.seconds_left)} left",
        ]
        known = times if report.seconds_per_epoch is not None else []
        facts += [f"epoch {report.epochs:.1f}", *known, *loss, f"step {thousands(report.step)}"]
    speed = f"{thousands(report.tokens / max(report.seconds, 1e-9))} tokens a second"
    return ", ".join([*facts, duration(report.seconds), speed, report.device])


def plot_training(
    sources: Sequence[str | Path],
    file: str | Path,
    *,
    against: str = "seconds",
    metrics: Sequence[str] = (),
    overwrite: bool = False,
) -> list[LearningCurves]:
    """Plot the learning curves of saved models as PNG, SVG or PDF, by the file's suffix, and return
    the curves.

    >>> reviewgen.plot_training(["./my-gru", "./my-lstm"], "curves.png")  # doctest: +SKIP

    Args:
        sources: Saved folders, or repositories on the Hub; several are drawn in one figure.
        file: The file to write.
        against: The x axis: "seconds" since the training started (after reading and tokenizing),
            "steps" or "tokens".
        metrics: Metrics of generated texts to draw a panel of, as in ["distinct-2"]; see
            ``training.metrics``.
        overwrite: Whether to replace the file if it exists.

    Raises:
        ConfigError: There are no sources; the suffix, ``against`` or a metric is unknown; or
            matplotlib, which PNG and PDF need, is not installed.
        BundleError: A source is not a saved model, or has no learning curve.
        OutputExists: The file exists.
        StorageError: The file cannot be written.
    """
    sources = check_list("sources", sources, "['./my-model']")
    if not sources:
        raise ConfigError("Give at least one saved model, as in ['./my-model'].")
    metrics = (
        [metrics] if isinstance(metrics, str) else check_list("metrics", metrics, "['distinct-2']")
    )
    for name in metrics:
        check_text("metrics", name)
    if not isinstance(against, str) or against not in AXES:
        raise ConfigError(
            f"Curves cannot be drawn against {quoted(against)}. {did_you_mean(against, AXES)}"
        )
    file = refuse_chart(file, overwrite)
    names = [_name(source) for source in sources]  # two folders of one name get the whole source
    names = [
        str(source) if names.count(name) > 1 else name
        for source, name in zip(sources, names, strict=True)
    ]
    runs = [
        find_curves(read_training(locate(source).folder), name)
        for source, name in zip(sources, names, strict=True)
    ]
    listed = list(dict.fromkeys(metrics))
    known = {name for run in runs for name in run.metrics}
    if unknown := [name for name in listed if name not in known]:
        raise ConfigError(
            f"No evaluation has the metric {quoted(unknown[0])}. {did_you_mean(unknown[0], known)}"
        )
    save_chart(learning_chart(runs, against, listed), file)
    return runs


def picture_name(sources: Sequence[str | Path]) -> Path:
    """Return the default file of a picture, in the current folder."""
    return Path(f"{_name(sources[0])}.svg" if len(sources) == 1 else "curves.svg")


def _name(source: str | Path) -> str:
    return Path(os.path.normpath(to_path("sources", source).absolute())).name
