"""What killed processes have left beside a folder, in the cache and among the temporary files; see ``reviewgen doctor --clean``.

Only what has a free lock is removed, or, of a run or another job, what its result has made useless. What can be resumed stays.
"""

import contextlib
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

from reviewgen.data import WORKSPACE, cache_folder
from reviewgen.lock import Lock, is_foreign
from reviewgen.partial import SUFFIX
from reviewgen.runs.finished import discard_finished
from reviewgen.runs.unfinished import find_dead
from reviewgen.scratch import TEMPORARY, remove_abandoned
from reviewgen.storage import interrupted

_SCRATCH = re.compile(r"\.(.+)-[a-z0-9_]{8}")
_RUN, _LOCK, _HOLDER = ".run", ".lock", ".lock.pid"


def clean(folder: Path | None = None) -> list[Path]:
    """Remove what killed processes have left in a folder and beside it, in the cache and among the temporary files.

    Args:
        folder: The folder; if not given, only what is in the working directory counts.

    Returns:
        What was removed.
    """
    places = _places(folder)
    before = {place: _names(place) for place in places}
    for place in places:
        _clean(place, before[place])
    gone = [place / name for place in places for name in sorted(before[place] - _names(place))]
    return [*gone, *remove_abandoned(cache_folder(), WORKSPACE), *remove_abandoned(Path(tempfile.gettempdir()), TEMPORARY)]


def find_unfinished(folder: Path | None = None) -> list[Path]:
    """Return the working folders of tables and stores that the same command goes on from; no process is in them.

    Args:
        folder: The folder, as ``clean`` has it.
    """
    paths = (place / name for place in _places(folder) for name in sorted(_names(place)) if name.endswith(SUFFIX))
    return [path for path in paths if find_dead(path) == "unfinished"]


def _places(folder: Path | None) -> list[Path]:
    """Return the folders to look in; in the token cache are the stores that are to be copied to a URL."""
    around = [Path.cwd()] if folder is None else [folder.absolute().parent, folder.absolute()]
    return [place for place in dict.fromkeys((*around, cache_folder())) if place.is_dir()]


def _clean(place: Path, names: Iterable[str]) -> None:
    for name in sorted(names):
        if match := _SCRATCH.fullmatch(name):
            if not interrupted(place / match[1]):  # else it is the new one of a replacement that was cut off
                remove_abandoned(place, f".{match[1]}-")
        elif name.endswith(_RUN):
            discard_finished(place / name.removesuffix(_RUN))
        elif name.endswith(SUFFIX):
            find_dead(place / name, remove=True)
        elif name.startswith(".") and name.endswith(_HOLDER):
            _remove_lock(place / f"{name.removesuffix(_HOLDER)}{_LOCK}")


def _remove_lock(file: Path) -> None:
    with contextlib.suppress(OSError):  # held by a process, or not ours to remove
        if is_foreign(file) or not file.exists():
            return
        lock = Lock(file)
        if lock.is_supported and lock.is_in_place():
            lock.remove()
        else:
            lock.release()


def _names(folder: Path) -> set[str]:
    try:
        return {path.name for path in folder.iterdir()}
    except OSError:
        return set()
