"""``push_with_space``: publishes a model on the Hub, and beside it a page that generates with it, as a static Space."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from reviewgen.errors import ConfigError, HubError
from reviewgen.export.html import export_html
from reviewgen.hub.card import metadata_of
from reviewgen.hub.download import parse_repository
from reviewgen.hub.publish import inspect_repository, inspect_space, push_space
from reviewgen.model import ReviewModel
from reviewgen.storage import temporary_folder


def push_with_space(model: ReviewModel, repo_id: str, *, bits: int | None = None, **options: Any) -> tuple[str, str]:
    """Publish a model on the Hugging Face Hub, and a page that generates with it as a static Space of the same name.

    The card links the Space, and the Space the model. The page is made first, so that nothing is published if no page can be
    made, and made again with the published card.

    Args:
        model: The model.
        repo_id: ``owner/name``.
        bits: Bits per weight in the page; see ``export_html``.
        options: Those of ``ReviewModel.push_to_hub``, except revision and create_pr.

    Returns:
        The URL of the model's commit, and that of the Space.

    Raises:
        ConfigError: A revision or a pull request is asked for, or an option is out of range.
        UnknownPlugin: The package of the model or of its tokenizer ships no JavaScript for it.
        NotPublished: The scan of the model found something that is not allowed.
        HubError: The Hub cannot be reached, or refused; the Space is not one of reviewgen, or is public and the model private.
    """
    target = parse_repository(repo_id, options.get("revision"))
    if target.revision is not None or options.get("create_pr"):
        raise ConfigError("A Space shows the model of the branch main: leave out the revision or pull request, or the Space.")
    title, token = target.repo_id.partition("/")[2], options.get("token")
    _compose(model, bits, title)
    inspect_space(target, options.get("private") or inspect_repository(target, token).is_private, token)
    card: Mapping[str, Any] = {**(options.pop("model_card_kwargs", None) or {}), "space": target.repo_id}
    message = options.get("commit_message") or f"Publish {model.preset} with reviewgen"
    address = model.push_to_hub(repo_id, model_card_kwargs=card, **options)
    try:
        published = inspect_repository(target, token)  # its visibility may be a default of the owner
        page = _compose(ReviewModel(replace(model.bundle, card=published.card)), bits, title)
        named = metadata_of(published.card).get("license")
        license = named if isinstance(named, str) else None  # a Space takes no list
        return address, push_space(page, target, license, published.is_private, message, token)
    except HubError as error:
        raise HubError(f"The model was published, but its Space was not; rerun the same command to retry. {error}") from None


def _compose(model: ReviewModel, bits: int | None, title: str) -> str:
    """Return the page of a model."""
    with temporary_folder() as scratch:
        return export_html(model, scratch / "index.html", bits=bits, title=title).read_text(encoding="utf-8")
