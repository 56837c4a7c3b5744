"""An optimizer for tables of which a step uses few rows, and what else sparse gradients need.

An ``nn.Embedding`` or ``nn.EmbeddingBag`` with ``sparse=True`` has a gradient of the rows that a batch used. With momentum, an
optimizer would still have to move all rows at every step, for some steps after each use; without momentum, a row without a
gradient stays where it is.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

_DECAY_EVERY = 16  # steps: weight decay is slow, and is the one thing that every row needs


class RowAdamW(Optimizer):
    """AdamW without momentum, which updates only the rows of a table that have a gradient, each row at a rate of its own.

    With g the gradient of a row w at step t, and g = 0 for all others::

        v  <-  beta2 v + (1 - beta2) mean(g^2)
        w  <-  w - lr g / (sqrt(v / (1 - beta2^t)) + eps)

    This is AdamW with betas of 0 and ``beta2``, with two differences: v is one number for a row, where AdamW has one for each of
    its numbers, and weight decay is applied to the whole table every 16 steps. The decay of v is made up for when a row has its
    next gradient.

    Source: Tieleman & Hinton 2012, "Lecture 6.5 - RMSProp"; Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization";
    one number for a row as in Mudigere et al. 2022, "Software-Hardware Co-design for Fast and Scalable Training of Deep Learning
    Recommendation Models".

    Args:
        params: Tables, or parameter groups of them.
        lr: The learning rate.
        weight_decay: The share of the weights, times the learning rate, by which they shrink at each step.
        beta2: The decay of the mean of squared gradients.
        eps: Added to its root.
    """

    def __init__(self, params: Iterable[Any], lr: float, weight_decay: float, beta2: float, eps: float = 1e-8) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "beta2": beta2, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take a step. The gradients may be sparse or dense."""
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None:
                    grad = table.grad.coalesce() if table.grad.is_sparse else table.grad
                    self._update(table, grad, self.state[table], group)

    def _update(self, table: Float[Tensor, "N E"], grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if not state:
            state["step"], state["decay"] = 0, 1.0
            state["square"], state["updated"] = (torch.zeros(len(table), device=table.device) for _ in range(2))
        lr, beta2, step = group["lr"], group["beta2"], state["step"] + 1
        rows = grad.indices()[0] if grad.is_sparse else torch.arange(len(table), device=table.device)
        grad = (grad.values() if grad.is_sparse else grad).float()
        missed = step - state["updated"][rows]  # steps since the row's last gradient
        square = state["square"][rows] * beta2**missed + (1 - beta2) * grad.square().mean(dim=1)
        state["square"][rows], state["updated"][rows] = square, float(step)
        rate = lr / ((square / (1 - beta2**step)).sqrt() + group["eps"])
        table.index_add_(0, rows, (grad * rate.unsqueeze(1)).to(table.dtype), alpha=-1)
        state["step"], state["decay"] = step, state["decay"] * (1 - lr * group["weight_decay"])
        if step % _DECAY_EVERY == 0:
            table *= state["decay"]
            state["decay"] = 1.0


def sparse_tables(model: nn.Module) -> list[Tensor]:
    """Return the embedding tables of a model that have sparse gradients."""
    return [module.weight for module in model.modules() if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.sparse]


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> Float[Tensor, ""]:
    """Scale the gradients so that their global norm is at most ``max_norm``; return what it was. Sparse ones are coalesced.

    ``torch.nn.utils.clip_grad_norm_`` accepts no sparse gradients.
    """
    gradients = []
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad = parameter.grad.coalesce() if parameter.grad.is_sparse else parameter.grad
            gradients.append(parameter.grad.values() if parameter.grad.is_sparse else parameter.grad)
    norm: Tensor = nn.utils.get_total_norm(gradients)
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale)
    return norm
