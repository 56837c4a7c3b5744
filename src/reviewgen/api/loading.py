"""``load``: a folder, a repository or a preset becomes a trained model. Imports no torch."""

from pathlib import Path

from reviewgen.bundle import read_bundle
from reviewgen.errors import BundleError, ConfigError
from reviewgen.hub import pull
from reviewgen.model import ReviewModel
from reviewgen.names import HubSource, PresetSource, parse_source
from reviewgen.registry import find_preset, preset_names

__all__ = ["find_folder", "load"]


def load(source: str | Path, *, bits: int = 32) -> ReviewModel:
    """Return a trained model from a local folder, the Hub (``owner/name[@revision]``) or a preset's published weights.

    Args:
        source: It.
        bits: Of a weight while the model writes: 8 write two to three times as fast as 32 where the model is larger than the
            processor's cache, and round each weight to a 127th of the largest of its output; 16 are nearly exact. Measuring and
            saving are not touched by it.

    Raises:
        ConfigError: ``bits`` is none of 32, 16 and 8.
        SourceError: The source can be read as nothing, or as two things.
        BundleError: The folder is missing, damaged or foreign, or the preset has no published weights.
        UnknownPlugin: The model's plugin is not installed; says what to install.
        HubError: The Hub was not reached, or has no such repository.
    """
    if bits not in (32, 16, 8) or isinstance(bits, bool):
        raise ConfigError(f"bits must be 32, 16 or 8; got {bits!r}.")
    bundle = read_bundle(find_folder(source), bits)
    bundle.source = str(source)
    return ReviewModel(bundle)


def find_folder(source: str | Path) -> Path:
    """Return the folder of a saved model; one on the Hub is fetched.

    Raises:
        SourceError: The source can be read as nothing, or as two things.
        BundleError: It is a preset, and that has no published weights.
        HubError: The Hub was not reached, or has no such repository.
    """
    parsed = parse_source(source, preset_names())
    if isinstance(parsed, PresetSource):
        find_preset(parsed.name)
        raise BundleError(
            f"The preset {parsed.name} has no published weights yet. Train it: reviewgen train {parsed.name} --data ..."
        )
    return pull(parsed) if isinstance(parsed, HubSource) else parsed.path
