"""Metrics of generated texts: their values by brute force, in trainings and cards, and what goes
wrong in them.
"""

import itertools
import json
import unicodedata
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from reviewgen.evaluation.metrics import TextMetrics
from tests.support.fakes import TEXTS
from tests.support.trainings import texts_of, trained

IN_TREE = (
    "distinct-1",
    "distinct-2",
    "distinct-3",
    "distinct-4",
    "self-repetition",
    "new-words",
    "repeated-sentences",
)
CODE = """
seen, calls = [], []

class Recorder:
    unit, lower_is_better = "texts", False
    def __call__(self, sample):
        seen.append(sample)
        return len(sample.texts)

class Raises(Recorder):
    def __call__(self, sample):
        raise ValueError("no\\nverbs here.")

class Nan(Recorder):
    def __call__(self, sample):
        return float("nan")

class Once(Recorder):
    def __call__(self, sample):
        calls.append(2)
        if len(calls) == 1:
            raise RuntimeError("not yet")
        return 0.5

recorder, raises, nan, once, number = Recorder(), Raises(), Nan(), Once(), 7
"""
NAMES = ("recorder", "raises", "nan", "once", "number", "gone")
PROBLEMS = {
    "raises": "ValueError: no verbs here.",
    "nan": "it returned nan, not a finite number.",
    "once": "RuntimeError: not yet.",
}


@pytest.fixture
def fakes(install) -> Any:
    """Install a package of metrics, good and bad, and return its module."""
    install(
        "reviewgen-fakes",
        {"metrics": {name: f"fake_metrics:{name}" for name in NAMES}},
        {"fake_metrics": CODE},
    )
    import fake_metrics

    return fake_metrics


def words(text: str) -> list[str]:
    """Return the words of a text in lower case, found character by character."""
    found = []
    word = ""
    for here, after in zip(text, [*text[1:], " "], strict=False):
        if is_letter(here) or (word and here in "'\u2019" and is_letter(after)):
            word += here
        elif word:
            found.append(word.casefold())
            word = ""
    return [*found, word.casefold()] if word else found


def is_letter(character: str) -> bool:
    category = unicodedata.category(character)
    return (
        (character.isalnum() and category != "Nd")
        or category[0] == "M"
        or character in "\u200c\u200d"
    )


def brute_values(texts: Sequence[str], known: set[str]) -> dict[str, float]:
    """Return what the metrics in the tree should be."""
    rows = list(map(words, texts))
    values = {}
    for n in (1, 2, 3, 4):
        grams: list[tuple[str, ...]] = []
        for row in rows:
            grams += zip(*(row[start:] for start in range(n)), strict=False)
        values[f"distinct-{n}"] = len(set(grams)) / len(grams) if grams else 0.0
    shares = []
    for row in (row for row in rows if len(row) >= 4):
        fours = [row[start : start + 4] for start in range(len(row) - 3)]
        shares.append(sum(four in fours[:number] for number, four in enumerate(fours)) / len(fours))
    values["self-repetition"] = sum(shares) / len(shares) if shares else 0.0
    written = list(itertools.chain.from_iterable(rows))
    values["new-words"] = (
        sum(word not in known for word in written) / len(written) if written else 0.0
    )
    pieces = [
        [piece.strip() for piece in text.casefold().split("!") if len(piece.split()) > 2]
        for text in texts
    ]
    values["repeated-sentences"] = sum(len({*row}) < len(row) for row in pieces) / max(
        1, len(texts)
    )
    return values


def test_values_are_those_of_brute_force():
    known = {"a", "b", "c", "don't"}
    rng = np.random.default_rng(0)
    for _ in range(20):
        texts = [
            " ".join(rng.choice(list("abcDEF"), rng.integers(0, 14))) + "!"
            for _ in range(rng.integers(1, 9))
        ]
        texts[0] += f" {texts[0].swapcase()}"
        values = TextMetrics(IN_TREE, frozenset(known)).measure(texts)
        assert values == pytest.approx(brute_values(texts, known))
    texts = ["The end, the end, the end, the end!", "Is THIS the end?", "Don't say 'No'."]
    values = TextMetrics(IN_TREE, frozenset({"the", "end", "is", "don't", "no"})).measure(texts)
    assert (values["distinct-1"], values["distinct-2"], values["new-words"]) == (
        7 / 15,
        6 / 12,
        2 / 15,
    )
    assert values["self-repetition"] == pytest.approx((3 / 5 + 0) / 2)
    assert set(TextMetrics(IN_TREE).measure([""]).values()) == {0.0}


