"""What killed processes have left beside a folder, in the cache and among the temporary files; see ``reviewgen doctor --clean``.

Only what has a free lock is removed, or, of a run, what the saved model has made useless. A run that can be resumed stays.
"""

import contextlib
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

from reviewgen.data.cache import WORKSPACE, cache_folder
from reviewgen.lock import Lock, is_foreign
from reviewgen.runs.finished import discard_finished
from reviewgen.scratch import TEMPORARY, remove_abandoned
from reviewgen.storage import recover

__all__ = ["clean"]

_SCRATCH = re.compile(r"\.(.+)-[a-z0-9_]{8}")
_RUN, _LOCK, _HOLDER = ".run", ".lock", ".lock.pid"


def clean(folder: Path | None = None) -> list[Path]:
    """Remove what killed processes have left in a folder and beside it, in the cache and among the temporary files.

    Args:
        folder: The folder; if not given, only what is in the working directory counts.

    Returns:
        What was removed.
    """
    around = [Path.cwd()] if folder is None else [folder.absolute().parent, folder.absolute()]
    places = [place for place in around if place.is_dir()]
    before = {place: _names(place) for place in places}
    for place in places:
        _clean(place, before[place])
    gone = [place / name for place in places for name in sorted(before[place] - _names(place))]
    return [*gone, *remove_abandoned(cache_folder(), WORKSPACE), *remove_abandoned(Path(tempfile.gettempdir()), TEMPORARY)]


def _clean(place: Path, names: Iterable[str]) -> None:
    for name in sorted(names):
        if match := _SCRATCH.fullmatch(name):
            recover(place / match[1])  # a replacement that was cut off is finished, not removed
        elif name.endswith(_RUN):
            discard_finished(place / name.removesuffix(_RUN))
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
