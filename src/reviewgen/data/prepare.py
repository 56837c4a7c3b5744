"""Encode a cleaned corpus into a token store: tokenizer, conditions, shards, words, novelty index,
``store.json``; see ``store``. The folder of the job has these files:

    tokenizers/00012     a tokenizer trained on one part, if it can be trained in parts
    words/00012          the words of a shard
    store                the store so far

If a corpus is read 3.4 times in an epoch, each of its shards is read three times. Then the folder
``rest`` of each shard is read once: it holds the texts that have 0.4 of the characters.

The characters that the tokenizer loses, such as those without an id, are counted. For this, texts
are encoded and decoded again. If a tokenizer keeps a private-use character, which no text contains,
it is assumed to have a byte fallback; then only a small sample of the texts is checked.
"""

import functools
import io
import itertools
import json
import operator
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reviewgen.compiled.windows import WindowSet
from reviewgen.conditions import Conditions
from reviewgen.config.settings import to_dict
from reviewgen.data.corpus import Corpus, training_texts
from reviewgen.data.documents import batched
from reviewgen.data.parts import SharedJob, read_part, rows_of, size_of, texts_of
from reviewgen.data.sources import SPLITS
from reviewgen.data.store import (
    FORMAT,
    STORE_FILE,
    StoreFolder,
    TokenStore,
    digest_file,
    digest_tokenizer,
    encode_texts,
)
from reviewgen.data.weighting import count_copies
from reviewgen.errors import DataError
from reviewgen.lexicon.token_bytes import decode_texts
from reviewgen.lexicon.words import WordCounts, count_words
from reviewgen.novelty import CompactIndex, Index, build_index, build_sets, check_form, write_index
from reviewgen.protocols.tokenizer import SupportsTrainingInParts, Tokenizer
from reviewgen.storage import Job

NOVELTY_FILE = "novelty.safetensors"
WORDS_FILE = "words.json"
_REST = "rest"  # the folder in a shard with the texts that are read once more
_WORD_BYTES = 200_000_000  # words are counted only in the first parts, of this many bytes
_WORD_TOKENS = 50_000_000  # ids that words are counted in, if they are counted from ids
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
        share = f"{100 * self.lost / self.checked:.2g} %"
        counts = f"{self.lost:,} {what} {self.checked:,} characters ({share})"
        return f"The tokenizer {tokenizer} loses {counts}: {before!r} becomes {after!r}."


