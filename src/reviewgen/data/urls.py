"""Files behind URLs that fsspec reads, as s3:// and hf://, copied to this machine before they are read. Knows no columns."""

import re
from pathlib import Path

from reviewgen.data.file_systems import open_url
from reviewgen.errors import DataError, storage_errors
from reviewgen.names import parse_hub_id

__all__ = ["fetch_files", "is_pattern", "is_url"]

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")


def is_url(source: str) -> bool:
    """Return whether a source is a URL; ``hf://owner/name`` is a dataset of the Hub, and not one.

    >>> is_url("s3://bucket/reviews.csv"), is_url("hf://owner/name"), is_url("hf://datasets/owner/name/a.csv"), is_url("a.csv")
    (True, False, True, False)
    """
    return _URL.match(source) is not None and parse_hub_id(source) is None


def is_pattern(path: str) -> bool:
    """Return whether a path has wildcards."""
    return any(sign in path for sign in "*?[")


def fetch_files(url: str, folder: Path) -> list[Path]:
    """Copy the files that a URL or a glob names into a folder; return them, sorted by name.

    Raises:
        DataError: The URL cannot be read, or no file matches.
        StorageError: The disk is full.
    """
    with open_url(url) as remote, storage_errors(folder):
        path = remote.path
        names = remote.glob(path) if is_pattern(path) else [path] * remote.is_file(path)
        if not names and remote.is_file(f"{path}/store.json"):
            raise DataError(f"{url} is a token store, which train, sweep and tune read. Give the reviews themselves here.")
        if not names:
            raise DataError(f"No file at {url} can be read: check the address and your credentials.")
        files = []
        for number, name in enumerate(names):
            files.append(folder / f"{number:08d}-{Path(name).name}")
            remote.fetch(name, files[-1])
    return files