# In a training.


@pytest.fixture
def measured(fakes: Any) -> Any:
    """A training with evaluations, the words of its texts, and what was measured."""
    names = [*IN_TREE, "recorder"]
    run, _, model = trained(
        steps=12, training={"evaluations": 3, "metrics": names, "copy_tokens": 1600}
    )
    known = set(itertools.chain.from_iterable(map(words, texts_of(run, "train"))))
    return SimpleNamespace(model=model, known=known, seen=fakes.seen)


def test_evaluations_measure_the_texts_that_were_generated(measured):
    evaluations = measured.model.training["evaluations"]
    known = measured.known
    assert len(evaluations) == 3
    assert all(sample.training_words == known for sample in measured.seen)
    for evaluation, sample in zip(evaluations, measured.seen, strict=False):
        assert evaluation["metrics"] == pytest.approx(
            brute_values(sample.texts, known) | {"recorder": len(sample.texts)}
        )
        assert len(sample.texts) == 4  # the fewest, in so short a run


def test_the_record_has_the_metrics_of_generated_and_of_held_out_texts(measured):
    # then 11 for the interval
    final = measured.model.training["metrics"]
    generated, held_out = measured.seen[-13:-11]
    counts = {
        "generated": len(generated.texts),
        "held_out": len(held_out.texts),
        "characters": sum(map(len, generated.texts)),
    }
    assert (
        final["recorder"]
        == {
            "unit": "texts",
            "lower_is_better": False,
            "interval": [counts["generated"]] * 2,
        }
        | counts
    )
    assert all(any(whole.startswith(text) for whole in TEXTS) for text in held_out.texts)
    for name, sample in (("generated", generated), ("held_out", held_out)):
        assert {each: final[each][name] for each in IN_TREE} == pytest.approx(
            brute_values(sample.texts, measured.known)
        )
    for each in IN_TREE:
        assert final[each]["interval"][0] <= final[each]["generated"] <= final[each]["interval"][1]
    card = str(measured.model.generate_model_card())
    units = dict.fromkeys(("self-repetition", "repeated-sentences"), "share, lower is better")
    assert all(
        f"| {each} ({units.get(each, 'share')}) | {final[each]['generated']:.4g} | " in card
        for each in IN_TREE
    )


def test_metrics_do_not_change_the_training(measured):
    plain = trained(steps=12, training={"evaluations": 3})[2].model.state_dict()
    for name, tensor in measured.model.model.state_dict().items():
        assert plain[name].equal(tensor)


# What fails.


def test_a_metric_that_fails_is_noted_once_missing_and_called_again(fakes):
    training = {"evaluations": 3, "copy_tokens": 200, "metrics": [*PROBLEMS, "distinct-2"]}
    _, _, model = trained(steps=12, training=training)
    record = model.training
    card = str(model.generate_model_card())
    assert record["steps"] == 12 and len(record["evaluations"]) == 3
    once, *others = (each["metrics"] for each in record["evaluations"])
    assert {once[name] for name in PROBLEMS} == {None} and {each["once"] for each in others} == {
        0.5
    }
    failed = {name for name in PROBLEMS if name != "once"}
    assert all(each[name] is None for each, name in itertools.product(others, failed))
    assert all(each["distinct-2"] is not None for each in (once, *others))
    assert [note for note in record["notes"] if "metric" in note] == [
        f"The metric {name!r} of reviewgen-fakes 1.2.3 failed and is shown as missing: {said}"
        for name, said in PROBLEMS.items()
    ]
    assert "| distinct-2 (share) |" in card and "| raises" not in card
    json.dumps(record, allow_nan=False)
