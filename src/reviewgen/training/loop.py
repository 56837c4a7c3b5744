"""What a run by gradient is made of: the model, its optimizers, how far they are, and where and in which form they compute.

One step may take several batches, and several processes may take it together; the loss is the mean over all their targets.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from reviewgen.data import IGNORED, Batch, Lanes
from reviewgen.errors import CheckpointError, TrainingError
from reviewgen.protocols import State, SupportsImplementations
from reviewgen.training.config import Budget, Report, StopReason, TrainingConfig
from reviewgen.training.device import OwnRandom, Threads, autocast, find_device, find_precision, to_device
from reviewgen.training.divergence import DivergenceGuard
from reviewgen.training.evaluator import Evaluator
from reviewgen.training.loss import cross_entropy
from reviewgen.training.optimizing import average_of, linear_decay, make_optimizers, set_learning_rate
from reviewgen.training.probe import (
    ExecutionConfig,
    Timing,
    autotune,
    default_execution,
    describe_timings,
    keep_threads,
    probe_seconds,
)

__all__ = ["Loop", "detach"]

_STEPS_UNSEEN = 50  # of an accelerator, between looks for a loss that is no number


class Loop:
    """A model in training; ``begun`` is the ``state`` of a run that was cut short, and goes on."""

    def __init__(
        self,
        model: nn.Module,
        config: TrainingConfig,
        lanes: Lanes,
        budget: Budget,
        seed: int,
        evaluator: Evaluator,
        begun: Mapping[str, Any] | None = None,
    ) -> None:
        self.model: Any = model
        self.config, self.lanes, self.budget, self.evaluator = config, lanes, budget, evaluator
        self.processes = evaluator.processes
        self.device, self.notes = find_device(config.device, model)
        self.form, self.threads = self._choose_execution(begun)
        form = f"{self.device}, {self.form.precision} mixed precision", self.form.implementation
        self.computer = ", ".join(filter(None, form))
        self.autocast = autocast(self.device.type, self.form.precision)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.form.precision == "fp16")
        self.processes.share_weights(model)
        self.optimizers = make_optimizers(model, config)
        self.best = _copy_tensors(model)
        model.to(self.device).train()
        self.averaged = average_of(model, config.averaging)
        self.parameters = list(model.parameters())
        self.started = time.monotonic()
        batches = math.ceil((budget.epochs or 0) * lanes.steps_per_epoch)
        self.total_steps = budget.steps or math.ceil(batches / config.gradient_accumulation_steps)
        self.steps = self.evaluated = 0
        self.place = 0, 0  # epoch and number of the next batch
        self.carried: State = None
        self.learning_rate = 0.0
        self.schedule_at = 0.0
        self.random = OwnRandom((seed + self.processes.rank) % 2**64, self.device.type)  # each process has dropout of its own
        self.guard = self._guard()
        if begun is not None:
            try:
                self._restore(begun)
            except CheckpointError:
                self.threads.restore()
                raise

    def state(self) -> dict[str, Any]:
        """Return all that decides how the run goes on, tensors and JSON values; a new loop takes it as ``begun``.

        All processes make it together; what is each one's own stands in ``own``, in the order of their ranks.
        """
        deadline = self.budget.deadline
        return {
            "model": dict(self.model.state_dict()),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "averaged": None if self.averaged is None else dict(self.averaged.state_dict()),
            "scaler": self.scaler.state_dict(),
            "best": self.best,
            "own": self.processes.collect({"carried": _to(self.carried, torch.device("cpu")), "random": self.random.states}),
            "evaluator": self.evaluator.memory(),
            "form": asdict(replace(self.form, threads=self.threads.chosen)),
            "seconds_of_one": self.threads.seconds_of_one,
            "steps": self.steps,
            "evaluated": self.evaluated,
            "place": self.place,
            "schedule_at": self.schedule_at,
            "seconds": time.monotonic() - self.started,
            "budget_seconds": None if deadline is None else deadline - self.started,
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, with what was left of the time.

        Raises:
            CheckpointError: It is not of this model and these optimizers.
        """
        try:
            self.model.load_state_dict(state["model"])
            for optimizer, one in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(one)
            if self.averaged is not None:
                self.averaged.load_state_dict(state["averaged"])
            self.scaler.load_state_dict(state["scaler"])
            self.evaluator.remember(state["evaluator"])
            self.steps, self.evaluated, self.schedule_at = state["steps"], state["evaluated"], state["schedule_at"]
            self.best, self.place = state["best"], state["place"]
            own = state["own"][self.processes.rank]
            self.random.states, self.carried = own["random"], _to(own["carried"], self.device)
            self.started = time.monotonic() - state["seconds"]
            if state["budget_seconds"] is not None:
                self.budget = Budget(deadline=self.started + state["budget_seconds"])
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CheckpointError(f"The checkpoint does not fit this model: {reason}") from None
        self.guard = self._guard()

    def _choose_execution(self, begun: Mapping[str, Any] | None) -> tuple[ExecutionConfig, Threads]:
        """Return the form that steps are taken in, and its threads, set; what the probe found becomes a note."""
        timings: list[Timing] = []
        if begun is not None:
            form, one = _restore_execution(begun, self.model)
        else:
            form = default_execution(self.model, self.config, find_precision(self.config.precision, self.device.type))
            if self.device.type == "cpu" and self.processes.rank == 0:  # the others wait, and go by what it finds
                config = keep_threads(self.config, self.processes.count)
                timings = autotune(self.model, form, config, probe_seconds(self.budget))
            timings = self.processes.share(timings)
            tokens = self.config.batch_size * self.config.bptt * self.config.gradient_accumulation_steps
            one = next((tokens / each.tokens_per_second for each in timings if each.form.threads == 1), None)
        form = timings[0].form if timings else form
        if len(timings) > 1:
            self.notes = *self.notes, describe_timings(timings)
        if isinstance(self.model, SupportsImplementations) and form.implementation is not None:
            self.model.use_implementation(form.implementation)
        return form, Threads(form.threads, one)

    def step(self, batches: Sequence[Batch]) -> Tensor:
        """Take one optimizer step on consecutive batches, unless it would spoil the weights; return the loss, nats a token."""
        start = time.monotonic()
        self.learning_rate = self.config.learning_rate * linear_decay(self.schedule_at, self.config.warmup)
        set_learning_rate(self.optimizers, self.learning_rate)
        self.model.zero_grad()
        targets = sum(int((batch.targets != IGNORED).sum()) for batch in batches)
        loss = sum((self._descend(batch, targets) for batch in batches), torch.zeros((), device=self.device))
        loss = self.processes.average_gradients(self.parameters, loss, targets)
        self.steps += 1
        if self._clip(loss):
            for optimizer in self.optimizers:
                self.scaler.step(optimizer)
            if self.averaged is not None:
                self.averaged.update_parameters(self.model)
        self.scaler.update()
        self.place = batches[-1].epoch, batches[-1].number + 1
        self.threads.record(time.monotonic() - start)
        return loss

    def _clip(self, loss: Tensor) -> bool:
        """Clip the gradients, and return whether the optimizers may go by them."""
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
        if not self.scaler.is_enabled():
            return self.guard.admit(self.steps, loss, norm)
        return self.guard.admit(self.steps, loss, None) and bool(norm.isfinite())  # infinite ones are nothing unusual in fp16

    def _descend(self, batch: Batch, targets: int) -> Tensor:
        """Add a batch's share of the gradients of a step's loss, and return its share of that loss."""
        ids = to_device(batch.ids, self.device)
        state = self.model.initial_state(len(ids)) if self.carried is None or batch.starts_epoch else self.carried
        with self.random, self.autocast:  # dropout draws from the run's own random stream
            logits, state = self.model(ids, state)
        loss = cross_entropy(logits, to_device(batch.targets, self.device), targets)
        torch.autograd.backward(self.scaler.scale(loss))
        self.carried = detach(state)
        return loss.detach()

    def report(self, batch: Batch, loss: Tensor, notes: tuple[str, ...]) -> Report:
        """Return what is worth saying of a step."""
        notes, self.notes = (*self.notes, *notes), ()
        return Report(
            step=self.steps,
            progress=self.progress(),
            seconds=time.monotonic() - self.started,
            tokens=self.steps * self.config.gradient_accumulation_steps * batch.ids.size * self.processes.count,
            epoch=batch.epoch,
            loss=loss,
            learning_rate=self.learning_rate,
            device=self.computer,
            threads=self.threads.chosen,
            notes=notes,
        )

    def has_diverged(self, look: bool) -> bool:
        """Return whether a loss or gradient is known to be no number; an accelerator is waited for only to look."""
        return self.guard.bad_step > 0 or (look and not self.guard.look(self.steps))

    def progress(self) -> float:
        """Return how much of the budget is used, keeping back what a last evaluation takes."""
        if self.budget.deadline is not None:
            whole = self.budget.deadline - self.evaluator.seconds - self.started
            own = (time.monotonic() - self.started) / whole if whole > 0 else 1.0
            done = float(self.processes.gather([own])[0, 0])  # by the clock of the first process: all take the same steps
        else:
            done = self.steps / max(1, self.total_steps)
        self.schedule_at = min(1.0, done)
        return self.schedule_at

    @property
    def kept(self) -> Any:
        """The model whose weights are judged and kept: the trained one, or the average of it."""
        return self.model if self.averaged is None else self.averaged.module

    def evaluate(self, report: Report) -> Report:
        """Evaluate the model as it stands, let it write, and add to a step's report what was found."""
        self.evaluated = int(report.progress * self.config.evaluations)
        self.kept.eval()
        try:
            with self.autocast:
                verdict = self.evaluator.evaluate(self.kept, str(self.device))
        finally:
            self.kept.train()
        if verdict.is_best:
            self.best = _copy_tensors(self.kept)
        stopped = _why_stop(report.progress, self.evaluator, self.budget)
        notes = report.notes + (self.evaluator.notes() if stopped else ())
        return replace(report, **vars(verdict), stopped=stopped, notes=notes)

    def stop(self, report: Report) -> Report:
        """Return the last report of a run whose loss or gradient is no number any more; the last good weights are kept.

        Raises:
            TrainingError: There are none: no step was good.
        """
        step, batches = self.guard.bad_step, self.lanes.steps_per_epoch
        number = (step - 1) * self.config.gradient_accumulation_steps
        loss = report.nats_per_token
        what = f"The loss is {loss}" if loss is not None and not math.isfinite(loss) else "The gradient is NaN or infinite"
        place = f"step {step:,} (epoch {number // batches + 1}, batch {number % batches + 1:,} of {batches:,})"
        said = f"{what} at {place}: lower training.learning_rate (now {report.learning_rate:g})"
        return self.cut_short(report, said, StopReason.DIVERGED)

    def cut_short(self, report: Report, said: str, stopped: StopReason) -> Report:
        """Return the last report of a run that cannot go on; the last good weights are kept.

        Raises:
            TrainingError: There are none.
        """
        good = self.guard.good_steps if self.guard.bad_step else self.steps
        if self.evaluator.best < math.inf:
            kept = "the best weights so far"
        elif good:
            kept = f"there was no evaluation yet, so the weights after step {good:,}"
        else:
            raise TrainingError(f"{said}.")
        if self.guard.bad_step:
            self.guard.restore()
        notes = (*report.notes, f"{said}. Kept: {kept}.")
        return replace(report, evaluation=None, copy_rate=None, is_best=False, sample=None, notes=notes, stopped=stopped)

    def release(self) -> None:
        """Give the model back as it came, on the CPU, in evaluation mode, and with its best weights."""
        self.threads.restore()
        self.model.to("cpu").eval()
        if self.evaluator.best < math.inf:
            self.model.load_state_dict(self.best)

    def _guard(self) -> DivergenceGuard:
        return DivergenceGuard(self.model, self.steps, 1 if self.device.type == "cpu" else _STEPS_UNSEEN)


