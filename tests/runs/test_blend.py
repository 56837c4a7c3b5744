"""``reviewgen.blend`` and ``reviewgen blend``: from trained models to one that is used like any
other.
"""

import gc
import json
import random
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

import reviewgen
from reviewgen import ReviewModel, TrainingRun
from reviewgen.errors import ConfigError, NotADistribution, TrainingError
from reviewgen.registry.plugins import find_preset
from tests.support.fakes import LetterTokenizer, TableModel, review_model, table
from tests.support.launches import made_once
from tests.support.trainings import ready

DRAW = random.Random(7)
NAMES = [
    "".join(map(DRAW.choice, ("bdfgkl", "aeiou", "mnprst", "aeiou", "vzrnl"))) for _ in range(150)
]
ENDS = {"A+": "I would see it again with pleasure", "D-": "nobody should ever have to see this"}


def reviews(number: int, seed: int) -> list[str]:
    """Return texts of names, which an n-gram knows best, and of endings that follow from the first
    letter, which it forgets.
    """
    draw = random.Random(seed)
    texts = []
    for _ in range(number):
        mark = draw.choice(["A+", "D-"])
        one, two, three = draw.choices(NAMES, k=3)
        texts.append(
            f"{mark} the film of {one} and {two} with the actor {three} in it is a film,"
            f" {ENDS[mark]}."
        )
    return texts


CORPUS = reviews(400, 0)
HELD_OUT = reviews(60, 1)
OTHERS = reviews(60, 2)


def train_ngram(texts: Any = CORPUS, **model: Any) -> ReviewModel:
    training = {"novelty": "none", "copy_tokens": 0}
    return reviewgen.train("ngram-char", texts, model={"order": 3} | model, training=training)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """The folder of two trained models, ``ngram`` and ``gru``."""

    def train(folder: Path) -> None:
        training = {
            "batch_size": 16,
            "learning_rate": 0.02,
            "evaluations": 2,
            "copy_tokens": 0,
            "threads": 1,
        }
        # else it would know the names as well as the n-gram
        model = {"hidden_size": 64, "embedding_size": 16, "ngrams": 1}
        reviewgen.train("ngram-char", CORPUS, model={"order": 5}, out=folder / "ngram")
        reviewgen.train(
            "gru-char", CORPUS, steps=125, model=model, training=training, out=folder / "gru"
        )
        (folder / "held-out.txt").write_text("\n".join(HELD_OUT), encoding="utf-8")

    return made_once(tmp_path_factory, "to-blend", train)


@pytest.fixture(scope="module")
def parts(folders: Path) -> list[ReviewModel]:
    return [reviewgen.load(folders / name) for name in ("ngram", "gru")]


@pytest.fixture(scope="module")
def both(parts: list[ReviewModel]) -> ReviewModel:
    return reviewgen.blend(parts, data=HELD_OUT)


@pytest.mark.slow
def test_a_blend_is_better_than_its_parts(parts, both):
    others = [model.evaluate(OTHERS).bits_per_character for model in (*parts, both)]
    assert others[2] < min(others[:2]) - 0.01, "it is better than its parts on other texts"


def test_a_blend_records_its_models_and_weights(parts, both):
    weights = both.model.config.weights
    recorded = both.training["parts"]
    assert sum(weights) == pytest.approx(1) and min(weights) > 0.01
    assert [part["weight"] for part in recorded] == list(weights)
    assert [part["preset"] for part in recorded] == ["ngram-char", "gru-char"]
    assert [part["config"] for part in recorded] == [model.training["config"] for model in parts]


def test_a_blend_records_the_bits_of_models_and_of_other_weights(parts, both):
    bits = both.training["weights"]["bits_per_character"]
    assert bits["parts"] == pytest.approx(
        [model.evaluate(HELD_OUT).bits_per_character for model in parts], abs=1e-5
    )
    blends = {
        "equal_weights": reviewgen.blend(parts),
        "fixed_weights": reviewgen.blend(parts, list(both.model.config.weights)),
    }
    for name, blend in (blends | {"fitted_weights": both}).items():
        assert bits[name] == pytest.approx(blend.evaluate(HELD_OUT).bits_per_character, abs=1e-5), (
            name
        )
    assert (
        bits["fitted_weights"]
        <= bits["fixed_weights"]
        <= min(*bits["parts"], bits["equal_weights"])
    )


