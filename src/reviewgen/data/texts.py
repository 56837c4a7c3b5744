"""Read the texts of a source to evaluate models on, or the rows of a table.

All texts of a source are cleaned while they are read. A split of them goes through the same stages
in the cache as the texts of a training (see ``clean`` and ``split``): so an evaluation on a split
of a file that a training has read starts from the stages of this training. By default, texts are
cleaned as the training texts of the model were.
"""

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from reviewgen.conditions import Conditions
from reviewgen.config.options import EvaluateKwargs, refuse_unknown_options
from reviewgen.config.settings import from_dict
from reviewgen.data.clean import describe, require_texts
from reviewgen.data.cleaning import CleaningReport, note_mojibake
from reviewgen.data.columns import DataConfig, Example, SourceInfo
from reviewgen.data.files import expand
from reviewgen.data.open import SPLITS, open_source, open_unchosen, splits_of
from reviewgen.data.split import CorpusSpec, read_corpus
from reviewgen.data.stage import workspace
from reviewgen.data.tokens import frame_texts
from reviewgen.errors import ConfigError, DataError, counted, quoted
from reviewgen.storage import is_pipe

_logger = logging.getLogger("reviewgen")
_TRAINED_ON = (
    "%s was trained on most of these texts, so they do not show how well it predicts new ones."
    " --split test (split='test') takes the texts that a training held out."
)
_LOOKED_UP = 100  # number of texts that are looked up in the training texts of a model
_MOST = 0.5  # a warning is logged if a model was trained on more than this share of these texts
LEGACY_OPTIONS = {
    "fix_encoding": False,
    "keep_line_breaks": True,
    "drop_repeated_lines": False,
    "keep_space": True,
}
"""The values of newer cleaning options that match how older versions cleaned texts: they could not
repair encodings, join lines, drop repeated lines or strip white space.
"""


def read_examples(source: Any, config: DataConfig, *, split: str = "all") -> Iterator[Example]:
    """Yield the cleaned examples of a source, or of one of its splits.

    A condition without a column counts as not given. The cleaning report is logged at level INFO of
    the logger ``reviewgen``.

    Args:
        source: See ``open_source``.
        config: How to read and clean.
        split: "all"; a split that the source itself has; or "train", "validation" or "test", the
            splits that a training would make (by the hash of each text).

    Raises:
        DataError: The source cannot be read, no texts are left, or the split is empty.
        ConfigError: The split is unknown.
    """
    if split != "all" and split in splits_of(source, config):
        config = replace(config, split=split)
        split = "all"
    if split not in ("all", *SPLITS):
        raise ConfigError(f"A split is all, train, validation or test; got {quoted(split)}.")
    return _read(source, config, split)


def _read(source: Any, config: DataConfig, split: str) -> Iterator[Example]:
    """Yield the examples of ``read_examples``, whose arguments have been checked."""
    looks_for_lines = config.drop_repeated_lines and config.repeated_lines is None
    if split == "all" and not (looks_for_lines and config.documents != "file"):
        yield from _stream(source, config)
        return
    # splits and repeated lines depend on all texts
    corpus = read_corpus(CorpusSpec(source, config, allow_missing=True))
    _log(corpus.source, corpus.report)
    if split != "all" and not corpus.counts[split]:
        total = counted(sum(corpus.counts.values()), "text")
        raise DataError(
            f"The {split} split of {corpus.source.name} is empty: it has {total} in all."
        )
    yield from corpus.examples(None if split == "all" else split)


def _stream(source: Any, config: DataConfig) -> Iterator[Example]:
    """Yield the cleaned examples of a source while it is read, without duplicates."""
    with workspace() as folder:
        opened = open_source(source, config, folder, allow_missing=True)
        cleaner = opened.cleaner()
        report = cleaner.report
        seen = set[int]()  # hashes of earlier texts
        for text, values in opened.examples():
            cleaned = cleaner(text)
            if cleaned is None:
                continue
            cleaned_text, text_hash = cleaned
            if opened.drops_duplicates and text_hash in seen:
                report.duplicates += 1
                continue
            seen.add(text_hash)
            report.kept += 1
            report.characters += len(cleaned_text)
            # without the last value of a cleaned corpus, the split
            yield cleaned_text, values[: len(config.columns)]
    report.decode_errors = opened.info.decode_errors
    opened.info.notes += note_mojibake(report.mojibake, cleaner.mojibake)
    _log(opened.info, report)
    require_texts(opened.info, report)


