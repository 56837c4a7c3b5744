"""The parts of a corpus that is being prepared: the cleaned texts of each in a folder, and the split of each of its texts.

The parts depend on the source only, and not on the number of processes. A part's folder appears complete or not at all, and has
the files of ``clean_shard`` and ``report.json``: the counts of its cleaning.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reviewgen.config import read_json
from reviewgen.data.corpus import SPLITS
from reviewgen.data.spool import read_spool

__all__ = ["DROPPED", "Part", "Parts"]

DROPPED = len(SPLITS)
"""The code of a text that is in no split."""


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        number: Its number, from 0.
        folder: Its folder.
        codes_file: The file of the codes of its texts.
    """

    number: int
    folder: Path
    codes_file: Path

    def index(self) -> np.ndarray:
        """Return the content hash and the number of characters of each text, (N, 2)."""
        return np.fromfile(self.folder / "index", np.uint64).reshape(-1, 2)

    @property
    def count(self) -> int:
        """The number of texts."""
        return (self.folder / "index").stat().st_size // 16

    @property
    def codes(self) -> np.ndarray:
        """The code of each text, (N,) uint8: an index into ``SPLITS``, or ``DROPPED``."""
        return np.fromfile(self.codes_file, np.uint8)

    def texts(self, wanted: np.ndarray) -> Iterator[str]:
        """Yield the texts selected by a mask (N,), or some of the first of them by a shorter one."""
        return read_spool(self.folder / "texts", wanted)

    def values(self, wanted: np.ndarray) -> Iterator[Sequence[str | float | None]]:
        """Yield the condition values of the texts selected by a mask (N,)."""
        return read_spool(self.folder / "values", wanted)

    def report(self) -> dict[str, Any]:
        """Return the arguments of ``Cleaner.add``."""
        report: dict[str, Any] = read_json(self.folder / "report.json")
        return report


@dataclass(frozen=True)
class Parts:
    """All parts, once their texts have codes.

    Attributes:
        parts: The parts in order.
        has_values: Whether there are conditions.
    """

    parts: Sequence[Part]
    has_values: bool

    def texts(self, split: str) -> Iterator[str]:
        """Yield the texts of a split, in the order of the source."""
        for part in self.parts:
            yield from part.texts(part.codes == SPLITS.index(split))

    def values(self, split: str) -> Iterator[Sequence[str | float | None]]:
        """Yield the condition values of each text of a split."""
        for part in self.parts if self.has_values else ():
            yield from part.values(part.codes == SPLITS.index(split))

    def sample(self, number: int, first: int, step: int) -> Iterator[str]:
        """Yield the first texts of a part, of all splits: its share of one in ``step`` texts, of which ``first`` come before."""
        part = self.parts[number]
        kept = part.codes != DROPPED
        last = first + int(kept.sum())
        wanted = np.flatnonzero(kept)[: -(-last // step) - -(-first // step)]  # the multiples of step from first to last
        if len(wanted):
            yield from part.texts(kept[: wanted[-1] + 1])

    def characters(self) -> int:
        """Return the number of characters of all texts that are in a split."""
        return sum(int(part.index()[part.codes != DROPPED, 1].sum()) for part in self.parts)

    def value_lines(self) -> Iterator[bytes]:
        """Yield the line of the condition values of each text that is in a split."""
        for part in self.parts:
            with (part.folder / "values").open("rb") as lines:
                yield from itertools.compress(lines, part.codes != DROPPED)

    def counts(self) -> np.ndarray:
        """Return the number of texts of each part in each split, (parts, splits)."""
        rows = [np.bincount(part.codes, minlength=DROPPED + 1)[:DROPPED] for part in self.parts]
        return np.stack(rows)
