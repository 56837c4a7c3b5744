"""``reviewgen.blend`` and ``reviewgen blend``: from trained models to one that is used like any other."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

import reviewgen
from reviewgen import ReviewModel
from reviewgen.errors import ConfigError, NotADistribution
from tests.support.fakes import LetterTokenizer, TableModel, review_model, run_command, table
from tests.support.launches import made_once

DRAW = random.Random(7)
NAMES = ["".join(map(DRAW.choice, ("bdfgkl", "aeiou", "mnprst", "aeiou", "vzrnl"))) for _ in range(150)]
ENDS = {"A+": "I would see it again with pleasure", "D-": "nobody should ever have to see this"}


def reviews(number: int, seed: int) -> list[str]:
    """Return texts of names, which an n-gram knows best, and of endings that follow from the first letter, which it forgets."""
    draw = random.Random(seed)
    texts = []
    for _ in range(number):
        mark, (one, two, three) = draw.choice(["A+", "D-"]), draw.choices(NAMES, k=3)
        texts.append(f"{mark} the film of {one} and {two} with the actor {three} in it is a film, {ENDS[mark]}.")
    return texts


CORPUS, HELD_OUT, OTHERS = reviews(400, 0), reviews(60, 1), reviews(60, 2)


def train_ngram(texts: Any = CORPUS, **model: Any) -> ReviewModel:
    training = {"novelty": "none", "copy_tokens": 0}
    return reviewgen.train("ngram-char", texts, model={"order": 3} | model, training=training)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of two trained models, ``ngram`` and ``gru``."""

    def train(folder: Path) -> None:
        training = {"batch_size": 16, "learning_rate": 0.02, "evaluations": 2, "copy_tokens": 0, "threads": 1}
        model = {"hidden_size": 64, "embedding_size": 16, "ngrams": 1}  # else it would know the names as well as the n-gram
        reviewgen.train("ngram-char", CORPUS, model={"order": 5}, out=folder / "ngram")
        reviewgen.train("gru-char", CORPUS, steps=125, model=model, training=training, out=folder / "gru")
        (folder / "held-out.txt").write_text("\n".join(HELD_OUT), encoding="utf-8")

    return made_once(tmp_path_factory, "to-blend", train)


@pytest.fixture(scope="module")
def parts(folders: Path) -> list[ReviewModel]:
    return [reviewgen.load(folders / name) for name in ("ngram", "gru")]


@pytest.fixture(scope="module")
def both(parts: list[ReviewModel]) -> ReviewModel:
    return reviewgen.blend(parts, data=HELD_OUT)


def test_a_blend_is_better_than_its_parts_and_records_the_fit(parts: list[ReviewModel], both: ReviewModel) -> None:
    others = [model.evaluate(OTHERS).bits_per_character for model in (*parts, both)]
    assert others[2] < min(others[:2]) - 0.01, "it is better than its parts on other texts"
    fit, weights, recorded = both.training["weights"], both.model.config.weights, both.training["parts"]
    assert sum(weights) == pytest.approx(1) and min(weights) > 0.01
    assert [part["weight"] for part in recorded] == list(weights)
    assert [part["preset"] for part in recorded] == ["ngram-char", "gru-char"]
    assert [part["config"] for part in recorded] == [model.training["config"] for model in parts]
    bits = fit["bits_per_character"]
    assert bits["parts"] == pytest.approx([model.evaluate(HELD_OUT).bits_per_character for model in parts], abs=1e-5)
    blends = {"equal_weights": reviewgen.blend(parts), "fixed_weights": reviewgen.blend(parts, list(weights))}
    for name, blend in (blends | {"fitted_weights": both}).items():
        assert bits[name] == pytest.approx(blend.evaluate(HELD_OUT).bits_per_character, abs=1e-5), name
    assert bits["fitted_weights"] <= bits["fixed_weights"] <= min(*bits["parts"], bits["equal_weights"])
    assert len(both.model.config.gate["coefficients"]) == 2


def test_sources_weights_and_blends_are_blended(parts: list[ReviewModel], folders: Path, tmp_path: Path) -> None:
    blend = reviewgen.blend([folders / "ngram", parts[1]], [1, 3])
    assert blend.model.config.weights == (0.25, 0.75) and blend.training["weights"] == {"method": "given"}
    outer = reviewgen.blend((blend, parts[0]))
    outer.save_pretrained(tmp_path / "outer")
    again = reviewgen.load(tmp_path / "outer")
    assert again.score("A+ the film") == outer.score("A+ the film")
    assert again.training["parts"][0]["parts"][1]["weight"] == 0.75
    assert reviewgen.blend(parts, [1e308, 1e308]).model.config.weights == (0.5, 0.5)


def test_the_index_is_kept_where_all_parts_have_the_same(parts: list[ReviewModel], both: ReviewModel) -> None:
    assert both.novelty(CORPUS[0]).longest_tokens > 20 and "membership tests" in both.bundle.card
    blend = reviewgen.blend([parts[0], train_ngram(CORPUS[:-1])])
    assert blend.bundle.index is None and "fingerprint" not in blend.training["data"]


def test_wrong_arguments_are_refused(parts: list[ReviewModel]) -> None:
    letters = review_model(TableModel(table(6)), LetterTokenizer("abcd"))
    refused: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
        ((parts[:1],), {}, ConfigError, "at least two models; got 1"),
        (([parts[0], letters],), {}, ConfigError, "different tokenizers, .* model 2 .*, 'fake', does not say which bytes"),
        (([parts[0], train_ngram(smoothing="stupid-backoff")],), {}, NotADistribution, "Model 2 .* sum to one"),
    ]
    for arguments, options, kind, word in refused:
        with pytest.raises(kind, match=word) as caught:
            reviewgen.blend(*arguments, **options)
        assert "\n" not in str(caught.value)


def test_the_command_fits_or_takes_weights(folders: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    models = ["blend", folders / "ngram", folders / "gru"]
    fitted = [*models, "--data", folders / "held-out.txt", "--out"]
    _, out, _ = run_command(monkeypatch, capsys, *fitted, tmp_path / "c", "--json")
    facts = json.loads(out)
    assert [row["preset"] for row in facts["models"]] == ["ngram-char", "gru-char"]
    assert facts["bits_per_character"] < min(row["bits_per_character"] for row in facts["models"])
    assert reviewgen.load(tmp_path / "c").model.config.weights == tuple(row["weight"] for row in facts["models"])
    status, out, _ = run_command(monkeypatch, capsys, *models, "--out", tmp_path / "d", "--weights", "0.3,0.7")
    assert status == 0 and "weight 0.3000" in out and "bits" not in out
    assert reviewgen.load(tmp_path / "d").model.config.weights == pytest.approx((0.3, 0.7))
