"""The output of commands: results go to standard output, progress and notes to standard error.

Strings from outside (names of files and columns, texts, messages of servers) may contain escape
sequences that move the cursor, set the title of a terminal or hide text. So all output passes
through this module, which prints control characters as escapes. Generated texts keep their line
breaks; if standard output is not a terminal, they are written unchanged.
"""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.status import Status
from rich.text import Text

from reviewgen.config.bounded import to_json
from reviewgen.errors import Detail, counted, escape_controls, per_second
from reviewgen.interrupts import INTERRUPTED, raise_on_interrupt
from reviewgen.storage import to_path

if TYPE_CHECKING:
    from rich.table import Table

    from reviewgen.tables.table import WrittenTexts

_LINE_SECONDS = 60.0  # min time between two lines of progress if there is no terminal
_MIN_WIDTH = 20  # min number of characters of a line on a terminal
_FILE_WIDTH = 120  # min width of a table without a box in a file, in characters


class TerminalConsole(Console):
    """A console of rich that prints the control characters of texts as escapes. Rich's own escape
    sequences, such as those for colours, remain.

    Markup in a string, such as ``[red]`` or ``:smile:``, has no effect.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)
        self.is_verbose = False  # whether details are printed
        self.width = max(self.width, _MIN_WIDTH)  # if COLUMNS is 0, rich prints nothing

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield the segments of rich, with the control characters of their texts escaped."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(escape_controls(segment.text, "\n"), segment.style)

    def status(self, status: RenderableType, **options: Any) -> Status:
        """Return a context manager that shows ``status`` while its block runs. If the output is not
        a terminal, nothing is shown, even if a variable such as FORCE_COLOR makes rich believe that
        the output is a terminal.
        """
        console = self if self.file.isatty() else Console(quiet=True)
        return Status(
            Text(status) if isinstance(status, str) else status, console=console, **options
        )


notes = TerminalConsole(stderr=True, soft_wrap=True)


def note(text: str, style: str | None = None) -> None:
    """Print a one-line note to standard error. A terminal shows the note wrapped between words. A
    ``Detail`` is printed only with ``--verbose``.
    """
    if isinstance(text, Detail) and not notes.is_verbose:
        return
    notes.print(escape_controls(text), style=style, soft_wrap=not notes.file.isatty())


def echo(text: str = "") -> None:
    """Print a line of a result to standard output."""
    sys.stdout.write(escape_controls(text) + "\n")


def echo_text(text: str, end: str = "\n") -> None:
    """Print a generated text, or a part of one, to standard output. Its control characters are
    escaped on a terminal only.
    """
    sys.stdout.write((escape_controls(text, "\n\t") if sys.stdout.isatty() else text) + end)


class Result(NamedTuple):
    """The result of a command: its facts, printed with ``--json`` as one JSON object; the lines and
    tables that are printed otherwise; and its exit status.

    Facts may contain dataclasses. An infinite number is printed as null.
    """

    facts: Any
    lines: Iterable[RenderableType] = ()
    status: int = 0


def show(facts: Any, as_json: bool, lines: Iterable[RenderableType] = ()) -> None:
    """Print the result of a command, in the main process only: its facts as one JSON object, or its
    lines and tables.
    """
    if notes.quiet:
        return
    if as_json:
        # a pipe on Windows is often not UTF-8
        is_utf8 = (sys.stdout.encoding or "utf-8").lower() in ("utf-8", "utf8")
        text = json.dumps(to_json(facts), indent=2, ensure_ascii=not is_utf8, allow_nan=False)
        if sys.stdout.isatty():
            text = escape_controls(text, "\n", json.dumps)
        sys.stdout.write(text + "\n")
        return
    console = TerminalConsole()
    for line in lines:
        if isinstance(line, str):
            echo(line)
            continue
        # A table without a box (its attribute ``box`` is None) that goes to a file is made wide
        # enough, so that no column is cut off. Other things to print have no such attribute.
        if getattr(line, "box", line) is None and not sys.stdout.isatty():
            console.width = max(console.width, _FILE_WIDTH)
        console.print(line)


def make_table(
    *columns: str,
    rows: Iterable[Iterable[Any] | None] = (),
    left: Iterable[str] = (),
    is_boxed: bool = True,
    **options: Any,
) -> "Table":
    """Return a table of rich.

    Args:
        columns: The headers of the columns.
        rows: The cells of each row. A row that is None draws a line.
        left: The headers of the columns that hold texts. They are aligned to the left, and may be
            folded. The other columns hold numbers, and are aligned to the right.
        is_boxed: Whether a line is drawn below the headers.
        options: Other options of rich's ``Table``.
    """
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD if is_boxed else None, pad_edge=False, **options)
    for column in columns:
        is_text = column in left
        table.add_column(
            column, justify="left" if is_text else "right", no_wrap=not is_text, overflow="fold"
        )
    for row in rows:
        if row is None:
            table.add_section()
        else:
            table.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    return table


def describe_written(
    written: "WrittenTexts", started: float, lines: Iterable[str], status: int = 0
) -> Result:
    """Return the result of a command that has written a table of texts."""
    files = counted(len(written.files), "file")
    texts = counted(written.texts, "text")
    seconds = time.monotonic() - started
    facts = {
        "out": str(written.out),
        "texts": written.texts,
        **written.summary,
        "files": list(written.files),
        "is_new": written.is_new,
        "seconds": round(seconds, 3),
    }
    if written.is_new:
        are = "is" if written.texts == 1 else "are"
        rate = "resumed" if written.is_resumed else per_second(written.texts, seconds)
        line = f"{texts} {are} in {written.out} ({files}, {seconds:.1f} s, {rate})."
    else:
        line = f"{written.out} is complete already: {texts}, {files}."
    return Result(facts, [*lines, line], status)


class _NoteHandler(logging.Handler):
    """Prints each log message as a note."""

    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage())


_handler = _NoteHandler()


def show_log() -> None:
    """Print the log messages of the library as notes."""
    logger = logging.getLogger("reviewgen")
    logger.addHandler(_handler)
    logger.setLevel(logging.INFO)


@dataclass
class _Status:
    """A line that says what a command is doing. While functions are compiled, it says that instead;
    rich asks for the line at each refresh.
    """

    text: str

    def __rich__(self) -> Text:
        from reviewgen.compiled.jit import compiling_notice  # imports numba

        is_compiling = compiling_notice.is_compiling
        return Text("Compiling for the first use ..." if is_compiling else self.text)


@contextmanager
def show_status(text: str) -> Iterator[Callable[[str], None]]:
    """Show ``text`` while the block of this context manager runs. Yields a function that replaces
    the text.
    """
    from reviewgen.compiled.jit import compiling_notice  # imports numba

    raise_on_interrupt()
    with compiling_notice.silenced(), notes.status(_Status(text)) as status:
        yield lambda now: status.update(_Status(now))


def refuse_outputs(*, overwrite: bool, html: Path | None = None, plot: Path | None = None) -> None:
    """Check, before any work, that the page and the chart that the user asks for can be saved. The
    errors are those of ``refuse_file`` and ``refuse_chart``.
    """
    if plot is not None:
        from reviewgen.web.charts import refuse_chart

        refuse_chart(plot, overwrite)
    if html is not None:
        from reviewgen.web.rendering import refuse_file

        refuse_file(html, overwrite=overwrite)


@contextmanager
def exit_resumable(out: str | Path) -> Iterator[None]:
    """If the block of this context manager is interrupted, tell the user what is kept and how to
    resume, and end the command.
    """
    try:
        yield
    except KeyboardInterrupt:
        if "://" in str(out):
            what = "The same command resumes from what is finished"
        else:
            path = to_path("out", out)
            partial = path.with_name(f"{path.name}.partial")
            what = (
                f"The same command resumes from {partial}"
                if partial.exists()
                else "Nothing was finished yet, and nothing is kept"
            )
        note(f"Interrupted. {what}.")
        sys.exit(INTERRUPTED)


@contextmanager
def progress() -> Iterator[Callable[[str, int, int | None], None]]:
    """Show progress while the block of this context manager runs: a bar on a terminal, elsewhere a
    line each minute. Yields a function to call with (stage, done, total).
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    raise_on_interrupt()
    stage_column = TextColumn("{task.description}", markup=False)
    rate_column = TextColumn("{task.fields[rate]}")
    columns = (stage_column, BarColumn(), MofNCompleteColumn(), rate_column, TimeRemainingColumn())
    is_shown = notes.file.isatty() and not notes.quiet
    with Progress(*columns, console=notes, transient=True, disable=not is_shown) as shown:
        task_id = shown.add_task("Starting", total=None, rate="")
        (task,) = shown.tasks  # the task that was just added
        line_printed_at = time.monotonic()

        def report(stage: str, done: int, total: int | None) -> None:
            """Show that ``done`` of ``total`` texts are finished. A new stage restarts the bar."""
            nonlocal line_printed_at
            if stage != task.description:
                shown.reset(task_id, description=stage, completed=done)
            rate = f"{task.speed:,.0f} texts/s" if task.speed else ""
            shown.update(task_id, completed=done, total=total, rate=rate)
            if not is_shown and time.monotonic() - line_printed_at > _LINE_SECONDS:
                line_printed_at = time.monotonic()
                line = f"{stage}: {done:,}"
                if total is not None:
                    line += f" of {total:,}"
                if rate:
                    line += f", {rate}"
                if total is not None and task.time_remaining is not None:
                    line += f", {task.time_remaining / 60:,.0f} min left"
                note(line)

        yield report


class FinishedResults(list[Any]):
    """The finished results of a command, which Ctrl-C may cut short.

    Attributes:
        status: The exit status: 0, or INTERRUPTED after an interrupt.
    """

    status = 0


@contextmanager
def keep_on_interrupt(hint: str) -> Iterator[FinishedResults]:
    """Keep finished results after an interrupt. Yields a list, to which the block of this context
    manager adds each result. An interrupt ends the block, with a note that ends with ``hint``, but
    not the command.
    """
    finished = FinishedResults()
    try:
        yield finished
    except KeyboardInterrupt:
        note(f"Interrupted; {hint}")
        finished.status = INTERRUPTED
