"""Detects a NaN or infinite loss or gradient and keeps the last good weights, without waiting for an accelerator at each step.

Processes that train one model see the same losses and gradients, so all of them stop at the same step.
"""

import math

import torch
from torch import Tensor, nn


class DivergenceGuard:
    """Checks the loss and gradient norm of each training step.

    With ``check_every=1`` the values are read at once, and a bad step is refused before the optimizer takes it, so the weights
    are still good. Reading a value of an accelerator waits for it, so there ``check_every`` is larger: each step only marks, on
    the device, whether it was bad; the mark is read every ``check_every`` steps, and if it is clear the weights are copied.

    Args:
        model: The model, on its device.
        steps: Optimizer steps taken so far.
        check_every: Steps between two checks.

    Attributes:
        bad_step: The first step whose loss or gradient was NaN or infinite; 0 if there was none.
    """

    def __init__(self, model: nn.Module, steps: int, check_every: int) -> None:
        self._live = list(model.state_dict().values())
        self._kept = [tensor.clone() for tensor in self._live] if check_every > 1 else []
        self._check_every = check_every
        self._bad_step_mark = torch.zeros((), dtype=torch.int64, device=self._live[0].device)  # as bad_step, on the device
        self.bad_step, self._kept_steps = 0, steps

    @property
    def good_steps(self) -> int:
        """After a bad step: the number of steps behind the last good weights."""
        return self._kept_steps if self._kept else self.bad_step - 1

    def allows_step(self, step: int, loss: Tensor, norm: Tensor | None) -> bool:
        """Return whether the optimizer may take a step, given its loss and its gradient norm (None: do not check the norm)."""
        loss = loss.detach()
        if self._check_every == 1:
            is_good = math.isfinite(float(loss)) and (norm is None or math.isfinite(float(norm)))
            self.bad_step = self.bad_step or (0 if is_good else step)
            return is_good
        values = loss if norm is None else torch.stack((loss, norm.to(loss.device)))
        is_bad = ~torch.isfinite(values).all()
        self._bad_step_mark = torch.where(is_bad & (self._bad_step_mark == 0), step, self._bad_step_mark)
        return step % self._check_every != 0 or self.check(step - 1)

    def check(self, steps: int) -> bool:
        """Return whether all steps so far were good, and if so keep the weights. Waits for an accelerator."""
        if self._check_every == 1:
            return not self.bad_step
        self.bad_step = self.bad_step or int(self._bad_step_mark)
        if self.bad_step in (0, steps + 1):  # a bad step that the optimizer has not taken yet leaves the weights good
            self._kept_steps = steps
            for kept, live in zip(self._kept, self._live, strict=False):
                kept.copy_(live)
        return not self.bad_step

    def restore(self) -> None:
        """Copy the last good weights back into the model."""
        for kept, live in zip(self._kept, self._live, strict=False):
            live.copy_(kept)
