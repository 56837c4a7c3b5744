"""Reads the lines of a file with a limit, so that a line of gigabytes is refused and not held in memory."""

from collections.abc import Iterator
from io import TextIOBase

from reviewgen.errors import DataError

__all__ = ["MAX_TEXT_CHARACTERS", "read_lines", "too_long"]

MAX_TEXT_CHARACTERS = 10_000_000
"""The default of ``max_text_characters``."""


def read_lines(stream: TextIOBase, name: str, limit: int) -> Iterator[str]:
    """Yield the lines of a text file, with their ends.

    Args:
        stream: The file.
        name: The user's file, for messages.
        limit: The maximum number of characters of a line, without its end.

    Raises:
        DataError: A line is longer.
    """
    number = 0
    while line := stream.readline(limit + 2):
        number += 1
        if len(line) > limit and len(line.rstrip("\r\n")) > limit:
            raise too_long(f"Line {number:,} of {name}", limit)
        yield line


def too_long(what: str, limit: int) -> DataError:
    """Return the error for a text of more characters than allowed."""
    return DataError(
        f"{what} has more than {limit:,} characters, the limit for one text. Cut it into texts, or raise the limit with "
        "--max-text-characters (max_text_characters in Python)."
    )
