"""Tokenizers as other programs have them: the libraries tokenizers and transformers give the ids and texts of reviewgen."""

import random
from pathlib import Path

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
from reviewgen.export.folders import TRANSFORMERS, export_folder
from reviewgen.testing import NASTY_TEXTS
from tests.support.fakes import LETTERS, TEXTS, TableModel, review_model, run_command, table

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
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
    assert {path.name for path in folder.iterdir()} == {*FILES, "reviewgen-export.json"}
    status, _, problem = run_command(monkeypatch, capsys, "export", "ngram-word", "--transformers", folder)
    assert status == 1 and "already exists" in problem
    assert run_command(monkeypatch, capsys, "export", "ngram-word", "--transformers", folder, "--overwrite", "--json")[0] == 0
    (folder.parent / "mine.txt").write_text("a file of the user's")
    status, _, problem = run_command(monkeypatch, capsys, "export", "ngram-word", "--transformers", folder.parent, "--overwrite")
    assert status == 1 and "is not replaced" in problem
    assert sorted(path.name for path in folder.parent.iterdir()) == ["mine.txt", "tokenizer"]


def content_of(folder):
    return {path.relative_to(folder): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def test_nothing_but_an_export_is_replaced(tmp_path):
    model = reviewgen.load("ngram-word")
    export_transformers(model, tmp_path / "export")
    AutoTokenizer.from_pretrained(tmp_path / "export").save_pretrained(tmp_path / "theirs")
    others = {
        "bert": ["tokenizer_config.json", "model.safetensors", "thesis/chapter.tex"],  # as from the Hub, with work beside it
        "names": FILES,  # the names of an export, by somebody else
        "other": ["reviewgen-export.json", *FILES],  # a file of this name that is something else
    }
    for name, files in others.items():
        for file in files:
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_text('{"files": []}')
    for name in (*others, "theirs"):
        before = content_of(tmp_path / name)
        with pytest.raises(OutputExists, match="is not an export of reviewgen --transformers, so it is not replaced"):
            export_transformers(model, tmp_path / name, overwrite=True)
        assert content_of(tmp_path / name) == before
    (tmp_path / "empty").mkdir()
    export_transformers(model, tmp_path / "empty", overwrite=True)
    assert content_of(tmp_path / "empty") == content_of(tmp_path / "export")


@pytest.mark.parametrize("other", ["notes.txt", "tokenizer.json/notes.txt"])
def test_an_export_with_other_files_is_left_alone(tmp_path, other):
    model = reviewgen.load("ngram-word")
    export_transformers(model, tmp_path / "export")
    (tmp_path / "export" / other.partition("/")[0]).unlink(missing_ok=True)
    (tmp_path / "export" / other).parent.mkdir(exist_ok=True)
    (tmp_path / "export" / other).write_text("mine")
    before = content_of(tmp_path / "export")
    with pytest.raises(OutputExists, match=f"other files than those of the export, '{other.partition('/')[0]}', so it is not"):
        export_transformers(model, tmp_path / "export", overwrite=True)
    assert content_of(tmp_path / "export") == before


def test_a_file_that_is_written_while_an_export_is_made_is_kept(tmp_path):
    export_transformers(reviewgen.load("ngram-word"), tmp_path / "export")
    with pytest.raises(OutputExists, match=r"notes\.txt"), export_folder(tmp_path / "export", TRANSFORMERS, overwrite=True):
        (tmp_path / "export" / "notes.txt").write_text("mine")
    assert content_of(tmp_path / "export").keys() > {Path("notes.txt"), Path("tokenizer.json")}
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_a_tokenizer_without_a_json(tmp_path):
    model = review_model(TableModel(table(LETTERS.vocab_size)), LETTERS)
    with pytest.raises(ConfigError, match="'fake' has no tokenizer_json"):
        export_transformers(model, tmp_path / "tokenizer")
    assert not list(tmp_path.iterdir())
    (tmp_path / "there").touch()
    with pytest.raises(OutputExists, match="already exists"):
        export_transformers(model, tmp_path / "there", overwrite=True)


def test_two_exports_in_one_folder_are_refused_at_once(tmp_path, monkeypatch, capsys):
    words = ("export", "lstm-char", "--onnx", tmp_path / "m", "--transformers", tmp_path / "m")
    status, _, said = run_command(monkeypatch, capsys, *words)
    assert status == 2 and "name the same folder" in said and not (tmp_path / "m").exists()
