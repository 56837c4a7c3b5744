"""Compute the loss of a training step, make the optimizer, set its learning rate, and guard
against divergence.

The loss of every model is the cross entropy, in nats per token, plus the model's own terms if it
has any. On a CPU, a compiled loop computes the cross entropy and its gradient in one pass
(``reviewgen.compiled.tensors``): with a vocabulary of some thousand tokens, torch's separate steps
(conversion to 32 bits, log-softmax, its gradient, conversion back) take most of the time of a
training step.

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

The learning rate rises to its peak and falls in a straight line to zero over the run (Bergsma et
al. 2025, "Straight to Zero: Why Linearly Decaying the Learning Rate to Zero Works Best for LLMs").
On a small corpus, the held-out loss may stop improving long before the run is over. The best
weights were then reached at a high learning rate and were never annealed. So the run goes back to
these weights, and lowers the rate to zero from there, within half the number of steps that led to
them. This is like the decay phase of a warmup-stable-decay schedule (Hägele et al. 2024, "Scaling
Laws and Compute-Optimal Training Beyond Fixed Training Durations"). So the held-out text decides
when a run ends, and not the time that was planned for it.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.optim import Muon, Optimizer

from reviewgen.compiled.tensors import as_array, cross_entropy_and_gradient
from reviewgen.config.training import TrainingConfig
from reviewgen.data.lanes import IGNORED
from reviewgen.errors import BrokenPlugin
from reviewgen.protocols.abilities import SupportsLoss, SupportsParameterGroups

CROSS_ENTROPY = "cross_entropy"
"""The name of a model's own loss term that replaces the cross entropy in the minimised loss."""

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,39}", re.ASCII)  # the name of a loss term
_COMPILED_DTYPES = (torch.float32, torch.bfloat16)
SCALE = "learning_rate_scale"  # key in a model's own parameter group
_BETAS = (0.9, 0.99)  # the second moment averages over about 100 steps: runs are short
# steps between two weight decays of RowAdamW, since a decay has to change every row
_DECAY_EVERY = 16
_WARMUP_START = 0.04  # share of the peak learning rate at which the warm-up starts
_ANNEALING = 0.5  # steps of the annealing, as a share of those that led to the best weights
_ANNEALING_EVALUATIONS = 4  # evaluations during the annealing


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
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

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
        self.param_groups = self._groups()  # they were replaced


def make_optimizer(model: nn.Module, config: TrainingConfig) -> JointOptimizer:
    """Return the optimizer of a model."""
    defaults = {id(matrix): "muon" for matrix in inner_matrices(model)}
    defaults |= {id(table): "rows" for table in sparse_tables(model)}
    groups: dict[str, list[dict[str, Any]]] = {"adamw": [], "muon": [], "rows": []}
    for group in _parameter_groups(model):
        # an optimizer has its own group for each group of the model
        by_optimizer: dict[str, list[nn.Parameter]] = {name: [] for name in groups}
        for parameter in group["params"]:
            name = group.get("optimizer", defaults.get(id(parameter), "adamw"))
            if name == "muon" and config.optimizer == "adamw":
                name = "adamw"
            by_optimizer[name].append(parameter)
        settings = {name: group[name] for name in (SCALE, "weight_decay") if name in group}
        for name, parameters in by_optimizer.items():
            if parameters:
                groups[name].append({**settings, "params": parameters})
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
    embeddings = {id(table.weight) for table in _tables(model)}
    config = getattr(model, "config", None)
    vocab_size = getattr(config, "vocab_size", None)  # a matrix of an output layer has this size
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
        rows = torch.arange(len(table), device=table.device)
        if grad.is_sparse:
            rows = grad.indices()[0]
            grad = grad.values()
        grad = grad.float()
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
    return [table.weight for table in _tables(model) if table.sparse]


def _tables(model: nn.Module) -> Iterator[nn.Embedding | nn.EmbeddingBag]:
    for module in model.modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            yield module


def sum_rows(accelerator: Accelerator, table: Tensor) -> Tensor:
    """Return the sum of the sparse gradient of a table (N, E) over the processes, as a sparse
    tensor. Only the rows of the gradients are sent.
    """
    empty = torch.zeros_like(table, layout=torch.sparse_coo)
    gradient = (empty if table.grad is None else table.grad).coalesce()
    gathered = [
        accelerator.gather(
            accelerator.pad_across_processes(part.to(accelerator.device), pad_index=-1)
        )
        for part in (gradient.indices()[0], gradient.values())
    ]
    rows, values = (part.to(gradient.device) for part in gathered)
    is_row = rows >= 0  # not padding
    total = torch.sparse_coo_tensor(rows[is_row].unsqueeze(0), values[is_row], gradient.shape)
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


