"""Token ids on disk: each text is encoded once, into memory-mapped files keyed by data fingerprint and tokenizer.

A folder of the cache appears whole or not at all. The files are plain numpy arrays; nothing here knows a model.
"""

import contextlib
import errno
import hashlib
import io
import itertools
import json
import mmap
import os
import shutil
import tempfile
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from reviewgen.conditions import Conditions
from reviewgen.config import to_dict
from reviewgen.data.corpus import SPLITS, Corpus
from reviewgen.errors import storage_errors
from reviewgen.protocols import SupportsEncodeBatch, Tokenizer

__all__ = ["TokenStore", "cache_folder", "digest_tokenizer", "frame_texts", "tokenize", "workspace"]

_ENCODE_BATCH = 1024  # texts at a time
_HIDDEN = 0.1  # share of the training texts in which a condition is hidden, so that a model learns to write without it, too
_MANIFEST = "manifest.json"
_STALE_SECONDS = 24 * 3600.0


def cache_folder() -> Path:
    """Return the folder of the token cache: ``$REVIEWGEN_CACHE``, else ``reviewgen`` in the user's cache folder."""
    named = os.environ.get("REVIEWGEN_CACHE")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reviewgen"


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    """Yield a folder for a run's temporary files, inside the cache folder; what dead runs left there for a day goes.

    Raises:
        StorageError: The cache folder cannot be written.
    """
    root = cache_folder()
    with storage_errors(f"the cache folder {root} (REVIEWGEN_CACHE names another)"):
        if root.is_file():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        root.mkdir(parents=True, exist_ok=True)
        for left in root.glob("tmp-*"):
            with contextlib.suppress(FileNotFoundError):  # another run was first
                if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                    shutil.rmtree(left, ignore_errors=True)
        folder = tempfile.mkdtemp(prefix="tmp-", dir=root)
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


Prefixed: TypeAlias = tuple[str, Sequence[int]]
"""A text, and the ids of its conditions."""


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

    def forget(self) -> None:
        """Give the pages that were read back to the system, so that memory does not grow with the file."""
        if self._map is not None and hasattr(self._map, "madvise"):  # Windows has none
            self._map.madvise(mmap.MADV_DONTNEED)


def _map(file: Path) -> mmap.mmap | None:
    with file.open("rb") as stream:
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) if file.stat().st_size else None


def tokenize(
    corpus: Corpus,
    kind: Any,
    config: Any,
    identity: str,
    scratch: Path,
    conditions: Conditions | None = None,
    trained: Tokenizer | None = None,
) -> tuple[Tokenizer, dict[str, TokenStore]]:
    """Return the tokenizer trained on a corpus and the corpus as ids, from the cache where they are there already.

    Args:
        corpus: The texts.
        kind: The tokenizer class.
        config: Its config.
        identity: What tells this tokenizer from others (name, package, version).
        scratch: A folder on the cache's file system.
        conditions: What the values beside the texts stand for; their ids are put behind the tokenizer's.
        trained: A tokenizer that is there already, to be used as it is.

    Raises:
        StorageError: The cache has no room.
    """
    if trained is not None:
        identity = f"{identity} {digest_tokenizer(trained)}"
    settings = json.dumps([identity, to_dict(config), *(conditions.to_json() if conditions else ())], sort_keys=True)
    key = hashlib.blake2b(settings.encode(), digest_size=8).hexdigest()
    home = cache_folder() / f"{corpus.fingerprint}-{key}"
    with storage_errors(f"the token cache {home}"):
        if home.exists() and not _is_whole(home):
            shutil.rmtree(home)  # damaged, or of a machine that lost its power; it is written again
        if not home.exists():
            tokenizer = kind.train(corpus.texts("train"), config) if trained is None else trained
            _fill(scratch / "tokens", corpus, tokenizer, conditions or Conditions())
            _publish(scratch / "tokens", home)
    return kind.load(home / "tokenizer"), {split: TokenStore(home, split) for split in SPLITS}


