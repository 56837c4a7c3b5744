"""Statistics of texts against brute force; the search for the sampling settings nearest to texts by people; the command."""

import itertools
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reviewgen
from reviewgen import ReviewModel
from reviewgen.errors import ConfigError, DataError, OutputExists
from reviewgen.evaluation import measure_texts, take_words
from tests.support.fakes import NGRAM, run_command, train_tiny

NOUNS, ADJECTIVES = ["film", "cast", "plot", "score", "ending"], ["good", "bad", "long", "short", "odd"]


def people(count: int, seed: int) -> list[str]:
    """Return different sentences that a trained model can imitate."""
    draw = random.Random(seed)
    texts: dict[str, None] = {}
    while len(texts) < count:
        parts = [f"the {draw.choice(NOUNS)} was {draw.choice(ADJECTIVES)}" for _ in range(draw.randint(2, 4))]
        texts[f"{', '.join(parts)} and {draw.randint(1, 99)} more."] = None
    return list(texts)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReviewModel]:
    folder = tmp_path_factory.mktemp("sampling")
    train_tiny("ngram-char", folder / "cache", people(300, 1), **NGRAM).save_pretrained(folder / "m")
    return reviewgen.load(folder / "m")


# Statistics of texts.


@given(st.lists(st.lists(st.sampled_from(["a", "B", "b", "xyz"]), max_size=9), max_size=5))
def test_statistics_equal_a_count_of_all_n_grams(rows: list[list[str]]) -> None:
    figures = measure_texts([" ".join(row) for row in rows], {"a", "b"}.__contains__)
    words = [word for row in rows for word in row]
    assert figures.words == len(words)
    assert figures.words_per_text == pytest.approx(len(words) / max(1, len(rows)))
    assert figures.unknown_words == pytest.approx(sum(word in ("B", "xyz") for word in words) / max(1, len(words)))
    lower = [[word.lower() for word in row] for row in rows]
    for n, share in enumerate(figures.distinct, 1):
        counted = Counter(tuple(row[i : i + n]) for row in lower for i in range(len(row)) if i + n <= len(row))
        assert share == pytest.approx(len(counted) / max(1, counted.total()))
    repeated = [[row[i : i + 4] in [row[j : j + 4] for j in range(i)] for i in range(len(row) - 3)] for row in lower]
    shares = [sum(row) / len(row) for row in repeated if row]
    assert figures.repetition == pytest.approx(sum(shares) / max(1, len(shares)))


def test_a_judge_is_asked_once_for_all_texts() -> None:
    asked: list[Any] = []
    assert measure_texts(["one two", "three"], score=lambda texts: asked.append(texts) or 1.5).bits_per_character == 1.5
    assert asked == [["one two", "three"]]
    assert measure_texts(["", ""], score=lambda texts: 1.5).bits_per_character is None
    assert measure_texts([]).words_per_text == 0


def test_texts_are_taken_until_there_are_enough_words() -> None:
    texts = ["a b c", "d e", "f"]
    assert [take_words(texts, words) for words in (0, 1, 3, 4, 6, 99)] == [[], texts[:1], texts[:1], texts[:2], texts, texts]


# The search.


def test_each_combination_is_a_trial_and_extremes_are_far_from_people(model: ReviewModel) -> None:
    search = {"temperature": (0.05, 1.0, 6.0), "top_p": (1.0, 0.9)}
    trials = list(reviewgen.tune_sampling(model, people(300, 2), search=search, texts=120))
    expected = [dict(zip(search, each, strict=True)) for each in itertools.product(*search.values())]
    assert [trial.settings for trial in trials] == expected
    by = {(trial.settings["temperature"], trial.settings["top_p"]): trial for trial in trials}
    best = min(trials, key=lambda trial: trial.distance)
    assert best.settings["temperature"] == 1.0
    assert by[0.05, 1.0].distance > 1.5 * best.distance < by[6.0, 1.0].distance
    bits = [by[temperature, 1.0].generated.bits_per_character or 0.0 for temperature in (0.05, 1.0, 6.0)]
    assert bits == sorted(bits) and bits[0] < (best.human.bits_per_character or 0.0) < bits[2]
    same_size = [abs(trial.human.words - trial.generated.words) <= 40 for trial in trials if trial.settings["temperature"] >= 1]
    assert all(same_size), "at the lowest temperature the texts are longer than all of the human ones together"
    again = list(reviewgen.tune_sampling(model, people(300, 2), search=search, texts=120))
    assert again == trials


