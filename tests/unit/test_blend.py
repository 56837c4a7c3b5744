"""``reviewgen.blend`` and ``reviewgen blend``: from trained models to one that is like any other."""

import json
import math
import random

import pytest
import torch

import reviewgen
from reviewgen.errors import ConfigError, DataError, NotADistribution, OutputExists
from reviewgen.registry import plugins
from tests.support.fakes import NGRAM, TEXTS, LetterTokenizer, TableModel, review_model, run_command, table, train_tiny

DRAW = random.Random(7)
NAMES = ["".join(map(DRAW.choice, ("bdfgkl", "aeiou", "mnprst", "aeiou", "vzrnl"))) for _ in range(150)]
ENDS = {"A+": "I would see it again with pleasure", "D-": "nobody should ever have to see this"}


def reviews(number, seed):
    """Return texts of names, which an n-gram knows best, and of endings that follow from the first letter, which it forgets."""
    draw = random.Random(seed)
    texts = []
    for _ in range(number):
        mark, (one, two, three) = draw.choice(["A+", "D-"]), draw.choices(NAMES, k=3)
        texts.append(f"{mark} the film of {one} and {two} with the actor {three} in it is a film, {ENDS[mark]}.")
    return texts


CORPUS, HELD_OUT, OTHERS = reviews(400, 0), reviews(60, 1), reviews(60, 2)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def ngram(cache):
    return train_tiny("ngram-char", cache, CORPUS, model={"order": 5})


@pytest.fixture(scope="module")
def gru(cache):
    training = {"batch_size": 16, "learning_rate": 0.02, "evaluations": 2, "copy_tokens": 0, "threads": 1}
    model = {"hidden_size": 64, "embedding_size": 16, "ngrams": 1}  # else it would know the names as well as the n-gram
    return train_tiny("gru-char", cache, CORPUS, steps=125, model=model, training=training)


@pytest.fixture
def both(ngram, gru):
    return reviewgen.blend([ngram, gru], data=HELD_OUT)


def test_a_blend_beats_both_of_its_parts_on_texts_that_none_has_seen(ngram, gru, both):
    bits = [model.evaluate(OTHERS).bits_per_character for model in (ngram, gru, both)]
    assert bits[2] < min(bits[:2]) - 0.01, bits


def test_what_was_fitted_is_recorded(ngram, gru, both):
    fit, weights = both.training["weights"], both.model.config.weights
    assert sum(weights) == pytest.approx(1) and min(weights) > 0.01
    assert [part["weight"] for part in both.training["parts"]] == list(weights)
    assert [part["preset"] for part in both.training["parts"]] == ["ngram-char", "gru-char"]
    assert reviewgen.graph(both).sizes["B"] == ngram.training["config"]["batch_size"]
    assert [part["config"] for part in both.training["parts"]] == [ngram.training["config"], gru.training["config"]]
    bits = fit["bits_per_character"]
    expected = [model.evaluate(HELD_OUT).bits_per_character for model in (ngram, gru)]
    assert bits["parts"] == pytest.approx(expected, abs=1e-5)
    assert bits["equal_weights"] == pytest.approx(reviewgen.blend([ngram, gru]).evaluate(HELD_OUT).bits_per_character, abs=1e-5)
    assert bits["fitted_weights"] == pytest.approx(both.evaluate(HELD_OUT).bits_per_character, abs=1e-5)
    assert bits["fitted_weights"] <= bits["fixed_weights"] <= min(*bits["parts"], bits["equal_weights"])
    fixed = reviewgen.blend([ngram, gru], list(weights)).evaluate(HELD_OUT).bits_per_character
    assert bits["fixed_weights"] == pytest.approx(fixed, abs=1e-5)
    assert len(both.model.config.gate["coefficients"]) == 2
    assert (fit["method"], fit["source"], fit["split"]) == ("gate", "list", "all")
    assert fit["characters"] == sum(map(len, HELD_OUT)) and fit["tokens"] == fit["characters"] + len(HELD_OUT)
    assert f"gru-char: weight {weights[1]:.4f}, {bits['parts'][1]:.4f} bits per character" in both.bundle.card
    json.dumps(both.training, allow_nan=False)


