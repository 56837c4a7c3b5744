"""Sees a loss or a gradient that is no number, and keeps the last good weights; an accelerator need not wait at each step.

Processes that train one model see the same losses and gradients, so all of them stop at the same step.
"""

import math

import torch
from torch import Tensor, nn

__all__ = ["DivergenceGuard"]


class DivergenceGuard:
    """Watches the steps of a model.

    Args:
        model: It, where it computes.
        steps: That it has taken already.
        every: Steps from look to look. At 1, which a CPU can afford, a bad step is seen before the optimizer takes it, so the
            weights are still good. An accelerator would have to be waited for, so there the steps leave a mark on the device,
            and each look that finds none keeps a copy of the weights.

    Attributes:
        bad_step: The first step whose loss or gradient is no number; 0 while there is none.
    """

    def __init__(self, model: nn.Module, steps: int, every: int) -> None:
        self._live = list(model.state_dict().values())
        self._kept = [tensor.clone() for tensor in self._live] if every > 1 else []
        self._every = every
        self._mark = torch.zeros((), dtype=torch.int64, device=self._live[0].device)  # the first bad step
        self.bad_step, self._kept_at = 0, steps

    @property
    def good_steps(self) -> int:
        """How many steps the last good weights have taken, once there was a bad one."""
        return self._kept_at if self._kept else self.bad_step - 1

    def admit(self, step: int, loss: Tensor, norm: Tensor | None) -> bool:
        """Return whether the optimizer may take a step, by its loss and, where it counts, the norm of its gradient."""
        loss = loss.detach()
        if self._every == 1:
            is_good = math.isfinite(float(loss)) and (norm is None or math.isfinite(float(norm)))
            self.bad_step = self.bad_step or (0 if is_good else step)
            return is_good
        numbers = loss if norm is None else torch.stack((loss, norm.to(loss.device)))
        is_bad = ~torch.isfinite(numbers).all()
        self._mark = torch.where(is_bad & (self._mark == 0), step, self._mark)
        return step % self._every != 0 or self.look(step - 1)

    def look(self, steps: int) -> bool:
        """Return whether all the steps so far were good; an accelerator is waited for."""
        if self._every == 1:
            return not self.bad_step
        self.bad_step = self.bad_step or int(self._mark)
        if self.bad_step in (0, steps + 1):  # the weights are still good where the bad step was not admitted
            self._kept_at = steps
            for kept, live in zip(self._kept, self._live, strict=False):
                kept.copy_(live)
        return not self.bad_step

    def restore(self) -> None:
        """Give the model its last good weights."""
        for kept, live in zip(self._kept, self._live, strict=False):
            live.copy_(kept)
