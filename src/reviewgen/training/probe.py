"""The half second at the start: in which form a step of this model is fastest on this machine.

A form is a number of threads, a precision and, where the model has several, an implementation of its layers. Small matrices
gain little from a second thread, 16-bit products gain only where the processor has instructions for them, and torch's layer is
not the fastest at every shape. The steps are taken by a copy: the model and the global random state stay as they are.
"""

import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from reviewgen.protocols import SupportsImplementations
from reviewgen.training.config import Budget, TrainingConfig
from reviewgen.training.device import OwnRandom, autocast, using_threads
from reviewgen.training.loss import cross_entropy

__all__ = [
    "ExecutionConfig",
    "Timing",
    "autotune",
    "default_execution",
    "describe_timings",
    "keep_threads",
    "measure_throughput",
    "probe_seconds",
]

SECONDS = 0.5
_STEP_SECONDS = 0.03  # of one timed step: a long batch is cut
_SHORTEST = 8  # time steps
_ALL = 1 << 16
_SHARE = 20
_GAIN = 1.05  # a form must be that much faster than the plainer one before it


@dataclass(frozen=True)
class ExecutionConfig:
    """How steps are computed."""

    threads: int
    precision: str  # "bf16", "fp16", or "no" for 32 bits throughout
    implementation: str | None = None  # of a model that has several


@dataclass(frozen=True)
class Timing:
    """What one form reached: tokens a second, forward and backward, without the optimizer."""

    form: ExecutionConfig
    tokens_per_second: float


def probe_seconds(budget: Budget) -> float:
    """Return how long a run may look: half a second, and no more than a twentieth of what is left of its time."""
    left = SECONDS * _SHARE if budget.deadline is None else max(0.0, budget.deadline - time.monotonic())
    return min(SECONDS, left / _SHARE)


def default_execution(model: nn.Module, config: TrainingConfig, precision: str) -> ExecutionConfig:
    """Return the form that nothing has been tried for: all threads, this precision, the first implementation."""
    several = model.implementations() if isinstance(model, SupportsImplementations) else (None,)
    return ExecutionConfig(min(config.threads or _ALL, torch.get_num_threads()), precision, several[0])


def keep_threads(config: TrainingConfig, processes: int) -> TrainingConfig:
    """Return settings that leave the number of threads to the launcher where it has started several processes."""
    return config if processes == 1 or config.threads else replace(config, threads=torch.get_num_threads())


def autotune(model: nn.Module, plain: ExecutionConfig, config: TrainingConfig, seconds: float = SECONDS) -> list[Timing]:
    """Return the timings of forms of a model on the CPU, the fastest first; none where the settings leave one only.

    One thread comes first: where other programs hold a core, several that wait for one another may take fifty times as long.

    Args:
        model: The model.
        plain: The form to begin with.
        config: Says the batch of a step, and which of threads and precision are settled.
        seconds: When to stop trying; a form whose turn has not come is left out, but for all threads.
    """
    settled = {"threads": config.threads > 0, "implementation": False, "precision": config.precision != "auto"}
    may_vary = [what for what, is_settled in settled.items() if not is_settled]
    if not any(list(_others(model, plain, what)) for what in may_vary):
        return []
    plain = replace(plain, threads=1) if "threads" in may_vary else plain
    batch = config.batch_size, config.bptt
    trial, until = copy.deepcopy(model).train(), time.monotonic() + seconds
    with OwnRandom(0):
        batch = _cut(trial, plain, batch)
        best = Timing(plain, measure_throughput(trial, plain, batch))
        found = [best]
        for what in may_vary:
            for form in _others(model, best.form, what):
                if time.monotonic() > until and what != "threads":
                    break
                found.append(Timing(form, measure_throughput(trial, form, batch)))
            best = max(found, key=lambda timing: timing.tokens_per_second * (_GAIN if timing is best else 1))
    return [best, *(timing for timing in found if timing is not best)]


def describe_timings(timings: list[Timing]) -> str:
    """Return what a probe found, as a sentence."""
    best, *others = [f"{_spell(timing.form)}: {timing.tokens_per_second:,.0f}" for timing in timings]
    return f"Fastest of {len(timings)} forms, in tokens a second forward and backward: {best} ({'; '.join(others)})."


def _spell(form: ExecutionConfig) -> str:
    threads = f"{form.threads} thread{'s' if form.threads > 1 else ''}"
    bits = "32 bits" if form.precision == "no" else form.precision
    return ", ".join(filter(None, (threads, bits, form.implementation)))


def _others(model: nn.Module, form: ExecutionConfig, what: str) -> Iterator[ExecutionConfig]:
    """Yield the forms that differ from one in its threads, its implementation or its precision."""
    if what == "threads" and torch.get_num_threads() > 1:
        yield replace(form, threads=torch.get_num_threads())
    elif what == "implementation" and isinstance(model, SupportsImplementations):
        yield from (replace(form, implementation=name) for name in model.implementations() if name != form.implementation)
    elif what == "precision" and form.precision != "no":
        yield replace(form, precision="no")


def _cut(model: nn.Module, form: ExecutionConfig, batch: tuple[int, int]) -> tuple[int, int]:
    """Return B and a T so short that a step does not take long."""
    rows, length = batch
    short = min(length, _SHORTEST)
    seconds = rows * short / measure_throughput(model, form, (rows, short), most=1)
    return rows, max(short, min(length, int(short * _STEP_SECONDS / seconds)))


def measure_throughput(model: Any, form: ExecutionConfig, batch: tuple[int, int], most: int = 3) -> float:
    """Return tokens a second of the best of some steps after one that is not timed."""
    if isinstance(model, SupportsImplementations) and form.implementation is not None:
        model.use_implementation(form.implementation)
    ids = torch.randint(0, model.config.vocab_size, (batch[0], batch[1] + 1))
    best = 0.0
    with using_threads(form.threads):
        for number in range(most + 1):
            start = time.perf_counter()
            with autocast("cpu", form.precision):
                logits, _ = model(ids[:, :-1], model.initial_state(batch[0]))
            torch.autograd.backward(cross_entropy(logits, ids[:, 1:], batch[0] * batch[1]))
            if number:
                best = max(best, batch[0] * batch[1] / (time.perf_counter() - start))
    return best
