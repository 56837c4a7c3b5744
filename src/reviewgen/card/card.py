"""A whole card, and whether a card was edited by hand.

The last line of a generated card is a comment with a digest of the lines above it. A card without that line, or with another
digest, was written or edited by hand and is kept; any other card may be generated again.
"""

import hashlib
import re
from typing import TYPE_CHECKING, Any

from reviewgen.card.facts import CardFacts
from reviewgen.card.metadata import make_metadata
from reviewgen.card.text import write_text
from reviewgen.errors import BundleError, ConfigError, first_line

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

_SPACE = re.compile(r"/spaces/(?P<space>[\w.-]+/[\w.-]+)\)")  # in a link of Markdown
# The words of this line are part of the format: cards on the Hub and in saved folders have it.
_MARK = re.compile(r"<!-- written by reviewgen from what it recorded; (?P<digest>[0-9a-f]{16}) -->\n?\Z")


def write_card(facts: CardFacts) -> str:
    """Return the card of a trained model: Markdown below the Hub's YAML front matter.

    Raises:
        ConfigError: A value of the metadata is not text.
        BundleError: The facts in training.json are damaged.
    """
    from huggingface_hub import ModelCard

    try:
        card = str(ModelCard(f"---\n{make_metadata(facts).to_yaml()}\n---\n\n{write_text(facts)}\n"))
    except (KeyError, TypeError, AttributeError, IndexError) as error:  # training.json may come from a third party
        raise BundleError(f"No card can be written: training.json is damaged ({type(error).__name__}: {error}).") from None
    return f"{card}<!-- written by reviewgen from what it recorded; {_digest(card)} -->\n"


def _is_unedited(card: str) -> bool:
    """Return whether a card was generated and not edited since."""
    mark = _MARK.search(card)
    return mark is not None and mark["digest"] == _digest(card[: mark.start()])


def is_written_by_hand(card: str) -> bool:
    """Return whether a card was written or edited by hand; YAML front matter alone does not count as a card."""
    return not _is_unedited(card) and re.sub(r"\A\s*---\n.*?\n---\s*", "", card, count=1, flags=re.DOTALL).strip() != ""


def metadata_of(card: str) -> dict[str, Any]:
    """Return the ``license``, ``language``, ``datasets`` and ``tags`` of a card, without the tags that every generated card has,
    and the ``space`` that it links.

    Raises:
        ConfigError: Its front matter is not valid YAML.
    """
    data = _parse(card).data
    metadata = {key: data.get(key) for key in ("license", "language", "datasets")}
    tags = data.get("tags")
    metadata["tags"] = tags[2:] if isinstance(tags, list) and _is_unedited(card) else tags  # the first two are generated
    link = _SPACE.search(card)
    metadata["space"] = link and link["space"]
    return {key: value for key, value in metadata.items() if value}


def with_license(card: str, license: str) -> str:
    """Return a card with its license set; its front matter is formatted again. Raises as ``metadata_of``."""
    parsed = _parse(card)
    parsed.data["license"] = license
    return str(parsed)


def _parse(card: str) -> "ModelCard":
    from huggingface_hub import ModelCard

    try:
        return ModelCard(card, ignore_metadata_errors=True)
    except Exception as error:  # of the YAML library and of the client
        raise ConfigError(f"The YAML front matter of the card (README.md) cannot be parsed: {first_line(error)}.") from None


def _digest(text: str) -> str:
    plain = "\n".join(line.rstrip() for line in text.strip().splitlines())  # independent of line endings
    return hashlib.sha256(plain.encode("utf-8", "backslashreplace")).hexdigest()[:16]
