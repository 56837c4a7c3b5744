"""The third stage: encode a corpus as token ids; and the fourth: index its training texts.

    encode-KEY/tokenizer/          the tokenizer
    encode-KEY/shards/00012/...    the ids and conditions of the texts of each file; see ``tokens``
    encode-KEY/words.json          the words of the training texts
    index-KEY/novelty.safetensors  the novelty index of the training texts

The folder ``encode-KEY`` is a token store, of which only ``store.json`` is missing. While it is
made, it also has the words of each file and, if the tokenizer can be trained in parts, a tokenizer
trained on each file.

If a corpus is read 3.4 times in an epoch, each of its shards is read three times. Then the folder
``rest`` of each shard is read once: it holds a part of the shard's texts, with 0.4 of the
characters.

The characters that the tokenizer loses, such as those without an id, are counted. For this, texts
are encoded and decoded again. If a tokenizer keeps a private-use character, which no text contains,
it is assumed to have a byte fallback; then only a small sample of the texts is checked.
"""

import functools
import hashlib
import itertools
import json
import operator
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from reviewgen.conditions import Conditions, fit_condition, fit_field
from reviewgen.config.settings import to_dict
from reviewgen.data.clean import read_condition, read_texts_of, read_values
from reviewgen.data.columns import DataConfig
from reviewgen.data.documents import batched
from reviewgen.data.open import SPLITS
from reviewgen.data.split import TRAIN, Corpus
from reviewgen.data.stage import (
    Progress,
    cache_folder,
    run_stage,
    share,
    size_of,
    slices,
)
from reviewgen.data.tokens import (
    FORMAT,
    StoreFolder,
    Tokens,
    dtype_of,
    write_texts,
)
from reviewgen.data.weighting import count_copies
from reviewgen.lexicon.token_bytes import decode_texts
from reviewgen.lexicon.words import WordCounts, count_words
from reviewgen.novelty import CompactIndex, Index, build_index, build_sets, check_form, write_index
from reviewgen.protocols.tokenizer import SupportsTrainingInParts, Tokenizer
from reviewgen.storage import Job, digest_of, remove, save_array, temporary_folder

NOVELTY_FILE = "novelty.safetensors"
WORDS_FILE = "words.json"
# folder in a shard: a second copy of the texts that an epoch reads one time more than the others
_REST = "rest"
# words are counted only in files that begin before this position in the corpus, in bytes
_WORD_BYTES = 200_000_000
_WORD_TOKENS = 50_000_000  # max ids that are decoded to count the words in them
# Conditions and fields of training texts are left out at random with these probabilities, so that
# the model also learns to generate without them.
_DROP_PROBABILITY = 0.1
_DROP_FIELD_PROBABILITY = 0.25
_PROBE = "\ue0f1"  # a private-use character
_CHECKED = 100_000  # max characters checked if the tokenizer keeps the probe
_CHECKED_CLOSELY = 5_000_000  # max characters checked for other tokenizers
_BEFORE = 12  # characters of an example before the first lost one
_AFTER = 12  # characters of an example from the first lost one on


@dataclass(frozen=True)
class LostCharacters:
    """The characters that a tokenizer loses.

    Attributes:
        lost: The number of characters that are missing after encoding and decoding.
        checked: The number of characters that were checked.
        is_sample: Whether only a sample of the corpus was checked.
        example: A piece of text with a lost character, and the same piece after decoding.
    """

    lost: int
    checked: int
    is_sample: bool
    example: tuple[str, str]

    def __add__(self, later: "LostCharacters") -> "LostCharacters":
        example = self.example if self.lost else later.example
        return LostCharacters(
            self.lost + later.lost, self.checked + later.checked, self.is_sample, example
        )

    def describe(self, tokenizer: str) -> str:
        """Return a sentence for the user.

        >>> LostCharacters(3, 1200, False, ("naïve", "nave")).describe("letters")
        "The tokenizer letters loses 3 of 1,200 characters (0.25 %): 'naïve' becomes 'nave'."
        """
        what = "of a sample of" if self.is_sample else "of"
        before, after = (text.encode("utf-8", "backslashreplace").decode() for text in self.example)
        percentage = f"{100 * self.lost / self.checked:.2g} %"
        counts = f"{self.lost:,} {what} {self.checked:,} characters ({percentage})"
        return f"The tokenizer {tokenizer} loses {counts}: {before!r} becomes {after!r}."


