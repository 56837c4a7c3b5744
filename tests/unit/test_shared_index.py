"""The novelty index whose windows are collected shard by shard is that of ``build_index`` from the whole text, bit for bit."""

import inspect
import random
from types import SimpleNamespace

import numpy as np
import pytest
from reviewgen_char.tokenizer import CharTokenizer

from reviewgen.data.store import TokenStore, write_split
from reviewgen.novelty import build_index
from reviewgen.preparation import indexing
from reviewgen.preparation.job import WorkFolder
from reviewgen.training import Processes

TOKENIZER = CharTokenizer(" abcdefgh")


def shards(work: WorkFolder, count: int, distinct: int) -> None:
    """Write shards of texts, of which only some are distinct."""
    draw = random.Random(0)
    pool = ["".join(draw.choices("abcdefgh ", k=200)) for _ in range(distinct)]
    for number in range(count):
        folder = work.shard(number)
        folder.mkdir(parents=True)
        write_split(draw.choices(pool, k=100) if number else [], TOKENIZER, folder, "train", TOKENIZER.vocab_size)


@pytest.mark.parametrize(
    ("megabytes", "distinct", "rounds"), [(4.0, 400, 1), (0.02, 400, 1), (0.02, 30, 2), (0.0002, 400, 1), (20.0, 400, 0)]
)
def test_the_index_is_that_of_one_process(megabytes, distinct, rounds, tmp_path):
    work = WorkFolder(tmp_path / "out")
    for kind in ("found", "checksums"):
        work.place(kind, "").mkdir(parents=True)
    shards(work, 9, distinct)
    store = TokenStore([work.shard(number) for number in range(9)], "train")
    facts = {
        "bos_id": TOKENIZER.bos_id,
        "eos_id": TOKENIZER.eos_id,
        "vocab_size": TOKENIZER.vocab_size,
        "characters": int(store.characters.sum()),
        "fingerprint": "x",
        "max_bytes": round(megabytes * 1e6),
    }
    whole = build_index(store.blocks, **facts)
    training = SimpleNamespace(novelty="compact", novelty_mb=megabytes)
    job = SimpleNamespace(plan=SimpleNamespace(parts=SimpleNamespace(training=training)))
    sets = inspect.unwrap(indexing.collect_windows)(job, work, Processes(), 9, TOKENIZER)  # past the check of types
    strides = {file.name.split("-")[1] for file in work.place("found", "").glob("windows-*")}
    assert len(strides) == rounds
    if rounds:
        for made, wanted in zip(build_index(store.blocks, **facts, sets=sets).sets, whole.sets, strict=True):
            assert made[1:] == wanted[1:] and np.array_equal(made.bits, wanted.bits)
