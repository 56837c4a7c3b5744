"""Compiled loops that models share, against numpy, torch and plain Python: windows, matrices,
losses, steps, mixtures.
"""

import pickle
import runpy
from typing import Any

import numba
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from reviewgen.compiled import (
    PANEL,
    add_product,
    add_up,
    build_windows,
    compiled,
    copies,
    count_windows,
    exp32,
    false_positive_rate,
    log32,
    mix,
    pack,
    sigmoid32,
    tanh32,
    target_losses,
)
from reviewgen.training.losses import cross_entropy

SEPARATORS = (0, 1)
BOS, EOS = SEPARATORS

# Windows.


def stream(seed: int, vocab: int = 5, tokens: int = 900, texts: int = 9) -> np.ndarray:
    """Return random texts, each between bos and eos, one after the other."""
    random = np.random.default_rng(seed)
    parts = np.split(
        random.integers(2, vocab, tokens), sorted(random.integers(0, tokens, texts - 1))
    )
    return np.concatenate([[BOS, *part, EOS] for part in parts])


def windows_of(ids: np.ndarray, length: int) -> set[tuple[int, ...]]:
    """Return every window without a separator, the slow way."""
    windows = {tuple(ids[end - length : end].tolist()) for end in range(length, len(ids) + 1)}
    return {window for window in windows if not set(window) & set(SEPARATORS)}


@pytest.mark.parametrize("length, run", [(1, 1), (2, 1), (3, 2), (2, 5), (8, 1), (20, 3)])
def test_a_set_holds_the_windows_and_copies_asks_the_last_ones(length, run):
    ids = stream(1)
    text = np.random.default_rng(5).integers(1, 6, 2000)
    text[100:400] = ids[50:350]
    truth = windows_of(ids, length)
    found = build_windows(ids, SEPARATORS, length, bits_per_window=200)
    assert count_windows(ids, SEPARATORS, length) == len(truth)
    answers = []
    expected = []
    for end in range(len(text)):
        lasts = range(end + 2 - run, end + 2)
        inside = lasts[0] - length >= 0
        expected.append(
            inside and all(tuple(text[last - length : last].tolist()) in truth for last in lasts)
        )
        answers.append(bool(copies(found, text, end, run)))
    assert any(expected) and all(
        answer for answer, true in zip(answers, expected, strict=True) if true
    )
    assert sum(answers) - sum(expected) < 10 and not any(answers[: length + run - 2])


def test_a_stride_stores_a_share_and_misses_none():
    ids = stream(3, vocab=30, tokens=30_000)
    stride = 16
    found = build_windows(ids, SEPARATORS, 6, 10, stride)
    whole = build_windows(ids, SEPARATORS, 6, 10)
    assert len(found.bits) == pytest.approx(len(whole.bits) / stride, rel=0.1)
    for end in range(5, len(ids)):
        assert copies(found, ids, end, 1) or set(ids[end - 5 : end + 1].tolist()) & set(SEPARATORS)
    new = np.random.default_rng(8).integers(40, 90, 20_000)
    passed = np.mean([copies(found, new, end, 1) for end in range(5, len(new))])
    assert passed == pytest.approx(1 - (1 - false_positive_rate(found)) / stride, abs=0.01)


# Matrices and functions in single precision.


@compiled
def squash(numbers: Any, exps: Any, tanhs: Any, sigmoids: Any, logs: Any) -> None:
    for place in range(len(numbers)):
        exps[place] = exp32(numbers[place])
        tanhs[place] = tanh32(numbers[place])
        sigmoids[place] = sigmoid32(numbers[place])
        logs[place] = log32(abs(numbers[place]))


def squashed(numbers: Any) -> list[np.ndarray]:
    numbers = np.asarray(numbers, np.float32)
    found = [np.empty_like(numbers) for _ in range(4)]
    squash(numbers, *found)
    return found


def numbers_of_all_sizes() -> Any:
    powers = 10.0 ** np.linspace(-37, 37, 7401)
    return np.concatenate((np.linspace(-110, 110, 200_001), powers, -powers)).astype(np.float32)


