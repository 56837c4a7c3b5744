"""Reads the texts that a trained model is evaluated on; by default they are cleaned as its training texts were."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from reviewgen.conditions import Conditions
from reviewgen.config import EvaluateOptions, from_dict, refuse_unknown_options
from reviewgen.data.cache import workspace
from reviewgen.data.columns import Example
from reviewgen.data.corpus import DataConfig, read_examples
from reviewgen.data.store import frame_texts
from reviewgen.errors import ConfigError
from reviewgen.protocols import Tokenizer

__all__ = ["read_documents", "read_texts", "trained_on"]

_NO_CONDITIONS = Conditions()
_DEFAULT_CLEANING = {
    "lowercase": False,
    "strip_markdown": False,
    "fix_encoding": False,
    "clean": True,
}  # if training.json does not say


def trained_on(training: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the ``data`` entries of training.json: of each part of a blend, and of each training of a model, the last first.

    An entry of a version that could not mend encodings has ``fix_encoding`` False.
    """
    parts, parent = training.get("parts"), training.get("parent")
    if parts:
        return [data for part in parts for data in trained_on(part)]
    data = training.get("data", {})
    return [{"fix_encoding": False, **data} if "clean" in data else data, *(trained_on(parent) if parent else ())]


def read_documents(
    source: Any,
    tokenizer: Tokenizer,
    trained: Sequence[Mapping[str, Any]],
    *,
    conditions: Conditions = _NO_CONDITIONS,
    **options: Unpack[EvaluateOptions],
) -> Iterator[tuple[np.ndarray, int]]:
    """Read a source and encode its texts; yield the ids of each (bos, conditions, tokens, eos) and its number of characters.

    Args and errors are those of ``read_texts``; ``tokenizer`` is the model's.
    """
    examples = read_texts(source, trained, conditions=conditions, **options)
    yield from frame_texts(((text, conditions.encode_values(values)) for text, values in examples), tokenizer)


def read_texts(
    source: Any,
    trained: Sequence[Mapping[str, Any]],
    *,
    conditions: Conditions = _NO_CONDITIONS,
    **options: Unpack[EvaluateOptions],
) -> Iterator[Example]:
    """Read and clean a source; yield each text with the values of the conditions.

    Args:
        source: See ``reviewgen.data.sources.open_texts``.
        trained: The ``data`` entry of each training of the model; see ``trained_on``.
        conditions: The model's conditions; one without a column in the source is unspecified.
        options: How to read and clean; see ``EvaluateOptions``. Cleaning that is not given is done as in the trainings, or by
            default if they differ.

    Raises:
        DataError: The source cannot be read or holds nothing to evaluate.
        ConfigError: An option is unknown, or the split is unknown or would differ from the split of the training.
    """
    refuse_unknown_options(options, EvaluateOptions, "read_documents")
    split = options.get("split", "all")
    given: Mapping[str, Any] = {name: options.get(name) for name in _DEFAULT_CLEANING}
    cleaning = {name: _as_trained(name, trained) if value is None else value for name, value in given.items()}
    documents = options.get("documents", "line")
    if split != "all":
        for data in trained:
            _require_same_split(data, cleaning)
            _require_same_documents(data, source, documents)
    columns = {
        "text_column": options.get("text_column"),
        "documents": documents,
        "conditions": conditions.names,
        "max_text_characters": options.get("max_text_characters", DataConfig.max_text_characters),
    }
    config = from_dict(DataConfig, columns | cleaning)
    with workspace() as folder:
        yield from read_examples(source, folder, config, split=split)


def _as_trained(name: str, trained: Sequence[Mapping[str, Any]]) -> bool:
    default = _DEFAULT_CLEANING[name]
    first, *others = [data.get(name, default) for data in trained] or [default]
    return bool(first) if all(other == first for other in others) else default


def _require_same_split(trained: Mapping[str, Any], cleaning: Mapping[str, bool]) -> None:
    """Raise if the split of the cleaned texts would differ from the one that the model was trained on."""
    if trained.get("validation_source") is not None:
        raise ConfigError("This model was trained on all of its source, with a separate validation source: use split='all'.")
    for name, value in cleaning.items():
        if trained.get(name, value) != value:
            raise ConfigError(
                f"The split depends on how texts are cleaned, and this model was trained with {name}={not value}; use the same."
            )


def _require_same_documents(trained: Mapping[str, Any], source: Any, documents: str) -> None:
    """Raise if a model was trained on the same file, and one of the two times it is one long text, which is split in blocks."""
    is_same_file = isinstance(source, str | Path) and Path(source).name == Path(trained.get("source") or "").name
    before = trained.get("documents", documents)
    if is_same_file and before != documents and "file" in (before, documents):
        raise ConfigError(
            f"The split depends on how a text file is cut into texts, and this model was trained with documents={before!r}; use "
            "the same."
        )
