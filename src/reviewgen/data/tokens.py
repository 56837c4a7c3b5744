"""Token ids on disk: a token store is a folder with a tokenizer, the ids of a corpus in
memory-mapped shards, and ``store.json``.

A shard is a folder with these files for each split:

    SPLIT.uint16 or SPLIT.uint32   the ids of all texts, one after another, each between bos and eos
    SPLIT.index.npy                where each text begins, and its number of characters
    SPLIT.conditions.npy           the ids of categories and numbers, if there are conditions
    SPLIT.fields.npy               the ids of fields, one text after another, if there are fields
    SPLIT.fields.index.npy         where the field ids of each text begin

``store.json`` has the names of the shards, the size and SHA-256 of each file, and the facts that a
training needs. If the corpus was joined from several corpora with weights, it also lists the shards
in the order in which a training reads them. Some are listed several times, followed by the folders
``rest``, whose texts are read once more.
"""

import copy
import functools
import itertools
import mmap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from reviewgen.conditions import Conditions
from reviewgen.config.bounded import parse_json
from reviewgen.data.documents import batched
from reviewgen.data.open import SPLITS
from reviewgen.errors import DataError, first_line
from reviewgen.protocols.tokenizer import SupportsEncodeBatch, Tokenizer
from reviewgen.storage import digest_of, save_array

STORE_FILE = "store.json"
FORMAT = 1
_DTYPES = ("uint16", "uint32")
_BLOCK_TOKENS = 1 << 22  # max ids of a block of several texts

PrefixedText: TypeAlias = tuple[str, Sequence[int]]
"""A text, and the ids of its conditions and fields."""


