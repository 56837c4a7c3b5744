"""Token ids in files: the texts of a split one after the other, each framed by bos and eos, to be memory-mapped.

A split is ``SPLIT.uint16`` or ``SPLIT.uint32``, ``SPLIT.index.npy`` and, where texts have conditions, ``SPLIT.conditions.npy``.
"""

import io
import itertools
import mmap
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np

from reviewgen.protocols import SupportsEncodeBatch, Tokenizer

__all__ = ["Prefixed", "TokenStore", "frame_texts", "join", "save_conditions", "store"]

_BLOCK_TOKENS = 1 << 22  # in a block, about
_ENCODE_BATCH = 1024  # texts at a time

Prefixed: TypeAlias = tuple[str, Sequence[int]]
"""A text, and the ids of its conditions."""

T = TypeVar("T")


class TokenStore:
    """The texts of one split as token ids, framed by bos and eos, in a memory-mapped file; their conditions stand beside them."""

    def __init__(self, folder: Path, split: str) -> None:
        index = np.load(folder / f"{split}.index.npy")
        conditions = folder / f"{split}.conditions.npy"
        self.offsets: np.ndarray = index[0]  # (texts + 1,) where each text starts in the file
        self.characters: np.ndarray = index[1, :-1]  # (texts,) characters of each text
        self.conditions: np.ndarray | None = np.load(conditions) if conditions.exists() else None  # (texts, C) ids
        file = next(folder.glob(f"{split}.uint*"))  # its suffix is the dtype
        self._map = _map(file)
        self.ids: np.ndarray = np.frombuffer(self._map or b"", file.suffix[1:])

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def tokens(self) -> int:
        """The number of ids; bos, conditions and eos included."""
        return int(self.lengths.sum())

    @property
    def lengths(self) -> np.ndarray:
        """The number of ids of each text, (texts,); bos, conditions and eos included."""
        return np.diff(self.offsets) + (0 if self.conditions is None else self.conditions.shape[1])

    def document(self, number: int) -> np.ndarray:
        """Return one text's ids: bos, its conditions, its tokens, eos."""
        ids = self.ids[self.offsets[number] : self.offsets[number + 1]]
        return ids if self.conditions is None else np.concatenate((ids[:1], self.conditions[number], ids[1:]))

    def documents(self) -> Iterator[tuple[np.ndarray, int]]:
        """Yield each text's ids and its number of characters."""
        for number in range(len(self)):
            yield self.document(number), int(self.characters[number])

    @property
    def blocks(self) -> "Blocks":
        """The ids without conditions, some whole texts at a time, for whoever reads all of them once or more."""
        return Blocks(self)

    def release_pages(self) -> None:
        """Give the pages that were read back to the system, so that memory does not grow with the file."""
        if self._map is not None and hasattr(self._map, "madvise"):  # Windows has none
            self._map.madvise(mmap.MADV_DONTNEED)


def _map(file: Path) -> mmap.mmap | None:
    with file.open("rb") as stream:
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) if file.stat().st_size else None


class Blocks:
    """A store's ids (N,) in order, in pieces that end with a text; what was read is forgotten, so that memory stays bounded."""

    def __init__(self, store: TokenStore) -> None:
        self._store = store

    def __iter__(self) -> Iterator[np.ndarray]:
        offsets, first = self._store.offsets, 0
        while first < len(self._store):
            last = max(first + 1, int(offsets.searchsorted(offsets[first] + _BLOCK_TOKENS, side="right")) - 1)
            yield self._store.ids[offsets[first] : offsets[last]]
            self._store.release_pages()
            first = last


class _Writer:
    """The files of a split while they are written."""

    def __init__(self, folder: Path, split: str, vocab_size: int) -> None:
        self._folder, self._split = folder, split
        self._dtype = dtype_of(vocab_size)
        self._file = (folder / f"{split}.{self._dtype.name}").open("wb")
        self._lengths, self._characters = array("q"), array("q")

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def encode(self, texts: Sequence[str], tokenizer: Tokenizer) -> None:
        """Write texts."""
        encoded = _encode_batch(tokenizer, texts)
        framed = (part for ids in encoded for part in ([tokenizer.bos_id], ids, [tokenizer.eos_id]))
        self._file.write(np.concatenate(list(framed), dtype=self._dtype, casting="unsafe").data)
        self._lengths.extend(len(ids) + 2 for ids in encoded)
        self._characters.extend(map(len, texts))

    def copy(self, part: TokenStore) -> None:
        """Write the texts of another store."""
        self._file.write(part.ids.data)
        self._lengths.frombytes(np.diff(part.offsets).tobytes())
        self._characters.frombytes(part.characters.tobytes())

    def finish(self) -> None:
        """Write the index."""
        self._file.flush()
        index = np.zeros((2, len(self._lengths) + 1), np.int64)
        np.cumsum(np.frombuffer(self._lengths, np.int64), out=index[0, 1:])
        index[1, :-1] = np.frombuffer(self._characters, np.int64)
        _save(self._folder / f"{self._split}.index.npy", index)


def dtype_of(vocab_size: int) -> np.dtype:
    """Return the type of an id in the files."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


def store(texts: Iterable[str], tokenizer: Tokenizer, folder: Path, split: str, vocab_size: int) -> TokenStore:
    """Encode texts into a folder as one split, and return it; ``vocab_size`` counts the ids of their conditions too."""
    with _Writer(folder, split, vocab_size) as writer:
        for chunk in _chunks(texts):
            writer.encode(chunk, tokenizer)
        writer.finish()
    return TokenStore(folder, split)


def join(parts: Iterable[Path], folder: Path, splits: Sequence[str], vocab_size: int) -> None:
    """Put folders that hold the same splits together into one, in their order."""
    with ExitStack() as stack:
        writers = {split: stack.enter_context(_Writer(folder, split, vocab_size)) for split in splits}
        for part in parts:
            for split, writer in writers.items():
                writer.copy(TokenStore(part, split))
        for writer in writers.values():
            writer.finish()


def save_conditions(rows: Iterable[Sequence[int]], width: int, folder: Path, split: str, vocab_size: int) -> None:
    """Write the ids of the conditions of a split's texts, ``width`` ids a text."""
    ids = np.fromiter(itertools.chain.from_iterable(rows), dtype_of(vocab_size))
    _save(folder / f"{split}.conditions.npy", ids.reshape(-1, width))


def _save(file: Path, values: np.ndarray) -> None:
    buffer = io.BytesIO()  # np.save into a file keeps the cause, a full disk, to itself
    np.save(buffer, values)
    file.write_bytes(buffer.getbuffer())


def frame_texts(rows: Iterable[Prefixed], tokenizer: Tokenizer) -> Iterator[tuple[np.ndarray, int]]:
    """Yield each text's ids, bos and its conditions before them and eos behind, and its number of characters."""
    for chunk in _chunks(rows):
        for (text, prefix), ids in zip(chunk, _encode_batch(tokenizer, [text for text, _ in chunk]), strict=True):
            yield np.concatenate(([tokenizer.bos_id, *prefix], np.asarray(ids, np.int64), [tokenizer.eos_id])), len(text)


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, _ENCODE_BATCH)):
        yield chunk


def _encode_batch(tokenizer: Tokenizer, texts: Sequence[str]) -> Sequence[Sequence[int] | np.ndarray]:
    """Encode many texts, at once where the tokenizer can."""
    if isinstance(tokenizer, SupportsEncodeBatch):
        return tokenizer.encode_batch(texts)
    return [tokenizer.encode(text) for text in texts]
