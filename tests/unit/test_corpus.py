"""The corpus on disk: one pass, a split by the hash of each text, a validation source, bad corpora."""

import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reviewgen_char.tokenizer import CharConfig, CharTokenizer

from reviewgen.data import SPLITS, DataConfig, describe, gather, read_documents, read_examples, shards, trained_on
from reviewgen.data.cleaning import hash_text
from reviewgen.data.corpus import split_by_hash
from reviewgen.errors import ConfigError, DataError


def split_of(corpus):
    return {text: split for split in SPLITS for text in corpus.texts(split)}


def folder_in(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    return folder


def test_the_split_is_90_5_5_and_independent_of_order_and_company(tmp_path):
    rng = random.Random(0)
    texts = [f"{rng.random()} {number}" for number in range(20_000)]
    corpus = gather(texts, folder_in(tmp_path, "a"), DataConfig())
    shares = [corpus.count(split) / len(texts) for split in SPLITS]
    assert shares == pytest.approx([0.9, 0.05, 0.05], abs=0.006)  # four standard deviations
    whole = split_of(corpus)
    shuffled = rng.sample(texts, len(texts))
    reordered = gather((text for text in shuffled), folder_in(tmp_path, "b"), DataConfig())
    assert split_of(reordered) == whole
    part = split_of(gather([*shuffled[:500], "one more"], folder_in(tmp_path, "c"), DataConfig()))
    assert all(whole[text] == split for text, split in part.items() if text != "one more")


def test_the_split_of_a_text_never_changes():
    texts = [f"review {number}" for number in range(40)]
    codes = split_by_hash(np.array([hash_text(text) for text in texts], np.uint64))
    assert "".join(str(code) for code in codes) == GOLDEN


GOLDEN = "0010000000100000000002000002000000010020"


def test_texts_keep_their_order_and_come_back_exactly(tmp_path):
    texts = ["line\nbreak", "\u2028\u0085\r", "ดี 😀", "\ud83d\ude00", "\ud800", 'quote"\\', " ", "", "a", "a"]
    corpus = gather(texts, folder_in(tmp_path, "a"), DataConfig(clean=False))
    where = dict(zip(texts, corpus.splits, strict=True))
    for code, split in enumerate(SPLITS):
        assert list(corpus.texts(split)) == [text for text in texts if where[text] == code]
        assert list(corpus.texts(split)) == list(corpus.texts(split))
    assert sum(corpus.count(split) for split in SPLITS) == corpus.report.kept == len(texts)


@given(st.lists(st.text("abcdefgh", min_size=1, max_size=3), min_size=2, max_size=10, unique=True))
@settings(max_examples=300, deadline=None)
def test_a_tiny_corpus_has_train_and_validation(texts):
    codes = split_by_hash(np.array([hash_text(text) for text in texts], np.uint64))
    assert {0, 1} <= set(codes.tolist())


@given(st.lists(st.sampled_from("abcdefghijkl"), min_size=1, max_size=10))
@settings(max_examples=300, deadline=None)
def test_duplicates_stay_on_one_side(texts):
    codes = split_by_hash(np.array([hash_text(text) for text in texts], np.uint64)).tolist()
    assert len(set(zip(texts, codes, strict=True))) == len(set(texts))
    assert 0 in codes
    assert (1 in codes) == (len(set(texts)) > 1)


def test_a_validation_source_replaces_the_split_and_reports_overlaps(tmp_path):
    texts, held_out = [f"train {number}" for number in range(50)], ["held out 1", "train 3", "held out 2", "train 7"]
    corpus = gather(texts, folder_in(tmp_path, "a"), DataConfig(), validation=held_out)
    assert list(corpus.texts("train")) == texts
    assert list(corpus.texts("validation")) == held_out
    assert corpus.count("test") == 0
    assert corpus.notes == ["2 of 4 validation texts are also in the training text."]
    assert corpus.report.read == 50
    alone = gather(texts, folder_in(tmp_path, "b"), DataConfig(), validation=["other"])
    assert alone.notes == []


def test_files_for_both_sources(tmp_path):
    (tmp_path / "a.txt").write_bytes("oné\n".encode() + b"two\xff\n")
    (tmp_path / "b.csv").write_text("text\nthree\n")
    corpus = gather(tmp_path / "a.txt", folder_in(tmp_path, "w"), DataConfig(), validation=tmp_path / "b.csv")
    assert (list(corpus.texts("train")), list(corpus.texts("validation"))) == (["oné", "two\ufffd"], ["three"])
    assert corpus.report.decode_errors == 1


def test_the_fingerprint_tells_corpora_apart(tmp_path):
    def fingerprint(name, *arguments, **options):
        return gather(arguments[0], folder_in(tmp_path, name), DataConfig(**options), *arguments[1:]).fingerprint

    plain = fingerprint("a", ["A", "b", "c"])
    assert fingerprint("b", (text for text in ["A", "b", "c", "A"])) == plain
    others = [
        fingerprint("c", ["A", "c", "b"]),
        fingerprint("d", ["A", "b"]),
        fingerprint("e", ["A", "b", "c"], lowercase=True),
        fingerprint("f", ["A", "b"], ["c"]),
    ]
    assert len({plain, *others}) == 5


@pytest.mark.parametrize("workers", ["1", "2"])
def test_mojibake_is_said_with_an_example(tmp_path, monkeypatch, workers):
    monkeypatch.setenv("REVIEWGEN_WORKERS", workers)
    monkeypatch.setattr(shards, "_PART_BYTES", 1)
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text(f"plain {number}\ncafÃ© {number}\n", encoding="utf-8")
    corpus = gather(str(tmp_path / "*.txt"), folder_in(tmp_path, "w"), DataConfig())
    said = "3 texts seem to be decoded wrongly, as in 'cafÃ© 0': --fix-encoding (fix_encoding=True) mends them."
    assert corpus.notes == [said] == describe(corpus.stream, corpus.report)[:1]
    mended = gather(str(tmp_path / "*.txt"), folder_in(tmp_path, "m"), DataConfig(fix_encoding=True))
    assert {text for split in SPLITS for text in mended.texts(split)} >= {"café 0", "café 1", "café 2", "plain 0"}
    assert mended.notes == []
    assert describe(mended.stream, mended.report)[-1].endswith("encodings mended 3.")


def test_cleaning_of_earlier_records_is_read():
    """A training.json of before has neither fix_encoding nor the newer counts."""
    tokenizer = CharTokenizer.train(["café Ã©"], CharConfig())
    old = {"source": "x", "lowercase": True, "strip_markdown": False, "clean": True, "cleaning": {"read": 2, "kept": 2}}
    new = old | {"fix_encoding": True}
    assert trained_on({"data": old}) == [old | {"fix_encoding": False}]
    assert trained_on({"data": new}) == [new]
    assert trained_on({}) == [{}]
    for trained, characters in ((old, len("cafã©")), (new, len("café"))):
        ((_, count),) = read_documents(["CAFÃ©"], tokenizer, [trained])
        assert count == characters
    with pytest.raises(ConfigError, match="this model was trained with fix_encoding=True; use the same"):
        list(read_documents(["CAFÃ©"], tokenizer, [new], fix_encoding=False, split="test"))


def texts_of(*args, **options):
    """Return the texts of ``read_examples``."""
    return [text for text, _ in read_examples(*args, **options)]


@pytest.mark.parametrize("texts", [["", " ", "<br>"], ["\n"]])
def test_nothing_left_after_cleaning(tmp_path, texts):
    message = rf"No reviews are left of list of texts after cleaning \({len(texts)} read, {len(texts)} empty\)\."
    with pytest.raises(DataError, match=message):
        gather(texts, tmp_path, DataConfig())
    with pytest.raises(DataError, match=message):
        texts_of(texts, folder_in(tmp_path, "again"), DataConfig())


def test_an_empty_validation_source(tmp_path):
    with pytest.raises(DataError, match="holds no texts"):
        gather(["a", "b"], tmp_path, DataConfig(), validation=[])


def test_read_examples_of_all_and_of_a_split(tmp_path):
    texts = [f"review {number}" for number in range(200)]
    assert texts_of(texts, folder_in(tmp_path, "a"), DataConfig()) == texts
    parts = [texts_of(texts, folder_in(tmp_path, name), DataConfig(), split=name) for name in SPLITS]
    assert sorted(text for part in parts for text in part) == sorted(texts)
    with pytest.raises(ConfigError, match="A split is all, train, validation or test; got 'dev'"):
        texts_of(texts, tmp_path, DataConfig(), split="dev")
    with pytest.raises(DataError, match="The test split of list of texts is empty: it has 2 texts in all"):
        texts_of(["a", "b"], folder_in(tmp_path, "few"), DataConfig(), split="test")


def test_a_source_is_read_once_and_spooled_as_json_lines(tmp_path):
    given_out = []

    def source():
        for number in range(300):
            given_out.append(number)
            yield f"text {number}"

    corpus = gather(source(), tmp_path, DataConfig())
    assert given_out == list(range(300))
    assert [json.loads(line) for line in corpus.spool.open(encoding="utf-8")] == [f"text {number}" for number in range(300)]
