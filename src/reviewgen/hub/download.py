"""Downloads a saved model from the Hub: the files of the model only, from a single commit, with their digests verified."""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reviewgen.config import MAX_SETTINGS, read_json
from reviewgen.errors import HubError, ReviewgenError, SourceError
from reviewgen.hub.problems import check_token, plain_errors, shorten
from reviewgen.hub.tree import check_commit, check_entries
from reviewgen.hub_client import restrict_client
from reviewgen.model.layout import CONFIG, TOLERATED, files_of
from reviewgen.names import HubSource

_logger = logging.getLogger("reviewgen")
_MAX_SHOWN = 5  # ignored files named in a warning
_CHUNK = 1 << 20  # bytes
_TIMEOUT_SECONDS = 15.0  # without an answer


def download(
    source: HubSource,
    *,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Download a repository's model files, unless they are cached, and return their local folder.

    Other files of the repository are not downloaded; the logger ``reviewgen`` names them in a warning. If the Hub cannot be
    reached or refuses the request, the cached version is used, with a warning.

    Args:
        source: The repository, with or without a revision.
        token, cache_dir, local_files_only, force_download: As in ``huggingface_hub.snapshot_download``.
        progress: Called with the number of bytes that have arrived since its last call; None shows the client's progress bars.

    Raises:
        HubError: The Hub was not reached, has no such repository or revision, or a file was damaged in transfer.
        BundleError: The repository does not contain a saved model.
        ConfigError: The token is empty or has spaces in it.
        SourceError: The revision is not the name of one.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RevisionNotFoundError,
    )

    check_token(token)
    _check_revision(source)
    arguments: dict[str, Any] = {"repo_id": source.repo_id, "cache_dir": cache_dir, "token": token}
    with plain_errors(source, "could not be downloaded from the Hub"):
        if local_files_only:
            return _find_cached(arguments | {"revision": source.revision})
        try:
            with restrict_client():
                info = HfApi(token=token).model_info(
                    source.repo_id, revision=source.revision, files_metadata=True, timeout=_TIMEOUT_SECONDS
                )
            commit, entries = check_commit(info.sha), list(info.siblings or [])
        except RevisionNotFoundError:
            raise
        except Exception as error:  # of the client, or of its HTTP library
            if force_download:
                raise
            try:
                folder = _find_cached(arguments | {"revision": source.revision})
            except LocalEntryNotFoundError as missing:
                if isinstance(error, HfHubHTTPError | ReviewgenError):
                    raise error from None
                raise missing from error
            if not isinstance(error, OfflineModeIsEnabled):
                _logger.warning("%s could not be checked on the Hub (%s), so the cached version is used.", source, shorten(error))
            return folder
        arguments["tqdm_class"] = None if progress is None else _counter(progress)
        folder = _fetch(source, entries, arguments | {"revision": commit, "force_download": force_download})
        # Caches which commit the revision names, for offline use.
        _fetch_file(CONFIG, MAX_SETTINGS, None, arguments | {"revision": source.revision})
    return folder


def _counter(progress: Callable[[int], None]) -> type[Any]:
    """Return a class of progress bars that are not shown, and pass the bytes of each update to a function."""
    from huggingface_hub.utils.tqdm import tqdm

    class Counter(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options | {"disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            progress(int(n or 0))

    return Counter


def _check_revision(source: HubSource) -> None:
    """Raise for a revision that git does not allow, and that would lead out of the client's cache."""
    revision = source.revision or ""
    if ".." in revision or "\\" in revision or revision.startswith("/") or ":" in revision:
        raise SourceError(f"{ascii(revision)[:60]} is not a revision. Give a branch, a tag or a commit.")


def _find_cached(arguments: dict[str, Any]) -> Path:
    """Return the cached folder of a revision."""
    from huggingface_hub import hf_hub_download, snapshot_download

    arguments |= {"local_files_only": True}
    config = Path(str(hf_hub_download(filename=CONFIG, **arguments)))
    names = _model_files(config)
    return config.parent if names is None else Path(str(snapshot_download(allow_patterns=sorted(names), **arguments)))


def _model_files(config: Path) -> set[str] | None:
    """Return the names of a model's files, from its config.json; None if that cannot be read, which ``bundle`` then reports."""
    try:
        return files_of(read_json(config))
    except ValueError:
        return None


def _fetch(source: HubSource, entries: Sequence[Any], arguments: dict[str, Any]) -> Path:
    """Download those files of a commit that belong to the model, each checked before and after; return their folder.

    Raises:
        HubError: The list of files is not plausible, or some digests differ; these files are removed from the cache.
    """
    own = check_entries(entries, {CONFIG}, source)
    if CONFIG not in own:
        raise HubError(f"The repository {source} does not contain a saved model.")
    config = _fetch_entries(source, own, arguments)[CONFIG]
    names = _model_files(config) or {CONFIG}
    others = check_entries(entries, names - {CONFIG}, source)
    _note_ignored(source, entries, names)
    for name, file in _fetch_entries(source, others, arguments).items():
        if file.parent != config.parent:
            raise HubError(f"The Hub gave {name} of {source} from another commit than its {CONFIG}: load the model again.")
    return config.parent


def _fetch_entries(source: HubSource, entries: Mapping[str, Any], arguments: dict[str, Any]) -> dict[str, Path]:
    """Download files unless they are cached, and compare their digests with the Hub's; raises as ``_fetch``."""
    files = {name: _fetch_file(name, entry.size, entry.size, arguments) for name, entry in sorted(entries.items())}
    damaged = [name for name, file in files.items() if _differs(file, entries[name])]
    for name in damaged:
        files[name].resolve().unlink(missing_ok=True)
        files[name].unlink(missing_ok=True)
    if damaged:
        raise HubError(
            f"{', '.join(damaged)[:200]} of {source} was damaged in transfer: the digest does not match the Hub's. The download "
            "was removed; load the model again to repeat it."
        )
    return files


def _fetch_file(name: str, max_bytes: int, size: int | None, arguments: dict[str, Any]) -> Path:
    from huggingface_hub import hf_hub_download

    with restrict_client(max_bytes, size):
        return Path(str(hf_hub_download(filename=name, **arguments)))


def _note_ignored(source: HubSource, entries: Sequence[Any], names: set[str]) -> None:
    """Warn of files that do not belong to the model."""
    ignored = sorted(entry.rfilename for entry in entries if entry.rfilename not in names | TOLERATED)
    if ignored:
        more = f" and {len(ignored) - _MAX_SHOWN} more" if len(ignored) > _MAX_SHOWN else ""
        listed = ", ".join(ascii(name)[:80] for name in ignored[:_MAX_SHOWN])
        _logger.warning("%s also contains %s%s, which are not files of a saved model: ignored.", source, listed, more)


def _differs(file: Path, entry: Any) -> bool:
    """Return whether a file differs from the Hub's, by SHA-256 if it is stored in LFS, else by its git blob id."""
    if entry.lfs is not None:
        with file.open("rb") as stream:
            return bool(hashlib.file_digest(stream, "sha256").hexdigest() != entry.lfs.sha256)
    digest = hashlib.sha1(b"blob %d\0" % file.stat().st_size)
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return bool(digest.hexdigest() != entry.blob_id)