class Tokens:
    """The texts of one split as token ids, each between bos and eos, in memory-mapped files.

    The ids of the conditions and fields are stored separately and inserted after bos when a text is
    read.

    Args:
        folders: The folder of the files, or several folders in order. A folder may be listed
            several times; its texts are then read several times.
        split: "train", "validation" or "test".

    Attributes:
        offsets: The index at which each text starts in the ids of all texts, and the end of the
            last text, (texts + 1,).
        characters: The number of characters of each text, (texts,).
        conditions: The ids of the categories and numbers of each text, (texts, C); None if there
            are no conditions.
        fields: The ids of the fields of all texts, one after another; None if there are no fields.
        given: The number of condition and field ids between bos and the tokens of each text,
            (texts,).

    Raises:
        ValueError: The arrays are damaged, or do not fit one another.
        OSError: A file is missing.
    """

    def __init__(self, folders: Path | Sequence[Path], split: str) -> None:
        folders = [folders] if isinstance(folders, Path) else folders
        # each folder has the file of one dtype
        pairs = itertools.product(folders, _DTYPES)
        possible = [folder / f"{split}.{dtype}" for folder, dtype in pairs]
        files = [file for file in possible if file.is_file()]
        # a folder that is listed several times is mapped once
        self._maps = {file: _map(file) for file in dict.fromkeys(files)}
        # the suffix of a file is the dtype of its ids
        self._shards = [np.frombuffer(self._maps[file] or b"", file.suffix[1:]) for file in files]
        load = functools.cache(np.load)  # loads each file once, too

        def load_all(suffix: str) -> list[np.ndarray]:
            """Return the arrays of the files with a suffix, from each folder that has one."""
            paths = [folder / f"{split}.{suffix}.npy" for folder in folders]
            return [load(path) for path in paths if path.is_file()]

        # Each index is (2, texts + 1). Row 0: the index at which each text starts, and the end of
        # the last text. Row 1: the number of characters of each text, and an unused 0.
        indexes = [load(folder / f"{split}.index.npy") for folder in folders]
        if [index[0, -1] for index in indexes] != [len(ids) for ids in self._shards]:
            raise ValueError(f"the index of {split} does not fit its ids")
        # (shards + 1,): the offset at which each shard starts, then the end of the last shard
        self._edges = np.cumsum([0, *map(len, self._shards)])
        ends = [index[0, 1:] + edge for index, edge in zip(indexes, self._edges, strict=False)]
        self.offsets: np.ndarray = np.concatenate([[0], *ends])
        self.characters: np.ndarray = np.concatenate([index[1, :-1] for index in indexes])
        self.conditions: np.ndarray | None = None
        self.fields: np.ndarray | None = None
        self.given: np.ndarray = np.zeros(len(self.characters), np.int64)
        if conditions := load_all("conditions"):
            self.conditions = np.concatenate(conditions)
            self.given += self.conditions.shape[1]
        if fields := load_all("fields"):
            self.fields = np.concatenate(fields)
            lengths = np.concatenate([np.diff(edges) for edges in load_all("fields.index")])
            # (texts + 1,): where the field ids of each text start, and the end of the last
            self._fields_from: np.ndarray = np.cumsum([0, *lengths])
            self.given += lengths

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def ids(self) -> np.ndarray:
        """The ids of all texts, without conditions, (N,) uint16 or uint32; a copy if there are
        several shards.
        """
        return self._shards[0] if len(self._shards) == 1 else np.concatenate(self._shards)

    @property
    def count(self) -> int:
        """The number of ids, including bos, conditions, fields and eos."""
        return int(self.lengths.sum())

    @property
    def lengths(self) -> np.ndarray:
        """The number of ids of each text, including bos, conditions, fields and eos, (texts,)."""
        lengths: np.ndarray = np.diff(self.offsets) + self.given
        return lengths

    def document(self, number: int) -> np.ndarray:
        """Return the ids of one text: bos, conditions, fields, tokens, eos."""
        ids = self.ids_between(int(self.offsets[number]), int(self.offsets[number + 1]))
        if self.conditions is None:
            return ids
        prefix = [ids[:1], self.conditions[number]]
        if self.fields is not None:
            start, stop = self._fields_from[number : number + 2]
            prefix.append(self.fields[start:stop])
        return np.concatenate([*prefix, ids[1:]])

    def documents(self) -> Iterator[tuple[np.ndarray, int]]:
        """Yield the ids and the number of characters of each text."""
        for number in range(len(self)):
            yield self.document(number), int(self.characters[number])

    def head(self, count: int) -> "Tokens":
        """Return the first texts, without copying them: as many as have up to ``count`` ids in all
        (conditions and fields not counted), but at least one.
        """
        texts = max(1, int(self.offsets.searchsorted(count, side="right")) - 1)
        part = copy.copy(self)
        part.offsets = self.offsets[: texts + 1]
        part.characters = self.characters[:texts]
        part.conditions = None if self.conditions is None else self.conditions[:texts]
        part.given = self.given[:texts]
        return part

    @property
    def blocks(self) -> "Blocks":
        """The ids without conditions, in blocks of whole texts; it can be iterated over several
        times.
        """
        return Blocks(self)

    def ids_between(self, start: int, stop: int) -> np.ndarray:
        """Return the ids between two offsets, which must be in the same shard."""
        if len(self._shards) == 1:
            return self._shards[0][start:stop]
        shard = int(self._edges.searchsorted(start, side="right")) - 1
        first = int(self._edges[shard])
        return self._shards[shard][start - first : stop - first]

    def shard_end(self, start: int) -> int:
        """Return the offset at which the shard that contains the offset ``start`` ends."""
        return int(self._edges[self._edges.searchsorted(start, side="right")])

    def release_pages(self) -> None:
        """Release the files' pages from memory; they are read again when needed."""
        for map_ in self._maps.values():
            if map_ is not None and hasattr(map_, "madvise"):  # not on Windows
                map_.madvise(mmap.MADV_DONTNEED)


class Blocks:
    """Iterates over the ids of a split in blocks, (N,) each. A block has whole texts of one shard.

    Memory pages are released after each block, so memory stays bounded.
    """

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def __iter__(self) -> Iterator[np.ndarray]:
        offsets = self._tokens.offsets
        first = 0
        while first < len(self._tokens):
            start = int(offsets[first])
            stop = min(start + _BLOCK_TOKENS, self._tokens.shard_end(start))
            # the number of the first text after the block, which has at least one text
            end = max(first + 1, int(offsets.searchsorted(stop, side="right")) - 1)
            yield self._tokens.ids_between(start, int(offsets[end]))
            self._tokens.release_pages()
            first = end


