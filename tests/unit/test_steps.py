"""Compiled steps: the loop that samples with them, mixtures of them, and their cache on the disk."""

import subprocess
import sys
from typing import Any, NamedTuple

import numpy as np
import pytest

from reviewgen.compiled import by_address, compiled
from reviewgen.compiled.decoding import logits_width, sample
from reviewgen.compiled.linear import add_up, log32
from reviewgen.compiled.mixing import mix
from reviewgen.compiled.sampling import DEAD_END, NONE, NOT_A_NUMBER, Constraints, SamplingParams
from reviewgen.compiled.spelling import no_places
from reviewgen.compiled.steps import CompiledStep
from reviewgen.compiled.windows import build_windows

V, EOS = 5, 1
PARAMS = SamplingParams(np.ones(1), 0, 1.0, 0.0, 1.0, 0, 0, 1 << 40, True, EOS, 0, V)


class Table(NamedTuple):
    """Logits by the last token, with one value of each kind that a step's weights may have."""

    rows: Any  # float32 (V, V)
    nested: Any  # (float64 (1,), int8 (2, 3))
    number: int
    factor: float
    nothing: None


@by_address
def step(table, ids, floats, ints, logits):
    """Write the logits of the last token, and count the tokens in ``floats``."""
    rows, nested, number, factor, _ = table[0]
    shift, small = nested
    for row in range(len(logits)):
        if len(ids) > 0:
            ints[0, row] = ids[row]
            floats[0, row, 0] += 1
        for token in range(len(rows)):
            logits[row, token] = rows[ints[0, row], token] * factor + shift[0] + small[1, 2] - number


@compiled
def step_without_address(table, ids, floats, ints, logits):
    pass


def test_a_step_without_an_address_is_refused():
    with pytest.raises(TypeError, match="by_address"):
        CompiledStep(step_without_address, Table(np.zeros((V, V)), (np.ones(1), np.ones((2, 3))), 1, 1.0, None))


class TableStepper:
    """A stepper whose state is the last token and how many tokens it was fed."""

    def __init__(self, rows):
        self.compiled_step = CompiledStep(
            step, Table(np.array(rows, np.float32), (np.array([7.0]), np.full((2, 3), -3, np.int8)), 4, 1.0, None)
        )

    def state_arrays(self, state):
        last, fed = state
        return np.array(fed, np.float32).reshape(1, -1, 1), np.array(last)[None]

    def state_of(self, floats, ints):
        return ints[0], floats[0, :, 0]


def draw(stepper, last, numbers=8, guard=None, texts=None, **settings):
    """Return the tokens, the used numbers and the state after greedy sampling."""
    count = len(last)
    texts = np.full((count, 2), 4) if texts is None else texts
    params, new = PARAMS._replace(**settings), np.zeros(count, np.int64)
    constraints = guard and Constraints(*guard, None, no_places(count))
    return sample(stepper, V, (last, np.zeros(count)), np.zeros((count, numbers)), params, texts, new, constraints)


CYCLE = np.full((V, V), -9.0)  # 2 -> 3 -> 4 -> 2, and 0 -> eos
for before, after in ((2, 3), (3, 4), (4, 2), (0, EOS)):
    CYCLE[before, after] = 9.0


def test_every_kind_of_weight_reaches_the_step():
    tokens, used, (last, fed) = draw(TableStepper(CYCLE), [2, 4], numbers=5)
    assert tokens.tolist() == [[3, 4, 2, 3, 4], [2, 3, 4, 2, 3]]
    assert used.tolist() == [5, 5]
    assert last.tolist() == [4, 3] and fed.tolist() == [5, 5]


def test_texts_that_end_leave_the_others_alone():
    stepper = TableStepper(CYCLE)
    alone = [draw(stepper, [start])[0][0].tolist() for start in (2, 0, 4, 0, 3)]
    tokens, _, (last, _) = draw(stepper, [2, 0, 4, 0, 3])
    assert tokens.tolist() == alone
    assert alone[1] == [EOS] + [NONE] * 7
    assert last[[0, 2, 4]].tolist() == [tokens[row, 7] for row in (0, 2, 4)]


def test_limits_and_codes():
    table = CYCLE.copy()
    table[3] = np.nan
    tokens, _, _ = draw(TableStepper(table), [2, 3, 0])
    assert tokens[:, :2].tolist() == [[3, NOT_A_NUMBER], [NOT_A_NUMBER, NONE], [EOS, NONE]]
    assert draw(TableStepper(CYCLE), [2], max_new_tokens=3)[0].tolist() == [[3, 4, 2] + [NONE] * 5]
    assert draw(TableStepper(CYCLE), [2], numbers=1)[0].tolist() == [[3]]


