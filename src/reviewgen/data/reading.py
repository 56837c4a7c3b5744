"""Texts to evaluate a trained model on, read and cleaned as in its training unless the user has chosen otherwise."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Unpack

import numpy as np

from reviewgen.conditions import Conditions
from reviewgen.config import EvaluateOptions, from_dict, refuse_unknown_options
from reviewgen.data.cache import workspace
from reviewgen.data.corpus import DataConfig, read_rows
from reviewgen.data.store import frame_texts
from reviewgen.errors import ConfigError
from reviewgen.protocols import Tokenizer

__all__ = ["read_documents", "trained_on"]

_NO_CONDITIONS = Conditions()
_CLEANING = {"lowercase": False, "strip_markdown": False, "clean": True}  # if no training has recorded it


def trained_on(training: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the facts on the data in training.json: of each part of a blend, and of each training, the last first."""
    parts, parent = training.get("parts"), training.get("parent")
    if parts:
        return [data for part in parts for data in trained_on(part)]
    return [training.get("data", {}), *(trained_on(parent) if parent else ())]


def read_documents(
    source: Any,
    tokenizer: Tokenizer,
    trained: Sequence[Mapping[str, Any]],
    *,
    conditions: Conditions = _NO_CONDITIONS,
    **options: Unpack[EvaluateOptions],
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield each text of a source as ids framed by bos, the ids of its conditions and eos, and its number of characters.

    Args:
        source: See ``reviewgen.data.sources.open_texts``.
        tokenizer: The model's tokenizer.
        trained: The facts on the data of each training that made the model; see ``trained_on``.
        conditions: The model's conditions; one that has no column in the source is unspecified.
        options: How to read and clean; see ``EvaluateOptions``. Cleaning that is not given is done as in the trainings, or by
            default if they differ.

    Raises:
        DataError: The source cannot be read or contains nothing to evaluate.
        ConfigError: An option is unknown, or the split is unknown or would not be that of the training.
    """
    refuse_unknown_options(options, EvaluateOptions, "read_documents")
    split = options.get("split", "all")
    given: Mapping[str, Any] = {name: options.get(name) for name in _CLEANING}
    cleaning = {name: _as_trained(name, trained) if value is None else value for name, value in given.items()}
    if split != "all":
        for data in trained:
            _refuse_other_split(data, cleaning)
    columns = {
        "text_column": options.get("text_column"),
        "documents": options.get("documents", "line"),
        "conditions": conditions.names,
    }
    config = from_dict(DataConfig, columns | cleaning)
    with workspace() as folder:
        rows = read_rows(source, folder, config, split=split)
        yield from frame_texts(((text, conditions.encode_row(values)) for text, values in rows), tokenizer)


def _as_trained(name: str, trained: Sequence[Mapping[str, Any]]) -> bool:
    default = _CLEANING[name]
    first, *others = [data.get(name, default) for data in trained] or [default]
    return bool(first) if all(other == first for other in others) else default


def _refuse_other_split(trained: Mapping[str, Any], cleaning: Mapping[str, bool]) -> None:
    """Raise if the hash split of the cleaned texts would not be the one that a model was trained on."""
    if trained.get("validation_source") is not None:
        raise ConfigError("This model was trained on its whole source, with a separate validation source: use split='all'.")
    for name, value in cleaning.items():
        if trained.get(name, value) != value:
            raise ConfigError(f"The split is by a hash of the cleaned texts, and this model was trained with {name}={not value}.")
