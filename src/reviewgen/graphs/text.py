"""Texts of a picture: their width, subscripts, and lines. No font is read, so that a picture is the same on all machines."""

import re
import textwrap
import unicodedata

LINE = 1.32  # the height of a line, in font sizes
SUBSCRIPT = 0.75  # the size of a subscript

_SUBSCRIPT = re.compile(r"_\{([^{}]*)\}")
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NARROW, _WIDE = set("iljIft.,:;'|!()[]/ ·"), set("mwMWΣ%@…")
_EM = 0.63  # the width of a letter of a wide sans-serif font, as DejaVu Sans or Verdana, in font sizes


def split_subscripts(text: str) -> list[tuple[str, bool]]:
    """Return the parts of a text, and whether each is a subscript.

    >>> split_subscripts("h_{t-1} + b")
    [('h', False), ('t-1', True), (' + b', False)]
    """
    return [(part, number % 2 == 1) for number, part in enumerate(_SUBSCRIPT.split(text)) if part]


def plain(text: str) -> str:
    """Return a text without the marks of subscripts and without characters that XML does not allow.

    >>> plain("W_{ih} x")
    'W_ih x'
    """
    return _NOT_IN_XML.sub("�", _SUBSCRIPT.sub(r"_\1", text))


def shorten(text: str, characters: int = 60) -> str:
    """Return a text on one line and of at most a number of characters, which XML allows."""
    line = _NOT_IN_XML.sub("�", " ".join(text.split()))
    return line if len(line) <= characters else line[: characters - 1] + "…"


def text_width(text: str, size: float) -> float:
    """Return how wide a text is at most in usual fonts, in pixels of a font size."""
    return size * sum(
        _letter_width(letter) * (SUBSCRIPT if is_below else 1.0) for part, is_below in split_subscripts(text) for letter in part
    )


def _letter_width(letter: str) -> float:
    if unicodedata.combining(letter):
        return 0.0
    if unicodedata.east_asian_width(letter) in "WF":
        return 1.05
    if letter in _NARROW:
        return 0.4
    return 1.0 if letter in _WIDE else 0.74 if letter.isupper() else _EM


def wrap(text: str, size: float, width: float) -> list[str]:
    """Return the lines of a text, each at most a number of pixels wide if its words allow it; none of an empty text."""
    letters = max(4, int(width / (size * _EM)))
    return textwrap.wrap(text, letters, break_long_words=False, break_on_hyphens=False)
