"""The progress of a training: a bar on a terminal, on standard error; a figure in a notebook; nothing where output is neither.

The figure is drawn with the notebook's own display (IPython, which is there in every notebook) as inline SVG, and stays when the
training has ended. Its curves come from the run's record, so no update waits for the device.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, Task, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from reviewgen.compiled.notice import compiling_notice
from reviewgen.processes import process_state
from reviewgen.runs.run import TrainingRun
from reviewgen.training import Report
from reviewgen.web.curves import draw_inline
from reviewgen.web.rendering import decimal, duration, render, thousands

_SECONDS = 0.2  # between two updates of the bar
_FIGURE_SECONDS, _FIGURE_SHARE = 0.5, 0.02  # between two updates of a figure, at least; of the time that they may take


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
    """Shows a run as one figure of a notebook's cell, with a bar, bits per character and the learning curve."""

    def __init__(self, run: TrainingRun) -> None:
        self._run = run
        self._handle: Any = None
        self._last: Report | None = None
        self._next_update = 0.0  # of ``time.monotonic``
        self._has_curves = False

    @contextmanager
    def phase(self, text: str) -> Iterator[None]:
        """Show inside the block what is being done."""
        with compiling_notice.silenced():
            self._update(text)
            yield

    @contextmanager
    def training(self) -> Iterator[Callable[[Report], None]]:
        """Show the training inside the block; the value is the function that takes the report of each step."""
        self._has_curves = True
        with self.phase("Training ..."):
            yield self._show

    def finish(self) -> None:
        """Show the result."""
        held_out = self._run.evaluation
        result = "Interrupted" if self._run.is_interrupted else "Trained"
        bits = "" if held_out is None else f": {decimal(held_out.bits_per_character)} bits per character of held-out text"
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
        curves = self._run.curves if self._has_curves else {}
        evaluations = {name: each.evaluations for name, each in curves.items()}
        bits = {name: each[-1].get("bits_per_character") for name, each in evaluations.items() if each and not is_over}
        figure = shown.HTML(
            render(
                "runs/training.html",
                preset=self._run.preset,
                status=status,
                progress=None if is_over or self._last is None else self._last.progress,
                facts="" if self._last is None else _describe(self._last),
                bits=[(name, decimal(value)) for name, value in bits.items()],
                chart=draw_inline(evaluations, {name: each.curve() for name, each in curves.items()}, "Bits per character"),
            )
        )
        if self._handle is None:
            self._handle = shown.display(figure, display_id=True)
        else:
            self._handle.update(figure)
        end = time.monotonic()
        self._next_update = end + max(_FIGURE_SECONDS, (end - start) / _FIGURE_SHARE)


def open_view(run: TrainingRun, is_shown: bool) -> TerminalView | NotebookView:
    """Return what shows a run if ``is_shown``, on a terminal or in a notebook, and in the main process of a run."""
    console = open_console(is_shown)
    return NotebookView(run) if console.is_jupyter else TerminalView(console)


def open_console(is_shown: bool) -> Console:
    """Return a console that prints only if ``is_shown``, on a terminal or in a notebook, and in the main process of a run."""
    console = Console(stderr=True, highlight=False)
    has_viewer = console.is_jupyter or console.file.isatty()
    if is_shown and has_viewer and process_state().is_main_process:
        return console
    return Console(stderr=True, quiet=True, force_jupyter=False)  # in a notebook a quiet one would still show its bars


@contextmanager
def training_bar(console: Console) -> Iterator[Callable[[Report], None]]:
    """Show a progress bar inside the block; yield the function that updates it with a step's report."""
    elapsed, facts = TimeElapsedColumn(Column(min_width=7)), _Facts("{task.fields[facts]}", markup=False)
    columns = TextColumn("Training"), BarColumn(), TextColumn("{task.percentage:3.0f}%"), elapsed, facts
    is_hidden = console.quiet or not (console.is_jupyter or console.file.isatty())
    shown = 0.0
    with Progress(*columns, console=console, transient=True, disable=is_hidden) as bar, compiling_notice.silenced():
        task = bar.add_task("", total=1.0, facts="")

        def show(report: Report) -> None:
            nonlocal shown
            if abs(report.seconds - shown) > _SECONDS:  # each model of a blend starts from zero
                loss = "" if is_hidden or report.loss is None else f", {report.nats_per_token:.3f} nats"
                bar.update(task, completed=report.progress, facts=_describe(report) + loss)
                shown = report.seconds

        yield show


class _Facts(TextColumn):
    """The facts of the last step (nats are per token); or that functions are being compiled, during which there are no steps."""

    def render(self, task: Task) -> Text:
        """Return the text of the column."""
        return Text("compiling (once)") if compiling_notice.is_compiling else super().render(task)


def _describe(report: Report) -> str:
    """Return the facts of a step."""
    part = "" if report.part is None else f"{report.part}, "
    is_counted = report.loss is None and report.learning_rate is None
    steps = f"{thousands(report.step)} texts" if is_counted else f"step {thousands(report.step)}, epoch {report.epoch + 1}"
    speed = f"{thousands(report.tokens / max(report.seconds, 1e-9))} tokens a second"
    return f"{part}{steps}, {duration(report.seconds)}, {speed}, {report.device}"
