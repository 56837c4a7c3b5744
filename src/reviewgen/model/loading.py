"""``load``: a folder, a repository or a preset becomes a trained model. Imports no torch."""

from pathlib import Path
from typing import NamedTuple, TypedDict, Unpack

from reviewgen.bundle import read_bundle
from reviewgen.errors import BundleError, ConfigError
from reviewgen.hub import pull
from reviewgen.model.review_model import ReviewModel
from reviewgen.names import HubSource, PresetSource, parse_source
from reviewgen.registry import find_preset, find_weights, preset_names

__all__ = ["HubOptions", "Place", "find_folder", "load"]


class HubOptions(TypedDict, total=False):
    """How a repository is fetched; the names and meanings are huggingface_hub's."""

    token: str | bool | None
    cache_dir: str | Path | None
    local_files_only: bool
    force_download: bool


class Place(NamedTuple):
    """Where a saved model lies."""

    folder: Path
    name: str  # what it is loaded by again; of a repository with hf:// before it
    is_fetched: bool  # from the Hub


def load(
    source: str | Path,
    *,
    bits: int = 32,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> ReviewModel:
    """Return a trained model from a preset's weights, a local folder, or the Hub (``owner/name[@revision]``).

    Args:
        source: It. A preset is the weights that are installed with it; ``preset@revision`` those of that revision on the Hub.
        bits: Of a weight while the model writes: 8 write two to three times as fast as 32 where the model is larger than the
            processor's cache, and round each weight to a 127th of the largest of its output; 16 are nearly exact. Measuring and
            saving are not touched by it.
        revision: A branch, tag or commit on the Hub, as may also stand behind an @.
        token: For private repositories; by default that of ``hf auth login`` or HF_TOKEN.
        cache_dir: Where fetched files are kept; by default in HF_HOME.
        local_files_only: Whether to take only what was fetched before.
        force_download: Whether to fetch again what is there.

    Raises:
        ConfigError: ``bits`` is none of 32, 16 and 8, or the token is empty.
        SourceError: The source can be read as nothing, or as two things.
        BundleError: The folder is missing, damaged or foreign, or the preset has no weights.
        UnknownPlugin: The model's plugin is not installed; says what to install.
        PluginConflict, BrokenPlugin: Two packages claim the preset's weights, or they are not there.
        HubError: The Hub was not reached, or has no such repository, or what arrived is not what it has.
    """
    if bits not in (32, 16, 8) or isinstance(bits, bool):
        raise ConfigError(f"bits must be 32, 16 or 8; got {bits!r}.")
    place = find_folder(
        source,
        revision,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        force_download=force_download,
    )
    bundle = read_bundle(place.folder, bits, strict=not place.is_fetched)
    bundle.source = place.name
    return ReviewModel(bundle)


def find_folder(source: str | Path, revision: str | None = None, **options: Unpack[HubOptions]) -> Place:
    """Return the folder of a saved model; one on the Hub is fetched.

    Raises:
        SourceError: The source can be read as nothing, or as two things.
        BundleError: It is a preset, and that has no weights.
        HubError: The Hub was not reached, or has no such repository.
    """
    parsed = parse_source(source, preset_names(), revision)
    if isinstance(parsed, HubSource):
        return Place(pull(parsed, **options), f"hf://{parsed}", is_fetched=True)
    if not isinstance(parsed, PresetSource):
        return Place(parsed.path, str(source), is_fetched=False)
    folder = find_weights(parsed.name)
    if folder is None:
        find_preset(parsed.name)
        raise BundleError(
            f"No trained weights of the preset {parsed.name} are installed. Train it: reviewgen train {parsed.name} --data ..."
        )
    return Place(folder, parsed.name, is_fetched=False)
