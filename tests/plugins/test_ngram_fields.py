"""An n-gram of texts with fields: against a sum over all ways to copy, and in Python, compiled code
and JavaScript alike.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch

from reviewgen.errors import DataError
from reviewgen.registry.plugins import find_model, find_stepper
from reviewgen.testing import check_model, check_stepper
from tests.support.node import why_no_node
from tests.support.plugin_models import BOS, EOS, PLAIN, count_ngram, ids_of, log_probabilities
from tests.support.web_steppers import logits_in_node, logits_in_python, write_model

# two fields; the ids 2 to 6 are tokens
V = 10
FIRST = 7
SECOND = 8
BEGIN = 9
COPY_START = 0.002
STAY = 0.95
MIN_LEFT = 0.01

Values = Sequence[tuple[int, Sequence[int]]]
"""The marker and the tokens of each value."""


def given(values: Values) -> list[int]:
    fields = chain.from_iterable((marker, *value) for marker, value in values)
    return [BOS, *fields, BEGIN]


def some_texts(count: int, seed: int = 0) -> Iterator[tuple[Values, list[int]]]:
    """Yield fields and texts that name them; the first field may have two forms, and each may be
    missing.
    """
    rng = np.random.default_rng(seed)
    for _ in range(count):
        name, title = (rng.integers(2, 7, rng.integers(1, 4)).tolist() for _ in range(2))
        values = [(FIRST, name), (FIRST, [2, *name]), (SECOND, title)][
            rng.integers(0, 2) : rng.integers(1, 4)
        ]
        named = name if rng.random() < 0.7 else title
        yield (
            values,
            [
                *rng.integers(2, 7, rng.integers(0, 4)).tolist(),
                *named,
                *rng.integers(2, 7, rng.integers(0, 4)).tolist(),
            ],
        )


def train(**settings: Any) -> Any:
    texts = [[*given(values), *text, EOS] for values, text in some_texts(80)]
    return count_ngram(texts, V, **({"field_ids": 3, "order": 3} | settings))[0]


def count_form(values: Values, text: Sequence[int]) -> list[int]:
    """Return a text with the marker of a value in its place: leftmost first, longest first."""
    markers = {"".join(map(chr, value)): chr(marker) for marker, value in values}
    pattern = "|".join(sorted(markers, key=len, reverse=True)) or "$^"
    return [
        BOS,
        *map(ord, re.sub(pattern, lambda found: markers[found[0]], "".join(map(chr, text)))),
    ]


class AllPaths:
    """The probabilities of a text by who wrote each token: the n-gram, or a copy from a place of a
    value.
    """

    def __init__(self, plain: Any, values: Values) -> None:
        self.plain = plain
        self.values = values
        self.places: list[tuple[int, int]] = []
        for number, (_, value) in enumerate(values):
            self.places += [(number, at) for at in range(len(value))]

    def history(self, text: Sequence[int]) -> list[int]:
        """Return bos and the tokens, with markers in place of the values whose beginnings were
        followed to their ends.
        """
        written = [BOS]
        value = (0, [0])
        size = 0
        before: list[int] = []
        for token in text:
            if size and value[1][size] == token:
                size += 1
            else:
                starts = [each for each in self.values if each[1][0] == token]
                value, size, before = (starts[0], 1, [*written]) if starts else (value, 0, before)
            written.append(token)
            if size == len(value[1]):
                written = [*before, value[0]]
                size = 0
        return written

    def next_plain(self, text: Sequence[int]) -> tuple[list[float], list[float]]:
        """Return the probabilities of tokens, and of the values, if no copy is going on."""
        suffix = self.history(text)
        while True:
            p = (
                log_probabilities(self.plain, suffix)[0, -1].exp()
                if suffix
                else self.plain.state_dict()["root"]
            )
            firsts = [(marker, 1e-9 + float(p[value[0]])) for marker, value in self.values]
            totals = {
                marker: sum(first for other, first in firsts if other == marker)
                for marker, _ in firsts
            }
            parts = [float(p[marker]) * first / totals[marker] for marker, first in firsts]
            left = float(p[:FIRST].sum()) + sum(parts)
            if left >= MIN_LEFT or not suffix:
                return [float(each) / left for each in p[:FIRST]], [part / left for part in parts]
            suffix = suffix[1:]

    def paths(self, text: Sequence[int]) -> dict[tuple[int, int] | None, float]:
        """Return the probability of the text with each place that is copied next; None for no
        copy.
        """
        ways: dict[tuple[int, int] | None, float] = {None: 1.0}
        anywhere = COPY_START if self.places else 0.0
        for size, token in enumerate(text):
            tokens, parts = self.next_plain(text[:size])
            plain = ways.pop(None)
            steps = [
                *ways.items(),
                *((place, plain * anywhere / len(self.places)) for place in self.places),
            ]
            steps += [((number, 0), plain * (1 - anywhere) * p) for number, p in enumerate(parts)]
            ways = defaultdict(float, {None: plain * (1 - anywhere) * tokens[token]})
            for (number, at), p in steps:  # type: ignore[misc]
                value = self.values[number][1]
                goes_on = at + 1 < len(value)
                if value[at] == token:
                    ways[None] += p * (1 - STAY if goes_on else 1.0)
                    ways[number, at + 1] += p * STAY if goes_on else 0.0
            ways = {way: p for way, p in ways.items() if p or way is None}
        return ways


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("smoothing", ["kneser-ney", "none"])
def test_every_probability_is_a_sum_over_all_ways_to_copy(order, smoothing):
    model = train(order=order, smoothing=smoothing)
    plain = count_ngram(
        [[*count_form(*each), EOS] for each in some_texts(80)], V, order, smoothing
    )[0]
    for name, tensor in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    for values, text in some_texts(20, seed=1):
        found = log_probabilities(model, [*given(values), *text])[0, len(given(values)) - 1 :].exp()
        brute = AllPaths(plain, values)
        for size in range(len(text) + 1):
            if (before := sum(brute.paths(text[:size]).values())) < 1e-12:
                break  # with "none", the text may be impossible
            expected = [
                sum(brute.paths([*text[:size], token]).values()) / before for token in range(FIRST)
            ]
            np.testing.assert_allclose(found[size], [*expected, 0, 0, 0], atol=1e-6)


DEFAULT = pytest.param({}, marks=pytest.mark.slow)


@pytest.mark.parametrize("settings", [DEFAULT, {"smoothing": "none"}, {"quantized": True}], ids=str)
def test_the_laws_hold_with_fields(settings):
    check_model(lambda: train(**settings))
    check_stepper(lambda: train(**settings), find_stepper(find_model("ngram")[1]))


def test_a_text_names_what_it_is_about_and_goes_on():
    """A name of tokens that never occur in the training texts."""
    rng = np.random.default_rng(0)
    names = [rng.integers(20, 60, 4).tolist() for _ in range(60)]
    model = count_ngram(
        [[0, 97, *name, 99, 2, 3, 4, *name, 5, 6, EOS] for name in names], 100, 4, field_ids=3
    )[0]
    stepper = model.stepper()
    name = [70, 71, 70, 72]
    nothing = np.zeros((1, 0), np.int64)
    _, state = stepper.forward(np.array([[0, 97, *name, 99]]), stepper.initial_state(1))
    params = PLAIN._replace(vocab_size=97, temperatures=np.array([0.5]))
    tokens, _, _ = stepper.sample(
        state, rng.random((1, 60)), params, nothing, np.zeros(1, np.int64)
    )
    assert tokens[0, :10].tolist() == [2, 3, 4, *name, 5, 6, EOS]
    # a field that is not given
    assert log_probabilities(model, [0, 99, 2, 3, 4])[0, -1, 97:].max() == -math.inf


def test_long_fields_and_wrong_states():
    model = train()
    logits, state = model(
        ids_of([BOS, FIRST, *[2, 3] * 200, BEGIN, 2, 3, 2]), model.initial_state(1)
    )
    assert float(logits[0, -1, 3].exp()) > 0.9
    for column, value in ((0, 10**6), (2, 257), (5, V), (5, -1)):
        wrong = state.clone()
        wrong[0, column] = value
        with pytest.raises(DataError, match="not one of this model"):
            model(ids_of([2]), wrong)


@pytest.mark.node
@pytest.mark.skipif(why_no_node() is not None, reason=why_no_node() or "")
@pytest.mark.parametrize("smoothing", ["kneser-ney", "stupid-backoff"])
def test_javascript_computes_the_same(smoothing, tmp_path):
    model = train(smoothing=smoothing)
    texts = [
        [[token] for token in [*given(values), *text]] for values, text in some_texts(60, seed=2)
    ]
    texts += [[np.random.default_rng(3).integers(0, V, 200).tolist()]]
    found = logits_in_node(write_model(tmp_path, "ngram", model), texts, V)
    np.testing.assert_allclose(
        np.exp(found), np.exp(logits_in_python(model.stepper(), texts)), atol=1e-5
    )
