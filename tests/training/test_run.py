"""``TrainingRun`` and ``train``: small corpora, validation sources, cleaning, a damaged cache,
interrupts, and suggestions.
"""

import itertools
import random
import signal
from collections.abc import Callable
from typing import Any

import pytest

import reviewgen
from reviewgen import TrainingRun
from reviewgen.errors import ConfigError, DataError, TrainingError
from tests.support.fakes import TEXTS
from tests.support.models import SMALL
from tests.support.trainings import MODEL, TRAINING, prepared, trained


@pytest.mark.slow
def test_small_corpora():
    with pytest.raises(DataError, match="single review"):
        reviewgen.train("ngram-char", ["just one"])
    with pytest.raises(DataError, match="validation texts have no characters"):
        reviewgen.train("ngram-char", TEXTS, validation=["", ""], clean=False)
    assert trained("ngram-char", ["one", "two"])[2].training["data"]["reviews"] == {
        "train": 1,
        "validation": 1,
        "test": 0,
    }
    assert trained("gru-char", ["a", "b"], steps=2)[2].generate_one(seed=1) is not None


def test_a_run_says_what_to_call_first():
    run = TrainingRun("blend-word", TEXTS, steps=2, model=MODEL, training=TRAINING)
    with pytest.raises(TrainingError, match="call read before"):
        _ = run.corpus
    with pytest.raises(TrainingError, match="call read and tokenize before you train"):
        next(iter(run))
    assert run.read().fingerprint == run.corpus.texts.fingerprint
    with pytest.raises(TrainingError, match="call tokenize before you use its stores"):
        _ = run.corpus.stores
    run.tokenize()
    with pytest.raises(TrainingError, match="iterate over the run"):
        _ = run.model
    list(run)
    model = run.finish()
    assert run.model is model.bundle.model and list(run.record.parts) == ["ngram-word", "lstm-word"]
    facts = run.facts()
    assert all(facts[name] == model.training[name] for name in ("parts", "weights", "held_out"))


def test_a_validation_source_replaces_the_split():
    _, _, model = trained("ngram-char", validation=["The food was cold.", TEXTS[0]])
    assert model.training["data"]["reviews"] == {"train": 60, "validation": 2, "test": 0}
    assert model.training["held_out"]["split"] == "validation"
    assert model.training["data"]["validation_source"] == "list of texts"
    with pytest.raises(ConfigError, match="with a separate validation source"):
        model.evaluate(TEXTS, split="test")
    assert (
        trained("ngram-char", {"test": [], "own": TEXTS}, split="own")[2].training["data"][
            "dataset_split"
        ]
        == "own"
    )


def test_evaluation_cleans_as_the_training_did():
    shouted = [text.upper() for text in TEXTS]
    # None: not given
    _, _, model = trained("ngram-char", shouted, lowercase=True, strip_markdown=None, clean=None)
    assert [model.training["data"][name] for name in ("lowercase", "strip_markdown", "clean")] == [
        True,
        False,
        True,
    ]
    as_trained = model.evaluate(shouted)
    assert as_trained == model.evaluate(shouted, lowercase=True)
    assert (
        as_trained.bits_per_character < model.evaluate(shouted, lowercase=False).bits_per_character
    )
    assert (
        model.evaluate(shouted, split="test").reviews == model.training["data"]["reviews"]["test"]
    )


# Interrupts.


def test_an_interrupt_keeps_the_best_so_far(tmp_path):
    run = prepared(steps=1000, out=tmp_path / "m", training={"evaluations": 20})
    with pytest.raises(KeyboardInterrupt):
        for report in run:
            if report.step == 30:
                raise KeyboardInterrupt
    run.interrupt()
    run.finish()
    assert run.record.is_interrupted
    model = reviewgen.load(tmp_path / "m")
    assert (model.training["stopped"], model.training["steps"]) == ("interrupted", 30)
    run = prepared("ngram-char")
    assert next(report.step for report in run if report.step > 10)
    run.interrupt()
    assert run.finish().generate_one(seed=1)


