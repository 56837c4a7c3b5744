"""Uploads a saved folder as one commit of a repository on the Hub."""

from collections.abc import Set
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypedDict, Unpack

from reviewgen.config import parse_json, read_json, read_text
from reviewgen.errors import BundleError, ConfigError, HubError, quoted
from reviewgen.hub.problems import check_token, plain_errors
from reviewgen.hub_client import restrict_client
from reviewgen.model.layout import CARD, CONFIG, CURVE, MANIFEST, OPTIONAL_FILES, files_of, write_manifest
from reviewgen.names import HubSource

_FAILED = "could not be published"


class PushOptions(TypedDict, total=False):
    """How a folder is published, with the names and meanings of huggingface_hub.

    Attributes:
        private: Whether a new repository is private.
        create_pr: Whether to open a pull request instead of committing to the branch.
        allow_patterns: Upload only files that match one of these.
        ignore_patterns: Do not upload files that match one of these.
        delete_patterns: Delete files of the repository that match one of these.
    """

    private: bool | None
    create_pr: bool
    allow_patterns: list[str] | str | None
    ignore_patterns: list[str] | str | None
    delete_patterns: list[str] | str | None


@dataclass(frozen=True)
class Remote:
    """The state of a repository before a model is published in it.

    Attributes:
        commit: The newest commit of the branch; None if the branch or the repository does not exist.
        card: The text of its README.md; of the one in main if the branch does not exist.
        is_private: Whether the repository is private; None if it does not exist.
        names: The names of all its files.
        files: The names of the files of the saved model in it, and of its plot of the learning curve.
    """

    commit: str | None = None
    card: str | None = None
    is_private: bool | None = None
    names: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()


def inspect_repository(target: HubSource, token: str | bool | None = None) -> Remote:
    """Return the current state of a repository.

    Raises:
        HubError: The Hub was not reached, or refused the request.
        ConfigError: The token is empty or has spaces in it.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    check_token(token)
    api = HfApi(token=token)
    with plain_errors(target, _FAILED), restrict_client():
        try:
            info = api.model_info(target.repo_id, revision=target.revision)
        except RevisionNotFoundError:
            info = api.model_info(target.repo_id)
            is_new = True
        except RepositoryNotFoundError:
            return Remote()
        else:
            is_new = False
        names = {sibling.rfilename for sibling in info.siblings or []}
        card = download_text(target, info.sha, CARD, token) if CARD in names else None
        config = download_text(target, info.sha, CONFIG, token) if CONFIG in names else None
    try:
        model_files = files_of(parse_json(config or "{}"))
    except (ValueError, BundleError):
        model_files = files_of({})
    return Remote(
        commit=None if is_new else info.sha,
        card=card,
        is_private=info.private,
        names=frozenset(names),
        files=frozenset(names & (model_files | {CURVE})),
    )


def download_text(target: HubSource, commit: str | None, name: str, token: str | bool | None, kind: str = "model") -> str:
    """Return the text of a file of a repository; raises what the client raises."""
    from huggingface_hub import hf_hub_download

    with restrict_client():
        file = Path(hf_hub_download(target.repo_id, name, repo_type=kind, revision=commit, token=token))
    return read_text(file, encoding="utf-8-sig", errors="replace")


def check_push(folder: Path, target: HubSource, before: Remote, options: PushOptions) -> None:
    """Check that a folder can be published with these options, before any upload.

    Raises:
        ConfigError: A pull request is asked for on a revision, or the patterns leave out files of the model.
        HubError: A private repository is asked for, and the existing one is public.
    """
    if options.get("create_pr") and target.revision is not None:
        raise ConfigError(
            f"A pull request is always opened against main: leave out revision={quoted(target.revision)}, or create_pr."
        )
    if options.get("private") and before.is_private is False:
        raise HubError(
            f"The repository {target.repo_id} exists and is public: make it private on its page, or choose another name."
        )
    names = {file.name for file in folder.iterdir()} | {CARD}
    if missing := sorted(names - _select(names, options) - OPTIONAL_FILES - {CURVE}):
        raise ConfigError(
            f"The patterns leave out {', '.join(missing)}: all files of a model must be published together. Change them."
        )


def push(
    folder: Path,
    target: HubSource,
    before: Remote,
    *,
    commit_message: str,
    token: str | bool | None = None,
    **options: Unpack[PushOptions],
) -> str:
    """Upload a folder, and return the address of the commit, or of the pull request.

    The repository and the branch are created if they do not exist. All files go into one commit, so the branch never has half a
    model; after an interruption, files that were uploaded are not uploaded again. Files of an earlier model in the repository are
    deleted. Nothing is changed if the branch has got a new commit since ``before``.

    Raises:
        HubError: The Hub was not reached or refused the request, the branch has a new commit, or a private repository is asked
            for and the existing one is public.
        ConfigError: A pull request is asked for on a revision, or the patterns leave out files of the model.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    check_push(folder, target, before, options)
    added = _select({file.name for file in folder.iterdir()}, options)
    if MANIFEST in added:
        write_manifest(folder, added & files_of(read_json(folder / CONFIG)))
    deleted = _match(before.names - {".gitattributes"}, options.get("delete_patterns")) | (before.files - {CARD})
    create_pr, revision = options.get("create_pr", False), target.revision
    with plain_errors(target, _FAILED), restrict_client():
        api = HfApi(token=token)
        api.create_repo(target.repo_id, private=options.get("private"), exist_ok=True)
        if revision is not None and before.commit is None and not revision.startswith("refs/"):
            api.create_branch(target.repo_id, branch=revision, exist_ok=True)
        info = api.create_commit(
            target.repo_id,
            [
                *(CommitOperationAdd(name, folder / name) for name in sorted(added)),
                *(CommitOperationDelete(name) for name in sorted(deleted - added)),
            ],
            commit_message=commit_message,
            revision=revision,
            create_pr=create_pr,
            parent_commit=None if create_pr else before.commit,
        )
    return info.pr_url or info.commit_url


def _select(names: set[str], options: PushOptions) -> set[str]:
    """Return the names of the files to upload."""
    allowed, ignored = options.get("allow_patterns"), options.get("ignore_patterns")
    return (names if allowed is None else _match(names, allowed)) - _match(names, ignored)


def _match(names: Set[str], patterns: Any) -> set[str]:
    """Return the names that match one of the patterns.

    Raises:
        ConfigError: The patterns are not strings.
    """
    listed = [patterns] if isinstance(patterns, str) else patterns or []
    if not isinstance(listed, list | tuple) or not all(isinstance(each, str) for each in listed):
        raise ConfigError(f"File patterns must be a string or a list of strings, as in '*.json'; got {quoted(patterns)}.")
    return {name for name in names if any(fnmatch(name, pattern) for pattern in listed)}
