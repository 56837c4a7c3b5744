"""Near duplicates: texts of similar word trigrams, by MinHash (Broder 1997) and banding (Leskovec et al., ch. 3), with ``rensa``.

The similarity of two texts is the Jaccard index of their sets of word trigrams in lower case, estimated from 128 minima. Texts
whose minima agree in one band of rows are candidates; a candidate whose estimate reaches the threshold is dropped for the earlier
text. The bands are chosen so that a pair at the threshold is a candidate with a probability of 0.99.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reviewgen.data.store import save_array
from reviewgen.errors import ConfigError, quoted
from reviewgen.preparation.parts import Part

__all__ = ["check_threshold", "choose_bands", "find_near", "write_signatures"]

_MINIMA, _SEED, _SHINGLE, _RECALL = 128, 1, 3, 0.99


def check_threshold(threshold: float | None) -> None:
    """Raise if near duplicates cannot be looked for.

    Raises:
        ConfigError: The threshold is out of range, or rensa is not installed.
    """
    if threshold is None:
        return
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0.3 <= threshold <= 1:
        raise ConfigError(
            f"near_duplicates is a similarity from 0.3 to 1; got {quoted(threshold)}. 0.8 finds texts that differ slightly."
        )
    try:
        import rensa  # noqa: F401  only whether it is there
    except ImportError:
        raise ConfigError("near_duplicates needs rensa: pip install 'reviewgen[near-duplicates]'.") from None


def choose_bands(threshold: float) -> tuple[int, int]:
    """Return the number of bands, and the number of minima in each."""
    rows = [rows for rows in range(1, 33) if 1 - (1 - threshold**rows) ** (_MINIMA // rows) >= _RECALL]
    return _MINIMA // max(rows, default=1), max(rows, default=1)


def write_signatures(part: Part, dropped: np.ndarray, file: Path) -> None:
    """Write the minima of each text of a part, (N, 128) uint32; those of dropped texts are zeros.

    Args:
        part: The part.
        dropped: A mask of its texts.
        file: The file to write.
    """
    from rensa import RMinHash

    signatures = np.zeros((part.count, _MINIMA), np.uint32)
    for row, text in zip(np.flatnonzero(~dropped), part.texts(~dropped), strict=True):
        words = text.lower().split()
        minima = RMinHash(num_perm=_MINIMA, seed=_SEED)
        minima.update([" ".join(words[at : at + _SHINGLE]) for at in range(max(1, len(words) - _SHINGLE + 1))])
        signatures[row] = minima.digest()
    save_array(file, signatures)


def find_near(files: Sequence[Path], dropped: np.ndarray, threshold: float, band: int, rows: int) -> np.ndarray:
    """Return the texts that one band finds to be near duplicates of earlier ones, as row numbers, sorted.

    Args:
        files: The files of the signatures, in order.
        dropped: A mask of all texts that are left out before.
        threshold: The similarity from which on the later text is dropped.
        band: The number of the band.
        rows: The number of minima in a band.
    """
    maps = [np.load(file, mmap_mode="r") for file in files]
    starts = np.cumsum([0, *map(len, maps)])
    keys = np.concatenate([_hash_rows(np.array(each[:, band * rows : (band + 1) * rows])) for each in maps])
    kept = np.flatnonzero(~dropped)
    order = kept[np.argsort(keys[kept], kind="stable")]
    firsts = np.flatnonzero(np.diff(keys[order], prepend=~keys[order[:1]]))
    near: list[int] = []

    def minima(row: int) -> np.ndarray:
        at = int(starts.searchsorted(row, side="right")) - 1
        found: np.ndarray = maps[at][row - starts[at]]
        return found

    for first, last in zip(firsts, [*firsts[1:], len(order)], strict=True):
        for place in range(first + 1, last):
            own = minima(int(order[place]))
            if any((own == minima(int(order[other]))).mean() >= threshold for other in {int(first), place - 1}):
                near.append(int(order[place]))
    return np.sort(np.array(near, np.int64))


def _hash_rows(values: np.ndarray) -> np.ndarray:
    """Return a hash of each row, (N,) uint64."""
    keys = np.zeros(len(values), np.uint64)
    for column in values.T:
        keys = (keys ^ column) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys
