"""Publishes a page as a static Space on the Hub: ``index.html``, and a ``README.md`` with the settings of the Space."""

from dataclasses import replace
from pathlib import Path

from reviewgen.config import HubSource
from reviewgen.errors import HubError
from reviewgen.hub.card import hub_address, parse_card
from reviewgen.hub.download import plain_errors
from reviewgen.hub.publish import FAILED, Remote, commit, inspect_repository
from reviewgen.model.layout import CARD

PAGE = "index.html"
_EXAMPLE = {".gitattributes", CARD, PAGE, "style.css"}  # the files of a new static Space
_FIRST = "initial commit"  # its only commit; that of a duplicate or of a squashed history has another title
_TAG = "reviewgen"


def inspect_space(target: HubSource, is_private: bool | None, token: str | bool | None = None) -> Remote:
    """Return the state of a model's Space; with only an example, as after an interrupted push, without a card.

    Args:
        target: The model's repository; the Space has its name.
        is_private: Whether the model is private: the page has it inside.
        token: The access token.

    Raises:
        HubError: The Hub was not reached, or refused the request; the Space shows something else, or is public and the model
            private.
        ConfigError: The token is empty or has spaces in it.
    """
    from huggingface_hub import HfApi

    before = inspect_repository(target, token, "space")
    if is_private and before.is_private is False:
        raise HubError(f"The Space {target.repo_id} is public and the model is private: make the Space private, or delete it.")
    settings = parse_card(before.card).data
    if before.commit is None or (settings.get("sdk") == "static" and _TAG in (settings.get("tags") or [])):
        return before
    if before.names <= _EXAMPLE:
        with plain_errors(target, FAILED):
            commits = HfApi(token=token).list_repo_commits(target.repo_id, repo_type="space")
        if [commit.title for commit in commits] == [_FIRST]:
            return replace(before, card="")
    raise HubError(
        f"The Space {target.repo_id} exists and was not published by reviewgen: rename or delete it, or choose another name."
    )


def push_space(
    page: str, target: HubSource, license: str | None, is_private: bool | None, message: str, token: str | bool | None = None
) -> str:
    """Publish a page as the Space of a model, as one commit, and return the address of the Space.

    The Space is created if it does not exist. Of an existing one only the page is replaced, so that its README.md may be edited.

    Args:
        page: The HTML.
        target: The model's repository; the Space has its name.
        license: The license, for the settings of a new Space.
        is_private: Whether the model is private; a new Space is as private.
        message: The title of the commit.
        token: The access token.

    Raises:
        HubError: As ``inspect_space``.
    """
    from huggingface_hub import HfApi

    api, files, example = HfApi(token=token), {PAGE: page.encode("utf-8")}, frozenset[str]()
    with plain_errors(target, FAILED):
        api.create_repo(target.repo_id, repo_type="space", space_sdk="static", private=is_private, exist_ok=True)
    before = inspect_space(target, is_private, token)
    if not before.card:
        files, example = files | {CARD: _readme(target.repo_id, license).encode("utf-8")}, before.names - {".gitattributes"}
    commit(api, target, files, example, message, repo_type="space", parent_commit=before.commit)
    return hub_address(f"spaces/{target.repo_id}")


def _readme(model: str, license: str | None) -> str:
    """Return the README.md of a new Space, whose front matter are its settings."""
    from huggingface_hub import SpaceCard, SpaceCardData

    data = SpaceCardData(title=model.partition("/")[2], license=license, models=[model], tags=[_TAG], sdk="static", app_file=PAGE)
    template = str(Path(__file__).with_name("space.md.j2"))
    return str(SpaceCard.from_template(data, template, model=model, address=hub_address(model)))
