"""From a cleaned corpus to a token store: tokenizer, conditions, shards, words, novelty index, ``store.json``; see ``store``.

    tokenizers/00012     what the tokenizer has learned of a part, if it can be trained in parts
    words/00012          the words of a shard
    store                the store so far

The characters that the tokenizer loses, such as those without an id, are counted. One that keeps a character of the private use
area, which no text contains, has an id for every byte or the like: of its texts only a small sample is checked.
"""

import functools
import json
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reviewgen.compiled import WindowSet
from reviewgen.conditions import Conditions, fit_conditions
from reviewgen.config import to_dict
from reviewgen.data.cache import digest_tokenizer
from reviewgen.data.corpus import Corpus, require_splits
from reviewgen.data.documents import batched
from reviewgen.data.parts import Work, examples_of, read_part, size_of, texts_of
from reviewgen.data.sources import SPLITS
from reviewgen.data.store import (
    STORE_FILE,
    StoreFolder,
    TokenStore,
    TrainingIds,
    digest_file,
    digest_files,
    dtype_of,
    save_array,
    write_split,
    write_store_file,
)
from reviewgen.lexicon import WordCounts, count_words, decode_texts
from reviewgen.novelty import CompactIndex, Index, build_index, build_sets, write_index
from reviewgen.protocols import SupportsTrainingInParts, Tokenizer
from reviewgen.storage import Job

_PROBE = "\ue0f1"  # private use
_CHECKED, _CHECKED_CLOSELY = 100_000, 5_000_000  # characters at most: of a tokenizer that keeps the probe, and of others
_BEFORE, _AFTER = 12, 12  # characters of an example around the first that is lost


@dataclass(frozen=True)
class LostCharacters:
    """What a tokenizer loses.

    Attributes:
        lost: The number of characters that encoding and decoding do not give back.
        checked: The number of characters that were checked.
        is_sample: Whether they are a sample of the corpus.
        example: A place with a lost character, and what it becomes.
    """

    lost: int
    checked: int
    is_sample: bool
    example: tuple[str, str]

    def __add__(self, later: "LostCharacters") -> "LostCharacters":
        example = self.example if self.lost else later.example
        return LostCharacters(self.lost + later.lost, self.checked + later.checked, self.is_sample, example)

    def describe(self, tokenizer: str) -> str:
        """Return a sentence for the user.

        >>> LostCharacters(3, 1200, False, ("a naïve film", "a nave film")).describe("letters")
        "The tokenizer letters loses 3 of 1,200 characters (0.25 %): 'a naïve film' becomes 'a nave film'."
        """
        what = "of a sample of" if self.is_sample else "of"
        before, after = (text.encode("utf-8", "backslashreplace").decode() for text in self.example)
        share = f"{100 * self.lost / self.checked:.2g} %"
        counts = f"{self.lost:,} {what} {self.checked:,} characters ({share})"
        return f"The tokenizer {tokenizer} loses {counts}: {before!r} becomes {after!r}."


