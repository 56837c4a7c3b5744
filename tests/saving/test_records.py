"""The facts of a downloaded training record: one of another type is one sentence at loading, one
that is null is unknown.
"""

import contextlib
import copy
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import reviewgen
from reviewgen.errors import BundleError
from reviewgen.hub import brief_facts
from reviewgen.registry.saved import describe_weights
from reviewgen.saving.read import read_bundle
from reviewgen.web.curves import find_curves
from tests.support.live_server import in_process

HUGE = 10**90
WRONG = {
    str: (5, [1], {"a": 1}, True),
    bool: (5, "x", [1], {"a": 1}),
    int: ("x", [1], {"a": 1}, True),
    float: ("x", [1], {"a": 1}, True),
    list: (5, "x", {"a": 1}, True, HUGE),
    dict: (5, "x", [1], True, HUGE),
}
DATA = {
    "source": "reviews.csv",
    "fingerprint": "0123",
    "clean": True,
    "drop_repeated_lines": True,
    "repeated_lines": ["Advertisement"],
    "reviews": {"train": 8, "validation": 1, "test": 1},
    "tokens": {"train": 800, "validation": 100, "test": 100},
    "split": {"method": "hash", "words": "a tenth"},
    "conditions": [{"name": "stars", "values": [{"label": "5"}]}],
}
PART = {
    "preset": "gru-char",
    "data": DATA,
    "config": {"batch_size": 8, "bptt": 64},
    "seconds": 8.5,
    "weight": 0.5,
    "verdict": {"words": "Converged."},
    "evaluations": [
        {"seconds": 4.0, "tokens_seen": 400, "step": 5, "bits_per_character": 2.5},
        {"seconds": 8.0, "tokens_seen": 800, "step": 9, "bits_per_character": 2.0},
    ],
    "held_out": {"split": "test", "reviews": 1, "bits_per_character": 2.0},
}
METRIC = {
    "unit": "%",
    "lower_is_better": True,
    "generated": 3.5,
    "interval": [3.0, 4.0],
    "held_out": 2.5,
}
RECORD = PART | {
    "stopped": "all steps taken",
    "steps": 9,
    "data": (
        DATA | {"corpora": [{"source": "more.csv", "weight": 0.5, "characters": 50, "times": 2.0}]}
    ),
    "novelty": {
        "form": "compact",
        "copy_rate": 0.03,
        "copy_rate_interval": [0.02, 0.04],
        "copy_rate_texts": 100,
        "copy_rate_characters": 25_000,
        "held_out_copy_rate": 0.01,
        "token_copy_rate": 0.1,
        "held_out_token_copy_rate": 0.05,
        "false_positive_rates": {"20": 0.01},
        "membership": 0.52,
        "membership_interval": [0.44, 0.6],
        "membership_texts": 100,
        "exposure": 1.6,
    },
    "metrics": {"distinct-2": METRIC},
    "parameters": {"embeddings": 500},
    "parts": [PART],
    "weights": {
        "method": "gate",
        "characters": 500,
        "bits_per_character": {"fitted_weights": 1.9, "parts": [2.0]},
    },
    "parent": {"source": "older", "data": DATA, "held_out": {"bits_per_character": 2.2}},
}
FREE = {"method", "form", "name", "label", "words", "step", "source", "reviews", "values"}
FREE |= {"split", "train", "validation", "test", "conditions", "weight", "characters", "times"}
FREE |= {"false_positive_rates", "20", "copy_rate_texts", "held_out_token_copy_rate"}
FREE |= {"parts", "fitted_weights", "bits_per_character"}
"""Facts that may have any type somewhere: they are only printed, or only on a card, which may be
refused.
"""


@pytest.fixture(scope="module")
def saved(model_folder, tmp_path_factory) -> Path:
    """A saved model without a manifest, so that a changed record is refused for itself."""
    folder = Path(
        shutil.copytree(model_folder("gru-char"), tmp_path_factory.mktemp("saved") / "model")
    )
    (folder / "manifest.json").unlink()
    # it belongs to the corpus of the record
    (folder / "novelty.safetensors").unlink(missing_ok=True)
    return folder


