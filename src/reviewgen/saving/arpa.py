r"""Parses ARPA files, the text format of n-grams of KenLM, SRILM and others.

    \data\
    ngram 1=4
    ngram 2=3

    \1-grams:
    -99     <s>     -0.30     log probability, tab, n-gram, tab, logarithm of the back-off weight
    ...
    \end\

Logarithms have base 10. Sizes are checked before memory is allocated for them.
"""

from array import array
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from reviewgen.errors import BundleError, quoted
from reviewgen.protocols.arpa import ArpaNgrams

ARPA = ".arpa"  # how the name of such a file ends
_BOS = "<s>"
_EOS = "</s>"
_UNKNOWN = "<unk>"
_MAX_ORDER = 64
_MAX_WORDS = 1_000_000
_MAX_NGRAMS = 100_000_000
_MAX_LINE = 1 << 16  # max bytes of a line
_MAX_BACKOFF = 30.0  # max logarithm of a back-off weight, so that the weight is finite in 32 bits

# the number of a line, and its parts between white space
Line = tuple[int, list[bytes]]


def read_ngrams(file: Path) -> tuple[list[str], list[ArpaNgrams]]:
    """Return the words of an ARPA file, whose indices are the ids, and the n-grams of each order.

    Raises:
        BundleError: The file does not have the format, or is too large.
        OSError: The file cannot be read.
    """
    with file.open("rb") as stream:
        lines = _lines(stream)
        counts = _read_counts(lines, file.stat().st_size)
        ids: dict[bytes, int] = {}
        ngrams = [_read_order(lines, counts, order, ids) for order in range(1, len(counts) + 1)]
    try:
        words = [word.decode() for word in ids]
    except UnicodeDecodeError:
        raise BundleError("its words are not UTF-8") from None
    if missing := sorted({_BOS, _EOS} - {*words}):
        raise BundleError(f"its 1-grams lack {' and '.join(missing)}")
    return (words if _UNKNOWN in words else [*words, _UNKNOWN]), ngrams


def _lines(stream: IO[bytes]) -> Iterator[Line]:
    """Yield the lines that are not blank."""
    for number, line in enumerate(iter(partial(stream.readline, _MAX_LINE), b""), 1):
        if parts := line.split():
            yield number, parts


def _next(lines: Iterator[Line], expected: str) -> Line:
    """Return the next line. If there is none, raise an error that says what was ``expected``."""
    line = next(lines, None)
    if line is None:
        raise BundleError(f"it ends where {expected} should be")
    return line


def _read_counts(lines: Iterator[Line], size: int) -> list[int]:
    r"""Read the head of a file, up to ``\1-grams:``. Return the number of n-grams of each order,
    which is checked against the size of the file before memory is allocated for it.
    """
    while _next(lines, "\\data\\")[1] != [b"\\data\\"]:
        pass
    counts: list[int] = []
    while True:
        number, parts = _next(lines, r"\1-grams:")
        if parts == [b"\\1-grams:"]:
            break
        order, _, count = b"".join(parts[1:]).partition(b"=")
        is_count = parts[0] == b"ngram" and count.isdigit() and len(count) < 16
        if not is_count or order != b"%d" % (len(counts) + 1):
            raise BundleError(
                f"line {number} should be ngram {len(counts) + 1}=COUNT; got {_shown(parts)}"
            )
        counts.append(int(count))
    if not 1 <= len(counts) <= _MAX_ORDER:
        raise BundleError(f"it has {len(counts)} orders; 1 to {_MAX_ORDER} are read")
    if counts[0] > _MAX_WORDS or sum(counts) > _MAX_NGRAMS:
        raise BundleError(
            f"it has {counts[0]:,} words and {sum(counts):,} n-grams; at most {_MAX_WORDS:,} and"
            f" {_MAX_NGRAMS:,} are read"
        )
    # the shortest line has "0", a space and a character for each word, and a line end
    if sum(count * (2 * order + 2) for order, count in enumerate(counts, 1)) > size:
        raise BundleError(f"it is truncated: {sum(counts):,} n-grams do not fit in {size:,} bytes")
    return counts


def _read_order(
    lines: Iterator[Line], counts: list[int], order: int, ids: dict[bytes, int]
) -> ArpaNgrams:
    r"""Read the n-grams of one order, whose heading was read, and the heading after them. Order 1
    adds its words to ``ids``.
    """
    count = counts[order - 1]
    grams = array("i")
    probabilities = array("d")
    backoffs = array("d")
    for index in range(count):
        number, parts = _next(lines, f"n-grams of order {order}")
        if parts[0].startswith(b"\\"):
            raise BundleError(f"it declares {count:,} n-grams of order {order} and has {index:,}")
        words = parts[1 : order + 1]
        try:
            # a line without a back-off weight gets the logarithm 0
            probability, backoff = map(float, [parts[0], *parts[order + 1 :], b"0"][:2])
            is_valid = len(parts) - order in (1, 2)
        except ValueError:
            is_valid = False
        # the comparisons are false for NaN, too
        if not (is_valid and probability <= 0 and backoff <= _MAX_BACKOFF):
            raise BundleError(
                f"line {number} should have a logarithm of at most 0, {order} words, and perhaps a"
                f" logarithm of at most {_MAX_BACKOFF:g}; got {_shown(parts)}"
            )
        if order == 1 and ids.setdefault(words[0], index) != index:
            raise BundleError(f"line {number} has the word {_shown(words)} again")
        if not ids.keys() >= {*words}:
            raise BundleError(f"line {number} has {_shown(words)}, not all of which are 1-grams")
        grams.extend([ids[word] for word in words])
        probabilities.append(probability)
        backoffs.append(backoff)
    heading = b"\\%d-grams:" % (order + 1) if order < len(counts) else b"\\end\\"
    number, parts = _next(lines, heading.decode())
    if parts != [heading]:
        raise BundleError(
            f"line {number} should be {heading.decode()} after {count:,} n-grams of order {order};"
            f" got {_shown(parts)}"
        )
    return ArpaNgrams(
        np.asarray(grams).reshape(count, order), np.asarray(probabilities), np.asarray(backoffs)
    )


def _shown(parts: list[bytes]) -> str:
    """Return a part of a line for a message."""
    return quoted(b" ".join(parts).decode("utf-8", "replace"), 60)
