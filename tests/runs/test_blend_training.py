"""Presets of several models: one training makes an LSTM and an n-gram on the same tokens and fits the weights of their blend."""

import gc
import json
from pathlib import Path
from typing import Any

import pytest

import reviewgen
from reviewgen import ReviewModel, TrainingRun
from reviewgen.errors import TrainingError
from reviewgen.registry import find_preset
from tests.runs.test_blend import CORPUS, OTHERS
from tests.support.trainings import ready

TRAINING = {"batch_size": 16, "learning_rate": 0.02, "evaluations": 3, "copy_tokens": 0, "threads": 1, "precision": "no"}
LSTM = {"hidden_size": 64, "embedding_size": 16, "ngrams": 2, "layer": "fused"}  # else it would know the names as well
NGRAM = {"order": 5}
STEPS = 100
SHORT: dict[str, Any] = {"model": LSTM | NGRAM, "training": TRAINING, "steps": STEPS}


def started(**options: Any) -> TrainingRun:
    return ready("blend-char", CORPUS, **(SHORT | options))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[ReviewModel, list[Any], Path]:
    """A trained blend, its reports and its saved folder."""
    folder = tmp_path_factory.mktemp("models") / "blend"
    run = started(out=folder)
    reports = list(run)
    return run.finish(), reports, folder


def test_it_is_the_blend_of_its_models_trained_one_by_one(trained: Any) -> None:
    blend = trained[0]
    ngram = reviewgen.train("ngram-char", CORPUS, model=NGRAM, training=TRAINING)
    lstm = reviewgen.train("lstm-char", CORPUS, model=LSTM, training=TRAINING, steps=STEPS)
    by_hand = reviewgen.blend([ngram, lstm], data=CORPUS, split="validation")
    assert blend.model.config.weights == pytest.approx(by_hand.model.config.weights, abs=1e-4)
    bits = [model.evaluate(OTHERS).bits_per_character for model in (blend, by_hand, ngram, lstm)]
    assert bits[0] == pytest.approx(bits[1], abs=1e-5) and bits[0] < min(bits[2:]) - 0.01, bits
    alone = [part["held_out"]["bits_per_character"] for part in blend.training["parts"]]
    assert alone == pytest.approx([model.training["held_out"]["bits_per_character"] for model in (ngram, lstm)], abs=1e-5)
    assert blend.training["held_out"]["split"] == "test" and blend.training["held_out"]["bits_per_character"] < min(alone)


def test_the_folder_records_both_models_and_is_a_blend_like_any_other(trained: Any, tmp_path: Path) -> None:
    blend, _, folder = trained
    training = json.loads((folder / "training.json").read_text())
    assert (training["preset"], training["steps"], training["seed"]) == ("blend-char", STEPS, 0)
    assert [part["preset"] for part in training["parts"]] == ["ngram-char", "lstm-char"]
    assert [len(part["evaluations"]) for part in training["parts"]] == [1, 3]
    assert training["parts"][1]["curve"]["step"][-1] == STEPS and training["verdict"]["words"]
    loaded = reviewgen.load(folder)
    assert loaded.evaluate(OTHERS) == blend.evaluate(OTHERS)
    assert loaded.generate_one("A+ the ", seed=1) == blend.generate_one("A+ the ", seed=1)
    (curves,) = reviewgen.plot_training([folder], tmp_path / "curves.png")
    assert [part.name for part in curves.parts] == ["ngram-char", "lstm-char"]


def test_a_resumed_run_gives_the_same_model(trained: Any, tmp_path: Path) -> None:
    frequent = {"out": tmp_path / "m", "training": TRAINING | {"checkpoint_seconds": 1e-9}}
    run = started(**frequent)
    for report in run:
        if (report.part, report.step) == ("lstm-char", 40):
            break
    del run, report
    gc.collect()  # as if the process had ended
    run = started(resume=True, **frequent)
    reports = list(run)
    steps = [report.step for report in reports if report.part == "lstm-char"]
    assert 1 <= steps[0] <= 41 and steps == list(range(steps[0], STEPS + 1))
    assert any("resumes from step" in note for report in reports for note in report.notes)
    again, blend = run.finish(), trained[0]
    assert again.model.config == blend.model.config and again.evaluate(OTHERS) == blend.evaluate(OTHERS)
    bits = [[each["bits_per_character"] for each in model.training["parts"][1]["evaluations"]] for model in (again, blend)]
    assert bits[0] == bits[1]


def test_an_interrupt_keeps_the_best_so_far_once_each_model_has_a_step(tmp_path: Path) -> None:
    run = started(out=tmp_path / "m")
    reports = iter(run)
    assert next(reports).part == "ngram-char"
    for report in reports:
        if report.part == "lstm-char" and report.step == 20:
            break
    run.interrupt()
    model = run.finish()
    assert model.training["stopped"] == "interrupted" and model.training["held_out"] is None
    assert all(0 < weight < 1 for weight in model.model.config.weights)
    assert reviewgen.load(tmp_path / "m").evaluate(OTHERS) == model.evaluate(OTHERS)
    run = started(out=tmp_path / "early")
    next(iter(run))
    run.interrupt()
    with pytest.raises(TrainingError, match=r"before the first step of lstm-char"):
        run.finish()
    assert not (tmp_path / "early").exists()


def test_settings_are_those_of_the_models_that_have_them() -> None:
    settings = {"order": "3", "hidden_size": "20", "embedding_size": "10"}
    training = {"batch_size": "8", "evaluations": "1"}
    blend = reviewgen.train("blend-word", CORPUS, steps=2, model=settings, tokenizer={"vocab_size": "300"}, training=training)
    ngram, lstm = (part["config"] for part in blend.model.config.models)
    assert (ngram["order"], lstm["hidden_size"], lstm["embedding_size"]) == (3, 20, 10)
    assert ngram["vocab_size"] == lstm["vocab_size"] <= 300 and blend.training["config"]["batch_size"] == 8
    assert blend.training["config"]["learning_rate"] == find_preset("lstm-word").training_settings["learning_rate"]
