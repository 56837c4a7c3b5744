"""Sizes of the pages of a parquet file, read from their headers before pyarrow unpacks them.

What a row group says about itself does not bound a single value: one long cell hides among short ones, and a page of a few bytes
repeats a long value of the dictionary. A value lies within one page, so the pages bound it. Headers are structs of the compact
protocol of Thrift: https://parquet.apache.org/docs/file-format/data-pages/ and
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

import io
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

__all__ = ["Page", "max_bytes", "read_pages"]

_MAX_HEADERS = (1 << 12, 1 << 24)  # bytes; headers may hold a minimum and a maximum. pyarrow reads up to 16 MB as well
_MAX_DEPTH = 8
_MAX_PAGES = 1 << 20  # of a column of a row group, so that what is known of them takes little memory
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_DICTIONARY_PAGE = 2
_TYPE, _UNPACKED, _PACKED, _DATA, _DICTIONARY, _DATA_V2 = 1, 2, 3, 5, 7, 8  # fields of a page header
_VALUES = 1  # field of each kind of page: its number of values


class Page(NamedTuple):
    """A page of a column.

    Attributes:
        is_dictionary: Whether it holds the values that other pages refer to.
        size: Bytes in memory: packed or unpacked, whichever is more.
        values: Number of values.
    """

    is_dictionary: bool
    size: int
    values: int


def read_pages(file: BinaryIO, start: int, size: int) -> Iterator[Page]:
    """Yield the pages of a column of a row group; only their headers are read.

    Args:
        file: The parquet file.
        start: Where the first page begins, in bytes.
        size: The bytes of all pages with their headers.

    Raises:
        ValueError: A header is damaged.
    """
    place, end = start, start + size
    for _ in range(_MAX_PAGES + 1):
        if place >= end:
            return
        header, length = _read_header(file, place, end)
        own = (header.get(field) for field in (_TYPE, _UNPACKED, _PACKED))
        kind, unpacked, packed = (number if isinstance(number, int) else -1 for number in own)
        if kind < 0 or unpacked < 0 or packed < 0:
            raise ValueError("a page header has no type or no size")
        kinds = (header.get(field) for field in (_DATA, _DATA_V2, _DICTIONARY))
        facts: dict[int, Any] = next((fields for fields in kinds if isinstance(fields, dict)), {})
        yield Page(kind == _DICTIONARY_PAGE, max(unpacked, packed), max(0, int(facts.get(_VALUES) or 0)))
        place += length + packed
    raise ValueError(f"it has more than {_MAX_PAGES:,} pages")


def max_bytes(pages: Sequence[Page], rows: int, longest: int) -> int:
    """Return the maximum bytes of the pages and dictionary values that ``rows`` consecutive rows are read from.

    Args:
        pages: The pages of a column.
        rows: The number of rows.
        longest: The bytes of the longest value of the dictionary.
    """
    data = [page for page in pages if not page.is_dictionary]
    most = total = first = within = 0  # ``within``: the values of all pages from the first to the last but one
    for last, page in enumerate(data):
        total += page.size
        while first < last and within - data[first].values >= rows - 1:  # a run of rows ends before the first one's end
            total -= data[first].size
            within -= data[first].values
            first += 1
        most = max(most, total)
        within += page.values
    return most + rows * longest


def _read_header(file: BinaryIO, place: int, end: int) -> tuple[dict[int, Any], int]:
    """Return the fields of a page header, and its length in bytes."""
    for most in _MAX_HEADERS:
        file.seek(place)
        content = io.BytesIO(file.read(min(most, end - place)))
        try:
            return _read_struct(content), content.tell()
        except EOFError:
            continue
    raise ValueError("a page header is cut short, or larger than 16 MB")


def _read_struct(content: io.BytesIO, depth: int = 0) -> dict[int, Any]:
    if depth > _MAX_DEPTH:
        raise ValueError("a page header is nested too deeply")
    fields: dict[int, Any] = {}
    number = 0
    while (head := _read_byte(content)) != 0:
        number = number + (head >> 4) if head >> 4 else _read_integer(content)
        fields[number] = _read_value(content, head & 15, depth)
    return fields


def _read_value(content: io.BytesIO, kind: int, depth: int) -> Any:
    if kind in (_TRUE, _FALSE):
        return kind == _TRUE
    if kind in (_I16, _I32, _I64):
        return _read_integer(content)
    if kind == _STRUCT:
        return _read_struct(content, depth + 1)
    if kind not in (_BYTE, _DOUBLE, _BINARY):  # page headers have no lists, sets or maps
        raise ValueError(f"a page header has a field of the kind {kind}")
    length = {_BYTE: 1, _DOUBLE: 8}[kind] if kind != _BINARY else _read_varint(content)
    if len(content.read(length)) < length:
        raise EOFError
    return None


def _read_byte(content: io.BytesIO) -> int:
    read = content.read(1)
    if not read:
        raise EOFError
    return read[0]


def _read_varint(content: io.BytesIO) -> int:
    number = 0
    for shift in range(0, 70, 7):
        byte = _read_byte(content)
        number |= (byte & 127) << shift
        if byte < 128:
            return number
    raise ValueError("a page header has a number of more than 64 bits")


def _read_integer(content: io.BytesIO) -> int:
    number = _read_varint(content)  # zigzag: 0, -1, 1, -2, ...
    return number >> 1 ^ -(number & 1)
