"""The token cache: a corpus is encoded once, into a folder named after its fingerprint, the tokenizer and the conditions.

A folder of the cache is a token store, see ``store_folder``; it appears complete or not at all. Knows no model.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reviewgen.conditions import Conditions
from reviewgen.config import to_dict
from reviewgen.data.corpus import Corpus
from reviewgen.data.encoding import encode_corpus
from reviewgen.data.store import TokenStore
from reviewgen.data.store_folder import StoreFolder, digest_files, write_store_file
from reviewgen.errors import DataError, StorageError, storage_errors
from reviewgen.protocols import Tokenizer
from reviewgen.scratch import NEW, remove_abandoned, scratch_folder, temporary_folder
from reviewgen.storage import publish

__all__ = ["WORKSPACE", "cache_folder", "digest_tokenizer", "tokenize", "workspace"]

WORKSPACE = "tmp-"
"""How the names of temporary folders in the cache begin."""


def cache_folder() -> Path:
    """Return the folder of the token cache: ``$REVIEWGEN_CACHE`` if set, else ``reviewgen`` in the user's cache folder.

    Raises:
        StorageError: The user has no home folder, as in some containers.
    """
    configured = os.environ.get("REVIEWGEN_CACHE")
    try:
        if configured:
            return Path(configured).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reviewgen"
    except RuntimeError:  # pathlib's, for HOME unset and a user without an entry in the system's list
        raise StorageError(
            "The cache has no place: this user has no home folder. Set REVIEWGEN_CACHE to a folder that can be written."
        ) from None


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    """Yield a temporary folder inside the cache folder and remove it afterwards.

    Those of killed runs are removed first.

    Raises:
        StorageError: The cache folder cannot be written.
    """
    root = cache_folder()
    with storage_errors(f"the cache folder {root} (set REVIEWGEN_CACHE to use another)"):
        if root.is_file():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        root.mkdir(parents=True, exist_ok=True)
        remove_abandoned(root, WORKSPACE)
        stack = contextlib.ExitStack()
        folder = stack.enter_context(scratch_folder(root, WORKSPACE)) / NEW
        folder.mkdir()
    with stack:
        yield folder


def tokenize(
    corpus: Corpus,
    kind: Any,
    config: Any,
    identity: str,
    scratch: Path,
    *,
    conditions: Conditions | None = None,
    trained: Tokenizer | None = None,
) -> tuple[Tokenizer, dict[str, TokenStore]]:
    """Train a tokenizer on a corpus and encode the corpus, or load both from the cache.

    Args:
        corpus: The texts.
        kind: The tokenizer class.
        config: The tokenizer's config.
        identity: The tokenizer's name, package and version; part of the cache key.
        scratch: A temporary folder on the cache's file system; see ``workspace``.
        conditions: The conditions of the texts; their ids follow the tokenizer's.
        trained: A trained tokenizer to use instead of training one.

    Returns:
        The tokenizer, and the token store of each split.

    Raises:
        StorageError: The disk of the cache is full, or it cannot be written.
        WorkerError: A worker process failed or was killed.
    """
    if trained is not None:
        identity = f"{identity} {digest_tokenizer(trained)}"
    settings = json.dumps([identity, to_dict(config), *(conditions.to_json() if conditions else ())], sort_keys=True)
    key = hashlib.blake2b(settings.encode(), digest_size=8).hexdigest()
    folder = cache_folder() / f"{corpus.fingerprint}-{key}"
    with storage_errors(f"the token cache {folder}"):
        if folder.exists() and not _is_complete(folder):
            shutil.rmtree(folder)  # damaged, as by a power failure; it is written again
        if not folder.exists():
            tokenizer = kind.train(corpus.texts("train"), config) if trained is None else trained
            encode_corpus(scratch / "tokens", corpus, tokenizer, conditions or Conditions())
            _publish(scratch / "tokens", folder)
    return kind.load(folder / "tokenizer"), StoreFolder.read(folder).splits()


def digest_tokenizer(tokenizer: Tokenizer) -> str:
    """Return a SHA-256 digest of a trained tokenizer, from the files that it saves."""
    with temporary_folder() as folder:
        tokenizer.save(folder)
        files = sorted(folder.iterdir())
        digests = [f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n" for file in files]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _is_complete(folder: Path) -> bool:
    """Return whether a cache folder has all files of its ``store.json``, in the sizes that were written."""
    try:
        StoreFolder.read(folder)
    except (OSError, DataError):
        return False
    return True


def _publish(finished: Path, folder: Path) -> None:
    """Move a finished folder to its name in the cache, unless another run has done so with the same content."""
    write_store_file(finished, ["."], digest_files(finished))
    try:
        publish(finished, folder)
    except OSError:
        if not folder.exists():
            raise
