"""The size and quality of a preset's installed weights, for ``reviewgen list``. Standard library only."""

from dataclasses import dataclass

from reviewgen.config import MAX_RECORD, read_json
from reviewgen.errors import PluginError
from reviewgen.registry.plugins import find_weights

__all__ = ["InstalledWeights", "describe_weights"]

_TRAINING = "training.json"  # as in ``bundle.layout``, not imported because it loads numpy


@dataclass(frozen=True)
class InstalledWeights:
    """The trained weights of a preset.

    Attributes:
        megabytes: The size of the folder; None if it cannot be read.
        bits_per_character: On held-out text of the training corpus; None if it was not measured.
        problem: Why the weights cannot be used; None if they can.
    """

    megabytes: float | None = None
    bits_per_character: float | None = None
    problem: str | None = None


def describe_weights(preset: str) -> InstalledWeights | None:
    """Return the facts about a preset's installed weights without loading them; None if none are installed."""
    try:
        folder = find_weights(preset)
        if folder is None:
            return None
        size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
        held_out = read_json(folder / _TRAINING, MAX_RECORD).get("held_out") or {}
        bits = held_out.get("bits_per_character")
    except PluginError as problem:
        return InstalledWeights(problem=str(problem))
    except (OSError, ValueError, AttributeError) as error:
        return InstalledWeights(problem=f"{_TRAINING} cannot be read: {error}")
    if not isinstance(bits, int | float | None):
        return InstalledWeights(problem=f"the bits per character in {_TRAINING} must be a number; got {bits!r}")
    return InstalledWeights(round(size / 1e6, 2), bits)
