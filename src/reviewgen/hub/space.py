"""Publishes a page as a static Space on the Hub: ``index.html``, and a ``README.md`` with the settings of the Space."""

from dataclasses import dataclass

from reviewgen.card import metadata_of, space_address
from reviewgen.errors import HubError
from reviewgen.hub.problems import check_token, plain_errors
from reviewgen.hub.push import download_text
from reviewgen.hub_client import restrict_client
from reviewgen.names import HubSource

PAGE, README = "index.html", "README.md"
_EXAMPLE = {".gitattributes", README, PAGE, "style.css"}  # the files of a new static Space
_FIRST = "initial commit"  # its only commit; that of a duplicate or of a squashed history has another title
_FAILED = "could not be published as a Space"
_TAG = "reviewgen"

_README = """# {title}

The model [{model}]({endpoint}/{model}) writes on this page, in your browser: nothing that you type is sent anywhere. Its texts
are synthetic. The page was published with `reviewgen push --space`.
"""


@dataclass(frozen=True)
class Space:
    """The state of a Space before a page is published in it.

    Attributes:
        commit: The newest commit; None if the Space does not exist.
        is_private: Whether it is private; None if the Space does not exist.
        example: The files of the example that a new Space has, if it has nothing else.
    """

    commit: str | None = None
    is_private: bool | None = None
    example: frozenset[str] = frozenset()


def inspect_space(target: HubSource, token: str | bool | None = None, *, is_new: bool = False) -> Space:
    """Return the current state of a Space.

    Args:
        target: The model's repository; the Space has its name.
        token: The access token.
        is_new: Whether it was created just now, so that whatever is in it is the example.

    Raises:
        HubError: The Hub was not reached, or refused the request; or the Space shows something else.
        ConfigError: The token is empty or has spaces in it.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    check_token(token)
    api = HfApi(token=token)
    with plain_errors(target, _FAILED), restrict_client():
        try:
            info = api.space_info(target.repo_id)
        except RepositoryNotFoundError:
            return Space()
        names = frozenset(sibling.rfilename for sibling in info.siblings or [])
        if is_new:
            return Space(info.sha, info.private, names)
        if info.sdk == "static" and names <= _EXAMPLE:  # as after a push that was interrupted
            titles = [commit.title for commit in api.list_repo_commits(target.repo_id, repo_type="space")]
            if titles == [_FIRST]:
                return Space(info.sha, info.private, names)
        readme = download_text(target, info.sha, README, token, "space") if README in names else ""
    if info.sdk != "static" or _TAG not in metadata_of(readme).get("tags", []):
        raise HubError(
            f"The Space {target.repo_id} exists and was not published by reviewgen: rename or delete it, or choose another name."
        )
    return Space(info.sha, info.private)


def refuse_public_space(target: HubSource, before: Space, is_private: bool | None) -> None:
    """Raise if the Space of a private model is public: its page has the model inside.

    Raises:
        HubError: It is.
    """
    if is_private and before.is_private is False:
        raise HubError(f"The Space {target.repo_id} is public and the model is private: make the Space private, or delete it.")


def push_space(
    page: str,
    target: HubSource,
    before: Space,
    *,
    license: str | None,
    is_private: bool | None,
    commit_message: str,
    token: str | bool | None = None,
) -> str:
    """Publish a page as the Space of a model, as one commit, and return the address of the Space.

    The Space is created if it does not exist. Of an existing one only the page is replaced, so that its README.md may be edited.
    Nothing is changed if it has a new commit since ``before``.

    Args:
        page: The HTML.
        target: The model's repository; the Space has its name.
        before: Its state.
        license: The license, for the settings of a new Space.
        is_private: Whether a new Space is private.
        commit_message: The title of the commit.
        token: The access token.

    Raises:
        HubError: The Hub was not reached or refused the request, or the Space has a new commit.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi(token=token)
    if before.commit is None:
        with plain_errors(target, _FAILED), restrict_client():
            api.create_repo(target.repo_id, repo_type="space", space_sdk="static", private=is_private)
        before = inspect_space(target, token, is_new=True)
    files = {PAGE: page} | ({README: _readme(target, license)} if before.example else {})
    added = [CommitOperationAdd(name, text.encode("utf-8")) for name, text in files.items()]
    deleted = [CommitOperationDelete(name) for name in sorted(before.example - files.keys() - {".gitattributes"})]
    with plain_errors(target, _FAILED), restrict_client():
        api.create_commit(
            target.repo_id, [*added, *deleted], commit_message=commit_message, repo_type="space", parent_commit=before.commit
        )
    return space_address(target.repo_id)


def _readme(target: HubSource, license: str | None) -> str:
    """Return the README.md of a new Space, whose front matter are its settings."""
    from huggingface_hub import SpaceCardData
    from huggingface_hub.constants import ENDPOINT

    title = target.repo_id.partition("/")[2]
    settings = SpaceCardData(
        title=title,
        sdk="static",
        app_file=PAGE,
        license=license,
        models=[target.repo_id],
        tags=[_TAG],
        emoji="✍️",
        colorFrom="blue",
        colorTo="indigo",
        pinned=False,
        short_description="A small language model writes in your browser",
    )
    return f"---\n{settings.to_yaml()}\n---\n\n{_README.format(title=title, model=target.repo_id, endpoint=ENDPOINT)}"
