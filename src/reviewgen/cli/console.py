"""What a command prints: results to standard output, progress and notes to standard error."""

import json
import sys
from typing import Any

from rich.console import Console

__all__ = ["error", "note", "notes", "print_json", "shorten"]

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


def shorten(text: str, width: int = 100) -> str:
    """Return a text on one line, cut to a width."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 3] + "..."
