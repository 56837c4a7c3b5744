"""Downloads a saved model from the Hub: the files of the model only, from a single commit, with their digests verified."""

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

__all__ = ["download"]

_logger = logging.getLogger("reviewgen")
_MAX_SHOWN = 5  # ignored files named in a warning


def download(
    source: HubSource,
    *,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """Download a repository's model files, unless they are cached, and return their local folder.

    Other files of the repository are not downloaded; the logger ``reviewgen`` names them in a warning. If the Hub cannot be
    reached or refuses the request, the cached version is used, with a warning.

    Args:
        source: The repository, with or without a revision.
        token, cache_dir, local_files_only, force_download: As in ``huggingface_hub.snapshot_download``.

    Raises:
        HubError: The Hub was not reached, has no such repository or revision, or a file was damaged in transfer.
        BundleError: The repository does not contain a saved model.
        ConfigError: The token is empty or has spaces in it.
    """
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RevisionNotFoundError,
    )

    check_token(token)
    arguments: dict[str, Any] = {"repo_id": source.repo_id, "cache_dir": cache_dir, "token": token}
    with plain_errors(source, "could not be downloaded from the Hub"):
        if local_files_only:
            return _fetch(arguments | {"revision": source.revision, "local_files_only": True})[0]
        try:
            info = HfApi(token=token).model_info(source.repo_id, revision=source.revision, files_metadata=True)
        except RevisionNotFoundError:
            raise
        except Exception as error:  # of the client, or of its HTTP library
            if force_download:
                raise
            try:
                folder = _fetch(arguments | {"revision": source.revision, "local_files_only": True})[0]
            except LocalEntryNotFoundError as missing:
                if isinstance(error, HfHubHTTPError):
                    raise error from None
                raise missing from error
            if not isinstance(error, OfflineModeIsEnabled):
                _logger.warning("%s could not be checked on the Hub (%s), so the cached version is used.", source, shorten(error))
            return folder
        folder, names = _fetch(arguments | {"revision": info.sha, "force_download": force_download})
        _verify(source, folder, names, info.siblings or [])
        # Caches which commit the revision names, for offline use.
        hf_hub_download(filename=CONFIG, revision=source.revision, **arguments)
    return folder


def _fetch(arguments: dict[str, Any]) -> tuple[Path, set[str]]:
    """Return the cached folder of a commit, and the names of the files that belong to the model."""
    from huggingface_hub import hf_hub_download, snapshot_download

    config = Path(str(hf_hub_download(filename=CONFIG, **arguments)))
    try:
        names = files_of(json.loads(config.read_text(encoding="utf-8")))
    except (ValueError, RecursionError):  # the error is reported when the folder is read
        return config.parent, {CONFIG}
    return Path(str(snapshot_download(allow_patterns=sorted(names), **arguments))), names


def _verify(source: HubSource, folder: Path, names: set[str], entries: Sequence[Any]) -> None:
    """Compare the digests of the downloaded files with the Hub's, and warn of files that do not belong to the model.

    Raises:
        HubError: Some digests differ. These files are removed from the cache, so that they are downloaded again.
    """
    ignored = sorted(entry.rfilename for entry in entries if entry.rfilename not in names | TOLERATED)
    if ignored:
        more = f" and {len(ignored) - _MAX_SHOWN} more" if len(ignored) > _MAX_SHOWN else ""
        listed = ", ".join(ascii(name) for name in ignored[:_MAX_SHOWN])
        _logger.warning("%s also contains %s%s, which are not files of a saved model: ignored.", source, listed, more)
    damaged = [entry.rfilename for entry in entries if entry.rfilename in names and _differs(folder / entry.rfilename, entry)]
    for name in damaged:
        (folder / name).resolve().unlink(missing_ok=True)
        (folder / name).unlink(missing_ok=True)
    if damaged:
        raise HubError(
            f"{', '.join(damaged)} of {source} was damaged in transfer: the digest does not match the Hub's. The download was "
            "removed; load the model again to repeat it."
        )


def _differs(file: Path, entry: Any) -> bool:
    """Return whether a file differs from the Hub's, by SHA-256 if it is stored in LFS, else by its git blob id."""
    if entry.lfs is not None:
        with file.open("rb") as stream:
            return bool(hashlib.file_digest(stream, "sha256").hexdigest() != entry.lfs.sha256)
    data = file.read_bytes()
    return bool(hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() != entry.blob_id)
