"""Finds the folder of a model: that of a preset's installed weights, of a repository on the Hub, or a local one. No torch."""

from pathlib import Path
from typing import NamedTuple, TypedDict, Unpack

from reviewgen.errors import BundleError, SourceError, quoted
from reviewgen.hub.download import download
from reviewgen.names import HubSource, PresetSource, find_revision, parse_hub_id, parse_source
from reviewgen.registry import find_preset, find_weights, preset_names


class HubOptions(TypedDict, total=False):
    """How a repository is downloaded; the names and meanings are those of huggingface_hub."""

    token: str | bool | None
    cache_dir: str | Path | None
    local_files_only: bool
    force_download: bool


class ModelLocation(NamedTuple):
    """The folder of a saved model.

    Attributes:
        folder: The folder.
        name: What loads the model again; a repository begins with hf://.
        is_downloaded: Whether it comes from the Hub.
    """

    folder: Path
    name: str
    is_downloaded: bool


def locate(source: str | Path, revision: str | None = None, **options: Unpack[HubOptions]) -> ModelLocation:
    """Return the folder of a saved model; a repository on the Hub is downloaded.

    Raises:
        SourceError: The source is neither a preset, a repository nor a folder, or could be two of them.
        BundleError: It is a preset without installed weights.
        HubError: The Hub cannot be reached, or has no such repository.
    """
    parsed = parse_source(source, preset_names(), revision)
    if isinstance(parsed, HubSource):
        return ModelLocation(download(parsed, **options), f"hf://{parsed}", is_downloaded=True)
    if not isinstance(parsed, PresetSource):
        return ModelLocation(parsed.path, str(source), is_downloaded=False)
    folder = find_weights(parsed.name)
    if folder is None:
        find_preset(parsed.name)
        raise BundleError(
            f"No trained weights of the preset {parsed.name} are installed. Train it: reviewgen train {parsed.name} --data ..."
        )
    return ModelLocation(folder, parsed.name, is_downloaded=False)


def parse_repository(repo_id: str, revision: str | None) -> HubSource:
    """Return the repository that ``owner/name[@revision]`` names.

    Raises:
        SourceError: It is not the name of a repository, or names another revision.
    """
    repository = parse_hub_id(repo_id) if isinstance(repo_id, str) else None
    if repository is None:
        raise SourceError(f"{quoted(repo_id)} is not a repository on the Hub: write owner/name, as in ana/music-reviews.")
    return repository if revision is None else find_revision(repository, revision)
