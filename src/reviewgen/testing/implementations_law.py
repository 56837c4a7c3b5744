"""The law of ``SupportsImplementations``: all implementations of a model give the same results, forward and backward.

B batch, T time (tokens), V vocabulary.
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
    """SupportsImplementations: each gives the logits, state and gradients of the default, which a new model uses."""
    model = make()
    if not can(model, SupportsImplementations):
        return
    names = model.implementations()
    assert names, "implementations() is empty; it must return at least one name."
    assert len(set(names)) == len(names), f"implementations() must not return a name twice; got {names}."
    assert _rejects(model, "no implementation"), 'use_implementation accepts the unknown name "no implementation"; it must raise.'
    expected, kept = _compute(model), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name in names:
        model.use_implementation(name)
        for what, actual in _compute(model).items():
            assert_close(actual, expected[what], f"Implementation {name!r} gives another {what} than the default.")
        same = {key: tensor.shape for key, tensor in model.state_dict().items()} == {k: t.shape for k, t in kept.items()}
        same = same and all(torch.equal(tensor, kept[key]) for key, tensor in model.state_dict().items())
        assert same, f"Implementation {name!r} changes the model's tensors; it must use them as they are."


def _compute(model: Any) -> dict[str, Tensor]:
    """Return the logits, the state and, for a module, the gradients of two chunks; gradients flow through the state."""
    ids, targets = some_ids(model, ROWS, STEPS, seed=0), some_ids(model, ROWS, STEPS, seed=1)
    first, state = model(ids[:, :5], model.initial_state(ROWS))
    second, state = model(ids[:, 5:], state)
    logits = torch.cat((first, second), dim=1)  # (B, T, V)
    results = {"logits": logits.detach()} | {f"state ({n})": part.detach() for n, part in enumerate(tensors(state))}
    if not isinstance(model, nn.Module):
        return results
    weights = dict(model.named_parameters())
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
    assert loss.requires_grad, "The logits require no gradient; they must depend on the parameters."
    grads = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    for (name, tensor), grad in zip(weights.items(), grads, strict=True):
        results[f"gradient of {name}"] = torch.zeros_like(tensor) if grad is None else grad
    return results


def _rejects(model: Any, name: str) -> bool:
    try:
        model.use_implementation(name)
    except Exception:  # the contract does not say which exception
        return True
    return False
