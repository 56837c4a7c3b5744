"""Fetch a saved model: only its own files, and each as the Hub has it."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from reviewgen.bundle.layout import CONFIG, TOLERATED, files_of
from reviewgen.errors import HubError
from reviewgen.hub.problems import plain_errors
from reviewgen.names import HubSource

__all__ = ["pull"]

_logger = logging.getLogger("reviewgen")
_FAILED = "could not be fetched from the Hub"
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

    Other files of the repository stay where they are; the logger ``reviewgen`` names them in a warning.

    Args:
        source: The repository, with or without a revision.
        token, cache_dir, local_files_only, force_download: What they are to ``huggingface_hub.snapshot_download``.

    Raises:
        HubError: The Hub was not reached, has no such repository or revision, or a file arrived damaged.
        BundleError: What the repository holds is no saved model.
    """
    from huggingface_hub import hf_hub_download, snapshot_download

    how: dict[str, Any] = {
        "revision": source.revision,
        "token": token,
        "cache_dir": cache_dir,
        "local_files_only": local_files_only,
        "force_download": force_download,
    }
    with plain_errors(source, _FAILED):
        config = str(hf_hub_download(source.repo_id, CONFIG, **how))
        wanted = files_of(_read(Path(config)))
        folder = Path(str(snapshot_download(source.repo_id, allow_patterns=sorted(wanted), **how)))
        if not local_files_only:
            _compare(source, folder, wanted, token)
    return folder


def _read(config: Path) -> Any:
    try:
        return json.loads(config.read_text(encoding="utf-8"))
    except ValueError:
        return None  # the reader of the folder says what is wrong with it


def _compare(source: HubSource, folder: Path, wanted: set[str], token: str | bool | None) -> None:
    """Compare the digests of the fetched files with the Hub's, and name the files that were left there.

    Raises:
        HubError: A file differs; it is removed from the cache, so that it is fetched anew.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    try:
        entries = list(HfApi(token=token).list_repo_tree(source.repo_id, recursive=True, revision=folder.name))
    except Exception:  # offline, or the Hub went away: what the cache holds was compared when it came
        return
    ignored = []
    for entry in entries:
        if not isinstance(entry, RepoFile):
            continue
        if entry.path in wanted:
            _compare_file(source, folder / entry.path, entry)
        elif entry.path not in TOLERATED:
            ignored.append(entry.path)
    if ignored:
        more = f" and {len(ignored) - _SHOWN} more" if len(ignored) > _SHOWN else ""
        _logger.warning("%s also holds %s%s, which no saved model has: ignored.", source, ", ".join(ignored[:_SHOWN]), more)


def _compare_file(source: HubSource, file: Path, entry: Any) -> None:
    data = file.read_bytes()
    if entry.lfs is not None:
        name, expected, found = "SHA-256", entry.lfs.sha256, hashlib.sha256(data).hexdigest()
    else:  # a plain file is known by its git object
        name, expected, found = "SHA-1", entry.blob_id, hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    if found != expected:
        file.resolve().unlink(missing_ok=True)
        file.unlink(missing_ok=True)
        raise HubError(
            f"{file.name} of {source} arrived damaged: its {name} begins with {found[:12]}, the Hub's with {expected[:12]}. "
            "It was removed; load again to fetch it anew."
        )
