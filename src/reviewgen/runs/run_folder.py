"""``<out>.run``, the folder beside the output while a run trains: what decides the run, and its checkpoints.

An interrupted run resumes from its last checkpoint, and only with the same preset, settings, seed, length and corpus: on request,
or by itself where the launcher restarts lost processes; one that had saved its model by then is over. A folder that an
interrupted run has left is never overwritten silently.
The folder is removed when the model is saved for the first time, before it is measured.
"""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from reviewgen.config import read_json, rename_values
from reviewgen.errors import (
    AlreadyTrained,
    BundleError,
    CheckpointError,
    ConfigError,
    OutputExists,
    TrainingError,
    storage_errors,
)
from reviewgen.model import Bundle
from reviewgen.model.write import write_or_rescue
from reviewgen.processes import all_processes, resumes_by_itself
from reviewgen.protocols.migration import migrate_values
from reviewgen.runs.finished import describe_result, find_finished, run_folder_of
from reviewgen.runs.plan import TrainingPlan
from reviewgen.training import Checkpoints
from reviewgen.version import __version__

_SCHEMA = 1
_FREE = ("checkpoint_seconds", "checkpoints_kept", "device", "metrics")
_MAY_CHANGE = {f"training.{name}" for name in _FREE}  # when a run is resumed
_LATER_SETTINGS: dict[str, Any] = {  # that the runs of earlier versions do not name
    "data.fix_encoding": False,
    "training.bptt_random": False,
}
_TYPES = {"schema": int, "versions": dict, "preset": str, "settings": dict, "source": str, "fingerprint": str}  # in run.json


