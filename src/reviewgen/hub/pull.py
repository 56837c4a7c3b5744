"""Fetch a saved model: only its own files, all of one commit, and each as the Hub has it."""

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reviewgen.bundle.layout import CONFIG, TOLERATED, files_of
from reviewgen.errors import HubError
from reviewgen.hub.problems import check_token, plain_errors, shorten
from reviewgen.names import HubSource

__all__ = ["pull"]

_logger = logging.getLogger("reviewgen")
_SHOWN = 5  # files that are ignored, by name


def pull(
    source: HubSource,
    *,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """Return the local folder of a repository's model files, downloaded where the cache lacks them.

    Other files of the repository stay where they are; the logger ``reviewgen`` names them in a warning. Where the Hub is not
    reached, or says no, what was fetched before is taken, and a warning says so.

    Args:
        source: The repository, with or without a revision.
        token, cache_dir, local_files_only, force_download: What they are to ``huggingface_hub.snapshot_download``.

    Raises:
        HubError: The Hub was not reached, has no such repository or revision, or a file arrived damaged.
        BundleError: What the repository holds is no saved model.
        ConfigError: The token is empty.
    """
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RevisionNotFoundError,
    )

    check_token(token)
    place: dict[str, Any] = {"repo_id": source.repo_id, "cache_dir": cache_dir, "token": token}
    with plain_errors(source, "could not be fetched from the Hub"):
        if local_files_only:
            return _fetch(place | {"revision": source.revision, "local_files_only": True})[0]
        try:
            there = HfApi(token=token).model_info(source.repo_id, revision=source.revision, files_metadata=True)
        except RevisionNotFoundError:
            raise
        except Exception as error:  # of the client, or of its HTTP library
            if force_download:
                raise
            try:
                folder = _fetch(place | {"revision": source.revision, "local_files_only": True})[0]
            except LocalEntryNotFoundError as missing:
                if isinstance(error, HfHubHTTPError):
                    raise error from None
                raise missing from error
            if not isinstance(error, OfflineModeIsEnabled):
                _logger.warning("%s was not asked for on the Hub (%s): what was fetched before is taken.", source, shorten(error))
            return folder
        folder, wanted = _fetch(place | {"revision": there.sha, "force_download": force_download})
        _compare(source, folder, wanted, there.siblings or [])
        hf_hub_download(filename=CONFIG, revision=source.revision, **place)  # now the name is this commit's, offline, too
    return folder


def _fetch(how: dict[str, Any]) -> tuple[Path, set[str]]:
    """Return the folder of a commit in the cache, and the names of the files that belong to a saved model."""
    from huggingface_hub import hf_hub_download, snapshot_download

    config = Path(str(hf_hub_download(filename=CONFIG, **how)))
    try:
        wanted = files_of(json.loads(config.read_text(encoding="utf-8")))
    except (ValueError, RecursionError):  # what is wrong with it, the reader of the folder says
        return config.parent, {CONFIG}
    return Path(str(snapshot_download(allow_patterns=sorted(wanted), **how))), wanted


def _compare(source: HubSource, folder: Path, wanted: set[str], entries: Sequence[Any]) -> None:
    """Compare the digests of the fetched files with the Hub's, and name the files that were left there.

    Raises:
        HubError: Some differ; they are removed from the cache, so that they are fetched anew.
    """
    ignored = sorted(entry.rfilename for entry in entries if entry.rfilename not in wanted | TOLERATED)
    if ignored:
        more = f" and {len(ignored) - _SHOWN} more" if len(ignored) > _SHOWN else ""
        names = ", ".join(ascii(name) for name in ignored[:_SHOWN])
        _logger.warning("%s also holds %s%s, which no saved model has: ignored.", source, names, more)
    damaged = [entry.rfilename for entry in entries if entry.rfilename in wanted and _differs(folder / entry.rfilename, entry)]
    for name in damaged:
        (folder / name).resolve().unlink(missing_ok=True)
        (folder / name).unlink(missing_ok=True)
    if damaged:
        raise HubError(
            f"{', '.join(damaged)} of {source} arrived damaged: the digest is not the one that the Hub names. What came was "
            "removed; load again to fetch it anew."
        )


def _differs(file: Path, entry: Any) -> bool:
    """Return whether a file is not what the Hub has: a large one is known by its SHA-256, another by its git object."""
    if entry.lfs is not None:
        with file.open("rb") as stream:
            return bool(hashlib.file_digest(stream, "sha256").hexdigest() != entry.lfs.sha256)
    data = file.read_bytes()
    return bool(hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() != entry.blob_id)
