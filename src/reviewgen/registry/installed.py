"""The size and quality of a preset's installed weights, for ``reviewgen list``. Standard library only."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reviewgen.config import MAX_RECORD, read_json
from reviewgen.errors import PluginError
from reviewgen.registry.installed_points import Plugin
from reviewgen.registry.plugins import find_weights

_TRAINING, _MANIFEST = "training.json", "manifest.json"  # as in ``bundle.layout``, not imported because it loads numpy


@dataclass(frozen=True)
class InstalledWeights:
    """The trained weights of a preset.

    Attributes:
        megabytes: The size of the folder; None if it cannot be read.
        bits_per_character: On held-out text of the training corpus; None if it was not measured.
        copy_rate: The share of the characters of its texts in long spans of the training text, with its 95 % interval and the
            number of characters that it rests on: "value", "interval", "characters". None if it was not measured.
        problem: Why the weights cannot be used; None if they can.
    """

    megabytes: float | None = None
    bits_per_character: float | None = None
    copy_rate: Mapping[str, Any] | None = None
    problem: str | None = None


def describe_weights(preset: str | Plugin) -> InstalledWeights | None:
    """Return the facts about a preset's installed weights without loading them; None if none are installed.

    Files that have changed since the weights were saved are a problem, as they are for ``load``.
    """
    try:
        folder = find_weights(preset)
        if folder is None:
            return None
        size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
        training = read_json(folder / _TRAINING, MAX_RECORD)
        bits, novelty = (training.get("held_out") or {}).get("bits_per_character"), training.get("novelty") or {}
        names = {"value": "copy_rate", "interval": "copy_rate_interval", "characters": "copy_rate_characters"}
        copies = {name: novelty.get(key) for name, key in names.items()} if novelty.get("copy_rate") is not None else None
    except PluginError as problem:
        return InstalledWeights(problem=str(problem))
    except (OSError, ValueError, AttributeError) as error:
        return InstalledWeights(problem=f"{_TRAINING} cannot be read: {error}")
    if not isinstance(bits, int | float | None):
        return InstalledWeights(problem=f"the bits per character in {_TRAINING} must be a number; got {bits!r}")
    try:
        changed = _find_change(folder)
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        return InstalledWeights(problem=f"{_MANIFEST} is damaged, or does not belong to {folder}: {error}")
    if changed is not None:
        return InstalledWeights(problem=f"{changed} of {folder} has changed since the model was saved, or is missing")
    return InstalledWeights(round(size / 1e6, 2), bits, copies)


def _find_change(folder: Path) -> str | None:
    """Return the first file that is not as the folder's manifest says, if it has one; sizes are compared before any is read."""
    if not (folder / _MANIFEST).is_file():  # an earlier version saved the folder
        return None
    saved: dict[str, Any] = read_json(folder / _MANIFEST)["files"]
    for name, facts in saved.items():
        if not (folder / name).is_file() or (folder / name).stat().st_size != facts["size"]:
            return name
    for name, facts in saved.items():
        with (folder / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != facts["sha256"]:
                return name
    return None
