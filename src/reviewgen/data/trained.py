"""How to read a source as a training read its own: cleaned alike, and split by hash only where the split would be the same."""

from collections.abc import Mapping, Sequence
from typing import Any

from reviewgen.config import from_dict
from reviewgen.data.corpus import DataConfig
from reviewgen.errors import ConfigError

__all__ = ["config_as_trained"]

_DEFAULTS = {"lowercase": False, "strip_markdown": False, "clean": True}


def config_as_trained(
    trained: Mapping[str, Any],
    split: str,
    *,
    text_column: str | None,
    documents: str,
    conditions: Sequence[str],
    **cleaning: bool | None,
) -> DataConfig:
    """Return how to read a source that a trained model is measured on.

    Args:
        trained: What training.json says of the data.
        split: "all", or a part of the hash split.
        text_column, documents: See ``DataConfig``.
        conditions: The names of the model's.
        cleaning: lowercase, strip_markdown and clean; None does what the training did.

    Raises:
        ConfigError: A setting is none, or the split would not be that of the training.
    """
    settings = {name: trained.get(name, _DEFAULTS[name]) if value is None else value for name, value in cleaning.items()}
    if split != "all":
        _refuse_other_split(trained, settings)
    return from_dict(DataConfig, {"text_column": text_column, "documents": documents, "conditions": conditions} | settings)


def _refuse_other_split(trained: Mapping[str, Any], cleaning: Mapping[str, Any]) -> None:
    """Raise where a hash split of cleaned texts would not be the one that the model was trained on."""
    if trained.get("validation_source") is not None:
        raise ConfigError("This model was trained on all of its source, with a validation source of its own: use split='all'.")
    for name, value in cleaning.items():
        if trained.get(name, value) != value:
            raise ConfigError(f"The split is by a hash of the cleaned texts, and this model was trained with {name}={not value}.")
