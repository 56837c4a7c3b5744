"""Console output: results to standard output, progress and notes to standard error."""

import json
import logging
import sys
from typing import Any

from rich.console import Console

__all__ = ["error", "note", "notes", "print_json", "show_log"]

notes = Console(stderr=True, highlight=False, soft_wrap=True)


def note(text: str, style: str | None = None) -> None:
    """Print a note to standard error."""
    notes.print(text, style=style, markup=False)


def error(text: str) -> None:
    """Print an error message to standard error."""
    notes.print("error: " + text, style="red", markup=False)


def print_json(value: Any) -> None:
    """Print the result of a command as one JSON object."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


class _NoteHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage())


def show_log() -> None:
    """Print the log messages of the library as notes."""
    logger = logging.getLogger("reviewgen")
    logger.addHandler(_NoteHandler())
    logger.setLevel(logging.INFO)
