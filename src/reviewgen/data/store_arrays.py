"""Reads the arrays of a token store, which may be damaged or forged: each is compared with its file and with the others.

Nothing is allocated for what a file only claims to have. Whether the ids are in a vocabulary is for ``store_folder`` to check.
"""

import mmap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

__all__ = ["find_ids", "map_file", "read_conditions", "read_index", "view_ids"]

_DTYPES = ("uint16", "uint32")
_MIN_IDS = 2  # of a text: bos and eos
_MAX_CHARACTERS = 1 << 40  # of a text, as in the settings


def find_ids(folder: Path, split: str) -> Path:
    """Return the file of the ids of a split; its suffix is their dtype.

    Raises:
        ValueError: The file does not exist, or there are two.
    """
    files = [file for dtype in _DTYPES if (file := folder / f"{split}.{dtype}").is_file()]
    if len(files) != 1:
        raise ValueError(f"it has {'no' if not files else 'two'} {split}.uint16")
    return files[0]


def map_file(file: Path) -> mmap.mmap | None:
    """Return the memory map of a file; None if it is empty, which cannot be mapped."""
    with file.open("rb") as stream:
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) if file.stat().st_size else None


def view_ids(mapped: mmap.mmap | None, file: Path) -> np.ndarray:
    """Return the ids in a mapped file, (N,).

    Raises:
        ValueError: It ends within an id.
    """
    dtype, content = np.dtype(file.suffix[1:]), mapped or b""
    if len(content) % dtype.itemsize:
        raise ValueError(f"{file.name} ends within an id")
    return np.frombuffer(content, dtype)


def read_index(file: Path, ids: np.ndarray) -> np.ndarray:
    """Return the offsets and the numbers of characters of texts, (2, texts + 1).

    Args:
        file: The file.
        ids: The ids of the texts, (N,).

    Raises:
        ValueError: It is not such an array, or does not fit the ids.
    """
    index = _read(file)
    if index.dtype != np.int64 or index.ndim != 2 or index.shape[0] != 2 or not index.shape[1]:
        raise ValueError(f"{file.name} is not an index of texts")
    offsets, characters = index[0], index[1, :-1]
    if offsets[0] or offsets[-1] != len(ids) or offsets.min() < 0 or offsets.max() > len(ids):
        raise ValueError(f"{file.name} does not fit the {len(ids):,} ids")
    if (offsets[:-1] > offsets[1:] - _MIN_IDS).any():
        raise ValueError(f"the offsets in {file.name} do not rise")
    if len(characters) and (characters.min() < 0 or characters.max() > _MAX_CHARACTERS):
        raise ValueError(f"{file.name} has impossible numbers of characters")
    return index


def read_conditions(files: Sequence[Path], texts: Sequence[int]) -> np.ndarray | None:
    """Return the ids of the conditions of texts, (texts, C); None if no file exists.

    Args:
        files: The file of each shard.
        texts: The number of texts of each shard.

    Raises:
        ValueError: Some files are missing, or are not such arrays.
    """
    if not any(file.exists() for file in files):
        return None
    parts = [_read(file) for file in files]
    for file, part, count in zip(files, parts, texts, strict=True):
        if part.dtype.name not in _DTYPES or part.ndim != 2 or part.shape != (count, parts[0].shape[1]):
            raise ValueError(f"{file.name} does not fit the {count:,} texts")
    return np.concatenate(parts)


def _read(file: Path) -> np.ndarray:
    """Return the array in a file of numpy's format.

    Raises:
        ValueError: It is not one.
    """
    if not file.is_file():
        raise ValueError(f"it has no {file.name}")
    try:
        return np.array(np.lib.format.open_memmap(file, mode="r"))  # a map cannot be larger than its file
    except (OSError, MemoryError):
        raise
    except Exception:  # numpy parses the header as Python, and has no list of what that raises
        raise ValueError(f"{file.name} is not an array") from None
