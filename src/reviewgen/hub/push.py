"""Publish a saved folder as one commit of a repository."""

from pathlib import Path

from reviewgen.bundle.layout import CARD, OPTIONAL_FILES
from reviewgen.errors import ConfigError
from reviewgen.hub.problems import plain_errors
from reviewgen.names import HubSource

__all__ = ["fetch_card", "push"]

_FAILED = "could not be published"


def push(
    folder: Path,
    target: HubSource,
    *,
    commit_message: str,
    private: bool | None = None,
    token: str | bool | None = None,
    create_pr: bool = False,
    allow_patterns: list[str] | str | None = None,
    ignore_patterns: list[str] | str | None = None,
    delete_patterns: list[str] | str | None = None,
) -> str:
    """Publish a folder, and return the address of the commit, or of the pull request.

    The repository and the branch are made where they are not there. All files go into one commit, so what is newest is whole at
    any moment; what was uploaded before an interruption is found again. Optional files of an earlier model are removed.

    Raises:
        HubError: The Hub was not reached, or said no.
        ConfigError: A pull request is asked for on a revision.
    """
    from huggingface_hub import HfApi

    if create_pr and target.revision is not None:
        raise ConfigError(f"A pull request is made against main: leave out revision={target.revision!r}, or create_pr.")
    stale = sorted(name for name in OPTIONAL_FILES if not (folder / name).exists())
    more = [delete_patterns] if isinstance(delete_patterns, str) else list(delete_patterns or ())
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
            allow_patterns=allow_patterns,
            ignore_patterns=[ignore_patterns] if isinstance(ignore_patterns, str) else list(ignore_patterns or ()),
            delete_patterns=[*stale, *more],
        )
    return info.pr_url or info.commit_url


def fetch_card(target: HubSource, token: str | bool | None = None) -> str | None:
    """Return the card that a repository has, None where it has none, or is not there itself.

    Raises:
        HubError: The Hub was not reached, or said no.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    with plain_errors(target, _FAILED):
        try:
            file = hf_hub_download(target.repo_id, CARD, revision=target.revision, token=token)
        except LocalEntryNotFoundError:
            raise
        except (EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError):
            return None
        return Path(file).read_text(encoding="utf-8")
