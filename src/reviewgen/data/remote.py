"""Token stores behind URLs that fsspec reads: fetched into the token cache, once a machine, shard by shard; and written there.

Each file is checked against its digest. While a store is written, its ``store.json`` says so, and whose upload it is: the same
upload goes on after an interruption, and anything else at the URL is left alone.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reviewgen.config import MAX_RECORD
from reviewgen.data.cache import cache_folder
from reviewgen.data.file_systems import Remote, open_url
from reviewgen.data.store_folder import STORE_FILE, StoreFolder, digest_file, parse_store_file
from reviewgen.data.urls import is_pattern, is_url
from reviewgen.errors import DataError, storage_errors
from reviewgen.scratch import NEW, remove_abandoned, scratch_folder

__all__ = ["cached_folder", "fetch_store", "is_uploaded", "locate_store", "refuse_existing_url", "upload_store"]

_SCRATCH = "fetching-"
_UPLOADING = b'{"uploading": '  # how the store.json of an unfinished upload begins


def locate_store(url: str) -> StoreFolder | None:
    """Return the token store at a URL, with its place in the token cache; None if no store is there. Only ``store.json`` is read.

    Raises:
        DataError: The URL cannot be read, or the store there is half written or damaged.
    """
    if is_pattern(url):
        return None
    with open_url(url.rstrip("/")) as remote:
        content = _read_store_file(remote)
        if content is None and not remote.is_folder(f"{remote.path}/shards"):
            return None
    if content is None or content.startswith(_UPLOADING):
        problem = f"it has no {STORE_FILE}" if content is None else "its upload was interrupted"
        raise DataError(f"{url} is a token store that is not finished: {problem}. Prepare it again.")
    return StoreFolder(_folder(content), parse_store_file(content, url), url)


def _read_store_file(remote: Remote) -> bytes | None:
    """Return the content of the ``store.json`` at a URL; None if the file does not exist."""
    name = f"{remote.path}/{STORE_FILE}"
    return remote.read(name, MAX_RECORD) if remote.is_file(name) else None


def cached_folder(store_file: Path) -> Path:
    """Return the place in the token cache of the store with a given ``store.json``."""
    return _folder(store_file.read_bytes())


def _folder(content: bytes) -> Path:
    return cache_folder() / f"store-{hashlib.sha256(content).hexdigest()[:32]}"


def fetch_store(store: StoreFolder) -> StoreFolder:
    """Fetch those files of a store at a URL that are not in the token cache yet, and check each.

    Raises:
        DataError: The URL cannot be read, or a file differs from its digest.
        StorageError: The disk is full.
    """
    if not is_url(store.name):
        return store
    with open_url(store.name.rstrip("/")) as remote, storage_errors(store.folder):
        store.folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(store.folder, _SCRATCH)
        for name, facts in store.content["files"].items():
            target = store.folder / name
            if not target.is_file() or target.stat().st_size != facts["size"]:
                with scratch_folder(store.folder, _SCRATCH) as scratch:
                    _fetch(remote, name, facts, scratch / NEW)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    (scratch / NEW).replace(target)
    return store


def _fetch(remote: Remote, name: str, facts: Mapping[str, Any], file: Path) -> None:
    """Fetch a file of a store, up to the size that it has to have, and check it."""
    try:
        remote.fetch(f"{remote.path}/{name}", file, max_bytes=facts["size"])
    except FileNotFoundError:
        raise DataError(f"The token store {remote.url} is incomplete: it has no {name}. Copy it again.") from None
    if digest_file(file) != {"size": facts["size"], "sha256": facts["sha256"]}:
        raise DataError(f"{name} of the token store {remote.url} differs from its digest. Copy the store again.")


def refuse_existing_url(url: str, upload: str) -> None:
    """Raise unless a URL has nothing yet, or the beginning of an upload.

    Args:
        url: The URL.
        upload: What that upload is known by; see ``upload_store``.

    Raises:
        DataError: There is something else, or the URL cannot be read.
    """
    with open_url(url.rstrip("/")) as remote:
        _refuse_others(remote, upload)


def _refuse_others(remote: Remote, upload: str) -> None:
    names = remote.entries()
    if not names:
        return
    content = _read_store_file(remote)
    if content is None:
        raise DataError(f"{remote.url} has something else in it, {names[0]}. Give another URL, or remove it first.")
    if content.startswith(_UPLOADING) and content != _marker(upload):
        raise DataError(f"{remote.url} has the beginning of another token store. Give another URL, or remove it first.")
    if not content.startswith(_UPLOADING):
        raise DataError(f"{remote.url} is a token store already. Give another URL, or remove it first.")


def _marker(upload: str) -> bytes:
    return _UPLOADING + json.dumps(upload).encode() + b"}"


def is_uploaded(folder: Path, url: str) -> bool:
    """Return whether there is a finished token store at a URL, and the one in a folder, if any, is the same.

    Raises:
        DataError: The URL cannot be read.
    """
    with open_url(url.rstrip("/")) as remote, storage_errors(folder):
        content = _read_store_file(remote)
        if content is None or content.startswith(_UPLOADING):
            return False
        file = folder / STORE_FILE
        return not file.exists() or content == file.read_bytes()


def upload_store(folder: Path, url: str, upload: str) -> None:
    """Copy a finished store to a URL, ``store.json`` last.

    Args:
        folder: The store.
        url: The URL.
        upload: What this upload is known by after an interruption: the same for the same store, and for no other.

    Raises:
        DataError: The URL has something else in it, or cannot be written.
    """
    with open_url(url.rstrip("/")) as remote:
        _refuse_others(remote, upload)
        remote.write(f"{remote.path}/{STORE_FILE}", _marker(upload))
        files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file != folder / STORE_FILE]
        for file in [*files, folder / STORE_FILE]:
            remote.send(file, f"{remote.path}/{file.relative_to(folder).as_posix()}")
