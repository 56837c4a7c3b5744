"""A corpus: its splits, a validation source, what identifies it, its parts for several processes,
and what a tokenizer loses.
"""

import itertools
import json
import random
import re
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reviewgen.conditions import Conditions
from reviewgen.data.encode import LostCharacters, count_lost, sample_stride
from reviewgen.data.open import SPLITS
from reviewgen.data.texts import data_records, read_documents
from reviewgen.errors import ConfigError, DataError
from reviewgen.registry.plugins import find_tokenizer
from tests.support.fakes import LetterTokenizer
from tests.support.texts import as_parquet, corpus_of, read_all, texts_of, write

CharTokenizer, _ = find_tokenizer("char")


def test_texts_keep_their_order_and_come_back_exactly():
    texts = ["line\nbreak", "\u2028\u0085\r", "ดี 😀", "\x00", 'quote"\\', " ", "", "a", "a"]
    read = corpus_of(texts, clean=False)
    assert (read.texts, read.method) == (texts, "hash")
    texts = [f"review {number}" for number in range(200)]
    parts = [texts_of(texts, clean=True, split=split) for split in SPLITS]
    assert sorted(itertools.chain(*parts)) == sorted(texts) and parts == [
        corpus_of(texts).of(split) for split in SPLITS
    ]
    with pytest.raises(ConfigError, match="got 'dev'"):
        texts_of(texts, split="dev")
    with pytest.raises(
        DataError, match="The test split of list of texts is empty: it has 2 texts in all"
    ):
        texts_of(["a", "b"], split="test")


@pytest.mark.slow
@given(st.lists(st.text("abcdefgh", min_size=1, max_size=3), min_size=1, max_size=10))
@settings(max_examples=150)
def test_a_tiny_corpus_has_train_and_validation_and_duplicates_stay_on_one_side(texts):
    read = corpus_of(texts, clean=False)
    pairs = set(zip(read.texts, read.splits, strict=True))
    assert len(pairs) == len(set(texts)) and "train" in read.splits
    assert ("validation" in read.splits) == (len(set(texts)) > 1)


def test_a_validation_source_replaces_the_split(tmp_path):
    texts = [f"train {number}" for number in range(50)]
    held_out = ["held out 1", "train 3", "held out 2", "train 7"]
    read = corpus_of(texts, held_out)
    assert (read.of("train"), read.of("validation"), read.of("test"), read.method) == (
        texts,
        held_out,
        [],
        "source",
    )
    assert read.notes == ["2 of 4 validation texts are also in the training text."]
    assert read.report.read == 50
    assert corpus_of(texts, ["other"]).notes == []
    one = write(tmp_path / "a.txt", "oné\n".encode() + b"two\xff\n")
    other = write(tmp_path / "b.csv", "text\nthree\n")
    read = corpus_of(one, other)
    assert (read.of("train"), read.of("validation"), read.report.decode_errors) == (
        ["oné", "two\ufffd"],
        ["three"],
        1,
    )
    with pytest.raises(DataError, match="holds no texts"):
        corpus_of(["a", "b"], [])


def test_the_fingerprint_depends_on_the_texts_in_order_and_their_splits():
    plain = corpus_of(["A", "b", "c"]).fingerprint
    assert corpus_of(text for text in ["A", "b", "c", "A"]).fingerprint == plain
    others = [
        corpus_of(["A", "c", "b"]),
        corpus_of(["A", "b"]),
        corpus_of(["A", "b", "c"], lowercase=True),
    ]
    others.append(corpus_of(["A", "b"], ["c"]))
    assert len({plain, *(other.fingerprint for other in others)}) == 5


