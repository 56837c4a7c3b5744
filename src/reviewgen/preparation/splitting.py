"""Gives each text of the parts its code: its split, or that it is dropped. The splits are those of ``reviewgen.data.gather``."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from reviewgen.data.cleaning import CleaningReport
from reviewgen.data.corpus import SPLITS, split_by_hash
from reviewgen.data.long_text import SPLIT_CYCLE
from reviewgen.preparation.parts import DROPPED, Part

__all__ = ["SplitMethod", "count_kept", "per_part", "write_codes"]

SplitMethod = Literal["hash", "blocks", "train", "validation"]
"""How the texts of a source are split: by hash, as blocks of one long text, or all into one split."""

_MIN_TEXTS = 1 << 16  # of a corpus that surely has texts in each split of its hashes


def per_part(parts: Sequence[Part], rows: np.ndarray) -> Iterator[tuple[Part, np.ndarray]]:
    """Yield each part with a mask of those of its texts that some rows, sorted, name."""
    first = 0
    for part in parts:
        mask, last = np.zeros(part.count, np.bool_), first + part.count
        mask[rows[slice(*rows.searchsorted([first, last]))] - first] = True
        yield part, mask
        first = last


def write_codes(parts: Sequence[Part], dropped: np.ndarray, method: SplitMethod) -> None:
    """Write the codes of the texts of a source.

    Args:
        parts: Its parts.
        dropped: The rows of the texts to leave out, sorted.
        method: How the others are split.
    """
    small = None
    if method == "hash" and sum(part.count for part in parts) <= _MIN_TEXTS:
        kept = [part.index()[~mask, 0] for part, mask in per_part(parts, dropped)]
        small = split_by_hash(np.concatenate(kept)) if any(map(len, kept)) else np.empty(0, np.uint8)
    first = 0
    for part, mask in per_part(parts, dropped):
        codes = np.full(part.count, DROPPED, np.uint8)
        count = int((~mask).sum())
        codes[~mask] = _split(part.index()[~mask, 0], first, method) if small is None else small[first : first + count]
        part.codes_file.unlink(missing_ok=True)  # it may have become a link, through which others' files would be written
        codes.tofile(part.codes_file)
        first += count


def _split(hashes: np.ndarray, first: int, method: SplitMethod) -> np.ndarray:
    """Return the splits of consecutive texts, of which ``first`` come before."""
    if method == "hash":
        return split_by_hash(hashes, is_whole=False)
    if method == "blocks":
        cycle = np.array([SPLITS.index(split) for split in SPLIT_CYCLE], np.uint8)
        return cycle[(np.arange(len(hashes)) + first) % len(cycle)]
    return np.full(len(hashes), SPLITS.index(method), np.uint8)


def count_kept(parts: Sequence[Part], report: CleaningReport) -> CleaningReport:
    """Return a report with the number of the texts that have a split, and of their characters."""
    kept = characters = 0
    for part in parts:
        lengths = part.index()[part.codes != DROPPED, 1]
        kept, characters = kept + len(lengths), characters + int(lengths.sum())
    return replace(report, kept=kept, characters=characters)
