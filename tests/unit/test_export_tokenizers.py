"""Tokenizers as other programs have them: the libraries tokenizers and transformers give the ids and texts of reviewgen."""

import random

import hypothesis
import pytest
from hypothesis import strategies as st
from reviewgen_char.tokenizer import CharTokenizer
from reviewgen_word.tokenizer import WordConfig, WordTokenizer
from tokenizers import Tokenizer
from transformers import AutoTokenizer

import reviewgen
from reviewgen.errors import ConfigError, OutputExists
from reviewgen.export import export_transformers
from reviewgen.testing import NASTY_TEXTS
from tests.unit.fakes import LETTERS, TEXTS, TableModel, review_model, run_command, table

PUNCTUATION = "[]^-\\&\"'/.*+?(){}|$#~"
WORD = WordTokenizer.train([*TEXTS, "<bos> and <eos> and <bos> and <eos>"] * 3, WordConfig(vocab_size=400))
CHARS = {
    "none": CharTokenizer(""),
    "signs": CharTokenizer("".join(sorted(PUNCTUATION + " \x00\x7f\x80é日😀\ud7ff\ue000"))),
    "digits": CharTokenizer("".join(sorted("0123456789abcdefABCDEF│①②⑯⓪"))),
    "shipped": reviewgen.load("ngram-char").tokenizer,
}
TEXTS_TO_ENCODE = [
    *(text for text in NASTY_TEXTS if not any("\ud800" <= c <= "\udfff" for c in text)),
    *TEXTS[:5],
    f"{PUNCTUATION}{PUNCTUATION}",
    "│⑥①│⑫③ 日本語 €",
]


def library(tokenizer):
    return Tokenizer.from_str(tokenizer.tokenizer_json())


@pytest.mark.parametrize("tokenizer", [*CHARS.values(), WORD], ids=[*CHARS, "word"])
def test_the_library_gives_the_same_ids_and_texts(tokenizer):
    other = library(tokenizer)
    assert other.get_vocab_size() == tokenizer.vocab_size
    for text in TEXTS_TO_ENCODE:
        ids = tokenizer.encode(text)
        assert other.encode(text).ids == ids, text[:40]
        assert other.decode([tokenizer.bos_id, *ids, tokenizer.eos_id]) == text


@pytest.mark.parametrize("tokenizer", [CHARS["signs"], WORD], ids=["char", "word"])
def test_any_text_and_any_ids(tokenizer):
    other = library(tokenizer)

    @hypothesis.settings(max_examples=300, database=None, derandomize=True)
    @hypothesis.given(st.text())
    def check(text):
        assert other.encode(text).ids == tokenizer.encode(text)
        assert other.decode(tokenizer.encode(text)) == text

    check()
    draw = random.Random(0)
    for _ in range(500):  # lone digits of char and lone bytes of word among them
        ids = [draw.randrange(min(40, tokenizer.vocab_size)) for _ in range(draw.randrange(12))]
        assert other.decode(ids) == tokenizer.decode(ids), ids


@pytest.mark.parametrize("tokenizer", [CHARS["shipped"], WORD], ids=["char", "word"])
def test_transformers_loads_it_and_saves_it_again(tokenizer, tmp_path):
    model = review_model(TableModel(table(tokenizer.vocab_size)), tokenizer)
    export_transformers(model, tmp_path / "tokenizer")
    first = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    first.save_pretrained(tmp_path / "again")
    for loaded in (first, AutoTokenizer.from_pretrained(tmp_path / "again")):
        assert loaded.is_fast and len(loaded) == tokenizer.vocab_size
        assert (loaded.bos_token_id, loaded.eos_token_id) == (tokenizer.bos_id, tokenizer.eos_id)
        for text in [*TEXTS_TO_ENCODE, f"{loaded.bos_token} a {loaded.eos_token}", "<bos><eos>"]:
            ids = tokenizer.encode(text)
            assert loaded(text).input_ids == ids, text[:40]
            assert loaded.decode([tokenizer.bos_id, *ids, tokenizer.eos_id], skip_special_tokens=True) == text
        assert loaded([TEXTS[0], TEXTS[1]]).input_ids == [tokenizer.encode(text) for text in TEXTS[:2]]


def test_a_text_that_spells_a_special_token_is_a_text():
    other = library(WORD)
    assert other.token_to_id("<bos>") == WORD.bos_id
    assert other.encode("<bos>").ids == WORD.encode("<bos>")
    assert [other.id_to_token(token) for token in WORD.encode("<bos>")] == ["<", "bos", ">"], "as the corpus teaches"


def test_the_command(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "deep" / "tokenizer"
    status, output, problem = run_command(monkeypatch, capsys, "export", "ngram-word", "--transformers", folder)
    assert (status, problem.strip()) == (0, "") and str(folder) in output
    assert {path.name for path in folder.iterdir()} == {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
    status, _, problem = run_command(monkeypatch, capsys, "export", "ngram-word", "--transformers", folder)
    assert status == 1 and "already exists" in problem
    assert run_command(monkeypatch, capsys, "export", "ngram-word", "--transformers", folder, "--overwrite", "--json")[0] == 0
    (folder.parent / "mine.txt").write_text("a file of the user's")
    status, _, problem = run_command(monkeypatch, capsys, "export", "ngram-word", "--transformers", folder.parent, "--overwrite")
    assert status == 1 and "is not replaced" in problem
    assert sorted(path.name for path in folder.parent.iterdir()) == ["mine.txt", "tokenizer"]


def test_a_tokenizer_without_a_json(tmp_path):
    model = review_model(TableModel(table(LETTERS.vocab_size)), LETTERS)
    with pytest.raises(ConfigError, match="'fake' has no tokenizer_json"):
        export_transformers(model, tmp_path / "tokenizer")
    assert not list(tmp_path.iterdir())
    (tmp_path / "there").touch()
    with pytest.raises(OutputExists, match="already exists"):
        export_transformers(model, tmp_path / "there", overwrite=True)