def _map(file: Path) -> mmap.mmap | None:
    """Return the memory map of a file; None for an empty file, which cannot be mapped."""
    with file.open("rb") as stream:
        if not file.stat().st_size:
            return None
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)


def dtype_of(vocab_size: int) -> np.dtype:
    """Return the dtype of ids in the files of a store, the smallest that holds the vocabulary."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


def write_texts(
    texts: Iterable[str], tokenizer: Tokenizer, folder: Path, split: str, vocab_size: int
) -> None:
    """Encode texts and write them as one split of a shard.

    Args:
        texts: The texts.
        tokenizer: The tokenizer that encodes them.
        folder: The folder of the shard.
        split: The name of the split.
        vocab_size: The number of ids, including those of conditions; it determines the dtype.

    Raises:
        DataError: Some ids are outside the vocabulary.
    """
    dtype = dtype_of(vocab_size)
    lengths = [0]  # so that the sums of lengths begin with 0, where the first text starts
    characters: list[int] = []
    bos = np.array([tokenizer.bos_id], dtype)
    eos = np.array([tokenizer.eos_id], dtype)
    with (folder / f"{split}.{dtype.name}").open("wb") as file:
        for chunk in batched(texts):
            framed: list[np.ndarray] = []
            for ids in encode_texts(tokenizer, chunk):
                framed += [
                    bos,
                    ids if isinstance(ids, np.ndarray) else np.array(ids, np.int64),
                    eos,
                ]
                lengths.append(len(ids) + 2)
            whole = np.concatenate(framed)
            smallest = whole.min()
            largest = whole.max()
            if smallest < 0 or largest >= tokenizer.vocab_size:
                raise DataError(
                    f"The tokenizer gives the id {smallest if smallest < 0 else largest}; its"
                    f" vocabulary has 0 to {tokenizer.vocab_size - 1}."
                )
            file.write(whole.astype(dtype, copy=False).data)
            characters += map(len, chunk)
    # (2, texts + 1), as ``Tokens`` reads it
    index = np.stack([np.cumsum(lengths, dtype=np.int64), np.array([*characters, 0], np.int64)])
    save_array(folder / f"{split}.index.npy", index)


def encode_texts(
    tokenizer: Tokenizer, texts: Sequence[str]
) -> Sequence[Sequence[int] | np.ndarray]:
    """Encode texts to token ids, with ``encode_batch`` if the tokenizer has it."""
    if isinstance(tokenizer, SupportsEncodeBatch):
        return tokenizer.encode_batch(texts)
    return list(map(tokenizer.encode, texts))


def frame_texts(
    texts: Iterable[PrefixedText], tokenizer: Tokenizer
) -> Iterator[tuple[np.ndarray, int]]:
    """Encode texts; yield the ids of each (bos, conditions and fields, tokens, eos) and its number
    of characters.
    """
    for chunk in batched(texts):
        encoded = encode_texts(tokenizer, [text for text, _ in chunk])
        for (text, prefix), ids in zip(chunk, encoded, strict=True):
            framed = [tokenizer.bos_id, *prefix], np.asarray(ids, np.int64), [tokenizer.eos_id]
            yield np.concatenate(framed), len(text)


def count_given(ids: np.ndarray, vocab_size: int) -> int:
    """Return the number of condition and field ids after bos.

    They end with the last id that is outside the tokenizer's vocabulary, ``vocab_size`` or more.
    """
    positions = np.flatnonzero(ids >= vocab_size)
    # bos has position 0, so the position of the last of these ids is their number
    return int(positions[-1]) if len(positions) else 0


def tokens_of(ids: np.ndarray, vocab_size: int) -> np.ndarray:
    """Return the ids of the text itself, without bos, conditions, fields and eos."""
    return ids[1 + count_given(ids, vocab_size) : -1]


@dataclass(frozen=True)
class StoreFolder:
    """A token store.

    Attributes:
        folder: The folder; for a store behind a URL, it is in the cache.
        content: The content of ``store.json``.
        name: The path or URL that the user gave, for messages.
    """

    folder: Path
    content: Mapping[str, Any]
    name: str

    @classmethod
    def read(cls, folder: Path, name: str | None = None) -> "StoreFolder":
        """Read ``store.json`` and check that the files have the sizes listed there.

        Raises:
            DataError: The folder is not a token store, is of a newer version, or is damaged.
        """
        name = name or str(folder)
        store = cls(folder, parse_store((folder / STORE_FILE).read_bytes(), name), name)
        for file, facts in store.content["files"].items():
            if not (folder / file).is_file() or (folder / file).stat().st_size != facts["size"]:
                raise store._damaged(f"{file} is missing, or its size has changed")
        return store

    @property
    def facts(self) -> Mapping[str, Any]:
        """The facts of the corpus and the tokenizer that a training needs."""
        facts: Mapping[str, Any] = self.content["facts"]
        return facts

    @property
    def shards(self) -> list[Path]:
        """The folders of the shards."""
        return [self.folder / name for name in self.content["shards"]]

    def splits(self) -> dict[str, Tokens]:
        """Return the tokens of each split. A training text that is read several times in an epoch
        is several times in the split.

        Raises:
            DataError: The arrays are damaged, or do not fit one another.
        """
        names = self.content.get("train", self.content["shards"])
        read = dict.fromkeys(SPLITS, self.shards)
        read["train"] = [self.folder / name for name in names]
        try:
            return {split: Tokens(folders, split) for split, folders in read.items()}
        # the store was changed, or is being removed
        except (ValueError, IndexError, OSError) as error:
            raise self._damaged(first_line(error).rstrip(".")) from None

    def training_texts(self) -> Tokens:
        """Return the tokens of the training texts, each text once."""
        return Tokens(self.shards, "train")

    def check(self, splits: Mapping[str, Tokens], conditions: Conditions) -> None:
        """Raise unless all ids are in the vocabulary. This must be checked here, since compiled
        code does not check it.

        Args:
            splits: The tokens of each split.
            conditions: The conditions of the texts, with their ids.

        Raises:
            DataError: Some ids are not in the vocabulary.
        """
        for split, tokens in splits.items():
            largest = max((int(block.max()) for block in tokens.blocks if len(block)), default=0)
            is_damaged = largest >= conditions.first_id
            for given in (tokens.conditions, tokens.fields):
                if given is not None and given.size:
                    is_damaged = is_damaged or int(given.max()) >= conditions.vocab_size
            if is_damaged:
                raise self._damaged(f"the {split} texts have ids that are not in the vocabulary")

    def _damaged(self, problem: str) -> DataError:
        return DataError(f"The token store {self.name} is damaged: {problem}. Prepare it again.")


def parse_store(content: bytes, name: str) -> dict[str, Any]:
    """Parse and check a ``store.json``; all its files must be inside the folder.

    Raises:
        DataError: The content is not that of a token store, or is of a newer version.
    """
    try:
        parsed: dict[str, Any] = parse_json(content.decode("utf-8"))
        version = int(parsed["format"])
        names = map(Path, map(str, [*parsed["files"], *parsed["shards"], *parsed.get("train", ())]))
    except (ValueError, KeyError, TypeError):
        version = 0  # refused below, before ``names`` is used
    if version > FORMAT:
        raise DataError(
            f"The token store {name} is of a newer version of reviewgen (format {version}): update"
            " reviewgen."
        )
    if version != FORMAT or any(name.is_absolute() or ".." in name.parts for name in names):
        raise DataError(
            f"{name} is not a token store: its {STORE_FILE} is damaged. Prepare it again."
        )
    return parsed


def digest_file(file: Path) -> dict[str, Any]:
    """Return the size and digest of a file."""
    return {"size": file.stat().st_size, "sha256": digest_of(file)}
