"""Finds where rows of a csv file end, in one pass over its bytes with the rules of Python's ``csv`` module.

A line break inside quotes ends no row, and whether a quote opens or closes depends on all quotes before it. So the file is read
from its beginning; of a file that breaks the rules, nothing is said.
"""

from pathlib import Path

import numpy as np

from reviewgen.compiled import compiled

__all__ = ["find_row_ends"]

_CHUNK = 1 << 22  # bytes
_STARTS, _PLAIN, _QUOTED, _CLOSED = 0, 1, 2, 3  # a field starts, without quotes, in quotes, after a quote in quotes
_QUOTE, _NEWLINE, _RETURN = ord('"'), ord("\n"), ord("\r")


def find_row_ends(path: Path, separator: str, edges: list[int]) -> list[tuple[int, int]] | None:
    """Return the first end of a row at or after each of some bytes, with the number of lines up to it.

    None if a quote is never closed, or is followed by something else than a separator or the end of a row.

    Args:
        path: The file, of UTF-8.
        separator: The character between fields.
        edges: The bytes, in order; an end that the file does not have is its last byte.
    """
    ends, place = np.zeros((len(edges), 2), np.int64), np.zeros(5, np.int64)
    wanted = np.array(edges, np.int64)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            if not _scan(np.frombuffer(chunk, np.uint8), ord(separator), wanted, ends, place):
                return None
    state, position, lines, count, _ = place.tolist()
    if state == _QUOTED:
        return None
    return [(int(end), int(line)) for end, line in ends[:count]] + [(position, lines)] * (len(edges) - count)


@compiled
def _scan(chunk, separator, wanted, ends, place):
    """Read on in a file; return whether it follows the rules.

    Args:
        chunk: uint8, the next bytes.
        separator: The byte between fields.
        wanted: int64 (N,), the edges.
        ends: int64 (N, 2), filled in: the ends of rows, and the lines up to them.
        place: int64: the state, the byte, the lines so far, the ends found, the byte before.
    """
    state, position, lines, count, before = place[0], place[1], place[2], place[3], place[4]
    for byte in chunk:
        position += 1
        is_end = byte in (_NEWLINE, _RETURN)
        lines += is_end and not (byte == _NEWLINE and before == _RETURN)
        before = byte
        if state == _QUOTED:
            state = _CLOSED if byte == _QUOTE else _QUOTED
        elif byte == _QUOTE and state != _PLAIN:
            state = _QUOTED
        elif byte == separator or is_end:
            state = _STARTS
            while byte == _NEWLINE and count < len(wanted) and wanted[count] <= position:
                ends[count, 0], ends[count, 1] = position, lines
                count += 1
        elif state == _CLOSED:
            return False
        else:
            state = _PLAIN
    place[0], place[1], place[2], place[3], place[4] = state, position, lines, count, before
    return True