def sample_stride(tokenizer: Tokenizer, characters: int) -> int:
    """Return N: one in N texts of a corpus with ``characters`` characters is checked for losses."""
    limit = _CHECKED if tokenizer.decode(tokenizer.encode(_PROBE)) == _PROBE else _CHECKED_CLOSELY
    return -(-characters // limit) or 1  # rounded up; 1 if there are no characters


def count_lost(texts: Iterable[str], tokenizer: Tokenizer, step: int) -> LostCharacters:
    """Count the characters that a tokenizer loses in texts.

    The texts are a sample of the corpus if ``step`` is more than 1: one text in ``step``.
    """
    lost = 0
    checked = 0
    example = ("", "")
    for text in texts:
        checked += len(text)
        decoded = tokenizer.decode(tokenizer.encode(text))
        if decoded != text:
            position = len(os.path.commonprefix([text, decoded]))  # noqa: RUF071  compares characters, as is needed here
            around = slice(max(0, position - _BEFORE), position + _AFTER)
            example = example if lost else (text[around], decoded[around])  # the first one
            # at least 1, even if the characters are only in another order
            lost += max(1, (Counter(text) - Counter(decoded)).total())
    return LostCharacters(lost, checked, step > 1, example)


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Settings for encoding a corpus into a store: the tokenizer and the novelty index.

    Attributes:
        cls: The class of the tokenizer.
        config: The config of the tokenizer.
        plugin: The name, package and package version of the tokenizer's plugin, under the keys
            "name", "package" and "version".
        trained: A trained tokenizer to use instead of training one.
        check: Called with the tokenizer and its name; raises if the tokenizer cannot be used.
        novelty: "none", "exact" or "compact".
        megabytes: The size of a compact index.
        belongs_to: A function from the fingerprint of the corpus to the fingerprint that the index
            saves, to identify its training text.
        num_proc: The number of processes that encode and index; see ``count_workers``.
    """

    cls: Any
    config: Any
    plugin: Mapping[str, str]
    trained: Tokenizer | None = None
    check: Callable[[Tokenizer, str], None] = lambda tokenizer, name: None
    novelty: str = "none"
    megabytes: float = 0.0
    belongs_to: Callable[[str], str] = str
    num_proc: int | None = None

    def __post_init__(self) -> None:
        check_form(self.novelty)

    def facts(self) -> dict[str, Any]:
        """Return the facts that identify the tokenizer, as JSON values."""
        trained = None if self.trained is None else digest_tokenizer(self.trained)
        return {**self.plugin, "settings": to_dict(self.config), "trained": trained}


def digest_tokenizer(tokenizer: Tokenizer) -> str:
    """Return the SHA-256 digest of the files that a trained tokenizer saves."""
    with temporary_folder() as folder:
        tokenizer.save(folder)
        digests = [f"{file.name} {digest_of(file)}\n" for file in sorted(folder.iterdir())]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def find_conditions(corpus: Corpus, config: DataConfig) -> Conditions:
    """Return the conditions and fields, with the values that occur in the training texts of a
    corpus.

    Raises:
        DataError: A condition has no values.
    """
    fixed = [fit_condition(name, _column(corpus, name)) for name in config.conditions]
    fields = [
        fit_field(name, _column(corpus, name), lowercase=bool(config.lowercase))
        for name in config.fields
    ]
    return Conditions((*fixed, *fields))


def _column(corpus: Corpus, name: str) -> Iterator[str | float | None]:
    """Yield the value of the condition ``name``, for each training text."""
    number = corpus.names.index(name)
    for file, codes in zip(corpus.files, corpus.codes, strict=True):
        yield from read_condition(file, number, codes == TRAIN, corpus.is_label[number])


def encode_corpus(
    corpus: Corpus,
    encoding: Encoding,
    conditions: Conditions,
    root: Path | None = None,
    progress: Progress = lambda step: None,
) -> StoreFolder:
    """Return the token ids of a corpus: train the tokenizer and encode the texts.

    Args:
        corpus: The corpus; it must have texts to train on and texts to validate on.
        encoding: The tokenizer.
        conditions: The conditions: those of a trained model, or those of the training texts.
        root: The folder for the stage; None is the cache.
        progress: Called with each step.

    Raises:
        ReviewgenError: The tokenizer cannot be saved, or the disk is full.
    """
    inputs = {
        "corpus": corpus.fingerprint,
        # The number of texts in each file. If the same corpus is divided into files in another way,
        # the shards that an interrupted call has left cannot be used.
        "files": [int(np.count_nonzero(codes < len(SPLITS))) for codes in corpus.codes],
        "tokenizer": encoding.facts(),
        "conditions": conditions.to_json(),
    }
    make = partial(_encode, corpus, encoding, conditions, progress)
    stage = run_stage(root or cache_folder(), "encode", inputs, make)
    return StoreFolder(stage.folder, stage.facts, str(stage.folder))


def _encode(
    corpus: Corpus, encoding: Encoding, conditions: Conditions, progress: Progress, folder: Path
) -> dict[str, Any]:
    """Make the files of the stage, and return its facts: the content of ``store.json``, which
    ``reviewgen prepare`` completes.
    """
    progress("Training the tokenizer")
    Job.write_whole(
        folder / "tokenizer", lambda target: _save(_tokenizer_of(corpus, encoding, folder), target)
    )
    tokenizer: Tokenizer = encoding.cls.load(folder / "tokenizer")
    name = encoding.plugin["name"]
    encoding.check(tokenizer, name)
    progress("Encoding the texts")
    checked = corpus.report.characters
    if corpus.validation is not None:
        checked += corpus.validation[1].characters
    step = sample_stride(tokenizer, checked)
    digest = digest_tokenizer(tokenizer)
    task = partial(_encode_batch, encoding.cls, folder, digest, conditions, step)
    batches = _batch_files(corpus)
    size = size_of(corpus.files)
    losses = share(task, [(batch,) for batch in batches], size, encoding.num_proc)
    lost = functools.reduce(operator.add, losses)
    _finish_words(folder, tokenizer, has_lost=lost.lost > 0)
    remove(folder / "tokenizers")
    facts = {
        "tokenizer": {**encoding.facts(), "digest": digest},
        "conditions": conditions.to_json(),
        "notes": [*conditions.notes(), *([lost.describe(name)] if lost.lost else [])],
    }
    shards = [batch.shard for batch in batches]
    content = {"format": FORMAT, "facts": facts, "shards": shards}
    if corpus.corpora:
        content["train"] = _order_shards(folder, shards, corpus.times_of_files)
    return content


@dataclass(frozen=True)
class _Batch:
    """The rows of one file of a corpus, which are a task for a worker.

    Attributes:
        number: The number of the file in the corpus.
        file: The file.
        codes: The codes of the rows, (rows,).
        is_label: For each condition, whether its values are labels.
        times: How often the training texts of the file are read in an epoch.
        texts_before: The number of texts in earlier files.
        training_before: The number of training texts in earlier files.
        has_words: Whether the words of the file are counted.
    """

    number: int
    file: Path
    codes: np.ndarray
    is_label: Sequence[bool]
    times: float
    texts_before: int
    training_before: int
    has_words: bool

    @property
    def shard(self) -> str:
        """The folder of the file's shard in a store."""
        return f"shards/{self.number:05d}"

    def training_texts(self, times: float = 1.0) -> list[str]:
        """Return the training texts. If they are read ``times`` times in an epoch, each text is
        repeated as often as it is read; see ``count_copies``.
        """
        texts = list(read_texts_of([self.file], self.codes == TRAIN))
        if times == 1:
            return texts
        copies = map(itertools.repeat, texts, count_copies(texts, times).tolist())
        return list(itertools.chain.from_iterable(copies))


def _batch_files(corpus: Corpus) -> list[_Batch]:
    """Return a batch for each file of a corpus."""
    batches: list[_Batch] = []
    bytes_before = 0
    texts_before = 0
    training_before = 0
    files = zip(corpus.files, corpus.codes, corpus.times_of_files, strict=True)
    for number, (file, codes, times) in enumerate(files):
        has_words = bytes_before <= _WORD_BYTES
        labels = corpus.is_label
        batches.append(
            _Batch(number, file, codes, labels, times, texts_before, training_before, has_words)
        )
        bytes_before += file.stat().st_size
        texts_before += int(np.count_nonzero(codes < len(SPLITS)))
        training_before += int(np.count_nonzero(codes == TRAIN))
    return batches


def _tokenizer_of(corpus: Corpus, encoding: Encoding, folder: Path) -> Any:
    """Return the tokenizer of a corpus: the given one, or a new one. If its class supports this, a
    tokenizer is trained on each file, and these are combined.
    """
    cls = encoding.cls
    if encoding.trained is not None:
        return encoding.trained
    batches = _batch_files(corpus)
    if len(batches) > 1 and issubclass(cls, SupportsTrainingInParts):
        task = partial(_train_part, cls, encoding.config, folder / "tokenizers")
        size = size_of(corpus.files)
        parts = share(task, [(batch,) for batch in batches], size, encoding.num_proc)
        return cls.combine(list(map(cls.load, parts)))
    texts = itertools.chain.from_iterable(batch.training_texts(batch.times) for batch in batches)
    return cls.train(texts, encoding.config)


def _train_part(cls: Any, config: Any, folder: Path, batch: _Batch) -> Path:
    """Train a tokenizer on a batch and save it; return its folder. A task for workers."""
    target = folder / f"{batch.number:05d}"
    Job.write_whole(
        target, lambda new: _save(cls.train(batch.training_texts(batch.times), config), new)
    )
    return target


def _save(tokenizer: Any, folder: Path) -> None:
    """Create a folder and save a tokenizer in it."""
    folder.mkdir()
    tokenizer.save(folder)


@functools.lru_cache(1)
def _load(cls: Any, folder: Path, digest: str) -> Tokenizer:
    """Return the tokenizer in a folder.

    The last one stays in the worker's memory, since a tokenizer that has encoded many words encodes
    them again much faster. ``digest`` is not used here: it is a part of the cache's key, so that a
    tokenizer is loaded again if the folder's files have changed.
    """
    tokenizer: Tokenizer = cls.load(folder)
    return tokenizer


def _encode_batch(
    cls: Any, folder: Path, digest: str, conditions: Conditions, step: int, batch: _Batch
) -> LostCharacters:
    """Encode a batch: write its shard and its words. A task for workers.

    Args:
        cls: The class of the tokenizer.
        folder: The folder of the stage, which has the tokenizer.
        digest: The digest of the tokenizer.
        conditions: The conditions.
        step: One text in ``step`` is checked for lost characters.
        batch: The rows.

    Returns:
        The characters that the tokenizer loses.
    """
    tokenizer = _load(cls, folder / "tokenizer", digest)
    known = conditions.with_ids_from(tokenizer.vocab_size, tokenizer.encode)
    Job.write_whole(folder / batch.shard, partial(_write_shard, batch, tokenizer, known))
    if batch.has_words:
        Job.write_whole(
            folder / f"words/{batch.number:05d}",
            lambda file: _write_words(file, count_words(batch.training_texts())),
        )
    is_checked = np.zeros(len(batch.codes), np.bool_)
    kept = np.flatnonzero(batch.codes < len(SPLITS))
    # check the texts whose number in the whole corpus is a multiple of ``step``: ``-n % step`` is
    # the distance from n to the next multiple
    is_checked[kept[-batch.texts_before % step :: step]] = True
    return count_lost(read_texts_of([batch.file], is_checked), tokenizer, step)


def _write_shard(batch: _Batch, tokenizer: Tokenizer, conditions: Conditions, folder: Path) -> None:
    """Write the shard of a batch: each split, and again the training texts of ``_REST``."""
    write = partial(_write_split, batch, tokenizer, conditions)
    for code, split in enumerate(SPLITS):
        write(folder, split, batch.codes == code)
    if batch.times > 1:
        # at first all training texts; then, of these, those with one more copy than the others
        is_in_rest = batch.codes == TRAIN
        copies = count_copies(batch.training_texts(), batch.times)
        is_in_rest[is_in_rest] = copies > int(batch.times)
        if is_in_rest.any():
            write(folder / _REST, "train", is_in_rest)


def _write_split(
    batch: _Batch,
    tokenizer: Tokenizer,
    conditions: Conditions,
    folder: Path,
    split: str,
    wanted: np.ndarray,
) -> None:
    """Write the files of a split from the rows that the mask ``wanted`` (rows,) selects."""
    folder.mkdir(exist_ok=True)
    texts = read_texts_of([batch.file], wanted)
    write_texts(texts, tokenizer, folder, split, conditions.vocab_size)
    if conditions:
        rows = list(read_values(batch.file, wanted, batch.is_label))
        _write_conditions(conditions, rows, folder, split, batch.training_before)


def _write_conditions(
    conditions: Conditions, rows: Sequence[Sequence[Any]], folder: Path, split: str, before: int
) -> None:
    """Write the ids of the conditions and fields of each text. In training texts, some conditions
    and fields are left out at random.

    The ids of categories and numbers are an array (N, C). Texts differ in their number of field
    ids, so these are one flat array, with an index of where the ids of each text begin.

    Args:
        conditions: The conditions, with their ids.
        rows: The condition values of each of N texts.
        folder: The folder of the shard.
        split: The name of the split.
        before: The number of training texts in earlier files.
    """
    dtype = dtype_of(conditions.vocab_size)
    is_training = split == "train"
    shape = (len(rows), len(conditions.fixed))
    ids = np.array([conditions.encode_fixed(row) for row in rows], dtype).reshape(shape)
    # (N, C): whether a condition is left out; never in other splits, where ``is_training`` is 0
    is_open = _random(0, before, shape) < _DROP_PROBABILITY * is_training
    ids = np.where(is_open, np.array(conditions.open_ids, dtype), ids)
    save_array(folder / f"{split}.conditions.npy", ids)
    if conditions.fields:
        shape = (len(rows), len(conditions.fields))
        is_kept = _random(1, before, shape) >= _DROP_FIELD_PROBABILITY * is_training
        masks = is_kept.tolist()
        prefixes = list(map(conditions.encode_fields, rows, masks))
        flat = np.fromiter(itertools.chain.from_iterable(prefixes), dtype)
        edges = np.cumsum([0, *map(len, prefixes)], dtype=np.int64)
        save_array(folder / f"{split}.fields.npy", flat)
        save_array(folder / f"{split}.fields.index.npy", edges)


def _random(stream: int, before: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return random numbers from 0 to 1, of a shape with a row for each text. ``stream`` is the
    seed: 0 for conditions, 1 for fields.

    They do not depend on how texts are divided into files: the generator skips the numbers of the
    ``before`` earlier texts.
    """
    # each random number takes one step of the generator
    return np.random.Generator(np.random.PCG64(stream).advance(before * shape[1])).random(shape)


def _order_shards(folder: Path, shards: Sequence[str], times: Sequence[float]) -> list[str]:
    """Return the shards in the order in which an epoch reads them. A shard that is read twice is
    listed twice; the folders ``rest`` come last.
    """
    read: list[str] = []
    for turn in range(int(max(times))):  # the number of readings before this one
        read += [shard for shard, count in zip(shards, times, strict=True) if turn < int(count)]
    rests = [f"{shard}/{_REST}" for shard in shards]
    return [*read, *(rest for rest in rests if (folder / rest).is_dir())]


def _finish_words(folder: Path, tokenizer: Tokenizer, *, has_lost: bool) -> None:
    """Write the words of all batches to one file, and remove the files of the batches. If the
    tokenizer loses characters, the words are those of the decoded texts.
    """
    parts = folder / "words"
    counts = WordCounts()
    if has_lost:
        counts = _decoded_words(Tokens(sorted((folder / "shards").iterdir()), "train"), tokenizer)
    else:
        for file in sorted(parts.iterdir()):
            counts.update(_read_words(file))
    _write_words(folder / WORDS_FILE, counts)
    remove(parts)


def _write_words(file: Path, counts: WordCounts) -> None:
    """Write word counts as JSON; ``_read_words`` reads them."""
    content = vars(counts) | {"separators": sorted(counts.separators)}
    file.write_text(json.dumps(content, sort_keys=True), encoding="utf-8", newline="")


def _read_words(file: Path) -> WordCounts:
    content = json.loads(file.read_text(encoding="utf-8"))
    texts = Counter[str](content["texts"])
    return WordCounts(Counter(content["words"]), texts, set(content["separators"]))


def words_of_store(store: StoreFolder, tokenizer: Tokenizer) -> WordCounts:
    """Return the word counts of a store. If an older store has none, the words are counted in its
    decoded ids.
    """
    try:
        return _read_words(store.folder / WORDS_FILE)
    except (FileNotFoundError, KeyError):
        return _decoded_words(store.splits()["train"], tokenizer)


def _decoded_words(train: Tokens, tokenizer: Tokenizer) -> WordCounts:
    """Return the word counts of the decoded training texts."""
    counts = WordCounts()
    for texts in batched(decode_texts(train.head(_WORD_TOKENS).blocks, tokenizer)):
        counts.update(count_words(texts))
    return counts


def index_corpus(
    store: StoreFolder,
    corpus: str,
    tokenizer: Tokenizer,
    encoding: Encoding,
    root: Path | None = None,
    progress: Progress = lambda step: None,
) -> Path:
    """Return the file of the novelty index of an encoded corpus.

    Args:
        store, corpus, tokenizer, encoding: See ``index_tokens``.
        root: The folder for the stage; None is the cache.
        progress: Called with each step.

    Raises:
        StorageError: The disk is full.
        WorkerError: A worker was killed.
    """

    def make(folder: Path) -> dict[str, Any]:
        progress("Indexing the texts")
        folder.mkdir(exist_ok=True)
        write_index(index_tokens(store, corpus, tokenizer, encoding), folder / NOVELTY_FILE)
        return {}

    inputs = [
        store.folder.name,
        encoding.novelty,
        encoding.megabytes,
        encoding.belongs_to(corpus),
    ]
    return run_stage(root or cache_folder(), "index", inputs, make).folder / NOVELTY_FILE


def index_tokens(
    store: StoreFolder, corpus: str, tokenizer: Tokenizer, encoding: Encoding
) -> Index:
    """Return a novelty index of the training texts of a store.

    Args:
        store: The store.
        corpus: The fingerprint of the corpus.
        tokenizer: The tokenizer of the store.
        encoding: Has the form of the index, the max size of a compact one, and ``belongs_to``.

    Raises:
        WorkerError: A worker was killed.
    """
    tokens = store.training_texts()
    max_bytes = round(encoding.megabytes * 1e6)
    sets = None
    if encoding.novelty == CompactIndex.form:
        size = 2 * int(tokens.offsets[-1])  # min bytes of the ids: each takes two or four
        num_proc = encoding.num_proc
        spans = slices(len(store.shards), size, num_proc)
        ids = [_TrainingIds(store.shards[span]) for span in spans]
        separators = (tokenizer.bos_id, tokenizer.eos_id)
        call = partial(share, size=size, num_proc=num_proc)
        sets = build_sets(ids, separators, max_bytes, call)
    texts_length = int(tokens.offsets[-1]) - 2 * len(tokens)  # without bos and eos
    index = build_index(
        tokens.blocks,
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
        vocab_size=tokenizer.vocab_size,
        characters_per_token=int(tokens.characters.sum()) / texts_length,
        fingerprint=encoding.belongs_to(corpus),
        form=encoding.novelty,
        max_bytes=max_bytes,
        sets=sets,
    )
    tokens.release_pages()
    return index


@dataclass(frozen=True)
class _TrainingIds:
    """The ids of the training texts of some shards, in blocks.

    It holds only the folders, so that it can be sent to a worker, which opens the files.
    """

    folders: Sequence[Path]

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(Tokens(self.folders, "train").blocks)
