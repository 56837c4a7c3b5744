"""The one loss: cross entropy in nats a token. Models return logits, scores before normalisation.

On a processor a compiled loop makes the loss and its gradient together (``reviewgen.compiled.entropy``): with some thousand
words, torch's own steps (to 32 bits, log-softmax, its gradient, and back) take most of a training step.
"""

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

__all__ = ["cross_entropy"]

_COMPILED = (torch.float32, torch.bfloat16)


def cross_entropy(logits: Float[Tensor, "B T V"], targets: Int[Tensor, "B T"], count: int) -> Float[Tensor, ""]:
    """Return the negative log likelihood of the targets in nats, divided by a count; bos and conditions are no targets.

    Divided by the number of targets of all that goes into a step, the parts add up to the step's mean, however uneven they are.
    Logits that lie in memory time-first, as torch's recurrent layers make them, are read in that order, without a copy.
    """
    if not logits.is_contiguous():
        logits, targets = logits.transpose(0, 1), targets.transpose(0, 1)
    flat, wanted = logits.flatten(0, 1), targets.flatten()
    if flat.device.type == "cpu" and flat.dtype in _COMPILED and flat.requires_grad:
        found: Tensor = _CrossEntropy.apply(flat, wanted, max(1, count))  # type: ignore[no-untyped-call]
        return found
    return F.cross_entropy(flat.float(), wanted, ignore_index=IGNORED, reduction="sum") / max(1, count)


class _CrossEntropy(torch.autograd.Function):
    """Cross entropy whose gradient is made on the way forward."""

    @staticmethod
    def forward(ctx: Any, logits: Float[Tensor, "N V"], targets: Int[Tensor, " N"], count: int) -> Float[Tensor, ""]:
        """Return the sum over the targets, divided by the count.

        Raises:
            IndexError: A target has no logit.
        """
        gradient = torch.empty_like(logits)
        if len(targets) and int(targets.max()) >= logits.size(1):
            raise IndexError(f"The target {int(targets.max())} is none of the {logits.size(1)} that the model has logits for.")
        scale, wanted = np.float32(1 / count), targets.contiguous().numpy()
        total = cross_entropy_and_gradient(as_array(logits), wanted, scale, as_array(gradient))
        ctx.save_for_backward(gradient)
        return torch.tensor(total / count, dtype=torch.float32)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_loss: Float[Tensor, ""]) -> tuple[Tensor | None, ...]:
        """Return the gradient of the logits."""
        (gradient,) = ctx.saved_tensors
        return gradient if of_loss == 1 else gradient * of_loss.to(gradient.dtype), None, None
