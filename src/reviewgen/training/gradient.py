"""The gradient loop: AdamW under a one-cycle schedule over lanes that carry their state (truncated BPTT)."""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from reviewgen.data import IGNORED, Batch, Lanes, TokenStore
from reviewgen.errors import CheckpointError, TrainingError
from reviewgen.protocols import State, Tokenizer
from reviewgen.training.checkpoints import Checkpoints
from reviewgen.training.config import Budget, Report, TrainingConfig
from reviewgen.training.device import OwnRandom, ThreadProbe, make_accelerator
from reviewgen.training.divergence import Guard
from reviewgen.training.judge import Judge

__all__ = ["cross_entropy", "descend", "one_cycle"]

_STEPS_UNSEEN = 50  # of an accelerator, between looks for a loss that is no number


def descend(
    model: nn.Module,
    tokenizer: Tokenizer,
    train: TokenStore,
    config: TrainingConfig,
    budget: Budget,
    seed: int,
    judge: Judge,
    checkpoints: Checkpoints | None = None,
) -> Iterator[Report]:
    """Descend the gradient over lanes of the stream, evaluate now and then, and leave the best weights in the model."""
    lanes = Lanes(
        train,
        bos_id=tokenizer.bos_id,
        vocab_size=tokenizer.vocab_size,
        lanes=config.batch_size,
        bptt=config.bptt,
        seed=seed,
    )
    loop = _GradientLoop(model, config, lanes, budget, seed, judge)
    try:
        if checkpoints is not None and (state := checkpoints.take_state()) is not None:
            loop.restore(state)
        for batch in lanes.start_at(*loop.place):
            report = loop.report(batch, loop.step(batch), checkpoints.take_notes() if checkpoints is not None else ())
            is_judged = report.progress >= 1 or report.progress * config.evaluations >= loop.evaluated + 1
            is_kept = checkpoints is not None and checkpoints.is_due()
            if loop.has_diverged(look=is_judged or is_kept):
                yield loop.stop(report)
                break
            report = loop.evaluate(report) if is_judged else report
            yield report
            if report.stopped:
                break
            if checkpoints is not None and is_kept:
                checkpoints.save(loop.steps, loop.state())
    finally:
        loop.release()


def one_cycle(progress: float, warmup: float) -> float:
    """Return the learning rate as a share of its peak: a linear rise, then a cosine to zero (after Smith 2018)."""
    if progress < warmup:
        return 0.04 + 0.96 * progress / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup))))


