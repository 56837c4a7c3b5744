"""The progress of a training: a bar on a terminal, on standard error; a figure in a notebook; nothing where output is neither."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, Task, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from reviewgen.compiled.notice import compiling_notice
from reviewgen.processes import process_state
from reviewgen.runs.notebook import NotebookView
from reviewgen.runs.training_run import TrainingRun
from reviewgen.training import Report

_SECONDS = 0.2  # between two updates of the bar


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
    percentage = TextColumn("{task.percentage:3.0f}%")
    columns = (
        TextColumn("Training"),
        BarColumn(),
        percentage,
        TimeElapsedColumn(Column(min_width=7)),
        _Facts("{task.fields[facts]}", markup=False),
    )
    shown = 0.0
    with Progress(
        *columns, console=console, transient=True, disable=console.quiet or not (console.is_jupyter or console.file.isatty())
    ) as bar:
        task = bar.add_task("", total=1.0, facts="")

        def show(report: Report) -> None:
            nonlocal shown
            if abs(report.seconds - shown) > _SECONDS:  # each model of a blend starts from zero
                bar.update(task, completed=report.progress, facts=_describe(report))
                shown = report.seconds

        with compiling_notice.silenced():
            yield show


class _Facts(TextColumn):
    """The facts of the last step (nats are per token); or that functions are being compiled, during which there are no steps."""

    def render(self, task: Task) -> Text:
        """Return the text of the column."""
        return Text("compiling (once)") if compiling_notice.is_compiling else super().render(task)


def _describe(report: Report) -> str:
    speed = f"{report.tokens / max(report.seconds, 1e-9):,.0f} tokens/s"
    loss = report.nats_per_token
    part = "" if report.part is None else f"{report.part}, "
    return f"{part}step {report.step:,}, epoch {report.epoch + 1}, {speed}" + ("" if loss is None else f", {loss:.3f} nats")