def test_a_gate_has_coefficients_for_each_model(both):
    assert len(both.model.config.gate["coefficients"]) == 2


def test_sources_weights_and_blends_are_blended(parts, folders, tmp_path):
    blend = reviewgen.blend([folders / "ngram", parts[1]], [1, 3])
    assert blend.model.config.weights == (0.25, 0.75) and blend.training["weights"] == {
        "method": "given"
    }
    outer = reviewgen.blend((blend, parts[0]))
    outer.save_pretrained(tmp_path / "outer")
    again = reviewgen.load(tmp_path / "outer")
    assert again.score("A+ the film") == outer.score("A+ the film")
    assert again.training["parts"][0]["parts"][1]["weight"] == 0.75
    assert reviewgen.blend(parts, [1e308, 1e308]).model.config.weights == (0.5, 0.5)


def test_the_index_is_kept_where_all_parts_have_the_same(parts, both):
    assert both.novelty(CORPUS[0]).longest_tokens > 20 and "membership tests" in both.bundle.card
    blend = reviewgen.blend([parts[0], train_ngram(CORPUS[:-1])])
    assert blend.bundle.index is None and "fingerprint" not in blend.training["data"]


def test_wrong_arguments_are_refused(parts):
    letters = review_model(TableModel(table(6)), LetterTokenizer("abcd"))
    refused: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
        ((parts[:1],), {}, ConfigError, "at least two models; got 1"),
        (
            ([parts[0], letters],),
            {},
            ConfigError,
            "different tokenizers or conditions, .* model 2 .*, 'fake', does not say which bytes",
        ),
        (
            ([parts[0], train_ngram(smoothing="stupid-backoff")],),
            {},
            NotADistribution,
            "Model 2 .* sum to one",
        ),
    ]
    for arguments, options, kind, word in refused:
        with pytest.raises(kind, match=word) as caught:
            reviewgen.blend(*arguments, **options)
        assert "\n" not in str(caught.value)


def test_the_command_fits_or_takes_weights(folders, tmp_path, run_command):
    models = ["blend", folders / "ngram", folders / "gru"]
    fitted = [*models, "--data", folders / "held-out.txt", "--out"]
    _, out, _ = run_command(*fitted, tmp_path / "c", "--json")
    facts = json.loads(out)
    assert [row["preset"] for row in facts["models"]] == ["ngram-char", "gru-char"]
    assert facts["bits_per_character"] < min(row["bits_per_character"] for row in facts["models"])
    assert reviewgen.load(tmp_path / "c").model.config.weights == tuple(
        row["weight"] for row in facts["models"]
    )
    status, out, _ = run_command(*models, "--out", tmp_path / "d", "--weights", "0.3,0.7")
    assert status == 0 and "weight 0.3000" in out and "bits" not in out
    assert reviewgen.load(tmp_path / "d").model.config.weights == pytest.approx((0.3, 0.7))


def said_of(run_command: Any, *words: Any) -> str:
    status, _, notes = run_command(*words)
    assert status == 0, notes
    return " ".join(notes.split())


MEASURES = {
    "evaluate": ["evaluate", "{ngram}", "--data", "{texts}"],
    "blend": ["blend", "{ngram}", "{gru}", "--data", "{texts}", "--out", "{out}"],
    "tune-sampling": [
        "tune-sampling",
        "{ngram}",
        "--data",
        "{texts}",
        "--texts",
        "20",
        "--search",
        "temperature=1",
    ],
    "score": ["score", "{ngram}", "--data", "{texts}", "--out", "{out}.jsonl"],
}


@pytest.mark.parametrize("command", MEASURES)
def test_texts_that_a_model_was_trained_on_are_recognised_in_a_renamed_file(
    command, folders, tmp_path, run_command
):
    (tmp_path / "renamed.txt").write_text("\n".join(CORPUS[::2]), encoding="utf-8")
    for texts, is_known in ((tmp_path / "renamed.txt", True), (folders / "held-out.txt", False)):
        places = {
            "ngram": folders / "ngram",
            "gru": folders / "gru",
            "texts": texts,
            "out": tmp_path / f"out-{is_known}",
        }
        notes = said_of(run_command, *(word.format(**places) for word in MEASURES[command]))
        assert ("was trained on most of these texts" in notes) == is_known
        assert ("--split test" in notes) == is_known


