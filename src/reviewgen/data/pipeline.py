"""The interface of this package to others: make a cleaned corpus and a token store, in the cache or
elsewhere, or read texts to evaluate models on.

In the cache, the folder of a corpus is ``texts-KEY`` and that of a token store ``tokens-KEY``. Each
appears only when it is complete: one process makes it while others wait. Texts to evaluate on are
cleaned by default as the training texts of the model were, and are not stored.
"""

import hashlib
import itertools
import json
import logging
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from reviewgen.conditions import Conditions, fit_condition, fit_field
from reviewgen.config.options import EvaluateKwargs, refuse_unknown_options
from reviewgen.config.settings import from_dict, to_dict
from reviewgen.data.cache import in_cache, workspace
from reviewgen.data.cleaning import CleaningReport, note_mojibake
from reviewgen.data.columns import DataConfig, Example, SourceInfo
from reviewgen.data.corpus import Corpus, describe, make_corpus, require_splits, require_texts
from reviewgen.data.files import expand
from reviewgen.data.parts import Filters, Progress, SharedJob
from reviewgen.data.prepare import Encoding, encode_corpus
from reviewgen.data.sources import SPLITS, Source, open_source, open_units, splits_of
from reviewgen.data.store import (
    StoreFolder,
    find_store,
    frame_texts,
    publish_store,
    refuse_existing,
)
from reviewgen.data.weighting import refuse_same
from reviewgen.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    counted,
    quoted,
    storage_errors,
)
from reviewgen.processes import Processes
from reviewgen.storage import Job, is_pipe, publish
from reviewgen.version import __version__

_logger = logging.getLogger("reviewgen")
_TRAINED_ON = (
    "%s was trained on most of these texts, so they do not show how well it predicts new ones."
    " --split test (split='test') takes the texts that a training held out."
)
_LOOKED_UP = 100  # number of texts that are looked up in the training texts of a model
_MOST = 0.5  # a warning is logged if the model was trained on a larger share of them


@dataclass(frozen=True)
class CorpusSpec:
    """The settings that determine the texts of a corpus.

    Attributes:
        source: The source; see ``open_source``. With weights, a list with one source for each
            weight.
        config: How the sources are read and cleaned.
        validation: A second source to validate on, instead of a part of the first.
        validation_split: The split of a dataset to validate on, from the second source if there is
            one, else from the first.
        filters: Which texts are left out.
        allow_missing: Whether a condition without a column counts as not given.
    """

    source: Any
    config: DataConfig
    validation: Any = None
    validation_split: str | None = None
    filters: Filters = field(default_factory=Filters)
    allow_missing: bool = False

    def open(self, folder: Path) -> list[Source]:
        """Open the sources, the validation source last; ``folder`` is for the copies of their
        files.
        """
        weights = self.config.weights
        pairs = [(source, self.config) for source in (self.source if weights else [self.source])]
        if self.validation is not None or self.validation_split is not None:
            second = self.source if self.validation is None else self.validation
            pairs.append((second, replace(self.config, split=self.validation_split)))
        opened: list[Source] = []
        for number, (source, config) in enumerate(pairs):
            subfolder = folder / str(number)
            subfolder.mkdir(exist_ok=True)
            # the lines of validation texts are joined as those of the training texts are
            if number == (len(weights) or 1):
                config = replace(config, width=opened[0].info.width)
            opened.append(open_source(source, config, subfolder, allow_missing=self.allow_missing))
        refuse_same(opened[: len(weights)])
        return opened

    def settings(self) -> dict[str, Any]:
        """Return the settings that the corpus depends on, besides the texts, as JSON values by
        name.
        """
        limit = {"max_text_characters": self.config.max_text_characters}
        reading = self.config.facts() | limit | {"validation_split": self.validation_split}
        return {
            "versions": [__version__, unicodedata.unidata_version],
            "reading": reading,
            **to_dict(self.filters),
        }


