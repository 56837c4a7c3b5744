"""The texts that are kept of six corpora, their splits, the counts of cleaning and the token ids
are as stored.

``corpora.json`` is written by ``python -m tests.golden.test_corpora``. Of a small corpus it has
every text, of a large one the first; digests cover all. A token store that is prepared has the same
ids as a training, and they decode to the texts.
"""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.golden.corpora import CASES, TOKENIZERS, Reading, prepare, read, write
from tests.golden.stored import read_stored, write_stored

PREPARED = ("messy csv", "jsonl with conditions", "three files")


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False).encode()).hexdigest()[:24]


def observe(name: str, folder: Path) -> dict[str, Any]:
    """Return what is compared of one corpus, as JSON values."""
    source = write(CASES[name], folder)
    options = CASES[name].options
    readings = {tokenizer: read(source, tokenizer, options) for tokenizer in TOKENIZERS}
    first = readings["char"]
    for tokenizer, reading in readings.items():
        assert (reading.texts, reading.counts) == (first.texts, first.counts)
        if name in PREPARED:
            assert prepare(source, tokenizer, options, folder / tokenizer) == (
                reading.counts,
                reading.ids,
            ), tokenizer
    shown = first.texts if len(first.texts) <= 60 else first.texts[:4]
    return {
        "counts": {what: count for what, count in first.counts.items() if count},
        "splits": {split: len(each) for split, each in first.ids.items()},
        "texts": digest(first.texts),
        "first texts": [
            " | ".join(map(str, [split, text[:300], *values])) for text, values, split in shown
        ],
        **{tokenizer: ids_of(reading) for tokenizer, reading in readings.items()},
    }


def ids_of(reading: Reading) -> dict[str, Any]:
    """Return the size of the vocabulary, the digest of the ids of each split, and the ids of the
    first training text.
    """
    for split, ids in reading.ids.items():
        texts = [text for text, _, where in reading.texts if where == split]
        given = len(reading.texts[0][1])
        assert [reading.decode(each[1 + given : -1]) for each in ids] == texts, split
    digests = {split: digest(ids) for split, ids in reading.ids.items()}
    return {
        "vocabulary": reading.vocab_size,
        "ids": digests,
        "first": " ".join(map(str, reading.ids["train"][0][:60])),
    }


@pytest.mark.parametrize("name", CASES)
def test_texts_splits_counts_and_ids_are_as_stored(name: str, tmp_path: Path):
    expected = read_stored("corpora")[name]
    found = observe(name, tmp_path)
    assert {what: found[what] for what in expected} == expected


if __name__ == "__main__":
    stored = {}
    for case in CASES:
        with tempfile.TemporaryDirectory() as scratch:
            os.environ["REVIEWGEN_CACHE"] = f"{scratch}/cache"
            stored[case] = observe(case, Path(scratch))
    write_stored("corpora", stored)