class RunFolder:
    """The folder of a run; a run without an output has none. Of several processes, the first uses it and shares its content.

    Args:
        plan: The plan of the run.

    Attributes:
        folder: The folder; None without an output.
        checkpoints: The checkpoints in it; None without an output, and in all processes but the first.
        saved: What the checkpoint that is resumed from has saved of the run's record; empty for a new run.
        seconds: The time that the resumed run had trained before.

    Raises:
        ConfigError: There is nothing to resume from: no output.
        CheckpointError: The model is trained by counting, which cannot be resumed.
    """

    def __init__(self, plan: TrainingPlan) -> None:
        if plan.resume and plan.out is None:
            raise ConfigError("Only a run with an output folder has checkpoints to resume from: give out, or leave resume out.")
        if plan.resume and plan.parts.is_counted:
            raise CheckpointError(
                f"{plan.preset} is trained by counting, which has no checkpoints: an interrupted count starts over. "
                "Leave out --resume (resume=True)."
            )
        self._resume, self._is_open, self._is_saved = plan.resume, False, False
        self._description, parts = _describe(plan), plan.parts
        self._out, self._settings = plan.out, plan.digest()
        self._finished: str | None = None  # the fingerprint of the corpus, if the model was saved before a restart
        self._configs = {
            "model": (parts.model_class.Config, parts.model_plugin.package),
            "tokenizer": (parts.tokenizer_class.Config, parts.tokenizer_plugin.package),
        }
        self.saved: Mapping[str, Any] = {}
        self.seconds = 0.0
        self.folder = None if plan.out is None else run_folder_of(plan.out)
        self.checkpoints: Checkpoints | None = None
        if self.folder is not None:
            training = plan.parts.training
            self.checkpoints = Checkpoints(self.folder, training.checkpoint_seconds, training.checkpoints_kept)

    def open(self) -> None:
        """Lock the folder for this run, and load the last checkpoint if the run is resumed.

        Raises:
            CheckpointError: The folder holds an interrupted run and this run does not resume it, or this run resumes and there is
                none; or what the folder holds is of another run, damaged, of a newer version, or in use.
            OutputExists: The job was started with restarts, and the output folder exists.
            BundleError: Likewise, and the model that it had saved there is damaged.
            StorageError: The folder cannot be written.
            TrainingError: Of several processes, only some have an output folder.
        """
        if self._is_open:  # reading has failed after this, and is tried again
            return
        with all_processes() as processes:
            if processes.broadcast(self.folder is None) != (self.folder is None):
                raise TrainingError("The processes have different settings: give all of them the output folder, or none.")
            self._description["settings"]["processes"] = processes.world_size
            with processes.main_process_first():
                if processes.rank:
                    self.checkpoints = None
                elif self._out is not None and resumes_by_itself():
                    self._finished = find_finished(self._out, self._settings)
                if self._finished is None and self.checkpoints is not None and self.folder is not None:
                    self._open(self.checkpoints, self.folder)
            self.saved, self.seconds, self._finished = processes.broadcast((self.saved, self.seconds, self._finished))
        self._is_open = True

    def describe_corpus(self, source: str, fingerprint: str) -> None:
        """Write ``run.json`` now that the corpus is known; a resumed run compares the corpus with the one in the file.

        Raises:
            AlreadyTrained: The run had saved its model before the launcher restarted it.
            OutputExists: A run of the same settings has saved a model of another corpus.
            CheckpointError: The resumed run was started on another corpus.
        """
        if self._finished is not None:
            self._refuse_finished(fingerprint)
        if self.checkpoints is None or self.folder is None:
            return
        file, corpus = self.folder / Checkpoints.RUN, {"source": source, "fingerprint": fingerprint}
        before = _read_description(file) if self._resume else None
        if before is None:
            with storage_errors(file):
                self.checkpoints.write(file, json.dumps(self._description | corpus, indent=2).encode())
        elif before["fingerprint"] != fingerprint:
            raise CheckpointError(
                f"{self.folder} was started on another corpus: the texts of {source} differ from those of {before['source']}. "
                "Give the same reviews to resume it, or another output folder."
            )

    def save(self, bundle: Bundle) -> None:
        """Write the model, in place of what this run has saved before, and remove the folder, which is of no more use.

        The record of the model is noted first: where the process is killed in between, the folder is not needed either.

        Raises:
            StorageError: The output folder cannot be written; says where the model was saved instead.
        """
        if self.checkpoints is None or self.folder is None or self._out is None:
            return
        is_first = self._is_open and not self._is_saved
        if is_first:
            with contextlib.suppress(OSError):  # a full disk; the model is rescued
                self.checkpoints.write(self.folder / Checkpoints.SAVED, describe_result(bundle.training))
        write_or_rescue(bundle, self._out, overwrite=self._is_saved)
        self._is_saved = True
        if is_first:
            self.checkpoints.discard()

    @contextlib.contextmanager
    def closed_on_error(self) -> Iterator[None]:
        """Unlock the folder if a block raises an error, and remove it if it has no checkpoints.

        The garbage collector might be late: a traceback that is kept, as in a notebook, keeps the lock as well. After an
        interrupt the folder stays locked, since the run may still be finished.
        """
        try:
            yield
        except Exception:
            if self.checkpoints is not None and self._is_open and self._finished is None:
                self.checkpoints.close()
            self._is_open = False
            raise

    def _open(self, checkpoints: Checkpoints, folder: Path) -> None:
        if self._resume and not folder.is_dir():
            raise CheckpointError(
                f"There is no run to resume: {folder} does not exist. Leave out --resume (resume=True) to start one."
            )
        checkpoints.open()
        try:
            self._load(checkpoints, folder)
        except CheckpointError:
            checkpoints.close()
            raise
        checkpoints.adopt()
        self.saved, self.seconds = checkpoints.extra, checkpoints.seconds

    def _refuse_finished(self, fingerprint: str) -> None:
        if self._finished == fingerprint:
            raise AlreadyTrained(f"{self._out} was saved before: it was trained with the same settings, on the same texts.")
        raise OutputExists(
            f"{self._out} already exists, and was trained on other texts. Give another folder, or remove it first."
        )

    def _update_settings(self, part: str, saved: Mapping[str, Any], versions: Mapping[str, str]) -> dict[str, Any]:
        """Return the settings of the model or tokenizer that an earlier version has saved under their names and values of today.

        Raises:
            CheckpointError: The config cannot read them.
        """
        config, package = self._configs[part]
        try:
            migrated = migrate_values(config, saved, versions.get(package, ""))
        except BundleError as error:
            raise CheckpointError(f"{self.folder} cannot be resumed: {error}") from None
        return rename_values(config, migrated)

    def _load(self, checkpoints: Checkpoints, folder: Path) -> None:
        """Compare what the folder holds with this run, and load the last checkpoint if the run is resumed.

        Raises:
            CheckpointError: They do not fit.
        """
        before, steps = _read_description(folder / Checkpoints.RUN), checkpoints.steps()
        self._resume = self._resume or bool(before is not None and steps and resumes_by_itself())
        if before is None and (steps or checkpoints.has_foreign_files()):
            raise CheckpointError(f"{folder} holds no run that can be resumed. Remove it, or give another output folder.")
        if not self._resume:
            if before is not None and steps:
                raise CheckpointError(
                    f"{folder} holds a run of {before['preset']} on {before['source']} that was interrupted after step "
                    f"{steps[-1]:,} or later. Resume it with the same command and --resume (resume=True), or remove that "
                    "folder to start over."
                )
            return
        if before is None:
            raise CheckpointError(f"There is no run to resume in {folder}. Leave out --resume (resume=True) to start one.")
        for part in self._configs:
            if isinstance(settings := before["settings"].get(part), dict):  # an earlier version may have had other values
                before["settings"][part] = self._update_settings(part, settings, before["versions"])
        _compare(folder, before, self._description)
        checkpoints.load()
        checkpoints.note(
            f"The run resumes from step {checkpoints.steps()[-1]:,}."
            if steps
            else "The run was interrupted before its first checkpoint, so it starts again."
        )
        now = self._description["versions"]
        for name, old in before["versions"].items():
            if old != now.get(name):
                checkpoints.note(
                    f"It was started with {name} {old} and resumes with {now.get(name)}: losses may differ a little."
                )


