"""Cleaning of review texts, each step counted: breaks, entities, NFC, markdown, case, empty texts, duplicates.

What is off by default (lower-casing, stripping markdown) loses something that a reader would miss. Knows nothing of files.
"""

import hashlib
import html
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["Cleaner", "CleaningReport", "Keys", "key_of"]

_BREAK = re.compile(r"</?br\b[^<>]{0,100}>", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
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

    def add(self, counts: Mapping[str, int]) -> None:
        """Add the counts of another part of the source."""
        for name, count in counts.items():
            setattr(self, name, getattr(self, name) + count)


class Cleaner:
    """Cleans texts one by one and counts; ``clean=False`` passes them on exactly as they are.

    A call cleans; ``choose`` drops the duplicates, which only one that has seen all keys can do.
    """

    def __init__(self, *, clean: bool = True, lowercase: bool = False, strip_markdown: bool = False) -> None:
        self.report = CleaningReport()
        self._clean = clean
        self._lowercase = lowercase
        self._markdown = _MarkdownStripper() if strip_markdown else None
        self._seen = Keys()

    def __call__(self, text: str) -> tuple[str, int] | None:
        """Return a text cleaned, with its 64-bit key (see ``key_of``), or None where it is empty."""
        self.report.read += 1
        cleaned = self._apply(text)
        if self._clean and not cleaned.strip():
            self.report.empty += 1
            return None
        return cleaned, key_of(cleaned)

    def choose(self, keys: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Return which texts are kept (N,), of those with these keys and numbers of characters: no duplicates."""
        kept = self._seen.add(keys) if self._clean else np.ones(len(keys), bool)
        self.report.kept += int(kept.sum())
        self.report.characters += int(lengths[kept].sum())
        self.report.duplicates += int((~kept).sum())
        return kept

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


class Keys:
    """A set of 64-bit keys at 8 bytes each, where Python's own takes 60.

    It is held as sorted arrays, each more than twice as long as the next (a log-structured merge, O'Neil et al. 1996).
    """

    def __init__(self) -> None:
        self._runs: list[np.ndarray] = []

    def add(self, keys: np.ndarray) -> np.ndarray:
        """Add keys (N,) and return which of them are new, (N,); of equal ones only the first is."""
        fresh, first = np.unique(keys, return_index=True)
        for run in self._runs:
            places = run.searchsorted(fresh).clip(max=len(run) - 1)
            is_new = run[places] != fresh
            fresh, first = fresh[is_new], first[is_new]
        found = np.zeros(len(keys), bool)
        found[first] = True
        if len(fresh):
            self._runs.append(fresh)
        while len(self._runs) > 1 and len(self._runs[-2]) <= 2 * len(self._runs[-1]):
            self._runs[-2:] = [np.sort(np.concatenate(self._runs[-2:]))]
        return found


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
