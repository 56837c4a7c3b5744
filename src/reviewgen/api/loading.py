"""``load``: a folder, a repository or a preset becomes a trained model. Imports no torch."""

from pathlib import Path

from reviewgen.bundle import read_bundle
from reviewgen.errors import BundleError
from reviewgen.hub import pull
from reviewgen.model import ReviewModel
from reviewgen.names import HubSource, PresetSource, parse_source
from reviewgen.registry import find_preset, preset_names

__all__ = ["load"]


def load(source: str | Path) -> ReviewModel:
    """Return a trained model from a local folder, the Hub (``owner/name[@revision]``) or a preset's published weights.

    Raises:
        SourceError: The source can be read as nothing, or as two things.
        BundleError: The folder is missing, damaged or foreign, or the preset has no published weights.
        UnknownPlugin: The model's plugin is not installed; says what to install.
        HubError: The Hub was not reached, or has no such repository.
    """
    parsed = parse_source(source, preset_names())
    if isinstance(parsed, PresetSource):
        find_preset(parsed.name)
        raise BundleError(
            f"The preset {parsed.name} has no published weights yet. Train it: reviewgen train {parsed.name} --data ..."
        )
    return ReviewModel(read_bundle(pull(parsed) if isinstance(parsed, HubSource) else parsed.path))
