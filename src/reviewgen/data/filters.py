"""Stages that leave texts out of a corpus: near duplicates, and held-out texts that share long runs with training texts.

Near duplicates are texts of similar word trigrams in lower case, by MinHash (Broder 1997) and banding (Leskovec et al., ch. 3),
both of ``rensa``: a text is dropped if its estimated Jaccard similarity to an earlier one that is kept reaches the threshold.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import numpy as np

from reviewgen.config import Bound, check
from reviewgen.data.parts import Work, read_part, size_of, split_by_part, texts_of
from reviewgen.errors import ConfigError
from reviewgen.novelty import COPY_CHARACTERS, TextWindows

_MINIMA, _SEED, _SHINGLE, _RECALL = 128, 1, 3, 0.99
_SAMPLE_CHARACTERS, _GROUP_CHARACTERS = 1 << 18, 1 << 20  # of held-out texts that are looked for: of a sample; of all, at once
_TRAIN, _HELD_OUT = 0, (1, 2)  # codes of splits


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which texts are left out of a corpus.

    Attributes:
        near_duplicates: Of texts that are at least this similar, only the first is kept.
        decontaminate: Held-out texts that share a run of this many characters with a training text are left out.

    Raises:
        ConfigError: A value is out of range, or rensa is not installed.
    """

    near_duplicates: Annotated[float | None, Bound(at_least=0.3, at_most=1)] = None
    decontaminate: Annotated[int | None, Bound(at_least=20, at_most=1_000_000_000)] = None

    def __post_init__(self) -> None:
        check(self)
        if self.near_duplicates is not None and find_spec("rensa") is None:
            raise ConfigError("near_duplicates needs rensa: pip install 'reviewgen[near-duplicates]'.")


def drop_near_duplicates(files: Sequence[Path], keep: np.ndarray, threshold: float) -> np.ndarray:
    """Return a mask (N,) of the texts that no earlier one is similar to, of those in the mask ``keep`` (N,)."""
    from rensa import RMinHash, RMinHashLSH

    widths = [width for width in (32, 16, 8, 4, 2) if 1 - (1 - threshold**width) ** (_MINIMA // width) >= _RECALL]
    index, kept = RMinHashLSH(threshold, _MINIMA, _MINIMA // max(widths, default=1)), keep.copy()
    known: dict[int, RMinHash] = {}
    for row, text in zip(np.flatnonzero(keep).tolist(), texts_of(files, keep), strict=True):
        words = text.lower().split()
        minima = RMinHash(_MINIMA, _SEED)
        minima.update([" ".join(words[at : at + _SHINGLE]) for at in range(max(1, len(words) - _SHINGLE + 1))])
        if any(minima.jaccard(known[other]) >= threshold for other in index.query(minima)):
            kept[row] = False
        else:
            index.insert(row, minima)
            known[row] = minima
    return kept


def find_leaks(files: Sequence[Path], codes: np.ndarray, length: int | None, work: Work) -> tuple[np.ndarray, list[str]]:
    """Find held-out texts that share a run of characters with a training text.

    Args:
        files: The parts, in order.
        codes: The split of each text, (N,).
        length: The number of characters; None counts runs of 50 in a sample of the held-out texts.
        work: The job and its processes.

    Returns:
        A mask (N,) of the texts to leave out, none if ``length`` is None; and a sentence for the user.
    """
    run, size, parts = length or COPY_CHARACTERS, size_of(files), split_by_part(codes, files)
    leaking, checked = np.zeros(len(codes), np.bool_), 0
    for rows, texts in _groups(files, parts, is_sample=length is None):
        slices = work.slices(len(files), size)
        tasks = [(texts, run, files[own], np.concatenate(parts[own]) == _TRAIN) for own in slices]
        leaking[rows] = np.logical_or.reduce(work.share(_are_shared, tasks, size))
        checked += len(rows)
    which, count = f"{checked:,} held-out texts", int(leaking.sum())
    if checked < (held_out := int(np.isin(codes, _HELD_OUT).sum())):
        which = f"a sample of {checked:,} of {held_out:,} held-out texts"
    share_of, are, them = ("shares", "is", "it") if count == 1 else ("share", "are", "them")
    note = f"Of {which}, {count:,} {share_of} a run of {run} characters or more with a training text"
    if length is not None:
        return leaking, [f"{note}, and {are} left out." if count else f"{note}."] if checked else []
    return np.zeros_like(leaking), [f"{note}; --decontaminate {run} leaves {them} out."] if count else []


def _are_shared(texts: Sequence[str], length: int, files: Sequence[Path], wanted: np.ndarray) -> np.ndarray:
    """Return which texts share a run with a training text of some parts, (T,)."""
    return TextWindows(texts, length).are_shared(texts_of(files, wanted))


def _groups(files: Sequence[Path], parts: Sequence[np.ndarray], *, is_sample: bool) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Yield held-out texts in groups, with their rows; of a sample the first ones of each part, in one group."""
    from pyarrow import compute

    sizes = []  # of the texts that are looked for
    for file, codes in zip(files, parts, strict=True):
        lengths = np.maximum(compute.utf8_length(read_part(file).column("text")), 1)
        own = np.where(np.isin(codes, _HELD_OUT), lengths, 0)
        sizes.append(np.where(np.cumsum(own) - own > _SAMPLE_CHARACTERS // len(files), 0, own) if is_sample else own)
    found = np.concatenate(sizes)
    rows = np.flatnonzero(found)
    groups = np.cumsum(found[rows]) // _GROUP_CHARACTERS
    for group in np.unique(groups):
        wanted = np.zeros(len(found), np.bool_)
        wanted[rows[groups == group]] = True
        yield np.flatnonzero(wanted), list(texts_of(files, wanted))
