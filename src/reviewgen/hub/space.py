"""Publishes a page as a static Space on the Hub: ``index.html``, and a ``README.md`` with the settings of the Space."""

from typing import Any

from reviewgen.bundle.layout import CARD
from reviewgen.errors import HubError
from reviewgen.hub.card import hub_address, metadata_of
from reviewgen.hub.problems import plain_errors
from reviewgen.hub.publish import FAILED, Remote, commit, inspect_repository
from reviewgen.names import HubSource

PAGE = "index.html"
_EXAMPLE = {".gitattributes", CARD, PAGE, "style.css"}  # the files of a new static Space
_FIRST = "initial commit"  # its only commit; that of a duplicate or of a squashed history has another title
_TAG = "reviewgen"
_README = """---
{{ card_data }}
---

# {{ title }}

The model [{{ model }}]({{ address }}) writes on this page, in your browser: nothing that you type is sent anywhere. Its texts
are synthetic. The page was published with `reviewgen push --space`.
"""


def inspect_space(target: HubSource, token: str | bool | None = None) -> Remote:
    """Return the current state of a Space; an example, as a new Space has and a push that was interrupted leaves, has no card.

    Raises:
        HubError: The Hub was not reached, or refused the request; or the Space shows something else.
        ConfigError: The token is empty or has spaces in it.
    """
    from huggingface_hub import HfApi

    before = inspect_repository(target, token, "space")
    if before.commit is None or (before.sdk == "static" and _TAG in metadata_of(before.card).get("tags", [])):
        return before
    if before.sdk == "static" and before.names <= _EXAMPLE:
        with plain_errors(target, FAILED):
            commits = HfApi(token=token).list_repo_commits(target.repo_id, repo_type="space")
        if [commit.title for commit in commits] == [_FIRST]:
            return Remote(before.commit, "", before.is_private, before.names)
    raise HubError(
        f"The Space {target.repo_id} exists and was not published by reviewgen: rename or delete it, or choose another name."
    )


def refuse_public_space(target: HubSource, before: Remote, is_private: bool | None) -> None:
    """Raise if the Space of a private model is public: its page has the model inside.

    Raises:
        HubError: It is.
    """
    if is_private and before.is_private is False:
        raise HubError(f"The Space {target.repo_id} is public and the model is private: make the Space private, or delete it.")


def push_space(
    page: str,
    target: HubSource,
    *,
    license: str | None,
    is_private: bool | None,
    commit_message: str,
    token: str | bool | None = None,
) -> str:
    """Publish a page as the Space of a model, as one commit, and return the address of the Space.

    The Space is created if it does not exist. Of an existing one only the page is replaced, so that its README.md may be edited.

    Args:
        page: The HTML.
        target: The model's repository; the Space has its name.
        license: The license, for the settings of a new Space.
        is_private: Whether a new Space is private.
        commit_message: The title of the commit.
        token: The access token.

    Raises:
        HubError: The Hub was not reached or refused the request, or the Space shows something else.
    """
    from huggingface_hub import HfApi

    api, files, example = HfApi(token=token), {PAGE: page.encode("utf-8")}, frozenset[str]()
    with plain_errors(target, FAILED):
        api.create_repo(target.repo_id, repo_type="space", space_sdk="static", private=is_private, exist_ok=True)
    before = inspect_space(target, token)
    if not before.card:
        files, example = files | {CARD: _readme(target, license).encode("utf-8")}, before.names - {".gitattributes"}
    commit(api, target, files, example, commit_message, repo_type="space", parent_commit=before.commit)
    return hub_address(f"spaces/{target.repo_id}")


def _readme(target: HubSource, license: str | None) -> str:
    """Return the README.md of a new Space, whose front matter are its settings."""
    from huggingface_hub import SpaceCard, SpaceCardData

    title, words = target.repo_id.partition("/")[2], "A small language model writes in your browser"
    settings: dict[str, Any] = {"sdk": "static", "app_file": PAGE, "models": [target.repo_id], "tags": [_TAG]}
    look: dict[str, Any] = {"emoji": "✍️", "colorFrom": "blue", "colorTo": "indigo", "pinned": False}
    data = SpaceCardData(title=title, license=license, short_description=words, **settings, **look)
    model, address = target.repo_id, hub_address(target.repo_id)
    return str(SpaceCard.from_template(data, template_str=_README, model=model, address=address))
