"""File systems behind URLs, by fsspec: every call of one is made here, so that none waits in silence, and few without an end.

A call runs in a thread of its own. A warning says what is waited for, and what should be answered at once is given up after a
time, as is a transfer by http of which nothing arrives. Other transfers have the limits of s3fs, huggingface_hub and the like.
"""

import contextlib
import importlib
import importlib.util
import io
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextvars import copy_context
from pathlib import Path
from typing import Any

from reviewgen.errors import DataError, ReviewgenError, first_line, shortened
from reviewgen.hub_client import guard_client
from reviewgen.scratch import temporary_folder

__all__ = ["Remote", "open_url"]

_SECONDS = 30.0  # until an answer; by http also until the next bytes
_LISTING_SECONDS = 600.0  # until a list of files, which may take thousands of answers
_NOTE_SECONDS = 5.0  # until a warning says what is waited for
_POLL_SECONDS = 0.2  # between two of them an interrupt is handled
_HTTP = ("http", "https")
_logger = logging.getLogger("reviewgen")


@contextlib.contextmanager
def open_url(url: str) -> Iterator["Remote"]:
    """Yield the place of a URL; what its file system raises within the block, each types of its own, becomes one sentence.

    Raises:
        DataError: A package is missing, or the URL cannot be reached.
    """
    try:
        yield Remote(url)
    except (ReviewgenError, KeyboardInterrupt):
        raise
    except ImportError as error:
        raise DataError(f"{url} needs a package for {url.partition('://')[0]}: {error}.") from None
    except Exception as error:
        is_late = isinstance(error, TimeoutError) and error.errno is None  # by the limits of a client
        reason = "it did not answer in time" if is_late else shortened(first_line(error), 200)
        raise DataError(f"{url} cannot be reached: {reason}. Check the address, the network and your credentials.") from None


class Remote:
    """The place of a URL: a file system and a path on it.

    Attributes:
        url: The URL.
        path: The path, as the file system takes it.
    """

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs

        self.url, self._scheme = url, url.partition("://")[0]
        if self._scheme == "hf":
            guard_client()
        system, path = url_to_fs(url, **(_http_options() if self._scheme in _HTTP else {}))
        self._system, self.path = system, str(path)
        self._seconds = math.inf if _has_limits(system) else _SECONDS
        self._is_noted = False

    def is_file(self, name: str) -> bool:
        """Return whether there is a file of that name."""
        return bool(self._call(self._seconds, self._system.isfile, name))

    def is_folder(self, name: str) -> bool:
        """Return whether there is a folder of that name."""
        return bool(self._call(self._seconds, self._system.isdir, name))

    def glob(self, pattern: str) -> list[str]:
        """Return the sorted names that match a glob."""
        return sorted(self._list(self._system.glob, pattern))

    def entries(self) -> list[str]:
        """Return the sorted names of files and folders at the path, without folders; its own name if it is a file."""
        self._system.invalidate_cache()
        if not self._call(self._seconds, self._system.exists, self.path):
            return []
        names = [name.rstrip("/") for name in self._list(self._system.ls, self.path, detail=False)]
        if self.path.rstrip("/") in names and not self.is_file(self.path):
            names.remove(self.path.rstrip("/"))  # S3 has empty objects as folders
        return sorted(name.rpartition("/")[2] for name in names)

    def fetch(self, name: str, file: Path, max_bytes: float = math.inf) -> None:
        """Copy a file to this machine.

        Raises:
            FileNotFoundError: No file has that name.
            DataError: It has more bytes, whatever its file system says of its size.
        """
        progress = _Progress(f"{self.url}: {name.rpartition('/')[2]}", max_bytes)
        if self._scheme == "hf":  # whose fast way takes a stream, and no callback
            with _Counted(file, progress) as stream:
                self._call(math.inf, self._system.get_file, name, stream, progress=progress)
        else:
            seconds = self._seconds if self._scheme in _HTTP else math.inf  # others may tell of pieces of 50 MB only
            self._call(seconds, self._system.get_file, name, str(file), callback=_callback(progress), progress=progress)
        progress.set(file.stat().st_size)  # of file systems that tell nothing before

    def read(self, name: str, max_bytes: int) -> bytes:
        """Return the content of a small file.

        Raises:
            FileNotFoundError: No file has that name.
            DataError: It has more bytes.
        """
        with temporary_folder() as folder:
            self.fetch(name, folder / "file", max_bytes)
            return (folder / "file").read_bytes()

    def write(self, name: str, content: bytes) -> None:
        """Write a small file."""
        self._make_folder_of(name)
        self._call(self._seconds, self._system.pipe_file, name, content)

    def send(self, file: Path, name: str) -> None:
        """Copy a file of this machine to a name."""
        self._make_folder_of(name)
        progress = _Progress(name)
        self._call(math.inf, self._system.put_file, str(file), name, callback=_callback(progress), progress=progress)

    def _list(self, function: Any, *args: Any, **options: Any) -> list[str]:
        return list(self._call(max(self._seconds, _LISTING_SECONDS), function, *args, **options))

    def _make_folder_of(self, name: str) -> None:
        self._call(self._seconds, self._system.makedirs, name.rpartition("/")[0], exist_ok=True)

    def _call(self, seconds: float, function: Any, *args: Any, progress: "_Progress | None" = None, **options: Any) -> Any:
        """Return what a function of the file system returns, for which it has a number of seconds since the last progress."""
        progress, call = progress or _Progress(self.url), _start(lambda: function(*args, **options))
        try:
            while not wait([call], _POLL_SECONDS).done:
                silent = time.monotonic() - progress.at
                if silent > seconds:
                    problem = f"has not answered for {seconds:g} seconds"
                    raise DataError(f"{self.url} {problem}. Check the address and the network, and try again.")
                if silent > _NOTE_SECONDS and not self._is_noted:
                    self._is_noted = True
                    _logger.warning("Waiting for %s ...", self.url)
            return call.result()
        finally:
            progress.is_given_up = not call.done()


