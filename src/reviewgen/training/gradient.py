"""The gradient loop: Muon and AdamW, warmed up and cooled down, over lanes that carry their state (truncated BPTT)."""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, distributed, nn

from reviewgen.data import Batch, Lanes, TokenStore
from reviewgen.errors import TrainingError
from reviewgen.protocols import State, SupportsImplementations, Tokenizer
from reviewgen.training.config import Budget, Report, TrainingConfig
from reviewgen.training.device import OwnRandom, Threads, autocast, make_accelerator
from reviewgen.training.judge import Judge, Verdict
from reviewgen.training.loss import cross_entropy
from reviewgen.training.optimizing import average_of, linear_decay, make_optimizers, set_learning_rate
from reviewgen.training.probe import Form, describe_timings, find_form, plain_form, probe_seconds

__all__ = ["descend", "detach"]


def descend(
    model: nn.Module, tokenizer: Tokenizer, train: TokenStore, config: TrainingConfig, budget: Budget, seed: int, judge: Judge
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
    loop = _GradientLoop(model, config, lanes, budget, seed)
    best = _copy_tensors(model)
    evaluated = 0
    try:
        for step, batch in enumerate(lanes, 1):
            loss = loop.step(batch)
            progress = loop.progress(step, reserve=judge.seconds)
            report = loop.report(step, progress, batch, loss)
            if loop.has_diverged(loss, progress):
                yield _diverged(report, judge)
                break
            if progress < 1 and progress * config.evaluations < evaluated + 1:
                yield report
                continue
            evaluated = int(progress * config.evaluations)
            verdict = loop.evaluate(judge)
            if verdict.is_best:
                best = _copy_tensors(loop.kept)
            stopped = _why_stop(progress, judge, budget)
            yield replace(report, **vars(verdict), stopped=stopped, notes=judge.notes() if stopped else ())
            if stopped:
                break
    finally:
        loop.release()
        if judge.best < math.inf:
            model.load_state_dict(best)


class _GradientLoop:
    """The model, its optimizer and where they run; ``accelerate`` places the device and the precision."""

    def __init__(self, model: nn.Module, config: TrainingConfig, lanes: Lanes, budget: Budget, seed: int) -> None:
        self.accelerator = make_accelerator(config.precision)
        optimizers = make_optimizers(model, config)
        self.raw: Any = model  # the same weights without a wrapper for several processes
        self.device = str(self.accelerator.device)
        self.form, self.threads, self.notes = self._find_form(model, config, budget)
        self.place = f"{self.device}, {self.form.precision} mixed precision"
        self.autocast = autocast(self.accelerator.device.type, self.form.precision)
        model.to(self.device)
        self.is_wrapped = self.accelerator.num_processes > 1  # its wrapper costs 0.6 ms a call, so one process does without
        self.model = self.accelerator.prepare(model) if self.is_wrapped else model
        self.parameters = list(model.parameters())
        self.is_scaled = self.accelerator.scaler is not None  # fp16; its wrappers cost a tenth of a small step, so only then
        self.optimizers = [self.accelerator.prepare(each) if self.is_scaled else each for each in optimizers]
        self.averaged = average_of(model, config.averaging)
        self.model.train()
        self.config, self.lanes, self.budget = config, lanes, budget
        self.started = time.monotonic()
        self.total_steps = budget.steps or math.ceil((budget.epochs or 0) * lanes.steps_per_epoch)
        self.state: State = None
        self.learning_rate = 0.0
        self.schedule_at = 0.0
        self.random = OwnRandom(seed)

    def _find_form(self, model: nn.Module, config: TrainingConfig, budget: Budget) -> tuple[Form, Threads, tuple[str, ...]]:
        """Return the form that steps are taken in, its threads, set, and what the probe has to say."""
        form, timings = plain_form(model, config, self.accelerator.mixed_precision), []
        if self.device == "cpu" and self.accelerator.num_processes == 1:
            timings = find_form(model, form, config, probe_seconds(budget))
        form = timings[0].form if timings else form
        if isinstance(model, SupportsImplementations) and form.implementation is not None:
            model.use_implementation(form.implementation)
        one = next((config.batch_size * config.bptt / each.tokens_per_second for each in timings if each.form.threads == 1), None)
        return form, Threads(form.threads, one), (describe_timings(timings),) if timings else ()

    def step(self, batch: Batch) -> Tensor:
        """Take one optimizer step and return the loss, nats per token."""
        start = time.monotonic()
        ids = torch.from_numpy(batch.ids).to(self.device, non_blocking=True)
        targets = torch.from_numpy(batch.targets).to(self.device, non_blocking=True)
        state = self.raw.initial_state(len(ids)) if self.state is None or batch.starts_epoch else self.state
        self.learning_rate = self.config.learning_rate * linear_decay(self.schedule_at, self.config.warmup)
        set_learning_rate(self.optimizers, self.learning_rate)
        with self.random, self.autocast:  # dropout draws from the run's own random stream
            logits, state = self.model(ids, state)
        loss = cross_entropy(logits, targets)
        for parameter in self.parameters:
            parameter.grad = None
        if self.is_scaled:
            self.accelerator.backward(loss)
            self.accelerator.clip_grad_norm_(self.parameters, self.config.clip_norm)
        else:
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
        if self.averaged is not None:
            self.averaged.update_parameters(self.raw)
        self.state = detach(state)
        self.threads.record(time.monotonic() - start)
        return loss.detach()

    def report(self, step: int, progress: float, batch: Batch, loss: Tensor) -> Report:
        """Return what is worth saying of a step."""
        return Report(
            step=step,
            progress=progress,
            seconds=time.monotonic() - self.started,
            tokens=step * batch.ids.size,
            epoch=batch.epoch,
            loss=loss,
            learning_rate=self.learning_rate,
            device=self.place,
            threads=self.threads.chosen,
            notes=self.notes if step == 1 else (),
        )

    def has_diverged(self, loss: Tensor, progress: float) -> bool:
        """Return whether the loss is no number; on an accelerator, reading it waits for the device, so at the end only."""
        return (self.device == "cpu" or progress >= 1) and not math.isfinite(float(loss))

    def progress(self, step: int, reserve: float) -> float:
        """Return how much of the budget is used, keeping so many seconds back for a last evaluation."""
        if self.budget.deadline is not None:
            whole = self.budget.deadline - reserve - self.started
            done = (time.monotonic() - self.started) / whole if whole > 0 else 1.0
        else:
            done = step / max(1, self.total_steps)
        if self.is_wrapped:  # by the clock of the first process, so that all take the same steps
            shared = torch.tensor([done], device=self.device)
            distributed.broadcast(shared, 0)
            done = float(shared)
        self.schedule_at = min(1.0, done)
        return self.schedule_at

    @property
    def kept(self) -> Any:
        """The model whose weights are judged and kept: the trained one, or the average of it."""
        return self.raw if self.averaged is None else self.averaged.module

    def evaluate(self, judge: Judge) -> Verdict:
        """Evaluate the model as it stands and let it write."""
        self.kept.eval()
        try:
            with self.autocast:
                return judge.evaluate(self.kept, self.device)
        finally:
            self.kept.train()

    def release(self) -> None:
        """Give the model back as it came: unwrapped, on the CPU, in evaluation mode."""
        self.threads.restore()
        if self.is_wrapped:
            self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        self.raw.to("cpu").eval()
        self.accelerator.free_memory()


def detach(state: State) -> State:
    """Return a state cut off from its past, so that gradients end there."""
    return tuple(detach(part) for part in state) if isinstance(state, tuple) else state.detach()


def _copy_tensors(model: nn.Module) -> Mapping[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}


def _diverged(report: Report, judge: Judge) -> Report:
    """Return the last report of a run whose loss is no number any more.

    Raises:
        TrainingError: No evaluation came before, so there are no good weights to keep.
    """
    said = (
        f"The loss is {report.nats_per_token} at step {report.step}: lower training.learning_rate (now {report.learning_rate:g})"
    )
    if judge.best == math.inf:
        raise TrainingError(f"{said}.")
    return replace(report, notes=(f"{said}; the best weights so far are kept.",), stopped="diverged")


def _why_stop(progress: float, judge: Judge, budget: Budget) -> str | None:
    if progress >= 1:
        return "all steps taken" if budget.deadline is None else "budget spent"
    return "early: no more gain on held-out text" if judge.without_gain >= judge.config.patience else None