def facts_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield the path of each fact in a record, with its value."""
    if path:
        yield path, value
    pairs: Any = ()
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list):
        pairs = enumerate(value)
    for key, inner in pairs:
        yield from facts_of(inner, (*path, key))


def name_of(path: tuple[Any, ...]) -> str:
    """Return the name of a fact; of an element of a list, the name of the list."""
    return [key for key in path if isinstance(key, str)][-1]


def with_fact(path: tuple[Any, ...], value: Any) -> str:
    """Return the JSON of the record with another value of one fact."""
    record: Any = copy.deepcopy(RECORD)
    inner = record
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return json.dumps(record)


def loaded(folder: Path) -> reviewgen.ReviewModel:
    """Return the saved model with the whole record."""
    (folder / "training.json").write_text(json.dumps(RECORD))
    return reviewgen.load(folder)


def show(model: reviewgen.ReviewModel) -> None:
    """Display the facts of a model wherever its record is read."""
    brief_facts(model.bundle)
    model.generate_model_card()
    with contextlib.suppress(BundleError):  # it may have none
        find_curves(model.training, "m")
    assert model._repr_html_()
    assert model.evaluate(["the movie was good"]).reviews == 1


def test_a_record_with_all_facts_is_shown(saved):
    show(loaded(saved))


@pytest.mark.slow
def test_a_fact_of_another_type_is_refused(saved):
    wrong = []
    for path, value in facts_of(RECORD):
        for odd in WRONG[type(value)]:
            (saved / "training.json").write_text(with_fact(path, odd))
            try:
                read_bundle(saved, accept_changes=True)
            except BundleError as error:
                if "training.json must be " not in str(error):
                    wrong.append((path, odd, str(error)))
            else:
                if name_of(path) not in FREE:
                    wrong.append((path, odd, "it was read"))
    assert wrong == []


@pytest.mark.parametrize(
    "path", [("novelty", "copy_rate_interval"), ("metrics", "distinct-2", "interval")]
)
@pytest.mark.parametrize("limits", [[], [0.1], [0.1, 0.2, 0.3]])
def test_an_interval_has_two_numbers(saved, path, limits):
    (saved / "training.json").write_text(with_fact(path, limits))
    with pytest.raises(
        BundleError,
        match=rf"interval in .* must be a list of two numbers; got {re.escape(str(limits))}$",
    ):
        reviewgen.load(saved, accept_changes=True)


@pytest.mark.slow
def test_other_facts_may_have_any_type(saved):
    model = loaded(saved)
    for path, value in facts_of(RECORD):
        if name_of(path) in FREE:
            for odd in WRONG[type(value)]:
                show_or_refuse(model, saved, with_fact(path, odd))


@pytest.mark.slow
def test_facts_may_be_null(saved):
    model = loaded(saved)
    for path, _ in facts_of(RECORD):
        show_or_refuse(model, saved, with_fact(path, None))


def show_or_refuse(model: reviewgen.ReviewModel, folder: Path, record: str) -> None:
    """Display the facts of a record; it, or the card, may be refused, but only in one sentence that
    names the file.
    """
    (folder / "training.json").write_text(record)
    try:
        model.bundle.training = read_bundle(folder, accept_changes=True).training
        show(model)
    except BundleError as error:
        assert "training.json" in str(error)


def test_a_server_names_a_model_whose_facts_are_null(saved):
    (saved / "training.json").write_text(json.dumps(dict.fromkeys(RECORD)))
    with in_process({"m": reviewgen.load(saved)}) as server:
        (listed,) = server.http.get("/v1/models").json()["data"]
    assert "Copy rate" not in dict(listed["reviewgen"]["facts"])


@pytest.mark.parametrize(
    "words", [("export", "--html", "page.html"), ("evaluate", "--data", "texts.csv")]
)
def test_a_command_refuses_an_interval_that_is_a_number(saved, words, tmp_path, run_command):
    (saved / "training.json").write_text(with_fact(("novelty", "copy_rate_interval"), 1))
    verb, option, name = words
    status, _, error = run_command(verb, saved, option, tmp_path / name)
    assert status == 1
    assert "copy_rate_interval in novelty in training.json must be a list; got 1" in error
    assert "Traceback" not in error


def test_list_shows_a_record_with_a_wrong_fact_as_a_problem(saved, install):
    (saved / "training.json").write_text(with_fact(("parameters", "embeddings"), "x"))
    package = (
        install("fake-weights", {"weights": {"gru-fake": "fakeweights.gru_fake"}}) / "fakeweights"
    )
    shutil.copytree(saved, package / "gru_fake")
    known = describe_weights("gru-fake")
    assert known is not None and "embeddings" in str(known.problem)
