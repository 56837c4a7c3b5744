"""Optimizer steps: compute the gradients of batches, sum them over the processes, and update the
weights.

A *lane* is a row of the batches, a continuous part of the stream of texts. In each step, every
process computes the gradients of its own lanes. Its loss is divided by the number of targets of all
processes, so the sum of the gradients over the processes equals the gradient of one process with
all lanes. What accelerate does in a step, and what is done without it, is in ``device``.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from reviewgen.config.training import TrainingConfig
from reviewgen.data.lanes import IGNORED, Batch
from reviewgen.errors import BrokenPlugin
from reviewgen.generation.states import map_state
from reviewgen.processes import Processes, connection_errors
from reviewgen.protocols.model import State
from reviewgen.training.device import IsolatedRng, accumulation, autocast, make_accelerator
from reviewgen.training.losses import add_own_losses, cross_entropy, own_losses
from reviewgen.training.optimizers import (
    make_optimizer,
    set_learning_rate,
    sparse_tables,
    sum_rows,
    with_dense_gradients,
)
from reviewgen.training.softmax import SampledSoftmax, compute_logits

# steps between two checks for divergence on an accelerator; each check waits for the device
_ACCELERATOR_CHECK_STEPS = 50


class TrainingStep:
    """Takes optimizer steps on consecutive batches, and carries the hidden state of the lanes from
    one to the next (truncated BPTT).

    Args:
        model: The model; it is moved to the device, and trained in place.
        config: Training settings.
        processes: The processes; each trains on lanes of its own.
        device: The device.
        precision: The mixed precision, "no", "bf16" or "fp16".
        sampled: The sampled softmax; None for the full one.
        seed: Seed of dropout.

    Attributes:
        averaged: The moving average of the weights; None if they are not averaged.
        guard: Finds a loss or a gradient that is NaN or infinite.
        losses: The model's own loss terms in the last step, by name.

    Raises:
        BrokenPlugin: The model's own parameter groups are wrong.
        TrainingError: The precision cannot be used in this process.
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainingConfig,
        processes: Processes,
        device: torch.device,
        precision: str,
        sampled: SampledSoftmax | None,
        seed: int,
    ) -> None:
        self.model: Any = model.to(device).train()
        self.device = device
        self.processes = processes
        self.accelerator = make_accelerator(precision)
        scaler = self.accelerator.scaler
        # a training in 32 bits has a disabled scaler if the process uses fp16 for other trainings
        self._scaler = scaler if scaler is not None and scaler.is_enabled() else None
        self.optimizer = self.accelerator.prepare_optimizer(
            make_optimizer(model, config), device_placement=False
        )
        self.averaged = (
            AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.averaging))
            if config.averaging
            else None
        )
        # dropout differs from process to process
        self.rng = IsolatedRng((seed + processes.rank) % 2**64, device.type)
        self.carried_state: State = None  # hidden state of the lanes after the last batch
        self.losses: dict[str, Tensor] = {}
        self.restart_guard(0)
        self._precision = precision
        self._sampled = sampled
        self._clip_norm = config.clip_norm
        self._parameters = [each for each in model.parameters() if each.requires_grad]
        self._loss_names: tuple[str, ...] = ()  # names of the model's own loss terms

    @property
    def evaluated_model(self) -> Any:
        """The model that is evaluated, and whose best weights are kept: the averaged one if there
        is one.
        """
        return self.model if self.averaged is None else self.averaged.module

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the autocast context of the training."""
        return autocast(self.accelerator, self._precision)

    def stateful(self) -> dict[str, Any]:
        """Return the objects that have a ``state_dict``, by name."""
        objects = {
            "model": self.model,
            "optimizer": self.optimizer,
            "averaged": self.averaged,
            "scaler": self._scaler,
        }
        return {name: stateful for name, stateful in objects.items() if stateful is not None}

    def local_state(self) -> dict[str, Any]:
        """Return what differs between processes: the hidden state and the random numbers, on the
        CPU.
        """
        state = _copy_state(self.carried_state, torch.device("cpu"))
        return {"carried_state": state, "rng": self.rng.states}

    def restore_local(self, state: Mapping[str, Any]) -> None:
        """Restore what ``local_state`` has returned."""
        self.rng.resume(state["rng"])
        self.carried_state = _copy_state(state["carried_state"], self.device)

    def restart_guard(self, steps: int) -> None:
        """Take the current weights, those after ``steps`` steps, as good."""
        check_every = 1 if self.device.type == "cpu" else _ACCELERATOR_CHECK_STEPS
        self.guard = DivergenceGuard(self.model, steps, check_every)

    def take(self, batches: Sequence[Batch], number: int, learning_rate: float) -> Tensor:
        """Take an optimizer step; return the cross entropy in nats per token.

        The optimizer is not run if the loss or the gradient is NaN or infinite. In any case, the
        attribute ``losses`` is set.

        Args:
            batches: The batches, whose gradients are accumulated.
            number: The number of the step, from 1.
            learning_rate: The learning rate.

        Raises:
            KeyboardInterrupt: A process was interrupted; all processes raise it, in the same step.
            ProcessLost: Another process has ended.
        """
        accelerator = self.accelerator
        set_learning_rate(self.optimizer, learning_rate)
        self.model.zero_grad()
        targets = self._count_targets(batches)
        losses = torch.zeros((), device=self.device)  # the first sum makes it (L,)
        entropy: Tensor
        with accumulation(len(batches)):
            for batch in batches[:-1]:
                with accelerator.accumulate():
                    losses = losses + self._forward_backward(batch, targets)
            with accelerator.accumulate():
                losses = losses + self._forward_backward(batches[-1], targets)
                entropy, minimised, *terms = self._sum_gradients(losses)
                if self._clip_gradients(number, minimised):
                    self.optimizer.step()
                    if self.averaged is not None and not self.optimizer.step_was_skipped:
                        self.averaged.update_parameters(self.model)
        self.losses = dict(zip(self._loss_names, terms, strict=True))
        return entropy

    def _count_targets(self, batches: Sequence[Batch]) -> int:
        """Return the number of targets of a step, in all processes.

        Raises:
            KeyboardInterrupt: A process was interrupted; all processes raise it.
        """
        own_targets = sum(int((batch.targets != IGNORED).sum()) for batch in batches)
        targets, interrupted = self.processes.all_gather(
            [own_targets, self.processes.interrupted.is_set()]
        ).sum(axis=0)
        if interrupted:
            raise KeyboardInterrupt
        return int(targets)

    def _forward_backward(self, batch: Batch, step_targets: int) -> Float[Tensor, " L"]:
        """Accumulate the gradients of a batch.

        Returns:
            The batch's share of the step's losses, (L,); each loss is a mean over the
            ``step_targets`` targets of the step. The first is the cross entropy, the second is the
            loss that is minimised, and the model's own loss terms follow, if it has any.
        """
        accelerator = self.accelerator
        ids = _to_device(batch.ids, self.device)
        targets = _to_device(batch.targets, self.device)
        starts_anew = self.carried_state is None or batch.starts_epoch
        state = self.model.initial_state(len(ids)) if starts_anew else self.carried_state
        # dropout uses the run's own random stream
        with self.rng, self.autocast():
            logits, targets, state = compute_logits(self._sampled, self.model, ids, state, targets)
            terms = own_losses(self.model, logits, targets)
        entropy = cross_entropy(logits, targets, step_targets)
        loss = entropy
        if terms:
            share = int((batch.targets != IGNORED).sum()) / max(1, step_targets)
            loss, terms = add_own_losses(entropy, terms, share)
            self._loss_names = self._loss_names or tuple(terms)
            if terms.keys() != set(self._loss_names):
                names = f"{', '.join(terms)} after {', '.join(self._loss_names)}"
                raise BrokenPlugin(
                    f"{type(self.model).__name__}.losses must return the same names at each call;"
                    f" got {names}."
                )
        # ``backward`` divides by the number of batches, but the losses are parts of one mean
        accelerator.backward(loss * accelerator.gradient_accumulation_steps)
        self.carried_state = map_state(Tensor.detach, state)  # back-propagation is truncated here
        return torch.stack([entropy, loss, *(terms[name] for name in self._loss_names)]).detach()

    def _sum_gradients(self, losses: Float[Tensor, " L"]) -> Float[Tensor, " L"]:
        """Sum the gradients over the processes; return the losses, which are summed like them.

        If there are several processes, a parameter without a gradient gets a gradient of zeros.
        """
        accelerator = self.accelerator
        if accelerator.num_processes == 1:
            return losses
        # this raises at once if another process has failed in this step
        self.processes.all_gather([0])
        # a frozen table has no gradient
        tables = [table for table in sparse_tables(self.model) if table.requires_grad]
        table_ids = set(map(id, tables))
        dense = [parameter for parameter in self._parameters if id(parameter) not in table_ids]
        gradients = [
            torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.to_dense()
            for parameter in dense
        ]
        # all gradients and the losses in one tensor, so that one call sums them
        flat = torch.cat([tensor.flatten().float() for tensor in (*gradients, losses)])
        with connection_errors():
            # the model may be on the CPU of a machine with accelerators
            flat = accelerator.reduce(flat.to(accelerator.device), "sum").to(self.device)
        for table in tables:
            table.grad = sum_rows(accelerator, table)
        *gradient_sums, loss_sums = torch.split(
            flat, [tensor.numel() for tensor in (*gradients, losses)]
        )
        for parameter, total in zip(dense, gradient_sums, strict=True):
            parameter.grad = total.view_as(parameter).to(parameter)
        return loss_sums

    def _clip_gradients(self, number: int, loss: Tensor) -> bool:
        """Clip the gradients by their global norm; return whether the optimizer may take the step
        ``number``, that is, whether the loss and the gradient are finite.
        """
        accelerator = self.accelerator
        gradients = with_dense_gradients(self._parameters)
        norm = accelerator.clip_grad_norm_(gradients, self._clip_norm)
        # Infinite gradients are common in fp16. The scaler then skips the step and lowers its
        # scale; they do not mean that the run has diverged.
        checked = norm if self._scaler is None else None
        return self.guard.allows_step(number, loss, checked)


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


def _copy_state(state: State, device: torch.device) -> State:
    """Return a copy of a model state on a device."""
    # a part may be a view of a larger tensor; a copy does not keep the larger tensor in memory
    return map_state(lambda part: None if part is None else part.to(device, copy=True), state)


def _to_device(array: Int[np.ndarray, "B T"], device: torch.device) -> Int[Tensor, "B T"]:
    """Copy ids to a device. The copy to a GPU is asynchronous, from pinned memory."""
    if device.type != "cuda":
        return torch.from_numpy(array).to(device)
    return torch.from_numpy(np.ascontiguousarray(array)).pin_memory().to(device, non_blocking=True)
