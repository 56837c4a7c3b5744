"""Logs a run to one of accelerate's trackers, as TensorBoard, Weights & Biases or MLflow; ordinary code around the training loop.

A tracker is third-party code: what it prints never reaches standard output, its current run stays in a context of its own, and
when it fails, the training continues without it.
"""

import contextlib
import contextvars
import io
import itertools
import json
import shlex
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from reviewgen.errors import ConfigError, did_you_mean, quoted
from reviewgen.processes import process_state
from reviewgen.runs.curves import TERM
from reviewgen.storage import refuse_existing
from reviewgen.training import Report

_PROJECT = "reviewgen"  # which trackers keep runs under
_RUN_NAMES = {  # the argument of each tracker that names a run
    "clearml": "task_name",
    "mlflow": "run_name",
    "swanlab": "experiment_name",
    "trackio": "name",
    "wandb": "name",
}
_OPTIONS: dict[str, dict[str, Any]] = {"trackio": {"embed": False}, "wandb": {"settings": {"console": "off"}}}
_NAMED_BY_RUN = ("tensorboard", "aim")  # their first argument is the run's name, not the project's
_TAKE_TEXT = ("tensorboard", "trackio", "wandb", "comet_ml")  # others refuse a sample, or warn at each one
_VIEWERS = {
    "aim": "aim up --repo {folder}",
    "mlflow": "mlflow ui",
    "tensorboard": "tensorboard --logdir {folder}",
    "trackio": "trackio show --project {project}",
}
_LOGGED = ("bits_per_character", "train_bits_per_character", "token_copy_rate", "learning_rate", "tokens_seen", "bptt")


def check_tracker(name: str | None) -> None:
    """Raise if a tracker cannot be used; None for no tracker.

    Raises:
        ConfigError: There is no tracker of that name, or it is not installed.
    """
    if name is None:
        return
    trackers = _tracker_classes()
    if not isinstance(name, str) or name not in trackers:
        raise ConfigError(f"{quoted(name)} is not a tracker to log to. {did_you_mean(name, trackers)}")
    if trackers[name].__module__.startswith("accelerate.") and not _is_installed(name):
        raise ConfigError(f"Logging to {name} needs a package that is not installed: pip install {name}")


def _tracker_classes() -> dict[str, Any]:
    """Return accelerate's trackers by name, with those that ``accelerate.tracking.register_tracker_class`` has added."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS  # imports torch

    trackers: dict[str, Any] = LOGGER_TYPE_TO_CLASS
    return trackers


def _is_installed(package: str) -> bool:
    spec = find_spec(package)
    return spec is not None and spec.origin is not None  # a folder of that name, as wandb creates one, has no origin


class RunLog:
    """The log of a run with a tracker, or one that does nothing.

    A tracker that needs a folder gets ``runs/NAME`` beside the model, or ``runs/NAME-2`` and so on if that exists. The others
    have a project "reviewgen" where their own settings say, with a run of that name.

    Args:
        tracker: The name of a tracker of accelerate, or None.
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
        self._kind, self._name = tracker, preset.replace(":", "-") if out is None else out.absolute().name
        self._tracker: Any = None
        self._context = contextvars.copy_context()
        self._folder: Path | None = None
        if tracker is not None and (tracker == "dvclive" or _tracker_classes()[tracker].requires_logging_directory):
            self._folder = _new_folder((Path() if out is None else out.parent) / "runs", self._name)

    def describe(self) -> str | None:
        """Return where the log is and how to view it."""
        if self._kind is None:
            return None
        where = f"{self._kind} as {self._name}" if self._folder is None else str(self._folder)
        folder = shlex.quote(str((self._folder or Path()).parent))
        viewer = _VIEWERS.get(self._kind, "").format(folder=folder, project=_PROJECT)
        return f"Logging to {where}" + (f"; to see it: {viewer}" if viewer else ".")

    @contextlib.contextmanager
    def opened(self, settings: Mapping[str, Any]) -> Iterator[None]:
        """Log inside the block; the settings become the run's hyperparameters, nested names joined by dots."""
        if self._kind is None or not process_state().is_main_process:
            yield
            return
        with _silent_threads(self._kind):
            self._try(self._start, flatten(settings), is_shown=True)  # it may ask for a login
            try:
                yield
            finally:
                if self._tracker is not None:
                    self._try(self._tracker.finish)
                    self._tracker = None

    def record(self, report: Report, kept: Mapping[str, Any] | None) -> Report:
        """Log what is kept of a report, and return the report; with a note if logging has just failed."""
        if self._tracker is not None and kept is not None:
            names = [*_LOGGED, *(name for name in kept if name.startswith(TERM))]
            values = {name: kept.get(name) for name in names} | dict(kept.get("metrics", {}))
            values = {name: value for name, value in values.items() if value is not None}
            sample = {"sample": report.sample} if report.sample and self._kind in _TAKE_TEXT else {}
            self._try(self._tracker.log, values | sample, report.step)
        if self.failure is None or self._is_failure_reported:
            return report
        self._is_failure_reported = True
        return replace(report, notes=(*report.notes, self.failure))

    def _start(self, settings: dict[str, Any]) -> None:
        tracker = self._make_tracker(self._kind or "")
        tracker.start()
        tracker.store_init_configuration(settings)
        self._tracker = tracker

    def _make_tracker(self, kind: str) -> Any:
        tracker_class, options = _tracker_classes()[kind], dict(_OPTIONS.get(kind, {}))
        name = self._name if self._folder is None else self._folder.name
        if kind in _RUN_NAMES:
            options[_RUN_NAMES[kind]] = name
        if kind == "dvclive":
            options["dir"] = str(self._folder)
        folders = [self._folder.parent] if self._folder is not None and tracker_class.requires_logging_directory else []
        return tracker_class(name if kind in _NAMED_BY_RUN else _PROJECT, *folders, **options)

    def _try(self, action: Callable[..., None], *arguments: Any, is_shown: bool = False) -> None:
        """Call the tracker, and show what it prints as a note or not at all; if it fails, continue without it."""
        try:
            with contextlib.redirect_stdout(sys.stderr if is_shown else io.StringIO()):
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
