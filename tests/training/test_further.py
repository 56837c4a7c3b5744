"""Training a trained model further: what it keeps, what it gains, and what is recorded."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import reviewgen
from reviewgen import TrainingRun
from reviewgen.data.pipeline import data_records
from reviewgen.data.store import digest_tokenizer
from reviewgen.errors import ConfigError
from reviewgen.evaluation.evaluate import evaluate_documents, sample_documents
from tests.support.fakes import TEXTS, run_command
from tests.support.trainings import TRAINING, prepared, trained, weights_of

NEW = [
    f"a {adjective} {noun}, and so was the {other}!"
    for adjective in ("warm", "loud", "dim", "fine", "sharp")
    for noun in ("song", "voice", "drum", "bass")
    for other in ("band", "room")
]


@pytest.fixture
def gru(model_folder: Any) -> reviewgen.ReviewModel:
    return reviewgen.load(model_folder("gru-char"))


def bits(run: TrainingRun, model: reviewgen.ReviewModel) -> float:
    """Return the bits per character of a model on the held-out texts of a run."""
    documents = sample_documents(run.stores["validation"], 500)
    return evaluate_documents(model.model, documents, model.tokenizer.vocab_size).bits_per_character


def test_it_beats_training_from_scratch_in_the_same_steps() -> None:
    similar = [
        f"The {noun} was {kind} and I liked the {other} too."
        for noun in ("soup", "show", "play", "wine")
        for other in ("theme", "crowd", "end")
        for kind in ("fine", "dim", "good", "warm", "loud")
    ]
    size = {"hidden_size": 32, "embedding_size": 12}
    _, _, first = trained(steps=80, model=size, training={"bptt": 16})
    before = weights_of(first.model)
    run, _, tuned = trained(first, similar, steps=20, training={"bptt": 16})
    scratch, _, fresh = trained("gru-char", similar, steps=20, model=size, training={"bptt": 16})
    assert run.corpus.fingerprint == scratch.corpus.fingerprint
    assert bits(run, tuned) < min(bits(run, first), bits(scratch, fresh)) - 0.3
    assert "gained nothing" not in str(tuned.training["notes"])
    assert any(
        "further" in note and "bits per character" in note for note in tuned.training["notes"]
    )
    for name, tensor in first.model.state_dict().items():  # the trained one stays as it is
        assert torch.equal(before[name], tensor) and not torch.equal(
            before[name], tuned.model.state_dict()[name]
        )


def test_it_starts_from_the_trained_weights(gru: reviewgen.ReviewModel) -> None:
    run = prepared(gru, NEW, steps=1, training={"learning_rate": 1e-12})
    assert all(
        torch.equal(run.model.state_dict()[name], tensor)
        for name, tensor in gru.model.state_dict().items()
    )
    parent = run.facts()["parent"]["bits_per_character"]
    assert parent == pytest.approx(bits(run, gru))
    assert next(iter(run)).nats_per_token == pytest.approx(parent * math.log(2), rel=0.3)


def test_tokenizer_settings_and_defaults_are_kept(
    gru: reviewgen.ReviewModel, tmp_path: Path
) -> None:
    run, _, tuned = trained(
        gru,
        NEW + ["ÿ новый 😀 text", "日本語"] * 3,
        out=tmp_path / "tuned",
        training={"novelty": "compact"},
    )
    assert digest_tokenizer(tuned.tokenizer) == digest_tokenizer(gru.tokenizer)
    assert tuned.model.config == gru.model.config
    assert (tuned.generation_config, tuned.preset) == (gru.generation_config, "gru-char")
    assert "😀" in "".join(
        tuned.tokenizer.decode(list(run.stores["train"].document(n)))
        for n in range(len(run.stores["train"]))
    )
    again = reviewgen.load(tmp_path / "tuned")
    assert again.generate_one("a 😀 ", seed=3, max_new_tokens=20) == tuned.generate_one(
        "a 😀 ", seed=3, max_new_tokens=20
    )
    assert again.novelty(NEW[0]).longest_tokens > 20 and again.score("日本語").bits > 0


def test_parents_are_recorded_and_nested(
    gru: reviewgen.ReviewModel, model_folder: Any, tmp_path: Path
) -> None:
    trained(gru, NEW, steps=2, out=tmp_path / "child")
    child = reviewgen.load(tmp_path / "child")
    grandchild = trained(child, TEXTS + NEW, steps=2)[2].training
    parent = grandchild["parent"]
    assert (parent["source"], parent["digest"]) == (str(tmp_path / "child"), child.digest)
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
    card = (tmp_path / "child" / "README.md").read_text(encoding="utf-8")
    assert "trained further with reviewgen" in card and str(gru.digest) in card
    assert "Only the texts of the last training are covered" in card


def test_settings_that_leave_predictions_alone_may_change(gru: reviewgen.ReviewModel) -> None:
    from_scratch = TrainingRun("gru-char", NEW).config
    assert TrainingRun(gru, NEW).config.learning_rate == pytest.approx(
        from_scratch.learning_rate / 2
    )
    assert TrainingRun(gru, NEW, training={"learning_rate": "0.001"}).config.learning_rate == 0.001
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


def test_conditions_are_kept(micro: Any) -> None:
    starred = micro("conditional")
    rows = [{"text": text, "stars": 5 + number % 2} for number, text in enumerate(NEW)]  # 6 is new
    run, _, tuned = trained(starred, rows, steps=2)
    assert tuned.conditions == starred.conditions
    assert any("do not know" in note or "does not know" in note for note in run.notes)
    five = starred.conditions.encode({"stars": 5})
    any_id = starred.conditions.unspecified_ids
    assert {tuple(row) for row in run.stores["validation"].conditions} <= {
        tuple(five),
        tuple(any_id),
    }
    assert tuned.generate_one(conditions={"stars": 1}, seed=1) is not None
    run = prepared(starred, NEW)
    assert {tuple(row) for row in run.stores["train"].conditions} == {tuple(any_id)}
    assert any("counts as not given" in note for note in run.corpus.notes)
    with pytest.raises(ConfigError, match="'genre' cannot be"):
        TrainingRun(starred, rows, conditions=["genre"])


def test_the_command_trains_further(
    model_folder: Any, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    folder = model_folder("gru-char")
    gru = reviewgen.load(model_folder("gru-char"))
    (tmp_path / "new.csv").write_text(
        "text\n" + "\n".join(f'"{text}"' for text in NEW), encoding="utf-8"
    )
    monkeypatch.chdir(tmp_path)
    settings = {**TRAINING, "metrics": "distinct-1"}
    small = [
        word for name, value in settings.items() for word in ("--set", f"training.{name}={value}")
    ]
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
    status, out, err = run_command(monkeypatch, capsys, *words)
    assert status == 0, err
    assert "(gru-char) further" in err and "Saved in tuned" in out and "Validation texts: " in out
    hand = trained(gru, Path("new.csv"), training={"metrics": ["distinct-1"]})[2].model.state_dict()
    assert all(
        torch.equal(hand[name], tensor)
        for name, tensor in reviewgen.load("tuned").model.state_dict().items()
    )
