"""The log of a run in one of accelerate's trackers (TensorBoard, Weights & Biases, MLflow ...).

A tracker is third-party code. Its output never reaches standard output, and if it fails, the
training continues without it.
"""

import contextlib
import contextvars
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from reviewgen.errors import ConfigError, did_you_mean, first_line, quoted
from reviewgen.processes import process_state
from reviewgen.storage import check_output
from reviewgen.training.device import choose_precision, make_accelerator
from reviewgen.training.report import Report

TERM = "loss."
"""The prefix of the names of a model's own loss terms in curves and logs, as in "loss.z_loss"."""

_PROJECT = "reviewgen"  # the project of all runs in a tracker
_NAMED_BY_RUN = ("tensorboard", "aim")  # their first argument is the run's name, not the project's
# the options that pass the name of a run to a tracker
_OPTIONS: dict[str, Callable[[str], dict[str, Any]]] = {
    "clearml": lambda name: {"task_name": name},
    "dvclive": lambda name: {"dir": name},
    "mlflow": lambda name: {"run_name": name},
    "swanlab": lambda name: {"experiment_name": name},
    "trackio": lambda name: {"name": name, "embed": False},
    "wandb": lambda name: {"name": name, "settings": {"console": "off"}},
}
# the trackers that get a generated sample; the others refuse text, or warn about each text
_TAKE_TEXT = ("tensorboard", "trackio", "wandb", "comet_ml")
_LOGGED = (
    "bits_per_character",
    "train_bits_per_character",
    "token_copy_rate",
    "learning_rate",
    "tokens_seen",
    "bptt",
)


def check_tracker(name: str | None) -> None:
    """Check that a tracker can be used. The name None, for no tracker, is fine.

    Raises:
        ConfigError: There is no tracker of that name, or it is not installed.
    """
    if name is None:
        return
    trackers = _tracker_classes()
    if not isinstance(name, str) or name not in trackers:
        raise ConfigError(
            f"{quoted(name)} is not a tracker to log to. {did_you_mean(name, trackers)}"
        )
    is_builtin = trackers[name].__module__.startswith("accelerate.")
    spec = find_spec(name)
    # a spec without an origin is not the package: it may be wandb's folder of runs
    if is_builtin and (spec is None or spec.origin is None):
        raise ConfigError(
            f"Logging to {name} needs a package that is not installed: pip install {name}"
        )


def _tracker_classes() -> dict[str, Any]:
    """Return accelerate's trackers by name, with those that were added by
    ``accelerate.tracking.register_tracker_class``.
    """
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS  # slow: it imports torch

    trackers: dict[str, Any] = LOGGER_TYPE_TO_CLASS
    return trackers


class RunLog:
    """The log of a run in a tracker. Without a tracker, it does nothing.

    A tracker that needs a folder gets ``runs/NAME`` beside the model, or ``runs/NAME-2`` and so on
    if that exists. Other trackers log to the project "reviewgen", at the location in their own
    configuration; the run is called NAME.

    Args:
        tracker: The name of a tracker of accelerate, or None for no log.
        out: The folder that the model will be saved in; the run gets its name.
        preset: The name of the run if there is no such folder.

    Attributes:
        failure: A sentence on why logging has failed; None while it works.

    Raises:
        StorageError: The tracker's folder cannot be created beside the model.
    """

    def __init__(self, tracker: str | None, out: Path | None, preset: str) -> None:
        self.failure: str | None = None
        self._kind = tracker
        self._name = preset.replace(":", "-") if out is None else out.absolute().name
        self._accelerator: Any = None
        self._is_reported = False  # whether a report has a note on the failure
        self._context = contextvars.copy_context()  # where a tracker keeps its current run
        self._folder: Path | None = None
        # dvclive needs a folder, too, but gets it by another argument
        if tracker is not None and (
            tracker == "dvclive" or _tracker_classes()[tracker].requires_logging_directory
        ):
            # a new folder for each run keeps their curves apart
            parent = (Path() if out is None else out.parent) / "runs"
            folder = parent / self._name
            number = 1
            while folder.exists():
                number += 1
                folder = parent / f"{self._name}-{number}"
            check_output(folder)
            self._folder = folder

    def describe(self) -> str | None:
        """Return a sentence that says where the log is; None without a tracker."""
        if self._kind is None:
            return None
        where = f"{self._kind} as {self._name}" if self._folder is None else str(self._folder)
        return f"Logging to {where}."

    @contextlib.contextmanager
    def opened(self, settings: Mapping[str, Any]) -> Iterator[None]:
        """Open the log while the block of this context manager runs. The settings, by dotted name,
        become the run's hyperparameters.
        """
        if self._kind is not None and process_state().is_main_process:
            # what the tracker prints is shown, since it may ask for a login
            self._try(self._start, settings, is_shown=True)
        try:
            yield
        finally:
            # ``end_training`` would also end the process group
            for tracker in () if self._accelerator is None else self._accelerator.trackers:
                self._try(tracker.finish)
            self._accelerator = None

    def record(self, report: Report, kept: Mapping[str, Any] | None) -> Report:
        """Log a step, and return its report. If logging has just failed, a note on that is added to
        the report.

        Args:
            report: The report of the step.
            kept: The entry of the step in the learning curves (see ``RunRecord.add``), which is
                logged; None if there is none.
        """
        if self._accelerator is not None and kept is not None:
            values = {
                name: value
                for name, value in kept.items()
                if name in _LOGGED or name.startswith(TERM)
            }
            values |= kept.get("metrics", {})
            values = {name: value for name, value in values.items() if value is not None}
            if report.sample and self._kind in _TAKE_TEXT:
                values["sample"] = report.sample
            self._try(self._accelerator.log, values, report.step)
        if self.failure is None or self._is_reported:
            return report
        self._is_reported = True
        return replace(report, notes=(*report.notes, self.failure))

    def _start(self, settings: Mapping[str, Any]) -> None:
        """Start the tracker, and give it the settings of the run."""
        kind = self._kind or ""
        tracker_class = _tracker_classes()[kind]
        name = self._name
        arguments = list[Any]()
        if self._folder is not None:
            name = str(self._folder) if kind == "dvclive" else self._folder.name
            if tracker_class.requires_logging_directory:
                arguments.append(self._folder.parent)
        options = _OPTIONS[kind](name) if kind in _OPTIONS else {}
        project = name if kind in _NAMED_BY_RUN else _PROJECT
        # trackers accept hyperparameters of these types only
        hyperparameters = {
            setting: value if isinstance(value, bool | int | float | str) else json.dumps(value)
            for setting, value in settings.items()
        }
        # given only the name of a tracker, accelerate would choose a folder and a project itself
        tracker = tracker_class(project, *arguments, **options)
        # all accelerators of a process have the same precision, so this one has the training's
        device = process_state().device.type
        precision = choose_precision(settings["training.precision"], device)
        accelerator = make_accelerator(precision, log_with=tracker)
        accelerator.init_trackers(project, hyperparameters)
        self._accelerator = accelerator

    def _try(self, action: Callable[..., None], *arguments: Any, is_shown: bool = False) -> None:
        """Call a function of the tracker; if it fails, continue without a log. What it prints goes
        to standard error if ``is_shown``, else nowhere.
        """
        try:
            with contextlib.redirect_stdout(sys.stderr if is_shown else io.StringIO()):
                self._context.run(action, *arguments)
        # third-party code may raise anything, and hours of training must not be lost to it
        except Exception as error:
            self.failure = (
                f"Logging to {self._kind} failed, and the training continues without it:"
                f" {first_line(error)}"
            )
            self._accelerator = None
