"""Several corpora by weight, against a corpus with the copies written out by hand, and against each
corpus alone.
"""

import json
import math
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import reviewgen
from reviewgen.errors import ConfigError, DataError
from reviewgen.runs.run import TrainingRun
from tests.support.texts import as_csv, corpus_of, write
from tests.support.trainings import TRAINING, prepared, texts_of, trained, weights_of

_RANDOM = random.Random(3)


def made(words: str, count: int, length: int) -> list[str]:
    """Return distinct texts of some words."""
    return [
        " ".join(_RANDOM.choices(words.split(), k=length)) + f" {words[0]}{number}"
        for number in range(count)
    ]


FILMS = made("the film was a good long story and very bad", 120, 14)
TITLES = [
    *made("on neural models of deep graphs", 40, 5),
    "by Zyxwvut and Zyxwvut, for graphs",
    "Of Cats",
    FILMS[7],
]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    """Two files with text columns of different names; a film review stands in both."""
    folder = tmp_path_factory.mktemp("weights")
    films = write(folder / "films.csv", as_csv([{"review": text, "stars": 1} for text in FILMS]))
    return [
        films,
        write(folder / "titles.csv", as_csv([{"year": 1, "title": text} for text in TITLES])),
    ]


@pytest.fixture(scope="module")
def alone(files: list[Path]) -> list[Any]:
    """Each corpus alone; of the second, without the review of the first."""
    return [corpus_of(files[0]), corpus_of(TITLES[:-1])]


def characters(texts: list[str]) -> int:
    return sum(map(len, texts))


OPTIONS: dict[str, Any] = {"training": TRAINING, "budget": "1h"}


@pytest.fixture(scope="module")
def weighted(files: list[Path], alone: list[Any]) -> tuple[list[int], Any, Any]:
    """Weights with which titles are read three times, and the run and model of a training."""
    films, titles = (each.of("train") for each in alone)
    weights = [characters(films), 3 * characters(titles)]
    run, _, model = trained("ngram-char", files, weights=weights, **OPTIONS)
    return weights, run, model


def test_the_model_is_that_of_a_file_with_the_copies(weighted, alone):
    _, _, model = weighted
    films, titles = (each.of("train") for each in alone)
    others = alone[0].of("validation") + alone[1].of("validation")
    texts = films + 3 * titles
    by_hand = trained("ngram-char", texts, validation=others, clean=False, **OPTIONS)[2]
    for name, tensor in weights_of(by_hand.model).items():
        assert torch.equal(weights_of(model.model)[name], tensor), name
    assert set(model.bundle.lexicon) < set(by_hand.bundle.lexicon)  # there a copy is a text


def test_the_weights_are_recorded_and_in_the_card(weighted):
    weights, _, model = weighted
    facts = model.training["data"]
    assert [each["times"] for each in facts["corpora"]] == [1, pytest.approx(3)] and facts[
        "weights"
    ] == weights
    assert [each["text_column"] for each in facts["corpora"]] == ["review", "title"]
    assert (
        "titles.csv: weight" in model.bundle.card
        and "films.csv and titles.csv" in model.bundle.card
    )


def test_a_store_has_the_weights_of_its_files(weighted, files, tmp_path):
    weights, run, _ = weighted
    stored = reviewgen.prepare(
        files, preset="ngram-char", out=tmp_path / "store", weights=weights
    ).folder
    stores = prepared("ngram-char", stored, **OPTIONS).corpus.stores
    assert stores["train"].count == run.corpus.stores["train"].count


@pytest.mark.parametrize("weights", [(1, 1), (1, 5), (100, 1)])
def test_shares_are_the_weights_and_every_text_is_read(files, alone, weights):
    run = prepared("gru-char", files, weights=weights)
    read = Counter(texts_of(run, "train"))
    own = [each.of("train") for each in alone]
    assert set(read) == {*own[0], *own[1]}
    counts = [{read[text] for text in texts} for texts in own]
    assert min(map(min, counts)) == 1 and all(max(each) - min(each) <= 1 for each in counts)
    sums = [sum(read[text] * len(text) for text in texts) for texts in own]
    assert abs(sums[0] / sum(sums) - weights[0] / sum(weights)) < 60 / sum(sums)  # half a text
    for split in ("validation", "test"):
        assert texts_of(run, split) == alone[0].of(split) + alone[1].of(split)
    assert run.corpus.texts.counts["train"] == len(own[0]) + len(own[1])
    assert sum("is read" in note for note in run.corpus.texts.notes) == 1


