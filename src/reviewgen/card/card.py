"""A whole card, and whether somebody has changed one since it was written.

The last line of a card that was written here holds the digest of what is above it, so a card that a person has edited, or wrote,
is told from one that may be written anew.
"""

import hashlib
import re
from typing import TYPE_CHECKING, Any

from reviewgen.card.facts import CardFacts
from reviewgen.card.metadata import make_metadata
from reviewgen.card.text import write_text
from reviewgen.errors import BundleError, ConfigError

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

__all__ = ["is_written_by_hand", "metadata_of", "with_license", "write_card"]

_MARK = re.compile(r"<!-- written by reviewgen from what it recorded; (?P<digest>[0-9a-f]{16}) -->\n?\Z")


def write_card(facts: CardFacts) -> str:
    """Return the card of a trained model: Markdown with the Hub's block of metadata.

    Raises:
        ConfigError: A part of the metadata is not text.
        BundleError: What is recorded of the training is not what a training records.
    """
    from huggingface_hub import ModelCard

    try:
        card = str(ModelCard(f"---\n{make_metadata(facts).to_yaml()}\n---\n\n{write_text(facts)}\n"))
    except (KeyError, TypeError, AttributeError, IndexError) as error:  # of a folder that somebody else has written
        raise BundleError(f"No card can be written: training.json is damaged ({type(error).__name__}: {error}).") from None
    return f"{card}<!-- written by reviewgen from what it recorded; {_digest(card)} -->\n"


def _is_untouched(card: str) -> bool:
    """Return whether a card was written here and is as it was."""
    mark = _MARK.search(card)
    return mark is not None and mark["digest"] == _digest(card[: mark.start()])


def is_written_by_hand(card: str) -> bool:
    """Return whether somebody has written a card, or changed one; a block of metadata alone is none."""
    return not _is_untouched(card) and re.sub(r"\A\s*---\n.*?\n---\s*", "", card, count=1, flags=re.DOTALL).strip() != ""


def metadata_of(card: str) -> dict[str, Any]:
    """Return what a card says of ``license``, ``language``, ``datasets`` and ``tags``, those that are not written anyway.

    Raises:
        ConfigError: Its block of metadata is no YAML.
    """
    data = _read(card).data
    found = {key: data.get(key) for key in ("license", "language", "datasets")}
    tags = data.get("tags")
    found["tags"] = tags[2:] if isinstance(tags, list) and _is_untouched(card) else tags  # ours come first
    return {key: value for key, value in found.items() if value}


def with_license(card: str, license: str) -> str:
    """Return a card that names a license in its block of metadata, which is spelled anew; raises as ``metadata_of``."""
    read = _read(card)
    read.data["license"] = license
    return str(read)


def _read(card: str) -> "ModelCard":
    from huggingface_hub import ModelCard

    try:
        return ModelCard(card, ignore_metadata_errors=True)
    except Exception as error:  # of the YAML library and of the client
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"The block of metadata that begins the card (README.md) cannot be read: {cause}.") from None


def _digest(text: str) -> str:
    plain = "\n".join(line.rstrip() for line in text.strip().splitlines())  # an editor's line endings change nothing
    return hashlib.sha256(plain.encode("utf-8", "backslashreplace")).hexdigest()[:16]
