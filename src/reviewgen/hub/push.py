"""Publish a saved folder as one commit of a repository."""

import json
from collections.abc import Set
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypedDict, Unpack

from reviewgen.bundle.layout import CARD, CONFIG, CURVE, OPTIONAL_FILES, files_of
from reviewgen.errors import BundleError, ConfigError, HubError
from reviewgen.hub.problems import check_token, plain_errors
from reviewgen.names import HubSource

__all__ = ["PushOptions", "Remote", "check_push", "inspect_repository", "push"]

_FAILED = "could not be published"


class PushOptions(TypedDict, total=False):
    """How a folder is published; the names and meanings are huggingface_hub's."""

    private: bool | None
    create_pr: bool
    allow_patterns: list[str] | str | None
    ignore_patterns: list[str] | str | None
    delete_patterns: list[str] | str | None


@dataclass(frozen=True)
class Remote:
    """What a repository holds before something is published in it.

    Attributes:
        commit: The newest one of the branch; None where there is no such branch or repository yet.
        card: Its README.md, or that of main where the branch is yet to be made.
        is_private: Whether the repository is; None where it is not there.
        names: Of all its files.
        files: Of the files of the saved model that is there, and of its picture.
    """

    commit: str | None = None
    card: str | None = None
    is_private: bool | None = None
    names: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()


def inspect_repository(target: HubSource, token: str | bool | None = None) -> Remote:
    """Return what a repository holds now.

    Raises:
        HubError: The Hub was not reached, or said no.
        ConfigError: The token is empty.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    check_token(token)
    api = HfApi(token=token)
    with plain_errors(target, _FAILED):
        try:
            there = api.model_info(target.repo_id, revision=target.revision)
        except RevisionNotFoundError:
            there = api.model_info(target.repo_id)
            is_new = True
        except RepositoryNotFoundError:
            return Remote()
        else:
            is_new = False
        names = {sibling.rfilename for sibling in there.siblings or []}
        card = _read(target, there.sha, CARD, token) if CARD in names else None
        config = _read(target, there.sha, CONFIG, token) if CONFIG in names else None
    try:
        own = files_of(json.loads(config or "{}"))
    except (ValueError, RecursionError, BundleError):
        own = files_of({})
    return Remote(None if is_new else there.sha, card, there.private, frozenset(names), frozenset(names & (own | {CURVE})))


def _read(target: HubSource, commit: str | None, name: str, token: str | bool | None) -> str:
    from huggingface_hub import hf_hub_download

    file = hf_hub_download(target.repo_id, name, revision=commit, token=token)
    return Path(file).read_text(encoding="utf-8-sig", errors="replace")


def check_push(folder: Path, target: HubSource, before: Remote, options: PushOptions) -> None:
    """Raise where a folder cannot be published in this way, before any work.

    Raises:
        ConfigError: A pull request is asked for on a revision, or the patterns leave out a part of the model.
        HubError: The repository is public and should be private.
    """
    if options.get("create_pr") and target.revision is not None:
        raise ConfigError(f"A pull request is made against main: leave out revision={target.revision!r}, or create_pr.")
    if options.get("private") and before.is_private is False:
        raise HubError(f"The repository {target.repo_id} is there and public: make it private on its page, or take another name.")
    names = {file.name for file in folder.iterdir()} | {CARD}
    if parts := sorted(names - _chosen(names, options) - OPTIONAL_FILES - {CURVE}):
        raise ConfigError(f"The patterns leave out {', '.join(parts)}, without which it is no model: a model is published whole.")


def push(
    folder: Path,
    target: HubSource,
    before: Remote,
    *,
    commit_message: str,
    token: str | bool | None = None,
    **options: Unpack[PushOptions],
) -> str:
    """Publish a folder, and return the address of the commit, or of the pull request.

    The repository and the branch are made where they are not there. All files go into one commit, so what is newest is whole at
    any moment; what was uploaded before an interruption is found again. Files of an earlier model are removed, and where somebody
    has changed the branch since it was looked at, nothing is.

    Raises:
        HubError: The Hub was not reached, or said no, or the repository is public and should be private.
        ConfigError: A pull request is asked for on a revision, or the patterns leave out a part of the model.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    check_push(folder, target, before, options)
    added = _chosen({file.name for file in folder.iterdir()}, options)
    deleted = _fitting(before.names - {".gitattributes"}, options.get("delete_patterns")) | (before.files - {CARD})
    create_pr, revision = options.get("create_pr", False), target.revision
    with plain_errors(target, _FAILED):
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


def _chosen(names: set[str], options: PushOptions) -> set[str]:
    """Return the names that are to be uploaded."""
    allowed, ignored = options.get("allow_patterns"), options.get("ignore_patterns")
    return (names if allowed is None else _fitting(names, allowed)) - _fitting(names, ignored)


def _fitting(names: Set[str], patterns: Any) -> set[str]:
    """Return the names that one of the patterns fits.

    Raises:
        ConfigError: They are no text.
    """
    found = [patterns] if isinstance(patterns, str) else patterns or []
    if not isinstance(found, list | tuple) or not all(isinstance(each, str) for each in found):
        raise ConfigError(f"Patterns of files are text, or a list of texts, as in '*.json'; got {patterns!r}.")
    return {name for name in names if any(fnmatch(name, pattern) for pattern in found)}
