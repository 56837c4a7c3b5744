"""Reads JSON files as records: lines, an array, or one value that holds the records, as data frames and APIs write it.

{"text": "a"}⏎{"text": "b"}                   lines, or values one after another
[{"text": "a"}, {"text": "b"}]                an array, read piece by piece
{"reviews": [{"text": "a"}, ...], "page": 1}  a wrapper: its longest list of records
{"text": {"0": "a"}, "stars": {"0": 5}}       columns, as pandas writes them by default
{"columns": [...], "data": [[...], ...]}      columns and rows, pandas' orientation "split"
{"tt01": {"text": "a"}, ...}                  objects by their id
"""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from reviewgen.data.columns import USUAL_NAMES
from reviewgen.data.documents import open_lines
from reviewgen.data.tables import batched
from reviewgen.errors import DataError, first_line

_HEAD = 1 << 22  # characters of the first line that is judged by


def is_json_lines(path: Path) -> bool:
    """Return whether the first line of a file of UTF-8 that is not blank is a JSON object or string, and another one follows."""
    with path.open(encoding="utf-8") as file:
        lines = (line for line in iter(lambda: file.readline(_HEAD), "") if not line.isspace())
        first, second = next(lines, ""), next(lines, "")
    try:
        return isinstance(json.loads(first), dict | str) and bool(second or path.suffix in (".jsonl", ".ndjson"))
    except (ValueError, RecursionError):
        return False


def read_json_lines(path: Path, name: str, start: int, stop: int, columns: object = None) -> Iterator[list[Any]]:
    """Yield the values of the lines of a file of UTF-8 between two edges; see ``find_edges``.

    Raises:
        DataError: A line is not JSON, or neither an object nor a string.
    """
    with open_lines(path, start, stop) as file:
        yield from batched(_parse(line, number, path, name, start) for number, line in enumerate(file, 1) if not line.isspace())


def _parse(line: str, number: int, path: Path, name: str, start: int) -> Any:
    try:
        value = json.loads(line)
        if isinstance(value, dict | str):
            return value
        problem = f"is a {type(value).__name__}, not an object"
    except (ValueError, RecursionError) as error:
        problem = f"is not JSON ({first_line(error)})"
    with path.open("rb") as file:
        number += file.read(start).count(b"\n")
    raise DataError(f"{name} cannot be read: line {number:,} {problem}.") from None


def read_json(path: Path, name: str, columns: object = None) -> Iterator[list[Any]]:
    """Yield the records of any other JSON file.

    Raises:
        DataError: It is not JSON, or holds no records.
    """
    with path.open("rb") as file:
        is_array = next((byte for byte in iter(lambda: file.read(1), b"") if not byte.isspace()), b"") == b"["
    try:
        yield from batched(_read_array(path, name) if is_array else _find_records(_read_values(path), name))
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{name} cannot be read: it is not JSON ({first_line(error)}).") from None


def _read_array(path: Path, name: str) -> Iterator[Any]:
    import ijson

    number = 0
    with path.open("rb") as file:
        try:
            for record in ijson.items(file, "item", use_float=True):
                number += 1
                yield record
        except RecursionError:
            raise DataError(f"{name} cannot be read: record {number + 1:,} is nested too deeply.") from None
        except ijson.JSONError as error:
            place = f"after record {number:,}" if number else "in the first record"
            text = str(error)
            reason = next(
                (f"JSON has no {word}; write null instead" for word in ("NaN", "Infinity") if word in text), first_line(error)
            )
            raise DataError(f"{name} cannot be read: JSON parse error {place}: {reason}.") from None


def _read_values(path: Path) -> list[Any]:
    """Return the values of a file, which stand one after another."""
    text, values, decoder = path.read_text(encoding="utf-8").strip(), [], json.JSONDecoder()
    start = 0
    while start < len(text):
        value, start = decoder.raw_decode(text, start)
        values.append(value)
        start = next((place for place in range(start, len(text)) if not text[place].isspace()), len(text))
    return values


def _find_records(values: list[Any], name: str) -> list[Any]:
    """Return the records of the values of a file.

    Raises:
        DataError: There are several lists of records, or columns of several lengths.
    """
    if len(values) != 1 or not isinstance(values[0], Mapping):
        return values
    value = values[0]
    inner = list(value.values())
    if isinstance(value.get("columns"), list) and isinstance(value.get("data"), list):
        return [_row(value["columns"], row, name) for row in value["data"]]
    if any(isinstance(each, str) for each in inner):
        is_record = any(str(key).lower() in USUAL_NAMES for key in value) or not all(isinstance(each, str) for each in inner)
        return values if is_record or len(inner) < 3 else inner
    lists = {key: each for key, each in value.items() if isinstance(each, list) and each}
    records = [key for key, each in lists.items() if isinstance(each[0], Mapping)]
    if len(records) > 1:
        raise DataError(f"{name} has several lists of records: {', '.join(map(str, records))}. Save the one to read as a file.")
    if records:
        return list(lists[records[0]])
    if lists and len(lists) == len(inner) > 1:
        rows = max(map(len, inner))
        return [
            _row(list(value), [each[number] if number < len(each) else None for each in inner], name) for number in range(rows)
        ]
    if len(lists) == 1 and isinstance(next(iter(lists.values()))[0], str):
        return next(iter(lists.values()))
    if len(inner) == 1 and isinstance(inner[0], Mapping) and any(isinstance(each, list | Mapping) for each in inner[0].values()):
        return _find_records(inner, name)  # as {"data": {"reviews": [...]}}
    if inner and all(isinstance(each, Mapping) for each in inner):
        return _from_columns(value) if _are_columns(value) else inner
    return values


def _row(columns: Sequence[str], row: Sequence[Any], name: str) -> dict[str, Any]:
    if len(columns) != len(row):
        raise DataError(f"{name} cannot be read: a row has {len(row)} values, and there are {len(columns)} columns: {row!r:.60}.")
    return dict(zip(columns, row, strict=True))


def _are_columns(value: Mapping[str, Mapping[str, Any]]) -> bool:
    """Return whether a mapping of mappings has columns, as pandas writes them, rather than objects by their ids."""
    keys = {str(key).lower() for each in value.values() for key in each}
    if all(key.isdecimal() for key in keys) or keys.intersection(USUAL_NAMES):
        return not keys.intersection(USUAL_NAMES)
    return any(str(key).lower() in USUAL_NAMES for key in value)


def _from_columns(value: Mapping[str, Mapping[Any, Any]]) -> list[Any]:
    keys = dict.fromkeys(itertools.chain.from_iterable(value.values()))
    return [{column: cells.get(key) for column, cells in value.items()} for key in keys]
