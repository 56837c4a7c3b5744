"""Hard-wrapped text: lines that a mail program or an editor has broken at a width, recognized and joined again.

A line was broken by a program where the first word of the next line would not have fitted: the line is at most as wide as the
width, and with that word it is wider. Lines of verse and lists, and those that a person has broken, mostly end earlier.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np

_NARROWEST, _WIDEST = 40, 160
_LONGEST_WORD = 25  # characters
_MIN_BREAKS, _MIN_SHARE = 40, 0.8  # of the line breaks within paragraphs, those that one width explains


def find_width(texts: Iterable[str]) -> int | None:
    """Return the width that texts are wrapped at, in characters; None if they are not, or have few line breaks.

    >>> find_width(["four words to a line " * 3 + "and\\n" + "the rest of it."] * 40), find_width(["Two\\nlines."] * 40)
    (66, None)
    """
    explained, breaks = np.zeros(_WIDEST + 2, np.int64), 0  # by width
    for line, word in (each for text in texts for each in _breaks(text)):
        breaks += 1
        if word and (low := max(len(line), _NARROWEST)) <= (high := min(len(line) + len(word), _WIDEST)):
            explained[low] += 1
            explained[high + 1] -= 1
    explained = explained.cumsum()
    width = int(explained.argmax())
    return width if breaks >= _MIN_BREAKS and explained[width] >= _MIN_SHARE * breaks else None


def unwrap(text: str, width: int) -> str:
    """Return a text with the lines joined that were broken at a width.

    >>> unwrap("A line that is full\\nand goes on.\\n\\nNew\\nparagraph", 20)
    'A line that is full and goes on.\\n\\nNew\\nparagraph'
    """
    lines = text.split("\n")
    pieces = lines[:1]
    for line, following in pairwise(lines):
        broken = next(_breaks(f"{line}\n{following}"), None)
        if broken is not None and broken[1] and len(broken[0]) <= width < len(broken[0]) + 1 + len(broken[1]):
            pieces[-1] = pieces[-1].rstrip()
            pieces += [" ", following]
        else:
            pieces += ["\n", following]
    return "".join(pieces)


def _breaks(text: str) -> Iterator[tuple[str, str]]:
    """Yield each line before a line break within a paragraph, and the first word of the next line, "" for none.

    What is longer than a word is an address or a script without spaces, which is not wrapped at words.
    """
    for line, following in pairwise(text.split("\n")):
        if line.strip() and following[:1].strip():
            word = following.split(None, 1)[0]
            yield line.rstrip(), word if len(word) <= _LONGEST_WORD else ""
