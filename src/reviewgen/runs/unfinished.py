"""The working folders ``OUT.partial`` of tables and stores that no process works in: whether they are still of use."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from reviewgen.config import read_json
from reviewgen.data import digest_file
from reviewgen.errors import ReviewgenError
from reviewgen.partial import LOCK_FILES, SUFFIX, TABLE_KINDS, PartialFolder

_JOBS = (  # the kinds of results, a fact that only such a job has, and the folder that becomes the result
    (TABLE_KINDS, "shard_texts", "out"),
)


def find_dead(folder: Path, *, remove: bool = False) -> Literal["unfinished", "useless"] | None:
    """Return what a working folder is that no process works in.

    Args:
        folder: The folder.
        remove: Whether a useless folder is removed.

    Returns:
        "unfinished" if the same command goes on from it; "useless" if its result is complete, or nothing is finished in it; None
        if a process works in it, it is not surely that of a job of this user, or its file system has no locks.
    """
    has_lock = any((folder / name).is_file() for name in LOCK_FILES)  # as that of a job has at every moment
    for kinds, fact, result in _JOBS if has_lock else ():
        work = PartialFolder(folder.with_name(folder.name.removesuffix(SUFFIX)), "works in it", kinds)
        try:
            with contextlib.suppress(ReviewgenError, OSError):
                job = work.acquire()
                if not work.is_locked or (job is not None and fact not in job):
                    continue
                if not _is_useless(work, job, result):
                    return "unfinished"
                if remove:
                    work.remove()
                return "useless"
        finally:
            work.close()
    return None


def _is_useless(work: PartialFolder, job: Mapping[str, Any] | None, result: str) -> bool:
    if job is None or not work.has_results:
        return True
    if not (work.folder / result).exists():  # it has its name
        return work.out.exists()
    with contextlib.suppress(OSError, ValueError):  # a file, whose digest stays
        return bool(digest_file(work.out) == read_json(work.place("digests", work.out.name)))
    return False