class _Progress:
    """What has arrived of a transfer.

    Attributes:
        at: When the last of it arrived, in seconds.
        is_given_up: Whether nobody waits for the rest.
    """

    def __init__(self, name: str, max_bytes: float = math.inf) -> None:
        self._name, self._max_bytes, self._bytes = name, max_bytes, 0
        self.at, self.is_given_up = time.monotonic(), False

    def add(self, count: int) -> None:
        """Count some more bytes.

        Raises:
            DataError: There are too many, or nobody waits for them; this ends the transfer.
        """
        self.set(self._bytes + count)

    def set(self, count: int) -> None:
        """Set the number of bytes; see ``add``."""
        if count > self._bytes:
            self._bytes, self.at = count, time.monotonic()
        if self._bytes > self._max_bytes:
            raise DataError(f"{self._name} has more than {self._max_bytes:,} bytes. Copy or prepare it again.")
        if self.is_given_up:
            raise DataError(f"{self._name} is not read on.")


class _Counted(io.BufferedWriter):
    """A file that counts what is written to it."""

    def __init__(self, file: Path, progress: _Progress) -> None:
        super().__init__(io.FileIO(file, "w"))
        self._progress = progress

    def write(self, content: Any) -> int:
        self._progress.add(len(content))
        return super().write(content)


def _callback(progress: _Progress) -> Any:
    """Return the object that fsspec calls with what has arrived."""
    from fsspec.callbacks import Callback

    return Callback(hooks={"progress": lambda size, value: progress.set(value)})


def _start(function: Callable[[], Any]) -> "Future[Any]":
    """Call a function in a thread that does not keep the process alive; what it returns or raises is the result."""
    future: Future[Any] = Future()
    context = copy_context()

    def run() -> None:
        try:
            future.set_result(context.run(function))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="reviewgen-url", daemon=True).start()
    return future


def _has_limits(system: Any) -> bool:
    """Return whether the user has configured limits of time for a file system of fsspec."""
    from fsspec.config import conf

    schemes = [system.protocol] if isinstance(system.protocol, str) else system.protocol
    return any("timeout" in repr(conf.get(scheme)) for scheme in schemes)


def _http_options() -> dict[str, Any]:
    """Return limits of http, unless the user has configured others; by itself, aiohttp ends any transfer after 300 s."""
    from fsspec.config import conf

    if importlib.util.find_spec("aiohttp") is None:
        return {}  # fsspec says what to install
    http, https = (conf.get(scheme, {}).get("client_kwargs", {}) for scheme in _HTTP)
    limit = 2 * _SECONDS  # it ends what is not waited for any more
    timeout = importlib.import_module("aiohttp").ClientTimeout(total=None, sock_connect=limit, sock_read=limit)
    return {"client_kwargs": {"timeout": timeout, **http, **https}}
