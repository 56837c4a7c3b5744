"""The rules of Windows for files, in a Python process on Linux: what Windows refuses, fails here
with the error it has there.

    import tests.support.windows_rules
    tests.support.windows_rules.enforce()

Only calls from Python are checked; libraries in C and Rust write as Linux lets them.
``environment`` enforces the rules in a new process and in the processes that it starts, from before
their first import.

    a file is synced only through a handle that is open for writing, a folder never, because it
    cannot be opened a file that is open or memory-mapped cannot be renamed, replaced or removed,
    nor can a folder above it be renamed a rename onto an existing name fails; ``os.replace``
    replaces files only names that differ only in case are the same name a symbolic link needs a
    privilege that accounts do not have fork, uids, process groups, posix_fallocate, fcntl, resource
    ... do not exist
"""

import builtins
import contextlib
import errno
import io
import os
import shutil
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

import reviewgen.storage

__all__ = ["enforce", "environment"]

# that reviewgen cannot import on Windows
_MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty"}
_OS = [
    "fork",
    "forkpty",
    "getuid",
    "geteuid",
    "getgid",
    "killpg",
    "getpgid",
    "setsid",
    "sched_getaffinity",
    "posix_fallocate",
    "chown",
    "mkfifo",
    "O_DIRECTORY",
    "O_NOFOLLOW",
]
_SIGNALS = ["SIGKILL", "SIGHUP", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGPIPE"]


def enforce() -> None:
    """Enforce the rules in this process from now on."""
    _patch(os, "fsync", _checked_fsync)
    _patch(os, "open", _checked_open)
    for name in ("rename", "replace"):
        _patch(os, name, _checked_rename)
    for name in ("unlink", "remove"):
        _patch(os, name, _checked_unlink)
    for name in ("stat", "lstat", "mkdir", "rmdir", "listdir", "scandir", "access"):
        _patch(os, name, _in_any_case)
    _patch(io, "open", _in_any_case)
    _patch(builtins, "open", _in_any_case)
    _patch(os, "symlink", _refused_symlink)
    _patch(builtins, "__import__", _checked_import)
    _patch(FileLock, "_release", _removing_release)
    reviewgen.storage.LOCKS_OPEN_FILES = True
    os.environ.setdefault("USERNAME", "user")  # for ``getpass``, which else asks for the uid
    shutil._use_fd_functions = False  # type: ignore[attr-defined]  # as on Windows
    os.supports_dir_fd.clear()
    for owner, names in ((os, _OS), (signal, _SIGNALS)):
        for name in names:
            if hasattr(owner, name):
                delattr(owner, name)


def environment(folder: Path) -> dict[str, str]:
    """Return environment variables under which Python processes have the rules from their start.

    Args:
        folder: An existing folder for the file that Python imports at its start.
    """
    (folder / "sitecustomize.py").write_text(
        "from tests.support.windows_rules import enforce\nenforce()\n", encoding="utf-8"
    )
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(Path(__file__).parents[2])])}


def _patch(owner: Any, name: str, rule: Callable[..., Any]) -> None:
    plain = getattr(owner, name)
    setattr(owner, name, lambda *arguments, **options: rule(plain, *arguments, **options))


def _refuse(path: Any, number: int = errno.EACCES) -> PermissionError:
    return PermissionError(number, os.strerror(number), str(path))


def _removing_release(plain: Callable[..., None], lock: FileLock) -> None:
    """The lock of Windows removes its file."""
    plain(lock)
    with contextlib.suppress(OSError):
        Path(lock.lock_file).unlink()


def _checked_fsync(plain: Callable[..., None], handle: Any) -> None:
    import fcntl  # which Windows does not have

    number = handle if isinstance(handle, int) else handle.fileno()
    if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    plain(number)


def _checked_open(
    plain: Callable[..., int], path: Any, flags: int, *rest: Any, **options: Any
) -> int:
    path = _find(path)
    handle = plain(path, flags, *rest, **options)
    if stat.S_ISDIR(os.fstat(handle).st_mode):
        os.close(handle)
        raise _refuse(path)
    return handle


def _checked_rename(plain: Callable[..., None], source: Any, target: Any, **options: Any) -> None:
    source = _find(source)
    found = _find(target)
    _check_unused(source)
    if os.path.lexists(found) and not _is_same(source, found):
        if plain.__name__ == "rename":
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        if Path(found).is_dir():
            raise _refuse(target)
        _check_unused(found)
        target = found
    plain(source, target, **options)


def _checked_unlink(plain: Callable[..., None], path: Any, **options: Any) -> None:
    path = _find(path)
    _check_unused(path)
    plain(path, **options)


def _in_any_case(plain: Callable[..., Any], path: Any = ".", *rest: Any, **options: Any) -> Any:
    return plain(_find(path), *rest, **options)


def _refused_symlink(
    plain: Callable[..., None], source: Any, target: Any, *rest: Any, **options: Any
) -> None:
    raise OSError(errno.EPERM, "A required privilege is not held by the client", str(target))


def _checked_import(
    plain: Callable[..., Any], name: str, globals: Any = None, *rest: Any, **options: Any
) -> Any:
    if name in _MODULES and str((globals or {}).get("__name__")).startswith("reviewgen"):
        raise ImportError(f"No module named {name!r}", name=name)
    return plain(name, globals, *rest, **options)


def _find(path: Any) -> Any:
    """Return a path with its parts as they are written on the disk, where only their case
    differs.
    """
    if isinstance(path, int) or path is None or _exists(path):
        return path
    parent, name = os.path.split(os.path.normpath(os.fsdecode(path)))
    parent = _find(parent) if parent else ""
    try:
        names = _listdir(parent or os.curdir)
    except OSError:
        return path
    same = next((other for other in names if other.casefold() == name.casefold()), name)
    return os.path.join(parent, same)  # noqa: PTH118


def _check_unused(path: Any) -> None:
    """Raise if this process has a file open, or in its memory, that is at a path or below it."""
    whole = os.path.realpath(os.fsdecode(path))
    for used in _used_files():
        if used == whole or used.startswith(whole + os.sep):
            raise _refuse(path)


def _used_files() -> Iterator[str]:
    for number in _listdir("/proc/self/fd"):
        try:
            yield os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115
        except OSError:  # that of the listing itself
            continue
    with _open("/proc/self/maps") as maps:
        lines = maps.read().splitlines()
    yield from {line.split(maxsplit=5)[5] for line in lines if "/" in line}


_listdir = os.listdir
_open = io.open
_stat = os.lstat


def _exists(path: Any) -> bool:
    try:
        _stat(path)
    except (OSError, ValueError):
        return False
    return True


def _is_same(source: Any, target: Any) -> bool:
    return os.path.samestat(_stat(source), _stat(target))