class _GradientLoop:
    """The model, its optimizer, how far they are and where they run; ``accelerate`` places the device and the precision."""

    def __init__(self, model: nn.Module, config: TrainingConfig, lanes: Lanes, budget: Budget, seed: int, judge: Judge) -> None:
        self.accelerator = make_accelerator(config.precision)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.99), fused=True
        )
        self.raw: Any = model  # the same weights without a wrapper for several processes
        self.device = str(self.accelerator.device)
        self.threads = ThreadProbe(config.threads)
        mixed = "no" if config.precision == "no" else self.accelerator.mixed_precision
        self.computer = f"{self.device}, {mixed} mixed precision"
        dtype = torch.float16 if mixed == "fp16" else torch.bfloat16
        self.autocast = torch.autocast(self.accelerator.device.type, dtype, enabled=mixed != "no")
        model.to(self.device)
        self.is_wrapped = self.accelerator.num_processes > 1  # its wrapper costs 0.6 ms a call, so one process does without
        self.model = self.accelerator.prepare(model) if self.is_wrapped else model
        self.parameters = list(model.parameters())
        self.is_scaled = self.accelerator.scaler is not None  # fp16; its wrappers cost a tenth of a small step, so only then
        self.optimizer = self.accelerator.prepare(optimizer) if self.is_scaled else optimizer
        self.model.train()
        self.config, self.lanes, self.budget, self.judge = config, lanes, budget, judge
        self.started = time.monotonic()
        self.total_steps = budget.steps or math.ceil((budget.epochs or 0) * lanes.steps_per_epoch)
        self.steps = self.evaluated = 0
        self.place = 0, 0  # epoch and number of the next batch
        self.carried: State = None
        self.best = _copy_tensors(model)
        self.learning_rate = 0.0
        self.schedule_at = 0.0
        self.random = OwnRandom(seed, self.accelerator.device.type)
        self.guard = self._guard()

    def state(self) -> dict[str, Any]:
        """Return all that decides how the run goes on, tensors and JSON values; ``restore`` takes it."""
        budget, start = self.budget, self.started
        return {
            "model": dict(self.raw.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.accelerator.scaler.state_dict() if self.is_scaled else None,
            "best": self.best,
            "carried": self.carried,
            "random": self.random.states,
            "judge": self.judge.memory(),
            "threads": self.threads.state(),
            "steps": self.steps,
            "evaluated": self.evaluated,
            "place": self.place,
            "schedule_at": self.schedule_at,
            "seconds": time.monotonic() - start,
            "budget_seconds": None if budget.deadline is None else budget.deadline - start,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, with what was left of the time.

        Raises:
            CheckpointError: It is not of this model and optimizer.
        """
        try:
            self.raw.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.is_scaled:
                self.accelerator.scaler.load_state_dict(state["scaler"])
            self.judge.remember(state["judge"])
            self.threads.go_on(state["threads"])
            self.steps, self.evaluated, self.schedule_at = state["steps"], state["evaluated"], state["schedule_at"]
            self.best, self.place, self.random.states = state["best"], state["place"], state["random"]
            self.carried = _to(state["carried"], self.device)
            self.started = time.monotonic() - state["seconds"]
            if state["budget_seconds"] is not None:
                self.budget = Budget(deadline=self.started + state["budget_seconds"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CheckpointError(f"The checkpoint does not fit this model: {reason}") from None
        self.guard = self._guard()

    def step(self, batch: Batch) -> Tensor:
        """Take one optimizer step, unless that would spoil the weights, and return the loss, nats per token."""
        start = time.monotonic()
        ids = torch.from_numpy(batch.ids).to(self.device, non_blocking=True)
        targets = torch.from_numpy(batch.targets).to(self.device, non_blocking=True)
        state = self.raw.initial_state(len(ids)) if self.carried is None or batch.starts_epoch else self.carried
        self.learning_rate = self.config.learning_rate * one_cycle(self.schedule_at, self.config.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        with self.random, self.autocast:  # dropout draws from the run's own random stream
            logits, state = self.model(ids, state)
        loss = cross_entropy(logits, targets)
        self.optimizer.zero_grad()
        if self.is_scaled:
            self.accelerator.backward(loss)
            self.accelerator.clip_grad_norm_(self.parameters, self.config.clip_norm)
            norm = None  # an infinite one is skipped by the scaler, and is nothing unusual
        else:
            torch.autograd.backward(loss)
            norm = nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
        self.steps += 1
        if self.guard.admit(self.steps, loss, norm):
            self.optimizer.step()
        self.carried = detach(state)
        self.place = batch.epoch, batch.number + 1
        self.threads.record(time.monotonic() - start)
        return loss.detach()

    def report(self, batch: Batch, loss: Tensor, notes: tuple[str, ...]) -> Report:
        """Return what is worth saying of a step."""
        return Report(
            step=self.steps,
            progress=self.progress(),
            seconds=time.monotonic() - self.started,
            tokens=self.steps * batch.ids.size,
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
            whole = self.budget.deadline - self.judge.seconds - self.started
            done = (time.monotonic() - self.started) / whole if whole > 0 else 1.0
        else:
            done = self.steps / max(1, self.total_steps)
        if self.is_wrapped:  # by the clock of the first process, so that all take the same steps
            shared = torch.tensor([done], device=self.device)
            distributed.broadcast(shared, 0)
            done = float(shared)
        self.schedule_at = min(1.0, done)
        return self.schedule_at

    def evaluate(self, report: Report) -> Report:
        """Evaluate the model as it stands, let it write, and add to a step's report what was found."""
        self.evaluated = int(report.progress * self.config.evaluations)
        self.model.eval()
        try:
            with self.autocast:
                verdict = self.judge.evaluate(self.raw, self.device)
        finally:
            self.model.train()
        if verdict.is_best:
            self.best = _copy_tensors(self.raw)
        stopped = _why_stop(report.progress, self.judge, self.budget)
        notes = report.notes + (self.judge.notes() if stopped else ())
        return replace(report, **vars(verdict), stopped=stopped, notes=notes)

    def stop(self, report: Report) -> Report:
        """Return the last report of a run whose loss or gradient is no number any more; the last good weights are kept.

        Raises:
            TrainingError: There are none: no step was good.
        """
        step, batches = self.guard.bad_step, self.lanes.steps_per_epoch
        loss = report.nats_per_token
        what = f"The loss is {loss}" if loss is not None and not math.isfinite(loss) else "The gradient is NaN or infinite"
        place = f"step {step:,} (epoch {(step - 1) // batches + 1}, batch {(step - 1) % batches + 1:,} of {batches:,})"
        said = f"{what} at {place}: lower training.learning_rate (now {report.learning_rate:g})"
        if self.judge.best < math.inf:
            kept = "the best weights so far"
        elif self.guard.good_steps:
            kept = f"there was no evaluation yet, so the weights after step {self.guard.good_steps:,}"
        else:
            raise TrainingError(f"{said}.")
        self.guard.restore()
        return replace(report, notes=(*report.notes, f"{said}. Kept: {kept}."), stopped="diverged")

    def release(self) -> None:
        """Give the model back as it came, unwrapped, on the CPU, in evaluation mode, and with its best weights."""
        self.threads.restore()
        if self.is_wrapped:
            self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        self.raw.to("cpu").eval()
        if self.is_wrapped or self.device != "cpu":  # it collects garbage, for half a second
            self.accelerator.free_memory()
        if self.judge.best < math.inf:
            self.raw.load_state_dict(self.best)

    def _guard(self) -> Guard:
        return Guard(self.raw, self.steps, 1 if self.device == "cpu" else _STEPS_UNSEEN, self.is_wrapped)


def cross_entropy(logits: Float[Tensor, "B T V"], targets: Int[Tensor, "B T"]) -> Float[Tensor, ""]:
    """Return the mean negative log likelihood of the targets, in nats a token; bos and conditions are no targets.

    Logits that lie in memory time-first, as torch's recurrent layers make them, are read in that order, without a copy.
    """
    if not logits.is_contiguous():
        logits, targets = logits.transpose(0, 1), targets.transpose(0, 1)
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED)


def detach(state: State) -> State:
    """Return a state cut off from its past, so that gradients end there."""
    return tuple(detach(part) for part in state) if isinstance(state, tuple) else state.detach()


def _to(state: State, device: str) -> State:
    """Return a state on a device."""
    if isinstance(state, tuple):
        return tuple(_to(part, device) for part in state)
    return None if state is None else state.to(device)


def _copy_tensors(model: nn.Module) -> Mapping[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}


def _why_stop(progress: float, judge: Judge, budget: Budget) -> str | None:
    if progress >= 1:
        return "all steps taken" if budget.deadline is None else "budget spent"
    return "early: no more gain on held-out text" if judge.without_gain >= judge.config.patience else None
