"""Held-out texts that share long runs of characters with training texts, found group by group, so that memory stays bounded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from reviewgen.data.corpus import SPLITS
from reviewgen.errors import ConfigError, quoted
from reviewgen.novelty import COPY_CHARACTERS, TextWindows
from reviewgen.preparation.parts import DROPPED, Part, Parts

__all__ = [
    "RUN",
    "Group",
    "check_run",
    "count_held_out",
    "describe_leaks",
    "drop_texts",
    "find_leaks",
    "held_out_groups",
    "windows_of",
]

RUN = COPY_CHARACTERS
"""The length of the runs that are counted by default."""

_SAMPLE_CHARACTERS, _GROUP_CHARACTERS = 1 << 18, 1 << 20  # of the texts that are counted, and of a group of all
_MIN_RUN = 20
_MAX_RUN = 1_000_000_000


@dataclass(frozen=True)
class Group:
    """Some of the held-out texts of a part.

    Attributes:
        part: The part.
        rows: Their numbers in the part.
    """

    part: Part
    rows: np.ndarray


def check_run(length: int | None) -> None:
    """Raise if a run of that many characters says nothing.

    Raises:
        ConfigError: It is not a number of at least 20, or larger than any text is long.
    """
    if length is not None and (isinstance(length, bool) or not isinstance(length, int) or not _MIN_RUN <= length <= _MAX_RUN):
        raise ConfigError(
            f"decontaminate is a number of characters, at least {_MIN_RUN} and at most {_MAX_RUN:,}; got {quoted(length)}. "
            f"{COPY_CHARACTERS} finds copied sentences; shorter runs are set phrases."
        )


def held_out_groups(parts: Parts, *, is_sample: bool) -> list[list[Group]]:
    """Return all held-out texts in groups, or one group of the first of each part: a sample of the whole corpus."""
    return _sample(parts) if is_sample else _groups(parts)


def count_held_out(parts: Parts) -> int:
    """Return the number of held-out texts."""
    return int(np.delete(parts.counts().sum(axis=0), SPLITS.index("train")).sum())


def _sample(parts: Parts) -> list[list[Group]]:
    share = _SAMPLE_CHARACTERS // len(parts.parts)
    held_out = ((part, *_held_out_rows(part)) for part in parts.parts)
    group = [Group(part, rows[: 1 + int(lengths.cumsum().searchsorted(share))]) for part, rows, lengths in held_out if len(rows)]
    return [group] if group else []


def _groups(parts: Parts) -> list[list[Group]]:
    groups: list[list[Group]] = [[]]
    characters = 0
    for part in parts.parts:
        rows, lengths = _held_out_rows(part)
        for chosen in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(lengths.cumsum() // _GROUP_CHARACTERS)) + 1):
            if characters >= _GROUP_CHARACTERS:
                groups.append([])
                characters = 0
            groups[-1].append(Group(part, rows[chosen]))
            characters += int(lengths[chosen].sum())
    return [group for group in groups if sum(len(each.rows) for each in group)]


def _held_out_rows(part: Part) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the held-out texts of a part, and their numbers of characters."""
    codes = part.codes
    rows = np.flatnonzero((codes != DROPPED) & (codes != SPLITS.index("train")))
    return rows, part.index()[rows, 1].astype(np.int64)


def windows_of(group: Sequence[Group], length: int) -> TextWindows:
    """Return the runs of ``length`` characters of the texts of a group, to be looked for in several parts."""
    return TextWindows([text for each in group for text in _read(each)], length)


def find_leaks(windows: TextWindows, training: Parts) -> np.ndarray:
    """Return which texts share a run with a training text of some parts, (N,)."""
    return windows.are_shared(training.texts("train"))


def _read(group: Group) -> Iterator[str]:
    wanted = np.zeros(int(group.rows.max(initial=-1)) + 1, np.bool_)  # no text after the last of them is read
    wanted[group.rows] = True
    return group.part.texts(wanted)


def drop_texts(group: Sequence[Group], masks: Sequence[np.ndarray]) -> None:
    """Leave the texts that masks select out of the splits."""
    for each, mask in zip(group, masks, strict=True):
        codes = each.part.codes
        codes[each.rows[mask]] = DROPPED
        codes.tofile(each.part.codes_file)


def describe_leaks(leaking: int, checked: int, held_out: int, length: int, *, is_dropped: bool) -> str:
    """Return a sentence for the user.

    >>> describe_leaks(3, 200, 200, 50, is_dropped=False)
    'Of 200 held-out texts, 3 share a run of 50 characters or more with a training text; --decontaminate 50 leaves them out.'
    """
    which = f"{checked:,} held-out texts" if checked == held_out else f"a sample of {checked:,} of {held_out:,} held-out texts"
    share, are, them = ("shares", "is", "it") if leaking == 1 else ("share", "are", "them")
    found = f"Of {which}, {leaking:,} {share} a run of {length} characters or more with a training text"
    if not leaking:
        return f"{found}."
    return f"{found}, and {are} left out." if is_dropped else f"{found}; --decontaminate {length} leaves {them} out."
