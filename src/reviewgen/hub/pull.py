"""``reviewgen pull``: downloads a model from the Hub, reads it, and copies it to a folder if one is given."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reviewgen.errors import ConfigError
from reviewgen.hub.download import download
from reviewgen.hub.locate import parse_repository
from reviewgen.model import read_bundle
from reviewgen.storage import to_path


def pull(
    repo_id: str,
    *,
    out: Path | None = None,
    token: str | None = None,
    force_download: bool = False,
    accept_changes: bool = False,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Download a model, check that it can be read, and return a summary of it as JSON values.

    Args:
        repo_id: ``owner/name``, also with ``@revision``.
        out: A new folder for a copy, whose manifest is written anew.
        token: The access token of the Hub.
        force_download: Whether to download files that are cached.
        accept_changes: Whether to copy files that are not as they were saved.
        progress: As in ``download``.

    Raises:
        SourceError: ``repo_id`` is not the name of a repository.
        ConfigError: ``accept_changes`` is true, but no folder is given to save the files in.
        HubError, BundleError, UnknownPlugin: As ``reviewgen.load``.
        OutputExists, StorageError: ``out`` exists already, or cannot be written.
    """
    from reviewgen.model.write import copy_bundle  # torch
    from reviewgen.storage import refuse_existing

    source = parse_repository(repo_id, None)
    if accept_changes and out is None:
        raise ConfigError("--accept-changes saves the changed model in a folder of its own: give it with --out.")
    target = None if out is None else to_path("out", out)
    if target is not None:
        refuse_existing(target)
    folder = download(source, token=token, force_download=force_download, progress=progress)
    bundle = read_bundle(folder, strict=False, accept_changes=accept_changes)
    if target is not None:
        copy_bundle(folder, target, digests=bundle.digests)
    bits = (bundle.training.get("held_out") or {}).get("bits_per_character")
    return {
        "repository": str(source),
        "preset": bundle.preset,
        "bits_per_character": bits if bits is not None and math.isfinite(bits) else None,
        "megabytes": round(megabytes(folder), 3),
        "folder": str(out or folder),
    }


def megabytes(folder: Path) -> float:
    """Return the size of a folder's files in megabytes."""
    return sum(file.stat().st_size for file in folder.iterdir()) / 1e6
