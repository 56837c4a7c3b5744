"""Matrices in panels and the squashing functions, against numpy in double precision; and the draw for many live texts."""

import numpy as np
import pytest
from numba.core import event

from reviewgen.compiled import compiled
from reviewgen.compiled.linear import GROUP, PANEL, add_product, exp32, pack, sigmoid32, tanh32

EPSILON = np.finfo(np.float32).eps


@compiled
def squash(numbers, exps, tanhs, sigmoids):
    """Write the three functions of float32 numbers."""
    for place in range(len(numbers)):
        exps[place] = exp32(numbers[place])
        tanhs[place] = tanh32(numbers[place])
        sigmoids[place] = sigmoid32(numbers[place])


def squashed(numbers):
    numbers = np.asarray(numbers, np.float32)
    found = [np.empty_like(numbers) for _ in range(3)]
    squash(numbers, *found)
    return found


POWERS = 10.0 ** np.linspace(-37, 37, 7401)
NUMBERS = np.concatenate((np.linspace(-110, 110, 400_001), np.linspace(-1, 1, 200_001), POWERS, -POWERS)).astype(np.float32)


class TestSquashing:
    def test_they_equal_numpy_in_double_precision(self):
        wide = NUMBERS.astype(np.float64)
        with np.errstate(over="ignore"):
            wanted = np.exp(wide), np.tanh(wide), 1 / (1 + np.exp(-wide))
        for found, expected in zip(squashed(NUMBERS), wanted, strict=True):
            with np.errstate(over="ignore"):
                fits = np.isfinite(expected.astype(np.float32))
            assert np.isposinf(found[~fits]).all()
            error = np.abs(found[fits] - expected[fits])
            assert (error <= 2 * EPSILON * np.abs(expected[fits]) + 2e-38).all()

    def test_their_limits(self):
        exps, tanhs, sigmoids = squashed([np.inf, -np.inf, np.nan, 0, 3.4e38, -3.4e38])
        assert np.array_equal(exps, np.float32([np.inf, 0, np.nan, 1, np.inf, 0]), equal_nan=True)
        assert np.array_equal(tanhs, np.float32([1, -1, np.nan, 0, 1, -1]), equal_nan=True)
        assert np.array_equal(sigmoids, np.float32([1, 0, np.nan, 0.5, 1, 0]), equal_nan=True)

    def test_a_number_is_the_same_wherever_it_stands(self):
        """The first numbers of a loop are computed many at a time, the last one by one."""
        some = NUMBERS[::1001][:101]
        for column, expected in enumerate(squashed(some)):
            assert all(squashed([number])[column][0] == wanted for number, wanted in zip(some, expected, strict=True))


SHAPES = [(1, 1), (5, 3), (PANEL, 7), (PANEL + 1, 128), (300, 65), (2, 1000)]


@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
@pytest.mark.parametrize("rows", [0, 1, GROUP - 1, GROUP, 2 * GROUP + 1])
@pytest.mark.parametrize("bits", [32, 16, 8])
def test_the_product_is_that_of_numpy(outputs, inputs, rows, bits):
    random = np.random.default_rng(0)
    weights = random.standard_normal((outputs, inputs)).astype(np.float32)
    x = random.standard_normal((rows, inputs)).astype(np.float32)
    matrix = pack(weights, bits)
    before = random.standard_normal((rows, len(matrix.scales))).astype(np.float32)
    after = before.copy()
    add_product(*matrix, x, after)
    rounding = {32: 0, 16: 0.5 / 32767, 8: 0.5 / 127}[bits] * np.abs(weights).max(axis=1)  # of each weight, by output
    allowed = 1e-4 + np.abs(x).sum(axis=1, keepdims=True) * rounding
    assert (np.abs((after - before)[:, :outputs] - x.astype(np.float64) @ weights.T) <= allowed).all()
    assert np.array_equal(after[:, outputs:], before[:, outputs:])
    for row in range(rows):
        alone = before[row : row + 1].copy()
        add_product(*matrix, x[row : row + 1], alone)
        assert np.array_equal(alone[0], after[row])


def test_matrices_may_be_stacked_and_inputs_be_longer():
    weights = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    panels, scales = pack(weights)
    x = np.array([[1, 2, 3, 4, 99]], np.float32)
    for layer in range(2):
        found = np.zeros((1, PANEL), np.float32)
        add_product(panels[layer], scales[layer], x, found)
        assert np.array_equal(found[0, :3], weights[layer] @ x[0, :4])


def test_whole_numbers_are_kept_in_few_bits():
    weights = np.array([[0, 0], [127, -3], [-254, 2]], np.float32)
    panels, scales = pack(weights, bits=8)
    assert panels.dtype == np.int8
    assert np.array_equal((panels[0].T * scales[:, None])[:3], weights)


def test_panels_begin_with_a_cache_line():
    assert all(pack(np.ones((size, 3), np.float32), bits).panels.ctypes.data % 64 == 0 for size in (1, 70) for bits in (32, 8))


def test_the_product_is_compiled_once_for_each_kind_of_weight():
    seen = []

    class Listener(event.Listener):
        def on_start(self, started):
            seen.append(started)

        def on_end(self, ended):
            seen.append(ended)

    matrix, x = pack(np.ones((2, 2), np.float32)), np.ones((1, 2), np.float32)
    add_product(*matrix, x, np.zeros((1, PANEL), np.float32))
    with event.install_listener("numba:compile", Listener()):
        add_product(*pack(np.ones((200, 9), np.float32)), np.ones((7, 9), np.float32), np.zeros((7, 4 * PANEL), np.float32))
    assert not seen