def sample_step(tokenizer: Tokenizer, characters: int) -> int:
    """Return N where one in N texts of a corpus with a number of characters is checked."""
    limit = _CHECKED if tokenizer.decode(tokenizer.encode(_PROBE)) == _PROBE else _CHECKED_CLOSELY
    return -(-characters // limit) or 1


def count_lost(texts: Iterable[str], tokenizer: Tokenizer, step: int) -> LostCharacters:
    """Return what a tokenizer loses of some texts, the sample of one in ``step``; possibly nothing."""
    lost, checked, example = 0, 0, ("", "")
    for text in texts:
        checked += len(text)
        decoded = tokenizer.decode(tokenizer.encode(text))
        if decoded != text:
            example = example if lost else _find_example(text, decoded)
            lost += max(1, (Counter(text) - Counter(decoded)).total())  # at least their order
    return LostCharacters(lost, checked, step > 1, example)


def _find_example(text: str, decoded: str) -> tuple[str, str]:
    """Return the place where a text and its decoded ids first differ, in both."""
    place = next((n for n, (a, b) in enumerate(zip(text, decoded, strict=False)) if a != b), min(len(text), len(decoded)))
    start = max(0, place - _BEFORE)
    return text[start : place + _AFTER], decoded[start : place + _AFTER]


NOVELTY_FILE, WORDS_FILE = "novelty.safetensors", "words.json"
_WORD_BYTES, _WORD_TOKENS = 200_000_000, 50_000_000  # of parts, or ids, after which no new words are looked for
_DROP_PROBABILITY = 0.1  # of a condition of a training text, so that the model also learns to generate without it


@dataclass(frozen=True)
class TokenizerChoice:
    """The tokenizer of a store.

    Attributes:
        cls: The class of the plugin.
        config: Its config.
        name: The name of the plugin.
        package: Its package.
        version: The version of the package.
        trained: A trained tokenizer to use instead of training one.
        check: Raises if a trained tokenizer cannot be used.
    """

    cls: Any
    config: Any
    name: str
    package: str
    version: str
    trained: Tokenizer | None = None
    check: Callable[[Tokenizer, str], None] = lambda tokenizer, name: None

    def facts(self) -> dict[str, Any]:
        """Return what identifies it, as JSON values."""
        trained = None if self.trained is None else digest_tokenizer(self.trained)
        plugin = {name: getattr(self, name) for name in ("name", "package", "version")}
        return {**plugin, "settings": to_dict(self.config), "trained": trained}


@dataclass(frozen=True)
class IndexChoice:
    """The novelty index of a store.

    Attributes:
        form: "none", "exact" or "compact".
        megabytes: The size of a compact one.
        belongs_to: Returns what the index names its training text by, given the fingerprint of the corpus.
    """

    form: str
    megabytes: float
    belongs_to: Callable[[str], str]


@dataclass(frozen=True)
class _Encoder:
    """Writes shards, in any process.

    Attributes:
        cls: The class of the tokenizer.
        folder: The folder of the tokenizer.
        digest: The digest of the tokenizer.
        conditions: The conditions, with their ids.
        step: One text in ``step`` is checked for lost characters.
    """

    cls: Any
    folder: Path
    digest: str
    conditions: Conditions
    step: int

    def __call__(self, file: Path, shard: Path, words: Path | None, texts: int, training: int) -> tuple[Any, LostCharacters]:
        """Write the shard of a part and its words; return the digests of its files, and what the tokenizer loses.

        Args:
            file: The part.
            shard: The folder to write.
            words: The file of the words; None does not count them.
            texts: The number of texts in earlier parts.
            training: The number of training texts in earlier parts.
        """
        tokenizer = _load(self.cls, self.folder, self.digest)
        Job.write_whole(shard, lambda folder: self._write(file, folder, tokenizer, training))
        if words is not None:
            Job.write_whole(words, lambda scratch: _write_words(scratch, count_words(_training_texts(file))))
        wanted = np.zeros(len(read_part(file)), np.bool_)
        wanted[-texts % self.step :: self.step] = True
        return digest_files(shard, shard.parents[1]), count_lost(texts_of([file], wanted), tokenizer, self.step)

    def _write(self, file: Path, folder: Path, tokenizer: Tokenizer, training: int) -> None:
        folder.mkdir()
        names, size = self.conditions.names, self.conditions.vocab_size
        for code, split in enumerate(SPLITS):
            write_split((text for text, _ in examples_of([file], (), code)), tokenizer, folder, split, size)
            if names:
                ids = list(self._encode_conditions(file, code, training))
                save_array(folder / f"{split}.conditions.npy", np.array(ids, dtype_of(size)).reshape(-1, len(names)))

    def _encode_conditions(self, file: Path, code: int, training: int) -> Iterator[Sequence[int]]:
        """Yield the ids of the conditions of each text of a split; in training texts, some are replaced by "unspecified"."""
        draws, conditions = np.random.PCG64(0), self.conditions
        if code == 0:
            draws.advance(training * len(conditions))  # each number takes one draw
        random, probability = np.random.Generator(draws), 0.0 if code else _DROP_PROBABILITY
        for _, values in examples_of([file], conditions.names, code):
            is_dropped = random.random(len(conditions)) < probability
            yield np.where(is_dropped, conditions.unspecified_ids, conditions.encode_values(values)).tolist()


@functools.lru_cache(1)
def _load(cls: Any, folder: Path, digest: str) -> Tokenizer:
    tokenizer: Tokenizer = cls.load(folder)
    return tokenizer


def _write_words(file: Path, counts: WordCounts) -> None:
    content = vars(counts) | {"separators": sorted(counts.separators)}
    file.write_text(json.dumps(content, sort_keys=True), encoding="utf-8", newline="")


def _read_words(file: Path) -> WordCounts:
    content = json.loads(file.read_text(encoding="utf-8"))
    return WordCounts(Counter(content["words"]), Counter(content["texts"]), set(content["separators"]))


def words_of_store(store: StoreFolder, tokenizer: Tokenizer) -> WordCounts:
    """Return the words of a store; those of a store of before, without them, are counted in its ids."""
    try:
        return _read_words(store.folder / WORDS_FILE)
    except (FileNotFoundError, KeyError):
        return _decoded_words(store.splits()["train"], tokenizer)


def _decoded_words(train: TokenStore, tokenizer: Tokenizer) -> WordCounts:
    """Return the words of texts as their tokenizer spells them."""
    counts = WordCounts()
    for texts in batched(decode_texts(train.head(_WORD_TOKENS).blocks, tokenizer)):
        counts.update(count_words(texts))
    return counts


def encode_corpus(
    corpus: Corpus,
    choice: TokenizerChoice,
    index: IndexChoice,
    work: Work,
    *,
    conditions: Conditions | None = None,
    facts: Mapping[str, Any],
) -> None:
    """Write the folder ``store`` of a job; what an earlier try has finished there is kept.

    Args:
        corpus: The corpus.
        choice: The tokenizer.
        index: The novelty index.
        work: The job and its processes; all call this.
        conditions: The conditions of a trained model; None fits them to the training texts.
        facts: What ``store.json`` says besides the corpus, the tokenizer and the index.

    Raises:
        ReviewgenError: The tokenizer cannot be saved, a condition has no values, or the disk is full.
    """
    require_splits(corpus)
    store, size = work.job.path("store"), size_of(corpus.files)
    work.progress("Training the tokenizer")
    fitted = work.main(lambda: conditions or fit_conditions(corpus.names, corpus.conditions("train")))
    if not work.main(lambda: work.job.done("store/tokenizer")):
        _train(corpus, choice, work, size)
    tokenizer: Tokenizer = choice.cls.load(store / "tokenizer")
    choice.check(tokenizer, choice.name)
    known, digest = fitted.with_ids_from(tokenizer.vocab_size), digest_tokenizer(tokenizer)
    work.progress("Encoding the texts")
    step = sample_step(tokenizer, corpus.report.characters + (corpus.validation[1].characters if corpus.validation else 0))
    shards, words, tasks, before = [], [], [], np.zeros(3, np.int64)  # bytes, texts and training texts of earlier parts
    for number, file in enumerate(corpus.files):
        shards.append(f"shards/{number:05d}")
        if before[0] <= _WORD_BYTES:
            words.append(work.job.path(f"words/{number:05d}"))
        tasks.append((file, store / shards[-1], words[number] if number < len(words) else None, *before[1:].tolist()))
        codes = np.asarray(read_part(file).column("split"))
        before += np.array([file.stat().st_size, len(codes), np.count_nonzero(codes == 0)])
    encoded = work.share(_Encoder(choice.cls, store / "tokenizer", digest, known, step), tasks, size)
    files = {name: each for digests, _ in encoded for name, each in digests.items()}
    lost = functools.reduce(operator.add, [each for _, each in encoded])
    notes = [*known.notes(), *([lost.describe(choice.name)] if lost.lost else [])]

    sets = None
    if index.form == CompactIndex.form:
        work.progress("Indexing the texts")
        ids = [TrainingIds([store / shard for shard in shards[own]]) for own in work.slices(len(shards), size)]
        separators, share = (tokenizer.bos_id, tokenizer.eos_id), functools.partial(work.share, size=size)
        sets = build_sets(ids, separators, round(index.megabytes * 1e6), share)

    def finish() -> None:
        """Write what is made of all shards: the words, the novelty index and the facts."""
        train = TokenStore([store / shard for shard in shards], "train")
        counts = WordCounts()
        for own in map(_read_words, words):
            counts.update(own)
        counts = _decoded_words(train, tokenizer) if lost.lost else counts
        _write_words(store / WORDS_FILE, counts)
        if index.form != "none":
            belongs_to = index.belongs_to(corpus.fingerprint)
            write_index(index_tokens(train, tokenizer, belongs_to, index.form, index.megabytes, sets), store / NOVELTY_FILE)
        for file in (store / WORDS_FILE, store / NOVELTY_FILE):
            files.update({file.name: digest_file(file)} if file.exists() else {})
        files.update(digest_files(store / "tokenizer", store))
        more = {
            "tokenizer": {**choice.facts(), "digest": digest},
            "conditions": known.to_json(),
            "corpus": corpus.to_json(),
            "novelty": {"form": index.form, "megabytes": index.megabytes},
            "notes": notes,
        }
        work.job.write(f"store/{STORE_FILE}", lambda file: write_store_file(file, shards, files, {**facts, **more}))

    work.progress("Finishing the store")
    work.main(finish)


def _train(corpus: Corpus, choice: TokenizerChoice, work: Work, size: int) -> None:
    """Train the tokenizer; one that supports it, part by part."""
    cls, targets = choice.cls, [work.job.path(f"tokenizers/{number:05d}") for number in range(len(corpus.files))]
    is_cut = choice.trained is None and issubclass(cls, SupportsTrainingInParts) and len(targets) > 1
    if is_cut:
        work.share(functools.partial(_train_part, cls, choice.config), list(zip(corpus.files, targets, strict=True)), size)

    def train() -> Any:
        if is_cut:
            return cls.combine([cls.load(target) for target in targets])
        return cls.train(corpus.texts("train"), choice.config) if choice.trained is None else choice.trained

    work.main(lambda: work.job.write("store/tokenizer", lambda folder: _save(train(), folder)))


def _train_part(cls: Any, config: Any, file: Path, target: Path) -> None:
    Job.write_whole(target, lambda folder: _save(cls.train(_training_texts(file), config), folder))


def _training_texts(file: Path) -> list[str]:
    return [text for text, _ in examples_of([file], (), 0)]


def _save(tokenizer: Any, folder: Path) -> None:
    folder.mkdir()
    tokenizer.save(folder)


def index_tokens(
    store: TokenStore,
    tokenizer: Tokenizer,
    belongs_to: str,
    form: str,
    megabytes: float,
    sets: tuple[WindowSet, ...] | None = None,
) -> Index:
    """Return the novelty index of the texts of a split.

    Args:
        store: The split.
        tokenizer: Its tokenizer.
        belongs_to: Identifies the texts and the tokenizer.
        form: "compact" or "exact".
        megabytes: The maximum size of a compact index.
        sets: Those of a compact index, where they are built already.
    """
    index = build_index(
        store.blocks,
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
        vocab_size=tokenizer.vocab_size,
        characters=int(store.characters.sum()),
        fingerprint=belongs_to,
        form=form,
        max_bytes=round(megabytes * 1e6),
        tokens=int(store.offsets[-1]) - 2 * len(store),
        sets=sets,
    )
    store.release_pages()
    return index
