"""What commands print: results to standard output, progress and notes to standard error.

What others have written (names of files and columns, texts, messages of servers) may hold escape
sequences that move the cursor, set the title of a terminal or hide text. All output passes through
here, and control characters are printed as escapes. Generated texts keep their line breaks, and
where standard output is not a terminal they are written as they are.
"""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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

_LINE_SECONDS = 60.0  # between two lines of progress in a file
_MIN_WIDTH = 20  # characters of a line on a terminal, at least
_FILE_WIDTH = 120  # characters of a line in a file, at least


class TerminalConsole(Console):
    """A console of rich that prints control characters of texts as escapes; its own sequences, such
    as colours, remain.

    A string is printed as it is: no ``[red]`` or ``:smile:`` in it means anything.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)
        self.is_verbose = False  # whether details are printed
        self.width = max(self.width, _MIN_WIDTH)  # rich prints nothing at all where COLUMNS is 0

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield the segments of what is printed."""
        for segment in super().render(renderable, options):
            yield (
                segment
                if segment.control
                else Segment(escape_controls(segment.text, "\n"), segment.style)
            )

    def status(self, status: RenderableType, **options: Any) -> Status:
        """Return what shows inside a block what is being done; on a terminal only, whatever the
        environment claims.
        """
        console = self if self.file.isatty() else Console(quiet=True)
        return Status(
            Text(status) if isinstance(status, str) else status, console=console, **options
        )


notes = TerminalConsole(stderr=True, soft_wrap=True)


def note(text: str, style: str | None = None) -> None:
    """Print a note of one line to standard error, on a terminal broken between words; a detail only
    if the user wants it.
    """
    if isinstance(text, Detail) and not notes.is_verbose:
        return
    notes.print(escape_controls(text), style=style, soft_wrap=not notes.file.isatty())


def echo(text: str = "") -> None:
    """Print a line of a result to standard output."""
    sys.stdout.write(escape_controls(text) + "\n")


def echo_text(text: str, end: str = "\n") -> None:
    """Print a generated text, or a piece of one, to standard output; as it is where that is not a
    terminal.
    """
    sys.stdout.write((escape_controls(text, "\n\t") if sys.stdout.isatty() else text) + end)


class Result(NamedTuple):
    """What a command prints: its facts as one JSON object, or lines and tables; and its exit
    status.

    Facts may hold dataclasses; of a number that is infinite, JSON has null.
    """

    facts: Any
    lines: Iterable[RenderableType] = ()
    status: int = 0


def show(facts: Any, as_json: bool, lines: Iterable[RenderableType] = ()) -> None:
    """Print the result of a command in the main process: its facts as one JSON object, or lines and
    tables of rich.
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
        # in a file, no column of a plain table is cut off
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
    """Return a table. Columns of numbers stand to the right; those in ``left`` hold texts, and may
    be folded. A row that is None draws a line.
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
    """Return what is printed on a table of texts."""
    files = counted(len(written.files), "file")
    texts = counted(written.texts, "text")
    seconds = time.monotonic() - started
    are = "is" if written.texts == 1 else "are"
    rate = "resumed" if written.is_resumed else per_second(written.texts, seconds)
    facts = {
        "out": str(written.out),
        "texts": written.texts,
        **written.summary,
        "files": list(written.files),
    }
    new = f"{texts} {are} in {written.out} ({files}, {seconds:.1f} s, {rate})."
    line = new if written.is_new else f"{written.out} is complete already: {texts}, {files}."
    return Result(
        facts | {"is_new": written.is_new, "seconds": round(seconds, 3)}, [*lines, line], status
    )


class _NoteHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage())


_handler = _NoteHandler()


def show_log() -> None:
    """Print the log messages of the library as notes."""
    logger = logging.getLogger("reviewgen")
    logger.addHandler(_handler)
    logger.setLevel(logging.INFO)


@contextmanager
def show_status(text: str) -> Iterator[Callable[[str], None]]:
    """Show inside a block what is being done; yield a function that shows something else."""
    raise_on_interrupt()
    with notes.status(text) as status:
        yield lambda now: status.update(Text(now))


def refuse_outputs(*, overwrite: bool, html: Path | None = None, plot: Path | None = None) -> None:
    """Raise before any work if a page or a chart that is asked for cannot be saved; see
    ``refuse_file`` and ``refuse_chart``.
    """
    if plot is not None:
        from reviewgen.web.charts import refuse_chart

        refuse_chart(plot, overwrite)
    if html is not None:
        from reviewgen.web.rendering import refuse_file

        refuse_file(html, overwrite=overwrite)


@contextmanager
def exit_resumable(out: str | Path) -> Iterator[None]:
    """Say after an interrupt what is kept, and end the command."""
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
    """Show a progress bar on a terminal, elsewhere a line each minute; yield ``progress(stage,
    done, total)``, which moves it.
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
        number = shown.add_task("Starting", total=None, rate="")
        (task,) = shown.tasks
        last_line = time.monotonic()

        def move(stage: str, done: int, total: int | None) -> None:
            nonlocal last_line
            if stage != task.description:
                shown.reset(number, description=stage, completed=done)
            rate = f"{task.speed:,.0f} texts/s" if task.speed else ""
            shown.update(number, completed=done, total=total, rate=rate)
            if not is_shown and time.monotonic() - last_line > _LINE_SECONDS:
                last_line = time.monotonic()
                line = f"{stage}: {done:,}"
                if total is not None:
                    line += f" of {total:,}"
                if rate:
                    line += f", {rate}"
                if total is not None and task.time_remaining is not None:
                    line += f", {task.time_remaining / 60:,.0f} min left"
                note(line)

        yield move


class FinishedResults(list[Any]):
    """The finished results of a command that Ctrl-C cuts short.

    Attributes:
        status: The exit status: 0, or that of an interrupted command.
    """

    status = 0


@contextmanager
def keep_on_interrupt(hint: str) -> Iterator[FinishedResults]:
    """Let an interrupt end the block with a note; yield the list of what is finished, which is
    kept.
    """
    finished = FinishedResults()
    try:
        yield finished
    except KeyboardInterrupt:
        note(f"Interrupted; {hint}")
        finished.status = INTERRUPTED