def test_an_interrupt_inside_a_step_is_a_model_too(monkeypatch):
    network = type(prepared().model)
    plain = network.forward
    calls = itertools.count(1)

    def forward(self: Any, ids: Any, state: Any) -> Any:
        if self.training and next(calls) == 30:
            raise KeyboardInterrupt
        return plain(self, ids, state)

    monkeypatch.setattr(network, "forward", forward)
    model = reviewgen.train("gru-char", TEXTS, steps=1000, model=MODEL, training=TRAINING)
    assert (model.training["stopped"], model.training["steps"]) == ("interrupted", 29)


def test_an_interrupt_between_training_and_saving_still_saves(tmp_path, monkeypatch, run_command):
    finish = TrainingRun.finish
    calls = []

    def interrupted(self: Any) -> Any:
        calls.append(signal.getsignal(signal.SIGINT))
        if len(calls) % 2:
            raise KeyboardInterrupt
        return finish(self)

    monkeypatch.setattr(TrainingRun, "finish", interrupted)
    reviewgen.train("gru-char", TEXTS, out=tmp_path / "python", **SMALL)
    (tmp_path / "reviews.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    words = (
        "train",
        "gru-char",
        "--data",
        tmp_path / "reviews.txt",
        "--out",
        tmp_path / "shell",
        "--steps",
        5,
    )
    assert run_command(*words, "--set", "model.hidden_size=8")[0] == 130
    for name in ("python", "shell"):
        assert reviewgen.load(tmp_path / name).training["steps"] == 5
    assert calls[1] == calls[3] == signal.SIG_IGN  # a second signal cannot stop the saving


# The suggestion of --from.


def reviews(number: int) -> list[str]:
    rng = random.Random(0)
    nouns = ("film", "cast", "plot", "score", "ending")
    verbs = ("is good", "drags", "shines", "never surprises", "made me laugh")
    return [
        f"The {rng.choice(nouns)} {rng.choice(verbs)} and the {rng.choice(nouns)} too."
        for _ in range(number)
    ]


@pytest.fixture
def suggested(monkeypatch) -> Callable[..., list[str]]:
    """Return a function that trains for some passes and, by a fast clock, seconds, and returns what
    is suggested.
    """
    now = [1000.0]
    forward = TrainingRun.__iter__
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def train(
        start: str = "gru-char",
        texts: Any = None,
        seconds: float = 60,
        epochs: float = 13,
        **options: Any,
    ) -> list[str]:
        def iterate(run: TrainingRun) -> Any:
            for report in forward(run):
                yield report
                now[0] += seconds * (report.step == 1)

        monkeypatch.setattr(TrainingRun, "__iter__", iterate)
        settings = TRAINING | {"batch_size": 8, "bptt": 32, "evaluations": 1}
        length = {} if start == "ngram-char" else {"epochs": epochs}
        model = reviewgen.train(
            start, texts or reviews(30), training=settings, progress=False, **length, **options
        )
        return [note for note in model.training["notes"] if "--from" in note]

    return train


@pytest.mark.slow
def test_the_weights_that_ship_are_suggested_after_many_passes(suggested):
    (note,) = suggested()
    bits = reviewgen.load("gru-char").evaluate(reviews(30), split="test").bits_per_character
    assert (
        "--from gru-char." in note
        and f"They take {bits:.3f} bits per character of these held-out texts" in note
    )
    assert not suggested(epochs=9.5)
    (note,) = suggested(seconds=31, model={"output_dropout": 0.2})  # dropout may differ
    assert not suggested(seconds=29, model={"hidden_size": 16})
    assert (
        not suggested(model={"hidden_size": 16})
        and not suggested(lowercase=True)
        and not suggested("ngram-char")
    )


def test_a_run_that_is_tokenized_again_begins_a_new_record():
    run = prepared(steps=2, training={"evaluations": 1})
    assert run.record.last.step == 0
    list(run)
    run.tokenize()
    with pytest.raises(TrainingError, match="before the first step"):
        run.finish()
