"""How a training is shown while it runs: a bar on a terminal, a figure in a notebook.

The bar is on standard error. The figure is inline SVG, shown by IPython, which every notebook has;
it stays when the training has ended. Its curves come from the run's record, so no update of the
figure waits for the device.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, Task, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from reviewgen.compiled.jit import compiling_notice
from reviewgen.processes import process_state
from reviewgen.training.report import Report
from reviewgen.web.curves import LearningCurves, draw_inline
from reviewgen.web.rendering import decimal, duration, render, thousands

_SECONDS = 0.2  # minimum time between two updates of the bar
_BAR_WIDTH = 10  # characters
_DONE = 0.999  # maximum share of the bar that is filled during the training
_FIGURE_SECONDS = 0.5  # minimum time between two updates of a figure
_FIGURE_SHARE = 0.02  # maximum share of the time that the updates of a figure take


class TerminalView:
    """Shows a bar while a training runs, and nothing afterwards."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def phase(self, text: str) -> AbstractContextManager[object]:
        """Return a context manager that shows ``text`` while its block runs."""
        return self._console.status(text)

    def training(self) -> AbstractContextManager[Callable[[Report], None]]:
        """Return a context manager that shows a bar while its block trains; see
        ``training_bar``.
        """
        return training_bar(self._console)

    def finish(self) -> None:
        """Show nothing."""


class NotebookView:
    """Shows a run in the output of a notebook's cell: a bar, the bits per character and the
    learning curve, in one figure.
    """

    def __init__(self, run: Any) -> None:
        self._run = run
        self._handle: Any = None
        self._last: Report | None = None
        self._next_update = 0.0  # not before this value of ``time.monotonic``

    @contextmanager
    def phase(self, text: str) -> Iterator[None]:
        """Show ``text`` while the block of this context manager runs."""
        with compiling_notice.silenced():
            self._update(text)
            yield

    @contextmanager
    def training(self) -> Iterator[Callable[[Report], None]]:
        """Show the training while the block of this context manager runs. Yields a function to call
        with the report of each step.
        """
        with self.phase("Training ..."):
            yield self._show

    def finish(self) -> None:
        """Show the result."""
        evaluation = self._run.record.evaluation
        result = "Interrupted" if self._run.record.is_interrupted else "Trained"
        if evaluation is not None:
            bits = decimal(evaluation.bits_per_character)
            result += f": {bits} bits per character of held-out text"
        self._update(f"{result}.", is_over=True)

    def _show(self, report: Report) -> None:
        """Take the report of a step, and update the figure if it is time for that."""
        self._last = report
        if time.monotonic() >= self._next_update:
            self._update("Training ...")

    def _update(self, status: str, is_over: bool = False) -> None:
        """Draw the figure, and set the time of the next update."""
        from IPython import display as notebook  # every notebook has it

        display: Any = notebook  # untyped
        start = time.monotonic()
        last = self._last
        preset = self._run.plan.preset
        record = self._run.record
        # before the first step there are no curves; a blend has those of each of its models
        records = {} if last is None else record.parts or {preset: record}
        # the figure shows neither a verdict nor the copy rate of held-out texts
        curves = [
            LearningCurves(name, name, "", None, part.evaluations, part.curve())
            for name, part in records.items()
        ]
        running = [] if is_over else [run for run in curves if run.evaluations]
        bits = [
            (run.name, decimal(run.evaluations[-1].get("bits_per_character"))) for run in running
        ]
        page = render(
            "runs/training.html",
            preset=preset,
            status=status,
            progress=None if is_over or last is None else last.progress,
            facts="" if last is None else _describe(last),
            bits=bits,
            chart=draw_inline(curves),
        )
        figure = display.HTML(page)
        if self._handle is None:
            self._handle = display.display(figure, display_id=True)
        else:
            self._handle.update(figure)
        end = time.monotonic()
        self._next_update = end + max(_FIGURE_SECONDS, (end - start) / _FIGURE_SHARE)


def open_view(run: Any, is_shown: bool) -> TerminalView | NotebookView:
    """Return the view that shows the progress of a run: a figure in a notebook, else a bar.
    Nothing is shown where ``open_console`` prints nothing.
    """
    console = open_console(is_shown)
    return NotebookView(run) if console.is_jupyter else TerminalView(console)


def open_console(is_shown: bool) -> Console:
    """Return a console on standard error. It prints nothing if ``is_shown`` is false, if there is
    neither a terminal nor a notebook, or if this is not the main process.
    """
    console = Console(stderr=True, highlight=False)
    has_viewer = console.is_jupyter or console.file.isatty()
    if is_shown and has_viewer and process_state().is_main_process:
        return console
    # in a notebook, even a quiet console would show its bars
    return Console(stderr=True, quiet=True, force_jupyter=False)


@contextmanager
def training_bar(console: Console) -> Iterator[Callable[[Report], None]]:
    """Show a progress bar while the block of this context manager runs. Yields a function to call
    with the report of each step, which updates the bar.
    """
    elapsed = TimeElapsedColumn(Column(min_width=7))
    facts = _Facts("{task.fields[facts]}", markup=False, table_column=Column())
    columns = BarColumn(_BAR_WIDTH), TextColumn("{task.percentage:3.0f}%"), elapsed, facts
    has_viewer = console.is_jupyter or console.file.isatty()
    is_hidden = console.quiet or not has_viewer
    last_seconds = 0.0  # the seconds of the report of the last update
    with (
        Progress(*columns, console=console, transient=True, disable=is_hidden) as bar,
        compiling_notice.silenced(),
    ):
        task = bar.add_task("", total=1.0, facts="")

        def show(report: Report) -> None:
            nonlocal last_seconds
            # the absolute value, since the seconds of each model of a blend start from zero
            if abs(report.seconds - last_seconds) > _SECONDS:
                loss = []
                # not for a hidden bar, since reading the loss waits for the device
                if report.loss is not None and not is_hidden:
                    loss = [f"{report.nats_per_token:.3f} nats"]  # per token
                # rich stops the clock of a full bar, but a blend trains another model after it
                done = min(report.progress, _DONE)
                bar.update(task, completed=done, facts=_describe(report, loss))
                last_seconds = report.seconds

        yield show


class _Facts(TextColumn):
    """The column with the facts of the last step. While functions are compiled, there are no steps,
    and the column says why.
    """

    def render(self, task: Task) -> Text:
        """Return the text of the column: one line. A narrow terminal cuts it off, so that the other
        columns keep their width.
        """
        text = Text("compiling (once)") if compiling_notice.is_compiling else super().render(task)
        text.no_wrap = True
        text.overflow = "ellipsis"
        return text


def _describe(report: Report, loss: Sequence[str] = ()) -> str:
    """Return the facts of a step, with its loss in words if it is to be shown. The most important
    facts come first, since a narrow terminal cuts off the last ones.
    """
    facts = [] if report.part is None else [report.part]
    if report.epochs is None:  # the model is trained by counting
        facts.append(f"{thousands(report.step)} texts")
    else:
        facts.append(f"epoch {report.epochs:.1f}")
        if report.seconds_per_epoch is not None:  # known from the second step on
            facts.append(f"{duration(report.seconds_per_epoch)} an epoch")
            facts.append(f"{duration(report.seconds_left)} left")
        facts += [*loss, f"step {thousands(report.step)}"]
    speed = f"{thousands(report.tokens / max(report.seconds, 1e-9))} tokens a second"
    return ", ".join([*facts, duration(report.seconds), speed, report.device])
