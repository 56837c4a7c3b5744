"""``<out>.run``, beside the output while a run trains: what it was told, and its checkpoints.

A run that was cut short goes on from there, and only as it began: with the preset, settings, seed, budget and corpus that it
was told. A folder that was left behind is never started over in silence. When the model is saved, the folder goes.
"""

import json
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from reviewgen.config import rename_values
from reviewgen.errors import CheckpointError, ConfigError, TrainingError, storage_errors
from reviewgen.runs.start import Start
from reviewgen.training import Checkpoints, all_processes
from reviewgen.version import __version__

__all__ = ["RunFolder"]

SCHEMA = 1
_FREE = {"training.checkpoint_seconds", "training.checkpoints_kept"}  # may change when a run goes on


class RunFolder:
    """The folder of a run; without an output there is none. Of several processes, the first has it, and tells the others.

    Args:
        out: Where the model will be saved.
        preset: What is trained.
        start: What the run starts from.
        settings: What decides how the run goes, by group; those of training say how often there are checkpoints.
        resume: Whether to go on with a run that was cut short.

    Raises:
        ConfigError: There is nothing that could go on: no output.
        CheckpointError: The model is trained by counting.
    """

    def __init__(
        self,
        out: Path | None,
        preset: str,
        start: Start,
        settings: Mapping[str, Any],
        *,
        resume: bool,
    ) -> None:
        if resume and out is None:
            raise ConfigError("Only a run with an output folder has checkpoints to go on from: give out, or do without resume.")
        if resume and start.counts:
            raise CheckpointError(
                f"{preset} is trained by counting, which has no checkpoints: a count that was cut short starts over. "
                "Do without --resume (resume=True)."
            )
        self._resume, self._begun = resume, False
        self._model_config = start.model_class.Config
        plugins = start.model_plugin, start.tokenizer_plugin
        versions = {plugin.package: plugin.version for plugin in plugins} | {"reviewgen": __version__, "torch": version("torch")}
        told = {"schema": SCHEMA, "versions": versions, "preset": preset, "settings": settings}
        self._told: dict[str, Any] = json.loads(json.dumps(told))  # as it comes back from a file
        self._beside: dict[str, Any] = {}
        self.seconds = 0.0  # that the run had trained before it was cut short
        self.folder = None if out is None else out.with_name(f"{out.name}.run")
        self.checkpoints: Checkpoints | None = None
        if self.folder is not None:
            training = settings["training"]
            self.checkpoints = Checkpoints(self.folder, training["checkpoint_seconds"], training["checkpoints_kept"])

    def open(self) -> None:
        """Take the folder for this run; to go on, load the last checkpoint.

        Raises:
            CheckpointError: A run was cut short here and this one is not to go on with it, or there is none and it is; what
                is here is another run's, damaged, of a newer version, or in use.
            StorageError: The folder may not be written.
            TrainingError: Of several processes, some have an output folder and some have none.
        """
        if self._begun:
            return
        with all_processes() as processes:
            if processes.broadcast(self.folder is None) != (self.folder is None):
                raise TrainingError("The processes were not told the same: give all of them the output folder, or none.")
            self._told["settings"]["processes"] = processes.world_size
            with processes.main_process_first():
                if processes.rank:
                    self.checkpoints = None
                elif self.checkpoints is not None and self.folder is not None:
                    self._open(self.checkpoints, self.folder)
            self._beside, self.seconds = processes.broadcast((self._beside, self.seconds))
        self._begun = True

    def _open(self, checkpoints: Checkpoints, folder: Path) -> None:
        if self._resume and not folder.is_dir():
            raise CheckpointError(
                f"There is no run to go on with: {folder} is not there. Do without --resume (resume=True) to begin one."
            )
        checkpoints.open()
        try:
            self._look(checkpoints, folder)
        except CheckpointError:
            checkpoints.close()
            raise
        self._beside, self.seconds = checkpoints.extra, checkpoints.seconds

    def settle(self, source: str, fingerprint: str) -> None:
        """Write down what the run was told, now that the corpus is known; of a run that goes on, compare the corpus.

        Raises:
            CheckpointError: The run was begun on another corpus.
        """
        if self.checkpoints is None or self.folder is None:
            return
        file, corpus = self.folder / Checkpoints.RUN, {"source": source, "fingerprint": fingerprint}
        begun = _read(file) if self._resume else None
        if begun is None:
            with storage_errors(file):
                self.checkpoints.write(file, json.dumps(self._told | corpus, indent=2).encode())
        elif begun["fingerprint"] != fingerprint:
            raise CheckpointError(
                f"{self.folder} was begun on another corpus: the texts of {source} are not those that {begun['source']} had. "
                "Give the same reviews to go on with it, or another output folder."
            )

    def recall(self, name: str) -> list[Any]:
        """Return a list of JSON values that every checkpoint keeps as it is then, as the last one has it."""
        found: list[Any] = self._beside.setdefault(name, [])
        return found

    def discard(self) -> None:
        """Remove the folder of a run whose model is saved."""
        if self.checkpoints is not None and self._begun:
            self.checkpoints.discard()

    def _look(self, checkpoints: Checkpoints, folder: Path) -> None:
        """Compare what is in the folder with what this run is told, and load the last checkpoint to go on.

        Raises:
            CheckpointError: They do not fit.
        """
        begun, steps = _read(folder / Checkpoints.RUN), checkpoints.steps()
        if begun is None and (steps or checkpoints.has_foreign_files()):
            raise CheckpointError(f"{folder} holds no run that can go on. Remove it, or give another output folder.")
        if not self._resume:
            if begun is not None and steps:
                raise CheckpointError(
                    f"{folder} holds a run of {begun['preset']} on {begun['source']} that was cut short after step "
                    f"{steps[-1]:,} or later. Go on with it by the same command and --resume (resume=True), or remove that "
                    "folder to start over."
                )
            return
        if begun is None:
            raise CheckpointError(f"There is no run to go on with in {folder}. Do without --resume (resume=True) to begin one.")
        if isinstance(model_settings := begun["settings"].get("model"), dict):  # of an earlier version, which had other names
            begun["settings"]["model"] = rename_values(self._model_config, model_settings)
        _compare(folder, begun, self._told)
        checkpoints.load()
        checkpoints.note(
            f"The run goes on from step {checkpoints.steps()[-1]:,}."
            if steps
            else "The run was cut short before its first checkpoint, so it begins again."
        )
        now = self._told["versions"]
        for name, old in begun["versions"].items():
            if old != now.get(name):
                checkpoints.note(f"It was begun with {name} {old} and goes on with {now.get(name)}: losses may differ a little.")