def test_exp_tanh_sigmoid_and_log_equal_numpy_in_double_precision():
    numbers = numbers_of_all_sizes()
    wide = numbers.astype(np.float64)
    with np.errstate(over="ignore", divide="ignore"):
        wanted = [np.exp(wide), np.tanh(wide), 1 / (1 + np.exp(-wide)), np.log(np.abs(wide))]
        for found, expected in zip(squashed(numbers), wanted, strict=True):
            fits = np.isfinite(expected.astype(np.float32))
            assert np.array_equal(found[~fits], expected[~fits].astype(np.float32))
            assert (
                np.abs(found[fits] - expected[fits]) <= 2.4e-7 * np.abs(expected[fits]) + 2e-9
            ).all()


def test_exp_tanh_and_sigmoid_of_infinity_nan_and_zero():
    exps, tanhs, sigmoids, _ = squashed([np.inf, -np.inf, np.nan, 0, 3.4e38, -3.4e38])
    assert np.array_equal(exps, np.float32([np.inf, 0, np.nan, 1, np.inf, 0]), equal_nan=True)
    assert np.array_equal(tanhs, np.float32([1, -1, np.nan, 0, 1, -1]), equal_nan=True)
    assert np.array_equal(sigmoids, np.float32([1, 0, np.nan, 0.5, 1, 0]), equal_nan=True)


def test_a_loop_computes_its_last_numbers_as_the_others():
    some = numbers_of_all_sizes()[::1001][:101]  # the last ones are computed one by one
    for column, expected in enumerate(squashed(some)):
        assert all(
            squashed([number])[column][0] == wanted
            for number, wanted in zip(some, expected, strict=True)
        )


def test_numbers_are_added_up():
    assert add_up(np.arange(1001.0)) == 500_500


def test_cached_machine_code_that_is_cut_off_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    (tmp_path / "own.py").write_text(
        "from reviewgen.compiled import compiled\n\n@compiled\ndef one():\n    return 1\n"
    )
    folder = tmp_path / "__pycache__"
    folder.mkdir()
    for name, content in (
        ("whole", pickle.dumps([1])),
        ("cut", pickle.dumps([1])[:-1]),
        ("empty", b""),
    ):
        (folder / f"{name}.nbi").write_bytes(content)
    assert runpy.run_path(str(tmp_path / "own.py"))["one"]() == 1
    kept = {file.name: file.read_bytes()[-1:] for file in folder.glob("*.nb[ic]")}
    # numba's own files end so, too
    assert len(kept) == 3 and "whole.nbi" in kept and set(kept.values()) == {pickle.STOP}


@pytest.mark.parametrize("bits", [32, 16, 8])
@pytest.mark.parametrize("outputs, inputs", [(1, 1), (PANEL, 7), (PANEL + 1, 128), (300, 65)])
def test_a_product_is_that_of_numpy_and_of_each_row_alone(outputs, inputs, bits):
    for rows in (0, 1, 3, 4, 9):
        random = np.random.default_rng(0)
        weights = random.standard_normal((outputs, inputs)).astype(np.float32)
        x = random.standard_normal((rows, inputs + 2)).astype(np.float32)  # inputs may be longer
        matrix = pack(weights, bits)
        before = random.standard_normal((rows, len(matrix.scales))).astype(np.float32)
        after = before.copy()
        add_product(*matrix, x, after)
        # of each weight, by output
        rounding = {32: 0, 16: 0.5 / 32767, 8: 0.5 / 127}[bits] * np.abs(weights).max(axis=1)
        allowed = 1e-4 + np.abs(x).sum(axis=1, keepdims=True) * rounding
        assert (
            np.abs((after - before)[:, :outputs] - x[:, :inputs].astype(np.float64) @ weights.T)
            <= allowed
        ).all()
        assert (
            np.array_equal(after[:, outputs:], before[:, outputs:])
            and matrix.panels.ctypes.data % 64 == 0
        )
        for row in range(rows):
            alone = before[row : row + 1].copy()
            add_product(*matrix, x[row : row + 1], alone)
            assert np.array_equal(alone[0], after[row])


def test_eight_bits_keep_multiples_of_the_scale_of_a_row():
    panels, scales = pack(np.array([[0, 0], [127, -3], [-254, 2]], np.float32), bits=8)
    assert panels.dtype == np.int8 and (panels[0].T * scales[:, None])[:3].tolist() == [
        [0, 0],
        [127, -3],
        [-254, 2],
    ]


