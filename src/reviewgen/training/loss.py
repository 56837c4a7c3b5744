"""The one loss: cross entropy in nats a token. Models return logits, scores before normalisation."""

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from reviewgen.data import IGNORED

__all__ = ["cross_entropy"]


def cross_entropy(logits: Float[Tensor, "B T V"], targets: Int[Tensor, "B T"], count: int) -> Float[Tensor, ""]:
    """Return the negative log likelihood of the targets in nats, divided by a count; bos and conditions are no targets.

    Divided by the number of targets of all that goes into a step, the parts add up to the step's mean, however uneven they are.
    Logits that lie in memory time-first, as torch's recurrent layers make them, are read in that order, without a copy.
    """
    if not logits.is_contiguous():
        logits, targets = logits.transpose(0, 1), targets.transpose(0, 1)
    total = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum")
    return total / max(1, count)
