"""Finds the folder of a trained model: the installed weights of a preset, a local folder, or a
download from the Hub. Searches the Hub for models.

Only the files of the model are downloaded, all from the same commit. They are never executed.
``saving.read`` reads them strictly, and compares them with the manifest that was written when the
model was saved. Torch is not needed.
"""

import contextlib
import difflib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Unpack

from reviewgen.config.bounded import read_json
from reviewgen.config.names import HubSource, find_revision, parse_hub_id, parse_source
from reviewgen.errors import (
    BundleError,
    ConfigError,
    HubError,
    ReviewgenError,
    SourceError,
    first_lines,
    printable,
    quoted,
)
from reviewgen.hub.keywords import HubKwargs
from reviewgen.registry.plugins import find_preset, find_weights, preset_names
from reviewgen.saving.layout import CONFIG, files_of
from reviewgen.saving.read import read_bundle
from reviewgen.storage import check_output, describe_cut_off, to_path

_logger = logging.getLogger("reviewgen")
_TIMEOUT_SECONDS = 15.0  # maximum wait for an answer of the Hub
_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


class ModelLocation(NamedTuple):
    """The folder of a saved model.

    Attributes:
        folder: The folder.
        name: The argument of ``reviewgen.load`` that loads the model again. The name of a
            repository begins with hf://.
        is_downloaded: Whether the folder was downloaded from the Hub.
    """

    folder: Path
    name: str
    is_downloaded: bool


def locate(
    source: str | Path, revision: str | None = None, **options: Unpack[HubKwargs]
) -> ModelLocation:
    """Find the folder of a saved model. If the source is a repository on the Hub, it is downloaded.

    Raises:
        SourceError: The source is not a preset, a repository or a folder, or is ambiguous.
        BundleError: The source is a preset without installed weights.
        HubError: The Hub cannot be reached, or has no such repository.
    """
    # If the replacement of a folder was interrupted, the folder does not exist. The source is still
    # parsed as a folder: the error of reading this folder says how to restore it.
    is_cut_off = isinstance(source, str) and Path(source).name and describe_cut_off(Path(source))
    presets = preset_names()
    parsed = parse_source(Path(source) if is_cut_off else source, presets, revision)
    if isinstance(parsed, HubSource):
        return ModelLocation(download(parsed, **options), f"hf://{parsed}", is_downloaded=True)
    if isinstance(parsed, Path):
        return ModelLocation(parsed, str(source), is_downloaded=False)
    folder = find_weights(parsed)
    if folder is not None:
        return ModelLocation(folder, parsed, is_downloaded=False)
    folders = [config.parent.name for config in Path().glob(f"*/{CONFIG}")]
    # n=1: the closest name, or none
    for near in difflib.get_close_matches(parsed, [*presets, *folders], n=1):
        if near not in presets:
            raise SourceError(
                f"There is no preset {quoted(parsed)}. Did you mean the folder {quoted(near)}?"
            )
    find_preset(parsed)  # raises if there is no such preset
    raise BundleError(
        f"No trained weights of the preset {parsed} are installed. Train it: reviewgen train"
        f" {parsed} --data ..."
    )


def parse_repository(repo_id: str, revision: str | None) -> HubSource:
    """Parse ``owner/name[@revision]``, the name of a repository.

    Raises:
        SourceError: ``repo_id`` is not the name of a repository, or its revision differs from
            ``revision``.
    """
    repository = parse_hub_id(repo_id) if isinstance(repo_id, str) else None
    if repository is None:
        raise SourceError(
            f"{quoted(repo_id)} is not a repository on the Hub: write owner/name, as in"
            " ana/music-reviews."
        )
    return repository if revision is None else find_revision(repository, revision)


