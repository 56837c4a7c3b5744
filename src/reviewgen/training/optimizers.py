"""Make the optimizer of a model, set its learning rate, and prepare gradients for it.

Muon (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks") updates a
matrix by the momentum of its gradient, after setting all singular values of the momentum to about
one. It is meant for matrices between hidden vectors. AdamW (Loshchilov & Hutter 2019) updates
embeddings, output layers and vectors. Muon's update of a matrix is scaled to the size that AdamW's
would have (Liu et al. 2025, "Muon is Scalable for LLM Training"), so that both use one learning
rate. Both optimizers are torch's. A model may choose the optimizer of some of its parameters itself
(``SupportsParameterGroups``).

``RowAdamW`` is for tables of which a step uses few rows. An ``nn.Embedding`` or ``nn.EmbeddingBag``
with ``sparse=True`` has a sparse gradient, with only the rows that the batch used. With momentum,
an optimizer would go on moving a row for some steps after each use, and so would have to update
nearly all rows at every step. Without momentum, a row without a gradient stays unchanged.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Muon, Optimizer

from reviewgen.config.training import TrainingConfig
from reviewgen.processes import connection_errors
from reviewgen.protocols.abilities import SupportsParameterGroups

SCALE = "learning_rate_scale"  # key in a model's own parameter group
_BETAS = (0.9, 0.99)  # the second moment averages over about 100 steps only, since runs are short
# steps between two weight decays of RowAdamW, since a decay has to change every row
_DECAY_EVERY = 16


class JointOptimizer(Optimizer):
    """Several optimizers as one, so that an accelerator prepares, scales and steps them together.

    The scaler of several prepared optimizers would unscale the gradients once for each of them.

    Args:
        optimizers: The optimizers. Each parameter belongs to one of them.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self.optimizers = optimizers
        super().__init__(self._groups(), {})

    def _groups(self) -> list[dict[str, Any]]:
        """Return the parameter groups of all optimizers; they are not copied."""
        groups = (optimizer.param_groups for optimizer in self.optimizers)
        return list(itertools.chain.from_iterable(groups))

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take a step with each optimizer."""
        for optimizer in self.optimizers:
            optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the optimizers."""
        return {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load the states of the optimizers."""
        for optimizer, state in zip(self.optimizers, state_dict["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.param_groups = self._groups()  # loading has replaced the groups of each optimizer


def make_optimizer(model: nn.Module, config: TrainingConfig) -> JointOptimizer:
    """Return the optimizer of a model."""
    # the kind of optimizer for each parameter by its id, if the model does not choose it
    default_kinds = {id(matrix): "muon" for matrix in inner_matrices(model)}
    default_kinds |= {id(table): "rows" for table in sparse_tables(model)}
    groups: dict[str, list[dict[str, Any]]] = {"adamw": [], "muon": [], "rows": []}
    for group in _parameter_groups(model):
        # an optimizer has its own group for each group of the model
        by_kind: dict[str, list[nn.Parameter]] = {kind: [] for kind in groups}
        for parameter in group["params"]:
            kind = group.get("optimizer", default_kinds.get(id(parameter), "adamw"))
            if kind == "muon" and config.optimizer == "adamw":
                kind = "adamw"
            by_kind[kind].append(parameter)
        settings = {name: group[name] for name in (SCALE, "weight_decay") if name in group}
        for kind, parameters in by_kind.items():
            if parameters:
                groups[kind].append({**settings, "params": parameters})
    common: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    optimizers: list[Optimizer] = []
    if groups["adamw"]:
        optimizers.append(torch.optim.AdamW(groups["adamw"], **common, betas=_BETAS, fused=True))
    if groups["muon"]:
        optimizers.append(Muon(groups["muon"], **common, adjust_lr_fn="match_rms_adamw"))
    if groups["rows"]:
        optimizers.append(RowAdamW(groups["rows"], **common, beta2=_BETAS[1]))
    return JointOptimizer(optimizers)


def _parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Return the parameter groups that a model declares, followed by a group of all other
    parameters.
    """
    groups = list[dict[str, Any]]()
    grouped = set[int]()
    if isinstance(model, SupportsParameterGroups):
        for group in model.parameter_groups():
            parameters = list(group["params"])
            groups.append({**group, "params": parameters})
            grouped.update(map(id, parameters))
    others = [parameter for parameter in model.parameters() if id(parameter) not in grouped]
    return [*groups, {"params": others}]


def inner_matrices(model: nn.Module) -> list[nn.Parameter]:
    """Return the matrices between hidden vectors: all matrices except embeddings and those of an
    output layer.
    """
    embeddings = {id(module.weight) for module in _embedding_modules(model)}
    config = getattr(model, "config", None)
    # one dimension of the matrix of an output layer is the vocabulary
    vocab_size = getattr(config, "vocab_size", None)
    matrices = [
        parameter
        for parameter in model.parameters()
        if parameter.ndim == 2 and vocab_size not in parameter.shape
    ]
    return [matrix for matrix in matrices if id(matrix) not in embeddings]


def set_learning_rate(optimizer: Optimizer, learning_rate: float) -> None:
    """Set the learning rate of an optimizer; a parameter group with its own scale gets the scaled
    rate.
    """
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get(SCALE, 1.0)


class RowAdamW(Optimizer):
    """AdamW without momentum for tables; it updates only the rows with a gradient, each at its own
    learning rate.

    Let g be the gradient of a row w at step t; g = 0 for rows without a gradient. Then::

        v  <-  beta2 v + (1 - beta2) mean(g^2)
        w  <-  w - lr g / (sqrt(v / (1 - beta2^t)) + eps)

    This is AdamW with betas of 0 and ``beta2``, with two differences. First, v is one number for a
    whole row; AdamW has one number for each weight. Second, weight decay is applied only every 16
    steps, to the whole table. In the steps in which a row has no gradient, its v should decay, too;
    this is done when the row has its next gradient.

    Source: Tieleman & Hinton 2012, "Lecture 6.5 - RMSProp"; Loshchilov & Hutter 2019, "Decoupled
    Weight Decay Regularization"; one number for a row as in Mudigere et al. 2022,
    "Software-Hardware Co-design for Fast and Scalable Training of Deep Learning Recommendation
    Models".

    Args:
        params: Tables, or parameter groups of them.
        lr: The learning rate.
        weight_decay: At each step, the weights shrink by this share times the learning rate.
        beta2: The decay of v, the running mean of squared gradients.
        eps: Added to the square root of v.
    """

    def __init__(
        self, params: Iterable[Any], lr: float, weight_decay: float, beta2: float, eps: float = 1e-8
    ) -> None:
        super().__init__(
            params, {"lr": lr, "weight_decay": weight_decay, "beta2": beta2, "eps": eps}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take a step. The gradients may be sparse or dense."""
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None:
                    grad = table.grad.coalesce() if table.grad.is_sparse else table.grad
                    self._update(table, grad, self.state[table], group)

    def _update(
        self,
        table: Float[Tensor, "N E"],
        grad: Tensor,
        state: dict[str, Any],
        group: dict[str, Any],
    ) -> None:
        """Update the rows of a table that have a gradient. ``state`` is the optimizer's state of
        the table; in the first step, it is empty.
        """
        if not state:
            state["step"] = 0
            state["decay"] = 1.0  # weight decay that has not been applied yet, as a factor
            state["square"] = torch.zeros(len(table), device=table.device)  # v of each row
            # the step of the last update of each row
            state["updated"] = torch.zeros(len(table), device=table.device)
        lr = group["lr"]
        beta2 = group["beta2"]
        step = state["step"] + 1
        rows = torch.arange(len(table), device=table.device)  # (R,) the rows with a gradient
        if grad.is_sparse:
            rows = grad.indices()[0]
            grad = grad.values()
        grad = grad.float()  # (R, E)
        elapsed = step - state["updated"][rows]  # steps since the last gradient of each row
        square = state["square"][rows] * beta2**elapsed + (1 - beta2) * grad.square().mean(dim=1)
        state["square"][rows] = square
        state["updated"][rows] = float(step)
        rates = lr / ((square / (1 - beta2**step)).sqrt() + group["eps"])  # one for each row
        table.index_add_(0, rows, (grad * rates.unsqueeze(1)).to(table.dtype), alpha=-1)
        state["step"] = step
        state["decay"] *= 1 - lr * group["weight_decay"]
        if step % _DECAY_EVERY == 0:
            table *= state["decay"]
            state["decay"] = 1.0


def sparse_tables(model: nn.Module) -> list[Tensor]:
    """Return the embedding tables of a model that have sparse gradients."""
    return [module.weight for module in _embedding_modules(model) if module.sparse]


def _embedding_modules(model: nn.Module) -> Iterator[nn.Embedding | nn.EmbeddingBag]:
    """Yield the modules of a model that have an embedding table."""
    for module in model.modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            yield module


def sum_rows(accelerator: Accelerator, table: Tensor) -> Tensor:
    """Return the sum of the gradient of a table (N, E) over the processes, as a sparse tensor. Only
    the rows that a process has used are sent.
    """
    gradient = torch.zeros_like(table) if table.grad is None else table.grad
    # the gradient is dense if the table is used in other ways, too
    gradient = (gradient if gradient.is_sparse else gradient.to_sparse(1)).coalesce()
    gathered = []
    for part in (gradient.indices()[0], gradient.values()):
        own = part.to(accelerator.device)
        with connection_errors():
            padded = accelerator.pad_across_processes(own, pad_index=-1)
            gathered.append(accelerator.gather(padded))
    # (R,) and (R, E) of all processes; the rows of padding are -1
    rows, values = (part.to(gradient.device) for part in gathered)
    is_row = rows >= 0  # not padding
    total = torch.sparse_coo_tensor(
        rows[is_row].unsqueeze(0), values[is_row], gradient.shape, check_invariants=False
    )
    return total.coalesce()


def with_dense_gradients(parameters: Iterable[nn.Parameter]) -> Iterator[Tensor]:
    """Yield parameters to clip. Torch clips no sparse gradients; so for a table with such a
    gradient, yield a tensor whose gradient is the rows of the table's gradient, in the same memory.
    """
    for parameter in parameters:
        grad = parameter.grad
        if grad is None or not grad.is_sparse:
            yield parameter
            continue
        parameter.grad = grad.coalesce()
        rows = parameter.grad.values()
        stand_in = torch.empty_like(rows)
        stand_in.grad = rows
        yield stand_in
