"""The corpus of a run: read, cleaned and split, then tokenized and indexed. Several runs can be fitted on one prepared corpus.

Of the processes of one machine, the first reads and tokenizes, and the others load the result from the token cache. A token store
that ``reviewgen prepare`` has made has all of this already.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from reviewgen.bundle import check_tokenizer_files, fingerprint
from reviewgen.compiled.windows import WindowSet
from reviewgen.conditions import Conditions, fit_conditions
from reviewgen.config import to_dict
from reviewgen.data import Corpus, TokenStore, find_lost_characters, gather, tokenize, workspace
from reviewgen.data.remote import fetch_store
from reviewgen.data.store_folder import StoreFolder
from reviewgen.errors import DataError
from reviewgen.lexicon import Lexicon, WordCounts, build_lexicon, count_words, decode_texts, token_symbols
from reviewgen.novelty import Index, build_index, read_index
from reviewgen.protocols import Tokenizer
from reviewgen.runs.plan import TrainingPlan
from reviewgen.runs.prepared import NOVELTY_FILE, corpus_of, novelty_settings
from reviewgen.runs.record import parent_facts
from reviewgen.training import Processes, local_processes, process_state

__all__ = [
    "PreparedCorpus",
    "ReadCorpus",
    "build_novelty_index",
    "have_same_corpus",
    "prepare",
    "read_corpus",
    "refuse_single_review",
]

ConditionValues: TypeAlias = Iterable[Sequence[str | float | None]]
"""The values of the conditions beside each text."""


@dataclass(frozen=True)
class PreparedCorpus:
    """A corpus that a model can be fitted on."""

    corpus: Corpus
    conditions: Conditions  # with ids behind the tokenizer's
    tokenizer: Tokenizer
    stores: Mapping[str, TokenStore]  # by split
    index: Index | None  # of the training text; None without one, and in all processes but the first
    lexicon: Lexicon | None  # likewise
    words: frozenset[str]  # of the training text in lower case, for the metrics; likewise, and empty without metrics
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReadCorpus:
    """A corpus that was read and is not tokenized yet; its texts are in a temporary folder until it is tokenized or closed."""

    corpus: Corpus
    conditions: Conditions
    notes: tuple[str, ...]
    folder: Path
    machine: Processes  # the processes of this machine, which wait for the first
    resources: ExitStack

    def close(self) -> None:
        """Remove the temporary folder, and disconnect the processes of this machine."""
        self.resources.close()

    def tokenize(self, plan: TrainingPlan) -> PreparedCorpus:
        """Train the tokenizer and encode the corpus, or load both from the token cache; the read corpus is closed.

        Raises:
            StorageError: The cache is full or cannot be written.
            DataError: The texts of a split have no characters.
            BrokenPlugin: The tokenizer cannot be saved with a model.
        """
        plugin = plan.parts.tokenizer_plugin
        with self.resources, self.machine.main_process_first():  # the others find the tokens in the cache
            tokenizer, stores = self._encode(plan) if plan.store is None else _open_store(plan, plan.store, self.conditions)
            check_tokenizer_files(tokenizer, plugin.name)
            lost = [] if plan.store else _note_lost_characters(plugin.name, self.corpus, tokenizer, stores)
        for split in ("train", "validation"):
            if not stores[split].characters.any():
                raise DataError(f"The {split} texts have no characters.")
        index, lexicon, words = None, None, frozenset[str]()
        if process_state().is_main_process:
            index = build_novelty_index(plan, self.corpus.fingerprint, tokenizer, stores["train"])
            lexicon, words = _build_lexicon(plan, tokenizer, stores["train"])
        conditions = self.conditions.with_ids_from(tokenizer.vocab_size)
        return PreparedCorpus(self.corpus, conditions, tokenizer, stores, index, lexicon, words, (*self.notes, *lost))

    def _encode(self, plan: TrainingPlan) -> tuple[Tokenizer, Mapping[str, TokenStore]]:
        parts, plugin = plan.parts, plan.parts.tokenizer_plugin
        return tokenize(
            self.corpus,
            parts.tokenizer_class,
            parts.tokenizer_config,
            f"{plugin.name} {plugin.package} {plugin.version}",
            self.folder,
            conditions=self.conditions,
            trained=None if parts.trained is None else parts.trained.tokenizer,
        )


def _open_store(plan: TrainingPlan, store: StoreFolder, conditions: Conditions) -> tuple[Tokenizer, Mapping[str, TokenStore]]:
    """Return the tokenizer and the tokens of a prepared store."""
    store.check_digests()
    tokenizer: Tokenizer = plan.parts.tokenizer_class.load(store.folder / "tokenizer")
    splits = store.splits()
    store.check_splits(splits, conditions.with_ids_from(tokenizer.vocab_size))
    return tokenizer, splits


def prepare(plan: TrainingPlan) -> PreparedCorpus:
    """Read and tokenize the corpus of a plan.

    Raises:
        ReviewgenError: See ``read_corpus`` and ``ReadCorpus.tokenize``.
    """
    return read_corpus(plan).tokenize(plan)


def have_same_corpus(one: TrainingPlan, other: TrainingPlan) -> bool:
    """Return whether the corpus, its tokens and its index are the same for two plans of one source."""

    def settings(plan: TrainingPlan) -> tuple[Any, ...]:
        parts = plan.parts
        return plan.data, parts.tokenizer_plugin, parts.tokenizer_config, parts.training.novelty, parts.training.novelty_mb

    return settings(one) == settings(other)


def read_corpus(plan: TrainingPlan) -> ReadCorpus:
    """Read, clean and split the corpus of a plan, and fit its conditions.

    Raises:
        DataError: The source cannot be read, or contains a single text and no validation is given.
        StorageError: There is no room for the texts.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(workspace())
        machine = local_processes()
        stack.callback(machine.close)
        with machine.main_process_first():
            gathered = _gather(plan, folder) if machine.rank == 0 else None
        corpus, conditions, notes = machine.broadcast(gathered)
        return ReadCorpus(corpus, conditions, tuple(notes), folder, machine, stack.pop_all())


