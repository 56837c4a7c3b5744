"""The fields of a model's config that its tokenizer decides: the user does not set them."""

from collections.abc import Mapping
from typing import Any

from reviewgen.config.settings import fields_of

VOCABULARY_FIELDS = ("vocab_size", "bos_id", "eos_id")
"""The first is required, the others are optional."""

SMALLEST_VOCABULARY = {"vocab_size": 2, "bos_id": 0, "eos_id": 1}
"""A stand-in where the other settings of a config are checked before there is a tokenizer."""


def vocabulary_settings(config: type, vocab_size: int, bos_id: int, eos_id: int) -> dict[str, int]:
    """Return the settings of a model that its tokenizer decides, those that its config has.

    Args:
        config: The config class.
        vocab_size: The number of ids, those of conditions included.
        bos_id, eos_id: The beginning-of-text and the end-of-text id.
    """
    known = fields_of(config)
    values = dict(zip(VOCABULARY_FIELDS, (vocab_size, bos_id, eos_id), strict=True))
    return {name: value for name, value in values.items() if name in known or name == "vocab_size"}


def without_vocabulary(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's settings without those that its tokenizer decides."""
    return {name: value for name, value in settings.items() if name not in VOCABULARY_FIELDS}