def _log(info: SourceInfo, report: CleaningReport) -> None:
    """Log what was read and changed."""
    for line in describe(info, report):
        _logger.info("%s", line)


def open_records(source: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a table, as mappings of column to value, without choosing columns.

    Raises:
        DataError: The source cannot be read, or has something other than rows with named columns.
    """
    with workspace() as folder:
        opened = open_unchosen(source, DataConfig(), folder)
        for record in opened.records():
            if not isinstance(record, Mapping):
                raise DataError(
                    f"{opened.info.name} has no columns: give a csv, jsonl or parquet file, or"
                    " records with named columns."
                )
            yield record


def data_records(training: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return how each training of a model read and cleaned its source: the entry ``data`` of its
    training.json. The last training comes first, then the one it continued, and so on.

    For a blend, these are the entries of all its components. If a training has several weighted
    corpora, each corpus has its own entry. If an older version wrote an entry, the options that it
    did not have are set to ``LEGACY_OPTIONS``.
    """
    if parts := training.get("parts"):
        return list(itertools.chain.from_iterable(map(data_records, parts)))
    data = training.get("data") or {}
    if "clean" in data:
        data = {**LEGACY_OPTIONS, **data}
    records: list[Mapping[str, Any]] = [
        {**data, **corpus} for corpus in data.get("corpora") or [{}]
    ]
    if parent := training.get("parent"):
        records += data_records(parent)
    return records


def read_documents(
    source: Any, model: Any, parts: Sequence[Any] = (), **options: Unpack[EvaluateKwargs]
) -> Iterator[tuple[np.ndarray, int]]:
    """Read a source and encode its texts; yield the ids of each (bos, conditions, tokens, eos) and
    its number of characters.

    Args and errors are those of ``read_texts``; the tokenizer is the model's.
    """
    examples = read_texts(source, model, parts, **options)
    yield from frame_texts(
        ((text, model.conditions.encode_values(values)) for text, values in examples),
        model.tokenizer,
    )


def read_texts(
    source: Any, model: Any, parts: Sequence[Any] = (), **options: Unpack[EvaluateKwargs]
) -> Iterator[Example]:
    """Read and clean a source to evaluate a model on; yield each text with its condition values.

    The first texts are looked up in the model's index of its training texts. If the model was
    trained on most of them, a warning is logged by the logger ``reviewgen``.

    Args:
        source: See ``reviewgen.data.open.open_source``.
        model: The model (``reviewgen.model.Bundle``). A condition without a column in the source is
            unspecified.
        parts: The components, if the model is a blend.
        options: How to read and clean; see ``EvaluateKwargs``. A cleaning option that is not given
            is taken from the model's trainings, or is the default if these differ.

    Raises:
        DataError: The source cannot be read or holds nothing to evaluate.
        ConfigError: An option or the split is unknown, or the split would have other texts than the
            same split in the training.
    """
    refuse_unknown_options(options, EvaluateKwargs, "read_documents")
    models = parts or [model]
    trained = _find_trainings(source, models)
    config = _as_trained(options, trained, model.conditions)
    split = options.get("split") or "all"
    if split != "all" and split not in splits_of(source, config):
        for data in trained:
            _require_same_split(data, config, source)
    examples = read_examples(source, config, split=split)
    first = list(itertools.islice(examples, _LOOKED_UP))
    for part in models:
        ids = (part.tokenizer.encode(text) for text, _ in first)
        if part.index and part.index.share_trained_on(ids) > _MOST:
            _logger.warning(_TRAINED_ON, part.origin or part.preset)
    yield from itertools.chain(first, examples)


def read_trained_examples(model: Any, split: str) -> Iterator[Example]:
    """Read and clean a split of the corpus that a model (``reviewgen.model.Bundle``) was trained
    on, and yield each text with its condition values.

    Raises:
        DataError: The corpus is not known, or cannot be read.
    """
    trained = data_records(model.training)
    source = trained[0].get("source")
    if source is None or len(trained[0].get("corpora") or ()) > 1:
        raise DataError("the model does not say which single source it was trained on")
    names = ("text_column", "documents")
    options = {name: trained[0][name] for name in names if trained[0].get(name) is not None}
    yield from read_examples(source, _as_trained(options, trained, model.conditions), split=split)


def _find_trainings(source: Any, models: Sequence[Any]) -> list[Mapping[str, Any]]:
    """Return the ``data`` entries of the trainings of some models. If the source is one of several
    weighted corpora, the others are left out.
    """
    trained = list(itertools.chain(*(data_records(model.training) for model in models)))
    weighted = [data for data in trained if "weight" in data]
    others = [data for data in weighted if not _is_same_file(source, data)]
    if len(others) == len(weighted):
        return trained
    return [data for data in trained if data not in others]


def _as_trained(
    options: Mapping[str, Any], trained: Sequence[Mapping[str, Any]], conditions: Conditions
) -> DataConfig:
    """Return the settings for reading texts. A cleaning option that is not given has its value in
    the trainings, or its default if the trainings differ.
    """
    settings = {name: value for name, value in options.items() if name != "split"}
    for name, default in DataConfig().cleaning.items():
        before = {data.get(name, default) for data in trained}
        if settings.get(name) is None:
            settings[name] = before.pop() if len(before) == 1 else default
    lines = [
        data.get("repeated_lines") or () for data in trained if data.get("drop_repeated_lines")
    ]
    if lines:
        settings["repeated_lines"] = tuple(dict.fromkeys(itertools.chain(*lines)))
    widths = [data["width"] for data in trained if data.get("width") is not None]
    if widths:
        settings["width"] = widths[0]
    return from_dict(DataConfig, {**settings, "conditions": conditions.names})


def _require_same_split(trained: Mapping[str, Any], config: DataConfig, source: Any) -> None:
    """Raise if the cleaned texts would be split in another way than when the model was trained.

    One long text (documents="file") is split into blocks, so it must be read in the same way as in
    training.
    """
    if trained.get("validation_source") is not None:
        raise ConfigError(
            "This model was trained on all of its source, with a separate validation source: use"
            " split='all'."
        )
    for name, value in config.cleaning.items():
        if trained.get(name, value) != value:
            raise ConfigError(
                "The split depends on how texts are cleaned, and this model was trained with"
                f" {name}={not value}; use the same."
            )
    before = trained.get("documents", config.documents)
    is_one_text = [documents == "file" for documents in (before, config.documents)]
    if _is_same_file(source, trained) and any(is_one_text) and not all(is_one_text):
        raise ConfigError(
            "The split depends on how a text file is cut into texts, and this model was trained"
            f" with documents={before!r}; use the same."
        )


def _is_same_file(source: Any, trained: Mapping[str, Any]) -> bool:
    """Return whether a source is a path with the same file name as the source of a training."""
    is_path = isinstance(source, str | Path)
    return is_path and Path(source).name == Path(trained.get("source") or "").name


def identify_texts(
    source: Any, conditions: Conditions, options: Mapping[str, Any]
) -> list[Any] | None:
    """Return what identifies the texts that ``read_texts`` reads; None if the source is not files,
    or is a pipe.
    """
    names = source if isinstance(source, list) else [source]
    if isinstance(source, str):
        names = [Path(source)]
    if not all(isinstance(name, Path) for name in names) or any(map(is_pipe, map(expand, names))):
        return None
    settings = {name: value for name, value in options.items() if name != "split"}
    with workspace() as folder:
        config = from_dict(DataConfig, {**settings, "conditions": conditions.names})
        facts: list[Any] | None = open_source(source, config, folder, allow_missing=True).facts
        return facts