def download(source: HubSource, **options: Unpack[HubKwargs]) -> Path:
    """Download the model files of a repository, unless they are cached, and return their local
    folder.

    Other files of the repository are not downloaded. If the Hub cannot be reached or refuses the
    request, the cached version is used, and the logger ``reviewgen`` warns about it.

    Raises:
        HubError: The Hub cannot be reached and no version is cached, the Hub has no such repository
            or revision, or the repository does not contain a saved model.
        ConfigError: The token is empty, or has spaces or unprintable characters.
        SourceError: The revision is not the name of a branch, a tag or a commit.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RevisionNotFoundError,
    )

    token = options.get("token")
    revision = source.revision or "main"
    check_token(token)
    # such a revision could lead to a path outside the cache
    if ".." in revision or "\\" in revision or ":" in revision or revision.startswith("/"):
        raise SourceError(
            f"{ascii(revision)[:60]} is not a revision. Give a branch, a tag or a commit."
        )
    with plain_errors(source, "could not be downloaded from the Hub"):
        try:
            if not options.get("local_files_only"):
                HfApi(token=token).model_info(
                    source.repo_id, revision=revision, timeout=_TIMEOUT_SECONDS
                )
            return _fetch(source.repo_id, revision, options)
        # in these cases, no cached version can be used
        except (RevisionNotFoundError, LocalEntryNotFoundError):
            raise
        except Exception as error:  # raised by the client or its HTTP library
            if options.get("force_download"):
                raise
            try:
                folder = _fetch(source.repo_id, revision, options | {"local_files_only": True})
            except (LocalEntryNotFoundError, HubError):
                raise error from None
            if not isinstance(error, OfflineModeIsEnabled):
                _logger.warning(
                    "%s could not be checked on the Hub (%s), so the cached version is used.",
                    source,
                    first_lines(error),
                )
            return folder


def _fetch(repo_id: str, revision: str, options: HubKwargs) -> Path:
    """Download the model files of a repository, and return their folder. Errors of the Hub's client
    are not caught here.

    Raises:
        HubError: The repository has no config.json.
    """
    from huggingface_hub import snapshot_download

    only_config = snapshot_download(repo_id, revision=revision, allow_patterns=[CONFIG], **options)
    config = Path(only_config) / CONFIG
    if not config.is_file():
        raise HubError(f"The repository {repo_id} does not contain a saved model.")
    try:
        names = sorted(files_of(read_json(config)))
    except (ValueError, BundleError):  # read_bundle reports these errors
        names = [CONFIG]
    # the folder of a downloaded snapshot has the name of its commit
    return Path(
        snapshot_download(repo_id, revision=config.parent.name, allow_patterns=names, **options)
    )


def pull(
    repo_id: str,
    *,
    out: Path | None = None,
    accept_changes: bool = False,
    **options: Unpack[HubKwargs],
) -> dict[str, Any]:
    """Download a model, check that it can be read, and return a summary as JSON values.

    Args:
        repo_id: ``owner/name``, optionally with ``@revision``.
        out: A new folder for a copy of the model. The copy gets a new manifest.
        accept_changes: Whether to accept files that have changed since the model was saved.
        options: See ``huggingface_hub.snapshot_download``.

    Raises:
        SourceError: ``repo_id`` is not the name of a repository.
        ConfigError: ``accept_changes`` is true, and ``out`` is not given.
        HubError, BundleError, UnknownPlugin: See ``reviewgen.load``.
        OutputExists, StorageError: ``out`` exists already, or cannot be written.
    """
    from reviewgen.saving.write import copy_bundle  # imports torch

    source = parse_repository(repo_id, None)
    if accept_changes and out is None:
        raise ConfigError(
            "--accept-changes saves the changed model in a folder of its own: give it with --out."
        )
    if out is not None:
        check_output(to_path("out", out))
    folder = download(source, **options)
    bundle = read_bundle(folder, strict=False, accept_changes=accept_changes)
    if out is not None:
        copy_bundle(bundle, to_path("out", out))
    return {
        "repository": str(source),
        "preset": bundle.preset,
        "bits_per_character": (bundle.training.get("held_out") or {}).get("bits_per_character"),
        "megabytes": round(megabytes(folder), 3),
        "folder": str(out or folder),
    }


def search(
    words: Sequence[str], *, limit: int = 20, token: str | None = None
) -> list[dict[str, Any]]:
    """Return the repositories on the Hub with the tag ``reviewgen`` whose names have the words.

    Returns:
        For each repository its name and, from its card, the preset, the bits per character of
        held-out text and the license; None for what the card does not say.

    Raises:
        HubError: The Hub was not reached, or refused the request.
        ConfigError: The token is empty or has spaces in it.
    """
    from huggingface_hub import HfApi

    check_token(token)
    query = " ".join(words)
    with plain_errors(f"The search for {quoted(query)}", "could not be made on the Hub"):
        found = HfApi(token=token).list_models(
            filter="reviewgen", search=query or None, limit=limit, expand=["cardData"]
        )
        cards: dict[str, Any] = {model.id: model.card_data or {} for model in found}
    models = []
    for name, card in cards.items():
        facts = card.get("reviewgen")  # anyone may have written the card
        facts = facts if isinstance(facts, Mapping) else {}
        preset = facts.get("preset")
        bits = facts.get("bits_per_character")
        license = card.get("license")
        models.append(
            {
                "repository": printable(name),
                "preset": printable(preset) if isinstance(preset, str) else None,
                "bits_per_character": bits if isinstance(bits, int | float) else None,
                "license": printable(license) if isinstance(license, str) else None,
            }
        )
    return models


def megabytes(folder: Path) -> float:
    """Return the size of a folder's files in megabytes."""
    return sum(file.stat().st_size for file in folder.iterdir()) / 1e6


