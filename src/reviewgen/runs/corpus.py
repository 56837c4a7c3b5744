"""The corpus of a run: it is cleaned and split, then tokenized and indexed. Several runs can train
on one prepared corpus.

One process of a machine writes the corpus and its tokens to the cache; the others wait for its
lock. If the source is a Python object, each process cleans it, since only then it is known.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from reviewgen.conditions import Conditions
from reviewgen.config.options import CorpusKwargs, PrepareKwargs, refuse_unknown_options
from reviewgen.config.settings import to_dict
from reviewgen.data.clean import as_label
from reviewgen.data.cleaning import hash_text
from reviewgen.data.columns import DataConfig
from reviewgen.data.encode import (
    NOVELTY_FILE,
    Encoding,
    encode_corpus,
    find_conditions,
    index_corpus,
    index_tokens,
    words_of_store,
)
from reviewgen.data.files import is_url
from reviewgen.data.open import DROPPED, SPLITS
from reviewgen.data.prepared import fetch_store, find_store, prepare_store
from reviewgen.data.split import Corpus, CorpusSpec, read_corpus, require_splits
from reviewgen.data.stage import Progress, cache_folder
from reviewgen.data.tokens import StoreFolder, Tokens
from reviewgen.errors import ConfigError, DataError, TrainingError, quoted
from reviewgen.formats.bigrams import Bigrams, count_bigrams
from reviewgen.lexicon.lexicon import Lexicon, build_lexicon
from reviewgen.lexicon.token_bytes import token_symbols
from reviewgen.novelty import Index, read_index
from reviewgen.processes import all_processes, process_state
from reviewgen.protocols.tokenizer import Tokenizer
from reviewgen.runs.plan import TrainingPlan
from reviewgen.runs.reading import data_config, make_texts
from reviewgen.runs.setup import TrainingSetup, parent_facts, resolve_setup
from reviewgen.saving.layout import fingerprint
from reviewgen.saving.write import check_tokenizer_files
from reviewgen.storage import check_output, to_path

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class ReadCorpus:
    """A corpus that was read and is not tokenized yet."""

    texts: Corpus
    conditions: Conditions  # once the corpus is tokenized, their ids follow the tokenizer's
    notes: tuple[str, ...]

    if not TYPE_CHECKING:  # a type checker would accept any name

        def __getattr__(self, name: str) -> None:
            """Refuse an attribute of the tokenized corpus, if this corpus is not tokenized yet."""
            if name in PreparedCorpus.__annotations__ or hasattr(PreparedCorpus, name):
                raise TrainingError(
                    f"The corpus is not tokenized yet: call tokenize before you use its {name}."
                )
            raise AttributeError(name)


@dataclass(frozen=True)
class PreparedCorpus(ReadCorpus):
    """A tokenized corpus, ready for training."""

    tokenizer: Tokenizer
    stores: Mapping[str, Tokens]  # by split
    # The next four describe the training text. Only the main process has them.
    index: Index | None
    lexicon: Lexicon | None
    bigrams: Bigrams | None
    words: frozenset[str]  # all words in lower case, for the metrics; empty without metrics
    # the model size that was chosen for (preset, seconds of the time budget), as settings by group
    sizes: dict[tuple[str, float], dict[str, Mapping[str, Any]]] = field(default_factory=dict)

    @property
    def final_split(self) -> str:
        """The split that a model is evaluated on at the end: test, or validation if test is
        empty.
        """
        return "test" if len(self.stores["test"]) else "validation"

    def facts(self) -> dict[str, Any]:
        """Return the facts for ``training.json``: the sources, numbers and conditions of the texts,
        and what cleaning did.
        """
        corpus = self.texts
        return {
            "source": corpus.source.name,
            "validation_source": corpus.validation[0].name if corpus.validation else None,
            "validation_cleaning": asdict(corpus.validation[1]) if corpus.validation else None,
            "text_column": corpus.source.text_column,
            "width": corpus.source.width,
            "repeated_lines": corpus.source.repeated_lines,
            "fingerprint": corpus.fingerprint,
            "split": {"method": corpus.split_method, "words": corpus.describe_held_out()},
            "reviews": {split: corpus.counts[split] for split in SPLITS},
            "tokens": {split: self.stores[split].count for split in SPLITS},
            "conditions": self.conditions.to_json(),
            "cleaning": asdict(corpus.report),
            # the lines may have been dropped before, by ``reviewgen.corpus``
            **({"drop_repeated_lines": True} if corpus.source.repeated_lines else {}),
            **({"corpora": [_facts_of(part) for part in corpus.corpora]} if corpus.corpora else {}),
        }


def _facts_of(corpus: Corpus) -> dict[str, Any]:
    """Return the facts on one of several corpora of a training."""
    source = corpus.source
    facts = {"weight": corpus.weight, "times": corpus.times, "reviews": dict(corpus.counts)}
    origin = {
        "source": source.name,
        **{name: getattr(source, name) for name in ("text_column", "width", "repeated_lines")},
    }
    return origin | facts | {"characters": corpus.report.characters}


def read_plan(plan: TrainingPlan) -> ReadCorpus:
    """Read, clean and split the corpus of a plan, and fit its conditions.

    Raises:
        DataError: The source cannot be read, or contains a single text and no validation is given.
        StorageError: There is no room for the texts.
    """
    if plan.store is not None:
        facts = fetch_store(plan.store).facts
        conditions = Conditions.from_json(facts["conditions"])
        return ReadCorpus(Corpus.from_json(facts["corpus"]), conditions, tuple(facts["notes"]))
    corpus = read_corpus(plan.texts)
    require_splits(corpus)
    if plan.setup.trained is None:
        fitted = find_conditions(corpus, plan.data)
        return ReadCorpus(corpus, fitted, tuple(fitted.notes()))
    conditions = plan.setup.trained.conditions
    text_count = 0
    # by condition: the number of texts whose value is not known to the model
    unknown = Counter[str]()
    for values in corpus.values("train") if conditions else ():
        text_count += 1
        unknown.update(conditions.unknown(values))
    notes = (
        f"{count:,} of {text_count:,} training texts have a value of {name!r} that the model does"
        " not know; it counts as not given."
        for name, count in unknown.items()
    )
    return ReadCorpus(corpus, conditions, tuple(notes))


def tokenize(plan: TrainingPlan, read: ReadCorpus) -> PreparedCorpus:
    """Train the tokenizer and encode a corpus, or load both from the cache.

    Raises:
        StorageError: The cache is full or cannot be written.
        DataError: The texts of a split have no characters.
        BrokenPlugin: The tokenizer cannot be saved with a model.
    """
    setup = plan.setup
    corpus = read.texts
    encoding = _encoding(setup, plan.data)
    store = plan.store or encode_corpus(corpus, encoding, read.conditions)
    tokenizer: Tokenizer = setup.tokenizer_class.load(store.folder / "tokenizer")
    conditions = read.conditions.with_ids_from(tokenizer.vocab_size, tokenizer.encode)
    stores = store.splits()
    if plan.store is not None:
        store.check(stores, conditions)
    check_tokenizer_files(tokenizer, setup.tokenizer_plugin.name)
    for split in ("train", "validation"):
        if not stores[split].characters.any():
            raise DataError(f"The {split} texts have no characters.")
    index_file = _index_file(plan, corpus, tokenizer, store, encoding)
    index = None
    lexicon = None
    bigrams = None
    words = frozenset[str]()
    if process_state().is_main_process:
        if index_file is not None:
            index = read_index(
                index_file, encoding.belongs_to(corpus.fingerprint), tokenizer.vocab_size
            )
        elif encoding.novelty != "none":
            index = index_tokens(store, corpus.fingerprint, tokenizer, encoding)
        lexicon, words = _find_words(plan, corpus, tokenizer, store)
        bigrams = count_bigrams(stores["train"].blocks, tokenizer.vocab_size)
    notes = tuple(dict.fromkeys((*read.notes, *store.facts["notes"])))
    return PreparedCorpus(
        corpus, conditions, notes, tokenizer, stores, index, lexicon, bigrams, words
    )


def _index_file(
    plan: TrainingPlan, corpus: Corpus, tokenizer: Tokenizer, store: StoreFolder, encoding: Encoding
) -> Path | None:
    """Return the file of the novelty index; None if no file has it. If the texts are not those of a
    prepared store, the file is made. All processes call this, so that they wait for one another.

    The index of a model that is trained further is not in a file, since it depends on the model's
    earlier trainings. A prepared store has an index with the settings of its preparation only.
    """
    settings = plan.setup.training
    if settings.novelty == "none" or plan.setup.trained is not None:
        return None
    if plan.store is None:
        return index_corpus(store, corpus.fingerprint, tokenizer, encoding)
    wanted = {"form": settings.novelty, "megabytes": settings.novelty_mb}
    return store.folder / NOVELTY_FILE if store.facts["novelty"] == wanted else None


def _encoding(setup: TrainingSetup, data: DataConfig) -> Encoding:
    """Return how texts are encoded and indexed."""
    plugin = setup.tokenizer_plugin
    trained = setup.trained
    return Encoding(
        cls=setup.tokenizer_class,
        config=setup.tokenizer_config,
        plugin={name: getattr(plugin, name) for name in ("name", "package", "version")},
        trained=None if trained is None else trained.tokenizer,
        check=check_tokenizer_files,
        novelty=setup.training.novelty,
        megabytes=setup.training.novelty_mb,
        belongs_to=lambda corpus: _fingerprint(setup, corpus),
        num_proc=data.num_proc,
    )


def _fingerprint(setup: TrainingSetup, corpus: str) -> str:
    """Return the fingerprint of an index: of the corpus, the tokenizer and earlier trainings."""
    facts = {"data": {"fingerprint": corpus}, **parent_facts(setup.trained, None)}
    return fingerprint(facts, setup.tokenizer_plugin.name, to_dict(setup.tokenizer_config))


def _find_words(
    plan: TrainingPlan, corpus: Corpus, tokenizer: Tokenizer, store: StoreFolder
) -> tuple[Lexicon | None, frozenset[str]]:
    """Return the lexicon of the training text; and, for the metrics, all its words in lower case.

    If a model is trained further, the words include those of its earlier lexicon. Without metrics
    there are no words.
    """
    trained = plan.setup.trained
    earlier_lexicon = None if trained is None else trained.bundle.lexicon
    counts = words_of_store(store, tokenizer)
    if corpus.source.is_one_text:
        counts.texts.clear()  # a part of one long text does not count as a text
    lexicon = None
    if token_symbols(tokenizer) is not None:
        lexicon = build_lexicon(counts, plan.min_texts, earlier_lexicon)
    words = (*counts.words, *(earlier_lexicon or ())) if plan.setup.training.metrics else ()
    return lexicon, frozenset(map(str.casefold, words))


def corpus(source: Any, **options: Unpack[CorpusKwargs]) -> "Dataset":
    """Read, clean and split a corpus as a training does, and return it as a ``datasets.Dataset``.

    Its columns are text, the conditions, and split, a class label: 0 is train, 1 validation, 2
    test. The dataset is memory-mapped from the cache, so it takes little memory. You can inspect,
    filter or change it, push it to the Hub, and pass it as the source of ``train``, ``prepare``,
    ``evaluate`` or any other function, which then uses its texts as they are, with their splits.

    >>> texts = reviewgen.corpus("reviews.csv", conditions=["stars"])  # doctest: +SKIP
    >>> long = texts.filter(lambda row: len(row["text"]) > 20)  # doctest: +SKIP
    >>> model = reviewgen.train("lstm-word", long)  # doctest: +SKIP

    Args:
        source: The reviews, as for ``train``.
        options: The keywords of ``train`` for reading and filtering a corpus, from text_column to
            conditions, and validation.

    Raises:
        ConfigError: An argument is unknown or unusable.
        DataError, HubError: A source cannot be read, or no texts are left.
        StorageError: The cache cannot be written.
    """
    refuse_unknown_options(options, CorpusKwargs, "corpus", others=("source",))
    if options.get("weights"):
        raise ConfigError(
            "corpus returns each text once, so it takes no weights: give them to train or prepare."
        )
    return _as_dataset(read_corpus(make_texts(source, options, data_config(options))))


def _as_dataset(corpus: Corpus) -> "Dataset":
    """Return a corpus as a dataset over its memory-mapped files. In memory are only the splits, the
    indices of the rows that have a split, and the numbers that are made labels.
    """
    # this import takes half a second
    from datasets import ClassLabel, Dataset, Value, concatenate_datasets

    # the name of each condition's column, by its name in the files
    columns = {f"c{number}": name for number, name in enumerate(corpus.names)}
    parts = []
    for file in corpus.files:
        part = Dataset.from_file(str(file)).select_columns(["text", *columns])
        for column, is_label in zip(columns, corpus.is_label, strict=True):
            if is_label and part.features[column].dtype != "string":
                labels = list(map(as_label, part[column]))
                feature = Value("string")
                part = part.remove_columns(column).add_column(column, labels, feature=feature)
        parts.append(part)
    # the code of a row is the index of its split; larger codes say why a row is left out
    codes = np.concatenate(corpus.codes)
    is_kept = codes < len(SPLITS)
    splits = np.where(is_kept, codes, 0).astype(np.int64)
    dataset = concatenate_datasets(parts).rename_columns(columns)
    dataset = dataset.add_column("split", splits, feature=ClassLabel(names=list(SPLITS)))
    if lines := corpus.source.repeated_lines:
        dataset.info.description = "\n".join([DROPPED, *lines])
    return dataset.select_columns(["text", *corpus.names, "split"]).select(np.flatnonzero(is_kept))


def prepare_tokens(
    source: Any,
    preset: str,
    out: str | Path,
    progress: Progress = lambda stage: None,
    **options: Unpack[PrepareKwargs],
) -> StoreFolder:
    """Prepare a token store: the implementation of ``reviewgen.prepare``. Under a launcher, all
    processes call it.

    Raises:
        ReviewgenError: See ``reviewgen.prepare``.
        ProcessLost: Another process has failed or ended.
    """

    def check_arguments() -> tuple[TrainingSetup, CorpusSpec, Path, str | None]:
        """Return the setup, the texts, the folder to work in, and the URL if ``out`` is one."""
        refuse_unknown_options(options, PrepareKwargs, "prepare", others=("preset", "out"))
        if find_store(source) is not None:
            raise ConfigError(
                f"{source} is a token store already: give it to reviewgen train --data."
            )
        url = out if isinstance(out, str) and is_url(out) else None
        if url is None and isinstance(out, str) and out.startswith("hf://"):
            raise ConfigError(
                f"{quoted(out)} names no folder of the Hub: write hf://datasets/owner/name/folder."
            )
        folder = cache_folder() / f"preparing-{hash_text(url):016x}" if url else to_path("out", out)
        if not folder.name:  # the path is "." or "/", which exists
            check_output(folder)
        setup = resolve_setup(preset, tokenizer=options.get("tokenizer"))
        return setup, make_texts(source, options, data_config(options)), folder, url

    with all_processes() as processes:
        setup, texts, folder, url = processes.each(check_arguments, out)
        encoding = _encoding(setup, texts.config)
        compared = {
            "preset": preset,
            "out": str(out),
            "tokenizer": encoding.facts(),
            "reading": texts.config.facts(),
        }
        processes.refuse_differences({**compared, "source": str(source)[:1000]})
        return prepare_store(
            texts, encoding, folder, url, processes, progress, {"preset": setup.preset}
        )