def cached_corpus(texts: CorpusSpec) -> Corpus:
    """Return a corpus from the cache; if it is not there, make it first.

    Raises:
        ReviewgenError: See ``open_source`` and ``make_corpus``.
    """
    with workspace() as folder:
        sources = texts.open(folder)
        scratch = Job(folder / "job", "corpus", {})
        facts = {**texts.settings(), "texts": _identify(sources)}
        is_known = all(source.facts is not None for source in sources)
        if not is_known:  # then the corpus is identified by its texts, so they are read first
            work = SharedJob(scratch)
            with storage_errors(folder):
                facts = make_corpus(sources, work, texts.filters, texts.config.weights).to_json()

        def make(job: Job) -> None:
            if is_known:
                make_corpus(sources, SharedJob(job), texts.filters, texts.config.weights)
            else:
                publish(scratch.path("corpus"), job.path("corpus"))

        return in_cache(f"texts-{_digest(facts)}", Corpus.open, facts, "corpus", make)


def cached_store(corpus: Corpus, encoding: Encoding, conditions: Conditions) -> StoreFolder:
    """Return the token store of a corpus from the cache; if it is not there, make it first.

    Raises:
        ReviewgenError: See ``encode_corpus``.
    """
    form = encoding.novelty
    belongs_to = None if encoding.novelty == "none" else encoding.belongs_to(corpus.fingerprint)
    facts = {
        "corpus": corpus.fingerprint,
        "tokenizer": encoding.facts(),
        "conditions": conditions.to_json(),
        "novelty": [form, encoding.megabytes, belongs_to],
    }

    def make(job: Job) -> None:
        encode_corpus(corpus, encoding, SharedJob(job), conditions, facts={})

    return in_cache(f"tokens-{_digest(facts)}", StoreFolder.read, facts, "store", make)


def find_conditions(corpus: Corpus, config: DataConfig) -> Conditions:
    """Return the conditions and fields, with the values that occur in the training texts of a
    corpus.

    Raises:
        DataError: A condition has no values.
    """
    fixed = [fit_condition(name, corpus.column(name)) for name in config.conditions]
    fields = [
        fit_field(name, corpus.column(name), lowercase=bool(config.lowercase))
        for name in config.fields
    ]
    return Conditions((*fixed, *fields))


def _identify(sources: Sequence[Source]) -> list[Any]:
    """Return the name and the facts of each source, which identify its texts, as JSON values."""
    return [[source.info.name, source.facts] for source in sources]


