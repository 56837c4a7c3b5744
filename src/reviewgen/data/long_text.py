"""Cuts one long text, such as a novel, into parts to train on and parts to hold out. Knows nothing of files.

The text is divided into stretches of equal length, and the middle of each is held out: a *block*, for validation and for test in
turn. So the held-out text is spread evenly over the whole, and what lies between two blocks is one long training text that a
recurrent state is carried through.

A part begins with the blank line that separates it from the part before it, or else with a line end or a space. There are few
parts to learn from how a text begins; after a blank line, a model continues as after any other.

A block should be so long that most of it is far from the training text, and so short that an evaluation sees many parts of the
text. So there are 32 blocks of at least 500 and at most 16,384 characters: fewer in a short text, more in a long one.

Measured on a megabyte of plays with a Kneser-Ney model of order 6: the first 250 characters of a block cost as much as the rest,
so nothing is copied over its edge. But 32 blocks of 3,500 characters cost 1.38 nats per character and 8 blocks of 14,000 cost
1.42, and the last tenth of the text, with other persons and scenes, costs 1.68.
"""

import itertools
import math
import re

from reviewgen.errors import DataError

__all__ = ["SPLIT_CYCLE", "cut_text", "divide_text"]

SPLIT_CYCLE = ("train", "validation", "train", "test")
"""The splits of the parts of a text, which recur in this order."""

_MIN_CHARACTERS = 500  # of a text that is cut
_MIN_BLOCK, _MAX_BLOCK = 500, 1 << 14  # characters; _MAX_BLOCK comes first
_PAIRS = 16  # of a block for validation and a block for test, if the text is long enough
_SEPARATORS = (re.compile(r"\n\s*\n"), re.compile(r"\n"), re.compile(r"\s"))  # of paragraphs, lines, words


def cut_text(text: str, held_out: float) -> list[str]:
    """Cut a text into consecutive parts, whose splits are those of ``SPLIT_CYCLE``; joined, they are the text.

    Args:
        text: The text.
        held_out: The share of it for validation, and again for test.

    Raises:
        DataError: The text is too short.
    """
    if len(text) < _MIN_CHARACTERS:
        raise DataError(
            f"There is one text, of {len(text):,} characters; to hold out parts of it, it needs at least {_MIN_CHARACTERS}. Add "
            "text, or give other texts for validation."
        )
    stretches = 2 * _count_pairs(len(text) * held_out)
    block = len(text) * 2 * held_out / stretches
    middles = [(number + 0.5) / stretches * len(text) for number in range(stretches)]
    targets = [middle + side * block / 2 for middle in middles for side in (-1, 1)]
    return _cut(text, targets, int(block / 4))


def divide_text(text: str) -> list[str]:
    """Cut a text of which nothing is held out, or all, into consecutive blocks of about equal length; joined, they are the text.

    The ends between them cost a model next to nothing, 0.0004 nats per character in the example above, and give it several
    beginnings to learn from.
    """
    blocks = math.ceil(len(text) / _MAX_BLOCK)
    return _cut(text, [number * len(text) / blocks for number in range(1, blocks)], _MAX_BLOCK // 4)


def _count_pairs(characters: float) -> int:
    """Return the number of blocks that a number of characters is held out in."""
    return max(1, min(_PAIRS, int(characters / _MIN_BLOCK)), math.ceil(characters / _MAX_BLOCK))


def _cut(text: str, targets: list[float], reach: int) -> list[str]:
    cuts = [0, *(_nearest_separator(text, round(target), reach) for target in targets), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(cuts)]


def _nearest_separator(text: str, target: int, reach: int) -> int:
    """Return where the blank line that is closest to a position starts, or else a line end or white space; else the position.

    Args:
        text: The text.
        target: The position.
        reach: How far from it the separator may be, in characters.
    """
    for pattern in _SEPARATORS:
        starts = [match.start() for match in pattern.finditer(text, target - reach, target + reach)]
        if starts:
            return min(starts, key=lambda start: abs(start - target))
    return target