def test_it_is_saved_and_loaded(both, tmp_path):
    both.save_pretrained(tmp_path / "both")
    again = reviewgen.load(tmp_path / "both")
    ids = torch.randint(both.tokenizer.vocab_size, (2, 12))
    with torch.no_grad():
        expected, _ = both.model(ids, both.model.initial_state(2))
        logits, _ = again.model(ids, again.model.initial_state(2))
    assert torch.equal(logits, expected)
    assert again.score("A+ the film of") == both.score("A+ the film of")
    assert again.evaluate(OTHERS) == both.evaluate(OTHERS)
    assert again.training == both.training
    assert again.novelty(CORPUS[0]).longest_tokens == both.novelty(CORPUS[0]).longest_tokens > 20


def test_it_generates(both):
    texts = both.generate("A+ the ", num_return_sequences=3, seed=1)
    assert all(text.startswith("A+ the ") and len(text) > 20 for text in texts)
    assert texts == both.generate("A+ the ", num_return_sequences=3, seed=1)
    assert both.generation_config == reviewgen.blend([both, both]).generation_config


def test_sources_weights_and_blends_go_in(ngram, gru, tmp_path):
    ngram.save_pretrained(tmp_path / "n")
    blend = reviewgen.blend([tmp_path / "n", gru], [1, 3])
    assert blend.model.config.weights == (0.25, 0.75)
    assert blend.training["weights"] == {"method": "given"}
    outer = reviewgen.blend((blend, ngram))
    outer.save_pretrained(tmp_path / "outer")
    again = reviewgen.load(tmp_path / "outer")
    assert again.score("A+ the film") == outer.score("A+ the film")
    assert again.training["parts"][0]["parts"][1]["weight"] == 0.75
    assert reviewgen.load(tmp_path / "n").model.config.vocab_size == again.model.config.vocab_size


def test_a_folder_with_tensors_that_do_not_fit_is_refused(both, tmp_path):
    both.save_pretrained(tmp_path / "both")
    file = tmp_path / "both" / "config.json"
    config = json.loads(file.read_text())
    config["model"]["config"]["models"][1]["config"]["hidden_size"] = 1 << 20
    file.write_text(json.dumps(config))
    with pytest.raises(reviewgen.ReviewgenError, match=r"1\.output\.weight in model\.safetensors is F32 .*1048576"):
        reviewgen.load(tmp_path / "both")
    config["model"]["config"]["models"][1] |= {"name": "gone", "distribution": "reviewgen-gone"}
    file.write_text(json.dumps(config))
    with pytest.raises(reviewgen.ReviewgenError, match="pip install reviewgen-gone"):
        reviewgen.load(tmp_path / "both")


def test_the_index_goes_along_where_all_were_trained_on_the_same(cache, ngram, both):
    assert both.bundle.index is not None and "membership tests" in both.bundle.card
    other = train_tiny("ngram-char", cache, CORPUS[:-1], model={"order": 3})
    blend = reviewgen.blend([ngram, other])
    assert blend.bundle.index is None and "fingerprint" not in blend.training["data"]
    with pytest.raises(DataError, match="blend of models of different corpora"):
        blend.novelty("A+ the film")


def test_a_split_is_refused_where_it_is_not_that_of_every_part(cache, ngram):
    other = train_tiny("ngram-char", cache, CORPUS, validation=HELD_OUT, model={"order": 3})
    assert reviewgen.blend([ngram, ngram]).evaluate(CORPUS, split="test").reviews == ngram.training["data"]["reviews"]["test"]
    blend = reviewgen.blend([ngram, other])
    with pytest.raises(ConfigError, match="with a separate validation source"):
        blend.evaluate(CORPUS, split="test")


def test_infinite_bits_are_said(cache):
    settings = {"order": 12, "smoothing": "none"}
    parts = [train_tiny("ngram-char", cache, CORPUS, model=settings | {"order": order}) for order in (11, 12)]
    blend = reviewgen.blend(parts, data=OTHERS)
    fit = blend.training["weights"]
    assert fit["zero_probability_tokens"] == blend.evaluate(OTHERS).zero_probability_tokens > 0
    assert fit["bits_per_character"]["fitted_weights"] is None
    assert "infinite (some tokens have probability zero)" in blend.bundle.card


