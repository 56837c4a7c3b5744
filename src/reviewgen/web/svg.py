"""Makes the elements of an SVG, and estimates the width of texts. ``picture.css`` has the style, in
the colours of the pages. Knows no model.

A picture follows the light or dark mode of a page. It has no ids and styles only its own class, so
that a page may contain any number of pictures. Widths are estimated without reading a font, so that
a picture is the same on all machines. Every text and attribute is escaped.
"""

import re
import textwrap
import unicodedata
from collections.abc import Iterable
from functools import cache
from xml.sax.saxutils import escape, quoteattr

from reviewgen.web.rendering import render

Lines = list[tuple[str, float, str]]
"""Lines of text below one another: each text, its size in pixels, and its role: "label", "detail",
"shape", "note", "title".
"""

LABEL = 14.0  # size of a label, in pixels
DETAIL = 12.0  # size of a detail, in pixels
NOTE = 11.5  # size of a note, in pixels
CLASS = "reviewgen-picture"
_SUBSCRIPT = re.compile(r"_\{([^{}]*)\}")
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LINE = 1.32  # height of a line of text, in font sizes
_BELOW = 0.75  # size of a subscript, in font sizes
_NARROW = set("iljIft.,:;'|!()[]/ ·")
_WIDE = set("mwMWΣ%@…")
# width of most letters in a wide sans-serif font, such as DejaVu Sans or Verdana, in font sizes
_EM = 0.63


def document(
    content: Iterable[str],
    width: float,
    height: float,
    title: str,
    description: str,
    margin: float = 12.0,
) -> str:
    """Return a picture as a self-contained SVG. Text stays text, and screen readers read the title
    and the description.
    """
    title = shorten(title, 200)
    description = shorten(description, 20_000)
    full_width = number(width + 2 * margin)
    full_height = number(height + 2 * margin)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="{CLASS}" role="img"'
        f' aria-label={quoteattr(title)} viewBox="0 0 {full_width} {full_height}"'
        f' width="{full_width}" height="{full_height}">'
    )
    return "\n".join(
        [
            head,
            f"<title>{escape(title)}</title>",
            f"<desc>{escape(description)}</desc>",
            f"<style>{_style()}</style>",
            f'<rect class="paper" width="{full_width}" height="{full_height}" rx="6"/>',
            moved(content, margin, margin),
            "</svg>",
            "",
        ]
    )


@cache
def _style() -> str:
    return render("web/picture.css", name=CLASS)


def tag(name: str, content: str = "", **attributes: object) -> str:
    """Return an element. Its content is markup, and is not escaped. In the names of attributes,
    ``_`` stands for ``-`` and ``__`` for a colon; an ``_`` at the end is dropped.

    >>> tag("rect", class_="box", stroke_width=1.25)
    '<rect class="box" stroke-width="1.2"/>'
    """
    start = f"<{name}"
    for key, value in attributes.items():
        written = number(value) if isinstance(value, float) else str(value)
        attribute = key.rstrip("_").replace("__", ":").replace("_", "-")
        start += f" {attribute}={quoteattr(written)}"
    return f"{start}>{content}</{name}>" if content else f"{start}/>"


def tooltip(text: str) -> str:
    """Return a title element. A browser shows its text as a tooltip of the element around it."""
    return tag("title", escape(shorten(text, 200)))


def moved(content: Iterable[str], x: float, y: float) -> str:
    """Return a group of elements that is moved to the right by x and down by y."""
    return f'<g transform="translate({number(x)} {number(y)})">\n' + "\n".join(content) + "\n</g>"


def number(value: float) -> str:
    """Return a number with at most one decimal, the same on all machines."""
    return f"{value:z.1f}".removesuffix(".0")  # z: no minus zero


def block(lines: Lines, x: float, y: float, anchor: str = "start") -> list[str]:
    """Return the elements of lines of text below one another; the first line begins at y."""
    texts = []
    for text, size, role in lines:
        texts.append(label(text, x, y + size * _LINE / 2, size, role, anchor))
        y += size * _LINE
    return texts


def label(text: str, x: float, y: float, size: float, role: str, anchor: str = "start") -> str:
    """Return a line of text whose middle is at the height y; ``_{...}`` in it is a subscript."""
    spans = ""
    was_below = False  # whether the last part is a subscript
    for n, part in enumerate(_SUBSCRIPT.split(shorten(text, 200))):
        is_below = n % 2 == 1  # the odd parts are subscripts
        if part:
            attributes = dict[str, float]()
            if is_below != was_below:
                # move the baseline down, or back up; it stays there for the parts that follow
                attributes["dy"] = (0.28 if is_below else -0.28) * size
            if is_below:
                attributes["font_size"] = size * _BELOW
            spans += tag("tspan", escape(part), **attributes)
            was_below = is_below
    anchored = {} if anchor == "start" else {"text_anchor": anchor}
    where = {"x": x, "y": y, "font_size": size} | anchored
    return tag("text", spans, class_=role, **where, xml__space="preserve")


def block_size(lines: Lines) -> tuple[float, float]:
    """Return the width and height of lines of text."""
    width = max((text_width(text, size) for text, size, _ in lines), default=0.0)
    return width, sum(size * _LINE for _, size, _ in lines)


def text_width(text: str, size: float) -> float:
    """Return the maximum width of a text in usual fonts, in pixels. ``size`` is the font size in
    pixels.
    """
    width = 0.0
    for n, part in enumerate(_SUBSCRIPT.split(text)):
        # the odd parts are subscripts
        width += sum(map(_letter_width, part)) * (_BELOW if n % 2 else 1.0)
    return size * width


def _letter_width(letter: str) -> float:
    """Return the width of a letter in font sizes."""
    if unicodedata.combining(letter):
        return 0.0
    if unicodedata.east_asian_width(letter) in "WF":
        return 1.05
    if letter in _NARROW:
        return 0.4
    if letter in _WIDE:
        return 1.0
    return 0.74 if letter.isupper() else _EM


def wrap(text: str, size: float, width: float) -> list[str]:
    """Break a text into lines of at most about ``width`` pixels; a longer word has a line of its
    own. An empty text has no lines.
    """
    letter_count = max(4, int(width / (size * _EM)))
    return textwrap.wrap(text, letter_count, break_long_words=False, break_on_hyphens=False)


def plain(text: str) -> str:
    """Return a text without the signs for subscripts. Characters that XML does not allow are
    replaced.

    >>> plain("W_{ih} x")
    'W_ih x'
    """
    return _NOT_IN_XML.sub("�", _SUBSCRIPT.sub(r"_\1", text))


def shorten(text: str, characters: int = 60) -> str:
    """Return a text on one line, cut off at ``characters`` characters. Characters that XML does not
    allow are replaced.
    """
    line = _NOT_IN_XML.sub("�", " ".join(text.split()))
    return line if len(line) <= characters else line[: characters - 1] + "…"
