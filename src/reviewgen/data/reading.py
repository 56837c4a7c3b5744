"""Texts to measure a trained model on, read and cleaned as its training did, unless somebody says otherwise."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from reviewgen.conditions import Conditions
from reviewgen.config import from_dict
from reviewgen.data.cache import workspace
from reviewgen.data.corpus import DataConfig, read_rows
from reviewgen.data.store import frame_texts
from reviewgen.errors import ConfigError
from reviewgen.protocols import Tokenizer

__all__ = ["read_documents", "trained_on"]

_NO_CONDITIONS = Conditions()
_CLEANING = {"lowercase": False, "strip_markdown": False, "clean": True}  # what is done where no training says


def trained_on(training: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what training.json says of the data: of each part of a blend, and of each training, the last first."""
    parts, parent = training.get("parts"), training.get("parent")
    if parts:
        return [data for part in parts for data in trained_on(part)]
    return [training.get("data", {}), *(trained_on(parent) if parent else ())]


def read_documents(
    source: Any,
    tokenizer: Tokenizer,
    trained: Sequence[Mapping[str, Any]],
    *,
    split: str = "all",
    text_column: str | None = None,
    documents: str = "line",
    conditions: Conditions = _NO_CONDITIONS,
    lowercase: bool | None = None,
    strip_markdown: bool | None = None,
    clean: bool | None = None,
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield each text of a source as ids framed by bos, the ids of its conditions and eos, and its number of characters.

    Args:
        source: See ``reviewgen.data.sources.open_texts``.
        tokenizer: The model's.
        trained: What is known of the data of each training that made the model; see ``trained_on``.
        split: "all", or a part of the hash split of the source: "train", "validation" or "test".
        text_column: The column that holds the text; guessed if not given.
        documents: How a txt file is cut: "line", "paragraph" or "file".
        conditions: Those of the model; a condition whose column the source lacks is any.
        lowercase, strip_markdown, clean: How to clean; None does what the trainings did, or the least where they differ.

    Raises:
        DataError: The source cannot be read or holds nothing to evaluate.
        ConfigError: The split is unknown, or would not be that of the training.
    """
    given = {"lowercase": lowercase, "strip_markdown": strip_markdown, "clean": clean}
    cleaning = {name: _as_trained(name, trained) if value is None else value for name, value in given.items()}
    if split != "all":
        for data in trained:
            _refuse_other_split(data, cleaning)
    columns = {"text_column": text_column, "documents": documents, "conditions": conditions.names}
    config = from_dict(DataConfig, columns | cleaning)
    with workspace() as folder:
        rows = read_rows(source, folder, config, split=split)
        yield from frame_texts(((text, conditions.encode_row(values)) for text, values in rows), tokenizer)


def _as_trained(name: str, trained: Sequence[Mapping[str, Any]]) -> bool:
    default = _CLEANING[name]
    first, *others = [data.get(name, default) for data in trained] or [default]
    return bool(first) if all(other == first for other in others) else default


def _refuse_other_split(trained: Mapping[str, Any], cleaning: Mapping[str, bool]) -> None:
    """Raise where a hash split of cleaned texts would not be the one that a model was trained on."""
    if trained.get("validation_source") is not None:
        raise ConfigError("This model was trained on all of its source, with a validation source of its own: use split='all'.")
    for name, value in cleaning.items():
        if trained.get(name, value) != value:
            raise ConfigError(f"The split is by a hash of the cleaned texts, and this model was trained with {name}={not value}.")