def _compare(folder: Path, begun: Mapping[str, Any], told: Mapping[str, Any]) -> None:
    """Raise where a run is not the one that was begun.

    Raises:
        CheckpointError: It is of a newer version or of another preset, or a setting differs.
    """
    old = begun["versions"]["reviewgen"]
    if begun["schema"] > SCHEMA or _number(old) > _number(__version__):
        raise CheckpointError(f"{folder} was begun by reviewgen {old}, which is newer than this one, {__version__}: update it.")
    if begun["preset"] != told["preset"]:
        raise CheckpointError(
            f"{folder} is a run of {begun['preset']}, not of {told['preset']}. Give {begun['preset']}, or another output folder."
        )
    before, now = _flat(begun["settings"]), _flat(told["settings"])
    differing = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name) and name not in _FREE]
    if differing:
        was, is_now = (", ".join(f"{name}={_show(values, name)}" for name in differing[:3]) for values in (before, now))
        raise CheckpointError(
            f"{folder} was begun with {was}, not {is_now}. Give the same settings to go on with it, or another output folder."
        )


def _read(file: Path) -> dict[str, Any] | None:
    """Return what a run was told; None where there is nothing of that kind.

    Raises:
        CheckpointError: The file is there and damaged.
    """
    try:
        found = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        found = None
    kinds = {"schema": int, "versions": dict, "preset": str, "settings": dict, "source": str, "fingerprint": str}
    if not isinstance(found, dict) or not all(isinstance(found.get(name), kind) for name, kind in kinds.items()):
        raise CheckpointError(f"{file} is damaged, so its run cannot go on. Remove {file.parent} to start over.")
    if not isinstance(found["versions"].get("reviewgen"), str):
        raise CheckpointError(f"{file} is damaged, so its run cannot go on. Remove {file.parent} to start over.")
    return found


def _number(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)[:3]))


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= {f"{name}.{key}": part for key, part in value.items()} if isinstance(value, Mapping) else {name: value}
    return flat


def _show(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    return value if isinstance(value, str) else json.dumps(value)
