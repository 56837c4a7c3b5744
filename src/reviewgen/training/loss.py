"""Cross entropy, in nats per token: the training loss of every model, and the terms that a model adds. Models return logits.

On a CPU, a compiled loop computes the loss and its gradient in one pass (``reviewgen.compiled.entropy``): with a vocabulary of
some thousand tokens, torch's separate steps (conversion to 32 bits, log-softmax, its gradient, conversion back) take most of the
time of a training step.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from reviewgen.compiled.entropy import cross_entropy_and_gradient
from reviewgen.compiled.tensors import as_array
from reviewgen.data import IGNORED
from reviewgen.errors import BrokenPlugin
from reviewgen.protocols import SupportsLoss

CROSS_ENTROPY = "cross_entropy"
"""The name of a model's own term that is minimised in place of the cross entropy."""

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,39}", re.ASCII)  # of a term
_COMPILED_DTYPES = (torch.float32, torch.bfloat16)


def cross_entropy(logits: Float[Tensor, "B T V"], targets: Int[Tensor, "B T"], count: int) -> Float[Tensor, ""]:
    """Return the summed negative log likelihood of the targets, in nats, divided by ``count``. Targets ``IGNORED`` are skipped.

    With ``count`` the number of targets of a whole step, the losses of its batches add up to the mean of the step, even if the
    batches have different numbers of targets. Logits that are time-first in memory, as from torch's recurrent layers, are
    processed in that order, without a copy.
    """
    if not logits.is_contiguous():
        logits, targets = logits.transpose(0, 1), targets.transpose(0, 1)
    flat_logits, flat_targets = logits.flatten(0, 1), targets.flatten()
    if flat_logits.device.type == "cpu" and flat_logits.dtype in _COMPILED_DTYPES and flat_logits.requires_grad:
        apply = _CrossEntropy.apply  # torch leaves it untyped
        loss: Tensor = apply(flat_logits, flat_targets, max(1, count))  # type: ignore[no-untyped-call]
        return loss
    return F.cross_entropy(flat_logits.float(), flat_targets, ignore_index=IGNORED, reduction="sum") / max(1, count)


def own_losses(model: object, logits: Float[Tensor, "B T V"], targets: Int[Tensor, "B T"]) -> dict[str, Float[Tensor, ""]]:
    """Return a model's own loss terms of a batch by name, after they were checked; empty for a model without any.

    Raises:
        BrokenPlugin: They are not floating-point tensors without dimensions by name.
    """
    if not isinstance(model, SupportsLoss):
        return {}
    terms = model.losses(logits, targets)
    if not isinstance(terms, Mapping) or not terms:
        raise BrokenPlugin(f"{type(model).__name__}.losses must return at least one term by name, as a dict.")
    for name, term in terms.items():
        if problem := _find_problem(name, term, logits.requires_grad):
            raise BrokenPlugin(f"{type(model).__name__}.losses: {problem}.")
    return dict(terms)


def _find_problem(name: object, term: object, has_gradient: bool) -> str | None:
    """Return why a value is not a loss term, if it is not."""
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        return f"a term's name must have letters, digits, hyphens, underscores and dots only, at most 40; got {ascii(name)[:60]}"
    if not isinstance(term, Tensor):
        return f"{name} must be a tensor without dimensions; got a {type(term).__name__}"
    if term.dim() or not term.is_floating_point():
        kind = str(term.dtype).removeprefix("torch.")
        return f"{name} must be a floating-point tensor without dimensions; got {kind} of the shape {tuple(term.shape)}"
    if name == CROSS_ENTROPY and has_gradient and not term.requires_grad:
        return f"{name} replaces the cross entropy and has no gradient; compute it from the logits without detaching them"
    return None


def add_own_losses(
    entropy: Float[Tensor, ""], terms: Mapping[str, Float[Tensor, ""]], share: float
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """Return the loss to minimise, and a model's own terms as their part of the step's.

    Args:
        entropy: The cross entropy of a batch, divided by the number of targets of its step.
        terms: The model's own terms; see ``own_losses``.
        share: The batch's share of the targets of its step. Without a target, the terms are zero: a mean of nothing is NaN.
    """
    parts = {name: term.float() * share if share else torch.zeros_like(entropy) for name, term in terms.items()}
    replaced = share > 0 and CROSS_ENTROPY in parts
    return sum(parts.values(), torch.zeros_like(entropy) if replaced else entropy), parts


class _CrossEntropy(torch.autograd.Function):
    """Cross entropy whose gradient is computed in the forward pass."""

    @staticmethod
    def forward(ctx: Any, logits: Float[Tensor, "N V"], targets: Int[Tensor, " N"], count: int) -> Float[Tensor, ""]:
        """Return the sum over the targets, divided by the count, and save the gradient of the logits.

        Raises:
            IndexError: A target is not an index of the logits.
        """
        grad_logits = torch.empty_like(logits)
        if len(targets) and int(targets.max()) >= logits.size(1):
            raise IndexError(
                f"Target {int(targets.max())} is out of range: the model has logits for ids 0 to {logits.size(1) - 1}."
            )
        scale, target_array = np.float32(1 / count), targets.contiguous().numpy()
        total = cross_entropy_and_gradient(as_array(logits), target_array, scale, as_array(grad_logits))
        ctx.save_for_backward(grad_logits)
        return torch.tensor(total / count, dtype=torch.float32)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Float[Tensor, ""]) -> tuple[Tensor | None, ...]:
        """Return the gradient of the logits."""
        (grad_logits,) = ctx.saved_tensors
        return grad_logits if grad_loss == 1 else grad_logits * grad_loss.to(grad_logits.dtype), None, None
