"""Files behind URLs that fsspec reads, as s3:// and hf://, copied to this machine before they are read. Knows no columns."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reviewgen.errors import DataError, ReviewgenError, first_line, shortened, storage_errors
from reviewgen.hub_client import guard_client
from reviewgen.names import parse_hub_id

__all__ = ["fetch_files", "is_url", "open_url", "url_errors"]

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")


def is_url(source: str) -> bool:
    """Return whether a source is a URL; ``hf://owner/name`` is a dataset of the Hub, and not one.

    >>> is_url("s3://bucket/reviews.csv"), is_url("hf://owner/name"), is_url("hf://datasets/owner/name/a.csv"), is_url("a.csv")
    (True, False, True, False)
    """
    return _URL.match(source) is not None and parse_hub_id(source) is None


def fetch_files(url: str, folder: Path) -> list[Path]:
    """Copy the files that a URL or a glob names into a folder; return them, sorted by name.

    Raises:
        DataError: The URL cannot be read, or no file matches.
        StorageError: The disk is full.
    """
    with url_errors(url), storage_errors(folder):
        system, path = open_url(url)
        names = sorted(system.glob(path)) if any(sign in path for sign in "*?[") else [path] * system.isfile(path)
        if not names and system.isfile(f"{path}/store.json"):
            raise DataError(f"{url} is a token store, which train, sweep and tune read. Give the reviews themselves here.")
        if not names:
            raise DataError(f"No file at {url} can be read: check the address and your credentials.")
        files = []
        for number, name in enumerate(names):
            files.append(folder / f"{number:08d}-{Path(name).name}")
            system.get_file(name, str(files[-1]))
    return files


def open_url(url: str) -> tuple[Any, str]:
    """Return the file system of a URL and the path on it; call it in a block of ``url_errors``."""
    from fsspec.core import url_to_fs

    if url.startswith("hf://"):
        guard_client()
    system, path = url_to_fs(url)
    return system, str(path)


@contextlib.contextmanager
def url_errors(url: str) -> Iterator[None]:
    """Turn what fsspec's file systems raise, each types of its own, into a DataError of one sentence.

    Raises:
        DataError: A package is missing, or the URL cannot be reached.
    """
    try:
        yield
    except (ReviewgenError, KeyboardInterrupt):
        raise
    except ImportError as error:
        scheme = _URL.match(url)
        raise DataError(f"{url} needs a package for {scheme[1] if scheme else 'it'}: {error}.") from None
    except Exception as error:
        reason = shortened(first_line(error), 200)
        raise DataError(f"{url} cannot be reached: {reason}. Check the address, the network and your credentials.") from None
