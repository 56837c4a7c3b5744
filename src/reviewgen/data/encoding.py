"""Encodes a corpus into a folder of token stores, in this process or in several that share the corpus."""

import contextlib
import functools
import importlib
import shutil
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from reviewgen.conditions import Conditions
from reviewgen.data.corpus import SPLITS, Corpus
from reviewgen.data.spool import LineRange, read_spool
from reviewgen.data.store import merge_stores, write_conditions, write_split
from reviewgen.data.workers import count_workers, run_tasks
from reviewgen.protocols import Tokenizer

__all__ = ["encode_conditions", "encode_corpus", "encode_range"]

_DROP_PROBABILITY = 0.1  # of a condition of a training text, so that the model also learns to generate without it
_MIN_BYTES_FOR_WORKERS = 1 << 26  # of text; several processes take a second to start


def encode_corpus(folder: Path, corpus: Corpus, tokenizer: Tokenizer, conditions: Conditions) -> None:
    """Write a tokenizer and the ids of a corpus's texts and conditions into a new folder."""
    (folder / "tokenizer").mkdir(parents=True)
    tokenizer.save(folder / "tokenizer")
    conditions = conditions.with_ids_from(tokenizer.vocab_size)
    vocab_size = conditions.vocab_size
    size = corpus.spool.stat().st_size
    workers = min(len(corpus.ranges), count_workers(size, _MIN_BYTES_FOR_WORKERS)) if _is_importable(type(tokenizer)) else 1
    if workers > 1:
        parts = _encode_in_workers(folder, corpus, type(tokenizer), vocab_size, workers)
        with contextlib.closing(parts):
            merge_stores(parts, folder, SPLITS, vocab_size)
    else:
        for split in SPLITS:
            write_split(corpus.texts(split), tokenizer, folder, split, vocab_size)
    for split in SPLITS if conditions else ():
        ids = encode_conditions(corpus.conditions(split), conditions, split)
        write_conditions(ids, len(conditions), folder, split, vocab_size)


def encode_conditions(
    examples: Iterable[Sequence[str | float | None]], conditions: Conditions, split: str, first: int = 0
) -> Iterator[Sequence[int]]:
    """Yield the ids of the conditions of each text of a split; in training texts, some are replaced by "unspecified".

    Args:
        examples: The values beside each text.
        conditions: The conditions, with their ids.
        split: The split.
        first: The number of texts of the split that come before, so that a shard gets the same ids as in the whole.
    """
    draws, probability = np.random.PCG64(0), _DROP_PROBABILITY if split == "train" else 0.0
    draws.advance(first * len(conditions))  # each number takes one draw
    random = np.random.Generator(draws)
    for values in examples:
        is_dropped = random.random(len(conditions)) < probability
        yield np.where(is_dropped, conditions.unspecified_ids, conditions.encode_values(values)).tolist()


def _is_importable(kind: type) -> bool:
    """Return whether another process can import a class by its name."""
    module = sys.modules.get(kind.__module__)
    return kind.__module__ != "__main__" and getattr(module, kind.__qualname__, None) is kind


def _encode_in_workers(folder: Path, corpus: Corpus, kind: type, vocab_size: int, workers: int) -> Generator[Path, None, None]:
    """Encode the ranges of a corpus in several processes; yield the folder of each range, in order."""
    codes = folder.parent / "splits"
    corpus.splits.tofile(codes)
    tokenizer = {"module": kind.__module__, "name": kind.__qualname__, "folder": str(folder / "tokenizer")}
    common = {"spool": str(corpus.spool), "splits": str(codes), "tokenizer": tokenizer, "vocab_size": vocab_size}
    parts = [folder.parent / f"part {number}" for number in range(len(corpus.ranges))]
    pairs = zip(parts, corpus.ranges, strict=True)
    tasks = [{"folder": str(part), "lines": asdict(lines), **common} for part, lines in pairs]
    with contextlib.closing(run_tasks(encode_range, tasks, workers)) as done:
        for part, _ in zip(parts, done, strict=True):
            yield part
            shutil.rmtree(part)


def encode_range(
    *, folder: str, spool: str, splits: str, lines: Mapping[str, int], tokenizer: Mapping[str, str], vocab_size: int
) -> None:
    """Encode a range of a corpus's texts into a new folder; run by a worker.

    Args:
        folder: The folder to create, for the stores of all splits.
        spool: The file of the texts.
        splits: The file of their splits.
        lines: The fields of a ``LineRange``.
        tokenizer: The module and name of the tokenizer's class, and the folder that it was saved in.
        vocab_size: The number of ids, including those of conditions.
    """
    wanted, path = LineRange(**lines), Path(folder)
    path.mkdir()
    codes = np.fromfile(splits, np.uint8, wanted.count, offset=wanted.first)
    for code, split in enumerate(SPLITS):
        texts = read_spool(Path(spool), codes == code, wanted.offset)
        write_split(texts, _load_tokenizer(**tokenizer), path, split, vocab_size)


@functools.lru_cache(1)
def _load_tokenizer(module: str, name: str, folder: str) -> Tokenizer:
    kind: Any = getattr(importlib.import_module(module), name)
    loaded: Tokenizer = kind.load(Path(folder))
    return loaded
