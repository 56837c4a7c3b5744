"""Token ids on disk: each text is encoded once, into memory-mapped files keyed by data fingerprint and tokenizer.

A folder of the cache appears whole or not at all; nothing here knows a model.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reviewgen.conditions import Conditions
from reviewgen.config import to_dict
from reviewgen.data.corpus import SPLITS, Corpus
from reviewgen.data.encoding import fill
from reviewgen.data.store import TokenStore
from reviewgen.errors import storage_errors
from reviewgen.protocols import Tokenizer
from reviewgen.storage import publish

__all__ = ["cache_folder", "digest_tokenizer", "tokenize", "workspace"]

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
        WorkerError: A process that encodes was ended from outside.
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
            fill(scratch / "tokens", corpus, tokenizer, conditions or Conditions())
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


def _publish(folder: Path, home: Path) -> None:
    """Give a finished folder its name; another run may have been first, with the same content."""
    (folder / _MANIFEST).write_text(json.dumps(_sizes(folder)), encoding="utf-8")
    try:
        publish(folder, home)
    except OSError:
        if not home.exists():
            raise
