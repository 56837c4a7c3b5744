"""Reads text and JSON from untrusted files. Size, nesting and numbers are limited before a file can
use much memory. Files are written within the same limits, so that they can be read again.
``to_json`` converts results to JSON values.

    MAX_SETTINGS    maximum bytes of settings, cards and other small files
    MAX_RECORD      maximum bytes of the record of a training, and of other files that grow with the
                    length of a training
    MAX_VOCABULARY  maximum bytes of the files of a tokenizer, and of files with a number for each
                    of many texts

Imports the standard library only. Errors are a ValueError with the reason; callers add the file
name.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

MAX_SETTINGS = 1 << 20
MAX_RECORD = 1 << 24
MAX_VOCABULARY = 1 << 26
MAX_DEPTH = 64  # max levels of lists and objects inside one another
# max values in a JSON text; a limit of its size is not enough, since an empty list takes thirty
# times as many bytes in memory as in the text
MAX_VALUES = 4_000_000
_MAX_DIGITS = 100  # max digits of an integer in a JSON text


def read_text(
    file: Path, max_bytes: int = MAX_SETTINGS, encoding: str = "utf-8", errors: str = "strict"
) -> str:
    r"""Return the text of a file of bounded size; each line end becomes \n, as ``open`` reads it.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is larger than ``max_bytes``, or not in this encoding.
    """
    with file.open("rb") as stream:
        content = stream.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"it is larger than {max_bytes >> 20} MB")
    return content.decode(encoding, errors).replace("\r\n", "\n").replace("\r", "\n")


def read_json(file: Path, max_bytes: int = MAX_SETTINGS) -> Any:
    """Return the value of a JSON file of bounded size; see ``parse_json``.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is larger than ``max_bytes`` or not UTF-8, or ``parse_json`` refuses
            its text.
    """
    return parse_json(read_text(file, max_bytes))


def parse_json(text: str) -> Any:
    """Return the value of a JSON text whose nesting and numbers are bounded.

    >>> parse_json('{"steps": 5}')
    {'steps': 5}
    >>> parse_json("1e400")
    Traceback (most recent call last):
        ...
    ValueError: the number 1e400 is not finite

    Raises:
        ValueError: The text is not JSON, is nested too deeply or has too many values; or a number
            is NaN, infinite or has too many digits.
    """
    _refuse_many_values(text)
    try:
        value = json.loads(
            text, parse_int=_parse_int, parse_float=_parse_float, parse_constant=_parse_float
        )
        refuse_deep(value)
    except RecursionError:
        raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep") from None
    return value


def refuse_deep(value: Any, levels: int = MAX_DEPTH) -> None:
    """Raise if the lists and objects of a JSON value are nested more than ``levels`` deep.

    Raises:
        RecursionError: There are more levels.
    """
    if isinstance(value, dict | list):
        if not levels:
            raise RecursionError
        for inner in value.values() if isinstance(value, dict) else value:
            refuse_deep(inner, levels - 1)


def encode_text(text: str, max_bytes: int = MAX_SETTINGS) -> bytes:
    r"""Encode a text as UTF-8, so that ``read_text`` accepts it. A lone surrogate becomes an escape
    such as \ud800, as in JSON.

    Raises:
        ValueError: The result is larger than ``max_bytes``.
    """
    content = text.encode("utf-8", "backslashreplace")
    if len(content) > max_bytes:
        raise ValueError(f"it would be larger than {max_bytes >> 20} MB")
    return content


def dump_json(value: Any, max_bytes: int = MAX_SETTINGS, *, indent: int | None = 2) -> bytes:
    """Encode a value as JSON, so that ``read_json`` accepts it.

    Raises:
        ValueError: The result is larger than ``max_bytes`` or has too many values, or a number is
            NaN or infinite.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n"
    _refuse_many_values(text)
    return encode_text(text, max_bytes)


def to_json(value: Any) -> Any:
    """Convert a value with dataclasses, mappings, lists and tuples to JSON values. A number that is
    NaN or infinite becomes None.
    """
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _refuse_many_values(text: str) -> None:
    """Raise ValueError if a JSON text has too many values. Each value but the outermost follows a
    comma or an opening bracket, so the number of these limits the number of values.
    """
    if sum(map(text.count, ",[{")) > MAX_VALUES:
        raise ValueError(f"it has more than {MAX_VALUES:,} values")


def _parse_int(digits: str) -> int:
    """Convert digits to an int; raise ValueError if there are too many digits."""
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"it has a number of {len(digits):,} digits")
    return int(digits)


def _parse_float(number: str) -> float:
    """Convert a number, or a constant such as NaN, to a float; raise ValueError if the float is NaN
    or infinite.
    """
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"the number {number[:20]} is not finite")
    return value
