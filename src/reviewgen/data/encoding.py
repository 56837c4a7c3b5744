"""From a corpus and its tokenizer to a folder of token stores: by this process, or by several that share the corpus."""

import contextlib
import functools
import importlib
import shutil
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from reviewgen.conditions import Conditions
from reviewgen.data.corpus import SPLITS, Corpus
from reviewgen.data.spool import Piece, read_spool
from reviewgen.data.store import join, save_conditions, store
from reviewgen.data.workers import count_workers, run_tasks
from reviewgen.protocols import Tokenizer

__all__ = ["encode_piece", "fill"]

_HIDDEN = 0.1  # share of the training texts in which a condition is hidden, so that a model learns to write without it, too
_WORTH_WORKERS = 1 << 26  # bytes of text; several processes take a second to start


def fill(folder: Path, corpus: Corpus, tokenizer: Tokenizer, conditions: Conditions) -> None:
    """Write a tokenizer, the ids of a corpus's texts, and those of their conditions, into a new folder."""
    (folder / "tokenizer").mkdir(parents=True)
    tokenizer.save(folder / "tokenizer")
    placed = conditions.behind(tokenizer.vocab_size)
    size = corpus.spool.stat().st_size
    workers = min(len(corpus.pieces), count_workers(size, _WORTH_WORKERS)) if _is_importable(type(tokenizer)) else 1
    if workers > 1:
        parts = _encode_together(folder, corpus, type(tokenizer), placed.vocab_size, workers)
        with contextlib.closing(parts):
            join(parts, folder, SPLITS, placed.vocab_size)
    else:
        for split in SPLITS:
            store(corpus.texts(split), tokenizer, folder, split, placed.vocab_size)
    for split in SPLITS if placed else ():
        save_conditions(_encode_conditions(corpus, placed, split), len(placed), folder, split, placed.vocab_size)


def _encode_conditions(corpus: Corpus, conditions: Conditions, split: str) -> Iterator[Sequence[int]]:
    """Yield the ids of the conditions of each text of a split; some are hidden in training texts."""
    random, share = np.random.default_rng(0), _HIDDEN if split == "train" else 0.0
    for values in corpus.conditions(split):
        is_hidden = random.random(len(conditions)) < share
        yield np.where(is_hidden, conditions.any_ids, conditions.encode_row(values)).tolist()


def _is_importable(kind: type) -> bool:
    """Return whether another process finds a class by its name."""
    module = sys.modules.get(kind.__module__)
    return kind.__module__ != "__main__" and getattr(module, kind.__qualname__, None) is kind


def _encode_together(folder: Path, corpus: Corpus, kind: type, vocab_size: int, workers: int) -> Generator[Path, None, None]:
    """Have several processes encode the pieces of a corpus; yield the folder of each, in order."""
    codes = folder.parent / "splits"
    corpus.splits.tofile(codes)
    home = {"module": kind.__module__, "name": kind.__qualname__, "folder": str(folder / "tokenizer")}
    common = {"spool": str(corpus.spool), "splits": str(codes), "tokenizer": home, "vocab_size": vocab_size}
    parts = [folder.parent / f"part {number}" for number in range(len(corpus.pieces))]
    pieces = zip(parts, corpus.pieces, strict=True)
    tasks = [{"folder": str(part), "piece": asdict(piece), **common} for part, piece in pieces]
    with contextlib.closing(run_tasks(encode_piece, tasks, workers)) as done:
        for part, _ in zip(parts, done, strict=True):
            yield part
            shutil.rmtree(part)


def encode_piece(
    *, folder: str, spool: str, splits: str, piece: Mapping[str, int], tokenizer: Mapping[str, str], vocab_size: int
) -> None:
    """Encode some lines of a corpus's texts into a new folder; a worker's task.

    Args:
        folder: Where the stores of all splits go.
        spool: The file of the texts.
        splits: The file of their splits.
        piece: The fields of a Piece.
        tokenizer: The module and the name of its class, and the folder that it was saved in.
        vocab_size: The number of ids, those of conditions among them.
    """
    part, home = Piece(**piece), Path(folder)
    home.mkdir()
    codes = np.fromfile(splits, np.uint8, part.count, offset=part.first)
    for code, split in enumerate(SPLITS):
        store(read_spool(Path(spool), codes == code, part.offset), _load(**tokenizer), home, split, vocab_size)


@functools.lru_cache(1)
def _load(module: str, name: str, folder: str) -> Tokenizer:
    kind: Any = getattr(importlib.import_module(module), name)
    loaded: Tokenizer = kind.load(Path(folder))
    return loaded
