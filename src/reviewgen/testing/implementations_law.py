"""The law of implementations: a model that computes in several ways computes the same, forwards and backwards.

It knows the contract in ``reviewgen.protocols`` and no model. B batch, T time (tokens), V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reviewgen.protocols import SupportsImplementations
from reviewgen.testing.models import ROWS, STEPS, assert_close, can, some_ids, tensors

__all__ = ["implementations"]


def implementations(make: Callable[[], Any]) -> None:
    """SupportsImplementations: each gives the logits, the state and the gradients of the first, which a fresh model uses."""
    model = make()
    if not can(model, SupportsImplementations):
        return
    names = model.implementations()
    assert names, "implementations() is empty: it must name one."
    assert len(set(names)) == len(names), f"implementations() names one twice: {names}."
    assert _refuses(model, "no implementation"), 'use_implementation accepts "no implementation"; it must raise.'
    expected, kept = _compute(model), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name in names:
        model.use_implementation(name)
        for what, found in _compute(model).items():
            assert_close(found, expected[what], f"Implementation {name!r} gives another {what} than the default.")
        same = {key: tensor.shape for key, tensor in model.state_dict().items()} == {k: t.shape for k, t in kept.items()}
        same = same and all(torch.equal(tensor, kept[key]) for key, tensor in model.state_dict().items())
        assert same, f"Implementation {name!r} changes the model's tensors: it must compute with those that are there."


def _compute(model: Any) -> dict[str, Tensor]:
    """Return logits, state and, of a module, gradients of a text read in two pieces; the gradient passes through the state."""
    ids, targets = some_ids(model, ROWS, STEPS, seed=0), some_ids(model, ROWS, STEPS, seed=1)
    first, memory = model(ids[:, :5], model.initial_state(ROWS))
    second, memory = model(ids[:, 5:], memory)
    logits = torch.cat((first, second), dim=1)  # (B, T, V)
    found = {"logits": logits.detach()} | {f"state ({n})": part.detach() for n, part in enumerate(tensors(memory))}
    if not isinstance(model, nn.Module):
        return found
    weights = dict(model.named_parameters())
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
    assert loss.requires_grad, "The logits have no gradient."
    gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    for (name, tensor), gradient in zip(weights.items(), gradients, strict=True):
        found[f"gradient of {name}"] = torch.zeros_like(tensor) if gradient is None else gradient
    return found


def _refuses(model: Any, name: str) -> bool:
    try:
        model.use_implementation(name)
    except Exception:  # which one is the model's business
        return True
    return False