def check_token(token: str | bool | None) -> None:
    """Check that a token can be sent in an HTTP header. Otherwise the client would raise an error
    that shows the token.

    Raises:
        ConfigError: The token is empty, or has spaces or characters that a header cannot contain.
    """
    # printable ASCII without spaces
    if isinstance(token, str) and not re.fullmatch("[!-~]+", token):
        raise ConfigError(
            "The Hub token is empty, or has spaces or unprintable characters: copy it again, or"
            " leave it out."
        )


@contextlib.contextmanager
def plain_errors(source: object, failed: str) -> Iterator[None]:
    """Turn any exception of the Hub's client into a HubError with a short message.

    Args:
        source: The repository, for the message.
        failed: The end of the sentence that says what failed, as in "could not be downloaded from
            the Hub".

    Raises:
        HubError: The Hub was not reached, or refused the request.
    """
    try:
        yield
    except ReviewgenError:
        raise
    # the client, its HTTP library and the operating system raise a dozen types of errors
    except Exception as error:
        # with force_download, the client wraps errors in a ValueError
        cause = error.__cause__ if type(error) is ValueError else None
        raise HubError(_describe(cause or error, source, failed)) from None


def _describe(error: BaseException, source: object, failed: str) -> str:
    """Return the message of a HubError: the source, what failed, and the reason."""
    from huggingface_hub import constants, errors

    # without the quotes that ascii() adds
    endpoint = ascii(str(constants.ENDPOINT))[1:-1]
    status = getattr(getattr(error, "response", None), "status_code", None)
    local = (
        "it is not in the local cache, and the Hub is not asked (HF_HUB_OFFLINE, local_files_only)"
    )
    known: dict[type[Exception], str] = {
        errors.GatedRepoError: f"it is gated: request access on its page, and {_LOG_IN}",
        errors.RepositoryNotFoundError: (
            f"the Hub has no such repository, or it is private: {_LOG_IN}"
        ),
        errors.RevisionNotFoundError: "the repository has no such revision",
        errors.LocalEntryNotFoundError: local,
        errors.OfflineModeIsEnabled: local,
    }
    for kind, reason in known.items():
        if isinstance(error, kind):
            return f"{source} {failed}: {reason}."
    reason = first_lines(error)
    if status in (401, 403):
        reason = f"the token does not grant access (status {status}); {_LOG_IN}"
    elif status is not None:
        reason = f"{endpoint} answered with status {status}: {reason}. Try again later"
    # raised if the client does not find a key or an attribute in the answer
    elif isinstance(error, KeyError | AttributeError | TypeError | AssertionError):
        reason = f"the answer of {endpoint} has another form than the Hub's. Check HF_ENDPOINT"
    elif isinstance(error, OSError) or type(error).__module__.startswith(("httpx", "httpcore")):
        offline = "Without a network, presets with installed weights and saved folders still load"
        reason = f"{endpoint} was not reached ({reason}). {offline}"
    return f"{source} {failed}: {reason}."
