"""The tokenizers in JavaScript give the ids, texts and bytes that Python's give."""

import random
from functools import cache
from pathlib import Path

import pytest
from reviewgen_char.tokenizer import CharTokenizer
from reviewgen_word.tokenizer import WordConfig, WordTokenizer

from reviewgen.generation import Pieces
from reviewgen.registry import find_weights
from reviewgen.sentences import sentence_ends
from tests.support.fakes import TEXTS
from tests.support.node import why_no_node
from tests.support.web_engine import ask, tokenizer_source

pytestmark = pytest.mark.skipif(why_no_node() is not None, reason=str(why_no_node()))
ODD = [
    "", " ", "  ", "a", " a", "a ", "don't they'll WE'VE 'S 's", "1,000 dollars in 1999",
    "naïve café \u00a0x\u0085y\ufeffz", "\r\n\t x \n\n",
    "日本語のテキスト。 good", "👍🏽 👨‍👩‍👧", "\u0000\u0001\x7f", "e\u0301", "ｆｕｌｌ", "\u2028x\u2029",
    "\u3000\u1680z", "½ ² ٣ Ⅷ 〇", "_a_b __c",
    "</script><!--", "a" * 300, " " * 70 + "x", "!?!?..., ;", "\u200bx\u200d", "\U0001d54f\U0001d7d8", "x\ufffdy", "'", "''s",
    "’s", "ǅ ß ſ",
    "__proto__ constructor", "\u180ex",
]  # fmt: skip
LONE = ["\ud83d", "a\ude00b", "x\ud800"]


def texts() -> list[str]:
    """Return sentences, odd texts, and random mixtures of characters of many scripts."""
    draw = random.Random(0)
    alphabets = ["abcdefgh  '.", "éàñü ß", "日本語 。", "абв ", " \n\t\r\u00a0\u0085", "0123½², ", "👍🏽\u200d ", "'stmrelvd "]
    every = "".join(alphabets)
    mixed = ["".join(draw.choices(draw.choice([*alphabets, every]), k=draw.randint(1, 40))) for _ in range(2000)]
    anything = ["".join(chr(_code(draw)) for _ in range(draw.randint(1, 20))) for _ in range(2000)]
    return [*TEXTS, *ODD, *mixed, *anything]


def _code(draw: random.Random) -> int:
    code = draw.randrange(0x30000)
    return 0x41 if 0xD800 <= code <= 0xDFFF else code


@cache
def tokenizers() -> dict[str, tuple[str, object]]:
    """Return trained tokenizers by a name, each with the name of its plugin."""
    shipped = {name: find_weights(f"lstm-{name}") for name in ("char", "word")}
    return {
        "char": ("char", CharTokenizer.train(TEXTS, CharTokenizer.Config())),
        "word": ("word", WordTokenizer.train(TEXTS * 3, WordConfig(vocab_size=400))),
        "shipped char": ("char", CharTokenizer.load(shipped["char"])),
        "shipped word": ("word", WordTokenizer.load(shipped["word"])),
    }


def files_of(tokenizer, folder: Path) -> dict[str, str]:
    tokenizer.save(folder)
    return {file.name: file.read_text(encoding="utf-8") for file in folder.iterdir() if file.suffix == ".json"}


def question(name: str, folder: Path) -> tuple[object, dict[str, object]]:
    plugin, tokenizer = tokenizers()[name]
    own = folder / "files"
    own.mkdir()
    return tokenizer, {"source": tokenizer_source(plugin), "files": files_of(tokenizer, own)}


@pytest.mark.parametrize("name", ["char", "word", "shipped char", "shipped word"])
def test_ids_texts_and_bytes_are_those_of_python(name, tmp_path):
    tokenizer, asked = question(name, tmp_path)
    given, draw = texts(), random.Random(1)
    odd_ids = [[draw.randrange(tokenizer.vocab_size) for _ in range(draw.randint(0, 12))] for _ in range(3000)]
    found = ask(tmp_path, "tokenize", **asked, texts=given, ids=odd_ids)
    assert [found[key] for key in ("vocabSize", "bosId", "eosId")] == [tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_id]
    assert found["encoded"] == [tokenizer.encode(text) for text in given]
    assert found["bytes"] == [list(each) for each in tokenizer.token_bytes()]
    assert [plain(text) for text in found["decoded"]] == [plain(tokenizer.decode(ids)) for ids in odd_ids]


def plain(text: str) -> str:
    """Return a text in which two neighbouring surrogates are one character, as in every string of JavaScript."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


@pytest.mark.parametrize("name", ["char", "word"])
def test_half_characters(name, tmp_path):
    tokenizer, asked = question(name, tmp_path)
    assert ask(tmp_path, "tokenize", **asked, texts=LONE, ids=[])["encoded"] == [tokenizer.encode(text) for text in LONE]


def test_every_character_is_cut_as_in_python(tmp_path):
    """Between letters and between marks, since a cut depends on the category of a character."""
    tokenizer, asked = question("word", tmp_path)
    codes = [code for code in range(0x20000) if not 0xD800 <= code <= 0xDFFF]
    given = [f"a{chr(code)}a !{chr(code)}!" for code in codes]
    found = ask(tmp_path, "tokenize", **asked, texts=given, ids=[])["encoded"]
    other = [code for code, one, text in zip(codes, found, given, strict=True) if one != tokenizer.encode(text)]
    assert other == []


@pytest.mark.parametrize("name", ["char", "shipped word"])
def test_prompts_are_split_as_in_python(name, tmp_path):
    tokenizer, asked = question(name, tmp_path)
    given, pieces = texts()[:1500], Pieces(tokenizer)
    found = ask(tmp_path, "split", **asked, texts=given)
    splits = [pieces.split(text) for text in given]
    assert [(each["ids"], each["rest"]) for each in found] == [(each.ids, each.rest) for each in splits]


def test_sentences_end_where_they_do_in_python(tmp_path):
    draw = random.Random(2)
    parts = [
        "Mr",
        "J",
        "No",
        "I",
        "e.g",
        "etc",
        "3",
        ".",
        ". ",
        "!",
        "?”",
        "…",
        "。",
        "」",
        " Doe",
        " 5",
        "\n",
        "\u00a0",
        "\u0085",
        "é",
        "(",
        ")",
        "👍",
        "ß",
    ]
    given = ["".join(draw.choices(parts, k=draw.randint(1, 12))) for _ in range(4000)]
    found = ask(tmp_path, "sentences", texts=given)
    assert found == [[len(text[:end].encode("utf-16-le")) // 2 for end in sentence_ends(text)] for text in given]


def test_the_shipped_vocabularies_are_those_of_all_presets():
    """So the tests above cover the tokenizer of every page."""
    for tokenizer, file in (("char", "characters.json"), ("word", "tokenizer.json")):
        folders = [find_weights(f"{model}-{tokenizer}") for model in ("blend", "gru", "lstm", "ngram", "nnlm", "rnn")]
        assert len({(folder / file).read_bytes() for folder in folders if folder is not None}) == 1
