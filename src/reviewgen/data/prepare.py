"""From a cleaned corpus to a token store: tokenizer, conditions, shards, novelty index, ``store.json``; see ``store``.

    tokenizers/00012          what the tokenizer has learned of a part, if it can be trained in parts
    found/windows-8-00012.npy the windows of a shard, for the novelty index
    store                     the store so far

The characters that the tokenizer loses, such as those without an id, are counted. One that keeps a character of the private use
area, which no text contains, has an id for every byte or the like: of its texts only a small sample is checked.
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reviewgen.compiled.windows import WindowSet, sample_windows
from reviewgen.conditions import Conditions, fit_conditions
from reviewgen.config import to_dict
from reviewgen.data.cache import digest_tokenizer
from reviewgen.data.corpus import Corpus, require_splits
from reviewgen.data.parts import Progress, Ranks, count_workers, examples_of, main_only, read_part, share, texts_of
from reviewgen.data.sources import SPLITS
from reviewgen.data.store import (
    STORE_FILE,
    TokenStore,
    digest_file,
    digest_files,
    dtype_of,
    save_array,
    write_split,
    write_store_file,
)
from reviewgen.novelty import (
    WINDOWS,
    CompactIndex,
    build_index,
    choose_stride,
    count_collected,
    fill_sets,
    first_stride,
    write_index,
)
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


def add_up_lost(counts: Sequence[LostCharacters]) -> LostCharacters | None:
    """Return what is lost of all samples, with the first example; None if nothing."""
    lost = [one for one in counts if one.lost]
    if not lost:
        return None
    return LostCharacters(sum(one.lost for one in lost), sum(one.checked for one in counts), lost[0].is_sample, lost[0].example)


def _find_example(text: str, decoded: str) -> tuple[str, str]:
    """Return the place where a text and its decoded ids first differ, in both."""
    place = next((n for n, (a, b) in enumerate(zip(text, decoded, strict=False)) if a != b), min(len(text), len(decoded)))
    start = max(0, place - _BEFORE)
    return text[start : place + _AFTER], decoded[start : place + _AFTER]


NOVELTY_FILE = "novelty.safetensors"
_MAX_SHARED_MEGABYTES = 16  # of an index; the windows of a larger one would take far more on disk
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
        return {
            "name": self.name,
            "package": self.package,
            "version": self.version,
            "settings": to_dict(self.config),
            "trained": trained,
        }


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


def encode_corpus(
    corpus: Corpus,
    choice: TokenizerChoice,
    index: IndexChoice,
    job: Job,
    ranks: Ranks,
    progress: Progress,
    *,
    conditions: Conditions | None = None,
    facts: Mapping[str, Any],
) -> None:
    """Write the folder ``store`` of a job; what an earlier try has finished there is kept.

    Args:
        corpus: The corpus.
        choice: The tokenizer.
        index: The novelty index.
        job: The job.
        ranks: The processes that share the work; all call this.
        progress: Called with each stage.
        conditions: The conditions of a trained model; None fits them to the training texts.
        facts: What ``store.json`` says besides the corpus, the tokenizer and the index.

    Raises:
        ReviewgenError: The tokenizer cannot be saved, a condition has no values, or the disk is full.
    """
    require_splits(corpus)
    workers = count_workers(ranks, sum(file.stat().st_size for file in corpus.files))
    progress("Training the tokenizer")
    fitted = main_only(ranks, lambda: conditions or fit_conditions(corpus.names, corpus.conditions("train")))
    tokenizer_folder = job.path("store/tokenizer")
    if not main_only(ranks, lambda: job.done("store/tokenizer")):
        _train(corpus, choice, job, ranks, workers)
    tokenizer: Tokenizer = choice.cls.load(tokenizer_folder)
    choice.check(tokenizer, choice.name)
    known = fitted.with_ids_from(tokenizer.vocab_size)
    progress("Encoding the texts")
    shards = [f"shards/{number:05d}" for number in range(len(corpus.files))]
    splits = [np.asarray(read_part(file).column("split")) for file in corpus.files]
    step = sample_step(tokenizer, corpus.report.characters + (corpus.validation[1].characters if corpus.validation else 0))
    digest, tasks, texts, training = digest_tokenizer(tokenizer), [], 0, 0
    for file, shard, codes in zip(corpus.files, shards, splits, strict=True):
        tasks.append(
            (file, job.path(f"store/{shard}"), choice.cls, tokenizer_folder, digest, known, (-texts % step, step), training)
        )
        texts, training = texts + len(codes), training + int((codes == 0).sum())
    encoded = share(ranks, _encode_part, tasks, workers)
    progress("Building the novelty index")
    sets = _collect_windows(corpus, index, job, ranks, workers, tokenizer, shards)
    progress("Finishing the store")
    files = {name: each for digests, _ in encoded for name, each in digests.items()}
    lost = add_up_lost([each for _, each in encoded])
    notes = [*known.notes(), *([] if lost is None else [lost.describe(choice.name)])]
    main_only(
        ranks, lambda: _finish(corpus, choice, index, job, tokenizer, known, shards, files, sets, {**facts, "notes": notes})
    )


def _train(corpus: Corpus, choice: TokenizerChoice, job: Job, ranks: Ranks, workers: int) -> None:
    """Train the tokenizer; one that supports it, part by part."""
    cls, config, place = choice.cls, choice.config, "store/tokenizer"
    if choice.trained is not None:
        main_only(ranks, lambda: job.write(place, lambda folder: _save(choice.trained, folder)))
    elif issubclass(cls, SupportsTrainingInParts) and len(corpus.files) > 1:
        targets = [job.path(f"tokenizers/{number:05d}") for number in range(len(corpus.files))]
        share(
            ranks, _train_part, [(cls, config, file, target) for file, target in zip(corpus.files, targets, strict=True)], workers
        )
        main_only(
            ranks, lambda: job.write(place, lambda folder: _save(cls.combine([cls.load(target) for target in targets]), folder))
        )
    else:
        main_only(ranks, lambda: job.write(place, lambda folder: _save(cls.train(corpus.texts("train"), config), folder)))


def _train_part(cls: Any, config: Any, file: Path, target: Path) -> None:
    texts = (text for text, _ in examples_of([file], (), SPLITS.index("train")))
    Job.write_whole(target, lambda folder: _save(cls.train(texts, config), folder))


def _save(tokenizer: Any, folder: Path) -> None:
    folder.mkdir()
    tokenizer.save(folder)


def _encode_part(
    file: Path,
    shard: Path,
    cls: Any,
    tokenizer_folder: Path,
    digest: str,
    conditions: Conditions,
    sample: tuple[int, int],
    first: int,
) -> tuple[dict[str, Any], LostCharacters]:
    """Write the shard of a part; return the digests of its files, and what the tokenizer loses of a sample of its texts."""
    tokenizer = _load(cls, tokenizer_folder, digest)
    Job.write_whole(shard, lambda folder: _write_shard(file, folder, tokenizer, conditions, first))
    (start, step), count = sample, len(read_part(file))
    wanted = np.zeros(count, np.bool_)
    wanted[start::step] = True
    return digest_files(shard, shard.parents[1]), count_lost(texts_of([file], wanted), tokenizer, step)


def _write_shard(file: Path, folder: Path, tokenizer: Tokenizer, conditions: Conditions, first: int) -> None:
    folder.mkdir()
    for code, split in enumerate(SPLITS):
        write_split((text for text, _ in examples_of([file], (), code)), tokenizer, folder, split, conditions.vocab_size)
        if conditions:
            values = (row for _, row in examples_of([file], conditions.names, code))
            ids = list(_encode_conditions(values, conditions, split, first))
            array = np.array(ids, dtype_of(conditions.vocab_size)).reshape(-1, len(conditions))
            save_array(folder / f"{split}.conditions.npy", array)


@functools.lru_cache(1)
def _load(cls: Any, folder: Path, digest: str) -> Tokenizer:
    loaded: Tokenizer = cls.load(folder)
    return loaded


def _encode_conditions(
    rows: Iterable[Sequence[str | float | None]], conditions: Conditions, split: str, first: int
) -> Iterator[Sequence[int]]:
    """Yield the ids of the conditions of each text of a split; in training texts, some are replaced by "unspecified".

    Args:
        rows: The values beside each text.
        conditions: The conditions, with their ids.
        split: The split.
        first: The number of training texts in earlier parts, so that a part gets the same ids as in the whole.
    """
    draws, probability = np.random.PCG64(0), _DROP_PROBABILITY if split == "train" else 0.0
    draws.advance((first if split == "train" else 0) * len(conditions))  # each number takes one draw
    random = np.random.Generator(draws)
    for values in rows:
        is_dropped = random.random(len(conditions)) < probability
        yield np.where(is_dropped, conditions.unspecified_ids, conditions.encode_values(values)).tolist()


def _collect_windows(
    corpus: Corpus, index: IndexChoice, job: Job, ranks: Ranks, workers: int, tokenizer: Tokenizer, shards: Sequence[str]
) -> tuple[WindowSet, ...] | None:
    """Return the sets of a compact index, whose windows all processes collect; None in other processes, and for another index."""
    if index.form != CompactIndex.form or index.megabytes > _MAX_SHARED_MEGABYTES:
        return None
    folders = [job.path(f"store/{shard}") for shard in shards]
    tokens = sum(int(TokenStore(folder, "train").offsets[-1]) for folder in folders)
    max_bytes = round(index.megabytes * 1e6)

    def collect(stride: int) -> list[list[Path]]:
        files = [[job.path(f"found/windows-{stride}-{n}-{row}.npy") for row in range(len(WINDOWS))] for n in range(len(folders))]
        tasks = [
            (folder, file, (tokenizer.bos_id, tokenizer.eos_id), WINDOWS[row], stride)
            for folder, own in zip(folders, files, strict=True)
            for row, file in enumerate(own)
        ]
        share(ranks, _write_windows, tasks, workers)
        return files

    stride = first_stride(tokens, max_bytes)
    files = collect(stride)
    counts = main_only(ranks, lambda: [count_collected(map(np.load, row), tokens) for row in zip(*files, strict=True)])
    wanted = choose_stride(counts, max_bytes)
    if wanted < stride:
        files = collect(wanted)
    return fill_sets(counts, wanted, ([np.load(file) for file in own] for own in files)) if ranks.rank == 0 else None


def _write_windows(folder: Path, file: Path, separators: tuple[int, int], length: int, stride: int) -> None:
    Job.write_whole(
        file, lambda scratch: save_array(scratch, sample_windows(TokenStore(folder, "train").blocks, separators, length, stride))
    )


def _finish(
    corpus: Corpus,
    choice: TokenizerChoice,
    index: IndexChoice,
    job: Job,
    tokenizer: Tokenizer,
    conditions: Conditions,
    shards: Sequence[str],
    files: dict[str, Any],
    sets: Sequence[WindowSet] | None,
    facts: Mapping[str, Any],
) -> None:
    """Write the novelty index and ``store.json``."""
    store = job.path("store")
    if index.form != "none":
        train = TokenStore([store / shard for shard in shards], "train")
        built = build_index(
            train.blocks,
            bos_id=tokenizer.bos_id,
            eos_id=tokenizer.eos_id,
            vocab_size=tokenizer.vocab_size,
            characters=int(train.characters.sum()),
            fingerprint=index.belongs_to(corpus.fingerprint),
            form=index.form,
            max_bytes=round(index.megabytes * 1e6),
            sets=sets,
            tokens=int(train.offsets[-1]) - 2 * len(train),
        )
        if built is not None:
            write_index(built, store / NOVELTY_FILE)
            files |= {NOVELTY_FILE: digest_file(store / NOVELTY_FILE)}
    files |= digest_files(store / "tokenizer", store)
    known = {
        "tokenizer": {**choice.facts(), "digest": digest_tokenizer(tokenizer)},
        "conditions": conditions.to_json(),
        "corpus": corpus.to_json(),
        "novelty": {"form": index.form, "megabytes": index.megabytes},
    }
    job.write(f"store/{STORE_FILE}", lambda file: write_store_file(file, shards, files, {**facts, **known}))