class DivergenceGuard:
    """Checks the loss and gradient norm of each training step.

    A step is bad if its loss or gradient norm is NaN or infinite. A bad step only sets a mark on
    the device. The mark is read every ``check_every`` steps, since reading a value from an
    accelerator waits for it. If no step up to there was bad, the weights are copied, to be restored
    later. With ``check_every=1``, a bad step is detected before the optimizer takes it. Then the
    weights are still good, and no copy is needed.

    Args:
        model: The model, on its device.
        steps: Optimizer steps taken so far.
        check_every: Steps between two checks.

    Attributes:
        bad_step: The first step whose loss or gradient was NaN or infinite; 0 if there was none.
        good_steps: The number of steps that led to the last weights known to be good.
    """

    def __init__(self, model: nn.Module, steps: int, check_every: int) -> None:
        tensors = list(model.state_dict().values())
        # each tensor of the model with its copy
        self._copies = [(tensor, tensor.clone()) for tensor in tensors] if check_every > 1 else []
        self._check_every = check_every
        # the value of bad_step, on the device
        self._bad_step_mark = torch.zeros((), dtype=torch.int64, device=tensors[0].device)
        self.bad_step = 0
        self.good_steps = steps

    def allows_step(self, step: int, loss: Tensor, norm: Tensor | None) -> bool:
        """Return whether the optimizer may take a step, given the loss and the gradient norm of the
        step. A norm of None is not checked.
        """
        values = loss if norm is None else torch.stack((loss, norm.to(loss.device)))
        is_bad = ~torch.isfinite(values).all()
        is_first = is_bad & (self._bad_step_mark == 0)
        self._bad_step_mark = torch.where(is_first, step, self._bad_step_mark)
        if step % self._check_every:
            return True  # the mark is read later
        return self.check(step - 1)

    def check(self, steps: int) -> bool:
        """Return whether all steps so far were good. Copy the weights if they are good. On an
        accelerator, this waits for the device.

        Args:
            steps: The number of steps that the optimizer has taken.
        """
        self.bad_step = self.bad_step or int(self._bad_step_mark)
        # if the only bad step is one that the optimizer has not taken yet, the weights are good
        if self.bad_step in (0, steps + 1):
            self.good_steps = steps
            for tensor, copy in self._copies:
                copy.copy_(tensor)
        return not self.bad_step

    def restore(self) -> None:
        """Copy the last good weights back into the model."""
        for tensor, copy in self._copies:
            tensor.copy_(copy)


@dataclass
class Schedule:
    """The progress of a run; it determines the learning rate of the next step, when to evaluate,
    and when the run is over. Checkpoints save all attributes.

    Attributes:
        peak: The largest learning rate.
        warmup: The share of the run in which the rate rises.
        evaluations: The number of evaluations of the run, without those of an annealing.
        steps: Optimizer steps so far.
        progress: Share of the budget used so far.
        evaluated: The number of evaluations that were due at the time of the last one.
        best_step: The step of the best evaluation.
        best_share: The learning rate at that step, as a share of the peak.
        annealing: Set if held-out text got no better and the learning rate is being lowered to zero
            early: the step after which this starts, the number of its steps, and the learning rate
            at its start, as a share of the peak. None before.
    """

    peak: float
    warmup: float
    evaluations: int
    steps: int = 0
    progress: float = 0.0
    evaluated: int = 0
    best_step: int = 0
    best_share: float = 1.0
    annealing: tuple[int, int, float] | None = None

    @property
    def is_over(self) -> bool:
        """Whether the run is over."""
        return self.progress >= 1 or self._annealing_left() <= 0

    def learning_rate(self) -> float:
        """Return the learning rate of the next step."""
        share = self._linear_decay()
        if self.annealing is not None:
            _, _, share_at_start = self.annealing
            share = share_at_start * self._annealing_left()
        return self.peak * share

    def mark_best(self) -> None:
        """Record that the current weights are the best so far."""
        self.best_step = self.steps
        self.best_share = self._linear_decay()

    def anneal(self) -> int:
        """Start the annealing: lower the learning rate to zero from its value at the best weights.
        Return the number of steps this takes.
        """
        length = max(1, min(math.ceil(_ANNEALING * self.best_step), self.steps_left()))
        self.annealing = self.steps, length, self.best_share
        self.evaluated = self.evaluations  # the evaluations of the annealing are added to these
        return length

    def evaluations_due(self) -> int:
        """Return how many evaluations are due by now: k of n evaluations after the share (k / n)^2
        of the run.

        Early evaluations are close together, since the gain between two evaluations depends on the
        ratio of their times, and not on the difference.
        """
        if self.annealing is None:
            return int(math.sqrt(self.progress) * self.evaluations)
        return self.evaluations + int((1 - self._annealing_left()) * _ANNEALING_EVALUATIONS)

    def steps_left(self) -> int:
        """Return the number of steps to the end of the run, estimated from the speed so far."""
        if self.annealing is not None:
            start, length, _ = self.annealing
            return start + length - self.steps
        if self.progress == 0:
            return 0  # there is nothing yet to estimate from
        return round(self.steps * (1 - self.progress) / self.progress)

    def evaluations_left(self) -> int:
        """Return the number of evaluations to come."""
        annealing = 0 if self.annealing is None else _ANNEALING_EVALUATIONS
        return self.evaluations + annealing - self.evaluated

    def _linear_decay(self) -> float:
        """Return the learning rate as a share of its peak: linear warm-up, then linear decay to
        zero.
        """
        if self.progress < self.warmup:
            return _WARMUP_START + (1 - _WARMUP_START) * self.progress / self.warmup
        return max(0.0, (1 - self.progress) / (1 - self.warmup))

    def _annealing_left(self) -> float:
        """Return the share of the annealing that is left; 1 before the annealing starts."""
        if self.annealing is None:
            return 1.0
        start, length, _ = self.annealing
        return max(0.0, 1 - (self.steps - start) / length)
