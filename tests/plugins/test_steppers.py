"""Steppers: equal to the plain call of their model, each row the same alone and among others, and
without torch.
"""

import itertools
from typing import Any

import numpy as np
import pytest

from reviewgen.compiled import Constraints, SamplingParams, build_windows, copies, no_places
from reviewgen.errors import BundleError
from reviewgen.protocols.model import flatten_state
from reviewgen.testing.models import call, some_ids
from tests.support.plugin_models import PLAIN, count_ngram, make_network

NETWORKS = ("rnn", "gru", "lstm", "nnlm")
ENDLESS = PLAIN._replace(min_new_tokens=10**6)
every_network = pytest.mark.parametrize("name", NETWORKS)
every_model = pytest.mark.parametrize("name", (*NETWORKS, "ngram"))


def make(name: str, **settings: Any) -> Any:
    if name == "ngram":
        random = np.random.default_rng(0)
        return count_ngram(
            [[0, *random.integers(2, 11, random.integers(0, 30)), 1] for _ in range(60)], 11, 3
        )[0]
    return make_network(name, **({"hidden_size": 37} | settings))


@every_network
@pytest.mark.parametrize("bits, tolerance", [(32, 1e-4), (16, 2e-3), (8, 0.3)])
def test_logits_and_states_are_those_of_the_plain_call_or_nearly_with_fewer_bits(
    name, bits, tolerance
):
    """With 32 bits, ``tests/kit/test_laws.py`` has all settings."""
    model = make(name)
    stepper = model.stepper(weight_bits=bits)
    ids = some_ids(model, 2, 60)
    expected, memory = call(model, ids, model.initial_state(2))
    _, state = stepper.forward(ids[:, :30].numpy(), stepper.initial_state(2))
    logits, state = stepper.forward(ids[:, 30:].numpy(), state)
    assert np.abs(logits - expected[:, -1].numpy()).max() < tolerance
    for found, wanted in zip(flatten_state(state), flatten_state(memory), strict=True):
        assert np.abs(found - wanted.numpy()).max() < tolerance


@every_network
def test_damaged_weights_are_refused(name):
    model = make(name)
    for damage in np.nan, np.inf:
        arrays = {key: tensor.numpy().copy() for key, tensor in model.state_dict().items()}
        arrays["output.bias"][1] = damage
        with pytest.raises(BundleError, match=r"output\.bias"):
            type(model.stepper())(model.config, arrays)


# The loop that samples many tokens.


def sample(
    stepper: Any,
    params: SamplingParams = PLAIN,
    rows: int = 3,
    numbers: int = 64,
    windows: Any = None,
    looks_back: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the tokens of some rows after a beginning each, and the numbers that they used up."""
    random = np.random.default_rng(0)
    texts = random.integers(2, 11, (rows, max(1, looks_back)))
    _, state = stepper.forward(texts, stepper.initial_state(rows))
    constraints = windows and Constraints(*windows, None, no_places(rows))
    tokens, used, _ = stepper.sample(
        state,
        random.random((rows, numbers)),
        params,
        texts[:, :looks_back],
        np.zeros(rows, np.int64),
        constraints,
    )
    return tokens, used


@every_model
def test_a_row_is_the_same_to_the_bit_among_others(name):
    model = make(name, **({} if name in ("nnlm", "ngram") else {"ngrams": 4}))
    rows = 7
    stepper = model.stepper()
    ids = some_ids(model, rows, 30).numpy()
    logits, state = stepper.forward(ids, stepper.initial_state(rows))
    uniform = np.random.default_rng(0).random((rows, 200))
    count = np.zeros(rows, np.int64)
    together, used, _ = stepper.sample(state, uniform, PLAIN, ids[:, :0], count)
    for row in range(rows):
        one = slice(row, row + 1)
        logits_alone, state_alone = stepper.forward(ids[one], stepper.initial_state(1))
        assert np.array_equal(logits_alone, logits[one])
        tokens, used_alone, _ = stepper.sample(
            state_alone, uniform[one], PLAIN, ids[one, :0], count[one]
        )
        assert np.array_equal(tokens, together[one]) and used_alone == used[row]


@every_model
def test_settings_and_the_copy_limit_are_applied(name):
    stepper = make(name).stepper()
    corpus = np.random.default_rng(1).integers(2, 11, 1000)
    windows = build_windows(corpus, (0, 1), length=3, bits_per_window=16)
    for rows in (1, 9):
        params = PLAIN._replace(
            no_repeat_ngram_size=2, min_new_tokens=20, temperatures=np.array([0.5, 3.0]), top_k=9
        )
        for row in sample(stepper, params, rows, numbers=20)[0]:
            pairs = list(itertools.pairwise(row[row >= 0]))
            assert len(set(pairs)) == len(pairs) and (name == "ngram" or len(pairs) == 19)
        tokens, _ = sample(stepper, ENDLESS, rows, numbers=100, windows=(windows, 2), looks_back=4)
        copied, _ = sample(stepper, ENDLESS, rows, numbers=100, looks_back=4)
        ends = itertools.product(copied, range(3, 90))
        assert any(copies(windows, row, end, 2) for row, end in ends)
        for row in tokens:
            text = row[row >= 0]
            assert len(text) and not any(copies(windows, text, end, 2) for end in range(len(text)))