def digest_tokenizer(tokenizer: Tokenizer) -> str:
    """Return what tells a trained tokenizer from others: SHA-256 of the files that it saves."""
    with tempfile.TemporaryDirectory(prefix="reviewgen-") as name:
        tokenizer.save(Path(name))
        files = sorted(Path(name).iterdir())
        digests = [f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n" for file in files]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _is_whole(home: Path) -> bool:
    """Return whether the files of a cache folder are there in the sizes that were written."""
    try:
        return bool(json.loads((home / _MANIFEST).read_text(encoding="utf-8")) == _sizes(home))
    except (OSError, ValueError):
        return False


def _sizes(folder: Path) -> dict[str, int]:
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != _MANIFEST)
    return {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}


def store(rows: Iterable[Prefixed], tokenizer: Tokenizer, folder: Path, split: str, vocab_size: int) -> TokenStore:
    """Encode texts into a folder as one split, and return it; ``vocab_size`` counts the ids of their conditions too."""
    dtype = np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)
    offsets, characters, conditions = array("q", [0]), array("q"), array("q")
    width = 0
    with (folder / f"{split}.{dtype.name}").open("wb") as file:
        for (text, prefix), ids in _encode_rows(rows, tokenizer):
            framed = np.concatenate(([tokenizer.bos_id], ids, [tokenizer.eos_id]))
            file.write(framed.astype(dtype).tobytes())
            offsets.append(offsets[-1] + len(framed))
            characters.append(len(text))
            conditions.extend(prefix)
            width = len(prefix)
    characters.append(0)
    _save(folder / f"{split}.index.npy", np.stack((np.frombuffer(offsets, np.int64), np.frombuffer(characters, np.int64))))
    if width:
        _save(folder / f"{split}.conditions.npy", np.frombuffer(conditions, np.int64).astype(dtype).reshape(-1, width))
    return TokenStore(folder, split)


def _save(file: Path, values: np.ndarray) -> None:
    buffer = io.BytesIO()  # np.save into a file keeps the cause, a full disk, to itself
    np.save(buffer, values)
    file.write_bytes(buffer.getbuffer())


def frame_texts(rows: Iterable[Prefixed], tokenizer: Tokenizer) -> Iterator[tuple[np.ndarray, int]]:
    """Yield each text's ids, bos and its conditions before them and eos behind, and its number of characters."""
    for (text, prefix), ids in _encode_rows(rows, tokenizer):
        yield np.concatenate(([tokenizer.bos_id, *prefix], ids, [tokenizer.eos_id])), len(text)


def _encode_rows(rows: Iterable[Prefixed], tokenizer: Tokenizer) -> Iterator[tuple[Prefixed, np.ndarray]]:
    """Yield each text and its conditions, and the ids of the text."""
    iterator = iter(rows)
    while chunk := list(itertools.islice(iterator, _ENCODE_BATCH)):
        for row, ids in zip(chunk, _encode_batch(tokenizer, [text for text, _ in chunk]), strict=True):
            yield row, np.asarray(ids, np.int64)


def _encode_batch(tokenizer: Tokenizer, texts: Sequence[str]) -> Sequence[Sequence[int] | np.ndarray]:
    """Encode many texts, at once where the tokenizer can."""
    if isinstance(tokenizer, SupportsEncodeBatch):
        return tokenizer.encode_batch(texts)
    return [tokenizer.encode(text) for text in texts]


def _fill(folder: Path, corpus: Corpus, tokenizer: Tokenizer, conditions: Conditions) -> None:
    (folder / "tokenizer").mkdir(parents=True)
    tokenizer.save(folder / "tokenizer")
    placed = conditions.behind(tokenizer.vocab_size)
    for split in SPLITS:
        store(_prefix(corpus, placed, split), tokenizer, folder, split, placed.vocab_size)


def _prefix(corpus: Corpus, conditions: Conditions, split: str) -> Iterator[Prefixed]:
    """Yield the texts of a split and the ids of their conditions, of which some are hidden in training texts."""
    if not conditions:
        yield from ((text, ()) for text in corpus.texts(split))
        return
    random, share = np.random.default_rng(0), _HIDDEN if split == "train" else 0.0
    for text, values in corpus.rows(split):
        is_hidden = random.random(len(conditions)) < share
        yield text, np.where(is_hidden, conditions.any_ids, conditions.encode_row(values)).tolist()


def _publish(folder: Path, home: Path) -> None:
    """Give a finished folder its name; another run may have been first, with the same content."""
    (folder / _MANIFEST).write_text(json.dumps(_sizes(folder)), encoding="utf-8")
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
    try:
        folder.rename(home)
    except OSError:
        if not home.exists():
            raise
