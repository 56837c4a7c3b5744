"""Training a trained model further: what it keeps, what it gains, and what is recorded."""

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import reviewgen
from reviewgen import TrainingRun
from reviewgen.data.encode import digest_tokenizer
from reviewgen.data.texts import data_records
from reviewgen.errors import ConfigError
from reviewgen.evaluation.evaluate import evaluate_documents, sample_documents
from tests.support.fakes import TEXTS
from tests.support.trainings import TRAINING, prepared, trained, weights_of

NEW = [
    f"a {adjective} {noun}, and so was the {other}!"
    for adjective, noun, other in itertools.product(
        ("warm", "loud", "dim", "fine", "sharp"),
        ("song", "voice", "drum", "bass"),
        ("band", "room"),
    )
]


@pytest.fixture
def gru(model_folder) -> reviewgen.ReviewModel:
    return reviewgen.load(model_folder("gru-char"))


def bits(run: TrainingRun, model: reviewgen.ReviewModel) -> float:
    """Return the bits per character of a model on the held-out texts of a run."""
    documents = sample_documents(run.corpus.stores["validation"], 500)
    return evaluate_documents(model.model, documents, model.tokenizer.vocab_size).bits_per_character


def test_it_beats_training_from_scratch_in_the_same_steps():
    similar = [
        f"The {noun} was {kind} and I liked the {other} too."
        for noun, other, kind in itertools.product(
            ("soup", "show", "play", "wine"),
            ("theme", "crowd", "end"),
            ("fine", "dim", "good", "warm", "loud"),
        )
    ]
    size = {"hidden_size": 32, "embedding_size": 12}
    _, _, first = trained(steps=80, model=size, training={"bptt": 16})
    before = weights_of(first.model)
    run, _, tuned = trained(first, similar, steps=20, training={"bptt": 16})
    scratch, _, fresh = trained("gru-char", similar, steps=20, model=size, training={"bptt": 16})
    assert run.corpus.texts.fingerprint == scratch.corpus.texts.fingerprint
    assert bits(run, tuned) < min(bits(run, first), bits(scratch, fresh)) - 0.3
    assert "gained nothing" not in str(tuned.training["notes"])
    assert any(
        "further" in note and "bits per character" in note for note in tuned.training["notes"]
    )
    for name, tensor in first.model.state_dict().items():  # the trained one stays as it is
        assert torch.equal(before[name], tensor) and not torch.equal(
            before[name], tuned.model.state_dict()[name]
        )


def test_it_starts_from_the_trained_weights(gru):
    run = prepared(gru, NEW, steps=1, training={"learning_rate": 1e-12})
    assert all(
        torch.equal(run.model.state_dict()[name], tensor)
        for name, tensor in gru.model.state_dict().items()
    )
    parent = run.facts()["parent"]["bits_per_character"]
    assert parent == pytest.approx(bits(run, gru))
    assert next(iter(run)).nats_per_token == pytest.approx(parent * math.log(2), rel=0.3)


@pytest.fixture(scope="module")
def tuned(model_folder, tmp_path_factory) -> tuple[Any, Any, Path]:
    """A model that was trained further on new characters: its run, itself, and its folder."""
    folder = tmp_path_factory.mktemp("further") / "tuned"
    texts = NEW + ["ÿ новый 😀 text", "日本語"] * 3
    gru = reviewgen.load(model_folder("gru-char"))
    run, _, model = trained(gru, texts, out=folder, training={"novelty": "compact"})
    return run, model, folder


def test_tokenizer_settings_and_defaults_are_kept(gru, tuned):
    run, model, _ = tuned
    assert digest_tokenizer(model.tokenizer) == digest_tokenizer(gru.tokenizer)
    assert model.model.config == gru.model.config
    assert (model.generation_config, model.preset) == (gru.generation_config, "gru-char")
    store = run.corpus.stores["train"]
    texts = [model.tokenizer.decode(list(store.document(n))) for n in range(len(store))]
    assert "😀" in "".join(texts)


def test_a_model_that_was_trained_further_is_saved(tuned):
    _, model, folder = tuned
    again = reviewgen.load(folder)
    options = {"seed": 3, "max_new_tokens": 20}
    assert again.generate_one("a 😀 ", **options) == model.generate_one("a 😀 ", **options)
    assert again.novelty(NEW[0]).longest_tokens > 20 and again.score("日本語").bits > 0