def test_the_texts_that_a_training_held_out_are_not_taken_for_training_texts(
    folders, tmp_path, run_command
):
    (tmp_path / "renamed.txt").write_text("\n".join(CORPUS), encoding="utf-8")
    command = ["evaluate", folders / "ngram", "--data", tmp_path / "renamed.txt", "--split", "test"]
    assert "was trained on" not in said_of(run_command, *command)


@pytest.mark.slow
def test_a_model_whose_weight_is_0_is_named(folders, tmp_path, run_command):
    train_ngram(["zq" * 40] * 2 + ["qz" * 40]).save_pretrained(tmp_path / "useless")
    command = [
        "blend",
        folders / "ngram",
        tmp_path / "useless",
        "--data",
        folders / "held-out.txt",
        "--out",
        tmp_path / "out",
    ]
    assert f"{tmp_path / 'useless'} has weight 0" in said_of(run_command, *command)


# Presets of several models: one training makes them on the same tokens, and fits the weights of
# their blend.

TRAINING = {
    "batch_size": 16,
    "learning_rate": 0.02,
    "evaluations": 3,
    "copy_tokens": 0,
    "threads": 1,
    "precision": "no",
}
# else it would know the names as well
LSTM = {"hidden_size": 64, "embedding_size": 16, "layer": "fused"}
NGRAM = {"order": 2}
WORDS = {"vocab_size": 300, "min_frequency": 2}
STEPS = 100
SHORT: dict[str, Any] = {
    "model": LSTM | NGRAM,
    "tokenizer": WORDS,
    "training": TRAINING,
    "steps": STEPS,
}


def started(**options: Any) -> TrainingRun:
    return ready("blend-word", CORPUS, **(SHORT | options))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[ReviewModel, list[Any], Path]:
    """A trained blend, its reports and its saved folder."""
    folder = tmp_path_factory.mktemp("models") / "blend"
    run = started(out=folder)
    reports = list(run)
    return run.finish(), reports, folder


@pytest.mark.slow
def test_it_is_the_blend_of_its_models_trained_one_by_one(trained):
    blend = trained[0]
    common: dict[str, Any] = {"tokenizer": WORDS, "training": TRAINING}
    ngram = reviewgen.train("ngram-word", CORPUS, model=NGRAM, **common)
    lstm = reviewgen.train("lstm-word", CORPUS, model=LSTM, steps=STEPS, **common)
    by_hand = reviewgen.blend([ngram, lstm], data=CORPUS, split="validation")
    assert blend.model.config.weights == pytest.approx(by_hand.model.config.weights, abs=1e-4)
    bits = [model.evaluate(OTHERS).bits_per_character for model in (blend, by_hand, ngram, lstm)]
    assert bits[0] == pytest.approx(bits[1], abs=1e-5) and bits[0] < min(bits[2:]) - 0.01, bits
    alone = [part["held_out"]["bits_per_character"] for part in blend.training["parts"]]
    assert alone == pytest.approx(
        [model.training["held_out"]["bits_per_character"] for model in (ngram, lstm)], abs=1e-5
    )
    assert blend.training["held_out"]["split"] == "test" and blend.training["held_out"][
        "bits_per_character"
    ] < min(alone)


def test_the_folder_records_both_trainings(trained):
    folder = trained[2]
    training = json.loads((folder / "training.json").read_text())
    assert (training["preset"], training["steps"], training["seed"]) == ("blend-word", STEPS, 0)
    assert [part["preset"] for part in training["parts"]] == ["ngram-word", "lstm-word"]
    assert [len(part["evaluations"]) for part in training["parts"]] == [1, 3]
    assert training["parts"][1]["curve"]["step"][-1] == STEPS and training["verdict"]["words"]


def test_the_folder_is_a_blend_like_any_other(trained):
    blend, _, folder = trained
    loaded = reviewgen.load(folder)
    assert loaded.evaluate(OTHERS) == blend.evaluate(OTHERS)
    assert loaded.generate_one("A+ the ", seed=1) == blend.generate_one("A+ the ", seed=1)


