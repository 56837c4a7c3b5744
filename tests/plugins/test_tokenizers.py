"""char and word: exact ids, every text comes back, what training learns, and strict loading."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reviewgen.errors import BundleError, DataError
from reviewgen.registry.plugins import find_tokenizer

CharTokenizer: Any = find_tokenizer("char")[0]
WordTokenizer: Any = find_tokenizer("word")[0]
ANY_TEXT = st.text(st.characters(exclude_categories=()))  # surrogates too
TEXTS = [
    "A good film, a good day.",
    "the good, the bad and the film\nthe film",
    "ภาพยนตร์ดีมาก ดีมาก 👍👍",
] * 3


def train_char(*texts: str) -> Any:
    return CharTokenizer.train(iter(texts), CharTokenizer.Config())


def train_word(texts: Any = TEXTS, **settings: Any) -> Any:
    return WordTokenizer.train(
        iter(texts), WordTokenizer.Config(**({"vocab_size": 300} | settings))
    )


ABC = train_char("cab")
THAI = train_char("ภาพยนตร์ดีมาก 映 \ud83d\ude00")
WORD = train_word()
BYTES = train_word([])
EVERY = [ABC, THAI, train_char(), WORD, BYTES]


# Both.


@given(ANY_TEXT)
def test_every_text_comes_back(text):
    for tokenizer in EVERY:
        if tokenizer in (WORD, BYTES):  # which read a lone surrogate as a replacement
            text = "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text and tokenizer.encode_batch([text])[0].tolist() == ids
        assert all(
            0 <= i < tokenizer.vocab_size and i not in (tokenizer.bos_id, tokenizer.eos_id)
            for i in ids
        )


def test_a_corpus_of_next_to_nothing_is_enough():
    for texts in ([], [""], ["a"], ["\ud800"]):
        char = train_char(*texts)
        word = train_word(texts, vocab_size=8_000)
        assert char.vocab_size == 18 + (texts == ["a"]) and (
            word.vocab_size == 258 or texts == ["\ud800"]
        )
        assert char.decode(char.encode("any ❤")) == word.decode(word.encode("any ❤")) == "any ❤"


FLAGS = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
SPECIAL = {"id": WORD.bos_id, "content": "<s>", "special": True} | FLAGS
WORD_DAMAGES: dict[str, Any] = {
    "renamed": (
        lambda content: content["model"]["vocab"].update(film=content["model"]["vocab"].pop("a"))
    ),
    "no bytes": lambda content: content["model"]["vocab"].update({"映": WORD.bos_id}),
    "special": lambda content: content.update(added_tokens=[SPECIAL]),
    "normalizer": lambda content: content.update(normalizer={"type": "Lowercase"}),
    "merges": lambda content: content["model"]["merges"].append(["zz", "zz"]),
    "no model": lambda content: content.pop("model"),
}
DAMAGED_BYTES = [b"", b"{", b'{"schema": 1, "char', b"\xff\xfe", b"[" * 100_000, b"[]", b"null"]
DAMAGED_CHARACTERS = [
    b'{"schema": 1, "characters": "\xff"}',
    b'{"schema": 1, "characters": "abc", "more": 1}',
    b'{"schema": 2, "characters": "abc"}',
    b'{"schema": 1, "characters": "ba"}',
    b'{"schema": 1, "characters": "aa"}',
    json.dumps({"schema": 1, "characters": "a\ud800"}).encode(),
]


def test_a_damaged_file_is_refused(tmp_path):
    cases = [
        (CharTokenizer, "characters.json", content)
        for content in DAMAGED_BYTES + DAMAGED_CHARACTERS
    ]
    cases += [(WordTokenizer, "tokenizer.json", content) for content in DAMAGED_BYTES]
    for cls in (CharTokenizer, WordTokenizer):
        with pytest.raises(BundleError, match="cannot be read"):
            cls.load(tmp_path)
    WORD.save(tmp_path)
    whole = (tmp_path / "tokenizer.json").read_text("utf-8")
    for damage in WORD_DAMAGES.values():
        content = json.loads(whole)
        damage(content)
        cases.append((WordTokenizer, "tokenizer.json", json.dumps(content).encode()))
    for cls, name, damaged in cases:
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(BundleError, match=name.replace(".", r"\.")):
            cls.load(tmp_path)


# char.


def test_ids_of_characters_follow_code_points():
    tokenizer = train_char("ba", "cab\n")
    assert tokenizer.characters == "\nabc" and tokenizer.vocab_size == 18 + 4
    assert (tokenizer.bos_id, tokenizer.eos_id) == (0, 1)
    assert tokenizer.encode("a\nc") == [19, 18, 21]
    assert ABC.decode([0, 18, 0, 1, 19, 1]) == "ab"  # bos and eos give no text
    for wrong in (ABC.vocab_size, -1, 2**63, 10**30):
        with pytest.raises(
            DataError, match=f"^{wrong} is not an id of this tokenizer: its ids are 0 to"
        ):
            ABC.decode([18, wrong] if wrong < 2**63 else wrong)
    text = "ดีมาก 👍 é"
    assert len(train_char(text).encode(text)) == len(text)


E_ACUTE = [2 + 0xC, 2 + 0x3, 2 + 0xA, 2 + 0x9]


def test_an_unknown_character_is_encoded_as_the_digits_of_its_bytes():
    assert "é".encode() == b"\xc3\xa9"
    assert ABC.encode("aéb") == [18, *E_ACUTE, 19]
    assert [i - 2 for i in ABC.encode("\x00")] == [0, 0] and len(ABC.encode("😀")) == 8


def test_digits_that_are_not_a_character_are_decoded_as_a_replacement():
    assert ABC.decode(E_ACUTE[:1]) == ABC.decode(E_ACUTE[:2]) == "\ufffd"
    assert ABC.decode([18, *E_ACUTE[:3], 19]) == "a\ufffd\ufffdb"
    assert ABC.decode([*ABC.encode("😀é"), *E_ACUTE[:2]]) == "😀é\ufffd"
    assert ABC.decode([*ABC.encode("\ud800"), *E_ACUTE[:2]]) == "\ud800\ufffd"


@given(st.lists(st.integers(0, ABC.vocab_size - 1)), st.text())
def test_any_ids_decode_and_a_beginning_decodes_to_a_beginning(any_ids, text):
    assert isinstance(ABC.decode(any_ids), str)
    ids = ABC.encode(text)
    for stop in range(len(ids)):
        assert "\ufffd" in text or text.startswith(ABC.decode(ids[:stop]).rstrip("\ufffd"))


# word.


def test_exact_ids_of_a_small_case():
    tokenizer = train_word(["ab ab"] * 2, vocab_size=260)
    assert (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_id) == (260, 258, 259)
    assert tokenizer.encode("ab ab") == [256, 257]  # "ab", then " ab"
    assert tokenizer.decode([258, 256, 257, 259]) == "ab ab"
    a, b, space = (tokenizer.encode(c)[0] for c in "ab ")
    assert tokenizer.encode("b a") == [b, space, a]


def test_every_character_begins_or_continues_a_chunk_as_a_word():
    """White space is what the regular expression of the library takes for it: for each character of
    Unicode's first plane.
    """
    plane = [chr(code) for code in range(0x10000) if not 0xD800 <= code < 0xE000]
    texts = [
        "".join(f"a{c} b{c}{c}'s {c}" for c in plane[start : start + 64])
        for start in range(0, len(plane), 64)
    ]
    assert [ids.tolist() for ids in WORD.encode_batch(texts)] == [
        WORD.encode(text) for text in texts
    ]