def test_copied_spans_are_not_completed():
    ids = np.array([0, 4, 4, 3, 1, 0, 4, 4, 2, 1])
    guard = build_windows(ids, (0, 1), length=3, bits_per_window=30), 1
    table = np.full((V, V), -np.inf)
    table[4, 3], table[4, 2] = 9, 8
    tokens, used, _ = draw(TableStepper(table), [4], guard=guard)
    assert tokens[0, 0] == DEAD_END and used.tolist() == [1]
    table[4, 4] = 0
    assert draw(TableStepper(table), [4], guard=guard)[0][0, 0] == 4


def test_a_step_is_read_from_the_disk_in_the_next_process():
    script = """
import numpy as np
from numba.core import event
from tests.unit.test_steps import CYCLE, TableStepper, draw
seen = []
class Listener(event.Listener):
    def on_start(self, started): seen.append(started)
    def on_end(self, ended): pass
with event.install_listener("numba:compile", Listener()):
    draw(TableStepper(CYCLE), [2])
print(len(seen))
"""
    draw(TableStepper(CYCLE), [2])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"


# --- mixtures


def plain_mixture(logits, prior, gate):
    """Return the log probabilities of a mixture in float64, (V,), written from the formula."""
    logits = logits.astype(np.float64)
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    weights = np.array(prior)
    if gate is not None:
        entropies = [-sum(p * np.log(p) for p in row if p > 0) for row in probs]
        pairs = [one * other for place, one in enumerate(entropies) for other in entropies[place:]]
        weights = weights * np.exp(gate @ np.array([1.0, *entropies, *pairs]))
    with np.errstate(divide="ignore"):
        return np.log(weights @ probs / weights.sum())


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("size", [5, 300])
@pytest.mark.parametrize("is_gated", [False, True])
def test_a_mixture_is_the_formula(parts, size, is_gated):
    rng = np.random.default_rng(parts)
    logits = np.full((parts, 4, logits_width(size)), np.nan, np.float32)
    logits[:, :, :size] = rng.normal(size=(parts, 4, size)) * 4
    logits[0, 1, 1], logits[:, 2, 3] = -np.inf, -np.inf  # impossible under one part; under all
    prior = rng.dirichlet(np.ones(parts))
    gate = rng.normal(size=(parts, 1 + parts + parts * (parts + 1) // 2)) if is_gated else np.zeros((parts, 0))
    mixed = np.empty(logits.shape[1:], np.float32)
    mix(logits, prior, gate, size, mixed)
    for row in range(4):
        expected = plain_mixture(logits[:, row, :size], prior, gate if is_gated else None)
        np.testing.assert_allclose(mixed[row, :size], expected, atol=2e-5)


def test_very_small_probabilities_of_a_mixture_are_not_zero():
    logits = np.array([[[0, -200, -np.inf]], [[0, -np.inf, -np.inf]]], np.float32)
    mixed = np.empty((1, 3), np.float32)
    mix(logits, np.array([0.5, 0.5]), np.zeros((2, 0)), 3, mixed)
    np.testing.assert_allclose(mixed[0], [0, -200 + np.log(0.5), -np.inf], atol=1e-4)


def test_not_a_number_stays_so():
    logits = np.array([[[0, np.nan, 0]], [[0, 0, 0]]], np.float32)
    mixed = np.empty((1, 3), np.float32)
    mix(logits, np.array([0.5, 0.5]), np.zeros((2, 0)), 3, mixed)
    assert np.isnan(mixed).all()


def test_logarithms_and_sums():
    @by_address
    def logs(numbers, results):
        for place in range(len(numbers)):
            results[place] = log32(numbers[place])

    numbers = np.concatenate((np.exp(np.random.default_rng(0).uniform(-86, 86, 10_000)), [1, 0, np.nan, 1e-39])).astype(
        np.float32
    )
    results = np.empty_like(numbers)
    logs(numbers, results)
    np.testing.assert_allclose(results[:-3], np.log(numbers[:-3].astype(np.float64)), rtol=2e-7, atol=1e-9)
    assert results[-3] == results[-1] == -np.inf and np.isnan(results[-2])
    assert add_up(np.arange(1001.0)) == 500_500
