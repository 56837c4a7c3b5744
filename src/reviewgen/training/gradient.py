"""The gradient loop: Muon and AdamW, warmed up and cooled down, over lanes that carry their state (truncated BPTT)."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from reviewgen.data import IGNORED, Batch, Lanes, TokenStore
from reviewgen.errors import ProcessLost, TrainingError
from reviewgen.protocols import State, SupportsImplementations, Tokenizer
from reviewgen.training.config import Budget, Report, TrainingConfig
from reviewgen.training.device import OwnRandom, Threads, autocast, find_device, find_precision, to_device
from reviewgen.training.judge import Judge, Verdict
from reviewgen.training.loss import cross_entropy
from reviewgen.training.optimizing import average_of, linear_decay, make_optimizers, set_learning_rate
from reviewgen.training.probe import Form, describe_timings, find_form, plain_form, probe_seconds
from reviewgen.training.processes import Processes

__all__ = ["descend", "detach"]


def descend(
    model: nn.Module, tokenizer: Tokenizer, train: TokenStore, config: TrainingConfig, budget: Budget, seed: int, judge: Judge
) -> Iterator[Report]:
    """Descend the gradient over lanes of the stream, evaluate now and then, and leave the best weights in the model."""
    processes = judge.processes
    lanes = Lanes(
        train,
        bos_id=tokenizer.bos_id,
        vocab_size=tokenizer.vocab_size,
        lanes=config.batch_size,
        bptt=config.bptt,
        seed=seed,
        rank=processes.rank,
        world_size=processes.count,
    )
    loop = _GradientLoop(model, config, lanes, budget, seed, processes)
    best = _copy_tensors(model)
    evaluated = 0
    report = None
    try:
        for step, batches in enumerate(zip(*[iter(lanes)] * config.gradient_accumulation_steps, strict=False), 1):
            loss = loop.step(batches)
            progress = loop.progress(step, reserve=judge.seconds)
            report = loop.report(step, progress, batches[-1], loss)
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
            notes = report.notes + (judge.notes() if stopped else ())
            yield replace(report, **vars(verdict), stopped=stopped, notes=notes)
            if stopped:
                break
    except ProcessLost as error:
        if report is None:
            raise
        yield _cut_short(report, judge, str(error).removesuffix("."), "another process ended")
    finally:
        loop.release()
        if judge.best < math.inf:
            model.load_state_dict(best)


class _GradientLoop:
    """The model, its optimizer and where they run; ``accelerate`` places the device and the precision."""

    def __init__(
        self, model: nn.Module, config: TrainingConfig, lanes: Lanes, budget: Budget, seed: int, processes: Processes
    ) -> None:
        self.model: Any = model
        self.processes = processes
        self.device, self.notes = find_device(config.device, model)
        self.form, self.threads = self._find_form(config, budget)
        self.place = f"{self.device}, {self.form.precision} mixed precision"
        self.autocast = autocast(self.device.type, self.form.precision)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.form.precision == "fp16")
        processes.share_weights(model)
        self.optimizers = make_optimizers(model, config)
        model.to(self.device).train()
        self.averaged = average_of(model, config.averaging)
        self.parameters = list(model.parameters())
        self.config, self.lanes, self.budget = config, lanes, budget
        self.started = time.monotonic()
        batches = math.ceil((budget.epochs or 0) * lanes.steps_per_epoch)
        self.total_steps = budget.steps or math.ceil(batches / config.gradient_accumulation_steps)
        self.state: State = None
        self.learning_rate = 0.0
        self.schedule_at = 0.0
        self.random = OwnRandom(seed + processes.rank, self.device.type)  # each process has dropout of its own

    def _find_form(self, config: TrainingConfig, budget: Budget) -> tuple[Form, Threads]:
        """Return the form that steps are taken in, and its threads, set; what the probe found becomes a note."""
        form, timings = plain_form(self.model, config, find_precision(config.precision, self.device.type)), []
        if self.device.type == "cpu" and self.processes.count == 1:
            timings = find_form(self.model, form, config, probe_seconds(budget))
        if timings:
            form, self.notes = timings[0].form, (*self.notes, describe_timings(timings))
        if isinstance(self.model, SupportsImplementations) and form.implementation is not None:
            self.model.use_implementation(form.implementation)
        one = next((config.batch_size * config.bptt / each.tokens_per_second for each in timings if each.form.threads == 1), None)
        return form, Threads(form.threads, one)

    def step(self, batches: Sequence[Batch]) -> Tensor:
        """Take one optimizer step on consecutive batches and return the loss, nats per token: the mean over all their targets."""
        start = time.monotonic()
        self.learning_rate = self.config.learning_rate * linear_decay(self.schedule_at, self.config.warmup)
        set_learning_rate(self.optimizers, self.learning_rate)
        self.model.zero_grad()
        targets = sum(int((batch.targets != IGNORED).sum()) for batch in batches)
        loss = sum((self._descend(batch, targets) for batch in batches), torch.zeros((), device=self.device))
        loss = self.processes.average_gradients(self.parameters, loss, targets)
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
        is_sound = not self.scaler.is_enabled() or bool(norm.isfinite())  # fp16 waits for the device here, as its scaler does
        for optimizer in self.optimizers if is_sound else ():
            self.scaler.step(optimizer)
        self.scaler.update()
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)
        self.threads.record(time.monotonic() - start)
        return loss

    def _descend(self, batch: Batch, targets: int) -> Tensor:
        """Add a batch's share of the gradients of a step's loss, and return its share of that loss."""
        ids = to_device(batch.ids, self.device)
        state = self.model.initial_state(len(ids)) if self.state is None or batch.starts_epoch else self.state
        with self.random, self.autocast:  # dropout draws from the run's own random stream
            logits, state = self.model(ids, state)
        loss = cross_entropy(logits, to_device(batch.targets, self.device), targets)
        torch.autograd.backward(self.scaler.scale(loss))
        self.state = detach(state)
        return loss.detach()

    def report(self, step: int, progress: float, batch: Batch, loss: Tensor) -> Report:
        """Return what is worth saying of a step."""
        return Report(
            step=step,
            progress=progress,
            seconds=time.monotonic() - self.started,
            tokens=step * self.config.gradient_accumulation_steps * batch.ids.size * self.processes.count,
            epoch=batch.epoch,
            loss=loss,
            learning_rate=self.learning_rate,
            device=self.place,
            threads=self.threads.chosen,
            notes=self.notes if step == 1 else (),
        )

    def has_diverged(self, loss: Tensor, progress: float) -> bool:
        """Return whether the loss is no number; on an accelerator, reading it waits for the device, so at the end only."""
        return (self.device.type == "cpu" or progress >= 1) and not math.isfinite(float(loss))

    def progress(self, step: int, reserve: float) -> float:
        """Return how much of the budget is used, keeping so many seconds back for a last evaluation."""
        if self.budget.deadline is not None:
            whole = self.budget.deadline - reserve - self.started
            own = (time.monotonic() - self.started) / whole if whole > 0 else 1.0
            done = float(self.processes.gather([own])[0, 0])  # by the clock of the first process: all take the same steps
        else:
            done = step / max(1, self.total_steps)
        self.schedule_at = min(1.0, done)
        return self.schedule_at

    @property
    def kept(self) -> Any:
        """The model whose weights are judged and kept: the trained one, or the average of it."""
        return self.model if self.averaged is None else self.averaged.module

    def evaluate(self, judge: Judge) -> Verdict:
        """Evaluate the model as it stands and let it write."""
        self.kept.eval()
        try:
            with self.autocast:
                return judge.evaluate(self.kept, str(self.device))
        finally:
            self.kept.train()

    def release(self) -> None:
        """Give the model back as it came, on the CPU, and in evaluation mode."""
        self.threads.restore()
        self.model.to("cpu").eval()


def detach(state: State) -> State:
    """Return a state cut off from its past, so that gradients end there."""
    return tuple(detach(part) for part in state) if isinstance(state, tuple) else state.detach()


def _copy_tensors(model: nn.Module) -> Mapping[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}


def _diverged(report: Report, judge: Judge) -> Report:
    """Return the last report of a run whose loss is no number any more; see ``_cut_short``."""
    lower = f"lower training.learning_rate (now {report.learning_rate:g})"
    return _cut_short(report, judge, f"The loss is {report.nats_per_token} at step {report.step}: {lower}", "diverged")


def _cut_short(report: Report, judge: Judge, said: str, stopped: str) -> Report:
    """Return the last report of a run that cannot go on.

    Raises:
        TrainingError: No evaluation came before, so there are no good weights to keep.
    """
    if judge.best == math.inf:
        raise TrainingError(f"{said}.")
    notes = (f"{said}; the best weights so far are kept.",)
    return replace(report, evaluation=None, copy_rate=None, is_best=False, sample=None, notes=notes, stopped=stopped)


def _why_stop(progress: float, judge: Judge, budget: Budget) -> str | None:
    if progress >= 1:
        return "all steps taken" if budget.deadline is None else "budget spent"
    return "early: no more gain on held-out text" if judge.without_gain >= judge.config.patience else None