def test_the_curves_of_both_trainings_are_plotted(trained, tmp_path):
    (curves,) = reviewgen.plot_training([trained[2]], tmp_path / "curves.png")
    assert [part.name for part in curves.parts] == ["ngram-word", "lstm-word"]


def test_a_resumed_run_gives_the_same_model(trained, tmp_path):
    frequent = {"out": tmp_path / "m", "training": TRAINING | {"checkpoint_seconds": 1e-9}}
    run = started(**frequent)
    for report in run:
        if (report.part, report.step) == ("lstm-word", 40):
            break
    del run, report
    gc.collect()  # as if the process had ended
    run = started(resume=True, **frequent)
    reports = list(run)
    steps = [report.step for report in reports if report.part == "lstm-word"]
    assert 1 <= steps[0] <= 41 and steps == list(range(steps[0], STEPS + 1))
    notes = chain.from_iterable(report.notes for report in reports)
    assert any("resumes from step" in note for note in notes)
    again = run.finish()
    blend = trained[0]
    assert again.model.config == blend.model.config and again.evaluate(OTHERS) == blend.evaluate(
        OTHERS
    )
    bits = [
        [each["bits_per_character"] for each in model.training["parts"][1]["evaluations"]]
        for model in (again, blend)
    ]
    assert bits[0] == bits[1]


def test_an_interrupt_keeps_the_best_so_far_once_each_model_has_a_step(tmp_path):
    run = started(out=tmp_path / "m")
    reports = iter(run)
    assert next(reports).part == "ngram-word"
    for report in reports:
        if report.part == "lstm-word" and report.step == 20:
            break
    run.interrupt()
    model = run.finish()
    assert model.training["stopped"] == "interrupted" and model.training["held_out"] is None
    assert all(0 < weight < 1 for weight in model.model.config.weights)
    assert reviewgen.load(tmp_path / "m").evaluate(OTHERS) == model.evaluate(OTHERS)
    run = started(out=tmp_path / "early")
    next(iter(run))
    run.interrupt()
    with pytest.raises(TrainingError, match=r"before the first step of lstm-word"):
        run.finish()
    assert not (tmp_path / "early").exists()


def test_settings_are_those_of_the_models_that_have_them():
    settings = {"order": "3", "hidden_size": "20", "embedding_size": "10"}
    training = {"batch_size": "8", "evaluations": "1"}
    blend = reviewgen.train(
        "blend-word",
        CORPUS,
        steps=2,
        model=settings,
        tokenizer={"vocab_size": "300"},
        training=training,
    )
    ngram, lstm = (part["config"] for part in blend.model.config.models)
    assert (ngram["order"], lstm["hidden_size"], lstm["embedding_size"]) == (3, 20, 10)
    assert (
        ngram["vocab_size"] == lstm["vocab_size"] <= 300
        and blend.training["config"]["batch_size"] == 8
    )
    assert (
        blend.training["config"]["learning_rate"]
        == find_preset("lstm-word").training_settings["learning_rate"]
    )


def test_a_blend_that_was_interrupted_can_be_trained_again():
    run = started(steps=3)
    next(iter(run))
    assert len(list(run)) > 3
    assert len(run.record.parts) == len(run.model.config.models) == 2


def test_the_last_model_of_blend_char_mixes_the_others():
    model = reviewgen.train("blend-char", CORPUS, steps=STEPS, model=LSTM, training=TRAINING)
    assert model.model.config.has_expert and model.training["weights"]["method"] == "mixing"
    parts = {part["preset"]: part["held_out"] for part in model.training["parts"]}
    assert list(parts) == ["lstm-char", "mixing-char"]
    held_out = model.training["held_out"]
    assert held_out["bits_per_character"] < parts["lstm-char"]["bits_per_character"]
    card = str(model.generate_model_card())
    assert not any(f"`{name}=" in card for name in ("weights", "gate", "models", "alphabet"))
    rows = [line.split("|")[1].strip() for line in card.splitlines() if line.startswith("| ")]
    assert rows[-3:] == ["model 1, lstm", "model 2, mixing", "training"]
    assert f"`hidden_size={LSTM['hidden_size']}`" in card and "`local_slots=8192`" in card