def refusal(*arguments, error=ConfigError, **options):
    """Return the one sentence with which a blend is refused."""
    with pytest.raises(error) as caught:
        reviewgen.blend(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_bad_input_gets_one_clear_sentence(ngram, gru, tmp_path):
    assert "at least two models; got 1" in refusal([ngram])
    assert "at least two models; got 0" in refusal([])
    assert "a list of models, as in blend([a, b]); got ReviewModel" in refusal(ngram, gru)
    assert "what load takes, a string or a Path; got 3" in refusal([ngram, 3])
    assert "not both" in refusal([ngram, gru], [1, 1], data=HELD_OUT)
    for weights in ([1], [1, 0], [1, -1], [1, "a"], [1, True], [1, math.nan], [1, math.inf], "0.3,0.7", 1, []):
        assert "weights must be 2 numbers above 0, one per model; got" in refusal([ngram, gru], weights)
    assert "holds no texts" in refusal([ngram, gru], data=[], error=DataError)
    assert "A split is" in refusal([ngram, gru], data=HELD_OUT, split="half")


def test_different_tokenizers_are_named(cache, ngram):
    other = train_tiny("ngram-char", cache, TEXTS, **NGRAM)
    said = refusal([ngram, other])
    assert "model 1 (ngram-char) has a 'char' tokenizer of " in said and "model 2 (ngram-char) a 'char' tokenizer of " in said
    letters = review_model(TableModel(table(6)), LetterTokenizer("abcd"))
    assert "model 2 (fake-fake) a 'fake' tokenizer of 6 tokens: train both" in refusal([ngram, letters])


def test_tokenizers_of_one_size_and_other_contents_are_different():
    models = [review_model(TableModel(table(6)), LetterTokenizer(letters)) for letters in ("abcd", "abce")]
    assert "'fake' tokenizer of 6 tokens of other contents" in refusal(models)


def test_stupid_backoff_is_no_distribution(cache, ngram):
    stupid = train_tiny("ngram-char", cache, CORPUS, model={"smoothing": "stupid-backoff"})
    said = refusal([ngram, stupid], error=NotADistribution)
    assert said.startswith("Model 2 (ngram-char) cannot be blended: The scores of stupid back-off do not sum to one")


def test_a_blend_cannot_be_trained(monkeypatch, capsys, tmp_path):
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(TEXTS), encoding="utf-8")
    monkeypatch.setitem(plugins._registered, ("tokenizer", "letters"), LetterTokenizer)  # there is no preset of it
    status, out, err = run_command(monkeypatch, capsys, "train", "blend-letters", "--data", file, "--out", tmp_path / "x")
    assert (status, out) == (2, "")
    assert err.startswith("error: A blend is not trained but made of at least two trained models: reviewgen.blend([a, b])")


@pytest.fixture
def folders(ngram, gru, tmp_path):
    ngram.save_pretrained(tmp_path / "n")
    gru.save_pretrained(tmp_path / "g")
    (tmp_path / "held-out.txt").write_text("\n".join(HELD_OUT), encoding="utf-8")
    return tmp_path


def test_the_command_fits_and_says_so(monkeypatch, capsys, folders):
    words = ["blend", folders / "n", folders / "g", "--data", folders / "held-out.txt", "--out"]
    status, out, err = run_command(monkeypatch, capsys, *words, folders / "b")
    assert status == 0, err
    assert out.count("bits per character") == 4 and "the blend" in out and f"Saved in {folders / 'b'}" in out
    status, out, err = run_command(monkeypatch, capsys, *words, folders / "c", "--json")
    facts = json.loads(out)
    assert [row["preset"] for row in facts["models"]] == ["ngram-char", "gru-char"]
    assert facts["bits_per_character"] < min(row["bits_per_character"] for row in facts["models"])
    assert reviewgen.load(folders / "c").model.config.weights == tuple(row["weight"] for row in facts["models"])
    status, out, err = run_command(monkeypatch, capsys, *words, folders / "c")
    assert status == 1 and "already exists" in err


def test_the_command_takes_weights(monkeypatch, capsys, folders):
    words = ["blend", folders / "n", folders / "g", "--out", folders / "b"]
    status, out, err = run_command(monkeypatch, capsys, *words, "--weights", "a,b")
    assert status == 2 and "--weights takes a number for each model, as in 0.3,0.7; got 'a,b'" in err
    status, out, err = run_command(monkeypatch, capsys, "blend", folders / "n", "--out", folders / "b")
    assert status == 2 and "at least two models; got 1" in err
    status, out, err = run_command(monkeypatch, capsys, *words, "--weights", "0.3,0.7")
    assert status == 0, err
    assert "weight 0.3000" in out and "bits" not in out
    assert reviewgen.load(folders / "b").model.config.weights == pytest.approx((0.3, 0.7))
    with pytest.raises(OutputExists):
        reviewgen.load(folders / "b").save_pretrained(folders / "n")
