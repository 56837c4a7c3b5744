"""The texts that are kept of six corpora, their splits, the counts of cleaning and the token ids are as stored.

``corpora.json`` is written by ``python -m tests.golden.test_corpora``. Of a small corpus it has every text, of a large one the
first; digests cover all.
"""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.golden.corpora import CASES, TOKENIZERS, Reading, prepare, read
from tests.golden.stored import read_stored, write_stored

WHOLE = 60  # texts of a corpus that is stored whole
FIRST = 4


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False).encode()).hexdigest()[:24]


def observe(name: str, folder: Path) -> dict[str, Any]:
    """Return what is compared of one corpus, as JSON values."""
    write, options = CASES[name]
    source = write(folder)
    readings = {tokenizer: read(source, tokenizer, options) for tokenizer in TOKENIZERS}
    first, *others = readings.values()
    assert all(other.texts == first.texts and other.counts == first.counts for other in others)
    for reading in readings.values():
        check_decoding(reading)
    if name in ("messy csv", "jsonl with conditions", "three files"):
        for tokenizer, reading in readings.items():
            assert prepare(source, tokenizer, options, folder / tokenizer) == (reading.counts, reading.ids), tokenizer
    texts = [list(each) for each in first.texts]
    return {
        "counts": {what: count for what, count in first.counts.items() if count},
        "splits": {split: len(each) for split, each in first.ids.items()},
        "texts": digest(texts),
        "first texts": [" | ".join(map(str, [split, text[:300], *values])) for text, values, split in texts[: shown(texts)]],
        **{tokenizer: ids_of(reading) for tokenizer, reading in readings.items()},
    }


def shown(texts: list[Any]) -> int:
    return len(texts) if len(texts) <= WHOLE else FIRST


def ids_of(reading: Reading) -> dict[str, Any]:
    """Return the size of the vocabulary, the digest of the ids of each split, and the ids of the first training text."""
    return {
        "vocabulary": reading.vocab_size,
        "ids": {split: digest(ids) for split, ids in reading.ids.items()},
        "first": " ".join(map(str, reading.ids["train"][0][:60])),
    }


def check_decoding(reading: Reading) -> None:
    """Raise unless the ids of each split are those of its texts, in order."""
    for split, ids in reading.ids.items():
        texts = [(text, values) for text, values, where in reading.texts if where == split]
        assert len(texts) == len(ids), split
        for (text, values), each in zip(texts, ids, strict=True):
            assert reading.decode(each[1 + len(values) : -1]) == text


@pytest.mark.parametrize("name", CASES)
def test_texts_splits_counts_and_ids_are_as_stored(name: str, tmp_path: Path):
    expected, found = read_stored("corpora")[name], observe(name, tmp_path)
    for what in expected:
        assert found[what] == expected[what], what


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["REVIEWGEN_CACHE"], stored = str(Path(scratch) / "cache"), {}
        for number, case in enumerate(CASES):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            stored[case] = observe(case, folder)
    write_stored("corpora", stored)
