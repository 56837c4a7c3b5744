"""Console output: results to standard output, progress and notes to standard error.

What others have written (names of files and columns, texts, messages of servers) may hold escape sequences that move the cursor,
set the title of a terminal or hide text. All output passes through here, and control characters are printed as escapes. Generated
texts keep their line breaks, and where standard output is not a terminal they are written as they are.
"""

import io
import json
import logging
import re
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.status import Status
from rich.text import Text

from reviewgen.errors import shortened

_MIN_WIDTH = 20  # characters
_LINE = 490  # characters of a line about wrong arguments

_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0 and C1, which begin escape sequences
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"  # line separators; marks that change the direction of writing
    "\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff"  # characters that nothing shows
    "\ud800-\udfff]"  # bytes of file names that are not text
)


def escape(text: str, keep: str = "") -> str:
    r"""Return a text with control characters as escapes, other than those in ``keep``.

    >>> print(escape("a\x1b[31mb\n"))
    a\x1b[31mb\n
    """
    return _CONTROL.sub(lambda found: found[0] if found[0] in keep else ascii(found[0])[1:-1], text)


class TerminalConsole(Console):
    """A console of rich that prints control characters of texts as escapes; its own sequences, such as colours, remain.

    A string is printed as it is: no ``[red]`` or ``:smile:`` in it means anything.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)
        if self.width < _MIN_WIDTH:  # rich prints nothing at all where COLUMNS is 0
            self.width = _MIN_WIDTH

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of what is printed."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(escape(segment.text, "\n"), segment.style)

    def status(self, status: RenderableType, **options: Any) -> Status:
        """Return what shows inside a block what is being done; on a terminal only, whatever the environment claims."""
        return _Status(status, console=self if self.file.isatty() else Console(quiet=True), **options)


class _Status(Status):
    """A status of rich whose strings are not markup: they name files, models and what else the user has given."""

    def __init__(self, status: RenderableType, **options: Any) -> None:
        super().__init__(_plain(status), **options)

    def update(self, status: RenderableType | None = None, **options: Any) -> None:
        """Show another status."""
        super().update(None if status is None else _plain(status), **options)


def _plain(status: RenderableType) -> RenderableType:
    return Text(status) if isinstance(status, str) else status


notes = TerminalConsole(stderr=True, highlight=False, soft_wrap=True)


def note(text: str, style: str | None = None) -> None:
    """Print a note of one line to standard error."""
    _print_note(escape(text), style)


def error(text: str) -> None:
    """Print an error message to standard error."""
    _print_note("error: " + escape(text), "red")


def _print_note(text: str, style: str | None) -> None:
    """Print a line to standard error; a terminal gets it broken between words, which it would not do itself."""
    notes.print(text, style=style, soft_wrap=not notes.file.isatty())


def print_usage_error(problem: Any) -> None:
    """Print what typer says about an argument, which it quotes as it was given."""
    said = io.StringIO()
    problem.show(file=said)
    for line in said.getvalue().splitlines():
        sys.stderr.write(escape(shortened(line, _LINE)) + "\n")


def echo(text: str = "") -> None:
    """Print a line of a result to standard output."""
    sys.stdout.write(escape(text) + "\n")


def echo_text(text: str, end: str = "\n") -> None:
    """Print a generated text, or a piece of one, to standard output; as it is where that is not a terminal."""
    sys.stdout.write((escape(text, "\n\t") if sys.stdout.isatty() else text) + end)


def print_json(value: Any) -> None:
    """Print the result of a command as one JSON object."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    if sys.stdout.isatty():
        text = _CONTROL.sub(lambda found: found[0] if found[0] == "\n" else json.dumps(found[0])[1:-1], text)
    sys.stdout.write(text + "\n")


class _NoteHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage())


_handler = _NoteHandler()


def show_warnings() -> None:
    """Print the warnings of the library as notes."""
    logging.getLogger("reviewgen").addHandler(_handler)


def show_log() -> None:
    """Print all log messages of the library as notes."""
    show_warnings()
    logging.getLogger("reviewgen").setLevel(logging.INFO)
