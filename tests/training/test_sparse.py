"""The optimizer of sparse tables against torch's AdamW, and clipping against torch's."""

import copy
from collections.abc import Iterable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from reviewgen.training.device import make_accelerator
from reviewgen.training.optimizers import RowAdamW, with_dense_gradients


def clip(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    return make_accelerator().clip_grad_norm_(with_dense_gradients(parameters), max_norm)


def trained(optimizer_of, *, sparse: bool, steps: int, weight_decay: float) -> nn.Embedding:
    """Return a table after some steps, each with a gradient for a few of its rows."""
    torch.manual_seed(0)
    table = nn.Embedding(40, 5, sparse=sparse)
    optimizer = optimizer_of([table.weight], lr=0.05, weight_decay=weight_decay)
    random = torch.Generator().manual_seed(1)
    for _ in range(steps):
        rows = torch.randperm(30, generator=random)[:6]  # ten rows have no gradient in any step
        signs = torch.randint(0, 2, (6, 5), generator=random) * 2 - 1  # squared, all are their mean
        optimizer.zero_grad()
        (table(rows) * torch.randn(6, 1, generator=random) * signs).sum().backward()
        clip([table.weight], 1e9)
        optimizer.step()
    return table


rows_of = partial(RowAdamW, beta2=0.99)
adamw_of = partial(torch.optim.AdamW, betas=(0.0, 0.99))


@pytest.mark.parametrize("sparse", [True, False])
def test_rows_are_updated_as_by_adamw_without_momentum(sparse):
    ours = trained(rows_of, sparse=sparse, steps=50, weight_decay=0.0)
    torchs = trained(adamw_of, sparse=False, steps=50, weight_decay=0.0)
    torch.testing.assert_close(ours.weight, torchs.weight, rtol=1e-4, atol=1e-5)


def test_weight_decay_reaches_every_row():
    ours = trained(rows_of, sparse=True, steps=48, weight_decay=0.1)
    torchs = trained(adamw_of, sparse=False, steps=48, weight_decay=0.1)
    torch.testing.assert_close(ours.weight[30:], torchs.weight[30:])  # rows without a gradient
    # others decay up to 15 steps later
    assert (ours.weight - torchs.weight).abs().max() < 0.1 * torchs.weight.abs().max()


def test_a_resumed_optimizer_goes_on_as_the_first_would():
    def steps(table: nn.Embedding, optimizer: RowAdamW, numbers: range) -> None:
        for number in numbers:
            optimizer.zero_grad()
            table(torch.tensor([number % 3, number % 7])).square().sum().backward()
            clip([table.weight], 1.0)
            optimizer.step()

    table = nn.Embedding(9, 4, sparse=True)
    optimizer = rows_of([table.weight], lr=0.1, weight_decay=0.1)
    steps(table, optimizer, range(20))
    again = copy.deepcopy(table)
    resumed = rows_of([again.weight], lr=0.1, weight_decay=0.1)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for each in ((table, optimizer), (again, resumed)):
        steps(*each, range(20, 40))
    assert table.weight.equal(again.weight)


@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_sparse_gradients_are_clipped_with_dense_ones(max_norm):
    norms = []
    gradients = []
    for sparse in (True, False):
        torch.manual_seed(0)
        table = nn.Embedding(20, 4, sparse=sparse)
        linear = nn.Linear(4, 3)
        linear(table(torch.tensor([3, 3, 7, 3]))).square().sum().backward()
        parameters = [table.weight, *linear.parameters()]
        norms.append(
            clip(parameters, max_norm) if sparse else nn.utils.clip_grad_norm_(parameters, max_norm)
        )
        gradients.append([each.grad.to_dense() for each in parameters if each.grad is not None])
    torch.testing.assert_close(norms[0], norms[1])
    torch.testing.assert_close(gradients[0], gradients[1])
