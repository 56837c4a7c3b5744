"""Cross entropy and its gradient, beside torch's in 64 bits."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from reviewgen.training.loss import cross_entropy


def by_torch(logits: Tensor, targets: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return loss and gradient in 64 bits."""
    exact = logits.detach().double().requires_grad_()
    loss = F.cross_entropy(exact.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum") / count
    (gradient,) = torch.autograd.grad(loss, exact)
    return loss, gradient


def made(shape: tuple[int, int, int], spread: float, dtype: Any) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    logits = (torch.randn(shape) * spread).to(dtype).requires_grad_()
    targets = torch.randint(0, shape[2], shape[:2])
    targets[torch.rand(shape[:2]) < 0.2] = -100
    return logits, targets


@pytest.mark.parametrize("vocabulary", [1, 2, 31, 32, 33, 90, 8000])
@pytest.mark.parametrize("spread", [0.01, 3.0, 30.0, 1000.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 4e-3), (torch.float64, 1e-6)])
def test_loss_and_gradient_are_those_of_torch(vocabulary: int, spread: float, dtype: Any, tolerance: float) -> None:
    logits, targets = made((3, 5, vocabulary), spread, dtype)
    expected, wanted = by_torch(logits, targets, 12)
    loss = cross_entropy(logits, targets, 12)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=2e-6, abs=1e-6)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.dtype == dtype
    torch.testing.assert_close(gradient.double(), wanted, rtol=4 * tolerance, atol=tolerance / 12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_goes_on_with_what_becomes_of_the_loss(dtype: Any) -> None:
    logits, targets = made((2, 4, 40), 1.0, dtype)
    (plain,) = torch.autograd.grad(cross_entropy(logits, targets, 8), logits)
    (scaled,) = torch.autograd.grad(cross_entropy(logits, targets, 8) * 4 + 1, logits)
    assert torch.equal(scaled, plain * 4)
    time_first = logits.transpose(0, 1).contiguous().transpose(0, 1)
    (other,) = torch.autograd.grad(cross_entropy(time_first, targets, 8), logits)
    assert torch.equal(other, plain)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_no_number_stays_so(number: float) -> None:
    logits, targets = made((1, 3, 7), 1.0, torch.float32)
    with torch.no_grad():
        logits[0, 1, 2] = number
    assert not torch.isfinite(cross_entropy(logits, targets.clamp(min=0), 3))
    with torch.no_grad():
        logits[0, 1, 2] = -torch.inf  # never drawn, which is nothing unusual
    targets[0, 1] = 3
    expected, _ = by_torch(logits, targets, 3)
    assert float(cross_entropy(logits, targets, 3).detach()) == pytest.approx(float(expected.detach()), rel=1e-6)


def test_without_targets_there_is_nothing_to_learn() -> None:
    logits, _ = made((1, 3, 7), 1.0, torch.float32)
    loss = cross_entropy(logits, torch.full((1, 3), -100), 0)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert float(loss) == 0 and not gradient.any()


def test_a_target_without_a_logit_is_refused() -> None:
    logits, targets = made((1, 3, 7), 1.0, torch.float32)
    targets[0, 2] = 7
    with pytest.raises(IndexError, match="Target 7 is out of range: the model has logits for ids 0 to 6"):
        cross_entropy(logits, targets, 3)
