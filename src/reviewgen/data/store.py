"""The token ids of a corpus in memory-mapped files: the texts of a split one after another, each framed by bos and eos.

The files of a split are ``SPLIT.uint16`` or ``SPLIT.uint32``, ``SPLIT.index.npy`` and, if there are conditions,
``SPLIT.conditions.npy``. They stand in one folder, or in several, the shards, whose texts follow one another.
"""

import copy
import io
import itertools
import mmap
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np

from reviewgen.data.store_arrays import find_ids, map_file, read_conditions, read_index, view_ids
from reviewgen.errors import DataError
from reviewgen.protocols import SupportsEncodeBatch, Tokenizer

__all__ = ["PrefixedText", "TokenStore", "frame_texts", "merge_stores", "save_array", "write_conditions", "write_split"]

_BLOCK_TOKENS = 1 << 22  # about, in one block
_ENCODE_TEXTS = 1024  # encoded at a time

PrefixedText: TypeAlias = tuple[str, Sequence[int]]
"""A text and the ids of its conditions."""

T = TypeVar("T")


class TokenStore:
    """The texts of one split as token ids, each framed by bos and eos, in memory-mapped files.

    The ids of the conditions are stored separately and inserted after bos when a text is read.

    Args:
        folders: The folder of the files, or several, in order.
        split: "train", "validation" or "test".

    Attributes:
        offsets: Where each text starts in the ids of all texts, and where the last one ends, (texts + 1,).
        characters: The number of characters of each text, (texts,).
        conditions: The ids of the conditions of each text, (texts, C); None if there are no conditions.

    Raises:
        ValueError: The arrays are damaged, or do not fit one another; whether the ids are in a vocabulary is not checked.
    """

    def __init__(self, folders: Path | Sequence[Path], split: str) -> None:
        folders = [folders] if isinstance(folders, Path) else folders
        files = [find_ids(folder, split) for folder in folders]
        self._maps = [map_file(file) for file in files]
        self._shards = [view_ids(mapped, file) for mapped, file in zip(self._maps, files, strict=True)]
        paired = zip(folders, self._shards, strict=True)
        indexes = [read_index(folder / f"{split}.index.npy", ids) for folder, ids in paired]
        self._edges = np.cumsum([0, *map(len, self._shards)])  # (shards + 1,) where each shard starts
        self.offsets: np.ndarray = np.concatenate([[0], *(i[0, 1:] + at for i, at in zip(indexes, self._edges, strict=False))])
        self.characters: np.ndarray = np.concatenate([index[1, :-1] for index in indexes])  # (texts,)
        texts = [index.shape[1] - 1 for index in indexes]
        self.conditions = read_conditions([folder / f"{split}.conditions.npy" for folder in folders], texts)  # (texts, C)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def ids(self) -> np.ndarray:
        """The ids of all texts, without conditions, (N,) uint16 or uint32; a copy if there are several shards."""
        return self._shards[0] if len(self._shards) == 1 else np.concatenate(self._shards)

    @property
    def tokens(self) -> int:
        """The number of ids, including bos, conditions and eos."""
        return int(self.lengths.sum())

    @property
    def lengths(self) -> np.ndarray:
        """The number of ids of each text, including bos, conditions and eos, (texts,)."""
        return np.diff(self.offsets) + (0 if self.conditions is None else self.conditions.shape[1])

    def document(self, number: int) -> np.ndarray:
        """Return the ids of one text: bos, conditions, tokens, eos."""
        ids = self.ids_between(int(self.offsets[number]), int(self.offsets[number + 1]))
        return ids if self.conditions is None else np.concatenate((ids[:1], self.conditions[number], ids[1:]))

    def documents(self) -> Iterator[tuple[np.ndarray, int]]:
        """Yield the ids and the number of characters of each text."""
        for number in range(len(self)):
            yield self.document(number), int(self.characters[number])

    def head(self, tokens: int) -> "TokenStore":
        """Return a view of the first texts, with about ``tokens`` ids; at least one text."""
        count = max(1, int(self.offsets.searchsorted(tokens, side="right")) - 1)
        part = copy.copy(self)
        part.offsets, part.characters = self.offsets[: count + 1], self.characters[:count]
        part.conditions = None if self.conditions is None else self.conditions[:count]
        return part

    @property
    def blocks(self) -> "Blocks":
        """The ids without conditions, in blocks of whole texts; can be iterated over more than once."""
        return Blocks(self)

    def ids_between(self, start: int, stop: int) -> np.ndarray:
        """Return the ids of whole texts of one shard, from one offset to another."""
        if len(self._shards) == 1:
            return self._shards[0][start:stop]
        shard = int(self._edges.searchsorted(start, side="right")) - 1
        first = int(self._edges[shard])
        return self._shards[shard][start - first : stop - first]

    def shard_end(self, start: int) -> int:
        """Return where the shard ends that has a text which starts at an offset."""
        return int(self._edges[self._edges.searchsorted(start, side="right")])

    def release_pages(self) -> None:
        """Release the files' pages from memory; they are read again when needed."""
        for map_ in self._maps:
            if map_ is not None and hasattr(map_, "madvise"):  # not on Windows
                map_.madvise(mmap.MADV_DONTNEED)