@pytest.fixture(scope="module")
def child_folder(model_folder, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("parents") / "child"
    trained(reviewgen.load(model_folder("gru-char")), NEW, steps=2, out=folder)
    return folder


def test_parents_are_recorded_and_nested(gru, model_folder, child_folder):
    child = reviewgen.load(child_folder)
    grandchild = trained(child, TEXTS + NEW, steps=2)[2].training
    parent = grandchild["parent"]
    assert (parent["source"], parent["digest"]) == (str(child_folder), child.digest)
    assert str(parent["digest"]).startswith("sha256:")
    assert (parent["parent"]["digest"], parent["parent"]["source"]) == (
        gru.digest,
        str(model_folder("gru-char")),
    )
    assert "parent" not in parent["parent"]
    prints = [data["fingerprint"] for data in data_records(grandchild)]
    assert prints == [
        each["data"]["fingerprint"] for each in (grandchild, child.training, gru.training)
    ]
    assert len(set(prints)) == 3


def test_the_card_names_the_parent_and_what_the_copy_rate_covers(gru, child_folder):
    card = (child_folder / "README.md").read_text(encoding="utf-8")
    assert "trained further with reviewgen" in card and str(gru.digest) in card
    assert "Only the texts of the last training are covered" in card


def test_settings_that_leave_predictions_alone_may_change(gru):
    from_scratch = TrainingRun("gru-char", NEW).record.training
    assert TrainingRun(gru, NEW).record.training.learning_rate == pytest.approx(
        from_scratch.learning_rate / 2
    )
    assert (
        TrainingRun(gru, NEW, training={"learning_rate": "0.001"}).record.training.learning_rate
        == 0.001
    )
    changed = {
        "output_dropout": "0.5",
        "embedding_dropout": 0.1,
        "layer": "reference",
        "hidden_size": 8,
    }
    config: Any = prepared(gru, NEW, steps=1, model=changed).model.config
    assert (config.output_dropout, config.embedding_dropout, config.layer) == (
        0.5,
        0.1,
        "reference",
    )


def test_conditions_are_kept(micro):
    starred = micro("conditional")
    rows = [{"text": text, "stars": 5 + number % 2} for number, text in enumerate(NEW)]  # 6 is new
    run, _, tuned = trained(starred, rows, steps=2)
    assert tuned.conditions == starred.conditions
    assert any("do not know" in note or "does not know" in note for note in run.record.notes)
    five = starred.conditions.encode({"stars": 5})
    any_id = starred.conditions.unspecified_ids
    assert {tuple(row) for row in run.corpus.stores["validation"].conditions} <= {
        tuple(five),
        tuple(any_id),
    }
    assert tuned.generate_one(conditions={"stars": 1}, seed=1) is not None


def test_a_training_without_the_conditions_of_its_parent_has_none_given(micro):
    starred = micro("conditional")
    any_id = starred.conditions.unspecified_ids
    run = prepared(starred, NEW)
    assert {tuple(row) for row in run.corpus.stores["train"].conditions} == {tuple(any_id)}
    assert any("counts as not given" in note for note in run.corpus.texts.notes)


def test_a_condition_that_the_parent_does_not_have_is_refused(micro):
    starred = micro("conditional")
    with pytest.raises(ConfigError, match="'genre' cannot be"):
        TrainingRun(starred, NEW, conditions=["genre"])


def test_the_command_trains_further(model_folder, tmp_path, monkeypatch, run_command):
    folder = model_folder("gru-char")
    gru = reviewgen.load(model_folder("gru-char"))
    (tmp_path / "new.csv").write_text(
        "text\n" + "\n".join(f'"{text}"' for text in NEW), encoding="utf-8"
    )
    monkeypatch.chdir(tmp_path)
    settings = {**TRAINING, "metrics": "distinct-1"}
    small = itertools.chain.from_iterable(
        ("--set", f"training.{name}={value}") for name, value in settings.items()
    )
    words = (
        "train",
        "--from",
        folder,
        "--data",
        "new.csv",
        "--out",
        "tuned",
        "--steps",
        10,
        *small,
    )
    status, out, err = run_command(*words)
    assert status == 0, err
    assert "(gru-char) further" in err and "Saved in tuned" in out and "Validation texts: " in out
    hand = trained(gru, Path("new.csv"), training={"metrics": ["distinct-1"]})[2].model.state_dict()
    assert all(
        torch.equal(hand[name], tensor)
        for name, tensor in reviewgen.load("tuned").model.state_dict().items()
    )
