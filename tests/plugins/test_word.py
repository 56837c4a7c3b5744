"""The word tokenizer's own promises: bytes as fallback, words as bounds, sizes honoured, the same each time, strict loading."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reviewgen_word import tokenizer as module
from reviewgen_word.tokenizer import WordConfig, WordTokenizer
from tokenizers import Tokenizer

from reviewgen.errors import BundleError, ConfigError, DataError

TEXTS = ["A good film, a good day.", "the good, the bad and the film\nthe film", "ภาพยนตร์ดีมาก ดีมาก 👍👍"] * 3


def train(texts=TEXTS, vocab_size=300):
    return WordTokenizer.train(iter(texts), WordConfig(vocab_size=vocab_size))


WORD = train()
EMPTY = train([])


@given(st.text())
def test_every_text_comes_back(text):
    for tokenizer in WORD, EMPTY:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert all(0 <= i < tokenizer.bos_id for i in ids)


@pytest.mark.parametrize(
    "text", ["", "ภาพยนตร์ดีมาก", "👩‍👩‍👧 🇹🇭", "a\r\nb\rc\n\n", "\x00a", "  two  Spaces ", "<s></s><|endoftext|>", "e\u0301é"]
)
def test_hard_texts_come_back(text):
    assert WORD.decode(WORD.encode(text)) == text


def test_a_lone_surrogate_becomes_a_replacement():
    assert WORD.decode(WORD.encode("a\ud83d b")) == "a\ufffd b"
    assert [ids.tolist() for ids in WORD.encode_batch(["\ude00"])] == [WORD.encode("\ufffd")]
    assert train(["a \ud83d"] * 2).encode("a \ud83d")


WHITE = " \t\n\r\x0b\x0c\x1c\x1f\x85\xa0\u180e\u1680\u2003\u200b\u2028\u2029\u202f\u205f\u3000\ufeff"


@given(st.text(st.sampled_from(WHITE + "  ab'st!9é٣ดี👍_\ud83d\x00"), max_size=40))
def test_many_texts_at_once_are_encoded_as_one_by_one(text):
    assert [ids.tolist() for ids in WORD.encode_batch([text, text])] == [WORD.encode(text)] * 2


def test_every_character_begins_or_goes_on_with_a_chunk_as_with_a_word():
    """White space is what the regular expression of the library takes for it: for each character of Unicode's first plane."""
    plane = [chr(code) for code in range(0x10000) if not 0xD800 <= code < 0xE000]
    texts = ["".join(f"a{c} b{c}{c}'s {c}" for c in plane[start : start + 64]) for start in range(0, len(plane), 64)]
    assert [ids.tolist() for ids in WORD.encode_batch(texts)] == [WORD.encode(text) for text in texts]


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "MAX_CHUNKS", 3)
    word = train()
    texts = [f"{number} {'long' * 20}" for number in range(10)]
    assert [ids.tolist() for ids in word.encode_batch(texts * 2)] == [word.encode(text) for text in texts * 2]
    assert list(word._chunks) == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("texts", "most", "step"), [(64, 10**6, 1), (64, 64 * 10, 1), (64, 64 * 10 - 1, 2), (64, 100, 8), (3, 1, 4)]
)
def test_merges_are_learned_from_an_even_sample(texts, most, step):
    corpus = [f"{number:010d}" for number in range(texts)]
    assert module._thin_out(iter(corpus), most) == corpus[::step]
    whole = WordTokenizer.train(corpus[::step], WordConfig(vocab_size=300))
    sampled = WordTokenizer.train(corpus, WordConfig(vocab_size=300, sample_characters=most))
    assert sampled.encode(" ".join(corpus)) == whole.encode(" ".join(corpus))


def test_exact_ids_of_a_small_case():
    tokenizer = WordTokenizer.train(["ab ab"] * 2, WordConfig(vocab_size=260))
    assert (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_id) == (260, 258, 259)
    merged = 256, 257  # "ab", then " ab"
    assert tokenizer.encode("ab ab") == list(merged)
    assert tokenizer.decode([258, *merged, 259]) == "ab ab"
    a, b, space = (tokenizer.encode(c)[0] for c in "ab ")
    assert tokenizer.encode("b a") == [b, space, a]


def test_no_token_crosses_words():
    tokens = [WORD.decode([i]) for i in range(WORD.bos_id)]
    assert all(" " not in token[1:] for token in tokens if token.strip())
    assert "film" in {token.strip() for token in tokens}