def sample_stride(tokenizer: Tokenizer, characters: int) -> int:
    """Return N: one in N texts of a corpus with ``characters`` characters is checked for losses."""
    limit = _CHECKED if tokenizer.decode(tokenizer.encode(_PROBE)) == _PROBE else _CHECKED_CLOSELY
    return -(-characters // limit) or 1


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
            position = len(os.path.commonprefix([text, decoded]))  # noqa: RUF071  character by character is what is needed
            around = slice(max(0, position - _BEFORE), position + _AFTER)
            example = example if lost else (text[around], decoded[around])
            lost += max(1, (Counter(text) - Counter(decoded)).total())  # 1 if only moved
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
    """

    cls: Any
    config: Any
    plugin: Mapping[str, str]
    trained: Tokenizer | None = None
    check: Callable[[Tokenizer, str], None] = lambda tokenizer, name: None
    novelty: str = "none"
    megabytes: float = 0.0
    belongs_to: Callable[[str], str] = str

    def __post_init__(self) -> None:
        check_form(self.novelty)

    def facts(self) -> dict[str, Any]:
        """Return the facts that identify the tokenizer, as JSON values."""
        trained = None if self.trained is None else digest_tokenizer(self.trained)
        return {**self.plugin, "settings": to_dict(self.config), "trained": trained}


def dtype_of(vocab_size: int) -> np.dtype:
    """Return the dtype of ids in the files of a store, the smallest that holds the vocabulary."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


def write_split(
    texts: Iterable[str], tokenizer: Tokenizer, folder: Path, split: str, vocab_size: int
) -> None:
    """Encode texts and write them as one split of a shard.

    Args:
        texts: The texts.
        tokenizer: The tokenizer that encodes them.
        folder: The folder of the shard.
        split: The name of the split.
        vocab_size: The number of ids, including those of conditions; it determines the dtype.

    Raises:
        DataError: Some ids are outside the vocabulary.
    """
    dtype = dtype_of(vocab_size)
    lengths = [0]
    characters = list[int]()
    bos, eos = np.array([[tokenizer.bos_id], [tokenizer.eos_id]], dtype)
    with (folder / f"{split}.{dtype.name}").open("wb") as file:
        for chunk in batched(texts):
            encoded = encode_texts(tokenizer, chunk)
            framed = list[np.ndarray]()
            for ids in encoded:
                array = ids if isinstance(ids, np.ndarray) else np.array(ids, np.int64)
                framed += bos, array, eos
            whole = np.concatenate(framed)
            smallest = whole.min()
            largest = whole.max()
            if smallest < 0 or largest >= tokenizer.vocab_size:
                raise DataError(
                    f"The tokenizer gives the id {smallest if smallest < 0 else largest}; its"
                    f" vocabulary has 0 to {tokenizer.vocab_size - 1}."
                )
            file.write(whole.astype(dtype, copy=False).data)
            lengths += [len(ids) + 2 for ids in encoded]
            characters += map(len, chunk)
    index = np.stack([np.cumsum(lengths, dtype=np.int64), np.array([*characters, 0], np.int64)])
    save_array(folder / f"{split}.index.npy", index)


def save_array(file: Path, values: np.ndarray) -> None:
    """Write an array in numpy's format.

    Raises:
        OSError: The disk is full.
    """
    buffer = io.BytesIO()  # np.save to a file hides the cause of an error, such as a full disk
    np.save(buffer, values)
    file.write_bytes(buffer.getbuffer())


def digest_files(store: Path, paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Return the size and digest of each file in ``paths``, or inside a folder in ``paths``, by its
    path relative to the store.
    """
    files = itertools.chain.from_iterable((path, *path.rglob("*")) for path in paths)
    return {
        file.relative_to(store).as_posix(): digest_file(file) for file in files if file.is_file()
    }


def _encode_part(
    cls: Any,
    folder: Path,
    digest: str,
    conditions: Conditions,
    step: int,
    file: Path,
    times: float,
    shard: Path,
    words: Path | None,
    texts: int,
    training: int,
) -> tuple[Any, LostCharacters]:
    """Encode a part: write its shard and its words. A task, which runs in any process.

    Args:
        cls: The class of the tokenizer.
        folder: The folder of the tokenizer.
        digest: The digest of the tokenizer; with ``folder`` the key of the loaded tokenizer in
            memory.
        conditions: The conditions.
        step: One text in ``step`` is checked for lost characters.
        file: The part.
        times: How often its training texts are read in an epoch.
        shard: The folder to write.
        words: The file for the word counts; None does not count words.
        texts: The number of texts in earlier parts.
        training: The number of training texts in earlier parts.

    Returns:
        The digests of the shard's files, and the characters that the tokenizer loses.
    """
    tokenizer = _load(cls, folder, digest)
    known = conditions.with_ids_from(tokenizer.vocab_size, tokenizer.encode)

    def write_rows(
        target: Path, split: str, wanted: Iterable[Any] = itertools.repeat(True)
    ) -> None:
        target.mkdir(exist_ok=True)
        code = SPLITS.index(split)
        chosen = itertools.compress(rows_of([file], ["text"], code), wanted)
        write_split((text for (text,) in chosen), tokenizer, target, split, known.vocab_size)
        if conditions:
            values = list(itertools.compress(rows_of([file], known.names, code), wanted))
            _write_conditions(known, values, target / split, training if split == "train" else None)

    def write(scratch: Path) -> None:
        for split in SPLITS:
            write_rows(scratch, split)
        if times > 1:
            is_in_rest = count_copies(training_texts(file), times) > int(times)
            if is_in_rest.any():
                write_rows(scratch / _REST, "train", is_in_rest)

    Job.write_whole(shard, write)
    if words is not None:
        Job.write_whole(
            words, lambda scratch: _write_words(scratch, count_words(training_texts(file)))
        )
    wanted = np.zeros(len(read_part(file)), np.bool_)
    wanted[-texts % step :: step] = True
    return digest_files(shard.parents[1], [shard]), count_lost(
        texts_of([file], wanted), tokenizer, step
    )


def _write_conditions(
    conditions: Conditions, rows: Sequence[Sequence[Any]], path: Path, training: int | None
) -> None:
    """Write the ids of the conditions and fields of each text.

    The ids of categories and numbers are an array (N, C). The ids of fields differ in number, so
    they are one flat array with an index of where those of each text begin.

    Args:
        conditions: The conditions, with their ids.
        rows: The condition values of each of N texts.
        path: The folder and the prefix of the names of the files.
        training: For training texts, some values of which are left out at random, the number of
            training texts in earlier parts; None for other texts.
    """
    dtype = dtype_of(conditions.vocab_size)
    count = len(conditions.fixed)
    ids = np.array([conditions.encode_fixed(row) for row in rows], dtype).reshape(len(rows), count)
    if training is not None:
        ids = np.where(
            _random(0, training, ids.shape) < _DROP_PROBABILITY,
            np.array(conditions.open_ids, dtype),
            ids,
        )
    save_array(path.with_name(f"{path.name}.conditions.npy"), ids)
    if fields := len(conditions.fields):
        is_kept = np.ones((len(rows), fields), np.bool_)
        if training is not None:
            is_kept = _random(1, training, is_kept.shape) >= _DROP_FIELD_PROBABILITY
        prefixes = [
            conditions.encode_fields(row, mask.tolist())
            for row, mask in zip(rows, is_kept, strict=True)
        ]
        flat = np.fromiter(itertools.chain.from_iterable(prefixes), dtype)
        save_array(path.with_name(f"{path.name}.fields.npy"), flat)
        save_array(
            path.with_name(f"{path.name}.fields.index.npy"),
            np.cumsum([0, *map(len, prefixes)], dtype=np.int64),
        )


def _random(stream: int, before: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return random numbers of a shape, with a row for each text.

    They do not depend on how texts are divided into parts: the generator skips the numbers of the
    ``before`` earlier texts.
    """
    # each random number takes one step of the generator
    return np.random.Generator(np.random.PCG64(stream).advance(before * shape[1])).random(shape)


@functools.lru_cache(1)
def _load(cls: Any, folder: Path, digest: str) -> Tokenizer:
    tokenizer: Tokenizer = cls.load(folder)
    return tokenizer


def _write_words(file: Path, counts: WordCounts) -> None:
    content = vars(counts) | {"separators": sorted(counts.separators)}
    file.write_text(json.dumps(content, sort_keys=True), encoding="utf-8", newline="")


def _add_words(files: Iterable[Path]) -> WordCounts:
    """Return the sum of the word counts in some files."""
    counts = WordCounts()
    for file in files:
        content = json.loads(file.read_text(encoding="utf-8"))
        texts = Counter(content["texts"])
        counts.update(WordCounts(Counter(content["words"]), texts, set(content["separators"])))
    return counts


def words_of_store(store: StoreFolder, tokenizer: Tokenizer) -> WordCounts:
    """Return the word counts of a store. If it is an older store without them, they are counted
    from its ids.
    """
    try:
        return _add_words([store.folder / WORDS_FILE])
    except (FileNotFoundError, KeyError):
        return _decoded_words(store.splits()["train"], tokenizer)


def _decoded_words(train: TokenStore, tokenizer: Tokenizer) -> WordCounts:
    """Return the word counts of training texts as decoded from their ids."""
    counts = WordCounts()
    for texts in batched(decode_texts(train.head(_WORD_TOKENS).blocks, tokenizer)):
        counts.update(count_words(texts))
    return counts


@dataclass(frozen=True)
class TrainingIds:
    """The ids of the training texts of some shards, in blocks.

    It holds only the folders, so that it can be sent to a worker process, which opens the files
    when it reads them.
    """

    folders: Sequence[Path]

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(TokenStore(self.folders, "train").blocks)


def encode_corpus(
    corpus: Corpus,
    encoding: Encoding,
    work: SharedJob,
    conditions: Conditions,
    *,
    facts: Mapping[str, Any],
) -> None:
    """Write the folder ``store`` of a job.

    Files that an interrupted earlier run of the job has finished are kept.

    Args:
        corpus: The corpus; it must have texts to train on and texts to validate on.
        encoding: The tokenizer and the novelty index.
        work: The job and its processes; all processes call this function.
        conditions: The conditions: those of a trained model, or those of the training texts.
        facts: More facts to save in ``store.json``, besides those of the corpus, tokenizer and
            index.

    Raises:
        ReviewgenError: The tokenizer cannot be saved, or the disk is full.
    """
    store = work.job.path("store")
    size = size_of(corpus.files)
    name = encoding.plugin["name"]
    work.progress("Training the tokenizer")
    if not work.main(lambda: work.job.done("store/tokenizer")):
        _train(corpus, encoding, work, size)
    tokenizer: Tokenizer = encoding.cls.load(store / "tokenizer")
    encoding.check(tokenizer, name)
    digest = digest_tokenizer(tokenizer)
    work.progress("Encoding the texts")
    step = sample_stride(
        tokenizer,
        corpus.report.characters + (corpus.validation[1].characters if corpus.validation else 0),
    )
    tasks = _list_tasks(corpus, work.job)
    shards = [shard for _, _, shard, *_ in tasks]
    encode = functools.partial(
        _encode_part, encoding.cls, store / "tokenizer", digest, conditions, step
    )
    encoded = work.share(encode, tasks, size)
    lost = functools.reduce(operator.add, [part_lost for _, part_lost in encoded])

    sets = _index_shards(shards, tokenizer, encoding, work, size)

    def finish() -> None:
        """Write the words, the novelty index and ``store.json``, which depend on all shards."""
        train = TokenStore(shards, "train")
        words = [words for _, _, _, words, *_ in tasks if words is not None]
        counts = _decoded_words(train, tokenizer) if lost.lost else _add_words(words)
        _write_words(store / WORDS_FILE, counts)
        if encoding.novelty != "none":
            index = index_tokens(train, tokenizer, encoding, corpus.fingerprint, sets)
            write_index(index, store / NOVELTY_FILE)
        files = digest_files(
            store, [store / file for file in ("tokenizer", WORDS_FILE, NOVELTY_FILE)]
        )
        for digests, _ in encoded:
            files |= digests
        more = {
            "tokenizer": {**encoding.facts(), "digest": digest},
            "conditions": conditions.to_json(),
            "corpus": corpus.to_json(),
            "novelty": {"form": encoding.novelty, "megabytes": encoding.megabytes},
            "notes": [*conditions.notes(), *([lost.describe(name)] if lost.lost else [])],
        }
        content = {
            "format": FORMAT,
            "facts": {**facts, **more},
            "shards": [shard.relative_to(store).as_posix() for shard in shards],
            "files": dict(sorted(files.items())),
        }
        if corpus.corpora:
            read = _order_shards(shards, corpus.times_of_files)
            content["train"] = [shard.relative_to(store).as_posix() for shard in read]
        text = json.dumps(content, indent=1).encode()
        work.job.write(f"store/{STORE_FILE}", lambda file: file.write_bytes(text))

    work.progress("Finishing the store")
    work.main(finish)


def _index_shards(
    shards: Sequence[Path], tokenizer: Tokenizer, encoding: Encoding, work: SharedJob, size: int
) -> tuple[WindowSet, ...] | None:
    """Return the window sets of a compact novelty index of the training texts; None for other
    forms.
    """
    if encoding.novelty != CompactIndex.form:
        return None
    work.progress("Indexing the texts")
    ids = [TrainingIds(shards[span]) for span in work.slices(len(shards), size)]
    separators = (tokenizer.bos_id, tokenizer.eos_id)
    share = functools.partial(work.share, size=size)
    return build_sets(ids, separators, round(encoding.megabytes * 1e6), share)


def _list_tasks(corpus: Corpus, job: Job) -> list[tuple[Any, ...]]:
    """Return for each part of a corpus the arguments of ``_encode_part`` from ``file`` on."""
    tasks = []
    size = 0
    texts = 0
    training = 0
    for number, (file, times) in enumerate(zip(corpus.files, corpus.times_of_files, strict=True)):
        words = job.path(f"words/{number:05d}") if size <= _WORD_BYTES else None
        shard = job.path(f"store/shards/{number:05d}")
        tasks.append((file, times, shard, words, texts, training))
        codes = np.asarray(read_part(file).column("split"))
        size += file.stat().st_size
        texts += len(codes)
        training += int(np.count_nonzero(codes == 0))
    return tasks


def _order_shards(shards: Sequence[Path], times: Sequence[float]) -> list[Path]:
    """Return the shards in the order in which an epoch reads them. A shard that is read twice is
    listed twice; the folders ``rest`` come last.
    """
    read = list[Path]()
    for turn in range(int(max(times))):
        read += [shard for shard, count in zip(shards, times, strict=True) if turn < int(count)]
    rests = [shard / _REST for shard in shards]
    return [*read, *(rest for rest in rests if rest.is_dir())]


def _train(corpus: Corpus, encoding: Encoding, work: SharedJob, size: int) -> None:
    """Train the tokenizer and save it; a tokenizer that supports it is trained part by part."""
    cls = encoding.cls
    trained = encoding.trained
    targets = [work.job.path(f"tokenizers/{number:05d}") for number in range(len(corpus.files))]
    is_cut = trained is None and issubclass(cls, SupportsTrainingInParts) and len(targets) > 1
    if is_cut:
        tasks = list(zip(corpus.files, corpus.times_of_files, targets, strict=True))
        work.share(functools.partial(_train_part, cls, encoding.config), tasks, size)

    def train() -> Any:
        if is_cut:
            return cls.combine([cls.load(target) for target in targets])
        texts = itertools.chain.from_iterable(
            map(training_texts, corpus.files, corpus.times_of_files)
        )
        return cls.train(texts, encoding.config) if trained is None else trained

    work.main(lambda: work.job.write("store/tokenizer", lambda folder: _save(train(), folder)))


def _train_part(cls: Any, config: Any, file: Path, times: float, target: Path) -> None:
    Job.write_whole(
        target, lambda folder: _save(cls.train(training_texts(file, times), config), folder)
    )


def _save(tokenizer: Any, folder: Path) -> None:
    folder.mkdir()
    tokenizer.save(folder)


def index_tokens(
    store: TokenStore,
    tokenizer: Tokenizer,
    encoding: Encoding,
    corpus: str,
    sets: tuple[WindowSet, ...] | None = None,
) -> Index:
    """Return a novelty index of the texts of a split.

    Args:
        store: The split.
        tokenizer: The tokenizer of the store.
        encoding: Has the form of the index, the max size of a compact one, and ``belongs_to``.
        corpus: The fingerprint of the corpus.
        sets: The window sets of a compact index, if they have been built; see ``_index_shards``.
    """
    index = build_index(
        store.blocks,
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
        vocab_size=tokenizer.vocab_size,
        characters_per_token=int(store.characters.sum())
        / (int(store.offsets[-1]) - 2 * len(store)),
        fingerprint=encoding.belongs_to(corpus),
        form=encoding.novelty,
        max_bytes=round(encoding.megabytes * 1e6),
        sets=sets,
    )
    store.release_pages()
    return index
