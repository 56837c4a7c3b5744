"""Cleaning of review texts, each step counted: breaks, entities, NFC, markdown, case, empty texts, duplicates.

What is off by default (lower-casing, stripping markdown) loses something that a reader would miss. Knows nothing of files.
"""

import hashlib
import html
import re
import unicodedata
from dataclasses import dataclass

import numpy as np

__all__ = ["Cleaner", "CleaningReport", "key_of"]

_BREAK = re.compile(r"</?br\b[^<>]{0,100}>", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_RECENT_KEYS = 1 << 14
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass
class CleaningReport:
    """What cleaning did, in numbers of texts unless the name says otherwise."""

    read: int = 0
    kept: int = 0
    characters: int = 0  # of the kept texts
    empty: int = 0
    duplicates: int = 0
    breaks_replaced: int = 0  # <br /> tags
    entities_decoded: int = 0  # HTML entities
    normalized: int = 0  # changed by NFC
    decode_errors: int = 0  # runs of bytes that are no UTF-8


class Cleaner:
    """Cleans texts one by one and counts; ``clean=False`` passes them on exactly as they are."""

    def __init__(self, *, clean: bool = True, lowercase: bool = False, strip_markdown: bool = False) -> None:
        self.report = CleaningReport()
        self._clean = clean
        self._lowercase = lowercase
        self._markdown = _MarkdownStripper() if strip_markdown else None
        self._seen = _Keys()

    def __call__(self, text: str) -> tuple[str, int] | None:
        """Return a text cleaned, with its 64-bit key (see ``key_of``), or None where it is dropped."""
        self.report.read += 1
        cleaned = self._apply(text)
        key = key_of(cleaned)
        if self._clean and self._is_dropped(cleaned, key):
            return None
        self.report.kept += 1
        self.report.characters += len(cleaned)
        return cleaned, key

    def _apply(self, text: str) -> str:
        if self._clean:
            text = self._normalize(text)
        if self._markdown is not None:
            text = self._markdown(text)
        return text.lower() if self._lowercase else text

    def _normalize(self, text: str) -> str:
        report = self.report
        if "&" in text:
            text = _ENTITY.sub(self._decode_entity, text)
        if "<" in text:
            text, count = _BREAK.subn("\n", text)
            report.breaks_replaced += count
        if not unicodedata.is_normalized("NFC", text):
            text = unicodedata.normalize("NFC", text)
            report.normalized += 1
        return text if text.isascii() else _SURROGATE.sub("\ufffd", text)

    def _decode_entity(self, match: re.Match[str]) -> str:
        decoded = html.unescape(match[0])
        self.report.entities_decoded += decoded != match[0]  # "&nosuch;" stays
        return decoded

    def _is_dropped(self, text: str, key: int) -> bool:
        if not text.strip():
            self.report.empty += 1
            return True
        if key in self._seen:
            self.report.duplicates += 1
            return True
        self._seen.add(key)
        return False


class _Keys:
    """A set of 64-bit keys at 8 bytes each, where Python's own takes 60: most of it is one sorted array."""

    def __init__(self) -> None:
        self._sorted = np.empty(0, np.uint64)
        self._recent: set[int] = set()

    def __contains__(self, key: int) -> bool:
        if key in self._recent:
            return True
        place = int(self._sorted.searchsorted(np.uint64(key)))
        return place < len(self._sorted) and int(self._sorted[place]) == key

    def add(self, key: int) -> None:
        self._recent.add(key)
        if len(self._recent) == _RECENT_KEYS:
            recent = np.fromiter(self._recent, np.uint64, _RECENT_KEYS)
            self._sorted = np.sort(np.concatenate((self._sorted, recent)))
            self._recent.clear()


def key_of(text: str) -> int:
    """Return a 64-bit hash of a text: the same on every machine, in every order, in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())


class _MarkdownStripper:
    """Keeps the words of a markdown text: no headings' marks, emphasis, link targets or code fences."""

    def __init__(self) -> None:
        from markdown_it import MarkdownIt  # heavy, and off by default

        self._parse = MarkdownIt("commonmark").parse

    def __call__(self, text: str) -> str:
        blocks = []
        for token in self._parse(text):
            if token.type == "inline":
                blocks.append("".join(_word(child.type, child.content) for child in token.children or []))
            elif token.type in ("fence", "code_block", "html_block"):
                blocks.append(token.content.rstrip("\n"))
        return "\n\n".join(blocks)


def _word(kind: str, content: str) -> str:
    return "\n" if kind in ("softbreak", "hardbreak") else content
