"""Removes HTML tags from a text, of which what a browser would show stays; finds and mends mojibake. Knows no files.

Only complete tags of known elements count as tags, so "a < b", "<3" and "I <really> liked it" stay as they are. The text with its
tags is parsed by ``selectolax``; every other "<" is escaped before, so that the parser takes it for text.

Mojibake is text that was once read in the wrong encoding, as "cafÃ©" for "café"; ``ftfy`` mends it.
"""

import re
from collections.abc import Callable

from reviewgen.errors import ConfigError

_BLOCKS = (
    "address article aside blockquote body caption center dd details dialog dir div dl dt fieldset figcaption figure footer "
    "form frame frameset h1 h2 h3 h4 h5 h6 head header hr html iframe legend li main menu nav noscript ol optgroup option p "
    "pre section select summary table tbody td textarea tfoot th thead title tr ul"
)
_INLINE = (
    "a abbr acronym area audio b base bdi bdo big button canvas cite code col colgroup data datalist del dfn em embed font "
    "i img input ins kbd label link map mark meta meter nobr object output param picture progress q rp rt ruby s samp small "
    "source span strike strong sub sup svg template time track tt u var video wbr"
)
_HIDDEN = "script style"
_BLOCK_NAMES = frozenset(_BLOCKS.split())
_FLAGS = "allowfullscreen|async|autoplay|checked|controls|defer|disabled|hidden|loop|multiple|muted|noshade|nowrap|open|selected"
_NAMES = "|".join(sorted(f"{_BLOCKS} {_INLINE} {_HIDDEN}".split(), key=len, reverse=True))
_VALUE = r"""(?:"[^"]*+"|'[^']*+'|[^\s"'<>`]++)"""
_ATTRIBUTE = rf"""\s++(?:[a-z_:@][\w:.-]*+\s*+=\s*+{_VALUE}|(?:{_FLAGS})(?=[\s/>]))"""
_TAG = re.compile(rf"<(?P<end>/?)(?P<name>{_NAMES})(?=[\s/>])(?:{_ATTRIBUTE})*+\s*+/?>", re.IGNORECASE)
_MARKUP = re.compile(rf"{_TAG.pattern}|(?P<comment><!--)|(?P<text>[<&])", re.IGNORECASE)
_DOCTYPE = re.compile(r"<(?:!doctype|\?xml)\b[^<>]{0,500}>", re.IGNORECASE)
_BREAK, _PARAGRAPH = "\x1e", "\x1f"  # white space to Python, and in no text that a browser shows
_SPACE = re.compile(r"\s+")
# What the bytes 80 to BF are in Latin-1 and in Windows-1252; of those, punctuation may also stand after a capital in French.
_CONTINUATION = "\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
_AFTER_CAPITALS = "\x80-\x9f¡-ª¬-º¼-¿€‚ƒ„†‡ˆ‰Š‹ŒŽ•˜™šœžŸ"
_MOJIBAKE = re.compile(
    rf"Ã[{_AFTER_CAPITALS}\xa0]|Â[{_AFTER_CAPITALS}\xa0«»]|[ÄÅ][{_AFTER_CAPITALS}]"  # é, spaces, Central Europe
    rf"|â€[{_CONTINUATION}]|â[\x80-\x84][\x80-\xbf]"  # quotation marks and dashes
    rf"|ð[Ÿ\x9f][{_CONTINUATION}]|ï¸|ï»¿|ï¿½"  # emoji, byte order mark, replacement character
    rf"|(?:[ÐÑ][{_CONTINUATION}]){{2}}|(?:à[¸¹][{_CONTINUATION}]){{2}}"  # Cyrillic, Thai
    r"|[\x80-\x9f]"  # punctuation of Windows-1252 that was read as Latin-1, and is invisible
)
_AROUND = 15  # characters of an example before and after


def strip_tags(text: str) -> tuple[str, int]:
    """Return a text without its HTML tags, comments, scripts and styles, and how many tags and comments it had.

    The edges of a block, such as ``<div>`` or ``<li>``, become a line break, and those of ``<p>`` a blank line. A text without
    tags is returned as it is.

    >>> strip_tags("<p>I <b>really</b> liked it <3</p><p>a < b</p>")
    ('I really liked it <3\\n\\na < b', 6)
    """
    if _TAG.search(text) is None and "<!--" not in text:
        return text, 0
    from selectolax.lexbor import LexborHTMLParser  # most texts have no tags

    content = _DOCTYPE.sub("", text)
    escape = _Escape(content)
    tree = LexborHTMLParser(_MARKUP.sub(escape, content), is_fragment=True)
    if not escape.tags:
        return text, 0
    tree.strip_tags(_HIDDEN.split(), recursive=True)
    return _SPACE.sub(_break_lines, tree.text()), escape.tags


class _Escape:
    """Replaces what the parser would misread in a text, match by match, and counts the tags.

    The tags of blocks become marks: the parser drops or moves what stands outside its proper place, as a cell without its table.
    """

    def __init__(self, text: str) -> None:
        self.tags = 0
        lowered = text.lower()
        self._last = {name: lowered.rfind(f"</{name}") for name in _HIDDEN.split()}
        self._last_comment = text.rfind("-->")

    def __call__(self, match: re.Match[str]) -> str:
        if match["text"]:
            return "&lt;" if match["text"] == "<" else "&amp;"
        name = (match["name"] or "").lower()
        last = self._last_comment if match["comment"] else self._last.get(name, len(match.string))
        if match.start() >= last and not match["end"]:  # it is never closed: the parser would drop the rest of the text
            return match[0].replace("<", "&lt;")
        self.tags += 1
        if name in _BLOCK_NAMES:
            return _PARAGRAPH if name == "p" else _BREAK
        return match[0]


def _break_lines(space: re.Match[str]) -> str:
    """Return what stands for a run of white space; none where the edge of a block is the edge of the text."""
    if _PARAGRAPH not in space[0] and _BREAK not in space[0]:
        return space[0]
    if space.start() == 0 or space.end() == len(space.string):
        return ""
    return "\n\n" if _PARAGRAPH in space[0] else "\n"


def find_mojibake(text: str) -> str | None:
    """Return the first mojibake of a text with a few characters around it, or None if it has none.

    >>> find_mojibake("We went to the cafÃ© twice.")
    'went to the cafÃ© twice.'
    """
    match = None if text.isascii() else _MOJIBAKE.search(text)
    if match is None:
        return None
    return text[max(0, match.start() - _AROUND) : match.end() + _AROUND].strip()


def encoding_fixer() -> Callable[[str], str]:
    """Return a function that mends the mojibake of a text.

    Raises:
        ConfigError: ftfy is not installed.
    """
    try:
        from ftfy import fix_encoding  # an extra
    except ImportError:
        raise ConfigError("Mending encodings needs ftfy: pip install 'reviewgen[ftfy]'.") from None
    return lambda text: text if text.isascii() else fix_encoding(text)
