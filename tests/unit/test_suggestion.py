"""The suggestion of --from: where it comes, with which figure, and where training further would be impossible."""

import json
import random

import pytest

import reviewgen
from reviewgen.data import DataConfig, trained_on
from reviewgen.runs import suggestion
from reviewgen.runs.plan import make_plan
from reviewgen.runs.prepare import prepare
from tests.support.fakes import run_command


def reviews(number, seed=0):
    rng = random.Random(seed)
    nouns, verbs = ("film", "cast", "plot", "score", "ending"), ("is good", "drags", "shines", "never surprises", "made me laugh")
    return [f"The {rng.choice(nouns)} {rng.choice(verbs)}, and take {n} of the {rng.choice(nouns)} too." for n in range(number)]


@pytest.fixture(autouse=True)
def corpora_unlike_texts_of_people(monkeypatch):
    monkeypatch.setattr(suggestion, "_MAX_BITS", 20.0)


def suggested(preset="gru-char", texts=None, *, passes=30, seconds=600, **options):
    """Return what is suggested after a run that has seen its texts some times."""
    plan = make_plan(preset, reviews(60) if texts is None else texts, options)
    corpus = prepare(plan)
    tokens = passes * corpus.stores["train"].tokens
    return suggestion.suggest_trained_weights(plan, corpus, "test", tokens, seconds)


@pytest.mark.parametrize("preset", ["gru-char", "gru-word"])
def test_the_figure_is_that_of_the_shipped_weights_on_the_held_out_texts(preset):
    (note,) = suggested(preset)
    bits = reviewgen.load(preset).evaluate(reviews(60), split="test").bits_per_character
    assert f"--from {preset}." in note
    assert f"They take {bits:.3f} bits per character of these held-out texts" in note
    assert not suggested(reviewgen.load(preset))  # a run that starts from them


def test_a_corpus_that_was_read_a_few_times_and_a_short_run_get_none():
    assert suggested(passes=10) and not suggested(passes=9)
    assert suggested(seconds=30) and not suggested(seconds=29)


def test_texts_that_the_shipped_weights_cannot_predict_get_none(monkeypatch):
    monkeypatch.setattr(suggestion, "_MAX_BITS", 3.0)
    rng = random.Random(0)
    assert not suggested(texts=["".join(rng.choices("ДЖЗИЙКЛ", k=40)) for _ in range(60)])


@pytest.mark.parametrize(
    "options",
    [
        {"model": {"hidden_size": 16}},
        {"model": {"hidden_size": 256}},  # the preset's, not that of the weights
        {"model": {"layers": 2}},
        {"model": {"activation": "relu", "layer": "reference"}},
        {"lowercase": True},
        {"clean": False},
    ],
)
def test_settings_with_which_the_weights_cannot_be_trained_get_none(options):
    assert not suggested(**options)


def test_a_tokenizer_of_another_size_and_conditions_get_none():
    assert not suggested("gru-word", tokenizer={"vocab_size": 500})
    rows = [{"text": text, "stars": number % 3} for number, text in enumerate(reviews(60))]
    assert not suggested(texts=rows, conditions=["stars"])


def test_dropout_may_differ():
    assert suggested(model={"output_dropout": 0.2})


def test_presets_without_shipped_weights_and_counted_ones_get_none():
    assert not suggested("ngram-char")
    assert not suggested("nnlm-char", model={"order": 3})


def test_damaged_weights_are_left_out(monkeypatch, tmp_path):
    monkeypatch.setattr(suggestion, "find_weights", lambda preset: tmp_path)
    assert not suggested()


def test_the_texts_that_are_measured_are_limited(monkeypatch):
    read = []
    evaluate = suggestion.evaluate_documents

    def counting(model, documents, *arguments, **options):
        documents = list(documents)
        read.append(sum(characters for _, characters in documents))
        return evaluate(model, documents, *arguments, **options)

    monkeypatch.setattr(suggestion, "evaluate_documents", counting)
    monkeypatch.setattr(suggestion, "_MAX_CHARACTERS", 300)
    texts = [text * 200 for text in reviews(60)]
    assert suggested(texts=texts) and suggested(texts=texts, seconds=30)
    assert 250 < read[0] <= 300
    monkeypatch.setattr(suggestion, "_MAX_CHARACTERS", 10**6)
    assert suggested(texts=texts, seconds=30)
    assert 2_900 < read[-1] <= 3_000


def test_the_terminal_and_the_record_have_the_sentence(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(suggestion, "_MIN_SECONDS", 0.0)
    monkeypatch.setattr(suggestion, "_CHARACTERS_PER_SECOND", 10**6)
    (tmp_path / "reviews.txt").write_text("\n".join(reviews(60)), encoding="utf-8")
    words = ("train", "gru-char", "--data", tmp_path / "reviews.txt", "--out", tmp_path / "m", "--steps", 20)
    status, _, said = run_command(monkeypatch, capsys, *words, "--set", "training.evaluations=1")
    assert status == 0
    (note,) = [note for note in json.loads((tmp_path / "m" / "training.json").read_text())["notes"] if "--from" in note]
    assert " ".join(said.split()).count(note) == 1


def test_the_default_cleaning_is_that_of_the_shipped_weights():
    for preset in ("lstm-char", "lstm-word", "gru-word"):
        data = trained_on(reviewgen.load(preset).training)[0]
        assert {name: data[name] for name in DataConfig().cleaning} == DataConfig().cleaning
