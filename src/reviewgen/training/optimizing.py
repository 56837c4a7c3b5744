"""Optimizers (Muon for the matrices inside a model, AdamW for the rest), and weight averaging.

Muon (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks") updates a matrix by its gradient's momentum
with all singular values set to about one. It is meant for matrices between hidden vectors: embeddings, output layers and vectors
stay with AdamW (Loshchilov & Hutter 2019). Muon's update of a matrix is scaled to the size that AdamW's would have (Liu et al.
2025, "Muon is Scalable for LLM Training"), so that both use one learning rate. Both optimizers are torch's. A model may decide
otherwise for some of its parameters (``SupportsParameterGroups``).

``DivergenceGuard`` keeps the optimizers from a NaN or infinite loss or gradient. Processes that train one model see the same
losses and gradients, so all of them stop at the same step.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Muon, Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from reviewgen.config import TrainingConfig
from reviewgen.protocols import SupportsParameterGroups

SCALE = "learning_rate_scale"  # of a model's own parameter group
_BETAS = (0.9, 0.99)  # the second moment averages over about 100 steps: runs are short


def make_optimizers(model: nn.Module, config: TrainingConfig) -> list[Optimizer]:
    """Return the optimizers of a model; together they have each of its parameters once."""
    given = model.parameter_groups() if isinstance(model, SupportsParameterGroups) else ()
    own: list[dict[str, Any]] = [{**group, "params": list(group["params"])} for group in given]
    matrices = {id(parameter) for parameter in inner_matrices(model)}
    grouped = {id(parameter) for group in own for parameter in group["params"]}
    others = [parameter for parameter in model.parameters() if id(parameter) not in grouped]
    groups: dict[str, list[dict[str, Any]]] = {"adamw": [], "muon": []}
    for group in [*own, {"params": others}]:
        by_optimizer: dict[str, list[nn.Parameter]] = {"adamw": [], "muon": []}
        for parameter in group["params"]:
            usual = "muon" if id(parameter) in matrices else "adamw"
            by_optimizer["adamw" if config.optimizer == "adamw" else group.get("optimizer", usual)].append(parameter)
        settings = {name: group[name] for name in (SCALE, "weight_decay") if name in group}
        for name, parameters in by_optimizer.items():
            groups[name] += [{**settings, "params": parameters}] if parameters else []
    common: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    optimizers: list[Optimizer] = []
    if groups["adamw"]:
        optimizers.append(torch.optim.AdamW(groups["adamw"], **common, betas=_BETAS, fused=True))
    if groups["muon"]:
        optimizers.append(Muon(groups["muon"], **common, adjust_lr_fn="match_rms_adamw"))
    return optimizers


def inner_matrices(model: nn.Module) -> list[nn.Parameter]:
    """Return the matrices between hidden vectors: neither embeddings nor those of an output layer."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, (nn.Embedding, nn.EmbeddingBag))}
    vocab_size = getattr(getattr(model, "config", None), "vocab_size", None)
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2 and vocab_size not in parameter.shape]
    return [parameter for parameter in matrices if id(parameter) not in embeddings]


def make_averaged(model: nn.Module, decay: float) -> AveragedModel | None:
    """Return an exponential moving average of a model's weights (Polyak & Juditsky 1992); None if the decay is 0."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay else None


def set_learning_rate(optimizers: list[Optimizer], learning_rate: float) -> None:
    """Set the learning rate of all optimizers, scaled where a group has a scale."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * group.get(SCALE, 1.0)


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
