"""ARPA files: those that are exported, read by the definition of the format and by KenLM; those
that lmplz has written, with the scores of KenLM; and bad ones.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import reviewgen
from reviewgen import ReviewModel
from reviewgen.errors import ConfigError
from reviewgen.export import arpa_line, export_arpa
from tests.support.fakes import TEXTS, TableModel, review_model, table
from tests.support.models import NGRAM
from tests.support.ngrams import CHAR, WORD, counted
from tests.support.saved import refusal

KENLM = json.loads((Path(__file__).parent / "kenlm_arpa.json").read_text(encoding="utf-8"))
HELD_OUT = [*TEXTS[::9], "the plot\nwas  ünlike 👍 anything.", "Zoë liked the movie", "the", ""]
SETTINGS: list[dict[str, Any]] = [
    {"order": 1},
    {"order": 2},
    {"order": 3, "smoothing": "witten-bell"},
    {"order": 4, "smoothing": "absolute", "prune_entropy": 0.001},
    {"order": 5, "quantized": True},
    {"order": 6, "min_texts": 2},
]
GOOD = """
\\data\\
ngram 1=4
ngram 2=2

\\1-grams:
-99\t<s>\t-0.30103
-0.60206\t</s>
-0.60206\ta\t-0.30103
-0.30103\tfilm

\\2-grams:
-0.20411998\t<s> a
-0.1249387\ta film