class Blocks:
    """A store's ids (N,) in blocks of whole texts of a shard; pages are released after each block, so memory stays bounded."""

    def __init__(self, store: TokenStore) -> None:
        self._store = store

    def __iter__(self) -> Iterator[np.ndarray]:
        offsets, first = self._store.offsets, 0
        while first < len(self._store):
            start = int(offsets[first])
            stop = min(start + _BLOCK_TOKENS, self._store.shard_end(start))
            last = max(first + 1, int(offsets.searchsorted(stop, side="right")) - 1)
            yield self._store.ids_between(start, int(offsets[last]))
            self._store.release_pages()
            first = last


class _SplitWriter:
    """Writes the files of one split."""

    def __init__(self, folder: Path, split: str, vocab_size: int) -> None:
        self._folder, self._split = folder, split
        self._dtype = dtype_of(vocab_size)
        self._file = (folder / f"{split}.{self._dtype.name}").open("wb")
        self._lengths, self._characters = array("q"), array("q")

    def __enter__(self) -> "_SplitWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def encode(self, texts: Sequence[str], tokenizer: Tokenizer) -> None:
        """Encode texts and write their ids.

        Raises:
            DataError: Some ids are outside the vocabulary.
        """
        encoded = _encode_texts(tokenizer, texts)
        bos, eos = np.array([[tokenizer.bos_id], [tokenizer.eos_id]], self._dtype)
        arrays = (ids if isinstance(ids, np.ndarray) else np.array(ids, np.int64) for ids in encoded)
        whole = np.concatenate([part for ids in arrays for part in (bos, ids, eos)])
        if not 0 <= (first := whole.min()) <= (last := whole.max()) < tokenizer.vocab_size:
            wrong = first if first < 0 else last
            raise DataError(f"The tokenizer gives the id {wrong}; its vocabulary has 0 to {tokenizer.vocab_size - 1}.")
        self._file.write(whole.astype(self._dtype, copy=False).data)
        self._lengths.extend(len(ids) + 2 for ids in encoded)
        self._characters.extend(map(len, texts))

    def copy(self, part: TokenStore) -> None:
        """Copy the ids of another store."""
        self._file.write(part.ids.data)
        self._lengths.frombytes(np.diff(part.offsets).tobytes())
        self._characters.frombytes(part.characters.tobytes())

    def finish(self) -> None:
        """Write the index; call it after the last text."""
        self._file.flush()
        index = np.zeros((2, len(self._lengths) + 1), np.int64)
        np.cumsum(np.frombuffer(self._lengths, np.int64), out=index[0, 1:])
        index[1, :-1] = np.frombuffer(self._characters, np.int64)
        save_array(self._folder / f"{self._split}.index.npy", index)


def dtype_of(vocab_size: int) -> np.dtype:
    """Return the dtype of the ids in the files."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


def write_split(texts: Iterable[str], tokenizer: Tokenizer, folder: Path, split: str, vocab_size: int) -> TokenStore:
    """Encode texts, write them as one split and return its store.

    Args:
        texts: The texts.
        tokenizer: The tokenizer that encodes them.
        folder: The folder to write to.
        split: The name of the split.
        vocab_size: The number of ids, including those of conditions; decides the dtype.
    """
    with _SplitWriter(folder, split, vocab_size) as writer:
        for chunk in _chunks(texts):
            writer.encode(chunk, tokenizer)
        writer.finish()
    return TokenStore(folder, split)


def merge_stores(parts: Iterable[Path], folder: Path, splits: Sequence[str], vocab_size: int) -> None:
    """Concatenate the stores of several folders, split by split, into one folder."""
    with ExitStack() as stack:
        writers = {split: stack.enter_context(_SplitWriter(folder, split, vocab_size)) for split in splits}
        for part in parts:
            for split, writer in writers.items():
                writer.copy(TokenStore(part, split))
        for writer in writers.values():
            writer.finish()


def write_conditions(prefixes: Iterable[Sequence[int]], width: int, folder: Path, split: str, vocab_size: int) -> None:
    """Write the ids of the conditions of a split's texts, ``width`` ids per text."""
    ids = np.fromiter(itertools.chain.from_iterable(prefixes), dtype_of(vocab_size))
    save_array(folder / f"{split}.conditions.npy", ids.reshape(-1, width))


def save_array(file: Path, values: np.ndarray) -> None:
    """Write an array in numpy's format.

    Raises:
        OSError: The disk is full.
    """
    buffer = io.BytesIO()  # np.save into a file hides the cause of an error, such as a full disk
    np.save(buffer, values)
    file.write_bytes(buffer.getbuffer())


def frame_texts(texts: Iterable[PrefixedText], tokenizer: Tokenizer) -> Iterator[tuple[np.ndarray, int]]:
    """Encode texts; yield the ids of each (bos, conditions, tokens, eos) and its number of characters."""
    for chunk in _chunks(texts):
        for (text, prefix), ids in zip(chunk, _encode_texts(tokenizer, [text for text, _ in chunk]), strict=True):
            yield np.concatenate(([tokenizer.bos_id, *prefix], np.asarray(ids, np.int64), [tokenizer.eos_id])), len(text)


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, _ENCODE_TEXTS)):
        yield chunk


def _encode_texts(tokenizer: Tokenizer, texts: Sequence[str]) -> Sequence[Sequence[int] | np.ndarray]:
    """Encode texts, with ``encode_batch`` if the tokenizer has it."""
    if isinstance(tokenizer, SupportsEncodeBatch):
        return tokenizer.encode_batch(texts)
    return [tokenizer.encode(text) for text in texts]
