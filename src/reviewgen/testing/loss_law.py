"""The law of ``SupportsLoss``: a model's own loss terms are means, which training can add up over batches and processes."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from reviewgen.protocols import SupportsLoss
from reviewgen.testing.models import ROWS, STEPS, assert_close, can, some_ids

__all__ = ["losses"]

_IGNORED = -100


def losses(make: Callable[[], Any]) -> None:
    """SupportsLoss: each call returns the same names; a term is finite, without dimensions, a mean, and can be minimised."""
    model = make()
    if not can(model, SupportsLoss):
        return
    model.train()
    terms = _compute(model, seed=0)
    assert terms, "losses() returns no term; it must return at least one by name."
    for name, term in terms.items():
        assert isinstance(name, str), f"losses() must return the terms by name, a str; got {name!r}."
        assert isinstance(term, Tensor), f"losses()[{name!r}] must be a tensor; got a {type(term).__name__}."
        assert term.shape == (), (
            f"losses()[{name!r}] must have no dimensions, a mean per target; got the shape {tuple(term.shape)}."
        )
        assert term.isfinite(), f"losses()[{name!r}] is {float(term.detach())} for a batch in which some targets are {_IGNORED}."
    total = sum(terms.values())
    assert isinstance(total, Tensor) and total.requires_grad, (
        "The terms of losses() require no gradient; nothing can minimise them."
    )
    _assert_gradient(model, total)
    again = _compute(model, seed=1)
    assert again.keys() == terms.keys(), (
        f"losses() returns {list(again)} after {list(terms)}; it must return the same names at each call."
    )
    if all(torch.equal(terms[name], again[name]) for name in terms):  # no dropout: the rows can be repeated
        for name, term in _compute(model, seed=0, times=2).items():
            sentence = f"losses()[{name!r}] changes if each row is there twice; it must be a mean per target, not a sum."
            assert_close(term.detach(), terms[name].detach(), sentence)


def _compute(model: Any, seed: int, times: int = 1) -> Mapping[str, Any]:
    """Return the terms of a batch in which each row stands some times, the first target of each row ignored."""
    ids, targets = (some_ids(model, ROWS, STEPS, seed=number).repeat(times, 1) for number in (0, 1))
    targets[:, 0] = _IGNORED
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        logits, _ = model(ids, model.initial_state(len(ids)))
        terms: Mapping[str, Any] = model.losses(logits, targets)
    assert isinstance(terms, Mapping), f"losses() must return terms by name, as a dict; got a {type(terms).__name__}."
    return terms


def _assert_gradient(model: nn.Module, total: Tensor) -> None:
    """Raise AssertionError unless the gradient of a loss is finite and reaches a parameter."""
    named = dict(model.named_parameters())
    grads = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    reached = {name: grad for name, grad in zip(named, grads, strict=True) if grad is not None}
    assert reached, "The terms of losses() depend on no parameter of the model; nothing can minimise them."
    for name, grad in reached.items():
        assert grad.isfinite().all(), f"The gradient of losses() at {name} is NaN or infinite."
