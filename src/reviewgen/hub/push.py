"""Publish a saved folder as one commit of a repository."""

import json
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypedDict, Unpack

from reviewgen.bundle.layout import CARD, CONFIG, CURVE, OPTIONAL_FILES, files_of
from reviewgen.errors import BundleError, ConfigError, HubError
from reviewgen.hub.problems import check_token, plain_errors
from reviewgen.names import HubSource

__all__ = ["PushOptions", "Remote", "look", "push"]

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
        files: The names of the files of the saved model that is there, and of its picture.
    """

    commit: str | None = None
    card: str | None = None
    is_private: bool | None = None
    files: frozenset[str] = frozenset()


def look(target: HubSource, token: str | bool | None = None) -> Remote:
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
    except (ValueError, BundleError):
        own = files_of({})
    return Remote(None if is_new else there.sha, card, there.private, frozenset(names & (own | {CURVE})))


def _read(target: HubSource, commit: str | None, name: str, token: str | bool | None) -> str:
    from huggingface_hub import hf_hub_download

    file = hf_hub_download(target.repo_id, name, revision=commit, token=token)
    return Path(file).read_text(encoding="utf-8-sig", errors="replace")


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
    from huggingface_hub import HfApi

    allowed, ignored, deleted = (_listed(options.get(f"{each}_patterns")) for each in ("allow", "ignore", "delete"))
    private, create_pr = options.get("private"), options.get("create_pr", False)
    if create_pr and target.revision is not None:
        raise ConfigError(f"A pull request is made against main: leave out revision={target.revision!r}, or create_pr.")
    names = {file.name for file in folder.iterdir()}
    left = {n for n in names if (allowed and not _fits(n, allowed)) or _fits(n, ignored)}
    if parts := sorted(left - OPTIONAL_FILES - {CARD, CURVE}):
        raise ConfigError(f"The patterns leave out {', '.join(parts)}, without which it is no model: a model is published whole.")
    if private and before.is_private is False:
        raise HubError(f"The repository {target.repo_id} is there and public: make it private on its page, or take another name.")
    stale = sorted(before.files - (names - left) - {CARD})
    with plain_errors(target, _FAILED):
        api = HfApi(token=token)
        api.create_repo(target.repo_id, private=private, exist_ok=True)
        if target.revision is not None and not target.revision.startswith("refs/"):
            api.create_branch(target.repo_id, branch=target.revision, exist_ok=True)
        info = api.upload_folder(
            repo_id=target.repo_id,
            folder_path=folder,
            commit_message=commit_message,
            revision=target.revision,
            create_pr=create_pr,
            parent_commit=None if create_pr else before.commit,
            allow_patterns=sorted(names - left),
            delete_patterns=[*stale, *deleted] or None,
        )
    return info.pr_url or info.commit_url


def _listed(patterns: Any) -> list[str]:
    """Return patterns as a list.

    Raises:
        ConfigError: They are no text.
    """
    found = [patterns] if isinstance(patterns, str) else list(patterns) if isinstance(patterns, list | tuple) else patterns
    if found is not None and not (isinstance(found, list) and all(isinstance(each, str) for each in found)):
        raise ConfigError(f"Patterns of files are text, or a list of texts, as in '*.json'; got {patterns!r}.")
    return found or []


def _fits(name: str, patterns: list[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)
