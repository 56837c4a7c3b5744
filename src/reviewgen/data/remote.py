"""Token stores behind URLs that fsspec reads: fetched into the token cache, once a machine, shard by shard.

Each file is checked against its digest.
"""

import hashlib
from pathlib import Path
from typing import Any

from reviewgen.config import MAX_RECORD
from reviewgen.data.cache import cache_folder
from reviewgen.data.store_folder import STORE_FILE, StoreFolder, digest_file, parse_store_file
from reviewgen.data.urls import is_url, open_url, url_errors
from reviewgen.errors import DataError, quoted, storage_errors
from reviewgen.scratch import NEW, remove_abandoned, scratch_folder

__all__ = ["cached_folder", "fetch_store", "is_uploaded", "locate_store", "refuse_existing_url", "upload_store"]

_SCRATCH = "fetching-"
_FIRST = {"novelty.safetensors", "shards"}  # of these, ``upload_store`` copies one before all else
_UPLOADED = {*_FIRST, "tokenizer"}


def locate_store(url: str) -> StoreFolder | None:
    """Return the token store at a URL, with its place in the token cache; None if no store is there. Only ``store.json`` is read.

    Raises:
        DataError: The URL cannot be read, or the store there is half written or damaged.
    """
    with url_errors(url):
        system, path = open_url(url.rstrip("/"))
        if _has_store(system, path):
            content = system.cat_file(f"{path}/{STORE_FILE}", end=MAX_RECORD + 1)
        elif system.isdir(f"{path}/shards"):
            raise DataError(f"{url} is a token store that is not finished: it has no {STORE_FILE}. Prepare it again.")
        else:
            return None
    return StoreFolder(_folder(content), parse_store_file(content, url), url)


def _has_store(system: Any, path: str) -> bool:
    return bool(system.isfile(f"{path}/{STORE_FILE}"))


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
    with url_errors(store.name), storage_errors(store.folder):
        system, path = open_url(store.name.rstrip("/"))
        store.folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(store.folder, _SCRATCH)
        for name, facts in store.content["files"].items():
            target = store.folder / name
            if target.is_file() and target.stat().st_size == facts["size"]:
                continue
            with scratch_folder(store.folder, _SCRATCH) as scratch:
                file = scratch / NEW
                try:
                    system.get_file(f"{path}/{name}", str(file))
                except FileNotFoundError:
                    raise DataError(f"The token store {store.name} is incomplete: it has no {name}. Copy it again.") from None
                if digest_file(file) != {"size": facts["size"], "sha256": facts["sha256"]}:
                    raise DataError(f"{name} of the token store {store.name} differs from its digest. Copy the store again.")
                target.parent.mkdir(parents=True, exist_ok=True)
                file.replace(target)
    return store


def refuse_existing_url(url: str) -> None:
    """Raise if there is a token store at a URL, or anything else than the beginning of one.

    Raises:
        DataError: There is, or the URL cannot be read.
    """
    with url_errors(url):
        system, path = open_url(url.rstrip("/"))
        if _has_store(system, path):
            raise DataError(f"{url} is a token store already. Give another URL, or remove it first.")
        present = _names_in(system, path)
    others = present - _UPLOADED if present & _FIRST else present
    if others:
        raise DataError(
            f"{url} has something else than a token store in it, {quoted(min(others))}. Give the URL of a new folder."
        )


def _names_in(system: Any, path: str) -> set[str]:
    """Return the names of the files and folders in a folder."""
    system.invalidate_cache()
    try:
        entries = {entry.rstrip("/") for entry in system.ls(path, detail=False)}
    except (FileNotFoundError, NotADirectoryError):
        return set()
    return {entry.rpartition("/")[2] for entry in entries if entry.strip("/") != path.strip("/")}


def is_uploaded(folder: Path, url: str) -> bool:
    """Return whether there is a token store at a URL, and the one in a folder, if any, is the same.

    Raises:
        DataError: The URL cannot be read.
    """
    with url_errors(url), storage_errors(folder):
        system, path = open_url(url.rstrip("/"))
        if not _has_store(system, path):
            return False
        file = folder / STORE_FILE
        return not file.exists() or bool(system.cat_file(f"{path}/{STORE_FILE}", end=MAX_RECORD + 1) == file.read_bytes())


def upload_store(folder: Path, url: str) -> None:
    """Copy a finished store to a URL, ``store.json`` last.

    Raises:
        DataError: The URL cannot be written.
    """
    with url_errors(url):
        system, path = open_url(url.rstrip("/"))
        files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file != folder / STORE_FILE]
        for file in [*files, folder / STORE_FILE]:
            name = f"{path}/{file.relative_to(folder).as_posix()}"
            system.makedirs(name.rpartition("/")[0], exist_ok=True)
            system.put_file(str(file), name)