def _gather(plan: TrainingPlan, folder: Path) -> tuple[Corpus, Conditions, Sequence[str]]:
    """Return the corpus, its conditions, and notes; all of it can be sent to the other processes of this machine."""
    if plan.store is not None:
        return corpus_of(fetch_store(plan.store))
    corpus = gather(plan.source, folder, plan.data, plan.validation, plan.parts.trained is not None)
    refuse_single_review(len(corpus.splits))
    return corpus, *_fit_conditions(plan, corpus.conditions("train"))


def refuse_single_review(texts: int) -> None:
    """Raise if a corpus cannot be split.

    Raises:
        DataError: It is a single text.
    """
    if texts < 2:
        raise DataError(
            "The corpus is a single review; at least two are needed, one to train on and one to hold out. "
            "A text file is cut by line or by paragraph. To train on one long text, save it as a .txt file and set "
            "documents='file': it is cut into parts to train on and parts to hold out."
        )


def _fit_conditions(plan: TrainingPlan, values: ConditionValues) -> tuple[Conditions, Sequence[str]]:
    """Return the conditions and notes on them: fitted to the values beside the texts, or those of the trained model."""
    if plan.parts.trained is None:
        fitted = fit_conditions(plan.data.conditions, values)
        return fitted, fitted.notes()
    kept = plan.parts.trained.conditions
    return kept, _note_unknown(kept, values)


def _note_unknown(conditions: Conditions, values: ConditionValues) -> list[str]:
    """Return a sentence for each condition of which some texts have a value that the trained model does not know."""
    texts, unknown = 0, Counter[str]()
    for row in values if conditions else ():
        texts += 1
        unknown.update(conditions.unknown(row))
    return [
        f"{count:,} of {texts:,} training texts have a value of {name!r} that the model does not know; it counts as not given."
        for name, count in unknown.items()
    ]


def _note_lost_characters(name: str, corpus: Corpus, tokenizer: Tokenizer, stores: Mapping[str, TokenStore]) -> list[str]:
    """Return a sentence on the characters that the tokenizer loses, if it loses any; the first process checks."""
    if not process_state().is_main_process:
        return []
    lost = find_lost_characters(corpus, tokenizer, sum(int(store.characters.sum()) for store in stores.values()))
    return [] if lost is None else [lost.describe(name)]


def _build_lexicon(plan: TrainingPlan, tokenizer: Tokenizer, store: TokenStore) -> tuple[Lexicon | None, frozenset[str]]:
    """Return the lexicon of the training text, and all its words in lower case if there are metrics.

    Of a model that is trained further, both include the words that it knows.
    """
    symbols, has_metrics = token_symbols(tokenizer), bool(plan.parts.training.metrics)
    before = None if plan.parts.trained is None else plan.parts.trained.bundle.lexicon
    counts, lexicon = WordCounts(), None
    if symbols is not None:
        counts = count_words(store.blocks, symbols)
        lexicon = build_lexicon(counts, before)
    elif has_metrics:
        for text in decode_texts(store.blocks, tokenizer):
            counts.add(text)
    store.release_pages()
    return lexicon, frozenset(word.casefold() for word in (*counts.words, *(before or ())) if has_metrics)


def build_novelty_index(
    plan: TrainingPlan, corpus: str, tokenizer: Tokenizer, store: TokenStore, sets: Sequence[WindowSet] | None = None
) -> Index | None:
    """Return the novelty index of the training text, unless the settings say none; that of a prepared store is read from it.

    Args:
        plan: The plan.
        corpus: The fingerprint of the corpus.
        tokenizer: The tokenizer.
        store: The training text.
        sets: The sets of a compact index, where they are built already.
    """
    parts, settings = plan.parts, plan.parts.training
    if settings.novelty == "none":
        return None
    facts = {"data": {"fingerprint": corpus}, **parent_facts(parts.trained, None)}
    belongs_to = fingerprint(facts, parts.tokenizer_plugin.name, to_dict(parts.tokenizer_config))
    if plan.store is not None and parts.trained is None and plan.store.facts["novelty"] == novelty_settings(plan):
        return read_index(plan.store.folder / NOVELTY_FILE, belongs_to, tokenizer.vocab_size)
    index = build_index(
        store.blocks,
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
        vocab_size=tokenizer.vocab_size,
        characters=int(store.characters.sum()),
        fingerprint=belongs_to,
        form=settings.novelty,
        max_bytes=round(settings.novelty_mb * 1e6),
        sets=sets,
        tokens=int(store.offsets[-1]) - 2 * len(store),
    )
    store.release_pages()
    return index