def detach(state: State) -> State:
    """Return a state cut off from its past, so that gradients end there."""
    return tuple(detach(part) for part in state) if isinstance(state, tuple) else state.detach()


def _restore_execution(begun: Mapping[str, Any], model: Any) -> tuple[ExecutionConfig, float | None]:
    """Return the form of a run that was cut short, and the seconds of a step with one thread, where they are known.

    Raises:
        CheckpointError: This model has no such form.
    """
    try:
        form = ExecutionConfig(**begun["form"])
        if isinstance(model, SupportsImplementations) and form.implementation not in model.implementations():
            raise ValueError(f"it has no implementation {form.implementation!r}")
        return form, begun["seconds_of_one"]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"The checkpoint does not fit this model: {error}") from None


def _to(state: State, device: torch.device) -> State:
    """Return a state on a device."""
    if isinstance(state, tuple):
        return tuple(_to(part, device) for part in state)
    return None if state is None else state.to(device)


def _copy_tensors(model: nn.Module) -> Mapping[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}


def _why_stop(progress: float, evaluator: Evaluator, budget: Budget) -> StopReason | None:
    if progress >= 1:
        return StopReason.ALL_STEPS_TAKEN if budget.deadline is None else StopReason.BUDGET_SPENT
    return StopReason.NO_MORE_GAIN if evaluator.without_gain >= evaluator.config.patience else None