def _describe(plan: TrainingPlan) -> dict[str, Any]:
    """Return what decides a run, except for its corpus, as it is read from ``run.json``."""
    description = {
        "schema": _SCHEMA,
        "versions": {plugin.package: plugin.version for plugin in plan.parts.plugins}
        | {"reviewgen": __version__, "torch": version("torch")},
        "preset": plan.preset,
        "settings": plan.identity() | {"seed": plan.seed, "budget": plan.length.to_json()},
    }
    as_read: dict[str, Any] = json.loads(json.dumps(description))
    return as_read


def _compare(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise if the description in a folder is not that of the run that resumes it.

    Raises:
        CheckpointError: It is of a newer version or of another preset, or a setting differs.
    """
    old = before["versions"]["reviewgen"]
    if before["schema"] > _SCHEMA or _parse_version(old) > _parse_version(__version__):
        raise CheckpointError(
            f"{folder} was started by reviewgen {old}, which is newer than this one, {__version__}: update reviewgen."
        )
    if before["preset"] != now["preset"]:
        raise CheckpointError(
            f"{folder} is a run of {before['preset']}, not of {now['preset']}. Give {before['preset']}, or another output folder."
        )
    was, is_now = _LATER_SETTINGS | _flatten(before["settings"]), _flatten(now["settings"])
    names = [name for name in sorted(was.keys() | is_now.keys()) if was.get(name) != is_now.get(name) and name not in _MAY_CHANGE]
    if names:
        old_values, new_values = (
            ", ".join(f"{name}={_format(values.get(name))}" for name in names[:3]) for values in (was, is_now)
        )
        raise CheckpointError(
            f"{folder} was started with {old_values}, not {new_values}. Give the same settings to resume it, or another output "
            "folder."
        )


def _read_description(file: Path) -> dict[str, Any] | None:
    """Return what decides a run, from its ``run.json``; None if there is no such file.

    Raises:
        CheckpointError: The file is damaged.
    """
    try:
        content = read_json(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        content = None
    is_whole = isinstance(content, dict) and all(isinstance(content.get(name), kind) for name, kind in _TYPES.items())
    if not is_whole or not isinstance(content["versions"].get("reviewgen"), str):
        raise CheckpointError(f"{file} is damaged, so its run cannot be resumed. Remove {file.parent} to start over.")
    description: dict[str, Any] = content
    return description


def _parse_version(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)[:3]))


def _flatten(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= {f"{name}.{key}": part for key, part in value.items()} if isinstance(value, Mapping) else {name: value}
    return flat


def _format(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