def test_texts_to_evaluate_are_cleaned_as_those_of_the_training():
    def model(trained: dict[str, Any]) -> Any:
        tokenizer = CharTokenizer("acf©Ãé")
        return SimpleNamespace(
            tokenizer=tokenizer, conditions=Conditions(), training={"data": trained}, index=None
        )

    old = {
        "source": "x",
        "lowercase": True,
        "strip_markdown": False,
        "clean": True,
        "cleaning": {"read": 2, "kept": 2},
    }
    before = {
        "fix_encoding": False,
        "keep_line_breaks": True,
        "drop_repeated_lines": False,
        "keep_space": True,
    }
    new = old | before | {"fix_encoding": True, "keep_line_breaks": False}
    assert data_records({"data": old}) == [old | before]
    assert data_records({"data": new, "parent": {"data": old}}) == [new, old | before]
    assert data_records({}) == [{}]
    for trained, characters in ((old, len("cafã©")), (new, len("café"))):
        ((_, count),) = read_documents(["CAFÃ©"], model(trained))
        assert count == characters
    with pytest.raises(ConfigError, match="trained with fix_encoding=True; use the same"):
        list(read_documents(["CAFÃ©"], model(new), fix_encoding=False, split="test"))


# Units, which several processes read.


PIECES = [
    "a",
    "é",
    "Film 😀.",
    " ",
    "\n",
    "\r\n",
    "\n\n",
    "\n \n",
    "\u2028",
    "It was good. ",
    "x" * 40,
]


@pytest.mark.slow
def test_the_texts_of_a_large_file_are_those_cut_by_hand(tmp_path):
    draw = random.Random(0)
    file = write(tmp_path / "a.txt", "".join(draw.choices(PIECES, k=6_000_000)))
    assert file.stat().st_size > 40_000_000
    for documents in ("line", "paragraph"):
        texts = read_all(file, documents=documents)
        assert texts == by_hand(file.read_text("utf-8"), documents)
    rows = [{"text": "".join(draw.choices(PIECES, k=4)) * 40, "stars": n} for n in range(60_000)]
    lines = "\n\n".join(json.dumps(row, ensure_ascii=bool(n % 2)) for n, row in enumerate(rows))
    for name, content in (
        ("a.jsonl", lines),
        ("a.parquet", as_parquet(rows, row_group_size=2_000, use_dictionary=False)),
    ):
        assert read_all(write(tmp_path / name, content)) == [row["text"] for row in rows]
    small = [write(tmp_path / f"{n:03}.txt", f"text {n}\n") for n in range(300)]
    assert read_all(small) == [f"text {n}" for n in range(300)]


def by_hand(text, documents):
    """Cut a text that is not hard-wrapped."""
    lines = re.split("\r\n|\n|\r", text.removesuffix("\n"))
    if documents == "line":
        return lines
    groups = itertools.groupby(lines, lambda line: not line or line.isspace())
    return ["\n".join(group) for is_blank, group in groups if not is_blank]


# What a tokenizer loses.


def find_lost(texts, tokenizer, characters):
    """Return what a tokenizer loses of a sample of texts, as large as for a number of characters,
    counted in two parts.
    """
    step = sample_stride(tokenizer, characters)
    return count_lost(texts[:5:step], tokenizer, step) + count_lost(
        texts[-(-5 // step) * step :: step], tokenizer, step
    )


MANY = [f"A naïve film, and number {n} of many." for n in range(30)]
LETTERS_OF_MANY = "".join(sorted(set("".join(MANY))))
PLAIN = LetterTokenizer(LETTERS_OF_MANY.replace("ï", ""))


def test_lost_characters_are_counted_with_an_example():
    total = sum(map(len, MANY))
    lost = find_lost(MANY, PLAIN, total)
    assert lost == LostCharacters(30, total, False, ("A naïve film, an", "A nave film, and"))
    assert lost.describe("plain").startswith(
        f"The tokenizer plain loses 30 of {total:,} characters ({100 * 30 / total:.2g} %): "
    )


@pytest.mark.parametrize("tokenizer", [LetterTokenizer(LETTERS_OF_MANY), CharTokenizer("abc")])
def test_a_tokenizer_of_all_letters_or_with_bytes_loses_nothing(tokenizer):
    assert find_lost(MANY, tokenizer, sum(map(len, MANY))).lost == 0


def test_lost_characters_of_a_large_source_are_counted_in_a_sample():
    sample = find_lost(MANY, PLAIN, 20_000_000)  # one in four texts
    assert (sample.lost, sample.is_sample) == (8, True)
    assert re.search(r" 8 of a sample of \d+ characters", sample.describe("plain"))


def test_an_example_of_lost_characters_is_printable():
    assert "\\ud83d" in LostCharacters(1, 9, False, ("a\ud83d", "a")).describe("word")
