"""Reads files of JSON lines, an object a line, or a span of one; each error names the line. Knows no columns.

Other JSON files, such as one array or an object over several lines, are read by ``json_records``.
"""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from reviewgen.config import MAX_VALUES
from reviewgen.data.lines import MAX_TEXT_CHARACTERS, read_lines
from reviewgen.data.spans import Span, find_lines, open_lines
from reviewgen.errors import DataError

__all__ = ["is_json_lines", "read_objects"]

_HEAD = 1 << 22  # characters of the first line that is judged by
_OTHERS = 1 << 20  # characters of a line besides the text
_ESCAPE = 6  # characters of one that is escaped, as in \\u00e9


def is_json_lines(path: Path) -> bool:
    """Return whether the first line of a file of UTF-8 that is not blank is a JSON object."""
    with path.open(encoding="utf-8") as file:
        line = next((line for line in islice(iter(lambda: file.readline(_HEAD), ""), 1000) if not line.isspace()), "")
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def read_objects(path: Path, name: str, limit: int = MAX_TEXT_CHARACTERS, span: Span | None = None) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file of UTF-8, or of a span of it.

    Args:
        path: The file.
        name: The user's file, for messages.
        limit: The maximum number of characters of a text.
        span: See ``spans_of``; None reads the whole file.

    Raises:
        DataError: A line is not an object, or far longer than a text may be.
    """
    start, stop = (0, None) if span is None else find_lines(path, span, "line")
    place = f"{name} (from byte {start:,} on)" if start else name
    with open_lines(path, start, stop) as file:
        for number, line in enumerate(read_lines(file, place, _ESCAPE * limit + _OTHERS), 1):
            if not line.isspace():
                yield _parse(line, number, place)


def _parse(line: str, number: int, place: str) -> dict[str, Any]:
    if len(line) > MAX_VALUES and sum(map(line.count, ",[{")) > MAX_VALUES:  # they take far more memory than their text
        raise DataError(f"{place} cannot be read: line {number:,} has more than {MAX_VALUES:,} values.")
    try:
        value = json.loads(line)
    except ValueError as error:
        cause = f"{error.msg}, character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else "a number is too long"
        raise DataError(f"{place} cannot be read: line {number:,} is not JSON ({cause}).") from None
    except RecursionError:
        raise DataError(f"{place} cannot be read: line {number:,} is nested too deeply.") from None
    if not isinstance(value, dict):
        raise DataError(f"{place} cannot be read: line {number:,} is not a JSON object, as the first line is.")
    return value
