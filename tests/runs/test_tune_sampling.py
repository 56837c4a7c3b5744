"""Statistics of texts against brute force; the search for the sampling settings nearest to texts by
people; the command.
"""

import itertools
import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import reviewgen
from reviewgen import ReviewModel
from reviewgen.errors import ConfigError, DataError
from reviewgen.evaluation.metrics import measure_texts
from tests.support.launches import made_once
from tests.support.models import NGRAM

NOUNS = ["film", "cast", "plot", "score", "ending"]
ADJECTIVES = ["good", "bad", "long", "short", "odd"]


def people(count: int, seed: int) -> list[str]:
    """Return different sentences that a trained model can imitate."""
    draw = random.Random(seed)
    texts: dict[str, None] = {}
    while len(texts) < count:
        parts = [
            f"the {draw.choice(NOUNS)} was {draw.choice(ADJECTIVES)}"
            for _ in range(draw.randint(2, 4))
        ]
        texts[f"{', '.join(parts)} and {draw.randint(1, 99)} more."] = None
    return list(texts)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> ReviewModel:
    def train(folder: Path) -> None:
        reviewgen.train("ngram-char", people(300, 1), **NGRAM).save_pretrained(folder / "m")

    return reviewgen.load(made_once(tmp_path_factory, "sampling", train) / "m")


@given(st.lists(st.lists(st.sampled_from(["a", "B", "b", "xyz"]), max_size=9), max_size=5))
def test_statistics_equal_a_count_of_all_words(rows):
    """Shares of n-grams are compared with brute force in ``tests/training/test_metrics.py``."""
    figures = measure_texts([" ".join(row) for row in rows], {"a", "b"}.__contains__)
    words = list(itertools.chain.from_iterable(rows))
    assert figures.words == len(words)
    assert figures.words_per_text == pytest.approx(len(words) / max(1, len(rows)))
    assert figures.unknown_words == pytest.approx(
        sum(word in ("B", "xyz") for word in words) / max(1, len(words))
    )


SEARCH = {"temperature": (0.05, 1.0, 6.0), "top_p": (1.0, 0.9)}


@pytest.fixture(scope="module")
def trials(model: ReviewModel) -> list[Any]:
    return list(reviewgen.tune_sampling(model, people(300, 2), search=SEARCH, texts=120))


def nearest(trials: list[Any]) -> Any:
    return min(trials, key=lambda trial: trial.distance)


@pytest.mark.slow
def test_each_combination_is_a_trial(trials):
    expected = [
        dict(zip(SEARCH, each, strict=True)) for each in itertools.product(*SEARCH.values())
    ]
    assert [trial.settings for trial in trials] == expected


def test_the_best_for_reading_has_the_fewest_bits(trials):
    best = nearest(trials)
    assert best.reading == best.generated.bits_per_character


def test_repetitive_texts_are_never_the_best_for_reading(trials):
    best = nearest(trials)
    distinct = tuple(0.59 * share for share in best.human.distinct)
    dull = (
        replace(best.generated, repeated_sentences=0.03),
        replace(best.generated, distinct=distinct),
    )
    assert [replace(best, generated=texts).reading for texts in dull] == [math.inf, math.inf]


def test_extreme_temperatures_are_far_from_people(trials):
    best = nearest(trials)
    assert best.settings["temperature"] == 1.0
    by = {(trial.settings["temperature"], trial.settings["top_p"]): trial for trial in trials}
    assert by[0.05, 1.0].distance > 1.5 * best.distance < by[6.0, 1.0].distance
    bits = [
        by[temperature, 1.0].generated.bits_per_character or 0.0 for temperature in (0.05, 1.0, 6.0)
    ]
    assert bits == sorted(bits) and bits[0] < (best.human.bits_per_character or 0.0) < bits[2]


def test_as_many_words_are_generated_as_people_wrote(trials):
    same_size = [
        abs(trial.human.words - trial.generated.words) <= 40
        for trial in trials
        if trial.settings["temperature"] >= 1
    ]
    assert all(same_size), (
        "at the lowest temperature the texts are longer than all of the human ones together"
    )


def test_the_statistics_are_those_of_the_texts_of_generate(model):
    options: Any = {"search": {"temperature": [0.9]}, "texts": 20, "judge": model, "seed": 7}
    (trial,) = reviewgen.tune_sampling(model, people(80, 2), **options)
    texts = model.generate("", num_return_sequences=20, seed=7, temperature=0.9)
    lexicon = model.bundle.lexicon
    assert lexicon is not None
    bits = model.evaluate(texts, clean=False).bits_per_character
    assert trial.generated == measure_texts(texts, lexicon.__contains__, lambda _: bits)
    (again,) = reviewgen.tune_sampling(model, people(80, 2), **options)
    assert replace(again, seconds=trial.seconds) == trial


def test_wrong_arguments_and_sources_are_refused(model):
    refused: list[tuple[list[str], dict[str, Any], str]] = [
        (people(80, 2), {"search": {"temperature": []}}, "at least one value of temperature"),
        (people(39, 2), {}, "at least 40; the source has 39"),
    ]
    for source, options, word in refused:
        with pytest.raises((ConfigError, DataError), match=word):
            list(reviewgen.tune_sampling(model, source, **options))


@pytest.fixture
def common(model: ReviewModel, tmp_path) -> list[Any]:
    file = tmp_path / "people.txt"
    file.write_text("\n".join(people(120, 2)), encoding="utf-8")
    search = ["--search", "temperature=0.1,1"]
    return ["tune-sampling", model.bundle.folder, "--data", file, "--texts", 20, *search]


@pytest.mark.wrong_types
def test_the_command_prints_a_table_and_saves_the_best(model, common, tmp_path, run_command):
    status, out, _ = run_command(*common, "--out", tmp_path / "best")
    assert status == 0
    header, human, *rows = out.splitlines()
    assert header.split()[:2] == ["unknown", "distinct-1"] and human.startswith("texts by people")
    assert [row.split()[:2] for row in rows[:2]] == [["temperature", "0.1"], ["temperature", "1"]]
    assert (
        rows[2].startswith("Nearest to texts by people: temperature 1.")
        and str(tmp_path / "best") in rows[2]
    )
    saved = reviewgen.load(tmp_path / "best")
    before = model.generation_config.likeness
    assert (
        saved.generation_config.likeness == before | {"temperature": 1}
        and "--profile likeness" in rows[3]
    )
    assert saved.generation_config.temperature == model.generation_config.temperature


def test_the_command_saves_the_best_for_reading(common, tmp_path, run_command):
    options = ["--for", "reading", "--out", tmp_path / "read"]
    assert run_command(*common, *options)[0] == 0
    assert reviewgen.load(tmp_path / "read").generation_config.temperature in (0.1, 1)


def test_the_command_prints_json(common, run_command):
    facts = json.loads(run_command(*common, "--json")[1])
    assert facts["best"]["settings"] == {"temperature": 1} and len(facts["trials"]) == 2


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    "wrong",
    [
        ["--for", "readers"],
        ["--search", "temperature="],
        ["--search", "temperature=warm"],
        ["--search", "temperature=0.1,1"],
    ],
    ids=" ".join,
)
def test_a_bad_call_of_the_command_is_one_sentence(wrong, common, run_command):
    status, _, err = run_command(*common, *wrong)
    assert status == 2 and err.startswith("error: ") and len(err.splitlines()) == 1