@pytest.mark.parametrize("size", [258, 259, 280])
def test_the_vocabulary_size_is_honoured(size):
    tokenizer = train(vocab_size=size)
    assert tokenizer.vocab_size == size
    assert (tokenizer.bos_id, tokenizer.eos_id) == (size - 2, size - 1)


@pytest.mark.parametrize("texts", [[], [""], ["a"], ["one review"]])
def test_a_tiny_corpus_fills_less(texts):
    tokenizer = train(texts, vocab_size=8_000)
    assert tokenizer.vocab_size == 258
    assert tokenizer.decode(tokenizer.encode("any ❤")) == "any ❤"


def test_a_size_without_room_for_the_bytes_is_an_error():
    assert WordConfig().vocab_size == 8_000
    with pytest.raises(ConfigError, match="at least 258"):
        WordConfig(vocab_size=257)


def test_a_word_of_a_megabyte_is_trained_on_in_time():
    tokenizer = train(["a" * 1_000_000, " " * 100_000, "good film " * 20])
    assert tokenizer.decode(tokenizer.encode("good film" + "a" * 1_000)) == "good film" + "a" * 1_000


def test_other_processes_learn_the_same(tmp_path):
    program = (
        "import sys; from pathlib import Path; from reviewgen_word.tokenizer import *;"
        f"WordTokenizer.train({TEXTS!r}, WordConfig(vocab_size=300)).save(Path(sys.argv[1]));"
        "assert 'torch' not in sys.modules"
    )
    WORD.save(tmp_path)
    expected = (tmp_path / "tokenizer.json").read_bytes()
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    assert (tmp_path / "tokenizer.json").read_bytes() == expected


def test_a_failing_stream_fails_as_it_would_elsewhere():
    def texts():
        yield "good"
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        train(texts())


@given(st.lists(st.integers(0, WORD.vocab_size - 1)))
def test_any_ids_decode_as_the_library_decodes_them(ids):
    library = Tokenizer.from_str(WORD._bpe.to_str())
    assert WORD.decode(ids) == library.decode([token for token in ids if token < WORD.bos_id], skip_special_tokens=False)


def test_an_incomplete_character_ends_in_a_replacement():
    ids = EMPTY.encode("ดี")
    assert [EMPTY.decode(ids[:n]) for n in range(7)] == ["", "\ufffd", "\ufffd", "ด", "ด\ufffd", "ด\ufffd", "ดี"]


@pytest.mark.parametrize("wrong", [-1, WORD.vocab_size, 10**30])
def test_an_id_out_of_range_is_an_error(wrong):
    with pytest.raises(DataError, match=f"{wrong} is not an id"):
        WORD.decode([0, wrong])


def test_save_and_load(tmp_path):
    WORD.save(tmp_path)
    loaded = WordTokenizer.load(tmp_path)
    assert (loaded.vocab_size, loaded.bos_id) == (WORD.vocab_size, WORD.bos_id)
    assert [ids.tolist() for ids in loaded.encode_batch(TEXTS)] == [WORD.encode(text) for text in TEXTS]
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]


def rename_a_token(content):
    content["model"]["vocab"]["film of another"] = content["model"]["vocab"].pop("a")


def leave_a_gap(content):
    content["model"]["vocab"]["zzz"] = 999


def add_a_special_token(content):
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content["added_tokens"] = [{"id": WORD.bos_id, "content": "<s>", **flags}]


DAMAGES = {
    "renamed": rename_a_token,
    "a gap": leave_a_gap,
    "special": add_a_special_token,
    "normalizer": lambda content: content.update(normalizer={"type": "Lowercase"}),
    "prefix": lambda content: content["pre_tokenizer"].update(add_prefix_space=True),
    "decoder": lambda content: content.update(decoder=None),
    "merges": lambda content: content["model"]["merges"].append(["zz", "zz"]),
    "dropout": lambda content: content["model"].update(dropout=0.5),
    "no model": lambda content: content.pop("model"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_changed_file_is_refused(tmp_path, damage):
    WORD.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text("utf-8"))
    damage(content)
    path.write_text(json.dumps(content), "utf-8")
    with pytest.raises(BundleError, match=r"tokenizer\.json"):
        WordTokenizer.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"[]", b"null"])
def test_a_damaged_file_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(BundleError, match="damaged"):
        WordTokenizer.load(tmp_path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(BundleError, match="cannot be read"):
        WordTokenizer.load(tmp_path)
