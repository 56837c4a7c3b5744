"""What a command prints: results to standard output, progress and notes to standard error."""

import json
import logging
import sys
from typing import Any

from rich.console import Console

__all__ = ["error", "note", "notes", "print_json", "show_log"]

notes = Console(stderr=True, highlight=False, soft_wrap=True)


def note(text: str, style: str | None = None) -> None:
    """Print a line for the person at the terminal."""
    notes.print(text, style=style, markup=False)


def error(text: str) -> None:
    """Print why a command failed."""
    notes.print("error: " + text, style="red", markup=False)


def print_json(value: Any) -> None:
    """Print one JSON object as a command's result."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


class _Notes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage())


def show_log() -> None:
    """Show what the library logs as notes."""
    logger = logging.getLogger("reviewgen")
    logger.addHandler(_Notes())
    logger.setLevel(logging.INFO)
