"""Clean texts: HTML tags and entities, NFC, mojibake, markdown, case, surrounding white space; drop
empty ones.

Lower-casing and stripping markdown are off by default, since they lose information that a reader
would miss. Repairing mojibake is off too, since it guesses. This module does not read files.

Only complete tags of known elements count as tags, so "a < b", "<3" and "I <really> liked it" stay
as they are. Mojibake is text that was once decoded with the wrong encoding, such as "cafÃ©" for
"café"; ``ftfy`` repairs it.
"""

import hashlib
import html
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from reviewgen.data.columns import SourceInfo
from reviewgen.data.documents import drop_lines, unwrap
from reviewgen.errors import ConfigError

_BLOCKS = (
    "address article aside blockquote body caption center dd details dialog dir div dl dt fieldset"
    " figcaption figure footer form frame frameset h1 h2 h3 h4 h5 h6 head header hr html iframe"
    " legend li main menu nav noscript ol optgroup option p pre section select summary table tbody"
    " td textarea tfoot th thead title tr ul"
)
_INLINE = (
    "a abbr acronym area audio b base bdi bdo big button canvas cite code col colgroup data"
    " datalist del dfn em embed font i img input ins kbd label link map mark meta meter nobr object"
    " output param picture progress q rp rt ruby s samp small source span strike strong sub sup svg"
    " template time track tt u var video wbr"
)
_BLOCK_NAMES = frozenset(_BLOCKS.split())
# attributes without a value
_FLAGS = (
    "allowfullscreen|async|autoplay|checked|controls|defer|disabled|hidden|loop|multiple|muted"
    "|noshade|nowrap|open|selected"
)
# the longest first, since a pattern takes the first alternative that matches
_NAMES = "|".join(sorted(f"{_BLOCKS} {_INLINE}".split(), key=len, reverse=True))
# the value of an attribute; like ``_END``, with possessive quantifiers, which do not backtrack
_VALUE = r"""(?:"[^"]*+"|'[^']*+'|[^\s"'<>`]++)"""
# what follows the name of an element in a tag: attributes, and the end of the tag
_END = (
    rf"""(?=[\s/>])(?:\s++(?:[a-z_:@][\w:.-]*+\s*+=\s*+{_VALUE}|(?:{_FLAGS})(?=[\s/>])))*+\s*+/?>"""
)
_TAG = re.compile(rf"<(?:/(?:script|style)|/?(?P<name>{_NAMES})){_END}", re.IGNORECASE)
# the start of a comment, a script or a style
_HIDDEN = re.compile(rf"<(?:!--|(?P<name>script|style){_END})", re.IGNORECASE)
# the end of a script or style, by its name; "" stands for a comment
_CLOSINGS = {
    name: re.compile(rf"</{name}{_END}" if name else "-->", re.IGNORECASE)
    for name in ("", "script", "style")
}
_DOCTYPE = re.compile(r"<(?:!doctype|\?xml)\b[^<>]{0,500}>", re.IGNORECASE)
_BREAK = "\x1e"  # marks a line break; Python counts it as white space, and web pages do not have it
_PARAGRAPH = "\x1f"  # marks a paragraph break; the same is true of it
_SPACE = re.compile(r"\s+")
# The characters of the bytes 80 to BF in Latin-1 and in Windows-1252. The second set leaves out the
# punctuation that may follow a capital letter in French.
_CONTINUATION = "\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
_AFTER_CAPITALS = "\x80-\x9f¡-ª¬-º¼-¿€‚ƒ„†‡ˆ‰Š‹ŒŽ•˜™šœžŸ"
_MOJIBAKE = re.compile(
    # letters with accents, such as é; spaces; letters of Central Europe
    rf"Ã[{_AFTER_CAPITALS}\xa0]|Â[{_AFTER_CAPITALS}\xa0«»]|[ÄÅ][{_AFTER_CAPITALS}]"
    rf"|â€[{_CONTINUATION}]|â[\x80-\x84][\x80-\xbf]"  # quotation marks and dashes
    rf"|ð[Ÿ\x9f][{_CONTINUATION}]|ï¸|ï»¿|ï¿½"  # emoji, byte order mark, replacement character
    rf"|(?:[ÐÑ][{_CONTINUATION}]){{2}}|(?:à[¸¹][{_CONTINUATION}]){{2}}"  # Cyrillic, Thai
    r"|[\x80-\x9f]"  # punctuation of Windows-1252 decoded as Latin-1: invisible control characters
)
# Punctuation whose mojibake was then written in ASCII: "itâ€™s" became "itaEUR(tm)s".
_ASCII_MOJIBAKE = re.compile(r'aEUR(?:\(tm\)|oe|["\x9d]|(?![A-Za-z]))')
_MENDED = {"aEUR(tm)": "’", "aEURoe": "“", 'aEUR"': "—"}  # all others are closing quotation marks
# Bold text, a link or a heading: each of them is a certain sign of markdown.
MARKDOWN = re.compile(
    r"(?<![\w*])\*\*[^\W\d][^*\n]*\*\*(?!\*)|\[[^\[\]\n]+\]\(\w+:|^#{1,6} \w", re.MULTILINE
)
# Emphasis markers that CommonMark treats as text, since a space is on their inner side. They match
# at the end of a line, as a pair, before a word, between spaces, after punctuation, or if they are
# bold and italic at once. Underscores to fill in, snake_case, footnotes and "f**k" do not match.
_MARKER = r"(?<![^\s(\"'])(?!_{3}|\*\*+\d/)(?:\*\*|_)+(?![*_])"
_STRAY_MARKERS = re.compile(
    rf" {_MARKER}$|{_MARKER}(?: ([^*_]*\w)(?:\*\*|_)+(?![\w*_])| )?"
    r"|(?<=[.,;:!?\"')])(?:\*\*|_)+(?!\S)|(?:\*\*_|_\*\*)[*_]*(?!\w)",
    re.MULTILINE,
)
# a rating: four or more stars in a row, in a text without "**" elsewhere
_RATING = re.compile(r"\A(?!.*(?<!\*)\*\*(?!\*)).*\*{4}", re.DOTALL)
_BREAK_TAG = re.compile(r"</?br\b[^<>]{0,100}>", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_AROUND = 15  # characters of an example before and after the mojibake


@dataclass
class CleaningReport:
    """The counts of what cleaning did to a source.

    Attributes:
        read: Texts read.
        kept: Texts kept.
        characters: Characters in the kept texts.
        empty: Texts dropped because they were empty or only white space.
        duplicates: Texts dropped because the same text came before.
        near_duplicates: Texts dropped because a similar text came before; only ``reviewgen
            prepare`` looks for them.
        leaking: Held-out texts dropped because they share long runs of characters with training
            texts; only ``reviewgen prepare`` looks for them.
        breaks_replaced: ``<br />`` tags replaced by a newline.
        tags_removed: Other HTML tags and comments removed.
        entities_decoded: HTML entities decoded.
        normalized: Texts changed by NFC normalisation.
        decode_errors: Runs of bytes that are not valid in the encoding of their file.
        mojibake: Texts with mojibake, such as "cafÃ©", that was not repaired.
        encodings_fixed: Texts whose mojibake was repaired.
        unwrapped: Texts whose lines were joined.
        lines_dropped: Repeated lines dropped.
    """

    read: int = 0
    kept: int = 0
    characters: int = 0
    empty: int = 0
    duplicates: int = 0
    near_duplicates: int = 0
    leaking: int = 0
    breaks_replaced: int = 0
    tags_removed: int = 0
    entities_decoded: int = 0
    normalized: int = 0
    decode_errors: int = 0
    mojibake: int = 0
    encodings_fixed: int = 0
    unwrapped: int = 0
    lines_dropped: int = 0


def add_reports(reports: Iterable[CleaningReport]) -> CleaningReport:
    """Return the sums of the counts of several reports."""
    counts = Counter[str]()
    for report in reports:
        counts.update(vars(report))
    return CleaningReport(**counts)


def note_mojibake(count: int, example: str | None) -> list[str]:
    """Return a note for the user, in a list: ``count`` texts have mojibake that was not repaired,
    such as ``example``. The list is empty if there are none.
    """
    if example is None:
        return []
    texts = "1 text seems" if count == 1 else f"{count:,} texts seem"
    return [
        f"{texts} to be decoded wrongly, such as {example!r}: --fix-encoding (fix_encoding=True)"
        " repairs them."
    ]


class Cleaner:
    """Cleans texts one by one and counts the changes.

    Call a cleaner with a text to clean it. It does not find duplicates: these are found by the
    hashes of all texts of a source (see ``first_of_each``).

    Args:
        options: Whether each change is made, by name: "clean" (if false, only the changes that the
            other options ask for are made, and no text is dropped), "lowercase", "strip_markdown"
            (keep only the words of markdown), "fix_encoding" (repair mojibake), "keep_line_breaks"
            (do not join wrapped lines), "drop_repeated_lines", "keep_space" (keep the white space
            around a text).
        info: The facts of the source. Three are used: the width that its texts are wrapped at, its
            repeated lines, and whether it is one long text. In one long text, surrounding white
            space and repeated lines are kept.

    Attributes:
        report: The counts.
        mojibake: The first example of mojibake that was not repaired; None if there is none.

    Raises:
        ConfigError: Mojibake is to be repaired, and ftfy is not installed.
    """

    def __init__(self, options: Mapping[str, bool], info: SourceInfo) -> None:
        self.report = CleaningReport()
        self.mojibake: str | None = None
        self._clean = options["clean"]
        self._lowercase = options["lowercase"]
        self._strips = self._clean and not options["keep_space"] and not info.is_one_text
        self._lines = frozenset(
            info.repeated_lines if options["drop_repeated_lines"] and not info.is_one_text else ()
        )
        self._width = info.width if self._clean and not options["keep_line_breaks"] else None
        self._fix_encoding = self._parse_markdown = None
        if options["fix_encoding"]:
            try:
                from ftfy import fix_encoding as fix  # ftfy is an extra
            except ImportError:
                raise ConfigError(
                    "Repairing encodings needs ftfy: pip install 'reviewgen[ftfy]'."
                ) from None
            self._fix_encoding = fix
        if options["strip_markdown"]:
            from markdown_it import MarkdownIt  # a dependency of rich; slow to import

            # text_join would make escaped characters, such as \*, a part of the text around them,
            # in which ``_strip_markdown`` removes stray markers
            self._parse_markdown = MarkdownIt("commonmark").disable("text_join").parse

    def __call__(self, text: str) -> tuple[str, int] | None:
        """Return the cleaned text and its content hash (see ``hash_text``), or None if it is
        empty.
        """
        self.report.read += 1
        if not text.isascii() or "aEUR" in text:  # other ASCII texts have no mojibake
            text = self._repair(text)
        if self._clean:
            text = self._normalize(text)
        if self._width is not None:
            wrapped = text
            text = unwrap(wrapped, self._width)
            self.report.unwrapped += text != wrapped
        if self._parse_markdown is not None:
            text = _strip_markdown(text, self._parse_markdown(text))
        if self._lowercase:
            text = text.lower()
        if self._clean and not text.strip():
            self.report.empty += 1
            return None
        if self._strips:
            text = text.strip()
        text = self.drop_lines(text)
        return text, hash_text(text)

    def drop_lines(self, text: str) -> str:
        """Return a cleaned text without its repeated lines."""
        if self._lines:
            text, count = drop_lines(text, self._lines)
            self.report.lines_dropped += count
        return text

    def _repair(self, text: str) -> str:
        """Return a text with its mojibake repaired. If repair is off, only count the text if it has
        mojibake.
        """
        if self._fix_encoding is None:
            match = _MOJIBAKE.search(text) or _ASCII_MOJIBAKE.search(text)
            if match is not None:
                self.report.mojibake += 1
                around = text[max(0, match.start() - _AROUND) : match.end() + _AROUND]
                self.mojibake = self.mojibake or around.strip()
            return text
        repaired = _ASCII_MOJIBAKE.sub(lambda match: _MENDED.get(match[0], "”"), text)
        repaired = self._fix_encoding(repaired)
        self.report.encodings_fixed += repaired != text
        return repaired

    def _normalize(self, text: str) -> str:
        """Return a text with entities decoded, without tags, and in NFC."""
        report = self.report
        if "&" in text:
            text = _ENTITY.sub(self._decode_entity, text)
        if "<" in text:
            text, count = _BREAK_TAG.subn("\n", text)
            report.breaks_replaced += count
        if "<" in text:
            text, count = strip_tags(text)
            report.tags_removed += count
        if not unicodedata.is_normalized("NFC", text):
            text = unicodedata.normalize("NFC", text)
            report.normalized += 1
        return text

    def _decode_entity(self, match: re.Match[str]) -> str:
        """Return the replacement of an HTML entity."""
        decoded = html.unescape(match[0])
        self.report.entities_decoded += decoded != match[0]  # "&nosuch;" stays as it is
        return decoded


def first_of_each(hashes: np.ndarray) -> np.ndarray:
    """Return a mask (N,): True for each hash (N,) that is not equal to an earlier one."""
    is_first = np.zeros(len(hashes), np.bool_)
    is_first[np.unique(hashes, return_index=True)[1]] = True
    return is_first


def hash_text(text: str) -> int:
    """Return the content hash of a text: 64 bits of BLAKE2b, the same on every machine and in every
    process.
    """
    return int.from_bytes(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    )


def _strip_markdown(text: str, tokens: Iterable[Any]) -> str:
    """Return the words of a markdown text, without heading marks, emphasis, link targets and code
    fences.
    """
    blocks = []
    has_rating = _RATING.search(text) is not None
    for token in tokens:
        if token.type == "inline":
            words = ""
            for child in token.children:
                if child.type in ("softbreak", "hardbreak"):
                    words += "\n"
                elif child.type == "text" and not has_rating:
                    # of a pair of markers, keep the words between them, \1
                    words += _STRAY_MARKERS.sub(r"\1", child.content)
                else:
                    words += child.content
            blocks.append(words)
        elif token.type in ("fence", "code_block", "html_block"):
            blocks.append(token.content.rstrip("\n"))
    return "\n\n".join(blocks)


def strip_tags(text: str) -> tuple[str, int]:
    """Return a text without its HTML tags, comments, scripts and styles, and how many tags and
    comments it had.

    The start and the end of a block element, such as ``<div>`` or ``<li>``, become a line break;
    the start and the end of ``<p>`` become a blank line. A text without tags is returned as it is.

    >>> strip_tags("<p>I <b>really</b> liked it <3</p><p>a < b</p>")
    ('I really liked it <3\\n\\na < b', 6)
    """
    content, hidden = _drop_hidden(_DOCTYPE.sub("", text))
    content, tags = _TAG.subn(_mark, content)
    if hidden + tags == 0:
        return text, 0
    return _SPACE.sub(_break_lines, content), hidden + tags


def _drop_hidden(text: str) -> tuple[str, int]:
    """Return a text without its HTML comments, scripts and styles, and the number of removed tags
    and comments.

    A comment, script or style without an end is kept.
    """
    kept = list[str]()
    start = 0  # end of the last removed part
    count = 0
    unclosed = set[str]()  # names for which no end follows
    for match in _HIDDEN.finditer(text):
        name = (match["name"] or "").lower()  # "" for a comment
        # skip a match inside a removed part, and one whose end was already searched for in vain
        if match.start() < start or name in unclosed:
            continue
        end = _CLOSINGS[name].search(text, match.end())
        if end is None:
            unclosed.add(name)
        else:
            kept.append(text[start : match.start()])
            start = end.end()
            count += 2 if name else 1  # a script or style has two tags
    kept.append(text[start:])
    return "".join(kept), count


def _mark(tag: re.Match[str]) -> str:
    """Return the replacement of a tag: a break for a block element, else nothing."""
    name = (tag["name"] or "").lower()
    if name == "p":
        return _PARAGRAPH
    return _BREAK if name in _BLOCK_NAMES else ""


def _break_lines(space: re.Match[str]) -> str:
    """Return the replacement of a run of white space. A run without a marked break is kept.
    Otherwise it becomes a paragraph break or a line break, or nothing at the start or end of the
    text.
    """
    if _PARAGRAPH not in space[0] and _BREAK not in space[0]:
        return space[0]
    if space.start() == 0 or space.end() == len(space.string):
        return ""
    return "\n\n" if _PARAGRAPH in space[0] else "\n"