\\end\\
"""


def scores(model: ReviewModel, text: str, **conditions: int) -> np.ndarray:
    """Return the log probability (base 10) of each token of a text, and of its end."""
    tokenizer = model.tokenizer
    prefix = model.conditions.encode(conditions)
    ids = torch.tensor([[tokenizer.bos_id, *prefix, *tokenizer.encode(text), tokenizer.eos_id]])
    lm: Any = model.model
    found, _ = lm.score(ids[:, :-1], ids[:, 1:], lm.initial_state(1))
    return found[0].double().numpy() / math.log(10)


def read(file: Path) -> dict[tuple[str, ...], tuple[float, float]]:
    """Return the two numbers of each n-gram of a file."""
    ngrams = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        if "\t" in line:
            probability, words, *backoff = line.split("\t")
            ngrams[tuple(words.split(" "))] = (float(probability), float(*backoff or "0"))
    return ngrams


def brute(ngrams: dict[tuple[str, ...], tuple[float, float]], line: str) -> list[float]:
    """Return the scores of a line by the definition of the format."""

    def back_off(context: tuple[str, ...], word: str) -> float:
        if (*context, word) in ngrams:
            return ngrams[(*context, word)][0]
        return ngrams.get(context, (0, 0.0))[1] + back_off(context[1:], word)

    words = ["<s>", *line.split(), "</s>"]
    longest = max(map(len, ngrams)) - 1
    return [
        back_off(tuple(words[max(0, end - longest) : end]), words[end])
        for end in range(1, len(words))
    ]


@pytest.mark.parametrize("tokenizer", [CHAR, WORD], ids=["char", "word"])
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda each: "-".join(map(str, each.values())))
def test_an_exported_file_scores_as_the_model(settings, tokenizer, tmp_path):
    model = review_model(counted(TEXTS, tokenizer, **settings), tokenizer)
    file = export_arpa(model, tmp_path / "model.arpa")
    ngrams = read(file)
    again = reviewgen.load(file)
    for text in HELD_OUT:
        line = arpa_line(model, text)
        expected = scores(model, text)
        np.testing.assert_allclose(brute(ngrams, line), expected, atol=1e-4)
        np.testing.assert_allclose(scores(again, line), expected, atol=1e-4)


@pytest.mark.slow
def test_conditions_are_words_and_fields_are_refused(tmp_path):
    file = tmp_path / "reviews.csv"
    rows = [f"{number % 3},a band,{text}" for number, text in enumerate(TEXTS)]
    file.write_text("\n".join(["my stars,who,text", *rows]), encoding="utf-8")
    options = NGRAM | {"text_column": "text"}
    model = reviewgen.train("ngram-word", file, conditions=["my stars"], **options)
    ngrams = read(export_arpa(model, tmp_path / "model.arpa"))
    assert {("<myĠstars>",), ("<myĠstars=2>",)} < ngrams.keys()
    for values in {}, {"my stars": 2}:
        line = arpa_line(model, TEXTS[2], values)
        np.testing.assert_allclose(
            brute(ngrams, line), scores(model, TEXTS[2], **values), atol=1e-4
        )
    model = reviewgen.train("ngram-word", file, fields=["who"], **options)
    with pytest.raises(ConfigError, match="train without --field"):
        export_arpa(model, tmp_path / "fields.arpa")


@pytest.mark.slow
@pytest.mark.parametrize("order", range(2, 7))
def test_kenlm_scores_an_exported_file_as_the_model(order, tmp_path):
    kenlm = pytest.importorskip("kenlm")
    model = review_model(counted(TEXTS, WORD, order=order), WORD)
    theirs = kenlm.Model(str(export_arpa(model, tmp_path / "model.arpa")))
    for text in HELD_OUT:
        line = arpa_line(model, text)
        expected = [score for score, _, _ in theirs.full_scores(line)]
        np.testing.assert_allclose(scores(model, text), expected, atol=1e-4)


@pytest.mark.parametrize("order", KENLM["models"])
def test_a_file_of_lmplz_scores_as_with_kenlm(order, tmp_path):
    file = tmp_path / "theirs.arpa"
    file.write_text(KENLM["models"][order]["arpa"], encoding="utf-8")
    model = reviewgen.load(str(file))
    for text, expected in zip(KENLM["texts"], KENLM["models"][order]["scores"], strict=True):
        np.testing.assert_allclose(scores(model, text), expected, atol=1e-4)


def test_a_model_from_a_file_evaluates_generates_explains_and_is_saved(tmp_path, run_command):
    file = tmp_path / "theirs.arpa"
    file.write_text(KENLM["models"]["3"]["arpa"], encoding="utf-8")
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(KENLM["texts"]), encoding="utf-8")
    said = []
    for words in (
        ("evaluate", file, "--data", texts),
        ("generate", file, "-n", 2, "--seed", 1, "--prompt", "alice was", "--json"),
        ("explain", file, "--text", "alice was beginning"),
        ("export", file, "--arpa", tmp_path / "again.arpa"),
    ):
        status, output, problem = run_command(*words)
        assert status == 0, problem
        said.append(output)
    model = reviewgen.load(file)
    bits = model.evaluate(KENLM["texts"]).bits_per_character
    nats = [sum(each) * math.log(10) for each in KENLM["models"]["3"]["scores"]]
    assert bits == pytest.approx(-sum(nats) / math.log(2) / sum(map(len, KENLM["texts"])), abs=1e-4)
    assert f"{bits:.4f} bits per character" in said[0] and "ARPA file" in said[2]
    assert all(text.startswith("alice was ") for text in json.loads(said[1])["texts"])
    model.save_pretrained(tmp_path / "ours")
    for again in (tmp_path / "ours", tmp_path / "again.arpa"):
        loaded = reviewgen.load(again)
        assert loaded.evaluate(KENLM["texts"]).bits_per_character == pytest.approx(bits, abs=1e-5)
        assert loaded.generate_one(seed=3) == model.generate_one(seed=3)


def test_what_has_no_form_in_a_file_is_not_exported(tmp_path, run_command, model_folder):
    file = tmp_path / "model.arpa"
    for smoothing in ("none", "stupid-backoff"):
        model = review_model(counted(TEXTS, WORD, smoothing=smoothing), WORD)
        with pytest.raises(ConfigError, match=f"smoothing='{smoothing}'"):
            export_arpa(model, file)
    with pytest.raises(ConfigError, match="does not consist of n-grams"):
        export_arpa(review_model(TableModel(table(WORD.vocab_size)), WORD), file)
    status, _, said = run_command("export", model_folder("gru-char"), "--arpa", file)
    assert status == 2 and "'gru' does not consist of n-grams" in said
    status, _, said = run_command("export", model_folder("ngram-char"), "--arpa", file)
    assert status == 0 and read(file)
    status, _, said = run_command("export", model_folder("ngram-char"), "--arpa", file)
    assert status == 1 and "already exists" in said


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("\\data\\", "nothing", "ends where \\data\\ should be"),
        ("ngram 1=4", "ngram 1=four", "line 3 should be ngram 1=COUNT; got 'ngram 1=four'"),
        ("ngram 2=2", "ngram 3=2", "line 4 should be ngram 2=COUNT"),
        ("ngram 2=2", "ngram 2=3", "declares 3 n-grams of order 2 and has 2"),
        ("ngram 2=2", "ngram 2=1", "line 14 should be \\end\\ after 1 n-grams of order 2"),
        ("ngram 1=4", "ngram 1=3", "line 10 should be \\2-grams: after 3"),
        ("ngram 2=2", "ngram 2=20000000", "is truncated: 20,000,004 n-grams do not fit in"),
        (
            "ngram 1=4",
            "ngram 1=2000000",
            "2,000,000 words and 2,000,002 n-grams; at most 1,000,000",
        ),
        ("-0.1249387\ta film\n\n\\end\\", "", "ends where n-grams of order 2 should be"),
        ("\\end\\", "", "ends where \\end\\ should be"),
        ("-0.20411998", "-0,12", "line 13 should have a logarithm of at most 0, 2 words"),
        ("-0.20411998", "nan", "got 'nan <s> a'"),
        ("-0.20411998", "0.5", "line 13"),
        ("-0.60206\ta\t-0.30103", "-0.60206\ta\t400", "at most 30; got '-0.60206 a 400'"),
        ("<s> a", "<s> a a a", "line 13"),
        ("<s> a", "<s> b", "line 13 has '<s> b', not all of which are 1-grams"),
        ("-0.60206\t</s>", "-0.60206\ta", "line 9 has the word 'a' again"),
        ("</s>", "<end>", "its 1-grams lack </s>"),
        ("<s> a", "a <s>", "the beginning of a text stands inside an n-gram"),
        ("<s> a", "a film", "an n-gram of order 2 occurs twice"),
        ("-0.20411998", "-0.9", "after a context do not sum to one"),
        ("film", "\udcff", "its words are not UTF-8"),
    ],
)
def test_a_bad_file_is_refused_in_one_sentence(old, new, said, tmp_path):
    file = tmp_path / "bad.arpa"
    assert old in GOOD
    file.write_bytes(GOOD.replace(old, new).encode("utf-8", "surrogateescape"))
    message = refusal(file)
    assert said in message and "Write it again" in message


def test_the_smallest_file_is_read(tmp_path):
    file = tmp_path / "good.arpa"
    file.write_text(GOOD, encoding="utf-8")
    model = reviewgen.load(file)
    np.testing.assert_allclose(10 ** scores(model, "a film"), [0.625, 0.75, 0.25], atol=1e-5)
    # <unk> is not in the file, so a word that is not in the file has probability zero
    assert scores(model, "a dog")[1] == -np.inf
    longer = GOOD.replace("ngram 2=2\n", "ngram 2=2\nngram 3=1\n").replace(
        "\\end\\", "\\3-grams:\n-0.1\tfilm a film\n\n\\end\\"
    )
    file.write_text(longer, encoding="utf-8")
    assert "an n-gram of order 3 begins or ends with one of order 2 that is missing" in refusal(
        file
    )
    assert "no such folder" in refusal(tmp_path / "missing.arpa")
