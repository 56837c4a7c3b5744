"""The parts of a corpus: Arrow files in the format of ``datasets``, which stay on disk while they are read."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reviewgen.storage import Job

if TYPE_CHECKING:
    import pyarrow

_ROWS = 1024  # of a batch


def read_part(file: Path) -> "pyarrow.Table":
    """Return the table of a part."""
    import pyarrow

    return pyarrow.ipc.open_stream(pyarrow.memory_map(str(file))).read_all()


def read_column(files: Sequence[Path], name: str, dtype: Any) -> np.ndarray:
    """Return a column of numbers of all parts, (N,)."""
    return np.concatenate([np.empty(0, dtype), *(np.asarray(read_part(file).column(name)) for file in files)]).astype(dtype)


def texts_of(files: Sequence[Path], wanted: np.ndarray) -> Iterator[str]:
    """Yield the texts of parts that a mask (N,) selects."""
    first = 0
    for file in files:
        for batch in read_part(file).to_batches():
            mask = wanted[first : first + len(batch)]
            first += len(batch)
            if mask.any():
                yield from batch.column("text").filter(mask).to_pylist()


def examples_of(files: Sequence[Path], conditions: Sequence[str], code: int) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield the texts of a split of a corpus, each with its condition values."""
    for batch in itertools.chain.from_iterable(read_part(file).to_batches() for file in files):
        kept = batch.filter(np.asarray(batch.column("split")) == code)
        columns = [kept.column(name).to_pylist() for name in conditions]
        values = zip(*columns, strict=True) if columns else itertools.repeat((), len(kept))
        yield from zip(kept.column("text").to_pylist(), values, strict=True)


def write_part(file: Path, make: Callable[[], "pyarrow.Table"]) -> None:
    """Write a table as a part that appears whole, unless it is there."""
    if not file.exists():
        Job.write_whole(file, functools.partial(_write, make()))


def _write(table: "pyarrow.Table", file: Path) -> None:
    import pyarrow

    with file.open("wb") as stream, pyarrow.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table, max_chunksize=_ROWS)
