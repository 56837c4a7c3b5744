"""The char tokenizer's own promises: exact ids, byte fallback, lossless for every str, strict loading."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reviewgen_char.tokenizer import CharConfig, CharTokenizer

from reviewgen.errors import BundleError, DataError

ANY_TEXT = st.text(st.characters(exclude_categories=()))  # surrogates too
ABC = CharTokenizer("abc")


def train(*texts):
    return CharTokenizer.train(iter(texts), CharConfig())


def test_ids_follow_code_points():
    tokenizer = train("ba", "cab\n")
    assert tokenizer.characters == "\nabc"
    assert tokenizer.vocab_size == 18 + 4
    assert (tokenizer.bos_id, tokenizer.eos_id) == (0, 1)
    assert tokenizer.encode("a\nc") == [19, 18, 21]


def test_an_unknown_character_is_encoded_as_the_digits_of_its_bytes():
    assert "é".encode() == b"\xc3\xa9"
    assert ABC.encode("aéb") == [18, 2 + 0xC, 2 + 0x3, 2 + 0xA, 2 + 0x9, 19]
    assert [i - 2 for i in ABC.encode("\x00")] == [0, 0]
    assert len(ABC.encode("😀")) == 8


@given(ANY_TEXT, ANY_TEXT)
def test_every_text_comes_back(training_text, text):
    tokenizer = train(training_text)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(2 <= i < tokenizer.vocab_size for i in ids)


@pytest.mark.parametrize(
    "text", ["ภาพยนตร์ดีมาก", "👩‍👩‍👧 🇹🇭", "a\r\nb\rc\n", "\x00a\x00", "abcé映abc", "\ud83d\ude00", "\ud83d", ""]
)
@pytest.mark.parametrize(
    "tokenizer", [ABC, CharTokenizer(""), train("ภาพยนตร์ดีมาก 映 \ud83d\ude00")], ids=["abc", "empty", "thai"]
)
def test_hard_texts_come_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_text_of_the_training_text_needs_no_fallback():
    text = "ดีมาก 👍 é"
    assert len(train(text).encode(text)) == len(text)


@given(st.lists(st.integers(0, ABC.vocab_size - 1)))
def test_any_ids_decode(ids):
    assert isinstance(ABC.decode(ids), str)


@given(ANY_TEXT)
def test_a_beginning_decodes_to_a_beginning(text):
    ids = ABC.encode(text)
    for stop in range(len(ids)):
        assert text.startswith(ABC.decode(ids[:stop]).rstrip("\ufffd")) or "\ufffd" in text or _has_surrogates(text)


def _has_surrogates(text):
    return any("\ud800" <= c <= "\udfff" for c in text)


def test_digits_that_are_no_character_give_a_replacement():
    e_acute = ABC.encode("é")
    assert ABC.decode(e_acute[:1]) == ABC.decode(e_acute[:2]) == "\ufffd"
    assert ABC.decode([18, *e_acute[:3], 19]) == "a\ufffd\ufffdb"
    assert ABC.decode([*ABC.encode("😀é"), *e_acute[:2]]) == "😀é\ufffd"
    assert ABC.decode([*ABC.encode("\ud800"), *e_acute[:2]]) == "\ud800\ufffd"


def test_bos_and_eos_give_no_text():
    assert ABC.decode([0, 18, 0, 1, 19, 1]) == "ab"
    assert ABC.decode([0, 1]) == ABC.decode([]) == ""


@pytest.mark.parametrize("wrong", [-1, ABC.vocab_size])
def test_an_id_out_of_range_is_an_error(wrong):
    with pytest.raises(DataError, match=f"{wrong} is not an id"):
        ABC.decode([18, wrong])


@given(st.lists(ANY_TEXT))
def test_a_batch_is_encoded_as_its_texts(texts):
    batch = ABC.encode_batch(texts)
    assert all(isinstance(ids, np.ndarray) for ids in batch)
    assert [ids.tolist() for ids in batch] == [ABC.encode(text) for text in texts]


@pytest.mark.parametrize("texts", [[], [""], ["a"], ["\ud800"]])
def test_a_tiny_corpus_serves(texts):
    tokenizer = train(*texts)
    assert tokenizer.vocab_size == 18 + len({c for text in texts for c in text if c == "a"})
    assert tokenizer.decode(tokenizer.encode("any ❤")) == "any ❤"


@given(st.lists(st.lists(ANY_TEXT)))
def test_tokenizers_of_parts_combine_to_that_of_all_texts(parts):
    combined = CharTokenizer.combine([train(*texts) for texts in parts])
    assert combined.characters == train(*(text for texts in parts for text in texts)).characters


@given(ANY_TEXT)
def test_save_and_load(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("char")
    tokenizer = train(text)
    tokenizer.save(folder)
    loaded = CharTokenizer.load(folder)
    assert loaded.characters == tokenizer.characters
    assert [path.name for path in folder.iterdir()] == ["characters.json"]


DAMAGED = {
    "nothing": b"",
    "half": b'{"schema": 1, "char',
    "not UTF-8": b'{"schema": 1, "characters": "\xff"}',
    "nested": b"[" * 100_000,
    "a list": b"[]",
    "a key missing": b'{"characters": "abc"}',
    "a key more": b'{"schema": 1, "characters": "abc", "more": 1}',
    "another schema": b'{"schema": 2, "characters": "abc"}',
    "no string": b'{"schema": 1, "characters": ["a"]}',
    "unsorted": b'{"schema": 1, "characters": "ba"}',
    "doubled": b'{"schema": 1, "characters": "aa"}',
    "a surrogate": json.dumps({"schema": 1, "characters": "a\ud800"}).encode(),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_file_is_refused(tmp_path, content):
    (tmp_path / "characters.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"characters\.json"):
        CharTokenizer.load(tmp_path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(BundleError, match="cannot be read"):
        CharTokenizer.load(tmp_path)