# Cross entropy.


@pytest.mark.parametrize("vocabulary", [1, 33, 8000])
@pytest.mark.parametrize("spread", [0.01, 30.0, 1000.0])
@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float32, 2e-6), (torch.bfloat16, 4e-3), (torch.float64, 1e-6)]
)
def test_cross_entropy_and_its_gradient_are_those_of_torch(vocabulary, spread, dtype, tolerance):
    generator = torch.Generator().manual_seed(0)
    logits = (
        (torch.randn((3, 5, vocabulary), generator=generator) * spread).to(dtype).requires_grad_()
    )
    targets = torch.randint(0, vocabulary, (3, 5), generator=generator)
    each = np.empty(15, np.float32)
    raw = logits.detach().flatten(0, 1)
    target_losses(
        (raw.view(torch.uint16) if dtype == torch.bfloat16 else raw).numpy(),
        targets.flatten().numpy(),
        each,
    )
    exact = logits.detach().double().requires_grad_()
    wanted = (
        F.cross_entropy(exact.flatten(0, 1), targets.flatten(), reduction="none").detach().numpy()
    )
    np.testing.assert_allclose(each, wanted, rtol=1e-5, atol=1e-5)
    targets[0, 1] = targets[2, 2] = -100  # ignored
    expected = (
        F.cross_entropy(exact.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum")
        / 12
    )
    loss = cross_entropy(logits, targets, 12)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=2e-6, abs=1e-6)
    [gradient] = torch.autograd.grad(loss, logits)
    [true] = torch.autograd.grad(expected, exact)
    assert gradient.dtype == dtype
    torch.testing.assert_close(gradient.double(), true, rtol=4 * tolerance, atol=tolerance / 12)


LOGITS = torch.randn(1, 3, 7, generator=torch.Generator().manual_seed(0)).requires_grad_()


def loss_of(logits: Tensor, targets: Any, count: int = 3) -> Tensor:
    return cross_entropy(logits, torch.tensor([targets]), count)


def test_the_gradient_of_a_scaled_cross_entropy_is_scaled():
    (plain,) = torch.autograd.grad(loss_of(LOGITS, [1, 2, 3]), LOGITS)
    (scaled,) = torch.autograd.grad(loss_of(LOGITS, [1, 2, 3]) * 4 + 1, LOGITS)
    assert torch.equal(scaled, plain * 4)


def test_cross_entropy_without_targets_is_zero():
    nothing = loss_of(LOGITS, [-100] * 3, 0)
    assert float(nothing.detach()) == 0 and not torch.autograd.grad(nothing, LOGITS)[0].any()


def test_a_target_beyond_the_vocabulary_is_refused():
    with pytest.raises(IndexError, match="Target 7"):
        loss_of(LOGITS, [1, 2, 7])


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_cross_entropy_of_a_damaged_logit_is_not_finite(number):
    damaged = LOGITS.detach().clone()
    damaged[0, 1, 2] = number
    assert not torch.isfinite(loss_of(damaged, [1, 2, 3]))


def test_the_loss_of_an_impossible_target_is_infinite():
    rows = np.array([[0.0, -np.inf, 1.0], [np.nan, 0.0, 0.0], [-np.inf, -np.inf, 0.0]], np.float32)
    found = np.empty(3, np.float32)
    target_losses(rows, np.array([1, 0, 2]), found)
    assert found[0] == np.inf and np.isnan(found[1]) and found[2] == pytest.approx(0, abs=1e-6)


# Mixtures.


def test_a_mixture_of_tiny_probabilities_and_nan():
    """Other mixtures are in ``tests/runs/test_blending.py``."""
    small = np.array([[[0, -200, -np.inf]], [[0, -np.inf, -np.inf]]], np.float32)
    even = np.full(2, 0.5)
    ungated = np.zeros((2, 0))
    mixed = np.empty((1, 3), np.float32)
    mix(small, even, ungated, 3, mixed)
    np.testing.assert_allclose(mixed[0], [0, -200 + np.log(0.5), -np.inf], atol=1e-4)
    mix(np.array([[[0, np.nan, 0]], [[0, 0, 0]]], np.float32), even, ungated, 3, mixed)
    assert np.isnan(mixed).all()
