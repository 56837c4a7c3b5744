"""Which presets have trained weights installed, how large and how good; standard library only, for ``reviewgen list``."""

import json
from dataclasses import dataclass

from reviewgen.errors import PluginError
from reviewgen.registry.plugins import find_weights

__all__ = ["InstalledWeights", "describe_weights"]

_TRAINING = "training.json"  # as in ``bundle``, which brings numpy


@dataclass(frozen=True)
class InstalledWeights:
    """The trained weights of a preset.

    Attributes:
        megabytes: What the whole folder takes.
        bits_per_character: On held-out text of the training's corpus; None where it was not measured.
        problem: Why they are unusable, if they are.
    """

    megabytes: float | None = None
    bits_per_character: float | None = None
    problem: str | None = None


def describe_weights(preset: str) -> InstalledWeights | None:
    """Return what there is to say of a preset's weights; None where none are installed. Reads no weight."""
    try:
        folder = find_weights(preset)
        if folder is None:
            return None
        size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
        held_out = json.loads((folder / _TRAINING).read_text(encoding="utf-8")).get("held_out") or {}
        bits = held_out.get("bits_per_character")
    except PluginError as problem:
        return InstalledWeights(problem=str(problem))
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        return InstalledWeights(problem=f"{_TRAINING} cannot be read: {error}")
    if not isinstance(bits, int | float | None):
        return InstalledWeights(problem=f"{_TRAINING} says that its bits per character are {bits!r}")
    return InstalledWeights(round(size / 1e6, 2), bits)
