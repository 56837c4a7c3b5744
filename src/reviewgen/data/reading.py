"""Reads texts to evaluate models on: the cleaned examples of a source, by default cleaned as a model's training texts were."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from reviewgen.conditions import Conditions
from reviewgen.config import EvaluateOptions, from_dict, refuse_unknown_options
from reviewgen.data.cache import workspace
from reviewgen.data.cleaning import CleaningReport
from reviewgen.data.columns import DataConfig, Example, SourceInfo, flatten
from reviewgen.data.corpus import describe, make_corpus, require_texts
from reviewgen.data.filters import Filters
from reviewgen.data.parts import Work
from reviewgen.data.sources import SPLITS, open_source, open_units, reading_errors, splits_of
from reviewgen.data.store import frame_texts
from reviewgen.errors import ConfigError, DataError, counted, quoted
from reviewgen.protocols import Tokenizer
from reviewgen.storage import Job

_logger = logging.getLogger("reviewgen")
_NO_CONDITIONS = Conditions()


def read_examples(source: Any, config: DataConfig, *, split: str = "all") -> Iterator[Example]:
    """Yield the cleaned examples of a source, or of one of its splits; nothing is kept afterwards.

    A condition without a column counts as not given. What was read and changed is logged, at level INFO of the logger
    ``reviewgen``.

    Args:
        source: See ``open_source``.
        config: How to read and clean.
        split: "all"; or a part of the hash split, "train", "validation" or "test"; or a split that the source itself has.

    Raises:
        DataError: The source cannot be read, no texts are left, or the split is empty.
        ConfigError: The split is unknown.
    """
    if split != "all" and split in splits_of(source, config):
        config, split = replace(config, split=split), "all"
    if split not in ("all", *SPLITS):
        raise ConfigError(f"A split is all, train, validation or test; got {quoted(split)}.")
    return _read(source, config, split)


def open_records(source: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a table, as mappings of column to value, without choosing columns.

    Raises:
        DataError: The source cannot be read, or has something else than rows with named columns.
    """
    with workspace() as folder:
        for read, name in (each for unit in open_units(source, DataConfig(), folder).units for each in unit.reads):
            with reading_errors(name):
                for record in map(flatten, read(None)):
                    if not isinstance(record, Mapping):
                        raise DataError(
                            f"{name} has no columns: give a csv, jsonl or parquet file, or records with named columns."
                        )
                    yield record


def _read(source: Any, config: DataConfig, split: str) -> Iterator[Example]:
    with workspace() as folder:
        opened = open_source(source, config, folder, allow_missing=True)
        if split != "all":
            corpus = make_corpus([opened], Work(Job(folder / "corpus", {})), Filters())
            _log(corpus.source, corpus.report)
            if not corpus.counts[split]:
                total = counted(sum(corpus.counts.values()), "text")
                raise DataError(f"The {split} split of {corpus.source.name} is empty: it has {total} in all.")
            yield from corpus.examples(split)
            return
        cleaner, seen = opened.cleaner(), set[int]()
        report = cleaner.report
        for text, values in (example for unit in opened.units for example in opened.examples(unit)):
            if (cleaned := cleaner(text)) is None:
                continue
            if config.clean and not opened.is_cleaned and cleaned[1] in seen:
                report.duplicates += 1
                continue
            seen.add(cleaned[1])
            report.kept += 1
            report.characters += len(cleaned[0])
            yield cleaned[0], values[: len(config.conditions)]
        report.decode_errors = opened.info.decode_errors
        opened.info.notes += cleaner.notes()
        _log(opened.info, report)
        require_texts(opened.info, report)


def _log(info: SourceInfo, report: CleaningReport) -> None:
    for line in describe(info, report):
        _logger.info("%s", line)


AS_BEFORE = {"fix_encoding": False, "keep_line_breaks": True}
"""How texts were cleaned by a version that could not mend encodings or join lines."""


def trained_on(training: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the ``data`` entries of training.json: of each part of a blend, and of each training of a model, the last first.

    An entry of a version that could not mend encodings has ``fix_encoding`` False, and of one that joined no lines
    ``keep_line_breaks`` True.
    """
    parts, parent = training.get("parts"), training.get("parent")
    if parts:
        return [data for part in parts for data in trained_on(part)]
    data = training.get("data", {})
    return [{**AS_BEFORE, **data} if "clean" in data else data, *(trained_on(parent) if parent else ())]


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
        source: See ``reviewgen.data.sources.open_source``.
        trained: The ``data`` entry of each training of the model; see ``trained_on``.
        conditions: The model's conditions; one without a column in the source is unspecified.
        options: How to read and clean; see ``EvaluateOptions``. Cleaning that is not given is done as in the trainings, or by
            default if they differ.

    Raises:
        DataError: The source cannot be read or holds nothing to evaluate.
        ConfigError: An option is unknown, or the split is unknown or would differ from the split of the training.
    """
    refuse_unknown_options(options, EvaluateOptions, "read_documents")
    split, documents = options.get("split") or "all", options.get("documents", "line")
    cleaning: dict[str, Any] = {}
    for name, default in DataConfig().cleaning.items():
        before = {data.get(name, default) for data in trained}
        as_trained = before.pop() if len(before) == 1 else default
        cleaning[name] = as_trained if (given := options.get(name)) is None else given
    if split != "all" and split not in splits_of(source, DataConfig(subset=options.get("subset"))):
        for data in trained:
            _require_same_split(data, cleaning, source, documents)
    columns: dict[str, Any] = {name: value for name, value in options.items() if name not in ("split", *cleaning)}
    columns["width"] = next((data["width"] for data in trained if data.get("width") is not None), None)
    yield from read_examples(source, from_dict(DataConfig, {**columns, **cleaning, "conditions": conditions.names}), split=split)


def _require_same_split(trained: Mapping[str, Any], cleaning: Mapping[str, Any], source: Any, documents: str) -> None:
    """Raise if the split of the cleaned texts would differ from the one that the model was trained on.

    A file that is one long text is split in blocks.
    """
    if trained.get("validation_source") is not None:
        raise ConfigError("This model was trained on all of its source, with a separate validation source: use split='all'.")
    for name, value in cleaning.items():
        if trained.get(name, value) != value:
            raise ConfigError(
                f"The split depends on how texts are cleaned, and this model was trained with {name}={not value}; use the same."
            )
    is_same_file = isinstance(source, str | Path) and Path(source).name == Path(trained.get("source") or "").name
    before = trained.get("documents", documents)
    if is_same_file and before != documents and "file" in (before, documents):
        raise ConfigError(
            f"The split depends on how a text file is cut into texts, and this model was trained with documents={before!r}; use "
            "the same."
        )