def prepare_store(
    texts: CorpusSpec,
    encoding: Encoding,
    out: Path,
    url: str | None,
    ranks: Processes,
    progress: Progress,
    facts: Mapping[str, Any],
) -> StoreFolder:
    """Make a token store in a folder or at a URL; all processes call this function.

    Args:
        texts: The texts.
        encoding: The tokenizer and the novelty index.
        out: The folder to create; for a URL, the folder to work in.
        url: Where to copy the store.
        ranks: The processes that share the work.
        progress: Called with each stage.
        facts: More facts to save in ``store.json``, besides those of the corpus, tokenizer and
            index.

    Raises:
        ReviewgenError: A source, a text or the disk cannot be used; or ``out`` exists, or holds an
            unfinished store of other texts.
    """
    settings = {
        "tokenizer": encoding.facts(),
        "novelty": [encoding.novelty, encoding.megabytes],
        **texts.settings(),
    }
    work = SharedJob(Job(out, "store", settings), ranks, progress)
    main_sources: list[Source] = []  # set in the main process only, since Python objects stay there

    with ExitStack() as stack:
        copies = stack.enter_context(workspace())

        def begin() -> tuple[StoreFolder | None, list[Source], str]:
            """Open the sources, in the main process.

            Returns:
                The store, if the same job has already made it, else None; the sources, without
                units if their texts are Python objects; and the key of the job.
            """
            existing = None
            with suppress(DataError):  # it is damaged, or unfinished
                existing = find_store(url or out)
            if existing is None:
                refuse_existing(out, url)
                stack.enter_context(work.job)
            progress("Opening the source")
            folder = copies if existing or ranks.world_size == 1 else work.job.path("source")
            folder.mkdir(exist_ok=True)
            opened = texts.open(folder)
            identity = _digest({**settings, "texts": _identify(opened)})
            can_repeat = all(source.facts is not None for source in opened)
            if existing is None:
                work.job.require({"texts": _identify(opened)})
                if not can_repeat:  # the texts may differ from those of an earlier run
                    work.job.clear()
            elif existing.facts.get("job") != identity or not can_repeat:
                refuse_existing(out, url)
            else:
                # the folder of the job may be left over from a killed process
                with suppress(CheckpointError, OSError), work.job:
                    work.job.clear()
                _logger.warning("%s is complete already: the same job has made it.", existing.name)
            main_sources.extend(opened)
            return (
                existing,
                [
                    replace(source, units=()) if source.facts is None else source
                    for source in opened
                ],
                identity,
            )

        existing, sources, identity = work.main(begin)
        if existing is not None:
            return existing
        corpus = make_corpus(main_sources or sources, work, texts.filters, texts.config.weights)
        require_splits(corpus)
        conditions = work.main(lambda: find_conditions(corpus, texts.config))
        more = {**facts, **to_dict(texts.filters), "job": identity, "reading": texts.config.facts()}
        encode_corpus(corpus, encoding, work, conditions, facts=more)
        return work.main(lambda: publish_store(work.job, out, url))