@pytest.mark.parametrize("weights", [(1, 1), (1, 5)])
def test_a_note_says_the_share_of_a_file_with_and_without_weights(files, alone, weights):
    run = prepared("gru-char", files, weights=weights)
    own = [each.of("train") for each in alone]
    [note] = [note for note in run.corpus.texts.notes if "is read" in note]
    share = 100 * characters(own[1]) / characters(own[0] + own[1])
    assert f"times: {share:.0f} % of" in note
    assert f"to {100 * weights[1] / sum(weights):.0f} %" in note


def test_copies_are_no_texts_of_the_lexicon_and_the_novelty_index(files):
    options = {"training": {"novelty": "exact"}}
    few, many = (
        trained("ngram-char", files, weights=weights, **options)[2].bundle
        for weights in ((9, 1), (1, 5))
    )
    assert (
        set(few.lexicon) == set(many.lexicon)
        and "graphs" in many.lexicon
        and "Zyxwvut" not in many.lexicon
    )
    assert (
        few.training["data"]["corpora"][1]["times"]
        < 2
        < many.training["data"]["corpora"][1]["times"]
    )
    assert np.array_equal(few.index.ids, many.index.ids)


def test_what_a_corpus_is_identified_by(files):
    found = [
        corpus_of(source, weights=weights).fingerprint
        for source, weights in ((files, (1, 1)), (files, (1.0, 2.0)))
    ]
    assert len({*found, corpus_of(files[0]).fingerprint}) == 3
    facts = [
        TrainingRun("gru-char", files, weights=weights).plan.digest()
        for weights in ([1, 1], [1, 1], [1, 2])
    ]
    assert facts[0] == facts[1] != facts[2]


@pytest.mark.slow
def test_stores_of_one_and_of_two_workers_are_the_same(files, tmp_path, monkeypatch):
    contents = []
    for workers in "12":
        monkeypatch.setenv("REVIEWGEN_WORKERS", workers)
        store = reviewgen.prepare(
            files, preset="ngram-word", out=tmp_path / workers, weights=(1, 1), conditions=[]
        )
        contents.append((store.content["files"], store.content["train"]))
    assert (
        contents[0] == contents[1]
        and contents[0][1].count("shards/00001") > 1
        and "shards/00001/rest" in contents[0][1]
    )


@pytest.mark.parametrize(
    "source, weights, said",
    [
        ("films.csv", (1, 1), "weights are the shares of several corpora: give --data for each"),
        (
            ["films.csv", "titles.csv"],
            (1, 1, 1),
            "2 corpora need 2 weights, as in 1,1; there are 3.",
        ),
        (["films.csv", "titles.csv"], (1, 0), "weights must be above 0; got 0."),
        (["films.csv", "titles.csv"], (1, -1), "weights must be above 0; got -1."),
        (["films.csv", "titles.csv"], (1, math.nan), "weights must be a finite number; got nan."),
        (["films.csv", "titles.csv"], (1, 1e7), "titles.csv would be read "),
        (["films.csv", "./films.csv"], (1, 1), "have the same texts: give each"),
        (
            ["films.csv", FILMS[:50]],
            (1, 1),
            "All training texts of list of texts are empty, or in the other corpora, too.",
        ),
    ],
)
def test_bad_weights_are_one_sentence(files, monkeypatch, source, weights, said):
    monkeypatch.chdir(files[0].parent)
    with pytest.raises((ConfigError, DataError)) as caught:
        prepared("gru-char", source, weights=weights)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_command_line(files, tmp_path, monkeypatch, run_command):
    monkeypatch.chdir(files[0].parent)
    run: Callable[..., Any] = lambda *words: run_command(*words)  # noqa: E731
    data = ["--data", "films.csv", "--data", "titles.csv", "--weights"]
    status, out, said = run("train", "ngram-char", *data, "1,1", "--out", tmp_path / "m", "--json")
    assert status == 0 and json.loads(out)["data"]["weights"] == [1, 1], said
    assert (
        "films.csv:" in said
        and "'title' (guessed" in said
        and "titles.csv is read 6.9 times: 13 % of the characters, weighted to 50 %." in said
    )
    status, out, said = run(
        "evaluate", tmp_path / "m", "--data", "titles.csv", "--split", "test", "--json"
    )
    assert status == 0 and json.loads(out)["reviews"] == len(corpus_of(TITLES).of("test")), said
    wrong = run(
        "prepare",
        "films.csv",
        "titles.csv",
        "--weights",
        "1",
        "--preset",
        "ngram-char",
        "--out",
        tmp_path / "s",
    )
    assert wrong[0] == 2 and wrong[2].strip().endswith(
        "2 corpora need 2 weights, as in 1,1; there are 1."
    )
    status, out, said = run("sweep", "ngram-char", *data, "2,1", "--set", "model.order=2", "--json")
    assert status == 0 and len(json.loads(out)["trials"]) == 1, said
