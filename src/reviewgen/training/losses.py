"""The loss of a training step: the cross entropy, in nats per token, plus the model's own terms if
it has any.

On a CPU, a compiled loop computes the cross entropy and its gradient in one pass
(``reviewgen.compiled.tensors``): with a vocabulary of some thousand tokens, torch's separate steps
(conversion to 32 bits, log-softmax, its gradient, conversion back) take most of the time of a
training step.
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

from reviewgen.compiled.tensors import as_array, cross_entropy_and_gradient
from reviewgen.data.lanes import IGNORED
from reviewgen.errors import BrokenPlugin
from reviewgen.protocols.abilities import SupportsLoss

CROSS_ENTROPY = "cross_entropy"
"""The name of a model's own loss term that replaces the cross entropy in the minimised loss."""

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,39}", re.ASCII)  # the name of a loss term
_COMPILED_DTYPES = (torch.float32, torch.bfloat16)


def cross_entropy(
    logits: Float[Tensor, "B T V"], targets: Int[Tensor, "B T"], count: int
) -> Float[Tensor, ""]:
    """Return the summed negative log likelihood of the targets, in nats, divided by ``count``.
    Targets ``IGNORED`` are skipped.

    If ``count`` is the number of targets of a whole step, the losses of its batches add up to the
    mean of the step, even if the batches have different numbers of targets. Torch's recurrent
    layers return logits that are time-first in memory. These are processed in that order, to avoid
    a copy.
    """
    if not logits.is_contiguous():
        logits = logits.transpose(0, 1)
        targets = targets.transpose(0, 1)
    flat_logits = logits.flatten(0, 1)
    flat_targets = targets.flatten()
    count = max(1, count)
    is_compiled = flat_logits.device.type == "cpu" and flat_logits.dtype in _COMPILED_DTYPES
    if is_compiled and flat_logits.requires_grad:
        apply = _CrossEntropy.apply  # torch leaves it untyped
        loss: Tensor = apply(flat_logits, flat_targets, count)  # type: ignore[no-untyped-call]
        return loss
    total = F.cross_entropy(
        flat_logits.float(), flat_targets, ignore_index=IGNORED, reduction="sum"
    )
    return total / count


def own_losses(
    model: object, logits: Float[Tensor, "B T V"], targets: Int[Tensor, "B T"]
) -> dict[str, Float[Tensor, ""]]:
    """Compute and check a model's own loss terms for a batch, by name; empty for a model without
    own terms.

    Raises:
        BrokenPlugin: The model does not return a dict of names and floating-point tensors without
            dimensions.
    """
    if not isinstance(model, SupportsLoss):
        return {}
    terms = model.losses(logits, targets)
    if not isinstance(terms, Mapping) or not terms:
        raise BrokenPlugin(
            f"{type(model).__name__}.losses must return at least one term by name, as a dict."
        )
    for name, term in terms.items():
        if problem := _find_problem(name, term, logits.requires_grad):
            raise BrokenPlugin(f"{type(model).__name__}.losses: {problem}.")
    return dict(terms)


def _find_problem(name: object, term: object, has_gradient: bool) -> str | None:
    """Return what is wrong with a loss term or its name; None if nothing is."""
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        return (
            "a term's name must have letters, digits, hyphens, underscores and dots only, at most"
            f" 40; got {ascii(name)[:60]}"
        )
    if not isinstance(term, Tensor):
        return f"{name} must be a tensor without dimensions; got a {type(term).__name__}"
    if term.dim() or not term.is_floating_point():
        kind = str(term.dtype).removeprefix("torch.")
        return (
            f"{name} must be a floating-point tensor without dimensions; got {kind} of the shape"
            f" {tuple(term.shape)}"
        )
    if name == CROSS_ENTROPY and has_gradient and not term.requires_grad:
        return (
            f"{name} replaces the cross entropy and has no gradient; compute it from the logits"
            " without detaching them"
        )
    return None


def add_own_losses(
    entropy: Float[Tensor, ""], terms: Mapping[str, Float[Tensor, ""]], share: float
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """Return the loss to minimise in a batch, and the model's own terms, each scaled to the batch's
    share of the step.

    Args:
        entropy: The cross entropy of a batch, divided by the number of targets of its step.
        terms: The model's own terms; see ``own_losses``.
        share: The batch's share of the targets of its step. If it is 0, the terms are set to zero,
            since the mean over no targets is NaN.
    """
    scaled = {
        name: term.float() * share if share else torch.zeros_like(entropy)
        for name, term in terms.items()
    }
    if share > 0 and CROSS_ENTROPY in scaled:  # the model's own term replaces the cross entropy
        entropy = torch.zeros_like(entropy)
    return sum(scaled.values(), entropy), scaled


class _CrossEntropy(torch.autograd.Function):
    """Cross entropy whose gradient is computed in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any, logits: Float[Tensor, "N V"], targets: Int[Tensor, " N"], count: int
    ) -> Float[Tensor, ""]:
        """Return the cross entropy, summed over the targets and divided by ``count``; save the
        gradient of the logits for the backward pass.

        Raises:
            IndexError: A target is not an index of the logits.
        """
        grad_logits = torch.empty_like(logits)
        if len(targets) and int(targets.max()) >= logits.size(1):
            raise IndexError(
                f"Target {int(targets.max())} is out of range: the model has logits for ids 0 to"
                f" {logits.size(1) - 1}."
            )
        scale = np.float32(1 / count)
        target_array = targets.contiguous().numpy()
        total = cross_entropy_and_gradient(
            as_array(logits), target_array, scale, as_array(grad_logits)
        )
        ctx.save_for_backward(grad_logits)
        return torch.tensor(total / count, dtype=torch.float32)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Float[Tensor, ""]) -> tuple[Tensor | None, ...]:
        """Return the gradient of the logits."""
        (grad_logits,) = ctx.saved_tensors
        if grad_loss != 1:
            grad_logits = grad_logits * grad_loss.to(grad_logits.dtype)
        return grad_logits, None, None  # targets and count have no gradient