def _digest(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def read_examples(source: Any, config: DataConfig, *, split: str = "all") -> Iterator[Example]:
    """Yield the cleaned examples of a source, or of one of its splits, without storing them.

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


def open_records(source: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a table, as mappings of column to value, without choosing columns.

    Raises:
        DataError: The source cannot be read, or has something other than rows with named columns.
    """
    with workspace() as folder:
        opened = open_units(source, DataConfig(), folder)
        for record in opened.records():
            if not isinstance(record, Mapping):
                name = opened.info.name
                raise DataError(
                    f"{name} has no columns: give a csv, jsonl or parquet file, or records with"
                    " named columns."
                )
            yield record


def _read(source: Any, config: DataConfig, split: str) -> Iterator[Example]:
    with workspace() as folder:
        opened = open_source(source, config, folder, allow_missing=True)
        # splits and repeated lines depend on all texts, so a whole corpus is made
        if split != "all" or (config.drop_repeated_lines and config.repeated_lines is None):
            corpus = make_corpus(
                [opened], SharedJob(Job(folder / "corpus", "corpus", {})), Filters()
            )
            _log(corpus.source, corpus.report)
            if split != "all" and not corpus.counts[split]:
                total = counted(sum(corpus.counts.values()), "text")
                raise DataError(
                    f"The {split} split of {corpus.source.name} is empty: it has {total} in all."
                )
            for name in SPLITS if split == "all" else (split,):
                yield from corpus.examples(name)
            return
        cleaner = opened.cleaner()
        seen = set[int]()
        report = cleaner.report
        for text, values in itertools.chain.from_iterable(map(opened.examples, opened.units)):
            if (cleaned := cleaner(text)) is None:
                continue
            if config.clean and not opened.is_cleaned and cleaned[1] in seen:
                report.duplicates += 1
                continue
            seen.add(cleaned[1])
            report.kept += 1
            report.characters += len(cleaned[0])
            yield cleaned[0], values[: len(config.columns)]
        report.decode_errors = opened.info.decode_errors
        opened.info.notes += note_mojibake(report.mojibake, cleaner.mojibake)
        _log(opened.info, report)
        require_texts(opened.info, report)


def _log(info: SourceInfo, report: CleaningReport) -> None:
    for line in describe(info, report):
        _logger.info("%s", line)


LEGACY_OPTIONS = {
    "fix_encoding": False,
    "keep_line_breaks": True,
    "drop_repeated_lines": False,
    "keep_space": True,
}
"""The values of newer cleaning options that match how older versions cleaned texts: they could not
repair encodings, join lines, drop repeated lines or strip white space.
"""


def data_records(training: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the ``data`` entries of training.json, one for each training of a model, the last
    training first.

    A blend has the entries of all its components. A training on several weighted corpora has an
    entry for each corpus. Entries written by older versions get the values of ``LEGACY_OPTIONS``.
    """
    parts = training.get("parts")
    parent = training.get("parent")
    if parts:
        return list(itertools.chain.from_iterable(map(data_records, parts)))
    data = training.get("data") or {}
    data = {**LEGACY_OPTIONS, **data} if "clean" in data else data
    return [
        *({**data, **corpus} for corpus in data.get("corpora") or [{}]),
        *(data_records(parent) if parent else ()),
    ]


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
        source: See ``reviewgen.data.sources.open_source``.
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
    trained = list(itertools.chain.from_iterable(data_records(part.training) for part in models))
    # entries of weighted corpora other than this source
    others = [data for data in trained if "weight" in data and not _is_same_file(source, data)]
    if any("weight" in data and data not in others for data in trained):
        trained = [data for data in trained if data not in others]
    split = options.get("split") or "all"
    documents = options.get("documents", "line")
    cleaning: dict[str, Any] = {}
    for name, default in DataConfig().cleaning.items():
        before = {data.get(name, default) for data in trained}
        as_trained = before.pop() if len(before) == 1 else default
        option = options.get(name)
        cleaning[name] = as_trained if option is None else option
    if split != "all" and split not in splits_of(source, DataConfig(subset=options.get("subset"))):
        for data in trained:
            _require_same_split(data, cleaning, source, documents)
    columns: dict[str, Any] = {
        name: value for name, value in options.items() if name not in ("split", *cleaning)
    }
    lines = [
        data.get("repeated_lines") or () for data in trained if data.get("drop_repeated_lines")
    ]
    columns["repeated_lines"] = tuple(dict.fromkeys(itertools.chain(*lines))) if lines else None
    columns["width"] = next(
        (data["width"] for data in trained if data.get("width") is not None), None
    )
    config = from_dict(DataConfig, {**columns, **cleaning, "conditions": model.conditions.names})
    examples = read_examples(source, config, split=split)
    first = list(itertools.islice(examples, _LOOKED_UP))
    for part in models:
        if (
            part.index
            and part.index.share_trained_on(part.tokenizer.encode(text) for text, _ in first)
            > _MOST
        ):
            _logger.warning(_TRAINED_ON, part.origin or part.preset)
    yield from itertools.chain(first, examples)


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


def _is_same_file(source: Any, trained: Mapping[str, Any]) -> bool:
    return (
        isinstance(source, str | Path)
        and Path(source).name == Path(trained.get("source") or "").name
    )


def _require_same_split(
    trained: Mapping[str, Any], cleaning: Mapping[str, Any], source: Any, documents: str
) -> None:
    """Raise if the cleaned texts would be split in another way than when the model was trained.

    One long text (documents="file") is split into blocks, so it must be read in the same way as in
    training.
    """
    if trained.get("validation_source") is not None:
        raise ConfigError(
            "This model was trained on all of its source, with a separate validation source: use"
            " split='all'."
        )
    for name, value in cleaning.items():
        if trained.get(name, value) != value:
            raise ConfigError(
                "The split depends on how texts are cleaned, and this model was trained with"
                f" {name}={not value}; use the same."
            )
    before = trained.get("documents", documents)
    if _is_same_file(source, trained) and before != documents and "file" in (before, documents):
        raise ConfigError(
            "The split depends on how a text file is cut into texts, and this model was trained"
            f" with documents={before!r}; use the same."
        )
