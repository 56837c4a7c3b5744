"""Exact duplicates across all parts: their content hashes, sorted in buckets, so that memory stays bounded.

A *row* is the number of a text among all texts of a source, in order. Of equal texts the first is kept.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from reviewgen.preparation.parts import DROPPED, Part
from reviewgen.preparation.splitting import per_part

__all__ = ["count_buckets", "find_duplicates", "find_shared", "note_shared"]


@runtime_checkable
class Indexed(Protocol):
    """What holds some texts of a source."""

    def index(self) -> np.ndarray:
        """Return a row for each text, whose first column is its content hash."""
        ...


_BUCKET_TEXTS = 1 << 22  # at most, about, that one bucket sorts
_SHARED_TEXTS, _SHARED = 1 << 18, 8  # texts from which there are several buckets, so that processes share them; how many


def count_buckets(texts: int) -> int:
    """Return the number of buckets for a number of texts."""
    return 1 + max(texts // _BUCKET_TEXTS, min(texts // _SHARED_TEXTS, _SHARED - 1))


def find_duplicates(parts: Sequence[Indexed], bucket: int, buckets: int) -> np.ndarray:
    """Return the rows of the texts of a bucket whose hash an earlier text has, sorted."""
    hashes, rows = _read_bucket(parts, bucket, buckets)
    order = np.argsort(hashes, kind="stable")  # equal hashes stay in the order of the texts
    is_same = hashes[order][1:] == hashes[order][:-1]
    return np.sort(rows[order][1:][is_same])


def find_shared(parts: Sequence[Indexed], others: Sequence[Indexed], bucket: int, buckets: int) -> np.ndarray:
    """Return the rows of the texts of a bucket that are also in other parts, sorted."""
    hashes, rows = _read_bucket(parts, bucket, buckets)
    return rows[np.isin(hashes, _read_bucket(others, bucket, buckets)[0])]


def note_shared(training: Sequence[Part], validation: Sequence[Part]) -> list[str]:
    """Return a sentence on the validation texts that are also training texts, if there are any."""
    buckets = count_buckets(sum(part.count for part in (*training, *validation)))
    rows = np.sort(np.concatenate([find_shared(validation, training, bucket, buckets) for bucket in range(buckets)]))
    kept = [part.codes != DROPPED for part in validation]
    shared = sum(int((mask & own).sum()) for (_, mask), own in zip(per_part(validation, rows), kept, strict=True))
    total = sum(int(mask.sum()) for mask in kept)
    return [f"{shared} of {total} validation texts are also in the training text."] if shared else []


def _read_bucket(parts: Sequence[Indexed], bucket: int, buckets: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the hashes of a bucket and their rows."""
    hashes, rows, first = [np.empty(0, np.uint64)], [np.empty(0, np.int64)], 0
    for part in parts:
        own = part.index()[:, 0]
        chosen = np.flatnonzero(own % np.uint64(buckets) == bucket)
        hashes.append(own[chosen])
        rows.append(chosen + first)
        first += len(own)
    return np.concatenate(hashes), np.concatenate(rows)
