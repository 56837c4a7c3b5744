"""Logs a run to TensorBoard or trackio, through accelerate's trackers; ordinary code around the training loop.

A tracker is third-party code: what it prints is dropped, its current run stays in a context of its own, and when it fails, the
training continues without it.
"""

import contextlib
import contextvars
import io
import itertools
import json
import shlex
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from reviewgen.bundle.write import refuse_existing
from reviewgen.errors import ConfigError, did_you_mean
from reviewgen.training import Report, process_state

__all__ = ["TRACKERS", "RunLog", "check_tracker", "flatten"]

TRACKERS = ("tensorboard", "trackio")
_PROJECT = "reviewgen"  # of trackio, which keeps runs by project
_LOGGED = ("bits_per_character", "train_bits_per_character", "copy_rate", "learning_rate", "tokens_seen")


def check_tracker(name: str | None) -> None:
    """Raise if a tracker cannot be used; None for no tracker.

    Raises:
        ConfigError: There is no tracker of that name, or it is not installed.
    """
    if name is None:
        return
    if name not in TRACKERS:
        raise ConfigError(f"{name!r} is not a tracker to log to. {did_you_mean(name, TRACKERS)}")
    if find_spec(name) is None:
        raise ConfigError(f"Logging to {name} needs a package that is not installed: pip install {name}")


class RunLog:
    """The log of a run with a tracker, or one that does nothing.

    TensorBoard's files go to ``runs/NAME`` beside the model, or to ``runs/NAME-2`` and so on if that exists; trackio has its own
    folder (``TRACKIO_DIR``).

    Args:
        tracker: "tensorboard", "trackio" or None.
        out: The folder that the model will be saved in, whose name the run gets.
        preset: The run's name if there is no such folder.

    Attributes:
        failure: Why logging has failed, a sentence; None while it works.

    Raises:
        StorageError: Nothing can be written beside the model.
    """

    def __init__(self, tracker: str | None, out: Path | None, preset: str) -> None:
        self.failure: str | None = None
        self._is_failure_reported = False
        self._kind, self._name = tracker, preset if out is None else out.absolute().name
        self._tracker: Any = None
        self._context = contextvars.copy_context()
        self._folder: Path | None = None  # of TensorBoard
        if tracker == "tensorboard":
            self._folder = _new_folder((Path() if out is None else out.parent) / "runs", self._name)

    def describe(self) -> str | None:
        """Return where the log is and how to view it."""
        if self._folder is not None:
            return f"Logging to {self._folder}; to see it: tensorboard --logdir {shlex.quote(str(self._folder.parent))}"
        return None if self._kind is None else f"Logging to trackio; to see it: trackio show --project {_PROJECT}"

    @contextlib.contextmanager
    def opened(self, settings: Mapping[str, Any]) -> Iterator[None]:
        """Log inside the block; the settings become the run's hyperparameters, nested names joined by dots."""
        if self._kind is None or not process_state().is_main_process:
            yield
            return
        with _silent_threads(self._kind):
            self._try(self._start, flatten(settings))
            try:
                yield
            finally:
                if self._tracker is not None:
                    self._try(self._tracker.finish)
                    self._tracker = None

    def record(self, report: Report, kept: Mapping[str, Any] | None) -> Report:
        """Log what is kept of a report, and return the report; with a note if logging has just failed."""
        if self._tracker is not None and kept is not None:
            values = {name: kept[name] for name in _LOGGED if kept.get(name) is not None}
            self._try(self._tracker.log, values | ({"sample": report.sample} if report.sample else {}), report.step)
        if self.failure is None or self._is_failure_reported:
            return report
        self._is_failure_reported = True
        return replace(report, notes=(*report.notes, self.failure))

    def _start(self, settings: dict[str, Any]) -> None:
        from accelerate.tracking import TensorBoardTracker, TrackioTracker

        if self._folder is not None:
            tracker = TensorBoardTracker(self._folder.name, self._folder.parent)
        else:
            tracker = TrackioTracker(_PROJECT, name=self._name, embed=False)
        tracker.start()
        tracker.store_init_configuration(settings)
        self._tracker = tracker

    def _try(self, action: Callable[..., None], *arguments: Any) -> None:
        """Call the tracker; if it fails, continue without it."""
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                self._context.run(action, *arguments)
        except Exception as error:  # third-party code may raise anything, and hours of training must not be lost to it
            cause = error.strerror if isinstance(error, OSError) and error.strerror else str(error).strip()
            reason = (cause or type(error).__name__).splitlines()[0]
            self.failure = f"Logging to {self._kind} failed, and the training continues without it: {reason}"
            self._tracker = None


@contextlib.contextmanager
def _silent_threads(package: str) -> Iterator[None]:
    """Inside the block, threads of a package end without printing a traceback; their errors are raised again at the next call."""
    before = threading.excepthook

    def print_others(error: threading.ExceptHookArgs) -> None:
        if type(error.thread).__module__.partition(".")[0] != package:
            before(error)

    threading.excepthook = print_others
    try:
        yield
    finally:
        threading.excepthook = before


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Return nested settings by dotted name, as in "model.hidden_size"; values other than numbers and strings become JSON."""
    flat: dict[str, bool | int | float | str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value if isinstance(value, bool | int | float | str) else json.dumps(value)
    return flat


def _new_folder(parent: Path, name: str) -> Path:
    """Return the first of NAME, NAME-2, NAME-3, ... that does not exist, so that the curves of two runs are not mixed."""
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    folder = next(folder for folder in map(parent.joinpath, names) if not folder.exists())
    refuse_existing(folder)
    return folder