def test_the_statistics_are_those_of_the_texts_of_generate(model: ReviewModel) -> None:
    (trial,) = reviewgen.tune_sampling(model, people(80, 2), search={"temperature": [0.9]}, texts=20, judge=model, seed=7)
    texts = model.generate("", num_return_sequences=20, seed=7, temperature=0.9)
    lexicon = model.bundle.lexicon
    assert lexicon is not None
    bits = model.evaluate(texts, clean=False).bits_per_character
    assert trial.generated == measure_texts(texts, lexicon.__contains__, lambda _: bits)


def test_people_s_texts_are_cut_off_and_finished_as_generated_ones_are(model: ReviewModel, tmp_path: Path) -> None:
    model.save_generation_config(tmp_path / "short", max_new_tokens=40, finish="sentence")
    short = reviewgen.load(tmp_path / "short")
    long = [f"One is {number} and a good film. Two is {number} and a bad film. Three goes on" for number in range(80)]
    (trial,) = reviewgen.tune_sampling(short, long, search={"temperature": [1.0]}, texts=20)
    assert trial.human.words_per_text == 6, "one sentence, without its number, fits into 40 characters with its end"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"search": {"temperature": []}}, "Give a list of at least one value of temperature"),
        ({"search": {"temperature": "0.8"}}, "Give a list of at least one value of temperature"),
        ({"search": {"temperature": [0.8, 0]}}, "temperature"),
        ({"search": {"temprature": [0.8]}}, "Did you mean 'temperature'?"),
        ({"search": {"max_new_tokens": [5]}}, "'max_new_tokens' is not a setting of sampling"),
        ({"texts": 19}, "texts must be a whole number of at least 20"),
        ({"splt": "test"}, "Did you mean 'split'?"),
        ({"seed": -1}, "seed"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_generated(model: ReviewModel, options: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        list(reviewgen.tune_sampling(model, people(80, 2), **options))
    assert said in str(caught.value)


def test_few_texts_are_refused(model: ReviewModel) -> None:
    with pytest.raises(DataError, match="takes at least 40; the source has 39"):
        list(reviewgen.tune_sampling(model, people(39, 2)))


# The saved defaults.


def test_defaults_are_saved_in_the_folder_or_in_a_copy(model: ReviewModel, tmp_path: Path) -> None:
    model.save_generation_config(tmp_path / "copy", temperature=0.5)
    assert reviewgen.load(tmp_path / "copy").generation_config.temperature == 0.5
    copy = reviewgen.load(tmp_path / "copy")
    before = {file.name: file.read_bytes() for file in (tmp_path / "copy").iterdir()}
    copy.save_generation_config(tmp_path / "copy", top_k=3, temperature=None)
    after = {file.name: file.read_bytes() for file in (tmp_path / "copy").iterdir()}
    changed_files = {name for name in before if before[name] != after[name]}
    assert changed_files == {"generation_config.json", "manifest.json"} and before.keys() == after.keys()
    changed = reviewgen.load(tmp_path / "copy")
    assert (changed.generation_config.temperature, changed.generation_config.top_k) == (0.5, 3)
    assert list(tmp_path.iterdir()) == [tmp_path / "copy"], "nothing is left behind"
    with pytest.raises(OutputExists):
        model.save_generation_config(tmp_path / "copy", temperature=0.7)
    with pytest.raises(ConfigError, match="temperature"):
        model.save_generation_config(tmp_path / "new", temperature=-1)
    with pytest.raises(ConfigError, match="not a condition of this model"):
        model.save_generation_config(tmp_path / "new", conditions={"stars": 5})
    assert not (tmp_path / "new").exists()


def test_a_model_that_is_not_saved_has_no_folder(tmp_path: Path) -> None:
    trained = train_tiny("ngram-char", tmp_path / "cache", people(60, 1), **NGRAM)
    with pytest.raises(ConfigError, match="was not loaded from a folder"):
        trained.save_generation_config(tmp_path / "new", temperature=0.5)


def test_defaults_are_saved_in_the_working_directory_and_from_numpy(
    model: ReviewModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save_generation_config(tmp_path / "m")
    monkeypatch.chdir(tmp_path / "m")
    reviewgen.load(".").save_generation_config(".", top_k=np.int64(4))
    assert reviewgen.load(tmp_path / "m").generation_config.top_k == 4


# The command.


def test_the_command_prints_a_table_and_saves_the_best(model: ReviewModel, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    (tmp_path / "people.txt").write_text("\n".join(people(120, 2)), encoding="utf-8")
    folder = model.bundle.folder
    common = ["tune-sampling", folder, "--data", tmp_path / "people.txt", "--texts", 20, "--search", "temperature=0.1,1"]
    status, out, _ = run_command(monkeypatch, capsys, *common, "--out", tmp_path / "best")
    assert status == 0
    header, human, *rows = out.splitlines()
    assert header.split()[:2] == ["unknown", "distinct-1"] and human.startswith("texts by people")
    assert [row.split()[:2] for row in rows[:2]] == [["temperature", "0.1"], ["temperature", "1"]]
    assert rows[2] == f"Nearest to texts by people: temperature 1. Saved as the defaults of {tmp_path / 'best'}."
    assert reviewgen.load(tmp_path / "best").generation_config.temperature == 1
    assert max(map(len, out.splitlines()[:-2])) <= 120
    status, out, _ = run_command(monkeypatch, capsys, *common, "--json")
    told = json.loads(out)
    assert (status, told["best"]["settings"], len(told["trials"])) == (0, {"temperature": 1}, 2)


def test_words_may_be_searched_and_an_existing_folder_is_refused_first(
    model: ReviewModel, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    (tmp_path / "people.txt").write_text("\n".join(people(60, 2)), encoding="utf-8")
    common = ["tune-sampling", model.bundle.folder, "--data", tmp_path / "people.txt", "--texts", 20]
    status, out, _ = run_command(monkeypatch, capsys, *common, "--search", "words=known,any")
    assert status == 0 and "--words " in out.splitlines()[-1]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    status, out, err = run_command(monkeypatch, capsys, *common, "--out", tmp_path / "other")
    assert status == 1 and not out and "already exists" in err
    twice = ["--search", "temperature=1", "--search", "temperature=2"]
    status, out, err = run_command(monkeypatch, capsys, *common, *twice)
    assert status == 2 and "temperature is given twice" in err


def test_both_sides_have_as_many_words_where_human_texts_are_few(model: ReviewModel) -> None:
    (trial,) = reviewgen.tune_sampling(model, people(40, 2), search={"temperature": [1.0]}, texts=100)
    assert abs(trial.human.words - trial.generated.words) <= 40


def test_a_judge_that_gives_probability_zero_is_refused(model: ReviewModel, tmp_path: Path) -> None:
    settings: Any = NGRAM | {"model": {"order": 3, "smoothing": "none"}}
    judge = train_tiny("ngram-char", tmp_path / "cache", people(60, 9), **settings)
    with pytest.raises(ConfigError, match="gives some of the human texts probability zero"):
        list(reviewgen.tune_sampling(model, [f"Zebra {n} xyz." for n in range(60)], judge=judge, texts=20))


@pytest.mark.parametrize("search", ["temperature", "temperature=", "temperature=warm", "=0.5"])
def test_the_command_refuses_a_search_of_another_form(
    model: ReviewModel, search: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    (tmp_path / "people.txt").write_text("\n".join(people(60, 2)), encoding="utf-8")
    arguments = ["tune-sampling", model.bundle.folder, "--data", tmp_path / "people.txt", "--search", search]
    status, _, err = run_command(monkeypatch, capsys, *arguments)
    assert status == 2 and err.startswith("error: ") and len(err.splitlines()) == 1
